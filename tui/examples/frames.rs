//! What a frame of the console costs at 200×60 with 100,000 jobs, beside the
//! target: `cargo run --release -p tui --example frames`.
//!
//! A frame is all that the console does for one change: the message taken in,
//! the rows formatted, compared with the last frame, and written as the bytes
//! that a terminal gets (into nothing).
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement reads the machine's own clock"
)]

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use proto::v1::{
    Event, EventsReply, JobStateRow, JobSummary, LedgerRow, ListJobsReply, State, StepState, TenantRow,
    TenantView,
};
use ratatui::{Terminal, TerminalOptions, Viewport, backend::CrosstermBackend, layout::Rect};
use std::{io, time::Instant};
use tui::console::{Message, Model, Settings, update, view};

const JOBS: u64 = 100_000;
const PAGE: u64 = 1000;
const FRAMES: usize = 5000;
const NOW_MS: u64 = 1_750_000_000_000;
const COLUMNS: u16 = 200;
const ROWS: u16 = 60;

type Screen = Terminal<CrosstermBackend<io::Sink>>;

fn job(number: u64) -> JobSummary {
    let state = [State::Pending, State::Running, State::Completed, State::Failed][(number % 4) as usize];
    JobSummary {
        tenant: "lab".into(),
        number,
        name: format!("experiment {number} of the long night"),
        submitted_ms: NOW_MS - (JOBS - number) * 100,
        tasks: 1000,
        state: Some(JobStateRow {
            state: state.into(),
            started_ms: if state == State::Pending { 0 } else { NOW_MS - 90_000 },
            steps: vec![StepState { completed: number % 1000, ..StepState::default() }],
            ..JobStateRow::default()
        }),
        ..JobSummary::default()
    }
}

fn crowded() -> Model {
    let settings = Settings { server: "127.0.0.1:7420".into(), tenant: String::new(), color: true };
    let mut model = Model::new(settings, COLUMNS, ROWS, NOW_MS);
    let tenant = TenantView {
        tenant: Some(TenantRow { name: "lab".into(), ..TenantRow::default() }),
        ledger: Some(LedgerRow::default()),
        held: None,
    };
    tell(&mut model, Message::Tenants(vec![tenant]));
    for page in (0..JOBS / PAGE).rev() {
        let jobs = (page * PAGE + 1..=(page + 1) * PAGE).rev().map(job).collect();
        tell(
            &mut model,
            Message::Jobs {
                tenant: "lab".into(),
                reply: ListJobsReply { jobs, next_before: if page == 0 { 0 } else { page * PAGE + 1 } },
            },
        );
    }
    press(&mut model, KeyCode::Char('2'));
    model
}

fn tell(model: &mut Model, message: Message) {
    let _ = update(model, NOW_MS, message);
}

fn press(model: &mut Model, code: KeyCode) {
    tell(model, Message::Key(KeyEvent::new(code, KeyModifiers::NONE)));
}

/// A job in the window changes its state, there and back.
fn happens(model: &mut Model, frame: usize) {
    let job_number = JOBS - (frame as u64 / 2 % 50) * 4;
    let (from, to) = if frame.is_multiple_of(2) {
        (State::Pending, State::Running)
    } else {
        (State::Running, State::Pending)
    };
    let event = Event { seq: frame as u64, job_number, from: from.into(), to: to.into(), ..Event::default() };
    let reply = EventsReply { events: vec![event], next_seq: frame as u64 + 1, end: false };
    tell(model, Message::Events { tenant: "lab".into(), reply });
}

/// Frames by how long they took, in microseconds.
fn measure(
    model: &mut Model,
    screen: &mut Screen,
    mut change: impl FnMut(&mut Model, usize),
) -> (Vec<f64>, usize) {
    let mut times = Vec::with_capacity(FRAMES);
    for frame in 0..FRAMES {
        let begun = Instant::now();
        change(model, frame);
        if model.wants_frame() {
            screen.draw(|frame| view(model, frame)).expect("writing into nothing does not fail");
            model.drawn();
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    let drawn = times.len();
    (times, drawn)
}

fn tell_times(what: &str, (times, drawn): &(Vec<f64>, usize)) {
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(0.0) / 1000.0;
    println!("{what:<44} p50 {:.3} ms  p99 {:.3} ms  ({drawn} frames)", at(50), at(99));
}

fn main() {
    let begun = Instant::now();
    let mut model = crowded();
    println!("{JOBS} jobs taken in within {:.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    let options = TerminalOptions { viewport: Viewport::Fixed(Rect::new(0, 0, COLUMNS, ROWS)) };
    let mut screen =
        Terminal::with_options(CrosstermBackend::new(io::sink()), options).expect("a fixed size");

    println!("a frame at {COLUMNS}x{ROWS} with {JOBS} jobs; target: p50 at most 1 ms, none at rest");
    let pages = measure(&mut model, &mut screen, |model, frame| {
        // A page at a time: nearly every cell is another one.
        let down = frame / 500 % 2 == 0;
        press(model, if down { KeyCode::PageDown } else { KeyCode::PageUp });
    });
    tell_times("every cell changes (paging)", &pages);
    press(&mut model, KeyCode::Home);
    tell_times("one job changes", &measure(&mut model, &mut screen, happens));
    let moves = measure(&mut model, &mut screen, |model, frame| {
        press(model, if frame / 40 % 2 == 0 { KeyCode::Down } else { KeyCode::Up });
    });
    tell_times("the cursor moves", &moves);
    let rest = measure(&mut model, &mut screen, |model, _| {
        tell(model, Message::Tick);
        tell(model, Message::Pools(Vec::new()));
        let reply = EventsReply::default();
        tell(model, Message::Events { tenant: "lab".into(), reply });
    });
    println!("{:<44} {} frames", "at rest", rest.1);
    let begun = Instant::now();
    for key in ['/', '9', '9', '7'] {
        press(&mut model, KeyCode::Char(key));
    }
    println!("{:<44} {:.1} ms a key", "a filter over all jobs", begun.elapsed().as_secs_f64() * 1e3 / 4.0);
}
