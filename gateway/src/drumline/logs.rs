//! A job's log as a stream, followed to its end.
//!
//! What must hold: nothing is left out, nothing comes twice, and `end` comes
//! only where nothing more will. So the order of looking is fixed: first the
//! job's state, then what the relay holds, then the bytes; what the first two
//! promise, the third must show.

use crate::auth::Caller;
use crate::gate::{Gate, Replies, Source, StreamPlace, ended, replies};
use crate::limits;
use controller::logs::LogFilter;
use proto::ids::JobId;
use proto::problem::{self, Problem};
use proto::retention;
use proto::v1::{JobStateRow, LogsReply, LogsRequest, Stream};
use std::io;
use std::sync::Arc;
use store::{Notice, Watch};
use world::time;

struct Log {
    gate: Arc<Gate>,
    job: JobId,
    filter: LogFilter,
    cursor: u64,
    follow: bool,
    state: JobStateRow,
    /// The job's state may have changed since it was read.
    stale: bool,
    changes: Option<Watch>,
    /// Since when the ended job's log has not grown, and what it held then.
    stalled: Option<(u64, u64)>,
    over: bool,
    _place: StreamPlace,
}

pub(super) async fn follow(
    gate: &Arc<Gate>,
    caller: &Caller,
    job: &JobId,
    request: &LogsRequest,
) -> Result<Replies<LogsReply>, Problem> {
    let place = gate.streams.open(caller)?;
    let stream = match request.stream() {
        Stream::Unspecified => None,
        stream => Some(stream.into()),
    };
    let filter = LogFilter {
        step: request.step,
        task: request.task,
        rank: request.rank,
        attempt: request.attempt,
        stream,
        epoch: request.epoch,
        since_ms: since_ms(request, gate.clock.wall_ms()),
        from: request.offset,
    };
    one_stream(&filter)?;
    let state = gate.state(job).await?;
    retention::kept(job, &state)?;
    let mut log = Log {
        gate: Arc::clone(gate),
        job: job.clone(),
        filter,
        cursor: request.cursor,
        follow: request.follow,
        state,
        stale: true,
        changes: None,
        stalled: None,
        over: false,
        _place: place,
    };
    log.watch().await;
    Ok(replies(log))
}

/// The instant before which nothing is told. Whoever goes on from a cursor gets all
/// that comes behind it, whatever the tail: it would be counted back from now, and
/// leave out what was written since the cursor was given.
fn since_ms(request: &LogsRequest, now_ms: u64) -> u64 {
    let tail_ms = match (request.tail_ms, request.cursor) {
        (_, 1..) => return 0,
        (0, 0) => 0,
        (tail_ms, 0) => now_ms.saturating_sub(tail_ms),
    };
    tail_ms.max(request.since_ms)
}

/// An offset counts the bytes of one stream: so there must be one.
fn one_stream(filter: &LogFilter) -> Result<(), Problem> {
    let lacks = [
        ("step", filter.step.is_none()),
        ("task", filter.task.is_none()),
        ("rank", filter.rank.is_none()),
        ("attempt", filter.attempt.is_none()),
        ("stream", filter.stream.is_none()),
    ];
    match lacks.iter().find(|(_, lacks)| *lacks) {
        Some((name, _)) if filter.from > 0 => Err(problem::conflict(
            "offset",
            "offset",
            filter.from,
            format!("it counts the bytes of one stream, and no {name} is named"),
            "name step, task, rank, attempt and stream; or go on from a cursor",
        )),
        _ => Ok(()),
    }
}

impl Source for Log {
    type Reply = LogsReply;

    async fn next(&mut self) -> Result<Option<LogsReply>, Problem> {
        while !self.over {
            self.look().await?;
            let held = self.held_bytes().await?;
            let (tenant, number) = (&self.job.tenant, self.job.number);
            if self.filter.from > 0 && self.filter.epoch.is_none() {
                // The bytes that were counted are those of one epoch.
                let extent = self.gate.logs.extent(tenant, number, self.filter).await;
                let extent = extent.map_err(|error| unreadable(&error, self.cursor))?;
                self.filter.epoch = extent.map(|extent| extent.epoch);
            }
            let page = self
                .gate
                .logs
                .read(tenant, number, self.filter, self.cursor, limits::LOG_BYTES_PER_REPLY)
                .await;
            if page.is_err() {
                // Of a log that another server writes by now nothing is wrong.
                self.gate.must_reign().await?;
            }
            let page = page.map_err(|error| unreadable(&error, self.cursor))?;
            let moved = page.cursor != self.cursor;
            self.cursor = page.cursor;
            if !page.chunks.is_empty() {
                let reply = LogsReply { chunks: page.chunks, cursor: self.cursor, ..LogsReply::default() };
                return Ok(Some(reply));
            }
            if moved || !page.at_end {
                continue;
            }
            if let Some(missing_bytes) = self.finished(held) {
                self.gate.must_reign().await?;
                self.over = true;
                let reply =
                    LogsReply { cursor: self.cursor, end: true, missing_bytes, ..LogsReply::default() };
                return Ok(Some(reply));
            }
            self.wait().await;
        }
        Ok(None)
    }
}

