#!/bin/sh
# C and C++ hosts: builds the archive (no_std) and the shared library, compiles the examples with two compilers and all
# their language versions, runs them against both, looks for what a symbol table must not have, and asks valgrind. CMake
# and pkg-config find the library as a user's build would.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/tests/sh/lib.sh"
cd "$root"

: "${CLANG:=22}"
target=${CARGO_TARGET_DIR:-$root/target}/c-hosts
bin=$target/bin
mkdir -p "$bin"

need_cmd gcc gcc
need_cmd g++ g++
need_cmd "clang-$CLANG" "clang-$CLANG"
need_cmd valgrind valgrind
need_cmd cmake cmake
need_cmd pkg-config pkgconf
need_install

# library NAME TYPE FEATURES [CARGO-ARGUMENT...]: leaves the library in $target/NAME/release.
library() {
    name=$1 type=$2 features=$3
    shift 3
    nice cargo rustc --quiet --release --lib --crate-type "$type" --target-dir "$target/$name" \
        --no-default-features --features "$features" "$@" || die "cargo could not build the $name library"
}

# Names of the functions that the header declares, comments left out.
declared() {
    sed -e 's:^ *[/ ]\*.*::' include/subquad.h | grep -o 'subquad_[a-z0-9_]*(' | tr -d '(' | sort -u
}

same() {
    cmp -s "$1" "$2" || {
        diff "$1" "$2" >&2 || :
        die "$3"
    }
}

library static staticlib capi,simd,panic-handler
library shared cdylib capi,simd,std
archive=$target/static/release/libsubquad.a
shared=$target/shared/release/libsubquad.so

say "symbols"
declared >"$target/declared"
# Of the archive, the objects of the crate itself; the rest are compiler_builtins, which any linker drops.
nm -g --defined-only "$archive" 2>/dev/null | awk '$2 == "T" && $3 !~ /^_/' | awk '{ print $3 }' |
    grep '^subquad_' | sort -u >"$target/exported"
same "$target/declared" "$target/exported" "the archive exports another list than the header declares"
nm -D --defined-only "$shared" | awk '$2 == "T" { print $3 }' | sort -u >"$target/exported"
same "$target/declared" "$target/exported" "the shared library exports another list than the header declares"
undefined=$(nm "$archive" 2>/dev/null | awk '/^subquad-.*:$/ { ours = 1; next } /:$/ { ours = 0 }
    ours && $1 == "U" { print $2 }' | grep -Ev '^(mem(cpy|move|set|cmp)|bcmp|_GLOBAL_OFFSET_TABLE_)$' | sort -u || :)
[ -z "$undefined" ] || die "the archive needs more than the memory functions: $undefined"

say "no panic is reachable"
for level in 3 '"s"'; do
    library proof staticlib capi,simd,no-panic-proof --config "profile.release.opt-level=$level"
    if nm "$target/proof/release/libsubquad.a" 2>/dev/null | grep -q subquad_panic_is_reachable; then
        die "a panic is reachable at opt-level $level"
    fi
done

warnings="-Wall -Wextra -Wshadow -Wconversion -pedantic -Werror"

# host COMPILER STANDARD SOURCE [FLAG]: compiles, then runs against both libraries.
host() {
    out=$bin/$(basename "$3" | tr . _)-$(basename "$1")-$2
    # shellcheck disable=SC2086 # a list on purpose
    $1 -std="$2" $warnings -O1 -g ${4:-} -Iinclude "$3" "$archive" -lm -o "$out-static" || die "$1 -std=$2 $3"
    # shellcheck disable=SC2086
    $1 -std="$2" $warnings -O1 -g ${4:-} -Iinclude "$3" "$shared" -Wl,-rpath,"$(dirname "$shared")" -lm -o "$out-shared" ||
        die "$1 -std=$2 $3"
    for kind in static shared; do
        line=$("$out-$kind") || die "$out-$kind failed: $line"
        say "$1 $2 $kind: $line"
    done
}

for standard in c99 c11 c17; do
    for example in attention gradient head cache; do
        host gcc $standard ffi-examples/c/$example.c
        host "clang-$CLANG" $standard ffi-examples/c/$example.c
    done
done
for example in threads_pthreads threads_openmp; do
    for compiler in gcc "clang-$CLANG"; do
        # Debian's clang brings no OpenMP of its own.
        case $example-$compiler in
        threads_openmp-clang*) continue ;;
        threads_openmp-*) threads=-fopenmp ;;
        *) threads=-pthread ;;
        esac
        OMP_NUM_THREADS=4 host "$compiler" c99 "ffi-examples/c/$example.c" $threads
        OMP_NUM_THREADS=4 host "$compiler" c11 "ffi-examples/c/$example.c" $threads
    done
done
for standard in c++17 c++20; do
    host g++ $standard ffi-examples/cpp/attention.cpp
    host "clang++-$CLANG" $standard ffi-examples/cpp/attention.cpp
done

say "cmake, with this archive and with one that cargo makes for it"
for given in "$archive" ""; do
    build=$target/cmake${given:+-given}
    rm -f "$build/CMakeCache.txt"
    cmake -S ffi-examples -B "$build" -DSUBQUAD_ARCHIVE="$given" >"$build.log" 2>&1 &&
        nice cmake --build "$build" >>"$build.log" 2>&1 &&
        ctest --test-dir "$build" --no-tests=error >>"$build.log" 2>&1 || {
        cat "$build.log" >&2
        die "cmake ${given:+with a given archive}"
    }
done

say "pkg-config, from where cmake installs to"
rm -rf "$target/prefix"
cmake --install "$build" --prefix "$target/prefix" >"$target/install.log" || die "cmake --install"
flags=$(PKG_CONFIG_PATH=$target/prefix/lib/pkgconfig pkg-config --cflags --libs subquad) || die "pkg-config"
# shellcheck disable=SC2086 # a list on purpose
gcc -std=c99 ffi-examples/c/attention.c $flags -lm -o "$bin/attention_c-pkg-config" || die "gcc with pkg-config"
"$bin/attention_c-pkg-config" 64 32 >/dev/null || die "attention_c-pkg-config"

say "valgrind (it hides AVX-512)"
for program in attention_c-gcc-c99-static gradient_c-gcc-c99-static head_c-gcc-c99-static cache_c-gcc-c99-static \
    attention_cpp-g++-c++17-static; do
    valgrind --quiet --error-exitcode=9 --partial-loads-ok=no --leak-check=full "$bin/$program" 48 21 ||
        die "valgrind: $program"
done

say "helgrind: no two tasks write to the same place"
valgrind --quiet --tool=helgrind --error-exitcode=9 "$bin/threads_pthreads_c-gcc-c11-static" 3 ||
    die "helgrind: threads_pthreads"

say "speed"
for n in 4096 128; do
    "$bin/attention_c-gcc-c99-static" $n 64
done
say "passed"
