//! Slips in ledgers.

use super::{At, Class, change};
use crate::recording::Recording;
use crate::rows::Row;
use proto::v1::{LedgerRow, State};
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
