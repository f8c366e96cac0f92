#!/bin/sh
# WebAssembly: builds the module with 128-bit SIMD, calls one exported function
# under node and prints its integer result as hex.
#
#     tests/sh/wasm.sh FUNCTION [EXPECTED-HEX [INTEGER...]]
#
# With EXPECTED-HEX (not empty) a different result fails.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tests/sh/lib.sh
. "$root/tests/sh/lib.sh"

[ $# -ge 1 ] || die "usage: wasm.sh FUNCTION [EXPECTED-HEX [INTEGER...]]"
function=$1
expected=${2:-}
shift
[ $# -eq 0 ] || shift

need_cross_rust
need_cmd rust-lld rust-web-llvm # rustc calls it to link the module
need_cmd llvm-objdump-22 llvm-22
need_cmd node nodejs
need_install

out=$cross_target_dir/wasm
build_lib cdylib wasm32-unknown-unknown "$out"
module=$out/$CRATE_NAME.wasm

# Equal bits mean little if the module fell back to scalar code.
llvm-objdump-22 -d "$module" >"$out/disassembly.txt"
vectors=$(grep -c '[[:space:]]f32x4[.]' "$out/disassembly.txt" || :)
[ "$vectors" -gt 0 ] || die "the module has no f32x4 instruction"

result=$(timeout 120 node "$root/tests/qemu/run_wasm.mjs" "$module" "$function" "$@") ||
    die "$function does not run"
if [ -n "$expected" ] && [ "$result" != "$expected" ]; then
    die "$function = $result, expected $expected"
fi
say "ok: $function = $result ($(wc -c <"$module") bytes, $vectors f32x4 instructions)"
