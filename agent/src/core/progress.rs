//! How far tasks have come: when to look, and what is told of it.
//!
//! What must hold: one look at a time, for all tasks that run, and none while nothing
//! runs; it asks for at most so many files, and the next one begins behind them. A
//! session is told what changed, and once all there is, since a server keeps it in
//! memory alone. It is told as it was found: what a lost session was told, and only
//! that, is told again.
//!
//! How inputs come is told as whoever stages sees it, every few seconds: nothing of it is
//! kept here, since the next word is not far.

use super::key::Key;
use super::{Action, Attempt, Coming, Core, Phase, ProgressOrder, Seen};
use crate::limits;
use proto::limits::PROGRESS_TASKS_MAX;
use proto::v1::{Progress, TaskProgress, TaskStaging, agent_frame};
use world::clock::Now;

/// The looks of a node.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// When the next is due; none while one is under way, or nothing runs.
    at_ms: Option<u64>,
    under_way: bool,
    /// The last one that was looked at, where there were more than one look takes.
    behind: Option<Key>,
}

impl Looks {
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.at_ms
    }

    pub(super) fn under_way(&self) -> bool {
        self.under_way
    }
}

impl Core {
    /// Looks if it is time. Called at the end of each turn: so it sees what began or
    /// ended in it.
    pub(super) fn look_at_progress(&mut self, now: Now) {
        if self.running == 0 {
            self.progress.at_ms = None;
            return;
        }
        if self.progress.under_way {
            return;
        }
        let at_ms = self.progress.at_ms.unwrap_or(now.mono_ms.saturating_add(limits::PROGRESS_EVERY_MS));
        self.progress.at_ms = Some(at_ms);
        if at_ms > now.mono_ms {
            return;
        }
        let orders = self.next_to_look_at();
        self.progress.at_ms = None;
        self.progress.under_way = true;
        self.out.push(Action::LookAtProgress(orders));
    }

    /// As many running tasks as one look takes, those behind the last look first.
    fn next_to_look_at(&mut self) -> Vec<ProgressOrder> {
        let behind = self.progress.behind.take();
        let is_later = |key: &Key| behind.as_ref().is_none_or(|last| key > last);
        let running = || self.attempts.iter().filter(|(_, held)| held.phase == Phase::Running);
        let later = running().filter(|(key, _)| is_later(key));
        let running = later.chain(running().filter(|(key, _)| !is_later(key)));
        let order = |(key, held): (&Key, &Attempt)| {
            let directory = held.directory.clone()?;
            Some(ProgressOrder { key: key.clone(), directory })
        };
        let orders: Vec<ProgressOrder> = running.filter_map(order).take(PROGRESS_TASKS_MAX).collect();
        if orders.len() == PROGRESS_TASKS_MAX {
            self.progress.behind = orders.last().map(|order| order.key.clone());
        }
        orders
    }

    /// A look is over.
    pub(super) fn progress_seen(&mut self, seen: Vec<Seen>) {
        self.progress.under_way = false;
        for Seen { key, directory, said } in seen {
            let attempt = self.attempts.get_mut(&key).filter(|held| held.phase == Phase::Running);
            let attempt = attempt.filter(|held| held.directory.as_deref() == Some(&*directory));
            let Some(attempt) = attempt else { continue };
            if attempt.said.as_ref().is_none_or(|(known, _)| *known != said) {
                attempt.said = Some((said, false));
            }
        }
        self.tell_progress();
    }

    /// A session opened: it knows nothing yet. It is told with the next look.
    pub(super) fn tell_progress_anew(&mut self) {
        for (_, told) in self.attempts.values_mut().filter_map(|held| held.said.as_mut()) {
            *told = false;
        }
    }

    fn tell_progress(&mut self) {
        if self.session.is_none() {
            return;
        }
        let mut tasks = Vec::new();
        let running = self.attempts.iter_mut().filter(|(_, held)| held.phase == Phase::Running);
        for (key, held) in running {
            let Some((said, told)) = held.said.as_mut().filter(|(_, told)| !told) else { continue };
            *told = true;
            tasks.push(TaskProgress {
                attempt: Some(key.attempt_ref()),
                rank: key.rank,
                basis_points: said.basis_points,
                text: said.text.clone(),
            });
            if tasks.len() == PROGRESS_TASKS_MAX {
                break;
            }
        }
        if !tasks.is_empty() {
            world::mark!("agent.progress.told");
            self.send(agent_frame::Frame::Progress(Progress { tasks, staging: Vec::new() }));
        }
    }

    /// Whoever stages has looked how it gets on.
    pub(super) fn staging_seen(&mut self, seen: Vec<Coming>) {
        if self.session.is_none() {
            return;
        }
        let is_staged = |coming: &Coming| {
            let held = self.attempts.get(&coming.key).filter(|held| held.phase == Phase::Staging);
            held.is_some_and(|held| held.directory.as_ref() == Some(&coming.directory))
        };
        let staged = seen.into_iter().filter(is_staged).take(PROGRESS_TASKS_MAX);
        let staging: Vec<TaskStaging> = staged.map(Coming::told).collect();
        if !staging.is_empty() {
            world::mark!("agent.staging.told");
            self.send(agent_frame::Frame::Progress(Progress { tasks: Vec::new(), staging }));
        }
    }
}

impl Coming {
    fn told(self) -> TaskStaging {
        TaskStaging {
            attempt: Some(self.key.attempt_ref()),
            rank: self.key.rank,
            bytes: self.bytes,
            total_bytes: self.total_bytes,
            bytes_per_s: self.bytes_per_s,
            waits_for: self.waits_for,
        }
    }
}
