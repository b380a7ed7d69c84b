//! Slips in ledgers, and in what jobs count of money, time and bytes.

use super::{At, Class, change, state_of};
use crate::recording::Recording;
use crate::rows::{JobName, Row};
use proto::v1::{JobStateRow, LedgerRow, State};
use rand::rngs::SmallRng;

pub const CLASSES: &[Class] = &[
    Class { name: "ledger-not-written", by: &["ledger"], spoil: lost },
    Class {
        name: "money-reserved-twice",
        by: &["ledger", "limits"],
        spoil: |rec, rng| ledger(rec, rng, |_| true, |row| row.reserved_micros += 1),
    },
    Class {
        name: "money-released-twice",
        by: &["ledger"],
        spoil: |rec, rng| ledger(rec, rng, |row| row.reserved_micros > 0, |row| row.reserved_micros -= 1),
    },
    Class {
        name: "tasks-released-twice",
        by: &["ledger"],
        spoil: |rec, rng| ledger(rec, rng, |row| row.queued_tasks > 0, |row| row.queued_tasks -= 1),
    },
    Class {
        name: "job-released-twice",
        by: &["ledger"],
        spoil: |rec, rng| ledger(rec, rng, |row| row.live_jobs > 0, |row| row.live_jobs -= 1),
    },
    Class {
        name: "settled-twice",
        by: &["ledger"],
        spoil: |rec, rng| ledger(rec, rng, |_| true, |row| row.settled_micros += 1),
    },
    Class {
        name: "settled-lost",
        by: &["ledger"],
        spoil: |rec, rng| ledger(rec, rng, |row| row.settled_micros > 0, |row| row.settled_micros -= 1),
    },
    Class {
        name: "stored-twice",
        by: &["ledger"],
        spoil: |rec, rng| ledger(rec, rng, |_| true, |row| row.storage_bytes += 1),
    },
    Class {
        name: "stored-forgotten",
        by: &["ledger"],
        spoil: |rec, rng| ledger(rec, rng, |row| row.storage_bytes > 0, |row| row.storage_bytes -= 1),
    },
    Class {
        name: "next-event-wrong",
        by: &["ledger"],
        spoil: |rec, rng| ledger(rec, rng, |_| true, |row| row.next_event_seq += 1),
    },
    Class { name: "job-number-again", by: &["ledger"], spoil: number_again },
    Class { name: "ended-and-reserving", by: &["ledger"], spoil: ended_reserving },
    Class { name: "ran-and-not-paid", by: &["booked"], spoil: not_paid },
    Class { name: "paid-and-not-run", by: &["booked"], spoil: paid_for_nothing },
    Class { name: "time-that-nothing-took", by: &["booked"], spoil: time_of_nothing },
    Class { name: "stored-and-not-counted", by: &["stored"], spoil: |rec, rng| sized(rec, rng, 7) },
    Class { name: "counted-and-not-stored", by: &["stored"], spoil: |rec, rng| sized(rec, rng, -1) },
];

fn any_ledger(rec: &Recording, rng: &mut SmallRng, is: impl Fn(At, &LedgerRow) -> bool) -> Option<At> {
    rec.draw(rng, |at, row| matches!(row, Row::Ledger(_, Some(row)) if is(at, row)))
}

fn ledger(
    rec: &mut Recording,
    rng: &mut SmallRng,
    is: impl Fn(&LedgerRow) -> bool,
    by: impl FnOnce(&mut LedgerRow),
) -> Option<()> {
    let at = any_ledger(rec, rng, |_, row| is(row))?;
    match rec.row(at) {
        Row::Ledger(_, row) => row.as_mut().map(by),
        _ => None,
    }
}

/// Where the commit has events: without them a ledger may be what it was.
fn lost(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = rec.draw(rng, |at, row| match row {
        Row::Ledger(tenant, Some(_)) => rec.commits[at.commit].rows.iter().any(
            |row| matches!(row, Row::Events { tenant: of, row: Some(row), .. } if of == tenant && !row.events.is_empty()),
        ),
        _ => false,
    })?;
    rec.remove(at)
}

/// Where a job was let in: its number would be given once more.
fn number_again(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = rec.draw(rng, |at, row| match row {
        Row::Ledger(tenant, Some(_)) => {
            let rows = &rec.commits[at.commit].rows;
            rows.iter().any(|row| matches!(row, Row::Job(job, Some(_)) if job.tenant == *tenant))
        }
        _ => false,
    })?;
    match rec.row(at) {
        Row::Ledger(_, row) => row.as_mut().map(|row| row.next_job_number -= 1),
        _ => None,
    }
}

fn ended_reserving(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let ended = |state: State| matches!(state, State::Completed | State::Failed | State::Cancelled);
    let at = rec.draw(rng, |_, row| matches!(row, Row::State(_, Some(row)) if ended(row.state())))?;
    match rec.row(at) {
        Row::State(_, row) => change(row, |row| row.reserved_micros += 5),
        _ => None,
    }
}

/// The job stays at what it had settled, and yet counts what ended.
fn not_paid(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let before = |rec: &Recording, at: At, job: &JobName| {
        rec.before(at, |row| state_of(row, job)).map_or(0, |row| row.settled_micros)
    };
    let at = rec.draw(
        rng,
        |at, row| matches!(row, Row::State(job, Some(row)) if row.settled_micros > before(rec, at, job)),
    )?;
    let Row::State(job, _) = rec.row_at(at) else { return None };
    let settled_micros = before(rec, at, job);
    state(rec, at, |row| row.settled_micros = settled_micros)
}

fn paid_for_nothing(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = rec.draw(rng, |_, row| matches!(row, Row::State(_, Some(_))))?;
    state(rec, at, |row| row.settled_micros += 1 << 40)
}

/// In a job's last row.
fn time_of_nothing(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = rec.draw(rng, |at, row| match row {
        Row::State(job, Some(row)) => {
            !row.steps.is_empty() && rec.after(at, |row| state_of(row, job)).is_none()
        }
        _ => false,
    })?;
    state(rec, at, |row| row.steps[0].busy_ms += 1 << 30)
}

fn state(rec: &mut Recording, at: At, by: impl FnOnce(&mut JobStateRow)) -> Option<()> {
    match rec.row(at) {
        Row::State(_, row) => change(row, by),
        _ => None,
    }
}

/// An artifact is larger or smaller than its job counted, where its manifest is
/// written for the first time: written again it counts no more.
fn sized(rec: &mut Recording, rng: &mut SmallRng, by: i64) -> Option<()> {
    let expired = rec.expired();
    let at = rec.draw(rng, |at, row| match row {
        Row::Manifest { job, step, task, rank, row: Some(row) } if !expired.contains(job) => {
            let before = rec.before(at, |other| match other {
                Row::Manifest { job: j, step: s, task: t, rank: r, row: Some(row) }
                    if (j, s, t, r) == (job, step, task, rank) =>
                {
                    Some((row.attempt, row.epoch))
                }
                _ => None,
            });
            row.artifacts.first().is_some_and(|artifact| artifact.size_bytes > 0)
                && before != Some((row.attempt, row.epoch))
        }
        _ => false,
    })?;
    match rec.row(at) {
        Row::Manifest { row, .. } => change(row, |row| {
            let artifact = &mut row.artifacts[0];
            artifact.size_bytes = artifact.size_bytes.saturating_add_signed(by);
        }),
        _ => None,
    }
}
