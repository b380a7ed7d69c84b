//! From rows to a running core, and the timers.

use super::gangs::first_failure;
use super::model::{GangRun, cause};
use super::model::{Job, Node, Rank, Spot, StepRun, ledger_of, over};
use super::submit::{met_by, not_as_it_should, prepare};
use super::types::{Loaded, Now, Txn};
use super::{Core, Timer, Work, blocks, retry};
use proto::v1::{CauseKind, JobRow, JobStateRow, State, TaskNote};
use proto::{after, manifests};
use std::collections::BTreeSet;

impl Core {
    /// Takes a stored row. All come before [`Core::start`].
    pub fn load(&mut self, row: Loaded) {
        match row {
            Loaded::Tenant(row) => self.tenant_changed(row),
            Loaded::Ledger(tenant, row) => self.tenant_entry(&tenant).ledger = ledger_of(row),
            Loaded::Job(row, state) => self.load_job(row, state),
            Loaded::Block { tenant, number, step, block, row } => {
                let Some(job) = self.tenants.get_mut(&tenant).and_then(|tenant| tenant.jobs.get_mut(&number))
                else {
                    return;
                };
                let Some(state) = job.state.steps.get(step as usize) else { return };
                if let Some(run) = job.steps.get_mut(step as usize) {
                    run.blocks.insert(block, blocks::decode(row, state));
                }
            }
            Loaded::Grant(row) => self.orphans.push(row),
            Loaded::Node(row) => {
                self.nodes.insert(row.name.clone(), Node::new(row, self.now.mono_ms));
            }
            Loaded::Manifest { tenant, number, step, row } => {
                let job = self.tenants.get_mut(&tenant).and_then(|tenant| tenant.jobs.get_mut(&number));
                let Some(job) = job else { return };
                if let Some(run) = job.steps.get_mut(step as usize)
                    && !run.before.is_empty()
                    && job.state.steps.get(step as usize).is_some_and(|state| manifests::stands(&row, state))
                {
                    run.outputs.insert((row.task, row.rank), row.artifacts);
                }
            }
            Loaded::Checkpoint { tenant, number, at: (step, task, rank), row } => {
                let job = self.tenants.get_mut(&tenant).and_then(|tenant| tenant.jobs.get_mut(&number));
                if let Some(run) = job.and_then(|job| job.steps.get_mut(step as usize)) {
                    run.checkpoints.insert((task, rank), row);
                }
            }
            Loaded::End(tenant, number, state) => {
                self.ends.insert((tenant, number), state);
            }
            Loaded::Ended(tenant, job) => self.tenant_entry(&tenant).retain(&job),
            Loaded::Followed(rows) => {
                self.followed.entry(rows.job.tenant.clone()).or_default().push(*rows);
            }
        }
    }

    fn load_job(&mut self, row: JobRow, state: JobStateRow) {
        if over(state.state()) {
            return;
        }
        // A row that was accepted once is a job; if this version cannot read it
        // as one it is left alone, as if it were of a newer version.
        let Ok(steps) = prepare(&row.spec.clone().unwrap_or_default()) else { return };
        if steps.len() != state.steps.len() {
            return;
        }
        let (name, number) = (row.tenant.clone(), row.number);
        let tenant = self.tenant_entry(&name);
        tenant.jobs.insert(number, Job::new(row, state, steps));
        self.live_jobs += 1;
    }

    /// Jobs that have ended and that loaded jobs wait for: tell their ends
    /// ([`Loaded::End`]) before the start.
    #[must_use]
    pub fn ends_wanted(&self) -> Vec<(String, u64)> {
        let mut wanted = Vec::new();
        for (name, tenant) in &self.tenants {
            for job in tenant.jobs.values() {
                let whole = job.after().iter().filter(|on| !after::by_task(on));
                let ended = whole.map(|on| on.job_number).filter(|on| !tenant.jobs.contains_key(on));
                wanted.extend(ended.map(|on| (name.clone(), on)));
            }
        }
        wanted.sort();
        wanted.dedup();
        wanted
    }

    /// Jobs that have ended and whose tasks loaded jobs look at: tell their rows
    /// ([`Loaded::Followed`], manifests left out) before the start.
    #[must_use]
    pub fn rows_wanted(&self) -> BTreeSet<(String, u64)> {
        let mut wanted = BTreeSet::new();
        for (name, tenant) in &self.tenants {
            for job in tenant.jobs.values().filter(|job| job.state.generation == 0) {
                let tasks = job.after().iter().filter(|on| after::by_task(on));
                let ended = tasks.map(|on| on.job_number).filter(|on| !tenant.jobs.contains_key(on));
                wanted.extend(ended.map(|on| (name.clone(), on)));
            }
        }
        wanted
    }

