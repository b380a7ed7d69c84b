//! The processes of a node: launched, signalled and waited for by something
//! that outlives the agent.
//!
//! The real side is a client of the node's supervisor (see
//! [`crate::real::supervisor`]); the simulated one plays small scripts. Either
//! keeps every process (running, or ended and not yet forgotten) with the
//! opaque `context` it was launched with, so that a restarted agent can take
//! its tasks over.

use async_trait::async_trait;
use std::path::PathBuf;

/// Names one process for ever: `tenant/job/step/task/rank/attempt/epoch`.
pub type ProcessKey = String;

/// What to launch, and within which limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// A key in use is refused with `LaunchFailed`.
    pub key: ProcessKey,
    /// Program and arguments; the program is looked up in the task's PATH.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    /// Made or truncated; stdin is empty.
    pub stdout: PathBuf,
    /// Made or truncated.
    pub stderr: PathBuf,
    /// Resource limits of the process and its children.
    pub limits: Limits,
    /// Handed back by [`Processes::list`]; at most 1 MiB.
    pub context: Vec<u8>,
}

/// Resource limits; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of private memory.
    pub memory_bytes: u64,
    /// Open files.
    pub open_files: u64,
}

/// What an agent asks of its node's processes. Commands of one call are done
/// in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Answered by `Started` or `LaunchFailed`.
    Launch(Box<Launch>),
    /// To the whole process group; unknown keys are passed over.
    Signal {
        /// Which process.
        key: ProcessKey,
        /// What to send.
        signal: Signal,
    },
    /// To the process itself and not to its group, if it runs: others of the group
    /// would end by a signal that they do not know. Unknown keys and signals are passed
    /// over.
    Nudge {
        /// Which process.
        key: ProcessKey,
        /// Such as `USR1`.
        signal: String,
    },
    /// Drops an ended process from the list; a running one is killed first.
    Forget {
        /// Which process.
        key: ProcessKey,
    },
    /// The dead man's switch: unless renewed within so many milliseconds, all
    /// processes are killed. The agent's lease, handed on.
    KeepAlive {
        /// From now.
        for_ms: u64,
    },
    /// This agent ends as it should. Once it is gone and nothing is held any
    /// more, the supervisor ends too, rather than wait for a next one; the hello
    /// of a next one takes this back.
    Retire,
}

/// The signals an agent sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Please end.
    Term,
    /// End.
    Kill,
}

/// What became of processes. Reports of one process come in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It runs.
    Started {
        /// Which process.
        key: ProcessKey,
        /// As the machine numbers it.
        pid: u32,
    },
    /// It never ran.
    LaunchFailed {
        /// Which process.
        key: ProcessKey,
        /// One line with the reason.
        error: String,
    },
    /// It ended; told once per connection and again after a reconnect until
    /// forgotten.
    Exited {
        /// Which process.
        key: ProcessKey,
        /// How and at what cost.
        exit: Exit,
    },
    /// The supervisor itself is gone with all it held.
    SupervisorLost,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// 0–255; meaningless where `signal` is set.
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// Final length of its standard output file.
    pub stdout_bytes: u64,
    /// Final length of its standard error file.
    pub stderr_bytes: u64,
    /// From launch to end.
    pub wall_ms: u64,
    /// User and system time of it and the children it waited for.
    pub cpu_ms: u64,
    /// Largest resident size; 0 where it was too small to be measured.
    pub max_rss_bytes: u64,
    /// It was killed by the dead man's switch.
    pub fenced: bool,
}

/// One process as [`Processes::list`] tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which process.
    pub key: ProcessKey,
    /// As given at launch.
    pub context: Vec<u8>,
    /// As the machine numbers it.
    pub pid: u32,
    /// Set once it ended.
    pub exit: Option<Exit>,
}

/// The door to processes is shut: the supervisor cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable(pub String);

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the node's supervisor cannot be reached: {}", self.0)
    }
}
impl std::error::Error for Unreachable {}

/// The processes of one node.
#[async_trait]
pub trait Processes: Send + Sync + std::fmt::Debug + 'static {
    /// All processes not yet forgotten, by key in order. Called first after a
    /// (re)start of the agent.
    async fn list(&self) -> Result<Vec<Record>, Unreachable>;
    /// Hands over commands; returns once the supervisor has them in order.
    async fn send(&self, commands: Vec<Command>) -> Result<(), Unreachable>;
    /// Waits for the next reports: at least one, all that are there. One caller.
    async fn next(&self) -> Vec<Report>;
}
