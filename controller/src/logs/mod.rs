//! The log relay: takes log ranges from agents, keeps them, hands them on.
//!
//! For each job frames in append-only files (see [`file`]). What must hold:
//! a receipt is given only after the sync; the bytes of one stream lie there
//! in order, without gap or repeat; a reader sees only synced frames. A
//! cursor is a position in the job's log, so a reader resumes exactly. What a node gave up
//! for want of room is no gap: it has a frame, in which that is said in its place.
//!
//! A file that is full, or whose job has ended, is packed into a segment ([`segment`]); where
//! objects are in a bucket it moves there ([`away`]). It is read as before.
//!
//! Where servers share the directory each reign writes files of its own
//! ([`place`]), and a receipt is given only once the store has said, after the
//! sync, that the reign still stands: so all that was ever receipted is in the files
//! that the next reign begins from.

mod away;
pub mod file;
mod frames;
mod place;
mod segment;

use file::JobLog;
pub use file::{Extent, LogFilter};
use place::Place;
use proto::v1::{AttemptRef, LogChunk, LogReceipt, LogShipment};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use world::Bucket;
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
    /// Bytes after which a log goes on in another file.
    pub const FILE_BYTES: u64 = 64 << 20;
    /// Bytes that are brought from the bucket at once, where a block has no more.
    pub const BROUGHT_BYTES: u64 = 1 << 20;
    /// Of what is left of a segment that has moved.
    pub const INDEX_BYTES_MAX: u64 = 256 << 20;
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
    /// Jobs about whose logs nothing is left to be done.
    settled: Mutex<BTreeSet<JobKey>>,
    /// Those whose logs are being packed, moved or removed: one of these at a time.
    busy: Mutex<BTreeSet<JobKey>>,
    /// Where segments go.
    bucket: Option<Arc<dyn Bucket>>,
    /// Bytes after which a log goes on in another file.
    file_bytes: u64,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Bytes of what was packed.
    pub plain_bytes: u64,
    /// Of the segments.
    pub bytes: u64,
}

/// What may be done about a job's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToDo {
    /// Something of it can be packed, whatever the job does.
    pub full: bool,
    /// Something of it can be packed, or moved away, once the job has ended.
    pub once_ended: bool,
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
    /// shared with servers that reigned before, or will. Where there is a bucket, what is
    /// packed goes there. A log goes on in another file after so many bytes.
    pub async fn open(
        disk: Arc<dyn Disk>,
        bucket: Option<Arc<dyn Bucket>>,
        dir: &str,
        reign: Option<u64>,
        file_bytes: u64,
    ) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            disk,
            dir: dir.to_owned(),
            reign,
            open: Mutex::default(),
            writers: Semaphore::new(limits::WRITERS_AT_ONCE),
            dropped: Mutex::default(),
            settled: Mutex::default(),
            busy: Mutex::default(),
            bucket,
            file_bytes,
        });
        let made = Arc::clone(&shared);
        world::task::blocking(move || place::make_dir(&*made.disk, &made.dir)).await?;
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
        let job = (tenant.to_owned(), number);
        match self.shared.opened_job(&job).await? {
            Some(log) => {
                let bucket = self.shared.bucket.as_deref();
                away::read(bucket, &job, log, filter, cursor, limit_bytes).await
            }
            None => Ok(LogPage { chunks: Vec::new(), cursor, at_end: true }),
        }
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

    /// The jobs about whose logs something may be done, by tenant.
    pub async fn to_do(&self) -> io::Result<BTreeMap<String, Vec<(u64, ToDo)>>> {
        let shared = Arc::clone(&self.shared);
        world::task::blocking(move || shared.to_do()).await
    }

    /// Packs what is full of a job's log, and moves it away where there is a bucket; all of
    /// it where the job has ended.
    pub async fn pack(&self, tenant: &str, number: u64, has_ended: bool) -> io::Result<Packed> {
        let job = (tenant.to_owned(), number);
        let Some(_busy) = Busy::take(&self.shared, &job) else { return Ok(Packed::default()) };
        let Some(log) = self.shared.opened_job(&job).await? else { return Ok(Packed::default()) };
        let is_closed = has_ended && log.close();
        let mut done = Packed::default();
        while let Some(packed) = pack_one(&log).await? {
            done.plain_bytes += packed.plain_bytes;
            done.bytes += packed.bytes;
        }
        if let Some(bucket) = &self.shared.bucket {
            for segment in log.segments() {
                let fresh = log.fresh_left(&segment);
                away::move_one(&**bucket, &self.shared.disk, &job, segment, fresh).await?;
            }
        }
        if is_closed && log.is_packed() {
            self.shared.settled().insert(job);
        }
        Ok(done)
    }

    /// By node, since the relay was opened: bytes that it gave up.
    pub fn dropped(&self) -> BTreeMap<String, u64> {
        self.shared.dropped().clone()
    }

    /// Takes a job's log away. What comes of it afterwards makes another.
    ///
    /// # Errors
    /// Also while it is being packed or moved: that ends soon.
    pub async fn remove(&self, tenant: &str, number: u64) -> io::Result<()> {
        let (shared, job) = (Arc::clone(&self.shared), (tenant.to_owned(), number));
        let _busy = Busy::take(&self.shared, &job).ok_or(io::ErrorKind::ResourceBusy)?;
        // What is there can be found only while nobody says that all of it is gone.
        if let Some(bucket) = &shared.bucket {
            away::remove(&**bucket, &job).await?;
        }
        world::task::blocking(move || shared.remove(&job)).await
    }

    /// Bytes of the streams whose end marker has arrived.
    pub async fn ended_bytes(&self, tenant: &str, number: u64) -> io::Result<u64> {
        let (shared, job) = (Arc::clone(&self.shared), (tenant.to_owned(), number));
        world::task::blocking(move || Ok(shared.job(&job, false)?.map_or(0, |log| log.ended_bytes()))).await
    }
}

