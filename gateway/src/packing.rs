//! Logs of jobs that have ended are packed: they are many, and nobody writes them.
//!
//! What must hold: nothing waits for it. A log that is packed too early is unpacked by
//! what comes late, so when it is done is a matter of cost alone.

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
        let plain = match relay.plain().await {
            Ok(plain) => plain,
            Err(error) => {
                tracing::warn!(%error, "the logs cannot be looked through for those to pack");
                continue;
            }
        };
        for (tenant, numbers) in plain {
            for number in numbers {
                let Some(gate) = gate.upgrade() else { return };
                let job = JobId { tenant: tenant.clone(), number };
                if is_cold(&gate, &job, config.pack_after_ms).await
                    && let Err(error) = gate.logs.pack(&tenant, number).await
                {
                    tracing::warn!(tenant, job = number, %error, "a log could not be packed");
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
    // A server that was deposed packs nothing more.
    held.is_ok_and(|held| held >= state.log_bytes || ended_for_ms >= limits::LOG_LATE_MS)
        && gate.must_reign().await.is_ok()
}
