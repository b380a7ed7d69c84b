//! Capacity to tasks: a scheduler granted slots to a step; tasks are bound to
//! them, more are fed while the grant's time lasts, and the grant is given back
//! when no bound task is left.
//!
//! What must hold: a grant in memory has a row; its nodes' tasks are bound to
//! nothing else; it is deleted only when none of its tasks can still run.
//! A grant's own instants are compared with each other only: the granting
//! scheduler's clock may be wrong.

use super::Core;
use super::events::By;
use super::model::{Active, GangRun, Grant, Holding, Rank, Spot, StepRun, Tenant};
use super::{blocks, model};
use proto::keys;
use proto::reservations::is_in_the_way;
use proto::v1::{GrantRow, NodeState, State, Step};
use std::collections::BTreeSet;

/// It holds what its tasks are to hold: a scheduler of an earlier version knows of no licenses.
fn holds_licenses(row: &GrantRow, step: &Step, units: u64) -> bool {
    let due = |name: &String| u64::from(step.licenses.get(name).copied().unwrap_or(0)).saturating_mul(units);
    row.licenses.len() == step.licenses.len() && row.licenses.iter().all(|(name, held)| *held == due(name))
}

/// Retries looked at for one whose task may run on a node.
const RETRIES_SEEN_MAX: usize = 64;

impl Core {
    pub(super) fn granted(&mut self, row: GrantRow) {
        let seen = match self.tenants.get_mut(&row.tenant) {
            Some(tenant) => {
                let seen = tenant.epoch_seen;
                tenant.epoch_seen = seen.max(row.epoch);
                seen
            }
            None => 0,
        };
        if row.epoch > seen {
            self.take_grant(row);
        } else if self.tenants.get(&row.tenant).is_none_or(|tenant| !tenant.grants.contains_key(&row.epoch)) {
            // Older than what was seen and not here: it was given back, and only
            // a stale view still shows it.
            world::mark!("controller.grant.shown_by_a_stale_view");
            self.give_back(&row);
        } else {
            self.asked_to_give_way(row, false);
        }
    }

    /// Takes a grant not seen before, or gives it back at once.
    pub(super) fn take_grant(&mut self, row: GrantRow) {
        self.demand.force(&row.tenant, row.job_number, row.step);
        if self.usable(&row) {
            self.feeding.insert((row.tenant.clone(), row.epoch));
            self.insert_grant(row, true);
        } else {
            world::mark!("controller.grant.surplus");
            self.give_back(&row);
        }
    }

    fn give_back(&mut self, row: &GrantRow) {
        self.stats.surplus_grants += 1;
        self.out.wants(&row.tenant, row.job_number, row.step);
        self.out.direct(&row.tenant, keys::grant(&row.tenant, row.epoch), None);
    }

    /// Links a grant to its tenant, step and nodes.
    pub(super) fn insert_grant(&mut self, row: GrantRow, new: bool) {
        let quantum_ms = row.feed_until_ms.saturating_sub(row.granted_ms).min(self.config.feed_ms_max);
        let feed_until_ms = self.now.mono_ms + quantum_ms;
        let Some(tenant) = self.tenants.get_mut(&row.tenant) else { return };
        let Some(job) = tenant.jobs.get_mut(&row.job_number) else { return };
        let Some(run) = job.steps.get_mut(row.step as usize) else { return };
        tenant.epoch_seen = tenant.epoch_seen.max(row.epoch);
        let bound = vec![BTreeSet::new(); row.nodes.len()];
        let grant = Grant { bound, feed_until_ms, new, gang: None, row };
        run.grants.insert(grant.row.epoch);
        run.granted_slots += grant.slots();
        tenant.held.add(grant.held());
        for group in &grant.row.groups {
            self.held_in_groups.entry(group.clone()).or_default().add(grant.held());
        }
        for node in &grant.row.nodes {
            if let Some(node) = self.nodes.get_mut(&node.node) {
                node.grants.insert((grant.row.tenant.clone(), grant.row.epoch));
            }
        }
        self.out.wants(&grant.row.tenant, grant.row.job_number, grant.row.step);
        tenant.grants.insert(grant.row.epoch, grant);
    }

