//! A job's log: bytes as the tasks wrote them, or JSON lines.
//!
//! A log that is cut off must not look finished. JSON lines end with one that
//! says `end`; bytes end with the body's own end, which a broken connection does
//! not send.

use super::Call;
use super::jobs::step_index;
use super::problem::Refusal;
use crate::gate::Replies;
use crate::limits;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{StreamExt, iter};
use proto::array;
use proto::problem;
use proto::v1::drumline_server::Drumline as _;
use proto::v1::{JobSpec, LogChunk, LogsReply, LogsRequest, Stream};
use serde_json::{Value, json};
use std::io;
use world::grpc::axum;
use world::grpc::tonic::Status;
use world::time;

const LINES: &str = "application/x-ndjson";

pub(super) async fn logs(call: Call) -> Result<Response, Refusal> {
    let job = call.job()?;
    let spec = call.spec(&job).await?;
    let request = LogsRequest { job: Some(job), ..request(&call, &spec)? };
    let mut replies = call.rest.front.logs(call.ask(request)).await?.into_inner();
    let first = first(&mut replies).await?;
    let replies = iter(first.map(Ok)).chain(replies);
    if call.accepts(LINES) {
        let lines = replies.map(move |reply| reply.map(|reply| line(&reply, &spec)).map_err(broken));
        return Ok(([(header::CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response());
    }
    let bytes = replies.map(|reply| reply.map(bytes).map_err(broken));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(bytes)).into_response())
}

/// The first reply, where it comes soon: a refusal then still has a status. One
/// who follows a silent job gets the headers meanwhile.
async fn first(replies: &mut Replies<LogsReply>) -> Result<Option<LogsReply>, Refusal> {
    match time::timeout(time::ms(limits::FIRST_REPLY_MS), replies.next()).await {
        Ok(Some(Ok(reply))) => Ok(Some(reply)),
        Ok(Some(Err(status))) => Err(status.into()),
        Ok(None) | Err(_) => Ok(None),
    }
}

/// Breaks the connection, so that the log does not look finished.
fn broken(status: Status) -> io::Error {
    io::Error::other(status.message().to_owned())
}

fn request(call: &Call, spec: &JobSpec) -> Result<LogsRequest, Refusal> {
    let query = &call.query;
    let narrow = |name: &str| query.number(name).and_then(|number| u32::try_from(number).ok());
    let step = query.text("step").map(|name| step_index(spec, name)).transpose()?;
    for name in ["task", "rank"] {
        if step.is_none() && query.number(name).is_some() {
            let reason = "means nothing without its step";
            return Err(problem::conflict("query", name, "", reason, "name the step").into());
        }
    }
    if query.number("tail").is_some() && query.number("since").is_some() {
        let reason = "tail and since both say where to begin";
        return Err(problem::conflict("query", "since", "", reason, "give one of them").into());
    }
    let task = match (query.number("task"), step) {
        (Some(index), Some(at)) => Some(ordinal(spec, at, index)?),
        _ => None,
    };
    let now_ms = call.rest.gate.clock.wall_ms();
    let since_ms = query.number("since").map(|since_ms| now_ms.saturating_sub(since_ms));
    Ok(LogsRequest {
        job: None,
        step,
        task,
        rank: narrow("rank"),
        attempt: narrow("attempt"),
        stream: narrow("stream").and_then(|stream| i32::try_from(stream).ok()).unwrap_or(0),
        follow: query.flag("follow"),
        // 0 would mean all.
        tail_ms: query.number("tail").or(since_ms.map(|ms| ms.max(1))).unwrap_or(0),
        cursor: query.number("cursor").unwrap_or(0),
    })
}

/// Tasks are asked for by the user's index and kept by their place in the step.
fn ordinal(spec: &JobSpec, at: u32, index: u64) -> Result<u64, Refusal> {
    let step = usize::try_from(at).ok().and_then(|at| spec.steps.get(at));
    let ordinal = match step.and_then(|step| step.array.as_ref()) {
        Some(array) => array::ordinal_of(array, index),
        None => (index == 0).then_some(0),
    };
    ordinal.ok_or_else(|| problem::missing("task", index).into())
}

fn bytes(reply: LogsReply) -> Bytes {
    reply.chunks.iter().flat_map(|chunk| chunk.data.iter().copied()).collect()
}

fn line(reply: &LogsReply, spec: &JobSpec) -> Bytes {
    let chunks: Vec<Value> = reply.chunks.iter().map(|chunk| chunk_json(chunk, spec)).collect();
    let line = json!({
        "chunks": chunks,
        "cursor": reply.cursor,
        "end": reply.end,
        "missing_bytes": reply.missing_bytes,
    });
    (line.to_string() + "\n").into()
}

fn chunk_json(chunk: &LogChunk, spec: &JobSpec) -> Value {
    let step = usize::try_from(chunk.step).ok().and_then(|at| spec.steps.get(at));
    let array = step.and_then(|step| step.array.as_ref());
    let index = array.and_then(|array| array::index_of(array, chunk.task)).unwrap_or(chunk.task);
    let mut told = json!({
        "step": step.map_or("", |step| step.name.as_str()),
        "index": index,
        "rank": chunk.rank,
        "attempt": chunk.attempt,
        "stream": if chunk.stream() == Stream::Stderr { "stderr" } else { "stdout" },
        "offset": chunk.offset,
        "at_ms": chunk.at_ms,
    });
    match std::str::from_utf8(&chunk.data) {
        Ok(text) => told["text"] = json!(text),
        Err(_) => told["data"] = json!(STANDARD.encode(&chunk.data)),
    }
    told
}
