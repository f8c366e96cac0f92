#!/bin/sh
# The gate: everything that must hold before a change lands, with reduced trial counts. `tests/long.sh` has the full ones.
#
#     sh tests/all.sh
#
# As root on Debian it installs what is missing; otherwise it says what that is.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=tests/sh/lib.sh
. "$root/tests/sh/lib.sh"

need_cross_rust
need_cmd gcc gcc
need_cmd g++ g++
need_cmd clang-22 clang-22
need_cmd valgrind valgrind
need_cmd cmake cmake
need_cmd pkg-config pkgconf
need_cmd objdump binutils
need_cmd qemu-system-arm qemu-system-arm
need_cmd qemu-aarch64 qemu-user
need_cmd arm-none-eabi-gcc gcc-arm-none-eabi
need_cmd aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
need_cmd node nodejs
need_cmd mpicc libopenmpi-dev
need_cmd mpirun openmpi-bin
need_pkg libc6-dev libnewlib-arm-none-eabi libc6-dev-arm64-cross lld-22 llvm-22 rust-web-llvm
need_install

started=$(date +%s)
step() {
    now=$(date +%s)
    printf '\n=== %s (%s s)\n' "$*" "$((now - started))"
    "$@"
}

step cargo fmt --check
step cargo clippy --quiet --all-targets --features emulation,capi,parallel,rand -- -D warnings
step cargo clippy --quiet -- -D warnings
step cargo clippy --quiet --no-default-features --features capi -- -D warnings
step cargo test --quiet --features emulation,capi,parallel,rand
# Without std, and without the hand-written back ends: what the portable code says must be the same.
step cargo test --quiet --no-default-features --test onnx --test semantics
step sh tests/sh/intrinsics.sh
step sh tests/sh/c_hosts.sh
step sh tests/sh/mpi.sh
step sh tests/sh/cortex_m.sh
step sh tests/sh/same_bits.sh
now=$(date +%s)
printf '\nall.sh: every step passed in %s s\n' "$((now - started))"
