#!/bin/sh
# Cortex-M4F: builds the archive, runs the firmware example under QEMU with
# executed-instruction counts, and holds the attention entry to its limits: calls
# only mem*, no f64 arithmetic, no panic machinery, small code, small stack.
#
#     tests/sh/cortex_m.sh
#
# The other boards of mps2.ld run with other BOARD, CPU_FLAGS and RUST_TARGET.
# shellcheck disable=SC2086 # flags are lists
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tests/sh/lib.sh
. "$root/tests/sh/lib.sh"

: "${ENTRIES:=subquad_attention_forward subquad_attention_forward_need}"
: "${FIRMWARE_MAIN:=$root/ffi-examples/cortex-m/main.c}"
: "${BOARD:=mps2-an386}"
: "${CPU_FLAGS:=-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16}"
: "${RUST_TARGET:=thumbv7em-none-eabihf}"
: "${MAY_CALL:=memcpy}" # calls allowed besides mem*, a pattern; a core without FPU needs some
# What was reached, so that it does not grow. The aims are 4096 and 512: the whole operator is behind one entry.
: "${MAX_CODE:=20500}" # bytes of text and rodata behind ENTRIES at opt-level s, one lane
: "${MAX_STACK:=3000}" # bytes below the caller's stack pointer

need_cross_rust
need_cmd gcc gcc
need_cmd qemu-system-arm qemu-system-arm
need_cmd arm-none-eabi-gcc gcc-arm-none-eabi
need_pkg libc6-dev libnewlib-arm-none-eabi
need_install

here=$root/ffi-examples/cortex-m
out=$cross_target_dir/cortex-m
mkdir -p "$out"

undefined_flags= # -u NAME pulls NAME in and is a root for --gc-sections
for entry in $ENTRIES; do
    undefined_flags="$undefined_flags -Wl,-u,$entry"
done

# none_of PATTERN FILE MESSAGE: no symbol listed in FILE may match.
none_of() {
    if grep -E "$1" "$2" >&2; then
        die "$3"
    fi
}

