//! Checkpoints: when to look whether a task has a new one, and what becomes of it.
//!
//! What must hold: an attempt's checkpoints are told in the order in which they were
//! taken, and before its end; at most one look of an attempt is under way. An attempt
//! that failed by itself, or was told to make room, is looked at once more before its
//! end is told: it may have written what it had when TERM came.

use super::cause::Fault;
use super::key::Key;
use super::{Action, Core, LookOrder, Order, Phase, Snapshot};
use proto::limits::{CHECKPOINT_EVERY_MS_DEFAULT, CHECKPOINT_EVERY_MS_MIN};
use proto::v1::{CauseKind, Checkpoint, CheckpointId, Checkpointed, report};
use std::sync::Arc;
use world::clock::Now;
use world::processes::Exit;

/// What is known of an attempt's looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    /// None is under way.
    #[default]
    Idle,
    UnderWay,
    /// The last one is under way.
    Last,
}

/// Between two looks for what a task was asked for.
pub(super) const LOOK_WHEN_ASKED_MS: u64 = 500;

fn every_ms(checkpoint: &Checkpoint) -> u64 {
    match checkpoint.every_ms {
        0 => CHECKPOINT_EVERY_MS_DEFAULT,
        told => told.max(CHECKPOINT_EVERY_MS_MIN),
    }
}

impl Core {
    /// Sets when to look next, if the step has checkpoints and the attempt runs.
    pub(super) fn look_later(&mut self, now: Now, key: &Key) {
        let Some(attempt) = self.attempts.get(key).filter(|held| held.phase == Phase::Running) else {
            return;
        };
        let Some(checkpoint) = &attempt.work.step.checkpoint else { return };
        let due_ms = match attempt.asked_until_ms {
            // One more that was never taken does not end the asking.
            Some(until_ms) => (now.mono_ms.saturating_add(LOOK_WHEN_ASKED_MS)).min(until_ms),
            None => now.mono_ms.saturating_add(every_ms(checkpoint)),
        };
        self.set_look(key, Some(due_ms));
    }

    /// The same for looks as `set_timer` for timers.
    pub(super) fn set_look(&mut self, key: &Key, at_ms: Option<u64>) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        if let Some(old) = std::mem::replace(&mut attempt.look_at_ms, at_ms) {
            self.looks.remove(&(old, key.clone()));
        }
        if let Some(at) = at_ms {
            self.looks.insert((at, key.clone()));
        }
    }

    pub(super) fn look_where_due(&mut self, now: Now) {
        while let Some((_, key)) = self.looks.first().filter(|(at, _)| *at <= now.mono_ms).cloned() {
            self.set_look(&key, None);
            if !self.ask(now, &key) {
                self.look(&key, Look::UnderWay);
            }
        }
    }

    /// Asks a task that wants to be asked for a checkpoint; false where there is nothing
    /// to ask, or it was asked already. From then on one looks often.
    fn ask(&mut self, now: Now, key: &Key) -> bool {
        let Some(attempt) = self.attempts.get_mut(key) else { return false };
        let checkpoint = attempt.work.step.checkpoint.as_ref().filter(|told| !told.signal.is_empty());
        let Some(checkpoint) = checkpoint.filter(|_| attempt.asked_until_ms.is_none()) else { return false };
        attempt.asked_until_ms = Some(now.mono_ms.saturating_add(every_ms(checkpoint)));
        let signal = checkpoint.signal.clone();
        world::mark!("agent.checkpoint.asked");
        self.order(Order::Nudge { key: key.process_key(), signal });
        self.set_look(key, Some(now.mono_ms.saturating_add(LOOK_WHEN_ASKED_MS)));
        true
    }

    fn look(&mut self, key: &Key, look: Look) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        attempt.look = look;
        let directory = attempt.directory.clone().unwrap_or_default();
        self.out.push(Action::Look(LookOrder {
            key: key.clone(),
            directory,
            work: Arc::clone(&attempt.work),
            last: look == Look::Last,
        }));
    }

    /// An attempt failed: its end waits for a last look, where one may find something.
    /// False where there is nothing to wait for.
    pub(super) fn look_last(&mut self, key: &Key, fault: &Fault, exit: &Exit) -> bool {
        let Some(attempt) = self.attempts.get(key) else { return false };
        let of_use = matches!(
            fault.kind,
            CauseKind::Exit
                | CauseKind::Signal
                | CauseKind::Timeout
                | CauseKind::OutOfMemory
                | CauseKind::Preempted
        );
        if !of_use || attempt.work.step.checkpoint.is_none() {
            return false;
        }
        world::mark!("agent.checkpoint.last_look");
        let idle = attempt.look == Look::Idle;
        self.set_timer(key, None);
        self.set_look(key, None);
        self.enter(key, Phase::Saving(*exit, fault.clone()));
        if idle {
            self.look(key, Look::Last);
        }
        true
    }

    /// A look is over.
    pub(super) fn looked(&mut self, now: Now, key: &Key, directory: &str, found: Option<Snapshot>) {
        let attempt = self.attempts.get_mut(key);
        let Some(attempt) = attempt.filter(|held| held.directory.as_deref() == Some(directory)) else {
            return;
        };
        let look = std::mem::take(&mut attempt.look);
        let phase = attempt.phase.clone();
        if !matches!(phase, Phase::Running | Phase::Saving(..)) {
            world::mark!("agent.checkpoint.too_late");
            return;
        }
        // It came, or it does not come any more: the next is asked for when it is due.
        let due_ms = attempt.asked_until_ms.filter(|due_ms| found.is_some() || *due_ms <= now.mono_ms);
        if due_ms.is_some() {
            attempt.asked_until_ms = None;
        }
        if let Some(found) = found {
            self.tell_checkpoint(key, found);
            if phase == Phase::Running && self.gives_way_now(now, key) {
                return;
            }
        }
        match phase {
            Phase::Saving(exit, fault) if look == Look::Last => self.finish(key, fault, &exit, Vec::new()),
            // That one began before the end.
            Phase::Saving(..) => self.look(key, Look::Last),
            _ => match due_ms {
                Some(due_ms) => self.set_look(key, Some(due_ms.max(now.mono_ms))),
                None => self.look_later(now, key),
            },
        }
    }

    fn tell_checkpoint(&mut self, key: &Key, found: Snapshot) {
        world::mark!("agent.checkpoint.told");
        self.checkpoints_taken += 1;
        let (attempt, epoch) = (key.attempt, key.epoch);
        let id = CheckpointId { attempt, epoch, session: self.last_session, number: self.checkpoints_taken };
        let Snapshot { label, artifacts } = found;
        let told = Checkpointed { label, artifacts, id: Some(id) };
        self.reports.push(key.clone(), report::What::Checkpointed(told));
    }
}
