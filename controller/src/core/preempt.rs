//! Work that gives way to work of higher priority, in pools that allow it.
//!
//! A scheduler chooses and asks, by writing a grant's row again with what is to give way
//! ([`proto::v1::Preemption`]); here it is carried out. Agents see to the time that is left
//! for a last checkpoint, counted from the first word: so nothing of it must be known after
//! a restart, when all is asked again.
//!
//! What must hold: only what was named gives way, in a pool that allows it, to a live job of
//! higher priority, and no task more often than the pool says; whoever gave way spends no
//! try. What is asked twice is done once: an attempt is named by its number. A grant that
//! gives way takes no further task and gives back those that have not begun; when the named
//! attempts are over it has as many slots as tasks still run, or is gone.
//!
//! Schedulers are told what could give way, grant by grant. A task becomes news only when it
//! has run for the pool's `min_run_ms`; so short ones never do.

use super::finish::End;
use super::model::{Active, Grant, Holding, Job, Spot, cause};
use super::{Core, Timer, checkpoints};
use crate::limits;
use prost::Message as _;
use proto::ids::JobId;
use proto::keys;
use proto::v1::{
    AttemptRef, Cause, CauseKind, GaveWay, GrantRow, PoolPreemption, Preemption, State, Yielding,
    YieldingTask,
};
use std::collections::{BTreeMap, BTreeSet};

/// What holds in a pool where work gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long a last checkpoint is waited for.
    pub grace_ms: u64,
    /// By so much the priority of whom one gives way to is higher.
    pub priority_above: u32,
    /// How long that has been first of its queue and blocked.
    pub after_waiting_ms: u64,
    /// Who runs for less does not give way.
    pub min_run_ms: u64,
    /// How often one task gives way at most; then it runs to its end.
    pub times_max: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            grace_ms: 60_000,
            priority_above: 1,
            after_waiting_ms: 30_000,
            min_run_ms: 60_000,
            times_max: 5,
        }
    }
}

impl Rules {
    /// What holds in both.
    fn both(self, other: Self) -> Self {
        Self {
            grace_ms: self.grace_ms.max(other.grace_ms),
            priority_above: self.priority_above.max(other.priority_above),
            after_waiting_ms: self.after_waiting_ms.max(other.after_waiting_ms),
            min_run_ms: self.min_run_ms.max(other.min_run_ms),
            times_max: self.times_max.min(other.times_max),
        }
    }
}

/// Names a grant.
type GrantName = (String, u64);

/// What schedulers were told, and what may be news to them.
#[derive(Default)]
pub(super) struct Told {
    words: BTreeMap<GrantName, Yielding>,
    touched: BTreeSet<GrantName>,
    /// These are looked at when their timer fires.
    timed: BTreeSet<GrantName>,
}

impl Core {
    /// The rules of all nodes of a grant together; `None` where one of them allows nothing.
    fn rules_of(&self, grant: &Grant) -> Option<Rules> {
        let of = |name: &str| self.config.preemption.get(&self.nodes.get(name)?.row.pool).copied();
        let mut all = grant.row.nodes.iter().map(|node| of(&node.node));
        let first = all.next()??;
        all.try_fold(first, |rules, other| Some(rules.both(other?)))
    }

    // --------------------------------------------------------------- telling

    /// A task of it runs: it could give way some time from now.
    pub(super) fn may_yield(&mut self, tenant: &str, epoch: u64) {
        if self.config.preemption.is_empty() {
            return;
        }
        let grant = self.tenants.get(tenant).and_then(|owner| owner.grants.get(&epoch));
        let Some(rules) = grant.and_then(|grant| self.rules_of(grant)) else { return };
        self.look_at_yielding(tenant, epoch, rules.min_run_ms);
    }

    fn look_at_yielding(&mut self, tenant: &str, epoch: u64, wait_ms: u64) {
        let name = (tenant.to_owned(), epoch);
        if self.yielding.timed.insert(name) {
            let at_ms = self.now.mono_ms.saturating_add(wait_ms.max(limits::YIELDING_LOOK_MS));
            self.timers.insert((at_ms, Timer::Yielding(tenant.to_owned(), epoch)));
        }
    }

    /// The timer of a grant fired.
    pub(super) fn yielding_due(&mut self, tenant: String, epoch: u64) {
        let name = (tenant, epoch);
        self.yielding.timed.remove(&name);
        self.yielding.touched.insert(name);
    }

    /// What was told of this grant is so no longer.
    pub(super) fn yields_otherwise(&mut self, tenant: &str, epoch: u64) {
        let name = (tenant.to_owned(), epoch);
        if self.yielding.words.contains_key(&name) {
            self.yielding.touched.insert(name);
        }
    }

