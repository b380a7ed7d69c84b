//! Carries out what has expired: the controller says which ended jobs are due, and takes what
//! they gave out of its rows; the log goes from here, between the last rows and the word that
//! nothing is left. Objects that no row names any more are the collector's.

use crate::gate::Gate;
use crate::limits;
use controller::DueJobs;
use proto::problem::{self, Problem};
use std::sync::{Arc, Weak};
use world::time;

/// Looks every so often, until the server ends.
pub(crate) async fn expire(gate: Weak<Gate>) {
    loop {
        time::sleep(time::ms(limits::EXPIRY_LOOK_MS)).await;
        let Some(gate) = gate.upgrade() else { return };
        let DueJobs { jobs, survey } = gate.controller.due().await;
        if let Err(problem) = look(&gate, jobs, survey).await {
            tracing::warn!(%problem, "what has expired stays until the next look");
        }
    }
}

async fn look(gate: &Arc<Gate>, jobs: Vec<(String, u64)>, survey: Vec<String>) -> Result<(), Problem> {
    for tenant in survey {
        gate.controller.survey(&tenant).await?;
    }
    for (tenant, number) in jobs {
        // Of a job with very many rows the others are left to the next look.
        for _ in 0..limits::EXPIRY_COMMITS_MAX {
            if !gate.controller.expire(&tenant, number, remove_log(gate, &tenant, number)).await? {
                break;
            }
        }
        // It has its storage back.
        gate.meter.forget(&tenant);
    }
    Ok(())
}

async fn remove_log(gate: &Gate, tenant: &str, number: u64) -> Result<(), Problem> {
    let removed = gate.logs.remove(tenant, number).await;
    removed.map_err(|error| problem::unavailable("logs", format!("a log cannot be removed: {error}")))
}
