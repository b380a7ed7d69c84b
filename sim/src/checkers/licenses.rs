//! Invariant 3 for licenses: no more of one are ever held by grants than there are, and what
//! begins does so under a grant that holds what its step asks for.

use super::agreement::events;
use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::estimate;
use proto::v1::{Event, GrantRow, State, Step};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Default)]
pub struct NoneHeldTwice {
    grants: BTreeMap<(String, u64), Arc<GrantRow>>,
    held: BTreeMap<String, u64>,
    /// Of each the most that was ever held, and when.
    most: BTreeMap<String, (u64, u64)>,
}

/// What a grant of a step is to hold.
fn due(step: &Step, grant: &GrantRow) -> BTreeMap<String, u64> {
    let slots: u64 = grant.nodes.iter().map(|part| u64::from(part.slots)).sum();
    let units = if estimate::is_gang(step) { 1 } else { slots };
    step.licenses.iter().map(|(name, count)| (name.clone(), u64::from(*count) * units)).collect()
}

impl NoneHeldTwice {
    fn take(&mut self, name: (String, u64), grant: Option<Arc<GrantRow>>, at_ms: u64) {
        for (license, count) in self.grants.remove(&name).iter().flat_map(|was| &was.licenses) {
            *self.held.entry(license.clone()).or_default() -= count;
        }
        let Some(grant) = grant else { return };
        for (license, count) in &grant.licenses {
            let held = self.held.entry(license.clone()).or_default();
            *held += count;
            let most = self.most.entry(license.clone()).or_default();
            *most = (*most).max((*held, at_ms));
        }
        self.grants.insert(name, grant);
    }

    fn begins(&self, before: &Mirror, tenant: &str, event: &Event) -> Result<(), String> {
        let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
        let spec = before.jobs.get(&job).and_then(|row| row.spec.as_ref());
        let step = spec.and_then(|spec| spec.steps.get(event.step.unwrap_or_default() as usize));
        let grant = self.grants.get(&(tenant.to_owned(), event.epoch));
        let (Some(step), Some(grant)) = (step, grant) else { return Ok(()) };
        let due = due(step, grant);
        if grant.licenses != due {
            return Err(format!(
                "event {} begins tasks of {job}, which asks for {due:?}, under {grant:?}",
                event.seq
            ));
        }
        Ok(())
    }
}

impl Checker for NoneHeldTwice {
    fn name(&self) -> &'static str {
        "licenses"
    }
    fn invariant(&self) -> u8 {
        3
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        for (tenant, event) in events(commit) {
            if event.to() == State::Staging && !event.tasks.is_empty() {
                self.begins(before, tenant, event)?;
            }
        }
        // What is given back first: of several commits seen as one nobody knows the order.
        let grants = || {
            commit.rows.iter().filter_map(|row| match row {
                Row::Grant { tenant, epoch, row } => Some(((tenant.clone(), *epoch), row)),
                _ => None,
            })
        };
        for (name, row) in grants().filter(|(_, row)| row.is_none()) {
            self.take(name, row.clone(), commit.at_ms);
        }
        for (name, row) in grants().filter(|(_, row)| row.is_some()) {
            self.take(name, row.clone(), commit.at_ms);
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        for (license, (held, at_ms)) in &self.most {
            let total = outcome.licenses.get(license).copied().unwrap_or(0);
            if *held > u64::from(total) {
                return Err(format!(
                    "{held} of license {license} were held at {at_ms} ms; there are {total}"
                ));
            }
        }
        Ok(())
    }
}
