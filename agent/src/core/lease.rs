//! The session with the server and the lease it renews.
//!
//! What must hold: no process of this node runs past the instant from which
//! its work could be given to another. The lease is counted from when the
//! heartbeat that was answered was *sent*, by this node's monotonic clock, so
//! that neither a slow answer nor a wrong date can lengthen it. TERM and KILL
//! come before its end by the configured margins; nothing is launched after
//! the instant of TERM. The supervisor is told the instant of KILL with every
//! renewal and acts on it alone should this agent be gone.

use super::cause::{Fault, span_text};
use super::key::Key;
use super::{Core, Order, Phase};
use crate::config::Margins;
use crate::limits;
use proto::v1::{CauseKind, Heartbeat, Hello, LeaseRenewal, agent_frame};
use std::collections::BTreeMap;
use world::clock::Now;

/// See the module.
#[derive(Debug)]
pub(super) struct Lease {
    margins: Margins,
    /// When the last answered heartbeat was sent, or (not `renewed`) from when
    /// on what an earlier agent left may go on unheard.
    anchor_ms: u64,
    ttl_ms: u64,
    renewed: bool,
    /// What it covered was ended.
    fenced: bool,
}

impl Lease {
    pub(super) fn new(margins: Margins, now_ms: u64) -> Self {
        Self { margins, anchor_ms: now_ms, ttl_ms: margins.lease_ttl_ms, renewed: false, fenced: false }
    }

    /// From here on nothing is launched and what runs is asked to end.
    pub(super) fn term_at_ms(&self) -> u64 {
        self.anchor_ms.saturating_add(self.ttl_ms.saturating_sub(self.margins.term_before_ms))
    }

    /// From here on nothing runs.
    pub(super) fn kill_at_ms(&self) -> u64 {
        self.anchor_ms.saturating_add(self.ttl_ms.saturating_sub(self.margins.kill_before_ms))
    }

    pub(super) fn may_launch(&self, now_ms: u64) -> bool {
        self.renewed && now_ms < self.term_at_ms()
    }

    pub(super) fn wakeup_ms(&self) -> Option<u64> {
        (!self.fenced).then(|| self.term_at_ms())
    }

    /// Nothing hangs on the lease: it begins anew, not yet renewed.
    fn restart(&mut self, now_ms: u64) {
        *self = Self::new(Margins { lease_ttl_ms: self.ttl_ms, ..self.margins }, now_ms);
    }
}

/// The session that is open.
#[derive(Debug)]
pub(super) struct Session {
    /// As the server names it.
    pub(super) number: u64,
    /// Which of this agent's sessions it is, from 1.
    pub(super) ordinal: u64,
    heartbeat_ms: u64,
    heartbeat_at_ms: u64,
    sequence: u64,
    /// When heartbeats not yet answered were sent.
    sent_ms: BTreeMap<u64, u64>,
}

impl Session {
    pub(super) fn new(number: u64, heartbeat_ms: u64) -> Self {
        Self {
            number,
            ordinal: 0,
            heartbeat_ms: heartbeat_ms.max(1),
            heartbeat_at_ms: 0,
            sequence: 0,
            sent_ms: BTreeMap::new(),
        }
    }

    pub(super) fn heartbeat_at_ms(&self) -> u64 {
        self.heartbeat_at_ms
    }
}

impl Core {
    /// Hello first, then a heartbeat, then what was left to be reported.
    pub(super) fn session_opened(&mut self, now: Now, mut session: Session, lease_ttl_ms: u64) {
        if self.session.as_ref().is_some_and(|open| open.number >= session.number) {
            return;
        }
        // What an earlier agent or session left is still counted from its own
        // start; over nothing a lease begins with the session.
        if self.attempts.values().all(|attempt| matches!(attempt.phase, Phase::Ended(_))) {
            world::mark!("agent.lease.begins_anew");
            self.lease.restart(now.mono_ms);
        }
        if lease_ttl_ms > 0 && !self.lease.renewed {
            self.lease.ttl_ms = lease_ttl_ms;
        }
        self.sessions_opened += 1;
        session.ordinal = self.sessions_opened;
        self.last_session = session.number;
        let held = self.held();
        self.send(agent_frame::Frame::Hello(Hello {
            node: self.config.node.clone(),
            session: session.number,
            held,
        }));
        self.session = Some(session);
        self.tell_progress_anew();
        self.heartbeat(now);
        self.reports.requeue();
        self.flush_reports(now);
    }

