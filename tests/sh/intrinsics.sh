#!/bin/sh
# No call to an intrinsic is left in the machine code: one that is not inlined costs a call per vector, and
# `#[inline(always)]` forgotten in a single kernel does that without any test noticing.
#
#     tests/sh/intrinsics.sh [BINARY | ARCHIVE]...
#
# Release programs or static archives, x86-64 or AArch64, with their symbols. Without an argument: the examples
# `every_kernel` and `tour`.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tests/sh/lib.sh
. "$root/tests/sh/lib.sh"

# What an intrinsic is called: its path as Rust writes it, or its bare name in x86 and NEON.
wrappers='core_arch|_mm(256|512)?_|[^a-z]v[a-z]+q?_(n_|lane_)?[fsu](16|32|64)'
# Asked once, by detection.
detection='_xgetbv|__cpuid'

default_programs() {
    (cd "$root" && nice cargo build --quiet --release --example every_kernel --example tour) ||
        die "the examples do not build"
    for name in every_kernel tour; do
        printf '%s\n' "${CARGO_TARGET_DIR:-$root/target}/release/examples/$name"
    done
}

# The disassembler that knows the file's machine.
disassembler() {
    case $(LC_ALL=C objdump -f "$1" 2>/dev/null | sed -n 's/.*file format //p' | sort -u | head -n 1) in
    elf64-x86-64) echo objdump ;;
    *) echo aarch64-linux-gnu-objdump ;;
    esac
}

need_cmd objdump binutils
need_install
# shellcheck disable=SC2046 # two words
[ $# -gt 0 ] || set -- $(default_programs)

calls=$(mktemp)
trap 'rm -f "$calls"' EXIT
for file in "$@"; do
    [ -f "$file" ] || die "no file $file"
    dump=$(disassembler "$file")
    need_cmd "$dump" binutils-aarch64-linux-gnu
    need_install
    # In an archive the target of a call is in the relocation on the next line, hence -r.
    # Jumps count too, as tail calls, unless they stay inside their function (`<name+0x...>`).
    "$dump" -dr --no-show-raw-insn "$file" |
        grep -E '[[:space:]](callq?|bl)[[:space:]]|[[:space:]](jmpq?|b)[[:space:]].*<[^+]*>|R_(X86_64_(PLT32|GOTPCREL)|AARCH64_(CALL|JUMP)26)' \
            >"$calls" || :
    count=$(grep -vc R_ "$calls" || :)
    [ "$count" -gt 0 ] || die "$file shows no call at all: no code, or no symbols"
    if left=$(grep -E "$wrappers" "$calls" | grep -vE "$detection"); then
        printf '%s\n' "$left" | sed 's/.*[<[:space:]]\([^<[:space:]]*\)$/    \1/' | sort | uniq -c | sort -rn >&2
        die "calls to intrinsics in $file"
    fi
    say "ok: $(basename "$file"), $count calls, none to an intrinsic"
done
