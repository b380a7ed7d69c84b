//! The words between an agent and its node's supervisor.
//!
//! A frame is its length (four bytes, little end first) and one prost message.
//! The client speaks first, with a [`Hello`]; the supervisor answers with a
//! [`Welcome`] or a [`Refused`]. What must hold: an agent and a supervisor of
//! different releases meet here, so numbers of fields are never reused, and
//! new fields must be safe to ignore.

use super::limits::{FRAME_BYTES_FULL, FRAME_BYTES_MAX};
use crate::processes as api;
use bytes::Bytes;
use prost::{Message, Oneof};

/// Client to supervisor.
#[derive(Clone, PartialEq, Message)]
pub struct FromClient {
    #[prost(oneof = "Said", tags = "1, 2, 3")]
    pub said: Option<Said>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Said {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Commands(Commands),
    #[prost(message, tag = "3")]
    List(List),
}

#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    #[prost(uint32, tag = "1")]
    pub version: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Commands {
    #[prost(message, repeated, tag = "1")]
    pub commands: Vec<Command>,
}

/// Asks for all records; `id` comes back with the answer.
#[derive(Clone, PartialEq, Message)]
pub struct List {
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Command {
    #[prost(oneof = "Order", tags = "1, 2, 3, 4, 5, 6")]
    pub order: Option<Order>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Order {
    #[prost(message, tag = "1")]
    Launch(Launch),
    #[prost(message, tag = "2")]
    Signal(Signal),
    #[prost(string, tag = "3")]
    Forget(String),
    /// Milliseconds of `CLOCK_BOOTTIME`: an instant, not a span, so that a
    /// command that lay in a buffer does not last longer than meant.
    #[prost(uint64, tag = "4")]
    KeepAliveUntil(u64),
    /// Its client ends for good: nothing is to be waited for.
    #[prost(message, tag = "5")]
    Retire(Retire),
    /// No kind of [`Signal`]: a supervisor of an earlier version would send TERM.
    #[prost(message, tag = "6")]
    Nudge(Nudge),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Retire {}

#[derive(Clone, PartialEq, Message)]
pub struct Launch {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, repeated, tag = "2")]
    pub argv: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub env: Vec<Variable>,
    #[prost(bytes = "bytes", tag = "4")]
    pub cwd: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub stdout: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    pub stderr: Bytes,
    #[prost(uint64, tag = "7")]
    pub memory_bytes: u64,
    #[prost(uint64, tag = "8")]
    pub open_files: u64,
    #[prost(bytes = "bytes", tag = "9")]
    pub context: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub struct Variable {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Nudge {
    #[prost(string, tag = "1")]
    pub key: String,
    /// Such as `USR1`.
    #[prost(string, tag = "2")]
    pub signal: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Signal {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(bool, tag = "2")]
    pub kill: bool,
}

/// Supervisor to client.
#[derive(Clone, PartialEq, Message)]
pub struct FromSupervisor {
    #[prost(oneof = "Told", tags = "1, 2, 3, 4, 5")]
    pub told: Option<Told>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Told {
    #[prost(message, tag = "1")]
    Welcome(Welcome),
    #[prost(message, tag = "2")]
    Refused(Refused),
    #[prost(message, tag = "3")]
    Reports(Reports),
    #[prost(message, tag = "4")]
    Listing(Listing),
    /// Another client has taken this one's place.
    #[prost(message, tag = "5")]
    Replaced(Replaced),
}

#[derive(Clone, PartialEq, Message)]
pub struct Welcome {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Random, made at the supervisor's start.
    #[prost(bytes = "bytes", tag = "2")]
    pub instance: Bytes,
    #[prost(uint32, tag = "3")]
    pub pid: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Refused {
    #[prost(string, tag = "1")]
    pub reason: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Replaced {}

#[derive(Clone, PartialEq, Message)]
pub struct Reports {
    #[prost(message, repeated, tag = "1")]
    pub reports: Vec<Report>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Report {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(oneof = "Fate", tags = "2, 3, 4")]
    pub fate: Option<Fate>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Fate {
    #[prost(uint32, tag = "2")]
    StartedPid(u32),
    #[prost(string, tag = "3")]
    LaunchFailed(String),
    #[prost(message, tag = "4")]
    Exited(Exit),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Exit {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(int32, tag = "2")]
    pub signal: i32,
    #[prost(uint64, tag = "3")]
    pub stdout_bytes: u64,
    #[prost(uint64, tag = "4")]
    pub stderr_bytes: u64,
    #[prost(uint64, tag = "5")]
    pub wall_ms: u64,
    #[prost(uint64, tag = "6")]
    pub cpu_ms: u64,
    #[prost(uint64, tag = "7")]
    pub max_rss_bytes: u64,
    #[prost(bool, tag = "8")]
    pub fenced: bool,
}

/// A part of the answer to [`List`], in order of keys.
#[derive(Clone, PartialEq, Message)]
pub struct Listing {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(message, repeated, tag = "2")]
    pub records: Vec<Record>,
    #[prost(bool, tag = "3")]
    pub last: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Record {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub context: Bytes,
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    #[prost(message, optional, tag = "4")]
    pub exit: Option<Exit>,
}

/// Appends one frame.
pub fn put_frame(out: &mut Vec<u8>, message: &impl Message) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    message.encode(out).expect("a vector has room for any message");
    let len = out.len() - at - 4;
    assert!(len <= FRAME_BYTES_MAX, "frames are closed long before they are too long");
    let prefix = u32::try_from(len).expect("below the limit of a frame").to_le_bytes();
    out[at..at + 4].copy_from_slice(&prefix);
}

/// The first whole frame of `data` with the bytes it takes, or nothing yet.
/// An error is a line for the log: the stream cannot be read any further.
pub fn take_frame<M: Message + Default>(data: &[u8]) -> Result<Option<(M, usize)>, String> {
    let Some(prefix) = data.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*prefix) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(format!("a frame of {len} bytes; at most {FRAME_BYTES_MAX} are read"));
    }
    let Some(body) = data.get(4..4 + len) else { return Ok(None) };
    let message = M::decode(body).map_err(|error| format!("a frame that cannot be read: {error}"))?;
    Ok(Some((message, 4 + len)))
}

/// One frame of commands on its way to the supervisor.
#[derive(Debug, Default)]
pub struct CommandFrame {
    pub bytes: Vec<u8>,
    /// What it launches.
    pub launches: Vec<String>,
}

/// Commands as frames. `now_ms` is `CLOCK_BOOTTIME`. A launch too long for any
/// frame is handed back with a line that says so.
pub fn command_frames(
    commands: Vec<api::Command>,
    now_ms: u64,
) -> (Vec<CommandFrame>, Vec<(String, String)>) {
    let mut frames = Vec::new();
    let mut refused = Vec::new();
    let mut open = Commands::default();
    let mut open_bytes = 0;
    let mut launches = Vec::new();
    let mut close = |open: &mut Commands, launches: &mut Vec<String>| {
        if !open.commands.is_empty() {
            let mut bytes = Vec::new();
            put_frame(&mut bytes, &FromClient { said: Some(Said::Commands(std::mem::take(open))) });
            frames.push(CommandFrame { bytes, launches: std::mem::take(launches) });
        }
    };
    for command in commands {
        let order = order_of(command, now_ms);
        let command = Command { order: Some(order) };
        let len = command.encoded_len();
        if len > FRAME_BYTES_MAX - FRAME_BYTES_FULL {
            if let Some(Order::Launch(launch)) = command.order {
                refused
                    .push((launch.key, format!("its {len} bytes of arguments and environment are too many")));
            }
            continue;
        }
        if open_bytes > 0 && open_bytes + len > FRAME_BYTES_FULL {
            close(&mut open, &mut launches);
            open_bytes = 0;
        }
        open_bytes += len;
        if let Some(Order::Launch(launch)) = &command.order {
            launches.push(launch.key.clone());
        }
        open.commands.push(command);
    }
    close(&mut open, &mut launches);
    (frames, refused)
}

fn order_of(command: api::Command, now_ms: u64) -> Order {
    use std::os::unix::ffi::OsStringExt;
    let path = |path: std::path::PathBuf| Bytes::from(path.into_os_string().into_vec());
    match command {
        api::Command::Launch(launch) => Order::Launch(Launch {
            key: launch.key,
            argv: launch.argv,
            env: launch.env.into_iter().map(|(name, value)| Variable { name, value }).collect(),
            cwd: path(launch.cwd),
            stdout: path(launch.stdout),
            stderr: path(launch.stderr),
            memory_bytes: launch.limits.memory_bytes,
            open_files: launch.limits.open_files,
            context: launch.context.into(),
        }),
        api::Command::Signal { key, signal } => {
            Order::Signal(Signal { key, kill: signal == api::Signal::Kill })
        }
        api::Command::Nudge { key, signal } => Order::Nudge(Nudge { key, signal }),
        api::Command::Forget { key } => Order::Forget(key),
        api::Command::Retire => Order::Retire(Retire {}),
        api::Command::KeepAlive { for_ms } => Order::KeepAliveUntil(now_ms.saturating_add(for_ms)),
    }
}

impl From<Exit> for api::Exit {
    fn from(exit: Exit) -> Self {
        Self {
            code: exit.code,
            signal: exit.signal,
            stdout_bytes: exit.stdout_bytes,
            stderr_bytes: exit.stderr_bytes,
            wall_ms: exit.wall_ms,
            cpu_ms: exit.cpu_ms,
            max_rss_bytes: exit.max_rss_bytes,
            fenced: exit.fenced,
        }
    }
}

impl From<Record> for api::Record {
    fn from(record: Record) -> Self {
        Self {
            key: record.key,
            context: record.context.into(),
            pid: record.pid,
            exit: record.exit.map(api::Exit::from),
        }
    }
}

impl Report {
    /// As the trait tells it; nothing for a fate of a later version.
    pub fn told(self) -> Option<api::Report> {
        let key = self.key;
        Some(match self.fate? {
            Fate::StartedPid(pid) => api::Report::Started { key, pid },
            Fate::LaunchFailed(error) => api::Report::LaunchFailed { key, error },
            Fate::Exited(exit) => api::Report::Exited { key, exit: exit.into() },
        })
    }
}
