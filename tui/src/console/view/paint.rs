//! Text on cells: clipped, cut with an ellipsis, in colours or without.

use proto::v1::State;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::Span,
};
use std::borrow::Cow;

/// What a text is, rather than how it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Dim,
    Bold,
    Good,
    Bad,
    Busy,
    Warn,
    /// Headers of columns.
    Header,
}

impl Paint {
    pub(super) fn of(state: State) -> Self {
        match state {
            State::Completed => Self::Good,
            State::Failed => Self::Bad,
            State::Running | State::Staging => Self::Busy,
            State::Cancelled => Self::Warn,
            State::Pending | State::Unspecified => Self::Plain,
        }
    }

    /// Without colours, weight alone tells what matters.
    fn style(self, color: bool) -> Style {
        let plain = Style::new();
        match (self, color) {
            (Self::Plain, _) | (Self::Good | Self::Busy, false) => plain,
            (Self::Dim, _) => plain.add_modifier(Modifier::DIM),
            (Self::Bold, _) | (Self::Bad | Self::Warn, false) => plain.add_modifier(Modifier::BOLD),
            (Self::Good, true) => plain.fg(Color::Green),
            (Self::Bad, true) => plain.fg(Color::Red).add_modifier(Modifier::BOLD),
            (Self::Busy, true) => plain.fg(Color::Cyan),
            (Self::Warn, true) => plain.fg(Color::Yellow),
            (Self::Header, _) => plain.add_modifier(Modifier::UNDERLINED),
        }
    }
}

/// Writes into one frame. Areas outside it are cut to it.
pub(super) struct Pen<'a> {
    buffer: &'a mut Buffer,
    color: bool,
}

impl<'a> Pen<'a> {
    pub(super) fn new(buffer: &'a mut Buffer, color: bool) -> Self {
        Self { buffer, color }
    }

    /// Writes at the left of a line; what is left of the line is given back.
    pub(super) fn put(&mut self, line: Rect, text: &str, paint: Paint) -> Rect {
        let line = line.intersection(self.buffer.area);
        if line.is_empty() {
            return line;
        }
        let style = paint.style(self.color);
        let (x, _) = self.buffer.set_stringn(line.x, line.y, text, usize::from(line.width), style);
        let used = x.saturating_sub(line.x).min(line.width);
        Rect { x: line.x + used, width: line.width - used, ..line }
    }

    /// The same, cut with an ellipsis where it is too long.
    pub(super) fn put_cut(&mut self, line: Rect, text: &str, paint: Paint) -> Rect {
        self.put(line, &cut(text, usize::from(line.width)), paint)
    }

    /// Writes at the right end of a line.
    pub(super) fn put_right(&mut self, line: Rect, text: &str, paint: Paint) {
        let text = cut(text, usize::from(line.width));
        let width = u16::try_from(width(&text)).unwrap_or(line.width).min(line.width);
        self.put(Rect { x: line.x + line.width - width, width, ..line }, &text, paint);
    }

    /// Turns the colours of an area round: the cursor's row.
    pub(super) fn select(&mut self, area: Rect) {
        let area = area.intersection(self.buffer.area);
        self.buffer.set_style(area, Style::new().add_modifier(Modifier::REVERSED));
    }

    /// Makes an area blank.
    pub(super) fn blank(&mut self, area: Rect) {
        let area = area.intersection(self.buffer.area);
        for position in area.positions() {
            self.buffer[position].reset();
        }
    }
}

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { Span::raw(text).width() }
}

/// As much of a text as fits, with an ellipsis where that is not all.
pub(super) fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    if text.len() <= columns || width(text) <= columns {
        return Cow::Borrowed(text);
    }
    if columns == 0 {
        return Cow::Borrowed("");
    }
    let (mut used, mut end) = (0, 0);
    for (at, c) in text.char_indices() {
        let wide = width(&text[at..at + c.len_utf8()]);
        if used + wide > columns - 1 {
            break;
        }
        used += wide;
        end = at + c.len_utf8();
    }
    Cow::Owned(format!("{}…", &text[..end]))
}

/// `12,345`.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How full something is, in so many cells.
pub(super) fn bar(used: u64, all: u64, cells: usize) -> String {
    let full = if all == 0 { 0 } else { u128::from(used) * cells as u128 / u128::from(all) };
    let full = usize::try_from(full).unwrap_or(cells).min(cells);
    // Something is more than nothing.
    let full = if used > 0 { full.max(1).min(cells) } else { full };
    "█".repeat(full) + &"░".repeat(cells - full)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_cut_to_columns() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!((cut("abc", 1), cut("abc", 0)), ("…".into(), "".into()));
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(
            (number(7), number(1_234), number(1_000_000)),
            ("7".into(), "1,234".into(), "1,000,000".into())
        );
        assert_eq!(
            (bar(0, 0, 4), bar(1, 100, 4), bar(9, 4, 4)),
            ("░░░░".into(), "█░░░".into(), "████".into())
        );
    }

    proptest! {
        #[test]
        fn no_cut_is_too_wide(text in "\\PC{0,20}", columns in 0_usize..12) {
            prop_assert!(width(&cut(&text, columns)) <= columns.max(usize::from(text.is_empty())) || columns == 0);
        }
    }
}
