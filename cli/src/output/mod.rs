//! What commands write to standard output: tables for people, JSON for
//! programs, names for pipes. Nothing here panics when the reader leaves.

pub mod words;

use crate::failure::Failure;
use comfy_table::{ContentArrangement, Table as Grid, presets};
use std::io::{self, IsTerminal as _, Write as _};

pub use proto::json;

/// Writes text as it is.
pub fn text(text: &str) -> Result<(), Failure> {
    bytes(text.as_bytes())
}

/// Writes one line.
pub fn line(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Writes bytes as they are.
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Writes to standard error, where notes go that are no result.
pub fn note(line: &str) {
    // Nobody is left to be told where this fails.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes one value, indented.
pub fn json(value: &serde_json::Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).expect("a value of our own making encodes");
    line(&text)
}

/// Whether notes go to a person who watches.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Rows below headers, without lines between.
#[derive(Debug)]
pub struct Table {
    grid: Grid,
    empty: bool,
}
impl Table {
    /// With these headers.
    #[must_use]
    pub fn new(headers: &[&str]) -> Self {
        let mut grid = Grid::new();
        grid.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        grid.set_header(headers.iter().copied());
        for column in grid.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { grid, empty: true }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.empty = false;
        // A cell is one line, whatever was put into it.
        let cells = cells.into_iter().map(|cell| cell.replace(['\n', '\r', '\t'], " "));
        self.grid.add_row(cells);
    }

    /// As text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for line in self.grid.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Writes it; where there is nothing, `nothing` on standard error instead.
    pub fn print(&self, nothing: &str) -> Result<(), Failure> {
        if self.empty {
            note(nothing);
            return Ok(());
        }
        text(&self.render())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_columns() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.row(vec!["default-1".into(), "a\nb".into()]);
        table.row(vec!["x-10".into(), String::new()]);
        assert_eq!(table.render(), "ID         NAME\ndefault-1  a b\nx-10\n");
    }
}
