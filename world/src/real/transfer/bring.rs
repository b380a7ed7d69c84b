//! A file in parts over HTTP: who is asked, and what is read of the answers. What becomes
//! of them is in [`crate::transfer::bring`].

use super::{HttpTransfer, network, parse};
use crate::{
    pace::{Pace, Purse},
    time,
    transfer::{
        Fetching, TransferError,
        bring::{self, Answer, Giver, PartLimits},
    },
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Request, StatusCode, Uri,
    body::{Body as _, Incoming},
    header,
};
use std::{ops::Range, sync::atomic::AtomicU64};

/// A URL's file, for one try.
struct Url<'a> {
    transfer: &'a HttpTransfer,
    uri: Uri,
    pace: &'a Pace,
}

impl HttpTransfer {
    pub(super) async fn bring_parts(&self, url: &str, fetching: &Fetching) -> Result<u64, TransferError> {
        let of = Url { transfer: self, uri: parse(url)?, pace: &fetching.pace };
        let limits = PartLimits {
            part_bytes: self.limits.part_bytes,
            parts_at_once: self.limits.parts_at_once,
            chunk_bytes: self.limits.chunk_bytes,
        };
        bring::bring(&of, limits, fetching).await
    }
}

impl<'a> Giver for Url<'a> {
    type Body = Incoming;
    type Lane = Purse<'a>;

    fn lane(&self) -> Purse<'a> {
        self.pace.purse()
    }

    async fn ask(&self, span: Range<u64>) -> Result<Answer<Incoming>, TransferError> {
        assert!(span.start < span.end, "a part has bytes");
        let range = format!("bytes={}-{}", span.start, span.end - 1);
        let request = Request::builder().uri(self.uri.clone()).header(header::RANGE, range);
        let request = request.body(empty()).expect("the URL was parsed and the header is ours");
        let response = self.transfer.answer(request, &AtomicU64::new(0), 0).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let told =
                    response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
                if let Some((given, total)) = told.and_then(content_range)
                    && given.start == span.start
                    && given.end <= span.end
                {
                    return Ok(Answer::Part { span: given, total, body: response.into_body() });
                }
            }
            // An empty file has no part.
            StatusCode::RANGE_NOT_SATISFIABLE => {}
            _ => return Ok(whole(self.transfer.judge(response).await?.into_body())),
        }
        let request = Request::builder().uri(self.uri.clone()).body(empty()).expect("the URL was parsed");
        let response = self.transfer.answer(request, &AtomicU64::new(0), 0).await?;
        Ok(whole(self.transfer.judge(response).await?.into_body()))
    }

    async fn frame(
        &self,
        purse: &mut Purse<'a>,
        body: &mut Incoming,
    ) -> Result<Option<Bytes>, TransferError> {
        let idle = self.transfer.limits.idle;
        loop {
            purse.fill().await;
            match time::timeout(idle, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        purse.spend(data.len() as u64).await;
                        return Ok(Some(data));
                    }
                }
                Ok(Some(Err(error))) => return Err(network(&error)),
                Ok(None) => return Ok(None),
                Err(_) => {
                    let why = format!("no progress for {} s", idle.as_secs_f32());
                    return Err(TransferError::Network(why));
                }
            }
        }
    }
}

fn whole(body: Incoming) -> Answer<Incoming> {
    Answer::Whole { total: body.size_hint().exact(), body }
}

fn empty() -> super::Body {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// `bytes 0-99/1234`: which bytes, and how many there are in all.
fn content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (span, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = span.split_once('-')?;
    let (first, last, total): (u64, u64, u64) =
        (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (first <= last && last < total).then_some((first..last + 1, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_a_part() {
        assert_eq!(content_range("bytes 0-99/1234"), Some((0..100, 1234)));
        for bad in ["bytes 0-99/*", "bytes */1234", "bytes 5-4/9", "bytes 0-9/9", "0-1/2", "bytes -1-1/2", ""]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
