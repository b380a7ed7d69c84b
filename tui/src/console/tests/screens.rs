//! Pictures of every screen, to be read by people, at four sizes of terminal.

use super::fixture::{NOW_MS, draw, event, full, hit, model, press, tell, text, with_job};
use crate::console::{Ask, Message, Model};
use crossterm::event::KeyCode;
use insta::assert_snapshot;
use proto::{
    problem,
    v1::{EventsReply, State},
};
use ratatui::{
    buffer::Buffer,
    style::{Color, Modifier},
};

type Scene = (&'static str, fn(u16, u16, bool) -> Model);

fn jobs(columns: u16, rows: u16, color: bool) -> Model {
    let mut model = full(columns, rows, color);
    press(&mut model, "2jjj");
    model
}

fn nodes(columns: u16, rows: u16, color: bool) -> Model {
    let mut model = full(columns, rows, color);
    press(&mut model, "3j");
    model
}

fn log(columns: u16, rows: u16, color: bool) -> Model {
    let mut model = with_job(columns, rows, color);
    press(&mut model, "l");
    model
}

fn why(columns: u16, rows: u16, color: bool) -> Model {
    let mut model = with_job(columns, rows, color);
    press(&mut model, "w");
    model
}

fn cancel(columns: u16, rows: u16, color: bool) -> Model {
    let mut model = jobs(columns, rows, color);
    press(&mut model, "kkc");
    model
}

fn help(columns: u16, rows: u16, color: bool) -> Model {
    let mut model = full(columns, rows, color);
    press(&mut model, "?");
    model
}

const SCENES: [Scene; 8] = [
    ("overview", full),
    ("jobs", jobs),
    ("nodes", nodes),
    ("job", with_job),
    ("log", log),
    ("why", why),
    ("cancel", cancel),
    ("help", help),
];

/// Which cells look other than plain, a run a line.
fn styles(buffer: &Buffer) -> String {
    let mut out = String::new();
    for y in 0..buffer.area.height {
        let mut x = 0;
        while x < buffer.area.width {
            let of = |x: u16| (buffer[(x, y)].fg, buffer[(x, y)].bg, buffer[(x, y)].modifier);
            let first = x;
            while x < buffer.area.width && of(x) == of(first) {
                x += 1;
            }
            let (fg, bg, modifier) = of(first);
            if (fg, bg, modifier) != (Color::Reset, Color::Reset, Modifier::empty()) {
                out.push_str(&format!("row {y} columns {first}-{}: {fg} {modifier:?}\n", x - 1));
            }
        }
    }
    out
}

#[test]
fn every_screen_at_every_size() {
    for (name, scene) in SCENES {
        for (columns, rows) in [(80, 24), (120, 40), (200, 60)] {
            assert_snapshot!(format!("{name}_{columns}x{rows}"), text(&draw(&scene(columns, rows, true))));
        }
    }
}

#[test]
fn without_colours_weight_and_words_tell_the_same() {
    for (name, scene) in SCENES {
        let plain = draw(&scene(80, 24, false));
        assert!(
            plain.content.iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)),
            "{name}"
        );
        assert_eq!(text(&plain), text(&draw(&scene(80, 24, true))), "{name}");
        assert_snapshot!(format!("{name}_no_color"), format!("{}\n{}", text(&plain), styles(&plain)));
    }
    assert_snapshot!("jobs_in_colour", styles(&draw(&jobs(80, 24, true))));
}

#[test]
fn the_picture_in_the_readme_is_a_real_one() {
    let readme = include_str!("../../../../README.md");
    let picture = text(&draw(&full(80, 19, true)));
    assert!(readme.contains(&format!("```\n{picture}```\n")), "{picture}");
}

#[test]
fn a_small_terminal_shows_what_matters_most() {
    let mut small = String::new();
    for (columns, rows) in [(40, 8), (24, 4), (12, 2), (5, 1)] {
        for (name, scene) in SCENES {
            small.push_str(&format!(
                "--- {name} {columns}x{rows}\n{}",
                text(&draw(&scene(columns, rows, true)))
            ));
        }
    }
    assert_snapshot!(small);
}

fn line(model: &Model, from_below: usize) -> String {
    let text = text(&draw(model));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len() - from_below].trim().to_owned()
}

