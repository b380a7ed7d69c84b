//! Writes a trace file as it happens: nothing is kept but the chunk under way and
//! the index.

use super::bytes::{self, put_block, put_number, put_text};
use super::{CHUNK_BYTES_MAX, CHUNK_RECORDS_MAX, END, Head, MAGIC, Record, TEXT_BYTES_MAX, VERSION};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

/// See the module. A writer that is dropped without [`finish`](Writer::finish)
/// leaves a file that is cut off, of which whole chunks can still be read.
pub struct Writer<W: Write> {
    out: Hashed<W>,
    chunk: Vec<u8>,
    records: u32,
    first_us: u64,
    last_us: u64,
    /// Names of this chunk, by the number they are called by.
    names: BTreeMap<String, u64>,
    index: Vec<u8>,
    total: u64,
}

impl<W: Write> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("last_us", &self.last_us).finish_non_exhaustive()
    }
}

/// Counts and hashes what goes out.
struct Hashed<W> {
    out: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.out.write(bytes)?;
        self.hash.update(&bytes[..taken]);
        self.bytes += taken as u64;
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub fn begin(out: W, head: &Head) -> io::Result<Self> {
        let mut out = Hashed { out, hash: Sha256::new(), bytes: 0 };
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        let seed = head.seed.to_string();
        let pairs = [
            ("seed", &seed),
            ("scenario", &head.scenario),
            ("commit", &head.commit),
            ("lock_sha256", &head.lock_sha256),
            ("toolchain", &head.toolchain),
            ("again", &head.again),
        ];
        let mut body = Vec::new();
        put_number(&mut body, pairs.len() as u64);
        for (name, value) in pairs {
            put_text(&mut body, name);
            put_text(&mut body, value);
        }
        put_block(&mut out, bytes::HEAD, &body)?;
        Ok(Self {
            out,
            chunk: Vec::new(),
            records: 0,
            first_us: 0,
            last_us: 0,
            names: BTreeMap::new(),
            index: Vec::new(),
            total: 0,
        })
    }

    /// Adds what happened next.
    ///
    /// # Panics
    /// Where time goes back.
    pub fn record(&mut self, record: &Record) -> io::Result<()> {
        assert!(record.at_us >= self.last_us, "time goes back in a trace");
        if self.records == 0 {
            self.first_us = record.at_us;
            self.last_us = record.at_us;
            put_number(&mut self.chunk, record.at_us);
        }
        put_number(&mut self.chunk, record.at_us - self.last_us);
        self.last_us = record.at_us;
        self.chunk.push(record.kind.number());
        self.name(&record.node);
        self.name(&record.job);
        put_text(&mut self.chunk, cut(&record.text, TEXT_BYTES_MAX));
        self.records += 1;
        if self.records as usize >= CHUNK_RECORDS_MAX || self.chunk.len() >= CHUNK_BYTES_MAX {
            self.close()?;
        }
        Ok(())
    }

    /// 0: none. A number not yet given is followed by the name that gets it.
    fn name(&mut self, name: &str) {
        if name.is_empty() {
            return put_number(&mut self.chunk, 0);
        }
        if let Some(number) = self.names.get(name) {
            return put_number(&mut self.chunk, *number);
        }
        let number = self.names.len() as u64 + 1;
        put_number(&mut self.chunk, number);
        put_text(&mut self.chunk, name);
        self.names.insert(name.to_owned(), number);
    }

    fn close(&mut self) -> io::Result<()> {
        if self.records == 0 {
            return Ok(());
        }
        for number in [self.out.bytes, self.first_us, self.last_us] {
            self.index.extend_from_slice(&number.to_le_bytes());
        }
        self.index.extend_from_slice(&self.records.to_le_bytes());
        put_block(&mut self.out, bytes::CHUNK, &self.chunk)?;
        self.total += u64::from(self.records);
        self.records = 0;
        self.chunk.clear();
        self.names.clear();
        Ok(())
    }

    /// Writes index and footer; gives back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.close()?;
        let at = self.out.bytes;
        put_block(&mut self.out, bytes::INDEX, &self.index)?;
        for number in [at, self.total, self.last_us] {
            self.out.write_all(&number.to_le_bytes())?;
        }
        let Hashed { mut out, hash, .. } = self.out;
        out.write_all(&hash.finalize())?;
        out.write_all(END)?;
        out.flush()?;
        Ok(out)
    }
}

/// As much of a text as fits, in whole characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
