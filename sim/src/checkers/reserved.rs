//! Invariant 3 where an operator reserved a node: it has nothing to give to others then.
//!
//! From the commit that reserves it on no attempt begins there that may run into the
//! reservation, by its time limit or what is expected of it, unless its tenant is let in;
//! not even under a grant made before. A scheduler may not know yet, but it hears of it soon,
//! as of a drained node.

use super::agreement::events;
use super::drained::{Ignorant, KNOWN_AFTER_COMMITS, KNOWN_AFTER_MS, judged};
use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{Event, NodeRow, Reservation, State};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct NothingOnReserved {
    /// Of each node, since when: time and number of the commit.
    since: BTreeMap<String, Vec<(Reservation, u64, u64)>>,
    commits: u64,
    ignorant: Vec<Ignorant>,
}

/// What is run from an instant to another by a tenant that is not let in.
fn hinders(kept: &Reservation, tenant: &str, from_ms: u64, until_ms: u64) -> bool {
    let apart = until_ms <= kept.from_ms || kept.until_ms <= from_ms;
    !apart && kept.tenants.iter().all(|name| name != tenant)
}

/// How long a task of a step may take; without a limit for ever.
fn longest_ms(before: &Mirror, job: &JobName, step: u32) -> u64 {
    let spec = before.jobs.get(job).and_then(|row| row.spec.as_ref());
    let limit_ms = spec.and_then(|spec| spec.steps.get(step as usize)).map_or(0, |step| step.timeout_ms);
    let told = [limit_ms, spec.map_or(0, |spec| spec.expected_runtime_ms)];
    told.into_iter().find(|ms| *ms > 0).unwrap_or(u64::MAX)
}

fn begins(before: &Mirror, tenant: &str, event: &Event) -> Result<(), String> {
    let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
    let longest_ms = longest_ms(before, &job, event.step.unwrap_or_default());
    let until_ms = event.at_ms.saturating_add(longest_ms);
    let gang = before.grants.get(&(tenant.to_owned(), event.epoch)).filter(|grant| grant.gang);
    let of_gang = gang.iter().flat_map(|grant| &grant.nodes).map(|part| part.node.as_str());
    for name in of_gang.chain([event.node.as_str()]) {
        let kept = before.nodes.get(name).map_or(&[][..], |node| &node.reservations);
        if let Some(kept) = kept.iter().find(|kept| hinders(kept, tenant, event.at_ms, until_ms)) {
            return Err(format!(
                "event {} begins tasks of {job} on {name} at {}, which may run into {} from {} on",
                event.seq, event.at_ms, kept.name, kept.from_ms
            ));
        }
    }
    Ok(())
}

impl NothingOnReserved {
    fn granted(&mut self, before: &Mirror, commit: &Committed) {
        for row in &commit.rows {
            let Row::Grant { tenant, epoch, row: Some(grant) } = row else { continue };
            if before.grants.contains_key(&(tenant.clone(), *epoch)) {
                continue;
            }
            let until_ms = if grant.ends_by_ms == 0 { u64::MAX } else { grant.ends_by_ms };
            for part in &grant.nodes {
                let known = self.since.get(&part.node).into_iter().flatten().find(|(kept, at_ms, number)| {
                    commit.since_ms.saturating_sub(*at_ms) > KNOWN_AFTER_MS
                        && self.commits - number > KNOWN_AFTER_COMMITS
                        && hinders(kept, tenant, grant.granted_ms, until_ms)
                });
                if let Some((kept, at_ms, _)) = known {
                    let what = format!(
                        "grant {epoch} of {tenant} is on {}, which is kept by {} since {at_ms} ms",
                        part.node, kept.name
                    );
                    self.ignorant.push(Ignorant { since_ms: *at_ms, at_ms: commit.since_ms, what });
                }
            }
        }
    }

    fn note(&mut self, name: &str, row: Option<&NodeRow>, at_ms: u64) {
        let known = self.since.remove(name).unwrap_or_default();
        let kept = row.into_iter().flat_map(|row| &row.reservations).map(|kept| {
            let same = known.iter().find(|(other, ..)| other == kept);
            same.cloned().unwrap_or_else(|| (kept.clone(), at_ms, self.commits))
        });
        let kept: Vec<_> = kept.collect();
        if !kept.is_empty() {
            self.since.insert(name.to_owned(), kept);
        }
    }
}

impl Checker for NothingOnReserved {
    fn name(&self) -> &'static str {
        "reserved"
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
                    begins(before, tenant, event)?;
                }
            }
            self.granted(before, commit);
        }
        for row in &commit.rows {
            if let Row::Node(name, row) = row {
                self.note(name, row.as_ref(), commit.at_ms);
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        judged(&self.ignorant, outcome.faults)
    }
}