#[test]
fn who_does_not_answer_is_told_with_since_when() {
    let mut model = full(120, 24, true);
    let gone =
        || problem::unavailable("server", "no server can be reached at 127.0.0.1:7420: connection refused");
    tell(&mut model, Message::Failed { ask: Ask::Nodes, problem: gone() });
    let _ =
        super::super::update(&mut model, NOW_MS + 9000, Message::Failed { ask: Ask::Pools, problem: gone() });
    assert_snapshot!(line(&model, 2), @"the server is out of reach since 12:00:00 UTC: no server can be reached at 127.0.0.1:7420: connection refused; try aga…");
    tell(&mut model, Message::Nodes(super::fixture::nodes()));
    assert_snapshot!(line(&model, 2), @"the server is out of reach since 12:00:09 UTC: no server can be reached at 127.0.0.1:7420: connection refused; try aga…");
    tell(&mut model, Message::Pools(super::fixture::pools()));
    assert_eq!(line(&model, 2), "");
    let no = problem::denied("role", "agent", "a token of role agent may not do this");
    tell(&mut model, Message::Failed { ask: Ask::Tenants, problem: no });
    assert_snapshot!(line(&model, 2), @"the server refuses since 12:00:00 UTC: a token of role agent may not do this; use a token whose role allows it");
}

#[test]
fn a_filter_is_shown_where_it_is_written_and_above_the_list() {
    let mut model = full(80, 24, true);
    press(&mut model, "2/BACKUP");
    assert_eq!(line(&model, 2), "filter: BACKUP");
    hit(&mut model, KeyCode::Enter);
    press(&mut model, "f");
    let shown = text(&draw(&model));
    let head: Vec<&str> = shown.lines().skip(1).take(4).map(str::trim_start).collect();
    assert_snapshot!(head.join("\n"), @r"
    3 of 41 jobs: PENDING with “BACKUP”  7 pending  7 running  14 completed  7 fail
    ID              NAME             STATE               DONE  FAILED   AGE     RAN
    lab-34          nightly backup   PENDING             0/16       0    7m       -
    lab-22          nightly backup   PENDING             0/16       0   19m       -
    ");
    press(&mut model, "/xyz");
    assert!(text(&draw(&model)).contains("no job passes the filter; Esc shows all"));
    hit(&mut model, KeyCode::Esc);
    assert_eq!(model.jobs.rows(), 7);
    hit(&mut model, KeyCode::Esc);
    assert_eq!(model.jobs.rows(), 41);
}

#[test]
fn an_empty_cluster_says_how_to_go_on() {
    let mut model = model(80, 24, true);
    assert!(text(&draw(&model)).contains("loading …"));
    tell(&mut model, Message::Tenants(vec![super::fixture::tenant("lab", 1)]));
    tell(&mut model, Message::Nodes(Vec::new()));
    tell(&mut model, Message::Pools(Vec::new()));
    tell(&mut model, Message::Jobs { tenant: "lab".into(), reply: super::fixture::page(Vec::new()) });
    assert_snapshot!("empty_overview", text(&draw(&model)));
    press(&mut model, "2");
    assert!(text(&draw(&model)).contains("no jobs; `drumline submit` makes one"));
    press(&mut model, "3");
    assert!(text(&draw(&model)).contains("no nodes; `drumline agent` starts one"));
    // Nothing is selected: these keys do nothing.
    press(&mut model, "2cwls");
    hit(&mut model, KeyCode::Enter);
    assert!(model.detail.is_none());
}

#[test]
fn a_job_that_cannot_be_shown_says_why() {
    let mut model = full(80, 24, true);
    press(&mut model, "2");
    hit(&mut model, KeyCode::Enter);
    let ask = Ask::Job { job: proto::ids::JobId::new("lab", 40), visit: 1 };
    tell(&mut model, Message::Failed { ask, problem: problem::missing("job", "lab-40") });
    assert!(text(&draw(&model)).contains("there is no such job"));
    // Its history goes on: it may be there again.
    let reply = EventsReply {
        events: vec![event(50, 40, None, State::Pending, State::Running)],
        next_seq: 51,
        end: false,
    };
    let commands = tell(&mut model, Message::Events { tenant: "lab".into(), reply });
    assert_eq!(commands.len(), 1, "{commands:?}");
}
