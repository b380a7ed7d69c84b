//! The agent's mind: synchronous and pure. What happened goes in with the time;
//! what is to be done comes out. It never waits, reads no clock, touches no
//! disk.
//!
//! - [`lease`]: the session, heartbeats, and what ends when no answer comes.
//! - [`queue`]: what was assigned, in which order it is staged and launched.
//! - [`course`]: one attempt from its launch to its end.
//! - [`looks`]: when to look for checkpoints, and what becomes of them.
//! - [`giveway`]: how one gives way to work of higher priority.
//! - [`progress`]: when to look how far tasks have come, and what is told of it.
//! - [`reports`]: what the server has been told and has confirmed.
//! - [`handover`]: orders on their way to the supervisor.
//! - [`takeover`]: what a restarted agent takes over, what a server lets go.
//! - [`check`]: what must hold after every step.
//!
//! The way of an attempt: waiting → staging → staged → launching → running →
//! (collecting outputs, or a last look for a checkpoint) → ended, until the server confirms the report of its
//! end; then it is forgotten.

pub mod cause;
mod check;
mod course;
mod giveway;
pub mod handover;
pub mod key;
mod lease;
mod looks;
mod progress;
mod queue;
mod reports;
mod takeover;
pub mod work;

#[cfg(test)]
mod tests;

use crate::config::AgentConfig;
use cause::{Fault, StageFault};
use key::{GrantKey, Key};
use lease::{Lease, Session};
use proto::v1::{AgentFrame, Artifact, RankCheckpoint, State, agent_frame, server_frame};
use queue::Grant;
use reports::ReportBox;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use work::Work;
use world::clock::Now;
use world::processes::{Command, Exit, Launch, Record, Report, Signal};

/// What the core is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed, or the shell ends a turn: what is due is done. The shell
    /// sends one after each batch of events and at [`Core::next_wakeup_ms`].
    Tick,
    /// What the supervisor holds, told once before anything else.
    Adopted(Vec<Record>),
    /// A session stands; a Hello and a heartbeat follow from it.
    SessionOpened {
        /// As registered.
        session: u64,
        /// How often to ask for the lease.
        heartbeat_ms: u64,
        /// How long an answer is good for.
        lease_ttl_ms: u64,
    },
    /// It is gone.
    SessionClosed {
        /// Which.
        session: u64,
    },
    /// The server said something.
    Frame {
        /// In which session.
        session: u64,
        /// What.
        frame: server_frame::Frame,
    },
    /// The supervisor said something.
    Processes(Vec<Report>),
    /// Launches that could not be handed over, or not surely.
    Unreachable {
        /// Process keys.
        launches: Vec<String>,
        /// One line.
        reason: String,
    },
    /// Launches dropped because they came too late for the lease.
    Lapsed {
        /// Process keys.
        launches: Vec<String>,
    },
    /// A work directory is ready, or will not be.
    Staged {
        /// Whose.
        key: Key,
        /// As ordered.
        directory: String,
        /// How it went.
        result: Result<(), StageFault>,
    },
    /// A look for a checkpoint is over.
    Looked {
        /// Whose.
        key: Key,
        /// As ordered.
        directory: String,
        /// What was found and is uploaded.
        found: Option<Snapshot>,
    },
    /// The look at how far tasks have come is over: those that said something, each
    /// once.
    ProgressSeen(Vec<Seen>),
    /// How the inputs of attempts come that are being staged.
    StagingSeen(Vec<Coming>),
    /// Outputs are uploaded, or will not be.
    Collected {
        /// Whose.
        key: Key,
        /// How it went.
        result: Result<Vec<Artifact>, Fault>,
    },
    /// The lengths of the spool files of a process whose end nobody saw.
    Measured {
        /// Whose.
        key: Key,
        /// Standard output.
        stdout_bytes: u64,
        /// Standard error.
        stderr_bytes: u64,
    },
    /// Log bytes the server has not taken yet.
    SpoolBytes(u64),
    /// Kill and forget everything: this node stops for good.
    KillAll,
}

