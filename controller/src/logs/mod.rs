//! The log relay: takes log ranges from agents, keeps them, hands them on.
//!
//! One append-only file for each job, in frames (see [`file`]). What must hold:
//! a receipt is given only after the sync; the bytes of one stream lie in the
//! file in order, without gap or repeat; a reader sees only synced frames. A
//! cursor is a position in the job's file, so a reader resumes exactly. What a node gave up
//! for want of room is no gap: it has a frame, in which that is said in its place.
//!
//! A log whose job has ended is packed into a segment ([`segment`]), and read from there as
//! before. What comes late unpacks it again.
//!
//! Where servers share the directory each reign has files of its own
//! ([`succession`]), and a receipt is given only once the store has said, after the
//! sync, that the reign still stands: so all that was ever receipted is in the file
//! that the next reign begins from.

pub mod file;
mod frames;
mod segment;
mod succession;

use file::JobLog;
pub use file::{Extent, LogFilter};
use proto::v1::{AttemptRef, LogChunk, LogReceipt, LogShipment};
use segment::Packing;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use world::disk::Disk;
use world::sync::{Semaphore, mpsc, oneshot};
use world::time::{self, Instant};

/// What the relay takes at most.
pub mod limits {
    /// Job files held open.
    pub const OPEN_FILES: usize = 256;
    /// Batches of a tenant's shipments waiting to be written; a further one waits.
    pub const WAITING_BATCHES: usize = 256;
    /// Batches that share one sync.
    pub const GROUP_BATCHES_MAX: usize = 64;
    /// Bytes that do, about: then it is another tenant's turn.
    pub const GROUP_BYTES_MAX: usize = 4 << 20;
    /// Tenants whose logs are written at once; a further one waits for its turn.
    pub const WRITERS_AT_ONCE: usize = 4;
    /// Bytes of one frame's data.
    pub const FRAME_BYTES_MAX: usize = 1 << 20;
    /// Bytes of whole frames after which a block of a segment ends.
    pub const SEGMENT_BLOCK_BYTES: u64 = 256 << 10;
    /// Those of one, with the frame that made it full.
    pub const SEGMENT_BLOCK_BYTES_MAX: u64 = SEGMENT_BLOCK_BYTES + FRAME_BYTES_MAX as u64 + 8192;
    /// How hard a segment is pressed, of 9: beyond this it takes much longer for little.
    pub const SEGMENT_EFFORT: u32 = 4;
    /// Blocks that are packed in one go.
    pub const SEGMENT_BLOCKS_PER_STEP: usize = 4;
}

/// Names a job's file.
type JobKey = (String, u64);

/// See the module.
#[derive(Debug)]
pub struct LogRelay {
    shared: Arc<Shared>,
    /// A queue with a writer for each tenant of which something came; there are never
    /// more than tenants.
    lanes: Mutex<BTreeMap<String, mpsc::Sender<Batch>>>,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    dir: String,
    /// The number of the reign, where servers share the directory.
    reign: Option<u64>,
    open: Mutex<OpenLogs>,
    /// Who may write now, in the order of asking.
    writers: Semaphore,
    /// By node: bytes that it gave up, of what was appended here.
    dropped: Mutex<BTreeMap<String, u64>>,
    /// Jobs that are known to have no plain file.
    packed: Mutex<BTreeSet<JobKey>>,
}

/// Open job files, least recently used first out.
#[derive(Debug, Default)]
struct OpenLogs {
    jobs: BTreeMap<JobKey, (u64, Arc<Slot>)>,
    clock: u64,
}

/// One job's log once it is open. To open one takes syncs, and of a long one a while:
/// so whoever wants it waits here, and nobody else.
#[derive(Debug, Default)]
struct Slot(Mutex<Option<Arc<JobLog>>>);

impl Slot {
    fn held(&self) -> std::sync::MutexGuard<'_, Option<Arc<JobLog>>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

#[derive(Debug)]
struct Batch {
    shipments: Vec<LogShipment>,
    reply: oneshot::Sender<Vec<LogReceipt>>,
}

/// What became of a log that was packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Bytes of the plain file.
    pub plain_bytes: u64,
    /// Of the segment.
    pub bytes: u64,
}

