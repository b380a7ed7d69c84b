//! What the controller takes at most, and what happens there.

/// Rows a transaction may change before the rest is left to the next step.
/// What one piece of work can add on top stays below `TXN_WRITES_MAX`.
pub const TXN_WRITES_SOFT: usize = 64;
/// Rows a transaction never exceeds (a store commit takes 128 operations).
pub const TXN_WRITES_MAX: usize = 100;
/// Bytes (estimated) a transaction may hold before the rest is left to the next
/// step. The largest block adds less than half a MiB to it.
pub const TXN_BYTES_SOFT: usize = 256 << 10;
/// Tasks of one block row.
pub const BLOCK_TASKS: u64 = proto::limits::BLOCK_TASKS;
/// Live jobs of one tenant; further ones are refused with `limit.live_jobs`.
pub const LIVE_JOBS_PER_TENANT_MAX: usize = 200_000;
/// Live jobs of all tenants; further ones are refused with `limit.live_jobs`.
pub const LIVE_JOBS_MAX: usize = 1_000_000;
/// Ranks of a gang; more are refused with `limit.ranks`.
pub const GANG_RANKS_MAX: u64 = 4096;
/// Nodes; a further one is refused with `limit.nodes`.
pub const NODES_MAX: usize = 50_000;
/// Idempotency keys remembered in memory beside their rows: those whose rows
/// may not be durable yet. The oldest is forgotten.
pub const RECENT_KEYS_MAX: usize = 100_000;
/// Ends of jobs remembered in memory beside their rows, likewise.
pub const RECENT_ENDS_MAX: usize = 65_536;
/// Ended jobs of a tenant remembered by when they expire; of more the rows are looked
/// through when these are done with.
pub const RETAINED_MAX: usize = 1_000_000;
/// Jobs told at once to be due, of one tenant in each of three kinds …
pub const DUE_PER_TENANT: usize = 16;
/// … and of all, about.
pub const DUE_MAX: usize = 256;
/// Manifests and checkpoints of a job that expired that go in one commit.
pub const ROWS_PER_EXPIRY: usize = 32;
/// Pieces of work that wait because a transaction was full. At the limit
/// submissions, cancels and retries are refused with `limit.busy`.
pub const BACKLOG_MAX: usize = 4096;
/// Tenants of one telling of what clients moved.
pub const MOVED_TENANTS_MAX: usize = 32;
/// Uploads of one telling, of all its tenants: with their ledgers, and a shard's guard and
/// row for each, they fit a commit.
pub const UPLOADS_PER_BOOKING: usize = 16;
/// Artifacts of one task or rank; more fail the attempt.
pub const ARTIFACTS_PER_TASK_MAX: usize = 2048;
/// Artifacts of a whole gang, kept in its block row until all ranks have ended.
pub const ARTIFACTS_PER_GANG_MAX: usize = 4096;
/// Bytes of artifacts (paths and digests) of one task.
pub const ARTIFACT_BYTES_MAX: usize = 256 << 10;
/// Checkpoints of one rank that are kept at most, while others of its gang are behind.
pub const CHECKPOINTS_PER_RANK_MAX: usize = 8;
/// Digests remembered of one rank as being taken away.
pub const RELEASED_PER_RANK_MAX: usize = 64;
/// Jobs that may follow the tasks of one job's array, each task its like; a
/// further one is refused with `limit.followers`.
pub const FOLLOWERS_MAX: usize = 64;
/// Runs of ordinals in which the tasks of two arrays have the same index, and
/// pieces these may come to; what needs more is refused with `limit.pairs`.
pub const PAIR_RUNS_MAX: usize = 4096;
/// See [`PAIR_RUNS_MAX`].
pub const PAIR_PIECES_MAX: u64 = 65_536;
/// Bytes of a cause's text in an event or a state.
pub const CAUSE_TEXT_BYTES_MAX: usize = 512;
/// Bytes of a cause's text in a task's note.
pub const NOTE_TEXT_BYTES_MAX: usize = 120;
/// Notes of one block that keep their text; further ones go without.
pub const NOTES_WITH_TEXT_MAX: usize = 512;
/// Nodes that a task's note remembers to avoid; the oldest is forgotten.
pub const AVOID_MAX: usize = 3;
/// Tasks named in one Assign or Stop frame; more go into further frames.
pub const TASKS_PER_FRAME_MAX: usize = 1024;
/// Runs of tasks that one event may name; more go into further events.
pub const SPANS_PER_EVENT_MAX: usize = 4096;
/// Runs of tasks that one retry by a user may set waiting again; more are
/// refused with `limit.retry`.
pub const SPANS_PER_RETRY_MAX: usize = 32_768;
/// Blocks that one transaction of a cancel may change.
pub const BLOCKS_PER_CANCEL_MAX: usize = 8;
/// The longest an attempt may claim to have run, for the ledger's sake.
pub const WALL_MS_MAX: u64 = 366 * 24 * 3_600_000;
/// Durations kept of one step's tasks that completed, to tell stragglers by; the oldest is
/// forgotten.
pub const PACE_KEPT_MAX: usize = 128;
/// Between two looks for stragglers at a step whose tasks run.
pub const PACE_LOOK_MS: u64 = 5_000;
/// So many must have completed before a task can be one for the time it has run …
pub const STRAGGLER_COMPLETED_MIN: usize = 5;
/// … and so many others must be known before it can be one by its own word.
pub const STRAGGLER_OTHERS_MIN: usize = 3;
/// What has run shorter is none.
pub const STRAGGLER_RAN_MS_MIN: u64 = 10_000;
/// What takes more than so many times the median is one.
pub const STRAGGLER_TIMES: u64 = 2;
/// Stragglers of one step that the operator's log has; further ones are only shown.
pub const STRAGGLERS_LOGGED_MAX: usize = 8;
/// Stragglers of one step that are told with its job, the slowest.
pub const STRAGGLERS_TOLD_MAX: usize = 8;
/// Alerts kept, those that are on and those that were cleared.
pub const ALERTS_KEPT_MAX: usize = 1024;

/// Nodes that a pool's driver is asked for, or to remove, at once.
pub const SCALE_ASK_NODES_MAX: usize = 128;
/// Nodes of a pool that grows by need.
pub const SCALE_NODES_MAX: u32 = 1024;
/// After a driver's first failure; doubles.
pub const SCALE_BACKOFF_MS: u64 = 5_000;
/// See [`SCALE_BACKOFF_MS`].
pub const SCALE_BACKOFF_MS_MAX: u64 = 300_000;
/// So many failures in a row are worth telling.
pub const SCALE_FAILURES_TOLD: u32 = 3;
/// Tasks of one grant that schedulers are told could give way.
pub const YIELDING_TASKS_MAX: usize = 256;
/// Between two looks at what of one grant could give way, at least.
pub const YIELDING_LOOK_MS: u64 = 200;
