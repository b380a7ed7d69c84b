//! A log that will hardly grow any more: the same frames, compressed and never written
//! again.
//!
//! ```text
//! magic, blocks, index (protobuf), where the index begins (u64), its bytes (u32),
//! CRC-32 of the index (u32), magic          numbers little endian
//! ```
//! A block is some whole frames as one stream of DEFLATE, whose sum is in the index. The
//! index says of each block which streams are in it and when what is in it was written, and
//! of each stream how far it came: so a reader of one stream, or of what is new, leaves out
//! what does not matter to him, and to open it takes no look at the frames.
//!
//! What must hold: it has the bytes of the plain file at the same places, so cursors stay
//! good. Each block is unpacked and compared before it is written, the segment gets its name
//! once it is durable, and only then the plain file goes; where both are there the plain one
//! counts. So a crash at any step leaves one of them whole.

use super::file::LogFilter;
use super::frames::{Frame, StreamKey, read_exact, scan};
use super::limits;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use prost::Message;
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use world::disk::{Disk, DiskFile, OpenMode};

const MAGIC: &[u8; 8] = b"DLSEG01\n";
/// Behind the index.
const FOOTER: usize = 24;

/// Some whole frames.
#[derive(Clone, PartialEq, Message)]
struct Block {
    /// Where they begin in the plain file.
    #[prost(uint64, tag = "1")]
    cursor: u64,
    #[prost(uint64, tag = "2")]
    plain_bytes: u64,
    /// Where they are here.
    #[prost(uint64, tag = "3")]
    at: u64,
    #[prost(uint64, tag = "4")]
    bytes: u64,
    /// Of the frames.
    #[prost(uint32, tag = "5")]
    crc: u32,
    /// When the latest of them was written.
    #[prost(uint64, tag = "6")]
    last_ms: u64,
    #[prost(message, repeated, tag = "7")]
    parts: Vec<Part>,
}

/// A stream in a block.
#[derive(Clone, PartialEq, Message)]
struct Part {
    /// Its place among the streams.
    #[prost(uint32, tag = "1")]
    stream: u32,
    /// How far it has come behind the block.
    #[prost(uint64, tag = "2")]
    until: u64,
}

