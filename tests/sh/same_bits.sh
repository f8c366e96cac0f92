#!/bin/sh
# One fixed set of problems, five machines: this one, AArch64 under QEMU, a Cortex-M4F under QEMU and WebAssembly under
# node print the same hash per arithmetic class. exp and tanh run over every 257th f32.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tests/sh/lib.sh
. "$root/tests/sh/lib.sh"
need_cross_rust
need_cmd gcc gcc
need_cmd qemu-aarch64 qemu-user
need_cmd qemu-system-arm qemu-system-arm
need_cmd arm-none-eabi-gcc gcc-arm-none-eabi
need_cmd aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
need_cmd node nodejs
need_cmd llvm-objdump-22 llvm-22
need_pkg libnewlib-arm-none-eabi libc6-dev-arm64-cross rust-web-llvm
need_install

program=$root/tests/qemu/same_bits.c
out=$cross_target_dir/same_bits
mkdir -p "$out"

(cd "$CRATE_DIR" && cargo rustc --quiet --release --lib --crate-type staticlib --no-default-features \
    --features capi,simd,panic-handler --target-dir "$out/host")
gcc -std=c11 -O2 -Wall -Wextra -Werror "$program" "$out/host/release/lib$CRATE_NAME.a" -o "$out/same_bits"
host=$("$out/same_bits") || die "$host"
say "host:    $(echo $host)"
strict=$(echo "$host" | grep strict)

EXPECTED=$strict sh "$root/tests/sh/aarch64.sh" "$program"
grep -qxF "$(echo "$host" | grep fused)" "$cross_target_dir/aarch64/stdout" || die "NEON differs from the fused class"

build_lib cdylib wasm32-unknown-unknown "$cross_target_dir/wasm"
# Equal bits mean little if the module fell back to scalar code.
llvm-objdump-22 -d "$cross_target_dir/wasm/$CRATE_NAME.wasm" | grep -q '[[:space:]]f32x4[.]' ||
    die "the module has no f32x4 instruction"
wasm=$(node "$root/tests/qemu/same_bits.mjs" "$cross_target_dir/wasm/$CRATE_NAME.wasm") || die "wasm does not run"
say "wasm:    $wasm"
[ "$wasm" = "$strict" ] || die "wasm differs from the strict class"

for features in "" compact; do
    EXTRA_FEATURES=$features archive thumbv7em-none-eabihf "$out/m4f"
    arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 -std=c11 -O2 -Wall -Wextra -Werror \
        "$root/ffi-examples/cortex-m/startup.c" "$program" "$out/m4f/lib$CRATE_NAME.a" -nostartfiles \
        -T "$root/ffi-examples/cortex-m/mps2.ld" --specs=rdimon.specs -Wl,--gc-sections -o "$out/m4f.elf"
    m4f=$(timeout 300 qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none \
        -semihosting-config enable=on,target=native -kernel "$out/m4f.elf" </dev/null) || die "M4F: $m4f"
    say "m4f:     $m4f ${features:+($features)}"
    [ "$m4f" = "$strict" ] || die "the Cortex-M4F differs from the strict class"
done
say "ok: one hash per class on x86-64, AArch64, WebAssembly and Cortex-M4F"
