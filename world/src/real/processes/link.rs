//! The connection to the supervisor, kept up.
//!
//! One task reads ([`Pump`]); callers write for themselves, in turn. What must
//! hold: a frame is either wholly written to one connection, and then done by
//! the supervisor whatever becomes of the connection, or sent again from its
//! start; frames go in order. A caller that is dropped while it writes leaves
//! the rest of its frame to the next.

use super::start::{Closed, Identity, Reader, connect, connect_or_start};
use super::{Done, Inbox, Listing, Shared};
use crate::processes::{Report, Unreachable};
use crate::real::supervisor::limits::{REPLACE_PAUSE_MS_MAX, REPLACE_PAUSE_MS_MIN};
use crate::real::supervisor::wire::{self, CommandFrame, Told};
use crate::time::{ms, sleep};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getsid};
use std::collections::VecDeque;
use std::process::Child;
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::OwnedWriteHalf;

/// Whether commands can be handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Up,
    /// The connection broke; whether its supervisor lives is being found out.
    Broken,
    /// There is no supervisor, for this reason.
    Down(String),
}

/// The writing side.
#[derive(Debug)]
pub struct Writer {
    half: Option<OwnedWriteHalf>,
    frames: VecDeque<CommandFrame>,
    /// How much of the first frame is written.
    written: usize,
    /// Frames ever queued by callers for this supervisor.
    queued: usize,
    /// Counts supervisors.
    supervisor: u64,
}

impl Writer {
    pub fn new(half: OwnedWriteHalf) -> Self {
        Self { half: Some(half), frames: VecDeque::new(), written: 0, queued: 0, supervisor: 0 }
    }

    /// Whether the caller's frame of this number, and all before it, are written.
    fn passed(&self, number: usize) -> bool {
        number + self.frames.len() <= self.queued
    }

    /// Writes all that is queued. Dropped on the way, it can be called again.
    async fn flush(&mut self) -> std::io::Result<()> {
        let Some(half) = &mut self.half else { return Err(std::io::ErrorKind::NotConnected.into()) };
        while let Some(frame) = self.frames.front() {
            while self.written < frame.bytes.len() {
                self.written += half.write(&frame.bytes[self.written..]).await?;
            }
            self.frames.pop_front();
            self.written = 0;
        }
        Ok(())
    }
}

impl Shared {
    /// Returns once the supervisor has these frames.
    pub async fn hand_over(&self, frames: Vec<CommandFrame>) -> Result<(), Unreachable> {
        let mut state = self.state.subscribe();
        let mut writer = self.writer.lock().await;
        if let State::Down(why) = &*state.borrow_and_update() {
            return Err(Unreachable(why.clone()));
        }
        self.inbox().launching.extend(frames.iter().flat_map(|frame| frame.launches.iter().cloned()));
        writer.queued += frames.len();
        writer.frames.extend(frames);
        let (number, supervisor) = (writer.queued, writer.supervisor);
        loop {
            if writer.flush().await.is_err() {
                writer.half = None;
            }
            if writer.passed(number) {
                return Ok(());
            }
            drop(writer);
            // The pump finds the connection's end as well, and makes another.
            let gone = Unreachable("it ended under this call".to_owned());
            if state.changed().await.is_err() {
                return Err(gone);
            }
            writer = self.writer.lock().await;
            if writer.supervisor != supervisor {
                return Err(gone);
            }
        }
    }
}

/// Reads what the supervisor tells, connection after connection.
#[derive(Debug)]
pub struct Pump {
    shared: Arc<Shared>,
    reader: Reader,
    identity: Identity,
    /// The supervisor, where we started it.
    child: Option<Child>,
}

/// Why a connection was read no further.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Ended,
    Replaced,
}

impl Pump {
    pub fn new(shared: Arc<Shared>, reader: Reader, identity: Identity, child: Option<Child>) -> Self {
        Self { shared, reader, identity, child }
    }

    /// Until the last handle is dropped, or another client took our place.
    pub async fn run(mut self) {
        loop {
            let stop = self.read().await;
            if stop == Stop::Replaced {
                let why = "another agent of this node has taken its place".to_owned();
                self.lose(State::Down(why)).await;
                return;
            }
            self.shared.state.send_replace(State::Broken);
            if !self.reconnect().await {
                self.leave_nothing();
                let why = "it ended; another is being started".to_owned();
                self.lose(State::Down(why)).await;
                self.replace().await;
            }
        }
    }

