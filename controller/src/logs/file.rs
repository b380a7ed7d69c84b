//! One job's log file.
//!
//! Frames, one behind the other ([`super::frames`]). A torn tail ends the file at the last
//! whole frame before which none is missing: of several unsynced writes a power
//! failure may leave a later one and zeros in place of an earlier.

use super::frames::{Frame, StreamKey, WINDOW, encode, read_exact, scan};
use super::segment::{self, Packing, Segment, StreamEnd};
use super::{LogPage, limits};
use proto::gap;
use proto::v1::LogShipment;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use world::disk::{Disk, DiskFile, OpenMode};
use world::sync::watch;

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
    /// The same where it is packed: then nothing can be appended.
    segment: Option<Arc<Segment>>,
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
    /// Opens and recovers; `None` where there is no file and `make` is not set. Where it is
    /// packed, and there is no plain file, it is opened as that.
    ///
    /// An opening that failed half-way may have left a file of which a power
    /// failure leaves nothing. So the directory's own name is made durable
    /// before there is a file in it, and the file's name at every opening.
    pub fn open(disk: &dyn Disk, dir: &str, path: &str, make: bool) -> io::Result<Option<Self>> {
        let file = match disk.open(path, OpenMode::Write) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match Segment::open(disk, &segment::path(path)) {
                    Ok(segment) => return Ok(Some(Self::packed(segment))),
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Err(_) if !make => return Ok(None),
                    Err(_) => {}
                }
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
        Ok(Some(Self { file, segment: None, state: Mutex::new(state), durable }))
    }

    fn packed(segment: Segment) -> Self {
        let mut state = State { len: segment.plain_bytes(), ..State::default() };
        for end in segment.streams() {
            state.resume(end);
        }
        let segment = Arc::new(segment);
        let (file, durable) =
            (Arc::clone(&segment) as Arc<dyn DiskFile>, watch::Sender::new(state.durable()));
        Self { file, segment: Some(segment), state: Mutex::new(state), durable }
    }

    /// Whether it must be unpacked before something is appended.
    pub fn is_packed(&self) -> bool {
        self.segment.is_some()
    }

    /// Whether a shipment says anything new.
    pub(super) fn is_news(&self, shipment: &LogShipment) -> bool {
        let state = self.state.lock().expect("no holder of this lock panics");
        let held = StreamKey::of(shipment).and_then(|key| state.streams.get(&key)).copied();
        let end = shipment.offset.saturating_add(shipment.data.len() as u64);
        held.map_or(end > 0 || shipment.end, |held| !held.done && (end > held.offset || shipment.end))
    }

    /// Begins to pack all of it into a file. What is appended meanwhile is not packed.
    pub(super) fn pack(&self, disk: &dyn Disk, to: &str) -> io::Result<Packing> {
        let (len, ends) = {
            let state = self.state.lock().expect("no holder of this lock panics");
            if state.durable() != *self.durable.borrow() {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            (state.len, state.ends())
        };
        Packing::begin(disk, Arc::clone(&self.file), len, ends, to)
    }

    /// Whether all of it is durable, and so much.
    pub(super) fn is_at(&self, len: u64) -> bool {
        let state = self.state.lock().expect("no holder of this lock panics");
        state.len == len && state.durable() == *self.durable.borrow()
    }

    /// Makes a plain file of it, durable but for its name.
    pub(super) fn unpack(&self, disk: &dyn Disk, to: &str) -> io::Result<()> {
        let end = self.durable.borrow().len;
        copy(&*self.file, end, &*disk.open(to, OpenMode::CreateOrWrite)?)
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
        let (mut chunks, mut taken, mut next) = (Vec::new(), 0, cursor);
        // Some of it, however little is asked for.
        while next < len && (next == cursor || taken < limit_bytes) {
            let stretch = self.segment.as_ref().map_or(next..len, |segment| segment.wanted(next, filter));
            let begun = std::mem::replace(&mut next, stretch.start);
            next = scan(&*self.file, next, stretch.end, |_, frame| {
                if let Some(frame) = filter.part_of(frame) {
                    taken += frame.data.len() + 64;
                    chunks.push(frame.into());
                }
                taken < limit_bytes
            })?;
            if next == begun {
                break;
            }
        }
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
        let bytes = state.dropped.values().flatten().map(|gone| gone.end.saturating_sub(gone.start));
        bytes.fold(0, u64::saturating_add)
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

    /// How far each stream came.
    fn ends(&self) -> Vec<StreamEnd> {
        let end = |(key, held): (&StreamKey, &StreamState)| StreamEnd {
            step: key.step,
            task: key.task,
            rank: key.rank,
            attempt: key.attempt,
            epoch: key.epoch,
            stream: key.stream,
            offset: held.offset,
            done: held.done,
            within_line: held.within_line,
            dropped: self
                .dropped
                .get(key)
                .into_iter()
                .flatten()
                .flat_map(|gone| [gone.start, gone.end])
                .collect(),
        };
        self.streams.iter().map(end).collect()
    }

    /// Takes a stream to where it came, all of that durable.
    fn resume(&mut self, end: &StreamEnd) {
        let (key, &StreamEnd { offset, done, within_line, .. }) = (StreamKey::of_end(end), end);
        self.streams.insert(key, StreamState { offset, done, within_line, durable: (offset, done) });
        if done {
            self.ended_bytes = self.ended_bytes.saturating_add(offset);
        }
        let dropped: Vec<_> = end.dropped.chunks_exact(2).map(|gone| gone[0]..gone[1]).collect();
        if !dropped.is_empty() {
            self.dropped.insert(key, dropped);
        }
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

impl LogFilter {
    fn wants(&self, frame: &Frame) -> bool {
        !frame.data.is_empty() && self.names(&StreamKey::of_frame(frame)) && frame.at_ms >= self.since_ms
    }

    /// Whether something of that stream may be wanted.
    pub(super) fn names(&self, key: &StreamKey) -> bool {
        self.step.is_none_or(|step| step == key.step)
            && self.task.is_none_or(|task| task == key.task)
            && self.rank.is_none_or(|rank| rank == key.rank)
            && self.attempt.is_none_or(|attempt| attempt == key.attempt)
            && self.stream.is_none_or(|stream| stream == key.stream)
            && self.epoch.is_none_or(|epoch| epoch == key.epoch)
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
    let to = disk.open(to, OpenMode::CreateOrWrite)?;
    let (_, end) = whole(&*source)?;
    copy(&*source, end, &*to)
}

/// Makes `to` of the first bytes of `from`, durable but for its name.
fn copy(from: &dyn DiskFile, end: u64, to: &dyn DiskFile) -> io::Result<()> {
    to.set_len(0)?;
    let mut at = 0;
    while at < end {
        let due = usize::try_from(end - at).map_or(WINDOW, |left| left.min(WINDOW));
        let data = read_exact(from, at, due)?;
        if data.len() < due {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the log became shorter"));
        }
        to.write_at(at, &data)?;
        at += due as u64;
    }
    to.sync()
}

/// Makes a directory in one that is there. Without its name all that is below
/// it would be lost with the power.
pub fn make_dir(disk: &dyn Disk, dir: &str) -> io::Result<()> {
    disk.create_dir_all(dir)?;
    disk.sync_dir(dir.rsplit_once('/').map_or("", |(parent, _)| parent))
}

#[cfg(test)]
mod tests;
