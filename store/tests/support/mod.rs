//! What the store's tests share: a clock they move, a disk whose power fails at
//! a chosen operation.
#![allow(dead_code, reason = "each test file uses a part of it")]

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::{fmt, io};
use store::conformance::Pass;
use world::disk::{DirEntry, OpenMode};
use world::sim::HostileDisk;
use world::{Disk, DiskFile, NodeClock};

/// Stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    pub fn pass(&self, span_ms: u64) {
        self.0.fetch_add(span_ms, Ordering::SeqCst);
    }
}

impl NodeClock for ManualClock {
    fn monotonic_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn wall_ms(&self) -> u64 {
        self.monotonic_ms()
    }
}

/// Moves a clock, the way the conformance suite asks for it.
pub fn pass_of(clock: &Arc<ManualClock>) -> Pass {
    let clock = Arc::clone(clock);
    Arc::new(move |span_ms| {
        clock.pass(span_ms);
        Box::pin(async {})
    })
}

/// A hostile disk whose power fails after so many writes, syncs and changes of
/// names.
pub struct FusedDisk {
    inner: Arc<dyn Disk>,
    fuse: Arc<Fuse>,
}

struct Fuse {
    left: AtomicI64,
    disk: HostileDisk,
    rng: Mutex<SmallRng>,
}

impl Fuse {
    /// Counts one operation; true if the power fails with it.
    fn last(&self) -> bool {
        self.left.fetch_sub(1, Ordering::SeqCst) == 1
    }

    fn crash(&self) {
        self.disk.crash(&mut *self.rng.lock().unwrap());
    }

    /// Counts one operation; the power fails just before the last.
    fn burn(&self) {
        if self.last() {
            self.crash();
        }
    }
}

impl FusedDisk {
    pub fn new(disk: &HostileDisk, operations: u64, seed: u64) -> Arc<Self> {
        let fuse = Fuse {
            left: AtomicI64::new(i64::try_from(operations).unwrap()),
            disk: disk.clone(),
            rng: Mutex::new(SmallRng::seed_from_u64(seed)),
        };
        Arc::new(Self { inner: disk.handle(), fuse: Arc::new(fuse) })
    }

    /// True once the power has failed.
    pub fn burnt(&self) -> bool {
        self.fuse.left.load(Ordering::SeqCst) <= 0
    }

    /// The power fails now, unless it has.
    pub fn blow(&self) {
        if self.fuse.left.swap(0, Ordering::SeqCst) > 0 {
            self.fuse.crash();
        }
    }
}

impl fmt::Debug for FusedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FusedDisk")
    }
}

impl Disk for FusedDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.fuse.burn();
        Ok(Arc::new(FusedFile { inner: self.inner.open(path, mode)?, fuse: Arc::clone(&self.fuse) }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.fuse.burn();
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.fuse.burn();
        self.inner.remove(path)
    }
    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }
    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        self.fuse.burn();
        self.inner.create_dir_all(path)
    }
    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }
    fn entry(&self, path: &str) -> io::Result<DirEntry> {
        self.inner.entry(path)
    }
    fn is_vacant(&self, path: &str) -> io::Result<bool> {
        self.inner.is_vacant(path)
    }
    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.fuse.burn();
        self.inner.sync_dir(path)
    }
    fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        self.inner.set_mode(path, mode)
    }
    fn absolute(&self, path: &str) -> PathBuf {
        self.inner.absolute(path)
    }
}

struct FusedFile {
    inner: Arc<dyn DiskFile>,
    fuse: Arc<Fuse>,
}

impl fmt::Debug for FusedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FusedFile")
    }
}

impl DiskFile for FusedFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fuse.burn();
        self.inner.write_at(offset, data)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fuse.burn();
        self.inner.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        if self.fuse.last() {
            // Half the time all is durable, but who asked never hears of it.
            if self.fuse.rng.lock().unwrap().random() {
                self.inner.sync()?;
            }
            self.fuse.crash();
        }
        self.inner.sync()
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.inner.try_lock()
    }
}
