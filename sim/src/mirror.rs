//! What the store durably holds, as the witness saw it commit by commit.

use crate::rows::{JobName, Row};
use proto::v1::{
    BlockRow, CheckpointRow, GrantRow, IdempotencyRow, JobRow, JobStateRow, LedgerRow, ManifestRow, NodeRow,
    TenantRow, UploadRow,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names a manifest, or a rank's checkpoints: job, step, task, rank.
pub type ManifestName = (JobName, u32, u64, u32);

/// See the module.
#[derive(Debug, Default)]
pub struct Mirror {
    pub tenants: BTreeMap<String, TenantRow>,
    pub jobs: BTreeMap<JobName, Arc<JobRow>>,
    pub states: BTreeMap<JobName, Arc<JobStateRow>>,
    pub blocks: BTreeMap<(JobName, u32, u64), Arc<BlockRow>>,
    pub grants: BTreeMap<(String, u64), Arc<GrantRow>>,
    pub ledgers: BTreeMap<String, LedgerRow>,
    pub idempotency: BTreeMap<(String, String), Arc<IdempotencyRow>>,
    pub manifests: BTreeMap<ManifestName, Arc<ManifestRow>>,
    pub checkpoints: BTreeMap<ManifestName, Arc<CheckpointRow>>,
    /// By tenant and digest.
    pub uploads: BTreeMap<(String, String), UploadRow>,
    pub nodes: BTreeMap<String, NodeRow>,
    /// The next event number due, by tenant.
    pub next_event: BTreeMap<String, u64>,
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => {
            map.insert(key, value);
        }
        None => {
            map.remove(&key);
        }
    }
}

impl Mirror {
    /// Whether what a job gave is kept no longer.
    pub fn has_expired(&self, job: &JobName) -> bool {
        self.states.get(job).is_some_and(|state| state.expired_ms > 0)
    }

    /// Takes one row's change.
    pub fn apply(&mut self, row: Row) {
        match row {
            Row::Tenant(name, row) => set(&mut self.tenants, name, row),
            Row::Job(job, row) => set(&mut self.jobs, job, row),
            Row::State(job, row) => set(&mut self.states, job, row),
            Row::Block { job, step, block, row } => set(&mut self.blocks, (job, step, block), row),
            Row::Grant { tenant, epoch, row } => set(&mut self.grants, (tenant, epoch), row),
            Row::Ledger(tenant, row) => set(&mut self.ledgers, tenant, row),
            Row::Idempotency { tenant, key, row } => set(&mut self.idempotency, (tenant, key), row),
            Row::Manifest { job, step, task, rank, row } => {
                set(&mut self.manifests, (job, step, task, rank), row);
            }
            Row::Checkpoint { job, step, task, rank, row } => {
                set(&mut self.checkpoints, (job, step, task, rank), row);
            }
            Row::Upload { tenant, digest, row } => set(&mut self.uploads, (tenant, digest), row),
            Row::Node(name, row) => set(&mut self.nodes, name, row),
            Row::Events { tenant, first_seq, row } => {
                if let Some(row) = row {
                    self.next_event.insert(tenant, first_seq + row.events.len() as u64);
                }
            }
            // Looked at by their own checker alone.
            Row::Scale(..) | Row::Shard(..) | Row::Other => {}
        }
    }
}
