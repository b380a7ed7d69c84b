//! Bytes between a node and the object place: HTTP in production.
//!
//! URLs are signed by the server and carry method, tenant, digest, size and
//! expiry; whoever holds one needs no other credential. A transfer that ends
//! without error has moved exactly the bytes whose digest the URL names, or it
//! reports [`TransferError::Digest`].

pub(crate) mod bring;
mod pieces;

use crate::disk::Disk;
use crate::pace::Pace;
use crate::time::{Duration, ms};
use async_trait::async_trait;
use std::{
    any::Any,
    fmt, io,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// What may go wrong; only `Refused` and `Digest` are not worth another try
/// with the same URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// No connection, or it broke, or the deadline passed.
    Network(String),
    /// The server said no (4xx): expired, altered or foreign URL, over quota.
    Refused {
        /// HTTP status.
        status: u16,
        /// One line.
        reason: String,
    },
    /// The server failed (5xx).
    Server {
        /// HTTP status.
        status: u16,
        /// One line.
        reason: String,
    },
    /// The server has too much to do (429 or 503), and says when it may be asked again.
    Busy {
        /// HTTP status.
        status: u16,
        /// One line.
        reason: String,
        /// In so long; `None` where that cannot be read.
        after_ms: Option<u64>,
    },
    /// The bytes that arrived are not those of the digest.
    Digest {
        /// Lower-case hexadecimal SHA-256.
        expected: String,
        /// Likewise.
        found: String,
    },
    /// This node's disk failed.
    Disk(String),
}
/// HTTP status of a transfer past its tenant's quota: the same URL may serve
/// again next month.
pub const QUOTA_STATUS: u16 = 429;

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(why) => write!(f, "the transfer broke: {why}"),
            Self::Refused { status, reason } => write!(f, "the transfer was refused ({status}): {reason}"),
            Self::Server { status, reason } => {
                write!(f, "the server failed the transfer ({status}): {reason}")
            }
            Self::Busy { status, reason, .. } => {
                write!(f, "the server has too much to do ({status}): {reason}")
            }
            Self::Digest { expected, found } => write!(f, "digest {found} arrived where {expected} was due"),
            Self::Disk(why) => write!(f, "the disk failed the transfer: {why}"),
        }
    }
}
impl std::error::Error for TransferError {}

/// Bytes as lower-case hexadecimal, the way digests are written.
#[must_use]
pub fn hex_digest(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// Whether what arrived is what was due.
pub(crate) fn check_digest(expected: &str, found: String) -> Result<(), TransferError> {
    if found == expected {
        return Ok(());
    }
    Err(TransferError::Digest { expected: expected.to_owned(), found })
}

/// Moves files from and to a node's disk.
#[async_trait]
pub trait Transfer: Send + Sync + fmt::Debug + 'static {
    /// Sends the file at `path` (below `disk`) to `url`, from where an earlier try of it
    /// broke off.
    async fn put(&self, url: &str, disk: Arc<dyn Disk>, path: &str) -> Result<(), TransferError>;
    /// Sends as [`Transfer::put`] does, no faster than that.
    async fn send(
        &self,
        url: &str,
        disk: Arc<dyn Disk>,
        path: &str,
        _pace: &Pace,
    ) -> Result<(), TransferError> {
        self.put(url, disk, path).await
    }
    /// Fetches `url` into `path`, which appears only whole, verified against
    /// `digest` and synced.
    async fn get(
        &self,
        url: &str,
        disk: Arc<dyn Disk>,
        path: &str,
        digest: &str,
    ) -> Result<u64, TransferError>;
    /// Fetches `url` as [`Transfer::get`] does, in as many tries as the caller makes
    /// with one [`Fetching`], and does not sync: after a power loss the file may be
    /// there with other bytes, so whoever finds it then looks at them.
    async fn bring(&self, url: &str, fetching: &Fetching) -> Result<u64, TransferError> {
        self.get(url, fetching.disk.clone(), &fetching.path, &fetching.digest).await
    }
}

/// A file that is being fetched, in one try or in several: what a try that broke has
/// brought is there for the next, beside the path.
#[derive(Debug)]
pub struct Fetching {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) path: String,
    pub(crate) digest: String,
    /// What the transfer knows of the half file; without it there is none.
    kept: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
    /// Bytes of the half file.
    pub(crate) brought: Arc<AtomicU64>,
    /// Of a try that keeps nothing, what has come of it.
    unkept: AtomicU64,
    /// Bytes in all; 0: not known.
    total: AtomicU64,
    /// How fast they come.
    pub(crate) pace: Pace,
}

