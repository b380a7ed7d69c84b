//! Invariant 4, first half: a gang is granted whole or not at all.

use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{GrantRow, JobRow};
use std::collections::BTreeSet;

pub struct GangsWhole;

/// Whether a grant is for this very job.
pub fn is_for(grant: &GrantRow, job: &JobRow) -> bool {
    grant.submitted_ms == job.submitted_ms
}

impl Checker for GangsWhole {
    fn name(&self) -> &'static str {
        "gangs-whole"
    }
    fn invariant(&self) -> u8 {
        4
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            match row {
                Row::Grant { tenant, epoch, row: Some(grant) } => whole(now, tenant, *epoch, grant)?,
                // What it wants is told ahead of it, so its grant may be there before.
                Row::Job(job, Some(_)) => {
                    let granted = now.grants.iter().filter(|((tenant, _), grant)| {
                        *tenant == job.tenant && grant.job_number == job.number
                    });
                    for ((tenant, epoch), grant) in granted {
                        whole(now, tenant, *epoch, grant)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn whole(now: &Mirror, tenant: &str, epoch: u64, grant: &GrantRow) -> Result<(), String> {
    let job = JobName { tenant: tenant.to_owned(), number: grant.job_number };
    let names: BTreeSet<&str> = grant.nodes.iter().map(|part| part.node.as_str()).collect();
    if names.len() != grant.nodes.len() {
        return Err(format!("grant {epoch} of {job} names a node twice"));
    }
    // The job may have ended since: then the grant is surplus and goes. So does
    // one for a job whose submission was lost, and whose number this job has
    // now; that nothing begins under it, `fencing` sees to.
    let job_row = now.jobs.get(&job).filter(|row| is_for(grant, row));
    let Some(spec) = job_row.and_then(|row| row.spec.as_ref()) else { return Ok(()) };
    let Some(step) = spec.steps.get(grant.step as usize) else {
        return Err(format!("grant {epoch} names step {} that {job} does not have", grant.step));
    };
    let (nodes, ranks) = (step.nodes.max(1), step.tasks_per_node.max(1));
    let gang = nodes * ranks > 1;
    if gang != grant.gang {
        return Err(format!("grant {epoch} of {job}: gang is {}, the step says {gang}", grant.gang));
    }
    let whole = grant.nodes.len() == nodes as usize && grant.nodes.iter().all(|part| part.slots == ranks);
    if gang && !whole {
        return Err(format!(
            "gang {} of {job} wants {nodes} nodes with {ranks} each, was granted {:?}",
            step.name, grant.nodes
        ));
    }
    Ok(())
}
