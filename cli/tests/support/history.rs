//! What `drumline events -o json` tells, and what must hold in it.

use super::Done;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Event {
    pub seq: u64,
    pub at_ms: u64,
    pub job: String,
    pub step: Option<u64>,
    /// Spans of ordinals, ends included. None: the step's or the job's own.
    pub tasks: Vec<(u64, u64)>,
    pub from: String,
    pub to: String,
    pub cause: String,
    pub text: String,
    pub attempt: u64,
    pub epoch: u64,
    pub node: String,
}

impl Event {
    /// The ordinals it is about.
    pub fn ordinals(&self) -> impl Iterator<Item = u64> + '_ {
        self.tasks.iter().flat_map(|(first, last)| *first..=*last)
    }
}

fn event(value: &Value) -> Event {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let spans = value["tasks"].as_array().unwrap();
    Event {
        seq: value["seq"].as_u64().unwrap(),
        at_ms: value["at_ms"].as_u64().unwrap(),
        job: text(&value["job"]),
        step: value["step"].as_u64(),
        tasks: spans.iter().map(|span| (span[0].as_u64().unwrap(), span[1].as_u64().unwrap())).collect(),
        from: text(&value["from"]),
        to: text(&value["to"]),
        cause: text(&value["cause"]["kind"]),
        text: text(&value["cause"]["text"]),
        attempt: value["attempt"].as_u64().unwrap(),
        epoch: value["epoch"].as_u64().unwrap(),
        node: text(&value["node"]),
    }
}

/// What the command printed.
pub fn read(done: &Done) -> Vec<Event> {
    done.json_lines().iter().map(event).collect()
}

/// All of a tenant's history is there: numbers from 1 without a hole.
pub fn check_gapless(events: &[Event]) {
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!(event.seq, seq, "a hole before {event:?}");
    }
}

/// What became of each task, by job, step and ordinal.
pub type Tasks = BTreeMap<(String, u64, u64), Task>;

#[derive(Clone, Debug, Default)]
pub struct Task {
    pub state: String,
    pub completed: u32,
    /// The highest attempt.
    pub attempts: u64,
    /// Why it went back to PENDING, each time.
    pub requeued: Vec<String>,
    /// Where it was placed, each time.
    pub nodes: Vec<String>,
}

/// Follows every task along its edges: each event begins where the one before
/// ended, no attempt comes back, and what is over stays over.
pub fn follow(events: &[Event]) -> Tasks {
    let mut tasks = Tasks::new();
    for event in events {
        let Some(step) = event.step else { continue };
        for ordinal in event.ordinals() {
            let task = tasks.entry((event.job.clone(), step, ordinal)).or_default();
            let before = if task.state.is_empty() { "PENDING" } else { &task.state };
            assert_eq!(event.from, before, "task {ordinal} moves from where it is not: {event:?}");
            assert!(is_edge(&event.from, &event.to), "no edge of the machine: {event:?}");
            match event.to.as_str() {
                "STAGING" => task.nodes.push(event.node.clone()),
                "COMPLETED" => task.completed += 1,
                "PENDING" => task.requeued.push(event.cause.clone()),
                _ => {}
            }
            assert!(event.attempt >= task.attempts, "an old attempt came back: {event:?}");
            task.attempts = event.attempt;
            task.state.clone_from(&event.to);
        }
    }
    tasks
}

fn is_edge(from: &str, to: &str) -> bool {
    match from {
        "PENDING" => matches!(to, "STAGING" | "CANCELLED"),
        "STAGING" => matches!(to, "RUNNING" | "PENDING" | "FAILED" | "CANCELLED"),
        "RUNNING" => matches!(to, "COMPLETED" | "PENDING" | "FAILED" | "CANCELLED"),
        _ => false,
    }
}

/// The most tasks of a job's step that were in this state at once.
pub fn most_at_once(events: &[Event], job: &str, step: u64, state: &str) -> i64 {
    let (mut now, mut most) = (0_i64, 0_i64);
    for event in events.iter().filter(|event| event.job == job && event.step == Some(step)) {
        let count = i64::try_from(event.ordinals().count()).unwrap();
        if event.from == state {
            now -= count;
        }
        if event.to == state {
            now += count;
        }
        most = most.max(now);
    }
    most
}
