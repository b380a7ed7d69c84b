//! Pools whose nodes come and go by need.
//!
//! [`Pool::step`] takes what is known of a pool at an instant, or what its driver answered,
//! and says what to do. It is as pure as the cores: no clock, no IO, no chance. What must
//! hold, whatever the driver does and wherever the server dies:
//!
//! - Never are more nodes asked for than [`Rules`] allow, those that were asked for before
//!   and those that may still be there counted. So a node has its name, and a place in the
//!   pool's row, before the driver hears of it; and it goes from there only once it has
//!   registered, or was refused by the driver, or is to be removed.
//! - A node is removed only after it was drained, and after a commit by which it has nothing
//!   and gets nothing any more: see [`Scaling::Retire`](crate::Scaling::Retire). The removal
//!   itself never leaves fewer than [`Rules::min`] that work.
//! - Nodes that an operator drained, and those that others started, are left alone.
//!
//! The contract with the shell: actions are done in their order, [`Action::Keep`] durably.
//! That a node is not so that something may be done with it changes nothing: the next look
//! sees it. When anything else fails the rest is not done, and [`Pool::reread`] is told the
//! row as it is. [`Action::Ask`] is begun once all before it is done, and its answer comes as
//! [`Event::Answered`]. One ask is under way at a time. What else there is to know follows
//! from the row and the rows of nodes, so a crash in between needs no more than a new look.

mod look;
#[cfg(test)]
mod tests;

use crate::limits::{SCALE_ASK_NODES_MAX, SCALE_BACKOFF_MS, SCALE_BACKOFF_MS_MAX, SCALE_FAILURES_TOLD};
use proto::v1::{AskedNode, Drainer, NodeState, ScaleRow};
use std::collections::{BTreeMap, BTreeSet};
use world::clock::Now;

/// What an operator says of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Nodes that are there even without work.
    pub min: u32,
    /// All there may be, those of operators too.
    pub max: u32,
    /// Of those that are the driver's: more would cost too much.
    pub paid_max: u32,
    /// Work has no room for so long before nodes are asked for.
    pub queued_ms: u64,
    /// A node is without work for so long before it goes.
    pub idle_ms: u64,
    /// After an ask that the driver did.
    pub cooldown_ms: u64,
    /// How long a node may take from there until it registers.
    pub arrive_ms: u64,
}

/// What is known of a pool at an instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Nodes in the pool, and those elsewhere that have a name of ours.
    pub nodes: Vec<NodeFact>,
    /// So many nodes more would have work.
    pub further: u64,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFact {
    /// Its name.
    pub name: String,
    /// The verdict about it.
    pub state: NodeState,
    /// Nothing new is placed on it.
    pub drained: bool,
    /// By whom, where that was not an operator.
    pub drainer: Drainer,
    /// Nothing is granted on it, as far as is known.
    pub idle: bool,
}

/// What a driver is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Start nodes of these names; those that are there already count as started.
    Add,
    /// End them; those that are not there count as ended.
    Remove,
}

/// An ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What.
    pub verb: Verb,
    /// Names, [`SCALE_ASK_NODES_MAX`] at most.
    pub nodes: Vec<String>,
}

/// What became of an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done for these, and nothing was for the others.
    Done(Vec<String>),
    /// Nothing was done, for this reason.
    Refused(String),
    /// Nobody knows what was done.
    Unknown(String),
}

/// What the core hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Every so often.
    Look(Facts),
    /// Of the ask that is under way.
    Answered(Answer),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// See [`crate::Scaling`].
    Drain(String, String),
    /// Likewise.
    Resume(String),
    /// Likewise, with the reason for a node that is not there.
    Retire(String, String),
    /// Likewise.
    Forget(String),
    /// The pool's row.
    Keep(ScaleRow),
    /// The driver.
    Ask(Ask),
}

/// What is shown of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Asked for, and not there yet.
    pub asked: u32,
    /// Drained by us, and those that are being removed.
    pub leaving: u32,
    /// Why no more are asked for although they would have work; empty: that is not so.
    pub capped: String,
    /// Nodes of the driver's, those that were asked for too.
    pub paid: u32,
}

/// One pool.
#[derive(Debug)]
pub struct Pool {
    name: String,
    rules: Rules,
    row: ScaleRow,
    asking: Option<Ask>,
    /// Of some of its nodes it was asked before: nobody knows what became of that.
    in_doubt: bool,
    /// Since when nodes have nothing, or are lost; monotonic.
    idle: BTreeMap<String, u64>,
    /// Since when more would have work; monotonic.
    queued_ms: Option<u64>,
    shown: Shown,
}

impl Pool {
    /// As its row says; where there is none, that is the empty one.
    #[must_use]
    pub fn new(name: &str, rules: Rules, row: ScaleRow) -> Self {
        assert!(rules.min <= rules.max && rules.min <= rules.paid_max, "the rules can be kept: {rules:?}");
        Self {
            name: name.to_owned(),
            rules,
            row,
            asking: None,
            in_doubt: false,
            idle: BTreeMap::new(),
            queued_ms: None,
            shown: Shown::default(),
        }
    }

