//! Tasks that wait for single tasks of another job: each for its like, or a
//! whole job for one of them.
//!
//! What must hold:
//! - A pending task of a step with gates that has not begun is in exactly one of
//!   `fresh` (may begin), `gated` (waits) and `doomed` (can never begin, and is
//!   about to be cancelled). One that began once does not wait again.
//! - All of it follows from rows: what has ended over there, and what here has
//!   not begun. Nothing is stored, and a crash between a task's end and what
//!   follows from it here changes nothing.
//! - The other job's progress comes as sets of runs, never task by task.
//! - No circle: a job can name only jobs that have their number already.
//!
//! A job that a user tries again does not look at what has ended by then: it
//! waits for what still lives, as it would after a whole job.

use super::gates::{Ends, all_of};
use super::model::{Gate, Job, TaskWait, over};
use super::pairs::Pairs;
use super::submit::met_by;
use super::types::LoadedJob;
use super::{Core, Work};
use crate::limits;
use proto::ids::JobId;
use proto::problem::{self, Problem};
use proto::spans::Spans;
use proto::v1::{ArraySpec, Dependency, DependencyKind, JobSpec, State};
use proto::{after, array};
use std::collections::{BTreeMap, BTreeSet};

/// Code of a refusal that passes as soon as what is known here is stored.
pub(crate) const JOB_ENDING: &str = "unavailable.job_ending";

/// What a job waits for inside of others.
#[derive(Default)]
pub(super) struct Within {
    pub tasks: BTreeSet<TaskWait>,
    pub gates: Vec<Look>,
    /// It can never run, and why.
    pub doomed: Option<String>,
}

/// A gate, and what is to be said of this job's tasks at first sight.
pub(super) struct Look {
    /// Of this job.
    step: u32,
    gate: Gate,
    /// Never to begin, by why.
    dead: BTreeMap<String, Spans>,
}

/// A job as its dependents see it.
enum Other<'a> {
    Live(&'a Job),
    Ended(&'a LoadedJob),
}

impl Other<'_> {
    fn spec(&self) -> Option<&JobSpec> {
        match self {
            Self::Live(job) => job.row.spec.as_ref(),
            Self::Ended(rows) => rows.job.spec.as_ref(),
        }
    }

    fn ends(&self, step: u32) -> Option<Ends> {
        match self {
            Self::Live(job) => job.steps.get(step as usize).map(Ends::of),
            Self::Ended(rows) => Ends::of_rows(rows, step),
        }
    }
}

impl Core {
    /// What the dependencies of a spec look at inside other jobs. `told` are the
    /// rows of those that have ended. `again`: it is not the job's first try.
    pub(super) fn look(
        &self,
        tenant: &str,
        spec: &JobSpec,
        told: &[LoadedJob],
        again: bool,
    ) -> Result<Within, Problem> {
        let mut within = Within::default();
        for dependency in spec.after.iter().filter(|on| after::by_task(on)) {
            let id = JobId::new(tenant, dependency.job_number);
            let Some(other) = self.other(&id, told, again)? else {
                if again {
                    continue;
                }
                return Err(problem::missing("job", id.number).within("after"));
            };
            let theirs = other.spec().cloned().unwrap_or_default();
            let step = after::array_of(dependency, &theirs, &id)?;
            let (Some(ends), Some(name)) = (other.ends(step), theirs.steps.get(step as usize)) else {
                return Err(problem::internal("the other job's state does not fit its spec"));
            };
            let array = name.array.clone().unwrap_or_default();
            let place = Place { id, step, name: &name.name, array: &array };
            if dependency.kind() == DependencyKind::Each {
                within.gates.push(place.each(dependency, spec, &ends, again)?);
            } else {
                place.one(dependency, &ends, again, &mut within)?;
            }
        }
        Ok(within)
    }

