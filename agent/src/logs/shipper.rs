//! Ships spool files: looks how far they have grown, sends what the book says
//! is next, takes the server's receipts, and has files removed once done.
//!
//! What must hold: nothing is polled while nothing runs; no byte is given up
//! while its file can be read and there is room for it. Of a spool above its bound goes
//! what the server has; where what it has not is too much, the oldest of that goes too, and
//! the server is told. That it went is in a file beside the spool file, durable before a
//! byte goes: an agent that starts again tells it like this one.

use super::book::{Chunk, LogBook, Side, StreamKey};
use super::floors;
use crate::config::AgentConfig;
use crate::core::key::Key;
use crate::core::{Event, LogNote};
use crate::limits;
use crate::shell::{Chore, Connection, Inbound, spool_path};
use proto::v1::{LogReceipt, LogShipment};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use world::NodeClock;
use world::disk::{Disk, OpenMode};
use world::grpc::tonic::Streaming;
use world::sync::{mpsc, watch};
use world::task::blocking;
use world::time::{Alarm, Instant, ms, timeout};

/// What an earlier agent left of logs.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    pub(crate) orphans: BTreeMap<Key, Orphan>,
    /// Before there a stream's file has nothing any more that could be sent.
    pub(crate) floors: BTreeMap<StreamKey, u64>,
}

/// Spool files that an earlier agent left of an attempt that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) key: Key,
    pub(crate) stdout_bytes: u64,
    pub(crate) stderr_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shipper {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn NodeClock>,
    config: Arc<AgentConfig>,
    connection: watch::Receiver<Option<Connection>>,
    book: LogBook,
    flow: Option<Flow>,
    next_poll: Option<Instant>,
    /// The files that may grow and where they lie; `None` once that changed.
    growing: Option<Arc<[(StreamKey, String)]>>,
    alarm: Alarm,
    /// The span between two looks.
    poll_ms: u64,
    /// Not before then is a stream to the server tried again.
    next_try: Option<Instant>,
    pause_ms: u64,
    spool_bytes: u64,
    warned_ms: Option<u64>,
    /// Since it was last warned of.
    given_up_bytes: u64,
}

/// A stream to the server.
#[derive(Debug)]
struct Flow {
    session: u64,
    shipments: mpsc::Sender<LogShipment>,
    receipts: Streaming<LogReceipt>,
}

/// What woke the shipper.
enum Wake {
    Notes(Option<Vec<LogNote>>),
    Receipt(Result<Option<LogReceipt>, String>),
    Connection,
    Time,
}

impl Shipper {
    pub(crate) fn new(
        disk: &Arc<dyn Disk>,
        clock: &Arc<dyn NodeClock>,
        config: &Arc<AgentConfig>,
        connection: watch::Receiver<Option<Connection>>,
        leftovers: Leftovers,
    ) -> Self {
        let mut book = LogBook::with_floors(leftovers.floors);
        for Orphan { key, stdout_bytes, stderr_bytes } in leftovers.orphans.into_values() {
            book.opened(key.clone(), true);
            book.ended(&key, stdout_bytes, stderr_bytes);
            book.forgotten(&key);
        }
        Self {
            disk: Arc::clone(disk),
            clock: Arc::clone(clock),
            config: Arc::clone(config),
            connection,
            book,
            flow: None,
            next_poll: None,
            growing: None,
            alarm: Alarm::default(),
            poll_ms: config.log_poll_ms,
            next_try: None,
            pause_ms: limits::RECONNECT_MS_MIN,
            spool_bytes: 0,
            warned_ms: None,
            given_up_bytes: 0,
        }
    }

