//! Notices on their way to the webhook: in order, each tried again for a while.
//!
//! What must hold: whoever pushes never waits. The line is bounded; past its end the oldest
//! notice goes, and is counted.

use crate::limits::{WEBHOOK_BACKOFF_MS_MAX, WEBHOOK_IDLE_MS, WEBHOOK_QUEUE, WEBHOOK_TRIES};
use controller::alerts::Alert;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use world::sync::Notify;
use world::{Webhook, time};

/// What became of notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notices {
    /// Taken by the webhook.
    pub sent: u64,
    /// Given up after all tries.
    pub failed: u64,
    /// The line was full.
    pub dropped: u64,
}

/// The line.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    line: Mutex<(VecDeque<String>, Notices)>,
    news: Notify,
}

impl Outbox {
    fn line(&self) -> MutexGuard<'_, (VecDeque<String>, Notices)> {
        self.line.lock().expect("no holder of this lock panics")
    }

    pub fn notices(&self) -> Notices {
        self.line().1
    }

    pub fn push(&self, alert: &Alert) {
        let (waiting, notices) = &mut *self.line();
        if waiting.len() >= WEBHOOK_QUEUE {
            waiting.pop_front();
            notices.dropped += 1;
        }
        waiting.push_back(text(alert));
        self.news.notify_one();
    }
}

fn text(alert: &Alert) -> String {
    json!({
        "code": alert.code.name(),
        "severity": alert.code.severity().name(),
        "subject": alert.subject,
        "since_ms": alert.since_ms,
        "state": if alert.cleared_ms == 0 { "raised" } else { "cleared" },
        "text": alert.text,
    })
    .to_string()
}

/// Posts what comes, until the outbox is gone. After a first try that failed it waits so
/// long.
pub(crate) async fn deliver(outbox: Weak<Outbox>, hook: Arc<dyn Webhook>, pause_ms: u64) {
    while let Some(line) = outbox.upgrade() {
        let next = line.line().0.pop_front();
        let Some(json) = next else {
            // It may have gone meanwhile, and then nobody tells.
            let _ = time::timeout(time::ms(WEBHOOK_IDLE_MS), line.news.notified()).await;
            continue;
        };
        drop(line);
        let sent = post(&outbox, &*hook, json, pause_ms).await;
        let Some(line) = outbox.upgrade() else { return };
        let notices = &mut line.line().1;
        *(if sent { &mut notices.sent } else { &mut notices.failed }) += 1;
    }
}

/// One notice, with its tries. True where it was taken.
async fn post(outbox: &Weak<Outbox>, hook: &dyn Webhook, json: String, mut pause_ms: u64) -> bool {
    for tried in 1..=WEBHOOK_TRIES {
        match hook.post(json.clone()).await {
            Ok(()) => return true,
            Err(why) if tried == WEBHOOK_TRIES => {
                tracing::warn!(why, tried, "the webhook did not take an alert, which is given up");
            }
            Err(why) => {
                tracing::debug!(why, tried, "the webhook did not take an alert");
                time::sleep(time::ms(pause_ms)).await;
                pause_ms = (pause_ms * 2).min(WEBHOOK_BACKOFF_MS_MAX);
            }
        }
        if outbox.strong_count() == 0 {
            break;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use controller::alerts::Code;
    use world::sync::mpsc;

    fn alert(subject: &str) -> Alert {
        Alert {
            code: Code::NodeLost,
            subject: subject.into(),
            tenant: String::new(),
            since_ms: 7,
            cleared_ms: 0,
            text: "gone".into(),
        }
    }

    /// Tells what it was posted, and answers what it is told to.
    #[derive(Debug)]
    struct Scripted(mpsc::Sender<String>, Mutex<VecDeque<Result<(), String>>>);

    #[async_trait]
    impl Webhook for Scripted {
        async fn post(&self, json: String) -> Result<(), String> {
            self.0.send(json).await.unwrap();
            self.1.lock().unwrap().pop_front().unwrap_or(Ok(()))
        }
    }

    #[test]
    fn a_notice_says_what_is_documented() {
        assert_eq!(
            text(&Alert { cleared_ms: 9, ..alert("n1") }),
            r#"{"code":"node.lost","severity":"warning","since_ms":7,"state":"cleared","subject":"n1","text":"gone"}"#
        );
    }

    #[test]
    fn a_line_that_is_full_lets_the_oldest_go_and_counts_it() {
        let outbox = Outbox::default();
        for i in 0..WEBHOOK_QUEUE + 3 {
            outbox.push(&alert(&format!("n{i}")));
        }
        assert_eq!(outbox.notices(), Notices { dropped: 3, ..Notices::default() });
        let line = outbox.line();
        assert_eq!(line.0.len(), WEBHOOK_QUEUE);
        assert!(line.0[0].contains("\"n3\""), "{}", line.0[0]);
    }

    #[tokio::test]
    async fn a_notice_is_tried_again_for_a_while_and_then_given_up_for_the_next() {
        let (tell, mut told) = mpsc::channel(64);
        let refused = || Err("it answered 503".to_owned());
        let refusals = (0..WEBHOOK_TRIES + 2).map(|_| refused()).collect();
        let outbox = Arc::new(Outbox::default());
        let hook = Arc::new(Scripted(tell, Mutex::new(refusals)));
        let delivery = tokio::spawn(deliver(Arc::downgrade(&outbox), hook, 1));
        outbox.push(&alert("n1"));
        outbox.push(&alert("n2"));
        let mut posted = Vec::new();
        for _ in 0..WEBHOOK_TRIES + 3 {
            posted.push(told.recv().await.unwrap());
        }
        assert!(posted[..WEBHOOK_TRIES as usize].iter().all(|json| json.contains("n1")));
        assert!(posted[WEBHOOK_TRIES as usize..].iter().all(|json| json.contains("n2")));
        while outbox.notices().sent == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(outbox.notices(), Notices { sent: 1, failed: 1, dropped: 0 });
        drop(outbox);
        delivery.await.unwrap();
    }
}