/// A page of a job's log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogPage {
    /// What matched, in the order it arrived.
    pub chunks: Vec<LogChunk>,
    /// Where to go on.
    pub cursor: u64,
    /// Nothing durable lies after the cursor now.
    pub at_end: bool,
}

impl LogRelay {
    /// Opens the relay over the files below `dir`. With the number of a reign `dir` is
    /// shared with servers that reigned before, or will.
    pub async fn open(disk: Arc<dyn Disk>, dir: &str, reign: Option<u64>) -> io::Result<Arc<Self>> {
        let writers = Semaphore::new(limits::WRITERS_AT_ONCE);
        let (open, dropped, packed) = (Mutex::default(), Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { disk, dir: dir.to_owned(), reign, open, writers, dropped, packed });
        let made = Arc::clone(&shared);
        world::task::blocking(move || file::make_dir(&*made.disk, &made.dir)).await?;
        Ok(Arc::new(Self { shared, lanes: Mutex::default() }))
    }

    /// Appends what is new in the shipments, all of this tenant; durable when it
    /// returns. A receipt names the first offset not yet held: behind the shipment's
    /// end where it was taken, before its start where bytes are missing between.
    pub async fn append(&self, tenant: &str, shipments: Vec<LogShipment>) -> Vec<LogReceipt> {
        let (reply, receipts) = oneshot::channel();
        let lane = self.lane(tenant);
        if lane.send(Batch { shipments, reply }).await.is_err() {
            return Vec::new();
        }
        receipts.await.unwrap_or_default()
    }

    fn lane(&self, tenant: &str) -> mpsc::Sender<Batch> {
        let mut lanes = self.lanes.lock().expect("no holder of this lock panics");
        if let Some(lane) = lanes.get(tenant) {
            return lane.clone();
        }
        let (lane, waiting) = mpsc::channel(limits::WAITING_BATCHES);
        world::task::spawn(write_batches(Arc::clone(&self.shared), waiting));
        lanes.insert(tenant.to_owned(), lane.clone());
        lane
    }

    /// Reads on from a cursor: about `limit_bytes` of matching data at most.
    pub async fn read(
        &self,
        tenant: &str,
        number: u64,
        filter: LogFilter,
        cursor: u64,
        limit_bytes: usize,
    ) -> io::Result<LogPage> {
        let (shared, job) = (Arc::clone(&self.shared), (tenant.to_owned(), number));
        world::task::blocking(move || match shared.job(&job, false)? {
            Some(log) => log.read(&filter, cursor, limit_bytes),
            None => Ok(LogPage { chunks: Vec::new(), cursor, at_end: true }),
        })
        .await
    }

    /// How far the one stream that the filter names has come.
    pub async fn extent(&self, tenant: &str, number: u64, filter: LogFilter) -> io::Result<Option<Extent>> {
        let (shared, job) = (Arc::clone(&self.shared), (tenant.to_owned(), number));
        world::task::blocking(move || Ok(shared.job(&job, false)?.and_then(|log| log.extent(&filter)))).await
    }

