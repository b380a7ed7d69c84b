//! Invariant 8, where many nodes fall silent at once: it is then more likely that the
//! judge is cut off than that all are gone, and no node is judged lost until the world
//! was heard again, or for as long as the brake holds at most.
//!
//! Told by the rows of the nodes: one is judged while more than half of those that
//! lived are suspect, or were lost just now, and none of them has been silent for so
//! long that the brake has run out.

use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::Row;
use proto::v1::{NodeRow, NodeState};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Brake {
    config: controller::Config,
    /// Since when nodes are suspect, in true time.
    suspect: BTreeMap<String, u64>,
    /// When nodes were lost, and for how long they had been suspect.
    lost: BTreeMap<String, (u64, u64)>,
}

/// By a clock that is true to a few in a hundred, at most so long and at least.
fn about(ms: u64) -> (u64, u64) {
    (ms * 9 / 10, ms * 11 / 10)
}

impl Brake {
    /// Whether this verdict may be; `heard` were heard in the same commit.
    fn may_judge(&self, before: &Mirror, heard: &BTreeSet<&str>, at_ms: u64) -> bool {
        let (surely, perhaps) = about(self.config.brake_window_ms);
        let (mut live, mut silent, mut longest_ms) = (0, 0, 0);
        for (name, row) in &before.nodes {
            let (is_silent, for_ms) = match row.state() {
                NodeState::Suspect if !heard.contains(name.as_str()) => (
                    true,
                    self.suspect.get(name).map_or(u64::MAX, |since_ms| at_ms.saturating_sub(*since_ms)),
                ),
                NodeState::Lost => {
                    let (lost_ms, for_ms) = self.lost.get(name).copied().unwrap_or_default();
                    let ago_ms = at_ms.saturating_sub(lost_ms);
                    if ago_ms > perhaps {
                        continue;
                    }
                    (ago_ms < surely, for_ms)
                }
                _ => (false, 0),
            };
            live += 1;
            silent += usize::from(is_silent);
            longest_ms = longest_ms.max(if is_silent { for_ms } else { 0 });
        }
        let many = silent >= 2 && silent * 2 > live;
        !many || longest_ms >= about(self.config.brake_ms_max).0
    }

    fn note(&mut self, name: &str, row: Option<&NodeRow>, at_ms: u64) {
        match row.map(NodeRow::state) {
            Some(NodeState::Suspect) => _ = self.suspect.entry(name.to_owned()).or_insert(at_ms),
            Some(NodeState::Lost) => {
                if let Some(since_ms) = self.suspect.remove(name) {
                    self.lost.insert(name.to_owned(), (at_ms, at_ms.saturating_sub(since_ms)));
                }
            }
            _ => {
                self.suspect.remove(name);
                self.lost.remove(name);
            }
        }
    }
}

impl Checker for Brake {
    fn name(&self) -> &'static str {
        "brake"
    }
    fn invariant(&self) -> u8 {
        8
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        let nodes = || {
            commit.rows.iter().filter_map(|row| match row {
                Row::Node(name, row) => Some((name.as_str(), row.as_ref())),
                _ => None,
            })
        };
        let in_state = |row: Option<&NodeRow>, state| row.is_some_and(|row| row.state() == state);
        let heard: BTreeSet<&str> =
            nodes().filter(|(_, row)| in_state(*row, NodeState::Ready)).map(|(name, _)| name).collect();
        for (name, row) in nodes() {
            let was = before.nodes.get(name).map(NodeRow::state);
            // Of several commits seen as one nobody knows which was first.
            let judged = was == Some(NodeState::Suspect) && in_state(row, NodeState::Lost);
            if judged && commit.since_ms == commit.at_ms && !self.may_judge(before, &heard, commit.at_ms) {
                return Err(format!("{name} is judged lost while most nodes have just fallen silent"));
            }
        }
        for (name, row) in nodes() {
            self.note(name, row, commit.at_ms);
        }
        Ok(())
    }
}
