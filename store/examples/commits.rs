//! How many small commits a second the embedded store makes durable here.
//!
//! `cargo run --release -p store --example commits [DIRECTORY]`: 10,000 commits
//! of 4 small rows each (one of them guarded), all sent without waiting; then
//! 500 one after the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, io};
use store::{Commit, RedbStore, Store};
use world::disk::{DirEntry, OpenMode};
use world::real::{FsDisk, SystemClock};
use world::time::Instant;
use world::{Disk, DiskFile};

const PIPELINED: u64 = 10_000;
const SINGLE: u64 = 500;

/// Counts syncs and bytes on their way to a disk.
#[derive(Debug, Default)]
struct Counts {
    syncs: AtomicU64,
    written_bytes: AtomicU64,
}

#[derive(Debug)]
struct CountingDisk {
    inner: Arc<dyn Disk>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct CountingFile {
    inner: Arc<dyn DiskFile>,
    counts: Arc<Counts>,
}

impl Disk for CountingDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(CountingFile { inner: self.inner.open(path, mode)?, counts: Arc::clone(&self.counts) }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }
    fn create_dir_all(&self, path: &str) -> io::Result<()> {
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
        self.inner.sync_dir(path)
    }
    fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        self.inner.set_mode(path, mode)
    }
    fn absolute(&self, path: &str) -> PathBuf {
        self.inner.absolute(path)
    }
}

impl DiskFile for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.counts.written_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.inner.write_at(offset, data)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync()
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.inner.try_lock()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (syncs, bytes) = (self.syncs.load(Ordering::Relaxed), self.written_bytes.load(Ordering::Relaxed));
        write!(f, "{syncs} syncs, {} KiB written since the start", bytes / 1024)
    }
}

/// As a submission writes them: the job, its state, an event, the shard.
fn commit(number: u64) -> Commit {
    let mut commit = Commit::new();
    if number > 0 {
        commit = commit.guard_value("shard/0003", (number - 1).to_string());
    }
    commit
        .put(format!("job/default/{number:016x}"), vec![1; 200])
        .put(format!("state/default/{number:016x}"), vec![2; 80])
        .put(format!("event/default/{number:016x}"), vec![3; 120])
        .put("shard/0003", number.to_string())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root =
        std::env::args().nth(1).map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let counts = Arc::new(Counts::default());
    let files = FsDisk::open(root)?;
    let disk = Arc::new(CountingDisk { inner: files, counts: Arc::clone(&counts) });
    disk.remove_dir_all("commits-bench")?;
    let store =
        RedbStore::open(Arc::clone(&disk) as _, "commits-bench/store.redb", Arc::new(SystemClock::new()))
            .await?;

    let (start, syncs) = (Instant::now(), counts.syncs.load(Ordering::Relaxed));
    let mut tickets = Vec::new();
    for number in 0..PIPELINED {
        store.ready().await;
        tickets.push(store.submit(commit(number)));
    }
    for ticket in tickets {
        ticket.await?;
    }
    report("pipelined", PIPELINED, start, counts.syncs.load(Ordering::Relaxed) - syncs, &counts);

    let (start, syncs) = (Instant::now(), counts.syncs.load(Ordering::Relaxed));
    for number in PIPELINED..PIPELINED + SINGLE {
        store.commit(commit(number)).await?;
    }
    report("one by one", SINGLE, start, counts.syncs.load(Ordering::Relaxed) - syncs, &counts);
    store.close().await;
    disk.remove_dir_all("commits-bench")?;
    Ok(())
}

fn report(name: &str, commits: u64, start: Instant, syncs: u64, counts: &Counts) {
    let seconds = start.elapsed().as_secs_f64();
    let rate = |count: u64| count as f64 / seconds;
    println!(
        "{name}: {commits} commits in {seconds:.3} s, {:.0}/s, {:.0} syncs/s ({counts})",
        rate(commits),
        rate(syncs)
    );
}
