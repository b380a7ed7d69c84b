//! A cluster in one thread: rows, a scheduler that grants what is free, agents
//! that keep their promises, and checkers that read only what others could.

#![allow(dead_code, reason = "each test uses its part")]

pub mod agent;
pub mod lab;
pub mod rows;
pub mod specs;

use agent::Agent;
use controller::{
    Admission, AdmissionAsk, AdmissionVerdict, Config, Core, Effect, Event, Reply, Scaling, Txn,
};
use proto::v1::{
    AllocRow, Demand, DemandKey, GrantNode, GrantRow, Heartbeat, HeldAttempt, NodeRow, NodeState,
    RegisterRequest, Reports, Resources, State, TenantRow, server_frame,
};
use rows::Rows;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use world::clock::Now;

/// Lets everybody in, at the price of the estimate.
pub struct OpenDoor;
impl Admission for OpenDoor {
    fn decide(&self, ask: &AdmissionAsk<'_>) -> AdmissionVerdict {
        let budget = ask.tenant.budget.unwrap_or_default();
        AdmissionVerdict::Admit {
            price_micros: proto::estimate::price_micros(ask.spec, &budget),
            waiting_for: None,
        }
    }
}

/// The numbers told to the scheduler, by step.
type Wanted = BTreeMap<(String, u64, u32), Demand>;

pub struct Cluster {
    pub config: Config,
    pub core: Core,
    pub rows: Rows,
    pub now: Now,
    pub agents: BTreeMap<String, Agent>,
    pub wanted: Wanted,
    pub replies: BTreeMap<u64, Reply>,
    pub next_ticket: u64,
    /// Grants made that the core was not told of yet.
    pub on_the_way: VecDeque<GrantRow>,
    /// Jobs whose cancel was acknowledged and not followed by a retry.
    pub cancelled: BTreeSet<(String, u64)>,
    pub accepted: BTreeSet<(String, u64)>,
    /// The next step's rows are lost with the process.
    pub lose_next: bool,
    /// Of cores that died.
    pub past: Vec<controller::core::Stats>,
    pub slots_per_node: u32,
    /// Objects of checkpoints that were taken away.
    pub released: BTreeSet<String>,
    /// Transactions with their time, where a test wants to show them.
    pub story: Option<Vec<(u64, Txn)>>,
}