    pub(super) fn session_closed(&mut self, session: u64) {
        if self.session.as_ref().is_some_and(|open| open.number == session) {
            self.session = None;
        }
    }

    /// Sends a heartbeat where one is due.
    pub(super) fn heartbeat(&mut self, now: Now) {
        let Some(session) = self.session.as_mut().filter(|open| open.heartbeat_at_ms <= now.mono_ms) else {
            return;
        };
        session.sequence += 1;
        session.heartbeat_at_ms = now.mono_ms.saturating_add(session.heartbeat_ms);
        session.sent_ms.insert(session.sequence, now.mono_ms);
        while session.sent_ms.len() > limits::HEARTBEATS_PENDING_MAX {
            session.sent_ms.pop_first();
        }
        let sequence = session.sequence;
        let queued = self.grants.values().map(|grant| grant.queued).sum();
        let (running, spool_bytes) = (self.running, self.spool_bytes);
        self.send(agent_frame::Frame::Heartbeat(Heartbeat { sequence, running, queued, spool_bytes }));
    }

    /// The server answered a heartbeat.
    pub(super) fn renewed(&mut self, now: Now, renewal: LeaseRenewal) {
        let Some(session) = &mut self.session else { return };
        let Some(sent_ms) = session.sent_ms.remove(&renewal.sequence) else { return };
        session.sent_ms.retain(|sequence, _| *sequence > renewal.sequence);
        let could_launch = self.lease.may_launch(now.mono_ms);
        self.lease.anchor_ms = self.lease.anchor_ms.max(sent_ms);
        if renewal.ttl_ms > 0 {
            self.lease.ttl_ms = renewal.ttl_ms;
        }
        self.lease.renewed = true;
        self.lease.fenced = false;
        if !self.lease.may_launch(now.mono_ms) {
            // The answer came so late that the lease is over already.
            world::mark!("agent.lease.answered_too_late");
            return self.watch_lease(now);
        }
        self.order(Order::KeepAlive { until_ms: self.lease.kill_at_ms() });
        if !could_launch {
            self.dirty.extend(self.grants.keys().cloned());
        }
    }

    /// Ends everything once the lease is about to pass on.
    pub(super) fn watch_lease(&mut self, now: Now) {
        if self.lease.fenced || now.mono_ms < self.lease.term_at_ms() {
            return;
        }
        world::mark!("agent.lease.over");
        self.lease.fenced = true;
        let silent = span_text(self.lease.term_at_ms() - self.lease.anchor_ms);
        let fault = Fault::new(
            CauseKind::LeaseExpired,
            format!("node {} had no word from the server for {silent}: its lease ran out", self.config.node),
        );
        let kill_at_ms = self.lease.kill_at_ms();
        // What has exited already only waits for its outputs: no process is
        // left, and the server's fence decides whether they still count.
        let over = |phase: &Phase| {
            matches!(phase, Phase::Collecting(_) | Phase::Saving(..) | Phase::Measuring | Phase::Ended(_))
        };
        let live = self.attempts.iter().filter(|(_, attempt)| !over(&attempt.phase));
        let keys: Vec<Key> = live.map(|(key, _)| key.clone()).collect();
        for key in keys {
            world::mark!("agent.lease.over_with_work");
            self.stop_one(now, &key, fault.clone(), kill_at_ms);
        }
    }
}
