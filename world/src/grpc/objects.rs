//! Objects over HTTP: `PUT` and `GET` of `/v1/objects/…`, streamed both ways.
//!
//! What the door answers with [`TransferError`] becomes a status and a line of
//! text; [`crate::real::HttpTransfer`] turns it back into the same error.

use crate::{
    limits, time,
    transfer::{ObjectDoor, TransferError},
};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Carries [`TransferError::Digest`] over the wire.
pub(crate) const DIGEST_EXPECTED: HeaderName = HeaderName::from_static("drumline-digest-expected");
/// Likewise.
pub(crate) const DIGEST_FOUND: HeaderName = HeaderName::from_static("drumline-digest-found");
/// Parts of a download that are read ahead.
const READ_AHEAD: usize = 2;

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
    let mut body = request.into_body();
    let sink = match door.begin_put(&target).await {
        Ok(sink) => sink,
        Err(error) => {
            if !waits {
                drain(&mut body).await;
            }
            return refusal(&error);
        }
    };
    match receive(sink, &mut body).await {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(error) => {
            drain(&mut body).await;
            refusal(&error)
        }
    }
}

async fn receive(
    mut sink: Box<dyn crate::transfer::ObjectSink>,
    body: &mut Body,
) -> Result<(), TransferError> {
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
    let len = source.len();
    let (tx, rx) = mpsc::channel::<Result<Bytes, TransferError>>(READ_AHEAD);
    // Ends when all is read, something fails, or the client has gone.
    tokio::spawn(async move {
        loop {
            let part = match source.read().await {
                Ok(Some(data)) => Ok(data),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let failed = part.is_err();
            if tx.send(part).await.is_err() || failed {
                return;
            }
        }
    });
    // An error (or a stream that ends early) breaks the connection: the client
    // knows the length and takes nothing half.
    let parts = stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|part| (part, rx)) });
    let headers = [
        (header::CONTENT_LENGTH, HeaderValue::from(len)),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
    ];
    (headers, Body::from_stream(parts)).into_response()
}
