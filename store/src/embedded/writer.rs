//! The one writer: takes who waits, lets the engine do the whole group in one
//! sync, then tells watchers and answers.
//!
//! The order here is the store's promise: durable first, told second. A crash
//! at any point before the answers leaves callers unsure, never wrong.

use super::engine::{Engine, Outcome};
use super::line::{Operation, Request};
use super::shared::{Shared, Slot};
use crate::LeaseId;
use crate::limits::{LEASE_LOOK_MS_MAX, REOPEN_PAUSE_MS};
use std::sync::Arc;
use world::task::blocking;
use world::time::{Alarm, ms};

const CLOSED: &str = "the store is closed";

/// Answers whoever is left in line should the writer's task end early.
struct LastWord(Arc<Shared>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.line.dismiss("the store's writer stopped");
        self.0.watchers().end("the store's writer stopped");
        let _ = self.0.ended.send_replace(true);
    }
}

/// Runs until the line is closed or the store is poisoned.
pub(crate) async fn run(engine: Engine) {
    // It goes from hand to hand with every group.
    let mut engine = Box::new(engine);
    let shared = Arc::clone(&engine.shared);
    let _last_word = LastWord(Arc::clone(&shared));
    let (mut failed, mut alarm) = (false, Alarm::default());
    let why = loop {
        let Some((requests, due)) = next_group(&shared, &mut alarm, failed).await else {
            break shared.line.closed().unwrap_or_else(|| CLOSED.to_owned());
        };
        let (operations, replies): (Vec<Operation>, Vec<_>) =
            requests.into_iter().map(|request| (request.operation, request.reply)).unzip();
        if operations.len() > 1 {
            world::mark!("store.commit.shares_a_sync");
        }
        let now_ms = shared.clock.monotonic_ms();
        let (returned, outcome) = blocking(move || {
            let outcome = engine.run(operations, &due, now_ms);
            (engine, outcome)
        })
        .await;
        engine = returned;
        failed = outcome.failed;
        let Outcome { answers, changes, granted, ended, poisoned, .. } = outcome;
        {
            let mut deadlines = shared.deadlines();
            let now_ms = shared.clock.monotonic_ms();
            granted.into_iter().for_each(|(lease, ttl_ms)| deadlines.start(lease, ttl_ms, now_ms));
            ended.into_iter().for_each(|lease| deadlines.end(lease));
        }
        if !failed {
            shared.watchers().tell(&changes, engine.revision);
        }
        assert_eq!(answers.len(), replies.len(), "one answer for each operation");
        for (reply, answer) in replies.into_iter().zip(answers) {
            // Whoever no longer waits needs no answer.
            let _ = reply.send(answer);
        }
        if let Some(why) = poisoned {
            tracing::error!(why, path = engine.path, "the store stops");
            break why;
        }
    };
    shared.line.dismiss(&why);
    shared.watchers().end(&why);
    let closing = Arc::clone(&shared);
    blocking(move || closing.set_slot(Slot::Closed(why))).await;
}

/// Waits for commits, or until leases are due. `None` once the line is closed
/// and empty.
async fn next_group(
    shared: &Shared,
    alarm: &mut Alarm,
    failed: bool,
) -> Option<(Vec<Request>, Vec<LeaseId>)> {
    loop {
        let requests = shared.line.take()?;
        let now_ms = shared.clock.monotonic_ms();
        // After a failure leases wait for the next commit or the next pause.
        let (due, wait_ms) = {
            let mut deadlines = shared.deadlines();
            let wait_ms = deadlines.next_ms(now_ms).map(|wait_ms| wait_ms.clamp(1, LEASE_LOOK_MS_MAX));
            if failed {
                (deadlines.due(now_ms), Some(REOPEN_PAUSE_MS))
            } else {
                (deadlines.due(now_ms), wait_ms)
            }
        };
        if !requests.is_empty() || (!failed && !due.is_empty()) {
            return Some((requests, due));
        }
        match wait_ms {
            None => shared.line.arrival().await,
            Some(wait_ms) => {
                let rested = world::select! {
                    biased;
                    () = shared.line.arrival() => false,
                    () = alarm.after(ms(wait_ms)) => true,
                };
                if rested && failed {
                    return Some((Vec::new(), shared.deadlines().due(shared.clock.monotonic_ms())));
                }
            }
        }
    }
}
