//! One job's log: stretches of frames ([`super::place`] has their names), of which the last is
//! written and the others are full, packed ([`super::segment`]) or about to be.
//!
//! Frames lie one behind the other ([`super::frames`]). A torn tail ends the last stretch at the
//! last whole frame before which none is missing: of several unsynced writes a power
//! failure may leave a later one and zeros in place of an earlier.

use super::frames::{Frame, StreamKey, WINDOW, encode, read_exact, scan};
use super::place::{self, Kind, Place, Spot, Stretches};
use super::segment::{NotHere, Packing, Segment, StreamEnd};
use super::{LogPage, limits};
use proto::gap;
use proto::v1::LogShipment;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
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
    place: Place,
    state: Mutex<State>,
    /// What it lies in. Taken for a moment, and with `state` only after that.
    stretches: Mutex<Parts>,
    /// What is synced: all that readers may know of.
    durable: watch::Sender<Durable>,
}

#[derive(Debug, Default)]
struct Parts {
    /// In order, one behind the other.
    full: Vec<Full>,
    /// Where the last begins, which is written.
    begins: u64,
    /// Its file, once there is something to write.
    file: Option<Arc<dyn DiskFile>>,
}

/// A stretch that is written never again.
#[derive(Clone, Debug)]
enum Full {
    Plain(Arc<Plain>),
    Packed(Arc<Segment>),
}

impl Full {
    fn begins(&self) -> u64 {
        match self {
            Self::Plain(plain) => plain.begins,
            Self::Packed(segment) => segment.begins(),
        }
    }
}

/// One that is not packed yet, and all of which is durable.
#[derive(Debug)]
pub(super) struct Plain {
    pub file: Arc<dyn DiskFile>,
    spot: Spot,
    pub begins: u64,
    pub ends: u64,
    /// How far each stream has come where it ends.
    pub streams: Vec<StreamEnd>,
}

impl Plain {
    /// As [`scan`], at cursors of the log.
    pub fn scan(&self, from: u64, to: u64, each: impl FnMut(u64, Frame) -> bool) -> io::Result<u64> {
        scan_from(&*self.file, self.begins, from..to, each)
    }
}

