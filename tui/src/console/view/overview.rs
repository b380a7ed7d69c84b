//! The whole cluster at a glance: what there is, what is used, what happened.

use super::{
    jobs, layout,
    nodes::memory,
    paint::{Paint, Pen, bar, number, width},
    table::{self, Column},
};
use crate::{
    console::{clock, model::Model},
    words,
};
use proto::{
    units,
    v1::{NodeState, NodeView, PoolView},
};
use ratatui::layout::Rect;

#[rustfmt::skip]
const POOLS: [Column; 6] = [
    Column { title: "POOL", width: 12, right: false, grows: true, weight: 9 },
    Column { title: "NODES", width: 6, right: true, grows: false, weight: 7 },
    Column { title: "CORES USED", width: 14, right: true, grows: false, weight: 6 },
    Column { title: "MEMORY USED", width: 19, right: true, grows: false, weight: 5 },
    Column { title: "GPUS USED", width: 9, right: true, grows: false, weight: 4 },
    Column { title: "QUEUED", width: 8, right: true, grows: false, weight: 8 },
];

/// Columns of labels at the left.
const LABELS: usize = 8;

pub(super) fn draw(model: &Model, pen: &mut Pen<'_>, body: Rect) {
    let line = |row: u16| layout::rows(body, row, row + 1);
    nodes(model, pen, line(0));
    let mut at = 1;
    for gauge in gauges(model) {
        gauge.draw(pen, line(at));
        at += 1;
    }
    let rest = label(pen, line(at), "jobs");
    let rest = jobs::counts(&model.jobs, pen, Rect { x: rest.x, ..rest });
    if model.tenants.len() == 0 || model.tenants.is_loading() {
        pen.put(rest, "  loading …", Paint::Dim);
    } else if model.jobs.len() == 0 {
        pen.put(rest, "  none", Paint::Dim);
    }
    at += 1;
    if model.tenants.left_out > 0 {
        let text = format!(
            " of {} tenants the first {} are shown; --tenant shows another",
            model.tenants.len() + model.tenants.left_out,
            model.tenants.len()
        );
        pen.put_cut(line(at), &text, Paint::Warn);
        at += 1;
    }
    // One empty line between parts, where there is room for such luxury.
    let gap = u16::from(body.height >= 16);
    at += gap;
    let pools = layout::rows(body, at, at + (body.height.saturating_sub(at) / 2).max(2));
    at += draw_pools(model, pen, pools) + gap;
    recent(model, pen, layout::rows(body, at, body.height));
}

fn label(pen: &mut Pen<'_>, line: Rect, text: &str) -> Rect {
    pen.put(line, &format!(" {text:<LABELS$}"), Paint::Dim)
}

fn nodes(model: &Model, pen: &mut Pen<'_>, line: Rect) {
    let mut rest = label(pen, line, "nodes");
    let Some(nodes) = &model.nodes else {
        pen.put(rest, "  loading …", Paint::Dim);
        return;
    };
    let count = |wanted: fn(NodeState, bool) -> bool| {
        let is = |node: &&NodeView| node.row.as_ref().is_some_and(|row| wanted(row.state(), row.drained));
        nodes.iter().filter(is).count() as u64
    };
    let groups: [(&str, Paint, u64); 4] = [
        ("ready", Paint::Good, count(|state, drained| state == NodeState::Ready && !drained)),
        ("drained", Paint::Warn, count(|state, drained| state != NodeState::Lost && drained)),
        ("suspect", Paint::Warn, count(|state, drained| state == NodeState::Suspect && !drained)),
        ("lost", Paint::Bad, count(|state, _| state == NodeState::Lost)),
    ];
    if nodes.is_empty() {
        pen.put(rest, "  none; `drumline agent` starts one", Paint::Dim);
    }
    for (name, paint, count) in groups {
        if count > 0 {
            rest = pen.put(rest, &format!("  {} ", number(count)), paint);
            rest = pen.put(rest, name, Paint::Plain);
        }
    }
}

/// How much of something is in use.
struct Gauge {
    name: &'static str,
    used: u64,
    all: u64,
    text: String,
}

impl Gauge {
    fn draw(&self, pen: &mut Pen<'_>, line: Rect) {
        let rest = label(pen, line, self.name);
        let rest = pen.put(rest, "  ", Paint::Plain);
        let cells = usize::from(rest.width).saturating_sub(width(&self.text) + 2).min(40);
        let rest = pen.put(rest, &bar(self.used, self.all, cells), Paint::Busy);
        pen.put_cut(rest, &format!("  {}", self.text), Paint::Plain);
    }
}