    /// A grant that some task of its step can use now.
    fn usable(&self, row: &GrantRow) -> bool {
        let Some(tenant) = self.tenants.get(&row.tenant) else { return false };
        let Some(job) = tenant.jobs.get(&row.job_number) else { return false };
        let Some(run) = job.steps.get(row.step as usize) else { return false };
        if row.submitted_ms != 0 && row.submitted_ms != job.row.submitted_ms {
            world::mark!("controller.grant.of_a_lost_job");
            return false;
        }
        let spec = job.row.spec.as_ref().and_then(|spec| spec.steps.get(row.step as usize));
        let exclusive = spec.is_some_and(|step| step.exclusive);
        let names: BTreeSet<&str> = row.nodes.iter().map(|node| node.node.as_str()).collect();
        let slots: u64 = row.nodes.iter().map(|node| u64::from(node.slots)).sum();
        let shape = match run.gang {
            Some(gang) => {
                row.gang
                    && row.nodes.len() == gang.nodes as usize
                    && row.nodes.iter().all(|node| node.slots == gang.per_node)
            }
            None => !row.gang && slots <= run.slots_free() && (!exclusive || slots == 1),
        };
        let whole = if exclusive { row.nodes.len() } else { 0 };
        let pending = run.fresh.count() + run.ready_retries(self.now.mono_ms);
        shape
            && row.whole.len() == whole
            && spec.is_some_and(|step| holds_licenses(row, step, if row.gang { 1 } else { slots }))
            && job.ready(row.step)
            && pending > 0
            && names.len() == row.nodes.len()
            && row.nodes.iter().all(|node| node.slots > 0 && self.takes_work(&node.node, row, job))
    }

    /// Known, not drained, not lost, and not kept for others while this work may run.
    fn takes_work(&self, node: &str, grant: &GrantRow, job: &model::Job) -> bool {
        let Some(row) = self.nodes.get(node).map(|node| &node.row) else { return false };
        if row.drained || row.state() == NodeState::Lost {
            return false;
        }
        if row.reservations.is_empty() {
            return true;
        }
        let spec = job.row.spec.as_ref();
        let step = spec.and_then(|spec| Some((spec, spec.steps.get(grant.step as usize)?)));
        let most_ms = match step.map_or(0, |(spec, step)| proto::estimate::most_ms(spec, step)) {
            0 => u64::MAX,
            told_ms => told_ms,
        };
        let span = (self.now.wall_ms, self.now.wall_ms.saturating_add(most_ms));
        let in_the_way = row.reservations.iter().any(|kept| is_in_the_way(kept, &grant.tenant, span));
        if in_the_way {
            world::mark!("controller.feed.node_is_kept");
        }
        !in_the_way
    }

    /// Binds what fits, or gives the grant back if nothing is bound to it.
    pub(super) fn feed(&mut self, tenant: &str, epoch: u64) {
        let Some(owner) = self.tenants.get(tenant) else { return };
        let Some(grant) = owner.grants.get(&epoch) else { return };
        let (number, step) = (grant.row.job_number, grant.row.step);
        let job = owner.jobs.get(&number);
        let open = (grant.new || self.now.mono_ms < grant.feed_until_ms) && grant.row.preemption.is_none();
        if open
            && let Some(job) = job.filter(|job| job.ready(step))
            && let Some(run) = job.steps.get(step as usize)
        {
            if run.gang.is_some() {
                self.bind_gang(tenant, epoch);
            } else {
                // What waits for its turn on a node ends later than it is counted for.
                let kept = |name: &str| self.nodes.get(name).is_some_and(|n| !n.row.reservations.is_empty());
                let ahead = match grant.row.nodes.iter().any(|node| kept(&node.node)) {
                    true => 0,
                    false => self.ahead(job, step),
                };
                let nodes = grant.row.nodes.len();
                for node in 0..nodes {
                    self.feed_node(tenant, epoch, node, 0);
                }
                if ahead > 0 {
                    world::mark!("controller.feed.ahead");
                    for node in 0..nodes {
                        self.feed_node(tenant, epoch, node, ahead);
                    }
                }
            }
        }
        let Some(grant) = self.tenants.get_mut(tenant).and_then(|owner| owner.grants.get_mut(&epoch)) else {
            return;
        };
        // Still new if the transaction was full before all were served.
        grant.new &= self.feeding.contains(&(tenant.to_owned(), epoch));
        if grant.idle() {
            self.release(tenant, epoch);
        } else if grant.row.preemption.is_some() {
            self.gave_way(tenant, epoch);
        }
    }

