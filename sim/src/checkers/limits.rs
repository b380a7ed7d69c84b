//! Invariant 3 at the door: what is let in keeps to the limits and the budget
//! that were in force when it was, however they change meanwhile.
//!
//! A commit may hold several submissions, and ends of other jobs beside. So what
//! a ledger sums up is judged where it grew: what it says then is at most what it
//! said when the last of them was let in.

use super::in_force::{COUNTS_WITHIN_MS, InForce};
use super::nodes::Sum;
use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::estimate::{self, Need};
use proto::v1::{JobRow, LedgerRow, TenantRow, WhenFull};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct AdmittedWithinLimits {
    in_force: InForce,
    /// Grants by tenant and epoch: since when, and how much.
    held: BTreeMap<(String, u64), (u64, Sum)>,
}

/// The guard's part of a limit, as the design has it.
const GUARD_PERCENT: u128 = 90;

fn is_guarded(limit: Option<u64>, sum: u64) -> bool {
    limit.is_some_and(|limit| u128::from(sum) * 100 >= u128::from(limit) * GUARD_PERCENT)
}

/// A job needs no more at once than its tenant may ever have, and where that is
/// asked for, no more than the others leave below the guard.
fn fits(row: &TenantRow, need: Need, held: Sum) -> bool {
    let quota = row.quota.unwrap_or_default();
    let patient = row.when_full() == WhenFull::Queue;
    [
        (quota.millicores, need.millicores, held.millicores),
        (quota.memory_bytes, need.memory_bytes, held.memory_bytes),
        (quota.gpus, need.gpus, held.gpus),
    ]
    .into_iter()
    .all(|(limit, need, held)| {
        let never = limit.is_some_and(|limit| need > limit);
        !never && (patient || need == 0 || !is_guarded(limit, held + need))
    })
}

impl AdmittedWithinLimits {
    /// The least that a tenant held for the controller that decided: it may not have seen
    /// what was granted within the span, and has given back what goes in this commit or
    /// went before. There need not have been an instant at which rows had just this.
    fn least_held(&self, tenant: &str, commit: &Committed) -> Sum {
        let from_ms = commit.since_ms.saturating_sub(COUNTS_WITHIN_MS);
        let of_tenant = (tenant.to_owned(), 0)..=(tenant.to_owned(), u64::MAX);
        let seen = self.held.range(of_tenant).filter(|(_, (at_ms, _))| *at_ms <= from_ms);
        seen.fold(Sum::default(), |sum, (_, (_, held))| sum.plus(*held))
    }

    fn note_held(&mut self, commit: &Committed) {
        for row in &commit.rows {
            let Row::Grant { tenant, epoch, row } = row else { continue };
            let name = (tenant.clone(), *epoch);
            match row {
                Some(grant) => _ = self.held.entry(name).or_insert((commit.at_ms, Sum::of_grant(grant))),
                None => _ = self.held.remove(&name),
            }
        }
    }

    fn check_job(&self, job: &JobName, row: &JobRow, commit: &Committed) -> Result<(), String> {
        let need = row.spec.as_ref().map(estimate::minimum_need).unwrap_or_default();
        let held = self.least_held(&job.tenant, commit);
        if self.in_force.allows(&job.tenant, commit, |row| fits(row, need, held)) {
            return Ok(());
        }
        let limits = self.in_force.newest(&job.tenant);
        Err(format!("job {job} was let in with {need:?} beside {held:?}; its tenant: {limits:?}"))
    }

    fn check_ledger(
        &self,
        tenant: &str,
        (last, now): (LedgerRow, &LedgerRow),
        commit: &Committed,
    ) -> Result<(), String> {
        let more_tasks = now.queued_tasks > last.queued_tasks;
        let more_money = now.reserved_micros > last.reserved_micros
            && (now.month, now.settled_micros) == (last.month, last.settled_micros);
        let keeps = |row: &TenantRow| {
            let month_micros = row.budget.and_then(|budget| budget.month_micros);
            let spent = now.reserved_micros.saturating_add(now.settled_micros);
            !(more_tasks && is_guarded(row.quota.unwrap_or_default().queued_tasks, now.queued_tasks)
                || more_money && month_micros.is_some_and(|budget| spent > budget))
        };
        if !(more_tasks || more_money) || self.in_force.allows(tenant, commit, keeps) {
            return Ok(());
        }
        let limits = self.in_force.newest(tenant);
        Err(format!("more was let in: {last:?}, then {now:?}; the tenant: {limits:?}"))
    }
}

impl Checker for AdmittedWithinLimits {
    fn name(&self) -> &'static str {
        "limits"
    }
    fn invariant(&self) -> u8 {
        3
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        self.in_force.note(commit);
        self.note_held(commit);
        for row in &commit.rows {
            match row {
                Row::Job(job, Some(row)) if !before.jobs.contains_key(job) => {
                    self.check_job(job, row, commit)?;
                }
                Row::Ledger(tenant, Some(now)) => {
                    let last = before.ledgers.get(tenant).copied().unwrap_or_default();
                    self.check_ledger(tenant, (last, now), commit)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{GrantNode, GrantRow, JobSpec, Quota, Resources, Step};

    fn cores(millicores: u32) -> Option<Resources> {
        Some(Resources { millicores, ..Resources::default() })
    }

    fn grant(epoch: u64, millicores: Option<u32>) -> Row {
        let row = millicores.map(|millicores| GrantRow {
            nodes: vec![GrantNode { node: "n1".to_owned(), slots: 1 }],
            per_slot: cores(millicores),
            ..GrantRow::default()
        });
        Row::Grant { tenant: "lab".to_owned(), epoch, row: row.map(Into::into) }
    }

    fn job(number: u64) -> Row {
        let steps = vec![Step { per_task: cores(2_000), ..Step::default() }];
        let spec = Some(JobSpec { steps, ..JobSpec::default() });
        let row = JobRow { tenant: "lab".to_owned(), number, spec, ..JobRow::default() };
        Row::Job(JobName { tenant: "lab".to_owned(), number }, Some(row.into()))
    }

    /// Its own release a controller has counted at once, another's grant soon.
    #[test]
    fn a_job_is_judged_by_what_its_controller_may_have_seen() {
        let mut checker = AdmittedWithinLimits::default();
        let mut commit =
            |at_ms, rows| checker.commit(&Mirror::default(), &Committed { rows, at_ms, since_ms: at_ms });
        let quota = Some(Quota { millicores: Some(16_000), ..Quota::default() });
        let tenant = TenantRow { name: "lab".to_owned(), quota, ..TenantRow::default() };
        let begin =
            vec![Row::Tenant("lab".to_owned(), Some(tenant)), grant(1, Some(10_500)), grant(2, Some(2_000))];
        commit(0, begin).unwrap();
        // 10.5, 2 and 2 of 16 are more than nine tenths. Rows never hold less at once.
        assert!(commit(9_000, vec![job(1)]).is_err());
        commit(10_000, vec![grant(3, Some(2_000))]).unwrap();
        commit(10_000, vec![grant(2, None)]).unwrap();
        commit(10_100, vec![job(2)]).unwrap();
        assert!(commit(15_100, vec![job(3)]).is_err(), "by then it has seen the third grant");
    }
}
