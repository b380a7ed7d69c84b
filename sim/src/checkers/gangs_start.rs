//! Invariant 4, at a gang's start: a node launches the ranks that it has of an
//! attempt together or not at all. One that was launched alone, while another's
//! files were still on their way, would wait for it, or for nobody.

use super::ends::{AttemptName, attempt_of};
use super::{Checker, Outcome};
use proto::estimate::is_gang;
use proto::v1::Step;
use std::collections::{BTreeMap, BTreeSet};

pub struct GangsStart;

fn step_of<'a>(outcome: &Outcome<'a>, attempt: &AttemptName) -> Option<&'a Step> {
    let spec = outcome.mirror.jobs.get(&attempt.0)?.spec.as_ref()?;
    spec.steps.get(attempt.1 as usize)
}

impl Checker for GangsStart {
    fn name(&self) -> &'static str {
        "gangs-start"
    }
    fn invariant(&self) -> u8 {
        4
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        // A node that lost power may be told of an attempt once more.
        let mut gangs: BTreeMap<(AttemptName, &str, u64), BTreeSet<u32>> = BTreeMap::new();
        for launch in outcome.launches {
            let Some((attempt, rank)) = attempt_of(&launch.key) else { continue };
            if step_of(outcome, &attempt).is_some_and(is_gang) {
                gangs.entry((attempt, &launch.node, launch.at_ms)).or_default().insert(rank);
            }
        }
        for ((attempt, node, at_ms), ranks) in gangs {
            let local = step_of(outcome, &attempt).map_or(1, |step| step.tasks_per_node.max(1));
            if ranks.len() != local as usize {
                let (job, step, task, number, _) = attempt;
                return Err(format!(
                    "at {at_ms} ms {node} launched ranks {ranks:?} of attempt {number} of task {task} of step {step} \
                     of {job}, of which it has {local}"
                ));
            }
        }
        Ok(())
    }
}
