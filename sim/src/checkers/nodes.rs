//! Invariant 3, first half: no node is over-committed, no tenant is granted
//! past its limit.

use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::Row;
use proto::v1::{GrantRow, Resources};
use std::collections::BTreeMap;

pub struct NodesNotOverCommitted;

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    millicores: u64,
    memory_bytes: u64,
    gpus: u64,
}

impl Sum {
    fn add(&mut self, each: &Resources, times: u64) {
        self.millicores += u64::from(each.millicores) * times;
        self.memory_bytes += each.memory_bytes * times;
        self.gpus += u64::from(each.gpus) * times;
    }
}

fn per_slot(grant: &GrantRow) -> Resources {
    grant.per_slot.unwrap_or_default()
}

impl Checker for NodesNotOverCommitted {
    fn name(&self) -> &'static str {
        "capacity"
    }
    fn invariant(&self) -> u8 {
        3
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        let granted = commit.rows.iter().find_map(|row| match row {
            Row::Grant { tenant, row: Some(_), .. } => Some(tenant),
            _ => None,
        });
        let Some(tenant) = granted else { return Ok(()) };
        let mut nodes: BTreeMap<&str, Sum> = BTreeMap::new();
        let mut held = Sum::default();
        for ((owner, _), grant) in &now.grants {
            for part in &grant.nodes {
                nodes.entry(&part.node).or_default().add(&per_slot(grant), u64::from(part.slots));
                if owner == tenant {
                    held.add(&per_slot(grant), u64::from(part.slots));
                }
            }
        }
        for (node, sum) in nodes {
            let capacity = now.nodes.get(node).and_then(|row| row.capacity).unwrap_or_default();
            if sum.millicores > u64::from(capacity.millicores)
                || sum.memory_bytes > capacity.memory_bytes
                || sum.gpus > u64::from(capacity.gpus)
            {
                return Err(format!("node {node} holds {sum:?} of {capacity:?}"));
            }
        }
        let quota = now.tenants.get(tenant).and_then(|row| row.quota).unwrap_or_default();
        let over = |limit: Option<u64>, used: u64| limit.is_some_and(|limit| used > limit);
        if over(quota.millicores, held.millicores)
            || over(quota.memory_bytes, held.memory_bytes)
            || over(quota.gpus, held.gpus)
        {
            return Err(format!("tenant {tenant} holds {held:?} past its quota {quota:?}"));
        }
        Ok(())
    }
}
