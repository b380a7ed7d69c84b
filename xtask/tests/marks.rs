//! Every mark in the sources has its line in the simulator's table, and every
//! line its mark.
#![allow(clippy::disallowed_methods, reason = "reads the sources on the builder's machine")]

mod sources;

use sources::sources;
use std::collections::BTreeSet;
use std::path::Path;

/// Where marks may stand: what is rehearsed, without the rehearsals.
const CRATES: [&str; 6] = ["world", "store", "scheduler", "controller", "agent", "gateway"];

/// What follows `before` up to the next quotation mark, each time.
fn quoted(text: &str, before: &str) -> BTreeSet<String> {
    let found = text.match_indices(before).map(|(at, _)| &text[at + before.len()..]);
    found.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
}

#[test]
fn marks_and_their_table_agree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    let mut files = Vec::new();
    CRATES.iter().for_each(|name| sources(&root.join(name).join("src"), &mut files));
    let mut marked = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for mark in quoted(&text, "mark!(\"") {
            assert!(marked.insert(mark.clone()), "{}: mark {mark} stands in two files", file.display());
        }
    }
    let table = std::fs::read_to_string(root.join("sim/src/marks.rs")).unwrap();
    let (table, _) = table.split_once("];").expect("the table ends");
    assert_eq!(marked, quoted(table, "\n    (\""));
    assert!(marked.len() >= 80, "only {} marks", marked.len());
}
