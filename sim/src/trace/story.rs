//! The story of a run, for people: faults and what was decided after them on one
//! time line; all of one job; all of one node.
//!
//! The time line must stay readable, so much that happens alike within a few
//! seconds is one line of it, and what went well is none.

use proto::trace::{Kind, Record};
use std::collections::{BTreeMap, BTreeSet};

/// What happens alike within this span is told as one.
const TOGETHER_US: u64 = 5_000_000;
/// So many jobs are named in a line.
const JOBS_NAMED: usize = 4;

/// How much an entry matters to the time line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Not there.
    Detail,
    /// With all others of these words.
    Group { words: String, count: u64 },
    /// A line: a decision.
    Sign,
    /// A line: told by whoever runs the rehearsal.
    Told,
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub record: Record,
    pub weight: Weight,
}

/// Much that happened alike.
struct Group<'a> {
    first_us: u64,
    last_us: u64,
    count: u64,
    words: &'a str,
    jobs: BTreeSet<&'a str>,
}

impl Group<'_> {
    fn line(&self) -> String {
        let named: Vec<&str> = self.jobs.iter().take(JOBS_NAMED).copied().collect();
        let more = self.jobs.len() - named.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let span_us = self.last_us - self.first_us;
        let span = if span_us >= 100_000 {
            format!(" within {}.{} s", span_us / 1_000_000, span_us % 1_000_000 / 100_000)
        } else {
            String::new()
        };
        let times = if self.count > 1 { format!(" ×{}", self.count) } else { String::new() };
        format!("{}  · {}{times}{span} ({}{more})", stamp(self.first_us), self.words, named.join(", "))
    }
}

/// Faults, heals, verdicts about nodes, and attempts that did not end well.
#[must_use]
pub fn timeline(entries: &[Entry]) -> Vec<String> {
    let mut lines: Vec<(u64, String)> = Vec::new();
    let mut groups: BTreeMap<&str, Group<'_>> = BTreeMap::new();
    for Entry { record, weight } in entries {
        match weight {
            Weight::Detail => {}
            Weight::Told => lines.push((record.at_us, format!("{}  {}", stamp(record.at_us), record.text))),
            Weight::Sign => lines.push((record.at_us, format!("{}  · {}", stamp(record.at_us), record.text))),
            Weight::Group { words, count } => {
                let group = groups.remove(words.as_str());
                let (open, closed) = match group {
                    Some(group) if record.at_us - group.first_us > TOGETHER_US => (None, Some(group)),
                    group => (group, None),
                };
                lines.extend(closed.map(|group| (group.first_us, group.line())));
                let mut group = open.unwrap_or_else(|| Group {
                    first_us: record.at_us,
                    last_us: record.at_us,
                    count: 0,
                    words,
                    jobs: BTreeSet::new(),
                });
                group.last_us = record.at_us;
                group.count += count;
                group.jobs.insert(&record.job);
                groups.insert(words, group);
            }
        }
    }
    lines.extend(groups.into_values().map(|group| (group.first_us, group.line())));
    lines.sort_by_key(|(at_us, _)| *at_us);
    lines.into_iter().map(|(_, line)| line).collect()
}

/// All that there is of one job, with the faults of the nodes it was on while it
/// was there.
#[must_use]
pub fn of_job(entries: &[Entry], job: &str) -> Vec<String> {
    let mut nodes: BTreeSet<&str> = BTreeSet::new();
    let (first_us, last_us) = span(entries, job);
    let mut lines = Vec::new();
    for Entry { record, .. } in entries {
        let struck = matches!(record.kind, Kind::Fault | Kind::Healed)
            && (first_us..=last_us).contains(&record.at_us)
            && (record.node == "server" || nodes.contains(record.node.as_str()));
        if record.job == job {
            nodes.extend(Some(record.node.as_str()).filter(|node| !node.is_empty()));
            lines.push(told(record, ""));
        } else if struck {
            lines.push(told(record, "! "));
        }
    }
    lines
}

