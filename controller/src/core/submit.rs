//! Submissions: idempotency, limits, admission, and the rows of a new job.

use super::expiry::Retained;
use super::follow::Within;
use super::gates::all_of;
use super::model::{GangShape, Holding, Job, StepRun, Tenant, cause, ledger_of, over};
use super::pace::Pace;
use super::retry::Bucket;
use super::types::{AdmissionAsk, AdmissionVerdict, NewJob, Reply, Resources64};
use super::watched::Watched;
use super::{Core, ledger};
use crate::limits;
use prost::Message;
use proto::problem::{self, Problem};
use proto::spans::Spans;
use proto::v1::{
    CauseKind, DependencyKind, IdempotencyRow, JobRow, JobSpec, JobStateRow, LedgerRow, State, StepState,
    SubmitReply, TenantRow,
};
use proto::{after, array, estimate, fairness, keys, month};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What the core did lately and the store may not show yet.
#[derive(Default)]
pub(super) struct Recent {
    keys: BTreeMap<(String, String), (u64, String)>,
    keys_order: VecDeque<(String, String)>,
    ends: BTreeMap<(String, u64), (State, u32)>,
    ends_order: VecDeque<(String, u64)>,
    expired: BTreeSet<(String, u64)>,
    expired_order: VecDeque<(String, u64)>,
}

impl Recent {
    fn key(&self, tenant: &str, key: &str) -> Option<&(u64, String)> {
        self.keys.get(&(tenant.to_owned(), key.to_owned()))
    }

    fn remember_key(&mut self, tenant: &str, key: &str, number: u64, digest: &str) {
        let name = (tenant.to_owned(), key.to_owned());
        if self.keys.insert(name.clone(), (number, digest.to_owned())).is_none() {
            self.keys_order.push_back(name);
        }
        if self.keys_order.len() > limits::RECENT_KEYS_MAX
            && let Some(oldest) = self.keys_order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }

    /// How a job ended, and in which generation.
    pub(super) fn end(&self, tenant: &str, number: u64) -> Option<(State, u32)> {
        self.ends.get(&(tenant.to_owned(), number)).copied()
    }

    pub(super) fn remember_end(&mut self, tenant: &str, number: u64, end: (State, u32)) {
        let name = (tenant.to_owned(), number);
        if self.ends.insert(name.clone(), end).is_none() {
            self.ends_order.push_back(name);
        }
        if self.ends_order.len() > limits::RECENT_ENDS_MAX
            && let Some(oldest) = self.ends_order.pop_front()
        {
            self.ends.remove(&oldest);
        }
    }

    /// Whether what a job gave has expired.
    pub(super) fn expired(&self, tenant: &str, number: u64) -> bool {
        self.expired.contains(&(tenant.to_owned(), number))
    }

    pub(super) fn remember_expired(&mut self, tenant: &str, number: u64) {
        let name = (tenant.to_owned(), number);
        if self.expired.insert(name.clone()) {
            self.expired_order.push_back(name);
        }
        if self.expired_order.len() > limits::RECENT_ENDS_MAX
            && let Some(oldest) = self.expired_order.pop_front()
        {
            self.expired.remove(&oldest);
        }
    }
}

/// What of a dependency's end is known.
enum Met {
    Yes,
    Waits,
    Never,
}

impl Core {
    pub(super) fn tenant_entry(&mut self, name: &str) -> &mut Tenant {
        let (burst, rate) = (self.config.tenant_retry_burst, self.config.tenant_retries_per_s);
        self.tenants.entry(name.to_owned()).or_insert_with(|| Tenant {
            row: TenantRow { name: name.to_owned(), ..TenantRow::default() },
            known: false,
            ledger: ledger_of(LedgerRow::default()),
            jobs: Watched::default(),
            grants: Watched::default(),
            epoch_seen: 0,
            held: Holding::default(),
            waiters: BTreeMap::new(),
            task_waiters: BTreeMap::new(),
            followers: BTreeMap::new(),
            retries: Bucket::new(burst, rate),
            retained: Retained::default(),
        })
    }

    pub(super) fn tenant_changed(&mut self, row: TenantRow) {
        let tenant = self.tenant_entry(&row.name.clone());
        tenant.retention_changes(&row);
        tenant.row = row;
        tenant.known = true;
    }

