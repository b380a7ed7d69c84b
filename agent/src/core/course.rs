//! One attempt from its launch to its end.
//!
//! What must hold: every attempt ends once, with one report; a cause decided
//! first (a stop, a timeout, the lease) is not overwritten by what the dying
//! process does after it.

use super::cause::{self, Fault, span_text};
use super::key::Key;
use super::{Action, CollectOrder, Core, LogNote, Order, Phase, Stopping};
use crate::limits;
use proto::v1::{Artifact, Cause, CauseKind, CheckpointId, Ended, Started, Stop, report};
use std::sync::Arc;
use world::clock::Now;
use world::processes::{Exit, Report, Signal};

impl Core {
    pub(super) fn process_report(&mut self, now: Now, report: Report) {
        match report {
            Report::Started { key, pid } => self.started(now, &key, pid),
            Report::LaunchFailed { key, error } => self.launch_failed(&key, &error),
            Report::Exited { key, exit } => match Key::from_process_key(&key) {
                Some(known) if self.attempts.contains_key(&known) => self.exited(&known, &exit),
                _ => self.order(Order::Forget { key }),
            },
            Report::SupervisorLost => self.supervisor_lost(),
        }
    }

    fn phase(&self, key: &Key) -> Option<&Phase> {
        self.attempts.get(key).map(|attempt| &attempt.phase)
    }

    fn started(&mut self, now: Now, process: &str, pid: u32) {
        let Some(key) = Key::from_process_key(process) else { return };
        match self.phase(&key) {
            Some(Phase::Launching) => {}
            Some(Phase::Running | Phase::Collecting(_) | Phase::Saving(..)) => return,
            // It ended for us (its supervisor was thought lost) before it began.
            Some(_) => {
                world::mark!("agent.launch.began_after_its_end");
                return self.order(Order::Signal { key: process.to_owned(), signal: Signal::Kill });
            }
            None => return self.order(Order::Forget { key: process.to_owned() }),
        }
        self.enter(&key, Phase::Running);
        self.out.push(Action::Log(LogNote::Opened { key: key.clone(), adopted: false }));
        self.reports.push(key.clone(), report::What::Started(Started { at_ms: now.wall_ms, pid }));
        self.run_clock(now, &key, 0);
        self.look_later(now, &key);
    }

