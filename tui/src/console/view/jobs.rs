//! The list of jobs: only what is in the window is looked at.

use super::{
    layout,
    paint::{Paint, Pen, number},
    table::{self, Column},
};
use crate::{
    console::{
        clock,
        jobs::{Job, Jobs},
        model::Model,
    },
    words,
};
use proto::v1::State;
use ratatui::layout::Rect;

#[rustfmt::skip]
const COLUMNS: [Column; 8] = [
    Column { title: "ID", width: 14, right: false, grows: false, weight: 9 },
    Column { title: "NAME", width: 12, right: false, grows: true, weight: 6 },
    Column { title: "STATE", width: 9, right: false, grows: false, weight: 8 },
    Column { title: "DONE", width: 13, right: true, grows: false, weight: 7 },
    Column { title: "FAILED", width: 6, right: true, grows: false, weight: 5 },
    Column { title: "PRIORITY", width: 8, right: true, grows: false, weight: 2 },
    Column { title: "AGE", width: 4, right: true, grows: false, weight: 4 },
    Column { title: "RAN", width: 6, right: true, grows: false, weight: 3 },
];

#[cfg(test)]
thread_local! {
    /// Rows formatted on this thread.
    pub(crate) static FORMATTED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

pub(super) fn draw(model: &Model, pen: &mut Pen<'_>, body: Rect) {
    let head = layout::list_head(body);
    if head == 2 {
        headline(model, pen, layout::rows(body, 0, 1));
    }
    let places = table::place(&COLUMNS, body.width.saturating_sub(1));
    if head > 0 {
        table::header(pen, indent(layout::rows(body, head - 1, head)), &COLUMNS, &places);
    }
    let rows = layout::rows(body, head, body.height);
    let window = model.jobs.window();
    let cursor = window.at.saturating_sub(window.top);
    for (row, job) in (0..rows.height).zip(model.jobs.visible()) {
        let line = layout::rows(rows, row, row + 1);
        table::row(pen, indent(line), &COLUMNS, &places, &cells(&model.jobs, job, model.now_ms));
        if usize::from(row) == cursor {
            pen.select(line);
        }
    }
    if model.jobs.rows() == 0 {
        pen.put_cut(indent(layout::rows(rows, 0, 1)), nothing(model), Paint::Dim);
    }
}

fn indent(line: Rect) -> Rect {
    let by = line.width.min(1);
    Rect { x: line.x + by, width: line.width - by, ..line }
}

fn nothing(model: &Model) -> &'static str {
    match (model.jobs.len(), model.tenants.len() == 0 || model.tenants.is_loading()) {
        (_, true) => "loading …",
        (0, false) => "no jobs; `drumline submit` makes one",
        (_, false) => "no job passes the filter; Esc shows all",
    }
}

fn headline(model: &Model, pen: &mut Pen<'_>, line: Rect) {
    let (rows, all) = (model.jobs.rows(), model.jobs.len());
    let filter = model.jobs.filter();
    let mut text = format!(" {} jobs", number(all as u64));
    if !filter.is_empty() {
        text = format!(" {} of {} jobs: {}", number(rows as u64), number(all as u64), filter.words());
    }
    let mut rest = pen.put_cut(line, &text, Paint::Bold);
    rest = counts(&model.jobs, pen, rest);
    if model.tenants.is_loading() {
        pen.put(rest, "  loading …", Paint::Dim);
    }
}

/// How many are in which state; what there is none of is left out.
pub(super) fn counts(jobs: &Jobs, pen: &mut Pen<'_>, line: Rect) -> Rect {
    let mut rest = line;
    for state in
        [State::Pending, State::Staging, State::Running, State::Completed, State::Failed, State::Cancelled]
    {
        let count = jobs.count(state);
        if count > 0 {
            rest = pen.put(rest, &format!("  {} ", number(count)), Paint::of(state));
            rest = pen.put(rest, &words::state(state).to_lowercase(), Paint::Plain);
        }
    }
    rest
}

fn cells(jobs: &Jobs, job: &Job, now_ms: u64) -> [(String, Paint); 8] {
    #[cfg(test)]
    FORMATTED.with(|count| count.set(count.get() + 1));
    let paint = Paint::of(job.state);
    [
        (jobs.id(job).to_string(), Paint::Plain),
        (job.name.clone(), Paint::Plain),
        (words::state(job.state).to_owned(), paint),
        (format!("{}/{}", job.over, job.tasks), Paint::Plain),
        (job.failed.to_string(), if job.failed > 0 { Paint::Bad } else { Paint::Dim }),
        (job.priority.to_string(), Paint::Plain),
        (clock::age(job.submitted_ms, now_ms), Paint::Plain),
        (clock::ran(job.started_ms, job.ended_ms, now_ms), Paint::Plain),
    ]
}
