//! The book of log streams: what is known of each, and what is sent next.
//!
//! What must hold: the ranges sent of one stream follow each other without gap
//! from the last confirmed offset; at most
//! [`LOG_UNACKED_BYTES_MAX`](limits::LOG_UNACKED_BYTES_MAX) bytes of all
//! streams are sent and not confirmed; tenants take turns, and so do the streams of
//! each ([`Turns`]), so that a flood of one delays no other by more than a turn; a
//! stream is done only when the server said so, or it is empty.
//!
//! Where more is kept for the server than may be, the oldest goes of whoever has most
//! ([`LogBook::surplus`]). It is before the stream's `floor` then: what is sent next says
//! how many bytes before it will never come, and offsets stay what they were.

use super::surplus;
use super::turns::Turns;
use crate::core::key::Key;
use crate::limits;
use proto::v1::Stream;
use std::collections::BTreeMap;
use std::ops::Range;

/// One stream of one attempt.
pub type StreamKey = (Key, Side);

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}
impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Out, Self::Err];

    /// As the wire says it.
    #[must_use]
    pub fn wire(self) -> Stream {
        match self {
            Self::Out => Stream::Stdout,
            Self::Err => Stream::Stderr,
        }
    }

    /// From the wire.
    #[must_use]
    pub fn of(stream: Stream) -> Option<Self> {
        match stream {
            Stream::Stdout => Some(Self::Out),
            Stream::Stderr => Some(Self::Err),
            Stream::Unspecified => None,
        }
    }

    /// How its spool file's name ends.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
        }
    }
}

/// A range to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Of which stream.
    pub stream: StreamKey,
    /// From where.
    pub offset: u64,
    /// So many bytes before that were given up.
    pub dropped: u64,
    /// How many bytes; 0 to ask for the offset or to mark the end.
    pub len: u64,
    /// The stream ends behind it.
    pub end: bool,
}

#[derive(Debug, Default)]
struct StreamState {
    /// Bytes known to be in the file.
    len: u64,
    /// Before here the file has nothing any more.
    cut: u64,
    /// What is before here was given up, where the server has it not.
    floor: u64,
    /// `len` is for good.
    ended: bool,
    /// Confirmed by the server.
    confirmed: u64,
    /// Sent, confirmed or not.
    sent: u64,
    /// The end mark is on its way.
    end_sent: bool,
    /// The server's offset is known; else it is asked for first.
    known: bool,
    asked: bool,
    done: bool,
    /// Went back once already and heard nothing new since.
    rewound: bool,
    /// When something was last sent or confirmed, while unconfirmed.
    waiting_since_ms: u64,
    in_turn: bool,
}

impl StreamState {
    fn has_next(&self) -> bool {
        if self.done {
            return false;
        }
        if !self.known {
            return !self.asked && (self.len > 0 || self.ended);
        }
        self.sent < self.len || (self.ended && self.len > 0 && !self.end_sent)
    }

    fn is_unconfirmed(&self) -> bool {
        !self.done && (self.sent > self.confirmed || self.end_sent || (self.asked && !self.known))
    }

    /// What the server does not need any more, or will not get.
    fn settled(&self) -> u64 {
        self.confirmed.max(self.floor)
    }

    /// Bytes sent and not confirmed: none of those that were given up is sent.
    fn under_way(&self) -> u64 {
        if self.done { 0 } else { self.sent.saturating_sub(self.settled()) }
    }

    /// Bytes that are kept for the server.
    fn held(&self) -> u64 {
        if self.done { 0 } else { self.len.saturating_sub(self.settled()) }
    }

    fn rewind(&mut self) {
        self.sent = self.confirmed;
        self.end_sent = false;
        self.asked = false;
    }
}

#[derive(Debug, Default)]
struct Entry {
    streams: [StreamState; 2],
    /// Its process may still write.
    running: bool,
    /// The attempt is over for good: files go once shipped.
    forgotten: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct LogBook {
    entries: BTreeMap<Key, Entry>,
    turns: Turns,
    removable: Vec<Key>,
    /// Of streams that are not opened yet: their floors as an earlier agent left them.
    floors: BTreeMap<StreamKey, u64>,
}

impl LogBook {
    /// Of these streams an earlier agent gave up what is before there.
    #[must_use]
    pub fn with_floors(floors: BTreeMap<StreamKey, u64>) -> Self {
        Self { floors, ..Self::default() }
    }

    /// A process's spool files came to be. `adopted`: an earlier agent may have
    /// sent part of them.
    pub fn opened(&mut self, key: Key, adopted: bool) {
        let floors = Side::ALL.map(|side| self.floors.remove(&(key.clone(), side)).unwrap_or(0));
        let entry = self.entries.entry(key).or_default();
        entry.running = true;
        for (stream, floor) in entry.streams.iter_mut().zip(floors) {
            stream.known = !adopted;
            stream.floor = floor;
            // The file may be shorter, where power was lost.
            stream.len = stream.len.max(floor);
        }
    }

