//! `include/subquad.h` says what `src/ffi` does.
//!
//! `SUBQUAD_BLESS=1` rewrites the header; without it a stale one fails. `tests/sh/c_hosts.sh` compares it with the
//! symbols of the archive.

use std::path::{Path, PathBuf};
use subquad::{ffi, Error};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The header as cbindgen makes it, with one correction: a negative macro without parentheses is a trap.
fn generated() -> String {
    let mut builder = cbindgen::Builder::new()
        .with_config(cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap())
        .with_std_types(true);
    for file in [
        "info",
        "types",
        "attention",
        "bound",
        "tasks",
        "gradient",
        "rotary",
        "cache",
        "cache/attend",
        "head",
        "kernels",
    ] {
        builder = builder.with_src(root().join("src/ffi").join(file).with_extension("rs"));
    }
    let mut bytes = Vec::new();
    builder.generate().unwrap().write(&mut bytes);
    let lines = String::from_utf8(bytes).unwrap();
    let lines = lines.lines().map(|line| match line.rsplit_once(' ') {
        Some((define, number)) if define.starts_with("#define ") && number.starts_with('-') => {
            format!("{define} ({number})\n")
        }
        _ => format!("{}\n", line.trim_end()),
    });
    lines.collect()
}

fn write_or_compare(path: &Path, wanted: &str) {
    if std::env::var_os("SUBQUAD_BLESS").is_some() {
        std::fs::write(path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    let different = found.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    assert!(
        found == wanted,
        "{} is stale (first difference: line {:?}); SUBQUAD_BLESS=1 rewrites it",
        path.display(),
        different.map(|n| n + 1)
    );
}

#[test]
fn the_header_is_fresh() {
    write_or_compare(&root().join("include/subquad.h"), &generated());
}

#[test]
fn statuses_are_the_errors() {
    // Name by name: SUBQUAD_E_NON_FINITE is Error::NonFinite.
    let header = generated();
    for error in Error::ALL {
        let name: String = format!("{error:?}")
            .chars()
            .enumerate()
            .flat_map(|(i, c)| {
                (i > 0 && c.is_uppercase())
                    .then_some('_')
                    .into_iter()
                    .chain([c.to_ascii_uppercase()])
            })
            .collect();
        let line = format!("#define SUBQUAD_E_{name} ({})", error.code());
        assert!(header.lines().any(|l| l == line), "{line}");
    }
    assert_eq!(header.matches("#define SUBQUAD_E_").count(), Error::ALL.len());
}

#[test]
fn versions_are_the_package() {
    let parts = [
        ffi::SUBQUAD_VERSION_MAJOR,
        ffi::SUBQUAD_VERSION_MINOR,
        ffi::SUBQUAD_VERSION_PATCH,
    ];
    assert_eq!(parts.map(|n| n.to_string()).join("."), env!("CARGO_PKG_VERSION"));
}
