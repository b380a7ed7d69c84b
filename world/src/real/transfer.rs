//! Objects over HTTP/1.1.
//!
//! Nothing waits for ever: connecting has a deadline, and so has every stretch
//! without progress. Whether to try again is the caller's business; but a server that
//! has all of an upload and verifies it is waited for, which is no other try. Large
//! uploads first ask (`Expect: 100-continue`), so that a refusal costs nothing
//! and its reason arrives; and before that, how much of them is there already.

mod landing;

pub use landing::Wanted;

mod bring;

use super::tls::Clients;
use crate::{
    disk::{Disk, DiskFile, OpenMode},
    grpc::{DIGEST_EXPECTED, DIGEST_FOUND, VERIFYING, content_range, so_far, tag},
    limits::{REASON_BYTES_MAX, VERIFY, VERIFY_PAUSE},
    pace::Pace,
    task, time,
    transfer::{
        Arrived, Fetching, Transfer, TransferError, UPLOAD_ROUNDS, is_of_what_was_there, not_verified,
        verified_within,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::{Frame, Incoming},
    header,
};
use landing::{Landing, Piece};
use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// Deadlines and sizes of transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferLimits {
    /// For a connection to stand.
    pub connect: Duration,
    /// Without a byte moving.
    pub idle: Duration,
    /// From the last byte of an upload to its answer: the server digests and
    /// syncs meanwhile.
    pub finish: Duration,
    /// Until the server has verified an upload that it has all of, beside what its length
    /// takes: see [`crate::limits::VERIFY_MS_PER_MIB`].
    pub verify: Duration,
    /// Between two asks for that.
    pub verify_pause: Duration,
    /// Read from or written to the disk at once.
    pub chunk_bytes: usize,
    /// Uploads above it ask first.
    pub ask_above_bytes: u64,
    /// Uploads above it go on where an earlier try broke off.
    pub resume_above_bytes: u64,
    /// Read from a connection at once, and not before it is wanted: at least 8 KiB.
    pub read_bytes: usize,
    /// Idle connections kept to one server.
    pub idle_connections_max: usize,
    /// What is longer is brought in parts of this size.
    pub part_bytes: u64,
    /// So many parts of one file at once, each by a connection of its own.
    pub parts_at_once: usize,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(20),
            finish: Duration::from_secs(120),
            verify: VERIFY,
            verify_pause: VERIFY_PAUSE,
            chunk_bytes: 1024 * 1024,
            ask_above_bytes: 64 * 1024,
            resume_above_bytes: 1024 * 1024,
            read_bytes: 1024 * 1024,
            idle_connections_max: 16,
            part_bytes: 8 * 1024 * 1024,
            parts_at_once: 4,
        }
    }
}

/// A server that ignores the question gets the upload after so long.
const ASK_WAIT: Duration = Duration::from_secs(1);
/// Less is not read at once, whatever is asked for.
const READ_BYTES_MIN: usize = 8 * 1024;
/// Chunks between the disk and the network.
const READ_AHEAD: usize = 2;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// This machine's transfers.
pub struct HttpTransfer {
    clients: Clients<Body>,
    limits: TransferLimits,
}

impl std::fmt::Debug for HttpTransfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpTransfer").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Whether an upload's bytes may flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Ask,
    Go,
    Stop,
}

/// Ends the upload's stream however `put` is left.
struct StopOnDrop(watch::Sender<Gate>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.send_replace(Gate::Stop);
    }
}