    /// What changed of what could give way.
    pub(super) fn tell_yielding(&mut self) -> Vec<Yielding> {
        let mut news = Vec::new();
        for name in std::mem::take(&mut self.yielding.touched) {
            let (word, next_ms) = self.word_of(&name).unzip();
            if let Some(wait_ms) = next_ms.flatten() {
                self.look_at_yielding(&name.0, name.1, wait_ms);
            }
            let word = word.filter(|word| !word.tasks.is_empty());
            match (word, self.yielding.words.get(&name)) {
                (Some(word), told) if told != Some(&word) => {
                    self.yielding.words.insert(name, word.clone());
                    news.push(word);
                }
                (None, Some(_)) => {
                    self.yielding.words.remove(&name);
                    let (tenant, epoch) = name;
                    news.push(Yielding { tenant, epoch, ..Yielding::default() });
                }
                _ => {}
            }
        }
        news
    }

    /// All of it as it was told last.
    pub fn yielding_told(&self) -> impl Iterator<Item = &Yielding> {
        self.yielding.words.values()
    }

    /// The pools in which work gives way, for schedulers.
    #[must_use]
    pub fn preemption_told(&self) -> Vec<PoolPreemption> {
        let told = |(pool, rules): (&String, &Rules)| PoolPreemption {
            pool: pool.clone(),
            grace_ms: rules.grace_ms,
            priority_above: rules.priority_above.max(1),
            after_waiting_ms: rules.after_waiting_ms,
        };
        self.config.preemption.iter().map(told).collect()
    }

    /// What of a grant could give way now, and in how many milliseconds there may be more.
    fn word_of(&self, (tenant, epoch): &GrantName) -> Option<(Yielding, Option<u64>)> {
        let owner = self.tenants.get(tenant)?;
        let grant = owner.grants.get(epoch)?;
        let rules = self.rules_of(grant)?;
        let job = owner.jobs.get(&grant.row.job_number)?;
        let run = job.steps.get(grant.row.step as usize)?;
        let state = job.state.steps.get(grant.row.step as usize)?;
        let ending = grant.gang.as_ref().is_some_and(|gang| gang.committing || gang.failure.is_some());
        if grant.row.preemption.is_some() || job.state.cancel_requested || ending {
            return None;
        }
        let mut word = Yielding {
            tenant: tenant.clone(),
            epoch: *epoch,
            priority: priority_of(job),
            gang: run.gang.is_some(),
            tasks: Vec::new(),
        };
        let mut next_ms = None;
        let bound = if run.gang.is_some() { &grant.bound[..1] } else { &grant.bound[..] };
        for task in bound.iter().flatten() {
            let Some(active) = run.active(*task).filter(|active| active.state == State::Running) else {
                continue;
            };
            let ripe_ms = active.since_ms.saturating_add(rules.min_run_ms);
            if run.note(*task).is_some_and(|note| note.preemptions >= rules.times_max) {
                world::mark!("controller.preempt.as_often_as_may_be");
            } else if ripe_ms > self.now.wall_ms {
                let wait_ms = ripe_ms - self.now.wall_ms;
                next_ms = Some(next_ms.map_or(wait_ms, |ms: u64| ms.min(wait_ms)));
            } else if word.tasks.len() < limits::YIELDING_TASKS_MAX {
                let kept_ms = checkpoints::newest_ms(run, state, *task, active.attempt);
                let since_ms = kept_ms.unwrap_or(0).max(active.since_ms);
                word.tasks.push(YieldingTask { task: *task, attempt: active.attempt, since_ms });
            }
        }
        Some((word, next_ms))
    }

    // ------------------------------------------------------------ carried out

    /// A scheduler asks that tasks of a grant give way; perhaps it asked before. `resumed`: the
    /// server before may have begun with it. Its agents go on with that, so whether it still
    /// makes sense is not weighed anew.
    pub(super) fn asked_to_give_way(&mut self, row: GrantRow, resumed: bool) {
        let Some(mut asked) = row.preemption else { return };
        let (name, epoch) = (row.tenant, row.epoch);
        let Some(owner) = self.tenants.get(&name) else { return };
        let Some(grant) = owner.grants.get(&epoch) else { return };
        if grant.row.preemption.is_some() {
            world::mark!("controller.preempt.asked_again");
            return;
        }
        let (number, step, nodes) = (grant.row.job_number, grant.row.step, grant.row.nodes.len());
        let rules = self.rules_of(grant);
        let rules = rules.filter(|rules| resumed || self.is_above(&asked, &name, number, *rules));
        let run = owner.jobs.get(&number).and_then(|job| job.steps.get(step as usize));
        let most = rules.map_or(0, |rules| rules.times_max);
        asked.tasks.retain(|named| {
            let active = run.and_then(|run| run.active(named.task));
            let note = run.and_then(|run| run.note(named.task));
            active.is_some_and(|active| (active.attempt, active.epoch) == (named.attempt, epoch))
                && note.map_or(0, |note| note.preemptions) < most
        });
        let Some(grant) = self.tenants.get_mut(&name).and_then(|owner| owner.grants.get_mut(&epoch)) else {
            return;
        };
        if asked.tasks.is_empty() {
            world::mark!("controller.preempt.declined");
            grant.row.again = true;
            let row = grant.row.encode_to_vec();
            self.out.direct(&name, keys::grant(&name, epoch), Some(row.into()));
            return;
        }
        world::mark!("controller.preempt.begins");
        let text = format!("tasks of {name}-{number} give way to {}-{}", asked.tenant, asked.job_number);
        grant.row.preemption = Some(asked);
        self.log(&name, number, text);
        self.yields_otherwise(&name, epoch);
        for node in 0..nodes {
            self.send_stop(&name, epoch, node);
        }
        self.arm_stops(&name, number);
        self.feeding.insert((name, epoch));
    }

