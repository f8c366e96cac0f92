#!/bin/sh
# The full counts: every f32 through exp, tanh and the softmax weight, a third of 2^32 angles through cos and sin, 100 000
# random problems for the bits, 20 000 for the semantics, a million appends and evictions of a cache; and a race against
# attention composed of other crates. Ten minutes or so on two cores; the last output is kept under benches/records.
#
#     sh tests/long.sh | tee benches/records/long.txt
set -eu
cd "$(dirname "$0")/.."
export SUBQUAD_LONG=1
cargo test --features emulation --lib sweep -- --nocapture
cargo test --features emulation --test ulp -- --nocapture
cargo test --features emulation --test bits -- --nocapture
cargo test --features emulation --test semantics -- --nocapture
cargo test --test cache -- --nocapture
cargo run --release --manifest-path peers/Cargo.toml
