//! Nodes: sessions, heartbeats, verdicts, leases.
//!
//! The promise to a node: its tasks are its own until `lease_ttl_ms` after it
//! *asked* in its last answered heartbeat. The core counts from when it
//! *answered*, which is later, and adds a margin, so no attempt is given to
//! another node while an honest agent may still run it. A verdict (LOST) keeps
//! new work away at once; it ends attempts only when that lease has passed.
//!
//! Brake: when too many nodes fall silent together, or the core itself was not
//! stepped for long, it is more likely that the judge is cut off than that all
//! are gone. Then nobody is judged until most were heard again, or for a while.

use super::finish::End;
use super::gangs;
use super::model::{Active, Grant, Node, Rank, Spot, cause};
use super::types::Reply;
use super::{Core, Work};
use crate::limits;
use proto::problem::{self, Problem};
use proto::v1::server_frame::Frame;
use proto::v1::{
    AttemptRef, Cause, CauseKind, Drainer, Goodbye, Heartbeat, HeldAttempt, LeaseRenewal, NodeRow, NodeState,
    RankEnd, Reconcile, RegisterReply, RegisterRequest, Reservation, State,
};
use std::collections::BTreeSet;

/// See the module.
#[derive(Default)]
pub(super) struct Brake {
    /// Set while it is pulled.
    until_ms: Option<u64>,
    heard: BTreeSet<String>,
    /// Nodes that lived when it was pulled.
    of: usize,
    /// After a brake that ended without the world being heard the silent are
    /// judged: it is not pulled for their silence before this instant.
    disarmed_until_ms: u64,
}

impl Brake {
    pub(super) fn pulled(&self) -> bool {
        self.until_ms.is_some()
    }

    pub(super) fn until_ms(&self) -> Option<u64> {
        self.until_ms
    }
}

/// One attempt (or rank) that an agent says it holds.
type Held = (String, u64, u32, u64, u32, u64, u32);

impl Core {
    pub(super) fn register(&mut self, ticket: u64, request: RegisterRequest) {
        let now = self.now;
        if !self.nodes.contains_key(&request.node) && self.nodes.len() >= limits::NODES_MAX {
            let reason = "the cluster has as many nodes as it can take";
            let problem =
                Problem::new("limit.nodes", "node", &request.node, reason, "use fewer, larger nodes");
            self.reply(ticket, Reply::Refused(problem));
            return;
        }
        let name = request.node.clone();
        let earlier = self.nodes.get(&name).map(|node| (node.row.session, node.connected));
        if let Some((session, true)) = earlier {
            world::mark!("controller.register.over_a_live_session");
            self.goodbye(&name, session);
        }
        let node = self.nodes.get_or_insert_with(name.clone(), || Node::new(NodeRow::default(), now.mono_ms));
        node.row = NodeRow {
            name: request.node,
            pool: request.pool,
            labels: request.labels,
            capacity: request.capacity,
            state: NodeState::Ready.into(),
            registered_ms: now.wall_ms,
            // Of one that was forgotten something may still be on its way.
            session: node.row.session.max(self.sessions_forgotten) + 1,
            version: request.version,
            address: request.address,
            drained: node.row.drained,
            drain_reason: std::mem::take(&mut node.row.drain_reason),
            reservations: std::mem::take(&mut node.row.reservations),
            drainer: node.row.drainer,
        };
        node.connected = false;
        let session = node.row.session;
        self.out.node(&name);
        self.heard(&name);
        let reply = RegisterReply {
            session,
            heartbeat_ms: self.config.heartbeat_ms,
            lease_ttl_ms: self.config.lease_ttl_ms,
            server_ms: now.wall_ms,
        };
        self.reply(ticket, Reply::Registered(reply));
    }

    pub(super) fn session_current(&self, node: &str, session: u64) -> bool {
        self.nodes.get(node).is_some_and(|node| node.row.session == session)
    }

    /// Whether frames of this session's stream count. Once its node was lost
    /// they do not: what is still on its way either side may be long out of
    /// date, so the agent must say anew what it holds.
    pub(super) fn stream_current(&self, node: &str, session: u64) -> bool {
        self.session_current(node, session)
            && self.nodes.get(node).is_some_and(|node| node.row.state() != NodeState::Lost)
    }

    pub(super) fn goodbye(&mut self, node: &str, session: u64) {
        let reason = "this session is over; register again".to_owned();
        self.out.send(node, session, Frame::Goodbye(Goodbye { reason }));
    }