    /// Goes on where the rows stop: after all rows, before the first event.
    pub fn start(&mut self, now: Now) -> Txn {
        self.now = now;
        self.all_ended_told();
        self.link_jobs();
        self.link_grants();
        self.drop_unheld();
        self.resume_gangs();
        self.restart_deadlines();
        self.link_waits();
        self.link_within();
        for (name, tenant) in &self.tenants {
            for (number, job) in tenant.jobs.iter() {
                self.backlog.push_back(Work::Review { tenant: name.clone(), number: *number });
                for step in 0..job.steps.len() {
                    self.out.wants(name, *number, step as u32);
                }
            }
        }
        self.resume_giving_way();
        self.run();
        self.close()
    }

    fn link_jobs(&mut self) {
        let now = self.now;
        let Self { config, tenants, cluster_retries, .. } = self;
        let mut spots = Vec::new();
        for (name, tenant) in tenants {
            let mut wait_ms = |note: &TaskNote| {
                let told_ms = note.not_before_ms.saturating_sub(now.wall_ms);
                let longest_ms = retry::longest_ms(config, note);
                if told_ms <= longest_ms {
                    return told_ms;
                }
                // The wall clock was set back since, or a budget made it wait: once more, then.
                let budget_ms = tenant.retries.take(now.mono_ms).max(cluster_retries.take(now.mono_ms));
                told_ms.min(longest_ms.max(budget_ms))
            };
            for (number, job) in tenant.jobs.iter_mut() {
                for (step, (run, state)) in job.steps.iter_mut().zip(&job.state.steps).enumerate() {
                    blocks::pending(run, state, now.mono_ms, &mut wait_ms);
                    let StepRun { blocks, outputs, .. } = run;
                    // Manifests of an attempt that is still at it, or of an earlier
                    // version from before the step began anew.
                    outputs.retain(|(task, _), _| {
                        blocks
                            .get(&StepRun::block_of(*task))
                            .is_some_and(|block| block.completed.contains(*task))
                    });
                    spots.push(Spot { tenant: name.clone(), number: *number, step: step as u32, task: 0 });
                }
            }
        }
        for spot in spots {
            self.arm_retry(&spot);
        }
    }

    fn link_grants(&mut self) {
        let mut used = BTreeSet::new();
        for (name, tenant) in &self.tenants {
            let steps = tenant.jobs.values().flat_map(|job| &job.steps);
            let active = steps.flat_map(|run| run.blocks.values()).flat_map(|block| block.active.values());
            used.extend(active.map(|active| (name.clone(), active.epoch)));
        }
        for row in std::mem::take(&mut self.orphans) {
            let tenant = self.tenant_entry(&row.tenant);
            tenant.epoch_seen = tenant.epoch_seen.max(row.epoch);
            if used.contains(&(row.tenant.clone(), row.epoch)) {
                self.feeding.insert((row.tenant.clone(), row.epoch));
                world::mark!("controller.start.grant_in_use");
                self.insert_grant(row, false);
            } else {
                // Never seen, or not yet given back: as if it came now.
                world::mark!("controller.start.grant_unused");
                self.backlog.push_back(Work::Grant(row));
            }
        }
        for tenant in self.tenants.values_mut() {
            let (jobs, grants) = (&tenant.jobs, &mut tenant.grants);
            for run in jobs.values().flat_map(|job| &job.steps) {
                for (task, active) in run.blocks.values().flat_map(|block| &block.active) {
                    let Some(grant) = grants.get_mut(&active.epoch) else { continue };
                    if run.gang.is_some() {
                        for bound in &mut grant.bound {
                            bound.insert(*task);
                        }
                    } else if let Some(bound) = grant.bound.get_mut(active.node as usize) {
                        bound.insert(*task);
                    }
                }
            }
        }
    }

    /// Attempts whose grant has no row cannot be: they are over. (Nothing this
    /// code writes leads there; a store restored in part would.)
    fn drop_unheld(&mut self) {
        let mut lost = Vec::new();
        for (name, tenant) in &self.tenants {
            for (number, job) in tenant.jobs.iter() {
                for (step, run) in job.steps.iter().enumerate() {
                    for (task, active) in run.blocks.values().flat_map(|block| &block.active) {
                        let grant = tenant.grants.get(&active.epoch);
                        if grant.is_none_or(|grant| grant.bound.iter().all(|bound| !bound.contains(task))) {
                            let (tenant, number, task) = (name.clone(), *number, *task);
                            lost.push(Spot { tenant, number, step: step as u32, task });
                        }
                    }
                }
            }
        }
        self.backlog.extend(lost.into_iter().map(Work::Unheld));
    }

