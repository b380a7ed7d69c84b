//! Slips in what gives way to what.
//!
//! To whom a task gave way is known where the commit that ended it was seen by itself.

use super::{At, Class, change};
use crate::recording::Recording;
use crate::rows::{JobName, Row};
use proto::v1::{CauseKind, State};
use rand::rngs::SmallRng;
use std::sync::Arc;

pub const CLASSES: &[Class] = &[
    Class { name: "gave-way-to-its-equal", by: &["gives-way"], spoil: to_its_equal },
    Class { name: "gave-way-unasked", by: &["gives-way"], spoil: unasked },
    Class { name: "gave-way-and-is-not-counted", by: &["gives-way"], spoil: not_counted },
    Class { name: "gave-way-and-it-counts-as-a-failure", by: &["retries"], spoil: a_failure },
    Class { name: "a-grant-that-grows-again", by: &["gives-way"], spoil: grows },
    Class { name: "gave-way-where-nothing-does", by: &["gives-way"], spoil: nowhere },
];

/// The end of tasks that gave way: whose job, step and epoch.
fn gave_way(rec: &mut Recording, rng: &mut SmallRng) -> Option<(At, JobName, u32, u64, u64)> {
    let asked = |rec: &Recording, at: At, tenant: &str, epoch: u64, task: u64, attempt: u32| {
        rec.before(at, |row| match row {
            Row::Grant { tenant: of, epoch: e, row: Some(row) } if of == tenant && *e == epoch => {
                Some(row.preemption.as_ref().is_some_and(|asked| {
                    asked.tasks.iter().any(|named| (named.task, named.attempt) == (task, attempt))
                }))
            }
            _ => None,
        }) == Some(true)
    };
    let found = |rec: &Recording, at: At, row: &Row| {
        let Row::Events { tenant, row: Some(batch), .. } = row else { return None };
        batch.events.iter().find_map(|event| {
            let kind = event.cause.as_ref().map_or(CauseKind::Unspecified, proto::v1::Cause::kind);
            let task = event.tasks.first()?.first;
            let gave = kind == CauseKind::Preempted
                && event.to() == State::Pending
                && asked(rec, at, tenant, event.epoch, task, event.attempt);
            let job = JobName { tenant: tenant.clone(), number: event.job_number };
            gave.then(|| (job, event.step.unwrap_or_default(), task, event.epoch))
        })
    };
    let at = rec.draw(rng, |at, row| rec.is_whole(at) && found(rec, at, row).is_some())?;
    let (job, step, task, epoch) = found(rec, at, rec.row_at(at))?;
    Some((at, job, step, task, epoch))
}

/// Its job had been submitted with a priority that nobody's is above.
fn to_its_equal(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (_, job, ..) = gave_way(rec, rng)?;
    for commit in &mut rec.commits {
        let is_it = |row: &Row| matches!(row, Row::Job(of, Some(_)) if *of == job);
        if commit.rows.iter().any(is_it) {
            for row in &mut Arc::make_mut(commit).rows {
                if let Row::Job(of, row) = row
                    && *of == job
                {
                    change(row, |row| _ = row.spec.as_mut().map(|spec| spec.priority = i32::MAX));
                }
            }
        }
    }
    Some(())
}

fn unasked(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (at, job, _, _, epoch) = gave_way(rec, rng)?;
    for commit in &mut rec.commits[..at.commit] {
        for row in &mut Arc::make_mut(commit).rows {
            if let Row::Grant { tenant, epoch: of, row } = row
                && (&*tenant, *of) == (&job.tenant, epoch)
            {
                change(row, |row| row.preemption = None);
            }
        }
    }
    Some(())
}

fn count(rec: &mut Recording, rng: &mut SmallRng, by: impl Fn(&mut proto::v1::TaskNote)) -> Option<()> {
    let (at, job, step, task, _) = gave_way(rec, rng)?;
    let rows = &mut rec.commit(at.commit).rows;
    rows.iter_mut().find_map(|row| match row {
        Row::Block { job: of, step: s, row, .. } if (&*of, *s) == (&job, step) => {
            let mut found = false;
            change(row, |row| {
                for note in row.notes.iter_mut().filter(|note| note.task == task) {
                    found = true;
                    by(note);
                }
            })?;
            found.then_some(())
        }
        _ => None,
    })
}

fn not_counted(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    count(rec, rng, |note| note.preemptions -= 1)
}

fn a_failure(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    count(rec, rng, |note| note.own_failures += 1)
}

/// Where it is asked, or what is left of it is written again, it has more slots than before.
fn grows(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = rec.draw(rng, |at, row| {
        matches!(row, Row::Grant { row: Some(row), .. } if row.again) && rec.is_whole(at)
    })?;
    let Row::Grant { row, .. } = rec.row(at) else { return None };
    change(row, |row| row.nodes.iter_mut().for_each(|node| node.slots += 100))
}

fn nowhere(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    gave_way(rec, rng)?;
    rec.preemption.clear();
    Some(())
}
