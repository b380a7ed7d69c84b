//! The node's supervisor: launches and reaps the tasks of one node and
//! outlives its server and its agent.
//!
//! No runtime, no configuration, nothing durable: it is meant to be read in a
//! sitting and never to need a restart. One thread knows and decides all. In a
//! loop it looks at everything that is ready, does what it was told, and tells
//! what became of it: [`table`] is what it knows, [`machine`] what it asks of
//! the kernel, [`wire`] the words of its one client, which is
//! [`crate::real::NodeProcesses`]. Only the spawning itself, which holds a
//! thread up, is done by a few helpers: see [`launch`].
//!
//! What must hold:
//! - A command that a client managed to write is done, even where the client
//!   is gone by then: a connection is read to its end before another takes its
//!   place.
//! - Nothing here waits for a client. One that does not read is no longer read
//!   from.
//! - Without its client the supervisor only does what it was told for that
//!   case: kill everything at the deadline last given, or (started with
//!   `linger_ms`) end with everything it holds, or (its client retired) end
//!   once it holds nothing.
//! - No panic, no fatal error after the start: those would orphan the tasks.

mod connection;
mod gate;
mod launch;
pub mod limits;
pub(super) mod machine;
pub(super) mod socket;
mod table;
pub(super) mod wire;

use bytes::Bytes;
use connection::{Connection, Fill};
use limits::{
    ACCEPT_PAUSE_MS, COMMANDS_PER_TURN, COMMANDS_WAITING_MAX, EXIT_MS_MAX, FAREWELL_READS_MAX,
    FRAME_BYTES_FULL, LAUNCHES_UNDER_WAY_MAX, OUTPUT_BYTES_MAX, REPORTS_PER_FRAME, VERSION,
    WAITING_BYTES_MAX,
};
use machine::{Signals, boot_ms};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::timerfd::{self, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::{dup2_stdin, setsid};
use socket::Socket;
use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use table::Table;

/// How to run a supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisorOptions {
    /// Where to listen; absolute, in a directory that exists. `.lock` is added
    /// to its name for the lock beside it.
    pub socket: PathBuf,
    /// Without an agent for so long, everything is killed and the supervisor
    /// ends. 0: it stays.
    pub linger_ms: u64,
}

