//! What a user of the crate takes in besides it: nothing, unless asked for, and then only what this list has.

const ALLOWED: &[&str] = &[
    "libm",
    "micromath",
    "half",
    "heapless",
    "rand_core",
    "cpufeatures",
    "rayon",
    "defmt",
];

/// Name and definition of every dependency that is not for tests only, on any target.
fn dependencies(manifest: &str) -> Vec<(String, String)> {
    let (mut found, mut listed, mut own) = (Vec::new(), false, None::<String>);
    for line in manifest.lines().map(|line| line.split('#').next().unwrap_or("").trim()) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            let normal = !header.contains("dev-dependencies");
            listed = normal && header.ends_with("dependencies");
            // The long form: a table per dependency.
            own = header
                .rsplit_once("dependencies.")
                .filter(|_| normal)
                .map(|(_, name)| name.to_string());
            if let Some(name) = &own {
                found.push((name.clone(), String::new()));
            }
        } else if let (Some(_), Some((_, definition))) = (&own, found.last_mut()) {
            definition.push_str(line);
        } else if let (true, Some((name, definition))) = (listed, line.split_once('=')) {
            found.push((name.trim().to_string(), definition.to_string()));
        }
    }
    found
}

fn optional(definition: &str) -> bool {
    definition.replace(' ', "").contains("optional=true")
}

#[test]
fn dependencies_are_few_and_optional() {
    let found = dependencies(include_str!("../Cargo.toml"));
    let astray: Vec<_> = found
        .iter()
        .filter(|(name, definition)| !ALLOWED.contains(&name.as_str()) || !optional(definition))
        .collect();
    assert!(astray.is_empty(), "{astray:?}");
    assert!(
        found.iter().any(|(name, _)| name == "cpufeatures"),
        "the manifest was not understood"
    );
}

#[test]
fn manifests_are_read_in_all_their_forms() {
    let manifest =
        "[dependencies]\nlibm = \"0.2\" # optional = true\n[target.'cfg(x)'.dependencies]\nhalf = { optional = true }
        [dev-dependencies]\nproptest = \"1\"\n[dependencies.rayon]\nversion = \"1\"\noptional = true
        [build-dependencies]\ncc = \"1\"\n[profile.release]\nlto = \"fat\"";
    let seen: Vec<_> = dependencies(manifest)
        .into_iter()
        .map(|(name, d)| (name, optional(&d)))
        .collect();
    let want = [("libm", false), ("half", true), ("rayon", true), ("cc", false)];
    assert_eq!(seen, want.map(|(name, optional)| (name.to_string(), optional)));
}
