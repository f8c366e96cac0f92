//! `unsafe` stays where it belongs, in the amounts written here, and says why it is sound.
//!
//! To change a number is to say in a review that more (or less) is needed. A failure prints what it counted.

mod source;

use source::{files, line_of, words, Source};

/// Uses of `unsafe` per file: blocks, functions, impls and attributes such as `unsafe(no_mangle)`.
///
/// Files of `src/ffi` are added here with the count that the failing test prints: one line each.
const BUDGET: &[(&str, usize)] = &[
    ("src/ffi/attention.rs", 40),
    ("src/ffi/bound.rs", 11),
    ("src/ffi/cache.rs", 18),
    ("src/ffi/cache/attend.rs", 18),
    ("src/ffi/cache/open.rs", 9),
    ("src/ffi/gradient.rs", 12),
    ("src/ffi/head.rs", 10),
    ("src/ffi/info.rs", 5),
    ("src/ffi/kernels.rs", 20),
    ("src/ffi/mod.rs", 20),
    ("src/ffi/panic.rs", 2),
    ("src/ffi/rotary.rs", 3),
    ("src/ffi/rules.rs", 6),
    ("src/ffi/tasks.rs", 30),
    ("src/scratch.rs", 2),
    ("src/simd/avx2.rs", 23),
    ("src/simd/avx512.rs", 20),
    ("src/simd/isa.rs", 4),
    ("src/simd/neon.rs", 22),
    ("src/simd/wasm.rs", 4),
];

/// Lines above `unsafe {` within which its reason must begin.
const NEAR: usize = 6;

fn may_be_unsafe(path: &str) -> bool {
    // src/lib.rs has nothing to be unsafe but its panic handler.
    path == "src/scratch.rs" || path == "src/lib.rs" || path.starts_with("src/simd/") || path.starts_with("src/ffi")
}

fn uses(file: &Source) -> usize {
    words(&file.code, "unsafe").count()
}

#[test]
fn unsafe_is_where_it_belongs() {
    let astray: Vec<_> = files("src", &["rs"])
        .into_iter()
        .filter(|file| uses(file) > 0 && !may_be_unsafe(&file.path))
        .map(|file| file.path)
        .collect();
    assert!(astray.is_empty(), "unsafe in {astray:?}");
}

#[test]
fn unsafe_is_as_much_as_the_budget_says() {
    let counted: Vec<_> = files("src", &["rs"])
        .into_iter()
        .map(|file| (uses(&file), file.path))
        .filter(|(n, _)| *n > 0)
        .map(|(n, path)| (path, n))
        .collect();
    let budget: Vec<_> = BUDGET.iter().map(|(path, n)| (path.to_string(), *n)).collect();
    assert_eq!(counted, budget, "left: counted, right: the budget");
}

#[test]
fn every_unsafe_block_has_a_reason() {
    let mut blocks = 0;
    for file in files("src", &["rs"]) {
        let lines: Vec<&str> = file.text.lines().collect();
        for at in words(&file.code, "unsafe") {
            let rest = file.code[at + "unsafe".len()..].trim_start();
            if !rest.starts_with('{') {
                continue;
            }
            blocks += 1;
            let line = line_of(&file.code, at);
            let reason = lines[line.saturating_sub(NEAR)..=line]
                .iter()
                .any(|l| l.contains("// SAFETY:"));
            assert!(reason, "{}:{} has no SAFETY comment", file.path, line + 1);
        }
    }
    // The scratch and the two AVX tokens of `dispatch!` at least: otherwise the search is broken.
    assert!(blocks >= 5, "{blocks} blocks");
}
