//! What is held and shown at most, and how often is asked.

/// Bytes of a line without an end before it is printed all the same.
pub const LINE_BYTES_MAX: usize = 64 << 10;
/// Streams whose last line has not ended yet; of further ones it is printed as
/// it is.
pub const LINES_HELD_MAX: usize = 4096;

/// Tenants whose jobs the console shows and whose history it follows, a stream
/// each.
pub const TENANTS_MAX: usize = 64;
/// Jobs the console holds; of more, the newest.
pub const JOBS_HELD_MAX: usize = 200_000;
/// Jobs asked for at once.
pub const JOBS_PER_PAGE: u32 = 1000;
/// Pages of jobs asked for at the same time.
pub const PAGES_IN_FLIGHT: usize = 4;
/// Changes of jobs not yet held, kept while a page is on its way; past them the
/// page is asked for again.
pub const LATE_MAX: usize = 65_536;
/// Entries of the history on the overview.
pub const EVENTS_KEPT: usize = 200;
/// Lines of the log of the job that is shown.
pub const LOG_LINES_KEPT: usize = 10_000;
/// Bytes of one such line.
pub const LOG_LINE_BYTES_MAX: usize = 4096;
/// Characters of a filter.
pub const FILTER_CHARS_MAX: usize = 64;
/// Columns that the log moves sideways at once.
pub const LOG_SHIFT: usize = 16;
/// Columns that it moves at most.
pub const LOG_SHIFT_MAX: usize = LOG_LINE_BYTES_MAX;

/// Between two looks at nodes and pools while they are shown, and while not.
pub const POLL_MS: u64 = 2_000;
/// See [`POLL_MS`].
pub const POLL_AWAY_MS: u64 = 10_000;
/// Between two looks at the tenants.
pub const POLL_TENANTS_MS: u64 = 10_000;
/// Between two looks at why a job waits, while that is shown.
pub const POLL_WHY_MS: u64 = 3_000;
/// Between two looks at jobs that change all the time.
pub const REFRESH_MS: u64 = 500;
/// Before a try that failed is repeated; doubles with each.
pub const BACKOFF_FIRST_MS: u64 = 500;
/// See [`BACKOFF_FIRST_MS`].
pub const BACKOFF_LONGEST_MS: u64 = 10_000;
/// Before what was refused is asked again.
pub const REFUSED_PAUSE_MS: u64 = 30_000;
/// A node not heard of for so long is shown with the time since.
pub const HEARD_LATE_MS: u64 = 12_000;