impl Log {
    /// Reads the job's state again where it may have changed.
    async fn look(&mut self) -> Result<(), Problem> {
        if self.stale {
            // Cleared first: a change while reading makes it stale again.
            self.stale = false;
            self.state = self.gate.state(&self.job).await?;
            retention::kept(&self.job, &self.state)?;
        }
        Ok(())
    }

    async fn held_bytes(&self) -> Result<u64, Problem> {
        let held = self.gate.logs.ended_bytes(&self.job.tenant, self.job.number).await;
        held.map_err(|error| unreadable(&error, self.cursor))
    }

    /// At the end of what there is: is it the end of all? Then the bytes that
    /// will never come.
    fn finished(&mut self, held: u64) -> Option<u64> {
        if !ended(self.state.state()) {
            self.stalled = None;
            // Whoever does not follow gets what there is.
            return (!self.follow).then_some(0);
        }
        let missing = self.state.log_bytes.saturating_sub(held);
        if missing == 0 {
            return Some(0);
        }
        let now_ms = self.gate.clock.monotonic_ms();
        let progress = self.cursor.wrapping_add(held);
        match self.stalled {
            Some((since_ms, before)) if before == progress => {
                let patience_ms = if self.follow { limits::LOG_STALL_MS } else { limits::LOG_STALL_ONCE_MS };
                (now_ms.saturating_sub(since_ms) >= patience_ms).then_some(missing)
            }
            _ => {
                self.stalled = Some((now_ms, progress));
                None
            }
        }
    }

    /// Until there may be more to say; at most a moment.
    async fn wait(&mut self) {
        let look_ms = if self.changes.is_some() { limits::FOLLOW_LOOK_MS } else { limits::FOLLOW_POLL_MS };
        let changes = &mut self.changes;
        let changed = async {
            match changes {
                Some(watch) => watch.notices.recv().await,
                None => std::future::pending().await,
            }
        };
        let broken = world::select! { biased;
            notice = changed => {
                self.stale = true;
                !matches!(notice, Some(Notice::Changed { .. }))
            }
            () = self.gate.logs.changed(&self.job.tenant, self.job.number, self.cursor) => false,
            () = time::sleep(time::ms(look_ms)) => {
                self.stale = true;
                false
            }
        };
        if broken {
            self.watch().await;
        }
    }

    /// Watches the job's state. Where the store has no watch to give, looking
    /// often does instead.
    async fn watch(&mut self) {
        let key = proto::keys::state(&self.job.tenant, self.job.number);
        self.changes = self.gate.store.watch(key).await.ok();
        self.stale = true;
    }
}

fn unreadable(error: &io::Error, cursor: u64) -> Problem {
    match error.kind() {
        io::ErrorKind::InvalidInput => Problem::new(
            "spec.cursor",
            "cursor",
            cursor,
            "is no place at which a part of this log begins",
            "use a cursor that this log gave, or 0",
        ),
        _ => problem::unavailable("logs", format!("the log cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_wins_over_a_tail() {
        let since =
            |tail_ms, cursor| since_ms(&LogsRequest { tail_ms, cursor, ..LogsRequest::default() }, 100_000);
        assert_eq!(since(0, 0), 0);
        assert_eq!(since(10_000, 0), 90_000);
        assert_eq!(since(1_000_000, 0), 0);
        assert_eq!(since(0, 40), 0);
        assert_eq!(since(10_000, 40), 0);
        let at = |tail_ms, since_ms, cursor| {
            super::since_ms(&LogsRequest { tail_ms, since_ms, cursor, ..LogsRequest::default() }, 100_000)
        };
        assert_eq!((at(0, 70_000, 0), at(0, 70_000, 40)), (70_000, 0));
        assert_eq!((at(10_000, 70_000, 0), at(50_000, 70_000, 0)), (90_000, 70_000), "the later of both");
    }

    #[test]
    fn an_offset_needs_one_stream() {
        let one = LogFilter {
            step: Some(0),
            task: Some(0),
            rank: Some(0),
            attempt: Some(1),
            stream: Some(1),
            from: 9,
            ..LogFilter::default()
        };
        assert!(one_stream(&one).is_ok());
        assert!(one_stream(&LogFilter { rank: None, from: 0, ..one }).is_ok());
        let refused = one_stream(&LogFilter { rank: None, ..one }).unwrap_err();
        assert_eq!((refused.code.as_str(), refused.value.as_str()), ("conflict.offset", "9"));
        assert!(refused.reason.contains("no rank"), "{refused}");
    }
}
