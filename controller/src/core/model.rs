//! The shapes the core thinks in. Rows stay rows where they are small (job,
//! state, ledger, grant, node); tasks are kept as sets of runs.

use crate::limits::BLOCK_TASKS;
use proto::spans::Spans;
use proto::v1::{
    Artifact, Cause, CauseKind, CheckpointRow, Dependency, GrantRow, JobRow, JobStateRow, LedgerRow, NodeRow,
    RankEnd, Resources, State, StepState, TaskNote, TenantRow,
};
use std::collections::{BTreeMap, BTreeSet};

use super::expiry::Retained;
use super::pace::Pace;
use super::pairs::Pairs;
use super::progress::{Said, Staged};
use super::retry::Bucket;
use super::types::Resources64;
use super::watched::Watched;

/// Names a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub tenant: String,
    pub number: u64,
    pub step: u32,
    pub task: u64,
}

pub(super) struct Tenant {
    pub row: TenantRow,
    /// False while only other rows of it were loaded.
    pub known: bool,
    pub ledger: LedgerRow,
    pub jobs: Watched<u64, Job>,
    pub grants: Watched<u64, Grant>,
    /// The highest grant epoch seen: what comes later with a lower one and is
    /// not in `grants` was released long ago.
    pub epoch_seen: u64,
    /// Sum of the grants.
    pub held: Holding,
    /// Job to the jobs that wait for its end.
    pub waiters: BTreeMap<u64, BTreeSet<u64>>,
    /// Job, step and task to the jobs that wait for its end.
    pub task_waiters: BTreeMap<(u64, u32, u64), BTreeSet<u64>>,
    /// Job to the jobs with gates on its tasks.
    pub followers: BTreeMap<u64, BTreeSet<u64>>,
    pub retries: Bucket,
    /// Its ended jobs, as far as anything of them is to go.
    pub retained: Retained,
}

pub(super) struct Job {
    pub row: JobRow,
    pub state: JobStateRow,
    pub steps: Vec<StepRun>,
    /// Jobs whose end it still waits for, with the kind of end.
    pub waits: BTreeMap<u64, i32>,
    /// Single tasks of others whose end it still waits for.
    pub task_waits: BTreeSet<TaskWait>,
    /// A timer to repeat Stop frames is set.
    pub stop_timer: bool,
}

/// A task of another job that must have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskWait {
    pub on: u64,
    pub step: u32,
    pub task: u64,
    /// The kind of end.
    pub kind: i32,
    /// As its user calls it.
    pub index: u64,
}

/// Another job's array that a step follows task by task.
pub(super) struct Gate {
    pub on: u64,
    pub step: u32,
    /// That step's.
    pub name: String,
    pub pairs: Pairs,
    /// Ours that have not begun and whose like has not ended.
    pub shut: Spans,
}

/// What of a step is not in its `StepState`.
pub(super) struct StepRun {
    pub tasks: u64,
    pub gang: Option<GangShape>,
    /// Indexes of the steps it comes after, and of those that come after it.
    pub after: Vec<u32>,
    pub before: Vec<u32>,
    pub max_running: u64,
    pub blocks: BTreeMap<u64, Block>,
    /// Pending, and nothing speaks against trying now.
    pub fresh: Spans,
    /// Pending, and wait for a task of another job; see `gates`.
    pub gated: Spans,
    /// Pending, and to be cancelled, by why: what they waited for cannot be.
    pub doomed: BTreeMap<String, Spans>,
    pub gates: Vec<Gate>,
    /// Pending, not before an instant (monotonic).
    pub retries: BTreeSet<(u64, u64)>,
    pub retry_timer: Option<u64>,
    pub grants: BTreeSet<u64>,
    pub granted_slots: u64,
    /// Outputs by task and rank; only where a later step may read them.
    pub outputs: BTreeMap<(u64, u32), Vec<Artifact>>,
    /// By task and rank.
    pub checkpoints: BTreeMap<(u64, u32), CheckpointRow>,
    /// Digests that their rows named and that are being taken away.
    pub released: BTreeMap<(u64, u32), BTreeSet<String>>,
    /// In no row; see `pace`.
    pub pace: Pace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GangShape {
    pub nodes: u32,
    pub per_node: u32,
}

#[derive(Default)]
pub(super) struct Block {
    pub completed: Spans,
    pub failed: Spans,
    pub cancelled: Spans,
    pub active: BTreeMap<u64, Active>,
    pub notes: BTreeMap<u64, TaskNote>,
    pub ranks: BTreeMap<u32, RankEnd>,
    /// Of active tasks alone, and in no row; see `progress`.
    pub said: BTreeMap<u64, Said>,
    /// Likewise, of those in STAGING.
    pub staging: BTreeMap<u64, Staged>,
}

/// One live attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Active {
    pub attempt: u32,
    pub epoch: u64,
    /// Index into the grant's nodes.
    pub node: u32,
    pub state: State,
    pub since_ms: u64,
    /// Grows with every binding: the order in which an agent runs its queue.
    pub order: u64,
}

