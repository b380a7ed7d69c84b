//! Invariant 6 where a job waits for the ends of others: none of its tasks begins
//! before each of them has ended as it was to, and it is not cancelled for want of
//! that while all of them ended so.
//!
//! What counts of the other is how it had ended when the job was let in, or, where
//! it lived, any end since: after a failover it may be a later one, of another's
//! retry. Of first tries alone: who tries an ended job again says with it that what
//! has ended is not to be looked at.

use super::agreement::events;
use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::JobName;
use proto::v1::{Cause, CauseKind, Dependency, DependencyKind, Event, JobSpec, State};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct AfterJobs {
    states: BTreeMap<JobName, State>,
    /// How each job ended, each time it did.
    ends: BTreeMap<JobName, Vec<State>>,
    /// Of each first try: by dependency, the first of the ends that counts.
    first: BTreeMap<JobName, Vec<usize>>,
}

fn over(state: State) -> bool {
    matches!(state, State::Completed | State::Failed | State::Cancelled)
}

fn of_whole(on: &Dependency) -> bool {
    on.index.is_none() && on.kind() != DependencyKind::Each
}

fn meets(kind: DependencyKind, end: State) -> bool {
    match kind {
        DependencyKind::Any => true,
        DependencyKind::NotOk => end != State::Completed,
        _ => end == State::Completed,
    }
}

impl AfterJobs {
    fn event(&mut self, now: &Mirror, tenant: &str, event: &Event) -> Result<(), String> {
        let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
        let Some(spec) = now.jobs.get(&job).and_then(|row| row.spec.as_ref()) else { return Ok(()) };
        match event.step {
            None => self.moves(&job, spec, event),
            Some(step) if event.to() == State::Staging && !event.tasks.is_empty() => self
                .begins(&job, spec)
                .map_err(|why| format!("a task of step {step} of {job} began, and {why}")),
            Some(_) => Ok(()),
        }
    }

    /// The job as a whole takes an edge.
    fn moves(&mut self, job: &JobName, spec: &JobSpec, event: &Event) -> Result<(), String> {
        let was = self.states.insert(job.clone(), event.to());
        if over(event.to()) {
            self.ends.entry(job.clone()).or_default().push(event.to());
            let kind = event.cause.as_ref().map_or(CauseKind::Unspecified, Cause::kind);
            if event.to() == State::Cancelled && kind == CauseKind::DependencyFailed {
                return self.doomed(job, spec);
            }
        } else if was.is_some_and(over) {
            self.first.remove(job);
        } else if was.is_none() && spec.after.iter().any(of_whole) {
            let first = spec.after.iter().map(|on| self.first_that_counts(job, on)).collect();
            self.first.insert(job.clone(), first);
        }
        Ok(())
    }

    fn first_that_counts(&self, job: &JobName, on: &Dependency) -> usize {
        let other = JobName { number: on.job_number, ..job.clone() };
        let ends = self.ends.get(&other).map_or(0, Vec::len);
        let lives = self.states.get(&other).is_none_or(|state| !over(*state));
        if lives { ends } else { ends.saturating_sub(1) }
    }

    /// Each whole job it comes after, with its ends that count.
    fn waited_for<'a>(
        &'a self,
        job: &'a JobName,
        spec: &'a JobSpec,
    ) -> impl Iterator<Item = (&'a Dependency, &'a [State])> {
        let first = self.first.get(job).map(Vec::as_slice).unwrap_or_default();
        spec.after.iter().zip(first).filter(|(on, _)| of_whole(on)).map(|(on, first)| {
            let other = JobName { number: on.job_number, ..job.clone() };
            let ends = self.ends.get(&other).map(Vec::as_slice).unwrap_or_default();
            (on, ends.get(*first..).unwrap_or_default())
        })
    }

    fn begins(&self, job: &JobName, spec: &JobSpec) -> Result<(), String> {
        let unmet = |(on, ends): &(&Dependency, &[State])| !ends.iter().any(|end| meets(on.kind(), *end));
        match self.waited_for(job, spec).find(unmet) {
            None => Ok(()),
            Some((on, ends)) => Err(format!(
                "job {} that it comes after ({:?}) had ended as {ends:?} since",
                on.job_number,
                on.kind()
            )),
        }
    }

    /// It ends since another did not end as it was to.
    fn doomed(&self, job: &JobName, spec: &JobSpec) -> Result<(), String> {
        let judged = self.first.contains_key(job) && spec.after.iter().all(of_whole);
        let ill = |(on, ends): (&Dependency, &[State])| ends.iter().any(|end| !meets(on.kind(), *end));
        if judged && !self.waited_for(job, spec).any(ill) {
            return Err(format!("{job} was cancelled, and all that it came after ended as it was to"));
        }
        Ok(())
    }
}

impl Checker for AfterJobs {
    fn name(&self) -> &'static str {
        "after-jobs"
    }
    fn invariant(&self) -> u8 {
        6
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        for (tenant, event) in events(commit) {
            self.event(now, tenant, event)?;
        }
        Ok(())
    }
}
