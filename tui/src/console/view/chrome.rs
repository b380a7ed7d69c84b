//! What is on every screen: the title, the status line, the hints.

use super::paint::{Paint, Pen, width};
use crate::console::{
    clock,
    keys::{Action, BINDINGS, Binding},
    model::{Model, Overlay, Screen},
};
use ratatui::layout::{Position, Rect};

const SCREENS: [(Screen, &str); 3] =
    [(Screen::Overview, "1 overview"), (Screen::Jobs, "2 jobs"), (Screen::Nodes, "3 nodes")];

/// The name, the screens, the server.
pub(super) fn title(model: &Model, pen: &mut Pen<'_>, line: Rect) {
    let mut rest = pen.put(line, " drumline top ", Paint::Bold);
    for (screen, name) in SCREENS {
        rest = tab(pen, rest, name, model.screen == screen);
    }
    if let Some(detail) = &model.detail {
        rest = tab(pen, rest, &detail.id.to_string(), true);
    }
    let mut whose = model.settings.server.clone();
    if !model.settings.tenant.is_empty() {
        whose = format!("{} of {whose}", model.settings.tenant);
    }
    if usize::from(rest.width) > width(&whose) + 2 {
        pen.put_right(Rect { width: rest.width - 1, ..rest }, &whose, Paint::Dim);
    }
}

fn tab(pen: &mut Pen<'_>, rest: Rect, name: &str, is_shown: bool) -> Rect {
    if is_shown {
        pen.put(rest, &format!("[{name}]"), Paint::Bold)
    } else {
        pen.put(rest, &format!(" {name} "), Paint::Plain)
    }
}

/// What there is to tell: what was just done, or who does not answer.
pub(crate) fn status(model: &Model) -> Option<(String, bool)> {
    if let Some(notice) = &model.notice {
        return Some((notice.text.clone(), notice.bad));
    }
    let told = model.feeds.worst()?;
    let since = clock::time_of_day(told.since_ms);
    let what = if told.away { "the server is out of reach" } else { "the server refuses" };
    Some((format!("{what} since {since} UTC: {}", told.text), true))
}

/// The status line, or the filter while it is written; then where the cursor is.
pub(super) fn status_line(model: &Model, pen: &mut Pen<'_>, line: Rect) -> Option<Position> {
    if model.typing {
        let text = if model.screen == Screen::Nodes { &model.node_filter } else { &model.jobs.filter().text };
        let rest = pen.put(line, " filter: ", Paint::Bold);
        // Of a long one the end is shown, where it is written.
        let room = usize::from(rest.width.saturating_sub(1));
        let mut shown = text.as_str();
        while width(shown) > room {
            let Some(first) = shown.chars().next() else { break };
            shown = &shown[first.len_utf8()..];
        }
        let rest = pen.put(rest, shown, Paint::Plain);
        return (!rest.is_empty()).then_some(Position { x: rest.x, y: rest.y });
    }
    if let Some((text, bad)) = status(model) {
        pen.put_cut(line, &format!(" {text}"), if bad { Paint::Bad } else { Paint::Bold });
    }
    None
}

/// The keys that matter here.
pub(super) fn hints(model: &Model, pen: &mut Pen<'_>, line: Rect) {
    let mut rest = pen.put(line, " ", Paint::Plain);
    let mut hint = |keys: &str, what: &str| {
        // A hint that is cut in two says nothing.
        if usize::from(rest.width) > width(keys) + width(what) {
            rest = pen.put(rest, keys, Paint::Bold);
            rest = pen.put(rest, &format!(" {what}  "), Paint::Dim);
        }
    };
    match (&model.overlay, model.typing) {
        (Overlay::Cancel { .. }, _) => {
            hint("y", "cancel the job");
            hint("n", "let it be");
        }
        (Overlay::Help, _) => {
            hint("↑ ↓", "scroll");
            hint("Esc", "back");
        }
        (Overlay::None, true) => {
            hint("Enter", "keep");
            hint("Esc", "without filter");
        }
        (Overlay::None, false) => {
            let here = |binding: &&Binding| !binding.hint.is_empty() && binding.on.contains(&model.screen);
            let is_help = |binding: &&Binding| binding.action == Action::Help;
            // Help first: it tells what has no room here.
            let (first, rest) =
                (BINDINGS.iter().filter(is_help), BINDINGS.iter().filter(|other| !is_help(other)));
            for binding in first.chain(rest).filter(here) {
                hint(binding.shown.split(' ').next().unwrap_or_default(), binding.hint);
            }
        }
    }
}
