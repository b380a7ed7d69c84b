//! Invariant 4, whoever comes next: a process runs only while its attempt does. None
//! starts before it is durable that its attempt is bound, and none runs on once it is
//! durable that it is over: by then its end was told, or its node's lease has passed.
//!
//! So a margin that is too small is seen where it is too small, and not only where
//! another attempt happens to begin early.

use super::ends::{AttemptName, attempt_of};
use super::{Checker, Committed, Outcome, seen_late};
use crate::mirror::Mirror;
use crate::rows::Row;
use proto::v1::BlockRow;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct WhileBound {
    attempts: BTreeMap<AttemptName, Bound>,
    /// Spans of which all commits were seen at once, after a restart: what was bound
    /// and over within one was never seen.
    unseen: Vec<(u64, u64)>,
}

/// What is durable of an attempt.
struct Bound {
    since_ms: u64,
    over_ms: Option<u64>,
}

/// Task, attempt and epoch of what is active.
fn active(row: Option<&BlockRow>) -> BTreeSet<(u64, u32, u64)> {
    let runs = row.into_iter().flat_map(|row| &row.active);
    let tasks = runs.flat_map(|run| run.tasks.iter().map(move |span| (run, span)));
    let names = tasks
        .flat_map(|(run, span)| (span.first..=span.last).map(move |task| (task, run.attempt, run.epoch)));
    names.collect()
}

impl Checker for WhileBound {
    fn name(&self) -> &'static str {
        "while-bound"
    }
    fn invariant(&self) -> u8 {
        4
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        if commit.since_ms < commit.at_ms {
            self.unseen.push((commit.since_ms, commit.at_ms));
        }
        for row in &commit.rows {
            let Row::Block { job, step, block, row } = row else { continue };
            let was = before.blocks.get(&(job.clone(), *step, *block));
            let was = active(was.map(AsRef::as_ref));
            let is = active(row.as_deref());
            let name = |&(task, attempt, epoch): &_| (job.clone(), *step, task, attempt, epoch);
            for over in was.difference(&is).map(name) {
                if let Some(bound) = self.attempts.get_mut(&over) {
                    bound.over_ms = Some(commit.at_ms);
                }
            }
            for begun in is.difference(&was).map(name) {
                let bound = Bound { since_ms: commit.since_ms, over_ms: None };
                self.attempts.entry(begun).or_insert(bound);
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        for span in outcome.spans {
            let Some((attempt, _)) = attempt_of(&span.key) else { continue };
            let (started_ms, ended_ms) = (span.started_ms, span.ended_ms.unwrap_or(u64::MAX));
            let what = format!("{} ran on {} from {started_ms} to {ended_ms} ms", span.key, span.node);
            let Some(bound) = self.attempts.get(&attempt) else {
                let within = |(since_ms, at_ms): &(u64, u64)| *since_ms <= started_ms && ended_ms <= *at_ms;
                if self.unseen.iter().any(within) {
                    continue;
                }
                return Err(format!("{what}, and nobody had bound it"));
            };
            if started_ms < bound.since_ms && !seen_late(outcome.faults, started_ms, bound.since_ms) {
                return Err(format!("{what}; that it is bound was durable at {} ms", bound.since_ms));
            }
            if let Some(over_ms) = bound.over_ms.filter(|over_ms| ended_ms > *over_ms) {
                return Err(format!("{what}; that it is over was durable at {over_ms} ms"));
            }
        }
        Ok(())
    }
}
