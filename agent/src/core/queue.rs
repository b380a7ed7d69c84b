//! What waits: tasks by grant, in the order given.
//!
//! What must hold: at most `slots` processes of a grant run at once; the ranks
//! of a gang are launched together, after the last of them is staged; a task
//! assigned twice is taken once. Some tasks are staged ahead of their turn, so
//! that a freed slot is filled at once.

use super::cause::StageFault;
use super::key::{GrantKey, Key};
use super::looks::Look;
use super::work::{Places, Work, launch};
use super::{Action, Attempt, Core, LogNote, Order, Phase, StageOrder};
use crate::limits;
use proto::v1::{Assign, AssignedTask, AttemptRef, Refused, report};
use std::collections::VecDeque;
use std::sync::Arc;
use world::clock::Now;

/// The attempts of one grant on this node. Its counts follow
/// [`Core::enter`].
#[derive(Debug, Default)]
pub(super) struct Grant {
    pub(super) slots: usize,
    pub(super) gang: bool,
    /// In order; may name attempts that left this phase by another way.
    pub(super) waiting: VecDeque<Key>,
    /// Likewise.
    pub(super) staged: VecDeque<Key>,
    /// Attempts held, whatever their phase.
    pub(super) held: usize,
    /// Waiting, staging or staged.
    pub(super) queued: u32,
    /// Staging or staged.
    pub(super) ready: usize,
    /// Launching or running.
    pub(super) busy: usize,
    pub(super) collecting: usize,
}

impl Grant {
    pub(super) fn count(&mut self, phase: &Phase) {
        match phase {
            Phase::Waiting => self.queued += 1,
            Phase::Staging | Phase::Staged => {
                self.queued += 1;
                self.ready += 1;
            }
            Phase::Launching | Phase::Running => self.busy += 1,
            Phase::Collecting(_) | Phase::Saving(..) => self.collecting += 1,
            Phase::Measuring | Phase::Ended(_) => {}
        }
    }

    pub(super) fn uncount(&mut self, phase: &Phase) {
        match phase {
            Phase::Waiting => self.queued -= 1,
            Phase::Staging | Phase::Staged => {
                self.queued -= 1;
                self.ready -= 1;
            }
            Phase::Launching | Phase::Running => self.busy -= 1,
            Phase::Collecting(_) | Phase::Saving(..) => self.collecting -= 1,
            Phase::Measuring | Phase::Ended(_) => {}
        }
    }

    fn has_room(&self) -> bool {
        self.busy < self.slots && self.collecting < self.slots + limits::COLLECTING_AHEAD
    }
}

impl Core {
    /// Takes tasks on. The slots of a grant are those its first word named.
    pub(super) fn assign(&mut self, assign: &Assign) {
        let session = self.session.as_ref().map_or(0, |open| open.ordinal);
        let work = Work::of(assign).map(Arc::new);
        for task in &assign.tasks {
            let attempt = attempt_ref(assign, task);
            let ranks = assign.gang.as_ref().map_or(0..1, |gang| {
                gang.first_rank..gang.first_rank.saturating_add(gang.local_ranks.max(1))
            });
            // A gang is taken on whole. One of which a rank is held was taken on
            // before: what is not held of it has ended, and is not run twice.
            let known = match assign.gang {
                Some(_) => self.ranks_of(&Key::of(&attempt, 0)),
                None => Vec::new(),
            };
            for rank in &known {
                self.attempts.get_mut(rank).expect("it was just found").session = session;
            }
            if !known.is_empty() {
                world::mark!("agent.assign.gang_held_already");
                continue;
            }
            let room = self.attempts.len() + ranks.len() <= limits::ATTEMPTS_HELD_MAX;
            for rank in ranks {
                let key = Key::of(&attempt, rank);
                if let Some(held) = self.attempts.get_mut(&key) {
                    world::mark!("agent.assign.held_already");
                    held.session = session;
                    continue;
                }
                match &work {
                    Ok(work) if room => {
                        let resume = task.checkpoints.iter().find(|from| from.rank == key.rank);
                        let resume = resume.map(|from| Arc::new(from.clone()));
                        self.hold(key.clone(), task.index, work, Phase::Waiting, session);
                        self.attempts.get_mut(&key).expect("it was just taken on").resume = resume;
                    }
                    Ok(_) => self.refuse(key, "this node holds as many attempts as it can"),
                    Err(reason) => self.refuse(key, reason),
                }
            }
        }
    }

    /// Starts to hold an attempt.
    pub(super) fn hold(&mut self, key: Key, index: u64, work: &Arc<Work>, phase: Phase, session: u64) {
        let grant = self.grants.entry(key.grant()).or_insert_with(|| Grant {
            slots: work.slots as usize,
            gang: work.gang.is_some(),
            ..Grant::default()
        });
        grant.held += 1;
        grant.count(&phase);
        self.running += u32::from(phase == Phase::Running);
        if phase == Phase::Waiting {
            grant.waiting.push_back(key.clone());
            self.dirty.insert(key.grant());
        }
        let attempt = Attempt {
            work: Arc::clone(work),
            index,
            phase,
            stopping: None,
            gives_way: None,
            timeout_at_ms: None,
            timer_ms: None,
            resume: None,
            look_at_ms: None,
            asked_until_ms: None,
            look: Look::Idle,
            said: None,
            session,
            launched: false,
            directory: None,
        };
        let before = self.attempts.insert(key, attempt);
        assert!(before.is_none(), "an attempt is taken on once");
    }

    fn refuse(&mut self, key: Key, reason: &str) {
        self.reports.push(key, report::What::Refused(Refused { reason: reason.to_owned() }));
    }

