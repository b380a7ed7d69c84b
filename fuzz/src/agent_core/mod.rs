//! The agent's core in a world that does anything in any order, and is lied to.
//!
//! A model beside it knows what truly runs. What must hold: nothing is launched
//! twice, or without a lease; of a grant no more runs than it has slots; only
//! what was assigned is reported, its end in the same words each time; frames
//! stay within their limits; once the world is kind again every attempt has an
//! end or was forgotten by the server's word, and nothing is left.

mod server;
mod strange;

use crate::draw::Draw;
use agent::AgentConfig;
use agent::core::cause::Fault;
use agent::core::key::Key;
use agent::core::{Action, Coming, Core, Event, Order, ProgressOrder, Said, Seen, Snapshot, StageOrder};
use agent::limits::{REPORT_FRAMES_UNACKED_MAX, REPORTS_PER_FRAME_MAX};
use proto::limits::PROGRESS_TASKS_MAX;
use proto::v1::{CauseKind, Reports, Resources, agent_frame, report};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use world::clock::Now;
use world::processes::{Exit, Launch, Record, Report};

/// What comes behind is cut off.
const MOVES_MAX: usize = 250;
/// Rounds of a kind world in which everything comes to its end.
const ROUNDS_MAX: usize = 2_000;
/// Events that one report may call forth, several times over.
const ACTIONS_MAX: usize = 4_096;
/// Grants of this node; the last is a gang's.
const GRANTS: [Grant; 4] = [
    Grant { tenant: "t", epoch: 9, slots: 2, ranks: 0 },
    Grant { tenant: "t", epoch: 10, slots: 1, ranks: 0 },
    Grant { tenant: "u", epoch: 9, slots: 3, ranks: 0 },
    Grant { tenant: "t", epoch: 11, slots: 3, ranks: 3 },
];

/// Of the gang, on this node.
const FIRST_RANK: u32 = 2;

#[derive(Clone, Copy)]
struct Grant {
    tenant: &'static str,
    epoch: u64,
    slots: u32,
    /// Of a gang on this node; 0: no gang.
    ranks: u32,
}

/// Moves and what becomes of them.
pub fn agent_core(data: &[u8]) {
    let mut draw = Draw::new(data);
    let mut world = World::new();
    for _ in 0..MOVES_MAX {
        if draw.is_over() {
            break;
        }
        world.act(&mut draw);
    }
    world.settle();
}

/// What the world around the core truly holds.
struct World {
    core: Core,
    now: Now,
    session: u64,
    open: bool,
    next_task: u64,
    assigned: BTreeSet<Key>,
    forgotten: BTreeSet<Key>,
    /// Handed to the supervisor, not yet started.
    launching: BTreeMap<String, Launch>,
    /// Running, or ended with this exit; until forgotten.
    processes: BTreeMap<String, (Launch, Option<Exit>)>,
    /// Processes of which the agent was told that they could not be launched. The
    /// shell owes the supervisor their end, and hands that over before any
    /// further launch.
    strays: BTreeSet<String>,
    launched: BTreeSet<String>,
    stages: Vec<StageOrder>,
    collects: Vec<Key>,
    measures: Vec<Key>,
    looks: Vec<(Key, String)>,
    progress: Option<Vec<ProgressOrder>>,
    heartbeats: Vec<u64>,
    reports: Vec<Reports>,
    ends: BTreeMap<Key, String>,
}

fn fresh_core(now: Now) -> Core {
    let config = AgentConfig::new("h:1", "dl_x", "n1", Resources::default());
    Core::new(Arc::new(config), "/d/work".into(), "/d/spool".into(), now)
}

