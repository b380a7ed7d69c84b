//! Invariant 2, as readers see it: of each task they are told one manifest for each rank,
//! all of one attempt that completed, and none of a try that a user's retry has undone.
//! Of a gang all ranks or none. And of what completed nothing is left out.

use super::agreement::events;
use super::ends::AttemptName;
use super::{Checker, Committed, Outcome};
use crate::history::OutputsRead;
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{Artifact, JobSpec, State, Step, StepState};
use proto::{array, estimate};
use std::collections::{BTreeMap, BTreeSet};

/// What the ranks of a task gave, those that gave anything.
type Given = BTreeMap<u32, Vec<Artifact>>;

#[derive(Default)]
pub struct OutputsStand {
    /// By attempt: the step's generation, and what its manifests name.
    given: BTreeMap<AttemptName, (u32, Given)>,
    completed: BTreeSet<AttemptName>,
}

impl Checker for OutputsStand {
    fn name(&self) -> &'static str {
        "outputs"
    }
    fn invariant(&self) -> u8 {
        2
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            let Row::Manifest { job, step, task, rank, row: Some(manifest) } = row else { continue };
            let Some(generation) = manifest.generation else {
                return Err(format!("a manifest of step {step} of {job} does not tell its generation"));
            };
            // Found after a restart it may be of before a retry that was found with it.
            let whole = commit.since_ms == commit.at_ms;
            let state = now.states.get(job).and_then(|state| state.steps.get(*step as usize));
            let current = state.map_or(0, |state| state.generation);
            if whole && generation != current {
                return Err(format!(
                    "a manifest of step {step} of {job} says generation {generation}, and the step is in {current}"
                ));
            }
            let attempt = (job.clone(), *step, *task, manifest.attempt, manifest.epoch);
            let of = self.given.entry(attempt).or_default();
            of.0 = generation;
            of.1.insert(*rank, manifest.artifacts.clone());
        }
        for (tenant, event) in events(commit) {
            let (Some(step), State::Completed) = (event.step, event.to()) else { continue };
            let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
            for task in event.tasks.iter().flat_map(|span| span.first..=span.last) {
                self.completed.insert((job.clone(), step, task, event.attempt, event.epoch));
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        outcome.history.outputs.iter().try_for_each(|read| {
            let spec = outcome.mirror.jobs.get(&read.job).and_then(|row| row.spec.as_ref());
            let spec = spec.ok_or_else(|| format!("outputs of unknown job {}", read.job))?;
            self.judge(read, spec)
        })
    }
}

impl OutputsStand {
    fn judge(&self, read: &OutputsRead, spec: &JobSpec) -> Result<(), String> {
        let job = &read.job;
        for told in &read.steps {
            if !spec.steps.iter().any(|step| step.name == told.step) {
                return Err(format!("outputs of step {} of {job}, which has none of that name", told.step));
            }
        }
        for (number, (step, state)) in (0..).zip(spec.steps.iter().zip(&read.state.steps)) {
            let shown = shown(read, step)?;
            for (task, given) in &shown {
                if !self
                    .of_task(job, number, *task)
                    .any(|(_, of, done)| done && counts(state, of.0) && of.1 == *given)
                {
                    return Err(self.wrong(read, number, *task, given, state));
                }
            }
            // What still runs may have completed just behind the first look.
            if !over(read.state.state()) && state.state() != State::Completed {
                continue;
            }
            let from = (job.clone(), number, 0, 0, 0);
            let to = (job.clone(), number + 1, 0, 0, 0);
            let missing = self.given.range(from..to).find(|(attempt, of)| {
                let gave = of.1.values().any(|artifacts| !artifacts.is_empty());
                gave && counts(state, of.0)
                    && self.completed.contains(attempt)
                    && !shown.contains_key(&attempt.2)
            });
            if let Some(((_, _, task, ..), _)) = missing {
                return Err(format!(
                    "task {task} of step {} of {job} had completed, and a reader of its outputs was told none",
                    step.name
                ));
            }
        }
        Ok(())
    }

    /// The attempts of a task that wrote manifests, and which of them completed.
    fn of_task<'a>(
        &'a self,
        job: &JobName,
        step: u32,
        task: u64,
    ) -> impl Iterator<Item = (&'a AttemptName, &'a (u32, Given), bool)> + use<'a> {
        let range = (job.clone(), step, task, 0, 0)..(job.clone(), step, task + 1, 0, 0);
        self.given.range(range).map(|(attempt, of)| (attempt, of, self.completed.contains(attempt)))
    }

    /// In words what is wrong with what was told of a task.
    fn wrong(&self, read: &OutputsRead, step: u32, task: u64, told: &Given, state: &StepState) -> String {
        let what = format!("a reader was told of task {task} of step {step} of {}", read.job);
        let is_part = |of: &Given| told.iter().all(|(rank, artifacts)| of.get(rank) == Some(artifacts));
        match self.of_task(&read.job, step, task).find(|(_, of, _)| is_part(&of.1)) {
            None => format!("{what} what no attempt of it gave: {told:?}"),
            Some((_, (generation, _), _)) if !counts(state, *generation) => format!(
                "{what} what it gave in generation {generation}, which a retry had undone: the step is in {}, \
                 begun anew in {}",
                state.generation, state.reset_generation
            ),
            Some((_, (_, of), _)) if of.len() > told.len() => {
                format!("{what} what {} of its {} ranks gave", told.len(), of.len())
            }
            Some(((.., attempt, _), ..)) => {
                format!("{what} what attempt {attempt} gave, which never completed")
            }
        }
    }
}

fn over(state: State) -> bool {
    matches!(state, State::Completed | State::Failed | State::Cancelled)
}

/// Whether no retry has undone that generation of the step.
fn counts(state: &StepState, generation: u32) -> bool {
    (state.reset_generation..=state.generation).contains(&generation)
}

/// What a reader was told of a step, by task and rank.
fn shown(read: &OutputsRead, step: &Step) -> Result<BTreeMap<u64, Given>, String> {
    let mut shown = BTreeMap::<u64, Given>::new();
    for told in read.steps.iter().filter(|told| told.step == step.name).flat_map(|told| &told.tasks) {
        let place = rank_of(step, told.index).ok_or_else(|| {
            format!("step {} of {} has no {}, and outputs of it were told", step.name, read.job, told.index)
        })?;
        let artifacts = told.artifacts.iter().filter_map(|link| link.artifact.clone()).collect();
        if shown.entry(place.0).or_default().insert(place.1, artifacts).is_some() {
            return Err(format!("{} of step {} of {} has two manifests", told.index, step.name, read.job));
        }
    }
    Ok(shown)
}

/// Task and rank of the number in a path: of the user's index of an array, or the rank
/// of a gang.
fn rank_of(step: &Step, index: u64) -> Option<(u64, u32)> {
    match &step.array {
        Some(array) => Some((array::ordinal_of(array, index)?, 0)),
        None if estimate::is_gang(step) => Some((0, u32::try_from(index).ok()?)),
        None => (index == 0).then_some((0, 0)),
    }
}
