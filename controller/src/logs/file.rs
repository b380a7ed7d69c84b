//! One job's log file.
//!
//! Frame: length (u32, little endian), CRC-32 of the payload, payload (a
//! [`Frame`] in protobuf, never empty). A torn tail ends the file at the last
//! whole frame before which none is missing: of several unsynced writes a power
//! failure may leave a later one and zeros in place of an earlier.

use super::{LogPage, limits};
use prost::Message;
use proto::gap;
use proto::v1::{LogChunk, LogShipment};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use world::disk::{Disk, DiskFile, OpenMode};
use world::sync::watch;

const HEADER: usize = 8;
/// Read at once while scanning.
const WINDOW: usize = 1 << 20;

/// Which frames a reader wants; `None` is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Step of the job.
    pub step: Option<u32>,
    /// Ordinal of the task.
    pub task: Option<u64>,
    /// Rank of a gang.
    pub rank: Option<u32>,
    /// Attempt number.
    pub attempt: Option<u32>,
    /// As in `proto::v1::Stream`.
    pub stream: Option<i32>,
    /// Of the attempt's epoch.
    pub epoch: Option<u64>,
    /// Written at or after this instant (milliseconds since 1970).
    pub since_ms: u64,
    /// From this byte of each stream on.
    pub from: u64,
}

/// How far one stream has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Of its attempt.
    pub epoch: u64,
    /// What readers can have of it.
    pub bytes: u64,
    /// Nothing more will come.
    pub ended: bool,
    /// What of it was given up on its node, in order.
    pub dropped: Vec<Range<u64>>,
}

/// One stored range of one stream.
#[derive(Clone, PartialEq, Message)]
struct Frame {
    #[prost(uint32, tag = "1")]
    step: u32,
    #[prost(uint64, tag = "2")]
    task: u64,
    #[prost(uint32, tag = "3")]
    rank: u32,
    #[prost(uint32, tag = "4")]
    attempt: u32,
    #[prost(uint64, tag = "5")]
    epoch: u64,
    #[prost(int32, tag = "6")]
    stream: i32,
    #[prost(uint64, tag = "7")]
    offset: u64,
    #[prost(bytes = "vec", tag = "8")]
    data: Vec<u8>,
    #[prost(bool, tag = "9")]
    end: bool,
    #[prost(uint64, tag = "10")]
    at_ms: u64,
    /// Not 0: so many bytes were given up on their node, and the data says so in their place.
    #[prost(uint64, tag = "11")]
    dropped_bytes: u64,
}

impl Frame {
    /// Where its stream goes on.
    fn until(&self) -> u64 {
        let bytes = if self.dropped_bytes > 0 { self.dropped_bytes } else { self.data.len() as u64 };
        self.offset.saturating_add(bytes)
    }
}

/// Names a stream. The epoch is part of it: an attempt number that was given
/// back unstarted is used again under another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct StreamKey {
    step: u32,
    task: u64,
    attempt: u32,
    epoch: u64,
    rank: u32,
    stream: i32,
}

#[derive(Clone, Copy, Debug, Default)]
struct StreamState {
    offset: u64,
    done: bool,
    /// What is held ends within a line.
    within_line: bool,
    /// The same of what is synced.
    durable: (u64, bool),
}