    /// The other job, live or as its rows say; `None` where there is none, or
    /// where it has ended and that is not looked at.
    fn other<'a>(
        &'a self,
        id: &JobId,
        told: &'a [LoadedJob],
        again: bool,
    ) -> Result<Option<Other<'a>>, Problem> {
        if let Some(job) = self.tenants.get(&id.tenant).and_then(|tenant| tenant.jobs.get(&id.number)) {
            return Ok(Some(Other::Live(job)));
        }
        if again {
            return Ok(None);
        }
        let recent = self.recent.end(&id.tenant, id.number);
        match told.iter().find(|rows| rows.job.number == id.number) {
            Some(rows) => {
                let same = recent.is_none_or(|(_, generation)| generation == rows.state.generation);
                if same && over(rows.state.state()) {
                    Ok(Some(Other::Ended(rows)))
                } else {
                    Err(just_ending(id))
                }
            }
            // It ended after the shell looked.
            None if recent.is_some() => Err(just_ending(id)),
            None => Ok(None),
        }
    }

    /// Refuses a follower too many.
    pub(super) fn may_follow(&self, tenant: &str, within: &Within) -> Result<(), Problem> {
        for look in &within.gates {
            let on = look.gate.on;
            let followers = self.tenants.get(tenant).and_then(|tenant| tenant.followers.get(&on));
            if followers.is_some_and(|followers| followers.len() >= limits::FOLLOWERS_MAX) {
                return Err(Problem::new(
                    "limit.followers",
                    "after",
                    format!("each:{}", JobId::new(tenant, on)),
                    format!("{} live jobs follow the tasks of that job already", limits::FOLLOWERS_MAX),
                    "wait for some of them to end, or for the whole job with ok:ID",
                ));
            }
        }
        Ok(())
    }

    /// Puts what a job waits for in its place. The job is in memory already.
    pub(super) fn wait_within(&mut self, tenant: &str, number: u64, within: Within) {
        let Some(owner) = self.tenants.get_mut(tenant) else { return };
        let Some(job) = owner.jobs.get_mut(&number) else { return };
        for wait in &within.tasks {
            owner.task_waiters.entry((wait.on, wait.step, wait.task)).or_default().insert(number);
        }
        job.task_waits = within.tasks;
        let mut steps = BTreeSet::new();
        for Look { step, mut gate, dead } in within.gates {
            owner.followers.entry(gate.on).or_default().insert(number);
            let Some(run) = job.steps.get_mut(step as usize) else { continue };
            let unbegun = run.unbegun();
            gate.shut = gate.shut.intersection(&unbegun);
            for (text, tasks) in dead {
                let tasks = tasks.intersection(&unbegun);
                run.doom(&text, &tasks);
            }
            run.gates.push(gate);
            run.sort_gated();
            steps.insert(step);
        }
        for step in steps {
            self.out.wants(tenant, number, step);
            self.unmet(tenant, number, step);
        }
        if let Some(text) = within.doomed {
            self.doom(tenant, number, text);
        }
    }

    /// A job no longer waits for anything inside of others.
    pub(super) fn unfollow(&mut self, tenant: &str, number: u64) {
        let Some(owner) = self.tenants.get_mut(tenant) else { return };
        let Some(job) = owner.jobs.get_mut(&number) else { return };
        for wait in std::mem::take(&mut job.task_waits) {
            let key = (wait.on, wait.step, wait.task);
            if let Some(waiters) = owner.task_waiters.get_mut(&key) {
                waiters.remove(&number);
                if waiters.is_empty() {
                    owner.task_waiters.remove(&key);
                }
            }
        }
        for run in &mut job.steps {
            run.ungate();
            for gate in std::mem::take(&mut run.gates) {
                if let Some(followers) = owner.followers.get_mut(&gate.on) {
                    followers.remove(&number);
                    if followers.is_empty() {
                        owner.followers.remove(&gate.on);
                    }
                }
            }
        }
    }

    /// Whether anyone looks at the tasks of a step.
    pub(super) fn followed(&self, tenant: &str, number: u64, step: u32) -> bool {
        self.tenants.get(tenant).is_some_and(|owner| {
            owner.followers.contains_key(&number)
                || owner.task_waiters.range((number, step, 0)..=(number, step, u64::MAX)).next().is_some()
        })
    }

    /// Tasks of a step ended for good: those who look at them are told soon.
    pub(super) fn tasks_ended(&mut self, tenant: &str, number: u64, step: u32, tasks: &Spans, well: bool) {
        if self.followed(tenant, number, step) {
            let (completed, ill) = self.progress.entry((tenant.to_owned(), number, step)).or_default();
            if well { completed } else { ill }.insert_all(tasks);
        }
    }

    /// Tells those who look at the tasks of a step which of them have ended.
    pub(super) fn tell_progress(&mut self, tenant: &str, on: (u64, u32), completed: &Spans, ill: &Spans) {
        let Some(owner) = self.tenants.get_mut(tenant) else { return };
        let followers = owner.followers.get(&on.0).cloned().unwrap_or_default();
        let mut changed = Vec::new();
        for number in followers {
            let Some(job) = owner.jobs.get_mut(&number) else { continue };
            for (step, run) in job.steps.iter_mut().enumerate() {
                if run.follow(on, completed, ill, tenant) {
                    changed.push((number, step as u32));
                }
            }
        }
        for (tasks, well) in [(completed, true), (ill, false)] {
            for (first, last) in tasks.ranges() {
                let waited = owner.task_waiters.range((on.0, on.1, first)..=(on.0, on.1, last));
                for ((_, _, task), waiters) in waited {
                    self.backlog.push_front(Work::TaskEnded {
                        tenant: tenant.to_owned(),
                        on: (on.0, on.1, *task),
                        well,
                        waiters: waiters.iter().rev().copied().collect(),
                    });
                }
            }
        }
        for (number, step) in changed {
            self.out.wants(tenant, number, step);
            self.feed_step(tenant, number, step);
            self.unmet(tenant, number, step);
        }
    }

    /// One task ended: jobs that wait for it go on, or never will.
    pub(super) fn task_ended(
        &mut self,
        tenant: String,
        on: (u64, u32, u64),
        well: bool,
        mut waiters: Vec<u64>,
    ) {
        let end = if well { State::Completed } else { State::Failed };
        while let Some(waiter) = waiters.pop() {
            if self.out.full() {
                waiters.push(waiter);
                self.backlog.push_front(Work::TaskEnded { tenant, on, well, waiters });
                return;
            }
            let Some(owner) = self.tenants.get_mut(&tenant) else { return };
            if let Some(known) = owner.task_waiters.get_mut(&on) {
                known.remove(&waiter);
                if known.is_empty() {
                    owner.task_waiters.remove(&on);
                }
            }
            let Some(job) = owner.jobs.get_mut(&waiter) else { continue };
            let (mut met, mut text) = (true, String::new());
            job.task_waits.retain(|wait| {
                let this = (wait.on, wait.step, wait.task) == on;
                if this && !met_by(wait.kind, end) {
                    met = false;
                    text = wait.unmet(&tenant);
                }
                !this
            });
            if !met {
                self.doom(&tenant, waiter, text);
            } else if job.task_waits.is_empty() {
                for step in 0..job.steps.len() {
                    self.out.wants(&tenant, waiter, step as u32);
                }
            }
        }
    }

    /// A job that others follow was tried again: what of theirs has not begun
    /// waits for what waits there again.
    pub(super) fn shut_again(&mut self, tenant: &str, on: u64) {
        let Some(owner) = self.tenants.get_mut(tenant) else { return };
        let followers = owner.followers.get(&on).cloned().unwrap_or_default();
        let Some(other) = owner.jobs.get(&on) else { return };
        let ends: Vec<Ends> = other.steps.iter().map(Ends::of).collect();
        for number in followers {
            let Some(job) = owner.jobs.get_mut(&number) else { continue };
            for (step, run) in job.steps.iter_mut().enumerate() {
                let unbegun = run.unbegun();
                for gate in run.gates.iter_mut().filter(|gate| gate.on == on) {
                    let Some(ends) = ends.get(gate.step as usize) else { continue };
                    gate.shut = gate.shut_by(ends).intersection(&unbegun);
                }
                run.sort_gated();
                self.out.wants(tenant, number, step as u32);
            }
        }
    }
}

