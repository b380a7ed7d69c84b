//! Signals that end the console in good order.

use crate::failure::Failure;
use tokio::signal::unix::{Signal, SignalKind, signal};
use world::select;

/// The exit code where the terminal went away: 128 and SIGHUP's number, as a
/// shell tells it.
pub const HANGUP: u8 = 128 + 1;

/// Those that can be caught and that mean the end.
#[derive(Debug)]
pub struct Signals {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on none of them ends the process by itself.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::broken("signals", "", error.to_string(), "are there enough open files?")
            })
        };
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for one of them; gives the exit code that tells it.
    pub async fn next(&mut self) -> u8 {
        select! { biased;
            _ = self.hangup.recv() => HANGUP,
            _ = self.interrupt.recv() => 128 + 2,
            _ = self.quit.recv() => 128 + 3,
            _ = self.terminate.recv() => 128 + 15,
        }
    }
}
