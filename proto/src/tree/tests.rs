use super::*;
use proptest::prelude::*;
use std::path::{Component, Path};

fn file(letter: &str, size_bytes: u64, executable: bool) -> Entry {
    Entry::File { digest: letter.repeat(64), size_bytes, executable }
}

fn link(target: &str) -> Entry {
    Entry::Link { target: target.to_owned() }
}

fn of(entries: &[(&str, Entry)]) -> Result<Tree, Problem> {
    let mut tree = Tree::default();
    for (path, entry) in entries {
        tree.add(path, entry.clone())?;
    }
    Ok(tree)
}

#[test]
fn a_manifest_is_text_in_the_order_of_paths() {
    let entries = [
        ("run", file("b", 120, true)),
        ("deep", Entry::Directory),
        ("deep/words", file("a", 5, false)),
        ("deep-er", Entry::Directory),
        ("words", link("deep/words")),
        ("deep/up", link("../run")),
        ("copy", file("a", 5, false)),
    ];
    let tree = of(&entries).unwrap();
    let (a, b) = ("a".repeat(64), "b".repeat(64));
    let manifest = format!(
        "drumline tree 1\nf\t5\t{a}\tcopy\nd\tdeep\nd\tdeep-er\nl\t../run\tdeep/up\nf\t5\t{a}\tdeep/words\n\
         x\t120\t{b}\trun\nl\tdeep/words\twords\n"
    );
    assert_eq!(tree.manifest(), manifest);
    assert_eq!((tree.manifest_bytes(), tree.total_bytes(), tree.len()), (manifest.len() as u64, 130, 7));
    let objects: Vec<_> = tree.objects().collect();
    assert_eq!(objects, [("copy", a.as_str(), 5), ("run", b.as_str(), 120)], "equal bytes are one object");
    assert_eq!(Tree::parse(manifest.as_bytes()).unwrap(), tree);
    assert_eq!(Tree::parse(HEAD.as_bytes()).unwrap(), Tree::default(), "nothing is a tree too");
}

/// What a hostile manifest is told.
fn refusal(lines: &str) -> String {
    Tree::parse(format!("{HEAD}{lines}").as_bytes()).unwrap_err().to_string()
}

#[test]
fn what_leads_out_is_refused_by_its_path() {
    for path in ["../x", "a/../../x", "..", "a/.."] {
        assert!(
            refusal(&format!("d\t{path}\n")).starts_with(&format!("tree = {path}: leads out of")),
            "{path}"
        );
    }
    assert!(refusal("d\t/etc\n").starts_with("tree = /etc: is absolute; use paths below"));
    for path in ["", "a//b", "./a", "a/", "."] {
        assert!(refusal(&format!("d\t{path}\n")).contains("an empty name"), "{path}");
    }
    for target in ["/etc/passwd", "..", "a/../..", "a/..", "", "a/", "./a", "../.."] {
        let refused = refusal(&format!("l\t{target}\tlink\n"));
        assert!(
            refused.starts_with("tree = link: is a link that leads out of the tree"),
            "{target}: {refused}"
        );
    }
    assert!(refusal("d\ta\nl\t../..\ta/link\n").contains("a/link"));
    of(&[("a", Entry::Directory), ("a/root", link("..")), ("a/self", link(".")), ("a/none", link("../b/c"))])
        .unwrap();
}

#[test]
fn nothing_lies_below_what_is_no_directory() {
    let digest = "a".repeat(64);
    for first in ["l\t.\ta", &format!("f\t1\t{digest}\ta")] {
        let refused = refusal(&format!("{first}\nf\t1\t{digest}\ta/b\n"));
        assert!(refused.starts_with("tree = a/b: lies in a file or a link"), "{refused}");
    }
    assert!(refusal("d\ta/b\n").starts_with("tree = a/b: lies in a directory that is not told"));
    for lines in ["d\ta\nd\ta\n", "d\tb\nd\ta\n", "d\ta\nl\t.\ta\n"] {
        assert!(refusal(lines).starts_with("tree = a: is there twice, or not in order"), "{lines}");
    }
}

#[test]
fn there_is_one_way_to_write_a_manifest() {
    let digest = "a".repeat(64);
    for size in ["01", "+1", "-1", "", "1 ", "18446744073709551616"] {
        assert!(refusal(&format!("f\t{size}\t{digest}\ta\n")).contains("is no line of a manifest"), "{size}");
    }
    for lines in ["\n", "d\n", "d\ta\tb\n", "g\ta\n", "f\t1\ta\n"] {
        assert!(refusal(lines).contains("is no line of a manifest"), "{lines}");
    }
    assert!(refusal(&format!("f\t1\t{}\ta\n", "A".repeat(64))).contains("has no SHA-256"));
    assert!(refusal(&format!("f\t1\t{digest}\ta\nf\t2\t{digest}\tb\n")).contains("of another length"));
    assert!(refusal("d\ta").contains("cut short"));
    assert!(refusal("d\ta\rb\n").contains("control characters"));
    for other in ["", "drumline tree 2\n", "drumline tree 1", "PK"] {
        assert!(
            Tree::parse(other.as_bytes()).unwrap_err().reason.contains("no manifest of a tree"),
            "{other}"
        );
    }
    assert!(Tree::parse(b"drumline tree 1\nd\t\xff\n").unwrap_err().reason.contains("no UTF-8"));
}

