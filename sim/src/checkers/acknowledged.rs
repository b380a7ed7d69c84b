//! Invariant 1: an acknowledged job is never lost, and is found by its key; an
//! acknowledged cancel never resurrects: once it is durable, nothing of the job
//! begins and nothing completes, but for a user's retry. And both are durable before
//! they are acknowledged: a crash in between need not come for that to be seen. Where
//! a client was told that nothing was taken, nothing was.

use super::agreement::events;
use super::{Checker, Committed, Outcome, seen_late};
use crate::faults::Planned;
use crate::history::Ack;
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::State;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Acknowledged {
    /// When jobs were durable, at the earliest.
    stored_ms: BTreeMap<JobName, u64>,
    /// When it was durable that they are to be cancelled, or have ended.
    cancelled_ms: BTreeMap<JobName, u64>,
}

impl Acknowledged {
    fn note(&mut self, commit: &Committed) {
        for row in &commit.rows {
            match row {
                Row::Job(job, Some(_)) => _ = self.stored_ms.entry(job.clone()).or_insert(commit.since_ms),
                Row::State(job, Some(row)) if row.cancel_requested || has_ended(row.state()) => {
                    self.cancelled_ms.entry(job.clone()).or_insert(commit.since_ms);
                }
                _ => {}
            }
        }
        // After a restart much is seen at once: its user may have tried it again by then.
        for (tenant, event) in events(commit) {
            if event.step.is_none() && has_ended(event.to()) {
                let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
                self.cancelled_ms.entry(job).or_insert(commit.since_ms);
            }
        }
    }

    fn durable_first(&self, faults: &[Planned], ack: &Ack) -> Result<(), String> {
        let (what, job, told_ms, durable_ms) = match ack {
            Ack::Submitted { job, at_ms, .. } => ("job", job, *at_ms, self.stored_ms.get(job)),
            Ack::Cancelled { job, at_ms } => ("the cancel of job", job, *at_ms, self.cancelled_ms.get(job)),
        };
        let durable_ms = durable_ms.copied().unwrap_or(u64::MAX);
        if told_ms < durable_ms && !seen_late(faults, told_ms, durable_ms) {
            return Err(format!(
                "{what} {job} was acknowledged at {told_ms} ms and durable at {durable_ms} ms"
            ));
        }
        Ok(())
    }
}

fn has_ended(state: State) -> bool {
    matches!(state, State::Cancelled | State::Completed | State::Failed)
}