pub(super) struct Grant {
    pub row: GrantRow,
    /// Tasks bound to each of its nodes; a gang's task to all of them.
    pub bound: Vec<BTreeSet<u64>>,
    /// No new task after this instant (monotonic).
    pub feed_until_ms: u64,
    /// True until it was fed for the first time.
    pub new: bool,
    pub gang: Option<GangRun>,
}

/// The ranks of a gang's live attempt.
pub(super) struct GangRun {
    pub ranks: Vec<Rank>,
    /// Why it will not succeed.
    pub failure: Option<Cause>,
    /// All ranks ended well; manifests are being written.
    pub committing: bool,
    /// It gives way, and all ranks have kept a last checkpoint.
    pub saved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    Bound,
    Started,
    Ended,
}

pub(super) struct Node {
    pub row: NodeRow,
    /// The current session's stream is open, as far as known.
    pub connected: bool,
    pub heard_ms: u64,
    /// When its lease was last renewed.
    pub answered_ms: u64,
    /// Its entry in the core's `node_deadlines`.
    pub deadline_ms: Option<u64>,
    pub lost_ms: u64,
    pub grants: BTreeSet<(String, u64)>,
    /// Launches and stagings that failed, in a row, and up to two of their jobs.
    pub streak: u32,
    pub streak_jobs: BTreeSet<(String, u64)>,
}

impl Grant {
    pub(super) fn idle(&self) -> bool {
        self.bound.iter().all(BTreeSet::is_empty)
    }

    pub(super) fn slots(&self) -> u64 {
        self.row.nodes.iter().map(|node| u64::from(node.slots)).sum()
    }

    pub(super) fn held(&self) -> Holding {
        if self.row.whole.is_empty() {
            return Holding::of(&self.row.per_slot.unwrap_or_default(), self.slots());
        }
        let mut held = Holding::default();
        self.row.whole.iter().for_each(|whole| held.add(Holding::of(whole, 1)));
        held
    }

    /// Ranks on a node of a gang's grant: `[first, first + count)`.
    pub(super) fn ranks_of(&self, node: usize) -> (u32, u32) {
        let first = self.row.nodes.iter().take(node).map(|node| node.slots).sum();
        (first, self.row.nodes.get(node).map_or(0, |node| node.slots))
    }

    /// No rank of the gang has started or ended on this node.
    pub(super) fn unbegun(&self, node: usize) -> bool {
        let (first, count) = self.ranks_of(node);
        let ranks = self.gang.iter().flat_map(|gang| &gang.ranks);
        ranks.skip(first as usize).take(count as usize).all(|rank| *rank == Rank::Bound)
    }

    /// The node that a rank runs on.
    pub(super) fn node_of_rank(&self, rank: u32) -> Option<usize> {
        let mut before = 0;
        self.row.nodes.iter().position(|node| {
            before += node.slots;
            rank < before
        })
    }

    pub(super) fn node_name(&self, node: u32) -> &str {
        self.row.nodes.get(node as usize).map_or("", |node| node.node.as_str())
    }
}

/// What grants hold together, exactly. A slot may be of any size: a sum that
/// stops at the largest number is another one after what is large was taken away
/// again. One grant is below 2^96 for each of its nodes, so 128 bits are enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holding {
    millicores: u128,
    memory_bytes: u128,
    gpus: u128,
}

impl Holding {
    pub(super) fn of(each: &Resources, times: u64) -> Self {
        let times = u128::from(times);
        Self {
            millicores: u128::from(each.millicores) * times,
            memory_bytes: u128::from(each.memory_bytes) * times,
            gpus: u128::from(each.gpus) * times,
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.millicores += other.millicores;
        self.memory_bytes += other.memory_bytes;
        self.gpus += other.gpus;
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.millicores -= other.millicores;
        self.memory_bytes -= other.memory_bytes;
        self.gpus -= other.gpus;
    }

    /// As admission is told; what does not fit there is the largest that does.
    pub(super) fn told(self) -> Resources64 {
        let told = |sum: u128| u64::try_from(sum).unwrap_or(u64::MAX);
        Resources64 {
            millicores: told(self.millicores),
            memory_bytes: told(self.memory_bytes),
            gpus: told(self.gpus),
        }
    }
}

impl StepRun {
    pub(super) fn block_of(task: u64) -> u64 {
        task / BLOCK_TASKS
    }

