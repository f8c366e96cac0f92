#!/bin/sh
# No exported function can reach a panic: with feature no-panic-proof a reachable one leaves an undefined symbol.
# The proof holds for the profile it is made with, so it is made for both that ship.
set -eu
cd "$(dirname "$0")/../.."
for level in 3 '"s"'; do
    cargo rustc --quiet --release --lib --crate-type staticlib --no-default-features \
        --features capi,simd,no-panic-proof --target-dir target/proof --config "profile.release.opt-level=$level"
    if nm target/proof/release/libsubquad.a 2>/dev/null | grep subquad_panic_is_reachable; then
        echo "panic_free.sh: FAILED: a panic is reachable at opt-level $level" >&2
        exit 1
    fi
done
echo "panic_free.sh: ok: no panic is reachable at opt-level 3 and s"
