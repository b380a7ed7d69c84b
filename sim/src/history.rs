//! What the clients of a run were told: the acknowledgements that must hold.

use crate::rows::JobName;
use proto::v1::{JobStateRow, LogChunk, StepOutputs};
use std::sync::Arc;

/// One acknowledgement, and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    Submitted { job: JobName, key: String, at_ms: u64 },
    Cancelled { job: JobName, at_ms: u64 },
}

/// What one reader got of a job's log, in the order in which it came.
#[derive(Clone, Debug, Default)]
pub struct LogRead {
    pub job: JobName,
    pub chunks: Vec<LogChunk>,
    /// Where it goes on.
    pub cursor: u64,
    /// It was told that this is all, and how many bytes will never come.
    pub end: Option<u64>,
    /// It read to the end, when all was over.
    pub whole: bool,
}

impl LogRead {
    #[must_use]
    pub fn of(job: JobName, whole: bool) -> Self {
        Self { job, whole, ..Self::default() }
    }
}

/// What one reader was told of a job's outputs.
#[derive(Clone, Debug, Default)]
pub struct OutputsRead {
    pub job: JobName,
    /// The job just before. Just after it was of the same generations: nobody had tried
    /// it again meanwhile.
    pub state: JobStateRow,
    pub steps: Vec<StepOutputs>,
}

/// Everything clients were told, in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub acks: Vec<Ack>,
    /// Submissions, by tenant and key, whose client was told that nothing was taken, and
    /// gave up.
    pub given_up: Vec<(String, String)>,
    /// Submissions refused at the door, by code.
    pub refused: std::collections::BTreeMap<String, u64>,
    /// How often a tenant's limits were changed.
    pub limits_changed: u64,
    /// Jobs that users tried again, with how often at most.
    pub retried: std::collections::BTreeMap<JobName, u64>,
    /// Streams that a client broke off.
    pub broken_off: u64,
    /// What they read of logs.
    pub logs: Vec<Arc<LogRead>>,
    /// What they were told of outputs.
    pub outputs: Vec<Arc<OutputsRead>>,
    /// What a client saw that may not be: invariant and words.
    pub broken: Option<(u8, String)>,
}
