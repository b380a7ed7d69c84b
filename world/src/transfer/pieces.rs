//! Which bytes of a file are there while several connections bring it in pieces.
//!
//! What must hold: of each piece the bytes from its beginning are there, as many as
//! were told, and no byte is taken by two connections at once.

use std::ops::Range;

/// Pieces of one file at most: of a longer one they are larger.
const PIECES_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Pieces {
    total: u64,
    piece_bytes: u64,
    list: Vec<Piece>,
    /// All before it are whole.
    whole: usize,
}

#[derive(Clone, Debug, Default)]
struct Piece {
    /// Bytes from its beginning.
    there: u64,
    taken: bool,
}

impl Pieces {
    pub(super) fn new(total: u64, piece_bytes: u64) -> Self {
        assert!(piece_bytes > 0, "a piece has bytes");
        let piece_bytes = piece_bytes.max(total.div_ceil(PIECES_MAX));
        let count = usize::try_from(total.div_ceil(piece_bytes)).expect("at most PIECES_MAX");
        Self { total, piece_bytes, list: vec![Piece::default(); count], whole: 0 }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    fn span(&self, index: usize) -> Range<u64> {
        let start = index as u64 * self.piece_bytes;
        start..self.total.min(start + self.piece_bytes)
    }

    /// What is missing of the first piece that nobody brings; it is taken now.
    pub(super) fn take(&mut self) -> Option<Range<u64>> {
        for index in self.whole..self.list.len() {
            let span = self.span(index);
            let piece = &mut self.list[index];
            if !piece.taken && span.start + piece.there < span.end {
                piece.taken = true;
                return Some(span.start + piece.there..span.end);
            }
        }
        None
    }

    fn at(&self, at: u64) -> usize {
        usize::try_from(at / self.piece_bytes).expect("a place in the file")
    }

    /// Whoever had taken the piece of this byte brings no more of it.
    pub(super) fn give_back(&mut self, at: u64) {
        let index = self.at(at);
        self.list[index].taken = false;
    }

    /// Nobody brings anything: a new try begins.
    pub(super) fn give_all_back(&mut self) {
        self.list.iter_mut().for_each(|piece| piece.taken = false);
    }

    /// So many bytes of one piece were written from `at` on.
    pub(super) fn came(&mut self, at: u64, bytes: u64) {
        let index = self.at(at);
        let span = self.span(index);
        let piece = &mut self.list[index];
        assert_eq!(span.start + piece.there, at, "a piece grows at its end");
        piece.there += bytes;
        assert!(span.start + piece.there <= span.end, "a piece ends where the next begins");
        while self.whole < self.list.len() && {
            let span = self.span(self.whole);
            self.list[self.whole].there == span.end - span.start
        } {
            self.whole += 1;
        }
    }

    /// Bytes from the beginning of the file without a gap.
    pub(super) fn in_a_row(&self) -> u64 {
        match self.list.get(self.whole) {
            Some(piece) => self.span(self.whole).start + piece.there,
            None => self.total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_piece_goes_on_where_it_broke() {
        let mut pieces = Pieces::new(25, 10);
        assert_eq!(pieces.take(), Some(0..10));
        assert_eq!(pieces.take(), Some(10..20));
        assert_eq!(pieces.take(), Some(20..25));
        assert_eq!(pieces.take(), None);
        pieces.came(10, 4);
        assert_eq!(pieces.in_a_row(), 0);
        pieces.came(0, 7);
        assert_eq!(pieces.in_a_row(), 7);
        pieces.came(7, 3);
        assert_eq!(pieces.in_a_row(), 14);
        pieces.came(20, 5);
        pieces.give_all_back();
        assert_eq!(pieces.take(), Some(14..20));
        assert_eq!(pieces.take(), None, "the others are whole");
        pieces.came(14, 1);
        pieces.give_back(14);
        assert_eq!(pieces.take(), Some(15..20));
        pieces.came(15, 5);
        assert_eq!(pieces.in_a_row(), 25);
    }

    #[test]
    fn a_file_of_any_length_has_few_pieces() {
        assert_eq!(Pieces::new(0, 8).take(), None);
        assert_eq!(Pieces::new(0, 8).in_a_row(), 0);
        let huge = Pieces::new(u64::MAX / 4, 8 << 20);
        assert!(huge.list.len() as u64 <= PIECES_MAX);
    }
}
