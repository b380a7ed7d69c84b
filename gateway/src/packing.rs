//! Logs are packed, and moved to where objects are: what of them is full at once, the rest when
//! their jobs have ended for a while, since then nobody writes it.
//!
//! What must hold: nothing waits for it. What comes late begins another stretch of its log, so
//! when it is done is a matter of cost alone.

use crate::config::LogsConfig;
use crate::gate::{Gate, ended};
use crate::limits;
use proto::ids::JobId;
use std::sync::{Arc, Weak};
use world::time;

/// Looks every so often, until the server ends.
pub(crate) async fn pack(gate: Weak<Gate>, config: LogsConfig) {
    loop {
        time::sleep(time::ms(config.pack_every_ms)).await;
        let Some(relay) = gate.upgrade().map(|gate| Arc::clone(&gate.logs)) else { return };
        let to_do = match relay.to_do().await {
            Ok(to_do) => to_do,
            Err(error) => {
                tracing::warn!(%error, "the logs cannot be looked through for those to pack");
                continue;
            }
        };
        for (tenant, jobs) in to_do {
            for (number, to_do) in jobs {
                let Some(gate) = gate.upgrade() else { return };
                let job = JobId { tenant: tenant.clone(), number };
                let is_cold = to_do.once_ended && is_cold(&gate, &job, config.pack_after_ms).await;
                // A server that was deposed packs nothing more.
                if (is_cold || to_do.full)
                    && gate.must_reign().await.is_ok()
                    && let Err(error) = gate.logs.pack(&tenant, number, is_cold).await
                {
                    tracing::warn!(tenant, job = number, %error, "a log could not be packed, or not moved");
                }
            }
        }
    }
}

/// Whether its job has ended for so long, and all of it has come, or will hardly come.
async fn is_cold(gate: &Gate, job: &JobId, after_ms: u64) -> bool {
    let Ok(state) = gate.state(job).await else { return false };
    let ended_for_ms = gate.clock.wall_ms().saturating_sub(state.ended_ms);
    if !ended(state.state()) || ended_for_ms < after_ms {
        return false;
    }
    let held = gate.logs.ended_bytes(&job.tenant, job.number).await;
    held.is_ok_and(|held| held >= state.log_bytes || ended_for_ms >= limits::LOG_LATE_MS)
}
