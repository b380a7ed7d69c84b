//! One job: what it is, its steps, why it waits, its log.

use super::{
    layout,
    paint::{Paint, Pen, bar},
    table::{self, Column},
};
use crate::{
    console::{
        clock,
        detail::{Detail, Pane},
        model::Model,
    },
    words,
};
use proto::{
    estimate,
    v1::{Step, StepProgress, StepState},
};
use ratatui::layout::Rect;

#[rustfmt::skip]
const STEPS: [Column; 12] = [
    Column { title: "STEP", width: 14, right: false, grows: false, weight: 9 },
    Column { title: "STATE", width: 9, right: false, grows: false, weight: 8 },
    Column { title: "TASKS", width: 8, right: true, grows: false, weight: 3 },
    Column { title: "PENDING", width: 8, right: true, grows: false, weight: 4 },
    Column { title: "ACTIVE", width: 6, right: true, grows: false, weight: 5 },
    Column { title: "DONE", width: 8, right: true, grows: false, weight: 7 },
    Column { title: "PROGRESS", width: 10, right: false, grows: false, weight: 6 },
    Column { title: "SLOW", width: 4, right: true, grows: false, weight: 5 },
    Column { title: "FAILED", width: 6, right: true, grows: false, weight: 6 },
    Column { title: "RETRIES", width: 7, right: true, grows: false, weight: 0 },
    Column { title: "RAN", width: 6, right: true, grows: false, weight: 2 },
    Column { title: "CAUSE", width: 20, right: false, grows: true, weight: 1 },
];

pub(super) fn draw(model: &Model, pen: &mut Pen<'_>, body: Rect) {
    let Some(detail) = &model.detail else { return };
    let parts = layout::job(body, detail);
    head(model, detail, pen, parts.head);
    if let Some(problem) = &detail.problem {
        pen.put_cut(layout::rows(parts.head, 1, 2), &format!(" {problem}"), Paint::Bad);
        return;
    }
    steps(model, detail, pen, parts.steps);
    why(detail, pen, parts.why);
    log(detail, pen, parts.log);
}

fn field(pen: &mut Pen<'_>, line: Rect, name: &str, text: &str, paint: Paint) -> Rect {
    let rest = pen.put(line, &format!(" {name:<10}"), Paint::Dim);
    pen.put_cut(rest, text, paint)
}

fn head(model: &Model, detail: &Detail, pen: &mut Pen<'_>, area: Rect) {
    let line = |row: u16| layout::rows(area, row, row + 1);
    let rest = field(pen, line(0), "job", &detail.id.to_string(), Paint::Bold);
    let Some(job) = detail.view.as_ref().and_then(|view| view.job.as_ref()) else {
        if detail.problem.is_none() {
            pen.put(rest, "  loading …", Paint::Dim);
        }
        return;
    };
    let spec = job.spec.clone().unwrap_or_default();
    pen.put_cut(rest, &format!("  {}", spec.name), Paint::Plain);
    let state = detail.state_row().cloned().unwrap_or_default();
    let rest = field(pen, line(1), "state", words::state(state.state()), Paint::of(state.state()));
    let mut told = words::cause(state.cause.as_ref());
    if state.cancel_requested && !detail.is_over() {
        told = "being cancelled".to_owned();
    }
    if detail.is_over() {
        told = format!("{told}{}exit code {}", if told.is_empty() { "" } else { "; " }, state.exit_code);
    }
    let rest = match detail.progress().filter(|_| !detail.is_over()) {
        Some(told) => pen.put(rest, &format!("  {}", progress(told.percent)), Paint::Plain),
        None => rest,
    };
    if !told.is_empty() {
        pen.put_cut(rest, &format!("  {told}"), Paint::Plain);
    }
    let by = if job.submitted_by.is_empty() { String::new() } else { format!(" by {}", job.submitted_by) };
    let times = format!(
        "{} ago{by}, ran {}",
        clock::age(job.submitted_ms, model.now_ms),
        clock::ran(state.started_ms, state.ended_ms, model.now_ms)
    );
    field(pen, line(2), "submitted", &times, Paint::Plain);
    let labels: Vec<String> = spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let rest = field(pen, line(3), "priority", &spec.priority.to_string(), Paint::Plain);
    if !labels.is_empty() {
        let rest = pen.put(rest, "  labels ", Paint::Dim);
        pen.put_cut(rest, &labels.join(" "), Paint::Plain);
    }
}