impl World {
    fn new() -> Self {
        let now = Now { mono_ms: 1_000, wall_ms: 1_000_000 };
        let mut world = Self {
            core: fresh_core(now),
            now,
            session: 0,
            open: false,
            next_task: 0,
            assigned: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            launching: BTreeMap::new(),
            processes: BTreeMap::new(),
            strays: BTreeSet::new(),
            launched: BTreeSet::new(),
            stages: Vec::new(),
            collects: Vec::new(),
            measures: Vec::new(),
            looks: Vec::new(),
            progress: None,
            heartbeats: Vec::new(),
            reports: Vec::new(),
            ends: BTreeMap::new(),
        };
        world.step(Event::Adopted(Vec::new()));
        world.open(5_000, 30_000);
        world.renew();
        world
    }

    fn step(&mut self, event: Event) {
        let mut actions = self.core.step(self.now, event);
        actions.extend(self.core.step(self.now, Event::Tick));
        self.core.check();
        assert!(actions.len() <= ACTIONS_MAX, "{} actions at once", actions.len());
        for action in actions {
            self.perform(action);
        }
        let live = || self.processes.iter().filter(|(_, (_, exit))| exit.is_none()).map(|(key, _)| key);
        check_slots(live());
        check_slots(live().filter(|key| !self.strays.contains(*key)).chain(self.launching.keys()));
        assert!(self.core.next_wakeup_ms().is_none_or(|at| at > 0));
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send(frame) if self.open => match frame.frame.expect("a frame says something") {
                agent_frame::Frame::Hello(hello) => assert_eq!(hello.session, self.session),
                agent_frame::Frame::Heartbeat(beat) => self.heartbeats.push(beat.sequence),
                agent_frame::Frame::Reports(reports) => self.told(reports),
                agent_frame::Frame::Progress(told) => {
                    let (tasks, staging) = (told.tasks.len(), told.staging.len());
                    assert!(tasks + staging > 0 && tasks.max(staging) <= PROGRESS_TASKS_MAX);
                }
            },
            Action::Send(_) => panic!("nothing is sent without a session"),
            Action::EndSession(_) | Action::Discard(_) | Action::Log(_) => {}
            Action::Order(order) => self.obey(order),
            Action::Stage(order) => self.stages.push(order),
            Action::Collect(order) => self.collects.push(order.key),
            Action::Measure(key) => self.measures.push(key),
            Action::Look(order) => self.looks.push((order.key, order.directory)),
            Action::LookAtProgress(orders) => {
                assert!(self.progress.replace(orders).is_none(), "two looks at progress at once");
            }
        }
    }

    fn told(&mut self, reports: Reports) {
        assert!(reports.reports.len() <= REPORTS_PER_FRAME_MAX);
        for report in &reports.reports {
            let key = Key::of(report.attempt.as_ref().expect("a report names its attempt"), report.rank);
            assert!(self.assigned.contains(&key), "{key:?} was never assigned and is reported");
            match &report.what {
                Some(report::What::Ended(ended)) => {
                    let text = format!("{ended:?}");
                    let first = self.ends.entry(key.clone()).or_insert_with(|| text.clone());
                    assert!(*first == text, "{key:?} ended twice: {first}, then {text}");
                }
                Some(report::What::Refused(_)) => drop(self.forgotten.insert(key)),
                _ => {}
            }
        }
        self.reports.push(reports);
        assert!(self.reports.len() <= REPORT_FRAMES_UNACKED_MAX, "frames without an answer");
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Launch { launch, until_ms } => {
                assert!(until_ms > self.now.mono_ms, "launched without a lease");
                assert!(self.launched.insert(launch.key.clone()), "{} was launched twice", launch.key);
                assert!(self.assigned.contains(&named(&launch.key)));
                self.launching.insert(launch.key.clone(), *launch);
            }
            Order::Forget { key } => {
                self.launching.remove(&key);
                self.processes.remove(&key);
            }
            Order::KeepAlive { until_ms } => assert!(until_ms >= self.now.mono_ms),
            Order::Signal { .. } | Order::Nudge { .. } | Order::Retire => {}
        }
    }

    fn act(&mut self, draw: &mut Draw<'_>) {
        match draw.below(32) {
            0..=2 => self.assign(draw),
            3 => self.assign_again(draw),
            4..=7 => self.stage(!draw.seldom(8)),
            8..=9 => self.start(),
            10 => self.look(!draw.seldom(4)),
            11..=13 => self.exit(draw),
            14 => self.collect(!draw.seldom(4)),
            15 => self.measure(draw.number()),
            16 => self.stop(draw),
            17..=18 => self.wait(draw.word() % 9_000),
            19..=20 => self.renew(),
            21..=22 => self.acknowledge(),
            23 => self.link(draw),
            24 => self.reconcile(draw),
            25 => self.processes_fail(draw),
            26 => self.restart(draw),
            27 => self.wait(draw.word() << draw.below(24)),
            28..=29 => self.strange_frame(draw),
            30 => self.strange_process(draw),
            _ => self.strange_answer(draw),
        }
    }

    fn stage(&mut self, ok: bool) {
        if let Some(StageOrder { key, directory, .. }) = self.stages.pop() {
            let result = if ok { Ok(()) } else { Err(Fault::new(CauseKind::StagingFailed, "no").into()) };
            self.step(Event::Staged { key, directory, result });
        }
    }

    fn start(&mut self) {
        if let Some((key, launch)) = self.launching.pop_first() {
            self.arrived(key.clone(), launch);
            self.step(Event::Processes(vec![Report::Started { key, pid: 1 }]));
        }
    }

    /// A launch is at the supervisor.
    fn arrived(&mut self, key: String, launch: Launch) {
        for stray in std::mem::take(&mut self.strays) {
            self.processes.remove(&stray);
        }
        self.processes.insert(key, (launch, None));
    }

    fn exit(&mut self, draw: &mut Draw<'_>) {
        let exit = Exit {
            code: i32::from(draw.byte() % 3),
            signal: i32::from(draw.seldom(8)) * 9,
            stdout_bytes: draw.number(),
            fenced: draw.seldom(8),
            ..Exit::default()
        };
        self.exits(exit);
    }

    fn exits(&mut self, exit: Exit) {
        let live = self.processes.iter_mut().find(|(_, (_, ended))| ended.is_none());
        if let Some((key, (_, ended))) = live {
            *ended = Some(exit);
            let report = Report::Exited { key: key.clone(), exit };
            self.step(Event::Processes(vec![report.clone(), report]));
        }
    }

    fn collect(&mut self, ok: bool) {
        if let Some(key) = self.collects.pop() {
            let fault = Fault::new(CauseKind::OutputMissing, "no");
            self.step(Event::Collected { key, result: if ok { Ok(Vec::new()) } else { Err(fault) } });
        }
    }

    fn measure(&mut self, stdout_bytes: u64) {
        if let Some(key) = self.measures.pop() {
            self.step(Event::Measured { key, stdout_bytes, stderr_bytes: 0 });
        }
    }

    fn look(&mut self, found: bool) {
        if let Some((key, directory)) = self.looks.pop() {
            let snapshot = Snapshot { label: "1".to_owned(), artifacts: Vec::new() };
            self.step(Event::Looked { key, directory, found: found.then_some(snapshot) });
        }
        if let Some(orders) = self.progress.take() {
            let said = Said { basis_points: u32::from(found), text: String::new() };
            let seen = |ProgressOrder { key, directory }| Seen { key, directory, said: said.clone() };
            self.step(Event::ProgressSeen(orders.into_iter().map(seen).collect()));
        }
        let coming = |order: &StageOrder| Coming {
            key: order.key.clone(),
            directory: order.directory.clone(),
            bytes: 1,
            total_bytes: 2,
            bytes_per_s: 3,
            waits_for: String::new(),
        };
        self.step(Event::StagingSeen(self.stages.iter().map(coming).collect()));
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms = self.now.wall_ms.wrapping_add(ms);
        self.step(Event::Tick);
    }

    /// The agent dies; a new one takes over what the supervisor holds.
    fn restart(&mut self, draw: &mut Draw<'_>) {
        self.close();
        // What was on its way to the supervisor arrives.
        for (key, launch) in std::mem::take(&mut self.launching) {
            self.arrived(key, launch);
        }
        // What the shell still owed is forgotten with it.
        self.strays.clear();
        // What it refused and could not tell any more is assigned elsewhere.
        let open = self.assigned.iter().filter(|key| !self.ends.contains_key(*key));
        self.forgotten.extend(open.cloned());
        self.forgotten.extend(self.core.keys());
        let held: BTreeSet<Key> = self.processes.keys().map(|key| named(key)).collect();
        self.forgotten.retain(|key| !held.contains(key));
        // An end that was not confirmed is found out anew, perhaps otherwise.
        self.ends.retain(|key, _| !held.contains(key));
        self.core = fresh_core(self.now);
        (self.stages, self.collects, self.measures, self.looks) = Default::default();
        self.progress = None;
        let records = self.processes.iter().map(|(key, (launch, exit))| Record {
            key: key.clone(),
            context: launch.context.clone(),
            pid: 1,
            exit: *exit,
        });
        let mut records: Vec<Record> = records.collect();
        // One of another make, and one told twice.
        records.push(Record { key: "x/y".to_owned(), context: Vec::new(), pid: 1, exit: None });
        let context = draw.bytes(8).to_vec();
        records.push(Record { key: "t/1/2".to_owned(), context, pid: 1, exit: None });
        records.extend(records.first().cloned());
        self.step(Event::Adopted(records));
    }

    /// The world is kind from here on: everything comes to its end.
    fn settle(mut self) {
        // What the lies made of the lease is over with its session.
        self.close();
        for _ in 0..ROUNDS_MAX {
            if self.core.is_empty() && self.reports.is_empty() && self.untold().is_none() {
                assert!(self.processes.is_empty(), "every process was forgotten");
                return;
            }
            self.open(5_000, 30_000);
            self.wait(1_000);
            self.renew();
            self.stage(true);
            self.stage(true);
            self.start();
            self.exits(Exit::default());
            self.collect(true);
            self.measure(1);
            self.look(true);
            self.acknowledge();
            self.acknowledge();
            self.end_broken_gangs();
        }
        let (held, untold) = (self.core.keys(), self.untold());
        panic!("not everything came to its end: held are {held:?}, never heard of was {untold:?}");
    }

    /// An attempt that has neither an end nor was forgotten.
    fn untold(&self) -> Option<&Key> {
        let known = |key: &Key| self.ends.contains_key(key) || self.forgotten.contains(key);
        self.assigned.iter().find(|key| !known(key))
    }
}

