//! What is taken over after a restart, what is told to a new server, and what
//! is let go.
//!
//! What must hold: what a Hello does not name is not held; what the server
//! does not keep is killed and reports nothing more. An end that was reported
//! is remembered until the server has confirmed it.

use super::key::Key;
use super::work::{Context, Work};
use super::{Action, Core, LogNote, Order, Phase};
use prost::Message as _;
use proto::v1::{HeldAttempt, Reconcile, State};
use std::collections::BTreeSet;
use std::sync::Arc;
use world::clock::Now;
use world::processes::Record;

impl Core {
    /// Takes over what an earlier agent of this node launched. The lease that
    /// covers it is the supervisor's switch, as last renewed by that agent.
    pub(super) fn adopt(&mut self, now: Now, records: Vec<Record>) {
        for record in records {
            let context = Context::decode(&record.context[..]).ok();
            let Some((key, context)) = Key::from_process_key(&record.key).zip(context) else {
                // Nothing of ours, or of a version that cannot be read.
                self.order(Order::Forget { key: record.key });
                continue;
            };
            if self.attempts.contains_key(&key) {
                continue;
            }
            let work = Arc::new(Work::adopted(&context));
            self.hold(key.clone(), context.index, &work, Phase::Running, 0);
            let attempt = self.attempts.get_mut(&key).expect("it was just taken on");
            attempt.launched = true;
            attempt.directory = Some(context.directory.clone());
            self.out.push(Action::Log(LogNote::Opened { key: key.clone(), adopted: true }));
            match record.exit {
                Some(exit) => {
                    world::mark!("agent.adopt.exited");
                    self.exited(&key, &exit);
                }
                None => {
                    world::mark!("agent.adopt.running");
                    self.run_clock(now, &key, now.wall_ms.saturating_sub(context.launched_wall_ms));
                    self.look_later(now, &key);
                }
            }
        }
    }

    /// Everything held, for a Hello.
    pub(super) fn held(&self) -> Vec<HeldAttempt> {
        let held = self.attempts.iter().map(|(key, attempt)| {
            let state = match attempt.phase {
                Phase::Waiting | Phase::Staging | Phase::Staged | Phase::Launching => State::Staging,
                Phase::Running | Phase::Measuring | Phase::Collecting(_) | Phase::Saving(..) => {
                    State::Running
                }
                Phase::Ended(state) => state,
            };
            HeldAttempt { attempt: Some(key.attempt_ref()), rank: key.rank, state: state.into() }
        });
        held.collect()
    }

    /// Lets go of what the Hello named and the server does not keep. What was
    /// assigned in this session came after the Hello and is not meant.
    pub(super) fn reconcile(&mut self, reconcile: &Reconcile) {
        let session = self.session.as_ref().map_or(0, |open| open.ordinal);
        let keep: BTreeSet<Key> = reconcile.keep.iter().map(|attempt| Key::of(attempt, 0)).collect();
        let gone: BTreeSet<Key> = self
            .attempts
            .iter()
            .filter(|(key, held)| {
                held.session != session && !keep.contains(&Key { rank: 0, ..(*key).clone() })
            })
            .map(|(key, _)| key.clone())
            .collect();
        self.reports.purge(&gone);
        for key in gone {
            world::mark!("agent.reconcile.let_go");
            self.let_go(&key);
        }
    }

    /// The server has the end of this attempt for good.
    pub(super) fn acknowledged(&mut self, key: &Key) {
        if self.attempts.get(key).is_some_and(|attempt| matches!(attempt.phase, Phase::Ended(_))) {
            self.let_go(key);
        }
    }

    /// This node stops: nothing may run on, and nothing further is launched.
    pub(super) fn kill_all(&mut self) {
        let over = |phase: &Phase| {
            matches!(phase, Phase::Collecting(_) | Phase::Saving(..) | Phase::Measuring | Phase::Ended(_))
        };
        let live = self.attempts.iter().filter(|(_, held)| !over(&held.phase));
        let keys: BTreeSet<Key> = live.map(|(key, _)| key.clone()).collect();
        self.reports.purge(&keys);
        for key in &keys {
            self.let_go(key);
        }
    }

    /// Forgets an attempt with all that belongs to it.
    fn let_go(&mut self, key: &Key) {
        self.set_timer(key, None);
        self.set_look(key, None);
        let Some(attempt) = self.attempts.remove(key) else { return };
        let grant_key = key.grant();
        let grant = self.grants.get_mut(&grant_key).expect("an attempt's grant is held while it is");
        grant.uncount(&attempt.phase);
        grant.held -= 1;
        if grant.held == 0 {
            self.grants.remove(&grant_key);
        } else {
            self.dirty.insert(grant_key);
        }
        self.running -= u32::from(attempt.phase == Phase::Running);
        if attempt.launched {
            self.order(Order::Forget { key: key.process_key() });
            // A process that ended has its logs shipped to their end, even
            // where the server had heard of that end before. What is killed
            // now has no end that anyone waits for.
            let ended = matches!(attempt.phase, Phase::Ended(_) | Phase::Collecting(_) | Phase::Saving(..));
            if !ended {
                world::mark!("agent.forget.while_it_lives");
            }
            let note = if ended { LogNote::Forgotten(key.clone()) } else { LogNote::Dropped(key.clone()) };
            self.out.push(Action::Log(note));
        }
        // One still being staged is discarded when its stager answers.
        if let Some(directory) = attempt.directory.filter(|_| attempt.phase != Phase::Staging) {
            if !attempt.launched {
                self.out.push(Action::Log(LogNote::Dropped(key.clone())));
            }
            self.out.push(Action::Discard(directory));
        }
    }

    /// Nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Everything held.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<Key> {
        self.attempts.keys().cloned().collect()
    }

    /// Work directories that belong to held attempts.
    #[must_use]
    pub fn directories(&self) -> BTreeSet<String> {
        self.attempts.values().filter_map(|attempt| attempt.directory.clone()).collect()
    }
}
