//! What a job, a name or a refusal may be at most. Every door applies these;
//! nothing past the doors has to.

/// Bytes of an encoded job spec.
pub const SPEC_BYTES_MAX: usize = 512 << 10;
/// Bytes of a job file before it is parsed.
pub const JOB_FILE_BYTES_MAX: usize = 1 << 20;
/// Steps of one job: its state row, which holds them all, is rewritten whole.
pub const STEPS_MAX: usize = 256;
/// Tasks of one array, and of one job.
pub const TASKS_MAX: u64 = 10_000_000;
/// Comma-separated items of one array.
pub const ARRAY_ITEMS_MAX: usize = 1000;
/// The largest array index.
pub const ARRAY_INDEX_MAX: u64 = 1_000_000_000_000;
/// Tasks in one block row.
pub const BLOCK_TASKS: u64 = 4096;
/// Nodes of a gang.
pub const GANG_NODES_MAX: u32 = 4096;
/// Ranks of a gang on one node.
pub const GANG_TASKS_PER_NODE_MAX: u32 = 1024;
/// Ranks of a gang.
pub const GANG_RANKS_MAX: u64 = 65_536;
/// Millicores of one task or rank.
pub const MILLICORES_MAX: u32 = 4_096_000;
/// Bytes of memory of one task or rank.
pub const MEMORY_BYTES_MAX: u64 = 64 << 40;
/// GPUs of one task or rank.
pub const GPUS_MAX: u32 = 1024;
/// Any span of time a spec names: 366 days.
pub const SPAN_MS_MAX: u64 = 366 * 86_400_000;
/// Tries after the first of a task or gang.
pub const RETRIES_MAX: u32 = 100;
/// What `retries` is where a step does not tell.
pub const RETRIES_DEFAULT: u32 = 3;
/// What `cores` is where a step does not tell.
pub const MILLICORES_DEFAULT: u32 = 1000;
/// Priorities lie in -PRIORITY_MAX ..= PRIORITY_MAX.
pub const PRIORITY_MAX: i32 = 1000;
/// What a task is assumed to run where nobody told.
pub const ASSUMED_RUNTIME_MS: u64 = 600_000;

/// Bytes of a tenant's, node's, pool's, step's or input's name.
pub const NAME_BYTES_MAX: usize = 63;
/// Bytes of a job's name (any printable text).
pub const JOB_NAME_BYTES_MAX: usize = 128;
/// Inputs of one job.
pub const INPUTS_MAX: usize = 64;
/// Bytes of one input.
pub const INPUT_BYTES_MAX: u64 = 16 << 40;
/// Entries (files, directories, links) of the trees of one job.
pub const TREE_ENTRIES_MAX: usize = 65_536;
/// Bytes of the manifest of a tree.
pub const TREE_MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// Names in one path of a tree.
pub const TREE_DEPTH_MAX: usize = 32;
/// Bytes of one name in a tree: what file systems take.
pub const TREE_NAME_BYTES_MAX: usize = 255;
/// Output globs of one step.
pub const OUTPUTS_MAX: usize = 64;
/// Bytes of one path or glob.
pub const PATH_BYTES_MAX: usize = 1024;
/// Bytes of one URL.
pub const URL_BYTES_MAX: usize = 4096;
/// Environment variables of one step.
pub const ENV_MAX: usize = 256;
/// Bytes of one environment value.
pub const ENV_VALUE_BYTES_MAX: usize = 32 << 10;
/// Words of one argv.
pub const ARGV_WORDS_MAX: usize = 4096;
/// Bytes of one word of argv, or of a script: Linux takes 128 KiB a word.
pub const WORD_BYTES_MAX: usize = 120 << 10;
/// Tasks (or ranks) of one telling of progress, and of what is staged.
pub const PROGRESS_TASKS_MAX: usize = 256;
/// Bytes of the text that a task says with its progress; longer ones are cut.
pub const PROGRESS_TEXT_BYTES_MAX: usize = 120;
/// Bytes of the text that says what a task in STAGING waits for; longer ones are cut.
pub const STAGING_TEXT_BYTES_MAX: usize = 240;
/// All of a task's work, in hundredths of a percent.
pub const PROGRESS_BASIS_POINTS_MAX: u32 = 10_000;
/// The shortest span between two looks for a checkpoint.
pub const CHECKPOINT_EVERY_MS_MIN: u64 = 1_000;
/// What may ask a task for a checkpoint.
pub const CHECKPOINT_SIGNALS: &[&str] = &["USR1", "USR2", "HUP", "INT"];
/// That span where a step does not tell.
pub const CHECKPOINT_EVERY_MS_DEFAULT: u64 = 60_000;
/// Bytes of what a task calls a checkpoint.
pub const CHECKPOINT_LABEL_BYTES_MAX: usize = 64;
/// Files of one checkpoint of one rank.
pub const CHECKPOINT_FILES_MAX: usize = 128;
/// Bytes of the list of these files (paths and digests).
pub const CHECKPOINT_LIST_BYTES_MAX: usize = 16 << 10;
/// Labels of one job or node.
pub const LABELS_MAX: usize = 64;
/// Bytes of a label's value.
pub const LABEL_VALUE_BYTES_MAX: usize = 255;
/// Licenses that one step asks for.
pub const STEP_LICENSES_MAX: usize = 16;
/// Licenses that a cluster has.
pub const LICENSES_MAX: usize = 256;
/// Of one license.
pub const LICENSE_COUNT_MAX: u32 = 1_000_000;
/// Constraints of one step.
pub const CONSTRAINTS_MAX: usize = 32;
/// Jobs, or single tasks, that one job waits for.
pub const DEPENDENCIES_MAX: usize = 64;
/// Bytes of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// Bytes of a problem's field, which may be a name that the caller made up.
pub const PROBLEM_FIELD_BYTES_MAX: usize = 256;
/// Bytes of a problem's value; it travels in a header.
pub const PROBLEM_VALUE_BYTES_MAX: usize = 256;
/// Reservations of one node.
pub const RESERVATIONS_PER_NODE_MAX: usize = 16;
/// Tenants that one reservation lets in.
pub const RESERVATION_TENANTS_MAX: usize = 16;
/// Nodes whose reservations change in one commit.
pub const RESERVED_AT_ONCE: usize = 16;
/// Bytes of a problem's reason, and of its remedy.
pub const PROBLEM_TEXT_BYTES_MAX: usize = 1024;
