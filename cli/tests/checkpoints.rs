//! Tasks and gangs go on from their checkpoints: after a failure of their own, on
//! another node after SIGKILL of theirs, at a user's retry, and from the one before
//! where the newest is damaged.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use support::{Cluster, until, until_true};

/// Counts in steps of a tenth of a second and keeps a checkpoint at each; tells where it
/// began. The first attempt ends at 30 by a failure.
const COUNT: &str = r#"
at=$(cat "$DRUMLINE_CHECKPOINT_DIR/at" 2>/dev/null || echo 0)
echo "begins at $at by ${DRUMLINE_CHECKPOINT:-nothing}"
while [ "$at" -lt 60 ]; do
  at=$((at + 1))
  while [ -e "$DRUMLINE_CHECKPOINT_DIR/.drumline-ready" ]; do sleep 0.05; done
  echo $at > "$DRUMLINE_CHECKPOINT_DIR/at"
  echo $at > next && mv next "$DRUMLINE_CHECKPOINT_DIR/.drumline-ready"
  if [ "$at" = 4 ] && [ "$DRUMLINE_ATTEMPT" = 1 ]; then exit 3; fi
  [ "$at" -lt 8 ] || break
done
echo $at > end
"#;

fn job(step: &str) -> String {
    format!(
        "[[step]]\nname = \"main\"\ncores = 1\nmemory = \"16MiB\"\noutputs = [\"end\"]\n{step}\nrun = '''{COUNT}'''\n"
    )
}

/// Where attempts began, as they tell, with what they called it.
fn begun(cluster: &Cluster, id: &str) -> Vec<(u64, String)> {
    let logs = cluster.call(&["logs", id]).ok().stdout;
    let said = logs.lines().filter_map(|line| line.split_once("begins at "));
    let read = |(_, said): (&str, &str)| {
        let (at, label) = said.split_once(" by ").unwrap();
        (at.parse().unwrap(), label.to_owned())
    };
    said.map(read).collect()
}

/// The objects of the server, by the text in them.
fn objects(cluster: &Cluster) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![cluster.server.data.join("objects")];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                found.push((path, text));
            }
        }
    }
    found
}

