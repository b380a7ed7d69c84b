//! Invariant 3 where an operator drained a node: it has nothing to give then.
//!
//! From the commit that drains it until the one that resumes it no attempt begins
//! there, not even under a grant made before. A scheduler may not know yet: what it
//! had under way when the node was drained is granted, and goes back unused. But it
//! hears of it soon, if it is not cut off just then.

use super::agreement::events;
use super::{Checker, Committed, Outcome};
use crate::faults::{Fault, Planned};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{Event, State};
use std::collections::BTreeMap;

/// A scheduler knows of what was committed once both have passed: time for what
/// stands in line on a slow disk, and commits for a server that stood still.
pub(super) const KNOWN_AFTER_MS: u64 = 5_000;
pub(super) const KNOWN_AFTER_COMMITS: u64 = 20;

/// A grant of which its scheduler should have known better.
#[derive(Debug)]
pub(super) struct Ignorant {
    /// What was to be known was committed then.
    pub since_ms: u64,
    pub at_ms: u64,
    pub what: String,
}

impl Ignorant {
    /// A scheduler that heard nothing for a while knows only some time after that. Which one
    /// granted is in no row: whichever was cut off is given the benefit of it.
    fn may_be(&self, faults: &[Planned]) -> bool {
        faults.iter().any(|planned| {
            let hears_nothing = matches!(
                planned.fault,
                Fault::SchedulerPaused { .. }
                    | Fault::SchedulerCut { .. }
                    | Fault::SchedulerRepliesLost { .. }
            );
            let until_ms = planned.at_ms + planned.fault.span_ms();
            let knows_by_ms = until_ms + KNOWN_AFTER_MS;
            hears_nothing
                && planned.at_ms <= self.at_ms
                && until_ms >= self.since_ms
                && self.at_ms <= knows_by_ms
        })
    }
}

/// The first that nothing excuses.
pub(super) fn judged(ignorant: &[Ignorant], faults: &[Planned]) -> Result<(), String> {
    let guilty = ignorant.iter().find(|ignorant| !ignorant.may_be(faults));
    guilty.map_or(Ok(()), |ignorant| Err(ignorant.what.clone()))
}

#[derive(Default)]
pub struct NothingOnDrained {
    /// Since when nodes are drained: time and number of the commit.
    since: BTreeMap<String, (u64, u64)>,
    commits: u64,
    ignorant: Vec<Ignorant>,
}

impl NothingOnDrained {
    /// Nodes that a task begins on: all of a gang's.
    fn begins(before: &Mirror, tenant: &str, event: &Event) -> Result<(), String> {
        let drained = |name: &str| before.nodes.get(name).is_some_and(|node| node.drained);
        let gang = before.grants.get(&(tenant.to_owned(), event.epoch)).filter(|grant| grant.gang);
        let of_gang = gang.iter().flat_map(|grant| &grant.nodes).map(|part| part.node.as_str());
        match of_gang.chain([event.node.as_str()]).find(|name| drained(name)) {
            None => Ok(()),
            Some(name) => {
                let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
                Err(format!("event {} begins tasks of {job} on {name}, which was drained", event.seq))
            }
        }
    }

    fn granted(&mut self, before: &Mirror, commit: &Committed) {
        for row in &commit.rows {
            let Row::Grant { tenant, epoch, row: Some(grant) } = row else { continue };
            if before.grants.contains_key(&(tenant.clone(), *epoch)) {
                continue;
            }
            for part in &grant.nodes {
                let Some((at_ms, number)) = self.since.get(&part.node) else { continue };
                let (passed_ms, commits) = (commit.since_ms.saturating_sub(*at_ms), self.commits - number);
                if passed_ms > KNOWN_AFTER_MS && commits > KNOWN_AFTER_COMMITS {
                    let what = format!(
                        "grant {epoch} of {tenant} is on {}, drained {passed_ms} ms and {commits} commits before",
                        part.node
                    );
                    self.ignorant.push(Ignorant { since_ms: *at_ms, at_ms: commit.since_ms, what });
                }
            }
        }
    }
}

impl Checker for NothingOnDrained {
    fn name(&self) -> &'static str {
        "drained"
    }
    fn invariant(&self) -> u8 {
        3
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        self.commits += 1;
        // Of several commits seen as one nobody knows which was first.
        if commit.since_ms == commit.at_ms {
            for (tenant, event) in events(commit) {
                if event.to() == State::Staging && !event.tasks.is_empty() {
                    Self::begins(before, tenant, event)?;
                }
            }
            self.granted(before, commit);
        }
        for row in &commit.rows {
            let Row::Node(name, row) = row else { continue };
            if row.as_ref().is_some_and(|row| row.drained) {
                self.since.entry(name.clone()).or_insert((commit.at_ms, self.commits));
            } else {
                self.since.remove(name);
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        judged(&self.ignorant, outcome.faults)
    }
}
