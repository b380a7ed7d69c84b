//! A stretch of a log that nobody writes any more: the same frames, compressed.
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
//! A segment that has moved into the bucket ([`super::away`]) leaves its index behind, with
//! the name that its bytes have there. Whoever wants a block of it is told that it is not
//! here ([`NotHere`]), brings it, and asks again.
//!
//! What must hold: it has the frames of the plain file at the same cursors. Each block is
//! unpacked and compared before it is written, the segment gets its name once it is durable,
//! and only then the plain file goes; where both are there they say the same.

use super::file::{LogFilter, Plain};
use super::frames::{Frame, StreamKey, read_exact};
use super::limits;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use world::disk::{Disk, DiskFile, OpenMode, read_all};
use world::transfer::hex_digest;

const MAGIC: &[u8; 8] = b"DLSEG01\n";
/// Of what is left here of one that has moved.
const MOVED: &[u8; 8] = b"DLIDX01\n";
/// Behind the index.
const FOOTER: usize = 24;

/// Some whole frames.
#[derive(Clone, PartialEq, Message)]
struct Block {
    /// Where they begin in the log.
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

/// Where the bytes of one that has moved are.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Away {
    /// SHA-256 of the segment, in hexadecimal digits.
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
}

/// What is left here of it.
#[derive(Clone, PartialEq, Message)]
struct Left {
    #[prost(message, required, tag = "1")]
    away: Away,
    #[prost(message, required, tag = "2")]
    index: Index,
}

/// A block is wanted that is not on this disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotHere {
    /// Where its segment begins.
    pub begins: u64,
    /// Its number there.
    block: usize,
}

impl NotHere {
    /// What an error says of it, if that is what it says.
    pub fn told(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} of the segment at {} is in the object store", self.block, self.begins)
    }
}

impl std::error::Error for NotHere {}

/// See the module.
#[derive(Debug)]
pub(super) struct Segment {
    disk: Arc<dyn Disk>,
    /// Where it is, or was before it moved; and what is left of it then.
    path: String,
    left: String,
    begins: u64,
    index: Index,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    away: Option<Away>,
    /// The block that was read last: readers go on where they were.
    held: Option<(usize, Arc<Vec<u8>>)>,
    /// Blocks that were brought, from this one on, as they are there.
    brought: Option<(usize, Bytes)>,
}