    pub(super) fn session_lost(&mut self, node: &str, session: u64) {
        if let Some(node) = self.nodes.get_mut(node)
            && node.row.session == session
        {
            node.connected = false;
        }
    }

    pub(super) fn drain_node(&mut self, ticket: u64, node: &str, drained: bool, reason: String) {
        let reply = match self.nodes.get_mut(node) {
            Some(found) if found.row.drainer() == Drainer::Removal => Reply::Refused(problem::conflict(
                "removed",
                "node",
                node,
                "is being removed by the autoscaler",
                "wait until it is gone; `drumline alerts` tells where its driver fails",
            )),
            Some(found) => {
                found.row.set_drainer(Drainer::Unspecified);
                found.row.drained = drained;
                found.row.drain_reason = if drained { reason } else { String::new() };
                found.streak = 0;
                found.streak_jobs.clear();
                self.out.node(node);
                Reply::Done
            }
            None => Reply::Refused(problem::missing("node", node)),
        };
        self.reply(ticket, reply);
    }

    pub(super) fn reserve(&mut self, ticket: u64, nodes: &[String], asked: &Reservation, remove: bool) {
        let now_ms = self.now.wall_ms;
        let stays = |other: &Reservation| other.name != asked.name && other.until_ms > now_ms;
        for name in nodes {
            let problem = match self.nodes.get(name) {
                None => problem::missing("node", name),
                Some(node) => {
                    let others = node.row.reservations.iter().filter(|other| stays(other)).count();
                    if remove || others < proto::limits::RESERVATIONS_PER_NODE_MAX {
                        continue;
                    }
                    let reason = "has as many reservations as a node may have";
                    Problem::new(
                        "limit.reservations",
                        "node",
                        name,
                        reason,
                        "end one of them, or wait for its end",
                    )
                }
            };
            self.reply(ticket, Reply::Refused(problem));
            return;
        }
        for name in nodes {
            let Some(node) = self.nodes.get_mut(name) else { continue };
            node.row.reservations.retain(stays);
            if !remove {
                world::mark!("controller.node.reserved");
                node.row.reservations.push(asked.clone());
            }
            self.out.node(name);
        }
        self.reply(ticket, Reply::Done);
    }

    pub(super) fn heartbeat(&mut self, name: &str, session: u64, beat: &Heartbeat) {
        if !self.stream_current(name, session) {
            world::mark!("controller.heartbeat.of_an_old_session");
            self.goodbye(name, session);
            return;
        }
        self.heard(name);
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.answered_ms = self.now.mono_ms;
        let silent = !std::mem::replace(&mut node.connected, true);
        self.set_deadline(name);
        let renewal = LeaseRenewal { sequence: beat.sequence, ttl_ms: self.config.lease_ttl_ms };
        self.out.send(name, session, Frame::Lease(renewal));
        if silent {
            world::mark!("controller.heartbeat.of_a_silent_stream");
            // The stream lives although it was given up, or this core is new:
            // what was said meanwhile may not have arrived.
            self.repeat_all(name);
        }
    }

    /// Any sign of life of the current session.
    pub(super) fn heard(&mut self, name: &str) {
        let now_ms = self.now.mono_ms;
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.heard_ms = now_ms;
        if node.row.state() != NodeState::Ready {
            world::mark!("controller.node.heard_again");
            node.row.set_state(NodeState::Ready);
            self.out.node(name);
        }
        self.set_deadline(name);
        if self.brake.pulled() {
            self.brake.heard.insert(name.to_owned());
            if self.brake.heard.len() * 2 > self.brake.of {
                world::mark!("controller.brake.world_heard_again");
                self.release_brake();
            }
        }
    }

    /// When the node must next be looked at if nothing is heard of it.
    pub(super) fn set_deadline(&mut self, name: &str) {
        let lost = self.nodes.get(name).is_some_and(|node| node.row.state() == NodeState::Lost);
        let empty = lost && !self.holds_any(name);
        let (config, deadlines) = (&self.config, &mut self.node_deadlines);
        let Some(node) = self.nodes.get_mut(name) else { return };
        let deadline = match node.row.state() {
            NodeState::Lost if empty => None,
            NodeState::Lost => Some(node.answered_ms + config.lease_ttl_ms + config.lease_margin_ms),
            NodeState::Suspect => Some(node.heard_ms + config.lost_after_ms),
            _ => Some(node.heard_ms + config.suspect_after_ms),
        };
        if node.deadline_ms == deadline {
            return;
        }
        if let Some(old) = node.deadline_ms.take() {
            deadlines.remove(&(old, name.to_owned()));
        }
        if let Some(new) = deadline {
            deadlines.insert((new, name.to_owned()));
            node.deadline_ms = Some(new);
        }
    }

