//! At rest no frame is drawn, and otherwise only for what can be seen.

use super::fixture::{
    NOW_MS, draw, event, full, nodes, page, pools, press, summary, tell, tenant, text, with_job,
};
use crate::console::{Message, Model, update};
use proto::v1::{EventsReply, State, Stream};

/// Frames that are drawn while these messages come.
fn frames(model: &mut Model, messages: impl IntoIterator<Item = (u64, Message)>) -> usize {
    let mut frames = 0;
    if model.wants_frame() {
        model.drawn();
    }
    for (at_ms, message) in messages {
        let before = text(&draw(model));
        let _ = update(model, at_ms, message);
        if model.wants_frame() {
            frames += 1;
            model.drawn();
        } else {
            assert_eq!(before, text(&draw(model)), "something changed, and no frame is wanted");
        }
    }
    frames
}

/// What comes from a cluster at rest: the same, and heartbeats.
fn rest(minutes: u64) -> impl Iterator<Item = (u64, Message)> {
    (0..minutes * 30).flat_map(|look| {
        let at_ms = NOW_MS + look * 2000;
        let mut alive = nodes();
        for node in &mut alive {
            let late = NOW_MS - node.last_heard_ms > 10_000;
            if !late {
                node.last_heard_ms = at_ms - 1000;
            }
        }
        let empty = EventsReply { events: Vec::new(), next_seq: 46, end: false };
        [
            (at_ms, Message::Nodes(alive)),
            (at_ms, Message::Pools(pools())),
            (at_ms, Message::Tenants(vec![tenant("lab", 41), tenant("web", 7)])),
            (at_ms, Message::Events { tenant: "lab".into(), reply: empty }),
            (at_ms, Message::Tick),
        ]
    })
}

#[test]
fn a_cluster_at_rest_draws_no_frame() {
    let mut model = full(80, 24, true);
    assert_eq!((frames(&mut model, rest(60)), model.due_ms()), (0, None));
    press(&mut model, "?");
    assert_eq!(frames(&mut model, rest(10)), 0);
}

#[test]
fn time_costs_a_frame_only_where_it_is_seen() {
    // All jobs are over and hours old: their age changes once an hour.
    let mut model = super::fixture::model(80, 24, true);
    tell(&mut model, Message::Tenants(vec![tenant("lab", 1)]));
    let mut old = summary("lab", 1, State::Completed);
    old.submitted_ms = NOW_MS - 5 * 3_600_000 - 60_000;
    tell(&mut model, Message::Jobs { tenant: "lab".into(), reply: page(vec![old]) });
    press(&mut model, "2");
    let ticks = (1..=3600).map(|second| (NOW_MS + second * 1000, Message::Tick));
    assert_eq!(frames(&mut model, ticks), 1);
    // A running job tells seconds.
    let mut model = full(80, 24, true);
    press(&mut model, "2");
    let ticks = (1..=40).map(|tick| (NOW_MS + tick * 250, Message::Tick));
    assert_eq!(frames(&mut model, ticks), 10);
    assert_eq!(model.due_ms(), Some(NOW_MS + 11_000));
}

#[test]
fn a_node_that_falls_silent_is_seen_to_age() {
    let mut model = full(80, 24, true);
    press(&mut model, "3");
    model.drawn();
    // n2 is late already, by 14 s: the next second shows.
    assert_eq!(model.due_ms(), Some(NOW_MS + 1000));
    let ticks = (1..=20).map(|second| (NOW_MS + second * 1000, Message::Tick));
    assert_eq!(frames(&mut model, ticks), 20);
    assert!(text(&draw(&model)).contains("34s ago"));
}

#[test]
fn what_happens_elsewhere_draws_no_frame() {
    let mut model = full(80, 24, true);
    press(&mut model, "3");
    let busy = |seq: u64| {
        let happened = event(seq, 1, Some(0), State::Running, State::Completed);
        let reply = EventsReply { events: vec![happened], next_seq: seq + 1, end: false };
        (NOW_MS, Message::Events { tenant: "lab".into(), reply })
    };
    assert_eq!(frames(&mut model, (50..150).map(busy)), 0);
    // In the list, a job far below the window.
    press(&mut model, "2");
    assert_eq!(frames(&mut model, (150..250).map(busy)), 0);
    // The log while only the steps are shown.
    let mut model = with_job(80, 24, true);
    press(&mut model, "s");
    let log = |cursor| Message::Logs {
        visit: 1,
        reply: super::fixture::log_reply(0, 0, "x\n", Stream::Stdout, cursor),
    };
    assert_eq!(frames(&mut model, (100..110).map(|cursor| (NOW_MS, log(cursor)))), 0);
    press(&mut model, "l");
    assert_eq!(frames(&mut model, (110..120).map(|cursor| (NOW_MS, log(cursor)))), 10);
}
