//! What a stored row is, read from its key and bytes.
//!
//! The checkers read rows by the documented key layout, not through the code
//! that wrote them, so that a slip there is seen here.

use bytes::Bytes;
use prost::Message;
use proto::v1::{
    BlockRow, CheckpointRow, EventBatchRow, GrantRow, IdempotencyRow, JobRow, JobStateRow, LedgerRow,
    ManifestRow, NodeRow, ScaleRow, ShardRow, TenantRow, UploadRow,
};
use std::sync::Arc;

/// Names a job. Numbers come first in the order: every checker looks jobs up all
/// the time, and names of tenants are the slower to compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobName {
    pub number: u64,
    pub tenant: String,
}

impl std::fmt::Display for JobName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.tenant, self.number)
    }
}

/// One row, decoded; `None` where it was deleted. The larger ones are shared
/// with the mirror, which keeps them.
#[derive(Clone, Debug)]
pub enum Row {
    Tenant(String, Option<TenantRow>),
    Job(JobName, Option<Arc<JobRow>>),
    State(JobName, Option<Arc<JobStateRow>>),
    Block {
        job: JobName,
        step: u32,
        block: u64,
        row: Option<Arc<BlockRow>>,
    },
    Grant {
        tenant: String,
        epoch: u64,
        row: Option<Arc<GrantRow>>,
    },
    Events {
        tenant: String,
        first_seq: u64,
        row: Option<Arc<EventBatchRow>>,
    },
    Ledger(String, Option<LedgerRow>),
    Idempotency {
        tenant: String,
        key: String,
        row: Option<Arc<IdempotencyRow>>,
    },
    Manifest {
        job: JobName,
        step: u32,
        task: u64,
        rank: u32,
        row: Option<Arc<ManifestRow>>,
    },
    Checkpoint {
        job: JobName,
        step: u32,
        task: u64,
        rank: u32,
        row: Option<Arc<CheckpointRow>>,
    },
    Upload {
        tenant: String,
        digest: String,
        row: Option<UploadRow>,
    },
    Node(String, Option<NodeRow>),
    /// What is kept of a pool that grows by need.
    Scale(String, Option<ScaleRow>),
    Shard(u16, Option<ShardRow>),
    /// Rows no invariant speaks of.
    Other,
}

fn message<M: Message + Default, T: From<M>>(value: Option<&Bytes>) -> Result<Option<T>, String> {
    value.map(|value| M::decode(&value[..]).map(T::from).map_err(|error| error.to_string())).transpose()
}

fn hex(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| format!("`{text}` is not a number in hexadecimal"))
}

/// Decodes a row.
///
/// # Errors
/// Where the key is of a known family but malformed, or the bytes do not decode.
pub fn decode(key: &[u8], value: Option<&Bytes>) -> Result<Row, String> {
    let text = std::str::from_utf8(key).map_err(|_| format!("key {key:?} is not text"))?;
    let parts: Vec<&str> = text.split('/').collect();
    let job = |tenant: &str, number: &str| -> Result<JobName, String> {
        Ok(JobName { tenant: tenant.to_owned(), number: hex(number)? })
    };
    Ok(match parts[..] {
        ["tenant", name] => Row::Tenant(name.into(), message::<TenantRow, _>(value)?),
        ["job", tenant, number] => Row::Job(job(tenant, number)?, message::<JobRow, _>(value)?),
        ["state", tenant, number] => Row::State(job(tenant, number)?, message::<JobStateRow, _>(value)?),
        ["block", tenant, number, step, block] => Row::Block {
            job: job(tenant, number)?,
            step: small(step)?,
            block: hex(block)?,
            row: message::<BlockRow, _>(value)?,
        },
        ["grant", tenant, epoch] => {
            Row::Grant { tenant: tenant.into(), epoch: hex(epoch)?, row: message::<GrantRow, _>(value)? }
        }
        ["event", tenant, seq] => Row::Events {
            tenant: tenant.into(),
            first_seq: hex(seq)?,
            row: message::<EventBatchRow, _>(value)?,
        },
        ["ledger", tenant] => Row::Ledger(tenant.into(), message::<LedgerRow, _>(value)?),
        ["idem", tenant, ..] => Row::Idempotency {
            tenant: tenant.into(),
            key: parts[2..].join("/"),
            row: message::<IdempotencyRow, _>(value)?,
        },
        ["manifest", tenant, number, step, task, rank] => Row::Manifest {
            job: job(tenant, number)?,
            step: small(step)?,
            task: hex(task)?,
            rank: small(rank)?,
            row: message::<ManifestRow, _>(value)?,
        },
        ["checkpoint", tenant, number, step, task, rank] => Row::Checkpoint {
            job: job(tenant, number)?,
            step: small(step)?,
            task: hex(task)?,
            rank: small(rank)?,
            row: message::<CheckpointRow, _>(value)?,
        },
        ["upload", tenant, digest] => {
            Row::Upload { tenant: tenant.into(), digest: digest.into(), row: message::<UploadRow, _>(value)? }
        }
        ["shard", number] => Row::Shard(short(number)?, message::<ShardRow, _>(value)?),
        ["scale", pool] => Row::Scale(pool.into(), message::<ScaleRow, _>(value)?),
        ["node", name] => Row::Node(name.into(), message::<NodeRow, _>(value)?),
        _ => Row::Other,
    })
}

fn short(text: &str) -> Result<u16, String> {
    u16::try_from(hex(text)?).map_err(|_| format!("`{text}` is too large"))
}

fn small(text: &str) -> Result<u32, String> {
    u32::try_from(hex(text)?).map_err(|_| format!("`{text}` is too large"))
}
