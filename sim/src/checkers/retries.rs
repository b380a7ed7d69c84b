//! Invariant 8: retries stay within budgets, whatever fails.

use super::{Checker, Outcome};

pub struct RetriesBounded;

impl Checker for RetriesBounded {
    fn name(&self) -> &'static str {
        "retries"
    }
    fn invariant(&self) -> u8 {
        8
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        for ((job, step, _), block) in &outcome.mirror.blocks {
            let spec = outcome.mirror.jobs.get(job).and_then(|row| row.spec.as_ref());
            let retries = spec.and_then(|spec| spec.steps.get(*step as usize)).and_then(|step| step.retries);
            let own = retries.unwrap_or(outcome.max_own_retries);
            for note in &block.notes {
                if note.own_failures > own + 1 || note.platform_failures > outcome.max_platform_retries + 1 {
                    return Err(format!(
                        "task {} of step {step} of {job} failed {} times itself (retries {own}) and {} times by the platform",
                        note.task, note.own_failures, note.platform_failures
                    ));
                }
            }
        }
        Ok(())
    }
}
