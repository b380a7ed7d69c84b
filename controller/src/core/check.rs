//! The core's invariants, checked after every simulated step. Panics where one
//! is broken: then memory or rows are wrong, and going on would make it worse.

use super::model::{Block, Grant, Holding, Job, Rank, StepRun, TaskWait, Tenant, over};
use super::{Core, StepKey};
use proto::month;
use proto::spans::Spans;
use proto::v1::{State, StepState};
use std::collections::BTreeMap;
use std::fmt;

impl Core {
    /// Panics where an invariant is broken. Costs a pass over all live jobs;
    /// [`Core::check_step`] looks only at what changed.
    pub fn check(&self) {
        let mut live = 0;
        for (name, tenant) in &self.tenants {
            live += tenant.jobs.len();
            self.check_tenant(name, tenant);
        }
        assert_eq!(live, self.live_jobs, "live jobs are counted wrongly");
        let mut held: BTreeMap<String, Holding> = BTreeMap::new();
        for grant in self.tenants.values().flat_map(|tenant| tenant.grants.values()) {
            let groups = grant.row.groups.iter();
            groups.for_each(|group| held.entry(group.clone()).or_default().add(grant.held()));
        }
        assert_eq!(self.held_in_groups, held, "what is held in groups is not the sum of their grants");
        for key in self.told().map(|(key, _)| key) {
            self.check_told(key);
        }
        for name in self.nodes.keys() {
            self.check_node(name);
        }
        for (at, name) in &self.node_deadlines {
            let deadline = self.nodes.get(name).and_then(|node| node.deadline_ms);
            assert_eq!(deadline, Some(*at), "node {name} has another deadline");
        }
    }

    fn check_tenant(&self, name: &str, tenant: &Tenant) {
        let mut sums = JobSums::default();
        for (number, job) in tenant.jobs.iter() {
            self.check_job(name, tenant, *number, job);
            sums.add(&JobShare::of(job));
        }
        sums.check(name, tenant);
        let mut held = Holding::default();
        for (epoch, grant) in tenant.grants.iter() {
            self.check_grant(name, tenant, *epoch, grant);
            held.add(grant.held());
        }
        assert_eq!(tenant.held, held, "{name}: held is not the sum of its grants");
        self.check_waiters(name, tenant);
    }

    pub(super) fn check_waiters(&self, name: &str, tenant: &Tenant) {
        for (on, waiters) in &tenant.waiters {
            for waiter in waiters {
                let waits = tenant.jobs.get(waiter).is_some_and(|job| job.waits.contains_key(on));
                assert!(waits || self.backlogged(), "{name}-{waiter} does not wait for {on}");
            }
        }
        for (on, followers) in &tenant.followers {
            for follower in followers {
                let gates = tenant.jobs.get(follower).into_iter().flat_map(|job| &job.steps);
                let follows = gates.flat_map(|run| &run.gates).any(|gate| gate.on == *on);
                assert!(follows, "{name}-{follower} does not follow {on}");
            }
        }
        for ((on, step, task), waiters) in &tenant.task_waiters {
            for waiter in waiters {
                let waits = tenant.jobs.get(waiter).map(|job| &job.task_waits);
                let this = |wait: &TaskWait| (wait.on, wait.step, wait.task) == (*on, *step, *task);
                let waits = waits.is_some_and(|waits| waits.iter().any(this));
                assert!(waits, "{name}-{waiter} does not wait for task {task} of {on}");
            }
        }
    }

    pub(super) fn check_told(&self, key: &StepKey) {
        assert!(self.wants(key), "{key:?} was told to want slots and wants none");
    }

    pub(super) fn check_job(&self, name: &str, tenant: &Tenant, number: u64, job: &Job) {
        assert_eq!(number, job.row.number);
        assert!(!job.over(), "{name}-{number} has ended and is still here");
        assert!(number < tenant.ledger.next_job_number, "{name}-{number} is not of this ledger");
        assert_eq!(job.steps.len(), job.state.steps.len());
        let mut unfinished = 0;
        for (index, (run, state)) in job.steps.iter().zip(&job.state.steps).enumerate() {
            let step = index as u32;
            // Told only where something is wrong.
            let at = format_args!("{name}-{number} step {step}");
            unfinished += state.pending + state.active;
            check_counters(at, run, state);
            let slots: u64 =
                run.grants.iter().filter_map(|epoch| tenant.grants.get(epoch)).map(Grant::slots).sum();
            assert_eq!(run.granted_slots, slots, "{at}: slots granted");
            assert!(run.max_running == 0 || slots <= run.max_running, "{at}: more slots than may run");
            if state.active > 0 || state.completed > 0 && state.generation == 0 {
                assert_ne!(state.state(), State::Pending, "{at}: has begun and is PENDING");
            }
            let before = run.after.iter().all(|before| job.step_state(*before) == State::Completed);
            assert!(before || state.active == 0, "{at}: runs before its turn");
            let spec = job.row.spec.as_ref().and_then(|spec| spec.steps.get(index));
            let retries = spec.and_then(|spec| spec.retries).unwrap_or(self.config.retries);
            run.pace.check();
            for block in run.blocks.values() {
                self.check_active(at, tenant, job, step, block);
                for note in block.notes.values() {
                    assert!(
                        note.own_failures <= retries.saturating_add(1),
                        "{at}: task {} retried",
                        note.task
                    );
                    assert!(
                        note.platform_failures <= self.config.platform_retries + 1,
                        "{at}: {}",
                        note.task
                    );
                }
            }
            let key = (name.to_owned(), number, step);
            if self.wants(&key) {
                assert!(self.demand.told(&key), "{at}: wants something and nobody was told");
            }
        }
        assert_eq!(job.state.queued_tasks_reserved, unfinished, "{name}-{number}: queued tasks");
    }

