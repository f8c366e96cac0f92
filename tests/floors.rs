//! The floors of the house: a module uses only what lies below it, in files that fit a sitting.

mod source;

use source::{code, files, line_of, words};

/// Floor by floor, from the ground. A new module is added here.
const FLOORS: &[(u8, &[&str])] = &[
    (0, &["error", "bound", "half", "real"]),
    (1, &["view", "scratch", "math"]),
    (2, &["simd"]),
    (3, &["kernels", "report"]),
    (5, &["moment"]),
    (6, &["attention"]),
    (8, &["ffi"]),
];

/// Narrower than the floors: of the mathematics the back ends may use the coefficients only.
const NARROW: &[(&str, &str, &str)] = &[("simd", "math", "poly")];

/// The longest file, tests and examples included.
const MOST_LINES: usize = 450;

/// Above the back ends the only questions about the target are two sizes, by file and line of code.
const TARGET_QUESTIONS: &[(&str, &str)] = &[
    ("src/attention/block.rs", "const PANELS"),
    ("src/kernels/mod.rs", "const KEY_RUN"),
];

/// Where machine instructions are named.
const BACK_ENDS: &[&str] = &[
    "src/simd/avx2.rs",
    "src/simd/avx512.rs",
    "src/simd/neon.rs",
    "src/simd/wasm.rs",
];

fn floor(module: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(_, modules)| modules.contains(&module))
        .map(|(floor, _)| *floor)
}

/// The top-level module of a file, and how many modules deep the file's own module lies: `src/a/mod.rs` and `src/a.rs`
/// are 1 deep, `src/a/b.rs` is 2.
fn place(path: &str) -> Option<(&str, usize)> {
    let inner = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    let depth = inner.split('/').count();
    inner
        .split('/')
        .next()
        .filter(|&top| top != "lib")
        .map(|top| (top, depth))
}

/// First and second segments after `crate::`, or after as many `super::` as leave the top-level module, with where.
fn paths(code: &str, depth: usize) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    for at in words(code, "crate") {
        if let Some(rest) = code[at..].strip_prefix("crate::") {
            leaves(rest).into_iter().for_each(|(a, b)| found.push((at, a, b)));
        }
    }
    for at in words(code, "super").filter(|&at| !code[..at].ends_with("super::")) {
        let mut rest = &code[at..];
        let mut ups = 0;
        while let Some(inner) = rest.strip_prefix("super::") {
            (rest, ups) = (inner, ups + 1);
        }
        // A module written inside the file is one deeper.
        let depth = depth + usize::from(inside_braces(code, at));
        if ups >= depth {
            leaves(rest).into_iter().for_each(|(a, b)| found.push((at, a, b)));
        }
    }
    found
}

/// Whether `at` lies inside a module that is written out in this file.
fn inside_braces(code: &str, at: usize) -> bool {
    words(&code[..at], "mod").any(|start| {
        let Some(open) = code[start..at].find('{') else {
            return false;
        };
        !code[start..start + open].contains(';') && {
            let inner = &code[start + open..at];
            inner.matches('{').count() > inner.matches('}').count()
        }
    })
}

/// `a::b` of a path, or of every path of a `{...}` group; `b` is empty where there is none.
fn leaves(path: &str) -> Vec<(String, String)> {
    if let Some(group) = path.strip_prefix('{') {
        return entries(group).into_iter().flat_map(leaves).collect();
    }
    let first = segment(path);
    let rest = path[first.len()..].strip_prefix("::").unwrap_or("");
    let second: Vec<&str> = match rest.strip_prefix('{') {
        Some(group) => entries(group).into_iter().map(segment).collect(),
        None => vec![segment(rest)],
    };
    second.into_iter().map(|b| (first.to_string(), b.to_string())).collect()
}

fn segment(path: &str) -> &str {
    path.split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
        .unwrap_or("")
}

