//! What a store takes at most. etcd's own defaults are the measure.

/// Guards plus writes of one commit.
pub const COMMIT_OPERATIONS_MAX: usize = 128;
/// Keys plus values of one commit, guards and writes together.
pub const COMMIT_BYTES_MAX: usize = 1 << 20;
/// Bytes of one key; a key has at least one.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// Rows of one page.
pub const RANGE_ROWS_MAX: usize = 1000;
/// Keys plus values of one page: a page ends early (with `more` set) before it
/// passes this, though it always holds one row. Keeps a page below gRPC's
/// customary 4 MiB.
pub const RANGE_BYTES_MAX: usize = 2 << 20;
/// Notices a watcher may be behind before it is cut off.
pub const WATCH_QUEUE: usize = 4096;
/// Watches of one store; a further one is refused.
pub const WATCHES_MAX: usize = 1024;
/// Commits in line for the writer at which `RedbStore::ready` makes its caller
/// wait. A commit that comes all the same still gets its place in line.
pub const COMMIT_QUEUE: usize = 4096;
/// Commits in line at which a further one is answered `Unavailable` at once.
pub const COMMIT_QUEUE_MAX: usize = 65_536;
/// Bytes in line at which a further commit is answered `Unavailable` at once.
pub const COMMIT_QUEUE_BYTES_MAX: usize = 256 << 20;
/// Commits that share one sync.
pub const GROUP_COMMITS_MAX: usize = 1024;
/// Bytes of commits that share one sync; one more commit may pass it.
pub const GROUP_BYTES_MAX: usize = 16 << 20;
/// Leases alive at once.
pub const LEASES_MAX: usize = 10_000;
/// Rows hung on one lease: they all vanish in one commit.
pub const LEASE_ROWS_MAX: usize = 1000;
/// Bytes of a lease owner's name.
pub const LEASE_OWNER_BYTES_MAX: usize = 256;
/// The longest time to live of a lease: a day.
pub const LEASE_TTL_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Longest sleep of the writer while a lease lives, so that a node's clock that
/// runs faster than the sleep still sees a lease end this close to its time.
pub const LEASE_LOOK_MS_MAX: u64 = 1000;
/// How long a disk that was found full counts as full before the next try.
pub const REOPEN_PAUSE_MS: u64 = 1000;
/// How long a remote store waits for an answer, its place in line included.
pub const REMOTE_DEADLINE_MS: u64 = 10_000;