fn network(error: &dyn std::error::Error) -> TransferError {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(source) = at {
        text = format!("{text}: {source}");
        at = source.source();
    }
    TransferError::Network(text)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn disk_error(error: io::Error) -> TransferError {
    TransferError::Disk(error.to_string())
}

fn parse(url: &str) -> Result<Uri, TransferError> {
    let bad = |why: &str| TransferError::Refused { status: 400, reason: format!("{url:?} {why}") };
    let uri: Uri = url.parse().map_err(|_| bad("is no URL"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err(bad("is no http:// or https:// URL")),
    }
}

impl HttpTransfer {
    /// Keeps connections for later transfers.
    #[must_use]
    pub fn new(limits: TransferLimits) -> Arc<Self> {
        assert!(limits.chunk_bytes > 0, "a transfer moves something at a time");
        assert!(limits.part_bytes > 0 && limits.parts_at_once > 0, "a part is moved at a time");
        let read_bytes = limits.read_bytes.max(READ_BYTES_MIN);
        let clients = Clients::new(limits.connect, limits.idle_connections_max, read_bytes);
        Arc::new(Self { clients, limits })
    }

    /// Waits for the answer for as long as bytes move; once all of an upload
    /// are away, for `finish`.
    async fn answer(
        &self,
        request: Request<Body>,
        moved: &AtomicU64,
        due: u64,
    ) -> Result<Response<Incoming>, TransferError> {
        let mut answer = std::pin::pin!(self.clients.request(request));
        let mut seen = 0;
        loop {
            let all_away = due > 0 && moved.load(Ordering::Relaxed) >= due;
            let patience = if all_away { self.limits.finish } else { self.limits.idle };
            match time::timeout(patience, &mut answer).await {
                Ok(result) => return result.map_err(|error| network(&error)),
                Err(_) => {
                    let now = moved.load(Ordering::Relaxed);
                    if now == seen {
                        let seconds = patience.as_secs_f32();
                        return Err(TransferError::Network(format!("no progress for {seconds} s")));
                    }
                    seen = now;
                }
            }
        }
    }

    /// Turns a status that is no success into the error it stands for.
    async fn judge(&self, response: Response<Incoming>) -> Result<Response<Incoming>, TransferError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let word =
            |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        if let (Some(expected), Some(found)) = (word(DIGEST_EXPECTED), word(DIGEST_FOUND)) {
            return Err(TransferError::Digest { expected, found });
        }
        let after = word(header::RETRY_AFTER);
        let text = Limited::new(response.into_body(), REASON_BYTES_MAX).collect();
        let reason = match time::timeout(self.limits.idle, text).await {
            Ok(Ok(text)) => String::from_utf8_lossy(&text.to_bytes()).trim().replace('\n', " "),
            _ => String::new(),
        };
        let reason = if reason.is_empty() {
            status.canonical_reason().unwrap_or("no reason given").to_owned()
        } else {
            reason
        };
        let status = status.as_u16();
        if let Some(after) = after.filter(|_| matches!(status, 429 | 503)) {
            // A date is not read: the source is left alone for as long as for any failure.
            let after_ms = after.trim().parse::<u64>().ok().map(|seconds| seconds.saturating_mul(1_000));
            return Err(TransferError::Busy { status, reason, after_ms });
        }
        // What is neither success nor a server's failure is not worth another try.
        Err(if status >= 500 {
            TransferError::Server { status, reason }
        } else {
            TransferError::Refused { status, reason }
        })
    }
}

/// Reads a file ahead of the network. Ends with the receiver.
fn read_ahead(
    file: Arc<dyn DiskFile>,
    from: u64,
    len: u64,
    chunk_bytes: usize,
) -> mpsc::Receiver<io::Result<Bytes>> {
    let (tx, rx) = mpsc::channel(READ_AHEAD);
    task::spawn(async move {
        let mut at = from;
        while at < len {
            let file = file.clone();
            let want = chunk_bytes.min(usize::try_from(len - at).unwrap_or(chunk_bytes));
            let chunk = task::blocking(move || {
                let mut buffer = vec![0; want];
                match file.read_at(at, &mut buffer)? {
                    0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
                    read => {
                        buffer.truncate(read);
                        Ok(Bytes::from(buffer))
                    }
                }
            })
            .await;
            at += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            let failed = chunk.is_err();
            if tx.send(chunk).await.is_err() || failed {
                return;
            }
        }
    });
    rx
}

/// The body of an upload: waits at the gate, then gives chunks and counts them.
fn upload_body(
    rx: mpsc::Receiver<io::Result<Bytes>>,
    gate: watch::Receiver<Gate>,
    moved: Arc<AtomicU64>,
    pace: Pace,
) -> Body {
    let from = (rx, gate, moved, pace);
    let chunks = stream::try_unfold(from, |(mut rx, mut gate, moved, pace)| async move {
        let opened = gate.wait_for(|gate| *gate != Gate::Ask);
        // Unanswered, it sends; with the sender gone nobody wants it.
        let stop = match time::timeout(ASK_WAIT, opened).await {
            Ok(Ok(gate)) => *gate == Gate::Stop,
            Ok(Err(_)) => true,
            Err(_) => false,
        };
        if stop {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the upload is over"));
        }
        match rx.recv().await {
            None => Ok(None),
            Some(Err(error)) => Err(error),
            Some(Ok(chunk)) => {
                pace.take(chunk.len() as u64).await;
                moved.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                Ok(Some((Frame::data(chunk), (rx, gate, moved, pace))))
            }
        }
    });
    StreamBody::new(chunks).boxed_unsync()
}

#[async_trait]
impl Transfer for HttpTransfer {
    async fn put(&self, url: &str, disk: Arc<dyn Disk>, path: &str) -> Result<(), TransferError> {
        self.put_watched(url, disk, path, &Arc::default()).await
    }

    async fn send(
        &self,
        url: &str,
        disk: Arc<dyn Disk>,
        path: &str,
        pace: &Pace,
    ) -> Result<(), TransferError> {
        self.put_at(url, (disk, path), &Arc::default(), pace).await
    }

    async fn get(
        &self,
        url: &str,
        disk: Arc<dyn Disk>,
        path: &str,
        digest: &str,
    ) -> Result<u64, TransferError> {
        let landing = Landing::fresh(disk, path, digest).await?;
        self.fetch(url, landing).await
    }

    async fn bring(&self, url: &str, fetching: &Fetching) -> Result<u64, TransferError> {
        self.bring_parts(url, fetching).await
    }
}

impl HttpTransfer {
    /// Sends as [`Transfer::put`] does, and tells meanwhile how many bytes of the file are
    /// away.
    pub async fn put_watched(
        &self,
        url: &str,
        disk: Arc<dyn Disk>,
        path: &str,
        away: &Arc<AtomicU64>,
    ) -> Result<(), TransferError> {
        self.put_at(url, (disk, path), away, &Pace::default()).await
    }

    async fn put_at(
        &self,
        url: &str,
        (disk, path): (Arc<dyn Disk>, &str),
        away: &Arc<AtomicU64>,
        pace: &Pace,
    ) -> Result<(), TransferError> {
        let path = path.to_owned();
        let opened = task::blocking(move || disk.open(&path, OpenMode::Read)).await;
        self.put_paced(url, &opened.map_err(disk_error)?, away, pace).await
    }

    /// The same of what is open, or lies in memory.
    pub async fn put_open(
        &self,
        url: &str,
        file: &Arc<dyn DiskFile>,
        away: &Arc<AtomicU64>,
    ) -> Result<(), TransferError> {
        self.put_paced(url, file, away, &Pace::default()).await
    }

    async fn put_paced(
        &self,
        url: &str,
        file: &Arc<dyn DiskFile>,
        away: &Arc<AtomicU64>,
        pace: &Pace,
    ) -> Result<(), TransferError> {
        let uri = parse(url)?;
        let measured = Arc::clone(file);
        let len = task::blocking(move || measured.len()).await.map_err(disk_error)?;
        let (mut round, mut until) = (0, None);
        loop {
            // Of a small one nobody asks, but whether it is verified.
            let mut arrived = match len <= self.limits.resume_above_bytes && until.is_none() {
                true => Arrived::Part(0),
                false => self.arrived(&uri, len).await?,
            };
            if let Arrived::Part(from) = arrived {
                round += 1;
                if round > UPLOAD_ROUNDS {
                    return Err(not_verified());
                }
                away.store(from, Ordering::Relaxed);
                arrived = match self.send_from(&uri, file, from..len, (away, pace)).await {
                    Err(error) if round < UPLOAD_ROUNDS && is_of_what_was_there(&error, from) => continue,
                    sent => sent?,
                };
            }
            if arrived != Arrived::Verifying {
                return Ok(());
            }
            let now = time::now();
            if now >= *until.get_or_insert(now + self.limits.verify + verified_within(len)) {
                let why = "the server has all of it and does not come to an end of verifying it";
                return Err(TransferError::Network(why.to_owned()));
            }
            time::sleep(self.limits.verify_pause).await;
        }
    }

    /// How much of an upload is there already.
    async fn arrived(&self, uri: &Uri, len: u64) -> Result<Arrived, TransferError> {
        let request = Request::builder().method(Method::PUT).uri(uri.clone());
        let request = request.header(header::CONTENT_RANGE, format!("bytes */{len}"));
        let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = request.header(header::CONTENT_LENGTH, 0).body(body).expect("the headers are ours");
        let response = self.answer(request, &AtomicU64::new(0), 0).await?;
        if response.status() != StatusCode::PERMANENT_REDIRECT {
            return self.taken(response).await;
        }
        let there = so_far(response.headers()).filter(|there| *there <= len);
        there.map(Arrived::Part).ok_or_else(|| {
            let reason = "it told nonsense of what is there".to_owned();
            TransferError::Server { status: response.status().as_u16(), reason }
        })
    }

    /// Sends what is not there.
    async fn send_from(
        &self,
        uri: &Uri,
        file: &Arc<dyn DiskFile>,
        span: Range<u64>,
        (away, pace): (&Arc<AtomicU64>, &Pace),
    ) -> Result<Arrived, TransferError> {
        let (due, len) = (span.end - span.start, span.end);
        let asks = due > self.limits.ask_above_bytes;
        let (gate, gated) = watch::channel(if asks { Gate::Ask } else { Gate::Go });
        let gate = StopOnDrop(gate);
        let slice = pace.slice_bytes().and_then(|bytes| usize::try_from(bytes).ok());
        let chunk_bytes = slice.map_or(self.limits.chunk_bytes, |slice| slice.min(self.limits.chunk_bytes));
        let chunks = read_ahead(Arc::clone(file), span.start, len, chunk_bytes);
        let body = upload_body(chunks, gated, Arc::clone(away), pace.clone());
        let mut request = Request::builder().method(Method::PUT).uri(uri.clone());
        request = request.header(header::CONTENT_LENGTH, due);
        if span.start > 0 {
            request = request.header(header::CONTENT_RANGE, content_range(&span, len));
        }
        if asks {
            request = request.header(header::EXPECT, "100-continue");
        }
        let mut request = request.body(body).expect("the URL was parsed and the headers are ours");
        if asks {
            let opener = gate.0.clone();
            hyper::ext::on_informational(&mut request, move |_continue| {
                opener.send_if_modified(|gate| {
                    let asked = *gate == Gate::Ask;
                    if asked {
                        *gate = Gate::Go;
                    }
                    asked
                });
            });
        }
        let response = self.answer(request, away, len).await?;
        self.taken(response).await
    }

    /// What an answer says of an upload that the server has all of.
    async fn taken(&self, response: Response<Incoming>) -> Result<Arrived, TransferError> {
        if response.headers().contains_key(VERIFYING) {
            return Ok(Arrived::Verifying);
        }
        self.judge(response).await.map(|_| Arrived::Whole)
    }

    /// Fetches as [`Transfer::get`] does, and goes on where an earlier try broke off:
    /// what arrived stays under the name `wanted.part`.
    pub async fn resume(&self, disk: Arc<dyn Disk>, wanted: &Wanted<'_>) -> Result<u64, TransferError> {
        let landing = Landing::kept(disk.clone(), wanted).await?;
        let resumed = landing.at > 0;
        match self.fetch(wanted.url, landing).await {
            // What was there may have been damaged, by the power say: it is gone now.
            Err(TransferError::Digest { .. }) if resumed => {
                self.fetch(wanted.url, Landing::kept(disk, wanted).await?).await
            }
            fetched => fetched,
        }
    }

    async fn fetch(&self, url: &str, mut landing: Landing) -> Result<u64, TransferError> {
        if landing.is_whole() {
            return landing.finish().await;
        }
        let mut body = match self.ask_for(url, &mut landing).await {
            Ok(body) => body,
            Err(error) => {
                landing.leave(&error).await;
                return Err(error);
            }
        };
        let (tx, rx) = mpsc::channel(READ_AHEAD);
        let writer = task::spawn(landing.fill(rx));
        let broken = self.pump(&mut body, tx).await.err();
        let stored = match writer.await {
            Ok(stored) => stored,
            Err(error) => return Err(TransferError::Disk(format!("the writer failed: {error}"))),
        };
        // The writer knows only that it broke; we may know why.
        match (stored, broken) {
            (Err(TransferError::Network(_)), Some(why)) => Err(why),
            (stored, _) => stored,
        }
    }

    /// The bytes that are missing.
    async fn ask_for(&self, url: &str, landing: &mut Landing) -> Result<Incoming, TransferError> {
        let mut request = Request::builder().uri(parse(url)?);
        if landing.at > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", landing.at));
            request = request.header(header::IF_RANGE, tag(&landing.digest));
        }
        let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = request.body(body).expect("the URL was parsed and the headers are ours");
        let response = self.answer(request, &AtomicU64::new(0), 0).await?;
        let response = self.judge(response).await?;
        landing.heed(&response).await?;
        Ok(response.into_body())
    }

    /// Moves a body to the writer in chunks of the disk's size; of one that breaks all
    /// that came.
    async fn pump(&self, body: &mut Incoming, tx: mpsc::Sender<Piece>) -> Result<(), TransferError> {
        let (mut frames, mut bytes) = (Vec::new(), 0);
        loop {
            let (ended, broken) = match time::timeout(self.limits.idle, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        bytes += data.len();
                        frames.push(data);
                    }
                    (false, None)
                }
                Ok(Some(Err(error))) => (false, Some(network(&error))),
                Ok(None) => (true, None),
                Err(_) => {
                    let why = format!("no progress for {} s", self.limits.idle.as_secs_f32());
                    (false, Some(TransferError::Network(why)))
                }
            };
            let over = ended || broken.is_some();
            if bytes >= self.limits.chunk_bytes || (over && bytes > 0) {
                bytes = 0;
                if tx.send(Piece::Data(std::mem::take(&mut frames))).await.is_err() {
                    // It has failed and says why.
                    return Ok(());
                }
            }
            if let Some(why) = broken {
                return Err(why);
            }
            if ended {
                let _writer_failed = tx.send(Piece::End).await;
                return Ok(());
            }
        }
    }
}
