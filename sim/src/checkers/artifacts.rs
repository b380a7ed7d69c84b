//! Invariant 5: every committed artifact's digest is that of the bytes a reader
//! gets, and these are what the attempt wrote that the manifest names: not what
//! another left in a directory both were given.

use super::ends::{attempt_of, ended_well};
use super::{Checker, Outcome};
use crate::mirror::Mirror;
use world::sim::ProcessSpan;

pub struct ArtifactsTrue;

impl Checker for ArtifactsTrue {
    fn name(&self) -> &'static str {
        "artifacts"
    }
    fn invariant(&self) -> u8 {
        5
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        let ends = ended_well(outcome.spans);
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

/// Where a process started among files that its job did not put there. No job
/// of a rehearsal has inputs; outputs of earlier steps lie below `from`.
fn foreign(mirror: &Mirror, span: &ProcessSpan) -> Option<String> {
    let ((job, step, ..), _) = attempt_of(&span.key)?;
    let spec = mirror.jobs.get(&job).and_then(|row| row.spec.as_ref());
    let follows = spec.and_then(|spec| spec.steps.get(step as usize)).is_some_and(|s| !s.after.is_empty());
    let strange = span.found.iter().any(|name| !(follows && name == "from"));
    strange.then(|| format!("{} started among files of others: {:?}", span.key, span.found))
}
