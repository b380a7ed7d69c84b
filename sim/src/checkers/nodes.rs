//! Invariant 3, first half: no node is over-committed, no tenant is granted
//! past its limit, nor all below a group past the group's. A limit that falls takes nothing away: what a tenant holds
//! must keep to it where it grows.
//!
//! What each node and tenant holds is kept along with the grants that commits
//! show, and made anew from all grants at the end of the run.

use super::in_force::InForce;
use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;
use crate::rows::Row;
use proto::v1::{GrantRow, NodeRow, Quota, Resources, TenantRow};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct NodesNotOverCommitted {
    held: Held,
    in_force: InForce,
}

/// The grants and what they add up to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Held {
    grants: BTreeMap<(String, u64), GrantRow>,
    nodes: BTreeMap<String, Sum>,
    tenants: BTreeMap<String, Sum>,
    /// By the grants that name them.
    groups: BTreeMap<String, Sum>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub millicores: u64,
    pub memory_bytes: u64,
    pub gpus: u64,
}

impl Sum {
    /// What it holds of its nodes, in their order.
    fn of_nodes(grant: &GrantRow) -> impl Iterator<Item = (&str, Self)> {
        grant.nodes.iter().enumerate().map(|(at, part)| {
            let sum = match grant.whole.get(at) {
                Some(whole) => Self::of(whole, 1),
                None => Self::of(&grant.per_slot.unwrap_or_default(), part.slots),
            };
            (part.node.as_str(), sum)
        })
    }

    fn of(each: &Resources, slots: u32) -> Self {
        let slots = u64::from(slots);
        Self {
            millicores: u64::from(each.millicores) * slots,
            memory_bytes: each.memory_bytes * slots,
            gpus: u64::from(each.gpus) * slots,
        }
    }

    fn add(&mut self, other: Self) {
        self.millicores += other.millicores;
        self.memory_bytes += other.memory_bytes;
        self.gpus += other.gpus;
    }

    fn subtract(&mut self, other: Self) {
        self.millicores -= other.millicores;
        self.memory_bytes -= other.memory_bytes;
        self.gpus -= other.gpus;
    }

    /// Both together.
    pub fn plus(mut self, other: Self) -> Self {
        self.add(other);
        self
    }

    /// All that a grant holds.
    pub fn of_grant(grant: &GrantRow) -> Self {
        Self::of_nodes(grant).map(|(_, sum)| sum).fold(Self::default(), Self::plus)
    }

    /// Keeps to a limit wherever it is more than it was.
    fn grew_within(&self, was: Self, quota: &Quota) -> bool {
        let within =
            |was: u64, now: u64, limit: Option<u64>| now <= was || limit.is_none_or(|limit| now <= limit);
        within(was.millicores, self.millicores, quota.millicores)
            && within(was.memory_bytes, self.memory_bytes, quota.memory_bytes)
            && within(was.gpus, self.gpus, quota.gpus)
    }
}

impl Held {
    /// Takes a grant as it is now; it may have been there before.
    pub fn take(&mut self, tenant: &str, epoch: u64, grant: Option<&GrantRow>) {
        let name = (tenant.to_owned(), epoch);
        if let Some(was) = self.grants.remove(&name) {
            for (node, sum) in Sum::of_nodes(&was) {
                self.nodes.entry(node.to_owned()).or_default().subtract(sum);
                self.tenants.entry(tenant.to_owned()).or_default().subtract(sum);
                for group in &was.groups {
                    self.groups.entry(group.clone()).or_default().subtract(sum);
                }
            }
        }
        let Some(grant) = grant else { return };
        for (node, sum) in Sum::of_nodes(grant) {
            self.nodes.entry(node.to_owned()).or_default().add(sum);
            self.tenants.entry(tenant.to_owned()).or_default().add(sum);
            for group in &grant.groups {
                self.groups.entry(group.clone()).or_default().add(sum);
            }
        }
        self.grants.insert(name, grant.clone());
    }

    fn check_node(&self, node: &str, row: Option<&NodeRow>) -> Result<(), String> {
        let sum = self.nodes.get(node).copied().unwrap_or_default();
        let capacity: Resources = row.and_then(|row| row.capacity).unwrap_or_default();
        if sum.millicores > u64::from(capacity.millicores)
            || sum.memory_bytes > capacity.memory_bytes
            || sum.gpus > u64::from(capacity.gpus)
        {
            return Err(format!("node {node} holds {sum:?} of {capacity:?}"));
        }
        Ok(())
    }

    pub fn of_tenant(&self, tenant: &str) -> Sum {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }

    fn of_group(&self, group: &str) -> Sum {
        self.groups.get(group).copied().unwrap_or_default()
    }
}

impl NodesNotOverCommitted {
    /// What held so much before keeps to its limits wherever it is more now.
    fn check_limits(&self, name: &str, was: Sum, held: Sum, commit: &Committed) -> Result<(), String> {
        let keeps = |row: &TenantRow| held.grew_within(was, &row.quota.unwrap_or_default());
        if self.in_force.allows(name, commit, keeps) {
            return Ok(());
        }
        let limits = self.in_force.newest(name);
        Err(format!("{name} held {was:?}, then {held:?}, past its limits: {limits:?}"))
    }

    /// A new grant names the groups that its tenant is in, from it up.
    fn check_groups(&self, tenant: &str, grant: &GrantRow, commit: &Committed) -> Result<(), String> {
        let mut below = tenant;
        for group in grant.groups.iter().map(String::as_str).chain([""]) {
            if !self.in_force.allows(below, commit, |row| row.parent == group) {
                return Err(format!(
                    "a grant of {tenant} names {:?}: {below} is not in {group:?}",
                    grant.groups
                ));
            }
            below = group;
        }
        Ok(())
    }
}

impl Checker for NodesNotOverCommitted {
    fn name(&self) -> &'static str {
        "capacity"
    }
    fn invariant(&self) -> u8 {
        3
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        self.in_force.note(commit);
        let (mut nodes, mut tenants, mut groups) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        for row in &commit.rows {
            match row {
                Row::Grant { tenant, epoch, row } => {
                    tenants.entry(tenant.as_str()).or_insert_with(|| self.held.of_tenant(tenant));
                    for group in row.iter().flat_map(|grant| &grant.groups) {
                        groups.entry(group.as_str()).or_insert_with(|| self.held.of_group(group));
                    }
                    let is_new = !self.held.grants.contains_key(&(tenant.clone(), *epoch));
                    self.held.take(tenant, *epoch, row.as_deref());
                    if let Some(grant) = row {
                        if is_new {
                            self.check_groups(tenant, grant, commit)?;
                        }
                        nodes.extend(grant.nodes.iter().map(|part| part.node.as_str()));
                    }
                }
                Row::Node(name, _) => _ = nodes.insert(name),
                _ => {}
            }
        }
        for node in nodes {
            self.held.check_node(node, now.nodes.get(node))?;
        }
        for (tenant, was) in tenants {
            self.check_limits(tenant, was, self.held.of_tenant(tenant), commit)?;
        }
        for (group, was) in groups {
            self.check_limits(group, was, self.held.of_group(group), commit)?;
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        let mut anew = Held::default();
        for ((tenant, epoch), grant) in &outcome.mirror.grants {
            anew.take(tenant, *epoch, Some(grant));
        }
        for (node, row) in &outcome.mirror.nodes {
            anew.check_node(node, Some(row))?;
        }
        if anew.grants != self.held.grants {
            return Err("the grants seen commit by commit are not those of the rows".to_owned());
        }
        Ok(())
    }
}
