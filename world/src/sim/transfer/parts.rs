//! A file in parts over the simulated network: each part is a request of its own, with a
//! fate of its own.

use super::{Link, SimTransfer};
use crate::{
    pace::Pace,
    sim::faults::below,
    transfer::{
        Fetching, ObjectSource, TransferError,
        bring::{self, Answer, Giver, PartLimits},
    },
};
use bytes::Bytes;
use std::ops::Range;

/// As in production, but of small files.
const PARTS: PartLimits = PartLimits { part_bytes: 16 * 1024, parts_at_once: 3, chunk_bytes: 8 * 1024 };
/// One try in so many is of a server that knows no parts.
const KNOWS_NO_PARTS: u64 = 8;
/// Each part but the first waits so much less on a slow way.
const SLOW_PARTS: u64 = 4;
/// One request in so many of those that break does so before it is answered.
const BROKEN_AT_ONCE: u64 = 3;

pub(super) async fn bring(
    transfer: &SimTransfer,
    url: &str,
    fetching: &Fetching,
) -> Result<u64, TransferError> {
    let whole = below(&mut transfer.state().rng, KNOWS_NO_PARTS) == 0;
    bring::bring(&Remote { transfer, url, pace: &fetching.pace, whole }, PARTS, fetching).await
}

/// A URL's file, for one try.
struct Remote<'a> {
    transfer: &'a SimTransfer,
    url: &'a str,
    pace: &'a Pace,
    /// It is given whole to whoever asks for a part.
    whole: bool,
}

/// What comes of one request.
struct Coming<'a> {
    link: Link<'a>,
    source: Box<dyn ObjectSource>,
    /// Read from the other side, and not on its way yet.
    held: Bytes,
}

impl<'a> Giver for Remote<'a> {
    type Body = Coming<'a>;
    type Lane = ();

    fn lane(&self) {}

    async fn ask(&self, span: Range<u64>) -> Result<Answer<Coming<'a>>, TransferError> {
        let (mut link, target) = self.transfer.link(self.url, 0, self.pace).await?;
        if link.fate.break_at.is_some() && below(&mut self.transfer.state().rng, BROKEN_AT_ONCE) == 0 {
            self.transfer.count(|counts| counts.broken += 1);
            return Err(TransferError::Network("the connection was refused".to_owned()));
        }
        let mut source = link.door.clone().open(&target).await?;
        let total = source.len();
        let whole = self.whole || span.start >= total;
        let span = if whole { 0..total } else { span.start..span.end.min(total) };
        source.begin(span.clone()).await?;
        link.check()?;
        link.spread((span.end - span.start).div_ceil(PARTS.chunk_bytes as u64));
        if span.start > 0 {
            link.fate.slow_ms /= SLOW_PARTS;
        }
        let body = Coming { link, source, held: Bytes::new() };
        Ok(if whole {
            Answer::Whole { total: Some(total), body }
        } else {
            Answer::Part { span, total, body }
        })
    }

    async fn frame(&self, (): &mut (), body: &mut Coming<'a>) -> Result<Option<Bytes>, TransferError> {
        if body.held.is_empty() {
            match body.source.read().await? {
                Some(data) => body.held = data,
                None => return Ok(None),
            }
        }
        let data = body.held.split_to(body.held.len().min(PARTS.chunk_bytes));
        let came = body.link.carry(data).await;
        // What is slow is that it begins.
        body.link.fate.slow_ms = 0;
        came
    }
}
