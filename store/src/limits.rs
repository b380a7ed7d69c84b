//! What a store takes at most. etcd's own defaults are the measure.

/// Guards plus writes of one commit.
pub const COMMIT_OPERATIONS_MAX: usize = 128;
/// Keys plus values of one commit.
pub const COMMIT_BYTES_MAX: usize = 1 << 20;
/// Bytes of one key.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// Rows of one page.
pub const RANGE_ROWS_MAX: usize = 1000;
/// Notices a watcher may be behind before it is cut off.
pub const WATCH_QUEUE: usize = 4096;
/// Commits waiting for the writer; a further one waits.
pub const COMMIT_QUEUE: usize = 4096;
/// Commits that share one sync.
pub const GROUP_COMMITS_MAX: usize = 1024;
