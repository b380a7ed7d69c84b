//! Invariant 1: an acknowledged job is never lost; an acknowledged cancel never
//! resurrects.

use super::{Checker, Outcome};
use crate::history::Ack;
use proto::v1::State;
use std::collections::BTreeMap;

pub struct Acknowledged;

impl Checker for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }
    fn invariant(&self) -> u8 {
        1
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        let mut by_key: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for ack in &outcome.history.acks {
            match ack {
                Ack::Submitted { job, key } => {
                    if !outcome.mirror.jobs.contains_key(job) || !outcome.mirror.states.contains_key(job) {
                        return Err(format!("job {job} was acknowledged and is gone"));
                    }
                    let first = *by_key.entry((&job.tenant, key)).or_insert(job.number);
                    if first != job.number {
                        return Err(format!("key {key} made two jobs: {first} and {}", job.number));
                    }
                }
                Ack::Cancelled { job } => {
                    let state = outcome.mirror.states.get(job).map(|row| row.state());
                    // It may have ended before the cancel; it may not live.
                    let ended = matches!(state, Some(State::Cancelled | State::Completed | State::Failed));
                    if !ended && outcome.drained.is_ok() {
                        return Err(format!("job {job} lives ({state:?}) after its cancel was acknowledged"));
                    }
                }
            }
        }
        Ok(())
    }

    fn after(&mut self, now: &crate::mirror::Mirror, commit: &super::Committed) -> Result<(), String> {
        for row in &commit.rows {
            if let crate::rows::Row::State(job, None) = row {
                return Err(format!("the state of job {job} was deleted"));
            }
            if let crate::rows::Row::Job(job, None) = row {
                return Err(format!("job {job} was deleted"));
            }
            if let crate::rows::Row::Job(job, Some(_)) = row
                && !now.states.contains_key(job)
            {
                return Err(format!("job {job} was stored without a state"));
            }
        }
        Ok(())
    }

    fn commit(&mut self, before: &crate::mirror::Mirror, commit: &super::Committed) -> Result<(), String> {
        for row in &commit.rows {
            let crate::rows::Row::State(job, Some(next)) = row else { continue };
            let Some(last) = before.states.get(job) else { continue };
            if last.cancel_requested && !next.cancel_requested && next.generation == last.generation {
                return Err(format!("the cancel of job {job} was forgotten"));
            }
            let revived = last.state() == State::Cancelled && next.state() != State::Cancelled;
            if revived && next.generation == last.generation {
                return Err(format!("job {job} came back from CANCELLED without a retry"));
            }
        }
        Ok(())
    }
}
