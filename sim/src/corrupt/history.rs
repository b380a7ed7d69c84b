//! Slips in the history: numbers, edges, names of attempts.

use super::{At, Class, change};
use crate::recording::Recording;
use crate::rows::Row;
use proto::v1::{Event, EventBatchRow, Span, State};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use std::sync::Arc;

pub const CLASSES: &[Class] = &[
    Class { name: "event-lost", by: &["ledger", "transitions", "rows-agree"], spoil: event_lost },
    Class { name: "events-not-written", by: &["ledger", "transitions", "rows-agree"], spoil: batch_lost },
    Class { name: "events-deleted", by: &["transitions"], spoil: batch_deleted },
    Class { name: "event-number-twice", by: &["transitions"], spoil: |rec, rng| number(rec, rng, -1) },
    Class { name: "event-number-skipped", by: &["transitions"], spoil: |rec, rng| number(rec, rng, 1) },
    Class { name: "edge-from-elsewhere", by: &["transitions"], spoil: from_elsewhere },
    Class { name: "edge-to-elsewhere", by: &["transitions", "rows-agree"], spoil: to_elsewhere },
    Class { name: "event-of-no-task", by: &["transitions", "rows-agree"], spoil: of_no_task },
    Class { name: "event-of-another-epoch", by: &["fencing", "ends-true"], spoil: another_epoch },
    Class { name: "event-of-another-attempt", by: &["fencing", "ends-true"], spoil: another_attempt },
    Class { name: "begun-on-another-node", by: &["fencing"], spoil: another_node },
    Class { name: "commits-swapped", by: &["transitions", "fencing"], spoil: swapped },
    Class {
        name: "commit-lost",
        by: &["transitions", "ledger", "liveness", "fencing", "capacity", "rows-agree"],
        spoil: commit_lost,
    },
    Class { name: "commit-twice", by: &["transitions", "fencing"], spoil: commit_twice },
];

fn batch(row: &mut Row) -> &mut Option<Arc<EventBatchRow>> {
    match row {
        Row::Events { row, .. } => row,
        _ => unreachable!("the caller drew a batch of events"),
    }
}

fn has(row: &Row, is: impl Fn(&Event) -> bool) -> bool {
    matches!(row, Row::Events { row: Some(row), .. } if row.events.iter().any(is))
}

/// Changes one event that is such.
fn event(
    rec: &mut Recording,
    rng: &mut SmallRng,
    whole: bool,
    is: impl Fn(&Event) -> bool,
    by: impl FnOnce(&mut Event, &mut SmallRng),
) -> Option<()> {
    let at = rec.draw(rng, |at, row| has(row, &is) && (!whole || rec.is_whole(at)))?;
    change(batch(rec.row(at)), |row| {
        let mut events: Vec<&mut Event> = row.events.iter_mut().filter(|event| is(event)).collect();
        let index = rand::Rng::random_range(rng, 0..events.len());
        by(events[index], rng);
    })
}

fn any_batch(rec: &Recording, rng: &mut SmallRng) -> Option<At> {
    rec.draw(rng, |_, row| has(row, |_| true))
}

fn event_lost(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_batch(rec, rng)?;
    change(batch(rec.row(at)), |row| {
        row.events.remove(rand::Rng::random_range(rng, 0..row.events.len()));
    })
}

fn batch_lost(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_batch(rec, rng)?;
    rec.remove(at)
}

fn batch_deleted(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_batch(rec, rng)?;
    *batch(rec.row(at)) = None;
    Some(())
}

fn number(rec: &mut Recording, rng: &mut SmallRng, by: i64) -> Option<()> {
    event(rec, rng, false, |_| true, |event, _| event.seq = event.seq.saturating_add_signed(by))
}

const STATES: &[State] =
    &[State::Pending, State::Staging, State::Running, State::Completed, State::Failed, State::Cancelled];

fn other(state: State, rng: &mut SmallRng) -> i32 {
    let others: Vec<State> = STATES.iter().copied().filter(|other| *other != state).collect();
    (*others.choose(rng).expect("there are five")).into()
}

/// Not of a job's first event, which comes from nowhere.
fn from_elsewhere(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let is = |event: &Event| event.from() != State::Unspecified;
    event(rec, rng, false, is, |event, rng| event.from = other(event.from(), rng))
}

fn to_elsewhere(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    event(rec, rng, false, |_| true, |event, rng| event.to = other(event.to(), rng))
}

/// A task that the step does not have.
fn of_no_task(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let strange = Span { first: 1 << 20, last: 1 << 20 };
    event(rec, rng, false, |event| !event.tasks.is_empty(), |event, _| event.tasks.push(strange))
}

/// Only attempts' events: a cancel of what never began names none.
fn another_epoch(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    event(
        rec,
        rng,
        false,
        |event| event.epoch > 1,
        |event, rng| {
            event.epoch = if rand::Rng::random(rng) { event.epoch + 1 } else { event.epoch - 1 };
        },
    )
}

fn another_attempt(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    event(rec, rng, false, |event| event.attempt > 0, |event, _| event.attempt += 1)
}

/// Only where the commit was seen by itself: else its grant may have come and
/// gone unseen, and nobody knows the node.
fn another_node(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let is = |event: &Event| event.to() == State::Staging && !event.tasks.is_empty();
    event(rec, rng, true, is, |event, _| event.node = "node-99".to_owned())
}

fn tenant_of(row: &Row) -> Option<&str> {
    match row {
        Row::Events { tenant, row: Some(_), .. } => Some(tenant),
        _ => None,
    }
}

/// Of two commits with events of one tenant: others may well change places.
fn swapped(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = rec.draw(rng, |at, row| {
        let next = rec.commits.get(at.commit + 1);
        let tenant = tenant_of(row);
        tenant.is_some() && next.is_some_and(|next| next.rows.iter().any(|row| tenant_of(row) == tenant))
    })?;
    rec.commits.swap(at.commit, at.commit + 1);
    Some(())
}

/// One with events. Without them a commit may say what the last one said.
fn commit_lost(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_batch(rec, rng)?;
    rec.commits.remove(at.commit);
    Some(())
}

fn commit_twice(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_batch(rec, rng)?;
    let again = Arc::clone(&rec.commits[at.commit]);
    rec.commits.insert(at.commit + 1, again);
    Some(())
}