    /// A file was seen to be so long; whether that is news.
    pub fn grew(&mut self, stream: &StreamKey, len: u64) -> bool {
        let Some(state) = self.state(stream).filter(|state| !state.ended && state.len < len) else {
            return false;
        };
        state.len = len;
        self.take_turn(stream);
        true
    }

    /// The process ended with files of these lengths.
    pub fn ended(&mut self, key: &Key, stdout_bytes: u64, stderr_bytes: u64) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.running = false;
        for (stream, len) in entry.streams.iter_mut().zip([stdout_bytes, stderr_bytes]) {
            // A file that something else cut off ends where it was seen to end.
            stream.len = stream.len.max(len);
            stream.ended = true;
            stream.done |= stream.len == 0;
        }
        for side in Side::ALL {
            self.take_turn(&(key.clone(), side));
        }
        self.sweep(key);
    }

    /// The server has the attempt's end.
    pub fn forgotten(&mut self, key: &Key) {
        match self.entries.get_mut(key) {
            Some(entry) => {
                entry.forgotten = true;
                self.sweep(key);
            }
            None => self.removable.push(key.clone()),
        }
    }

    /// The server will have nothing more of it.
    pub fn dropped(&mut self, key: &Key) {
        self.settle(key);
        self.entries.remove(key);
        self.removable.push(key.clone());
    }

    /// What is in a file cannot be read: it is given up.
    pub fn lost(&mut self, stream: &StreamKey) {
        let unconfirmed = self.state(stream).map_or(0, |state| {
            let unconfirmed = state.under_way();
            state.done = true;
            unconfirmed
        });
        self.turns.settled(&stream.0.tenant, unconfirmed);
        self.sweep(&stream.0);
    }

    /// The server's answer to a shipment.
    pub fn receipt(&mut self, stream: &StreamKey, offset: u64, done: bool, now_ms: u64) {
        self.turns.answered(&stream.0.tenant);
        let Some(state) = self.state(stream).filter(|state| !state.done) else { return };
        let unconfirmed = state.under_way();
        let fresh = !state.known;
        state.known = true;
        if fresh || offset > state.confirmed {
            // An offset behind the file's end is another file's: what is there
            // is all that can be sent.
            state.confirmed = if state.ended { offset.min(state.len) } else { offset };
            state.len = state.len.max(state.confirmed);
            state.sent = state.sent.max(state.confirmed);
            state.rewound = false;
            state.waiting_since_ms = now_ms;
        } else if state.sent > offset && !state.rewound {
            // The server misses what was sent behind this: from there again,
            // but once, since shipments already under way are answered alike.
            state.confirmed = offset;
            state.rewind();
            state.rewound = true;
            state.waiting_since_ms = now_ms;
        }
        state.done = done;
        let left = state.under_way();
        self.turns.settled(&stream.0.tenant, unconfirmed - left);
        self.take_turn(stream);
        self.sweep(&stream.0);
    }

    /// A new stream to the server: all that is not confirmed goes again.
    pub fn rewind_all(&mut self) {
        self.turns.nothing_under_way();
        let keys: Vec<Key> = self.entries.keys().cloned().collect();
        for key in keys {
            for side in Side::ALL {
                let stream = (key.clone(), side);
                if let Some(state) = self.state(&stream).filter(|state| !state.done) {
                    state.rewind();
                    state.rewound = false;
                    self.take_turn(&stream);
                }
            }
        }
    }

    /// True where something sent has been unanswered for too long.
    #[must_use]
    pub fn is_overdue(&self, now_ms: u64) -> bool {
        let overdue = |state: &StreamState| {
            state.is_unconfirmed()
                && now_ms.saturating_sub(state.waiting_since_ms) > limits::LOG_RECEIPT_MS_MAX
        };
        self.entries.values().flat_map(|entry| &entry.streams).any(overdue)
    }

    /// The next range to send, if there is one and the windows allow it.
    pub fn next_chunk(&mut self, now_ms: u64) -> Option<Chunk> {
        if self.turns.is_unanswered() && !self.is_waiting() {
            // The server answers several shipments with one receipt.
            self.turns.nothing_under_way();
        }
        while let Some(stream) = self.turns.next() {
            let Some(state) = self.state(&stream) else { continue };
            state.in_turn = false;
            if !state.has_next() {
                continue;
            }
            if !state.is_unconfirmed() {
                state.waiting_since_ms = now_ms;
            }
            let chunk = if state.known {
                let offset = state.sent.max(state.floor);
                let dropped = offset - state.sent;
                let len = (state.len - offset).min(limits::LOG_CHUNK_BYTES_MAX);
                state.sent = offset + len;
                state.end_sent = state.ended && state.sent == state.len;
                Chunk { stream: stream.clone(), offset, dropped, len, end: state.end_sent }
            } else {
                state.asked = true;
                Chunk { stream: stream.clone(), offset: 0, dropped: 0, len: 0, end: false }
            };
            self.turns.sent(&stream.0.tenant, chunk.len);
            self.take_turn(&stream);
            return Some(chunk);
        }
        None
    }