/// Held by who changes a log otherwise than by appending to it.
struct Busy<'a>(&'a Shared, JobKey);

impl<'a> Busy<'a> {
    fn take(shared: &'a Shared, job: &JobKey) -> Option<Self> {
        shared.busy().insert(job.clone()).then(|| Self(shared, job.clone()))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy().remove(&self.1);
    }
}

impl Shared {
    fn busy(&self) -> std::sync::MutexGuard<'_, BTreeSet<JobKey>> {
        self.busy.lock().expect("no holder of this lock panics")
    }

    fn tenant_dir(&self, tenant: &str) -> String {
        format!("{}/{tenant}", self.dir)
    }

    /// As [`Shared::job`], for who must not wait here; none is made.
    async fn opened_job(self: &Arc<Self>, job: &JobKey) -> io::Result<Option<Arc<JobLog>>> {
        let (shared, job) = (Arc::clone(self), job.clone());
        world::task::blocking(move || shared.job(&job, false)).await
    }

    /// The job's log, opened and recovered where needed; `None` where there is
    /// none and none is to be made.
    fn job(&self, job: &JobKey, make: bool) -> io::Result<Option<Arc<JobLog>>> {
        let slot = self.slot(job);
        let mut held = slot.held();
        if held.is_none() {
            let opened = JobLog::open(&self.disk, &self.tenant_dir(&job.0), job.1, self.reign, make)?;
            *held = opened.map(Arc::new);
        }
        Ok(held.clone())
    }

    fn settled(&self) -> std::sync::MutexGuard<'_, BTreeSet<JobKey>> {
        self.settled.lock().expect("no holder of this lock panics")
    }

    fn to_do(&self) -> io::Result<BTreeMap<String, Vec<(u64, ToDo)>>> {
        let mut found = BTreeMap::new();
        for tenant in self.disk.list(&self.dir)?.into_iter().filter(|entry| entry.is_dir) {
            let is_settled = |number| self.settled().contains(&(tenant.name.clone(), number));
            let due = place::due(&*self.disk, &self.tenant_dir(&tenant.name), is_settled)?;
            let jobs = due.into_iter().filter_map(|(number, due)| {
                let here = due.here && self.bucket.is_some();
                let to_do = ToDo { full: due.full || here, once_ended: due.plain };
                (to_do != ToDo::default()).then_some((number, to_do))
            });
            found.insert(tenant.name.clone(), jobs.collect());
        }
        Ok(found)
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
        Place::new(&self.disk, &self.tenant_dir(&job.0), job.1, self.reign).remove()?;
        self.settled().remove(job);
        world::mark!("controller.logs.removed");
        *held = None;
        Ok(())
    }

    fn forget(&self, job: &JobKey) {
        self.open.lock().expect("no holder of this lock panics").jobs.remove(job);
    }
}

/// Packs the first stretch that can be.
async fn pack_one(log: &Arc<JobLog>) -> io::Result<Option<Packed>> {
    let begun = {
        let log = Arc::clone(log);
        world::task::blocking(move || log.pack()).await?
    };
    let Some((plain, mut packing)) = begun else { return Ok(None) };
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
    let log = Arc::clone(log);
    world::task::blocking(move || {
        let bytes = log.packed(&plain, packing)?;
        Ok(Some(Packed { plain_bytes: plain.ends - plain.begins, bytes }))
    })
    .await
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
            let log = opened.or_insert_with(|| or_warn(&job, shared.job(&job, true))).clone();
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
        let Some(held) = log else { continue };
        if !held.is_packed() {
            shared.settled().remove(job);
        }
        if let Err(error) = held.turn(shared.file_bytes) {
            tracing::warn!(tenant = job.0, job = job.1, %error, "a log goes on in a file that is full");
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