/// One job's log; see the module. All calls block.
#[derive(Debug)]
pub struct JobLog {
    file: Arc<dyn DiskFile>,
    state: Mutex<State>,
    /// What is synced: all that readers may know of.
    durable: watch::Sender<Durable>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Durable {
    len: u64,
    /// Of the streams that end within this length.
    ended_bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    len: u64,
    streams: BTreeMap<StreamKey, StreamState>,
    /// Streams of which something is not synced.
    unsynced: BTreeSet<StreamKey>,
    ended_bytes: u64,
    /// What of them was given up on their nodes, in order; there is little of it.
    dropped: BTreeMap<StreamKey, Vec<Range<u64>>>,
}

impl JobLog {
    /// Opens and recovers; `None` where there is no file and `make` is not set.
    ///
    /// An opening that failed half-way may have left a file of which a power
    /// failure leaves nothing. So the directory's own name is made durable
    /// before there is a file in it, and the file's name at every opening.
    pub fn open(disk: &dyn Disk, dir: &str, path: &str, make: bool) -> io::Result<Option<Self>> {
        let file = match disk.open(path, OpenMode::Write) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !make => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_dir(disk, dir)?;
                disk.open(path, OpenMode::CreateOrWrite)?
            }
            Err(error) => return Err(error),
        };
        disk.sync_dir(dir)?;
        let (mut state, end) = whole(&*file)?;
        if end < file.len()? {
            world::mark!("controller.logs.torn_tail");
        }
        // Behind the last whole frame lies what a crash tore.
        file.set_len(end)?;
        file.sync()?;
        state.len = end;
        state.synced();
        let durable = watch::Sender::new(state.durable());
        Ok(Some(Self { file, state: Mutex::new(state), durable }))
    }

    /// Appends the part of the shipment that is new. Returns the first offset
    /// not yet held, and whether the stream is at its end. An end before what is held
    /// is of a file that a power loss cut after more of it had been shipped: the stream
    /// ends with what is held. Of bytes that were given up those are gone that are not held.
    pub fn append(&self, shipment: &LogShipment) -> io::Result<(u64, bool)> {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        let Some(key) = StreamKey::of(shipment) else { return Ok((shipment.offset, false)) };
        let mut held = state.streams.get(&key).copied().unwrap_or_default();
        let gone = held.offset..shipment.offset;
        let is_told = shipment.offset.saturating_sub(shipment.dropped_bytes) <= held.offset;
        if !held.done && !gone.is_empty() && is_told {
            let dropped_bytes = gone.end - gone.start;
            let data = gap::told(dropped_bytes, held.within_line).into_bytes();
            let frame =
                Frame { offset: gone.start, data, dropped_bytes, at_ms: shipment.at_ms, ..key.frame() };
            self.put(&mut state, &frame)?;
            world::mark!("controller.logs.given_up");
            held = state.streams.get(&key).copied().unwrap_or_default();
        }
        let end = shipment.offset.saturating_add(shipment.data.len() as u64);
        let news = end > held.offset || shipment.end;
        if held.done || shipment.offset > held.offset || !news {
            if held.done || !news {
                world::mark!("controller.logs.said_before");
            }
            if shipment.offset > held.offset {
                world::mark!("controller.logs.gap_refused");
            }
            return Ok((held.offset, held.done));
        }
        if end < held.offset {
            world::mark!("controller.logs.ends_before_what_is_held");
        }
        let skip = usize::try_from(held.offset - shipment.offset).map_err(io::Error::other)?;
        let mut data = &shipment.data[skip.min(shipment.data.len())..];
        let mut at = held.offset;
        loop {
            let (piece, rest) = data.split_at(data.len().min(limits::FRAME_BYTES_MAX));
            let end = shipment.end && rest.is_empty();
            let frame = Frame { offset: at, data: piece.to_vec(), end, at_ms: shipment.at_ms, ..key.frame() };
            self.put(&mut state, &frame)?;
            at += piece.len() as u64;
            data = rest;
            if data.is_empty() {
                return Ok((at, shipment.end));
            }
        }
    }

    fn put(&self, state: &mut State, frame: &Frame) -> io::Result<()> {
        let bytes = encode(frame)?;
        self.file.write_at(state.len, &bytes)?;
        state.len += bytes.len() as u64;
        state.take(frame);
        Ok(())
    }

    /// Makes what was appended durable and shows it to readers. After an error
    /// (of this or of [`JobLog::append`]) the log must be opened again.
    pub fn sync(&self) -> io::Result<()> {
        let appended = self.state.lock().expect("no holder of this lock panics").durable();
        if appended == *self.durable.borrow() {
            return Ok(());
        }
        if let Err(error) = self.file.sync() {
            // What a failed sync dropped no later one writes, though reads show
            // it: it is cut off, and comes again from whoever has no receipt.
            self.file.set_len(self.durable.borrow().len)?;
            return Err(error);
        }
        self.state.lock().expect("no holder of this lock panics").synced();
        self.durable.send_replace(appended);
        Ok(())
    }

    /// Reads on from a cursor: about `limit_bytes` of matching data at most.
    ///
    /// # Errors
    /// `InvalidInput` for a cursor at which no frame begins.
    pub fn read(&self, filter: &LogFilter, cursor: u64, limit_bytes: usize) -> io::Result<LogPage> {
        let len = self.durable.borrow().len;
        if cursor > len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("cursor {cursor} lies behind the log's {len} bytes"),
            ));
        }
        let (mut chunks, mut taken) = (Vec::new(), 0);
        let next = scan(&*self.file, cursor, len, |_, frame| {
            if let Some(frame) = filter.part_of(frame) {
                taken += frame.data.len() + 64;
                chunks.push(frame.into());
            }
            taken < limit_bytes
        })?;
        // Whoever reads on from where he is would do so for ever.
        if next == cursor && cursor < len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("no frame of the log begins at cursor {cursor}"),
            ));
        }
        Ok(LogPage { chunks, cursor: next, at_end: next >= len })
    }

    /// How far the one stream that the filter names has come; of several epochs the
    /// newest.
    pub fn extent(&self, filter: &LogFilter) -> Option<Extent> {
        let (step, task, attempt) = (filter.step?, filter.task?, filter.attempt?);
        let key = |epoch, rank, stream| StreamKey { step, task, attempt, epoch, rank, stream };
        let (first, last) = (filter.epoch.unwrap_or(0), filter.epoch.unwrap_or(u64::MAX));
        let of_attempt = key(first, 0, i32::MIN)..=key(last, u32::MAX, i32::MAX);
        let state = self.state.lock().expect("no holder of this lock panics");
        let mut streams = state.streams.range(of_attempt).rev();
        let named = |key: &StreamKey| Some(key.rank) == filter.rank && Some(key.stream) == filter.stream;
        let (key, stream) = streams.find(|(key, stream)| named(key) && stream.durable != (0, false))?;
        let dropped = state.dropped.get(key).into_iter().flatten();
        let dropped = dropped.filter(|gone| gone.end <= stream.durable.0).cloned().collect();
        Some(Extent { epoch: key.epoch, bytes: stream.durable.0, ended: stream.durable.1, dropped })
    }

    /// Bytes of all its streams that were given up on their nodes.
    pub fn dropped_bytes(&self) -> u64 {
        let state = self.state.lock().expect("no holder of this lock panics");
        state.dropped.values().flatten().map(|gone| gone.end - gone.start).sum()
    }

    pub(super) async fn grown(&self, cursor: u64) {
        // An error means the sender is gone, and it lives in `self`.
        let _ = self.durable.subscribe().wait_for(|durable| durable.len > cursor).await;
    }

    /// Never more than what a later `read` shows: who has seen that a log is
    /// whole must find all of it.
    pub fn ended_bytes(&self) -> u64 {
        self.durable.borrow().ended_bytes
    }
}

