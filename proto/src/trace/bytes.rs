//! Numbers, strings and blocks, as trace files have them.

use super::TraceError;
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, Read, Write};

/// Tag, length and check of a block.
pub const FRAME_BYTES: u64 = 16;
/// A reader takes no block for longer than this.
const BLOCK_BYTES_MAX: u32 = 64 << 20;

pub const HEAD: [u8; 4] = *b"HEAD";
pub const CHUNK: [u8; 4] = *b"CHNK";
pub const INDEX: [u8; 4] = *b"INDX";

/// Seven bits a byte, the lowest first; the high bit says that more follow.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// What is left of a block's body.
pub struct Cut<'a>(pub &'a [u8]);

const SHORT: TraceError = TraceError::Corrupt("a block ends too soon");

impl<'a> Cut<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> Result<u8, TraceError> {
        let (first, rest) = self.0.split_first().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn number(&mut self) -> Result<u64, TraceError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(TraceError::Corrupt("a number is too large"))
    }

    pub fn text(&mut self) -> Result<&'a str, TraceError> {
        let length = usize::try_from(self.number()?).map_err(|_| SHORT)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| TraceError::Corrupt("a text is not UTF-8"))
    }

    /// Fixed, little-endian.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], TraceError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*bytes)
    }
}

/// The first eight bytes of the SHA-256 of tag, length and body.
fn check(tag: [u8; 4], length: [u8; 4], body: &[u8]) -> [u8; 8] {
    let hash: [u8; 32] =
        Sha256::new().chain_update(tag).chain_update(length).chain_update(body).finalize().into();
    *hash.first_chunk().expect("32 bytes have 8")
}

/// Writes a block; returns how many bytes it took.
pub fn put_block(out: &mut impl Write, tag: [u8; 4], body: &[u8]) -> std::io::Result<u64> {
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= BLOCK_BYTES_MAX);
    let length = length.ok_or_else(|| std::io::Error::other("a block of a trace is too long"))?.to_le_bytes();
    out.write_all(&tag)?;
    out.write_all(&length)?;
    out.write_all(&check(tag, length, body))?;
    out.write_all(body)?;
    Ok(FRAME_BYTES + body.len() as u64)
}

/// Reads a block that must have this tag.
pub fn block(from: &mut impl Read, tag: [u8; 4]) -> Result<Vec<u8>, TraceError> {
    let (mut found, mut length, mut told) = ([0; 4], [0; 4], [0; 8]);
    for bytes in [&mut found[..], &mut length[..], &mut told[..]] {
        whole(from, bytes)?;
    }
    let bytes = u32::from_le_bytes(length);
    if found != tag || bytes > BLOCK_BYTES_MAX {
        return Err(TraceError::Corrupt("there is no block where one should be"));
    }
    // Not taken at its word: memory grows with what is there.
    let mut body = Vec::new();
    from.take(u64::from(bytes)).read_to_end(&mut body)?;
    if body.len() < bytes as usize {
        return Err(TraceError::Truncated);
    }
    if check(tag, length, &body) != told {
        return Err(TraceError::Corrupt("a block is not as it was written"));
    }
    Ok(body)
}

/// Fills all of `bytes`.
pub fn whole(from: &mut impl Read, bytes: &mut [u8]) -> Result<(), TraceError> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => TraceError::Truncated,
        _ => TraceError::Io(error),
    })
}
