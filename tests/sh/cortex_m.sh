#!/bin/sh
# Cortex-M4F: builds the archive, runs the firmware example under QEMU with
# executed-instruction counts, and holds two entries to their limits, the lean one
# for one head and the whole operator: calls only mem*, no f64 arithmetic, no
# panic machinery, small code, small stack, few instructions.
#
#     tests/sh/cortex_m.sh
#
# The other boards of mps2.ld run with other BOARD, CPU_FLAGS and RUST_TARGET.
# shellcheck disable=SC2086 # flags are lists
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tests/sh/lib.sh
. "$root/tests/sh/lib.sh"

: "${HEAD:=subquad_attention_head subquad_attention_head_need}"
: "${OPERATOR:=subquad_attention_forward subquad_attention_forward_need}"
: "${FIRMWARE_MAIN:=$root/ffi-examples/cortex-m/main.c}"
: "${BOARD:=mps2-an386}"
: "${CPU_FLAGS:=-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16}"
: "${RUST_TARGET:=thumbv7em-none-eabihf}"
: "${MAY_CALL:=memcpy}" # calls allowed besides mem*, a pattern; a core without FPU needs some
# For one head, at opt-level s with one lane: the smallest image.
: "${MAX_CODE:=4096}" # bytes of text and rodata
: "${MAX_STACK:=512}" # bytes below the caller's stack pointer
# For one head, at opt-level 3: the fastest.
: "${MAX_INSTRUCTIONS:=222000}" # 32 queries and keys of size 32; a naive C loop takes 484 387
: "${MAX_FAST_STACK:=600}"
# The whole operator, at whichever level is worse: what was reached, so that it does not grow.
: "${MAX_OPERATOR_CODE:=19500}"
: "${MAX_OPERATOR_STACK:=3072}"

need_cross_rust
need_cmd gcc gcc
need_cmd qemu-system-arm qemu-system-arm
need_cmd arm-none-eabi-gcc gcc-arm-none-eabi
need_pkg libc6-dev libnewlib-arm-none-eabi
need_install

here=$root/ffi-examples/cortex-m
out=$cross_target_dir/cortex-m
mkdir -p "$out"

# none_of PATTERN FILE MESSAGE: no symbol listed in FILE may match.
none_of() {
    if grep -E "$1" "$2" >&2; then
        die "$3"
    fi
}

# at_most NUMBER LIMIT WHAT
at_most() {
    [ "$1" -le "$2" ] || die "$1 $3, at most $2 allowed"
}

# counted REGION NAME: a count of one region of the last run.
counted() {
    grep '^insn=' "$out/$level/stderr" | sed -n "$1s/.*$2=\([0-9]*\).*/\1/p"
}

# run_firmware LEVEL: links the example, runs it, prints the counts. Region 1 is the head, region 2 the operator.
run_firmware() {
    arm-none-eabi-gcc $CPU_FLAGS $firmware_flags -std=c11 -O2 -Wall -Wextra -Werror \
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
    head_instructions=$(counted 1 insn)
    head_stack=$(counted 1 stack)
    operator_stack=$(counted 2 stack)
    [ -n "$head_stack" ] && [ -n "$operator_stack" ] || die "the firmware lacks a counted region (opt-level $1)"
}

# check_symbols LEVEL ENTRIES: what the entries reach, first in the crate's own
# object alone, then in a complete image without a C library.
check_symbols() {
    undefined_flags= # -u NAME pulls NAME in and is a root for --gc-sections
    for entry in $2; do
        undefined_flags="$undefined_flags -Wl,-u,$entry"
    done
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
    for entry in $2; do
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

# measure LEVEL NAME: sets code to what the entries of the last check add to the empty probe.
measure() {
    link_probe "$1" empty ""
    code_re='^[.](text|rodata|ARM[.]ex)'
    data_re='^[.](data|bss)'
    code=$(($(section_bytes "$out/$1/probe.elf" "$code_re") - $(section_bytes "$out/$1/empty.elf" "$code_re")))
    data=$(($(section_bytes "$out/$1/probe.elf" "$data_re") - $(section_bytes "$out/$1/empty.elf" "$data_re")))
    say "opt-level $1, $2: $code bytes of code and constants, $data of data"
    [ "$data" -eq 0 ] || die "$data bytes of data"
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

for level in 3 s; do
    # shellcheck disable=SC2046 # no word at all for level 3
    # Small code is one lane wide, and the header wants to know.
    firmware_flags=
    [ "$level" = 3 ] || {
        EXTRA_FEATURES=compact
        firmware_flags=-DSUBQUAD_COMPACT
    }
    archive "$RUST_TARGET" "$out/$level" $(opt_level "$level")
    run_firmware "$level"
    check_symbols "$level" "$OPERATOR"
    measure "$level" "the operator"
    operator_code=$code
    check_symbols "$level" "$HEAD"
    measure "$level" "one head"
    at_most "$operator_stack" "$MAX_OPERATOR_STACK" "bytes of stack for the operator at opt-level $level"
    if [ "$level" = 3 ]; then
        fast="$head_instructions instructions, $head_stack bytes of stack"
        at_most "$head_instructions" "$MAX_INSTRUCTIONS" "instructions for one head at opt-level $level"
        at_most "$head_stack" "$MAX_FAST_STACK" "bytes of stack for one head at opt-level $level"
    else
        at_most "$code" "$MAX_CODE" "bytes of code for one head at opt-level $level"
        at_most "$head_stack" "$MAX_STACK" "bytes of stack for one head at opt-level $level"
        at_most "$operator_code" "$MAX_OPERATOR_CODE" "bytes of code for the operator at opt-level $level"
    fi
done

say "ok on $BOARD, one head at opt-level 3: $fast (limits $MAX_INSTRUCTIONS, $MAX_FAST_STACK)"
say "ok on $BOARD, one head at opt-level s: $code bytes of code, $head_stack of stack (limits $MAX_CODE, $MAX_STACK)"
