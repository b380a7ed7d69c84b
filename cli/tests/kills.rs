//! Parts of a cluster die by SIGKILL, at random moments, while arrays of 1,000
//! tasks run: nothing acknowledged is lost, nothing is done twice.
//!
//! `DRUMLINE_TEST_SEED` repeats a run's choices, `DRUMLINE_TEST_KILLS` (20) says
//! how often each test kills.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use support::chance::{Chance, number};
use support::history::{self, Event, Tasks};
use support::{Cluster, DEADLINE, Done, processes, run, until, until_true};

const TASKS: u64 = 1000;
/// For an array to end once nothing is killed any more.
const ARRAY_DEADLINE: Duration = Duration::from_secs(240);

fn kills() -> u64 {
    number("DRUMLINE_TEST_KILLS").unwrap_or(20)
}

/// An array of 1,000 tasks, each of which sleeps so long.
fn submit_array(cluster: &Cluster, seconds: &str) -> String {
    cluster.submit(&["--array", "1-1000", "--cores", "1", "--", "sleep", seconds])
}

/// How many tasks of a job are done; none where the server is away.
fn completed(cluster: &Cluster, id: &str) -> u64 {
    let done = cluster.call(&["show", id, "-o", "json"]);
    if done.code == 4 {
        return 0;
    }
    done.ok().json()["steps"][0]["completed"].as_u64().unwrap()
}

fn is_over(cluster: &Cluster, id: &str) -> bool {
    matches!(cluster.state(id).as_str(), "COMPLETED" | "FAILED" | "CANCELLED")
}

fn until_over(cluster: &Cluster, id: &str) {
    until(ARRAY_DEADLINE, &format!("{id} is over"), || is_over(cluster, id).then_some(()));
}

/// What must hold of every finished array, and what became of its tasks.
fn check_array(cluster: &Cluster, id: &str, all: &[Event]) -> Tasks {
    let job = cluster.show(id);
    assert_eq!(job["state"], "COMPLETED", "{job:#}");
    assert_eq!(job["steps"][0]["completed"], TASKS, "{job:#}");
    let events: Vec<Event> = all.iter().filter(|event| event.job == id).cloned().collect();
    let tasks = history::follow(&events);
    assert_eq!(tasks.len() as u64, TASKS, "{id} has other tasks than it should");
    for ((_, _, ordinal), task) in &tasks {
        assert_eq!((task.state.as_str(), task.completed), ("COMPLETED", 1), "{id}[{ordinal}]: {task:?}");
    }
    let ends = events.iter().filter(|event| event.step.is_none() && event.to == "COMPLETED");
    assert_eq!(ends.count(), 1, "{id} ended other than once");
    tasks
}

/// How often tasks went back to PENDING, by what it was for.
fn requeues(tasks: &Tasks) -> BTreeMap<String, usize> {
    let mut causes = BTreeMap::new();
    for cause in tasks.values().flat_map(|task| &task.requeued) {
        *causes.entry(cause.clone()).or_insert(0) += 1;
    }
    causes
}

/// A submission whose server may die under it: it is tried again under its key
/// until acknowledged, so that exactly one job may come of it.
struct Submission {
    key: String,
    running: support::Running,
}

impl Submission {
    fn start(cluster: &Cluster, number: u64) -> Self {
        let key = format!("key-{number}");
        let running = support::Running::start(&mut Self::command(cluster, &key));
        Self { key, running }
    }

    fn command(cluster: &Cluster, key: &str) -> std::process::Command {
        cluster.command(&["submit", "--idempotency-key", key, "--name", key, "-o", "json", "--", "true"])
    }

    /// The acknowledged id, and whether it was acknowledged before the kill.
    fn acknowledged(self, cluster: &Cluster) -> (String, bool) {
        let id = |done: &Done| done.json()["id"].as_str().unwrap().to_owned();
        let first = self.running.wait();
        if first.code == 0 {
            return (id(&first), true);
        }
        assert_eq!(first.code, 4, "{first:#?}");
        (id(&run(&mut Self::command(cluster, &self.key)).ok()), false)
    }
}