impl Cluster {
    pub fn new(config: Config, slots_per_node: u32) -> Self {
        let core = Core::new(config.clone(), Arc::new(OpenDoor));
        let mut cluster = Self {
            config,
            core,
            rows: Rows::default(),
            now: Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 },
            agents: BTreeMap::new(),
            wanted: BTreeMap::new(),
            replies: BTreeMap::new(),
            next_ticket: 1,
            on_the_way: VecDeque::new(),
            cancelled: BTreeSet::new(),
            accepted: BTreeSet::new(),
            lose_next: false,
            past: Vec::new(),
            slots_per_node,
            released: BTreeSet::new(),
            story: None,
        };
        let opening = cluster.core.start(cluster.now);
        cluster.settle(opening);
        cluster
    }

    /// One event, its rows, then its effects; and whatever the core left to do.
    pub fn step(&mut self, event: Event) -> Vec<Txn> {
        let mut done = Vec::new();
        let txn = self.core.step(self.now, event);
        self.check();
        if std::mem::take(&mut self.lose_next) {
            self.crash();
            return done;
        }
        done.push(txn.clone());
        self.settle(txn);
        while self.core.backlogged() {
            let txn = self.core.step(self.now, Event::Tick);
            self.check();
            done.push(txn.clone());
            self.settle(txn);
        }
        done
    }

    /// The check of the step must not overlook what the full one sees.
    fn check(&mut self) {
        self.core.check_step();
        self.core.check();
    }

    pub fn settle(&mut self, txn: Txn) {
        self.rows.apply(&txn);
        if let Some(story) = &mut self.story {
            story.push((self.now.mono_ms, txn.clone()));
        }
        for demand in txn.demand.changed {
            self.wanted.insert(key(demand.key.as_ref().unwrap()), demand);
        }
        for gone in txn.demand.gone {
            self.wanted.remove(&key(&gone));
        }
        for effect in txn.effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Reply { ticket, reply } => {
                assert!(self.replies.insert(ticket, reply).is_none(), "ticket {ticket} answered twice");
            }
            Effect::Send { node, session, frame } => {
                if let Some(agent) = self.agents.get_mut(&node)
                    && agent.linked
                    && agent.session == session
                {
                    agent.inbox.push_back(frame);
                }
            }
            Effect::Release { digests, .. } => self.released.extend(digests),
            Effect::Log { .. } => {}
        }
    }

    pub fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// The controller's process dies; its rows are read by a new one.
    pub fn crash(&mut self) {
        self.past.push(self.core.stats());
        self.core = Core::new(self.config.clone(), Arc::new(OpenDoor));
        self.rows.load_into(&mut self.core);
        self.wanted.clear();
        self.on_the_way.clear();
        for agent in self.agents.values_mut() {
            agent.linked = false;
            agent.inbox.clear();
        }
        let opening = self.core.start(self.now);
        self.check();
        self.settle(opening);
        while self.core.backlogged() {
            let txn = self.core.step(self.now, Event::Tick);
            self.check();
            self.settle(txn);
        }
    }

    /// Lets time pass as the shell would: a tick whenever the core wants one.
    pub fn advance(&mut self, ms: u64) {
        let until = self.now.mono_ms + ms;
        while self.now.mono_ms < until {
            let wakeup = self.core.next_wakeup_ms().unwrap_or(u64::MAX);
            let next = wakeup.clamp(self.now.mono_ms + 1, until);
            self.now.wall_ms += next - self.now.mono_ms;
            self.now.mono_ms = next;
            for agent in self.agents.values_mut() {
                agent.fence(next);
            }
            if wakeup <= next {
                self.step(Event::Tick);
            }
        }
    }

    pub fn tenant(&mut self, row: TenantRow) {
        self.rows.put(proto::keys::tenant(&row.name), &row);
        self.step(Event::Tenant(row));
    }

    // --------------------------------------------------------------- agents

    pub fn add_node(&mut self, name: &str) {
        self.agents.insert(name.to_owned(), Agent::new(name, self.slots_per_node));
        self.register(name);
        self.hello(name);
    }

    pub fn register(&mut self, name: &str) -> Vec<Txn> {
        let ticket = self.ticket();
        let request = RegisterRequest {
            node: name.to_owned(),
            pool: "default".to_owned(),
            capacity: Some(Resources { millicores: 1000 * self.slots_per_node, ..Resources::default() }),
            address: format!("{name}.example"),
            ..RegisterRequest::default()
        };
        let done = self.step(Event::Register { ticket, request });
        let reply = match self.replies.get(&ticket) {
            Some(Reply::Registered(reply)) => reply,
            // The controller died meanwhile.
            None => return self.register(name),
            other => panic!("{other:?}"),
        };
        let agent = self.agents.get_mut(name).unwrap();
        agent.session = reply.session;
        agent.heard_ms = self.now.mono_ms;
        agent.linked = false;
        done
    }

    pub fn hello(&mut self, name: &str) -> Vec<Txn> {
        let agent = self.agents.get_mut(name).unwrap();
        if agent.cut || !agent.alive {
            return Vec::new();
        }
        agent.linked = true;
        agent.heard_ms = self.now.mono_ms;
        agent.inbox.clear();
        let (session, held): (u64, Vec<HeldAttempt>) = (agent.session, agent.held());
        let done = self.step(Event::Hello { node: name.to_owned(), session, held });
        self.deliver(name);
        done
    }

    pub fn heartbeat(&mut self, name: &str) {
        let agent = self.agents.get_mut(name).unwrap();
        if !agent.alive || agent.cut || !agent.linked {
            return;
        }
        agent.sequence += 1;
        agent.asked.insert(agent.sequence, self.now.mono_ms);
        let beat = Heartbeat { sequence: agent.sequence, ..Heartbeat::default() };
        let session = agent.session;
        self.step(Event::Heartbeat { node: name.to_owned(), session, beat });
        self.deliver(name);
    }

    /// Sends what the agent has to report; `missing` are indexes of outputs not
    /// in place.
    pub fn report(&mut self, name: &str, missing: Vec<usize>) -> Vec<Txn> {
        let agent = self.agents.get_mut(name).unwrap();
        if !agent.alive || agent.cut || !agent.linked {
            return Vec::new();
        }
        let Some(reports) = agent.reports() else { return Vec::new() };
        let session = agent.session;
        let done = self.step(Event::Reports { node: name.to_owned(), session, reports, missing });
        self.deliver(name);
        done
    }

    /// An old frame of reports comes once more.
    pub fn replay(&mut self, name: &str) {
        let agent = &self.agents[name];
        if let Some(reports) = agent.sent.last().cloned()
            && agent.linked
            && !agent.cut
        {
            let session = agent.session;
            self.step(Event::Reports { node: name.to_owned(), session, reports, missing: Vec::new() });
            self.deliver(name);
        }
    }

    /// Frames reach the agent.
    pub fn deliver(&mut self, name: &str) {
        let mut again = false;
        {
            let agent = self.agents.get_mut(name).unwrap();
            if agent.cut || !agent.alive || !agent.linked {
                return;
            }
            while let Some(frame) = agent.inbox.pop_front() {
                if let Some(server_frame::Frame::Goodbye(_)) = &frame.frame {
                    agent.linked = false;
                    again = true;
                } else {
                    agent.heard_ms = self.now.mono_ms;
                    agent.take(frame, self.now.mono_ms);
                }
            }
        }
        if again {
            self.register(name);
            self.hello(name);
        }
    }

    /// Agents start what they may, and nothing runs twice.
    pub fn work(&mut self, name: &str) {
        let agent = self.agents.get_mut(name).unwrap();
        if agent.alive {
            agent.start_tasks();
        }
        self.check_running();
    }

    pub fn check_running(&self) {
        let mut running = BTreeMap::new();
        let mut from = BTreeMap::new();
        for (name, agent) in &self.agents {
            let mut here = 0;
            for held in agent.running() {
                here += 1;
                let run = &agent.runs[held];
                let attempt = (held.tenant.clone(), held.number, held.step, held.task, held.attempt);
                let first = from.entry(attempt.clone()).or_insert_with(|| run.from.clone());
                assert_eq!(*first, run.from, "ranks of {attempt:?} go on from different places");
                let task = (held.tenant.clone(), held.number, held.step, held.task, held.rank);
                if let Some(other) = running.insert(task.clone(), name) {
                    panic!("{task:?} runs on {other} and on {name}");
                }
            }
            assert!(here <= agent.slots as usize, "{name} runs {here} tasks on {} slots", agent.slots);
        }
    }

    // ------------------------------------------------------------ scheduler

    /// Grants what is wanted as far as nodes have room; the core is told by
    /// [`Cluster::tell_grants`].
    pub fn schedule(&mut self, up_to: usize) {
        let wanted: Vec<Demand> = self.wanted.values().filter(|demand| demand.slots > 0).cloned().collect();
        for demand in wanted.into_iter().take(up_to) {
            let at = demand.key.clone().unwrap();
            let pending = self.rows.grants().filter(|grant| {
                (&grant.tenant, grant.job_number, grant.step) == (&at.tenant, at.job_number, at.step)
                    && grant.epoch > demand.granted_epoch
            });
            if pending.count() > 0 {
                continue;
            }
            let free = self.free();
            let nodes = if demand.gang_nodes > 0 {
                let fits: Vec<&String> = free
                    .iter()
                    .filter(|(_, free)| **free >= demand.gang_tasks_per_node)
                    .map(|(node, _)| node)
                    .take(demand.gang_nodes as usize)
                    .collect();
                if fits.len() < demand.gang_nodes as usize {
                    continue;
                }
                fits.into_iter()
                    .map(|node| GrantNode { node: node.clone(), slots: demand.gang_tasks_per_node })
                    .collect()
            } else {
                // Nodes to avoid only where there is no other.
                let pick = free
                    .iter()
                    .filter(|(_, free)| **free > 0)
                    .min_by_key(|(node, _)| demand.avoid.contains(node));
                let Some((node, room)) = pick else { continue };
                let slots = u32::try_from(demand.slots).unwrap_or(u32::MAX).min(*room);
                vec![GrantNode { node: node.clone(), slots }]
            };
            self.grant(&at, nodes, demand.gang_nodes > 0, demand.per_slot, demand.queued_ms);
        }
    }

    pub fn grant(
        &mut self,
        at: &DemandKey,
        nodes: Vec<GrantNode>,
        gang: bool,
        per_slot: Option<Resources>,
        submitted_ms: u64,
    ) -> GrantRow {
        let key = proto::keys::alloc_tenant(&at.tenant);
        let epoch = self.rows.get::<AllocRow>(&key).unwrap_or_default().epoch + 1;
        self.rows.put(key, &AllocRow { epoch });
        let row = GrantRow {
            tenant: at.tenant.clone(),
            job_number: at.job_number,
            step: at.step,
            epoch,
            nodes,
            per_slot,
            granted_ms: self.now.wall_ms,
            gang,
            feed_until_ms: self.now.wall_ms + 2_000,
            submitted_ms,
            ..GrantRow::default()
        };
        self.rows.put(proto::keys::grant(&at.tenant, epoch), &row);
        self.on_the_way.push_back(row.clone());
        row
    }

    pub fn tell_grants(&mut self) -> Vec<Txn> {
        let mut done = Vec::new();
        while let Some(row) = self.on_the_way.pop_front() {
            done.extend(self.step(Event::Granted(row)));
        }
        for name in self.agents.keys().cloned().collect::<Vec<_>>() {
            self.deliver(&name);
        }
        done
    }

    fn free(&self) -> BTreeMap<String, u32> {
        let mut free: BTreeMap<String, u32> = self
            .rows
            .nodes()
            .filter(|node: &NodeRow| !node.drained && node.state() != NodeState::Lost)
            .map(|node| (node.name.clone(), self.agents[&node.name].slots))
            .collect();
        for grant in self.rows.grants() {
            for node in &grant.nodes {
                if let Some(free) = free.get_mut(&node.node) {
                    *free = free.checked_sub(node.slots).expect("a node is granted away twice");
                }
            }
        }
        free
    }

    // ----------------------------------------------------------------- ends

    pub fn state(&self, tenant: &str, number: u64) -> State {
        self.rows.state(tenant, number).map_or(State::Unspecified, |row| row.state())
    }

    pub fn all_over(&self) -> bool {
        self.accepted.iter().all(|(tenant, number)| {
            matches!(self.state(tenant, *number), State::Completed | State::Failed | State::Cancelled)
        })
    }

    /// Everything is whole again and every task does well: all jobs must end.
    pub fn drain(&mut self, minutes: u64) {
        let until = self.now.mono_ms + minutes * 60_000;
        let names: Vec<String> = self.agents.keys().cloned().collect();
        for name in &names {
            let agent = self.agents.get_mut(name).unwrap();
            (agent.cut, agent.alive) = (false, true);
            let ticket = self.ticket();
            self.step(Event::Scale { ticket, node: name.clone(), wanted: Scaling::Forget });
            let ticket = self.ticket();
            self.step(Event::DrainNode { ticket, node: name.clone(), drained: false, reason: String::new() });
        }
        while !self.all_over() {
            assert!(self.now.mono_ms < until, "jobs that never end: {}", self.unended());
            for name in &names {
                if !self.agents[name].linked {
                    self.register(name);
                    self.hello(name);
                }
                self.heartbeat(name);
            }
            for _ in 0..4 {
                self.schedule(usize::MAX);
                self.tell_grants();
                for name in &names {
                    self.work(name);
                    self.agents.get_mut(name).unwrap().end_all_well();
                    self.report(name, Vec::new());
                }
            }
            self.advance(2_000);
        }
        self.tell_grants();
        for name in &names {
            self.report(name, Vec::new());
        }
        assert_eq!(self.rows.grants().count(), 0, "grants outlive their jobs");
        assert!(self.wanted.is_empty(), "ended jobs want {:?}", self.wanted);
        self.rows.check_end(&self.cancelled);
    }

    fn unended(&self) -> String {
        let unended = self.accepted.iter().filter(|(tenant, number)| {
            !matches!(self.state(tenant, *number), State::Completed | State::Failed | State::Cancelled)
        });
        unended
            .map(|(tenant, number)| format!("{tenant}-{number}: {:?}\n", self.rows.state(tenant, *number)))
            .collect()
    }
}

pub fn key(key: &DemandKey) -> (String, u64, u32) {
    (key.tenant.clone(), key.job_number, key.step)
}

/// An empty frame of reports, for tests that say nothing.
pub fn silence() -> Reports {
    Reports::default()
}
