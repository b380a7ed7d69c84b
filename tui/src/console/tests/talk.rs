//! What the console asks for, told as conversations.

use super::fixture::{
    NOW_MS, event, full, hit, job_view, log_reply, model, page, press, summary, tell, tenant, why, with_job,
};
use crate::{
    console::{Ask, Command, Message, Model, start, update},
    limits::{
        BACKOFF_LONGEST_MS, JOBS_PER_PAGE, POLL_AWAY_MS, POLL_MS, POLL_TENANTS_MS, POLL_WHY_MS, REFRESH_MS,
        TENANTS_MAX,
    },
};
use crossterm::event::KeyCode;
use proto::{
    ids::JobId,
    problem,
    v1::{EventsReply, LogsReply, State, Stream},
};

fn happened(model: &mut Model, events: Vec<proto::v1::Event>) -> Vec<Command> {
    let next_seq = events.last().map_or(0, |event| event.seq + 1);
    tell(model, Message::Events { tenant: "lab".into(), reply: EventsReply { events, next_seq, end: false } })
}

fn jobs_page(tenant: &str, before: u64, limit: u32) -> Command {
    Ask::Jobs { tenant: tenant.into(), before, limit }.now()
}

#[test]
fn it_begins_with_the_cluster_then_history_and_pages_of_each_tenant() {
    let mut model = model(80, 24, true);
    assert_eq!(start(), [Ask::Tenants.now(), Ask::Nodes.now(), Ask::Pools.now()]);
    assert_eq!(
        tell(&mut model, Message::Tenants(vec![tenant("lab", 41)])),
        [
            Ask::Tenants.after(POLL_TENANTS_MS),
            // From what the ledger said before the first page is read.
            Ask::Events { tenant: "lab".into(), from_seq: 41 }.now(),
            jobs_page("lab", 0, JOBS_PER_PAGE),
        ]
    );
    let mut reply = page((101..=200).rev().map(|number| summary("lab", number, State::Pending)).collect());
    reply.next_before = 101;
    let again = tell(&mut model, Message::Jobs { tenant: "lab".into(), reply });
    assert_eq!(again, [jobs_page("lab", 101, JOBS_PER_PAGE)]);
    let reply = page((1..=100).rev().map(|number| summary("lab", number, State::Pending)).collect());
    assert_eq!(tell(&mut model, Message::Jobs { tenant: "lab".into(), reply }), []);
    assert_eq!((model.jobs.len(), model.jobs.count(State::Pending)), (200, 200));
    // Known tenants are not begun again.
    assert_eq!(
        tell(&mut model, Message::Tenants(vec![tenant("lab", 99)])),
        [Ask::Tenants.after(POLL_TENANTS_MS)]
    );
}

#[test]
fn tenants_past_the_limit_are_told_of() {
    let mut model = model(80, 24, true);
    let many = (0..TENANTS_MAX + 3).map(|number| tenant(&format!("t{number}"), 1)).collect();
    let commands = tell(&mut model, Message::Tenants(many));
    let streams =
        commands.iter().filter(|command| matches!(command, Command::Ask { ask: Ask::Events { .. }, .. }));
    assert_eq!((streams.count(), model.tenants.left_out), (TENANTS_MAX, 3));
}

#[test]
fn one_tenant_alone_where_it_is_named() {
    let mut model = model(80, 24, true);
    model.settings.tenant = "web".into();
    let commands = tell(&mut model, Message::Tenants(vec![tenant("lab", 1), tenant("web", 1)]));
    assert_eq!((commands.len(), model.tenants.len()), (3, 1));
}

#[test]
fn a_new_job_is_fetched_and_known_ones_are_moved_by_the_history() {
    let mut model = full(80, 24, true);
    press(&mut model, "2");
    // Those that something had happened to.
    tell(&mut model, Message::Refreshed(Vec::new()));
    let before = model.jobs.count(State::Pending);
    let commands = happened(&mut model, vec![event(50, 41, None, State::Unspecified, State::Pending)]);
    assert_eq!(commands, [jobs_page("lab", 0, 1)]);
    // It began while its page was on its way, which was read before.
    happened(&mut model, vec![event(51, 41, None, State::Pending, State::Running)]);
    let reply = page(vec![summary("lab", 41, State::Pending)]);
    let commands = tell(&mut model, Message::Jobs { tenant: "lab".into(), reply });
    let key = model.jobs.key_of(&JobId::new("lab", 41)).unwrap();
    assert_eq!(
        (model.jobs.get(key).unwrap().state, model.jobs.count(State::Pending)),
        (State::Running, before)
    );
    // It is in the window, so its counts are read again.
    assert_eq!(commands, [Ask::Refresh(vec![JobId::new("lab", 41)]).after(REFRESH_MS)]);
}

