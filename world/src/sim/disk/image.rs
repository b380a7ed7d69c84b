//! The bytes of one simulated file: what reads see, and how to get back to
//! what is durable.
//!
//! Kept as an undo log: `bytes` has every write applied; `log` holds, for each
//! write since the last sync, what it replaced. A power loss undoes the log
//! backwards and applies again, in order, what it lets be: its cost is that of
//! the unsynced writes, however large the file.

use super::content::Content;
use crate::sim::faults::{DiskCounts, below};
use rand::RngCore;

/// A disk writes sectors whole; between them a write can tear.
pub(super) const SECTOR_BYTES: usize = 512;
/// Unsynced writes of one file, and bytes that they replaced; past it the oldest half
/// is taken as written back, as a kernel does sooner or later.
const LOG_MAX: usize = 65_536;
const LOG_BYTES_MAX: usize = 1 << 20;
/// Buffers of synced writes kept for the next ones, and how long each may be.
/// A store writes and syncs the same few pages all day.
const SPARE_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// A power loss decides.
    Open,
    /// Made durable by a sync that failed in other parts.
    Durable,
    /// A failed sync dropped it for good.
    Forgotten,
}

/// One unsynced change. `data` is what stood there before; while a power loss
/// is worked out, what it had put there.
#[derive(Debug)]
enum Change {
    Write { offset: usize, wrote: usize, data: Vec<u8>, len_before: usize, fate: Fate },
    Resize { data: Vec<u8>, len_before: usize, len_after: usize, fate: Fate },
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Write { data, .. } | Self::Resize { data, .. } => data.len(),
        }
    }

    fn fate(&mut self) -> &mut Fate {
        match self {
            Self::Write { fate, .. } | Self::Resize { fate, .. } => fate,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Image {
    bytes: Content,
    log: Vec<Change>,
    /// What these replaced.
    log_bytes: usize,
    spare: Vec<Vec<u8>>,
}

impl Image {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All of it, in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.pieces(0..usize::MAX)
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.log.is_empty()
    }

    pub(super) fn read(&self, offset: usize, buffer: &mut [u8]) -> usize {
        self.bytes.read(offset, buffer)
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let len_before = self.bytes.len();
        let end = offset + data.len();
        let mut before = self.spare.pop().unwrap_or_default();
        self.bytes.pieces(offset..end).for_each(|piece| before.extend_from_slice(piece));
        self.bytes.put(offset, data);
        self.note(Change::Write { offset, wrote: data.len(), data: before, len_before, fate: Fate::Open });
    }

    pub(super) fn resize(&mut self, len: usize) {
        let len_before = self.bytes.len();
        if len == len_before {
            return;
        }
        let data = self.bytes.copy(len..len_before);
        self.bytes.resize(len);
        self.note(Change::Resize { data, len_before, len_after: len, fate: Fate::Open });
    }

    fn note(&mut self, change: Change) {
        if self.log.len() >= LOG_MAX || self.log_bytes > LOG_BYTES_MAX {
            // The oldest can be taken as durable by forgetting how to undo them.
            let mut forgotten = 0;
            let half = self.log_bytes / 2;
            while self.log.len() - forgotten >= LOG_MAX / 2 || self.log_bytes > half {
                self.log_bytes -= self.log[forgotten].bytes();
                forgotten += 1;
            }
            self.log.drain(..forgotten);
        }
        self.log_bytes += change.bytes();
        self.log.push(change);
    }

    /// All that is written is durable (but for what an earlier sync forgot).
    pub(super) fn sync(&mut self) {
        if self.log.iter_mut().any(|change| *change.fate() == Fate::Forgotten) {
            for change in &mut self.log {
                let fate = change.fate();
                if *fate == Fate::Open {
                    *fate = Fate::Durable;
                }
            }
            return;
        }
        self.log_bytes = 0;
        for change in self.log.drain(..) {
            if let Change::Write { mut data, .. } = change
                && self.spare.len() < SPARE_MAX
                && data.capacity() <= SPARE_BYTES_MAX
            {
                data.clear();
                self.spare.push(data);
            }
        }
    }

    /// A sync that failed: each write is durable or not.
    pub(super) fn sync_failed(&mut self, rng: &mut impl RngCore, forgets: bool) {
        for change in &mut self.log {
            let fate = change.fate();
            if *fate != Fate::Open {
                continue;
            }
            *fate = match below(rng, 2) {
                0 => Fate::Durable,
                _ if forgets => Fate::Forgotten,
                _ => Fate::Open,
            };
        }
    }

    /// The power fails: what was not synced is kept, lost or torn, each write
    /// for itself.
    pub(super) fn power_loss(&mut self, rng: &mut impl RngCore, counts: &mut DiskCounts) {
        let mut log = std::mem::take(&mut self.log);
        self.log_bytes = 0;
        for change in log.iter_mut().rev() {
            self.undo(change);
        }
        for change in log {
            self.settle(change, rng, counts);
        }
    }

    /// Takes one change back and leaves in it what it had written.
    fn undo(&mut self, change: &mut Change) {
        match change {
            Change::Write { offset, wrote, data, len_before, .. } => {
                let new = self.bytes.copy(*offset..*offset + *wrote);
                self.bytes.put(*offset, data);
                self.bytes.resize(*len_before);
                *data = new;
            }
            Change::Resize { data, len_before, len_after, .. } => {
                assert_eq!(self.bytes.len(), *len_after, "changes are undone backwards");
                self.bytes.put(*len_after, data);
                self.bytes.resize(*len_before);
                data.clear();
            }
        }
    }

    fn settle(&mut self, change: Change, rng: &mut impl RngCore, counts: &mut DiskCounts) {
        match change {
            Change::Write { offset, data, fate, .. } => {
                // Where a write crosses sectors it can tear between any two.
                let first_edge = SECTOR_BYTES - offset % SECTOR_BYTES;
                let edges = if data.len() > first_edge {
                    (data.len() - first_edge).div_ceil(SECTOR_BYTES)
                } else {
                    0
                };
                let draw = match fate {
                    Fate::Durable => 0,
                    Fate::Forgotten => 1,
                    Fate::Open => below(rng, if edges > 0 { 3 } else { 2 }),
                };
                match draw {
                    0 => {
                        counts.writes_kept += 1;
                        self.bytes.put(offset, &data);
                    }
                    1 => counts.writes_lost += 1,
                    _ => {
                        counts.writes_torn += 1;
                        let edge =
                            usize::try_from(below(rng, edges as u64)).expect("an edge inside the write");
                        self.bytes.put(offset, &data[..first_edge + edge * SECTOR_BYTES]);
                    }
                }
            }
            Change::Resize { len_after, fate, .. } => {
                let kept = match fate {
                    Fate::Durable => true,
                    Fate::Forgotten => false,
                    Fate::Open => below(rng, 2) == 0,
                };
                if kept {
                    counts.writes_kept += 1;
                    self.bytes.resize(len_after);
                } else {
                    counts.writes_lost += 1;
                }
            }
        }
    }
}
