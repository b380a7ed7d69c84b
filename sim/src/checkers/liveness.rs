//! Invariant 9: after the last fault heals, every job reaches an end in bounded
//! time, and nothing is left held.

use super::{Checker, Outcome};

pub struct EveryJobEnds;

impl Checker for EveryJobEnds {
    fn name(&self) -> &'static str {
        "liveness"
    }
    fn invariant(&self) -> u8 {
        9
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        outcome.drained.clone()?;
        if let Some(((tenant, epoch), grant)) = outcome.mirror.grants.iter().next() {
            return Err(format!("grant {epoch} of {tenant}-{} is held by nobody for ever", grant.job_number));
        }
        Ok(())
    }
}
