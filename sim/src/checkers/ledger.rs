//! Invariant 3, second half: reserved and used are conserved. What the ledger
//! says is the sum over the jobs, at every commit that touches it.

use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::Row;
use proto::v1::State;

pub struct LedgerConserved;

impl Checker for LedgerConserved {
    fn name(&self) -> &'static str {
        "ledger"
    }
    fn invariant(&self) -> u8 {
        3
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            let Row::Ledger(tenant, Some(ledger)) = row else { continue };
            let (mut reserved, mut queued, mut live) = (0, 0, 0);
            for (_, state) in now.states.iter().filter(|(job, _)| job.tenant == *tenant) {
                let ended = matches!(state.state(), State::Completed | State::Failed | State::Cancelled);
                if ended {
                    if state.reserved_micros != 0 || state.queued_tasks_reserved != 0 {
                        return Err(format!("an ended job of {tenant} still reserves: {state:?}"));
                    }
                } else {
                    live += 1;
                    reserved += state.reserved_micros;
                    queued += state.queued_tasks_reserved;
                }
            }
            if (reserved, queued, live) != (ledger.reserved_micros, ledger.queued_tasks, ledger.live_jobs) {
                return Err(format!(
                    "the ledger of {tenant} says reserved {} queued {} live {}; its jobs say {reserved}, {queued}, {live}",
                    ledger.reserved_micros, ledger.queued_tasks, ledger.live_jobs
                ));
            }
        }
        Ok(())
    }
}
