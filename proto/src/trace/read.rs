//! Reads trace files: the whole of one that ended, or what there is of one that
//! was cut off.

use super::bytes::{self, Cut, FRAME_BYTES, block, whole};
use super::{END, Head, Kind, MAGIC, Record, TraceError, VERSION};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};

/// Index offset, records, last time, hash, mark of the end.
const FOOTER_BYTES: u64 = 3 * 8 + 32 + 8;
/// Of the hash, counted from the end.
const HASH_BYTES_FROM_END: u64 = 32 + 8;
/// Of a chunk's entry in the index.
const ENTRY_BYTES: usize = 3 * 8 + 4;

/// See the module. Records come in the order of their time; [`seek`](Reader::seek)
/// goes to any instant, back or forth.
#[derive(Debug)]
pub struct Reader<R: Read + Seek> {
    from: R,
    head: Head,
    chunks: Vec<Chunk>,
    next: usize,
    pending: VecDeque<Record>,
    records: u64,
    last_us: u64,
}

/// A line of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    at: u64,
    first_us: u64,
    last_us: u64,
    records: u32,
}

impl<R: Read + Seek> Reader<R> {
    /// Opens a whole file. Reads its ends alone; what lies between is checked as
    /// it is read, or by [`verify`](Reader::verify).
    pub fn open(mut from: R) -> Result<Self, TraceError> {
        let head = head(&mut from)?;
        let begins = from.stream_position()?;
        let length = from.seek(SeekFrom::End(0))?;
        let footer_at = length.checked_sub(FOOTER_BYTES).filter(|at| *at >= begins + FRAME_BYTES);
        let footer_at = footer_at.ok_or(TraceError::Truncated)?;
        from.seek(SeekFrom::Start(footer_at))?;
        let mut footer = [0; FOOTER_BYTES as usize];
        whole(&mut from, &mut footer)?;
        if !footer.ends_with(END) {
            return Err(TraceError::Truncated);
        }
        let mut cut = Cut(&footer);
        let mut number = || Ok::<_, TraceError>(u64::from_le_bytes(cut.fixed()?));
        let (index_at, records, last_us) = (number()?, number()?, number()?);
        if !(begins..footer_at).contains(&index_at) {
            return Err(TraceError::Corrupt("the footer"));
        }
        from.seek(SeekFrom::Start(index_at))?;
        let body = block(&mut from, bytes::INDEX)?;
        if from.stream_position()? != footer_at {
            return Err(TraceError::Corrupt("the footer"));
        }
        let chunks = index(&body, begins, index_at)?;
        let counted: u64 = chunks.iter().map(|chunk| u64::from(chunk.records)).sum();
        if counted != records || chunks.last().map_or(0, |chunk| chunk.last_us) != last_us {
            return Err(TraceError::Corrupt("the index"));
        }
        Ok(Self { from, head, chunks, next: 0, pending: VecDeque::new(), records, last_us })
    }

    /// Opens what there is of a file that was cut off or damaged: the chunks from
    /// the beginning up to the first that is not whole. Reads all of them.
    pub fn recover(mut from: R) -> Result<Self, TraceError> {
        let head = head(&mut from)?;
        let mut chunks: Vec<Chunk> = Vec::new();
        loop {
            let at = from.stream_position()?;
            let body = match block(&mut from, bytes::CHUNK) {
                Ok(body) => body,
                Err(TraceError::Io(error)) => return Err(error.into()),
                Err(_) => break,
            };
            let Ok(records) = decode(&body) else { break };
            let (Some(first), Some(last)) = (records.front(), records.back()) else { break };
            let count = u32::try_from(records.len()).map_err(|_| TraceError::Corrupt("a chunk"))?;
            chunks.push(Chunk { at, first_us: first.at_us, last_us: last.at_us, records: count });
        }
        let records = chunks.iter().map(|chunk| u64::from(chunk.records)).sum();
        let last_us = chunks.last().map_or(0, |chunk| chunk.last_us);
        Ok(Self { from, head, chunks, next: 0, pending: VecDeque::new(), records, last_us })
    }

    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// How many there are.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The time of the last, in microseconds.
    #[must_use]
    pub fn last_us(&self) -> u64 {
        self.last_us
    }

    /// Goes to the first record at or after an instant, by way of the index: one
    /// chunk is read, wherever it lies.
    pub fn seek(&mut self, at_us: u64) -> Result<(), TraceError> {
        self.pending.clear();
        self.next = self.chunks.partition_point(|chunk| chunk.last_us < at_us);
        if self.next < self.chunks.len() {
            self.load()?;
            self.pending.retain(|record| record.at_us >= at_us);
        }
        Ok(())
    }

    /// The next record; `None` behind the last.
    pub fn next_record(&mut self) -> Result<Option<Record>, TraceError> {
        if self.pending.is_empty() && self.next < self.chunks.len() {
            self.load()?;
        }
        Ok(self.pending.pop_front())
    }

