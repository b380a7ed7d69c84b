//! Invariant 3 where a step takes whole nodes: what has a node for itself holds all of it,
//! and nothing else is granted there; and its tasks begin under such a grant alone.

use super::agreement::events;
use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{Event, GrantRow, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Tenant and epoch.
type Name = (String, u64);

#[derive(Default)]
pub struct NothingBeside {
    grants: BTreeMap<Name, Arc<GrantRow>>,
    /// Which are on each node.
    nodes: BTreeMap<String, BTreeSet<Name>>,
}

impl NothingBeside {
    fn take(&mut self, name: Name, grant: Option<Arc<GrantRow>>) {
        for part in self.grants.remove(&name).iter().flat_map(|was| &was.nodes) {
            if let Some(here) = self.nodes.get_mut(&part.node) {
                here.remove(&name);
            }
        }
        let Some(grant) = grant else { return };
        for part in &grant.nodes {
            self.nodes.entry(part.node.clone()).or_default().insert(name.clone());
        }
        self.grants.insert(name, grant);
    }

    fn check_node(&self, node: &str) -> Result<(), String> {
        let here = self.nodes.get(node).into_iter().flatten();
        let here: Vec<&Name> = here.collect();
        let alone = here.iter().find(|name| self.grants.get(**name).is_some_and(|g| !g.whole.is_empty()));
        match alone {
            Some(alone) if here.len() > 1 => {
                Err(format!("{alone:?} has {node} for itself, where there are {here:?}"))
            }
            _ => Ok(()),
        }
    }

    /// What is begun under a grant that was made for it.
    fn begins(&self, before: &Mirror, tenant: &str, event: &Event) -> Result<(), String> {
        let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
        let spec = before.jobs.get(&job).and_then(|row| row.spec.as_ref());
        let step = spec.and_then(|spec| spec.steps.get(event.step.unwrap_or_default() as usize));
        let grant = self.grants.get(&(tenant.to_owned(), event.epoch));
        let (Some(step), Some(grant)) = (step, grant) else { return Ok(()) };
        let whole = if step.exclusive { grant.nodes.len() } else { 0 };
        if grant.whole.len() != whole {
            return Err(format!(
                "event {} begins tasks of {job} (exclusive: {}) under {grant:?}",
                event.seq, step.exclusive
            ));
        }
        Ok(())
    }
}

/// All that its nodes have.
fn holds_all(now: &Mirror, grant: &GrantRow) -> Result<(), String> {
    for (part, whole) in grant.nodes.iter().zip(&grant.whole) {
        let capacity = now.nodes.get(&part.node).and_then(|node| node.capacity);
        if capacity.is_some_and(|capacity| capacity != *whole) {
            return Err(format!("a grant of all of {} holds {whole:?} of {capacity:?}", part.node));
        }
    }
    Ok(())
}

impl Checker for NothingBeside {
    fn name(&self) -> &'static str {
        "alone"
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
        Ok(())
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        let mut touched = BTreeSet::new();
        for row in &commit.rows {
            let Row::Grant { tenant, epoch, row } = row else { continue };
            let name = (tenant.clone(), *epoch);
            if let Some(grant) = row {
                touched.extend(grant.nodes.iter().map(|part| part.node.as_str()));
                if !self.grants.contains_key(&name) {
                    holds_all(now, grant)?;
                }
            }
            self.take(name, row.clone());
        }
        touched.into_iter().try_for_each(|node| self.check_node(node))
    }
}
