//! A small cluster with a bit of everything, at a fixed time.

use crate::console::{Command, Message, Model, Settings, update, view};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use proto::{
    jobfile,
    v1::{
        Cause, CauseKind, Event, EventsReply, JobProgress, JobRow, JobSpec, JobStateRow, JobSummary, JobView,
        LedgerRow, ListJobsReply, LogChunk, LogsReply, NodeRow, NodeState, NodeView, PoolView, Resources,
        Span, State, StepProgress, StepState, Straggler, Stream, TenantRow, TenantView, WhyReply,
    },
};
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};

/// 12:00:00 on some day.
pub const NOW_MS: u64 = 1_750_000_000_000 / 86_400_000 * 86_400_000 + 12 * 3_600_000;
const SECOND: u64 = 1000;

pub fn model(columns: u16, rows: u16, color: bool) -> Model {
    let settings = Settings { server: "127.0.0.1:7420".into(), tenant: String::new(), color };
    Model::new(settings, columns, rows, NOW_MS)
}

/// A console that has heard of everything.
pub fn full(columns: u16, rows: u16, color: bool) -> Model {
    let mut model = model(columns, rows, color);
    tell(&mut model, Message::Tenants(vec![tenant("lab", 41), tenant("web", 7)]));
    tell(&mut model, Message::Nodes(nodes()));
    tell(&mut model, Message::Pools(pools()));
    tell(&mut model, Message::Jobs { tenant: "lab".into(), reply: page(lab_jobs()) });
    tell(
        &mut model,
        Message::Jobs { tenant: "web".into(), reply: page(vec![summary("web", 3, State::Failed)]) },
    );
    tell(&mut model, Message::Events { tenant: "lab".into(), reply: events() });
    model
}

pub fn tell(model: &mut Model, message: Message) -> Vec<Command> {
    update(model, NOW_MS, message)
}

pub fn press(model: &mut Model, keys: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    for key in keys.chars() {
        commands.extend(hit(model, KeyCode::Char(key)));
    }
    commands
}

pub fn hit(model: &mut Model, code: KeyCode) -> Vec<Command> {
    tell(model, Message::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

pub fn draw(model: &Model) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(model.columns, model.rows)).unwrap();
    terminal.draw(|frame| view(model, frame)).unwrap();
    terminal.backend().buffer().clone()
}

/// The text of a frame, a line a row.
pub fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let mut line = String::new();
        let mut x = 0;
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += u16::try_from(ratatui::text::Span::raw(symbol).width().max(1)).unwrap();
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub fn tenant(name: &str, next_event_seq: u64) -> TenantView {
    TenantView {
        tenant: Some(TenantRow { name: name.into(), ..TenantRow::default() }),
        ledger: Some(LedgerRow { next_event_seq, ..LedgerRow::default() }),
        held: None,
    }
}

fn resources(cores: u32, gib: u64, gpus: u32) -> Option<Resources> {
    Some(Resources { millicores: cores * 1000, memory_bytes: gib << 30, gpus })
}

fn node(name: &str, state: NodeState, heard_s: u64, used: (u32, u64, u32)) -> NodeView {
    NodeView {
        row: Some(NodeRow {
            name: name.into(),
            pool: if name.starts_with('g') { "gpu".into() } else { "default".into() },
            state: state.into(),
            capacity: resources(16, 64, if name.starts_with('g') { 4 } else { 0 }),
            address: format!("10.0.0.{}", name.len()),
            ..NodeRow::default()
        }),
        used: resources(used.0, used.1, used.2),
        last_heard_ms: NOW_MS - heard_s * SECOND,
        grants: 1,
        ..NodeView::default()
    }
}

pub fn nodes() -> Vec<NodeView> {
    let mut drained = node("n3", NodeState::Ready, 2, (0, 0, 0));
    if let Some(row) = drained.row.as_mut() {
        row.drained = true;
        row.drain_reason = "broken fan".into();
    }
    vec![
        node("gpu-1", NodeState::Ready, 1, (8, 48, 4)),
        node("n1", NodeState::Ready, 3, (12, 20, 0)),
        node("n2", NodeState::Suspect, 14, (1, 2, 0)),
        drained,
        node("n4.rack7.example", NodeState::Lost, 3 * 3600, (0, 0, 0)),
    ]
}

pub fn pools() -> Vec<PoolView> {
    let pool = |name: &str, nodes, all, free, queued_slots| PoolView {
        name: name.into(),
        nodes,
        capacity: all,
        free,
        queued_slots,
        largest_node: None,
        eta: None,
        autoscale: None,
        preemption: None,
    };
    vec![
        pool("default", 3, resources(48, 192, 0), resources(35, 170, 0), 1250),
        pool("gpu", 1, resources(16, 64, 4), resources(8, 16, 0), 0),
    ]
}

pub fn summary(tenant: &str, number: u64, state: State) -> JobSummary {
    let over = matches!(state, State::Completed | State::Failed | State::Cancelled);
    let begun = state != State::Pending;
    let submitted_ms = NOW_MS - (41 - number.min(40)) * 61 * SECOND;
    let row = JobStateRow {
        state: state.into(),
        started_ms: if begun { submitted_ms + 5 * SECOND } else { 0 },
        ended_ms: if over { submitted_ms + 47 * SECOND } else { 0 },
        steps: vec![StepState {
            state: state.into(),
            completed: if over { 14 } else { 0 },
            failed: u64::from(state == State::Failed) * 2,
            pending: if over { 0 } else { 16 },
            ..StepState::default()
        }],
        ..JobStateRow::default()
    };
    JobSummary {
        tenant: tenant.into(),
        number,
        name: ["words", "train resnet", "nightly backup", "größe ✓ 日本語"]
            [usize::try_from(number % 4).unwrap()]
        .into(),
        state: Some(row),
        submitted_ms,
        priority: 5,
        tasks: 16,
        ..JobSummary::default()
    }
}

