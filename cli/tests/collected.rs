//! What no row names is taken away, and counts no longer; what one names stays.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use std::fs;
use support::{COLLECTING, Cluster, digest, until_true};

#[test]
fn an_upload_goes_once_no_job_names_it_for_long() {
    let mut cluster = Cluster::with_config("collected-upload", COLLECTING);
    cluster.add_node("n1", &["--cores", "2", "--memory", "1GiB"]);
    cluster.until_ready(1);
    let (used, unused) = ("a book that is read\n", "a book that nobody reads\n");
    let file = |name: &str, text: &str| cluster.dir.file(name, text);
    cluster.call(&["upload", &file("used", used), &file("unused", unused)]).ok();
    let input = format!("book=sha256:{}", digest(used));
    cluster.call(&["submit", "--input", &input, "--wait", "--", "grep", "-q", "read", "inputs/book"]).ok();
    until_true("the unused book is gone", || !cluster.has_object(&digest(unused)));
    until_true("nobody pays for it", || cluster.stored() == used.len() as u64);
    assert!(cluster.has_object(&digest(used)));
    // Who names it now is told, and sends it anew; who names the other has it.
    let input = format!("book=sha256:{}", digest(unused));
    let late = cluster.call(&["submit", "--input", &input, "--", "true"]);
    late.says(3, &["input[0].digest", "were not uploaded", "drumline upload"]);
    let input = format!("book={}", file("unused", unused));
    cluster.call(&["submit", "--input", &input, "--wait", "--", "grep", "-q", "nobody", "inputs/book"]).ok();
    until_true("both are paid for", || cluster.stored() == (used.len() + unused.len()) as u64);
}

#[test]
fn the_files_of_a_directory_stay_as_long_as_a_job_names_it() {
    let mut cluster = Cluster::with_config("collected-tree", COLLECTING);
    cluster.add_node("n1", &["--cores", "2", "--memory", "1GiB"]);
    cluster.until_ready(1);
    for name in ["used", "unused"] {
        fs::create_dir(cluster.dir.join(name)).unwrap();
        fs::write(cluster.dir.join(name).join("file"), format!("{name}\n")).unwrap();
    }
    let upload = |path: &str| cluster.call(&["upload", "-o", "name", path]).ok().stdout.trim().to_owned();
    let used = format!("set=sha256:{}", upload("used"));
    let look = ["--wait", "--", "grep", "-q", "used", "inputs/set/file"];
    cluster.call(&[&["submit", "--input", &used], &look[..]].concat()).ok();
    // It was whole once.
    let unused = format!("set=sha256:{}", upload("unused"));
    cluster.call(&["submit", "--dry-run", "--input", &unused, "--", "true"]).ok();
    until_true("the unused one is gone", || !cluster.has_object(&digest("unused\n")));
    assert!(cluster.has_object(&digest("used\n")));
    cluster.call(&[&["submit", "--input", &used], &look[..]].concat()).ok();
    let list = format!("drumline tree 1\nf\t7\t{}\tfile\n", digest("unused\n"));
    assert_eq!(unused, format!("set=sha256:{}", upload(&cluster.dir.file("list", &list))));
    let late = cluster.call(&["submit", "--input", &unused, "--", "true"]);
    late.says(3, &["input[0].tree = file", "was not uploaded", "drumline upload DIR"]);
}

#[test]
fn what_a_retry_undid_goes_and_what_a_gang_gave_stays() {
    let mut cluster = Cluster::with_config("collected-outputs", COLLECTING);
    cluster.add_node("n1", &["--cores", "4", "--memory", "1GiB"]);
    cluster.until_ready(1);
    let go = cluster.dir.join("go");
    // The first rank gave its file long before the second ends.
    let gang = format!(
        "if [ $DRUMLINE_RANK = 1 ]; then until [ -e {} ]; do sleep 0.05; done; fi; echo rank $DRUMLINE_RANK > out",
        go.display()
    );
    let gang = cluster.submit(&[
        "--nodes",
        "1",
        "--tasks-per-node",
        "2",
        "--output",
        "out",
        "--",
        "sh",
        "-c",
        &gang,
    ]);
    let first = digest("rank 0\n");
    until_true("the first rank has given", || cluster.has_object(&first));
    let count = cluster.dir.join("count");
    let each = format!("echo try >> {0}; wc -l < {0} > out", count.display());
    let id = cluster.submit(&["--output", "out", "--", "sh", "-c", &each]);
    cluster.until_state(&id, "COMPLETED");
    cluster.call(&["retry", &id, "--from-step", "main"]).ok();
    cluster.until_state(&id, "COMPLETED");
    until_true("what the first try gave is gone", || !cluster.has_object(&digest("1\n")));
    assert!(cluster.has_object(&digest("2\n")));
    assert!(cluster.has_object(&first), "no row of a manifest names it yet");
    fs::write(go, "").unwrap();
    cluster.until_state(&gang, "COMPLETED");
    let got = cluster.dir.join("got");
    cluster.call(&["outputs", &gang, "get", &got.display().to_string()]).ok();
    assert_eq!(fs::read_to_string(got.join("main/0/out")).unwrap(), "rank 0\n");
}
