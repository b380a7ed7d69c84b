//! A job's log: bytes as the tasks wrote them, or JSON lines.
//!
//! A log that is cut off must not look finished. JSON lines end with one that
//! says `end`, and so do the messages of a WebSocket; bytes end with the body's own
//! end, which a broken connection does not send.

use super::Call;
use super::jobs::step_index;
use super::problem::{Refusal, document_of};
use super::socket::{self, Feed, Told};
use crate::gate::{Gate, Pace, Replies};
use crate::limits;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use controller::logs::{Extent, LogFilter};
use futures_util::stream::{BoxStream, StreamExt, iter};
use proto::array;
use proto::estimate::step_ranks;
use proto::problem::{self, Problem};
use proto::units::{self, Since};
use proto::v1::drumline_server::Drumline as _;
use proto::v1::{JobSpec, LogChunk, LogsReply, LogsRequest, Stream};
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use world::grpc::tonic::Status;
use world::grpc::{Wanted, axum, wanted_untagged};
use world::sync::watch;
use world::time;

const LINES: &str = "application/x-ndjson";
const TEXT: &str = "text/plain; charset=utf-8";

pub(super) async fn logs(call: Call) -> Result<Response, Refusal> {
    let job = call.job()?;
    let spec = call.spec(&job).await?;
    let mut request = LogsRequest { job: Some(job), ..request(&call, &spec)? };
    let (socket, lines) = (socket::is_wanted(&call), call.accepts(LINES));
    let part = if socket || lines { None } else { part(&call, &mut request).await? };
    let mut replies = call.rest.front.logs(call.ask(request)).await?.into_inner();
    let first = first(&mut replies).await?;
    let replies = iter(first.map(Ok)).chain(replies).boxed();
    if socket {
        let gate = Arc::clone(&call.rest.gate);
        let stopping = gate.stopping.clone();
        return socket::open(call, LogFeed { gate, replies, spec, stopping, end: Value::Null }).await;
    }
    if lines {
        let lines = replies
            .map(move |reply| reply.map(|reply| Bytes::from(line(&reply, &spec).to_string() + "\n")))
            .map(|line| line.map_err(broken));
        return Ok(([(header::CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response());
    }
    let bytes = replies.map(|reply| reply.map(bytes).map_err(broken)).boxed();
    let Some(Part { span, content_range }) = part else {
        return Ok(([(header::CONTENT_TYPE, TEXT)], Body::from_stream(bytes)).into_response());
    };
    let headers = [(header::CONTENT_TYPE, TEXT.to_owned()), (header::CONTENT_RANGE, content_range)];
    let body = Body::from_stream(only(bytes, span));
    Ok((StatusCode::PARTIAL_CONTENT, headers, body).into_response())
}

/// A part of one stream that was asked for by `Range`.
struct Part {
    /// Its bytes.
    span: u64,
    content_range: String,
}

/// What `Range` asks for. It is heeded where one stream is named and there are no other
/// words on where to begin, or that it is to go on; else all of it comes, as the header
/// allows.
async fn part(call: &Call, request: &mut LogsRequest) -> Result<Option<Part>, Refusal> {
    if request.follow || request.offset + request.cursor + request.tail_ms + request.since_ms > 0 {
        return Ok(None);
    }
    let Some(extent) = extent(call, request).await? else { return Ok(None) };
    let len = extent.bytes;
    // The body has lines where bytes were given up, so from there on it is counted otherwise:
    // whoever wants something of that gets all of it, and can tell.
    let counted = extent.dropped.first().map_or(u64::MAX, |gone| gone.start);
    match wanted_untagged(&call.headers, len) {
        Wanted::Part(range) if range.end <= counted => {
            (request.offset, request.epoch) = (range.start, Some(extent.epoch));
            let total = if extent.ended { len.to_string() } else { "*".to_owned() };
            let content_range = format!("bytes {}-{}/{total}", range.start, range.end - 1);
            Ok(Some(Part { span: range.end - range.start, content_range }))
        }
        Wanted::Nothing if counted == u64::MAX => {
            let asked = call.header("range").unwrap_or_default();
            let reason = format!("the stream has {len} bytes");
            Err(Problem::new("http.range", "range", asked, reason, "begin before its end").into())
        }
        Wanted::Part(_) | Wanted::Nothing | Wanted::Whole | Wanted::Same => Ok(None),
    }
}

async fn extent(call: &Call, request: &LogsRequest) -> Result<Option<Extent>, Refusal> {
    let filter = LogFilter {
        step: request.step,
        task: request.task,
        rank: request.rank,
        attempt: request.attempt,
        stream: Some(request.stream),
        epoch: request.epoch,
        ..LogFilter::default()
    };
    let job = request.job.clone().unwrap_or_default();
    let (gate, tenant) = (&call.rest.gate, call.tenant_of(&job.tenant)?);
    let extent = gate.logs.extent(&tenant, job.number, filter).await;
    let unreadable =
        |error: io::Error| problem::unavailable("logs", format!("the log cannot be read: {error}"));
    // Of a log that another server writes by now it would be nothing that is true.
    gate.must_reign().await?;
    Ok(extent.map_err(unreadable)?)
}

/// So many bytes of a body. Where it ends before, the connection breaks.
fn only(bytes: BoxStream<'static, io::Result<Bytes>>, span: u64) -> BoxStream<'static, io::Result<Bytes>> {
    let state = (bytes, span);
    futures_util::stream::unfold(Some(state), |state| async move {
        let (mut bytes, left) = state.filter(|(_, left)| *left > 0)?;
        match bytes.next().await {
            Some(Ok(mut piece)) => {
                piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - piece.len() as u64;
                Some((Ok(piece), Some((bytes, left))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(io::ErrorKind::UnexpectedEof.into()), None)),
        }
    })
    .boxed()
}

/// A log over a WebSocket: each message is a line as [`LINES`] has it, and the last one
/// says `end`. Nothing is queued for who is slow, so he is waited for.
struct LogFeed {
    gate: Arc<Gate>,
    replies: Replies<LogsReply>,
    spec: JobSpec,
    stopping: watch::Receiver<()>,
    /// The last line, once it has come.
    end: Value,
}

impl Feed for LogFeed {
    fn pace(&self) -> Pace {
        self.gate.events
    }

    async fn next(&mut self) -> Told {
        let reply = world::select! { biased;
            _gone = self.stopping.changed() => return Told::Leaving,
            reply = self.replies.next() => reply,
        };
        let reply = reply.unwrap_or_else(|| Err(problem::unavailable("stream", "the log broke off").into()));
        match reply {
            Ok(reply) if reply.end => {
                self.end = line(&reply, &self.spec);
                Told::End
            }
            Ok(reply) => Told::Item { seq: reply.cursor, json: line(&reply, &self.spec).to_string() },
            Err(status) => Told::Problem(document_of(Problem::from(status))),
        }
    }

    async fn missed(&mut self) -> Option<Value> {
        None
    }

    fn end(&self) -> Value {
        self.end.clone()
    }
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
    if query.number("tail").is_some() && query.text("since").is_some() {
        let reason = "tail and since both say where to begin";
        return Err(problem::conflict("query", "since", "", reason, "give one of them").into());
    }
    let named = step.and_then(|at| spec.steps.get(usize::try_from(at).ok()?));
    let task = match (query.number("task"), step) {
        (Some(index), Some(at)) => Some(ordinal(spec, at, index)?),
        // Where there is but one it need not be named.
        _ => named.filter(|step| step.array.is_none()).map(|_| 0),
    };
    let since = query.text("since").map(units::parse_since).transpose();
    let since = since.map_err(|error| error.at("since"))?;
    Ok(LogsRequest {
        job: None,
        step,
        task,
        rank: narrow("rank").or_else(|| named.filter(|step| step_ranks(step) == 1).map(|_| 0)),
        attempt: narrow("attempt"),
        stream: narrow("stream").and_then(|stream| i32::try_from(stream).ok()).unwrap_or(0),
        follow: query.flag("follow"),
        tail_ms: match since {
            Some(Since::Ago(ago_ms)) => ago_ms,
            _ => query.number("tail").unwrap_or(0),
        },
        cursor: query.number("cursor").unwrap_or(0),
        since_ms: match since {
            Some(Since::At(at_ms)) => at_ms,
            _ => 0,
        },
        epoch: query.number("epoch"),
        offset: query.number("offset").unwrap_or(0),
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

fn line(reply: &LogsReply, spec: &JobSpec) -> Value {
    let chunks: Vec<Value> = reply.chunks.iter().map(|chunk| chunk_json(chunk, spec)).collect();
    json!({
        "chunks": chunks,
        "cursor": reply.cursor,
        "end": reply.end,
        "missing_bytes": reply.missing_bytes,
    })
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
        "epoch": chunk.epoch,
        "stream": if chunk.stream() == Stream::Stderr { "stderr" } else { "stdout" },
        "offset": chunk.offset,
        "at_ms": chunk.at_ms,
    });
    match std::str::from_utf8(&chunk.data) {
        Ok(text) => told["text"] = json!(text),
        Err(_) => told["data"] = json!(STANDARD.encode(&chunk.data)),
    }
    if chunk.dropped_bytes > 0 {
        told["dropped_bytes"] = json!(chunk.dropped_bytes);
    }
    told
}