/// What the core wants done, in this order.
#[derive(Clone, Debug)]
pub enum Action {
    /// To the server, in the session that is open.
    Send(AgentFrame),
    /// The session is over: leave it and open another.
    EndSession(String),
    /// To the supervisor.
    Order(Order),
    /// Make a work directory ready; answered by `Staged`.
    Stage(StageOrder),
    /// Find, digest and upload outputs; answered by `Collected`.
    Collect(CollectOrder),
    /// Take a checkpoint if there is a new one; answered by `Looked`.
    Look(LookOrder),
    /// Look how far these have come; answered by `ProgressSeen`.
    LookAtProgress(Vec<ProgressOrder>),
    /// Look how long the spool files are; answered by `Measured`.
    Measure(Key),
    /// Remove a work directory when there is time.
    Discard(String),
    /// For whoever ships the logs.
    Log(LogNote),
}

/// What goes to the supervisor. Time-bound ones say until when they are good,
/// so that what stood in a queue too long does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Not after the lease's end; answered by `Started`, `LaunchFailed` or
    /// `Lapsed`.
    Launch {
        /// What.
        launch: Box<Launch>,
        /// This node's monotonic clock.
        until_ms: u64,
    },
    /// See [`Command::Signal`].
    Signal {
        /// Which process.
        key: String,
        /// What.
        signal: Signal,
    },
    /// See [`Command::Nudge`].
    Nudge {
        /// Which process.
        key: String,
        /// Such as `USR1`.
        signal: String,
    },
    /// See [`Command::Forget`].
    Forget {
        /// Which process.
        key: String,
    },
    /// The lease handed on: all processes are to die at that instant.
    KeepAlive {
        /// This node's monotonic clock.
        until_ms: u64,
    },
    /// See [`Command::Retire`]; the shell's last word.
    Retire,
}

impl Order {
    /// The command at this instant; `None` where its time has passed.
    #[must_use]
    pub fn command(self, mono_ms: u64) -> Option<Command> {
        match self {
            Self::Launch { launch, until_ms } => (mono_ms < until_ms).then_some(Command::Launch(launch)),
            Self::Signal { key, signal } => Some(Command::Signal { key, signal }),
            Self::Nudge { key, signal } => Some(Command::Nudge { key, signal }),
            Self::Forget { key } => Some(Command::Forget { key }),
            Self::Retire => Some(Command::Retire),
            Self::KeepAlive { until_ms } => {
                (mono_ms < until_ms).then(|| Command::KeepAlive { for_ms: until_ms - mono_ms })
            }
        }
    }
}

/// A work directory to be made.
#[derive(Clone, Debug)]
pub struct StageOrder {
    /// Whose.
    pub key: Key,
    /// Its name within the directory of work directories; fresh for each order.
    pub directory: String,
    /// What is to be laid in it.
    pub work: Arc<Work>,
    /// What it goes on from.
    pub resume: Option<Arc<RankCheckpoint>>,
}

impl StageOrder {
    /// A fresh directory is all it takes.
    #[must_use]
    pub fn is_light(&self) -> bool {
        self.resume.is_none() && self.work.is_light()
    }
}

/// A checkpoint directory to be looked at.
#[derive(Clone, Debug)]
pub struct LookOrder {
    /// Whose.
    pub key: Key,
    /// Its work directory.
    pub directory: String,
    /// Says where in it.
    pub work: Arc<Work>,
    /// An end waits for it.
    pub last: bool,
}

/// A task whose progress is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressOrder {
    /// Whose.
    pub key: Key,
    /// Its work directory.
    pub directory: String,
}

/// How far a task has come, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Hundredths of a percent, at most [`proto::limits::PROGRESS_BASIS_POINTS_MAX`].
    pub basis_points: u32,
    /// At most [`proto::limits::PROGRESS_TEXT_BYTES_MAX`].
    pub text: String,
}

/// What a look found in the file of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whose, as ordered.
    pub key: Key,
    /// As ordered.
    pub directory: String,
    /// What it says.
    pub said: Said,
}

/// How the inputs of one attempt come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coming {
    /// Whose, as ordered.
    pub key: Key,
    /// As ordered.
    pub directory: String,
    /// What is there of them.
    pub bytes: u64,
    /// 0: not all have told their length.
    pub total_bytes: u64,
    /// Since the last look.
    pub bytes_per_s: u64,
    /// Why none of them gets on by itself; empty: one does.
    pub waits_for: String,
}

/// A checkpoint as it lies in the object store.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// What the task calls it.
    pub label: String,
    /// Paths are relative to the checkpoint directory.
    pub artifacts: Vec<Artifact>,
}

/// Outputs to be collected.
#[derive(Clone, Debug)]
pub struct CollectOrder {
    /// Whose.
    pub key: Key,
    /// Its work directory.
    pub directory: String,
    /// Holds the patterns.
    pub work: Arc<Work>,
}

