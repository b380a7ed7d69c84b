//! A timer of tokio's that is set again rather than made again.

use super::{Duration, Instant, Sleep, sleep_until};
use std::pin::Pin;

/// A timer for a loop that waits for a deadline or for news, whichever comes
/// first: one timer, set again in each turn.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Completes at this instant. Dropped before, it may wake its task once for
    /// nothing.
    pub async fn at(&mut self, deadline: Instant) {
        let sleep = match &mut self.0 {
            Some(sleep) => {
                sleep.as_mut().reset(deadline);
                sleep
            }
            none => none.insert(Box::pin(sleep_until(deadline))),
        };
        sleep.as_mut().await;
    }

    /// Completes once this span has passed.
    pub async fn after(&mut self, span: Duration) {
        self.at(Instant::now() + span).await;
    }
}
