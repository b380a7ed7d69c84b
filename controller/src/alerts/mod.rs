//! Alerts: what an operator should look at, under codes that do not change.
//!
//! [`Alerts::step`] takes what is known of the cluster at an instant and says which alerts
//! are raised by it and which are cleared. It is as pure as the cores: no clock, no IO, no
//! chance. What must hold:
//!
//! - An alert is raised once while its cause lasts. It is cleared only after the cause was
//!   gone for a while without a break, so that nothing flaps; and then it is cleared for sure.
//! - What is not known changes nothing: facts come by topic, and a topic that could not be
//!   asked neither raises nor clears.
//! - There are [`ALERTS_KEPT_MAX`] at most. Cleared ones are kept to be looked at, and the
//!   oldest of them make room; one that finds none waits until there is.
//!
//! State is in memory alone. Whoever begins anew raises again what still holds.

mod causes;
mod facts;
#[cfg(test)]
mod tests;

pub use facts::{Facts, NodeFact, PoolFact, ScaleFact, SpendFact, StarvedFact};

use crate::limits::ALERTS_KEPT_MAX;
use causes::{Cause, Seen};
use std::collections::{BTreeMap, VecDeque};
use world::clock::Now;

/// What an alert is about; see `docs/alerts.md`. In this order they get room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// A node gave up bytes of logs.
    LogsGivenUp,
    /// Retries wait for their budget.
    RetryStorm,
    /// All of a month's budget is spent or reserved.
    Budget100,
    /// A node is lost.
    NodeLost,
    /// A node comes and goes.
    NodeFlapping,
    /// Work queues for a pool that has no room.
    PoolExhausted,
    /// The driver of a pool that grows by need fails again and again.
    ScaleFailed,
    /// A pool may not grow although work queues for it.
    ScaleCapped,
    /// The first of a tenant's queue cannot start.
    Starvation,
    /// 90 % of a month's budget.
    Budget90,
    /// 80 % of it.
    Budget80,
}

/// How soon somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Soon.
    Warning,
    /// Now: work is refused, delayed for all, or something was lost.
    Critical,
}

impl Code {
    /// All there are.
    pub const ALL: [Self; 11] = [
        Self::LogsGivenUp,
        Self::RetryStorm,
        Self::Budget100,
        Self::NodeLost,
        Self::NodeFlapping,
        Self::PoolExhausted,
        Self::ScaleFailed,
        Self::ScaleCapped,
        Self::Starvation,
        Self::Budget90,
        Self::Budget80,
    ];

    /// As it is written at every door.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LogsGivenUp => "logs.given_up",
            Self::RetryStorm => "retry.storm",
            Self::Budget100 => "budget.100",
            Self::NodeLost => "node.lost",
            Self::NodeFlapping => "node.flapping",
            Self::PoolExhausted => "pool.exhausted",
            Self::ScaleFailed => "scale.failed",
            Self::ScaleCapped => "scale.capped",
            Self::Starvation => "starvation",
            Self::Budget90 => "budget.90",
            Self::Budget80 => "budget.80",
        }
    }

    /// Each code has one.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::LogsGivenUp | Self::RetryStorm | Self::Budget100 => Severity::Critical,
            _ => Severity::Warning,
        }
    }
}

impl Severity {
    /// As it is written at every door.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// From when on something is worth an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A pool is full and work queues for it for so long.
    pub pool_exhausted_ms: u64,
    /// The first of a tenant's queue cannot start for so long.
    pub starvation_ms: u64,
    /// A node fell silent, or came anew, so often …
    pub flaps_min: u32,
    /// … within this.
    pub flaps_window_ms: u64,
    /// Gone for so long a cause counts as gone.
    pub quiet_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pool_exhausted_ms: 60_000,
            starvation_ms: 1_800_000,
            flaps_min: 3,
            flaps_window_ms: 600_000,
            quiet_ms: 60_000,
        }
    }
}

/// An alert that is on, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What it is about.
    pub code: Code,
    /// Which node, pool or tenant; `*` for all of them.
    pub subject: String,
    /// The tenant that may see it; empty: operators alone.
    pub tenant: String,
    /// When it was raised, milliseconds since 1970.
    pub since_ms: u64,
    /// When it was cleared, likewise; 0: it is on.
    pub cleared_ms: u64,
    /// One line for people, as of when the cause was last seen.
    pub text: String,
}

/// What one step changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// By code, then subject.
    pub raised: Vec<Alert>,
    /// Likewise.
    pub cleared: Vec<Alert>,
}