    pub(super) fn active(&self, task: u64) -> Option<&Active> {
        self.blocks.get(&Self::block_of(task))?.active.get(&task)
    }

    pub(super) fn note(&self, task: u64) -> Option<&TaskNote> {
        self.blocks.get(&Self::block_of(task))?.notes.get(&task)
    }

    /// Slots that further grants may hold.
    pub(super) fn slots_free(&self) -> u64 {
        if self.max_running == 0 { u64::MAX } else { self.max_running.saturating_sub(self.granted_slots) }
    }

    pub(super) fn ready_retries(&self, now_ms: u64) -> u64 {
        self.retries.range(..=(now_ms, u64::MAX)).count() as u64
    }
}

impl Job {
    /// One that waits for nothing yet.
    pub(super) fn new(row: JobRow, state: JobStateRow, steps: Vec<StepRun>) -> Self {
        Self { row, state, steps, waits: BTreeMap::new(), task_waits: BTreeSet::new(), stop_timer: false }
    }

    /// A step may run: the job waits for nothing and all before it completed.
    pub(super) fn ready(&self, step: u32) -> bool {
        let Some(run) = self.steps.get(step as usize) else { return false };
        self.waits.is_empty()
            && self.task_waits.is_empty()
            && !self.state.cancel_requested
            && !over(self.step_state(step))
            && run.after.iter().all(|before| self.step_state(*before) == State::Completed)
    }

    /// What it comes after.
    pub(super) fn after(&self) -> &[Dependency] {
        self.row.spec.as_ref().map(|spec| spec.after.as_slice()).unwrap_or_default()
    }

    pub(super) fn step_state(&self, step: u32) -> State {
        self.state.steps.get(step as usize).map_or(State::Unspecified, StepState::state)
    }

    pub(super) fn over(&self) -> bool {
        over(self.state.state())
    }
}

/// The state is one of the three ends.
pub(super) fn over(state: State) -> bool {
    matches!(state, State::Completed | State::Failed | State::Cancelled)
}

/// The edges of the machine between two states, without the first. What jumps
/// (an end whose start was never heard of) takes the edges in between.
pub(super) fn path(from: State, to: State) -> &'static [State] {
    use State::{Cancelled, Completed, Failed, Pending, Running, Staging};
    match (from, to) {
        (Pending, Running) => &[Staging, Running],
        (Pending, Completed) => &[Staging, Running, Completed],
        (Pending, Failed) => &[Staging, Running, Failed],
        (Staging, Completed) => &[Running, Completed],
        (Staging, Failed) => &[Running, Failed],
        (Staging, Cancelled) => &[Pending, Cancelled],
        (_, Pending) => &[Pending],
        (_, Staging) => &[Staging],
        (_, Running) => &[Running],
        (_, Completed) => &[Completed],
        (_, Failed) => &[Failed],
        (_, Cancelled) => &[Cancelled],
        (_, State::Unspecified) => &[],
    }
}

/// What the edges in between are put down to.
pub(super) fn passing(to: State) -> Cause {
    let kind = match to {
        State::Staging => CauseKind::Granted,
        State::Running => CauseKind::Started,
        _ => CauseKind::Requeued,
    };
    cause(kind, "")
}

pub(super) fn cause(kind: CauseKind, text: impl Into<String>) -> Cause {
    Cause { kind: kind.into(), text: text.into(), ..Cause::default() }
}

/// Cuts a text between characters.
pub(super) fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let mut end = bytes_max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

/// So that rows of an older version, or none, read the same.
pub(super) fn ledger_of(mut row: LedgerRow) -> LedgerRow {
    row.next_job_number = row.next_job_number.max(1);
    row.next_event_seq = row.next_event_seq.max(1);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        let cut_at = |bytes| {
            let mut text = "a€b".to_owned();
            cut(&mut text, bytes);
            text
        };
        assert_eq!([0, 1, 2, 3, 4, 5, 9].map(cut_at), ["", "a", "a", "a", "a€", "a€b", "a€b"]);
    }

    #[test]
    fn what_is_held_is_that_of_one_so_many_times() {
        let each = Resources { millicores: 2, memory_bytes: 3, gpus: 4 };
        let Holding { millicores, memory_bytes, gpus } = Holding::of(&each, 5);
        assert_eq!((millicores, memory_bytes, gpus), (10, 15, 20));
    }
}