    /// Streams whose files may still grow.
    pub fn growing(&self) -> impl Iterator<Item = StreamKey> {
        let running = self.entries.iter().filter(|(_, entry)| entry.running);
        running.flat_map(|(key, _)| Side::ALL.map(|side| (key.clone(), side)))
    }

    /// How many attempts run.
    #[must_use]
    pub fn growing_count(&self) -> usize {
        self.entries.values().filter(|entry| entry.running).count()
    }

    /// Whether anything runs.
    #[must_use]
    pub fn is_growing(&self) -> bool {
        self.entries.values().any(|entry| entry.running)
    }

    /// Whether something was sent that the server has not answered.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.entries.values().flat_map(|entry| &entry.streams).any(StreamState::is_unconfirmed)
    }

    /// Whether there is something to send, windows aside.
    #[must_use]
    pub fn has_next(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Bytes not yet confirmed, sent or not.
    #[must_use]
    pub fn spool_bytes(&self) -> u64 {
        self.entries.values().flat_map(|entry| &entry.streams).map(StreamState::held).sum()
    }

    /// Where more is kept for the server than that: the new floors of those streams whose
    /// oldest bytes are to go, for [`LogBook::give_up`].
    #[must_use]
    pub fn surplus(&self, bytes_max: u64) -> Vec<(StreamKey, u64)> {
        if self.spool_bytes() <= bytes_max {
            return Vec::new();
        }
        let mut tenants: BTreeMap<&str, Vec<(StreamKey, &StreamState)>> = BTreeMap::new();
        for (key, entry) in &self.entries {
            for (side, state) in Side::ALL.into_iter().zip(&entry.streams) {
                tenants.entry(&key.tenant).or_default().push(((key.clone(), side), state));
            }
        }
        let held =
            |streams: &[(StreamKey, &StreamState)]| streams.iter().map(|(_, state)| state.held()).sum();
        // Below the bound by some, so that not every byte to come is a gap of its own.
        let room = bytes_max - bytes_max / limits::SPOOL_SLACK;
        let level = surplus::level(tenants.values().map(|streams| held(streams)).collect(), room);
        let mut floors = Vec::new();
        for streams in tenants.into_values() {
            let held = streams.iter().map(|(_, state)| state.held()).collect();
            let level = surplus::level(held, level);
            let above = streams.into_iter().filter(|(_, state)| state.held() > level);
            floors.extend(above.map(|(stream, state)| (stream, state.len - level)));
        }
        floors
    }

    /// What of the stream is before there, and not at the server, will never come.
    /// Returns how many bytes that are.
    pub fn give_up(&mut self, stream: &StreamKey, floor: u64) -> u64 {
        let Some(state) = self.state(stream).filter(|state| !state.done) else { return 0 };
        let (unconfirmed, before) = (state.under_way(), state.held());
        // What was sent of it may have arrived: the server knows what it lacks.
        (state.sent, state.end_sent) = (state.confirmed, false);
        state.floor = state.floor.max(floor.min(state.len));
        let gone = before - state.held();
        self.turns.settled(&stream.0.tenant, unconfirmed);
        self.take_turn(stream);
        gone
    }

    /// Where the files hold more than this: what of them the server has or was given up,
    /// told once. It is not read again, since a receipt is for what is durable.
    pub fn take_spare(&mut self, bytes_max: u64) -> Vec<(StreamKey, Range<u64>)> {
        let streams = self.entries.values().flat_map(|entry| &entry.streams);
        if streams.map(|state| state.len.saturating_sub(state.cut)).sum::<u64>() <= bytes_max {
            return Vec::new();
        }
        let mut spare = Vec::new();
        for (key, entry) in &mut self.entries {
            for (side, state) in Side::ALL.into_iter().zip(&mut entry.streams) {
                let cut = state.settled().min(state.len) / limits::SPOOL_CUT_BYTES * limits::SPOOL_CUT_BYTES;
                if cut > state.cut {
                    spare.push(((key.clone(), side), state.cut..cut));
                    state.cut = cut;
                }
            }
        }
        spare
    }

    /// Attempts whose spool files may be removed, told once.
    pub fn take_removable(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.removable)
    }

    fn state(&mut self, stream: &StreamKey) -> Option<&mut StreamState> {
        self.entries.get_mut(&stream.0).map(|entry| &mut entry.streams[stream.1 as usize])
    }

    fn take_turn(&mut self, stream: &StreamKey) {
        let Some(state) = self.state(stream) else { return };
        if !state.in_turn && state.has_next() {
            state.in_turn = true;
            self.turns.wait(stream.clone());
        }
    }

    fn sweep(&mut self, key: &Key) {
        let done = |entry: &&Entry| entry.forgotten && entry.streams.iter().all(|stream| stream.done);
        if self.entries.get(key).filter(done).is_some() {
            self.entries.remove(key);
            self.removable.push(key.clone());
        }
    }

    /// Takes an entry's sent bytes out of the window.
    fn settle(&mut self, key: &Key) {
        let Some(entry) = self.entries.get(key) else { return };
        let sent: u64 = entry.streams.iter().map(StreamState::under_way).sum();
        self.turns.settled(&key.tenant, sent);
    }
}

#[cfg(test)]
mod tests;