    // ------------------------------------------------------------ verdicts

    /// Judges one node whose time has come. False where none is due.
    pub(super) fn judge_nodes(&mut self) -> bool {
        let now_ms = self.now.mono_ms;
        if let Some(until) = self.brake.until_ms {
            if now_ms < until {
                return false;
            }
            world::mark!("controller.brake.ran_out");
            self.brake.disarmed_until_ms = now_ms + self.config.lost_after_ms + self.config.brake_window_ms;
            self.release_brake();
        }
        let Some((at, name)) = self.node_deadlines.first().cloned() else { return false };
        if at > now_ms {
            return false;
        }
        let state = self.nodes.get(&name).map_or(NodeState::Unspecified, |node| node.row.state());
        match state {
            NodeState::Suspect if self.too_many_silent() => {
                world::mark!("controller.brake.many_silent_at_once");
                self.pull_brake("too many nodes fell silent at once");
                return false;
            }
            NodeState::Suspect => {
                world::mark!("controller.node.lost");
                self.verdict(&name, NodeState::Lost);
                let text =
                    format!("node {name} is lost; its tasks are tried elsewhere once its lease has passed");
                self.log("", 0, text);
            }
            NodeState::Lost => self.lease_over(&name),
            _ => {
                world::mark!("controller.node.suspect");
                self.verdict(&name, NodeState::Suspect);
            }
        }
        true
    }

    fn verdict(&mut self, name: &str, state: NodeState) {
        let now_ms = self.now.mono_ms;
        if let Some(node) = self.nodes.get_mut(name) {
            node.row.set_state(state);
            node.lost_ms = now_ms;
            node.connected &= state != NodeState::Lost;
            self.out.node(name);
        }
        self.set_deadline(name);
    }

    fn too_many_silent(&self) -> bool {
        let now_ms = self.now.mono_ms;
        if now_ms < self.brake.disarmed_until_ms {
            return false;
        }
        let (mut live, mut silent) = (0, 0);
        for node in self.nodes.values() {
            let lately = now_ms - node.lost_ms <= self.config.brake_window_ms;
            match node.row.state() {
                NodeState::Suspect => (live, silent) = (live + 1, silent + 1),
                NodeState::Lost if lately => (live, silent) = (live + 1, silent + 1),
                NodeState::Lost => {}
                _ => live += 1,
            }
        }
        silent >= 2 && silent * 2 > live
    }

    pub(super) fn pull_brake(&mut self, why: &str) {
        let now_ms = self.now.mono_ms;
        let of = self.nodes.values().filter(|node| node.row.state() != NodeState::Lost).count();
        self.brake.until_ms = Some(now_ms + self.config.brake_ms_max);
        self.brake.heard.clear();
        self.brake.of = of.max(1);
        self.stats.brakes += 1;
        self.restart_deadlines();
        self.log("", 0, format!("no verdicts on nodes for a while: {why}"));
    }

    fn release_brake(&mut self) {
        self.brake.until_ms = None;
        self.brake.heard.clear();
        self.restart_deadlines();
    }

    /// Every node counts as heard and answered now.
    pub(super) fn restart_deadlines(&mut self) {
        let now_ms = self.now.mono_ms;
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in names {
            if let Some(node) = self.nodes.get_mut(&name) {
                node.heard_ms = now_ms;
                node.answered_ms = now_ms;
            }
            self.set_deadline(&name);
        }
    }