impl State {
    /// What will be durable once all of it is synced.
    fn durable(&self) -> Durable {
        Durable { len: self.len, ended_bytes: self.ended_bytes }
    }

    /// Whether the frame goes on where its stream stood.
    fn follows(&self, frame: &Frame) -> bool {
        let held = self.streams.get(&StreamKey::of_frame(frame)).copied().unwrap_or_default();
        !held.done && held.offset == frame.offset
    }

    /// All that was appended is synced.
    fn synced(&mut self) {
        for key in std::mem::take(&mut self.unsynced) {
            if let Some(stream) = self.streams.get_mut(&key) {
                stream.durable = (stream.offset, stream.done);
            }
        }
    }

    fn take(&mut self, frame: &Frame) {
        let key = StreamKey::of_frame(frame);
        self.unsynced.insert(key);
        let stream = self.streams.entry(key).or_default();
        stream.offset = frame.until();
        stream.within_line = frame.data.last().map_or(stream.within_line, |last| *last != b'\n');
        if frame.dropped_bytes > 0 {
            self.dropped.entry(key).or_default().push(frame.offset..frame.until());
        }
        if frame.end && !stream.done {
            stream.done = true;
            self.ended_bytes = self.ended_bytes.saturating_add(stream.offset);
        }
    }
}

impl StreamKey {
    fn of(shipment: &LogShipment) -> Option<Self> {
        let attempt = shipment.attempt.as_ref()?;
        Some(Self {
            step: attempt.step,
            task: attempt.task,
            attempt: attempt.attempt,
            epoch: attempt.epoch,
            rank: shipment.rank,
            stream: shipment.stream,
        })
    }

    /// An empty frame of it.
    fn frame(&self) -> Frame {
        let Self { step, task, attempt, epoch, rank, stream } = *self;
        Frame { step, task, attempt, epoch, rank, stream, ..Frame::default() }
    }

    fn of_frame(frame: &Frame) -> Self {
        Self {
            step: frame.step,
            task: frame.task,
            attempt: frame.attempt,
            epoch: frame.epoch,
            rank: frame.rank,
            stream: frame.stream,
        }
    }
}

impl LogFilter {
    fn wants(&self, frame: &Frame) -> bool {
        !frame.data.is_empty()
            && self.step.is_none_or(|step| step == frame.step)
            && self.task.is_none_or(|task| task == frame.task)
            && self.rank.is_none_or(|rank| rank == frame.rank)
            && self.attempt.is_none_or(|attempt| attempt == frame.attempt)
            && self.stream.is_none_or(|stream| stream == frame.stream)
            && self.epoch.is_none_or(|epoch| epoch == frame.epoch)
            && frame.at_ms >= self.since_ms
    }