    /// Ships until nobody is left to tell it of logs.
    pub(crate) async fn work(
        mut self,
        mut notes: mpsc::Receiver<Vec<LogNote>>,
        chores: mpsc::Sender<Vec<Chore>>,
        inbox: mpsc::Sender<Inbound>,
    ) {
        loop {
            let removals: Vec<Chore> =
                self.book.take_removable().into_iter().map(Chore::RemoveSpool).collect();
            if !removals.is_empty() {
                // Whoever removes waits for nobody that waits for us.
                let _ = chores.send(removals).await;
            }
            match self.wait(&mut notes).await {
                Wake::Notes(None) => return,
                Wake::Notes(Some(batch)) => {
                    self.note(batch);
                    while let Ok(more) = notes.try_recv() {
                        self.note(more);
                    }
                }
                Wake::Receipt(receipt) => self.receipt(receipt),
                Wake::Connection => self.close(),
                Wake::Time => {
                    self.poll().await;
                    self.count(&inbox);
                    if self.flow.is_some() && self.book.is_overdue(self.clock.monotonic_ms()) {
                        world::mark!("agent.logs.receipts_overdue");
                        tracing::warn!(node = self.config.node, "log receipts are overdue; sending again");
                        self.close();
                    }
                }
            }
            self.ship().await;
        }
    }

    async fn wait(&mut self, notes: &mut mpsc::Receiver<Vec<LogNote>>) -> Wake {
        let at = self.wakeup();
        let (flow, alarm) = (self.flow.as_mut(), &mut self.alarm);
        let flowing = flow.is_some();
        let receipt = async {
            match flow {
                Some(flow) => flow.receipts.message().await,
                None => std::future::pending().await,
            }
        };
        let time = async {
            match at {
                Some(at) => alarm.at(at).await,
                None => std::future::pending().await,
            }
        };
        world::select! {
            biased;
            batch = notes.recv() => Wake::Notes(batch),
            receipt = receipt, if flowing => {
                Wake::Receipt(receipt.map_err(|status| status.message().to_owned()))
            }
            changed = self.connection.changed() => match changed {
                Ok(()) => Wake::Connection,
                // The agent ends.
                Err(_) => Wake::Notes(None),
            },
            () = time => Wake::Time,
        }
    }

    /// Files are looked at while tasks run, receipts and the server waited for
    /// while something is unconfirmed; else nothing wakes us.
    fn wakeup(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if self.book.is_growing() {
            let files = 2 * self.book.growing_count() as u64;
            let span = self.poll_ms.max(files / limits::LOG_POLL_FILES_PER_MS);
            self.next_poll.get_or_insert(now + ms(span));
        } else if self.book.is_waiting() {
            self.next_poll.get_or_insert(now + ms(limits::LOG_RECEIPT_MS_MAX / 10));
        } else {
            self.next_poll = None;
        }
        let retry = if self.flow.is_none() && self.book.has_next() && self.connection.borrow().is_some() {
            self.next_try
        } else {
            None
        };
        [self.next_poll, retry].into_iter().flatten().min()
    }

    fn note(&mut self, notes: Vec<LogNote>) {
        self.growing = None;
        for note in notes {
            match note {
                LogNote::Opened { key, adopted } => {
                    self.poll_ms = self.config.log_poll_ms.max(1);
                    self.book.opened(key, adopted);
                }
                LogNote::Ended { key, stdout_bytes, stderr_bytes } => {
                    self.book.ended(&key, stdout_bytes, stderr_bytes);
                }
                LogNote::Forgotten(key) => self.book.forgotten(&key),
                LogNote::Dropped(key) => self.book.dropped(&key),
            }
        }
    }

    fn receipt(&mut self, receipt: Result<Option<LogReceipt>, String>) {
        let receipt = match receipt {
            Ok(Some(receipt)) => receipt,
            Ok(None) => return self.fail("the server closed the log stream"),
            Err(error) => return self.fail(&error),
        };
        self.pause_ms = limits::RECONNECT_MS_MIN;
        let side = Side::of(receipt.stream());
        let Some((attempt, side)) = receipt.attempt.as_ref().zip(side) else { return };
        let stream = (Key::of(attempt, receipt.rank), side);
        self.book.receipt(&stream, receipt.offset, receipt.done, self.clock.monotonic_ms());
    }

    fn close(&mut self) {
        self.flow = None;
        self.book.rewind_all();
    }

    fn fail(&mut self, reason: &str) {
        world::mark!("agent.logs.stream_broke");
        tracing::debug!(node = self.config.node, reason, "the log stream ended");
        self.close();
        self.next_try = Some(Instant::now() + ms(self.pause_ms + world::rand::u64() % self.pause_ms));
        self.pause_ms = (self.pause_ms * 2).min(limits::RECONNECT_MS_MAX);
    }