    /// The lease of a lost node has passed: what it held is over.
    fn lease_over(&mut self, name: &str) {
        let text = format!("node {name} was lost");
        let why = Cause { node: name.to_owned(), ..cause(CauseKind::NodeLost, text) };
        let grants: Vec<(String, u64)> =
            self.nodes.get(name).map(|node| node.grants.iter().cloned().collect()).unwrap_or_default();
        for (tenant, epoch) in grants {
            for (spot, active, begun) in self.on_node(name, &tenant, epoch) {
                if self.out.full() {
                    // Its deadline stays due.
                    return;
                }
                match active {
                    Some(active) => {
                        world::mark!("controller.lease.over_with_ranks");
                        self.ranks_over(name, &spot, active, &why, |_, _| true);
                    }
                    None if begun => {
                        world::mark!("controller.lease.over_with_a_task");
                        self.conclude(&spot, End::Failed(why.clone()));
                    }
                    None => {
                        world::mark!("controller.lease.over_before_it_began");
                        self.conclude(&spot, End::Returned(why.clone(), 0));
                    }
                }
            }
        }
        self.set_deadline(name);
    }

    /// Something may still run on the node under one of its grants.
    fn holds_any(&self, name: &str) -> bool {
        let Some(node) = self.nodes.get(name) else { return false };
        node.grants.iter().any(|(tenant, epoch)| {
            let grant = self.tenants.get(tenant).and_then(|tenant| tenant.grants.get(epoch));
            let Some(grant) = grant else { return false };
            let Some(index) = index_of(grant, name) else { return false };
            if grant.bound.get(index).is_none_or(BTreeSet::is_empty) {
                return false;
            }
            let (first, count) = grant.ranks_of(index);
            grant.gang.as_ref().is_none_or(|gang| {
                let mut here = gang.ranks.iter().skip(first as usize).take(count as usize);
                !gang.committing && here.any(|rank| *rank != Rank::Ended)
            })
        })
    }

    /// The tasks of a grant on a node in the order its agent runs them. With
    /// the attempt for a gang's; with false where the agent cannot have begun
    /// it, since as many as there are slots are before it.
    fn on_node(&self, name: &str, tenant: &str, epoch: u64) -> Vec<(Spot, Option<Active>, bool)> {
        let Some(owner) = self.tenants.get(tenant) else { return Vec::new() };
        let Some(grant) = owner.grants.get(&epoch) else { return Vec::new() };
        let Some(index) = index_of(grant, name) else { return Vec::new() };
        let (number, step) = (grant.row.job_number, grant.row.step);
        let run = owner.jobs.get(&number).and_then(|job| job.steps.get(step as usize));
        let (Some(run), Some(bound)) = (run, grant.bound.get(index)) else { return Vec::new() };
        let mut tasks: Vec<(u64, Active)> =
            bound.iter().filter_map(|task| Some((*task, *run.active(*task)?))).collect();
        tasks.sort_by_key(|(_, active)| active.order);
        let slots = grant.row.nodes.get(index).map_or(0, |node| node.slots as usize);
        tasks
            .into_iter()
            .enumerate()
            .map(|(place, (task, active))| {
                let spot = Spot { tenant: tenant.to_owned(), number, step, task };
                let begun = place < slots || active.state == State::Running;
                (spot, run.gang.map(|_| active), begun)
            })
            .collect()
    }

    /// Ends the ranks of a gang on a node that `which` picks.
    fn ranks_over(
        &mut self,
        name: &str,
        spot: &Spot,
        active: Active,
        why: &Cause,
        which: impl Fn(u32, Rank) -> bool,
    ) {
        let grant = self.tenants.get(&spot.tenant).and_then(|tenant| tenant.grants.get(&active.epoch));
        let Some(grant) = grant else { return };
        let (Some(index), Some(gang)) = (index_of(grant, name), grant.gang.as_ref()) else { return };
        let (first, count) = grant.ranks_of(index);
        let over: Vec<u32> = (first..first + count)
            .filter(|rank| {
                let state = gang.ranks.get(*rank as usize).copied().unwrap_or(Rank::Ended);
                state != Rank::Ended && which(*rank, state)
            })
            .collect();
        for rank in over {
            let end = RankEnd { rank, cause: Some(why.clone()), artifacts: Vec::new() };
            self.rank_ended(spot, active, end);
        }
    }

