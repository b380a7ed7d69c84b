//! What lies over the screens: the help, and the question before a cancel.

use super::{
    layout,
    paint::{Paint, Pen, cut, width},
};
use crate::console::{keys::BINDINGS, model::Model};
use proto::ids::JobId;
use ratatui::layout::Rect;

/// All keys, from the same table that they are looked up in.
pub(super) fn help(model: &Model, pen: &mut Pen<'_>, body: Rect) {
    let keys = BINDINGS.iter().map(|binding| width(binding.shown)).max().unwrap_or(0);
    let shown = model.help.shown(BINDINGS.len());
    for (row, binding) in (0..).zip(&BINDINGS[shown]) {
        let line = layout::rows(body, row, row + 1);
        let rest = pen.put(line, &format!("  {}", binding.shown), Paint::Bold);
        let column = u16::try_from(keys + 4).unwrap_or(u16::MAX);
        let gap = column.saturating_sub(line.width - rest.width).min(rest.width);
        pen.put_cut(Rect { x: rest.x + gap, width: rest.width - gap, ..rest }, binding.help, Paint::Plain);
    }
}

/// Asks before a job is cancelled.
pub(super) fn cancel(pen: &mut Pen<'_>, body: Rect, id: &JobId, name: &str) {
    let question = match name {
        "" => format!("Cancel {id}?"),
        name => format!("Cancel {id} ({})?", cut(name, 40)),
    };
    let lines = [
        question.as_str(),
        "What runs is ended, what waits is not begun.",
        "",
        "y  cancel it     n  let it be",
    ];
    let inner = lines.iter().map(|line| width(line)).max().unwrap_or(0);
    let inner = u16::try_from(inner).unwrap_or(u16::MAX);
    let area = middle(body, inner.saturating_add(6), 6);
    pen.blank(area);
    // Without room for a frame, the question alone.
    if area.height < 6 || area.width < 10 {
        let short = format!("cancel {id}? y/n");
        pen.put_cut(layout::rows(area, 0, 1), &short, Paint::Bold);
        return;
    }
    frame(pen, area);
    for (row, text) in (1..).zip(lines) {
        let line = layout::rows(area, row, row + 1);
        let line = Rect { x: line.x + 3, width: line.width.saturating_sub(6), ..line };
        pen.put_cut(line, text, if row == 1 { Paint::Bold } else { Paint::Plain });
    }
}

fn middle(body: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(body.width), height.min(body.height));
    Rect { x: body.x + (body.width - width) / 2, y: body.y + (body.height - height) / 2, width, height }
}

fn frame(pen: &mut Pen<'_>, area: Rect) {
    let edge = "─".repeat(usize::from(area.width.saturating_sub(2)));
    pen.put(layout::rows(area, 0, 1), &format!("┌{edge}┐"), Paint::Plain);
    pen.put(layout::rows(area, area.height - 1, area.height), &format!("└{edge}┘"), Paint::Plain);
    for row in 1..area.height - 1 {
        let line = layout::rows(area, row, row + 1);
        pen.put(line, "│", Paint::Plain);
        pen.put_right(line, "│", Paint::Plain);
    }
}