    /// Which ranks have started is not stored; which have ended is.
    fn resume_gangs(&mut self) {
        let mut over = Vec::new();
        for (name, tenant) in &mut self.tenants {
            for (epoch, grant) in tenant.grants.iter_mut() {
                let (number, step) = (grant.row.job_number, grant.row.step);
                let run = tenant.jobs.get(&number).and_then(|job| job.steps.get(step as usize));
                let Some(run) = run.filter(|run| run.gang.is_some()) else { continue };
                let Some(task) = grant.bound.first().and_then(|bound| bound.first()).copied() else {
                    continue;
                };
                let Some(active) = run.active(task).copied() else { continue };
                let begun = if active.state == State::Running { Rank::Started } else { Rank::Bound };
                let mut ranks: Vec<Rank> =
                    vec![begun; grant.row.nodes.iter().map(|node| node.slots as usize).sum()];
                let ends = run.blocks.get(&StepRun::block_of(task)).map(|block| &block.ranks);
                for rank in ends.into_iter().flat_map(|ends| ends.keys()) {
                    if let Some(state) = ranks.get_mut(*rank as usize) {
                        *state = Rank::Ended;
                    }
                }
                let failure = ends.and_then(first_failure);
                if ranks.iter().all(|rank| *rank == Rank::Ended) {
                    world::mark!("controller.start.gang_had_ended");
                    let spot = Spot { tenant: name.clone(), number, step, task };
                    over.push(Work::GangOver { spot, epoch: *epoch });
                }
                world::mark!("controller.start.gang_resumed");
                grant.gang = Some(GangRun { ranks, failure, committing: false, saved: false });
            }
        }
        self.backlog.extend(over);
    }

    fn link_waits(&mut self) {
        let mut doomed = Vec::new();
        for (name, tenant) in &mut self.tenants {
            let live: Vec<u64> = tenant.jobs.keys().copied().collect();
            for (number, job) in tenant.jobs.iter_mut() {
                if job.state.cancel_requested {
                    continue;
                }
                for on in job.after().iter().filter(|on| !after::by_task(on)).cloned().collect::<Vec<_>>() {
                    // One that began has waited its wait; the other may live again.
                    if live.binary_search(&on.job_number).is_ok() && job.state.state() == State::Pending {
                        world::mark!("controller.start.waits_for_a_job");
                        job.waits.insert(on.job_number, on.kind);
                        tenant.waiters.entry(on.job_number).or_default().insert(*number);
                    } else if let Some(end) = self.ends.get(&(name.clone(), on.job_number))
                        && job.state.state() == State::Pending
                        && job.state.generation == 0
                        && over(*end)
                        && !met_by(on.kind, *end)
                    {
                        let text = not_as_it_should(name, on.job_number);
                        doomed.push(Work::Doom { tenant: name.clone(), number: *number, text });
                    }
                }
            }
        }
        self.ends.clear();
        self.backlog.extend(doomed);
    }

    /// What waits for single tasks of others. What cannot be found out is taken
    /// as met.
    fn link_within(&mut self) {
        let looks = |job: &Job| !job.state.cancel_requested && job.after().iter().any(after::by_task);
        let jobs = self.tenants.iter().flat_map(|(name, tenant)| {
            tenant.jobs.iter().filter(|(_, job)| looks(job)).map(|(number, _)| (name.clone(), *number))
        });
        let jobs: Vec<(String, u64)> = jobs.collect();
        for (name, number) in jobs {
            let Some(job) = self.tenants.get(&name).and_then(|tenant| tenant.jobs.get(&number)) else {
                continue;
            };
            let (again, begun) = (job.state.generation > 0, job.state.state() != State::Pending);
            let spec = job.row.spec.clone().unwrap_or_default();
            let told = self.followed.get(&name).map(Vec::as_slice).unwrap_or_default();
            let Ok(mut within) = self.look(&name, &spec, told, again) else { continue };
            if begun {
                // It has waited its wait; only tasks that have not begun still do.
                within.tasks.clear();
                within.doomed = None;
            }
            if let Some(text) = within.doomed.take() {
                self.backlog.push_back(Work::Doom { tenant: name.clone(), number, text });
            }
            self.wait_within(&name, number, within);
        }
        self.followed.clear();
    }

    pub(super) fn unheld(&mut self, spot: &Spot) {
        let why = cause(CauseKind::Requeued, "its grant is gone");
        self.conclude(spot, super::finish::End::Returned(why, 0));
    }

    /// Does what the earliest timer asks, if it is due.
    pub(super) fn fire_timer(&mut self) -> bool {
        match self.timers.first() {
            Some((at, _)) if *at <= self.now.mono_ms => {}
            _ => return false,
        }
        match self.timers.pop_first() {
            Some((_, Timer::Retry(tenant, number, step))) => {
                let run = self
                    .tenants
                    .get_mut(&tenant)
                    .and_then(|tenant| tenant.jobs.get_mut(&number))
                    .and_then(|job| job.steps.get_mut(step as usize));
                if let Some(run) = run {
                    run.retry_timer = None;
                    self.out.wants(&tenant, number, step);
                    self.feed_step(&tenant, number, step);
                    self.arm_retry(&Spot { tenant, number, step, task: 0 });
                }
            }
            Some((_, Timer::Stop(tenant, number))) => {
                let job = self.tenants.get_mut(&tenant).and_then(|tenant| tenant.jobs.get_mut(&number));
                if let Some(job) = job {
                    job.stop_timer = false;
                    self.send_stops(&tenant, number);
                }
            }
            Some((_, Timer::Pace(tenant, number, step))) => self.look_at_pace(&tenant, number, step),
            Some((_, Timer::Yielding(tenant, epoch))) => self.yielding_due(tenant, epoch),
            None => {}
        }
        true
    }
}