#[test]
fn jobs_that_change_all_the_time_are_read_now_and_then() {
    let mut model = full(80, 24, true);
    press(&mut model, "2");
    tell(&mut model, Message::Refreshed(Vec::new()));
    model.refreshed_ms = 0;
    let stale = |model: &mut Model, seq| {
        happened(model, vec![event(seq, 38, Some(0), State::Running, State::Completed)])
    };
    let first = stale(&mut model, 50);
    assert_eq!(first.len(), 1, "{first:?}");
    for seq in 51..90 {
        assert_eq!(stale(&mut model, seq), []);
    }
    let job = summary("lab", 38, State::Completed);
    let again = tell(&mut model, Message::Refreshed(vec![job]));
    assert_eq!(again, [Ask::Refresh(vec![JobId::new("lab", 38)]).after(REFRESH_MS)]);
    // On another screen nobody sees them.
    let job = summary("lab", 38, State::Completed);
    tell(&mut model, Message::Refreshed(vec![job]));
    press(&mut model, "3");
    assert_eq!(stale(&mut model, 91), []);
}

#[test]
fn a_lost_stream_is_resumed_after_what_was_heard() {
    let mut model = full(80, 24, true);
    happened(&mut model, vec![event(57, 38, None, State::Running, State::Completed)]);
    let ask = Ask::Events { tenant: "lab".into(), from_seq: 41 };
    let cut = || problem::unavailable("stream", "the server ended the stream before its end");
    let resumed = Ask::Events { tenant: "lab".into(), from_seq: 58 };
    let commands = tell(&mut model, Message::Failed { ask: ask.clone(), problem: cut() });
    assert_eq!(commands, [resumed.clone().after(500)]);
    for _ in 0..10 {
        tell(&mut model, Message::Failed { ask: ask.clone(), problem: cut() });
    }
    let commands = tell(&mut model, Message::Failed { ask, problem: cut() });
    assert_eq!(commands, [resumed.after(BACKOFF_LONGEST_MS)]);
    // Every source is asked again, forever, and none twice at once.
    let page = Ask::Jobs { tenant: "lab".into(), before: 7, limit: 9 };
    for same in [Ask::Tenants, Ask::Nodes, Ask::Pools, page] {
        let commands = tell(&mut model, Message::Failed { ask: same.clone(), problem: cut() });
        assert_eq!(commands, [same.after(500)]);
    }
}

#[test]
fn nodes_are_looked_at_more_often_while_they_are_seen() {
    let mut model = full(80, 24, true);
    let pauses = |model: &mut Model| tell(model, Message::Nodes(super::fixture::nodes()));
    assert_eq!(pauses(&mut model), [Ask::Nodes.after(POLL_MS)]);
    press(&mut model, "2");
    assert_eq!(pauses(&mut model), [Ask::Nodes.after(POLL_AWAY_MS)]);
}