    /// Tasks to queue at an agent beyond each slot: as many as a slot runs in
    /// the time of a round trip. None until the step's tasks are known.
    fn ahead(&self, job: &model::Job, step: u32) -> u64 {
        let Some(state) = job.state.steps.get(step as usize) else { return 0 };
        if state.attempts_ended == 0 {
            return 0;
        }
        let mean_ms = state.busy_ms / state.attempts_ended;
        if mean_ms == 0 {
            return self.config.queue_ahead_max;
        }
        (self.config.queue_ahead_ms / mean_ms).min(self.config.queue_ahead_max)
    }

    /// Fills one node of a grant up to its slots and `ahead` for each of them.
    fn feed_node(&mut self, tenant: &str, epoch: u64, node: usize, ahead: u64) {
        let mut bound = Vec::new();
        loop {
            if self.out.full() {
                // The rest in the next transaction.
                self.feeding.insert((tenant.to_owned(), epoch));
                break;
            }
            let Some(task) = self.next_task(tenant, epoch, node, ahead) else { break };
            self.bind(tenant, epoch, node as u32, task);
            bound.push(task);
        }
        if !bound.is_empty() {
            self.assign(tenant, epoch, node, &bound);
        }
    }

    /// Takes the next task for a node: retries whose time has come, then the
    /// lowest that was never tried. Retries that are to avoid the node only
    /// where the scheduler chose it for them and nothing else waits.
    fn next_task(&mut self, tenant: &str, epoch: u64, node: usize, ahead: u64) -> Option<u64> {
        let now_ms = self.now.mono_ms;
        let owner = self.tenants.get(tenant)?;
        let grant = owner.grants.get(&epoch)?;
        let name = &grant.row.nodes.get(node)?.node;
        let room = u64::from(grant.row.nodes.get(node)?.slots).saturating_mul(1 + ahead);
        if grant.bound.get(node)?.len() as u64 >= room {
            return None;
        }
        let job = owner.jobs.get(&grant.row.job_number)?;
        if !self.takes_work(name, &grant.row, job) {
            world::mark!("controller.feed.node_takes_no_work");
            return None;
        }
        let (name, new) = (name.clone(), grant.new);
        let owner = self.tenants.get_mut(tenant)?;
        let grant = owner.grants.get(&epoch)?;
        let run = owner.jobs.get_mut(&grant.row.job_number)?.steps.get_mut(grant.row.step as usize)?;
        let mut avoided = None;
        let mut chosen = None;
        for &(at, task) in run.retries.range(..=(now_ms, u64::MAX)).take(RETRIES_SEEN_MAX) {
            if run.note(task).is_some_and(|note| note.avoid.contains(&name)) {
                avoided = avoided.or(Some((at, task)));
            } else {
                chosen = Some((at, task));
                break;
            }
        }
        if chosen.is_none() && run.fresh.is_empty() && new {
            if avoided.is_some() {
                world::mark!("controller.feed.avoided_node_after_all");
            }
            chosen = avoided;
        }
        match chosen {
            Some(retry) => {
                run.retries.remove(&retry);
                Some(retry.1)
            }
            None => run.fresh.pop_first(),
        }
    }