#[test]
fn a_killed_server_loses_nothing_and_its_tasks_run_on() {
    let mut chance = Chance::seeded("server kills");
    let mut cluster = Cluster::new("server-kills", 2, "4");
    let begun = Instant::now();
    let mut arrays = vec![submit_array(&cluster, "0.02")];
    let mut small = BTreeMap::new();
    let mut early = 0;
    for kill in 1..=kills() {
        let mut array = arrays.last().unwrap().clone();
        if is_over(&cluster, &array) {
            array = submit_array(&cluster, "0.02");
            arrays.push(array.clone());
        }
        // Anywhere from the array's first task to about its last.
        let before = completed(&cluster, &array);
        until_true("the array goes on", || completed(&cluster, &array) > before || is_over(&cluster, &array));
        chance.pause_ms(0, 600);
        let submission = chance.flip().then(|| Submission::start(&cluster, kill));
        chance.pause_ms(0, 150);
        cluster.server.kill();
        chance.pause_ms(0, 400);
        cluster.server.restart();
        if let Some(submission) = submission {
            let key = submission.key.clone();
            let (id, was_early) = submission.acknowledged(&cluster);
            early += u32::from(was_early);
            assert!(small.insert(id, key).is_none(), "two submissions became one job");
        }
    }
    for array in &arrays {
        until_over(&cluster, array);
    }
    for (id, key) in &small {
        until_over(&cluster, id);
        let job = cluster.show(id);
        assert_eq!((&job["state"], &job["name"]), (&"COMPLETED".into(), &key.as_str().into()), "{job:#}");
    }
    let expected: BTreeSet<String> = arrays.iter().chain(small.keys()).cloned().collect();
    assert_eq!(cluster.job_ids().into_iter().collect::<BTreeSet<String>>(), expected);

    let events = cluster.all_events();
    history::check_gapless(&events);
    for array in &arrays {
        let tasks = check_array(&cluster, array, &events);
        for ((_, _, ordinal), task) in &tasks {
            assert!(task.requeued.is_empty(), "{array}[{ordinal}] was requeued: {task:?}");
            assert_eq!(task.attempts, 1, "{array}[{ordinal}]: {task:?}");
        }
    }
    println!(
        "{} kills of the server over {} arrays in {:.1?}; {} submissions, {early} acknowledged before the kill",
        kills(),
        arrays.len(),
        begun.elapsed(),
        small.len(),
    );
}

/// Shorter times than the defaults, in their proportions: the agent itself acts
/// 5 s and 3 s before its lease ends, so that cannot be much shorter.
const BRISK: &str = "
[controller]
heartbeat_ms = 1000
lease_ttl_ms = 12000
lease_margin_ms = 500
suspect_after_ms = 1500
lost_after_ms = 3000
brake_window_ms = 2500
brake_ms_max = 10000
platform_backoff_ms = 300
";

fn node_state(cluster: &Cluster, name: &str) -> String {
    let nodes = cluster.call(&["nodes", "-o", "json"]).ok().json();
    let nodes = nodes.as_array().unwrap();
    let node = nodes.iter().find(|node| node["name"] == name).unwrap();
    node["state"].as_str().unwrap().to_owned()
}

/// A node that is down, and when it comes back.
struct Down {
    node: usize,
    back: Back,
}

enum Back {
    /// At this instant: before anybody has missed it, or just after.
    At(Instant),
    /// Once it was declared lost.
    Lost,
    /// Once its lease has passed and its tasks are others'.
    Passed(Instant),
}

fn bring_back(cluster: &mut Cluster, down: &mut Vec<Down>) {
    let mut still = Vec::new();
    for one in down.drain(..) {
        let name = cluster.nodes[one.node].name.clone();
        let due = match one.back {
            Back::At(at) | Back::Passed(at) => Instant::now() >= at,
            Back::Lost => node_state(cluster, &name) == "LOST",
        };
        match due {
            true => cluster.nodes[one.node].restart(),
            false => still.push(one),
        }
    }
    *down = still;
}

#[test]
fn tasks_of_killed_nodes_are_done_by_others_and_none_twice() {
    let mut chance = Chance::seeded("node kills");
    let mut cluster = Cluster::with_config("node-kills", BRISK);
    for number in 1..=5 {
        cluster.add_node(&format!("n{number}"), &["--cores", "2", "--memory", "1GiB"]);
    }
    cluster.until_ready(5);
    let begun = Instant::now();
    let mut arrays = vec![submit_array(&cluster, "0.2")];
    let mut down: Vec<Down> = Vec::new();
    let mut killed = 0;
    while killed < kills() {
        if is_over(&cluster, arrays.last().unwrap()) {
            arrays.push(submit_array(&cluster, "0.2"));
        }
        bring_back(&mut cluster, &mut down);
        // A majority stays: what happens when most vanish is another story.
        if down.len() >= 2 {
            chance.pause_ms(20, 100);
            continue;
        }
        let up: Vec<usize> = (0..5).filter(|node| cluster.nodes[*node].is_started()).collect();
        let node = up[usize::try_from(chance.between(0, up.len() as u64)).unwrap()];
        if node_state(&cluster, &cluster.nodes[node].name.clone()) != "READY" {
            chance.pause_ms(20, 100);
            continue;
        }
        chance.pause_ms(0, 900);
        cluster.nodes[node].kill_all();
        killed += 1;
        let back = match chance.flip() {
            true => Back::At(Instant::now() + Duration::from_millis(chance.between(1000, 3000))),
            // Every so often for as long as it takes.
            false if killed % 5 == 1 => Back::Passed(Instant::now() + Duration::from_secs(14)),
            false => Back::Lost,
        };
        down.push(Down { node, back });
    }
    until(DEADLINE, "all nodes are back", || {
        bring_back(&mut cluster, &mut down);
        down.is_empty().then_some(())
    });
    for array in &arrays {
        until_over(&cluster, array);
    }

    let events = cluster.all_events();
    history::check_gapless(&events);
    let mut all = BTreeMap::new();
    for array in &arrays {
        let tasks = check_array(&cluster, array, &events);
        for ((_, _, ordinal), task) in &tasks {
            assert!(task.requeued.len() <= 3, "{array}[{ordinal}] was tried too often: {task:?}");
        }
        for (cause, count) in requeues(&tasks) {
            *all.entry(cause).or_insert(0) += count;
        }
    }
    println!(
        "{killed} kills of nodes over {} arrays in {:.1?}; requeued: {all:?}",
        arrays.len(),
        begun.elapsed()
    );
    for cause in all.keys() {
        assert!(matches!(cause.as_str(), "NODE_LOST" | "AGENT_RESTARTED" | "LEASE_EXPIRED"), "{all:?}");
    }
    assert!(all.values().sum::<usize>() > 0, "no kill hit a task");
}