    /// A work directory is ready.
    pub(super) fn staged(&mut self, key: &Key, directory: String, result: Result<(), StageFault>) {
        let current = self.attempts.get(key).is_some_and(|attempt| {
            attempt.phase == Phase::Staging && attempt.directory.as_ref() == Some(&directory)
        });
        if !current {
            world::mark!("agent.staged.too_late");
            // It was ended meanwhile. If it is still held, its directory goes
            // with it; else nobody else remembers that one was made.
            if !self.attempts.contains_key(key) {
                self.out.push(Action::Log(LogNote::Dropped(key.clone())));
                self.out.push(Action::Discard(directory));
            }
            return;
        }
        match result {
            Ok(()) => {
                self.enter(key, Phase::Staged);
                let grant = self.grants.get_mut(&key.grant()).expect("its attempt was just found");
                grant.staged.push_back(key.clone());
            }
            Err(StageFault { fault, lost_checkpoint }) => {
                self.end(key, fault, &Default::default(), Vec::new(), lost_checkpoint);
            }
        }
    }

    /// Stages and launches wherever there may be room.
    pub(super) fn pump_dirty(&mut self, now: Now) {
        while let Some(grant) = self.dirty.pop_first() {
            self.pump_staging(&grant);
            if self.lease.may_launch(now.mono_ms) {
                if self.grants.get(&grant).is_some_and(|grant| grant.gang) {
                    self.pump_gang(now, &grant);
                } else {
                    self.pump_launches(now, &grant);
                }
            }
        }
    }

    fn pump_staging(&mut self, grant_key: &GrantKey) {
        loop {
            let Some(grant) = self.grants.get_mut(grant_key) else { return };
            let Some(key) = grant.waiting.front().cloned() else { return };
            let Some(attempt) = self.attempts.get_mut(&key).filter(|held| held.phase == Phase::Waiting)
            else {
                grant.waiting.pop_front();
                continue;
            };
            let ahead = if attempt.work.is_light() {
                grant.slots + limits::STAGE_AHEAD_LIGHT
            } else {
                grant.slots + limits::STAGE_AHEAD_HEAVY
            };
            if !grant.gang && grant.ready >= ahead {
                return;
            }
            grant.waiting.pop_front();
            self.directories_made += 1;
            let directory = format!("{}.{}", key.file_stem(), self.directories_made);
            attempt.directory = Some(directory.clone());
            let (work, resume) = (Arc::clone(&attempt.work), attempt.resume.clone());
            self.enter(&key, Phase::Staging);
            // Its grant was looked at just now.
            self.dirty.remove(grant_key);
            self.out.push(Action::Stage(StageOrder { key, directory, work, resume }));
        }
    }

    fn pump_launches(&mut self, now: Now, grant_key: &GrantKey) {
        loop {
            let Some(grant) = self.grants.get_mut(grant_key).filter(|grant| grant.has_room()) else { return };
            let Some(key) = grant.staged.pop_front() else { return };
            if self.attempts.get(&key).is_some_and(|held| held.phase == Phase::Staged) {
                self.launch(now, &key);
            }
        }
    }

    /// Launches the ranks of each gang attempt together, once all its local ranks
    /// are staged. Where one never will be, the server ends the others.
    fn pump_gang(&mut self, now: Now, grant_key: &GrantKey) {
        let Some(grant) = self.grants.get_mut(grant_key) else { return };
        let staged = std::mem::take(&mut grant.staged);
        let mut left = VecDeque::new();
        for key in staged {
            if self.attempts.get(&key).is_none_or(|held| held.phase != Phase::Staged) {
                continue;
            }
            let ranks: Vec<Key> = self.ranks_of(&key);
            let local = self.attempts[&key].work.gang.as_ref().map_or(1, |gang| gang.local_ranks as usize);
            let ready = |rank: &Key| self.attempts[rank].phase == Phase::Staged;
            if ranks.len() >= local && ranks.iter().all(ready) {
                for rank in ranks {
                    self.launch(now, &rank);
                }
            } else {
                world::mark!("agent.gang.waits_for_its_ranks");
                left.push_back(key);
            }
        }
        if let Some(grant) = self.grants.get_mut(grant_key) {
            grant.staged = left;
        }
    }

    /// The held ranks of the same attempt.
    pub(super) fn ranks_of(&self, key: &Key) -> Vec<Key> {
        let (first, last) = (Key { rank: 0, ..key.clone() }, Key { rank: u32::MAX, ..key.clone() });
        self.attempts.range(first..=last).map(|(rank, _)| rank.clone()).collect()
    }

    fn launch(&mut self, now: Now, key: &Key) {
        self.enter(key, Phase::Launching);
        let attempt = self.attempts.get_mut(key).expect("it was just entered");
        attempt.launched = true;
        let directory = attempt.directory.as_deref().expect("a staged attempt has a directory");
        let places = Places { work: &self.work_root, spool: &self.spool_root, directory };
        let what = (&*attempt.work, attempt.resume.as_deref());
        let launch = launch(&self.config, key, attempt.index, what, places, now.wall_ms);
        let until_ms = self.lease.term_at_ms();
        self.order(Order::Launch { launch: Box::new(launch), until_ms });
    }
}

fn attempt_ref(assign: &Assign, task: &AssignedTask) -> AttemptRef {
    AttemptRef {
        tenant: assign.tenant.clone(),
        job_number: assign.job_number,
        step: assign.step_index,
        task: task.task,
        attempt: task.attempt,
        epoch: assign.epoch,
    }
}