    async fn read(&mut self) -> Stop {
        loop {
            while self.shared.full() {
                self.shared.room.notified().await;
            }
            let Some(frame) = self.reader.next().await else { return Stop::Ended };
            let news = match frame.told {
                Some(Told::Reports(reports)) => self.shared.inbox().take_reports(reports.reports),
                Some(Told::Listing(part)) => self.shared.inbox().take_listing(part),
                Some(Told::Replaced(_)) => return Stop::Replaced,
                Some(Told::Welcome(_) | Told::Refused(_)) | None => false,
            };
            if news {
                self.shared.news.notify_one();
            }
        }
    }

    /// Whether the supervisor we knew still lives; then all goes on, and what
    /// was told to the broken connection is asked for again.
    async fn reconnect(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut writer = shared.writer.lock().await;
        writer.half = None;
        writer.written = 0;
        let opened = match connect(&shared.options).await {
            Ok(opened) if opened.identity == self.identity => opened,
            Ok(_) => return false,
            Err(Closed::Nobody(_)) => return false,
            Err(Closed::Never(why)) => {
                tracing::warn!("the node's supervisor: {why}");
                return false;
            }
        };
        self.reader = opened.read;
        writer.half = Some(opened.write);
        let frame = {
            let unsent = writer.frames.iter().flat_map(|frame| &frame.launches);
            let mut inbox = shared.inbox();
            let mut sent = inbox.launching.clone();
            unsent.for_each(|key| {
                sent.remove(key);
            });
            // Whoever waits for one asks again.
            inbox.listings.clear();
            inbox.ask(Done::Resync(sent))
        };
        // The answer to what was handed over before comes before that to what
        // is sent from now on.
        writer.frames.push_front(frame);
        let _ = writer.flush().await;
        shared.state.send_replace(State::Up);
        true
    }

    /// Tasks of a dead supervisor would run on unseen, past any lease: they are
    /// killed. They are known by being in its session, which no other process
    /// can have entered.
    fn leave_nothing(&mut self) {
        let session = i32::try_from(self.identity.pid).map(Pid::from_raw);
        for pid in std::mem::take(&mut self.shared.inbox().running).into_values() {
            let Ok(pid) = i32::try_from(pid).map(Pid::from_raw) else { continue };
            if session.is_ok() && getsid(Some(pid)).ok() == session.ok() {
                let _ = killpg(pid, Signal::SIGKILL);
            }
        }
        if let Some(child) = &mut self.child {
            // It is gone and only to be collected, or it hangs: not waited for.
            let _ = child.try_wait();
        }
    }

    /// What the supervisor held is gone.
    async fn lose(&mut self, state: State) {
        let mut writer = self.shared.writer.lock().await;
        writer.half = None;
        writer.frames.clear();
        (writer.written, writer.queued) = (0, 0);
        writer.supervisor += 1;
        {
            let mut inbox = self.shared.inbox();
            inbox.launching.clear();
            inbox.running.clear();
            inbox.listings.clear();
            inbox.reports.push(Report::SupervisorLost);
        }
        self.shared.state.send_replace(state);
        self.shared.news.notify_one();
    }

    /// Starts another supervisor, as often as it takes.
    async fn replace(&mut self) {
        let mut pause_ms = REPLACE_PAUSE_MS_MIN;
        loop {
            match connect_or_start(&self.shared.options).await {
                Ok(opened) => {
                    self.reader = opened.read;
                    self.identity = opened.identity;
                    self.child = opened.started;
                    let mut writer = self.shared.writer.lock().await;
                    writer.half = Some(opened.write);
                    self.shared.state.send_replace(State::Up);
                    return;
                }
                Err(error) => {
                    tracing::error!("{error}");
                    self.shared.state.send_replace(State::Down(error.0));
                }
            }
            sleep(ms(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(REPLACE_PAUSE_MS_MAX);
        }
    }
}

impl Inbox {
    /// Begins a listing; the frame that asks for it.
    pub(super) fn ask(&mut self, done: Done) -> CommandFrame {
        self.next_listing += 1;
        let id = self.next_listing;
        self.listings.insert(id, Listing { records: Vec::new(), done });
        let mut bytes = Vec::new();
        wire::put_frame(&mut bytes, &wire::FromClient { said: Some(wire::Said::List(wire::List { id })) });
        CommandFrame { bytes, launches: Vec::new() }
    }
}