/// Runs the supervisor in this process until SIGTERM or its linger time.
///
/// It becomes the leader of its own session, reads stdin from /dev/null, and
/// closes all descriptors past the first three, and takes over its signals:
/// call it first thing in a process that does nothing else. An error is one of the start; afterwards there are none.
pub fn run(options: SupervisorOptions) -> io::Result<()> {
    machine::close_inherited();
    let socket = std::path::absolute(&options.socket)?;
    // Refused to a group's leader, which a shell's job is: then ctrl-c at that
    // terminal reaches us, and is not heard.
    let _ = setsid();
    dup2_stdin(open_null()?)?;
    set_child_subreaper(true)?;
    let signals = Signals::install()?;
    let socket = Socket::bind(&socket)?;
    std::env::set_current_dir("/")?;
    let mut supervisor = Supervisor {
        signals,
        socket,
        timer: TimerFd::new(
            timerfd::ClockId::CLOCK_BOOTTIME,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?,
        timer_ms: None,
        table: Table::new()?,
        client: None,
        newcomer: None,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        listing: None,
        instance: Bytes::copy_from_slice(&crate::rand::bytes::<16>()),
        linger_ms: options.linger_ms,
        alone_since_ms: boot_ms(),
        retired: false,
        deaf_until_ms: None,
    };
    say("listens");
    supervisor.serve();
    supervisor.finish();
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the supervisor stands behind the world's traits")]
fn open_null() -> io::Result<std::fs::File> {
    std::fs::File::open("/dev/null")
}

/// One line to the log; a full disk is no reason to end.
fn say(what: &str) {
    let pid = nix::unistd::Pid::this();
    let _ = writeln!(io::stderr(), "supervisor {pid} at {} s: {what}", boot_ms() / 1000);
}

/// What a waiting command is counted for.
fn weight(command: &wire::Command) -> usize {
    match &command.order {
        Some(wire::Order::Launch(launch)) => launch.context.len(),
        _ => 0,
    }
}

/// What waits to be done, in order.
enum Work {
    Command(wire::Command),
    List(u64),
}

/// A listing that is being told in parts.
struct ListingState {
    id: u64,
    /// The last key told.
    after: Option<String>,
}

struct Supervisor {
    signals: Signals,
    socket: Socket,
    timer: TimerFd,
    /// What the timer is set to.
    timer_ms: Option<u64>,
    table: Table,
    /// The one whose commands are done.
    client: Option<Connection>,
    /// Connected, but has not said hello.
    newcomer: Option<Connection>,
    waiting: VecDeque<Work>,
    /// Contexts of launches in `waiting`.
    waiting_bytes: usize,
    listing: Option<ListingState>,
    instance: Bytes,
    linger_ms: u64,
    alone_since_ms: u64,
    /// The last client said that it ends for good.
    retired: bool,
    /// Accepting failed; tried again then.
    deaf_until_ms: Option<u64>,
}

/// What [`Supervisor::wait`] saw.
#[derive(Default)]
struct Ready {
    signals: bool,
    listener: bool,
    client: PollFlagsSeen,
    newcomer: PollFlagsSeen,
}

#[derive(Clone, Copy, Default)]
struct PollFlagsSeen {
    readable: bool,
    gone: bool,
}

impl Supervisor {
    fn serve(&mut self) {
        loop {
            let ready = self.wait();
            if ready.signals {
                self.signals.clear();
            }
            let now_ms = boot_ms();
            self.table.expire(now_ms);
            self.table.launched(now_ms);
            if self.signals.stop() {
                return say("was told to end");
            }
            if self.signals.take_child_ended() {
                self.table.reap(now_ms);
            }
            if ready.client.gone {
                self.read_to_the_end();
            } else if ready.client.readable {
                self.read();
            }
            if ready.newcomer.readable || ready.newcomer.gone {
                self.meet();
            }
            if ready.listener {
                self.accept(now_ms);
            }
            self.work();
            self.tell();
            if self.lingered() {
                return say("had no agent for its linger time");
            }
            if self.retired && self.client.is_none() && self.table.is_empty() {
                return say("was let go by its agent and holds nothing");
            }
        }
    }

    /// Waits until something is ready, or only looks while there is work.
    fn wait(&mut self) -> Ready {
        self.set_timer();
        let timeout = if self.can_work() || self.can_tell() { PollTimeout::ZERO } else { PollTimeout::NONE };
        let reading = self.waiting.len() < COMMANDS_WAITING_MAX
            && self.waiting_bytes < WAITING_BYTES_MAX
            && !self.table.full_of_news();
        let mut fds = vec![
            PollFd::new(self.signals.fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(client) = &self.client {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, reading && client.unsent() < OUTPUT_BYTES_MAX);
            flags.set(PollFlags::POLLOUT, client.unsent() > 0);
            fds.push(PollFd::new(client.fd(), flags));
        }
        if let Some(newcomer) = &self.newcomer {
            fds.push(PollFd::new(newcomer.fd(), PollFlags::POLLIN));
        }
        if self.deaf_until_ms.is_none() {
            fds.push(PollFd::new(self.socket.listener.as_fd(), PollFlags::POLLIN));
        }
        if poll(&mut fds, timeout).is_err() {
            // Interrupted (or out of memory): everything is looked at again.
            return Ready { signals: true, ..Ready::default() };
        }
        let mut seen = fds.iter().map(|fd| {
            let flags = fd.revents().unwrap_or(PollFlags::empty());
            PollFlagsSeen {
                readable: flags.contains(PollFlags::POLLIN),
                gone: flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL),
            }
        });
        let mut next =
            |present: bool| if present { seen.next().unwrap_or_default() } else { PollFlagsSeen::default() };
        let signals = next(true).readable;
        let timer = next(true).readable;
        let (client, newcomer) = (next(self.client.is_some()), next(self.newcomer.is_some()));
        let listener = next(self.deaf_until_ms.is_none()).readable;
        if timer {
            // It only wakes; what is due is found by the clock. Set anew.
            self.timer_ms = None;
        }
        Ready { signals, listener, client, newcomer }
    }

    /// By `CLOCK_BOOTTIME`, since a machine that slept has spent its leases.
    fn set_timer(&mut self) {
        let linger =
            (self.linger_ms > 0 && self.client.is_none()).then(|| self.alone_since_ms + self.linger_ms);
        let due = [self.table.due_ms(), linger, self.deaf_until_ms].into_iter().flatten().min();
        if due == self.timer_ms {
            return;
        }
        self.timer_ms = due;
        let result = match due {
            // Zero would disarm it.
            Some(due) => {
                let at = std::time::Duration::from_millis(due.max(1));
                self.timer.set(Expiration::OneShot(at.into()), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
            None => self.timer.unset(),
        };
        if let Err(error) = result {
            self.timer_ms = None;
            say(&format!("the timer cannot be set: {error}"));
        }
    }

    fn lingered(&self) -> bool {
        self.linger_ms > 0 && self.client.is_none() && boot_ms() >= self.alone_since_ms + self.linger_ms
    }

    fn read(&mut self) {
        let Some(client) = &mut self.client else { return };
        let fill = client.fill();
        if !self.take_frames() || fill == Fill::Closed {
            self.lose_client();
        }
    }

    /// Queues what the client said. False: it must be cut off.
    fn take_frames(&mut self) -> bool {
        let Some(client) = &mut self.client else { return true };
        loop {
            match client.next_frame() {
                Ok(Some(wire::FromClient { said: Some(wire::Said::Commands(commands)) })) => {
                    for command in commands.commands {
                        match command.order {
                            Some(wire::Order::KeepAliveUntil(until_ms)) => {
                                self.table.wind(boot_ms(), until_ms)
                            }
                            _ => {
                                self.waiting_bytes += weight(&command);
                                self.waiting.push_back(Work::Command(command));
                            }
                        }
                    }
                }
                Ok(Some(wire::FromClient { said: Some(wire::Said::List(list)) })) => {
                    self.waiting.push_back(Work::List(list.id));
                }
                // A second hello, or words of a later version.
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(error) => {
                    say(&format!("cut its client off: {error}"));
                    return false;
                }
            }
        }
    }

    /// What a client wrote is done, though it is gone.
    fn read_to_the_end(&mut self) {
        for _ in 0..FAREWELL_READS_MAX {
            let Some(client) = &mut self.client else { return };
            let fill = client.fill();
            if !self.take_frames() || fill != Fill::More {
                break;
            }
        }
        self.lose_client();
    }

    fn lose_client(&mut self) {
        self.client = None;
        self.listing = None;
        self.alone_since_ms = boot_ms();
    }

    fn accept(&mut self, now_ms: u64) {
        match self.socket.listener.accept().and_then(|(stream, _)| Connection::new(stream)) {
            Ok(newcomer) => self.newcomer = Some(newcomer),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                say(&format!("cannot accept: {error}"));
                self.deaf_until_ms = Some(now_ms + ACCEPT_PAUSE_MS);
            }
        }
    }

    /// Hears a newcomer's hello and puts it in the client's place.
    fn meet(&mut self) {
        let Some(mut newcomer) = self.newcomer.take() else { return };
        let fill = newcomer.fill();
        let hello = match newcomer.next_frame() {
            Ok(Some(wire::FromClient { said: Some(wire::Said::Hello(hello)) })) => hello,
            Ok(None) if fill != Fill::Closed => {
                self.newcomer = Some(newcomer);
                return;
            }
            // No client of ours, or gone already.
            _ => return,
        };
        if hello.version != VERSION {
            let reason = format!("it speaks version {VERSION} and not {}", hello.version);
            say(&format!("refused a client: {reason}"));
            newcomer.tell(wire::Told::Refused(wire::Refused { reason }));
            newcomer.flush();
            return;
        }
        if let Some(client) = &mut self.client {
            say("another client takes its place");
            client.tell(wire::Told::Replaced(wire::Replaced {}));
            client.flush();
        }
        self.read_to_the_end();
        newcomer.tell(wire::Told::Welcome(wire::Welcome {
            version: VERSION,
            instance: self.instance.clone(),
            pid: u32::try_from(nix::unistd::Pid::this().as_raw()).expect("process numbers are positive"),
        }));
        self.client = Some(newcomer);
        self.retired = false;
        self.table.tell_ends_again();
        if !self.take_frames() {
            self.lose_client();
        }
    }

    /// One listing at a time, and only when all launches before it are known;
    /// until then all that comes after it waits too.
    fn can_work(&self) -> bool {
        let launches = self.table.launches_under_way();
        match self.waiting.front() {
            Some(Work::List(_)) => self.listing.is_none() && launches == 0,
            Some(Work::Command(_)) => launches < LAUNCHES_UNDER_WAY_MAX,
            None => false,
        }
    }

    /// More is to be told than went in the last turn, and there is room.
    fn can_tell(&self) -> bool {
        let room = self.client.as_ref().is_some_and(|client| client.unsent() < OUTPUT_BYTES_MAX);
        room && (self.listing.is_some() || self.table.has_news())
    }

    /// Does some of what waits.
    fn work(&mut self) {
        for _ in 0..COMMANDS_PER_TURN {
            if !self.can_work() {
                break;
            }
            match self.waiting.pop_front() {
                Some(Work::Command(command)) => {
                    self.waiting_bytes -= weight(&command);
                    self.retired |= matches!(command.order, Some(wire::Order::Retire(_)));
                    self.table.obey(boot_ms(), command);
                }
                Some(Work::List(id)) => self.listing = Some(ListingState { id, after: None }),
                None => break,
            }
        }
    }

    /// Sends reports, then parts of a listing, as far as there is room.
    fn tell(&mut self) {
        if self.deaf_until_ms.is_some_and(|until| until <= boot_ms()) {
            self.deaf_until_ms = None;
        }
        let Some(client) = &mut self.client else { return };
        while client.unsent() < OUTPUT_BYTES_MAX {
            let reports = self.table.take_news(REPORTS_PER_FRAME);
            if !reports.is_empty() {
                client.tell(wire::Told::Reports(wire::Reports { reports }));
                continue;
            }
            let Some(listing) = &mut self.listing else { break };
            let (records, last) = self.table.list(listing.after.as_deref(), FRAME_BYTES_FULL);
            listing.after = records.last().map(|record| record.key.clone()).or(listing.after.take());
            client.tell(wire::Told::Listing(wire::Listing { id: listing.id, records, last }));
            if last {
                self.listing = None;
            }
        }
        if !client.flush() {
            self.read_to_the_end();
        }
    }

    /// Kills all and waits for their ends, so that nothing is left behind.
    fn finish(&mut self) {
        self.table.kill_all(false);
        let until_ms = boot_ms() + EXIT_MS_MAX;
        while boot_ms() < until_ms {
            self.table.launched(boot_ms());
            if !self.table.reap(boot_ms()) {
                break;
            }
            let mut fds = [PollFd::new(self.signals.fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(50_u8));
            self.signals.clear();
        }
        self.socket.remove();
    }
}
