//! One job's log file.
//!
//! Frame: length (u32, little endian), CRC-32 of the payload, payload (a
//! [`Frame`] in protobuf). A torn tail ends the file at the last whole frame.

use super::{LogPage, limits};
use prost::Message;
use proto::v1::{LogChunk, LogShipment};
use std::collections::BTreeMap;
use std::io;
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
    /// Written at or after this instant (milliseconds since 1970).
    pub since_ms: u64,
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
}

/// See the module.
#[derive(Debug)]
pub(super) struct JobLog {
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
    ended_bytes: u64,
}

impl JobLog {
    /// Opens and recovers; `None` where there is no file and `make` is not set.
    pub(super) fn open(disk: &dyn Disk, dir: &str, path: &str, make: bool) -> io::Result<Option<Self>> {
        let file = match disk.open(path, OpenMode::Write) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !make => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                disk.create_dir_all(dir)?;
                let file = disk.open(path, OpenMode::CreateOrWrite)?;
                disk.sync_dir(dir)?;
                if let Some((parent, _)) = dir.rsplit_once('/') {
                    disk.sync_dir(parent)?;
                }
                file
            }
            Err(error) => return Err(error),
        };
        let mut state = State::default();
        let end = scan(&*file, 0, file.len()?, |_, frame| {
            state.take(&frame);
            true
        })?;
        // Behind the last whole frame lies what a crash tore.
        file.set_len(end)?;
        file.sync()?;
        state.len = end;
        let durable = watch::Sender::new(state.durable());
        Ok(Some(Self { file, state: Mutex::new(state), durable }))
    }

    /// Appends the part of the shipment that is new. Returns the first offset
    /// not yet held, and whether the stream is at its end.
    pub(super) fn append(&self, shipment: &LogShipment) -> io::Result<(u64, bool)> {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        let Some(key) = StreamKey::of(shipment) else { return Ok((shipment.offset, false)) };
        let held = state.streams.get(&key).copied().unwrap_or_default();
        let end = shipment.offset + shipment.data.len() as u64;
        let news = end > held.offset || (shipment.end && !held.done);
        if held.done || shipment.offset > held.offset || !news || end < held.offset {
            return Ok((held.offset, held.done));
        }
        let skip = usize::try_from(held.offset - shipment.offset).map_err(io::Error::other)?;
        let mut data = &shipment.data[skip..];
        let mut at = held.offset;
        loop {
            let (piece, rest) = data.split_at(data.len().min(limits::FRAME_BYTES_MAX));
            let frame = Frame {
                step: key.step,
                task: key.task,
                rank: key.rank,
                attempt: key.attempt,
                epoch: key.epoch,
                stream: key.stream,
                offset: at,
                data: piece.to_vec(),
                end: shipment.end && rest.is_empty(),
                at_ms: shipment.at_ms,
            };
            let bytes = encode(&frame)?;
            self.file.write_at(state.len, &bytes)?;
            state.len += bytes.len() as u64;
            state.take(&frame);
            at += piece.len() as u64;
            data = rest;
            if data.is_empty() {
                return Ok((at, shipment.end));
            }
        }
    }

    /// Makes what was appended durable and shows it to readers.
    pub(super) fn sync(&self) -> io::Result<()> {
        let appended = self.state.lock().expect("no holder of this lock panics").durable();
        if appended == *self.durable.borrow() {
            return Ok(());
        }
        self.file.sync()?;
        self.durable.send_replace(appended);
        Ok(())
    }

    pub(super) fn read(&self, filter: &LogFilter, cursor: u64, limit_bytes: usize) -> io::Result<LogPage> {
        let len = self.durable.borrow().len;
        if cursor > len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("cursor {cursor} lies behind the log's {len} bytes"),
            ));
        }
        let (mut chunks, mut taken) = (Vec::new(), 0);
        let cursor = scan(&*self.file, cursor, len, |_, frame| {
            if filter.wants(&frame) {
                taken += frame.data.len() + 64;
                chunks.push(frame.into());
            }
            taken < limit_bytes
        })?;
        Ok(LogPage { chunks, cursor, at_end: cursor >= len })
    }

    pub(super) async fn grown(&self, cursor: u64) {
        // An error means the sender is gone, and it lives in `self`.
        let _ = self.durable.subscribe().wait_for(|durable| durable.len > cursor).await;
    }

    /// Never more than what a later `read` shows: who has seen that a log is
    /// whole must find all of it.
    pub(super) fn ended_bytes(&self) -> u64 {
        self.durable.borrow().ended_bytes
    }
}

impl State {
    /// What will be durable once all of it is synced.
    fn durable(&self) -> Durable {
        Durable { len: self.len, ended_bytes: self.ended_bytes }
    }

    fn take(&mut self, frame: &Frame) {
        let stream = self.streams.entry(StreamKey::of_frame(frame)).or_default();
        stream.offset = frame.offset + frame.data.len() as u64;
        if frame.end && !stream.done {
            stream.done = true;
            self.ended_bytes += stream.offset;
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
            && frame.at_ms >= self.since_ms
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
        }
    }
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
            // A length that no frame can have is the torn tail.
            if len > limits::FRAME_BYTES_MAX + 4096 {
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
mod tests {
    use super::*;
    use proto::v1::AttemptRef;
    use world::sim::HostileDisk;

    #[test]
    fn an_end_counts_only_once_its_bytes_can_be_read() {
        let disk = HostileDisk::new(1).handle();
        let log = JobLog::open(&*disk, "logs/t", "logs/t/1.log", true).unwrap().unwrap();
        let shipment = LogShipment {
            attempt: Some(AttemptRef { tenant: "t".to_owned(), job_number: 1, ..AttemptRef::default() }),
            stream: 1,
            data: b"hello".to_vec().into(),
            end: true,
            ..LogShipment::default()
        };
        assert_eq!(log.append(&shipment).unwrap(), (5, true));
        let seen = |log: &JobLog| {
            let page = log.read(&LogFilter::default(), 0, 100).unwrap();
            (log.ended_bytes(), page.chunks.len())
        };
        assert_eq!(seen(&log), (0, 0));
        log.sync().unwrap();
        assert_eq!(seen(&log), (5, 1));
        drop(log);
        let log = JobLog::open(&*disk, "logs/t", "logs/t/1.log", false).unwrap().unwrap();
        assert_eq!(seen(&log), (5, 1));
    }
}
