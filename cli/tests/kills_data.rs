//! Server and agents die by SIGKILL, at random moments, while an array of 200 tasks
//! writes lines and outputs: every output is there once, and every line is told once,
//! to who followed all the time and to who reads afterwards. The relay of logs is a
//! part of the server and dies with it.
//!
//! `DRUMLINE_TEST_SEED` repeats a run's choices, `DRUMLINE_TEST_KILLS` (8) says how
//! often it kills.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;
use support::chance::{Chance, number};
use support::history::{self, Event};
use support::{Cluster, Running, until_true};

const TASKS: u64 = 200;
const LINES: u64 = 20;

const JOB: &str = r#"
[[step]]
name = "main"
array = "1-200"
cores = 1
memory = "16MiB"
run = '''
for line in $(seq 1 20); do echo "$DRUMLINE_TASK:$line"; sleep 0.05; done
yes "task $DRUMLINE_TASK" | head -c $((DRUMLINE_TASK % 50 * 6000)) > out
'''
outputs = ["out"]
"#;

/// What a task writes; every fiftieth writes an empty file.
fn output(task: u64) -> Vec<u8> {
    let line = format!("task {task}\n").into_bytes();
    line.into_iter().cycle().take(usize::try_from(task % 50 * 6000).unwrap()).collect()
}

/// A job, and who follows its lines from the beginning.
struct Followed {
    id: String,
    logs: Running,
}

impl Followed {
    fn start(cluster: &Cluster, job: &str) -> Self {
        let id = cluster.submit(&[job]);
        let logs = Running::start(&mut cluster.command(&["logs", "-f", &id]));
        Self { id, logs }
    }

    fn is_over(&self, cluster: &Cluster) -> bool {
        let done = cluster.call(&["show", &self.id, "-o", "json"]);
        done.code != 4 && matches!(done.ok().json()["state"].as_str(), Some("COMPLETED" | "FAILED"))
    }
}

/// Every line of every task once, each task's in their order.
fn check_lines(who: &str, text: &str) {
    let mut told: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for line in text.lines() {
        let (task, number) = line.rsplit_once("| ").and_then(|(_, said)| said.split_once(':')).unwrap();
        assert!(line.starts_with(&format!("main[{task}] ")), "{who}: {line}");
        told.entry(task.parse().unwrap()).or_default().push(number.parse().unwrap());
    }
    let all: Vec<u64> = (1..=LINES).collect();
    for (task, lines) in &told {
        assert_eq!(*lines, all, "{who}: lines of task {task}");
    }
    assert_eq!(told.len() as u64, TASKS, "{who}: tasks with lines");
}

fn check_outputs(cluster: &Cluster, id: &str) {
    let listed = cluster.call(&["outputs", id, "-o", "name"]).ok().stdout;
    let expected: String = (1..=TASKS).map(|task| format!("main/{task}/out\n")).collect();
    assert_eq!(listed, expected, "outputs of {id}");
    let got = cluster.dir.join(&format!("got-{id}"));
    cluster.call(&["outputs", id, "get", &got.display().to_string()]).ok();
    for task in 1..=TASKS {
        let bytes = fs::read(got.join(format!("main/{task}/out"))).unwrap();
        assert!(
            bytes == output(task),
            "{id}: the output of task {task} has {} bytes, or others",
            bytes.len()
        );
    }
}

#[test]
fn outputs_and_lines_are_there_once_whoever_is_killed() {
    let kills = number("DRUMLINE_TEST_KILLS").unwrap_or(8);
    let mut chance = Chance::seeded("kills with data");
    let mut cluster = Cluster::new("kills-data", 3, "4");
    let job = cluster.dir.file("job.toml", JOB);
    let begun = Instant::now();
    let mut jobs = vec![Followed::start(&cluster, &job)];
    let (mut servers, mut agents) = (0, 0);
    while servers + agents < kills {
        if jobs.last().unwrap().is_over(&cluster) {
            jobs.push(Followed::start(&cluster, &job));
        }
        chance.pause_ms(0, 900);
        if chance.flip() {
            servers += 1;
            cluster.server.kill();
            chance.pause_ms(0, 300);
            cluster.server.restart();
        } else {
            agents += 1;
            let node = &mut cluster.nodes[usize::try_from(chance.between(0, 3)).unwrap()];
            let lives = node.log().matches("works for").count();
            node.kill_agent();
            chance.pause_ms(0, 300);
            node.restart();
            until_true("the agent works again", || node.log().matches("works for").count() > lives);
        }
    }
    let count = jobs.len();
    for Followed { id, logs } in jobs {
        cluster.until_state(&id, "COMPLETED");
        check_lines("who followed", &logs.wait().ok().stdout);
        check_lines("who reads afterwards", &cluster.call(&["logs", &id]).ok().stdout);
        check_outputs(&cluster, &id);
    }
    let events: Vec<Event> = cluster.all_events();
    history::check_gapless(&events);
    for (task, told) in history::follow(&events) {
        assert_eq!((told.attempts, told.completed), (1, 1), "{task:?}: {told:?}");
    }
    println!(
        "{servers} kills of the server and {agents} of agents over {count} jobs in {:.1?}",
        begun.elapsed()
    );
}
