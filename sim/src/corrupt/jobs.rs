//! Slips in the rows of jobs, and in what clients were told of them.

use super::{At, Class, change, state_of};
use crate::history::Ack;
use crate::recording::Recording;
use crate::rows::{JobName, Row};
use proto::v1::{Dependency, DependencyKind, JobRow, JobStateRow, State, StepState};
use rand::rngs::SmallRng;
use std::sync::Arc;

pub const CLASSES: &[Class] = &[
    Class { name: "state-not-written", by: &["rows-agree", "ledger"], spoil: state_lost },
    Class {
        name: "state-deleted",
        by: &["acknowledged"],
        spoil: |rec, rng| append(rec, rng, |job, _| Row::State(job, None)),
    },
    Class {
        name: "job-deleted",
        by: &["acknowledged"],
        spoil: |rec, rng| append(rec, rng, |job, _| Row::Job(job, None)),
    },
    Class { name: "job-not-written", by: &["rows-agree", "acknowledged"], spoil: job_lost },
    Class { name: "job-lost-whole", by: &["rows-agree", "acknowledged", "ledger"], spoil: job_lost_whole },
    Class { name: "job-written-twice", by: &["acknowledged"], spoil: job_rewritten },
    Class { name: "wrong-state-of-job", by: &["rows-agree", "acknowledged"], spoil: wrong_state },
    Class { name: "wrong-state-of-step", by: &["rows-agree"], spoil: wrong_step },
    Class { name: "wrong-count-of-tasks", by: &["rows-agree"], spoil: wrong_count },
    Class { name: "cancel-forgotten", by: &["acknowledged"], spoil: cancel_forgotten },
    Class { name: "begun-after-cancel", by: &["acknowledged"], spoil: begun_after_cancel },
    Class { name: "back-from-cancelled", by: &["acknowledged", "rows-agree"], spoil: revived },
    Class { name: "retry-forgotten", by: &["acknowledged"], spoil: retry_forgotten },
    Class { name: "key-not-written", by: &["acknowledged"], spoil: key_lost },
    Class { name: "key-deleted", by: &["acknowledged"], spoil: key_deleted },
    Class { name: "key-leads-elsewhere", by: &["acknowledged"], spoil: key_elsewhere },
    Class { name: "acknowledged-and-gone", by: &["acknowledged"], spoil: ack_of_nothing },
    Class { name: "acknowledged-for-another-key", by: &["acknowledged"], spoil: ack_of_another },
    Class { name: "acknowledged-before-it-is-durable", by: &["acknowledged"], spoil: ack_too_soon },
    Class { name: "taken-and-told-as-not", by: &["acknowledged"], spoil: told_as_not },
    Class { name: "one-key-two-jobs", by: &["acknowledged"], spoil: two_jobs },
    Class { name: "begun-out-of-turn", by: &["in_turn"], spoil: out_of_turn },
];

fn any_state(
    rec: &Recording,
    rng: &mut SmallRng,
    is: impl Fn(At, &JobName, &JobStateRow) -> bool,
) -> Option<(At, JobName)> {
    let at = rec.draw(rng, |at, row| matches!(row, Row::State(job, Some(row)) if is(at, job, row)))?;
    match rec.row_at(at) {
        Row::State(job, _) => Some((at, job.clone())),
        _ => None,
    }
}

fn state(rec: &mut Recording, at: At, by: impl FnOnce(&mut JobStateRow)) -> Option<()> {
    match rec.row(at) {
        Row::State(_, row) => change(row, by),
        _ => None,
    }
}

/// What of a state its events tell; the rest of a row may stay as it was and
/// nobody is wronged.
fn told(row: &JobStateRow) -> (i32, Vec<(i32, [u64; 5])>) {
    let step = |step: &StepState| {
        (step.state, [step.pending, step.active, step.completed, step.failed, step.cancelled])
    };
    (row.state, row.steps.iter().map(step).collect())
}

fn state_lost(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (at, _) = any_state(rec, rng, |at, job, row| {
        rec.before(at, |row| state_of(row, job)).is_none_or(|before| told(&before) != told(row))
    })?;
    rec.remove(at)
}

fn append(rec: &mut Recording, rng: &mut SmallRng, row: impl Fn(JobName, &Recording) -> Row) -> Option<()> {
    let (_, job) = any_state(rec, rng, |_, _, _| true)?;
    let row = row(job, rec);
    rec.append(row);
    Some(())
}

fn any_job(
    rec: &Recording,
    rng: &mut SmallRng,
    is: impl Fn(At, &JobName, &JobRow) -> bool,
) -> Option<(At, JobName)> {
    let at = rec.draw(rng, |at, row| matches!(row, Row::Job(job, Some(row)) if is(at, job, row)))?;
    match rec.row_at(at) {
        Row::Job(job, _) => Some((at, job.clone())),
        _ => None,
    }
}

