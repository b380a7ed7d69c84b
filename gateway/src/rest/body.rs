//! Bodies: JSON of bounded size, in bounded time.

use super::problem::Refusal;
use crate::limits;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use proto::problem::Problem;
use world::grpc::axum;
use world::time;

/// The text of a JSON body of at most `bytes_max` bytes.
pub(super) async fn json_text(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<String, Refusal> {
    if let Err(refusal) = check_head(headers, bytes_max) {
        discard(headers, body).await;
        return Err(refusal);
    }
    let deadline = time::ms(limits::BODY_READ_MS);
    let mut data = body.into_data_stream();
    let mut read = Vec::new();
    let reading = async {
        while let Some(part) = data.next().await {
            let part = part.map_err(|error| {
                let reason = format!("the body broke off: {error}");
                Problem::new("http.body", "body", "", reason, "send it again")
            })?;
            if read.len() + part.len() > bytes_max {
                return Err(too_large(read.len() + part.len(), bytes_max));
            }
            read.extend_from_slice(&part);
        }
        Ok(())
    };
    let outcome = time::timeout(deadline, reading).await.unwrap_or_else(|_| {
        Err(Problem::new("http.timeout", "body", "", "the body did not arrive in time", "send it faster"))
    });
    if let Err(problem) = outcome {
        drain(&mut data).await;
        return Err(problem.into());
    }
    let text = String::from_utf8(read)
        .map_err(|_| Problem::new("spec.syntax", "body", "", "is not UTF-8", "send JSON encoded in UTF-8"))?;
    Ok(text)
}

fn check_head(headers: &HeaderMap, bytes_max: usize) -> Result<(), Refusal> {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = named.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let remedy = "send JSON with `content-type: application/json`";
        let reason = "only JSON is read here";
        return Err(Problem::new("http.media_type", "content-type", named, reason, remedy).into());
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    match announced {
        Some(bytes) if bytes > bytes_max => Err(too_large(bytes, bytes_max).into()),
        _ => Ok(()),
    }
}

fn too_large(bytes: usize, bytes_max: usize) -> Problem {
    Problem::new(
        "http.too_large",
        "body",
        format!("{bytes} bytes or more"),
        format!("at most {bytes_max} bytes are read"),
        "give large texts as inputs, by POST /v1/uploads",
    )
}

/// Reads off the body of a refused request, within limits, so that the client
/// is not cut off by a reset before it reads the answer. Whoever waits for our
/// word before sending has sent nothing.
pub(super) async fn discard(headers: &HeaderMap, body: Body) {
    if !headers.contains_key(header::EXPECT) {
        drain(&mut body.into_data_stream()).await;
    }
}

async fn drain(data: &mut axum::body::BodyDataStream) {
    let rest = async {
        let mut bytes = 0;
        while bytes < world::limits::REFUSED_DRAIN_BYTES_MAX {
            match data.next().await {
                Some(Ok(part)) => bytes += part.len() as u64,
                _ => return,
            }
        }
    };
    // Past the limits the connection is closed, whatever the client makes of it.
    let _in_time = time::timeout(world::limits::REFUSED_DRAIN, rest).await;
}