    /// What of a frame is wanted.
    fn part_of(&self, mut frame: Frame) -> Option<Frame> {
        if !self.wants(&frame) {
            return None;
        }
        if frame.until() <= self.from {
            return None;
        }
        let before = self.from.saturating_sub(frame.offset);
        frame.offset += before;
        match frame.dropped_bytes {
            0 => _ = frame.data.drain(..usize::try_from(before).ok()?),
            // Of what was given up it is still said, and all of it.
            dropped_bytes => frame.dropped_bytes = dropped_bytes - before,
        }
        Some(frame)
    }
}

impl From<Frame> for LogChunk {
    fn from(frame: Frame) -> Self {
        Self {
            step: frame.step,
            task: frame.task,
            rank: frame.rank,
            attempt: frame.attempt,
            stream: frame.stream,
            offset: frame.offset,
            data: frame.data.into(),
            at_ms: frame.at_ms,
            epoch: frame.epoch,
            dropped_bytes: frame.dropped_bytes,
        }
    }
}

/// What a file holds up to where it is whole, and where that is.
fn whole(file: &dyn DiskFile) -> io::Result<(State, u64)> {
    let mut state = State::default();
    let mut gap = None;
    let end = scan(file, 0, file.len()?, |begun, frame| {
        if state.follows(&frame) {
            state.take(&frame);
        } else {
            gap = Some(begun);
        }
        gap.is_none()
    })?;
    Ok((state, gap.unwrap_or(end)))
}

/// Makes `to` of all that is whole in `from`, durable but for its name. Whoever writes
/// `from` yet does so behind that, or in vain.
pub(super) fn copy_whole(disk: &dyn Disk, from: &str, to: &str) -> io::Result<()> {
    let source = disk.open(from, OpenMode::Read)?;
    let copy = disk.open(to, OpenMode::CreateOrWrite)?;
    copy.set_len(0)?;
    let (_, end) = whole(&*source)?;
    let mut at = 0;
    while at < end {
        let due = usize::try_from(end - at).map_or(WINDOW, |left| left.min(WINDOW));
        let data = read_exact(&*source, at, due)?;
        if data.len() < due {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the log became shorter"));
        }
        copy.write_at(at, &data)?;
        at += due as u64;
    }
    copy.sync()
}

/// Makes a directory in one that is there. Without its name all that is below
/// it would be lost with the power.
pub fn make_dir(disk: &dyn Disk, dir: &str) -> io::Result<()> {
    disk.create_dir_all(dir)?;
    disk.sync_dir(dir.rsplit_once('/').map_or("", |(parent, _)| parent))
}

fn encode(frame: &Frame) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER];
    frame.encode(&mut bytes).map_err(io::Error::other)?;
    let len = u32::try_from(bytes.len() - HEADER).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    let crc = crc32fast::hash(&bytes[HEADER..]);
    bytes[4..HEADER].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Calls `each` with every whole frame of `[from, to)` until it says stop.
/// Returns where the next frame would begin.
fn scan(
    file: &dyn DiskFile,
    from: u64,
    to: u64,
    mut each: impl FnMut(u64, Frame) -> bool,
) -> io::Result<u64> {
    let (mut at, mut window, mut start) = (from, Vec::new(), from);
    loop {
        let have = |window: &Vec<u8>, start: u64, at: u64, need: usize| {
            start + window.len() as u64 >= at + need as u64
        };
        let mut need = HEADER;
        for _ in 0..2 {
            if at + need as u64 > to {
                return Ok(at);
            }
            if !have(&window, start, at, need) {
                let want = need.max(WINDOW).min(usize::try_from(to - at).map_err(io::Error::other)?);
                (window, start) = (read_exact(file, at, want)?, at);
                if window.len() < need {
                    return Ok(at);
                }
            }
            let header = &window[usize::try_from(at - start).map_err(io::Error::other)?..];
            let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
            // A length that no frame can have is the torn tail: zeros too, which
            // would else be empty frames with the right sum.
            if len == 0 || len > limits::FRAME_BYTES_MAX + 4096 {
                return Ok(at);
            }
            need = HEADER + len;
        }
        let frame = &window[usize::try_from(at - start).map_err(io::Error::other)?..][..need];
        let crc = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]);
        if crc32fast::hash(&frame[HEADER..]) != crc {
            return Ok(at);
        }
        let Ok(decoded) = Frame::decode(&frame[HEADER..]) else { return Ok(at) };
        let begun = at;
        at += need as u64;
        if !each(begun, decoded) {
            return Ok(at);
        }
    }
}

fn read_exact(file: &dyn DiskFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut data = vec![0; len];
    let mut got = 0;
    while got < len {
        let read = file.read_at(offset + got as u64, &mut data[got..])?;
        if read == 0 {
            break;
        }
        got += read;
    }
    data.truncate(got);
    Ok(data)
}

#[cfg(test)]
mod tests;
