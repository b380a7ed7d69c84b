//! What a frame costs with 100,000 jobs, counted rather than timed.

use super::fixture::{NOW_MS, draw, event, model, press, summary, tell, tenant};
use crate::console::{Message, Model, view::FORMATTED};
use proto::v1::{EventsReply, ListJobsReply, State};

const JOBS: u64 = 100_000;

fn crowded(columns: u16, rows: u16) -> Model {
    let mut model = model(columns, rows, true);
    tell(&mut model, Message::Tenants(vec![tenant("lab", 1)]));
    for page in (0..JOBS / 1000).rev() {
        let jobs = (page * 1000 + 1..=page * 1000 + 1000).rev().map(|number| {
            let mut job = summary("lab", number, State::Running);
            job.submitted_ms = NOW_MS - (JOBS - number) * 10;
            job
        });
        let reply = ListJobsReply { jobs: jobs.collect(), next_before: page * 1000 + 1 };
        tell(&mut model, Message::Jobs { tenant: "lab".into(), reply });
    }
    press(&mut model, "2");
    model
}

fn formatted(work: impl FnOnce()) -> usize {
    let before = FORMATTED.get();
    work();
    FORMATTED.get() - before
}

#[test]
fn only_rows_in_the_window_are_formatted() {
    let mut model = crowded(200, 60);
    assert_eq!(model.jobs.len() as u64, JOBS);
    let window = 60 - 3 - 2;
    assert_eq!(formatted(|| drop(draw(&model))), window);
    press(&mut model, "G");
    assert_eq!(formatted(|| drop(draw(&model))), window);
    press(&mut model, "/99");
    assert!(model.jobs.rows() > 1000 && model.jobs.rows() < 10_000);
    assert_eq!(formatted(|| drop(draw(&model))), window);
    // Neither keys nor news format anything.
    let events: Vec<_> =
        (1..=JOBS).map(|job| event(job, job, None, State::Running, State::Completed)).collect();
    let reply = EventsReply { events, next_seq: JOBS + 1, end: false };
    let news = || {
        tell(&mut model, Message::Events { tenant: "lab".into(), reply });
        press(&mut model, "\u{8}");
    };
    assert_eq!(formatted(news), 0);
    assert_eq!(model.jobs.count(State::Completed), JOBS);
    model.jobs.check();
}