/// Scans a file that begins at that cursor of the log; all else are cursors too.
fn scan_from(
    file: &dyn DiskFile,
    begins: u64,
    span: Range<u64>,
    mut each: impl FnMut(u64, Frame) -> bool,
) -> io::Result<u64> {
    let (from, to) = (span.start - begins, span.end - begins);
    scan(file, from, to, |at, frame| each(begins + at, frame)).map(|at| begins + at)
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
    /// Opens and recovers the log of a job in the directory of its tenant; `None` where there
    /// is none and `make` is not set.
    ///
    /// An opening that failed half-way may have left a file of which a power
    /// failure leaves nothing. So the directory's own name is made durable
    /// before there is a file in it, and the file's name at every opening.
    ///
    /// # Errors
    /// Also where a later reign has the log, or a stretch in the middle of it is damaged.
    pub fn open(
        disk: &Arc<dyn Disk>,
        tenant: &str,
        number: u64,
        reign: Option<u64>,
        make: bool,
    ) -> io::Result<Option<Self>> {
        let place = Place::new(disk, tenant, number, reign);
        let there = place.stretches()?;
        if there.keys().any(|spot| spot.reign > place.reign) {
            world::mark!("controller.logs.of_a_later_reign");
            let why = "another server has this log now";
            return Err(io::Error::new(io::ErrorKind::StaleNetworkFileHandle, why));
        }
        if there.is_empty() && !make {
            return Ok(None);
        }
        let (parts, mut state) = recovered(&place, &there)?;
        state.synced();
        let durable = watch::Sender::new(state.durable());
        let log = Self { place, state: Mutex::new(state), stretches: Mutex::new(parts), durable };
        if there.is_empty() {
            log.begin(&mut log.parts())?;
        }
        Ok(Some(log))
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.stretches.lock().expect("no holder of this lock panics")
    }

    /// Makes the file of the last stretch, which is empty.
    fn begin(&self, parts: &mut Parts) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.made(parts.begins)?;
        parts.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// A file for a stretch that begins there. Its name is durable.
    fn made(&self, begins: u64) -> io::Result<Arc<dyn DiskFile>> {
        let spot = Spot { begins, reign: self.place.reign };
        self.place.make_dir(spot)?;
        let file = self.place.disk.open(&self.place.path(spot, Kind::Plain), OpenMode::CreateOrWrite)?;
        file.set_len(0)?;
        self.place.disk.sync_dir(self.place.dir(spot))?;
        Ok(file)
    }

    /// Goes on in another file where the last stretch has so many bytes. Nothing of it is
    /// unsynced then, or it is left for later.
    pub(super) fn turn(&self, full_bytes: u64) -> io::Result<()> {
        let state = self.state.lock().expect("no holder of this lock panics");
        let mut parts = self.parts();
        if full_bytes == 0
            || state.len - parts.begins < full_bytes
            || state.durable() != *self.durable.borrow()
        {
            return Ok(());
        }
        // First the next: whoever finds it knows that this one is whole.
        let next = self.made(state.len)?;
        world::mark!("controller.logs.turned");
        self.end(&state, &mut parts);
        parts.file = Some(next);
        Ok(())
    }

    /// The last stretch is full; the next one has no file.
    fn end(&self, state: &State, parts: &mut Parts) {
        let (begins, ends) = (parts.begins, state.len);
        if let Some(file) = parts.file.take().filter(|_| ends > begins) {
            let spot = Spot { begins, reign: self.place.reign };
            let plain = Plain { file, spot, begins, ends, streams: state.ends() };
            parts.full.push(Full::Plain(Arc::new(plain)));
        }
        parts.begins = ends;
    }

    /// The log will hardly grow: what was written last is full, however little it is. False
    /// while something of it is not synced.
    pub(super) fn close(&self) -> bool {
        let state = self.state.lock().expect("no holder of this lock panics");
        let is_synced = state.durable() == *self.durable.borrow();
        if is_synced {
            self.end(&state, &mut self.parts());
        }
        is_synced
    }

    /// Begins to pack the first stretch that is full and not packed.
    pub(super) fn pack(&self) -> io::Result<Option<(Arc<Plain>, Packing)>> {
        let first = self.parts().full.iter().find_map(|full| match full {
            Full::Plain(plain) => Some(Arc::clone(plain)),
            Full::Packed(_) => None,
        });
        let Some(plain) = first else { return Ok(None) };
        let to = self.place.fresh(plain.spot, Kind::Packed);
        let packing = Packing::begin(&*self.place.disk, Arc::clone(&plain), &to)?;
        Ok(Some((plain, packing)))
    }

    /// It is packed: from now on it is read from there, and the plain file goes. Returns the
    /// bytes of the segment.
    pub(super) fn packed(&self, plain: &Plain, packing: Packing) -> io::Result<u64> {
        let (place, disk) = (&self.place, &self.place.disk);
        let bytes = packing.finish()?;
        let path = place.path(plain.spot, Kind::Packed);
        disk.rename(&place.fresh(plain.spot, Kind::Packed), &path)?;
        disk.sync_dir(place.dir(plain.spot))?;
        let left = place.path(plain.spot, Kind::Left);
        let segment = Segment::open(disk, path, left, plain.begins)?;
        let mut parts = self.parts();
        if let Some(full) = parts.full.iter_mut().find(|full| full.begins() == plain.begins) {
            *full = Full::Packed(Arc::new(segment));
        }
        drop(parts);
        world::mark!("controller.logs.packed");
        match disk.remove(&place.path(plain.spot, Kind::Plain)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(bytes),
        }
    }

    /// The name of what is left of a segment, until it has its own.
    pub(super) fn fresh_left(&self, segment: &Segment) -> String {
        format!("{}.{:x}.new", segment.left(), self.place.reign)
    }

    /// Those that are packed.
    pub(super) fn segments(&self) -> Vec<Arc<Segment>> {
        let parts = self.parts();
        let packed = parts.full.iter().filter_map(|full| match full {
            Full::Packed(segment) => Some(Arc::clone(segment)),
            Full::Plain(_) => None,
        });
        packed.collect()
    }

    /// Whether all that was written of it is packed.
    pub(super) fn is_packed(&self) -> bool {
        let parts = self.parts();
        let is_packed = |full: &Full| matches!(full, Full::Packed(_));
        parts.begins == self.durable.borrow().len && parts.full.iter().all(is_packed)
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
        let (file, begins) = {
            let mut parts = self.parts();
            let file = match parts.file.clone() {
                Some(file) => file,
                None => self.begin(&mut parts)?,
            };
            (file, parts.begins)
        };
        file.write_at(state.len - begins, &bytes)?;
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
        let (file, begins) = {
            let parts = self.parts();
            (parts.file.clone(), parts.begins)
        };
        let file = file.ok_or_else(|| io::Error::other("what was appended has no file"))?;
        if let Err(error) = file.sync() {
            // What a failed sync dropped no later one writes, though reads show
            // it: it is cut off, and comes again from whoever has no receipt.
            file.set_len(self.durable.borrow().len - begins)?;
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
            let (source, stretch) = self.stretch(next, len, filter);
            let begun = std::mem::replace(&mut next, stretch.start);
            let scanned = source.scan(stretch.clone(), |_, frame| {
                if let Some(frame) = filter.part_of(frame) {
                    taken += frame.data.len() + 64;
                    chunks.push(frame.into());
                }
                taken < limit_bytes
            });
            next = match scanned {
                // What there is before it can be had at once.
                Err(error) if NotHere::told(&error).is_some() && !chunks.is_empty() => break,
                scanned => scanned?,
            };
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

    /// Where a cursor lies, and how far what may be wanted reaches there, from where on.
    fn stretch(&self, cursor: u64, len: u64, filter: &LogFilter) -> (Source, Range<u64>) {
        let parts = self.parts();
        let behind = parts.full.partition_point(|full| full.begins() <= cursor);
        match parts.full[..behind].last() {
            Some(Full::Packed(segment)) if cursor < segment.ends() => {
                (Source::Packed(Arc::clone(segment)), segment.wanted(cursor, filter))
            }
            Some(Full::Plain(plain)) if cursor < plain.ends => {
                (Source::Plain(Arc::clone(plain)), cursor..plain.ends)
            }
            _ => (Source::Last(parts.file.clone(), parts.begins), cursor..len),
        }
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

/// What a reader reads from.
enum Source {
    Packed(Arc<Segment>),
    Plain(Arc<Plain>),
    /// Where it begins.
    Last(Option<Arc<dyn DiskFile>>, u64),
}

impl Source {
    fn scan(&self, span: Range<u64>, each: impl FnMut(u64, Frame) -> bool) -> io::Result<u64> {
        match self {
            Self::Packed(segment) => scan(&**segment, span.start, span.end, each),
            Self::Plain(plain) => plain.scan(span.start, span.end, each),
            Self::Last(Some(file), begins) => scan_from(&**file, *begins, span, each),
            Self::Last(None, _) => Ok(span.start),
        }
    }
}

/// What there is of a log, and how far it came: the last stretch is this server's own then.
fn recovered(place: &Place, there: &Stretches) -> io::Result<(Parts, State)> {
    let disk = &place.disk;
    let (mut parts, mut state, mut reign) = (Parts::default(), State::default(), 0);
    while let Some((spot, kinds)) = place::at(there, parts.begins, reign) {
        let path = place.path(spot, Kind::Plain);
        reign = spot.reign;
        if kinds.contains(&Kind::Packed) || kinds.contains(&Kind::Left) {
            let names = [Kind::Packed, Kind::Left].map(|kind| place.path(spot, kind));
            let [packed, left] = names;
            let segment = Segment::open(disk, packed, left, spot.begins)?;
            if kinds.contains(&Kind::Plain) {
                // Packing did not get so far. Its name is durable before the other goes.
                disk.sync_dir(place.dir(spot))?;
                let _ = disk.remove(&path);
            }
            state = State::default();
            segment.streams().iter().for_each(|end| state.resume(end));
            parts.begins = segment.ends();
            state.len = parts.begins;
            parts.full.push(Full::Packed(Arc::new(segment)));
            continue;
        }
        let file = disk.open(&path, OpenMode::Write)?;
        let ends = spot.begins + whole(&*file, &mut state)?;
        if ends > spot.begins && place::at(there, ends, reign).is_some() {
            state.synced();
            let plain = Plain { file, spot, begins: spot.begins, ends, streams: state.ends() };
            parts.full.push(Full::Plain(Arc::new(plain)));
            (parts.begins, state.len) = (ends, ends);
            continue;
        }
        for next in place::behind(there, spot.begins, reign) {
            // One that was made and never written is of an ending that failed.
            if there[&next].iter().any(|kind| *kind != Kind::Plain)
                || disk.entry(&place.path(next, Kind::Plain))?.len > 0
            {
                let why = format!(
                    "a log is damaged: its stretch {:x} ends at {ends:x}, and another begins at {:x}",
                    spot.begins, next.begins
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
        parts.file = Some(if reign == place.reign {
            cut(place, spot, file, ends)?
        } else {
            taken_over(place, spot, &*file, ends)?
        });
        state.len = ends;
        break;
    }
    Ok((parts, state))
}

/// Cuts off what a crash tore behind the last whole frame.
fn cut(place: &Place, spot: Spot, file: Arc<dyn DiskFile>, ends: u64) -> io::Result<Arc<dyn DiskFile>> {
    place.disk.sync_dir(place.dir(spot))?;
    if spot.begins + file.len()? > ends {
        world::mark!("controller.logs.torn_tail");
    }
    file.set_len(ends - spot.begins)?;
    file.sync()?;
    Ok(file)
}

/// Begins this reign's own stretch with what is whole in an earlier one's. Who writes that yet
/// does so behind it, or in vain.
fn taken_over(place: &Place, from: Spot, file: &dyn DiskFile, ends: u64) -> io::Result<Arc<dyn DiskFile>> {
    world::mark!("controller.logs.taken_over");
    let (disk, own) = (&place.disk, Spot { reign: place.reign, ..from });
    place.make_dir(own)?;
    let (fresh, path) = (place.fresh(own, Kind::Plain), place.path(own, Kind::Plain));
    copy(file, ends - from.begins, &*disk.open(&fresh, OpenMode::CreateOrWrite)?)?;
    disk.rename(&fresh, &path)?;
    disk.sync_dir(place.dir(own))?;
    // If it cannot be removed now it is of no use to anybody.
    let _ = disk.remove(&place.path(from, Kind::Plain));
    disk.open(&path, OpenMode::Write)
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

/// Takes what a file holds up to where it is whole, and says where that is.
fn whole(file: &dyn DiskFile, state: &mut State) -> io::Result<u64> {
    let mut gap = None;
    let end = scan(file, 0, file.len()?, |begun, frame| {
        if state.follows(&frame) {
            state.take(&frame);
        } else {
            gap = Some(begun);
        }
        gap.is_none()
    })?;
    Ok(gap.unwrap_or(end))
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

#[cfg(test)]
mod tests;
