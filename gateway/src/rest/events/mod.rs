//! A tenant's history over HTTP: a page at a time, as server-sent events, or over
//! a WebSocket.
//!
//! What must hold: events come in the order of their numbers, none twice and none
//! left out, over however many connections, as long as each begins at the first
//! number that the last one did not bring (`from`, or `Last-Event-ID` and one).
//! Nothing is queued here for a subscriber: rows are read as fast as it takes
//! them. One that takes nothing for a while is told up to which number the
//! history has gone on without it, and let go; it resumes when it can.

mod feed;
mod sse;

use super::problem::Refusal;
use super::{Call, ok, socket};
use crate::limits;
use axum::response::Response;
use feed::Events;
use futures_util::StreamExt;
use proto::ids::JobId;
use proto::json as shown;
use proto::problem;
use proto::v1::drumline_server::Drumline as _;
use proto::v1::{Event, EventsRequest};
use serde_json::json;
use world::grpc::axum;

pub(super) async fn events(call: Call) -> Result<Response, Refusal> {
    if socket::is_wanted(&call) {
        let feed = Events::open(&call).await?;
        return socket::open(call, feed).await;
    }
    // Whoever takes either gets the one that has an end.
    if call.accepts("text/event-stream") && !call.accepts("application/json") {
        return Ok(sse::answer(Events::open(&call).await?));
    }
    page(call).await
}

/// What the caller asks for.
struct Wanted {
    tenant: String,
    request: EventsRequest,
}

impl Wanted {
    fn of(call: &Call, follow: bool) -> Result<Self, Refusal> {
        let job = call.query.text("job").map(|text| JobId::parse(text, "")).transpose()?;
        let mut tenant = call.tenant();
        if let Some(job) = job.as_ref().filter(|job| !job.tenant.is_empty()) {
            if !tenant.is_empty() && tenant != job.tenant {
                let reason = format!("the job is of tenant {}", job.tenant);
                return Err(
                    problem::conflict("tenant", "tenant", tenant, reason, "name the tenant once").into()
                );
            }
            tenant.clone_from(&job.tenant);
        }
        let tenant = call.tenant_of(&tenant)?;
        // A browser that comes again keeps its URL and adds this.
        let from_seq = match call.query.number("last-event-id") {
            Some(last) => last.saturating_add(1),
            None => call.query.number("from").unwrap_or(0),
        };
        let job_number = job.map_or(0, |job| job.number);
        let request = EventsRequest { tenant: tenant.clone(), from_seq, follow, job_number };
        Ok(Self { tenant, request })
    }
}

/// What there is, at most so many, with the number to go on from.
async fn page(call: Call) -> Result<Response, Refusal> {
    let Wanted { tenant, request } = Wanted::of(&call, false)?;
    let asked = call.query.number("limit").and_then(|limit| usize::try_from(limit).ok());
    let limit = asked.unwrap_or(limits::EVENTS_PER_PAGE);
    let mut replies = call.rest.front.events(call.ask(request)).await?.into_inner();
    let mut events: Vec<Event> = Vec::new();
    let mut next_seq = 0;
    while events.len() < limit {
        let Some(reply) = replies.next().await.transpose()? else { break };
        next_seq = reply.next_seq;
        events.extend(reply.events);
        if reply.end {
            break;
        }
    }
    if let Some(first_left_out) = events.get(limit) {
        next_seq = first_left_out.seq;
        events.truncate(limit);
    }
    let events: Vec<_> = events.iter().map(|event| shown::event(event, &tenant)).collect();
    ok(&json!({ "events": events, "next_seq": next_seq }))
}