/// An alert's name.
type Key = (Code, String);

/// A cause that is there, or was a moment ago.
#[derive(Debug)]
struct Held {
    /// Monotonic.
    since_ms: u64,
    /// Monotonic: since when it is gone.
    gone_ms: Option<u64>,
    /// Once it was raised.
    alert: Option<Alert>,
}

/// All alerts.
#[derive(Debug, Default)]
pub struct Alerts {
    config: Config,
    seen: Seen,
    held: BTreeMap<Key, Held>,
    /// The oldest first.
    cleared: VecDeque<Alert>,
    raised_total: BTreeMap<Code, u64>,
}

impl Alerts {
    /// None is on.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Takes facts in.
    pub fn step(&mut self, now: Now, facts: &Facts) -> Changes {
        let mut changes = Changes::default();
        let causes = causes::of(&self.config, &mut self.seen, facts, now, |code, subject| {
            self.held.get(&(code, subject.to_owned())).is_some_and(|held| held.alert.is_some())
        });
        self.let_go(now, facts, &causes, &mut changes);
        let mut on = self.on().count();
        for (key, cause) in causes {
            on += usize::from(self.hold(now, key, cause, on, &mut changes));
        }
        self.check();
        changes
    }

    /// Those that are on, by code, then subject.
    pub fn on(&self) -> impl Iterator<Item = &Alert> {
        self.held.values().filter_map(|held| held.alert.as_ref())
    }

    /// Those that were cleared, the oldest first, as far as there was room.
    pub fn cleared(&self) -> impl Iterator<Item = &Alert> {
        self.cleared.iter()
    }

    /// How often one of this code was raised.
    #[must_use]
    pub fn raised_total(&self, code: Code) -> u64 {
        self.raised_total.get(&code).copied().unwrap_or(0)
    }

    fn let_go(&mut self, now: Now, facts: &Facts, causes: &BTreeMap<Key, Cause>, changes: &mut Changes) {
        let (config, cleared) = (&self.config, &mut self.cleared);
        self.held.retain(|key, held| {
            if causes.contains_key(key) || !facts.tell_of(key.0) {
                return true;
            }
            let gone_ms = *held.gone_ms.get_or_insert(now.mono_ms);
            let Some(alert) = &mut held.alert else { return false };
            if now.mono_ms.saturating_sub(gone_ms) < config.quiet_for(key.0) {
                return true;
            }
            world::mark!("controller.alerts.cleared");
            alert.cleared_ms = now.wall_ms.max(1);
            changes.cleared.push(alert.clone());
            cleared.push_back(alert.clone());
            false
        });
    }

    /// A cause that is there, while so many alerts are on. True where it raised one more.
    fn hold(&mut self, now: Now, key: Key, cause: Cause, on: usize, changes: &mut Changes) -> bool {
        let (code, subject) = key.clone();
        let fresh = Held { since_ms: now.mono_ms, gone_ms: None, alert: None };
        let held = self.held.entry(key).or_insert(fresh);
        held.gone_ms = None;
        if let Some(alert) = &mut held.alert {
            alert.text = cause.text;
            return false;
        }
        let waited_ms = now.mono_ms.saturating_sub(held.since_ms);
        if waited_ms < self.config.holds_for(code) || on == ALERTS_KEPT_MAX {
            return false;
        }
        world::mark!("controller.alerts.raised");
        let Cause { tenant, text } = cause;
        let alert = Alert { code, subject, tenant, since_ms: now.wall_ms, cleared_ms: 0, text };
        held.alert = Some(alert.clone());
        changes.raised.push(alert);
        *self.raised_total.entry(code).or_default() += 1;
        while on + 1 + self.cleared.len() > ALERTS_KEPT_MAX {
            self.cleared.pop_front();
        }
        true
    }

    /// Panics where its bound does not hold.
    fn check(&self) {
        assert!(self.on().count() + self.cleared.len() <= ALERTS_KEPT_MAX, "alerts are bounded");
    }
}

impl Config {
    /// How long a cause must be there.
    fn holds_for(&self, code: Code) -> u64 {
        match code {
            Code::PoolExhausted | Code::ScaleCapped => self.pool_exhausted_ms,
            // The others' facts have their own waiting in them.
            _ => 0,
        }
    }

    /// How long it must be gone.
    fn quiet_for(&self, code: Code) -> u64 {
        match code {
            // What was given up is an instant, and more may follow.
            Code::LogsGivenUp => self.quiet_ms.saturating_mul(10),
            _ => self.quiet_ms,
        }
    }
}