    /// Counts launches that failed in a row; a node that eats tasks of several
    /// jobs drains itself.
    pub(super) fn launched(&mut self, name: &str, spot: &Spot, why: &Cause) {
        let (streak, jobs) = (self.config.flaky_streak, self.config.flaky_jobs.clamp(1, 2) as usize);
        let Some(node) = self.nodes.get_mut(name) else { return };
        if !matches!(why.kind(), CauseKind::LaunchFailed | CauseKind::StagingFailed) {
            node.streak = 0;
            node.streak_jobs.clear();
            return;
        }
        node.streak = node.streak.saturating_add(1);
        if node.streak_jobs.len() < 2 {
            node.streak_jobs.insert((spot.tenant.clone(), spot.number));
        }
        if node.streak >= streak && node.streak_jobs.len() >= jobs && !node.row.drained {
            world::mark!("controller.node.drains_itself");
            node.row.drained = true;
            node.row.drain_reason =
                format!("drained itself: {} launches failed in a row, the last: {}", node.streak, why.text);
            self.out.node(name);
            self.log("", 0, format!("node {name} drained itself after {streak} failed launches"));
        }
    }

    // ----------------------------------------------------------- reconciling

    pub(super) fn hello(&mut self, node: String, session: u64, held: Vec<HeldAttempt>) {
        if !self.session_current(&node, session) {
            world::mark!("controller.hello.of_an_old_session");
            self.goodbye(&node, session);
            return;
        }
        self.heard(&node);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.connected = true;
            // What it is told in reply it may work on for a lease, even if its first
            // heartbeat never comes.
            node.answered_ms = self.now.mono_ms;
        }
        self.reconcile(node, session, held);
    }

    /// Compares what an agent holds with what it should: what matches is kept,
    /// what it was never told is told, what it lost is over, what is not its own
    /// is to be killed. Taken up from the start if a transaction was full.
    pub(super) fn reconcile(&mut self, node: String, session: u64, held: Vec<HeldAttempt>) {
        if !self.session_current(&node, session) {
            return;
        }
        let holds: BTreeSet<Held> = held.iter().filter_map(held_key).collect();
        let text = format!("the agent on {node} came back without it");
        let gone = Cause { node: node.clone(), ..cause(CauseKind::AgentRestarted, text) };
        let mut keep = Vec::new();
        let mut orders = Vec::new();
        let grants: Vec<(String, u64)> =
            self.nodes.get(&node).map(|node| node.grants.iter().cloned().collect()).unwrap_or_default();
        for (tenant, epoch) in grants {
            let mut again = Vec::new();
            for (spot, gang, _) in self.on_node(&node, &tenant, epoch) {
                if self.out.full() {
                    self.backlog.push_front(Work::Hello { node, session, held });
                    return;
                }
                let Some(active) = self.active_at(&spot) else { continue };
                let key = |rank| held_name(&spot, &active, rank);
                if gang.is_some() {
                    self.ranks_over(&node, &spot, active, &gone, |rank, state| {
                        state == Rank::Started && !holds.contains(&key(rank))
                    });
                    match self.rank_orders(&node, &spot, &active, &gone, |rank| holds.contains(&key(rank))) {
                        Some((kept, told_again)) => {
                            if kept {
                                world::mark!("controller.reconcile.kept_ranks");
                            }
                            if told_again {
                                world::mark!("controller.reconcile.told_ranks_again");
                            }
                            keep.extend(kept.then(|| attempt_ref(&spot, &active)));
                            again.extend(told_again.then_some(spot.task));
                        }
                        None => continue,
                    }
                } else if holds.contains(&key(0)) {
                    world::mark!("controller.reconcile.kept");
                    keep.push(attempt_ref(&spot, &active));
                } else if active.state == State::Running || self.is_cancelled(&spot) {
                    world::mark!("controller.reconcile.lost_what_ran");
                    self.conclude(&spot, End::Failed(gone.clone()));
                } else {
                    world::mark!("controller.reconcile.told_again");
                    again.push(spot.task);
                }
            }
            orders.push((tenant, epoch, again));
        }
        self.out.send(&node, session, Frame::Reconcile(Reconcile { keep }));
        self.send_orders(&node, orders);
    }

    fn send_orders(&mut self, node: &str, orders: Vec<(String, u64, Vec<u64>)>) {
        for (tenant, epoch, again) in orders {
            let grant = self.tenants.get(&tenant).and_then(|tenant| tenant.grants.get(&epoch));
            let Some(index) = grant.and_then(|grant| index_of(grant, node)) else { continue };
            if !again.is_empty() {
                self.assign(&tenant, epoch, index, &again);
            }
            self.send_stop(&tenant, epoch, index);
        }
    }

    /// Says everything again to a node whose stream was thought lost.
    fn repeat_all(&mut self, node: &str) {
        let grants: Vec<(String, u64)> =
            self.nodes.get(node).map(|node| node.grants.iter().cloned().collect()).unwrap_or_default();
        let mut orders = Vec::new();
        for (tenant, epoch) in grants {
            let again = self
                .on_node(node, &tenant, epoch)
                .into_iter()
                .filter(|(spot, ..)| !self.is_cancelled(spot))
                .filter(|(spot, ..)| self.active_at(spot).is_some_and(|live| live.state == State::Staging))
                .filter(|(spot, gang, _)| gang.is_none() || self.is_unbegun(node, spot))
                .map(|(spot, ..)| spot.task)
                .collect();
            orders.push((tenant, epoch, again));
        }
        self.send_orders(node, orders);
    }

    /// For a gang's ranks on a node: whether some are held, and whether the
    /// agent is to be told of them (again). `None` where the attempt is over.
    fn rank_orders(
        &mut self,
        name: &str,
        spot: &Spot,
        active: &Active,
        gone: &Cause,
        holds: impl Fn(u32) -> bool,
    ) -> Option<(bool, bool)> {
        let failing = self.is_cancelled(spot) || gangs::failing(self.grant_of(spot, active)?);
        let begun = {
            let grant = self.grant_of(spot, active)?;
            let (first, count) = grant.ranks_of(index_of(grant, name)?);
            !grant.unbegun(index_of(grant, name)?) || (first..first + count).any(&holds)
        };
        if failing || begun {
            // What never started there need not end there. And ranks of a node are
            // launched together or not at all: where one began, those that the
            // agent does not hold were not, or are forgotten, and never will be.
            self.ranks_over(name, spot, *active, gone, |rank, state| state == Rank::Bound && !holds(rank));
        }
        let grant = self.grant_of(spot, active)?;
        let gang = grant.gang.as_ref()?;
        let (first, count) = grant.ranks_of(index_of(grant, name)?);
        let here = || (first..first + count).map(|rank| (rank, gang.ranks.get(rank as usize)));
        let kept = here().any(|(rank, state)| holds(rank) && state != Some(&Rank::Ended));
        Some((kept, !begun && !failing))
    }

    fn grant_of(&self, spot: &Spot, active: &Active) -> Option<&Grant> {
        self.tenants.get(&spot.tenant)?.grants.get(&active.epoch)
    }

    fn active_at(&self, spot: &Spot) -> Option<Active> {
        let job = self.tenants.get(&spot.tenant)?.jobs.get(&spot.number)?;
        job.steps.get(spot.step as usize)?.active(spot.task).copied()
    }

    /// No rank of a gang's attempt began on this node. One that has ended may be
    /// forgotten there, and would be launched once more.
    fn is_unbegun(&self, name: &str, spot: &Spot) -> bool {
        let grant = self.active_at(spot).and_then(|active| self.grant_of(spot, &active));
        grant.is_some_and(|grant| index_of(grant, name).is_some_and(|node| grant.unbegun(node)))
    }

    fn is_cancelled(&self, spot: &Spot) -> bool {
        let job = self.tenants.get(&spot.tenant).and_then(|tenant| tenant.jobs.get(&spot.number));
        job.is_some_and(|job| job.state.cancel_requested)
    }
}

impl Node {
    pub(super) fn new(row: NodeRow, now_mono_ms: u64) -> Self {
        Self {
            row,
            connected: false,
            heard_ms: now_mono_ms,
            answered_ms: now_mono_ms,
            deadline_ms: None,
            lost_ms: 0,
            grants: BTreeSet::new(),
            streak: 0,
            streak_jobs: BTreeSet::new(),
        }
    }
}

fn index_of(grant: &Grant, node: &str) -> Option<usize> {
    grant.row.nodes.iter().position(|held| held.node == node)
}

fn held_key(held: &HeldAttempt) -> Option<Held> {
    let at = held.attempt.as_ref()?;
    Some((at.tenant.clone(), at.job_number, at.step, at.task, at.attempt, at.epoch, held.rank))
}

fn held_name(spot: &Spot, active: &Active, rank: u32) -> Held {
    (spot.tenant.clone(), spot.number, spot.step, spot.task, active.attempt, active.epoch, rank)
}

fn attempt_ref(spot: &Spot, active: &Active) -> AttemptRef {
    AttemptRef {
        tenant: spot.tenant.clone(),
        job_number: spot.number,
        step: spot.step,
        task: spot.task,
        attempt: active.attempt,
        epoch: active.epoch,
    }
}