pub fn page(jobs: Vec<JobSummary>) -> ListJobsReply {
    ListJobsReply { jobs, next_before: 0 }
}

fn lab_jobs() -> Vec<JobSummary> {
    let states =
        [State::Pending, State::Running, State::Completed, State::Completed, State::Cancelled, State::Failed];
    (1..=40)
        .rev()
        .map(|number| summary("lab", number, states[usize::try_from(40 - number).unwrap() % 6]))
        .collect()
}

pub fn event(seq: u64, job: u64, step: Option<u32>, from: State, to: State) -> Event {
    Event {
        seq,
        at_ms: NOW_MS - 60 * SECOND + seq * SECOND,
        job_number: job,
        step,
        from: from.into(),
        to: to.into(),
        ..Event::default()
    }
}

fn events() -> EventsReply {
    let cause = |kind: CauseKind, text: &str| {
        Some(Cause { kind: kind.into(), text: text.into(), ..Cause::default() })
    };
    let events = vec![
        event(41, 39, None, State::Pending, State::Running),
        // Too usual to be told.
        event(42, 39, Some(1), State::Pending, State::Running),
        Event {
            tasks: vec![Span { first: 3, last: 3 }],
            cause: cause(CauseKind::Exit, "exit code 3"),
            node: "n1".into(),
            ..event(43, 39, Some(1), State::Running, State::Pending)
        },
        Event {
            cause: cause(CauseKind::RetriesSpent, "step count: task 3 failed after 4 attempts: exit code 3"),
            ..event(44, 35, None, State::Running, State::Failed)
        },
        Event {
            cause: cause(CauseKind::Submitted, "submitted by ana"),
            ..event(45, 40, None, State::Unspecified, State::Pending)
        },
    ];
    EventsReply { events, next_seq: 46, end: false }
}

/// The job of the README: three steps, one of them an array.
fn spec() -> JobSpec {
    jobfile::parse(
        r#"
name = "words"
priority = 5
labels = { team = "blue", paper = "2" }
[[step]]
name = "split"
run = "split"
[[step]]
name = "count"
after = ["split"]
array = "0-15%4"
run = "wc"
[[step]]
name = "sum"
after = ["count"]
run = "awk"
"#,
        std::path::Path::new(""),
    )
    .unwrap()
}

pub fn job_view(number: u64, state: State) -> Box<JobView> {
    let step = |state: State, pending, active, completed, failed| StepState {
        state: state.into(),
        pending,
        active,
        completed,
        failed,
        started_ms: if state == State::Pending { 0 } else { NOW_MS - 75 * SECOND },
        ended_ms: if state == State::Completed { NOW_MS - 70 * SECOND } else { 0 },
        ..StepState::default()
    };
    Box::new(JobView {
        job: Some(JobRow {
            tenant: "lab".into(),
            number,
            spec: Some(spec()),
            submitted_ms: NOW_MS - 80 * SECOND,
            submitted_by: "ana".into(),
            ..JobRow::default()
        }),
        state: Some(JobStateRow {
            state: state.into(),
            steps: vec![
                step(State::Completed, 0, 0, 1, 0),
                step(State::Running, 4, 4, 7, 1),
                step(State::Pending, 1, 0, 0, 0),
            ],
            started_ms: NOW_MS - 75 * SECOND,
            ..JobStateRow::default()
        }),
        progress: Some(progress()),
    })
}

/// Of the array's four that run, three have told, and one is slow.
fn progress() -> JobProgress {
    let slowest = vec![Straggler {
        task: 8,
        index: 8,
        attempt: 1,
        text: "runs 3.2 times as long as the median of 7 that completed".into(),
    }];
    JobProgress {
        percent: 56.25,
        told: 3,
        steps: vec![
            StepProgress::default(),
            StepProgress { percent: Some(57.03), stragglers: 1, slowest },
            StepProgress::default(),
        ],
    }
}

pub fn why() -> WhyReply {
    WhyReply {
        headline: "4 tasks of step count wait for their turn: the array runs at most 4 at once".into(),
        details: vec!["step sum waits for step count".into(), "pool default has 35 cores free".into()],
        code: "waiting.array".into(),
        expected_start_ms: NOW_MS + 90 * SECOND,
    }
}

pub fn log_reply(step: u32, task: u64, text: &str, stream: Stream, cursor: u64) -> LogsReply {
    let chunk = LogChunk {
        step,
        task,
        stream: stream.into(),
        data: text.as_bytes().to_vec().into(),
        ..LogChunk::default()
    };
    LogsReply { chunks: vec![chunk], cursor, ..LogsReply::default() }
}

/// The same with the second job of the list open: it runs.
pub fn with_job(columns: u16, rows: u16, color: bool) -> Model {
    let mut model = full(columns, rows, color);
    press(&mut model, "2j");
    hit(&mut model, KeyCode::Enter);
    let visit = model.visits;
    tell(&mut model, Message::Job { visit, view: job_view(39, State::Running) });
    tell(&mut model, Message::Why { visit, reply: why() });
    tell(&mut model, Message::Logs { visit, reply: log_reply(0, 0, "16 parts\n", Stream::Stdout, 10) });
    for task in 0..8 {
        let text = format!("part {task:02}: {} words\n", 1000 + task * 37);
        tell(
            &mut model,
            Message::Logs { visit, reply: log_reply(1, task, &text, Stream::Stdout, 20 + task) },
        );
    }
    let bad = "\x1b[31mwc: part.03: no such file\x1b[0m\n";
    tell(&mut model, Message::Logs { visit, reply: log_reply(1, 3, bad, Stream::Stderr, 40) });
    model
}
