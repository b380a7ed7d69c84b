//! The disk a store lies on, its clock, and its openings.

use super::Trouble;
use super::model::{self, Model};
use super::support::{FusedDisk, ManualClock};
use crate::draw::Draw;
use std::sync::Arc;
use store::limits::REOPEN_PAUSE_MS;
use store::{OpenError, OpenOptions, RedbStore};
use world::sim::{DiskFaults, HostileDisk};
use world::{Disk, NodeClock};

const PATH: &str = "a/store.redb";
/// Openings that may fail before the disk is well again.
const OPENINGS_MAX: usize = 6;
/// More operations than any disk does here.
const NEVER: u64 = u64::MAX >> 1;

pub(super) struct Place {
    pub(super) trouble: Trouble,
    pub(super) disk: HostileDisk,
    pub(super) fused: Arc<FusedDisk>,
    pub(super) clock: Arc<ManualClock>,
}

impl Place {
    pub(super) fn new(trouble: Trouble, seed: u64) -> Self {
        let disk = HostileDisk::new(seed);
        let fused = FusedDisk::new(&disk, NEVER, 0);
        Self { trouble, disk, fused, clock: Arc::default() }
    }

    /// From here on the disk has the room it is to have.
    pub(super) fn fill(&self) {
        if let Some(room) = self.trouble.room_bytes {
            let capacity_bytes = self.disk.used_bytes() + room;
            self.disk.set_faults(DiskFaults { capacity_bytes, ..DiskFaults::default() });
        }
    }

    pub(super) fn make_room(&self) {
        if self.trouble.room_bytes.is_some() {
            self.disk.set_faults(DiskFaults::default());
            self.clock.pass(REOPEN_PAUSE_MS);
        }
    }

    /// Nothing goes wrong any more.
    pub(super) fn heal(&mut self) {
        self.make_room();
        self.trouble.disk = DiskFaults::default();
        self.trouble.fuse = 0;
    }

    /// Opens until it opens; each try may fail as all else does, but for the last.
    pub(super) async fn open(&mut self, worlds: &mut Vec<Model>, draw: &mut Draw<'_>) -> Arc<RedbStore> {
        let full = self.trouble.room_bytes.is_some();
        for opening in 1..=OPENINGS_MAX {
            let last = opening == OPENINGS_MAX;
            let fuse = if self.trouble.fuse == 0 || last { NEVER } else { 1 + draw.word() % 1_000 };
            if !full {
                self.disk.set_faults(if last { DiskFaults::default() } else { self.trouble.disk });
            }
            self.fused = FusedDisk::new(&self.disk, fuse, u64::from(draw.byte()));
            let (drop_leases, verify) = (draw.seldom(4), draw.coin());
            let options = OpenOptions { cache_bytes: 256 << 10, drop_leases, verify };
            let disk = Arc::clone(&self.fused) as Arc<dyn Disk>;
            match RedbStore::open_with(disk, PATH, Arc::clone(&self.clock) as _, options).await {
                Ok(store) => {
                    self.disk.set_faults(if full { self.disk.faults() } else { self.trouble.disk });
                    let now_ms = self.clock.monotonic_ms();
                    worlds.iter_mut().for_each(|world| world.opened(drop_leases, now_ms));
                    return store;
                }
                Err(OpenError::Io(error)) => assert!(self.trouble.is_any() && (full || !last), "{error}"),
                Err(error) => panic!("opening {opening}: {error}"),
            }
            if drop_leases {
                // It may have come so far.
                model::or(worlds, |world| world.opened(true, 0));
            }
            self.make_room();
            // The process dies, or the power fails.
            if draw.coin() {
                self.fused.blow();
            }
            self.disk.fence();
        }
        panic!("a disk that is well opens");
    }
}