fn job_lost(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (at, _) = any_job(rec, rng, |_, _, _| true)?;
    rec.remove(at)
}

/// All its rows, as if the disk had never had them; the history stays.
fn job_lost_whole(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (_, lost) = any_job(rec, rng, |_, _, _| true)?;
    for at in 0..rec.commits.len() {
        let of = |row: &Row| match row {
            Row::Job(job, _)
            | Row::State(job, _)
            | Row::Block { job, .. }
            | Row::Manifest { job, .. }
            | Row::Checkpoint { job, .. } => *job == lost,
            _ => false,
        };
        if rec.commits[at].rows.iter().any(of) {
            rec.commit(at).rows.retain(|row| !of(row));
        }
    }
    Some(())
}

fn job_rewritten(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (at, job) = any_job(rec, rng, |_, _, _| true)?;
    let Row::Job(_, Some(row)) = rec.row_at(at) else { return None };
    let row = JobRow { submitted_ms: row.submitted_ms + 1, ..(**row).clone() };
    rec.append(Row::Job(job, Some(Arc::new(row))));
    Some(())
}

fn wrong_state(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (at, _) = any_state(rec, rng, |_, _, _| true)?;
    state(rec, at, |row| {
        let next = if row.state() == State::Running { State::Completed } else { State::Running };
        row.set_state(next);
    })
}

fn wrong_step(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (at, _) = any_state(rec, rng, |_, _, row| !row.steps.is_empty())?;
    state(rec, at, |row| {
        let step = rand::Rng::random_range(rng, 0..row.steps.len());
        let next = if row.steps[step].state() == State::Failed { State::Completed } else { State::Failed };
        row.steps[step].set_state(next);
    })
}

fn wrong_count(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (at, _) = any_state(rec, rng, |_, _, row| !row.steps.is_empty())?;
    state(rec, at, |row| {
        let step = rand::Rng::random_range(rng, 0..row.steps.len());
        let step = &mut row.steps[step];
        match rand::Rng::random_range(rng, 0..4) {
            0 => step.active += 1,
            1 => step.completed += 1,
            2 => step.failed += 1,
            _ => step.cancelled += 1,
        }
    })
}

fn cancel_forgotten(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (at, _) = any_state(rec, rng, |at, job, row| {
        let before = rec.before(at, |row| state_of(row, job));
        row.cancel_requested
            && before.is_some_and(|before| before.cancel_requested && before.generation == row.generation)
    })?;
    state(rec, at, |row| row.cancel_requested = false)
}

fn begins(row: &Row, job: &JobName) -> bool {
    let Row::Events { tenant, row: Some(row), .. } = row else { return false };
    *tenant == job.tenant
        && row.events.iter().any(|event| {
            event.job_number == job.number && !event.tasks.is_empty() && event.to() == State::Staging
        })
}

/// The job is cancelled in all rows from a place on, and a task begins later, not
/// by a retry.
fn begun_after_cancel(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (at, cancelled) = any_state(rec, rng, |at, job, row| {
        let same = |next: Arc<JobStateRow>| next.generation == row.generation;
        let last =
            rec.commits.iter().rev().find_map(|commit| commit.rows.iter().find_map(|row| state_of(row, job)));
        last.is_some_and(same) && rec.after(at, |row| begins(row, job).then_some(())).is_some()
    })?;
    for commit in at.commit..rec.commits.len() {
        if rec.commits[commit].rows.iter().any(|row| state_of(row, &cancelled).is_some()) {
            for row in &mut rec.commit(commit).rows {
                if let Row::State(job, row) = row
                    && *job == cancelled
                {
                    change(row, |row| row.cancel_requested = true)?;
                }
            }
        }
    }
    Some(())
}

fn revived(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (at, job) = any_state(rec, rng, |at, job, row| {
        row.state() == State::Cancelled && rec.after(at, |row| state_of(row, job)).is_none()
    })?;
    let Row::State(_, Some(row)) = rec.row_at(at) else { return None };
    let row = JobStateRow { state: State::Running.into(), ..(**row).clone() };
    rec.append(Row::State(job, Some(Arc::new(row))));
    Some(())
}

fn retry_forgotten(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (at, _) = any_state(rec, rng, |at, job, row| {
        row.generation > 0
            && rec
                .before(at, |row| state_of(row, job))
                .is_some_and(|before| before.generation == row.generation)
    })?;
    state(rec, at, |row| row.generation -= 1)
}