/// How far a stream came.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StreamEnd {
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
    #[prost(bool, tag = "8")]
    pub done: bool,
    #[prost(bool, tag = "9")]
    pub within_line: bool,
    /// What was given up of it: begins and ends in turn.
    #[prost(uint64, repeated, tag = "10")]
    pub dropped: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Index {
    #[prost(message, repeated, tag = "1")]
    blocks: Vec<Block>,
    #[prost(message, repeated, tag = "2")]
    streams: Vec<StreamEnd>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Segment {
    file: Arc<dyn DiskFile>,
    index: Index,
    /// The block that was read last: readers go on where they were.
    held: Mutex<Option<(usize, Arc<Vec<u8>>)>>,
}

/// Where the segment of a plain file is.
pub(super) fn path(plain: &str) -> String {
    format!("{}.seg", plain.strip_suffix(".log").unwrap_or(plain))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a packed log is damaged: {what}"))
}

impl Segment {
    /// Reads and checks the index.
    pub fn open(disk: &dyn Disk, path: &str) -> io::Result<Self> {
        let file = disk.open(path, OpenMode::Read)?;
        let len = file.len()?;
        let behind = len.checked_sub(FOOTER as u64).ok_or_else(|| damaged("it is too short"))?;
        let footer = read_exact(&*file, behind, FOOTER)?;
        if footer.len() < FOOTER || footer[16..] != MAGIC[..] {
            return Err(damaged("it does not end as one"));
        }
        let at = u64::from_le_bytes(footer[..8].try_into().map_err(io::Error::other)?);
        let bytes = u32::from_le_bytes(footer[8..12].try_into().map_err(io::Error::other)?);
        let crc = u32::from_le_bytes(footer[12..16].try_into().map_err(io::Error::other)?);
        if at.checked_add(bytes.into()) != Some(behind) {
            return Err(damaged("its index is not where it should be"));
        }
        let encoded = read_exact(&*file, at, bytes as usize)?;
        if crc32fast::hash(&encoded) != crc {
            return Err(damaged("its index has another sum"));
        }
        let index = Index::decode(&encoded[..]).map_err(|error| damaged(&error.to_string()))?;
        let mut due = (0, MAGIC.len() as u64);
        for block in &index.blocks {
            let is_one = block.plain_bytes <= limits::SEGMENT_BLOCK_BYTES_MAX && block.bytes <= len;
            if (block.cursor, block.at) != due || !is_one {
                return Err(damaged("its blocks do not follow each other"));
            }
            due = (block.cursor + block.plain_bytes, block.at + block.bytes);
        }
        if due.1 != at {
            return Err(damaged("its blocks do not fill it"));
        }
        Ok(Self { file, index, held: Mutex::default() })
    }

    /// How far each stream came.
    pub fn streams(&self) -> &[StreamEnd] {
        &self.index.streams
    }

    /// Bytes of the plain file.
    pub fn plain_bytes(&self) -> u64 {
        self.index.blocks.last().map_or(0, |block| block.cursor + block.plain_bytes)
    }

    /// From a cursor on, the first block in which there may be what is wanted.
    pub fn wanted(&self, cursor: u64, filter: &LogFilter) -> Range<u64> {
        let first = self.index.blocks.partition_point(|block| block.cursor + block.plain_bytes <= cursor);
        match self.index.blocks[first..].iter().find(|block| self.is_wanted(block, filter)) {
            Some(block) => block.cursor.max(cursor)..block.cursor + block.plain_bytes,
            None => self.plain_bytes()..self.plain_bytes(),
        }
    }

    fn is_wanted(&self, block: &Block, filter: &LogFilter) -> bool {
        let named = |part: &Part| {
            let stream = self.index.streams.get(part.stream as usize);
            part.until > filter.from && stream.is_some_and(|stream| filter.names(&StreamKey::of_end(stream)))
        };
        block.last_ms >= filter.since_ms && block.parts.iter().any(named)
    }

    fn block(&self, number: usize) -> io::Result<Arc<Vec<u8>>> {
        let mut held = self.held.lock().expect("no holder of this lock panics");
        if let Some((_, plain)) = held.as_ref().filter(|(at, _)| *at == number) {
            return Ok(Arc::clone(plain));
        }
        let block = &self.index.blocks[number];
        let packed =
            read_exact(&*self.file, block.at, usize::try_from(block.bytes).map_err(io::Error::other)?)?;
        let plain = unpacked(&packed, usize::try_from(block.plain_bytes).map_err(io::Error::other)?)?;
        if plain.len() as u64 != block.plain_bytes || crc32fast::hash(&plain) != block.crc {
            return Err(damaged("a block has another sum"));
        }
        let plain = Arc::new(plain);
        *held = Some((number, Arc::clone(&plain)));
        Ok(plain)
    }
}

/// As the plain file is read.
impl DiskFile for Segment {
    fn len(&self) -> io::Result<u64> {
        Ok(self.plain_bytes())
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let number = self.index.blocks.partition_point(|block| block.cursor + block.plain_bytes <= offset);
        let Some(block) = self.index.blocks.get(number) else { return Ok(0) };
        let plain = self.block(number)?;
        let plain = &plain[usize::try_from(offset - block.cursor).map_err(io::Error::other)?..];
        let read = plain.len().min(buffer.len());
        buffer[..read].copy_from_slice(&plain[..read]);
        Ok(read)
    }
    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A segment under way, in steps: a long log takes a while, and others wait for the
/// machine too.
#[derive(Debug)]
pub(super) struct Packing {
    source: Arc<dyn DiskFile>,
    /// Where the source ends.
    end: u64,
    file: Arc<dyn DiskFile>,
    at: u64,
    index: Index,
    places: BTreeMap<StreamKey, u32>,
    /// Of the block under way.
    cursor: u64,
    last_ms: u64,
    parts: BTreeMap<u32, u64>,
}

impl Packing {
    /// Of the first `end` bytes of a log, whose streams are these, into a file.
    pub fn begin(
        disk: &dyn Disk,
        source: Arc<dyn DiskFile>,
        end: u64,
        streams: Vec<StreamEnd>,
        to: &str,
    ) -> io::Result<Self> {
        let file = disk.open(to, OpenMode::CreateOrWrite)?;
        file.set_len(0)?;
        file.write_at(0, MAGIC)?;
        let places = (0..).zip(&streams).map(|(place, stream)| (StreamKey::of_end(stream), place)).collect();
        let index = Index { blocks: Vec::new(), streams };
        let (parts, at) = (BTreeMap::new(), MAGIC.len() as u64);
        Ok(Self { source, end, file, at, index, places, cursor: 0, last_ms: 0, parts })
    }

    /// Bytes of the plain file.
    pub fn plain_bytes(&self) -> u64 {
        self.end
    }

    /// Packs some blocks; true where those were the last.
    pub fn step(&mut self) -> io::Result<bool> {
        let (until, mut flushed) = (self.index.blocks.len() + limits::SEGMENT_BLOCKS_PER_STEP, Ok(()));
        let source = Arc::clone(&self.source);
        let reached = scan(&*source, self.cursor, self.end, |begun, frame| {
            if begun - self.cursor >= limits::SEGMENT_BLOCK_BYTES {
                flushed = self.flush(begun);
            }
            // The next step begins with this frame.
            let goes_on = flushed.is_ok() && self.index.blocks.len() < until;
            if goes_on {
                flushed = self.take(&frame);
            }
            goes_on
        })?;
        flushed?;
        if self.index.blocks.len() == until {
            return Ok(false);
        }
        if reached != self.end {
            return Err(damaged("the plain log has less than was synced"));
        }
        self.flush(self.end)?;
        Ok(true)
    }

    fn take(&mut self, frame: &Frame) -> io::Result<()> {
        let place = self.places.get(&StreamKey::of_frame(frame)).ok_or_else(|| damaged("a stream is new"))?;
        self.parts.insert(*place, frame.until());
        self.last_ms = self.last_ms.max(frame.at_ms);
        Ok(())
    }

    /// Writes the block that ends there in the plain file.
    fn flush(&mut self, until: u64) -> io::Result<()> {
        let due = usize::try_from(until - self.cursor).map_err(io::Error::other)?;
        if due == 0 {
            return Ok(());
        }
        let plain = read_exact(&*self.source, self.cursor, due)?;
        let mut packed = DeflateEncoder::new(Vec::new(), Compression::new(limits::SEGMENT_EFFORT));
        packed.write_all(&plain)?;
        let packed = packed.finish()?;
        // The plain bytes go: so what is kept must give them back.
        if unpacked(&packed, due)? != plain {
            return Err(damaged("what was packed reads otherwise"));
        }
        self.file.write_at(self.at, &packed)?;
        let parts = std::mem::take(&mut self.parts).into_iter();
        self.index.blocks.push(Block {
            cursor: self.cursor,
            plain_bytes: due as u64,
            at: self.at,
            bytes: packed.len() as u64,
            crc: crc32fast::hash(&plain),
            last_ms: std::mem::take(&mut self.last_ms),
            parts: parts.map(|(stream, until)| Part { stream, until }).collect(),
        });
        self.at += packed.len() as u64;
        self.cursor = until;
        Ok(())
    }

    /// Makes it whole and durable, but for its name. Returns its bytes.
    pub fn finish(self) -> io::Result<u64> {
        let mut tail = self.index.encode_to_vec();
        let (bytes, crc) = (u32::try_from(tail.len()).map_err(io::Error::other)?, crc32fast::hash(&tail));
        tail.extend(self.at.to_le_bytes());
        tail.extend(bytes.to_le_bytes());
        tail.extend(crc.to_le_bytes());
        tail.extend(MAGIC);
        self.file.write_at(self.at, &tail)?;
        self.file.sync()?;
        Ok(self.at + tail.len() as u64)
    }
}

/// A block that should have so many bytes.
fn unpacked(packed: &[u8], due: usize) -> io::Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(due);
    DeflateDecoder::new(packed).take(due as u64 + 1).read_to_end(&mut plain)?;
    Ok(plain)
}
