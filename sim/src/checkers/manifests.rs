//! Invariant 2: at most one attempt of a task commits; two manifests for one
//! task never exist.

use super::{Checker, Committed};
use crate::mirror::{ManifestName, Mirror};
use crate::rows::{JobName, Row};
use proto::v1::State;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct OneManifest {
    /// Who committed: generation of the step and attempt, by manifest.
    committed: BTreeMap<ManifestName, (u32, u32, u64)>,
    /// Completions by task within a generation of its job.
    completions: BTreeMap<(JobName, u32), BTreeMap<u64, u32>>,
}

impl Checker for OneManifest {
    fn name(&self) -> &'static str {
        "one-manifest"
    }
    fn invariant(&self) -> u8 {
        2
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            match row {
                Row::Manifest { job, step, task, rank, row: Some(manifest) } => {
                    let generation = generation(now, job);
                    let name = (job.clone(), *step, *task, *rank);
                    let this = (generation, manifest.attempt, manifest.epoch);
                    if let Some(earlier) = self.committed.insert(name, this)
                        && earlier.0 == generation
                        && earlier != this
                    {
                        return Err(format!(
                            "task {task} rank {rank} of step {step} of {job} has two manifests: attempt {} and {}",
                            earlier.1, manifest.attempt
                        ));
                    }
                    if !now.states.contains_key(job) {
                        return Err(format!("a manifest of unknown job {job}"));
                    }
                }
                Row::Events { tenant, row: Some(batch), .. } => {
                    for event in &batch.events {
                        let Some(step) = event.step else { continue };
                        if event.to() != State::Completed || event.tasks.is_empty() {
                            continue;
                        }
                        let job = JobName { tenant: tenant.clone(), number: event.job_number };
                        let generation = generation(now, &job) + 1;
                        let completions = self.completions.entry((job.clone(), step)).or_default();
                        for span in &event.tasks {
                            for task in span.first..=span.last {
                                let done = completions.insert(task, generation);
                                if done == Some(generation) {
                                    return Err(format!(
                                        "task {task} of step {step} of {job} completed twice"
                                    ));
                                }
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn generation(now: &Mirror, job: &JobName) -> u32 {
    now.states.get(job).map_or(0, |state| state.generation)
}
