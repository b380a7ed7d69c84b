//! Invariant 5: every committed artifact's digest is that of the bytes a reader
//! gets.

use super::{Checker, Outcome};

pub struct ArtifactsTrue;

impl Checker for ArtifactsTrue {
    fn name(&self) -> &'static str {
        "artifacts"
    }
    fn invariant(&self) -> u8 {
        5
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        for ((job, step, task, rank), manifest) in &outcome.mirror.manifests {
            for artifact in &manifest.artifacts {
                let object = (job.tenant.clone(), artifact.digest.clone());
                if !outcome.objects.contains(&object) {
                    return Err(format!(
                        "{job} step {step} task {task} rank {rank} committed {} with digest {}, which no reader gets",
                        artifact.path, artifact.digest
                    ));
                }
            }
        }
        Ok(())
    }
}
