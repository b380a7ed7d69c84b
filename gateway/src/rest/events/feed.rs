//! One subscription: what comes next, and what went by meanwhile.

use super::Wanted;
use crate::gate::{Gate, Pace, Replies};
use crate::rest::Call;
use crate::rest::problem::{Refusal, document_of};
use crate::rest::socket::{Feed, Told};
use crate::rows;
use futures_util::StreamExt;
use proto::json as shown;
use proto::keys;
use proto::problem::{self, Problem};
use proto::v1::drumline_server::Drumline as _;
use proto::v1::{Event, EventBatchRow, EventsReply};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use store::RangeRequest;
use world::sync::watch;

pub(super) struct Events {
    gate: Arc<Gate>,
    tenant: String,
    replies: Replies<EventsReply>,
    waiting: VecDeque<Event>,
    /// The first number not yet told.
    next_seq: u64,
    /// Likewise once all that waits is told.
    next_after: u64,
    end: bool,
    stopping: watch::Receiver<()>,
}

impl Events {
    pub async fn open(call: &Call) -> Result<Self, Refusal> {
        let Wanted { tenant, request } = Wanted::of(call, true)?;
        let next_seq = request.from_seq;
        let replies = call.rest.front.events(call.ask(request)).await?.into_inner();
        let gate = Arc::clone(&call.rest.gate);
        let stopping = gate.stopping.clone();
        let waiting = VecDeque::new();
        Ok(Self { gate, tenant, replies, waiting, next_seq, next_after: next_seq, end: false, stopping })
    }

    /// What need not be waited for.
    pub fn next_waiting(&mut self) -> Option<Told> {
        let event = self.waiting.pop_front()?;
        self.next_seq = if self.waiting.is_empty() { self.next_after } else { event.seq + 1 };
        let json = shown::event(&event, &self.tenant).to_string();
        Some(Told::Item { seq: event.seq, json })
    }
}

impl Feed for Events {
    fn pace(&self) -> Pace {
        self.gate.events
    }

    async fn next(&mut self) -> Told {
        loop {
            if let Some(told) = self.next_waiting() {
                return told;
            }
            if self.end {
                return Told::End;
            }
            let reply = world::select! { biased;
                _gone = self.stopping.changed() => return Told::Leaving,
                reply = self.replies.next() => reply,
            };
            match reply {
                Some(Ok(reply)) => {
                    self.end = reply.end;
                    self.next_after = reply.next_seq;
                    self.waiting.extend(reply.events);
                    if self.waiting.is_empty() {
                        self.next_seq = self.next_after;
                    }
                }
                Some(Err(status)) => return Told::Problem(document_of(Problem::from(status))),
                None => {
                    return Told::Problem(document_of(problem::unavailable(
                        "stream",
                        "the history broke off",
                    )));
                }
            }
        }
    }

    /// What a slow subscriber was not told of: from its next number to the newest
    /// there is. `None`: nothing.
    async fn missed(&mut self) -> Option<Value> {
        let prefix = keys::events_of(&self.tenant);
        let request = RangeRequest { to: keys::prefix_end(&prefix), from: prefix, limit: 1, backwards: true };
        // Unread, the next connection will tell.
        let page = rows::range(&*self.gate.store, request).await.ok()?;
        let newest: EventBatchRow = rows::decode(page.rows.first()?).ok()?;
        let newest = newest.events.last()?.seq;
        let from = self.next_seq.max(1);
        (newest >= from).then(|| json!({ "from": from, "to": newest }))
    }
}
