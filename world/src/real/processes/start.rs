//! Reaching a supervisor, and starting one.
#![expect(clippy::disallowed_methods, reason = "the one place that starts a process outside the supervisor")]

use super::NodeOptions;
use crate::processes::Unreachable;
use crate::real::supervisor::limits::{
    CONNECT_PAUSE_MS_MAX, CONNECT_PAUSE_MS_MIN, GREETING_MS_MAX, START_MS_MAX, VERSION,
};
use crate::real::supervisor::{socket, wire};
use crate::time::{Instant, ms, sleep, timeout};
use bytes::{Buf as _, Bytes, BytesMut};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The reading side of a connection.
#[derive(Debug)]
pub struct Reader {
    pub half: OwnedReadHalf,
    pub data: BytesMut,
}

/// Which supervisor answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub instance: Bytes,
    pub pid: u32,
}

/// A connection that was welcomed.
#[derive(Debug)]
pub struct Opened {
    pub read: Reader,
    pub write: OwnedWriteHalf,
    pub identity: Identity,
    /// The supervisor, where this call started it: to be collected at its end.
    pub started: Option<Child>,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Closed {
    /// Nobody listens there.
    Nobody(io::Error),
    /// It listens but will not have us, or nothing can be done about it.
    Never(String),
}

impl Reader {
    /// The next frame; nothing at the connection's end, whatever ended it.
    pub async fn next(&mut self) -> Option<wire::FromSupervisor> {
        loop {
            match wire::take_frame(&self.data) {
                Ok(Some((frame, len))) => {
                    self.data.advance(len);
                    return Some(frame);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!("the supervisor sent {error}");
                    return None;
                }
            }
            self.data.reserve(64 * 1024);
            if self.half.read_buf(&mut self.data).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

/// Connects to a living supervisor and greets it.
pub async fn connect(options: &NodeOptions) -> Result<Opened, Closed> {
    timeout(ms(GREETING_MS_MAX), greet(options)).await.unwrap_or_else(|_| {
        Err(Closed::Never(format!("it did not answer within {} s", GREETING_MS_MAX / 1000)))
    })
}

async fn greet(options: &NodeOptions) -> Result<Opened, Closed> {
    let address = socket::address(&options.socket).map_err(|error| Closed::Never(error.to_string()))?;
    let stream = UnixStream::connect(&address.path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Closed::Nobody(error),
        _ => Closed::Never(error.to_string()),
    })?;
    let (half, mut write) = stream.into_split();
    let mut read = Reader { half, data: BytesMut::new() };
    let mut hello = Vec::new();
    let said = wire::Said::Hello(wire::Hello { version: VERSION });
    wire::put_frame(&mut hello, &wire::FromClient { said: Some(said) });
    // It may be just ending: then another is to be started.
    write.write_all(&hello).await.map_err(Closed::Nobody)?;
    match read.next().await.map(|frame| frame.told) {
        Some(Some(wire::Told::Welcome(welcome))) => {
            let identity = Identity { instance: welcome.instance, pid: welcome.pid };
            Ok(Opened { read, write, identity, started: None })
        }
        Some(Some(wire::Told::Refused(refused))) => {
            Err(Closed::Never(format!("it refuses: {}", refused.reason)))
        }
        Some(_) => Err(Closed::Never("it does not speak as a supervisor does".to_owned())),
        None => Err(Closed::Nobody(io::ErrorKind::ConnectionReset.into())),
    }
}

/// Connects to the living supervisor, or starts one and connects to it.
pub async fn connect_or_start(options: &NodeOptions) -> Result<Opened, Unreachable> {
    let unreachable = |why: String| Unreachable(format!("{}: {why}", options.socket.display()));
    let until = Instant::now() + ms(START_MS_MAX);
    let mut pause_ms = CONNECT_PAUSE_MS_MIN;
    let mut started: Option<Child> = None;
    loop {
        let nobody = match connect(options).await {
            Ok(opened) => return Ok(Opened { started, ..opened }),
            Err(Closed::Never(why)) => return Err(unreachable(why)),
            Err(Closed::Nobody(error)) => error,
        };
        if Instant::now() >= until {
            let log = socket::beside(&options.socket, ".log");
            return Err(unreachable(format!("{nobody}; see {}", log.display())));
        }
        // One that ended at once lost a race for the socket, to a supervisor
        // that is starting or one that is ending: look again, then start again.
        let ended = match &mut started {
            Some(child) => child.try_wait().map_err(|error| unreachable(error.to_string()))?.is_some(),
            None => true,
        };
        if ended {
            let spawned = spawn(options);
            let program = options.exe.display();
            started =
                Some(spawned.map_err(|error| unreachable(format!("{program} cannot be started: {error}")))?);
        }
        sleep(ms(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(CONNECT_PAUSE_MS_MAX);
    }
}

/// Starts a supervisor. It makes a session of its own as its first act, so
/// that ctrl-c at our terminal passes it by; it has none of our environment,
/// where secrets may be.
fn spawn(options: &NodeOptions) -> io::Result<Child> {
    let log = socket::beside(&options.socket, ".log");
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(log)?;
    let mut command = Command::new(&options.exe);
    command.arg0("drumline").args(&options.args).arg("--socket").arg(&options.socket);
    command.arg("--linger-ms").arg(options.linger_ms.to_string());
    command.env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn()
}
