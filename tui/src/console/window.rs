//! A cursor in a long list, and the part of the list that is on the screen.
//!
//! What must hold after [`Window::fit`]: the cursor is on a row (where there is
//! one) and within the window; the window shows no emptiness while there are
//! rows above it.

use std::ops::Range;

/// How a cursor moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

/// Row numbers are from 0; `height` is how many rows fit on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    pub at: usize,
    pub top: usize,
    pub height: usize,
}

impl Window {
    /// Moves the cursor in a list of so many rows.
    pub(crate) fn go(&mut self, to: Move, rows: usize) {
        let page = self.height.saturating_sub(1).max(1);
        self.at = match to {
            Move::Up => self.at.saturating_sub(1),
            Move::Down => self.at.saturating_add(1),
            Move::PageUp => self.at.saturating_sub(page),
            Move::PageDown => self.at.saturating_add(page),
            Move::Home => 0,
            Move::End => rows.saturating_sub(1),
        };
        self.fit(rows);
    }

    /// Moves what is shown, without a cursor: `at` is then the first row shown.
    pub(crate) fn scroll(&mut self, to: Move, rows: usize) {
        let page = self.height.saturating_sub(1).max(1);
        let last = rows.saturating_sub(self.height);
        self.top = match to {
            Move::Up => self.top.saturating_sub(1),
            Move::Down => self.top.saturating_add(1),
            Move::PageUp => self.top.saturating_sub(page),
            Move::PageDown => self.top.saturating_add(page),
            Move::Home => 0,
            Move::End => last,
        }
        .min(last);
        self.at = self.top;
    }

    /// The row under the cursor is now in another place. A window that is not
    /// at the list's beginning goes along, so that its rows stand still.
    pub(crate) fn follow(&mut self, at: usize, rows: usize) {
        if self.top > 0 {
            self.top =
                if at >= self.at { self.top + (at - self.at) } else { self.top.saturating_sub(self.at - at) };
        }
        self.at = at;
        self.fit(rows);
    }

    /// Puts cursor and window where there are rows.
    pub(crate) fn fit(&mut self, rows: usize) {
        self.at = self.at.min(rows.saturating_sub(1));
        let height = self.height.max(1);
        self.top = self.top.min(self.at).max((self.at + 1).saturating_sub(height));
        self.top = self.top.min(rows.saturating_sub(height));
    }

    /// The rows on the screen.
    pub(crate) fn shown(&self, rows: usize) -> Range<usize> {
        let top = self.top.min(rows);
        top..rows.min(top.saturating_add(self.height))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_window_at_the_beginning_stays_there_a_later_one_goes_along() {
        let mut window = Window { at: 2, top: 0, height: 10 };
        window.follow(5, 100);
        assert_eq!((window.at, window.top), (5, 0));
        window.follow(12, 100);
        assert_eq!((window.at, window.top), (12, 3));
        window.follow(14, 100);
        assert_eq!((window.at, window.top), (14, 5));
        window.follow(13, 100);
        assert_eq!((window.at, window.top), (13, 4));
    }

    proptest! {
        #[test]
        fn the_cursor_is_always_on_a_row_that_is_shown(
            height in 0_usize..30,
            steps in prop::collection::vec((0_usize..8, 0_usize..60), 1..60),
        ) {
            let mut window = Window { height, ..Window::default() };
            for (step, rows) in steps {
                match step {
                    0 => window.go(Move::Up, rows),
                    1 => window.go(Move::Down, rows),
                    2 => window.go(Move::PageUp, rows),
                    3 => window.go(Move::PageDown, rows),
                    4 => window.go(Move::Home, rows),
                    5 => window.go(Move::End, rows),
                    6 => window.follow(rows / 2, rows),
                    _ => { window.scroll(Move::Down, rows); window.fit(rows) }
                }
                let shown = window.shown(rows);
                prop_assert!(shown.end <= rows && shown.len() <= height);
                prop_assert!(rows == 0 || window.at < rows);
                prop_assert!(rows == 0 || height == 0 || shown.contains(&window.at), "{window:?} of {rows}");
                prop_assert_eq!(shown.len(), height.min(rows));
            }
        }
    }
}
