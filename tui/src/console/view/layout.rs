//! Where things are. The model asks here too: how far a page is depends on how
//! many rows there are. Every function gives areas within the one it is given.

use crate::console::detail::{Detail, Pane};
use ratatui::layout::Rect;

/// The whole terminal.
pub(crate) fn whole(columns: u16, rows: u16) -> Rect {
    Rect::new(0, 0, columns, rows)
}

/// Rows `from` to `to` of an area, as far as it has them.
pub(super) fn rows(area: Rect, from: u16, to: u16) -> Rect {
    let (from, to) = (from.min(area.height), to.min(area.height));
    Rect { y: area.y + from, height: to.saturating_sub(from), ..area }
}

/// Heights of title, status line and hints: what a small terminal has no room
/// for is left out, the hints last.
fn chrome(height: u16) -> (u16, u16, u16) {
    match height {
        0..3 => (0, 0, 0),
        3 => (1, 0, 0),
        4 => (1, 1, 0),
        _ => (1, 1, 1),
    }
}

pub(crate) fn title(area: Rect) -> Rect {
    rows(area, 0, chrome(area.height).0)
}

pub(crate) fn status(area: Rect) -> Rect {
    let (_, status, hints) = chrome(area.height);
    rows(area, area.height - hints - status, area.height - hints)
}

pub(crate) fn hints(area: Rect) -> Rect {
    rows(area, area.height - chrome(area.height).2, area.height)
}

/// What the screens have.
pub(crate) fn body(area: Rect) -> Rect {
    let (title, status, hints) = chrome(area.height);
    rows(area, title, area.height - status - hints)
}

/// A list's headline and header of columns.
pub(super) fn list_head(area: Rect) -> u16 {
    match area.height {
        0..3 => 0,
        3..6 => 1,
        _ => 2,
    }
}

/// Rows that a list has below these.
pub(crate) fn list_rows(area: Rect) -> usize {
    usize::from(area.height - list_head(area))
}

/// Rows below a header of one line.
pub(crate) fn below_header(area: Rect) -> usize {
    usize::from(area.height.saturating_sub(1))
}

/// The parts of one job's screen; what is not shown has no height.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobParts {
    pub head: Rect,
    pub steps: Rect,
    pub why: Rect,
    pub log: Rect,
}

/// Lines that tell what a job is.
const HEAD: u16 = 4;
/// Lines of why it waits, where there are other parts too.
const WHY: u16 = 3;

pub(crate) fn job(body: Rect, detail: &Detail) -> JobParts {
    let head = rows(body, 0, HEAD.min(body.height / 2));
    let rest = rows(body, head.height, body.height);
    let none = rows(rest, 0, 0);
    let parts = JobParts { head, steps: none, why: none, log: none };
    match detail.pane {
        Pane::Steps => JobParts { steps: rest, ..parts },
        Pane::Why => JobParts { why: rest, ..parts },
        Pane::Log => JobParts { log: rest, ..parts },
        Pane::All => {
            let short = |rows: usize| u16::try_from(rows).unwrap_or(u16::MAX);
            let steps = short(detail.step_rows()).saturating_add(1).min(rest.height / 3);
            // One line between the parts, where there is room.
            let why = short(detail.why_row_count()).min(WHY).min(rest.height / 4);
            let gap = u16::from(rest.height >= 12);
            let why_at = steps + gap;
            let log_at = why_at + why + gap * u16::from(why > 0);
            JobParts {
                head,
                steps: rows(rest, 0, steps),
                why: rows(rest, why_at, why_at + why),
                log: rows(rest, log_at, rest.height),
            }
        }
    }
}
