//! Blocks: 4096 tasks of a step, in memory and as a row. A block is made when
//! one of its tasks first leaves PENDING, so an array costs what has happened to
//! it, not its length.
//!
//! Reading a row: a task is what its block names it; named nowhere (or only in
//! a note) it is `StepState.rest`. A row of an older generation than its step's
//! reads without failed and cancelled tasks and notes; below the step's
//! `reset_generation` it reads as empty.

use super::model::{Active, Block, StepRun};
use bytes::Bytes;
use prost::Message;
use proto::spans::Spans;
use proto::v1::{AttemptRun, BlockRow, RankEnd, Span, State, StepState, TaskNote};

/// The row of a block. Notes hold texts, and there may be thousands: they are lent
/// to the row and taken back, not copied.
pub(super) fn encode(block: &mut Block, generation: u32) -> Bytes {
    let mut runs: Vec<AttemptRun> = Vec::new();
    for (&task, active) in &block.active {
        if let Some(run) = runs.last_mut()
            && is_run_of(run, active)
            && let Some(span) = &mut run.tasks
            && span.last + 1 == task
        {
            span.last = task;
            continue;
        }
        runs.push(AttemptRun {
            tasks: Some(Span { first: task, last: task }),
            attempt: active.attempt,
            epoch: active.epoch,
            state: active.state.into(),
            since_ms: active.since_ms,
            node: active.node,
        });
    }
    let row = BlockRow {
        completed: block.completed.to_proto(),
        failed: block.failed.to_proto(),
        cancelled: block.cancelled.to_proto(),
        active: runs,
        notes: std::mem::take(&mut block.notes).into_values().collect(),
        generation,
        ranks: std::mem::take(&mut block.ranks).into_values().collect(),
    };
    let bytes = row.encode_to_vec();
    block.notes = row.notes.into_iter().map(|note| (note.task, note)).collect();
    block.ranks = row.ranks.into_iter().map(|end| (end.rank, end)).collect();
    bytes.into()
}

fn is_run_of(run: &AttemptRun, active: &Active) -> bool {
    run.attempt == active.attempt
        && run.epoch == active.epoch
        && run.state() == active.state
        && run.since_ms == active.since_ms
        && run.node == active.node
}

/// About what a block's row takes.
pub(super) fn weight(block: &Block) -> usize {
    let spans = block.completed.runs() + block.failed.runs() + block.cancelled.runs();
    let artifacts: usize = block.ranks.values().map(rank_weight).sum();
    64 + spans * 10 + block.active.len() * 32 + block.notes.len() * 110 + artifacts
}

fn rank_weight(end: &RankEnd) -> usize {
    32 + end.artifacts.iter().map(|artifact| artifact.path.len() + 90).sum::<usize>()
}

/// Reads a row, whatever its generation.
pub(super) fn decode(row: BlockRow, step: &StepState) -> Block {
    let mut block = Block::default();
    if row.generation < step.reset_generation {
        return block;
    }
    block.completed = Spans::from_proto(&row.completed);
    if row.generation < step.generation {
        return block;
    }
    block.failed = Spans::from_proto(&row.failed);
    block.cancelled = Spans::from_proto(&row.cancelled);
    for run in &row.active {
        let Some(span) = run.tasks else { continue };
        let active = Active {
            attempt: run.attempt,
            epoch: run.epoch,
            node: run.node,
            state: if run.state() == State::Running { State::Running } else { State::Staging },
            since_ms: run.since_ms,
            order: 0,
        };
        // A row holds no more tasks than its block.
        for task in (span.first..=span.last).take(crate::limits::BLOCK_TASKS as usize) {
            block.active.insert(task, Active { order: task, ..active });
        }
    }
    block.notes = row.notes.into_iter().map(|note| (note.task, note)).collect();
    block.ranks = row.ranks.into_iter().map(|end| (end.rank, end)).collect();
    block
}

/// What `fresh` is once all blocks are read: pending tasks without a note.
/// Noted ones wait in `retries`, as long as is said of each.
pub(super) fn pending(
    run: &mut StepRun,
    step: &StepState,
    now_mono_ms: u64,
    mut wait_ms: impl FnMut(&TaskNote) -> u64,
) {
    run.fresh = Spans::new();
    run.retries.clear();
    if step.rest() == State::Cancelled || run.tasks == 0 {
        return;
    }
    run.fresh.insert_range(0, run.tasks - 1);
    for block in run.blocks.values() {
        for set in [&block.completed, &block.failed, &block.cancelled] {
            run.fresh.remove_all(set);
        }
        for task in block.active.keys() {
            run.fresh.remove(*task);
        }
        for note in block.notes.values() {
            if run.fresh.remove(note.task) {
                world::mark!("controller.start.retry_waits");
                run.retries.insert((now_mono_ms + wait_ms(note), note.task));
            }
        }
    }
}

/// What remains of a note once its task completed: the number of attempts.
pub(super) fn completed_note(note: &TaskNote) -> TaskNote {
    TaskNote { task: note.task, attempts: note.attempts, ..TaskNote::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Artifact, Cause};

    #[test]
    fn a_block_weighs_about_what_its_row_takes() {
        let ends = || (0..100).map(|task| task * 40);
        let spans = || {
            let mut spans = Spans::new();
            ends().for_each(|task| {
                spans.insert(task);
            });
            spans
        };
        let active = |task| Active {
            attempt: 1,
            epoch: 300,
            node: 2,
            state: State::Running,
            since_ms: 1 << 40,
            order: task,
        };
        let text = "exited with code 1, as it says".to_owned();
        let note = |task| {
            let cause = Cause { text: text.clone(), node: "node-17".to_owned(), ..Cause::default() };
            TaskNote { task, attempts: 2, own_failures: 1, last: Some(cause), ..TaskNote::default() }
        };
        let artifact =
            Artifact { path: "out/of/it".to_owned(), digest: "7".repeat(64), ..Artifact::default() };
        let rank = |rank| RankEnd { rank, artifacts: vec![artifact.clone(); 3], ..RankEnd::default() };
        let blocks = [
            Block { completed: spans(), ..Block::default() },
            Block { failed: spans(), ..Block::default() },
            Block { cancelled: spans(), ..Block::default() },
            Block { active: ends().map(|task| (task, active(task))).collect(), ..Block::default() },
            Block { notes: ends().map(|task| (task, note(task))).collect(), ..Block::default() },
            Block { ranks: (0..100).map(|number| (number, rank(number))).collect(), ..Block::default() },
        ];
        for (number, mut block) in blocks.into_iter().enumerate() {
            let (weight, bytes) = (weight(&block), encode(&mut block, 1).len());
            assert!((bytes..=3 * bytes).contains(&weight), "block {number}: {weight} for {bytes} bytes");
        }
    }
}