    /// Sets the clock of a running attempt's timeout, some of which may be over.
    pub(super) fn run_clock(&mut self, now: Now, key: &Key, passed_ms: u64) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        let timeout_ms = attempt.work.step.timeout_ms;
        if timeout_ms > 0 {
            attempt.timeout_at_ms = Some(now.mono_ms.saturating_add(timeout_ms.saturating_sub(passed_ms)));
            if attempt.stopping.is_none() {
                let at = attempt.timeout_at_ms;
                self.set_timer(key, at);
            }
        }
    }

    fn launch_failed(&mut self, process: &str, error: &str) {
        let Some(key) = Key::from_process_key(process) else { return };
        if self.phase(&key) != Some(&Phase::Launching) {
            return;
        }
        world::mark!("agent.launch.failed");
        let attempt = self.attempts.get_mut(&key).expect("its phase was just read");
        let (fault, code) = match attempt.stopping.take() {
            Some(stopping) => (stopping.fault, 0),
            None => cause::of_launch(error, attempt.work.program()),
        };
        // It may have left empty spool files.
        self.log_ended(&key, true, 0, 0);
        self.finish(&key, fault, &Exit { code, ..Exit::default() }, Vec::new());
    }

    pub(super) fn exited(&mut self, key: &Key, exit: &Exit) {
        let Some(phase @ (Phase::Launching | Phase::Running)) = self.phase(key).cloned() else { return };
        self.log_ended(key, phase == Phase::Launching, exit.stdout_bytes, exit.stderr_bytes);
        let attempt = self.attempts.get_mut(key).expect("its phase was just read");
        let fault = if let Some(stopping) = attempt.stopping.take() {
            stopping.fault
        } else if exit.fenced {
            world::mark!("agent.exit.by_the_dead_mans_switch");
            let text = format!("the supervisor of node {} ended it: the lease ran out", self.config.node);
            Fault::new(CauseKind::LeaseExpired, text)
        } else {
            cause::of_exit(exit, attempt.work.memory_bytes())
        };
        if fault.kind != CauseKind::Succeeded || attempt.work.step.outputs.is_empty() {
            if !self.look_last(key, &fault, exit) {
                self.finish(key, fault, exit, Vec::new());
            }
            return;
        }
        let directory = attempt.directory.clone().unwrap_or_default();
        let work = Arc::clone(&attempt.work);
        self.set_timer(key, None);
        self.enter(key, Phase::Collecting(*exit));
        self.out.push(Action::Collect(CollectOrder { key: key.clone(), directory, work }));
    }

    /// Tells the shipper the final lengths of a process's logs.
    fn log_ended(&mut self, key: &Key, unopened: bool, stdout_bytes: u64, stderr_bytes: u64) {
        if unopened {
            self.out.push(Action::Log(LogNote::Opened { key: key.clone(), adopted: false }));
        }
        self.out.push(Action::Log(LogNote::Ended { key: key.clone(), stdout_bytes, stderr_bytes }));
    }

    pub(super) fn collected(&mut self, key: &Key, result: Result<Vec<Artifact>, Fault>) {
        let Some(Phase::Collecting(exit)) = self.phase(key).cloned() else { return };
        match result {
            Ok(artifacts) => {
                self.finish(key, Fault::new(CauseKind::Succeeded, "exit code 0"), &exit, artifacts);
            }
            Err(fault) => {
                world::mark!("agent.outputs.not_collected");
                self.finish(key, fault, &exit, Vec::new());
            }
        }
    }

    /// All processes of this node are gone and nobody saw how. A launch that was
    /// on its way may have come to the supervisor that took the lost one's place:
    /// it is forgotten there before its slot is given to another.
    fn supervisor_lost(&mut self) {
        world::mark!("agent.supervisor.lost");
        let live = self.attempts.iter().filter(|(_, held)| is_live(&held.phase));
        let keys: Vec<Key> = live.map(|(key, _)| key.clone()).collect();
        let text = format!("the supervisor of node {} was lost with all its processes", self.config.node);
        for key in keys {
            if self.phase(&key) == Some(&Phase::Launching) {
                self.order(Order::Forget { key: key.process_key() });
            }
            self.lose(&key, &text);
        }
    }

    /// Whether these launches happened is not known: they count as over, and
    /// are forgotten (and so killed) where they did happen.
    pub(super) fn unreachable(&mut self, launches: &[String], reason: &str) {
        for key in launches.iter().filter_map(|process| Key::from_process_key(process)) {
            if self.phase(&key) == Some(&Phase::Launching) {
                world::mark!("agent.launch.in_doubt");
                self.lose(&key, &format!("it could not be launched: {reason}"));
            }
        }
    }

    fn lose(&mut self, key: &Key, text: &str) {
        let attempt = self.attempts.get_mut(key).expect("only held attempts are lost");
        if attempt.stopping.is_none() {
            let fault = Fault::new(CauseKind::AgentRestarted, text);
            attempt.stopping = Some(Stopping { fault, kill_at_ms: u64::MAX });
        }
        if attempt.phase == Phase::Launching {
            self.out.push(Action::Log(LogNote::Opened { key: key.clone(), adopted: false }));
        }
        self.set_timer(key, None);
        self.enter(key, Phase::Measuring);
        self.out.push(Action::Measure(key.clone()));
    }

    pub(super) fn measured(&mut self, key: &Key, stdout_bytes: u64, stderr_bytes: u64) {
        if self.phase(key) != Some(&Phase::Measuring) {
            return;
        }
        self.log_ended(key, false, stdout_bytes, stderr_bytes);
        let attempt = self.attempts.get_mut(key).expect("its phase was just read");
        let stopping = attempt.stopping.take().expect("what is measured was lost for a reason");
        let exit = Exit { stdout_bytes, stderr_bytes, ..Exit::default() };
        self.finish(key, stopping.fault, &exit, Vec::new());
    }

    /// Launches that stood in a queue until the lease was over: they never ran.
    pub(super) fn lapsed(&mut self, launches: &[String]) {
        for key in launches.iter().filter_map(|process| Key::from_process_key(process)) {
            if self.phase(&key) == Some(&Phase::Launching) {
                let text = format!("the lease of node {} ran out before it started", self.config.node);
                let attempt = self.attempts.get_mut(&key).expect("its phase was just read");
                attempt.launched = false;
                let stopping = attempt.stopping.take();
                let fault = stopping.map_or(Fault::new(CauseKind::LeaseExpired, text), |stop| stop.fault);
                self.finish(&key, fault, &Exit::default(), Vec::new());
            }
        }
    }

    pub(super) fn stop(&mut self, now: Now, stop: Stop) {
        let wanted = stop.cause.unwrap_or_default();
        let kind = match wanted.kind() {
            CauseKind::Unspecified => CauseKind::CancelledByUser,
            kind => kind,
        };
        let text = if wanted.text.is_empty() { "stopped".to_owned() } else { wanted.text };
        let fault = Fault { kind, text };
        let kill_at_ms = now.mono_ms.saturating_add(stop.grace_ms);
        for attempt in &stop.attempts {
            for key in self.ranks_of(&Key::of(attempt, 0)) {
                if kind == CauseKind::Preempted {
                    self.give_way(now, &key, fault.clone(), stop.checkpoint_ms, stop.grace_ms);
                } else {
                    self.stop_one(now, &key, fault.clone(), kill_at_ms);
                }
            }
        }
    }

    /// Ends an attempt: what does not run at once, what runs by TERM now and
    /// KILL at an instant. Said again, only the earlier instant counts.
    pub(super) fn stop_one(&mut self, now: Now, key: &Key, fault: Fault, kill_at_ms: u64) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        match attempt.phase.clone() {
            Phase::Waiting | Phase::Staging | Phase::Staged => {
                world::mark!("agent.stop.before_its_launch");
                self.finish(key, fault, &Exit::default(), Vec::new());
            }
            Phase::Collecting(exit) => {
                world::mark!("agent.stop.while_collecting");
                self.finish(key, fault, &exit, Vec::new());
            }
            // Said again to a rank that ended for it, a stop leaves the last look alone.
            Phase::Saving(..) if fault.kind != CauseKind::CancelledByUser => {}
            Phase::Saving(exit, fault) => {
                world::mark!("agent.stop.while_saving");
                self.finish(key, fault, &exit, Vec::new());
            }
            Phase::Measuring | Phase::Ended(_) => {}
            Phase::Launching | Phase::Running => {
                let first = attempt.stopping.is_none();
                let stopping = attempt.stopping.get_or_insert(Stopping { fault, kill_at_ms });
                stopping.kill_at_ms = stopping.kill_at_ms.min(kill_at_ms);
                let kill_at_ms = stopping.kill_at_ms;
                if !first {
                    world::mark!("agent.stop.said_again");
                }
                if first && kill_at_ms > now.mono_ms {
                    self.order(Order::Signal { key: key.process_key(), signal: Signal::Term });
                }
                if kill_at_ms > now.mono_ms {
                    self.set_timer(key, Some(kill_at_ms));
                } else {
                    self.kill(now, key);
                }
            }
        }
    }

    fn kill(&mut self, now: Now, key: &Key) {
        world::mark!("agent.stop.killed");
        self.order(Order::Signal { key: key.process_key(), signal: Signal::Kill });
        self.set_timer(key, Some(now.mono_ms + limits::KILL_REPEAT_MS));
    }

    /// An attempt's timer: the KILL that follows a TERM, or its timeout.
    pub(super) fn timer_fired(&mut self, now: Now, key: &Key) {
        let Some(attempt) = self.attempts.get(key).filter(|held| is_live(&held.phase)) else { return };
        let timeout_ms = attempt.work.step.timeout_ms;
        if attempt.stopping.is_some() {
            return self.kill(now, key);
        }
        if self.waited_out(now, key) {
            return;
        }
        world::mark!("agent.timeout");
        let timeout = span_text(timeout_ms);
        let fault = Fault::new(CauseKind::Timeout, format!("ran longer than its timeout {timeout}"));
        self.stop_one(now, key, fault, now.mono_ms.saturating_add(self.config.stop_grace_ms));
    }

    pub(super) fn finish(&mut self, key: &Key, fault: Fault, exit: &Exit, artifacts: Vec<Artifact>) {
        self.end(key, fault, exit, artifacts, None);
    }

    /// The one end of every attempt: reports it and frees its place.
    pub(super) fn end(
        &mut self,
        key: &Key,
        fault: Fault,
        exit: &Exit,
        artifacts: Vec<Artifact>,
        lost_checkpoint: Option<CheckpointId>,
    ) {
        let kind = fault.kind;
        let cause: Cause = cause::reported(fault, exit, &self.config.node);
        let ended = Ended {
            cause: Some(cause),
            artifacts,
            wall_ms: exit.wall_ms,
            cpu_ms: exit.cpu_ms,
            max_rss_bytes: exit.max_rss_bytes,
            stdout_bytes: exit.stdout_bytes,
            stderr_bytes: exit.stderr_bytes,
            lost_checkpoint,
        };
        self.set_timer(key, None);
        self.set_look(key, None);
        self.enter(key, Phase::Ended(cause::state_of(kind)));
        let attempt = self.attempts.get_mut(key).expect("it was just entered");
        attempt.stopping = None;
        attempt.timeout_at_ms = None;
        self.reports.push(key.clone(), report::What::Ended(ended));
    }
}

/// A process may be running.
fn is_live(phase: &Phase) -> bool {
    matches!(phase, Phase::Launching | Phase::Running)
}
