//! Objects over HTTP: `PUT`, `GET` and `HEAD` of `/v1/objects/…`, streamed both ways;
//! of a download also a part ([`ranges`]). An upload may come in pieces, each with its
//! `Content-Range`; one without bytes (`bytes */9`) asks what is there. Until all is, the
//! answer is 308 with the `Range` of it. While all is there and not yet verified it is 503
//! with `Retry-After`, for whoever knows no better, and a header for who does: a server that
//! cannot serve at all may answer the first two likewise.
//!
//! What the door answers with [`TransferError`] becomes a status and a line of
//! text; [`crate::real::HttpTransfer`] turns it back into the same error.

use super::ranges::{self, Told, Wanted};
use crate::{
    limits, time,
    transfer::{Arrived, ObjectDoor, ObjectSource, Piece, TransferError},
};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http_body_util::BodyExt;
use std::sync::Arc;

/// Carries [`TransferError::Digest`] over the wire.
pub(crate) const DIGEST_EXPECTED: HeaderName = HeaderName::from_static("drumline-digest-expected");
/// Likewise.
pub(crate) const DIGEST_FOUND: HeaderName = HeaderName::from_static("drumline-digest-found");
/// Carries [`Arrived::Verifying`] over the wire.
pub(crate) const VERIFYING: HeaderName = HeaderName::from_static("drumline-verifying");

type Door = Arc<dyn ObjectDoor>;

pub(super) fn routes(door: Door) -> Router {
    Router::new().route("/v1/objects/{*rest}", axum::routing::get(download).put(upload)).with_state(door)
}

fn target(request: &Request) -> Result<String, TransferError> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    if target.len() > limits::TARGET_BYTES_MAX {
        let reason =
            format!("the URL has {} bytes; at most {} are read", target.len(), limits::TARGET_BYTES_MAX);
        return Err(TransferError::Refused { status: 414, reason });
    }
    Ok(target.to_owned())
}

fn refusal(error: &TransferError) -> Response {
    let within = |status: u16, range: std::ops::Range<u16>, otherwise: StatusCode| {
        if range.contains(&status) { StatusCode::from_u16(status).unwrap_or(otherwise) } else { otherwise }
    };
    let (status, reason) = match error {
        TransferError::Refused { status, reason } => {
            (within(*status, 400..500, StatusCode::BAD_REQUEST), reason.clone())
        }
        TransferError::Server { status, reason } => {
            (within(*status, 500..600, StatusCode::INTERNAL_SERVER_ERROR), reason.clone())
        }
        TransferError::Digest { expected, found } => {
            let mut response = (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response();
            for (name, value) in [(DIGEST_EXPECTED, expected), (DIGEST_FOUND, found)] {
                if let Ok(value) = HeaderValue::from_str(value) {
                    response.headers_mut().insert(name, value);
                }
            }
            return response;
        }
        TransferError::Busy { status, reason, after_ms } => {
            let status = within(*status, 400..600, StatusCode::SERVICE_UNAVAILABLE);
            let after = after_ms.unwrap_or(1_000).div_ceil(1_000).to_string();
            return (status, [(header::RETRY_AFTER, after)], reason.clone()).into_response();
        }
        TransferError::Network(reason) => (StatusCode::BAD_GATEWAY, reason.clone()),
        TransferError::Disk(reason) => (StatusCode::INTERNAL_SERVER_ERROR, reason.clone()),
    };
    (status, reason).into_response()
}

async fn upload(State(door): State<Door>, request: Request) -> Response {
    // Whoever waits for our word before sending has sent nothing to read off.
    let waits = request.headers().contains_key(header::EXPECT);
    let target = match target(&request) {
        Ok(target) => target,
        Err(error) => return refusal(&error),
    };
    let brings = brings(request.headers());
    let mut body = request.into_body();
    let opened = match brings {
        Ok(Brings::Nothing { total }) => {
            let arrived = door.arrived(&target, total).await;
            return arrived.map_or_else(|error| refusal(&error), |so_far| progress(so_far, StatusCode::OK));
        }
        Ok(Brings::Bytes(piece)) => door.begin_put(&target, piece).await,
        Err(error) => Err(error),
    };
    let sink = match opened {
        Ok(sink) => sink,
        Err(error) => {
            if !waits {
                drain(&mut body).await;
            }
            return refusal(&error);
        }
    };
    match receive(sink, &mut body).await {
        Ok(arrived) => progress(arrived, StatusCode::CREATED),
        Err(error) => {
            drain(&mut body).await;
            refusal(&error)
        }
    }
}

/// What an upload's request says of itself.
enum Brings {
    /// Bytes: all, or these.
    Bytes(Option<Piece>),
    /// None: it asks.
    Nothing { total: u64 },
}

fn brings(headers: &HeaderMap) -> Result<Brings, TransferError> {
    let Some(range) = headers.get(header::CONTENT_RANGE) else { return Ok(Brings::Bytes(None)) };
    match range.to_str().ok().and_then(ranges::told) {
        Some(Told { span: Some((from, to)), total }) => Ok(Brings::Bytes(Some(Piece { from, to, total }))),
        Some(Told { span: None, total }) => Ok(Brings::Nothing { total }),
        None => {
            let reason =
                "`content-range` reads `bytes FIRST-LAST/SIZE`, or `bytes */SIZE` to ask what is there";
            Err(TransferError::Refused { status: 400, reason: reason.to_owned() })
        }
    }
}

/// The answer to an upload that is not over, or is.
fn progress(arrived: Arrived, whole: StatusCode) -> Response {
    match arrived {
        Arrived::Whole => whole.into_response(),
        Arrived::Verifying => {
            let later = limits::VERIFY_PAUSE.as_secs().to_string();
            let later = [(header::RETRY_AFTER, later.clone()), (VERIFYING, later)];
            let reason = "all of it has come and is being verified; ask again in a moment";
            (StatusCode::SERVICE_UNAVAILABLE, later, reason).into_response()
        }
        Arrived::Part(0) => StatusCode::PERMANENT_REDIRECT.into_response(),
        Arrived::Part(bytes) => {
            let range = [(header::RANGE, format!("bytes=0-{}", bytes - 1))];
            (StatusCode::PERMANENT_REDIRECT, range).into_response()
        }
    }
}

async fn receive(
    mut sink: Box<dyn crate::transfer::ObjectSink>,
    body: &mut Body,
) -> Result<Arrived, TransferError> {
    loop {
        let frame = time::timeout(limits::STALL, body.frame())
            .await
            .map_err(|_| TransferError::Refused { status: 408, reason: "nothing more arrived".to_owned() })?;
        match frame {
            None => return sink.finish().await,
            Some(Err(error)) => return Err(TransferError::Network(error.to_string())),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    sink.write(data).await?;
                }
            }
        }
    }
}

