//! What a server says: it assigns, stops, renews, confirms and reconciles.

use super::{FIRST_RANK, GRANTS, Grant, World, grant_of, key, ranks_of};
use crate::draw::Draw;
use agent::core::Event;
use agent::core::key::Key;
use proto::v1::server_frame::Frame as Told;
use proto::v1::{
    Assign, AssignedTask, Cause, CauseKind, Checkpoint, Gang, Input, LeaseRenewal, Reconcile, ReportsAck,
    Step, Stop,
};

impl World {
    pub(super) fn hear(&mut self, frame: Told) {
        if self.open {
            self.step(Event::Frame { session: self.session, frame });
        }
    }

    pub(super) fn open(&mut self, heartbeat_ms: u64, lease_ttl_ms: u64) {
        if !self.open {
            self.open = true;
            self.session += 1;
            let session = self.session;
            self.step(Event::SessionOpened { session, heartbeat_ms, lease_ttl_ms });
        }
    }

    pub(super) fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            self.step(Event::SessionClosed { session: self.session });
            self.heartbeats.clear();
            self.reports.clear();
        }
    }

    pub(super) fn link(&mut self, draw: &mut Draw<'_>) {
        match draw.below(4) {
            0 => self.close(),
            1 => self.open(draw.number(), draw.number()),
            _ => self.open(5_000, 30_000),
        }
    }

    pub(super) fn assign(&mut self, draw: &mut Draw<'_>) {
        let grant = *draw.pick(&GRANTS);
        let first = self.next_task;
        let count = 1 + draw.below(6) as u64;
        if self.open {
            self.next_task += count;
            self.assign_tasks(grant, first..self.next_task, draw);
        }
    }

    fn assign_tasks(&mut self, grant: Grant, tasks: std::ops::Range<u64>, draw: &mut Draw<'_>) {
        let gang = (grant.ranks > 0).then(|| Gang {
            world_size: 5,
            first_rank: FIRST_RANK,
            local_ranks: grant.ranks,
            ..Gang::default()
        });
        for task in tasks.clone() {
            self.assigned.extend(ranks_of(grant).map(|rank| key(grant, task, rank)));
        }
        let outputs = if draw.coin() { vec!["x".to_owned()] } else { Vec::new() };
        let argv = if draw.seldom(16) { Vec::new() } else { vec!["prog".to_owned()] };
        let timeout_ms = if draw.coin() { 0 } else { draw.number().saturating_mul(100) };
        let checkpoint = (timeout_ms > 0).then(|| Checkpoint {
            path: "c".to_owned(),
            every_ms: timeout_ms / 4,
            ..Checkpoint::default()
        });
        let step = Step { name: "s".to_owned(), argv, outputs, timeout_ms, checkpoint, ..Step::default() };
        let inputs = vec![Input::default(); draw.below(2)];
        let frame = Assign {
            tenant: grant.tenant.to_owned(),
            job_number: 1,
            job_id: "t-1".to_owned(),
            epoch: grant.epoch,
            slots: grant.slots,
            step: (!draw.seldom(32)).then_some(step),
            inputs,
            tasks: tasks
                .map(|task| AssignedTask { task, index: task, attempt: 1, ..AssignedTask::default() })
                .collect(),
            gang,
            ..Assign::default()
        };
        self.hear(Told::Assign(frame));
    }

    /// A server says again only what it has no end of, of no rank.
    pub(super) fn assign_again(&mut self, draw: &mut Draw<'_>) {
        for held in self.core.keys() {
            let grant = grant_of(&held);
            let over = |key: &Key| self.ends.contains_key(key) || self.forgotten.contains(key);
            let mut ranks = ranks_of(grant).map(|rank| key(grant, held.task, rank));
            if self.open && !ranks.any(|key| !self.core.keys().contains(&key) && over(&key)) {
                self.assign_tasks(grant, held.task..held.task + 1, draw);
            }
        }
    }

    pub(super) fn stop(&mut self, draw: &mut Draw<'_>) {
        let held: Vec<Key> = self.core.keys().into_iter().take(256).collect();
        let attempts = if held.is_empty() { Vec::new() } else { vec![draw.pick(&held).attempt_ref()] };
        let kind = [0, 30, 33, 22, 4, 99][draw.below(6)];
        let cause = draw.coin().then(|| Cause { kind, ..Cause::default() });
        self.hear(Told::Stop(Stop {
            attempts,
            grace_ms: draw.number().saturating_mul(50),
            cause,
            checkpoint_ms: 0,
        }));
    }

    pub(super) fn renew(&mut self) {
        if let Some(sequence) = self.heartbeats.pop() {
            self.hear(Told::Lease(LeaseRenewal { sequence, ttl_ms: 30_000 }));
        }
    }

    pub(super) fn acknowledge(&mut self) {
        if let Some(reports) = self.reports.pop() {
            self.hear(Told::ReportsAck(ReportsAck { sequence: reports.sequence }));
        }
    }

    pub(super) fn reconcile(&mut self, draw: &mut Draw<'_>) {
        if !self.open {
            return;
        }
        let held = self.core.keys();
        let bits = draw.byte();
        let kept = held.iter().enumerate().filter(|(at, _)| bits >> (at % 8) & 1 == 1);
        let keep = kept.map(|(_, key)| key.attempt_ref()).collect();
        self.hear(Told::Reconcile(Reconcile { keep }));
        let still = self.core.keys();
        self.forgotten.extend(held.difference(&still).cloned());
    }

    /// A gang of which a rank is over is ended whole by the server.
    pub(super) fn end_broken_gangs(&mut self) {
        let over = |key: &Key| self.ends.contains_key(key) || self.forgotten.contains(key);
        let broken = |key: &Key| {
            let grant = grant_of(key);
            grant.ranks > 0 && ranks_of(grant).any(|rank| over(&Key { rank, ..key.clone() }))
        };
        let broken: Vec<Key> = self.core.keys().into_iter().filter(broken).collect();
        for key in broken {
            let cause = Cause { kind: CauseKind::Preempted.into(), ..Cause::default() };
            let attempts = vec![key.attempt_ref()];
            self.hear(Told::Stop(Stop { attempts, grace_ms: 0, cause: Some(cause), checkpoint_ms: 0 }));
        }
    }
}