#[test]
fn an_open_job_is_read_its_log_followed_and_why_asked_again() {
    let mut model = full(80, 24, true);
    press(&mut model, "2j");
    let id = JobId::new("lab", 39);
    let opened = hit(&mut model, KeyCode::Enter);
    assert_eq!(
        opened,
        [Ask::Job { job: id.clone(), visit: 1 }.now(), Ask::Why { job: id.clone(), visit: 1 }.now()]
    );
    let logs = |cursor| Ask::Logs { job: id.clone(), visit: 1, cursor };
    assert_eq!(
        tell(&mut model, Message::Job { visit: 1, view: job_view(39, State::Running) }),
        [logs(0).now()]
    );
    let again = tell(&mut model, Message::Why { visit: 1, reply: why() });
    // How far it has come is not in its history: it is read along.
    let read = Ask::Job { job: id.clone(), visit: 1 }.after(REFRESH_MS);
    assert_eq!(again, [Ask::Why { job: id.clone(), visit: 1 }.after(POLL_WHY_MS), read]);
    assert_eq!(tell(&mut model, Message::Job { visit: 1, view: job_view(39, State::Running) }), []);
    tell(&mut model, Message::Logs { visit: 1, reply: log_reply(0, 0, "x\n", Stream::Stdout, 77) });
    // The log breaks: it goes on where it was.
    let broken = Message::Failed { ask: logs(0), problem: problem::unavailable("stream", "cut") };
    assert_eq!(tell(&mut model, broken), [logs(77).after(500)]);
    // Something happens: the job is read again, not at each event.
    let read = happened(&mut model, vec![event(60, 39, Some(1), State::Running, State::Completed)]);
    assert_eq!(read, [Ask::Job { job: id.clone(), visit: 1 }.after(REFRESH_MS)]);
    assert_eq!(happened(&mut model, vec![event(61, 39, Some(1), State::Running, State::Completed)]), []);
    // Closed, its answers mean nothing any more.
    assert_eq!(hit(&mut model, KeyCode::Esc), [Command::StopLogs]);
    for late in [
        Message::Job { visit: 1, view: job_view(39, State::Running) },
        Message::Why { visit: 1, reply: why() },
        Message::Logs { visit: 1, reply: LogsReply::default() },
        Message::Failed { ask: logs(0), problem: problem::unavailable("stream", "cut") },
    ] {
        assert_eq!(tell(&mut model, late), []);
    }
    assert_eq!(model.feeds.worst(), None);
}

#[test]
fn the_log_of_a_job_that_is_tried_again_goes_on() {
    let mut model = with_job(80, 24, true);
    let end = LogsReply { cursor: 90, end: true, ..LogsReply::default() };
    tell(&mut model, Message::Logs { visit: 1, reply: end });
    let over =
        update(&mut model, NOW_MS + 5000, Message::Job { visit: 1, view: job_view(39, State::Failed) });
    assert!(
        over.iter().all(|command| !matches!(command, Command::Ask { ask: Ask::Logs { .. }, .. })),
        "{over:?}"
    );
    let tried =
        update(&mut model, NOW_MS + 9000, Message::Job { visit: 1, view: job_view(39, State::Running) });
    assert!(
        tried.contains(&Ask::Logs { job: JobId::new("lab", 39), visit: 1, cursor: 90 }.now()),
        "{tried:?}"
    );
}

#[test]
fn a_cancel_is_asked_for_only_after_a_yes() {
    let mut model = full(80, 24, true);
    press(&mut model, "2");
    for no in ["cn", "cq", "cxjc2/?\r"] {
        assert_eq!(press(&mut model, no), [], "{no}");
        hit(&mut model, KeyCode::Esc);
        assert!(!model.over);
    }
    assert_eq!(hit(&mut model, KeyCode::Enter).len(), 2);
    hit(&mut model, KeyCode::Esc);
    // The cursor's job when the question was put, whatever comes meanwhile.
    press(&mut model, "c");
    let reply = page(vec![summary("lab", 90, State::Pending)]);
    tell(&mut model, Message::Jobs { tenant: "lab".into(), reply });
    let id = JobId::new("lab", 40);
    assert_eq!(press(&mut model, "y"), [Ask::Cancel(id.clone()).now()]);
    tell(&mut model, Message::Cancelled { job: id.clone(), state: State::Running });
    assert_eq!(model.notice.as_ref().unwrap().text, "lab-40 is being cancelled");
    let problem = problem::denied("role", "tenant", "may not");
    assert_eq!(tell(&mut model, Message::Failed { ask: Ask::Cancel(id), problem }), []);
    assert!(model.notice.as_ref().unwrap().bad);
    // A notice goes with the next key; a job that is over cannot be cancelled.
    press(&mut model, "jjj");
    assert_eq!(model.notice, None);
    assert_eq!(press(&mut model, "c"), []);
    assert!(model.notice.as_ref().unwrap().text.contains("is over already"), "{:?}", model.notice);
}
