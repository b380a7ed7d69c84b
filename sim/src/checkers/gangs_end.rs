//! Invariant 4, at a gang's end: the loss of any rank ends the attempt everywhere.
//! Once it is durable that a rank is lost, the others end within a bound, wherever
//! nothing keeps the word from them.
//!
//! The bound: what a word takes ([`WORD_MS`]); where tasks do not heed TERM the
//! grace until KILL, where they start late the time until they do. It is judged
//! where no fault holds the server or the rank's node, or has held it lately: such
//! a node ends its tasks with its lease, which `epochs-apart` sees to.

use super::ends::{AttemptName, attempt_of};
use super::{Checker, Committed, Outcome};
use crate::faults::{Fault, Planned, is_of_servers};
use crate::mirror::Mirror;
use crate::rows::Row;
use proto::v1::CauseKind;
use std::collections::BTreeMap;

/// From the commit that tells of the loss to the end of a process that heeds TERM.
const WORD_MS: u64 = 3_000;
/// A process that starts late does so within that.
const SLOW_START_MS: u64 = 6_000;
/// Who was out of reach, or down, may take so long to be there again.
const RECOVERS_MS: u64 = 30_000;

#[derive(Default)]
pub struct GangsEnd {
    /// When it was durable that an attempt had lost a rank, and which.
    lost: BTreeMap<AttemptName, (u32, u64)>,
}

/// Whether it may keep a word from a node, or a node from doing what it is told.
fn hinders(fault: &Fault) -> bool {
    !matches!(
        fault,
        Fault::SubmissionBurst { .. }
            | Fault::GangBurst { .. }
            | Fault::RetryStorm { .. }
            | Fault::QuotaBreach { .. }
            | Fault::CancelRace { .. }
            | Fault::RequestsTwice { .. }
            | Fault::FollowersLeave { .. }
            | Fault::LogFlood { .. }
            | Fault::ClientRepliesLost { .. }
            | Fault::BitRot { .. }
            | Fault::TransfersBroken { .. }
            | Fault::TransfersSlow { .. }
            | Fault::TransfersTruncated { .. }
            | Fault::TransfersCorrupted { .. }
            | Fault::UploadRepliesLost { .. }
            | Fault::LaunchesFail { .. }
            | Fault::SlowStarts { .. }
            | Fault::TasksKilled { .. }
            | Fault::TasksOutOfMemory { .. }
            | Fault::TasksHang { .. }
            | Fault::TasksExit { .. }
            | Fault::TasksDeaf { .. }
            | Fault::OutputsMissing { .. }
            | Fault::OutputsCorrupt { .. }
    )
}

/// Until when it is felt.
fn over_ms(planned: &Planned) -> u64 {
    let again_ms = match planned.fault {
        Fault::CrashInRecovery { after_ms, down_ms, .. } => after_ms + down_ms,
        Fault::CrashInCreation { down_ms, .. } => down_ms,
        _ => 0,
    };
    planned.at_ms + planned.fault.span_ms() + again_ms + RECOVERS_MS
}

/// The machine of a node: `node-0` is machine 1, after the server.
fn machine(node: &str) -> Option<usize> {
    node.strip_prefix("node-")?.parse().ok().map(|index: usize| index + 1)
}

/// By when a rank on this node has ended after another's loss was durable; `None`:
/// something may keep the word from it.
pub fn must_have_ended_ms(faults: &[Planned], node: &str, lost_ms: u64) -> Option<u64> {
    let machine = machine(node)?;
    let here =
        |planned: &&Planned| planned.fault.machine() == machine || is_of_servers(planned.fault.machine());
    let faults: Vec<&Planned> = faults.iter().filter(here).collect();
    let grace_ms = controller::Config::default().stop_grace_ms;
    // A process may have been launched long before it hears TERM.
    let any = |is: fn(&Fault) -> bool| faults.iter().any(|planned| is(&planned.fault));
    let deaf_ms = u64::from(any(|fault| matches!(fault, Fault::TasksDeaf { .. }))) * grace_ms;
    let slow_ms = u64::from(any(|fault| matches!(fault, Fault::SlowStarts { .. }))) * SLOW_START_MS;
    let until_ms = lost_ms + WORD_MS + deaf_ms + slow_ms;
    let hindered = faults
        .iter()
        .any(|planned| hinders(&planned.fault) && planned.at_ms <= until_ms && lost_ms <= over_ms(planned));
    (!hindered).then_some(until_ms)
}

impl Checker for GangsEnd {
    fn name(&self) -> &'static str {
        "gangs-end"
    }
    fn invariant(&self) -> u8 {
        4
    }

    fn after(&mut self, _: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            let Row::Block { job, step, row: Some(block), .. } = row else { continue };
            let lost = block
                .ranks
                .iter()
                .find(|end| end.cause.as_ref().is_none_or(|cause| cause.kind() != CauseKind::Succeeded));
            let Some(lost) = lost else { continue };
            // A step with ranks has one task.
            for run in &block.active {
                for task in run.tasks.iter().flat_map(|span| span.first..=span.last) {
                    let attempt = (job.clone(), *step, task, run.attempt, run.epoch);
                    self.lost.entry(attempt).or_insert((lost.rank, commit.at_ms));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        if self.lost.is_empty() {
            return Ok(());
        }
        for span in outcome.spans {
            let Some((attempt, rank)) = attempt_of(&span.key) else { continue };
            let Some((lost, lost_ms)) = self.lost.get(&attempt) else { continue };
            let ended_ms = span.ended_ms.unwrap_or(u64::MAX);
            let due_ms = must_have_ended_ms(outcome.faults, &span.node, *lost_ms);
            if rank != *lost && due_ms.is_some_and(|due_ms| ended_ms > due_ms) {
                return Err(format!(
                    "it was durable at {lost_ms} ms that rank {lost} was lost; {} ran until {ended_ms} ms on {}, \
                     with nothing in the way",
                    span.key, span.node
                ));
            }
        }
        Ok(())
    }
}