    /// Every live attempt holds exactly one live grant, of its own step.
    fn check_active(&self, at: fmt::Arguments<'_>, tenant: &Tenant, job: &Job, step: u32, block: &Block) {
        for task in block.said.keys() {
            assert!(block.active.contains_key(task), "{at}: task {task} gets on and does not live");
        }
        for task in block.staging.keys() {
            let is_staged = block.active.get(task).is_some_and(|active| active.state == State::Staging);
            assert!(is_staged, "{at}: task {task} is told to be staged and is not");
        }
        for (task, active) in &block.active {
            assert!(matches!(active.state, State::Staging | State::Running), "{at} task {task}");
            let grant = tenant.grants.get(&active.epoch);
            let Some(grant) = grant else {
                assert!(self.backlogged(), "{at}: task {task} runs without a grant");
                continue;
            };
            assert_eq!((grant.row.job_number, grant.row.step), (job.row.number, step), "{at} task {task}");
            let bound = grant.bound.get(active.node as usize);
            assert!(bound.is_some_and(|bound| bound.contains(task)), "{at}: task {task} is not bound");
        }
    }

    /// Everything bound to a grant is a live attempt of its epoch; nothing is
    /// kept that nobody uses.
    pub(super) fn check_grant(&self, name: &str, tenant: &Tenant, epoch: u64, grant: &Grant) {
        assert_eq!(epoch, grant.row.epoch);
        assert!(epoch <= tenant.epoch_seen);
        let job = tenant.jobs.get(&grant.row.job_number);
        let run = job.and_then(|job| job.steps.get(grant.row.step as usize));
        self.check_fed(name, epoch, grant);
        for (node, bound) in grant.row.nodes.iter().zip(&grant.bound) {
            let most = u64::from(node.slots) * (1 + self.config.queue_ahead_max);
            assert!(bound.len() as u64 <= most, "grant {epoch}: {} tasks on {}", bound.len(), node.node);
            for task in bound {
                let active = run.and_then(|run| run.active(*task));
                assert_eq!(active.map(|active| active.epoch), Some(epoch), "grant {epoch}: task {task}");
            }
        }
        if let Some(gang) = &grant.gang {
            assert_eq!(gang.ranks.len() as u64, grant.slots(), "grant {epoch}: ranks");
            let ended = gang.ranks.iter().filter(|rank| **rank == Rank::Ended).count();
            let stored: usize = run.map_or(0, |run| run.blocks.values().map(|block| block.ranks.len()).sum());
            assert_eq!(ended, stored, "grant {epoch}: ranks ended in memory and in the row");
        }
        for node in &grant.row.nodes {
            if let Some(node) = self.nodes.get(&node.node) {
                assert!(node.grants.contains(&(name.to_owned(), epoch)), "{}: lacks {epoch}", node.row.name);
            }
        }
    }

    /// A grant nobody uses is about to be fed or given back.
    pub(super) fn check_fed(&self, name: &str, epoch: u64, grant: &Grant) {
        if grant.idle() {
            assert!(self.feeding.contains(&(name.to_owned(), epoch)), "grant {epoch} of {name} lies idle");
        }
    }

    pub(super) fn check_node(&self, name: &str) {
        let Some(node) = self.nodes.get(name) else { return };
        assert_eq!(*name, node.row.name);
        for (tenant, epoch) in &node.grants {
            let grant = self.tenants.get(tenant).and_then(|tenant| tenant.grants.get(epoch));
            assert!(grant.is_some(), "node {name} holds grant {epoch} of {tenant}, which is gone");
        }
        if let Some(at) = node.deadline_ms {
            assert!(self.node_deadlines.contains(&(at, name.to_owned())), "node {name} is not watched");
        }
    }
}