    /// Looks how far the files of running tasks have grown.
    async fn poll(&mut self) {
        if self.next_poll.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.next_poll = None;
        let growing = self.growing.get_or_insert_with(|| {
            let placed = |stream: StreamKey| {
                let path = spool_path(&self.config, &stream.0, stream.1);
                (stream, path)
            };
            self.book.growing().map(placed).collect()
        });
        if growing.is_empty() {
            return;
        }
        let (disk, files) = (Arc::clone(&self.disk), Arc::clone(growing));
        let lengths = blocking(move || {
            // Not there: the process is only just being launched.
            let measured = files.iter().map(|(_, path)| disk.entry(path).ok().map(|entry| entry.len));
            measured.collect::<Vec<_>>()
        })
        .await;
        let mut grown = false;
        for ((stream, _), len) in growing.iter().zip(lengths) {
            grown |= len.is_some_and(|len| self.book.grew(stream, len));
        }
        let shortest = self.config.log_poll_ms.max(1);
        self.give_up().await;
        self.give_room_back().await;
        self.poll_ms =
            if grown { shortest } else { (self.poll_ms * 2).min(shortest * limits::LOG_POLL_SLOWER_MAX) };
    }

    /// Above the bound the oldest goes of what the server has not: where it cannot take all
    /// that tasks write the disk would be full else.
    async fn give_up(&mut self) {
        let surplus = self.book.surplus(self.config.spool_unshipped_bytes_max);
        if surplus.is_empty() {
            return;
        }
        let (disk, config) = (Arc::clone(&self.disk), Arc::clone(&self.config));
        let told = blocking(move || {
            let told = |(stream, floor): (StreamKey, u64)| match floors::write(&*disk, &config, &stream, floor) {
                Ok(()) => Some((stream, floor)),
                Err(error) => {
                    tracing::warn!(node = config.node, %error, "that a log is to be given up cannot be noted, so it is kept");
                    None
                }
            };
            surplus.into_iter().filter_map(told).collect::<Vec<_>>()
        })
        .await;
        for (stream, floor) in told {
            world::mark!("agent.logs.given_up");
            self.given_up_bytes += self.book.give_up(&stream, floor);
        }
    }

    /// Above the bound what the server has goes: a task that writes for weeks would fill
    /// the disk else.
    async fn give_room_back(&mut self) {
        let AgentConfig { spool_bytes_max, spool_unshipped_bytes_max, .. } = *self.config;
        let spare = self.book.take_spare(spool_bytes_max.min(spool_unshipped_bytes_max));
        if spare.is_empty() {
            return;
        }
        let (disk, config) = (Arc::clone(&self.disk), Arc::clone(&self.config));
        blocking(move || {
            for (stream, range) in spare {
                let path = spool_path(&config, &stream.0, stream.1);
                let punched = disk.open(&path, OpenMode::Write).and_then(|file| file.punch(range));
                if let Err(error) = punched {
                    tracing::debug!(path, %error, "room of the log spool cannot be given back");
                }
            }
        })
        .await;
    }

    /// Tells the core how much is spooled; warns above the bound.
    fn count(&mut self, inbox: &mpsc::Sender<Inbound>) {
        let bytes = self.book.spool_bytes();
        if bytes != self.spool_bytes
            && inbox.try_send(Inbound::Events(vec![Event::SpoolBytes(bytes)])).is_ok()
        {
            self.spool_bytes = bytes;
        }
        let now_ms = self.clock.monotonic_ms();
        let quiet = self.warned_ms.is_none_or(|at| now_ms.saturating_sub(at) >= limits::SPOOL_WARN_EVERY_MS);
        if bytes > self.config.spool_bytes_max && quiet {
            self.warned_ms = Some(now_ms);
            let bound = self.config.spool_bytes_max;
            tracing::warn!(node = self.config.node, bytes, bound, "the log spool is above its bound");
        }
        if self.given_up_bytes > 0 && quiet {
            self.warned_ms = Some(now_ms);
            let (bytes, bound) =
                (std::mem::take(&mut self.given_up_bytes), self.config.spool_unshipped_bytes_max);
            tracing::warn!(
                node = self.config.node,
                bytes,
                bound,
                "logs were given up: the server cannot take them as fast as tasks write"
            );
        }
    }

