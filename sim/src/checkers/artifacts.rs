//! Invariant 5: every committed artifact's digest is that of the bytes a reader
//! gets, and these are what the attempt wrote that the manifest names: not what
//! another left in a directory both were given. And all that a task gave which
//! completed is named by one, until it expires.

use super::agreement::events;
use super::ends::{AttemptName, attempt_of, ended_well};
use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;
use crate::rows::JobName;
use proto::v1::State;
use std::collections::BTreeMap;
use world::sim::ProcessSpan;

#[derive(Default)]
pub struct ArtifactsTrue {
    /// Attempt and epoch that completed each task last.
    completed: BTreeMap<(JobName, u32, u64), (u32, u64)>,
}

impl Checker for ArtifactsTrue {
    fn name(&self) -> &'static str {
        "artifacts"
    }
    fn invariant(&self) -> u8 {
        5
    }

    fn after(&mut self, _now: &Mirror, commit: &Committed) -> Result<(), String> {
        for (tenant, event) in events(commit) {
            let (Some(step), State::Completed) = (event.step, event.to()) else { continue };
            let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
            for task in event.tasks.iter().flat_map(|span| span.first..=span.last) {
                self.completed.insert((job.clone(), step, task), (event.attempt, event.epoch));
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        let ends = ended_well(outcome.spans);
        self.all_named(outcome, &ends)?;
        for ((job, step, task, rank), manifest) in &outcome.mirror.manifests {
            let what = format!("{job} step {step} task {task} rank {rank} committed");
            let attempt = (job.clone(), *step, *task, manifest.attempt, manifest.epoch);
            let process = ends.get(&attempt).and_then(|ranks| ranks.get(rank));
            for artifact in &manifest.artifacts {
                let (path, digest) = (&artifact.path, &artifact.digest);
                let object = (job.tenant.clone(), digest.clone());
                if !outcome.objects.contains(&object) {
                    return Err(format!("{what} {path} with digest {digest}, which no reader gets"));
                }
                let wrote = |(name, wrote): &(String, String)| name == path && wrote == digest;
                if !process.is_some_and(|process| process.wrote.iter().any(wrote)) {
                    return Err(format!(
                        "{what} {path} with digest {digest}, which its process did not write"
                    ));
                }
            }
        }
        match outcome.spans.iter().find_map(|span| foreign(outcome.mirror, span)) {
            Some(what) => Err(what),
            None => Ok(()),
        }
    }
}

impl ArtifactsTrue {
    /// What completed tasks gave is in their manifests, under their attempts.
    fn all_named(
        &self,
        outcome: &Outcome<'_>,
        ends: &BTreeMap<AttemptName, BTreeMap<u32, &ProcessSpan>>,
    ) -> Result<(), String> {
        let kept = self.completed.iter().filter(|((job, ..), _)| !outcome.mirror.has_expired(job));
        for ((job, step, task), (number, epoch)) in kept {
            let attempt = (job.clone(), *step, *task, *number, *epoch);
            for (rank, process) in ends.get(&attempt).into_iter().flatten() {
                let manifest = outcome.mirror.manifests.get(&(job.clone(), *step, *task, *rank));
                let manifest = manifest.filter(|row| (row.attempt, row.epoch) == (*number, *epoch));
                // A file that changed while it was collected has several digests: the
                // manifest names one of them.
                let named = |(path, _): &(String, String)| {
                    let mut artifacts = manifest.into_iter().flat_map(|row| &row.artifacts);
                    let is_it = |digest: &String| {
                        process.wrote.iter().any(|(name, wrote)| name == path && wrote == digest)
                    };
                    artifacts.any(|artifact| artifact.path == *path && is_it(&artifact.digest))
                };
                if let Some((path, _)) = process.wrote.iter().find(|wrote| !named(wrote)) {
                    return Err(format!(
                        "{} completed and gave {path}, which no manifest names",
                        process.key
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Where a process started among files that its job did not put there. Its inputs
/// lie below `inputs`, outputs of earlier steps below `from`, and its checkpoints where
/// its step says.
fn foreign(mirror: &Mirror, span: &ProcessSpan) -> Option<String> {
    let ((job, step, ..), _) = attempt_of(&span.key)?;
    let spec = mirror.jobs.get(&job).and_then(|row| row.spec.as_ref());
    let step = spec.and_then(|spec| spec.steps.get(step as usize));
    let follows = step.is_some_and(|step| !step.after.is_empty());
    let given = spec.is_some_and(|spec| !spec.inputs.is_empty());
    let saves = step
        .and_then(|step| step.checkpoint.as_ref())
        .and_then(|checkpoint| checkpoint.path.split('/').find(|part| !matches!(*part, "" | ".")));
    let known = |name: &String| {
        follows && name == "from" || given && name == "inputs" || saves == Some(name.as_str())
    };
    let strange = !span.found.iter().all(known);
    strange.then(|| format!("{} started among files of others: {:?}", span.key, span.found))
}