/// What the ledger has of one live job.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct JobShare {
    reserved_micros: u64,
    queued_tasks: u64,
    stored_bytes: u64,
    fetched_bytes: u64,
    month: u32,
}

/// The sums over the live jobs of a tenant.
#[derive(Debug, Default)]
pub(super) struct JobSums {
    reserved_micros: u64,
    queued_tasks: u64,
    stored_bytes: u64,
    /// By the month of their submission.
    fetched_bytes: BTreeMap<u32, u64>,
}

impl JobShare {
    pub(super) fn of(job: &Job) -> Self {
        Self {
            reserved_micros: job.state.reserved_micros,
            queued_tasks: job.state.queued_tasks_reserved,
            stored_bytes: job.state.storage_bytes,
            fetched_bytes: job.state.ingress_bytes,
            month: month::of(job.row.submitted_ms),
        }
    }
}

impl JobSums {
    pub(super) fn add(&mut self, share: &JobShare) {
        self.reserved_micros += share.reserved_micros;
        self.queued_tasks += share.queued_tasks;
        self.stored_bytes += share.stored_bytes;
        *self.fetched_bytes.entry(share.month).or_default() += share.fetched_bytes;
    }

    pub(super) fn subtract(&mut self, share: &JobShare) {
        self.reserved_micros -= share.reserved_micros;
        self.queued_tasks -= share.queued_tasks;
        self.stored_bytes -= share.stored_bytes;
        *self.fetched_bytes.entry(share.month).or_default() -= share.fetched_bytes;
    }

    /// Against what the ledger says.
    pub(super) fn check(&self, name: &str, tenant: &Tenant) {
        let ledger = &tenant.ledger;
        let reserved = self.reserved_micros;
        assert_eq!(ledger.reserved_micros, reserved, "{name}: money reserved is not the jobs' sum");
        assert_eq!(ledger.queued_tasks, self.queued_tasks, "{name}: tasks queued are not the jobs' sum");
        assert_eq!(ledger.live_jobs, tenant.jobs.len() as u64, "{name}: live jobs");
        // Ended jobs, and what clients moved, are in the ledger alone.
        let stored = self.stored_bytes.saturating_add(ledger.uploaded_bytes);
        assert!(stored <= ledger.storage_bytes, "{name}: {stored} bytes are stored, the ledger says less");
        let fetched = self.fetched_bytes.get(&ledger.month).copied().unwrap_or_default();
        assert!(fetched <= ledger.ingress_bytes, "{name}: jobs fetched {fetched}, the ledger says less");
    }
}

/// The counters are the sums over blocks and the rest, and no task is counted
/// twice.
fn check_counters(at: fmt::Arguments<'_>, run: &StepRun, state: &StepState) {
    let blocks = || run.blocks.values();
    let completed: u64 = blocks().map(|block| block.completed.count()).sum();
    let failed: u64 = blocks().map(|block| block.failed.count()).sum();
    let cancelled: u64 = blocks().map(|block| block.cancelled.count()).sum();
    let active: u64 = blocks().map(|block| block.active.len() as u64).sum();
    let held = run.gated.count() + run.doomed.values().map(Spans::count).sum::<u64>();
    let waiting = run.fresh.count() + held + run.retries.len() as u64;
    assert_eq!(state.completed, completed, "{at}: completed");
    assert_eq!(state.failed, failed, "{at}: failed");
    assert_eq!(state.active, active, "{at}: active");
    assert_eq!(state.pending, waiting, "{at}: pending");
    let sum = state.completed + state.failed + state.cancelled + state.active + state.pending;
    assert_eq!(sum, run.tasks, "{at}: tasks");
    let mut named = run.unbegun();
    for gate in &run.gates {
        assert!(gate.shut.intersection(&run.fresh).is_empty(), "{at}: an open task waits for {}", gate.on);
    }
    named.extend_with(run.retries.iter().map(|(_, task)| *task));
    for block in blocks() {
        for set in [&block.completed, &block.failed, &block.cancelled] {
            named.insert_all(set);
        }
        named.extend_with(block.active.keys().copied());
    }
    let counted = completed + failed + cancelled + active + waiting;
    assert_eq!(named.count(), counted, "{at}: a task is counted twice");
    match state.rest() {
        State::Cancelled => assert_eq!(state.pending, 0, "{at}: pending after a cancel"),
        _ => assert_eq!(state.cancelled, cancelled, "{at}: cancelled"),
    }
    if over(state.state()) {
        assert_eq!((state.pending, state.active), (0, 0), "{at}: has ended");
    }
}

trait ExtendWith {
    fn extend_with(&mut self, numbers: impl Iterator<Item = u64>);
}
impl ExtendWith for Spans {
    fn extend_with(&mut self, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            self.insert(number);
        }
    }
}