/// Reads off the rest of a refused upload, within limits, so that the client
/// is not cut off by a reset before it reads the answer.
pub(super) async fn drain(body: &mut Body) {
    let rest = async {
        let mut bytes = 0;
        while bytes < limits::REFUSED_DRAIN_BYTES_MAX {
            match body.frame().await {
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
                _ => return,
            }
        }
    };
    let _in_time = time::timeout(limits::REFUSED_DRAIN, rest).await;
}

async fn download(State(door): State<Door>, request: Request) -> Response {
    let opened = match target(&request) {
        Ok(target) => door.open(&target).await,
        Err(error) => Err(error),
    };
    let mut source = match opened {
        Ok(source) => source,
        Err(error) => return refusal(&error),
    };
    let (len, tag) = (source.len(), ranges::tag(source.digest()));
    let about = [(header::ETAG, tag), (header::ACCEPT_RANGES, "bytes".to_owned())];
    let length = |bytes: u64| {
        [
            (header::CONTENT_LENGTH, HeaderValue::from(bytes)),
            (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        ]
    };
    if request.method() == Method::HEAD {
        // A range means something where bytes are to come.
        return match ranges::has_it(request.headers(), source.digest()) {
            true => (StatusCode::NOT_MODIFIED, about).into_response(),
            false => (about, length(len)).into_response(),
        };
    }
    let (status, span) = match ranges::wanted(request.headers(), source.digest(), len) {
        Wanted::Same => return (StatusCode::NOT_MODIFIED, about).into_response(),
        Wanted::Nothing => {
            let reason = format!("the object has {len} bytes; ask for some of them");
            let total = [(header::CONTENT_RANGE, format!("bytes */{len}"))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, about, total, reason).into_response();
        }
        Wanted::Whole => (StatusCode::OK, 0..len),
        Wanted::Part(span) => (StatusCode::PARTIAL_CONTENT, span),
    };
    if let Err(error) = source.begin(span.clone()).await {
        return refusal(&error);
    }
    let mut response = (status, about, length(span.end - span.start), body(source)).into_response();
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(range) = HeaderValue::from_str(&ranges::content_range(&span, len))
    {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response
}

/// What the source gives, read as the connection takes it: so what it counts has moved,
/// but for what lies in buffers. An error (or a stream that ends early) breaks the
/// connection: the client knows the length and takes nothing half.
fn body(source: Box<dyn ObjectSource>) -> Body {
    Body::from_stream(stream::try_unfold(source, |mut source| async move {
        Ok::<_, TransferError>(source.read().await?.map(|data| (data, source)))
    }))
}
