//! Durable rows: ordered keys, values, a version for each key.
//!
//! [`Store::commit`] is the only way to change anything: it is atomic, and it
//! refuses when a guard no longer holds. Rows may hang on a lease and vanish
//! with it. One conformance suite runs over every implementation, so that none
//! can differ; etcd is meant to fit behind this trait as it stands, hence the
//! limits in [`limits`], which every implementation enforces.
//!
//! - [`RedbStore`]: one file on this node's disk, one writer, one sync for all
//!   commits that wait.
//! - [`RemoteStore`] and [`RowsService`]: the same operations over gRPC.
//! - [`conformance`]: what every implementation must do, natively and simulated.

use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;

mod check;
pub mod conformance;
mod embedded;
mod help;
pub mod limits;
mod remote;
mod watching;

pub use embedded::{CommitTicket, OpenError, OpenOptions, RedbStore};
pub use help::{key_after, prefix_end, scan};
pub use remote::{RemoteStore, RowsService, WatchStream};

/// Grows with every commit; a row's version is the revision that wrote it.
pub type Revision = u64;
/// Names a lease; 0 is none.
pub type LeaseId = u64;

/// A key. Parts are joined by `/` (see `proto::keys`).
pub type Key = Bytes;

/// One stored row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: Key,
    /// Its bytes.
    pub value: Bytes,
    /// The revision that wrote it.
    pub version: Revision,
    /// The lease it hangs on, or 0.
    pub lease: LeaseId,
}

/// What must hold for a commit to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The row looked at.
    pub key: Key,
    /// What it must be.
    pub expect: Expect,
}

/// The state a guard asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is no such row.
    Absent,
    /// It was last written at this revision; 0 asks the same as `Absent`.
    Version(Revision),
    /// It has these bytes. Lets an owner chain commits without waiting to
    /// learn the version of each.
    Value(Bytes),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The row changed.
    pub key: Key,
    /// Its new bytes; `None` deletes (deleting nothing is no error).
    pub value: Option<Bytes>,
    /// The lease to hang it on, or 0. Unknown leases fail the commit.
    pub lease: LeaseId,
}

/// Guards and writes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// All must hold.
    pub guards: Vec<Guard>,
    /// All are done, at one revision. No key twice.
    pub writes: Vec<Write>,
}

/// Why a commit did not (surely) happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// A guard did not hold; nothing changed.
    Conflict {
        /// The first guard that failed.
        key: Key,
        /// The version found, 0 where there is no such row.
        found: Revision,
    },
    /// Over a limit of [`limits`], or malformed; nothing changed.
    Refused(String),
    /// The disk is full; nothing changed.
    Full,
    /// The lease named has expired; nothing changed.
    LeaseGone(LeaseId),
    /// It may have happened or not: the reply or the sync was lost. Read again.
    Indeterminate(String),
    /// The store is down or closed; nothing changed.
    Unavailable(String),
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// Over a limit of [`limits`], or malformed.
    Refused(String),
    /// The store is down or closed.
    Unavailable(String),
    /// The store's own files are damaged.
    Corrupt(String),
}

/// Which rows to read: keys in `[from, to)`, at most `limit` of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// First key.
    pub from: Key,
    /// First key not wanted.
    pub to: Key,
    /// 1 ..= [`limits::RANGE_ROWS_MAX`].
    pub limit: usize,
    /// From the end towards the start.
    pub backwards: bool,
}

/// Rows of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order asked for.
    pub rows: Vec<Row>,
    /// More rows lie in the range.
    pub more: bool,
    /// The revision of the moment.
    pub revision: Revision,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// One commit's changes to rows below the prefix, in commit order.
    Changed {
        /// The commit's revision.
        revision: Revision,
        /// Key and new bytes (`None`: deleted).
        changes: Vec<(Key, Option<Bytes>)>,
    },
    /// The watcher was too slow or the link broke: it must read all again and
    /// watch anew. Nothing comes after this.
    Lagged,
}

/// A running watch. Every change durable after `revision` comes once, in order.
#[derive(Debug)]
pub struct Watch {
    /// Where it began.
    pub revision: Revision,
    /// Bounded by [`limits::WATCH_QUEUE`].
    pub notices: world::sync::mpsc::Receiver<Notice>,
}

/// Ordered rows with guarded commits, watches and leases.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Does all of `commit` or nothing; returns after it is durable. Calls made
    /// one after another (each future first polled before the next is made)
    /// take effect in that order, even when not awaited in between.
    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError>;
    /// Only durable rows are seen.
    async fn range(&self, request: RangeRequest) -> Result<Page, ReadError>;
    /// One row.
    async fn get(&self, key: Key) -> Result<Option<Row>, ReadError>;
    /// Follows the rows below a prefix.
    async fn watch(&self, prefix: Key) -> Result<Watch, ReadError>;
    /// A lease that ends `ttl_ms` after its last keeping; its rows go with it.
    async fn lease(&self, owner: &str, ttl_ms: u64) -> Result<LeaseId, CommitError>;
    /// Renews; `LeaseGone` once it has expired.
    async fn keep(&self, lease: LeaseId) -> Result<(), CommitError>;
    /// Ends a lease now.
    async fn revoke(&self, lease: LeaseId) -> Result<(), CommitError>;
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { key, found } => {
                write!(f, "row {} changed meanwhile (version {found})", String::from_utf8_lossy(key))
            }
            Self::Refused(why) => write!(f, "the commit was refused: {why}"),
            Self::Full => f.write_str("the store's disk is full; free some space, nothing was lost"),
            Self::LeaseGone(lease) => write!(f, "lease {lease} has expired"),
            Self::Indeterminate(why) => write!(f, "the commit may have happened or not: {why}"),
            Self::Unavailable(why) => write!(f, "the store is not available: {why}"),
        }
    }
}
impl std::error::Error for CommitError {}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "the read was refused: {why}"),
            Self::Unavailable(why) => write!(f, "the store is not available: {why}"),
            Self::Corrupt(why) => write!(f, "the store's files are damaged: {why}"),
        }
    }
}
impl std::error::Error for ReadError {}
