//! What log files are made of.
//!
//! Frame: length (u32, little endian), CRC-32 of the payload, payload (a
//! [`Frame`] in protobuf, never empty).

use super::limits;
use super::segment::StreamEnd;
use prost::Message;
use proto::v1::{LogChunk, LogShipment};
use std::io;
use world::disk::DiskFile;

const HEADER: usize = 8;
/// Read at once while scanning.
pub(super) const WINDOW: usize = 1 << 20;

/// One stored range of one stream.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Frame {
    #[prost(uint32, tag = "1")]
    pub step: u32,
    #[prost(uint64, tag = "2")]
    pub task: u64,
    #[prost(uint32, tag = "3")]
    pub rank: u32,
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
    #[prost(int32, tag = "6")]
    pub stream: i32,
    #[prost(uint64, tag = "7")]
    pub offset: u64,
    #[prost(bytes = "vec", tag = "8")]
    pub data: Vec<u8>,
    #[prost(bool, tag = "9")]
    pub end: bool,
    #[prost(uint64, tag = "10")]
    pub at_ms: u64,
    /// Not 0: so many bytes were given up on their node, and the data says so in their place.
    #[prost(uint64, tag = "11")]
    pub dropped_bytes: u64,
}

impl Frame {
    /// Where its stream goes on.
    pub fn until(&self) -> u64 {
        let bytes = if self.dropped_bytes > 0 { self.dropped_bytes } else { self.data.len() as u64 };
        self.offset.saturating_add(bytes)
    }
}

/// Names a stream. The epoch is part of it: an attempt number that was given
/// back unstarted is used again under another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamKey {
    pub step: u32,
    pub task: u64,
    pub attempt: u32,
    pub epoch: u64,
    pub rank: u32,
    pub stream: i32,
}

impl StreamKey {
    pub fn of(shipment: &LogShipment) -> Option<Self> {
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
    pub fn frame(&self) -> Frame {
        let Self { step, task, attempt, epoch, rank, stream } = *self;
        Frame { step, task, attempt, epoch, rank, stream, ..Frame::default() }
    }

    pub fn of_end(end: &StreamEnd) -> Self {
        let &StreamEnd { step, task, rank, attempt, epoch, stream, .. } = end;
        Self { step, task, attempt, epoch, rank, stream }
    }

    pub fn of_frame(frame: &Frame) -> Self {
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

pub(super) fn encode(frame: &Frame) -> io::Result<Vec<u8>> {
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
pub(super) fn scan(
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

pub(super) fn read_exact(file: &dyn DiskFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
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
