#!/bin/sh
# AArch64 (NEON): builds the archive, links a C program with it statically, runs it
# under QEMU and prints its output.
#
#     tests/sh/aarch64.sh PROGRAM.c [ARGUMENT...]
#
# EXPECTED, if set, is a text that one line of the output must equal.  COUNT=1 runs
# with the counting plugin; the program marks regions with regions.h.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tests/sh/lib.sh
. "$root/tests/sh/lib.sh"

[ $# -ge 1 ] || die "usage: aarch64.sh PROGRAM.c [ARGUMENT...]"
source=$1
shift
[ -f "$source" ] || die "no file $source"

need_cross_rust
need_cmd aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
need_cmd qemu-aarch64 qemu-user
need_pkg libc6-dev-arm64-cross
if [ -n "${COUNT:-}" ]; then
    need_cmd gcc gcc
    need_pkg libc6-dev
fi
need_install

out=$cross_target_dir/aarch64
archive aarch64-unknown-linux-gnu "$out"

program=$out/$(basename "$source" .c)
# ISO mode also keeps GCC from fusing the program's own multiplications and additions.
aarch64-linux-gnu-gcc -std=c11 -O2 -Wall -Wextra -Werror -I"$CRATE_DIR/include" \
    -I"$root/ffi-examples/cortex-m" "$source" "$out/lib$CRATE_NAME.a" -static -lm \
    -o "$program" || die "$source does not link"

plugin=
if [ -n "${COUNT:-}" ]; then
    plugin="-plugin $out/libicount.so"
    gcc -O2 -std=c11 -Wall -Wextra -Werror -shared -fPIC -fvisibility=hidden \
        -o "$out/libicount.so" "$root/tests/qemu/icount.c" || die "the counting plugin does not build"
fi

status=0
# shellcheck disable=SC2086 # an option and its value
timeout 300 qemu-aarch64 $plugin "$program" "$@" </dev/null >"$out/stdout" || status=$?
cat "$out/stdout"
[ "$status" -eq 0 ] || die "$source exits with $status"
if [ -n "${EXPECTED:-}" ]; then
    grep -qxF -- "$EXPECTED" "$out/stdout" || die "no output line equals '$EXPECTED'"
fi
say "ok: $(basename "$source") exits with 0"