/// What the log shipper must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogNote {
    /// Its spool files grow.
    Opened {
        /// Whose.
        key: Key,
        /// An earlier agent may have shipped part of it.
        adopted: bool,
    },
    /// Its spool files have these lengths for good.
    Ended {
        /// Whose.
        key: Key,
        /// Standard output.
        stdout_bytes: u64,
        /// Standard error.
        stderr_bytes: u64,
    },
    /// The server has its end: the files may go once shipped.
    Forgotten(Key),
    /// The server will not have it: the files may go now.
    Dropped(Key),
}

/// Where an attempt is on its way.
#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Waiting,
    Staging,
    Staged,
    Launching,
    Running,
    /// The supervisor lost it: its logs are being measured.
    Measuring,
    Collecting(Exit),
    /// It failed: a last look for a checkpoint.
    Saving(Exit, Fault),
    Ended(State),
}

/// Being ended: TERM was sent, KILL follows at `kill_at_ms`.
#[derive(Clone, Debug)]
struct Stopping {
    fault: Fault,
    kill_at_ms: u64,
}

/// One rank of one attempt.
#[derive(Debug)]
struct Attempt {
    work: Arc<Work>,
    /// The user's array index.
    index: u64,
    phase: Phase,
    stopping: Option<Stopping>,
    gives_way: Option<giveway::GivesWay>,
    timeout_at_ms: Option<u64>,
    /// Its entry in [`Core::timers`].
    timer_ms: Option<u64>,
    /// What it goes on from.
    resume: Option<Arc<RankCheckpoint>>,
    /// Its entry in [`Core::looks`].
    look_at_ms: Option<u64>,
    /// It was asked for a checkpoint; so long that one is waited for.
    asked_until_ms: Option<u64>,
    look: looks::Look,
    /// What it last said of its progress, and whether this session was told.
    said: Option<(Said, bool)>,
    /// Which of this agent's sessions it was assigned in; 0: before its life.
    session: u64,
    /// The supervisor may know it.
    launched: bool,
    directory: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    config: Arc<AgentConfig>,
    work_root: PathBuf,
    spool_root: PathBuf,
    lease: Lease,
    session: Option<Session>,
    sessions_opened: u64,
    /// The number of the latest.
    last_session: u64,
    attempts: BTreeMap<Key, Attempt>,
    grants: BTreeMap<GrantKey, Grant>,
    /// Grants that may have room now.
    dirty: BTreeSet<GrantKey>,
    timers: BTreeSet<(u64, Key)>,
    /// When to look for whose checkpoints.
    looks: BTreeSet<(u64, Key)>,
    /// Of this agent's life.
    checkpoints_taken: u64,
    progress: progress::Looks,
    reports: ReportBox,
    directories_made: u64,
    running: u32,
    spool_bytes: u64,
    out: Vec<Action>,
}

impl Core {
    /// `work_root` and `spool_root` are absolute, as processes see them.
    #[must_use]
    pub fn new(config: Arc<AgentConfig>, work_root: PathBuf, spool_root: PathBuf, now: Now) -> Self {
        let lease = Lease::new(config.margins, now.mono_ms);
        Self {
            config,
            work_root,
            spool_root,
            lease,
            session: None,
            sessions_opened: 0,
            last_session: 0,
            attempts: BTreeMap::new(),
            grants: BTreeMap::new(),
            dirty: BTreeSet::new(),
            timers: BTreeSet::new(),
            looks: BTreeSet::new(),
            checkpoints_taken: 0,
            progress: progress::Looks::default(),
            reports: ReportBox::default(),
            directories_made: 0,
            running: 0,
            spool_bytes: 0,
            out: Vec::new(),
        }
    }

