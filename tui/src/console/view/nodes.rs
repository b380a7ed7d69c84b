//! The list of nodes.

use super::{
    layout,
    paint::{Paint, Pen, bar, number},
    table::{self, Column},
};
use crate::{
    console::{
        clock,
        model::{Model, is_late},
    },
    words,
};
use proto::{
    units,
    v1::{NodeState, NodeView, Resources},
};
use ratatui::layout::Rect;

#[rustfmt::skip]
const COLUMNS: [Column; 10] = [
    Column { title: "NODE", width: 14, right: false, grows: true, weight: 9 },
    Column { title: "POOL", width: 10, right: false, grows: false, weight: 6 },
    Column { title: "STATE", width: 7, right: false, grows: false, weight: 8 },
    Column { title: "", width: 10, right: false, grows: false, weight: 3 },
    Column { title: "CORES", width: 11, right: true, grows: false, weight: 7 },
    Column { title: "MEMORY", width: 15, right: true, grows: false, weight: 5 },
    Column { title: "GPUS", width: 5, right: true, grows: false, weight: 2 },
    Column { title: "HEARD", width: 8, right: true, grows: false, weight: 4 },
    Column { title: "ADDRESS", width: 15, right: false, grows: false, weight: 1 },
    Column { title: "REASON", width: 20, right: false, grows: false, weight: 0 },
];

pub(super) fn draw(model: &Model, pen: &mut Pen<'_>, body: Rect) {
    let head = layout::list_head(body);
    let nodes = model.node_rows();
    if head == 2 {
        headline(model, nodes.len(), pen, layout::rows(body, 0, 1));
    }
    let places = table::place(&COLUMNS, body.width.saturating_sub(1));
    let indent =
        |line: Rect| Rect { x: line.x + line.width.min(1), width: line.width.saturating_sub(1), ..line };
    if head > 0 {
        table::header(pen, indent(layout::rows(body, head - 1, head)), &COLUMNS, &places);
    }
    let rows = layout::rows(body, head, body.height);
    let window = model.node_window;
    let cursor = window.at.saturating_sub(window.top);
    let shown = window.shown(nodes.len());
    for (row, node) in (0..rows.height).zip(&nodes[shown]) {
        let line = layout::rows(rows, row, row + 1);
        table::row(pen, indent(line), &COLUMNS, &places, &cells(node, model.now_ms));
        if usize::from(row) == cursor {
            pen.select(line);
        }
    }
    if nodes.is_empty() {
        let text = match &model.nodes {
            None => "loading …",
            Some(all) if all.is_empty() => "no nodes; `drumline agent` starts one",
            Some(_) => "no node passes the filter; Esc shows all",
        };
        pen.put_cut(indent(layout::rows(rows, 0, 1)), text, Paint::Dim);
    }
}

fn headline(model: &Model, shown: usize, pen: &mut Pen<'_>, line: Rect) {
    let all = model.nodes.as_ref().map_or(0, Vec::len) as u64;
    let text = match model.node_filter.as_str() {
        "" => format!(" {} nodes", number(all)),
        filter => format!(" {} of {} nodes: “{filter}”", number(shown as u64), number(all)),
    };
    pen.put_cut(line, &text, Paint::Bold);
}

pub(super) fn paint_of(state: NodeState, drained: bool) -> Paint {
    match (state, drained) {
        (NodeState::Lost, _) => Paint::Bad,
        (NodeState::Suspect, _) | (_, true) => Paint::Warn,
        _ => Paint::Good,
    }
}

/// `1.5/8`.
pub(super) fn cores(used: &Resources, all: &Resources) -> String {
    let text = |millicores: u32| units::format_millicores(u64::from(millicores));
    format!("{}/{}", text(used.millicores), text(all.millicores))
}

/// `1GiB/8GiB`.
pub(super) fn memory(used: u64, all: u64) -> String {
    format!("{}/{}", units::brief_memory_bytes(used), units::brief_memory_bytes(all))
}

fn cells(node: &NodeView, now_ms: u64) -> [(String, Paint); 10] {
    let row = node.row.clone().unwrap_or_default();
    let (used, all) = (node.used.unwrap_or_default(), row.capacity.unwrap_or_default());
    let paint = paint_of(row.state(), row.drained);
    let state = words::node_state(row.state(), row.drained).to_owned();
    let heard = match node.last_heard_ms {
        0 => "-".to_owned(),
        at if is_late(at, now_ms) => format!("{} ago", clock::age(at, now_ms)),
        _ => "now".to_owned(),
    };
    let late = is_late(node.last_heard_ms, now_ms);
    [
        (row.name, Paint::Plain),
        (row.pool, Paint::Plain),
        (state, paint),
        (bar(u64::from(used.millicores), u64::from(all.millicores), 10), Paint::Busy),
        (cores(&used, &all), Paint::Plain),
        (memory(used.memory_bytes, all.memory_bytes), Paint::Plain),
        (format!("{}/{}", used.gpus, all.gpus), Paint::Plain),
        (heard, if late { Paint::Warn } else { Paint::Dim }),
        (row.address, Paint::Dim),
        (row.drain_reason, Paint::Plain),
    ]
}