    /// Takes something in.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        match event {
            Event::Look(facts) => self.look(now, &facts),
            Event::Answered(answer) => self.answered(now, answer),
        }
    }

    /// An action failed: the row is this. Where an ask was to follow, it did not begin.
    pub fn reread(&mut self, row: ScaleRow, ask_dropped: bool) {
        self.row = row;
        if ask_dropped {
            self.asking = None;
        }
    }

    /// Its row, as it was last kept or is to be.
    #[must_use]
    pub fn row(&self) -> &ScaleRow {
        &self.row
    }

    /// As of the last look.
    #[must_use]
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Times in a row that the driver failed, and how, once that is worth telling.
    #[must_use]
    pub fn failing(&self) -> Option<(u32, &str)> {
        let failures = self.row.add_failures.max(self.row.remove_failures);
        (failures >= SCALE_FAILURES_TOLD).then_some((failures, self.row.failed.as_str()))
    }

    /// The name of a node that it has asked for.
    #[must_use]
    pub fn node_name(&self, number: u64) -> String {
        format!("{}-auto-{number}", self.name)
    }

    /// The number in such a name, asked for or not.
    fn number_of(&self, node: &str) -> Option<u64> {
        let number = node.strip_prefix(self.name.as_str())?.strip_prefix("-auto-")?;
        number.parse().ok().filter(|&number| number > 0 && self.node_name(number) == node)
    }

    fn is_ours(&self, node: &str) -> bool {
        self.number_of(node).is_some_and(|number| number <= self.row.last_number)
    }

    fn answered(&mut self, now: Now, answer: Answer) -> Vec<Action> {
        let Some(Ask { verb, nodes }) = self.asking.take() else { return Vec::new() };
        let asked: BTreeSet<&str> = nodes.iter().map(String::as_str).collect();
        let done = match answer {
            Answer::Done(done) if done.is_empty() => {
                self.failed(now, verb, "it answered that it did nothing".to_owned());
                done
            }
            Answer::Done(done) => match done.iter().find(|name| !asked.contains(name.as_str())) {
                // Then nobody knows what it took the ask for.
                Some(odd) => {
                    self.failed(now, verb, format!("it answered for {odd}, which it was not asked for"));
                    return vec![Action::Keep(self.row.clone())];
                }
                None => {
                    self.succeeded(now, verb);
                    done
                }
            },
            Answer::Refused(why) => {
                self.failed(now, verb, why);
                Vec::new()
            }
            Answer::Unknown(why) => {
                self.failed(now, verb, why);
                return vec![Action::Keep(self.row.clone())];
            }
        };
        let mut actions = Vec::new();
        match verb {
            Verb::Add => self.settle_asked(now, &asked, &done),
            Verb::Remove => actions.extend(done.into_iter().map(Action::Forget)),
        }
        actions.push(Action::Keep(self.row.clone()));
        actions
    }

    /// Of these nodes, which were asked for, those come. The others never will, but where
    /// they were asked for before.
    fn settle_asked(&mut self, now: Now, asked: &BTreeSet<&str>, coming: &[String]) {
        let names: BTreeMap<u64, String> =
            self.row.asked.iter().map(|node| (node.number, self.node_name(node.number))).collect();
        let in_doubt = self.in_doubt;
        self.row.asked.retain_mut(|node| {
            let name = &names[&node.number];
            if coming.contains(name) {
                *node = AskedNode { number: node.number, asked_ms: now.wall_ms, coming: true };
            }
            in_doubt || coming.contains(name) || !asked.contains(name.as_str())
        });
    }

    fn succeeded(&mut self, now: Now, verb: Verb) {
        let after_ms = now.wall_ms.saturating_add(self.rules.cooldown_ms);
        (self.row.add_after_ms, self.row.remove_after_ms) = (after_ms, after_ms);
        // That nodes come is what shows that adding them succeeded.
        if verb == Verb::Remove {
            self.row.remove_failures = 0;
            self.forget_failures();
        }
    }

    fn failed(&mut self, now: Now, verb: Verb, why: String) {
        let (failures, after_ms) = match verb {
            Verb::Add => (&mut self.row.add_failures, &mut self.row.add_after_ms),
            Verb::Remove => (&mut self.row.remove_failures, &mut self.row.remove_after_ms),
        };
        let pause_ms = SCALE_BACKOFF_MS.saturating_mul(1 << (*failures).min(16)).min(SCALE_BACKOFF_MS_MAX);
        *failures = failures.saturating_add(1);
        *after_ms = now.wall_ms.saturating_add(pause_ms);
        self.row.failed = why;
    }

    fn forget_failures(&mut self) {
        if self.row.add_failures == 0 && self.row.remove_failures == 0 {
            self.row.failed.clear();
        }
    }

    /// Notes that an ask is under way; of more nodes than one may name it names the first.
    fn ask(&mut self, verb: Verb, mut nodes: Vec<String>) -> Action {
        assert!(self.asking.is_none() && !nodes.is_empty(), "one ask at a time, of something");
        nodes.truncate(SCALE_ASK_NODES_MAX);
        let ask = Ask { verb, nodes };
        self.asking = Some(ask.clone());
        Action::Ask(ask)
    }
}
