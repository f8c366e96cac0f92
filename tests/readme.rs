//! The C example of README.md compiles, runs, and prints what README.md says. (The Rust one is a doctest of the crate.)

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the examples compute: queries, keys and values of sizes 3 x 2, 4 x 2 and 4 x 1.
const Q: [[f64; 2]; 3] = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]];
const K: [[f64; 2]; 4] = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]];
const V: [f64; 4] = [1.0, 2.0, 3.0, 4.0];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The code between the fences of a language; there is one such block.
fn block(language: &str) -> String {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = text.split_once(&format!("\n```{language}\n")).expect(language);
    rest.split_once("\n```").expect("an end of the block").0.to_owned() + "\n"
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The archive, built with the words of README.md, in a target directory of its own: cargo may hold the other.
fn archive(directory: &Path) -> PathBuf {
    let console = block("console");
    let words = console
        .lines()
        .find_map(|line| line.strip_prefix("$ cargo "))
        .expect("the cargo command");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(words.split_whitespace()).arg("--quiet");
    succeed(cargo.arg("--target-dir").arg(directory));
    directory.join("release/libsubquad.a")
}

/// Causal attention as the formula says it.
fn expected() -> String {
    let row = |(i, q): (usize, &[f64; 2])| {
        let weight = |k: &[f64; 2]| ((q[0] * k[0] + q[1] * k[1]) / 2f64.sqrt()).exp();
        let seen = || K.iter().zip(V).take(i + 1);
        seen().map(|(k, v)| weight(k) * v).sum::<f64>() / seen().map(|(k, _)| weight(k)).sum::<f64>()
    };
    // Four digits: f32 is off by a few 1e-7, and no entry is that close to a tie.
    let rows: Vec<String> = Q.iter().enumerate().map(row).map(|x| format!("{x:.4}")).collect();
    rows.join(" ")
}

#[test]
fn the_output_in_the_text_is_right() {
    assert_eq!(block("console").lines().last(), Some(expected().as_str()));
}

#[test]
fn the_c_example_prints_it() {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    if Command::new(&compiler).arg("--version").output().is_err() {
        eprintln!("skipped: there is no C compiler `{compiler}` on this machine");
        return;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme");
    let archive = archive(&directory);
    let (source, program) = (directory.join("example.c"), directory.join("example"));
    std::fs::write(&source, block("c")).unwrap();
    let mut cc = Command::new(&compiler);
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    cc.arg("-I").arg(root().join("include"));
    succeed(cc.args([&source, &archive]).arg("-o").arg(&program));
    assert_eq!(succeed(&mut Command::new(&program)).trim_end(), expected());
}
