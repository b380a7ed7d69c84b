//! Invariant 2, the fence: an attempt begins under a grant that is there; no two
//! of a task have one name; whatever moves an attempt afterwards, or commits for
//! it, names its number and epoch; epochs and sessions only grow.
//!
//! A step may hold several grants, and feed a task that is tried again to an
//! older one: so it is the attempt's number that grows. A user's retry begins
//! with number one again, under later epochs than any before.

use super::agreement::events;
use super::gangs::is_for;
use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{Event, GrantRow, State};
use std::collections::BTreeMap;

/// Job, step, task.
type TaskName = (JobName, u32, u64);

#[derive(Default)]
pub struct Fencing {
    /// Epoch and attempt of those that live.
    live: BTreeMap<TaskName, (u64, u32)>,
    /// The last of each task that is over.
    over: BTreeMap<TaskName, (u64, u32)>,
    /// Of those that began.
    begun: BTreeMap<TaskName, Begun>,
    /// The highest epoch granted to each tenant.
    highest: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    /// The last, since the user's last retry.
    attempt: u32,
    /// The highest of all.
    epoch: u64,
    /// The highest before the user's last retry.
    floor: u64,
}

/// Several commits seen as one, after a restart: what was there in between is
/// not known.
fn is_whole(commit: &Committed) -> bool {
    commit.since_ms == commit.at_ms
}

/// It asks that tasks of a grant give way, or answers that: `gives_way` says what it may do.
fn is_ask(known: &GrantRow, row: &GrantRow) -> bool {
    let like = GrantRow {
        preemption: known.preemption.clone(),
        again: known.again,
        nodes: known.nodes.clone(),
        feed_until_ms: known.feed_until_ms,
        ..row.clone()
    };
    row.again && like == *known
}

impl Fencing {
    fn grants(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        let highest = self.highest.clone();
        for row in &commit.rows {
            let Row::Grant { tenant, epoch, row: Some(row) } = row else { continue };
            match before.grants.get(&(tenant.clone(), *epoch)) {
                Some(known) if known == row || is_ask(known, row) => {}
                Some(_) => return Err(format!("grant {epoch} of {tenant} was written twice")),
                None => {
                    let above = highest.get(tenant).copied().unwrap_or(0);
                    if *epoch <= above || row.epoch != *epoch {
                        return Err(format!(
                            "{tenant} was granted epoch {epoch} ({}) after {above}",
                            row.epoch
                        ));
                    }
                    let highest = self.highest.entry(tenant.clone()).or_default();
                    *highest = (*highest).max(*epoch);
                }
            }
        }
        Ok(())
    }

    /// Nothing is committed for an attempt but by itself, while it lives.
    fn manifests(&self, commit: &Committed) -> Result<(), String> {
        for row in commit.rows.iter().filter(|_| is_whole(commit)) {
            let Row::Manifest { job, step, task, row: Some(row), .. } = row else { continue };
            let live = self.live.get(&(job.clone(), *step, *task));
            if live != Some(&(row.epoch, row.attempt)) {
                return Err(format!(
                    "task {task} of step {step} of {job} lives as {live:?} (epoch, attempt); epoch {} attempt {} committed",
                    row.epoch, row.attempt
                ));
            }
        }
        Ok(())
    }

    fn event(&mut self, before: &Mirror, tenant: &str, event: &Event, whole: bool) -> Result<(), String> {
        let Some(step) = event.step else { return Ok(()) };
        let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
        let this = (event.epoch, event.attempt);
        for task in event.tasks.iter().flat_map(|span| span.first..=span.last) {
            let name = (job.clone(), step, task);
            let place = || format!("event {} of task {task} of step {step} of {job}", event.seq);
            match (event.from(), event.to()) {
                (State::Pending, State::Staging) => {
                    let begun = self.begun.entry(name.clone()).or_default();
                    if event.attempt <= begun.attempt || event.epoch <= begun.floor {
                        return Err(format!("{}: {this:?} (epoch, attempt) began after {begun:?}", place()));
                    }
                    begun.attempt = event.attempt;
                    begun.epoch = begun.epoch.max(event.epoch);
                    if whole {
                        under(before, &job, step, event).map_err(|why| format!("{}: {why}", place()))?;
                    }
                    self.live.insert(name, this);
                }
                (State::Staging | State::Running, to) => {
                    let live = self.live.get(&name).copied();
                    if live != Some(this) {
                        return Err(format!("{} is by {this:?} (epoch, attempt), {live:?} lives", place()));
                    }
                    if to != State::Running {
                        self.live.remove(&name);
                        self.over.insert(name, this);
                    }
                }
                // Of one that ended and is not tried again; what never began names none.
                (State::Pending, _) if event.attempt > 0 => {
                    let over = self.over.get(&name).copied();
                    if over != Some(this) {
                        return Err(format!("{} is by {this:?} (epoch, attempt), {over:?} ended", place()));
                    }
                }
                (_, State::Pending) => {
                    if let Some(begun) = self.begun.get_mut(&name) {
                        *begun = Begun { attempt: 0, floor: begun.epoch, epoch: begun.epoch };
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The grant that an attempt begins under.
fn under(before: &Mirror, job: &JobName, step: u32, event: &Event) -> Result<(), String> {
    let Some(grant) = before.grants.get(&(job.tenant.clone(), event.epoch)) else {
        return Err(format!("there is no grant of epoch {}", event.epoch));
    };
    if (grant.job_number, grant.step) != (job.number, step) {
        return Err(format!("grant {} is of job {} step {}", event.epoch, grant.job_number, grant.step));
    }
    if before.jobs.get(job).is_none_or(|row| !is_for(grant, row)) {
        return Err(format!("grant {} is for another job that was to be {job}", event.epoch));
    }
    if grant.nodes.iter().all(|part| part.node != event.node) {
        return Err(format!("grant {} has no node {}", event.epoch, event.node));
    }
    Ok(())
}

impl Checker for Fencing {
    fn name(&self) -> &'static str {
        "fencing"
    }
    fn invariant(&self) -> u8 {
        2
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        self.grants(before, commit)?;
        self.manifests(commit)?;
        for (tenant, event) in events(commit) {
            self.event(before, tenant, event, is_whole(commit))?;
        }
        for row in &commit.rows {
            let Row::Node(name, Some(row)) = row else { continue };
            let session = before.nodes.get(name).map_or(0, |row| row.session);
            if row.session < session {
                return Err(format!("node {name} went from session {session} to {}", row.session));
            }
        }
        Ok(())
    }

    /// What a row says is active is what lives.
    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            let Row::Block { job, step, row: Some(block), .. } = row else { continue };
            let state = now.states.get(job).and_then(|row| row.steps.get(*step as usize));
            if state.is_none_or(|state| state.generation != block.generation) {
                continue;
            }
            for (run, span) in block.active.iter().filter_map(|run| Some((run, run.tasks?))) {
                for task in span.first..=span.last {
                    let live = self.live.get(&(job.clone(), *step, task));
                    if live != Some(&(run.epoch, run.attempt)) {
                        return Err(format!(
                            "a row has epoch {} attempt {} of task {task} of step {step} of {job}; {live:?} lives",
                            run.epoch, run.attempt
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