/// From the first to the last word of a job.
fn span(entries: &[Entry], job: &str) -> (u64, u64) {
    let mut times = entries.iter().filter(|entry| entry.record.job == job).map(|entry| entry.record.at_us);
    let first = times.next().unwrap_or(u64::MAX);
    (first, times.next_back().unwrap_or(first))
}

/// All that there is of one node: faults, sessions, verdicts, and the work on it.
#[must_use]
pub fn of_node(entries: &[Entry], node: &str) -> Vec<String> {
    let of = |entry: &&Entry| entry.record.node == node;
    let line = |Entry { record, .. }: &Entry| {
        let mark = if matches!(record.kind, Kind::Fault | Kind::Healed) { "! " } else { "" };
        told(record, mark)
    };
    entries.iter().filter(of).map(line).collect()
}

fn told(record: &Record, mark: &str) -> String {
    let job = if record.job.is_empty() { String::new() } else { format!("{}  ", record.job) };
    format!("{}  {mark}{job}{}", stamp(record.at_us), record.text)
}

fn stamp(at_us: u64) -> String {
    format!("{:>8}.{:03}", at_us / 1_000_000, at_us % 1_000_000 / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at_ms: u64, kind: Kind, (node, job): (&str, &str), text: &str, weight: Weight) -> Entry {
        let (node, job, text) = (node.to_owned(), job.to_owned(), text.to_owned());
        Entry { record: Record { at_us: at_ms * 1_000, kind, node, job, text }, weight }
    }

    fn lost(at_ms: u64, job: &str) -> Entry {
        let words = "attempts end on node-1: node lost, to be tried again".to_owned();
        let weight = Weight::Group { words, count: 2 };
        entry(at_ms, Kind::Decision, ("node-1", job), "step 0 task 3: RUNNING → PENDING", weight)
    }

    fn run() -> Vec<Entry> {
        vec![
            entry(500, Kind::Answer, ("", "lab-1"), "ack submit lab-1 a", Weight::Detail),
            entry(900, Kind::Decision, ("node-1", "lab-1"), "step 0: granted", Weight::Detail),
            entry(1_000, Kind::Fault, ("node-1", ""), "fault Partition", Weight::Told),
            entry(1_500, Kind::Fault, ("node-2", ""), "fault AgentKilled", Weight::Told),
            entry(8_000, Kind::Decision, ("node-1", ""), "node-1 is judged LOST", Weight::Sign),
            lost(9_000, "lab-1"),
            lost(9_400, "lab-2"),
            entry(9_600, Kind::Healed, ("node-1", ""), "healed partition", Weight::Told),
            lost(10_250, "lab-3"),
            lost(40_000, "lab-1"),
        ]
    }

    #[test]
    fn the_time_line_has_faults_and_what_followed() {
        assert_eq!(
            timeline(&run()),
            [
                "       1.000  fault Partition",
                "       1.500  fault AgentKilled",
                "       8.000  · node-1 is judged LOST",
                "       9.000  · attempts end on node-1: node lost, to be tried again ×6 within 1.2 s (lab-1, lab-2, lab-3)",
                "       9.600  healed partition",
                "      40.000  · attempts end on node-1: node lost, to be tried again ×2 (lab-1)",
            ]
        );
    }

    #[test]
    fn a_job_has_its_own_and_what_struck_its_nodes() {
        assert_eq!(
            of_job(&run(), "lab-1"),
            [
                "       0.500  lab-1  ack submit lab-1 a",
                "       0.900  lab-1  step 0: granted",
                "       1.000  ! fault Partition",
                "       9.000  lab-1  step 0 task 3: RUNNING → PENDING",
                "       9.600  ! healed partition",
                "      40.000  lab-1  step 0 task 3: RUNNING → PENDING",
            ]
        );
        assert!(of_job(&run(), "lab-9").is_empty());
    }

    #[test]
    fn a_node_has_its_faults_and_its_work() {
        let lines = of_node(&run(), "node-2");
        assert_eq!(lines, ["       1.500  ! fault AgentKilled"]);
        assert_eq!(of_node(&run(), "node-1").len(), 8);
    }
}
