//! What stands between the console and its sources: who does not answer, since
//! when, and how long until each is asked again.
//!
//! What must hold: a source that fails is asked again, ever more seldom up to a
//! limit; its first answer ends its trouble.

use super::message::Ask;
use crate::limits::{BACKOFF_FIRST_MS, BACKOFF_LONGEST_MS, REFUSED_PAUSE_MS};
use proto::problem::Problem;
use std::collections::BTreeMap;

/// Where data come from; a question's kind, and whose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Feed {
    Tenants,
    Nodes,
    Pools,
    Jobs(String),
    Events(String),
    Refresh,
    Job,
    Why,
    Logs,
}

impl Feed {
    /// That of a question; `None` for what is asked once.
    pub(crate) fn of(ask: &Ask) -> Option<Self> {
        Some(match ask {
            Ask::Tenants => Self::Tenants,
            Ask::Nodes => Self::Nodes,
            Ask::Pools => Self::Pools,
            Ask::Jobs { tenant, .. } => Self::Jobs(tenant.clone()),
            Ask::Events { tenant, .. } => Self::Events(tenant.clone()),
            Ask::Refresh(_) => Self::Refresh,
            Ask::Job { .. } => Self::Job,
            Ask::Why { .. } => Self::Why,
            Ask::Logs { .. } => Self::Logs,
            Ask::Cancel(_) => return None,
        })
    }
}

#[derive(Clone, Debug)]
struct Trouble {
    since_ms: u64,
    tries: u32,
    text: String,
    away: bool,
}

/// The sources that do not answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Feeds {
    troubles: BTreeMap<Feed, Trouble>,
}

/// What the status line says of the worst trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told<'a> {
    /// Nobody answers, else: the server says no.
    pub away: bool,
    pub since_ms: u64,
    pub text: &'a str,
}

impl Feeds {
    /// It answered. True where that ended a trouble.
    pub(crate) fn heard(&mut self, feed: &Feed) -> bool {
        self.troubles.remove(feed).is_some()
    }

    /// The job that was open is not any more: nobody waits for it.
    pub(crate) fn forget_job(&mut self) {
        for feed in [Feed::Job, Feed::Why, Feed::Logs] {
            self.troubles.remove(&feed);
        }
    }

    /// It did not. How long to wait before the next try.
    pub(crate) fn failed(&mut self, feed: Feed, problem: &Problem, now_ms: u64) -> u64 {
        let away = is_away(problem);
        let trouble = self.troubles.entry(feed).or_insert_with(|| Trouble {
            since_ms: now_ms,
            tries: 0,
            text: String::new(),
            away,
        });
        trouble.tries = trouble.tries.saturating_add(1);
        trouble.text = one_line(problem);
        trouble.away = away;
        if away { backoff_ms(trouble.tries) } else { REFUSED_PAUSE_MS }
    }

    /// The oldest trouble; one where nobody answers before all others.
    pub(crate) fn worst(&self) -> Option<Told<'_>> {
        let worst = self.troubles.values().min_by_key(|trouble| (!trouble.away, trouble.since_ms))?;
        Some(Told { away: worst.away, since_ms: worst.since_ms, text: &worst.text })
    }
}

/// Whether trying again soon is right.
pub(crate) fn is_away(problem: &Problem) -> bool {
    matches!(problem.family(), "unavailable" | "internal")
}

/// Reason and remedy, without field and value: these name the server, which
/// the title does already.
pub(crate) fn one_line(problem: &Problem) -> String {
    let bare = Problem { field: String::new(), value: String::new(), ..problem.clone() };
    bare.to_string()
}

fn backoff_ms(tries: u32) -> u64 {
    let doubled = 1_u64
        .checked_shl(tries.saturating_sub(1))
        .map_or(u64::MAX, |times| times.saturating_mul(BACKOFF_FIRST_MS));
    doubled.min(BACKOFF_LONGEST_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::problem;

    #[test]
    fn a_source_that_fails_is_asked_ever_more_seldom() {
        let mut feeds = Feeds::default();
        let gone = problem::unavailable("server", "connection refused");
        let pauses: Vec<u64> = (0..7).map(|now| feeds.failed(Feed::Nodes, &gone, 1000 + now)).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        for _ in 0..100 {
            assert_eq!(feeds.failed(Feed::Nodes, &gone, 9000), BACKOFF_LONGEST_MS);
        }
        let told = feeds.worst().unwrap();
        assert_eq!((told.away, told.since_ms), (true, 1000));
        assert_eq!(told.text, "connection refused; try again in a moment");
        assert!(feeds.heard(&Feed::Nodes) && !feeds.heard(&Feed::Nodes));
        assert_eq!(feeds.worst(), None);
        assert_eq!(feeds.failed(Feed::Nodes, &gone, 9000), 500);
    }

    #[test]
    fn a_refusal_is_told_but_not_before_a_server_out_of_reach() {
        let mut feeds = Feeds::default();
        let no = problem::denied("role", "agent", "may not");
        assert_eq!(feeds.failed(Feed::Tenants, &no, 1), REFUSED_PAUSE_MS);
        assert!(!feeds.worst().unwrap().away);
        feeds.failed(Feed::Events("lab".into()), &problem::unavailable("stream", "cut"), 7);
        assert_eq!(feeds.worst().unwrap().since_ms, 7);
    }
}
