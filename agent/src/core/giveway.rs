//! How an attempt gives way to work of higher priority: it keeps a last checkpoint, then it
//! is ended as by any other stop.
//!
//! What must hold: from the first word on it takes no longer than that word said, however
//! often it is said again and whoever says it. One that ends by itself meanwhile has ended
//! by itself.
//!
//! Who can be asked for a checkpoint by a signal is asked, and goes on until it is kept.
//! For all others TERM is the asking: who has checkpoints gets the same time after it. The
//! ranks of a gang end together, or those that are behind would die of the loss of the
//! others: each waits until the server has heard of all.

use super::cause::Fault;
use super::key::Key;
use super::looks::LOOK_WHEN_ASKED_MS;
use super::{Core, Order, Phase};
use world::clock::Now;

/// It runs on until its checkpoint is kept, or until then.
#[derive(Clone, Debug)]
pub(super) struct GivesWay {
    fault: Fault,
    until_ms: u64,
    /// From TERM to KILL.
    grace_ms: u64,
}

impl Core {
    /// See the module.
    pub(super) fn give_way(&mut self, now: Now, key: &Key, fault: Fault, checkpoint_ms: u64, grace_ms: u64) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        let signal = attempt.work.step.checkpoint.as_ref().map(|checkpoint| checkpoint.signal.clone());
        let running = attempt.phase == Phase::Running && attempt.stopping.is_none();
        match signal {
            // It has ended well: its place is free in a moment.
            _ if matches!(attempt.phase, Phase::Collecting(_)) => {
                world::mark!("agent.giveway.had_ended");
            }
            Some(signal) if !signal.is_empty() && running && checkpoint_ms > 0 => {
                let until_ms = now.mono_ms.saturating_add(checkpoint_ms);
                let gives = attempt.gives_way.get_or_insert(GivesWay { fault, until_ms, grace_ms });
                gives.until_ms = gives.until_ms.min(until_ms);
                let at_ms = attempt.timeout_at_ms.map_or(gives.until_ms, |ms| ms.min(gives.until_ms));
                // One that was asked for already serves as well.
                let asks = attempt.asked_until_ms.is_none();
                if asks {
                    attempt.asked_until_ms = Some(gives.until_ms);
                }
                self.set_timer(key, Some(at_ms));
                if asks {
                    world::mark!("agent.giveway.asked");
                    self.order(Order::Nudge { key: key.process_key(), signal });
                    self.set_look(key, Some(now.mono_ms.saturating_add(LOOK_WHEN_ASKED_MS)));
                }
            }
            Some(signal) if signal.is_empty() => {
                let kill_at_ms = now.mono_ms.saturating_add(checkpoint_ms.max(grace_ms));
                self.stop_one(now, key, fault, kill_at_ms);
            }
            _ => self.stop_one(now, key, fault, now.mono_ms.saturating_add(grace_ms)),
        }
    }

    /// A checkpoint of it was kept: what waited for that ends now; of a gang once the
    /// server says so.
    pub(super) fn gives_way_now(&mut self, now: Now, key: &Key) -> bool {
        let attempt = self.attempts.get(key).filter(|held| held.work.gang.is_none());
        let Some(gives) = attempt.and_then(|held| held.gives_way.clone()) else { return false };
        world::mark!("agent.giveway.kept_its_last");
        self.stop_one(now, key, gives.fault, now.mono_ms.saturating_add(gives.grace_ms));
        true
    }

    /// Its time for that is over. False where it has some left.
    pub(super) fn waited_out(&mut self, now: Now, key: &Key) -> bool {
        let gives = self.attempts.get(key).and_then(|held| held.gives_way.clone());
        let Some(gives) = gives.filter(|gives| gives.until_ms <= now.mono_ms) else { return false };
        world::mark!("agent.giveway.waited_out");
        self.stop_one(now, key, gives.fault, now.mono_ms.saturating_add(gives.grace_ms));
        true
    }
}