    /// Whom it is asked for lives, and its priority is higher.
    fn is_above(&self, asked: &Preemption, tenant: &str, number: u64, rules: Rules) -> bool {
        let job = |tenant: &str, number| self.tenants.get(tenant).and_then(|owner| owner.jobs.get(&number));
        let (Some(above), Some(below)) = (job(&asked.tenant, asked.job_number), job(tenant, number)) else {
            return false;
        };
        let least = i64::from(priority_of(below)) + i64::from(rules.priority_above.max(1));
        !above.over() && !above.state.cancel_requested && i64::from(priority_of(above)) >= least
    }

    /// How an attempt that an agent ended to make room counts.
    pub(super) fn made_room(&self, spot: &Spot, active: Active, why: Cause) -> End {
        let grant = self.tenants.get(&spot.tenant).and_then(|owner| owner.grants.get(&active.epoch));
        match grant.and_then(|grant| grant.row.preemption.as_ref()) {
            Some(asked) if names(asked, spot.task, active.attempt) => End::GaveWay(why),
            // It had hardly begun.
            Some(_) => {
                world::mark!("controller.preempt.behind_what_gives_way");
                End::Returned(why, 0)
            }
            None if active.state == State::Staging => End::Returned(why, 0),
            None => End::Failed(why),
        }
    }

    /// The same of a gang, once all its ranks have ended and not all well: where one of them
    /// gave way, the others died of it.
    pub(super) fn gang_made_room(&self, spot: &Spot, epoch: u64) -> Option<Cause> {
        let owner = self.tenants.get(&spot.tenant)?;
        let asked = owner.grants.get(&epoch)?.row.preemption.as_ref()?;
        let run = owner.jobs.get(&spot.number)?.steps.get(spot.step as usize)?;
        let ends = &run.blocks.get(&super::model::StepRun::block_of(spot.task))?.ranks;
        let kinds = ends.values().filter_map(|end| end.cause.as_ref()).map(Cause::kind);
        kinds.into_iter().any(|kind| kind == CauseKind::Preempted).then(|| why(&spot.tenant, asked))
    }

    /// A rank of a gang that gives way kept a checkpoint; where all have, they end now.
    pub(super) fn kept_while_giving_way(&mut self, spot: &Spot, epoch: u64) {
        self.yields_otherwise(&spot.tenant, epoch);
        let Some(owner) = self.tenants.get_mut(&spot.tenant) else { return };
        let Some(grant) = owner.grants.get_mut(&epoch).filter(|grant| grant.row.preemption.is_some()) else {
            return;
        };
        let Some(gang) = grant.gang.as_mut().filter(|gang| !gang.saved) else { return };
        world::mark!("controller.preempt.gang_has_saved");
        gang.saved = true;
        for node in 0..grant.row.nodes.len() {
            self.send_stop(&spot.tenant, epoch, node);
        }
    }

    /// What of a grant that gives way is to end on a node, and why.
    pub(super) fn to_give_way(&self, grant: &Grant, node: usize) -> Option<(Vec<AttemptRef>, Cause)> {
        let asked = grant.row.preemption.as_ref()?;
        let owner = self.tenants.get(&grant.row.tenant)?;
        let run = owner.jobs.get(&grant.row.job_number)?.steps.get(grant.row.step as usize)?;
        let attempts = grant.bound.get(node)?.iter().filter_map(|task| {
            let active = run.active(*task)?;
            let ends = active.state == State::Staging || names(asked, *task, active.attempt);
            ends.then(|| AttemptRef {
                tenant: grant.row.tenant.clone(),
                job_number: grant.row.job_number,
                step: grant.row.step,
                task: *task,
                attempt: active.attempt,
                epoch: active.epoch,
            })
        });
        Some((attempts.collect(), why(&grant.row.tenant, asked)))
    }