/// The entries of a group, given what follows its opening brace.
fn entries(group: &str) -> Vec<&str> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' if depth == 0 => {
                found.push(group[start..i].trim());
                start = i + 1;
            }
            '}' if depth == 0 => {
                found.push(group[start..i].trim());
                break;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    found.retain(|entry| !entry.is_empty());
    found
}

/// Whether `from` may name `crate::to::item`.
fn allowed(from: &str, to: &str, item: &str) -> bool {
    // What is no module is a re-export of the crate root: only the top floor may take that way.
    let (Some(own), Some(below)) = (floor(from), floor(to)) else {
        return from == "ffi";
    };
    let narrow = NARROW.iter().find(|(a, b, _)| (*a, *b) == (from, to));
    from == to || (below < own && narrow.is_none_or(|(_, _, only)| item == *only))
}

#[test]
fn modules_use_only_the_floors_below() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for file in files("src", &["rs"]) {
        let Some((from, depth)) = place(&file.path) else {
            continue;
        };
        assert!(floor(from).is_some(), "{} stands on no floor", file.path);
        for (at, to, item) in paths(&file.code, depth) {
            checked += 1;
            if !allowed(from, &to, &item) {
                wrong.push(format!("{}:{} {to}::{item}", file.path, line_of(&file.code, at) + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The attention floor alone has some thirty.
    assert!(checked > 30, "{checked} paths");
}

#[test]
fn no_file_is_longer_than_a_sitting() {
    let folders = ["src", "tests", "benches", "examples", "ffi-examples"];
    let long: Vec<_> = folders
        .iter()
        .flat_map(|folder| files(folder, &["rs", "c", "h", "cpp", "hpp", "sh", "mjs", "ld"]))
        .map(|file| (file.text.lines().count(), file.path))
        .filter(|(lines, _)| *lines > MOST_LINES)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn instructions_are_named_in_back_ends_only() {
    let named: Vec<_> = files("src", &["rs"])
        .into_iter()
        .filter(|file| ["core::arch", "std::arch"].iter().any(|arch| file.code.contains(arch)))
        .map(|file| file.path)
        .collect();
    assert_eq!(named, BACK_ENDS);
}

#[test]
fn the_target_is_asked_in_two_places() {
    let mut asked = Vec::new();
    for file in files("src", &["rs"]) {
        let above = place(&file.path)
            .and_then(|(top, _)| floor(top))
            .is_some_and(|floor| floor > 2);
        let lines = file.code.lines().filter(|line| above && line.contains("target_"));
        asked.extend(lines.map(|line| (file.path.clone(), line.to_string())));
    }
    let expected = |(path, line): &(String, String)| {
        TARGET_QUESTIONS
            .iter()
            .any(|(file, what)| path == file && line.contains(what))
    };
    let astray: Vec<_> = asked.iter().filter(|asked| !expected(asked)).collect();
    assert!(astray.is_empty(), "{astray:#?}");
    assert_eq!(asked.len(), TARGET_QUESTIONS.len(), "the list has an entry too many");
}

#[test]
fn paths_are_read_in_all_their_forms() {
    let text = code(
        "use crate::{error::Error, math::{self, poly::{LN2, EXP}}, view::MatRef};
         use super::super::kernels::{self, Rows}; use super::rules::At; // crate::ffi::no
         mod tests { use super::super::super::simd::Isa; use super::super::near; }
         fn f() -> crate::scratch::Need { \"crate::ffi::no\" }",
    );
    let seen: Vec<_> = paths(&text, 2)
        .into_iter()
        .map(|(_, a, b)| format!("{a}::{b}"))
        .collect();
    let want = [
        "error::Error",
        "math::self",
        "math::poly",
        "view::MatRef",
        "scratch::Need",
        "kernels::self",
        "kernels::Rows",
        "simd::Isa",
    ];
    assert_eq!(seen, want);
    assert!(!allowed("view", "scratch", "Need") && !allowed("kernels", "attention", "Exact"));
    assert!(!allowed("simd", "math", "sqrt") && allowed("simd", "math", "poly"));
    assert!(!allowed("attention", "Error", "") && allowed("ffi", "Error", ""));
}
