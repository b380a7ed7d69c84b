//! What a simulated file holds, in chunks: a large one grows without being moved, and what
//! it gives back is just what the next one takes.

use std::ops::Range;

/// All but the last are as long as this.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Content {
    /// The last is not empty.
    chunks: Vec<Vec<u8>>,
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK_BYTES + last.len())
    }

    /// The bytes of a range, as far as there are any, in order.
    pub(super) fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let (from, to) = (range.start, range.end.min(self.len()));
        let mut at = from;
        std::iter::from_fn(move || {
            if at >= to {
                return None;
            }
            let (chunk, offset) = (&self.chunks[at / CHUNK_BYTES], at % CHUNK_BYTES);
            let piece = &chunk[offset..chunk.len().min(offset + to - at)];
            at += piece.len();
            Some(piece)
        })
    }

    pub(super) fn copy(&self, range: Range<usize>) -> Vec<u8> {
        let mut copy = Vec::with_capacity(range.end.min(self.len()).saturating_sub(range.start));
        self.pieces(range).for_each(|piece| copy.extend_from_slice(piece));
        copy
    }

    /// Fills the buffer from there on; how much there was.
    pub(super) fn read(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let mut read = 0;
        for piece in self.pieces(offset..offset.saturating_add(buffer.len())) {
            buffer[read..read + piece.len()].copy_from_slice(piece);
            read += piece.len();
        }
        read
    }

    /// Writes over what is there, and behind it; what is skipped is zero.
    pub(super) fn put(&mut self, offset: usize, data: &[u8]) {
        if offset > self.len() {
            self.resize(offset);
        }
        let (mut at, mut data) = (offset, data);
        while !data.is_empty() {
            if at / CHUNK_BYTES == self.chunks.len() {
                self.chunks.push(Vec::new());
            }
            let (chunk, offset) = (&mut self.chunks[at / CHUNK_BYTES], at % CHUNK_BYTES);
            let (here, rest) = data.split_at(data.len().min(CHUNK_BYTES - offset));
            let over = here.len().min(chunk.len() - offset);
            chunk[offset..offset + over].copy_from_slice(&here[..over]);
            chunk.extend_from_slice(&here[over..]);
            (at, data) = (at + here.len(), rest);
        }
    }

    /// Cuts it off, or puts zeros behind it.
    pub(super) fn resize(&mut self, len: usize) {
        let chunks = len.div_ceil(CHUNK_BYTES);
        if let Some(last) = self.chunks.last_mut().filter(|_| chunks > 0) {
            // Whole, unless it stays the last.
            last.resize(CHUNK_BYTES, 0);
        }
        self.chunks.resize_with(chunks, || vec![0; CHUNK_BYTES]);
        if let Some(last) = self.chunks.last_mut() {
            last.resize(len - (chunks - 1) * CHUNK_BYTES, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_holds_what_a_vector_would(
            changes in prop::collection::vec((0..3 * CHUNK_BYTES, 0..2 * CHUNK_BYTES, any::<Option<u8>>()), 1..12),
        ) {
            let (mut content, mut vector) = (Content::default(), Vec::new());
            for (at, len, byte) in changes {
                match byte {
                    Some(byte) => {
                        content.put(at, &vec![byte; len]);
                        vector.resize(vector.len().max(at + len).max(at), 0);
                        vector[at..at + len].fill(byte);
                    }
                    None => {
                        content.resize(at);
                        vector.resize(at, 0);
                    }
                }
                prop_assert_eq!(content.len(), vector.len());
                prop_assert!(content.copy(0..usize::MAX) == vector);
                let mut read = vec![0; len];
                let there = content.read(at, &mut read);
                prop_assert_eq!(&read[..there], &vector[at.min(vector.len())..(at + len).min(vector.len())]);
            }
        }
    }
}