fn steps(model: &Model, detail: &Detail, pen: &mut Pen<'_>, area: Rect) {
    if area.is_empty() {
        return;
    }
    let indent =
        |line: Rect| Rect { x: line.x + line.width.min(1), width: line.width.saturating_sub(1), ..line };
    let places = table::place(&STEPS, area.width.saturating_sub(1));
    table::header(pen, indent(layout::rows(area, 0, 1)), &STEPS, &places);
    let Some(spec) = detail.spec() else { return };
    let default = StepState::default();
    let states = detail.state_row().map_or(&[] as &[StepState], |state| &state.steps);
    let shown = detail.steps.shown(spec.steps.len());
    for (row, at) in (1..area.height).zip(shown) {
        let told = detail.progress().and_then(|told| told.steps.get(at));
        let cells = cells(&spec.steps[at], states.get(at).unwrap_or(&default), told, model.now_ms);
        table::row(pen, indent(layout::rows(area, row, row + 1)), &STEPS, &places, &cells);
    }
    // Which of many are shown is told where it costs no row.
    let more = spec.steps.len().saturating_sub(usize::from(area.height.saturating_sub(1)));
    if more > 0 {
        let text = format!("{} of {} steps; s shows all", spec.steps.len() - more, spec.steps.len());
        if detail.pane == Pane::All {
            pen.put_right(layout::rows(area, 0, 1), &text, Paint::Dim);
        }
    }
}

fn cells(step: &Step, now: &StepState, told: Option<&StepProgress>, now_ms: u64) -> [(String, Paint); 12] {
    let paint = Paint::of(now.state());
    let slow = told.map_or(0, |told| told.stragglers);
    [
        (step.name.clone(), Paint::Plain),
        (words::state(now.state()).to_owned(), paint),
        (estimate::step_tasks(step).to_string(), Paint::Plain),
        (now.pending.to_string(), Paint::Plain),
        (now.active.to_string(), Paint::Plain),
        (now.completed.to_string(), Paint::Plain),
        (told.and_then(|told| told.percent).map(progress).unwrap_or_default(), Paint::Plain),
        (if slow > 0 { slow.to_string() } else { String::new() }, Paint::Warn),
        (now.failed.to_string(), if now.failed > 0 { Paint::Bad } else { Paint::Dim }),
        (now.retries_spent.to_string(), Paint::Plain),
        (clock::ran(now.started_ms, now.ended_ms, now_ms), Paint::Plain),
        (words::cause(now.cause.as_ref()), Paint::Plain),
    ]
}

/// `██░░░  43%`, never more than it is.
fn progress(percent: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
    let whole = percent.clamp(0.0, 100.0) as u64;
    format!("{} {whole:>3}%", bar(whole, 100, 5))
}

fn why(detail: &Detail, pen: &mut Pen<'_>, area: Rect) {
    let all = detail.pane == Pane::Why;
    let lines = detail.why_lines();
    if all && lines.is_empty() {
        pen.put(layout::rows(area, 0, 1), " asking …", Paint::Dim);
    }
    let first = if all { detail.why_rows.top } else { 0 };
    for (row, (at, text)) in (0..area.height).zip(lines.iter().enumerate().skip(first)) {
        let line = layout::rows(area, row, row + 1);
        if at == 0 {
            field(pen, line, "why", text, Paint::Bold);
        } else {
            field(pen, line, "", text, Paint::Plain);
        }
    }
    let expected_ms = detail.why.as_ref().map_or(0, |why| why.expected_start_ms);
    let row = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    if all && first == 0 && expected_ms > 0 && !detail.is_over() {
        let text = format!("expected to start at {}", words::utc(expected_ms));
        field(pen, layout::rows(area, row, row.saturating_add(1)), "", &text, Paint::Plain);
    }
}

fn log(detail: &Detail, pen: &mut Pen<'_>, area: Rect) {
    let log = &detail.log;
    let head = layout::rows(area, 0, 1);
    let rest = pen.put(head, " LOG", Paint::Header);
    let mut told = match log.ended {
        Some(0) => "whole".to_owned(),
        Some(missing) => format!("whole but for {missing} bytes lost with their node"),
        None if log.followed => "as it comes".to_owned(),
        None => String::new(),
    };
    if !log.is_at_end() {
        told.push_str("; looking back, End goes to the last line");
    }
    if log.dropped() > 0 {
        told.push_str(&format!("; {} earlier lines are not held", log.dropped()));
    }
    if log.shift > 0 {
        told.push_str(&format!("; from column {}", log.shift + 1));
    }
    pen.put_cut(rest, &format!("  {told}"), Paint::Dim);
    for (row, line) in (1..area.height).zip(log.shown()) {
        let paint = if line.error { Paint::Warn } else { Paint::Plain };
        let place = layout::rows(area, row, row + 1);
        let place = Rect { x: place.x + place.width.min(1), width: place.width.saturating_sub(1), ..place };
        let from = line.text.char_indices().nth(log.shift).map_or(line.text.len(), |(at, _)| at);
        pen.put_cut(place, &line.text[from..], paint);
    }
    if log.len() == 0 && !area.is_empty() {
        let text = if log.ended.is_some() { " empty" } else { " nothing yet" };
        pen.put(layout::rows(area, 1, 2), text, Paint::Dim);
    }
}
