//! Invariants 2 and 5 for checkpoints: what a row names was kept by that very attempt,
//! byte for byte, and is there once, in its order; an attempt finds the newest that was whole when it was bound, or
//! nothing where there was none; the ranks of a gang find the same.
//!
//! Where a task could not read a file since its machine's disk failed it, nothing is
//! known of that one.

use super::ends::{AttemptName, attempt_of};
use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{CheckpointEntry, CheckpointId, Step};
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use world::sim::{Kept, ProcessSpan};

/// What one rank goes on from: the label, and the digest of the one file.
type From = (String, String);

#[derive(Default)]
pub struct GoesOn {
    /// By attempt, what its ranks are to go on from; not there where that is not known.
    bound: BTreeMap<AttemptName, BTreeMap<u32, From>>,
    /// Attempts whose beginning was found after a restart.
    unseen: BTreeSet<AttemptName>,
    /// What rows named: attempt, rank, label, digest.
    named: BTreeSet<(AttemptName, u32, String, String)>,
}

impl Checker for GoesOn {
    fn name(&self) -> &'static str {
        "checkpoints"
    }
    fn invariant(&self) -> u8 {
        5
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            match row {
                Row::Checkpoint { job, step, task, rank, row: Some(row) } => {
                    if let Some([one, other]) =
                        row.entries.array_windows().find(|[a, b]| order(a) >= order(b))
                    {
                        return Err(format!(
                            "rank {rank} of task {task} of step {step} of {job} has checkpoint `{}` again, or behind `{}`",
                            other.label, one.label
                        ));
                    }
                    for entry in &row.entries {
                        let CheckpointId { attempt, epoch, .. } = entry.id.unwrap_or_default();
                        let name = (job.clone(), *step, *task, attempt, epoch);
                        self.named.insert((name, *rank, entry.label.clone(), digest_of(entry)?));
                    }
                }
                Row::Block { job, step, row: Some(row), .. } => {
                    let spec = now.jobs.get(job).and_then(|row| row.spec.as_ref());
                    let Some(of) = spec.and_then(|spec| spec.steps.get(*step as usize)) else { continue };
                    if of.checkpoint.is_none() {
                        continue;
                    }
                    for run in &row.active {
                        let span = run.tasks.unwrap_or_default();
                        for task in span.first..=span.last {
                            let name = (job.clone(), *step, task, run.attempt, run.epoch);
                            // What was found after a restart may have had others in between:
                            // of what it began, then or now, nobody knows what there was.
                            if commit.since_ms != commit.at_ms {
                                if !self.bound.contains_key(&name) {
                                    self.unseen.insert(name);
                                }
                            } else if !self.unseen.contains(&name)
                                && let Entry::Vacant(place) = self.bound.entry(name)
                            {
                                place.insert(newest(now, job, *step, task, of)?);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        let mut kept = BTreeSet::new();
        // By what is stored of them.
        let mut bytes = BTreeMap::new();
        for span in outcome.spans {
            let Some((name, rank)) = attempt_of(&span.key) else { continue };
            for Kept { label, digest, stored_digest } in &span.kept {
                kept.insert((name.clone(), rank, label.clone(), stored_digest.clone()));
                bytes.insert(stored_digest.as_str(), digest.as_str());
            }
        }
        for span in outcome.spans {
            let Some((name, rank)) = attempt_of(&span.key) else { continue };
            self.judge(&name, rank, span, &bytes)?;
        }
        match self.named.difference(&kept).next() {
            Some(((job, step, task, attempt, _), rank, label, _)) => Err(format!(
                "checkpoint `{label}` of step {step} of {job}, task {task} rank {rank}, is not what attempt {attempt} kept"
            )),
            None => Ok(()),
        }
    }
}

impl GoesOn {
    fn judge(
        &self,
        name: &AttemptName,
        rank: u32,
        span: &ProcessSpan,
        bytes: &BTreeMap<&str, &str>,
    ) -> Result<(), String> {
        let Some(bound) = self.bound.get(name) else { return Ok(()) };
        let due = bound.get(&rank);
        let found = span.resumed.iter().find(|(file, _)| file == "state");
        match (due, &span.from, found) {
            (None, None, None) => Ok(()),
            (Some((label, digest)), Some(from), Some((_, read))) if label == from => match read {
                Some(read) if bytes.get(digest.as_str()) != Some(&read.as_str()) => {
                    Err(format!("{} goes on from `{label}` and found other bytes there", span.key))
                }
                _ => Ok(()),
            },
            (due, from, found) => Err(format!(
                "{} was to go on from {:?}, was told {from:?} and found {:?}",
                span.key,
                due.map(|(label, _)| label),
                found.map(|(file, _)| file),
            )),
        }
    }
}

/// A later one of a rank is greater.
fn order(entry: &CheckpointEntry) -> (u32, u32, u64, u64) {
    let id = entry.id.unwrap_or_default();
    (entry.generation, id.attempt, id.session, id.number)
}

/// What the simulated programs keep is one file.
fn digest_of(entry: &CheckpointEntry) -> Result<String, String> {
    match &entry.artifacts[..] {
        [one] if one.path == "state" => Ok(one.digest.clone()),
        other => Err(format!("checkpoint `{}` has the files {other:?}", entry.label)),
    }
}

/// The newest set that all ranks have, by rank.
fn newest(
    now: &Mirror,
    job: &JobName,
    step: u32,
    task: u64,
    of: &Step,
) -> Result<BTreeMap<u32, From>, String> {
    let ranks = (of.nodes * of.tasks_per_node).max(1);
    let reset = now.states.get(job).and_then(|state| state.steps.get(step as usize));
    let reset = reset.map_or(0, |state| state.reset_generation);
    let entries = |rank: u32| {
        let row = now.checkpoints.get(&(job.clone(), step, task, rank));
        let entries = row.into_iter().flat_map(|row| row.entries.iter());
        entries.filter(move |entry| entry.generation >= reset)
    };
    let mut sets: Vec<&CheckpointEntry> = entries(0).collect();
    // Newest first, by what they say of themselves and not by their place.
    sets.sort_by_key(|entry| std::cmp::Reverse(order(entry)));
    for set in sets {
        let same = |entry: &&CheckpointEntry| {
            let (one, other) = (entry.id.unwrap_or_default(), set.id.unwrap_or_default());
            let of_one_attempt = (one.epoch, one.attempt) == (other.epoch, other.attempt);
            of_one_attempt && entry.label == set.label && (ranks > 1 || one == other)
        };
        let found: Option<Vec<&CheckpointEntry>> = (0..ranks).map(|rank| entries(rank).find(same)).collect();
        if let Some(found) = found {
            let from =
                |(rank, entry): (u32, &CheckpointEntry)| Ok((rank, (entry.label.clone(), digest_of(entry)?)));
            return (0..).zip(found).map(from).collect();
        }
    }
    Ok(BTreeMap::new())
}
