//! Every limit of the supervisor and its client, named; what happens at each
//! is said beside it.

/// Version of the words on the socket. Fields may be added to messages; a
/// change of meaning raises it, and the supervisor then refuses the client.
pub const VERSION: u32 = 1;

/// Processes kept, running or ended. A further launch fails.
pub const PROCESSES_MAX: usize = 65_536;
/// Bytes of one launch's context. A longer one fails the launch.
pub const CONTEXT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of all contexts kept. A launch past it fails.
pub const CONTEXTS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of one frame. A client that announces a longer one is cut off.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A frame of commands or of a listing is closed once it has so many bytes.
pub const FRAME_BYTES_FULL: usize = 1024 * 1024;
/// Unsent bytes to a client; past it nothing more is read from it.
pub const OUTPUT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Untold reports; past it nothing more is read from the client.
pub const NEWS_MAX: usize = 4 * PROCESSES_MAX;
/// Reports of one frame.
pub const REPORTS_PER_FRAME: usize = 1024;
/// Commands waiting; past it nothing more is read from the client. One frame
/// may carry it over.
pub const COMMANDS_WAITING_MAX: usize = 4096;
/// Bytes of contexts in waiting commands; likewise.
pub const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Commands done between two looks at everything else.
pub const COMMANDS_PER_TURN: usize = 64;
/// Bytes read at once.
pub const READ_BYTES: usize = 64 * 1024;
/// Reads of a replaced connection before it is given up; far more than its
/// socket's buffer holds.
pub const FAREWELL_READS_MAX: usize = 64;
/// How long an end waits for the rest of its process group to be gone after
/// SIGKILL.
pub const GROUP_END_MS_MAX: u64 = 2_000;
/// How long the supervisor's own end waits for its processes.
pub const EXIT_MS_MAX: u64 = 5_000;
/// After a failed accept (no descriptors left, say).
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// Longest path of a Unix socket, without its closing zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Longest name of the socket in its directory.
pub const SOCKET_NAME_BYTES_MAX: usize = 64;
/// While a task with a memory limit is spawned the supervisor itself is under
/// that limit; it is kept at least so far above what the supervisor holds:
/// more than it can come to hold before the next launch looks again.
pub const OWN_MEMORY_MARGIN_BYTES: u64 = 64 * 1024 * 1024;
/// Threads that launch, one a core up to so many.
pub const LAUNCHERS_MAX: usize = 4;
/// Stack of each.
pub const LAUNCHER_STACK_BYTES: usize = 256 * 1024;
/// Launches handed to the launching threads; past it commands wait.
pub const LAUNCHES_UNDER_WAY_MAX: usize = 32;

/// Client: deadline of a supervisor's start, connection included.
pub const START_MS_MAX: u64 = 10_000;
/// Client: deadline of a connection and its greeting.
pub const GREETING_MS_MAX: u64 = 2_000;
/// Client: deadline of handing commands over, and of a listing.
pub const CALL_MS_MAX: u64 = 10_000;
/// Client: first pause between two attempts to connect to a starting supervisor.
pub const CONNECT_PAUSE_MS_MIN: u64 = 1;
/// Client: the last such pause.
pub const CONNECT_PAUSE_MS_MAX: u64 = 50;
/// Client: first pause between two attempts to replace a lost supervisor.
pub const REPLACE_PAUSE_MS_MIN: u64 = 200;
/// Client: the last such pause.
pub const REPLACE_PAUSE_MS_MAX: u64 = 10_000;
/// Client: reports not fetched by `next`; past it nothing more is read from
/// the supervisor, which then stops reading commands.
pub const REPORTS_HELD_MAX: usize = NEWS_MAX;