#[test]
fn a_dead_nodes_tasks_move_under_the_real_promise() {
    let mut cluster = Cluster::new("real-lease", 3, "2");
    // Long enough that some run when the node dies.
    let id = cluster.submit(&["--array", "1-60", "--cores", "1", "--", "sleep", "2"]);
    until_true("the node has work", || {
        cluster.events(&id).iter().any(|event| event.node == "n2" && event.to == "RUNNING")
    });
    cluster.nodes[1].kill_all();
    let begun = Instant::now();
    // Two missed heartbeats: decided at most 10 s after the last due one.
    until(Duration::from_secs(30), "the node is lost", || {
        (node_state(&cluster, "n2") == "LOST").then_some(())
    });
    let lost_after = begun.elapsed();
    until_over(&cluster, &id);
    let job = cluster.show(&id);
    assert_eq!((&job["state"], &job["steps"][0]["completed"]), (&"COMPLETED".into(), &60.into()), "{job:#}");
    let events = cluster.all_events();
    history::check_gapless(&events);
    let tasks = history::follow(&events);
    let moved: Vec<_> = tasks.values().filter(|task| !task.requeued.is_empty()).collect();
    assert!(!moved.is_empty(), "nothing ran on the node that died");
    for task in moved {
        assert_eq!(task.requeued, ["NODE_LOST"], "{task:?}");
        assert_eq!((task.nodes[0].as_str(), task.completed), ("n2", 1), "{task:?}");
        assert_ne!(task.nodes[1], "n2", "{task:?}");
    }
    // Not given to others before the lease of 30 s was over.
    let requeued = events.iter().find(|event| event.to == "PENDING" && event.cause == "NODE_LOST").unwrap();
    let heard_ms = events.iter().filter(|event| event.node == "n2" && event.from == "RUNNING");
    let heard_ms = heard_ms.filter(|event| event.to == "COMPLETED").map(|event| event.at_ms).max();
    if let Some(heard_ms) = heard_ms {
        let gap_ms = requeued.at_ms - heard_ms;
        assert!(gap_ms >= 24_000, "the lease could not be over after {gap_ms} ms");
    }
    println!("lost after {lost_after:.1?}, all done after {:.1?}", begun.elapsed());
}

#[test]
fn a_killed_agents_tasks_run_on_and_are_adopted() {
    let mut chance = Chance::seeded("agent kills");
    let mut cluster = Cluster::new("agent-kills", 2, "4");
    let id = submit_array(&cluster, "0.1");
    let long = cluster.submit(&["--cores", "1", "--", "sh", "-c", "echo begun; sleep 6; echo ended"]);
    until_true("the array runs", || completed(&cluster, &id) > 0);
    let begun = Instant::now();
    let supervisors: Vec<Option<i32>> = cluster.nodes.iter().map(support::Node::supervisor).collect();
    let mut killed = 0;
    while killed < kills() && !is_over(&cluster, &id) {
        chance.pause_ms(0, 500);
        let node = &mut cluster.nodes[usize::try_from(chance.between(0, 2)).unwrap()];
        let lives = |node: &support::Node| node.log().matches("works for").count();
        let before = lives(node);
        node.kill_agent();
        killed += 1;
        chance.pause_ms(0, 300);
        node.restart();
        until_true("the agent works again", || lives(node) > before);
    }
    until_over(&cluster, &id);
    until_over(&cluster, &long);
    let after: Vec<Option<i32>> = cluster.nodes.iter().map(support::Node::supervisor).collect();
    assert_eq!(supervisors, after, "a supervisor did not outlive its agent");
    assert!(supervisors.iter().flatten().all(|pid| processes::lives(*pid)));

    let events = cluster.all_events();
    history::check_gapless(&events);
    let tasks = check_array(&cluster, &id, &events);
    assert_eq!(requeues(&tasks), BTreeMap::new(), "tasks were not adopted");
    let long = history::follow(&cluster.events(&long));
    assert!(long.values().all(|task| task.requeued.is_empty() && task.attempts == 1), "{long:?}");
    println!("{killed} kills of agents in {:.1?}", begun.elapsed());
}
