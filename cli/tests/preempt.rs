//! Work gives way to work of higher priority, where its pool says so: it keeps a checkpoint,
//! waits, and goes on from there with all its tries.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use serde_json::Value;
use support::{Cluster, Dir, drumline, run, until_true};

/// Counts until it is told to end, and keeps where it is when it is asked.
const COUNT: &str = r#"
at=$(cat "$DRUMLINE_CHECKPOINT_DIR/at" 2>/dev/null || echo 0)
echo "begins at $at by ${DRUMLINE_CHECKPOINT:-nothing}"
keep() {
  echo $at > "$DRUMLINE_CHECKPOINT_DIR/at"
  echo $at > next && mv next "$DRUMLINE_CHECKPOINT_DIR/.drumline-ready"
}
trap keep USR1
while [ "$at" -lt 5 ] || [ "$DRUMLINE_ATTEMPT" = 1 ]; do
  at=$((at + 1))
  echo $at > "$DRUMLINE_CHECKPOINT_DIR/live"
  sleep 0.05
done
"#;

fn low() -> String {
    format!(
        "priority = -1\n[[step]]\nname = \"main\"\ncores = 1\nmemory = \"16MiB\"\nretries = 0\n\
         checkpoint = {{ path = \"ckpt\", every = \"1h\", signal = \"USR1\" }}\nrun = '''{COUNT}'''\n"
    )
}

fn why(cluster: &Cluster, id: &str) -> Value {
    cluster.call(&["why", id, "-o", "json"]).ok().json()
}

#[test]
fn what_matters_less_keeps_a_checkpoint_gives_way_and_goes_on() {
    let rules = "[pools.default.preemption]\nafter_waiting_ms = 300\nmin_run_ms = 0\ngrace_ms = 20000\n";
    let mut cluster = Cluster::with_config("preempt", rules);
    cluster.add_node("n1", &["--cores", "1", "--memory", "1GiB"]);
    cluster.until_ready(1);
    let pools = cluster.call(&["pools", "-o", "json"]).ok().json();
    assert_eq!(pools[0]["preemption"]["grace_ms"], 20_000, "{pools}");

    let low = cluster.submit(&[&cluster.dir.file("low.toml", &low())]);
    cluster.until_state(&low, "RUNNING");
    // What matters as much waits.
    let equal = cluster.submit(&["--priority", "-1", "--cores", "1", "--", "true"]);
    let high = cluster.submit(&["--priority", "5", "--cores", "1", "--time", "1h", "--", "sleep", "2"]);
    cluster.until_state(&high, "RUNNING");
    let told = why(&cluster, &low);
    assert!(told.to_string().contains(&format!("gave way to {high}")), "{told}");
    assert!(told.to_string().contains(&format!("when {high} has ended, in 1h")), "{told}");
    assert_eq!(cluster.state(&equal), "PENDING");
    let shown = cluster.call(&["show", &low]).ok().stdout;
    assert!(shown.contains("preempted  main gave way once, last"), "{shown}");
    cluster.until_state(&high, "COMPLETED");
    cluster.until_state(&low, "COMPLETED");
    cluster.until_state(&equal, "COMPLETED");

    let logs = cluster.call(&["logs", &low]).ok().stdout;
    let begun: Vec<&str> = logs.lines().filter(|line| line.contains("begins at")).collect();
    assert_eq!(begun.len(), 2, "{logs}");
    assert!(begun[0].ends_with("begins at 0 by nothing"), "{logs}");
    assert!(!begun[1].contains("begins at 0") && !begun[1].contains("nothing"), "{logs}");
    let shown = cluster.call(&["show", &low, "-o", "json"]).ok().json();
    let step = &shown["steps"][0];
    assert_eq!((&step["retries_spent"], &step["preempted"]["times"]), (&0.into(), &1.into()), "{step}");
    assert_eq!(step["preempted"]["to"], high.as_str());
    let gave = cluster.events(&low).into_iter().filter(|event| event.cause == "PREEMPTED").count();
    assert_eq!(gave, 1);
}

#[test]
fn a_server_that_dies_in_the_midst_of_it_goes_on() {
    let rules = "[pools.default.preemption]\nafter_waiting_ms = 100\nmin_run_ms = 0\ngrace_ms = 3000\n";
    let mut cluster = Cluster::with_config("preempt-killed", rules);
    cluster.add_node("n1", &["--cores", "1", "--memory", "1GiB"]);
    cluster.until_ready(1);
    // It never keeps one, however often it is asked.
    let deaf = low().replace("trap keep USR1", "trap true USR1");
    let low = cluster.submit(&[&cluster.dir.file("low.toml", &deaf)]);
    cluster.until_state(&low, "RUNNING");
    let high = cluster.submit(&["--priority", "5", "--cores", "1", "--", "true"]);
    until_true("it waits for the other to give way", || why(&cluster, &high)["code"] == "waiting.preemption");
    let told = why(&cluster, &high);
    assert_eq!(told["headline"], "waits for 1 task of lower priority to give way, at most 3s", "{told}");
    let told = why(&cluster, &low);
    assert!(told.to_string().contains(&format!("1 task is giving way to {high}")), "{told}");
    cluster.server.kill();
    cluster.server.restart();
    cluster.until_state(&high, "COMPLETED");
    let gave = cluster.events(&low).into_iter().filter(|event| event.cause == "PREEMPTED").count();
    assert_eq!(gave, 1);
    cluster.call(&["cancel", &low]).ok();
}

#[test]
fn what_cannot_be_meant_is_refused_by_field() {
    let dir = Dir::new("preempt-wrong");
    let data = dir.join("server").display().to_string();
    let refused = |text: &str, words: &[&str]| {
        let config = dir.file("server.toml", &format!("[pools.default.preemption]\n{text}\n"));
        let args = ["server", "--data", &data, "--listen", "127.0.0.1:0", "--config", &config];
        run(drumline().args(args)).says(2, words);
    };
    refused("priority_above = 0", &["pools.default.preemption.priority_above = 0", "take turns"]);
    refused("times_max = 0", &["pools.default.preemption.times_max = 0"]);
    refused("grace = 5", &["unknown field `grace`"]);
}
