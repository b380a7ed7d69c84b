//! The loop: receive, step, then do.
//!
//! The order of a shell is *receive, step, persist, then send*. The agent
//! persists nothing of its own in between: what must survive it is written by
//! the supervisor when it takes a launch with its context (before `Started`
//! comes back, and so before the server hears of it), and by tasks into their
//! spool files. A crash between a step and its actions loses only what the
//! server and the supervisor tell again: assignments not launched are assigned
//! again, processes are listed, ends not confirmed are reported again.

use super::outlet::Outlet;
use super::{Actions, AgentEnd, Chore, StartError, TasksAtStop};
use crate::core::{Action, CollectOrder, Core, Event, LogNote, LookOrder, Order, ProgressOrder, StageOrder};
use crate::limits;
use proto::v1::AgentFrame;
use std::sync::Arc;
use world::NodeClock;
use world::sync::mpsc;
use world::sync::oneshot;
use world::time::{Alarm, ms};

/// How long the loop leaves a full worker alone.
const BACKLOG_MS: u64 = 5;

/// What the loop receives.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// For the core.
    Events(Vec<Event>),
    /// A session stands; frames for it go this way.
    Session(OpenSession),
    /// Before it was ever taken, the server refused this node.
    Refused(StartError),
    /// The agent is to end.
    Stop(TasksAtStop),
}

/// The loop's side of a session.
#[derive(Debug)]
pub(crate) struct OpenSession {
    pub(super) session: u64,
    pub(super) heartbeat_ms: u64,
    pub(super) lease_ttl_ms: u64,
    pub(super) frames: mpsc::Sender<AgentFrame>,
    /// To end it, with the reason.
    pub(super) leave: oneshot::Sender<String>,
}

/// The ways to the workers.
#[derive(Debug)]
pub(super) struct Outlets {
    pub(super) orders: Outlet<Order>,
    pub(super) stages: Outlet<StageOrder>,
    pub(super) collects: Outlet<CollectOrder>,
    pub(super) looks: Outlet<LookOrder>,
    pub(super) progress: Outlet<Vec<ProgressOrder>>,
    pub(super) chores: Outlet<Chore>,
    pub(super) notes: Outlet<LogNote>,
}

impl Outlets {
    fn flush(&mut self) -> bool {
        // Orders first: they are what tasks wait for.
        let mut all = self.orders.flush();
        all &= self.stages.flush();
        all &= self.collects.flush();
        all &= self.looks.flush();
        all &= self.progress.flush();
        all &= self.notes.flush();
        all & self.chores.flush()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Turn {
    core: Core,
    clock: Arc<dyn NodeClock>,
    inbound: mpsc::Receiver<Inbound>,
    outlets: Outlets,
    session: Option<OpenSession>,
    first: Actions,
    /// For the core's next wakeup.
    alarm: Alarm,
}

impl Turn {
    pub(super) fn new(
        core: Core,
        clock: Arc<dyn NodeClock>,
        inbound: mpsc::Receiver<Inbound>,
        outlets: Outlets,
        first: Actions,
    ) -> Self {
        Self { core, clock, inbound, outlets, session: None, first, alarm: Alarm::default() }
    }

    /// Turns until it is told to stop.
    pub(super) async fn run(mut self) -> AgentEnd {
        let adopted = std::mem::take(&mut self.first);
        self.perform(adopted);
        let mut flushed = self.outlets.flush();
        loop {
            let mut next = self.receive(flushed).await;
            let mut handled = 0;
            while let Some(inbound) = next {
                if let Some(end) = self.handle(inbound) {
                    return end;
                }
                handled += 1;
                next =
                    if handled < limits::EVENTS_PER_TURN_MAX { self.inbound.try_recv().ok() } else { None };
            }
            self.step(Event::Tick);
            if world::CHECKED {
                self.core.check();
            }
            flushed = self.outlets.flush();
        }
    }

    /// The next thing that came in; `None` when the core wants to be woken.
    async fn receive(&mut self, flushed: bool) -> Option<Inbound> {
        let now = self.clock.monotonic_ms();
        let backlog = (!flushed).then_some(now + BACKLOG_MS);
        let wake = [self.core.next_wakeup_ms(), backlog].into_iter().flatten().min();
        match wake {
            None => self.inbound.recv().await,
            Some(at) if at <= now => self.inbound.try_recv().ok(),
            Some(at) => {
                let longest = if self.core.is_empty() { u64::MAX } else { limits::LOOP_SLEEP_MS_MAX };
                world::select! {
                    biased;
                    inbound = self.inbound.recv() => inbound,
                    () = self.alarm.after(ms((at - now).min(longest))) => None,
                }
            }
        }
    }

    /// Takes one thing in; the agent's end, if that is what it is.
    fn handle(&mut self, inbound: Inbound) -> Option<AgentEnd> {
        match inbound {
            Inbound::Events(events) => {
                for event in events {
                    if let Event::SessionClosed { session } = &event {
                        self.session.take_if(|open| open.session == *session);
                    }
                    self.step(event);
                }
                None
            }
            Inbound::Session(open) => {
                let event = Event::SessionOpened {
                    session: open.session,
                    heartbeat_ms: open.heartbeat_ms,
                    lease_ttl_ms: open.lease_ttl_ms,
                };
                self.session = Some(open);
                self.step(event);
                None
            }
            Inbound::Refused(StartError::Refused { problem, .. }) => Some(AgentEnd::Refused(problem)),
            Inbound::Refused(error) => Some(AgentEnd::Broken(error.to_string())),
            Inbound::Stop(tasks) => {
                if tasks == TasksAtStop::Kill {
                    self.step(Event::KillAll);
                }
                // A supervisor that still holds tasks waits for the next agent.
                self.outlets.orders.push(Order::Retire);
                self.outlets.flush();
                Some(AgentEnd::Stopped)
            }
        }
    }

    fn step(&mut self, event: Event) {
        let actions = self.core.step(self.clock.now(), event);
        self.perform(actions);
    }

    fn perform(&mut self, actions: Actions) {
        for action in actions {
            match action {
                Action::Send(frame) => self.send(frame),
                Action::EndSession(reason) => self.leave(&reason),
                Action::Order(order) => self.outlets.orders.push(order),
                Action::Stage(order) => self.outlets.stages.push(order),
                Action::Collect(order) => self.outlets.collects.push(order),
                Action::Look(order) => self.outlets.looks.push(order),
                Action::LookAtProgress(orders) => self.outlets.progress.push(orders),
                Action::Measure(key) => self.outlets.chores.push(Chore::Measure(key)),
                Action::Discard(directory) => self.outlets.chores.push(Chore::RemoveWork(directory)),
                Action::Log(note) => self.outlets.notes.push(note),
            }
        }
    }

    /// A server that does not read its frames loses the session; what was in
    /// them is told again in the next.
    fn send(&mut self, frame: AgentFrame) {
        let Some(open) = &self.session else { return };
        if open.frames.try_send(frame).is_err() {
            self.leave("the server does not read");
        }
    }

    fn leave(&mut self, reason: &str) {
        if let Some(open) = self.session.take() {
            // If the link left it first, there is nothing more to leave.
            let _ = open.leave.send(reason.to_owned());
        }
    }
}
