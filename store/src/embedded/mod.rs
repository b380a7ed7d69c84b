//! The embedded store: redb on one node's disk, one writer, one sync for all
//! commits that wait.
//!
//! ```text
//! commit ─▶ line ─▶ writer ─▶ engine: one transaction, one sync ─▶ watchers, answers
//! range, get ─▶ a read transaction of the last durable group
//! ```
//!
//! What must hold: an answer comes after the sync; calls take effect in the
//! order in which they were made; after a failed sync nothing is believed until
//! the file is opened anew.

mod backend;
mod deadlines;
mod engine;
mod file;
mod line;
mod shared;
mod writer;

pub use line::CommitTicket;

use crate::{
    Commit, CommitError, Key, LeaseId, Page, RangeRequest, ReadError, Revision, Row, Store, Watch, check,
};
use async_trait::async_trait;
use engine::Engine;
use line::Operation;
use shared::Shared;
use std::collections::BTreeMap;
use std::{fmt, io, sync::Arc};
use world::task::{blocking, spawn};
use world::{Disk, NodeClock};

/// How to open a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Memory for pages of the file. Small values suit simulated nodes.
    pub cache_bytes: usize,
    /// Ends all leases at once: for a process that knows that every owner died
    /// with the process before it.
    pub drop_leases: bool,
    /// Reads the whole file at every open and checks all of it, not only after
    /// a crash. About a second a gibibyte.
    pub verify: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, drop_leases: false, verify: true }
    }
}

/// Why a store does not open.
#[derive(Debug)]
pub enum OpenError {
    /// The file is no store, or no longer one.
    Damaged(String),
    /// The disk failed.
    Io(io::Error),
    /// Another process (or handle) has it open.
    Locked,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(why) => write!(f, "the store's file is damaged: {why}"),
            Self::Io(error) => write!(f, "the store's file cannot be opened: {error}"),
            Self::Locked => f.write_str("the store is open already, in this or another process"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Damaged(_) | Self::Locked => None,
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A store in one file of this node. Dropping it lets the commits in line
/// happen and closes the file some time later; [`RedbStore::close`] waits for
/// that.
pub struct RedbStore {
    shared: Arc<Shared>,
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("closed", &self.shared.line.closed()).finish_non_exhaustive()
    }
}

impl RedbStore {
    /// Opens the store at `path` with the usual options, made first where there
    /// is none.
    pub async fn open(
        disk: Arc<dyn Disk>,
        path: &str,
        clock: Arc<dyn NodeClock>,
    ) -> Result<Arc<Self>, OpenError> {
        Self::open_with(disk, path, clock, OpenOptions::default()).await
    }

    /// Opens the store at `path`, made first where there is none.
    pub async fn open_with(
        disk: Arc<dyn Disk>,
        path: &str,
        clock: Arc<dyn NodeClock>,
        options: OpenOptions,
    ) -> Result<Arc<Self>, OpenError> {
        let path = path.to_owned();
        let engine = blocking(move || -> Result<Engine, OpenError> {
            let opened = file::open(&disk, &path, &options)?;
            let contents = file::contents(&opened.database)?;
            let mut engine = Engine {
                shared: Arc::new(Shared::new(opened, contents.revision, clock)),
                disk,
                path,
                options,
                revision: 0,
                leases: BTreeMap::new(),
                hung: BTreeMap::new(),
                full_until_ms: 0,
            };
            engine.take_contents(contents);
            engine.first_turn()
        })
        .await?;
        let shared = Arc::clone(&engine.shared);
        spawn(writer::run(engine));
        Ok(Arc::new(Self { shared }))
    }

    /// Puts a commit in line at once, without being polled: commits take effect
    /// in the order of these calls. A long line is not refused before
    /// [`crate::limits::COMMIT_QUEUE_MAX`]; who sends many awaits
    /// [`RedbStore::ready`] before each.
    pub fn submit(&self, commit: Commit) -> CommitTicket {
        match check::commit(&commit) {
            Ok(bytes) => self.shared.line.enter(Operation::Commit(commit), bytes),
            Err(why) => CommitTicket::refused(CommitError::Refused(why)),
        }
    }

    /// Returns once fewer than [`crate::limits::COMMIT_QUEUE`] commits wait.
    pub async fn ready(&self) {
        self.shared.line.ready().await;
    }

    /// Lets the commits in line happen, takes no more, and returns once the
    /// file is closed.
    pub async fn close(&self) {
        self.shared.line.close("the store is closed");
        self.stopped().await;
    }

    /// Returns, with the reason, once the store has stopped: it was closed, or its
    /// disk failed so that only opening the file again helps.
    pub async fn stopped(&self) -> String {
        let mut ended = self.shared.ended.subscribe();
        // An error means that the sender is gone, which lives in `shared`.
        let _ = ended.wait_for(|ended| *ended).await;
        self.shared.line.closed().unwrap_or_default()
    }

    /// See [`RedbStore::stopped`].
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.shared.ended.borrow()
    }

    /// The last durable revision that watchers were told.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.shared.told()
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.shared.line.close("the store is closed");
    }
}

impl Engine {
    /// What the store does with its leases before anybody calls.
    fn first_turn(mut self) -> Result<Self, OpenError> {
        let leases: Vec<LeaseId> = self.leases.keys().copied().collect();
        if self.options.drop_leases {
            let outcome = self.run(Vec::new(), &leases, 0);
            if outcome.failed {
                let why = outcome.poisoned.unwrap_or_else(|| "the disk is full".to_owned());
                return Err(OpenError::Io(io::Error::other(format!("old leases cannot be ended: {why}"))));
            }
            self.shared.watchers().tell(&[], self.revision);
            return Ok(self);
        }
        let now_ms = self.shared.clock.monotonic_ms();
        let mut deadlines = self.shared.deadlines();
        for (lease, hung) in &self.leases {
            deadlines.start(*lease, hung.ttl_ms, now_ms);
        }
        drop(deadlines);
        Ok(self)
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        self.submit(commit).await
    }

    async fn range(&self, request: RangeRequest) -> Result<Page, ReadError> {
        check::range(&request).map_err(ReadError::Refused)?;
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.range(&request)).await
    }

    async fn get(&self, key: Key) -> Result<Option<Row>, ReadError> {
        check::row_key(&key).map_err(ReadError::Refused)?;
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.get(&key)).await
    }

    async fn watch(&self, prefix: Key) -> Result<Watch, ReadError> {
        check::prefix(&prefix).map_err(ReadError::Refused)?;
        self.shared.watchers().start(prefix)
    }

    async fn lease(&self, owner: &str, ttl_ms: u64) -> Result<LeaseId, CommitError> {
        check::lease(owner, ttl_ms).map_err(CommitError::Refused)?;
        self.shared.line.enter(Operation::Grant { owner: owner.to_owned(), ttl_ms }, owner.len()).await
    }

    async fn keep(&self, lease: LeaseId) -> Result<(), CommitError> {
        if let Some(why) = self.shared.line.closed() {
            return Err(CommitError::Unavailable(why));
        }
        self.shared.deadlines().keep(lease, self.shared.clock.monotonic_ms())
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), CommitError> {
        self.shared.line.enter(Operation::Revoke(lease), 0).await.map(|_| ())
    }
}
