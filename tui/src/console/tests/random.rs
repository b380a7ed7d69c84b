//! Any messages in any order on a terminal of any size: no panic, the cursor on
//! a row, nothing written outside.

use super::fixture::{NOW_MS, event, job_view, log_reply, nodes, page, pools, summary, tell, tenant, why};
use crate::console::{Ask, Command, Message, Model, Settings, start, update, view};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use proptest::prelude::*;
use proto::{
    ids::JobId,
    problem,
    v1::{EventsReply, LogsReply, State, Stream},
};
use ratatui::{Terminal, TerminalOptions, Viewport, backend::TestBackend, layout::Rect};

const STATES: [State; 6] =
    [State::Pending, State::Staging, State::Running, State::Completed, State::Failed, State::Cancelled];

fn state() -> impl Strategy<Value = State> {
    prop::sample::select(STATES.to_vec())
}

fn tenant_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["lab".to_owned(), "web".to_owned(), "nobody".to_owned()])
}

fn key() -> impl Strategy<Value = Message> {
    let codes = vec![
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Backspace,
        KeyCode::F(1),
        KeyCode::Insert,
    ];
    let special = prop::sample::select(codes);
    let written =
        prop::sample::select("123jkgGlwscyn/fF?ax9日".chars().map(KeyCode::Char).collect::<Vec<_>>());
    let modifiers = prop::sample::select(vec![KeyModifiers::NONE, KeyModifiers::SHIFT, KeyModifiers::ALT]);
    (prop_oneof![special, written], modifiers)
        .prop_map(|(code, modifiers)| Message::Key(KeyEvent::new(code, modifiers)))
}

fn data() -> impl Strategy<Value = Message> {
    let events = prop::collection::vec((1_u64..60, prop::option::of(0_u32..4), state(), state()), 0..12);
    prop_oneof![
        Just(Message::Tick),
        ".{0,8}".prop_map(Message::Paste),
        Just(Message::Tenants(vec![tenant("lab", 3), tenant("web", 1)])),
        (0_usize..6).prop_map(|count| Message::Nodes(nodes().into_iter().take(count).collect())),
        Just(Message::Nodes(Vec::new())),
        Just(Message::Pools(pools())),
        (tenant_name(), 0_u64..60, 0_u64..30, state(), any::<bool>()).prop_map(
            |(tenant, from, count, state, more)| {
                let jobs =
                    (from..from + count).rev().map(|number| summary(&tenant, number + 1, state)).collect();
                let mut reply = page(jobs);
                reply.next_before = if more { from } else { 0 };
                Message::Jobs { tenant, reply }
            }
        ),
        (1_u64..60, state())
            .prop_map(|(number, state)| Message::Refreshed(vec![summary("lab", number, state)])),
        (tenant_name(), events, any::<u64>()).prop_map(|(tenant, events, next_seq)| {
            let events =
                events.into_iter().map(|(job, step, from, to)| event(1, job, step, from, to)).collect();
            Message::Events { tenant, reply: EventsReply { events, next_seq, end: false } }
        }),
        (0_u64..4, 1_u64..60, state())
            .prop_map(|(visit, job, state)| Message::Job { visit, view: job_view(job, state) }),
        (0_u64..4).prop_map(|visit| Message::Job { visit, view: Box::default() }),
        (0_u64..4).prop_map(|visit| Message::Why { visit, reply: why() }),
        (0_u64..4, 0_u32..5, "(\\PC|\n|\r|\t|\x1b){0,200}", any::<bool>()).prop_map(
            |(visit, step, text, end)| {
                let reply =
                    LogsReply { end, missing_bytes: 3, ..log_reply(step, 2, &text, Stream::Stdout, 9) };
                Message::Logs { visit, reply }
            }
        ),
        (1_u64..60, state())
            .prop_map(|(number, state)| Message::Cancelled { job: JobId::new("lab", number), state }),
    ]
}

fn size() -> impl Strategy<Value = (u16, u16)> {
    prop_oneof![(1_u16..30, 1_u16..12), (1_u16..250, 1_u16..80)]
}

#[derive(Clone, Debug)]
enum Step {
    Tell(Message),
    Resize((u16, u16)),
    /// One of the questions on their way is not answered.
    Fail(usize, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => key().prop_map(Step::Tell),
        4 => data().prop_map(Step::Tell),
        1 => size().prop_map(Step::Resize),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, away)| Step::Fail(which, away)),
        1 => (0_u64..100_000).prop_map(Step::Wait),
    ]
}

/// Draws into a part of a larger terminal: what is around must stay untouched.
fn draw_within(model: &Model, columns: u16, rows: u16) {
    let backend = TestBackend::new(columns + 6, rows + 4);
    let options = TerminalOptions { viewport: Viewport::Fixed(Rect::new(3, 2, columns, rows)) };
    let mut terminal = Terminal::with_options(backend, options).unwrap();
    let mut place = None;
    terminal
        .draw(|frame| {
            view(model, frame);
            place = Some(frame.area());
        })
        .unwrap();
    let place = place.unwrap();
    let buffer = terminal.backend().buffer();
    for position in buffer.area.positions() {
        let is_blank = buffer[position].symbol() == " " && buffer[position].modifier.is_empty();
        assert!(place.contains(position) || is_blank, "{position:?} is outside {place:?}");
    }
}

fn check(model: &Model) {
    model.jobs.check();
    let nodes = model.node_rows().len();
    assert!(nodes == 0 || model.node_window.at < nodes);
    assert!(model.due_ms().is_none_or(|due| due > 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_the_console_stands(
        (columns, rows) in size(),
        color in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let settings = Settings { server: "h:1".into(), tenant: String::new(), color };
        let mut model = Model::new(settings, columns, rows, NOW_MS);
        let mut asked: Vec<Ask> = Vec::new();
        let mut at_ms = NOW_MS;
        let mut commands = start();
        // Half of all runs begin with a cluster that is known.
        if color {
            commands.extend(tell(&mut model, Message::Tenants(vec![tenant("lab", 3)])));
            let jobs = (1..50).rev().map(|number| summary("lab", number, STATES[(number % 6) as usize])).collect();
            commands.extend(tell(&mut model, Message::Jobs { tenant: "lab".into(), reply: page(jobs) }));
        }
        let (mut columns, mut rows) = (columns, rows);
        for step in steps {
            commands.extend(match step {
                Step::Tell(message) => update(&mut model, at_ms, message),
                Step::Resize(size) => {
                    (columns, rows) = size;
                    update(&mut model, at_ms, Message::Resize { columns, rows })
                }
                Step::Fail(which, away) => {
                    let problem = if away { problem::unavailable("server", "gone") } else { problem::denied("role", "x", "no") };
                    let ask = asked.get(which % asked.len().max(1)).cloned();
                    ask.map(|ask| update(&mut model, at_ms, Message::Failed { ask, problem })).unwrap_or_default()
                }
                Step::Wait(span_ms) => {
                    at_ms += span_ms;
                    update(&mut model, at_ms, Message::Tick)
                }
            });
            for command in commands.drain(..) {
                if let Command::Ask { ask, .. } = command {
                    asked.push(ask);
                }
            }
            check(&model);
            draw_within(&model, columns, rows);
            // Drawn smaller than the model was told: a resize is on its way.
            draw_within(&model, columns.div_ceil(2), rows.div_ceil(2));
            model.drawn();
        }
    }
}
