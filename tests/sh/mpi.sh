#!/bin/sh
# Attention over ranks of MPI: one to four of them, each with a shard of the keys and values. The example compares its
# result with double precision and with one machine.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tests/sh/lib.sh
. "$root/tests/sh/lib.sh"
cd "$root"

target=${CARGO_TARGET_DIR:-$root/target}/c-hosts
mkdir -p "$target/bin"

need_cmd gcc gcc
need_cmd mpicc libopenmpi-dev
need_cmd mpirun openmpi-bin
need_install

# The archive of tests/sh/c_hosts.sh.
nice cargo rustc --quiet --release --lib --crate-type staticlib --target-dir "$target/static" \
    --no-default-features --features capi,simd,panic-handler || die "cargo could not build the archive"
mpicc -std=c99 -Wall -Wextra -Werror -O1 -g -Iinclude ffi-examples/mpi/attention.c \
    "$target/static/release/libsubquad.a" -lm -o "$target/bin/attention_mpi" || die "mpicc"

# More ranks than cores, as root, in a container without access to the memory of other processes.
export OMPI_MCA_btl_vader_single_copy_mechanism=none
root_flag=
[ "$(id -u)" -ne 0 ] || root_flag=--allow-run-as-root
for ranks in 1 2 3 4; do
    line=$(timeout 60 mpirun $root_flag --oversubscribe -n "$ranks" "$target/bin/attention_mpi") ||
        die "$ranks ranks: $line"
    say "$line"
done
say "passed"
