//! Invariant 3, what is kept against what is booked: a job counts as stored the
//! bytes that its committed manifests name, each manifest once, and those that its
//! rows of checkpoints name now; at its end all of them. Of a job that has expired nothing
//! counts.

use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{CheckpointRow, JobStateRow};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Stored {
    /// Bytes that manifests of a job named when they were written, and its
    /// checkpoints name.
    named: BTreeMap<JobName, u64>,
}

/// Bytes that a row of checkpoints names.
pub(super) fn bytes_of(row: &CheckpointRow) -> u64 {
    row.entries.iter().flat_map(|entry| &entry.artifacts).map(|artifact| artifact.size_bytes).sum()
}

impl Stored {
    fn named_by(&self, job: &JobName, state: &JobStateRow) -> u64 {
        if state.expired_ms > 0 { 0 } else { self.named.get(job).copied().unwrap_or(0) }
    }
}

impl Checker for Stored {
    fn name(&self) -> &'static str {
        "stored"
    }
    fn invariant(&self) -> u8 {
        3
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            if let Row::Checkpoint { job, step, task, rank, row } = row {
                let was = before.checkpoints.get(&(job.clone(), *step, *task, *rank));
                let named = self.named.entry(job.clone()).or_default();
                *named =
                    *named + row.as_ref().map_or(0, |row| bytes_of(row)) - was.map_or(0, |row| bytes_of(row));
            }
            let Row::Manifest { job, step, task, rank, row: Some(row) } = row else { continue };
            let was = before.manifests.get(&(job.clone(), *step, *task, *rank));
            // A controller that takes over in the midst of a gang writes them again.
            if was.is_some_and(|was| (was.attempt, was.epoch) == (row.attempt, row.epoch)) {
                continue;
            }
            let bytes: u64 = row.artifacts.iter().map(|artifact| artifact.size_bytes).sum();
            *self.named.entry(job.clone()).or_default() += bytes;
        }
        Ok(())
    }

    fn after(&mut self, _: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            let Row::State(job, Some(state)) = row else { continue };
            let named = self.named_by(job, state);
            if state.storage_bytes > named {
                return Err(format!(
                    "job {job} counts {} bytes as stored, its manifests and checkpoints name {named}",
                    state.storage_bytes
                ));
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        for (job, state) in &outcome.mirror.states {
            let named = self.named_by(job, state);
            if state.storage_bytes != named {
                return Err(format!(
                    "job {job} counts {} bytes as stored at the end, its manifests named {named}",
                    state.storage_bytes
                ));
            }
        }
        Ok(())
    }
}
