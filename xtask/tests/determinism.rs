//! What DETERMINISM.md says of the tree, read from the tree.
#![allow(clippy::disallowed_methods, reason = "reads the sources on the builder's machine")]

mod sources;

use sources::sources;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Everything whose code runs in a rehearsal.
const CRATES: [&str; 8] = ["world", "proto", "store", "scheduler", "controller", "agent", "gateway", "sim"];

/// Crates with chance of their own, and who alone may ask them for it.
const CHANCE: [(&str, &[&str]); 5] = [
    ("rand 0.8", &["madsim"]),
    ("rand_core 0.6", &["rand", "rand_chacha", "rand_xoshiro"]),
    ("getrandom 0.2", &["rand_core"]),
    ("ahash", &["madsim"]),
    ("hashbrown", &["indexmap", "petgraph"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

#[test]
fn every_select_has_an_order() {
    let mut files = Vec::new();
    CRATES.iter().for_each(|name| sources(&root().join(name).join("src"), &mut files));
    let mut selects = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("select! {") {
            selects += 1;
            let body = text[at..].split_once('{').expect("it was found with one").1.trim_start();
            assert!(
                body.starts_with("biased;"),
                "{}: a select! without `biased;` draws its order from tokio's own chance",
                file.display()
            );
        }
    }
    assert!(selects > 10, "only {selects} found: look for how they are written now");
}

/// Each package of the lock file with what it depends on.
fn packages(lock: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut packages: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let name = package.lines().find_map(|line| line.strip_prefix("name = "));
        let name = name.expect("every package has a name").trim_matches('"');
        let (_, dependencies) = package.split_once("dependencies = [").unwrap_or_default();
        let lines = dependencies.lines().map(|line| line.trim().trim_matches(['"', ',']));
        packages.entry(name).or_default().extend(lines.filter(|line| !line.is_empty() && *line != "]"));
    }
    packages
}

/// What the world draws on to reach the real one alone: TLS and S3.
const REAL_ALONE: [&str; 3] = ["hyper-rustls", "object_store", "rustls"];

/// All that a rehearsal is built of: what the console alone draws on is no part, nor what
/// the world leaves out of it.
fn rehearsed<'a>(packages: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let manifest = std::fs::read_to_string(root().join("world/Cargo.toml")).unwrap();
    let (_, real) = manifest.split_once("[target.'cfg(not(madsim))'.dependencies]").unwrap();
    let (real, _) = real.split_once("\n[").unwrap();
    for name in REAL_ALONE {
        assert!(real.contains(&format!("\n{name}.workspace")), "{name} is in rehearsals too");
        assert_eq!(manifest.matches(&format!("\n{name}.")).count(), 1, "{name} is in rehearsals too");
    }
    let (mut found, mut next) = (BTreeSet::new(), vec!["sim"]);
    while let Some(name) = next.pop() {
        if let Some((name, dependencies)) = packages.get_key_value(name)
            && found.insert(*name)
        {
            let names = dependencies.iter().filter_map(|line| line.split(' ').next());
            next.extend(names.filter(|of| *name != "world" || !REAL_ALONE.contains(of)));
        }
    }
    found
}

#[test]
fn nobody_new_asks_leaking_crates_for_chance() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let packages = packages(&lock);
    let rehearsed = rehearsed(&packages);
    for (wanted, allowed) in CHANCE {
        let asks = |line: &str| {
            line.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ' ']))
        };
        let found: BTreeSet<&str> =
            rehearsed.iter().copied().filter(|name| packages[name].iter().any(|line| asks(line))).collect();
        assert_eq!(found, allowed.iter().copied().collect(), "who depends on {wanted}: see DETERMINISM.md");
    }
}

/// What is rehearsed and not of the rehearsals: no file, thread, variable or chance
/// but the world's.
const PRODUCT: [&str; 6] = ["proto", "store", "scheduler", "controller", "agent", "gateway"];

/// What would let the machine in, as a source would say it.
const SIDE_DOORS: [&str; 14] = [
    "std::env::",
    "std::fs",
    "std::thread",
    "std::process",
    "\"/proc/",
    "\"/dev/",
    "RandomState",
    "DefaultHasher",
    "thread_rng",
    "rand::rng(",
    "tracing::enabled!",
    "as_ptr() as",
    "{:p}",
    "unsafe {",
];

#[test]
fn no_side_door_stands_in_what_is_rehearsed() {
    let mut files = Vec::new();
    PRODUCT.iter().for_each(|name| sources(&root().join(name).join("src"), &mut files));
    assert!(files.len() > 50, "only {} sources: look for where they are now", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for door in SIDE_DOORS {
            assert!(!text.contains(door), "{}: `{door}`: ask the world for it", file.display());
        }
    }
}

#[test]
fn every_planted_leak_is_in_the_table() {
    let table = std::fs::read_to_string(root().join("DETERMINISM.md")).unwrap();
    let mut leaks = 0;
    for entry in std::fs::read_dir(root().join("sim/planted")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        if name.starts_with("leak-") {
            leaks += 1;
            assert!(table.contains(&format!("`{name}`")), "{name}: which guard does it take away?");
        }
    }
    assert!(leaks >= 10, "only {leaks} leaks are planted");
}