/// A place in another job that a dependency names.
struct Place<'a> {
    id: JobId,
    step: u32,
    name: &'a str,
    array: &'a ArraySpec,
}

impl Place<'_> {
    fn one(&self, on: &Dependency, ends: &Ends, again: bool, within: &mut Within) -> Result<(), Problem> {
        let index = on.index.unwrap_or_default();
        let Some(task) = array::ordinal_of(self.array, index) else {
            return Err(Problem::new(
                "conflict.dependency",
                "after",
                after::format(on, &self.id.tenant),
                format!("step {} of {} has no task {index}", self.name, self.id),
                format!("its tasks are {}", array::format(self.array)),
            ));
        };
        let wait = TaskWait { on: self.id.number, step: self.step, task, kind: on.kind, index };
        let end = match (ends.completed.contains(task), ends.ill.contains(task)) {
            (true, _) => State::Completed,
            (_, true) => State::Failed,
            _ => {
                within.tasks.insert(wait);
                return Ok(());
            }
        };
        if !again && !met_by(on.kind, end) {
            within.doomed = Some(wait.unmet(&self.id.tenant));
        }
        Ok(())
    }

    fn each(&self, on: &Dependency, spec: &JobSpec, ends: &Ends, again: bool) -> Result<Look, Problem> {
        let value = || after::format(on, &self.id.tenant);
        let refuse =
            |(reason, remedy): (&str, &str)| Problem::new("spec.each", "after", value(), reason, remedy);
        let step = after::own_array(spec).map_err(refuse)?;
        let ours = spec.steps.get(step as usize).and_then(|step| step.array.clone()).unwrap_or_default();
        let Some(pairs) = Pairs::of(self.array, &ours) else {
            return Err(Problem::new(
                "limit.pairs",
                "after",
                value(),
                format!(
                    "the indexes of both arrays fit together in more than {} pieces",
                    limits::PAIR_RUNS_MAX
                ),
                "write both arrays with the same indexes",
            ));
        };
        let mut gate = Gate {
            on: self.id.number,
            step: self.step,
            name: self.name.to_owned(),
            pairs,
            shut: Spans::new(),
        };
        gate.shut = gate.shut_by(ends);
        let mut dead = BTreeMap::new();
        if !again {
            let mut alone = all_of(array::count(&ours));
            alone.remove_all(&gate.pairs.ours());
            dead.insert(gate.unpaired(&self.id.tenant), alone);
            dead.insert(gate.unmet(&self.id.tenant), gate.pairs.ours_of(&ends.ill));
        }
        Ok(Look { step, gate, dead })
    }
}

fn just_ending(id: &JobId) -> Problem {
    let problem = problem::unavailable("job_ending", format!("job {id} is just ending"));
    debug_assert_eq!(problem.code, JOB_ENDING);
    problem
}