    /// Sends all that the windows allow.
    async fn ship(&mut self) {
        if !self.book.has_next() || !self.can_try() {
            return;
        }
        let Some(connection) = self.connection.borrow().clone() else { return };
        loop {
            let now_ms = self.clock.monotonic_ms();
            let mut chunks = Vec::new();
            while chunks.len() < limits::LOG_CHUNKS_PER_HOP
                && let Some(chunk) = self.book.next_chunk(now_ms)
            {
                chunks.push(chunk);
            }
            if chunks.is_empty() {
                return;
            }
            let shipments = self.read(chunks, connection.session).await;
            if let Err(reason) = self.send(&connection, shipments).await {
                return self.fail(&reason);
            }
        }
    }

    fn can_try(&self) -> bool {
        self.flow.is_some() || self.next_try.is_none_or(|at| at <= Instant::now())
    }

    /// Reads chunks from the spool in one blocking hop.
    async fn read(&mut self, chunks: Vec<Chunk>, session: u64) -> Vec<LogShipment> {
        let (disk, config, at_ms) = (Arc::clone(&self.disk), Arc::clone(&self.config), self.clock.wall_ms());
        let read = blocking(move || {
            let read = chunks.into_iter().map(|chunk| {
                let path = spool_path(&config, &chunk.stream.0, chunk.stream.1);
                let data = read_chunk(&*disk, &path, &chunk);
                (chunk, data)
            });
            read.collect::<Vec<_>>()
        })
        .await;
        let mut shipments = Vec::with_capacity(read.len());
        for (chunk, data) in read {
            match data {
                Ok(data) => shipments.push(LogShipment {
                    node: self.config.node.clone(),
                    session,
                    attempt: Some(chunk.stream.0.attempt_ref()),
                    rank: chunk.stream.0.rank,
                    stream: chunk.stream.1.wire().into(),
                    offset: chunk.offset,
                    data: data.into(),
                    end: chunk.end,
                    at_ms,
                    dropped_bytes: chunk.dropped,
                }),
                Err(error) => {
                    let path = spool_path(&self.config, &chunk.stream.0, chunk.stream.1);
                    tracing::warn!(path, %error, "a log cannot be read and is given up");
                    self.book.lost(&chunk.stream);
                }
            }
        }
        shipments
    }

    /// Hands shipments to the stream, which is opened with the first of them.
    async fn send(&mut self, connection: &Connection, shipments: Vec<LogShipment>) -> Result<(), String> {
        if let Some(flow) = self.flow.as_ref().filter(|flow| flow.session == connection.session) {
            return put(&flow.shipments, shipments);
        }
        let (sender, queue) = mpsc::channel(2 * limits::LOG_SHIPMENTS_UNACKED_MAX);
        // A server may look at the first shipment before it answers the call.
        put(&sender, shipments)?;
        let mut client = connection.client();
        let call = client.ship_logs(connection.request(ReceiverStream::new(queue)));
        let receipts = match timeout(ms(limits::CALL_MS_MAX), call).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => return Err(status.message().to_owned()),
            Err(_) => return Err("the server did not take the log stream in time".to_owned()),
        };
        self.flow = Some(Flow { session: connection.session, shipments: sender, receipts });
        Ok(())
    }
}

/// The queue has room for all that may be unanswered, so it is never full.
fn put(queue: &mpsc::Sender<LogShipment>, shipments: Vec<LogShipment>) -> Result<(), String> {
    for shipment in shipments {
        queue.try_send(shipment).map_err(|_| "the log stream takes no more".to_owned())?;
    }
    Ok(())
}

fn read_chunk(disk: &dyn Disk, path: &str, chunk: &Chunk) -> io::Result<Vec<u8>> {
    if chunk.len == 0 {
        return Ok(Vec::new());
    }
    let file = disk.open(path, OpenMode::Read)?;
    let mut data = vec![0; usize::try_from(chunk.len).map_err(io::Error::other)?];
    let mut at = 0;
    while at < data.len() {
        match file.read_at(chunk.offset + at as u64, &mut data[at..])? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was")),
            read => at += read,
        }
    }
    Ok(data)
}
