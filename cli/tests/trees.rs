//! Directories as inputs: what a task finds is what was there, what is there already is not
//! sent again, and what leads out of a directory, or is missing, is refused by its path.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use serde_json::{Value, json};
use std::{
    ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, os::unix::fs::PermissionsExt as _, os::unix::fs::symlink,
};
use support::cut::{Way, cluster};
use support::{Cluster, digest, until_true};

const MIB: u64 = 1 << 20;

/// What the tenant is charged: ingress and storage.
fn charged(cluster: &Cluster) -> [u64; 2] {
    let tenants: Value = cluster.call(&["tenants", "-o", "json"]).ok().json();
    ["ingress_bytes", "storage_bytes"].map(|name| tenants[0][name].as_u64().unwrap())
}

/// `set/` with all that a directory may have; how many bytes its files have.
fn lay(cluster: &Cluster) -> u64 {
    let root = cluster.dir.join("set");
    for directory in ["deep/er", "empty"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for (path, text) in [
        ("words", "one two\n"),
        ("deep/er/copy", "one two\n"),
        ("deep/none", ""),
        ("deep-er", "beside"),
        ("run", "#!/bin/sh\necho it runs\n"),
        ("a name with blanks", "x"),
    ] {
        fs::write(root.join(path), text).unwrap();
    }
    fs::set_permissions(root.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("deep/er", root.join("up")).unwrap();
    symlink("../words", root.join("deep/far")).unwrap();
    // Both stay inside, by a detour.
    symlink(root.join("words"), root.join("deep/absolute")).unwrap();
    symlink("deep/er/../none", root.join("detour")).unwrap();
    8 + 8 + 6 + 23 + 1
}

const SEEN: &str = "\
it runs
one two
one two
deep/absolute ../words
deep/far ../words
detour deep/none
up deep/er
.
./deep
./deep/er
./empty
444 words
555 run
";

const LOOK: &str = "cd inputs/set && ./run && cat up/copy deep/far && \
    find . -type l | sort | while read l; do echo ${l#./} $(readlink $l); done && \
    find . -type d | sort && stat -c '%a %n' words run && test ! -s deep/none && test -f 'a name with blanks'";

#[test]
fn a_directory_is_found_as_it_was_and_is_sent_once() {
    let (cluster, wire) = cluster("tree", 1);
    let size = lay(&cluster);
    let done = cluster.call(&["submit", "--input", "set=set", "--follow", "--", "sh", "-c", LOOK]).ok();
    assert!(done.stdout.replace("main | ", "").ends_with(SEEN), "{done:#?}");
    let input = &cluster.show("1")["inputs"][0];
    assert_eq!((&input["tree"], &input["size_bytes"]), (&json!(true), &json!(size)));

    // The same under another name, by its digest, and in a job file: not a byte is sent.
    let moved = wire.moved(Way::Up);
    let done = cluster.call(&["upload", "set", "set/", "-o", "json"]).ok().json();
    let named = done[0]["digest"].as_str().unwrap().to_owned();
    for (path, told) in ["set", "set/"].into_iter().zip(done.as_array().unwrap()) {
        let due = json!({ "path": path, "digest": named, "size_bytes": size, "tree": true, "sent": false });
        assert_eq!(told, &due);
    }
    let by_digest = format!("set=sha256:{named}");
    cluster.call(&["submit", "--input", &by_digest, "--wait", "--", "sh", "-c", LOOK]).ok();
    let file =
        "[[input]]\nname = 'set'\npath = 'set'\ntree = true\n[[step]]\nrun = 'test -x inputs/set/run'\n";
    cluster.call(&["submit", "--wait", &cluster.dir.file("job.toml", file)]).ok();
    let asked = wire.moved(Way::Up) - moved;
    assert_eq!(asked, 0, "the node has all of it in its cache, too");

    // One more file: it alone is sent, with the list.
    let more = vec![b'x'; 100_000];
    fs::write(cluster.dir.join("set/more"), &more).unwrap();
    fs::write(cluster.dir.join("set/more too"), &more).unwrap();
    let done = cluster.call(&["upload", "set", "-o", "json"]).ok().json();
    assert_eq!((&done[0]["size_bytes"], &done[0]["sent"]), (&json!(size + 200_000), &json!(true)));
    let sent = wire.moved(Way::Up) - moved;
    assert!((100_000..105_000).contains(&sent), "{sent}");
    // Each file of its own bytes is kept once, and two lists.
    let kept = size - 8 + 100_000;
    until_true("it is booked", || charged(&cluster)[0] > kept);
    let [ingress, storage] = charged(&cluster);
    assert!(ingress == storage && (kept..kept + 4_000).contains(&storage), "{ingress} {storage} {kept}");
    cluster.call(&["submit", "--input", "set=set/more", "--wait", "--", "test", "-f", "inputs/set"]).ok();

    // Nothing in it, and the machine's own empty list beside it.
    fs::create_dir(cluster.dir.join("nothing")).unwrap();
    let look = "test -d inputs/n && test -z \"$(ls -A inputs/n)\"";
    cluster.call(&["submit", "--input", "n=nothing", "--wait", "--", "sh", "-c", look]).ok();
}

#[test]
fn an_upload_of_a_directory_goes_on_after_a_cut() {
    let (cluster, wire) = cluster("tree-cut", 1);
    let root = cluster.dir.join("set/deep");
    fs::create_dir_all(&root).unwrap();
    for number in 0..3_u8 {
        let data: Vec<u8> = (0..4 * MIB).map(|at| (at % 251) as u8 ^ number).collect();
        fs::write(root.join(number.to_string()), data).unwrap();
    }
    let submit =
        ["submit", "--input", "set=set", "--wait", "--", "sh", "-c", "cat inputs/set/deep/* | wc -c > n"];
    wire.break_after(Way::Up, 7 * MIB);
    cluster.call(&submit).says(4, &["input set", "the transfer broke"]);
    until_true("what came is booked", || charged(&cluster)[0] > 6 * MIB);
    wire.mend();
    cluster.call(&submit).ok();
    let moved = wire.moved(Way::Up);
    assert!((12 * MIB..12 * MIB + 400_000).contains(&moved), "{moved}");
    until_true("it is paid once", || {
        charged(&cluster).iter().all(|paid| (12 * MIB..12 * MIB + 1000).contains(paid))
    });

    // All of a directory has room, or nothing of it is sent.
    cluster.call(&["quota", "set", "default", "--storage", "20MiB"]).ok();
    for number in 3..6_u8 {
        fs::write(root.join(number.to_string()), vec![number; 3 << 20]).unwrap();
    }
    cluster.call(&["upload", "set"]).says(3, &["storage", "9MiB", "20MiB", "quota.exceeded"]);
    assert!(wire.moved(Way::Up) - moved < 1000, "nothing was sent");
}

#[test]
fn what_cannot_be_sent_is_told_by_its_path() {
    let (cluster, wire) = cluster("tree-refused", 0);
    lay(&cluster);
    let root = cluster.dir.join("set");
    let upload = || cluster.call(&["upload", "set"]);
    for out in ["../elsewhere", "/etc/passwd", "deep/../../set-too", ".."] {
        symlink(out, root.join("out")).unwrap();
        upload().says(3, &["path = set/out", "a link that leads out", out, "put in its place", "spec.tree"]);
        fs::remove_file(root.join("out")).unwrap();
    }
    let odd = root.join(OsStr::from_bytes(b"deep/caf\xe9"));
    fs::write(&odd, "").unwrap();
    upload().says(3, &["set/deep/caf", "no UTF-8", "rename it"]);
    fs::remove_file(odd).unwrap();
    fs::write(root.join("two\nlines"), "").unwrap();
    upload().says(3, &["set/two lines", "control characters"]);
    fs::remove_file(root.join("two\nlines")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    upload().says(3, &["set/socket", "is no file, directory or link"]);
    fs::remove_file(root.join("socket")).unwrap();
    let tree = "[[input]]\nname = 'x'\npath = 'set/words'\ntree = true\n[[step]]\nrun = 'true'\n";
    cluster
        .call(&["submit", &cluster.dir.file("no-tree.toml", tree)])
        .says(2, &["input[0].path", "is a file"]);
    let file = "[[input]]\nname = 'x'\npath = 'set'\ntree = false\n[[step]]\nrun = 'true'\n";
    cluster
        .call(&["submit", &cluster.dir.file("tree.toml", file)])
        .says(2, &["input[0].path", "is a directory"]);
    assert_eq!(wire.moved(Way::Up), 0);
}

#[test]
fn a_list_that_nobody_should_follow_is_refused() {
    let (cluster, _wire) = cluster("tree-hostile", 1);
    let (gone, x) = (digest(b"gone"), digest(b"x"));
    fs::write(cluster.dir.join("x"), "x").unwrap();
    cluster.call(&["upload", "x"]).ok();
    // Uploaded as plain files, and named as directories.
    let submit = |lines: &str, told: Option<bool>| {
        let manifest = cluster.dir.file("manifest", &format!("drumline tree 1\n{lines}"));
        let name = cluster.call(&["upload", "-o", "name", &manifest]).ok().stdout;
        let tree = told.map_or(String::new(), |told| format!("tree = {told}\n"));
        let text = format!(
            "[[input]]\nname = 'x'\ndigest = '{}'\n{tree}[[step]]\nrun = 'test -f inputs/x'\n",
            name.trim()
        );
        cluster.call(&["submit", "--wait", &cluster.dir.file("hostile.toml", &text)])
    };
    for (lines, told) in [
        (format!("f\t1\t{x}\t../out\n"), "../out: leads out of the tree"),
        (format!("f\t1\t{x}\t/out\n"), "/out: is absolute"),
        ("l\t/etc\tetc\n".to_owned(), "etc: is a link that leads out"),
        (format!("f\t1\t{x}\ta\nf\t1\t{x}\ta\n"), "a: is there twice"),
        (format!("f\t1\t{x}\ta\nf\t1\t{x}\ta/b\n"), "a/b: lies in a file or a link"),
        (format!("l\t.\ta\nf\t1\t{x}\ta/b\n"), "a/b: lies in a file or a link"),
        ("nonsense\n".to_owned(), "is no line of a manifest"),
    ] {
        submit(&lines, Some(true)).says(3, &["input[0].tree", told, "spec.tree"]);
        // Nobody said that it is a directory, and it is none.
        submit(&lines, None).ok();
    }
    submit(&format!("f\t4\t{gone}\tdeep\n"), None)
        .says(3, &["input[0].tree = deep", "was not uploaded", &gone]);
    submit(&format!("f\t2\t{x}\tx\n"), Some(true)).says(3, &["input[0].tree = x", "is told to have 2 bytes"]);
    submit(&format!("f\t1\t{x}\tx\n"), Some(false)).ok();
    let not_one = format!("[[input]]\nname = 'x'\ntree = true\ndigest = '{x}'\n[[step]]\nrun = 'true'\n");
    cluster
        .call(&["submit", &cluster.dir.file("none.toml", &not_one)])
        .says(3, &["has no manifest of a tree"]);
}