    /// The groups that a tenant is in, from it up, with what is held in each.
    pub(super) fn groups_of(&self, tenant: &Tenant) -> Vec<(&TenantRow, Resources64)> {
        let mut groups: Vec<(&TenantRow, Resources64)> = Vec::new();
        let mut next = &tenant.row.parent;
        while let Some(group) = self.tenants.get(next).filter(|group| group.known)
            && groups.len() < fairness::GROUPS_MAX
        {
            let held = self.held_in_groups.get(next).copied().unwrap_or_default();
            groups.push((&group.row, held.told()));
            next = &group.row.parent;
        }
        groups
    }

    pub(super) fn submit(&mut self, ticket: u64, job: NewJob) {
        let reply = match self.try_submit(job) {
            Ok(reply) => Reply::Submitted(reply),
            Err(problem) => Reply::Refused(problem),
        };
        self.reply(ticket, reply);
    }

    fn try_submit(&mut self, new: NewJob) -> Result<SubmitReply, Problem> {
        let live_jobs = self.live_jobs;
        let tenant = self
            .tenants
            .get(&new.tenant)
            .filter(|tenant| tenant.known)
            .ok_or_else(|| problem::missing("tenant", &new.tenant))?;
        if tenant.row.group {
            let reason = "is a group, and has no jobs of its own";
            return Err(Problem::new("spec.tenant", "tenant", &new.tenant, reason, "name a tenant in it"));
        }
        if !new.key.is_empty() {
            let recent = self.recent.key(&new.tenant, &new.key);
            if let Some((number, digest)) = recent.or(new.known.as_ref()) {
                world::mark!("controller.submit.said_twice");
                return known(tenant, &new, *number, digest);
            }
        }
        if live_jobs >= limits::LIVE_JOBS_MAX || tenant.jobs.len() >= limits::LIVE_JOBS_PER_TENANT_MAX {
            return Err(too_many_jobs(tenant.jobs.len()));
        }
        let steps = prepare(&new.spec)?;
        let waits = self.dependencies(&new)?;
        let within = self.look(&new.tenant, &new.spec, &new.followed, false)?;
        self.may_follow(&new.tenant, &within)?;
        let ask = AdmissionAsk {
            tenant: &tenant.row,
            ledger: &tenant.ledger,
            held: tenant.held.told(),
            groups: &self.groups_of(tenant),
            spec: &new.spec,
            now_ms: self.now.wall_ms,
        };
        let (price_micros, waiting_for) = match self.admission.decide(&ask) {
            AdmissionVerdict::Admit { price_micros, waiting_for } => (price_micros, waiting_for),
            AdmissionVerdict::Refuse(problem) => {
                world::mark!("controller.submit.refused");
                return Err(problem);
            }
        };
        let mut reply = SubmitReply {
            tenant: new.tenant.clone(),
            tasks: steps.iter().map(|step| step.tasks).sum(),
            price_micros,
            waiting_for: waiting_for.unwrap_or_default(),
            ..SubmitReply::default()
        };
        if !new.dry_run {
            reply.number = self.admit(new, steps, (waits, within), price_micros);
        }
        Ok(reply)
    }

    /// Which dependencies it must still wait for. One that can never be met is
    /// no refusal: the job is taken and cancelled, as it would be a moment later.
    fn dependencies(&self, new: &NewJob) -> Result<Vec<(u64, i32, Met)>, Problem> {
        if new.spec.after.len() > proto::limits::DEPENDENCIES_MAX {
            let reason = format!("waits for more than {} jobs", proto::limits::DEPENDENCIES_MAX);
            return Err(Problem::new(
                "limit.dependencies",
                "after",
                new.spec.after.len(),
                reason,
                "name fewer",
            ));
        }
        let mut waits = Vec::new();
        for dependency in new.spec.after.iter().filter(|on| !after::by_task(on)) {
            let number = dependency.job_number;
            let live = self.tenants.get(&new.tenant).and_then(|tenant| tenant.jobs.get(&number));
            let told = || new.dependencies.iter().find(|(told, _)| *told == number).and_then(|(_, end)| *end);
            let met = match live {
                Some(job) if !job.over() => Met::Waits,
                Some(job) => met(dependency.kind, job.state.state()),
                None => match self.recent.end(&new.tenant, number).map(|(end, _)| end).or_else(told) {
                    Some(end) if over(end) => met(dependency.kind, end),
                    _ => return Err(problem::missing("job", number).within("after")),
                },
            };
            waits.push((number, dependency.kind, met));
        }
        Ok(waits)
    }