/// Of each grant no more processes than it has slots.
fn check_slots<'a>(processes: impl Iterator<Item = &'a String>) {
    let mut by_grant: BTreeMap<_, u32> = BTreeMap::new();
    for key in processes {
        *by_grant.entry(named(key).grant()).or_default() += 1;
    }
    for grant in GRANTS.iter().filter(|grant| grant.ranks == 0) {
        let count = by_grant.get(&(grant.tenant.into(), grant.epoch)).copied().unwrap_or(0);
        assert!(count <= grant.slots, "{count} run on {} slots", grant.slots);
    }
}

/// The ranks of a grant's tasks on this node.
fn ranks_of(grant: Grant) -> std::ops::Range<u32> {
    if grant.ranks == 0 { 0..1 } else { FIRST_RANK..FIRST_RANK + grant.ranks }
}

fn grant_of(key: &Key) -> Grant {
    let grant = GRANTS.iter().find(|grant| key.grant() == (grant.tenant.into(), grant.epoch));
    *grant.expect("only what was assigned is held")
}

fn key(grant: Grant, task: u64, rank: u32) -> Key {
    Key { tenant: grant.tenant.into(), job: 1, step: 0, task, attempt: 1, epoch: grant.epoch, rank }
}

fn named(process: &str) -> Key {
    Key::from_process_key(process).expect("only what the core named is launched")
}