#[test]
fn there_is_an_end_to_all_of_it() {
    assert!(refusal(&format!("d\t{}\n", "n".repeat(256))).contains("more than 255 bytes"));
    assert!(refusal(&format!("d\t{}\n", vec!["name"; 300].join("/"))).contains("longer than 1024 bytes"));
    let mut tree = Tree::default();
    let deep: Vec<String> = (1..=33).map(|depth| vec!["d"; depth].join("/")).collect();
    for path in &deep[..32] {
        tree.add(path, Entry::Directory).unwrap();
    }
    assert!(tree.add(&deep[32], Entry::Directory).unwrap_err().reason.contains("deeper than 32"));
    let digest = "a".repeat(64);
    let huge = format!("f\t{INPUT_BYTES_MAX}\t{digest}\ta\nf\t{INPUT_BYTES_MAX}\t{digest}\tb\n");
    assert!(refusal(&huge).starts_with("tree = b: makes the tree too large"));
    let many: String = (0..=TREE_ENTRIES_MAX).map(|number| format!("d\t{number:06}\n")).collect();
    assert!(refusal(&many).starts_with("tree = 065536: is one too many"));
    let long: String =
        (0..20_000).map(|number| format!("l\t{}\t{number:06}\n", "t/".repeat(500) + "t")).collect();
    assert!(refusal(&long).contains("its manifest has"));
}

/// A few names, so that paths meet.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["a", "b", "a-", "..", ".", "", "é"]).prop_map(str::to_owned),
        "[a-c ]{1,3}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..4).prop_map(|names| names.join("/"))
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        Just(Entry::Directory),
        Just(Entry::Directory),
        (0..3_u64, any::<bool>()).prop_map(|(size, executable)| file(&size.to_string(), size, executable)),
        path().prop_map(|target| Entry::Link { target }),
    ]
}

/// Where a path leads that is looked up from `at` as a kernel does it, through links: none
/// where it would climb out of the root.
fn lookup(tree: &Tree, at: &[String], path: &str, links: u32) -> Option<Vec<String>> {
    let mut at = at.to_vec();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => drop(at.pop()?),
            Component::Normal(name) => {
                let here = at.clone();
                at.push(name.to_str().unwrap().to_owned());
                let found = tree.entries().find(|(path, _)| *path == at.join("/"));
                if let Some((_, Entry::Link { target })) = found {
                    // A ring leads nowhere.
                    at = if links == 0 { here } else { lookup(tree, &here, target, links - 1)? };
                }
            }
            _ => {}
        }
    }
    Some(at)
}

proptest! {
    #[test]
    fn whatever_is_added_comes_back_and_stays_inside(entries in prop::collection::vec((path(), entry()), 0..24)) {
        let mut tree = Tree::default();
        for (path, entry) in entries {
            let before = tree.clone();
            let added = tree.add(&path, entry).is_ok();
            prop_assert!(added || tree == before, "a refusal changes nothing");
        }
        let manifest = tree.manifest();
        prop_assert_eq!(&Tree::parse(manifest.as_bytes()).unwrap(), &tree);
        let mut laid = std::collections::BTreeSet::from([String::new()]);
        for (path, entry) in tree.entries() {
            prop_assert!(laid.contains(parent(path)), "its directory is made before");
            prop_assert!(Path::new(path).components().all(|part| matches!(part, Component::Normal(_))));
            if *entry == Entry::Directory {
                laid.insert(path.to_owned());
            }
            prop_assert!(lookup(&tree, &[], path, 5).is_some(), "{path} leads out of {manifest}");
        }
    }

    #[test]
    fn what_is_read_is_written_the_same(
        lines in prop::collection::vec((prop::sample::select(vec!["d", "l\t..", "l\ta", "f\t1\t", "x\t0\t"]), path()), 0..6),
        cut in 0_usize..400,
    ) {
        let line = |(kind, path): &(&str, String)| match *kind {
            "f\t1\t" | "x\t0\t" => format!("{kind}{}\t{path}\n", "0".repeat(64)),
            kind => format!("{kind}\t{path}\n"),
        };
        let text = HEAD.to_owned() + &lines.iter().map(line).collect::<String>();
        let cut = &text.as_bytes()[..text.len().min(cut)];
        for bytes in [text.as_bytes(), cut] {
            if let Ok(tree) = Tree::parse(bytes) {
                let manifest = tree.manifest();
                prop_assert_eq!(manifest.as_bytes(), bytes);
            }
        }
    }
}