    /// The rows of a job that was let in. Returns its number.
    fn admit(
        &mut self,
        new: NewJob,
        steps: Vec<StepRun>,
        (waits, within): (Vec<(u64, i32, Met)>, Within),
        price_micros: u64,
    ) -> u64 {
        let now_ms = self.now.wall_ms;
        let tenant = self.tenants.get_mut(&new.tenant).expect("the caller found it");
        let number = tenant.ledger.next_job_number;
        tenant.ledger.next_job_number += 1;
        month::turn(&mut tenant.ledger, now_ms);
        let mut state = JobStateRow {
            state: State::Pending.into(),
            steps: steps.iter().map(|run| waiting(run.tasks)).collect(),
            keep_ms: new.spec.keep_ms,
            ..JobStateRow::default()
        };
        let tasks = steps.iter().map(|run| run.tasks).sum();
        ledger::reserve(&mut tenant.ledger, &mut state, price_micros, tasks);
        ledger::fetch(&mut tenant.ledger, &mut state, estimate::fetched_bytes(&new.spec));
        let mut spec = new.spec;
        for step in &mut spec.steps {
            step.retries.get_or_insert(self.config.retries);
        }
        let row = JobRow {
            tenant: new.tenant.clone(),
            number,
            spec: Some(spec),
            submitted_ms: now_ms,
            submitted_by: new.by,
            idempotency_key: new.key.clone(),
        };
        let mut job = Job::new(row, state, steps);
        let mut doomed = None;
        for (on, kind, met) in waits {
            match met {
                Met::Yes => {}
                Met::Never => {
                    world::mark!("controller.after.never");
                    doomed = Some(on);
                }
                Met::Waits => {
                    job.waits.insert(on, kind);
                    tenant.waiters.entry(on).or_default().insert(number);
                }
            }
        }
        for step in 0..job.steps.len() {
            self.out.wants(&new.tenant, number, step as u32);
        }
        tenant.jobs.insert(number, job);
        self.live_jobs += 1;
        self.out.job(&new.tenant, number);
        self.out.state(&new.tenant, number);
        self.out.ledger(&new.tenant);
        let edge = (State::Unspecified, State::Pending);
        let submitted = cause(CauseKind::Submitted, "");
        self.out.events(&new.tenant).whole(now_ms, (number, None), edge, &submitted, Spans::new());
        if !new.key.is_empty() {
            let row = IdempotencyRow { job_number: number, spec_digest: new.spec_digest, at_ms: now_ms };
            self.recent.remember_key(&new.tenant, &new.key, number, &row.spec_digest);
            self.out.create(&new.tenant, keys::idem(&new.tenant, &new.key), row.encode_to_vec().into());
        }
        self.wait_within(&new.tenant, number, within);
        if let Some(on) = doomed {
            self.doom(&new.tenant, number, not_as_it_should(&new.tenant, on));
        }
        number
    }
}

/// A fresh step that waits.
pub(super) fn waiting(tasks: u64) -> StepState {
    StepState {
        state: State::Pending.into(),
        rest: State::Pending.into(),
        pending: tasks,
        ..StepState::default()
    }
}

/// Whether an end is the one a dependency wants.
pub(super) fn met_by(kind: i32, end: State) -> bool {
    match DependencyKind::try_from(kind).unwrap_or(DependencyKind::Ok) {
        DependencyKind::Any => true,
        DependencyKind::NotOk => end != State::Completed,
        DependencyKind::Ok | DependencyKind::Each | DependencyKind::Unspecified => end == State::Completed,
    }
}

/// Why a job is doomed that comes after another.
pub(super) fn not_as_it_should(tenant: &str, on: u64) -> String {
    format!("job {tenant}-{on} did not end as it should")
}

fn met(kind: i32, end: State) -> Met {
    if met_by(kind, end) { Met::Yes } else { Met::Never }
}

/// The answer to a key that was used before.
fn known(tenant: &Tenant, new: &NewJob, number: u64, digest: &str) -> Result<SubmitReply, Problem> {
    if digest != new.spec_digest {
        return Err(problem::conflict(
            "idempotency_key",
            "idempotency_key",
            &new.key,
            format!("was used for another job, {}-{number}", new.tenant),
            "use a new key for a new job",
        ));
    }
    let live = tenant.jobs.get(&number);
    let price_micros =
        live.map_or(0, |job| job.state.reserved_micros.saturating_add(job.state.settled_micros));
    Ok(SubmitReply {
        tenant: new.tenant.clone(),
        number,
        existing: true,
        tasks: estimate::tasks(&new.spec),
        price_micros,
        ..SubmitReply::default()
    })
}