#[test]
fn a_task_that_fails_goes_on_where_it_was() {
    let mut cluster = Cluster::new("checkpoints-own", 1, "2");
    let file = cluster.dir.file("job.toml", &job("checkpoint = { path = \"ckpt/\", every = \"1s\" }"));
    let id = cluster.submit(&[&file, "--wait"]);
    let begun = begun(&cluster, &id);
    // Its last look finds what it kept just before it failed.
    assert_eq!(begun, [(0, "nothing".to_owned()), (4, "4".to_owned())]);
    let to = cluster.dir.join("out");
    cluster.call(&["outputs", &id, "get", to.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(to.join("main/end")).unwrap(), "8\n");
    // One may have been on its way when it ended: that goes when the server starts next.
    cluster.server.kill();
    cluster.server.restart();
    until_true("its checkpoints are gone from the server", || {
        !objects(&cluster).iter().any(|(_, text)| text.starts_with("drumline checkpoint"))
    });
}

#[test]
fn a_node_that_dies_takes_no_more_than_what_came_after_the_last() {
    let mut cluster = Cluster::new("checkpoints-node", 2, "2");
    let endless = job("checkpoint = { path = \"ckpt\", every = \"1s\" }")
        .replace("exit 3", "sleep 600")
        .replace("\"$at\" = 4 ]", "\"$at\" = 2 ]");
    let file = cluster.dir.file("job.toml", &endless);
    let id = cluster.submit(&[&file]);
    // Both its checkpoints are with the server.
    until_true("checkpoints of the first attempt", || {
        objects(&cluster)
            .iter()
            .filter(|(_, text)| text.ends_with("\n1\n") || text.ends_with("\n2\n"))
            .count()
            == 2
    });
    let node = until(Duration::from_secs(30), "the node it runs on", || {
        let events = cluster.events(&id);
        events
            .iter()
            .rev()
            .find(|event| event.to == "RUNNING" && !event.node.is_empty())
            .map(|e| e.node.clone())
    });
    let dying = cluster.nodes.iter_mut().find(|found| found.name == node).unwrap();
    dying.kill_all();
    cluster.until_state(&id, "COMPLETED");
    assert_eq!(begun(&cluster, &id), [(0, "nothing".to_owned()), (2, "2".to_owned())]);
}

#[test]
fn where_the_newest_is_damaged_the_one_before_serves() {
    let cluster = Cluster::new("checkpoints-damaged", 1, "2");
    let step = "checkpoint = { path = \"ckpt\", every = \"1s\" }\nretries = 0";
    let file = cluster.dir.file("job.toml", &job(step));
    let id = cluster.submit(&[&file]);
    cluster.until_state(&id, "FAILED");
    let newest = objects(&cluster).into_iter().find(|(_, text)| text.ends_with("\n4\n")).unwrap();
    fs::write(&newest.0, newest.1.replace("\n4\n", "\n9\n")).unwrap();
    // The node's own copy is gone with what it kept for others.
    cluster.call(&["retry", &id]).ok();
    cluster.until_state(&id, "COMPLETED");
    let begun = begun(&cluster, &id);
    assert_eq!(begun[0], (0, "nothing".to_owned()));
    assert_eq!(begun[1], (3, "3".to_owned()), "{begun:?}");
}

#[test]
fn a_gang_goes_on_from_one_place() {
    let cluster = Cluster::new("checkpoints-gang", 2, "2");
    let step = "nodes = 2\ntasks_per_node = 1\ncheckpoint = { path = \"ckpt\", every = \"1s\" }";
    // The ranks are not in step: one is done with a place long before the other.
    let job = job(step).replace("  at=$((at + 1))\n", "  at=$((at + 1))\n  sleep 0.$((DRUMLINE_RANK * 7))\n");
    let file = cluster.dir.file("job.toml", &job);
    let id = cluster.submit(&[&file, "--wait"]);
    let begun = begun(&cluster, &id);
    assert_eq!(begun.len(), 4, "{begun:?}");
    let mut again: Vec<_> = begun.into_iter().filter(|(_, label)| label != "nothing").collect();
    again.dedup();
    assert_eq!(again.len(), 1, "both ranks go on from one place: {again:?}");
    assert!((1..=4).contains(&again[0].0), "{again:?}");
}

/// Keeps nothing by itself: counts, and keeps where it is when it is asked.
const ASKED: &str = r#"
at=$(cat "$DRUMLINE_CHECKPOINT_DIR/at" 2>/dev/null || echo 0)
echo "begins at $at by ${DRUMLINE_CHECKPOINT:-nothing}"
keep() {
  echo $at > "$DRUMLINE_CHECKPOINT_DIR/at"
  echo "was asked at $at"
  echo $at > next && mv next "$DRUMLINE_CHECKPOINT_DIR/.drumline-ready"
}
trap keep USR1
while [ "$at" -lt 200 ]; do
  at=$((at + 1))
  sleep 0.05
  # The first attempt fails once one was taken.
  if [ -e asked ] && [ ! -e "$DRUMLINE_CHECKPOINT_DIR/.drumline-ready" ]; then exit 3; fi
  if [ -e "$DRUMLINE_CHECKPOINT_DIR/.drumline-ready" ] && [ "$DRUMLINE_ATTEMPT" = 1 ]; then touch asked; fi
  [ "$DRUMLINE_ATTEMPT" = 1 ] || break
done
echo $at > end
"#;

#[test]
fn a_task_is_asked_for_its_checkpoint_by_a_signal() {
    let cluster = Cluster::new("checkpoints-asked", 1, "2");
    let checkpoint = "checkpoint = { path = \"ckpt\", every = \"1s\", signal = \"USR1\" }";
    let file = cluster.dir.file("asked.toml", &job(checkpoint).replace(COUNT, ASKED));
    let id = cluster.submit(&[&file, "--wait"]);
    let begun = begun(&cluster, &id);
    assert_eq!(begun.len(), 2, "{begun:?}");
    assert_eq!(begun[0], (0, "nothing".to_owned()));
    let (at, label) = &begun[1];
    assert!(*at > 0 && *label == at.to_string(), "{begun:?}");
    let logs = cluster.call(&["logs", &id]).ok().stdout;
    assert!(logs.contains(&format!("was asked at {at}")), "{logs}");
}

#[test]
fn a_signal_that_asks_for_nothing_is_refused() {
    let cluster = Cluster::new("checkpoints-signal", 0, "2");
    let file = cluster.dir.file("kill.toml", &job("checkpoint = { path = \"ckpt\", signal = \"KILL\" }"));
    cluster
        .call(&["submit", &file])
        .says(3, &["checkpoint.signal", "KILL", "use one of USR1, USR2, HUP, INT"]);
}