fn any_key(rec: &Recording, rng: &mut SmallRng) -> Option<At> {
    rec.draw(rng, |_, row| matches!(row, Row::Idempotency { row: Some(_), .. }))
}

fn key_lost(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_key(rec, rng)?;
    rec.remove(at)
}

fn key_deleted(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_key(rec, rng)?;
    let Row::Idempotency { tenant, key, .. } = rec.row_at(at) else { return None };
    let row = Row::Idempotency { tenant: tenant.clone(), key: key.clone(), row: None };
    rec.append(row);
    Some(())
}

fn key_elsewhere(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_key(rec, rng)?;
    match rec.row(at) {
        Row::Idempotency { row, .. } => change(row, |row| row.job_number += 1),
        _ => None,
    }
}

fn ack_of_nothing(rec: &mut Recording, _: &mut SmallRng) -> Option<()> {
    let job = JobName { tenant: "lab".to_owned(), number: 9_999 };
    rec.history.acks.push(Ack::Submitted { job, key: "deed-x".to_owned(), at_ms: u64::MAX });
    Some(())
}

/// A client was told the number of a job that another client has by then.
fn ack_of_another(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let index = rand::Rng::random_range(rng, 0..rec.history.acks.len().max(1));
    let Ack::Submitted { key, .. } = rec.history.acks.get_mut(index)? else { return None };
    "deed-x".clone_into(key);
    Some(())
}

/// At the very start nothing was durable, and the server never stood still.
fn ack_too_soon(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let index = rand::Rng::random_range(rng, 0..rec.history.acks.len().max(1));
    let (Ack::Submitted { at_ms, .. } | Ack::Cancelled { at_ms, .. }) = rec.history.acks.get_mut(index)?;
    *at_ms = 0;
    Some(())
}

fn told_as_not(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_key(rec, rng)?;
    let Row::Idempotency { tenant, key, .. } = rec.row_at(at) else { return None };
    let told = (tenant.clone(), key.clone());
    rec.history.given_up.push(told);
    Some(())
}

fn two_jobs(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let index = rand::Rng::random_range(rng, 0..rec.history.acks.len().max(1));
    let Ack::Submitted { job, key, .. } = rec.history.acks.get(index)?.clone() else { return None };
    let other = rec.history.acks.iter().find_map(|ack| match ack {
        Ack::Submitted { job: other, .. } if other.tenant == job.tenant && *other != job => {
            Some(other.clone())
        }
        _ => None,
    })?;
    rec.history.acks.push(Ack::Submitted { job: other, key, at_ms: u64::MAX });
    Some(())
}

/// A job is said to wait for a task of another that had not ended when its own
/// first attempt began. Only where nobody tried the job again, for then what
/// ended before is not looked at.
fn out_of_turn(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let again = |rec: &Recording, job: &JobName| {
        let mut rows = rec.commits.iter().flat_map(|commit| &commit.rows);
        rows.any(|row| state_of(row, job).is_some_and(|row| row.generation > 0))
    };
    let arrays: Vec<(At, JobName)> = (0..8)
        .filter_map(|_| {
            any_job(rec, rng, |_, _, row| {
                let steps = row.spec.iter().flat_map(|spec| &spec.steps);
                steps.clone().count() == 1
                    && steps.clone().any(|step| {
                        step.array
                            .as_ref()
                            .is_some_and(|array| array.items.first().is_some_and(|item| item.first == 1))
                    })
            })
        })
        .collect();
    let (_, other) = arrays.first()?.clone();
    // Where task 1 (ordinal 0) of that array first ended.
    let ended = rec.commits.iter().position(|commit| {
        commit.rows.iter().any(|row| {
            let Row::Block { job, block: 0, row: Some(row), .. } = row else { return false };
            let ends = row.completed.iter().chain(&row.failed).chain(&row.cancelled);
            *job == other && ends.clone().any(|span| span.first == 0)
        })
    })?;
    let (at, _) = any_job(rec, rng, |at, job, row| {
        let plain = row.spec.as_ref().is_some_and(|spec| spec.after.is_empty());
        let begun =
            rec.commits[at.commit..].iter().position(|commit| commit.rows.iter().any(|row| begins(row, job)));
        plain
            && job.tenant == other.tenant
            && *job != other
            && begun.is_some_and(|begun| at.commit + begun < ended)
            && !again(rec, job)
    })?;
    let on = Dependency {
        job_number: other.number,
        kind: DependencyKind::Ok.into(),
        index: Some(1),
        ..Dependency::default()
    };
    match rec.row(at) {
        Row::Job(_, row) => change(row, |row| {
            row.spec.get_or_insert_default().after.push(on);
        }),
        _ => None,
    }
}