    /// Waits until there is more after the cursor; may return without. Callers
    /// add a deadline.
    pub async fn changed(&self, tenant: &str, number: u64, cursor: u64) {
        let (shared, job) = (Arc::clone(&self.shared), (tenant.to_owned(), number));
        // Made here if it is not there yet, so that its first bytes wake us.
        let log = world::task::blocking(move || shared.job(&job, true)).await;
        if let Ok(Some(log)) = log {
            log.grown(cursor).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// The jobs whose logs are not packed, by tenant.
    pub async fn plain(&self) -> io::Result<BTreeMap<String, Vec<u64>>> {
        let shared = Arc::clone(&self.shared);
        world::task::blocking(move || shared.plain()).await
    }

    /// Packs the log of a job that has ended. `None`: it is packed, or somebody reads or
    /// writes it now.
    pub async fn pack(&self, tenant: &str, number: u64) -> io::Result<Option<Packed>> {
        let (shared, job) = (Arc::clone(&self.shared), (tenant.to_owned(), number));
        let begun = {
            let (shared, job) = (Arc::clone(&shared), job.clone());
            world::task::blocking(move || shared.begin_packing(&job)).await?
        };
        let Some(mut packing) = begun else { return Ok(None) };
        loop {
            let began = Instant::now();
            let done;
            (packing, done) = world::task::blocking(move || {
                let done = packing.step();
                (packing, done)
            })
            .await;
            if done? {
                break;
            }
            // Nobody waits for it, so it takes half of a core at the most.
            time::sleep(began.elapsed()).await;
        }
        world::task::blocking(move || shared.end_packing(&job, packing)).await
    }

    /// By node, since the relay was opened: bytes that it gave up.
    pub fn dropped(&self) -> BTreeMap<String, u64> {
        self.shared.dropped().clone()
    }

    /// Takes a job's log away. What comes of it afterwards makes another.
    pub async fn remove(&self, tenant: &str, number: u64) -> io::Result<()> {
        let (shared, job) = (Arc::clone(&self.shared), (tenant.to_owned(), number));
        world::task::blocking(move || shared.remove(&job)).await
    }

    /// Bytes of the streams whose end marker has arrived.
    pub async fn ended_bytes(&self, tenant: &str, number: u64) -> io::Result<u64> {
        let (shared, job) = (Arc::clone(&self.shared), (tenant.to_owned(), number));
        world::task::blocking(move || Ok(shared.job(&job, false)?.map_or(0, |log| log.ended_bytes()))).await
    }
}

impl Shared {
    fn path(&self, job: &JobKey) -> (String, String) {
        let dir = format!("{}/{}", self.dir, job.0);
        let path = format!("{dir}/{:016x}.log", job.1);
        (dir, path)
    }

    /// The job's log, opened and recovered where needed; `None` where there is
    /// none and none is to be made.
    fn job(&self, job: &JobKey, make: bool) -> io::Result<Option<Arc<JobLog>>> {
        self.opened(job, make, &mut self.slot(job).held())
    }

    fn opened(
        &self,
        job: &JobKey,
        make: bool,
        held: &mut Option<Arc<JobLog>>,
    ) -> io::Result<Option<Arc<JobLog>>> {
        if let Some(log) = &*held {
            return Ok(Some(Arc::clone(log)));
        }
        let (dir, path) = self.path(job);
        let opened = match self.reign {
            None => JobLog::open(&*self.disk, &dir, &path, make)?,
            Some(reign) => succession::open(&*self.disk, &path, reign, make)?,
        };
        *held = opened.map(Arc::new);
        Ok(held.clone())
    }

    /// Where this server writes the job's log: directory and file.
    fn own(&self, job: &JobKey) -> (String, String) {
        let (dir, path) = self.path(job);
        match self.reign {
            None => (dir, path),
            Some(reign) => succession::own(&path, reign),
        }
    }

    fn packed(&self) -> std::sync::MutexGuard<'_, BTreeSet<JobKey>> {
        self.packed.lock().expect("no holder of this lock panics")
    }

    fn plain(&self) -> io::Result<BTreeMap<String, Vec<u64>>> {
        let mut plain = BTreeMap::new();
        for tenant in self.disk.list(&self.dir)?.into_iter().filter(|entry| entry.is_dir) {
            let dir = format!("{}/{}", self.dir, tenant.name);
            let mut jobs = BTreeSet::new();
            for entry in self.disk.list(&dir)? {
                let name = entry.name.strip_suffix(".log");
                let Some(name) = name.or(entry.is_dir.then_some(entry.name.as_str())) else { continue };
                let Ok(number) = u64::from_str_radix(name, 16) else { continue };
                let job = (tenant.name.clone(), number);
                if self.packed().contains(&job) {
                    continue;
                }
                let is_plain = if entry.is_dir {
                    succession::is_plain(&*self.disk, &format!("{dir}/{name}"))?
                } else {
                    Some(true)
                };
                match is_plain {
                    Some(true) => _ = jobs.insert(number),
                    Some(false) => _ = self.packed().insert(job),
                    None => {}
                }
            }
            plain.insert(tenant.name, jobs.into_iter().collect());
        }
        Ok(plain)
    }

    fn begin_packing(&self, job: &JobKey) -> io::Result<Option<Packing>> {
        match self.job(job, false)? {
            Some(log) if log.is_packed() => {
                self.packed().insert(job.clone());
                Ok(None)
            }
            Some(log) if !log.is_at(0) => Ok(Some(log.pack(&*self.disk, &self.fresh_segment(job))?)),
            _ => Ok(None),
        }
    }

    fn fresh_segment(&self, job: &JobKey) -> String {
        format!("{}.new", segment::path(&self.own(job).1))
    }

    fn end_packing(&self, job: &JobKey, packing: Packing) -> io::Result<Option<Packed>> {
        let ((dir, path), fresh) = (self.own(job), self.fresh_segment(job));
        let plain_bytes = packing.plain_bytes();
        let bytes = packing.finish()?;
        let slot = self.slot(job);
        // From here on nobody can come by it.
        let mut held = slot.held();
        drop(self.opened(job, false, &mut held)?);
        let is_free = |log: &Arc<JobLog>| Arc::strong_count(log) == 1 && log.is_at(plain_bytes);
        if !held.as_ref().is_some_and(|log| !log.is_packed() && is_free(log)) {
            let _ = self.disk.remove(&fresh);
            return Ok(None);
        }
        // It is read from the disk again, whatever comes of this.
        *held = None;
        self.disk.rename(&fresh, &segment::path(&path))?;
        self.disk.sync_dir(&dir)?;
        self.disk.remove(&path)?;
        world::mark!("controller.logs.packed");
        self.packed().insert(job.clone());
        Ok(Some(Packed { plain_bytes, bytes }))
    }

    /// The job's log as a plain file, to which can be appended.
    fn unpacked(&self, job: &JobKey) -> io::Result<Option<Arc<JobLog>>> {
        let slot = self.slot(job);
        let mut held = slot.held();
        let Some(log) = self.opened(job, true, &mut held)?.filter(|log| log.is_packed()) else {
            return Ok(held.clone());
        };
        world::mark!("controller.logs.unpacked");
        let (dir, path) = self.own(job);
        let fresh = format!("{path}.new");
        log.unpack(&*self.disk, &fresh)?;
        *held = None;
        self.packed().remove(job);
        self.disk.rename(&fresh, &path)?;
        self.disk.sync_dir(&dir)?;
        let log = self.opened(job, true, &mut held)?;
        // The plain one counts; if this cannot be removed the next one takes its place.
        let _ = self.disk.remove(&segment::path(&path));
        Ok(log)
    }

    fn dropped(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.dropped.lock().expect("no holder of this lock panics")
    }

    /// Appends, and counts what the node gave up.
    fn append(&self, log: &JobLog, shipment: &LogShipment) -> io::Result<(u64, bool)> {
        if shipment.dropped_bytes == 0 {
            return log.append(shipment);
        }
        let before = log.dropped_bytes();
        let taken = log.append(shipment)?;
        *self.dropped().entry(shipment.node.clone()).or_default() +=
            log.dropped_bytes().saturating_sub(before);
        Ok(taken)
    }

    fn slot(&self, job: &JobKey) -> Arc<Slot> {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        open.clock += 1;
        let now = open.clock;
        if let Some((used, slot)) = open.jobs.get_mut(job) {
            *used = now;
            return Arc::clone(slot);
        }
        if open.jobs.len() >= limits::OPEN_FILES {
            // Only logs that nobody else holds: a second handle on a file in
            // use would not see the first one's appends.
            let idle = open.jobs.iter().filter(|(_, (_, slot))| {
                Arc::strong_count(slot) == 1
                    && slot.held().as_ref().is_none_or(|log| Arc::strong_count(log) == 1)
            });
            if let Some(oldest) = idle.min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone()) {
                open.jobs.remove(&oldest);
            }
        }
        let slot = Arc::new(Slot::default());
        open.jobs.insert(job.clone(), (now, Arc::clone(&slot)));
        slot
    }

