//! Invariant 3, second half: reserved and used are conserved. What the ledger
//! says is the sum over the jobs, at every commit that touches it; what adds up
//! within a month never shrinks, and holds at least what the jobs brought in.

use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::Row;
use proto::month;
use proto::v1::{LedgerRow, State};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct LedgerConserved {
    /// As last committed.
    last: BTreeMap<String, LedgerRow>,
}

/// Within a month it only grows; a later one begins at nothing, and what is
/// stored goes on.
fn adds_up(tenant: &str, last: &LedgerRow, ledger: &LedgerRow) -> Result<(), String> {
    let sums = |row: &LedgerRow| [row.settled_micros, row.ingress_bytes, row.egress_bytes];
    let shrinks = sums(last).iter().zip(sums(ledger)).any(|(before, now)| now < *before);
    if ledger.month < last.month || ledger.month == last.month && shrinks {
        return Err(format!("what adds up in the ledger of {tenant} shrank: {last:?}, then {ledger:?}"));
    }
    if ledger.storage_bytes < last.storage_bytes {
        return Err(format!("the ledger of {tenant} forgot bytes stored: {last:?}, then {ledger:?}"));
    }
    Ok(())
}

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
            let last = self.last.insert(tenant.clone(), *ledger).unwrap_or_default();
            adds_up(tenant, &last, ledger)?;
            let (mut reserved, mut queued, mut live) = (0, 0, 0);
            let (mut stored, mut fetched) = (0, 0);
            for (job, state) in now.states.iter().filter(|(job, _)| job.tenant == *tenant) {
                stored += state.storage_bytes;
                let submitted = now.jobs.get(job).map_or(0, |job| job.submitted_ms);
                if month::of(submitted) == ledger.month {
                    fetched += state.ingress_bytes;
                }
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
            if stored != ledger.storage_bytes || fetched > ledger.ingress_bytes {
                return Err(format!(
                    "the ledger of {tenant} says stored {} and in {}; its jobs stored {stored} and brought in {fetched}",
                    ledger.storage_bytes, ledger.ingress_bytes
                ));
            }
        }
        Ok(())
    }
}
