//! The core's stories: one node, told what happens, and what it says and does.

mod random;
mod stories;

use super::key::Key;
use super::{Action, Core, Event, LogNote, Order, ProgressOrder};
use crate::config::AgentConfig;
use proto::v1::agent_frame::Frame;
use proto::v1::server_frame::Frame as Told;
use proto::v1::{
    Assign, AssignedTask, AttemptRef, LeaseRenewal, Reports, ReportsAck, Resources, Step, report,
};
use std::sync::Arc;
use world::clock::Now;
use world::processes::{Exit, Launch, Report};

/// A core with its clock, and its actions as lines of text.
pub(super) struct Node {
    pub core: Core,
    pub now: Now,
    pub launches: Vec<Launch>,
    pub progress_looks: Vec<Vec<ProgressOrder>>,
    session: u64,
}

impl Node {
    pub fn new() -> Self {
        let now = Now { mono_ms: 1_000, wall_ms: 1_000_000 };
        Self { core: fresh_core(now), now, launches: Vec::new(), progress_looks: Vec::new(), session: 0 }
    }

    /// One with a session and a lease.
    pub fn ready() -> Self {
        let mut node = Self::new();
        node.open();
        node.renew(1);
        node
    }

    pub fn step(&mut self, event: Event) -> Vec<String> {
        let mut actions = self.core.step(self.now, event);
        actions.extend(self.core.step(self.now, Event::Tick));
        self.core.check();
        // They come all the time: a story that is about them asks for them.
        let look = actions.extract_if(.., |action| matches!(action, Action::LookAtProgress(_)));
        self.progress_looks.extend(look.map(|look| match look {
            Action::LookAtProgress(orders) => orders,
            _ => Vec::new(),
        }));
        actions.iter().map(|action| self.line(action)).collect()
    }

    pub fn later(&mut self, span_ms: u64) -> Vec<String> {
        self.now.mono_ms += span_ms;
        self.now.wall_ms += span_ms;
        self.step(Event::Tick)
    }

    pub fn open(&mut self) -> Vec<String> {
        self.session += 1;
        let session = self.session;
        self.step(Event::SessionOpened { session, heartbeat_ms: 5_000, lease_ttl_ms: 30_000 })
    }

    pub fn close(&mut self) -> Vec<String> {
        self.step(Event::SessionClosed { session: self.session })
    }

    pub fn hear(&mut self, frame: Told) -> Vec<String> {
        self.step(Event::Frame { session: self.session, frame })
    }

    pub fn renew(&mut self, sequence: u64) -> Vec<String> {
        self.hear(Told::Lease(LeaseRenewal { sequence, ttl_ms: 30_000 }))
    }

    pub fn acknowledge(&mut self, sequence: u64) -> Vec<String> {
        self.hear(Told::ReportsAck(ReportsAck { sequence }))
    }

    /// Everything ordered to be staged is ready.
    pub fn staged(&mut self, tasks: impl IntoIterator<Item = u64>) -> Vec<String> {
        let mut lines = Vec::new();
        for task in tasks {
            for key in self.core.keys().into_iter().filter(|key| key.task == task) {
                let directory = self.core.attempts[&key].directory.clone().unwrap();
                lines.extend(self.step(Event::Staged { key, directory, result: Ok(()) }));
            }
        }
        lines
    }

    pub fn started(&mut self, task: u64) -> Vec<String> {
        self.process(Report::Started { key: key(task).process_key(), pid: 7 })
    }

    pub fn exited(&mut self, task: u64, exit: Exit) -> Vec<String> {
        self.process(Report::Exited { key: key(task).process_key(), exit })
    }

    pub fn process(&mut self, report: Report) -> Vec<String> {
        self.step(Event::Processes(vec![report]))
    }