# run_firmware LEVEL: links the example, runs it, prints the counts.
run_firmware() {
    arm-none-eabi-gcc $CPU_FLAGS -std=c11 -O2 -Wall -Wextra -Werror \
        -ffunction-sections -fdata-sections -I"$here" -I"$CRATE_DIR/include" \
        "$here/startup.c" "$FIRMWARE_MAIN" "$out/$1/lib$CRATE_NAME.a" \
        -nostartfiles -T "$here/mps2.ld" --specs=rdimon.specs \
        -Wl,--gc-sections -Wl,-z,noexecstack -lm -o "$out/$1/firmware.elf" ||
        die "the firmware does not link (opt-level $1)"
    status=0
    timeout 120 qemu-system-arm -M "$BOARD" -nographic -monitor none -serial none \
        -semihosting-config enable=on,target=native \
        -plugin "$out/libicount.so" -kernel "$out/$1/firmware.elf" \
        </dev/null >"$out/$1/stdout" 2>"$out/$1/stderr" || status=$?
    sed "s/^/  [$1] /" "$out/$1/stdout"
    grep '^insn=' "$out/$1/stderr" | awk -v level="$1" \
        '{ printf "  [%s] region %d: %s\n", level, NR, $0 }'
    grep -v '^insn=' "$out/$1/stderr" >&2 || :
    [ "$status" -ne 124 ] || die "the firmware hangs (opt-level $1)"
    [ "$status" -ne 99 ] || die "the firmware faults (opt-level $1)"
    [ "$status" -eq 0 ] || die "the firmware exits with $status (opt-level $1)"
    stack=$(awk '/^insn=/ { sub(/.*stack=/, ""); if ($0 + 0 > max) max = $0 + 0; n++ }
        END { if (n) print max + 0 }' "$out/$1/stderr")
    [ -n "$stack" ] || die "the firmware has no counted region (opt-level $1)"
    [ "$stack" -le "$MAX_STACK" ] ||
        die "$stack bytes of stack, at most $MAX_STACK allowed (opt-level $1)"
}

# check_symbols LEVEL: what ENTRIES reach, first in the crate's own object alone,
# then in a complete image without a C library.
check_symbols() {
    dir=$out/$1/object
    rm -rf "$dir"
    mkdir -p "$dir"
    (cd "$dir" && arm-none-eabi-ar x "../lib$CRATE_NAME.a")
    # Only the crate's object: with compiler_builtins at hand every helper would resolve.
    arm-none-eabi-gcc $CPU_FLAGS -nostdlib -r -Wl,--gc-sections $undefined_flags \
        "$dir/$CRATE_NAME"-*.o -o "$out/$1/reached.o" ||
        die "no partial link of the crate's object (opt-level $1)"
    # The linker keeps the undefined symbols of dropped sections; strip does not.
    arm-none-eabi-strip --strip-unneeded "$out/$1/reached.o"
    arm-none-eabi-nm "$out/$1/reached.o" >"$out/$1/reached.txt"
    for entry in $ENTRIES; do
        grep -q " T $entry\$" "$out/$1/reached.txt" || die "the archive does not define $entry"
    done
    awk -v may="^((__aeabi_)?mem(cpy|move|set|clr|cmp)[48]?|$MAY_CALL)\$" \
        '$1 == "U" && $2 !~ may { print }' \
        "$out/$1/reached.txt" >"$out/$1/undefined.txt"
    none_of . "$out/$1/undefined.txt" "calls out of the archive other than mem* (opt-level $1)"

    link_probe "$1" probe "$undefined_flags"
    arm-none-eabi-nm "$out/$1/probe.elf" >"$out/$1/probe.txt"
    none_of ' (__aeabi_(c?d|[filu]+2d)|__[a-z]+df)[^ ]*$' "$out/$1/probe.txt" \
        "f64 helpers (opt-level $1)"
    none_of 'panic|unwind|core[0-9:]+fmt|eh_personality' "$out/$1/probe.txt" \
        "panic machinery (opt-level $1)"
}

# link_probe LEVEL NAME FLAGS
link_probe() {
    arm-none-eabi-gcc $CPU_FLAGS -std=c11 -Os -Wall -Wextra -Werror -ffreestanding \
        -fno-tree-loop-distribute-patterns -ffunction-sections -nostdlib \
        -Wl,--gc-sections -Wl,-z,noexecstack -Wl,-e,probe_start $3 $mem_flags \
        "$here/size_probe.c" "$out/$1/lib$CRATE_NAME.a" -o "$out/$1/$2.elf" ||
        die "the size probe does not link (opt-level $1)"
}

# section_bytes FILE SECTION-PATTERN
section_bytes() {
    arm-none-eabi-size -A "$1" | awk -v want="$2" '$1 ~ want { n += $2 } END { print n + 0 }'
}

# measure LEVEL: sets code and data to what ENTRIES add to the empty probe.
measure() {
    link_probe "$1" empty ""
    code_re='^[.](text|rodata|ARM[.]ex)'
    data_re='^[.](data|bss)'
    code=$(($(section_bytes "$out/$1/probe.elf" "$code_re") - $(section_bytes "$out/$1/empty.elf" "$code_re")))
    data=$(($(section_bytes "$out/$1/probe.elf" "$data_re") - $(section_bytes "$out/$1/empty.elf" "$data_re")))
    say "opt-level $1: $code bytes of code and constants, $data of data, $stack of stack"
}

# Kept in both probe images, so that their difference is the library's alone.
mem_flags=
for name in memcpy memmove memset memcmp; do
    mem_flags="$mem_flags -Wl,-u,$name"
done
for name in memcpy memmove memset memclr; do
    for align in '' 4 8; do
        mem_flags="$mem_flags -Wl,-u,__aeabi_$name$align"
    done
done

gcc -O2 -std=c11 -Wall -Wextra -Werror -shared -fPIC -fvisibility=hidden \
    -o "$out/libicount.so" "$root/tests/qemu/icount.c" || die "the counting plugin does not build"

most_stack=0
for level in 3 s; do
    # shellcheck disable=SC2046 # no word at all for level 3
    # Small code is one lane wide.
    [ "$level" = 3 ] || EXTRA_FEATURES=compact
    archive "$RUST_TARGET" "$out/$level" $(opt_level "$level")
    run_firmware "$level"
    check_symbols "$level"
    measure "$level"
    [ "$stack" -le "$most_stack" ] || most_stack=$stack
done
[ "$code" -le "$MAX_CODE" ] || die "$code bytes of code at opt-level s, at most $MAX_CODE allowed"

say "ok on $BOARD: $code bytes at opt-level s (limit $MAX_CODE), $most_stack bytes of stack (limit $MAX_STACK)"
