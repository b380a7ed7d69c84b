//! Every planted bug says what it is, and is switched by its own name.
#![allow(clippy::disallowed_methods, reason = "reads the sources on the builder's machine")]

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn planted_bugs_say_what_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    let table = std::fs::read_to_string(root.join("sim/planted/README.md")).unwrap();
    let mut names = BTreeSet::new();
    let mut switched = BTreeSet::new();
    for entry in std::fs::read_dir(root.join("sim/planted")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        if path.extension().is_none_or(|extension| extension != "patch") || name == "switch" {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let (head, diff) = text.split_once("\ndiff ").expect("a diff follows the head");
        let field = |field: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(field));
            line.unwrap_or_else(|| panic!("{name}: no line `{field}`")).trim()
        };
        assert!(field("what:").len() > 10, "{name}: say in plain words what is wrong");
        assert!((1..=10).contains(&field("invariant:").parse().unwrap_or(0)), "{name}: 1 to 10");
        assert!(["chaos", "narrow"].contains(&field("scenario:")), "{name}: which scenario?");
        // Within the world it is `crate::planted`.
        let switches = diff.match_indices("::planted(\"").map(|(at, before)| {
            diff[at + before.len()..].split_once('"').expect("the name ends").0.to_owned()
        });
        let switches: BTreeSet<String> = switches.collect();
        assert_eq!(switches, BTreeSet::from([name.clone()]), "{name}: it is switched by its own name");
        assert!(switched.is_disjoint(&switches), "{name}: another has this switch");
        switched.extend(switches);
        assert!(table.contains(&format!("| {name} |")), "{name}: no row in sim/planted/README.md");
        let files = diff.lines().filter_map(|line| line.strip_prefix("+++ b/"));
        for file in files {
            let (of, _) = file.split_once('/').expect("a file lies in a crate");
            let product = ["store", "scheduler", "controller", "agent", "gateway"];
            // What keeps chance out is the world's, so a leak may be there.
            let leak = name.starts_with("leak-") && of == "world";
            assert!(product.contains(&of) || leak, "{name}: {file} is not of the product");
            let checks = ["/core/check.rs", "/core/check_step.rs"].iter().any(|check| file.ends_with(check));
            assert!(!checks, "{name}: a check is not to be planted in");
        }
        if name.starts_with("leak-") {
            assert_eq!(
                (field("invariant:"), field("found-by:")),
                ("10", "twice"),
                "{name}: a leak is one run's own"
            );
        }
        names.insert(name);
    }
    let leaks = names.iter().filter(|name| name.starts_with("leak-")).count();
    assert!(leaks >= 10, "only {leaks} planted leaks of determinism");
    assert!(names.len() >= 40, "only {} planted bugs", names.len());
}