    /// Begins an attempt of a task that was pending.
    fn bind(&mut self, tenant: &str, epoch: u64, node: u32, task: u64) {
        let now_ms = self.now.wall_ms;
        self.bind_order += 1;
        let Some(owner) = self.tenants.get_mut(tenant) else { return };
        let Tenant { jobs, grants, .. } = owner;
        let Some(grant) = grants.get_mut(&epoch) else { return };
        let (number, step) = (grant.row.job_number, grant.row.step);
        let Some(job) = jobs.get_mut(&number) else { return };
        let Some(run) = job.steps.get_mut(step as usize) else { return };
        let Some(state) = job.state.steps.get_mut(step as usize) else { return };
        let number_of_block = StepRun::block_of(task);
        let block = run.blocks.entry(number_of_block).or_default();
        let attempt = block.notes.get(&task).map_or(0, |note| note.attempts) + 1;
        let order = self.bind_order;
        let active = Active { attempt, epoch, node, state: State::Staging, since_ms: now_ms, order };
        let earlier = block.active.insert(task, active);
        assert!(earlier.is_none(), "task {task} of {tenant}-{number} has two attempts");
        block.ranks.clear();
        let weight = blocks::weight(block);
        state.pending -= 1;
        state.active += 1;
        let first = state.state() == State::Pending || job.state.state() == State::Pending;
        match run.gang {
            Some(_) => {
                for bound in &mut grant.bound {
                    bound.insert(task);
                }
                let ranks = vec![Rank::Bound; grant.row.nodes.iter().map(|node| node.slots as usize).sum()];
                grant.gang = Some(GangRun { ranks, failure: None, committing: false, saved: false });
            }
            None => {
                if let Some(bound) = grant.bound.get_mut(node as usize) {
                    bound.insert(task);
                }
            }
        }
        let spot = Spot { tenant: tenant.to_owned(), number, step, task };
        let by = By { attempt, epoch, node_index: node, node: grant.node_name(node) };
        let edge = (State::Pending, State::Staging);
        let drafts = self.out.events(tenant);
        let weighed = drafts.task(now_ms, &spot, edge, &model::passing(State::Staging), by);
        self.out.weigh(weighed);
        self.out.block(tenant, (number, step, number_of_block), weight);
        self.out.state(tenant, number);
        self.out.wants(tenant, number, step);
        if first {
            self.begun(tenant, number, step, State::Staging);
        }
    }

    /// A gang's one task takes the whole grant.
    fn bind_gang(&mut self, tenant: &str, epoch: u64) {
        let Some(owner) = self.tenants.get(tenant) else { return };
        let Some(grant) = owner.grants.get(&epoch).filter(|grant| grant.idle()) else { return };
        let Some(job) = owner.jobs.get(&grant.row.job_number) else { return };
        // A node may have been drained while the grant stood in line.
        if !grant.row.nodes.iter().all(|node| self.takes_work(&node.node, &grant.row, job)) {
            return;
        }
        let nodes = grant.row.nodes.len();
        let (number, step) = (grant.row.job_number, grant.row.step);
        let job = self.tenants.get_mut(tenant).and_then(|owner| owner.jobs.get_mut(&number));
        let Some(run) = job.and_then(|job| job.steps.get_mut(step as usize)) else { return };
        let retry = run.retries.range(..=(self.now.mono_ms, u64::MAX)).next().copied();
        let task = match retry {
            Some(retry) => {
                run.retries.remove(&retry);
                retry.1
            }
            None => match run.fresh.pop_first() {
                Some(task) => task,
                None => return,
            },
        };
        self.bind(tenant, epoch, 0, task);
        for node in 0..nodes {
            self.assign(tenant, epoch, node, &[task]);
        }
    }

    /// Gives a grant's capacity back. Nothing is bound to it any more.
    fn release(&mut self, tenant: &str, epoch: u64) {
        let Some(owner) = self.tenants.get_mut(tenant) else { return };
        let Some(grant) = owner.grants.remove(&epoch) else { return };
        owner.held.subtract(grant.held());
        for group in &grant.row.groups {
            let held = self.held_in_groups.get_mut(group).expect("it was added when the grant came");
            held.subtract(grant.held());
            if *held == Holding::default() {
                self.held_in_groups.remove(group);
            }
        }
        let job = owner.jobs.get_mut(&grant.row.job_number);
        if let Some(run) = job.and_then(|job| job.steps.get_mut(grant.row.step as usize)) {
            run.grants.remove(&epoch);
            run.granted_slots -= grant.slots();
        }
        for node in &grant.row.nodes {
            if let Some(node) = self.nodes.get_mut(&node.node) {
                node.grants.remove(&(tenant.to_owned(), epoch));
            }
            self.set_deadline(&node.node);
        }
        self.out.direct(tenant, keys::grant(tenant, epoch), None);
        self.out.wants(tenant, grant.row.job_number, grant.row.step);
        self.yields_otherwise(tenant, epoch);
        if grant.row.preemption.is_some() {
            world::mark!("controller.preempt.grant_goes");
        }
    }

    /// All grants of a step look for tasks again.
    pub(super) fn feed_step(&mut self, tenant: &str, number: u64, step: u32) {
        let run = self
            .tenants
            .get(tenant)
            .and_then(|tenant| tenant.jobs.get(&number))
            .and_then(|job| job.steps.get(step as usize));
        if let Some(run) = run {
            self.feeding.extend(run.grants.iter().map(|epoch| (tenant.to_owned(), *epoch)));
        }
    }
}