    fn load(&mut self) -> Result<(), TraceError> {
        let chunk = self.chunks[self.next];
        self.from.seek(SeekFrom::Start(chunk.at))?;
        let records = decode(&block(&mut self.from, bytes::CHUNK)?)?;
        let as_told = records.len() == chunk.records as usize
            && records.front().is_some_and(|first| first.at_us == chunk.first_us)
            && records.back().is_some_and(|last| last.at_us == chunk.last_us);
        if !as_told {
            return Err(TraceError::Corrupt("a chunk is not what the index tells of it"));
        }
        self.pending = records;
        self.next += 1;
        Ok(())
    }

    /// Reads all of a whole file and compares its hash.
    pub fn verify(&mut self) -> Result<(), TraceError> {
        let length = self.from.seek(SeekFrom::End(0))?;
        let hashed = length.checked_sub(HASH_BYTES_FROM_END).ok_or(TraceError::Truncated)?;
        self.from.rewind()?;
        let (mut hash, mut left) = (Sha256::new(), hashed);
        let mut piece = vec![0; 64 << 10];
        while left > 0 {
            let part = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            whole(&mut self.from, &mut piece[..part])?;
            hash.update(&piece[..part]);
            left -= part as u64;
        }
        let mut told = [0; 32];
        whole(&mut self.from, &mut told)?;
        let found: [u8; 32] = hash.finalize().into();
        if found == told { Ok(()) } else { Err(TraceError::Corrupt("its hash is another")) }
    }
}

/// Magic, version and head; the reader stands behind them then.
fn head(from: &mut (impl Read + Seek)) -> Result<Head, TraceError> {
    from.rewind()?;
    let mut begin = Vec::new();
    from.take(MAGIC.len() as u64).read_to_end(&mut begin)?;
    if !MAGIC.starts_with(&begin) {
        return Err(TraceError::NotATrace);
    }
    let mut version = [0; 4];
    whole(from, &mut version)?;
    let version = u32::from_le_bytes(version);
    if version != VERSION {
        return Err(TraceError::Version(version));
    }
    let body = block(from, bytes::HEAD)?;
    let mut cut = Cut(&body);
    let (mut head, mut seed) = (Head::default(), None);
    for _ in 0..cut.number()? {
        let (name, value) = (cut.text()?, cut.text()?.to_owned());
        match name {
            "seed" => seed = value.parse().ok(),
            "scenario" => head.scenario = value,
            "commit" => head.commit = value,
            "lock_sha256" => head.lock_sha256 = value,
            "toolchain" => head.toolchain = value,
            "again" => head.again = value,
            // Of a later day.
            _ => {}
        }
    }
    head.seed = seed.ok_or(TraceError::Corrupt("its head has no seed"))?;
    Ok(head)
}

/// The index's lines; they must follow each other in the file and in time.
fn index(body: &[u8], begins: u64, ends: u64) -> Result<Vec<Chunk>, TraceError> {
    let broken = TraceError::Corrupt("the index");
    let mut chunks: Vec<Chunk> = Vec::with_capacity(body.len() / ENTRY_BYTES);
    let mut cut = Cut(body);
    while !cut.is_empty() {
        let mut number = || Ok::<_, TraceError>(u64::from_le_bytes(cut.fixed()?));
        let (at, first_us, last_us) = (number()?, number()?, number()?);
        let chunk = Chunk { at, first_us, last_us, records: u32::from_le_bytes(cut.fixed()?) };
        let follows = chunks.last().map_or(at == begins, |before| {
            at >= before.at.saturating_add(FRAME_BYTES) && first_us >= before.last_us
        });
        if !follows || at >= ends || first_us > last_us || chunk.records == 0 {
            return Err(broken);
        }
        chunks.push(chunk);
    }
    Ok(chunks)
}

/// The records of a chunk, which stands for itself.
fn decode(body: &[u8]) -> Result<VecDeque<Record>, TraceError> {
    let mut cut = Cut(body);
    let (mut names, mut records) = (Vec::<String>::new(), VecDeque::new());
    let mut at_us = cut.number()?;
    while !cut.is_empty() {
        at_us = at_us.checked_add(cut.number()?).ok_or(TraceError::Corrupt("a time is too large"))?;
        let kind = Kind::from_number(cut.byte()?);
        let node = name(&mut cut, &mut names)?;
        let job = name(&mut cut, &mut names)?;
        records.push_back(Record { at_us, kind, node, job, text: cut.text()?.to_owned() });
    }
    Ok(records)
}

fn name(cut: &mut Cut<'_>, names: &mut Vec<String>) -> Result<String, TraceError> {
    let unknown = TraceError::Corrupt("a name was never told");
    let Some(at) = cut.number()?.checked_sub(1) else { return Ok(String::new()) };
    let at = usize::try_from(at).map_err(|_| TraceError::Corrupt("a name was never told"))?;
    if at == names.len() {
        names.push(cut.text()?.to_owned());
    }
    names.get(at).cloned().ok_or(unknown)
}