    fn remove(&self, job: &JobKey) -> io::Result<()> {
        let slot = self.slot(job);
        // Nobody opens it meanwhile.
        let mut held = slot.held();
        let (dir, path) = self.path(job);
        if self.reign.is_some() {
            succession::remove(&*self.disk, &path)?;
        }
        succession::take_away(&*self.disk, &dir, &path)?;
        self.packed().remove(job);
        world::mark!("controller.logs.removed");
        *held = None;
        Ok(())
    }

    fn forget(&self, job: &JobKey) {
        self.open.lock().expect("no holder of this lock panics").jobs.remove(job);
    }
}

/// The one writer of a tenant: waits for its turn, gathers what waits meanwhile,
/// appends, syncs each touched file once, then answers.
async fn write_batches(shared: Arc<Shared>, mut waiting: mpsc::Receiver<Batch>) {
    while let Some(first) = waiting.recv().await {
        let Ok(_turn) = shared.writers.acquire().await else { return };
        let mut work = vec![first];
        let mut bytes = 0;
        while let Some(last) = work.last() {
            bytes += last.shipments.iter().map(|shipment| shipment.data.len()).sum::<usize>();
            if bytes >= limits::GROUP_BYTES_MAX || work.len() >= limits::GROUP_BATCHES_MAX {
                break;
            }
            let Ok(next) = waiting.try_recv() else { break };
            work.push(next);
        }
        let shared = Arc::clone(&shared);
        let answered = world::task::blocking(move || {
            let receipts = write_group(&shared, work.iter().map(|batch| &batch.shipments[..]));
            work.into_iter().map(|batch| batch.reply).zip(receipts).collect::<Vec<_>>()
        })
        .await;
        for (reply, receipts) in answered {
            // A caller that went away asks again.
            let _ = reply.send(receipts);
        }
    }
}

