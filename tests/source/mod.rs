//! The crate's own source, as the guards read it.
// Each guard uses a part of it.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// A file: its path from the root of the crate, its text, and its text without comments and literals.
pub struct Source {
    pub path: String,
    pub text: String,
    pub code: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files under `folder` with one of these endings, sorted by path. A folder that does not exist has none.
pub fn files(folder: &str, endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join(folder), endings, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(folder: &Path, endings: &[&str], found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, endings, found);
        } else if path.extension().is_some_and(|e| endings.iter().any(|x| e == *x)) {
            let text = fs::read_to_string(&path).unwrap();
            let code = code(&text);
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
            found.push(Source { path, text, code });
        }
    }
}

/// Rust without comments, strings and characters: blanks in their place, so that lines and columns stay.
pub fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        let end = literal_end(&chars, i).unwrap_or(i);
        if end == i {
            out.push(c);
            i += 1;
            continue;
        }
        out.extend(chars[i..end].iter().map(|&c| if c == '\n' { c } else { ' ' }));
        i = end;
    }
    out
}

/// Where the comment or literal that begins at `i` ends, if one does.
fn literal_end(chars: &[char], i: usize) -> Option<usize> {
    let at = |j: usize| chars.get(j).copied().unwrap_or('\0');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let find = |from: usize, stop: &dyn Fn(usize) -> bool| (from..chars.len()).find(|&j| stop(j));
    match (at(i), at(i + 1)) {
        ('/', '/') => Some(find(i, &|j| at(j) == '\n').unwrap_or(chars.len())),
        ('/', '*') => Some(block_comment_end(chars, i)),
        ('"', _) => Some(string_end(chars, i)),
        // r"..." and r#"..."#, also after b or c; not the r at the end of a word, and not a raw identifier.
        ('r', '"' | '#')
            if i == 0 || !word(at(i - 1)) || (matches!(at(i - 1), 'b' | 'c') && (i < 2 || !word(at(i - 2)))) =>
        {
            let quote = find(i + 1, &|j| at(j) != '#').filter(|&j| at(j) == '"')?;
            let hashes = quote - i - 1;
            let closes = |j: usize| at(j) == '"' && (1..=hashes).all(|h| at(j + h) == '#');
            Some(find(quote + 1, &closes).map_or(chars.len(), |j| j + hashes + 1))
        }
        // A character, not a lifetime.
        ('\'', '\\') => Some(find(i + 3, &|j| at(j) == '\'').map_or(chars.len(), |j| j + 1)),
        ('\'', _) if at(i + 2) == '\'' => Some(i + 3),
        _ => None,
    }
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while let Some(&c) = chars.get(i) {
        match c {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut i, mut depth) = (start, 0);
    while let [a, b, ..] = chars[i.min(chars.len())..] {
        match (a, b) {
            ('/', '*') => (i, depth) = (i + 2, depth + 1),
            ('*', '/') if depth == 1 => return i + 2,
            ('*', '/') => (i, depth) = (i + 2, depth - 1),
            _ => i += 1,
        }
    }
    chars.len()
}

/// Byte offsets where `word` stands alone.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part))
}

/// The line, counted from 0, that holds byte `at`.
pub fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count()
}

#[test]
fn comments_and_literals_are_blanked() {
    let text =
        "a // b \" c\n\"d \\\" e\" f /* g /* h */ i */ j 'k' '\\'' 'l: r#\"m \" n\"# o r\"p\\\" q br\"s\" for\"t\" r#u";
    let seen: String = code(text).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(seen, "a f j 'l: o q b for r#u");
    assert_eq!(code(text).chars().count(), text.chars().count());
    assert_eq!(words("unsafe_code unsafe {} not_unsafe unsafe", "unsafe").count(), 2);
}