/// Some blocks of a segment that is away, one behind the other.
#[derive(Debug)]
pub(super) struct Wanted {
    pub away: Away,
    pub span: Range<u64>,
    first: usize,
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a packed log is damaged: {what}"))
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

impl Segment {
    /// Opens one whose files are, or were, of these names. It begins at that cursor.
    pub fn open(disk: &Arc<dyn Disk>, path: String, left: String, begins: u64) -> io::Result<Self> {
        let (index, away) = match disk.open(&path, OpenMode::Read) {
            Ok(file) => (read_index(&*file, begins)?, None),
            Err(error) if is_missing(&error) => {
                let Left { away, index } = read_left(&**disk, &left)?;
                (index, Some(away))
            }
            Err(error) => return Err(error),
        };
        let state = Mutex::new(State { away, ..State::default() });
        Ok(Self { disk: Arc::clone(disk), path, left, begins, index, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// How far each stream came.
    pub fn streams(&self) -> &[StreamEnd] {
        &self.index.streams
    }

    /// Where it begins in the log.
    pub fn begins(&self) -> u64 {
        self.begins
    }

    /// And ends.
    pub fn ends(&self) -> u64 {
        self.index.blocks.last().map_or(self.begins, |block| block.cursor + block.plain_bytes)
    }

    /// From a cursor on, the first block in which there may be what is wanted.
    pub fn wanted(&self, cursor: u64, filter: &LogFilter) -> Range<u64> {
        let first = self.index.blocks.partition_point(|block| block.cursor + block.plain_bytes <= cursor);
        match self.index.blocks[first..].iter().find(|block| self.is_wanted(block, filter)) {
            Some(block) => block.cursor.max(cursor)..block.cursor + block.plain_bytes,
            None => self.ends()..self.ends(),
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
        let mut state = self.state();
        if let Some((_, plain)) = state.held.as_ref().filter(|(at, _)| *at == number) {
            return Ok(Arc::clone(plain));
        }
        let block = &self.index.blocks[number];
        let packed = self.packed(&mut state, number)?;
        let plain = self.plain(block, &packed);
        if plain.is_err() {
            // It may have come otherwise than it lies there.
            state.brought = None;
        }
        let plain = Arc::new(plain?);
        state.held = Some((number, Arc::clone(&plain)));
        Ok(plain)
    }

    /// The bytes of a block, packed.
    fn packed(&self, state: &mut State, number: usize) -> io::Result<Bytes> {
        let block = &self.index.blocks[number];
        if state.away.is_none() {
            match self.disk.open(&self.path, OpenMode::Read) {
                Ok(file) => {
                    let bytes = usize::try_from(block.bytes).map_err(io::Error::other)?;
                    return Ok(read_exact(&*file, block.at, bytes)?.into());
                }
                // Another server, which had these logs before, has moved it.
                Err(error) if is_missing(&error) => {
                    state.away = Some(read_left(&*self.disk, &self.left)?.away);
                }
                Err(error) => return Err(error),
            }
        }
        let not_here = || io::Error::other(NotHere { begins: self.begins, block: number });
        let (first, brought) =
            state.brought.as_ref().filter(|(first, _)| *first <= number).ok_or_else(not_here)?;
        let at = usize::try_from(block.at - self.index.blocks[*first].at).map_err(io::Error::other)?;
        let to = at + usize::try_from(block.bytes).map_err(io::Error::other)?;
        if to > brought.len() {
            return Err(not_here());
        }
        let packed = brought.slice(at..to);
        if to == brought.len() {
            state.brought = None;
        }
        Ok(packed)
    }

    /// What is to be brought so that a block is there, and some behind it. `None`: it is here.
    pub fn missing(&self, NotHere { block: first, .. }: NotHere) -> Option<Wanted> {
        let away = self.state().away.clone()?;
        let blocks = &self.index.blocks;
        let from = blocks.get(first)?.at;
        let fits = |block: &&Block| block.at + block.bytes - from <= limits::BROUGHT_BYTES;
        let last = blocks[first..].iter().take_while(fits).last().unwrap_or(&blocks[first]);
        Some(Wanted { away, span: from..last.at + last.bytes, first })
    }

    /// What was wanted is there.
    pub fn bring(&self, wanted: &Wanted, data: Bytes) -> io::Result<()> {
        if data.len() as u64 != wanted.span.end - wanted.span.start {
            return Err(damaged("the object store gave less of it, or more"));
        }
        self.state().brought = Some((wanted.first, data));
        Ok(())
    }

    /// Where its index is, once it has moved.
    pub fn left(&self) -> &str {
        &self.left
    }

    /// Where its file is, while it is here.
    pub fn here(&self) -> Option<String> {
        self.state().away.is_none().then(|| self.path.clone())
    }

    /// What it is where it is to go, read and checked once more: what is there once stays.
    pub fn verified(&self) -> io::Result<Away> {
        let file = self.disk.open(&self.path, OpenMode::Read)?;
        let (bytes, mut at, mut sum) = (file.len()?, MAGIC.len() as u64, Sha256::new());
        sum.update(MAGIC);
        for block in &self.index.blocks {
            let packed =
                read_exact(&*file, block.at, usize::try_from(block.bytes).map_err(io::Error::other)?)?;
            self.plain(block, &packed)?;
            sum.update(&packed);
            at = block.at + block.bytes;
        }
        let rest = read_exact(&*file, at, usize::try_from(bytes - at).map_err(io::Error::other)?)?;
        if rest != tail(&self.index, at)? {
            return Err(damaged("its index reads otherwise"));
        }
        sum.update(&rest);
        Ok(Away { digest: hex_digest(&sum.finalize()), bytes })
    }

    /// What a block holds.
    fn plain(&self, block: &Block, packed: &[u8]) -> io::Result<Vec<u8>> {
        let plain = unpacked(packed, usize::try_from(block.plain_bytes).map_err(io::Error::other)?)?;
        if plain.len() as u64 != block.plain_bytes || crc32fast::hash(&plain) != block.crc {
            return Err(damaged("a block has another sum"));
        }
        Ok(plain)
    }

    /// Its bytes are in the bucket for good: leaves the index, and takes them away here.
    pub fn leave(&self, away: Away, fresh: &str) -> io::Result<()> {
        let mut data = Left { away: away.clone(), index: self.index.clone() }.encode_to_vec();
        let crc = crc32fast::hash(&data);
        data.extend(crc.to_le_bytes());
        data.extend(MOVED);
        let file = self.disk.open(fresh, OpenMode::CreateOrWrite)?;
        file.set_len(0)?;
        file.write_at(0, &data)?;
        file.sync()?;
        self.disk.rename(fresh, &self.left)?;
        self.disk.sync_dir(self.left.rsplit_once('/').map_or("", |(dir, _)| dir))?;
        let mut state = self.state();
        state.away = Some(away);
        match self.disk.remove(&self.path) {
            Err(error) if !is_missing(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Reads and checks the index of one that begins there.
fn read_index(file: &dyn DiskFile, begins: u64) -> io::Result<Index> {
    let len = file.len()?;
    let behind = len.checked_sub(FOOTER as u64).ok_or_else(|| damaged("it is too short"))?;
    let footer = read_exact(file, behind, FOOTER)?;
    if footer.len() < FOOTER || footer[16..] != MAGIC[..] {
        return Err(damaged("it does not end as one"));
    }
    let at = u64::from_le_bytes(footer[..8].try_into().map_err(io::Error::other)?);
    let bytes = u32::from_le_bytes(footer[8..12].try_into().map_err(io::Error::other)?);
    let crc = u32::from_le_bytes(footer[12..16].try_into().map_err(io::Error::other)?);
    if at.checked_add(bytes.into()) != Some(behind) {
        return Err(damaged("its index is not where it should be"));
    }
    let encoded = read_exact(file, at, bytes as usize)?;
    if crc32fast::hash(&encoded) != crc {
        return Err(damaged("its index has another sum"));
    }
    let index = Index::decode(&encoded[..]).map_err(|error| damaged(&error.to_string()))?;
    let mut due = (begins, MAGIC.len() as u64);
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
    Ok(index)
}

/// Reads and checks what is left of one that has moved. It was checked when it was here.
fn read_left(disk: &dyn Disk, path: &str) -> io::Result<Left> {
    let data = read_all(disk, path, limits::INDEX_BYTES_MAX)?;
    let ends = data.len().checked_sub(12).filter(|at| data[at + 4..] == MOVED[..]);
    let ends = ends.ok_or_else(|| damaged("what is left of it does not end as such"))?;
    let crc = u32::from_le_bytes(data[ends..ends + 4].try_into().map_err(io::Error::other)?);
    if crc32fast::hash(&data[..ends]) != crc {
        return Err(damaged("what is left of it has another sum"));
    }
    Left::decode(&data[..ends]).map_err(|error| damaged(&error.to_string()))
}

/// As the log is read, at its cursors.
impl DiskFile for Segment {
    fn len(&self) -> io::Result<u64> {
        Ok(self.ends())
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
    source: Arc<Plain>,
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
    /// Of a plain stretch, into a file.
    pub fn begin(disk: &dyn Disk, source: Arc<Plain>, to: &str) -> io::Result<Self> {
        let file = disk.open(to, OpenMode::CreateOrWrite)?;
        file.set_len(0)?;
        file.write_at(0, MAGIC)?;
        let streams = source.streams.clone();
        let places = (0..).zip(&streams).map(|(place, stream)| (StreamKey::of_end(stream), place)).collect();
        let (index, cursor) = (Index { blocks: Vec::new(), streams }, source.begins);
        let (parts, at) = (BTreeMap::new(), MAGIC.len() as u64);
        Ok(Self { source, file, at, index, places, cursor, last_ms: 0, parts })
    }

    /// Packs some blocks; true where those were the last.
    pub fn step(&mut self) -> io::Result<bool> {
        let (until, mut flushed) = (self.index.blocks.len() + limits::SEGMENT_BLOCKS_PER_STEP, Ok(()));
        let source = Arc::clone(&self.source);
        let reached = source.scan(self.cursor, source.ends, |begun, frame| {
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
        if reached != source.ends {
            return Err(damaged("the plain log has less than was synced"));
        }
        self.flush(source.ends)?;
        Ok(true)
    }

    fn take(&mut self, frame: &Frame) -> io::Result<()> {
        let place = self.places.get(&StreamKey::of_frame(frame)).ok_or_else(|| damaged("a stream is new"))?;
        self.parts.insert(*place, frame.until());
        self.last_ms = self.last_ms.max(frame.at_ms);
        Ok(())
    }

    /// Writes the block that ends there in the log.
    fn flush(&mut self, until: u64) -> io::Result<()> {
        let due = usize::try_from(until - self.cursor).map_err(io::Error::other)?;
        if due == 0 {
            return Ok(());
        }
        let plain = read_exact(&*self.source.file, self.cursor - self.source.begins, due)?;
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
        let tail = tail(&self.index, self.at)?;
        self.file.write_at(self.at, &tail)?;
        self.file.sync()?;
        Ok(self.at + tail.len() as u64)
    }
}

/// What lies behind the blocks: the index, from there on, and where it is.
fn tail(index: &Index, at: u64) -> io::Result<Vec<u8>> {
    let mut tail = index.encode_to_vec();
    let (bytes, crc) = (u32::try_from(tail.len()).map_err(io::Error::other)?, crc32fast::hash(&tail));
    tail.extend(at.to_le_bytes());
    tail.extend(bytes.to_le_bytes());
    tail.extend(crc.to_le_bytes());
    tail.extend(MAGIC);
    Ok(tail)
}

/// A block that should have so many bytes.
fn unpacked(packed: &[u8], due: usize) -> io::Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(due);
    DeflateDecoder::new(packed).take(due as u64 + 1).read_to_end(&mut plain)?;
    Ok(plain)
}