impl Fetching {
    /// Nothing was tried yet.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, path: &str, digest: &str) -> Self {
        let (path, digest) = (path.to_owned(), digest.to_owned());
        let (unkept, total) = (AtomicU64::new(0), AtomicU64::new(0));
        let (kept, brought, pace) = (Mutex::default(), Arc::default(), Pace::default());
        Self { disk, path, digest, kept, brought, unkept, total, pace }
    }

    /// It comes no faster than that.
    #[must_use]
    pub fn at(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// How many bytes have come, be they kept or not.
    #[must_use]
    pub fn arrived_bytes(&self) -> u64 {
        self.brought_bytes().max(self.unkept.load(Ordering::Relaxed))
    }

    /// How many there are in all, once the other side has told.
    #[must_use]
    pub fn total_bytes(&self) -> Option<u64> {
        Some(self.total.load(Ordering::Relaxed)).filter(|total| *total > 0)
    }

    /// Of a try that keeps nothing: so many have come.
    pub fn arrived(&self, bytes: u64) {
        self.unkept.store(bytes, Ordering::Relaxed);
    }

    /// The other side tells how many there are.
    pub fn told_total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// How many bytes are there for a next try to go on with. A try after which they are
    /// more has got on; one of a transfer that keeps nothing never has.
    #[must_use]
    pub fn brought_bytes(&self) -> u64 {
        self.brought.load(Ordering::Relaxed)
    }

    /// Whether a half file is kept for a next try.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.book().is_some()
    }

    /// No try is to come: nothing half stays. Blocks.
    pub fn give_up(&self) -> io::Result<()> {
        self.forget();
        match self.disk.remove(&self.part()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Where the half file lies.
    pub(crate) fn part(&self) -> String {
        format!("{}.part", self.path)
    }

    pub(crate) fn forget(&self) {
        self.book().take();
        self.brought.store(0, Ordering::Relaxed);
    }

    fn book(&self) -> MutexGuard<'_, Option<Arc<dyn Any + Send + Sync>>> {
        self.kept.lock().expect("nothing panics while it is held")
    }
}

impl Fetching {
    pub(crate) fn kept<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.book().clone().and_then(|kept| kept.downcast().ok())
    }

    pub(crate) fn keep(&self, kept: Arc<dyn Any + Send + Sync>) {
        *self.book() = Some(kept);
    }
}

/// The other end: what a server does with requests for objects. Implemented by
/// the gateway, called by the HTTP server or, in simulation, by the simulated
/// transfer.
#[async_trait]
pub trait ObjectDoor: Send + Sync + 'static {
    /// Opens an upload, of the whole or of a piece that begins where what is there ends.
    /// `target` is the URL's path with its query.
    async fn begin_put(
        &self,
        target: &str,
        piece: Option<Piece>,
    ) -> Result<Box<dyn ObjectSink>, TransferError>;
    /// What there is by now of the upload of `total` bytes that `target` allows.
    async fn arrived(&self, target: &str, total: u64) -> Result<Arrived, TransferError>;
    /// Opens a download. Nothing is read, and nothing counts, before
    /// [`ObjectSource::begin`].
    async fn open(&self, target: &str) -> Result<Box<dyn ObjectSource>, TransferError>;
}

/// Which bytes of an object one request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first of them.
    pub from: u64,
    /// The first behind them.
    pub to: u64,
    /// Of the whole.
    pub total: u64,
}

/// How far an upload has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// So many bytes from its beginning are there; it can be gone on with.
    Part(u64),
    /// All bytes are there, and are being verified and made durable. Whoever asks again
    /// learns what came of it.
    Verifying,
    /// It is there, verified and durable.
    Whole,
}

/// How long whoever has sent so many bytes waits at most until they are verified, beside a
/// time that is for all lengths alike: what is read from a busy disk meanwhile.
pub(crate) fn verified_within(bytes: u64) -> Duration {
    ms((bytes >> 20).saturating_mul(crate::limits::VERIFY_MS_PER_MIB))
}

/// What was verified is not there after all, as often as it was sent.
pub(crate) fn not_verified() -> TransferError {
    TransferError::Network("the server has verified all of it and has it no more".to_owned())
}

/// One upload is begun anew so often on account of what was there of it: it was of other
/// bytes, or another request went on with it.
pub(crate) const UPLOAD_ROUNDS: u32 = 3;

/// True where what was there stood in the way, and not what was sent.
pub(crate) fn is_of_what_was_there(error: &TransferError, from: u64) -> bool {
    match error {
        TransferError::Digest { .. } => from > 0,
        TransferError::Refused { status, .. } => *status == 409,
        _ => false,
    }
}

/// An upload in progress. Dropped unfinished, nothing of it is visible; what arrived may
/// be gone on with.
#[async_trait]
pub trait ObjectSink: Send {
    /// Takes the next bytes.
    async fn write(&mut self, data: bytes::Bytes) -> Result<(), TransferError>;
    /// All that the request was to bring is here. Of the whole verifies digest and size,
    /// makes it durable, then visible.
    async fn finish(self: Box<Self>) -> Result<Arrived, TransferError>;
}

/// A download in progress.
#[async_trait]
pub trait ObjectSource: Send {
    /// Bytes of the object.
    fn len(&self) -> u64;
    /// Its name, and the proof of what was read: lower-case hexadecimal SHA-256.
    fn digest(&self) -> &str;
    /// True at length 0.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Chooses the bytes that are to be read, within the object.
    async fn begin(&mut self, span: Range<u64>) -> Result<(), TransferError>;
    /// The next of them; `None` at their end.
    async fn read(&mut self) -> Result<Option<bytes::Bytes>, TransferError>;
}