    /// Takes one event at one instant; returns what is to be done, in order.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        match event {
            Event::Tick => self.tick(now),
            Event::Adopted(records) => self.adopt(now, records),
            Event::SessionOpened { session, heartbeat_ms, lease_ttl_ms } => {
                self.session_opened(now, Session::new(session, heartbeat_ms), lease_ttl_ms);
            }
            Event::SessionClosed { session } => self.session_closed(session),
            Event::Frame { session, frame } => self.frame(now, session, frame),
            Event::Processes(reports) => {
                for report in reports {
                    self.process_report(now, report);
                }
            }
            Event::Unreachable { launches, reason } => self.unreachable(&launches, &reason),
            Event::Lapsed { launches } => self.lapsed(&launches),
            Event::Staged { key, directory, result } => self.staged(&key, directory, result),
            Event::Looked { key, directory, found } => self.looked(now, &key, &directory, found),
            Event::ProgressSeen(seen) => self.progress_seen(seen),
            Event::StagingSeen(seen) => self.staging_seen(seen),
            Event::Collected { key, result } => self.collected(&key, result),
            Event::Measured { key, stdout_bytes, stderr_bytes } => {
                self.measured(&key, stdout_bytes, stderr_bytes);
            }
            Event::SpoolBytes(bytes) => self.spool_bytes = bytes,
            Event::KillAll => self.kill_all(),
        }
        self.pump_dirty(now);
        std::mem::take(&mut self.out)
    }

    /// When a `Tick` is due next, by the monotonic clock.
    #[must_use]
    pub fn next_wakeup_ms(&self) -> Option<u64> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let session = self.session.as_ref().map(Session::heartbeat_at_ms);
        let reports = self.session.as_ref().and_then(|_| self.reports.due_ms());
        let lease = if self.attempts.is_empty() { None } else { self.lease.wakeup_ms() };
        let look = self.looks.first().map(|(at, _)| *at);
        [timer, look, self.progress.due_ms(), session, reports, lease].into_iter().flatten().min()
    }

    fn tick(&mut self, now: Now) {
        self.watch_lease(now);
        while let Some((at, key)) = self.timers.first().filter(|(at, _)| *at <= now.mono_ms).cloned() {
            self.timers.remove(&(at, key.clone()));
            if let Some(attempt) = self.attempts.get_mut(&key) {
                attempt.timer_ms = None;
            }
            self.timer_fired(now, &key);
        }
        self.look_where_due(now);
        self.look_at_progress(now);
        self.heartbeat(now);
        self.flush_reports(now);
    }

    fn flush_reports(&mut self, now: Now) {
        if self.session.is_some() {
            for reports in self.reports.flush(now.mono_ms) {
                self.send(agent_frame::Frame::Reports(reports));
            }
        }
    }

    fn frame(&mut self, now: Now, session: u64, frame: server_frame::Frame) {
        if self.session.as_ref().is_none_or(|open| open.number != session) {
            world::mark!("agent.frame.of_another_session");
            return;
        }
        match frame {
            server_frame::Frame::Lease(renewal) => self.renewed(now, renewal),
            server_frame::Frame::Assign(assign) => self.assign(&assign),
            server_frame::Frame::Stop(stop) => self.stop(now, stop),
            server_frame::Frame::ReportsAck(ack) => {
                for key in self.reports.acknowledged(ack.sequence) {
                    self.acknowledged(&key);
                }
            }
            server_frame::Frame::Reconcile(reconcile) => self.reconcile(&reconcile),
            server_frame::Frame::Goodbye(goodbye) => {
                world::mark!("agent.session.goodbye");
                self.out.push(Action::EndSession(goodbye.reason));
            }
        }
    }

    fn send(&mut self, frame: agent_frame::Frame) {
        self.out.push(Action::Send(AgentFrame { frame: Some(frame) }));
    }

    fn order(&mut self, order: Order) {
        self.out.push(Action::Order(order));
    }

    /// Sets (or with `None` clears) the one timer of an attempt.
    fn set_timer(&mut self, key: &Key, at_ms: Option<u64>) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        if attempt.timer_ms == at_ms {
            return;
        }
        if let Some(old) = std::mem::replace(&mut attempt.timer_ms, at_ms) {
            self.timers.remove(&(old, key.clone()));
        }
        if let Some(at) = at_ms {
            self.timers.insert((at, key.clone()));
        }
    }

    /// The one place where a phase changes, so that the counts of its grant
    /// cannot drift from it.
    fn enter(&mut self, key: &Key, phase: Phase) {
        let attempt = self.attempts.get_mut(key).expect("only held attempts change phase");
        let grant = self.grants.get_mut(&key.grant()).expect("an attempt's grant is held while it is");
        grant.uncount(&attempt.phase);
        self.running -= u32::from(attempt.phase == Phase::Running);
        attempt.phase = phase;
        grant.count(&attempt.phase);
        self.running += u32::from(attempt.phase == Phase::Running);
        self.dirty.insert(key.grant());
    }
}
