//! Invariant 4, second half, and the fence of invariant 2 in true time:
//! processes of two attempts of one task never run side by side, whatever the
//! clocks of their nodes believe.

use super::{Checker, Outcome};
use std::collections::BTreeMap;

pub struct EpochsApart;

/// `tenant/job/step/task/rank/attempt/epoch`, as the agent names processes.
struct Name {
    task: String,
    epoch: u64,
}

fn parse(key: &str) -> Option<Name> {
    let parts: Vec<&str> = key.split('/').collect();
    let [tenant, job, step, task, _rank, _attempt, epoch] = parts[..] else { return None };
    Some(Name { task: format!("{tenant}/{job}/{step}/{task}"), epoch: epoch.parse().ok()? })
}

impl Checker for EpochsApart {
    fn name(&self) -> &'static str {
        "epochs-apart"
    }
    fn invariant(&self) -> u8 {
        4
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        let mut tasks: BTreeMap<String, Vec<(u64, u64, u64, &str)>> = BTreeMap::new();
        for span in outcome.spans {
            let name = parse(&span.key).ok_or_else(|| format!("process key `{}` is malformed", span.key))?;
            tasks.entry(name.task).or_default().push((
                span.started_ms,
                span.ended_ms.unwrap_or(u64::MAX),
                name.epoch,
                &span.key,
            ));
        }
        for (_, mut runs) in tasks {
            runs.sort_unstable();
            for (index, run) in runs.iter().enumerate() {
                for other in &runs[index + 1..] {
                    if other.2 != run.2 && other.0 < run.1 {
                        return Err(format!(
                            "{} (from {} ms) ran beside {} (until {} ms)",
                            other.3, other.0, run.3, run.1
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