impl Checker for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }
    fn invariant(&self) -> u8 {
        1
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        for given_up in &outcome.history.given_up {
            if let Some(row) = outcome.mirror.idempotency.get(given_up) {
                let ((tenant, key), number) = (given_up, row.job_number);
                return Err(format!(
                    "key {key} made job {tenant}-{number}, and was told that nothing was taken"
                ));
            }
        }
        let mut by_key: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for ack in &outcome.history.acks {
            match ack {
                Ack::Submitted { job, key, .. } => {
                    if !outcome.mirror.jobs.contains_key(job) || !outcome.mirror.states.contains_key(job) {
                        return Err(format!("job {job} was acknowledged and is gone"));
                    }
                    let made = outcome.mirror.jobs.get(job).map(|row| row.idempotency_key.as_str());
                    if made != Some(key) {
                        return Err(format!("key {key} was told job {job}, which is of key {made:?}"));
                    }
                    let first = *by_key.entry((&job.tenant, key)).or_insert(job.number);
                    if first != job.number {
                        return Err(format!("key {key} made two jobs: {first} and {}", job.number));
                    }
                }
                Ack::Cancelled { job, .. } => {
                    let state = outcome.mirror.states.get(job).map(|row| row.state());
                    // It may have ended before the cancel; it may not live.
                    if !state.is_some_and(has_ended) && outcome.drained.is_ok() {
                        return Err(format!("job {job} lives ({state:?}) after its cancel was acknowledged"));
                    }
                }
            }
            self.durable_first(outcome.faults, ack)?;
        }
        Ok(())
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            match row {
                Row::State(job, None) => return Err(format!("the state of job {job} was deleted")),
                Row::Job(job, None) => return Err(format!("job {job} was deleted")),
                Row::Job(job, Some(_)) if !now.states.contains_key(job) => {
                    return Err(format!("job {job} was stored without a state"));
                }
                Row::Job(job, Some(row)) if !row.idempotency_key.is_empty() => {
                    let name = (job.tenant.clone(), row.idempotency_key.clone());
                    let found = now.idempotency.get(&name).map(|row| row.job_number);
                    if found != Some(job.number) {
                        return Err(format!("job {job} was stored, its key {} leads to {found:?}", name.1));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        self.note(commit);
        for row in &commit.rows {
            match row {
                Row::State(job, Some(next)) => {
                    let Some(last) = before.states.get(job) else { continue };
                    if next.generation < last.generation {
                        return Err(format!("the retry of job {job} was forgotten"));
                    }
                    if next.generation > last.generation {
                        continue;
                    }
                    if last.cancel_requested && !next.cancel_requested {
                        return Err(format!("the cancel of job {job} was forgotten"));
                    }
                    if last.state() == State::Cancelled && next.state() != State::Cancelled {
                        return Err(format!("job {job} came back from CANCELLED without a retry"));
                    }
                }
                Row::Job(job, Some(next)) if before.jobs.get(job).is_some_and(|known| known != next) => {
                    return Err(format!("job {job} was written twice, and differs"));
                }
                Row::Idempotency { tenant, key, row } => {
                    let known = before.idempotency.get(&(tenant.clone(), key.clone()));
                    if known.is_some_and(|known| Some(known) != row.as_ref()) {
                        return Err(format!("key {key} of {tenant} was forgotten, or leads elsewhere"));
                    }
                }
                _ => {}
            }
        }
        still_cancelled(before, commit)
    }
}

/// Nothing begins or completes of what was to be cancelled before this commit.
fn still_cancelled(before: &Mirror, commit: &Committed) -> Result<(), String> {
    let retried = |job: &JobName, generation: u32| {
        let mut states = commit.rows.iter().filter_map(|row| match row {
            Row::State(name, Some(row)) if name == job => Some(row.generation),
            _ => None,
        });
        states.any(|now| now > generation)
    };
    for (tenant, event) in events(commit) {
        if event.tasks.is_empty() || !matches!(event.to(), State::Staging | State::Completed) {
            continue;
        }
        let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
        let Some(state) = before.states.get(&job).filter(|state| state.cancel_requested) else { continue };
        if !retried(&job, state.generation) {
            return Err(format!(
                "job {job} was to be cancelled; event {} moves tasks to {:?}",
                event.seq,
                event.to()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Event, EventBatchRow, JobStateRow};

    /// What a commit shows of a job whose state, as it is now, is no end.
    fn seen(job: &JobName, events: Vec<Event>, since_ms: u64) -> Committed {
        let state = JobStateRow { state: State::Pending.into(), ..JobStateRow::default() };
        let batch = EventBatchRow { events };
        let rows = vec![
            Row::Events { tenant: job.tenant.clone(), first_seq: 1, row: Some(batch.into()) },
            Row::State(job.clone(), Some(state.into())),
        ];
        Committed { rows, at_ms: 9_000, since_ms }
    }

    #[test]
    fn a_cancel_that_was_undone_before_anybody_looked_was_durable() {
        let job = JobName { tenant: "lab".to_owned(), number: 1 };
        let ended = Event { job_number: 1, to: State::Cancelled.into(), ..Event::default() };
        let ack = Ack::Cancelled { job: job.clone(), at_ms: 8_000 };
        let judged = |events, since_ms| {
            let mut checker = Acknowledged::default();
            checker.note(&seen(&job, events, since_ms));
            checker.durable_first(&[], &ack)
        };
        judged(vec![ended.clone()], 7_000).unwrap();
        assert!(judged(vec![ended], 8_500).is_err(), "it was told before");
        assert!(judged(Vec::new(), 7_000).is_err(), "nothing tells of an end");
    }
}
