//! What the handle, the readers and the writer share.

use super::deadlines::Deadlines;
use super::file::{Opened, REVISION, ROWS, revision, split_row};
use super::line::Line;
use crate::limits::RANGE_BYTES_MAX;
use crate::watching::Watchers;
use crate::{Key, Page, RangeRequest, ReadError, Revision, Row};
use bytes::Bytes;
use redb::{ReadTransaction, ReadableDatabase};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use world::NodeClock;
use world::sync::watch;

/// The open file, or why there is none.
#[derive(Debug)]
pub(crate) enum Slot {
    Open(Opened),
    /// The disk was full; the writer opens it again when it can.
    Broken,
    /// For good.
    Closed(String),
}

#[derive(Debug)]
pub(crate) struct Shared {
    /// Readers and the writer's transaction hold it shared (redb isolates
    /// them); only who closes or opens the file holds it alone. Never held
    /// across an await.
    slot: RwLock<Slot>,
    pub line: Line,
    watchers: Mutex<Watchers>,
    deadlines: Mutex<Deadlines>,
    pub clock: Arc<dyn NodeClock>,
    /// True once the file is closed for good.
    pub ended: watch::Sender<bool>,
}

impl Shared {
    pub fn new(opened: Opened, revision: Revision, clock: Arc<dyn NodeClock>) -> Self {
        Self {
            slot: RwLock::new(Slot::Open(opened)),
            line: Line::default(),
            watchers: Mutex::new(Watchers::new(revision)),
            deadlines: Mutex::default(),
            clock,
            ended: watch::Sender::new(false),
        }
    }

    pub fn slot_read(&self) -> RwLockReadGuard<'_, Slot> {
        self.slot.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts another slot in place; the old file is closed before this returns.
    pub fn set_slot(&self, slot: Slot) {
        let mut place = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        *place = slot;
    }

    pub fn is_broken(&self) -> bool {
        matches!(*self.slot_read(), Slot::Broken)
    }

    pub fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn deadlines(&self) -> MutexGuard<'_, Deadlines> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last revision watchers were told.
    pub fn told(&self) -> Revision {
        self.watchers().told()
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, ReadError> {
        let slot = self.slot_read();
        let opened = match &*slot {
            Slot::Open(opened) => opened,
            Slot::Broken => {
                return Err(ReadError::Unavailable("the store's disk is full; free some space".to_owned()));
            }
            Slot::Closed(why) => return Err(ReadError::Unavailable(why.clone())),
        };
        let read = || work(&opened.database.begin_read()?);
        read().map_err(|error| {
            // redb gives nothing more after an error of the disk, to nobody: the
            // writer must not wait for a commit to learn of it.
            if let Some(why) = opened.faults.broken() {
                self.line.close(&format!("{why}; the store must be opened again"));
            }
            match error {
                redb::Error::Corrupted(why) => ReadError::Corrupt(why),
                error => ReadError::Unavailable(error.to_string()),
            }
        })
    }

    /// Blocks.
    pub fn get(&self, key: &Key) -> Result<Option<Row>, ReadError> {
        self.read(|txn| match txn.open_table(ROWS)?.get(key.as_ref())? {
            None => Ok(None),
            Some(stored) => row(key, stored.value()).map(Some),
        })
    }

    /// Blocks.
    pub fn range(&self, request: &RangeRequest) -> Result<Page, ReadError> {
        self.read(|txn| {
            let rows = txn.open_table(ROWS)?;
            let revision = revision(&rows)?.unwrap_or(0);
            let mut page = Page { rows: Vec::new(), more: false, revision };
            if request.from >= request.to {
                return Ok(page);
            }
            let (from, to) = (request.from.as_ref(), request.to.as_ref());
            // The first key lies above the empty one, which is no row's.
            let from = if from == REVISION { Bound::Excluded(from) } else { Bound::Included(from) };
            let mut found = rows.range::<&[u8]>((from, Bound::Excluded(to)))?;
            let mut bytes = 0;
            loop {
                let next = if request.backwards { found.next_back() } else { found.next() };
                let Some(next) = next else { return Ok(page) };
                let (key, stored) = next?;
                bytes += key.value().len() + stored.value().len();
                if page.rows.len() == request.limit {
                    world::mark!("store.range.more_pages");
                }
                if page.rows.len() == request.limit || (bytes > RANGE_BYTES_MAX && !page.rows.is_empty()) {
                    page.more = true;
                    return Ok(page);
                }
                page.rows.push(row(key.value(), stored.value())?);
            }
        })
    }
}

fn row(key: &[u8], stored: &[u8]) -> Result<Row, redb::Error> {
    let (version, lease, value) =
        split_row(stored).ok_or_else(|| redb::Error::Corrupted("a row without its head".to_owned()))?;
    Ok(Row { key: Key::copy_from_slice(key), value: Bytes::copy_from_slice(value), version, lease })
}
