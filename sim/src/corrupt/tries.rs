//! Slips in blocks of tasks, their attempts and their tries.

use super::{At, Class, change};
use crate::checkers::is_own;
use crate::recording::Recording;
use crate::rows::{JobName, Row};
use proto::v1::{BlockRow, CauseKind, Event, Span, State, TaskNote};
use rand::rngs::SmallRng;
use std::collections::BTreeSet;

pub const CLASSES: &[Class] = &[
    Class { name: "block-not-written", by: &["rows-agree"], spoil: block_lost },
    Class { name: "task-forgotten-in-block", by: &["rows-agree"], spoil: task_forgotten },
    Class { name: "task-twice-in-block", by: &["rows-agree", "transitions"], spoil: task_twice },
    Class { name: "row-of-another-epoch", by: &["fencing"], spoil: |rec, rng| run(rec, rng, true) },
    Class { name: "row-of-another-attempt", by: &["fencing"], spoil: |rec, rng| run(rec, rng, false) },
    Class { name: "retry-count-back", by: &["retries"], spoil: count_back },
    Class { name: "attempts-back", by: &["retries"], spoil: attempts_back },
    Class { name: "tries-forgotten", by: &["retries"], spoil: note_lost },
    Class { name: "more-retries-than-allowed", by: &["retries"], spoil: too_many },
    Class { name: "lost-node-not-counted", by: &["retries"], spoil: not_counted },
    Class { name: "platform-failures-of-nothing", by: &["retries"], spoil: from_nowhere },
    Class { name: "again-too-soon", by: &["backoff"], spoil: too_soon },
];

fn any_block(rec: &Recording, rng: &mut SmallRng, is: impl Fn(At, &BlockRow) -> bool) -> Option<At> {
    rec.draw(rng, |at, row| matches!(row, Row::Block { row: Some(row), .. } if is(at, row)))
}

fn block(rec: &mut Recording, at: At, by: impl FnOnce(&mut BlockRow)) -> Option<()> {
    match rec.row(at) {
        Row::Block { row, .. } => change(row, by),
        _ => None,
    }
}

/// The same block before.
fn earlier(rec: &Recording, at: At) -> Option<BlockRow> {
    let Row::Block { job, step, block, .. } = rec.row_at(at) else { return None };
    rec.before(at, |row| match row {
        Row::Block { job: of, step: s, block: b, row: Some(row) } if (of, s, b) == (job, step, block) => {
            Some((**row).clone())
        }
        _ => None,
    })
}

/// A state and a task.
type Named = BTreeSet<(u8, u64)>;

fn named(row: &BlockRow) -> Named {
    let mut named = Named::new();
    let mut take = |state: u8, span: &Span| named.extend((span.first..=span.last).map(|task| (state, task)));
    row.completed.iter().for_each(|span| take(0, span));
    row.failed.iter().for_each(|span| take(1, span));
    row.cancelled.iter().for_each(|span| take(2, span));
    for (run, span) in row.active.iter().filter_map(|run| Some((run, run.tasks?))) {
        take(3 + u8::from(run.state() == proto::v1::State::Running), &span);
    }
    named
}

/// Only where the block names other tasks than before: when a rank of a gang
/// ended, or a task is to be tried, no event tells.
fn block_lost(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_block(rec, rng, |at, row| {
        rec.is_whole(at)
            && earlier(rec, at)
                .is_some_and(|before| before.generation == row.generation && named(&before) != named(row))
    })?;
    rec.remove(at)
}

/// Completed, running or failed. A cancelled one may be in its step's `rest`.
fn task_forgotten(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_block(rec, rng, |_, row| {
        !(row.completed.is_empty() && row.failed.is_empty() && row.active.is_empty())
    })?;
    block(rec, at, |row| {
        if row.completed.pop().is_none() && row.failed.pop().is_none() {
            row.active.pop();
        }
    })
}

fn task_twice(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_block(rec, rng, |_, row| !row.completed.is_empty() || !row.active.is_empty())?;
    block(rec, at, |row| {
        let completed = row.completed.first().copied();
        let span = completed.or_else(|| row.active.first().and_then(|run| run.tasks));
        row.failed.extend(span.map(|span| Span { first: span.first, last: span.first }));
    })
}

fn run(rec: &mut Recording, rng: &mut SmallRng, epoch: bool) -> Option<()> {
    let at = any_block(rec, rng, |_, row| !row.active.is_empty())?;
    block(rec, at, |row| {
        let run = rand::Rng::random_range(rng, 0..row.active.len());
        if epoch { row.active[run].epoch += 1 } else { row.active[run].attempt += 1 }
    })
}

fn is_completed(row: &BlockRow, task: u64) -> bool {
    row.completed.iter().any(|span| (span.first..=span.last).contains(&task))
}

