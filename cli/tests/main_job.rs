//! The main job: `drumline run` of the two examples, from an embedded cluster to
//! files and an exit code.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::{Dir, Done, drumline, processes, run, until};

/// How soon supervisors that were let go end, with much to spare for a busy
/// machine; left alone they stay for ten seconds.
const GONE: Duration = Duration::from_secs(8);

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// Runs an example with its temporary files where they can be looked for.
fn run_example(dir: &Dir, name: &str) -> Done {
    let temporary = dir.join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = drumline();
    command.arg("run").arg(example(name)).args(["--outputs", "outputs"]);
    let done = run(command.current_dir(dir.path()).env("TMPDIR", &temporary));
    // The embedded cluster leaves no files behind, and no processes.
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "{done:#?}");
    let place = dir.path().display().to_string();
    until(GONE, "nothing of the embedded cluster runs", || {
        processes::mentioning(&place).is_empty().then_some(())
    });
    done
}

/// All files below a directory, by their paths in it.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                files.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    files
}

/// Words of the book as the example counts them: letters and apostrophes.
fn counted() -> BTreeMap<String, u64> {
    let book = fs::read_to_string(example("book.txt")).unwrap();
    let mut counts = BTreeMap::new();
    let words = book.split(|c: char| !(c.is_ascii_alphabetic() || c == '\'')).filter(|word| !word.is_empty());
    for word in words {
        *counts.entry(word.to_ascii_lowercase()).or_insert(0) += 1;
    }
    counts
}

#[test]
fn a_book_is_counted_by_an_array_and_read_by_a_gang() {
    let dir = Dir::new("wordcount");
    let done = run_example(&dir, "wordcount.toml").ok();
    let files = tree(&dir.join("outputs"));

    // What each step gives lies below its name.
    let book = fs::read_to_string(example("book.txt")).unwrap();
    let parts: Vec<String> = (0..16).map(|part| files[&format!("split/part.{part:02}")].clone()).collect();
    assert_eq!(parts.concat(), book);
    for index in 0..16 {
        assert!(files.contains_key(&format!("count/{index}/words")), "{index}");
    }
    assert_eq!(files.len(), 16 + 16 + 2 + 4, "{:?}", files.keys());

    // The total is what counting in one go gives.
    let total = files["merge/total"].lines().map(|line| {
        let (count, word) = line.split_once(' ').unwrap();
        (word.to_owned(), count.parse::<u64>().unwrap())
    });
    let total: BTreeMap<String, u64> = total.collect();
    let counted = counted();
    assert!(counted.len() > 500);
    assert_eq!(total, counted);
    let sum: u64 = counted.values().sum();
    assert!(done.stdout.contains(&format!("{sum} words, {} different ones", counted.len())), "{done:#?}");

    // Four ranks on two nodes, each with a word of its own.
    let top: Vec<&str> = files["merge/top"].lines().collect();
    let mut places = BTreeSet::new();
    for (rank, word) in top.iter().enumerate().take(4) {
        let line = files[&format!("recite/{rank}/line")].trim_end().to_owned();
        let local = rank % 2;
        assert!(line.starts_with(&format!("rank {rank} of 4 (local {local}) on ")), "{line}");
        assert!(line.ends_with(&format!(": {word}")), "{line} does not tell {word}");
        places.insert(line.split(" on ").nth(1).unwrap().split(':').next().unwrap().to_owned());
        assert!(done.stdout.contains(&line), "{line} is not in the log");
    }
    let places: Vec<String> = places.into_iter().collect();
    let [place] = places.as_slice() else { panic!("the ranks disagree on their nodes: {places:?}") };
    let nodes: BTreeSet<&str> = place.split(',').collect();
    assert_eq!(nodes.len(), 2, "{place}");

    // The story on standard error ends with the verdict.
    assert!(done.stderr.contains("COMPLETED 19/19"), "{done:#?}");
    // Piped, it has no progress line, but each change of state.
    assert!(!done.stderr.contains('\x1b'), "{done:#?}");
    assert!(done.stderr.contains("default-1 RUNNING -> COMPLETED"), "{done:#?}");
}

#[test]
fn a_failure_is_tried_again_told_in_one_line_and_is_the_exit_code() {
    let dir = Dir::new("failing");
    let done = run_example(&dir, "failing.toml").exit(3);
    let files = tree(&dir.join("outputs"));
    for index in 0..8 {
        assert_eq!(files.contains_key(&format!("work/{index}/result")), index != 5, "{index}");
    }
    assert_eq!(files.len(), 7);
    for attempt in 1..=3 {
        assert!(done.stdout.contains(&format!("work[5] | task 5, attempt {attempt}\n")), "{done:#?}");
    }
    assert!(!done.stdout.contains("attempt 4") && !done.stdout.contains("this never runs"), "{done:#?}");
    for attempt in 1..=2 {
        let line = format!("work[5] attempt {attempt} ended: exit code 3; it will be tried again");
        assert!(done.stderr.contains(&line), "{done:#?}");
    }
    let reasons = done.stderr.lines().filter(|line| *line == "work[5] failed after 3 attempts: exit code 3");
    assert_eq!(reasons.count(), 1, "{done:#?}");
    assert_eq!(done.stderr.matches("work[5] | task 5 cannot do its work").count(), 3, "{done:#?}");
    assert!(done.stderr.contains("after PENDING -> CANCELLED"), "{done:#?}");
}

#[test]
fn a_kept_cluster_can_run_again() {
    let dir = Dir::new("kept");
    let file = dir.file("job.toml", "[[step]]\nrun = 'echo $DRUMLINE_JOB_ID > id'\noutputs = ['id']\n");
    for number in 1..=2 {
        let mut command = drumline();
        command.args(["run", &file, "--agents", "1", "--outputs", "o", "--data", "kept"]);
        run(command.current_dir(dir.path())).ok();
        let ids = tree(&dir.join("o"));
        let ids: Vec<&str> = ids.values().map(|text| text.trim_end()).collect();
        assert_eq!(ids, [format!("default-{number}")]);
    }
    assert!(dir.join("kept/server/store.redb").is_file());
}

#[test]
fn run_on_a_server_that_is_there_leaves_it_the_job() {
    let cluster = support::Cluster::new("run-remote", 1, "2");
    let file =
        cluster.dir.file("job.toml", "name = 'far'\n[[step]]\nrun = 'echo hello; exit 4'\nretries = 0\n");
    let done = cluster.call(&["run", &file]).exit(4);
    assert!(done.stdout.contains("hello"), "{done:#?}");
    assert_eq!(cluster.job_ids(), ["default-1"]);
    assert_eq!(cluster.show("default-1")["name"], "far");
}