/// Sums over all nodes that are not lost.
fn gauges(model: &Model) -> Vec<Gauge> {
    let mut cores = (0_u64, 0_u64);
    let mut bytes = (0_u64, 0_u64);
    let mut gpus = (0_u64, 0_u64);
    for node in model.nodes.iter().flatten() {
        let Some(row) = node.row.as_ref().filter(|row| row.state() != NodeState::Lost) else { continue };
        let (used, all) = (node.used.unwrap_or_default(), row.capacity.unwrap_or_default());
        cores = (cores.0 + u64::from(used.millicores), cores.1 + u64::from(all.millicores));
        bytes = (bytes.0.saturating_add(used.memory_bytes), bytes.1.saturating_add(all.memory_bytes));
        gpus = (gpus.0 + u64::from(used.gpus), gpus.1 + u64::from(all.gpus));
    }
    let whole = |millicores: u64| units::format_millicores(millicores);
    let mut gauges = vec![
        Gauge {
            name: "cores",
            used: cores.0,
            all: cores.1,
            text: format!("{} of {}", whole(cores.0), whole(cores.1)),
        },
        Gauge {
            name: "memory",
            used: bytes.0,
            all: bytes.1,
            text: format!("{} of {}", units::brief_memory_bytes(bytes.0), units::brief_memory_bytes(bytes.1)),
        },
    ];
    if gpus.1 > 0 {
        let text = format!("{} of {}", gpus.0, gpus.1);
        gauges.push(Gauge { name: "gpus", used: gpus.0, all: gpus.1, text });
    }
    gauges
}

/// Draws the pools that fit; how many rows that took.
fn draw_pools(model: &Model, pen: &mut Pen<'_>, area: Rect) -> u16 {
    let Some(pools) = model.pools.as_ref().filter(|pools| !pools.is_empty()) else { return 0 };
    let indent =
        |line: Rect| Rect { x: line.x + line.width.min(1), width: line.width.saturating_sub(1), ..line };
    // A table as wide as the screen is hard to read.
    let places = table::place(&POOLS, area.width.saturating_sub(1).min(110));
    table::header(pen, indent(layout::rows(area, 0, 1)), &POOLS, &places);
    let room = usize::from(area.height.saturating_sub(1));
    let shown = if pools.len() > room { room.saturating_sub(1) } else { pools.len() };
    let mut row = 1;
    for pool in pools.iter().take(shown) {
        table::row(pen, indent(layout::rows(area, row, row + 1)), &POOLS, &places, &pool_cells(pool));
        row += 1;
    }
    if shown < pools.len() {
        let text = format!("  and {} more; `drumline pools` lists them", pools.len() - shown);
        pen.put_cut(layout::rows(area, row, row + 1), &text, Paint::Dim);
        row += 1;
    }
    row.min(area.height)
}

fn pool_cells(pool: &PoolView) -> [(String, Paint); 6] {
    let (all, free) = (pool.capacity.unwrap_or_default(), pool.free.unwrap_or_default());
    let cores = |millicores: u32| units::format_millicores(u64::from(millicores));
    [
        (pool.name.clone(), Paint::Plain),
        (pool.nodes.to_string(), Paint::Plain),
        (
            format!("{}/{}", cores(all.millicores.saturating_sub(free.millicores)), cores(all.millicores)),
            Paint::Plain,
        ),
        (memory(all.memory_bytes.saturating_sub(free.memory_bytes), all.memory_bytes), Paint::Plain),
        (format!("{}/{}", all.gpus.saturating_sub(free.gpus), all.gpus), Paint::Plain),
        (number(pool.queued_slots), if pool.queued_slots > 0 { Paint::Busy } else { Paint::Dim }),
    ]
}

/// What happened last, newest first.
fn recent(model: &Model, pen: &mut Pen<'_>, area: Rect) {
    pen.put(layout::rows(area, 0, 1), " RECENT (UTC)", Paint::Header);
    for (row, recent) in (1..area.height).zip(model.recent.iter().rev()) {
        let line = layout::rows(area, row, row + 1);
        let event = &recent.event;
        let id = words::job_id(&recent.tenant, event.job_number);
        let rest = pen.put(line, &format!(" {}  ", clock::time_of_day(event.at_ms)), Paint::Dim);
        let rest = pen.put(rest, &format!("{:<20}  ", words::event_subject(event, &id, None)), Paint::Plain);
        pen.put_cut(rest, &words::event_change(event), Paint::of(event.to()));
    }
    if model.recent.is_empty() {
        pen.put(layout::rows(area, 1, 2), " nothing since this was opened", Paint::Dim);
    }
}
