//! What a line of the trace is about: its kind, its machine, its job.
//!
//! Lines are made in many places and begin with a word that says what they are; a
//! line that begins with another is a note.

use crate::faults::{Fault, SECOND_SERVER, STORAGE};
use proto::trace::{Kind, Record};

pub fn record(at_us: u64, kind: Kind, node: &str, job: &str, text: String) -> Record {
    Record { at_us, kind, node: node.to_owned(), job: job.to_owned(), text }
}

/// How machine N is called; 0 is the server.
#[must_use]
pub fn machine(index: usize) -> String {
    match index {
        0 => "server".to_owned(),
        STORAGE => "storage".to_owned(),
        further if further >= SECOND_SERVER => format!("server-{}", further - SECOND_SERVER + 1),
        agent => format!("node-{}", agent - 1),
    }
}

/// The machine that a fault strikes; none where it strikes clients or all links.
#[must_use]
pub fn node_of(fault: &Fault) -> String {
    match fault {
        Fault::ClientRepliesLost { .. }
        | Fault::MessageLoss { .. }
        | Fault::SlowLinks { .. }
        | Fault::SubmissionBurst { .. }
        | Fault::RetryStorm { .. }
        | Fault::QuotaBreach { .. }
        | Fault::CancelRace { .. }
        | Fault::RequestsTwice { .. }
        | Fault::LogFlood { .. }
        | Fault::LogsWatched { .. }
        | Fault::RetriesPressed { .. }
        | Fault::FollowersLeave { .. } => String::new(),
        one => machine(one.machine()),
    }
}

/// Kind, node and job of a line.
#[must_use]
pub fn about(text: &str) -> (Kind, String, String) {
    let mut words = text.split_whitespace();
    let kind = match (words.next().unwrap_or_default(), words.next().unwrap_or_default()) {
        ("commit", _) => return (Kind::Commit, String::new(), String::new()),
        ("fault", _) => Kind::Fault,
        ("healed", _) => Kind::Healed,
        ("ack" | "refused", _) => Kind::Answer,
        ("server" | "agent", _) | ("the", "server") => Kind::Process,
        ("BROKEN", _) => Kind::Broken,
        _ => Kind::Note,
    };
    if let Some(index) = power_lost(text) {
        return (Kind::Fault, machine(index), String::new());
    }
    let server = text.starts_with("server ") || text.starts_with("the server ");
    let (mut node, mut job) = (if server { "server".to_owned() } else { String::new() }, String::new());
    // Names stand among the first words; what follows is what somebody said.
    for word in text.split_whitespace().take(4).map(|word| word.trim_end_matches(':')) {
        let Some((name, number)) = word.rsplit_once('-') else { continue };
        if name.is_empty() || number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let place = if name == "node" { &mut node } else { &mut job };
        if place.is_empty() {
            word.clone_into(place);
        }
    }
    if text.starts_with("refused ") {
        // It became no job; what looks like one is the client's own key.
        job.clear();
    }
    (kind, node, job)
}

/// The machine of a line that says it loses power on the way.
#[must_use]
pub fn power_lost(text: &str) -> Option<usize> {
    let (index, rest) = text.strip_prefix("machine ")?.split_once(' ')?;
    index.parse().ok().filter(|_| rest.starts_with("loses power"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_it_is_about() {
        let about = |text: &str| {
            let (kind, node, job) = about(text);
            (kind.word(), node, job)
        };
        let of = |kind, node: &str, job: &str| (kind, node.to_owned(), job.to_owned());
        assert_eq!(about("commit 12 00ff"), of("commit", "", ""));
        assert_eq!(about("ack submit lab-12 key-7"), of("answer", "", "lab-12"));
        assert_eq!(about("refused key-7 quota.cores"), of("answer", "", ""));
        assert_eq!(about("agent node-3 ended: Fenced"), of("process", "node-3", ""));
        assert_eq!(about("the server ended by itself"), of("process", "server", ""));
        assert_eq!(about("server started"), of("process", "server", ""));
        assert_eq!(about("machine 4 loses power as it makes a file"), of("fault", "node-3", ""));
        assert_eq!(about("machine 0 loses power while it comes back"), of("fault", "server", ""));
        assert_eq!(about("live default-9: None"), of("note", "", "default-9"));
        assert_eq!(about("BROKEN invariant 3: ledger: 1 is not 2"), of("broken", "", ""));
        assert_eq!(about("the end"), of("note", "", ""));
        assert_eq!(about(""), of("note", "", ""));
    }

    #[test]
    fn a_fault_has_the_machine_it_strikes() {
        assert_eq!(node_of(&Fault::ServerKilled { machine: 0, down_ms: 1 }), "server");
        assert_eq!(node_of(&Fault::BitRot { machine: 0, ppm: 1, for_ms: 1 }), "server");
        assert_eq!(node_of(&Fault::Partition { agent: 2, for_ms: 1 }), "node-2");
        assert_eq!(node_of(&Fault::SlowDisk { machine: 1, lag_ms: 1, for_ms: 1 }), "node-0");
        assert_eq!(node_of(&Fault::SlowLinks { latency_ms: 1, for_ms: 1 }), "");
    }
}