    fn line(&mut self, action: &Action) -> String {
        match action {
            Action::Send(frame) => match frame.frame.as_ref().unwrap() {
                Frame::Hello(hello) => {
                    let held = hello.held.iter().map(|held| {
                        let at = held.attempt.as_ref().unwrap();
                        format!(" {} {:?}", short(&Key::of(at, held.rank)), held.state())
                    });
                    format!("hello{}", held.collect::<String>())
                }
                Frame::Heartbeat(beat) => {
                    format!("heartbeat {} running={} queued={}", beat.sequence, beat.running, beat.queued)
                }
                Frame::Reports(reports) => reports_line(reports),
                Frame::Progress(told) => {
                    let each = told.tasks.iter().map(|told| {
                        let key = Key::of(told.attempt.as_ref().unwrap(), told.rank);
                        format!(" {} {}", short(&key), told.basis_points)
                    });
                    let staged = told.staging.iter().map(|told| {
                        let key = Key::of(told.attempt.as_ref().unwrap(), told.rank);
                        format!(" {} {}/{}", short(&key), told.bytes, told.total_bytes)
                    });
                    format!("progress{}", each.chain(staged).collect::<String>())
                }
            },
            Action::EndSession(reason) => format!("leave: {reason}"),
            Action::Order(Order::Launch { launch, .. }) => {
                self.launches.push((**launch).clone());
                format!("launch {}", short_process(&launch.key))
            }
            Action::Order(Order::Signal { key, signal }) => format!("{signal:?} {}", short_process(key)),
            Action::Order(Order::Nudge { key, signal }) => format!("{signal} to {}", short_process(key)),
            Action::Order(Order::Forget { key }) => format!("forget {}", short_process(key)),
            Action::Order(Order::Retire) => "retire".to_owned(),
            Action::Order(Order::KeepAlive { until_ms }) => format!("alive until {until_ms}"),
            Action::Stage(order) => format!("stage {}", short(&order.key)),
            Action::Collect(order) => format!("collect {}", short(&order.key)),
            Action::Look(order) => format!("look at {}", short(&order.key)),
            Action::LookAtProgress(orders) => format!("look at the progress of {}", orders.len()),
            Action::Measure(key) => format!("measure {}", short(key)),
            Action::Discard(directory) => format!("discard {directory}"),
            Action::Log(LogNote::Opened { key, adopted }) => {
                format!("log {} {}", if *adopted { "taken over" } else { "opened" }, short(key))
            }
            Action::Log(LogNote::Ended { key, stdout_bytes, stderr_bytes }) => {
                format!("log {} ends at {stdout_bytes} {stderr_bytes}", short(key))
            }
            Action::Log(LogNote::Forgotten(key)) => format!("log {} may go", short(key)),
            Action::Log(LogNote::Dropped(key)) => format!("log {} goes", short(key)),
        }
    }
}

pub(super) fn fresh_core(now: Now) -> Core {
    let config = AgentConfig::new("h:1", "dl_x", "n1", Resources::default());
    Core::new(Arc::new(config), "/d/work".into(), "/d/spool".into(), now)
}

fn reports_line(reports: &Reports) -> String {
    let each = reports.reports.iter().map(|report| {
        let key = short(&Key::of(report.attempt.as_ref().unwrap(), report.rank));
        match report.what.as_ref().unwrap() {
            report::What::Staging(_) => format!("staging {key}"),
            report::What::Started(_) => format!("started {key}"),
            report::What::Checkpointed(told) => format!("checkpoint {} of {key}", told.label),
            report::What::Refused(refused) => format!("refused {key} ({})", refused.reason),
            report::What::Ended(ended) => {
                let cause = ended.cause.clone().unwrap();
                format!("ended {key} {:?} ({})", cause.kind(), cause.text)
            }
        }
    });
    format!("report {}: {}", reports.sequence, each.collect::<Vec<_>>().join("; "))
}

/// `task` of a first attempt; `task.rank` and `#attempt` where there is more.
fn short(key: &Key) -> String {
    let mut text = format!("{}", key.task);
    if key.rank > 0 {
        text.push_str(&format!(".{}", key.rank));
    }
    if key.attempt > 1 {
        text.push_str(&format!("#{}", key.attempt));
    }
    text
}

fn short_process(process: &str) -> String {
    Key::from_process_key(process).map_or_else(|| process.to_owned(), |key| short(&key))
}

pub(super) fn key(task: u64) -> Key {
    Key { tenant: "t".into(), job: 1, step: 0, task, attempt: 1, epoch: 9, rank: 0 }
}

pub(super) fn attempt(task: u64) -> AttemptRef {
    key(task).attempt_ref()
}

pub(super) fn step() -> Step {
    Step { name: "s".to_owned(), argv: vec!["prog".to_owned()], ..Step::default() }
}

pub(super) fn assign_of(slots: u32, tasks: impl IntoIterator<Item = u64>, step: Step) -> Assign {
    Assign {
        tenant: "t".to_owned(),
        job_number: 1,
        job_id: "t-1".to_owned(),
        epoch: 9,
        slots,
        step: Some(step),
        tasks: tasks
            .into_iter()
            .map(|task| AssignedTask { task, index: task + 100, attempt: 1, ..AssignedTask::default() })
            .collect(),
        ..Assign::default()
    }
}

pub(super) fn assign(slots: u32, tasks: impl IntoIterator<Item = u64>) -> Told {
    Told::Assign(assign_of(slots, tasks, step()))
}