fn too_many_jobs(live: usize) -> Problem {
    Problem::new(
        "limit.live_jobs",
        "",
        live,
        "so many jobs have not ended yet that no more are taken",
        "wait for some to end, or submit one array instead of many jobs",
    )
}

/// The steps of a spec, as the core runs them. The doors validated it; what is
/// checked here is what this module relies on.
pub(super) fn prepare(spec: &JobSpec) -> Result<Vec<StepRun>, Problem> {
    let count = spec.steps.len();
    if count == 0 || count > proto::limits::STEPS_MAX {
        let reason = format!("a job has 1 to {} steps", proto::limits::STEPS_MAX);
        return Err(Problem::new("spec.steps", "step", count, reason, "split the job"));
    }
    let mut names = BTreeMap::new();
    for (index, step) in spec.steps.iter().enumerate() {
        if names.insert(step.name.as_str(), index as u32).is_some() {
            return Err(Problem::new("spec.step_name", "name", &step.name, "names two steps", "rename one"));
        }
    }
    let mut steps = Vec::with_capacity(count);
    for (index, step) in spec.steps.iter().enumerate() {
        let run = prepare_step(step, &names).map_err(|problem| problem.within(&format!("step[{index}]")))?;
        steps.push(run);
    }
    for index in 0..count {
        for before in steps[index].after.clone() {
            steps[before as usize].before.push(index as u32);
        }
    }
    if has_cycle(&steps) {
        return Err(Problem::new("spec.cycle", "after", "", "steps wait for each other", "break the circle"));
    }
    Ok(steps)
}

fn prepare_step(step: &proto::v1::Step, names: &BTreeMap<&str, u32>) -> Result<StepRun, Problem> {
    if let Some(array) = &step.array {
        array::check(array)?;
    }
    let tasks = estimate::step_tasks(step);
    let ranks = estimate::step_ranks(step);
    if ranks > limits::GANG_RANKS_MAX {
        let reason = format!("a gang has at most {} ranks", limits::GANG_RANKS_MAX);
        return Err(Problem::new("limit.ranks", "nodes", ranks, reason, "ask for fewer ranks"));
    }
    if step.array.is_some() && estimate::is_gang(step) {
        return Err(Problem::new("spec.gang", "array", "", "is never together with a gang", "drop one"));
    }
    let mut after = BTreeSet::new();
    for name in &step.after {
        let index = names.get(name.as_str()).ok_or_else(|| {
            Problem::new("spec.after", "after", name, "names no step of this job", "correct the name")
        })?;
        after.insert(*index);
    }
    Ok(StepRun {
        tasks,
        gang: estimate::is_gang(step)
            .then(|| GangShape { nodes: step.nodes.max(1), per_node: step.tasks_per_node.max(1) }),
        after: after.into_iter().collect(),
        before: Vec::new(),
        max_running: step.array.as_ref().map_or(0, |array| u64::from(array.max_running)),
        blocks: BTreeMap::new(),
        fresh: all_of(tasks),
        gated: Spans::new(),
        doomed: BTreeMap::new(),
        gates: Vec::new(),
        retries: BTreeSet::new(),
        retry_timer: None,
        grants: BTreeSet::new(),
        granted_slots: 0,
        outputs: BTreeMap::new(),
        checkpoints: BTreeMap::new(),
        released: BTreeMap::new(),
        pace: Pace::default(),
    })
}

/// Kahn's algorithm: whatever is left over goes round in circles.
fn has_cycle(steps: &[StepRun]) -> bool {
    let mut waits: Vec<usize> = steps.iter().map(|step| step.after.len()).collect();
    let mut free: Vec<usize> = (0..steps.len()).filter(|index| waits[*index] == 0).collect();
    let mut sorted = 0;
    while let Some(index) = free.pop() {
        sorted += 1;
        for &next in &steps[index].before {
            let next = next as usize;
            waits[next] -= 1;
            if waits[next] == 0 {
                free.push(next);
            }
        }
    }
    sorted < steps.len()
}
