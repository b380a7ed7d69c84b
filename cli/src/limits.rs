//! What a command waits for and reads at most.

use world::time::{Duration, ms};

/// For a connection to a named server.
pub const CONNECT_DEADLINE: Duration = ms(5_000);
/// For a connection to one of several.
pub const CONNECT_DEADLINE_OF_SEVERAL: Duration = ms(2_000);
/// How long a call looks for the one that serves of several servers: as long as it takes
/// one to take over from another that died, and some.
pub const TAKE_OVER_DEADLINE: Duration = ms(20_000);
/// For the answer to one call; longer than the server allows itself.
pub const CALL_DEADLINE: Duration = ms(40_000);
/// Between two looks at a job that is waited for: first and longest.
pub const POLL_FIRST: Duration = ms(20);
/// See [`POLL_FIRST`].
pub const POLL_LONGEST: Duration = ms(500);
/// Between two frames of the progress line.
pub const FRAME: Duration = ms(120);
/// How long a follower tries to come back to a server that went away.
pub const RECONNECT_MS_MAX: u64 = 60_000;
/// Between two such tries.
pub const RECONNECT_PAUSE: Duration = ms(500);
/// How long the rest of a log is waited for once its job is over.
pub const LOG_END_DEADLINE: Duration = ms(15_000);
/// Messages between a stream and whoever prints it.
pub const FOLLOW_QUEUE: usize = 256;
/// Bytes of one message from the server.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// For the answer to a question of the console; a person waits.
pub const CONSOLE_DEADLINE: Duration = ms(10_000);
/// Messages between the server and the console; streams wait when it is full.
pub const CONSOLE_QUEUE: usize = 256;
/// Between two frames of the console that no key asked for.
pub const CONSOLE_FRAME: Duration = ms(33);
/// How long the console sleeps at most.
pub const CONSOLE_REST_MS_MAX: u64 = 3_600_000;
/// Failed tasks told one by one.
pub const FAILURES_SHOWN_MAX: usize = 20;
/// Tasks asked for at once.
pub const TASKS_PAGE: u32 = 1000;
/// Jobs asked for at once.
pub const JOBS_PAGE: u32 = 500;
/// Jobs that squeue, scancel and singleton look at.
pub const QUEUE_JOBS_MAX: usize = 100_000;
/// Tasks of one array that squeue tells apart; above that it is one line.
pub const QUEUE_TASKS_MAX: u64 = 20_000;
/// Waiting jobs that squeue asks the reason of.
pub const QUEUE_REASONS_MAX: usize = 100;
/// Downloads at the same time.
pub const DOWNLOADS_MAX: usize = 8;
/// Files of a directory that are sent at the same time.
pub const UPLOADS_MAX: usize = 8;
/// Files of a directory that are asked for at the same time, whether they are there.
pub const ASKS_MAX: usize = 16;
/// Tries of one transfer that broke.
pub const TRANSFER_TRIES: u32 = 3;
/// Bytes of a configuration file.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Bytes read at once while digesting.
pub const DIGEST_CHUNK_BYTES: usize = 256 << 10;
/// For embedded parts to end when told to.
pub const STOP_DEADLINE: Duration = ms(10_000);
/// Bytes of a workload log, unpacked.
pub const LOG_BYTES_MAX: u64 = 1 << 30;

/// Bytes of a question to the driver of this machine's agents.
pub const QUESTION_BYTES_MAX: u64 = 256 << 10;
/// How long it waits for another one that works on the same nodes.
pub const DRIVER_LOCK_DEADLINE: Duration = ms(40_000);
/// Between two looks whether that one is done.
pub const DRIVER_LOOK: Duration = ms(20);
/// An agent that runs so long after its start stays.
pub const DRIVER_AGENT_STAYS: Duration = ms(300);
/// Between asking an agent to end and ending it.
pub const DRIVER_GRACE: Duration = ms(10_000);