fn write_group<'a>(
    shared: &Shared,
    batches: impl Iterator<Item = &'a [LogShipment]>,
) -> Vec<Vec<LogReceipt>> {
    let mut touched: BTreeMap<JobKey, Option<Arc<JobLog>>> = BTreeMap::new();
    let mut answers: Vec<Vec<(JobKey, LogReceipt)>> = Vec::new();
    for batch in batches {
        let mut receipts = Vec::with_capacity(batch.len());
        for shipment in batch {
            let Some(attempt) = shipment.attempt.as_ref() else { continue };
            let job = (attempt.tenant.clone(), attempt.job_number);
            let opened = touched.entry(job.clone());
            let log = opened.or_insert_with(|| or_warn(&job, shared.job(&job, true)));
            if log.as_ref().is_some_and(|log| log.is_packed() && log.is_news(shipment)) {
                *log = or_warn(&job, shared.unpacked(&job));
            }
            let log = log.clone();
            let (offset, done) = match &log {
                Some(log) => shared.append(log, shipment).unwrap_or_else(|error| {
                    tracing::warn!(tenant = job.0, job = job.1, %error, "a log could not be written");
                    touched.insert(job.clone(), None);
                    shared.forget(&job);
                    (shipment.offset, false)
                }),
                // Nothing moved: the agent keeps its bytes and sends them again.
                None => (shipment.offset, false),
            };
            receipts.push((job, receipt(attempt, shipment, offset, done)));
        }
        answers.push(receipts);
    }
    for (job, log) in &mut touched {
        if let Some(held) = log
            && let Err(error) = held.sync()
        {
            tracing::warn!(tenant = job.0, job = job.1, %error, "a log could not be synced");
            // What was appended may be there or not: read it again from the disk.
            shared.forget(job);
            *log = None;
        }
    }
    let synced = |job: &JobKey| touched.get(job).is_some_and(Option::is_some);
    answers
        .into_iter()
        .map(|receipts| {
            receipts.into_iter().filter(|(job, _)| synced(job)).map(|(_, receipt)| receipt).collect()
        })
        .collect()
}

fn or_warn(job: &JobKey, opened: io::Result<Option<Arc<JobLog>>>) -> Option<Arc<JobLog>> {
    match opened {
        Ok(log) => log,
        Err(error) => {
            tracing::warn!(tenant = job.0, job = job.1, %error, "a log could not be opened");
            None
        }
    }
}

fn receipt(attempt: &AttemptRef, shipment: &LogShipment, offset: u64, done: bool) -> LogReceipt {
    LogReceipt { attempt: Some(attempt.clone()), rank: shipment.rank, stream: shipment.stream, offset, done }
}

#[cfg(test)]
mod tests;