    /// How long a last checkpoint is waited for, of what ends for this. The ranks of a gang
    /// of which one has ended already have the time that they were given.
    pub(super) fn checkpoint_ms(&self, grant: &Grant, why: &Cause) -> u64 {
        let saved = grant.gang.as_ref().is_some_and(|gang| gang.saved);
        if saved || grant.row.preemption.is_none() || why.kind() != CauseKind::Preempted {
            return 0;
        }
        self.rules_of(grant).map_or(0, |rules| rules.grace_ms)
    }

    /// All that was named is over, and nothing waits behind it: what is left of the grant
    /// are the slots of what runs on.
    pub(super) fn gave_way(&mut self, tenant: &str, epoch: u64) {
        let Some(owner) = self.tenants.get_mut(tenant) else { return };
        let Some(grant) = owner.grants.get_mut(&epoch) else { return };
        let Some(asked) = &grant.row.preemption else { return };
        let Some(job) = owner.jobs.get_mut(&grant.row.job_number) else { return };
        let Some(run) = job.steps.get_mut(grant.row.step as usize) else { return };
        let ([node], [bound]) = (&mut grant.row.nodes[..], &grant.bound[..]) else { return };
        let runs_on = |task: &u64| {
            run.active(*task)
                .is_some_and(|live| live.state == State::Running && !names(asked, *task, live.attempt))
        };
        if run.gang.is_some() || !bound.iter().all(runs_on) {
            return;
        }
        let left = u32::try_from(bound.len()).unwrap_or(u32::MAX).min(node.slots);
        world::mark!("controller.preempt.grant_shrinks");
        let gone = Holding::of(&grant.row.per_slot.unwrap_or_default(), u64::from(node.slots - left));
        run.granted_slots -= u64::from(node.slots - left);
        node.slots = left;
        grant.row.preemption = None;
        grant.row.again = true;
        grant.row.feed_until_ms = grant.row.granted_ms;
        grant.feed_until_ms = self.now.mono_ms;
        owner.held.subtract(gone);
        for group in &grant.row.groups {
            let held = self.held_in_groups.get_mut(group).expect("it was added when the grant came");
            held.subtract(gone);
        }
        let (number, step, row) = (grant.row.job_number, grant.row.step, grant.row.encode_to_vec());
        self.out.direct(tenant, keys::grant(tenant, epoch), Some(row.into()));
        self.out.wants(tenant, number, step);
        self.yielding.touched.insert((tenant.to_owned(), epoch));
    }

    /// After loading: what was asked before is asked again, and what runs may give way.
    pub(super) fn resume_giving_way(&mut self) {
        if self.config.preemption.is_empty() && !self.any_gives_way() {
            return;
        }
        let grants = self.tenants.iter().flat_map(|(name, owner)| {
            owner.grants.keys().map(|epoch| (name.clone(), *epoch)).collect::<Vec<_>>()
        });
        for (tenant, epoch) in grants.collect::<Vec<_>>() {
            let owner = self.tenants.get_mut(&tenant).expect("it was there a line ago");
            let grant = owner.grants.get_mut(&epoch).expect("it was there a line ago");
            let row = grant.row.clone();
            if row.preemption.is_some() {
                world::mark!("controller.start.gives_way");
                grant.row.preemption = None;
                self.asked_to_give_way(row, true);
            }
            self.may_yield(&tenant, epoch);
        }
    }

    fn any_gives_way(&self) -> bool {
        let mut grants = self.tenants.values().flat_map(|owner| owner.grants.values());
        grants.any(|grant| grant.row.preemption.is_some())
    }
}

fn priority_of(job: &Job) -> i32 {
    job.row.spec.as_ref().map_or(0, |spec| spec.priority)
}

fn names(asked: &Preemption, task: u64, attempt: u32) -> bool {
    asked.tasks.iter().any(|named| (named.task, named.attempt) == (task, attempt))
}

/// Why, as its owner reads it: what another tenant runs is not told.
fn why(tenant: &str, asked: &Preemption) -> Cause {
    let text = if asked.tenant == tenant {
        format!("gave way to {}", JobId::new(asked.tenant.clone(), asked.job_number))
    } else {
        "gave way to work of another tenant".to_owned()
    };
    cause(CauseKind::Preempted, text)
}

/// Counts it for whoever asks how a step fared.
pub(super) fn count(told: &mut Option<GaveWay>, tenant: &str, asked: Option<&Preemption>, now_ms: u64) {
    let own = asked.filter(|asked| asked.tenant == tenant);
    *told = Some(GaveWay {
        times: told.as_ref().map_or(0, |told| told.times) + 1,
        at_ms: now_ms,
        tenant: own.map(|asked| asked.tenant.clone()).unwrap_or_default(),
        job_number: own.map_or(0, |asked| asked.job_number),
    });
}