/// A note of a task that may yet be tried: what a completed one failed before
/// counts no more.
fn note(
    rec: &mut Recording,
    rng: &mut SmallRng,
    is: impl Fn(&TaskNote, Option<&TaskNote>) -> bool,
    by: impl FnOnce(&mut TaskNote),
) -> Option<()> {
    let such = |row: &BlockRow, before: Option<&BlockRow>| {
        let before = before.filter(|before| before.generation == row.generation);
        row.notes.iter().position(|note| {
            let was = before.and_then(|before| before.notes.iter().find(|was| was.task == note.task));
            !is_completed(row, note.task) && is(note, was)
        })
    };
    let at = any_block(rec, rng, |at, row| {
        !row.notes.is_empty() && such(row, earlier(rec, at).as_ref()).is_some()
    })?;
    let before = earlier(rec, at);
    block(rec, at, |row| {
        if let Some(index) = such(row, before.as_ref()) {
            by(&mut row.notes[index]);
        }
    })
}

fn count_back(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    note(rec, rng, |note, _| note.own_failures > 0, |note| note.own_failures -= 1)
}

/// Where an earlier row had as many: the first of them may be any.
fn attempts_back(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let is = |note: &TaskNote, was: Option<&TaskNote>| was.is_some_and(|was| was.attempts == note.attempts);
    note(rec, rng, is, |note| note.attempts = note.attempts.saturating_sub(1))
}

fn note_lost(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_block(rec, rng, |at, row| {
        earlier(rec, at).is_some_and(|before| before.generation == row.generation && !before.notes.is_empty())
    })?;
    block(rec, at, |row| row.notes.clear())
}

fn too_many(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    note(
        rec,
        rng,
        |_, _| true,
        |note| {
            note.own_failures = 50;
            note.platform_failures = 50;
        },
    )
}

fn from_nowhere(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    note(rec, rng, |_, _| true, |note| note.platform_failures += 20)
}

/// Of a task that the platform failed while it ran. Of those that had not begun
/// nobody knows for sure.
fn not_counted(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let unbegun = given_back(rec);
    let such = |job: &JobName, step: u32, row: &BlockRow, note: &TaskNote| {
        let doubtful = unbegun.contains(&(job.clone(), step, note.task));
        note.platform_failures > 0 && !doubtful && !is_completed(row, note.task)
    };
    let index = |row: &Row| match row {
        Row::Block { job, step, row: Some(row), .. } => {
            row.notes.iter().position(|note| such(job, *step, row, note))
        }
        _ => None,
    };
    let at = rec.draw(rng, |_, row| index(row).is_some())?;
    let index = index(rec.row_at(at))?;
    block(rec, at, |row| row.notes[index].platform_failures -= 1)
}

/// Tasks of which an attempt was ever given back before it ran.
fn given_back(rec: &Recording) -> BTreeSet<(JobName, u32, u64)> {
    let mut tasks = BTreeSet::new();
    for row in rec.commits.iter().flat_map(|commit| &commit.rows) {
        let Row::Events { tenant, row: Some(row), .. } = row else { continue };
        for event in row.events.iter().filter(|event| event.to() == State::Pending) {
            let Some(step) = event.step else { continue };
            let requeued = event.cause.as_ref().is_some_and(|cause| cause.kind() == CauseKind::Requeued);
            if event.from() == State::Staging || requeued {
                let job = JobName { tenant: tenant.clone(), number: event.job_number };
                let all = event.tasks.iter().flat_map(|span| span.first..=span.last);
                tasks.extend(all.map(|task| (job.clone(), step, task)));
            }
        }
    }
    tasks
}

/// Moves a failure in time to the very moment of the next try.
fn too_soon(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let waits = |event: &Event| {
        let own = event.cause.as_ref().is_some_and(|cause| is_own(cause.kind()));
        own && event.to() == State::Pending && !event.tasks.is_empty()
    };
    let at = rec.draw(
        rng,
        |_, row| matches!(row, Row::Events { row: Some(row), .. } if row.events.iter().any(waits)),
    )?;
    let Row::Events { tenant, row: Some(batch), .. } = rec.row_at(at).clone() else { return None };
    let (index, failed) = batch.events.iter().enumerate().find(|(_, event)| waits(event))?;
    let task = failed.tasks.first()?.first;
    let is_next = |event: &Event| {
        (event.job_number, event.step) == (failed.job_number, failed.step)
            && event.tasks.iter().any(|span| (span.first..=span.last).contains(&task))
    };
    let next = rec.after(at, |row| match row {
        Row::Events { tenant: of, row: Some(row), .. } if *of == tenant => {
            row.events.iter().find(|event| is_next(event)).map(|event| (event.at_ms, event.to()))
        }
        _ => None,
    });
    let (at_ms, State::Staging) = next? else { return None };
    let tried = rec.commits[at.commit + 1..].iter().find(|commit| {
        let tells = |row: &Row| {
            matches!(row, Row::Events { tenant: of, row: Some(row), .. }
                if *of == tenant && row.events.iter().any(is_next))
        };
        commit.rows.iter().any(tells)
    })?;
    let then_ms = tried.at_ms;
    let commit = rec.commit(at.commit);
    (commit.at_ms, commit.since_ms) = (then_ms, then_ms);
    match &mut commit.rows[at.row] {
        Row::Events { row, .. } => change(row, |row| row.events[index].at_ms = at_ms),
        _ => None,
    }
}
