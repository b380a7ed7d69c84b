//! The history: one event for each edge taken, numbered without holes.
//!
//! Tasks that take the same edge for the same reason in one transaction share
//! one event. What must hold: a task's events lie in the order of its edges.

use super::model::{Spot, cut};
use crate::limits;
use proto::spans::Spans;
use proto::v1::{Cause, Event, EventBatchRow, State};
use std::collections::BTreeMap;

/// Events of one tenant not yet numbered.
#[derive(Default)]
pub(super) struct Drafts {
    list: Vec<Draft>,
    by_key: BTreeMap<EventKey, usize>,
    /// The last event of each task, so that none is merged into an earlier one.
    last_of: BTreeMap<(u64, u32, u64), usize>,
}

struct Draft {
    event: Event,
    tasks: Spans,
}

/// Numbers that must be equal for two tasks to share an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct EventKey {
    job: (u64, u32),
    edge: (i32, i32),
    cause: (i32, i32, i32),
    attempt: (u32, u64, u32),
}

/// Which attempt took an edge, and where.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    pub attempt: u32,
    pub epoch: u64,
    /// Index of the node in the grant; tells nodes apart.
    pub node_index: u32,
    pub node: &'a str,
}

impl Drafts {
    /// A task took an edge.
    pub(super) fn task(
        &mut self,
        at_ms: u64,
        spot: &Spot,
        edge: (State, State),
        cause: &Cause,
        by: By<'_>,
    ) -> usize {
        let key = EventKey {
            job: (spot.number, spot.step),
            edge: (edge.0.into(), edge.1.into()),
            cause: (cause.kind, cause.exit_code, cause.signal),
            attempt: (by.attempt, by.epoch, by.node_index),
        };
        let name = (spot.number, spot.step, spot.task);
        let after = self.last_of.get(&name).copied();
        if let Some(&at) = self.by_key.get(&key)
            && after.is_none_or(|after| after < at)
            && let Some(draft) = self.list.get_mut(at)
            && draft.tasks.runs() < limits::SPANS_PER_EVENT_MAX
        {
            draft.tasks.insert(spot.task);
            self.last_of.insert(name, at);
            return 8;
        }
        let at = self.list.len();
        let mut cause = cause.clone();
        cut(&mut cause.text, limits::CAUSE_TEXT_BYTES_MAX);
        let weight = 96 + cause.text.len();
        self.list.push(Draft {
            event: Event {
                at_ms,
                job_number: spot.number,
                step: Some(spot.step),
                from: key.edge.0,
                to: key.edge.1,
                cause: Some(cause),
                attempt: by.attempt,
                epoch: by.epoch,
                node: by.node.to_owned(),
                ..Event::default()
            },
            tasks: Spans::from_range(spot.task, spot.task),
        });
        self.by_key.insert(key, at);
        self.last_of.insert(name, at);
        weight
    }

    /// A job (`step` absent) or a step took an edge, or many of its tasks did
    /// outside any attempt.
    pub(super) fn whole(
        &mut self,
        at_ms: u64,
        of: (u64, Option<u32>),
        edge: (State, State),
        cause: &Cause,
        tasks: Spans,
    ) -> usize {
        let mut cause = cause.clone();
        cut(&mut cause.text, limits::CAUSE_TEXT_BYTES_MAX);
        let weight = 96 + cause.text.len() + tasks.runs() * 10;
        self.list.push(Draft {
            event: Event {
                at_ms,
                job_number: of.0,
                step: of.1,
                from: edge.0.into(),
                to: edge.1.into(),
                cause: Some(cause),
                ..Event::default()
            },
            tasks,
        });
        weight
    }

    /// Gives the events their numbers.
    pub(super) fn number(self, next_seq: &mut u64) -> EventBatchRow {
        let mut row = EventBatchRow { events: Vec::with_capacity(self.list.len()) };
        for draft in self.list {
            let mut event = draft.event;
            event.tasks = draft.tasks.to_proto();
            event.seq = *next_seq;
            *next_seq += 1;
            row.events.push(event);
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn an_event_of_many_tasks_weighs_about_what_it_takes() {
        let mut tasks = Spans::new();
        for task in 0..1_000 {
            tasks.insert(task * 3);
        }
        let mut drafts = Drafts::default();
        let edge = (State::Pending, State::Cancelled);
        let weight = drafts.whole(1 << 40, (7, Some(0)), edge, &Cause::default(), tasks);
        let bytes = drafts.number(&mut 1).encoded_len();
        assert!((bytes..=2 * bytes).contains(&weight), "{weight} for {bytes} bytes");
    }
}
