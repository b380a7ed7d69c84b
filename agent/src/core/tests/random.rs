//! The core in a world that does anything in any order, with a model beside it
//! that knows what truly runs.
//!
//! What must hold, whatever happens: no attempt is launched twice; no more
//! processes of a grant run than it has slots; every attempt taken on ends in
//! one report (said as often as it takes), or is forgotten by the server's
//! word; and once the world is kind again nothing is left.

use super::*;
use crate::core::cause::Fault;
use crate::core::{Coming, Said, Seen, Snapshot, StageOrder};
use proptest::prelude::*;
use proto::v1::{CauseKind, Checkpoint, Reconcile, Stop};
use std::collections::{BTreeMap, BTreeSet};
use world::processes::Record;

const SLOTS: u32 = 2;

#[derive(Clone, Debug)]
enum Move {
    Assign { tasks: u8 },
    AssignAgain,
    Stage { ok: bool },
    Start,
    FailLaunch,
    Exit { code: u8, fenced: bool },
    Collect { ok: bool },
    Measure,
    Look { found: bool },
    Stop { grace_ms: u16 },
    Wait { ms: u16 },
    Renew,
    Acknowledge,
    CloseSession,
    OpenSession,
    Reconcile,
    LoseSupervisor,
    Lapse,
    RestartAgent,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (1..6u8).prop_map(|tasks| Move::Assign { tasks }),
        1 => Just(Move::AssignAgain),
        8 => prop::bool::weighted(0.9).prop_map(|ok| Move::Stage { ok }),
        6 => Just(Move::Start),
        1 => Just(Move::FailLaunch),
        6 => (0..3u8, prop::bool::weighted(0.1)).prop_map(|(code, fenced)| Move::Exit { code, fenced }),
        3 => any::<bool>().prop_map(|ok| Move::Collect { ok }),
        2 => Just(Move::Measure),
        4 => any::<bool>().prop_map(|found| Move::Look { found }),
        2 => (0..8_000u16).prop_map(|grace_ms| Move::Stop { grace_ms }),
        4 => (0..9_000u16).prop_map(|ms| Move::Wait { ms }),
        6 => Just(Move::Renew),
        6 => Just(Move::Acknowledge),
        1 => Just(Move::CloseSession),
        3 => Just(Move::OpenSession),
        1 => Just(Move::Reconcile),
        1 => Just(Move::LoseSupervisor),
        1 => Just(Move::Lapse),
        1 => Just(Move::RestartAgent),
    ]
}

/// As whoever stages tells it.
fn coming(order: &StageOrder) -> Coming {
    Coming {
        key: order.key.clone(),
        directory: order.directory.clone(),
        bytes: 1,
        total_bytes: 2,
        bytes_per_s: 3,
        waits_for: String::new(),
    }
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
    launched: BTreeSet<String>,
    stages: Vec<StageOrder>,
    collects: Vec<Key>,
    measures: Vec<Key>,
    looks: Vec<(Key, String)>,
    progress: Option<Vec<ProgressOrder>>,
    checkpoints: BTreeSet<(Key, String)>,
    heartbeats: Vec<u64>,
    reports: Vec<Reports>,
    ends: BTreeMap<Key, String>,
}

impl World {
    fn new() -> Self {
        let now = Now { mono_ms: 1_000, wall_ms: 1_000_000 };
        Self {
            core: fresh_core(now),
            now,
            session: 0,
            open: false,
            next_task: 0,
            assigned: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            launching: BTreeMap::new(),
            processes: BTreeMap::new(),
            launched: BTreeSet::new(),
            stages: Vec::new(),
            collects: Vec::new(),
            measures: Vec::new(),
            looks: Vec::new(),
            progress: None,
            checkpoints: BTreeSet::new(),
            heartbeats: Vec::new(),
            reports: Vec::new(),
            ends: BTreeMap::new(),
        }
    }

    fn step(&mut self, event: Event) {
        let mut actions = self.core.step(self.now, event);
        actions.extend(self.core.step(self.now, Event::Tick));
        self.core.check();
        for action in actions {
            self.perform(action);
        }
        let running = |key: &str| Key::from_process_key(key).unwrap().grant();
        let mut by_grant: BTreeMap<_, u32> = BTreeMap::new();
        let live = self.processes.iter().filter(|(_, (_, exit))| exit.is_none()).map(|(key, _)| key);
        for key in live.chain(self.launching.keys()) {
            *by_grant.entry(running(key)).or_default() += 1;
        }
        assert!(by_grant.values().all(|count| *count <= SLOTS), "more run than there are slots");
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send(frame) if self.open => match frame.frame.unwrap() {
                Frame::Hello(_) => {}
                Frame::Heartbeat(beat) => self.heartbeats.push(beat.sequence),
                Frame::Reports(reports) => self.told(reports),
                Frame::Progress(told) => {
                    for told in told.tasks {
                        let key = Key::of(&told.attempt.unwrap(), told.rank);
                        assert!(!self.ends.contains_key(&key), "{key:?} has ended and gets on");
                    }
                    for told in told.staging {
                        let key = Key::of(&told.attempt.unwrap(), told.rank);
                        assert!(self.stages.iter().any(|order| order.key == key), "{key:?} is not staged");
                        assert!(!self.ends.contains_key(&key), "{key:?} has ended and is staged");
                    }
                }
            },
            Action::Send(_) => panic!("nothing is sent without a session"),
            Action::EndSession(_) => {}
            Action::Order(order) => self.obey(order),
            Action::Stage(order) => self.stages.push(order),
            Action::Collect(order) => self.collects.push(order.key),
            Action::Measure(key) => self.measures.push(key),
            Action::Look(order) => {
                let look = (order.key, order.directory);
                assert!(!self.looks.contains(&look), "{look:?} is looked at twice at once");
                self.looks.push(look);
            }
            Action::LookAtProgress(orders) => {
                assert!(self.progress.replace(orders).is_none(), "two looks at progress at once");
            }
            Action::Discard(_) | Action::Log(_) => {}
        }
    }

    fn told(&mut self, reports: Reports) {
        for report in &reports.reports {
            let key = Key::of(report.attempt.as_ref().unwrap(), report.rank);
            assert!(self.assigned.contains(&key), "only what was assigned is reported");
            if let Some(report::What::Checkpointed(told)) = &report.what
                && self.checkpoints.insert((key.clone(), format!("{:?}", told.id)))
            {
                assert!(!self.ends.contains_key(&key), "{key:?} has a checkpoint after its end");
            }
            if let Some(report::What::Ended(ended)) = &report.what {
                let text = format!("{ended:?}");
                let first = self.ends.entry(key.clone()).or_insert_with(|| text.clone());
                assert!(*first == text, "{key:?} ended twice: {first}, then {text}");
            }
        }
        self.reports.push(reports);
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Launch { launch, until_ms } => {
                assert!(until_ms > self.now.mono_ms, "launched without a lease");
                assert!(self.launched.insert(launch.key.clone()), "{} was launched twice", launch.key);
                self.launching.insert(launch.key.clone(), *launch);
            }
            Order::Forget { key } => {
                self.launching.remove(&key);
                self.processes.remove(&key);
            }
            Order::Signal { .. } | Order::Nudge { .. } | Order::KeepAlive { .. } | Order::Retire => {}
        }
    }

    fn hear(&mut self, frame: Told) {
        if self.open {
            self.step(Event::Frame { session: self.session, frame });
        }
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            self.step(Event::SessionClosed { session: self.session });
            self.heartbeats.clear();
            self.reports.clear();
        }
    }

    fn open(&mut self) {
        if !self.open {
            self.open = true;
            self.session += 1;
            let session = self.session;
            self.step(Event::SessionOpened { session, heartbeat_ms: 5_000, lease_ttl_ms: 30_000 });
        }
    }

    fn assign(&mut self, tasks: std::ops::Range<u64>) {
        if self.open {
            self.assigned.extend(tasks.clone().map(key));
            let outputs = vec!["x".to_owned()];
            let checkpoint =
                Some(Checkpoint { path: "ckpt".to_owned(), every_ms: 2_000, ..Checkpoint::default() });
            let step = Step { outputs, timeout_ms: 30_000, checkpoint, ..step() };
            self.hear(Told::Assign(assign_of(SLOTS, tasks, step)));
        }
    }

    fn make(&mut self, made: Move) {
        match made {
            Move::Assign { tasks } => {
                let first = self.next_task;
                self.next_task += u64::from(tasks);
                self.assign(first..self.next_task);
            }
            // A server says again only what it has no end of.
            Move::AssignAgain => {
                for held in self.core.keys() {
                    self.assign(held.task..held.task + 1);
                }
            }
            Move::Stage { ok } => {
                if let Some(StageOrder { key, directory, .. }) = self.stages.pop() {
                    let fault = Fault::new(CauseKind::StagingFailed, "no");
                    let result = if ok { Ok(()) } else { Err(fault.into()) };
                    self.step(Event::Staged { key, directory, result });
                }
            }
            Move::Start => {
                if let Some((key, launch)) = self.launching.pop_first() {
                    self.processes.insert(key.clone(), (launch, None));
                    self.step(Event::Processes(vec![Report::Started { key, pid: 1 }]));
                }
            }
            Move::FailLaunch => {
                if let Some((key, _)) = self.launching.pop_first() {
                    let error = "not found".to_owned();
                    self.step(Event::Processes(vec![Report::LaunchFailed { key, error }]));
                }
            }
            Move::Exit { code, fenced } => self.exit(code, fenced),
            Move::Collect { ok } => {
                if let Some(key) = self.collects.pop() {
                    let fault = Fault::new(CauseKind::OutputMissing, "no");
                    self.step(Event::Collected { key, result: if ok { Ok(Vec::new()) } else { Err(fault) } });
                }
            }
            Move::Measure => {
                if let Some(key) = self.measures.pop() {
                    self.step(Event::Measured { key, stdout_bytes: 1, stderr_bytes: 0 });
                }
            }
            Move::Look { found } => {
                if let Some((key, directory)) = self.looks.pop() {
                    let snapshot = Snapshot { label: "1".to_owned(), artifacts: Vec::new() };
                    self.step(Event::Looked { key, directory, found: found.then_some(snapshot) });
                }
                if let Some(orders) = self.progress.take() {
                    let basis_points = u32::from(found) + (self.now.mono_ms % 10_000) as u32;
                    let said = |ProgressOrder { key, directory }| Seen {
                        key,
                        directory,
                        said: Said { basis_points, text: String::new() },
                    };
                    self.step(Event::ProgressSeen(orders.into_iter().map(said).collect()));
                }
                self.step(Event::StagingSeen(self.stages.iter().map(coming).collect()));
            }
            Move::Stop { grace_ms } => {
                let attempts = self.core.keys().first().map(Key::attempt_ref).into_iter().collect();
                self.hear(Told::Stop(Stop { attempts, grace_ms: grace_ms.into(), ..Stop::default() }));
            }
            Move::Wait { ms } => {
                self.now.mono_ms += u64::from(ms);
                self.now.wall_ms += u64::from(ms);
                self.step(Event::Tick);
            }
            Move::Renew => {
                if let Some(sequence) = self.heartbeats.pop() {
                    self.hear(Told::Lease(LeaseRenewal { sequence, ttl_ms: 30_000 }));
                }
            }
            Move::Acknowledge => {
                if let Some(reports) = self.reports.pop() {
                    self.hear(Told::ReportsAck(ReportsAck { sequence: reports.sequence }));
                }
            }
            Move::CloseSession => self.close(),
            Move::OpenSession => self.open(),
            Move::Reconcile => self.reconcile(),
            Move::LoseSupervisor => {
                self.launching.clear();
                self.processes.clear();
                self.step(Event::Processes(vec![Report::SupervisorLost]));
            }
            Move::Lapse => {
                if let Some((key, _)) = self.launching.pop_first() {
                    self.step(Event::Lapsed { launches: vec![key] });
                }
            }
            Move::RestartAgent => self.restart(),
        }
    }

    fn exit(&mut self, code: u8, fenced: bool) {
        let live = self.processes.iter_mut().find(|(_, (_, exit))| exit.is_none());
        if let Some((key, (_, ended))) = live {
            let exit = Exit { code: code.into(), fenced, stdout_bytes: 1, ..Exit::default() };
            *ended = Some(exit);
            let report = Report::Exited { key: key.clone(), exit };
            self.step(Event::Processes(vec![report.clone(), report]));
        }
    }

    fn reconcile(&mut self) {
        if !self.open {
            return;
        }
        // Every other one is kept.
        let held = self.core.keys();
        let keep = held.iter().step_by(2).map(Key::attempt_ref).collect();
        self.hear(Told::Reconcile(Reconcile { keep }));
        let still = self.core.keys();
        self.forgotten.extend(held.difference(&still).cloned());
    }

    /// The agent dies; a new one takes over what the supervisor holds. What the
    /// old one had not launched is assigned again by a server that hears of it.
    fn restart(&mut self) {
        self.close();
        // What was on its way to the supervisor arrives.
        for (key, launch) in std::mem::take(&mut self.launching) {
            self.processes.insert(key, (launch, None));
        }
        self.forgotten.extend(self.core.keys());
        let held: BTreeSet<Key> =
            self.processes.keys().map(|key| Key::from_process_key(key).unwrap()).collect();
        self.forgotten.retain(|key| !held.contains(key));
        // An end that was not confirmed is found out anew, perhaps otherwise: a
        // stop is not known to the next agent.
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
        let records = records.collect();
        self.step(Event::Adopted(records));
    }

    /// The world is kind from here on: everything comes to its end.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            if self.core.keys().is_empty() && self.reports.is_empty() {
                return;
            }
            for made in [
                Move::OpenSession,
                Move::Wait { ms: 1_000 },
                Move::Renew,
                Move::Stage { ok: true },
                Move::Stage { ok: true },
                Move::Start,
                Move::Exit { code: 0, fenced: false },
                Move::Collect { ok: true },
                Move::Measure,
                Move::Look { found: true },
                Move::Acknowledge,
                Move::Acknowledge,
            ] {
                self.make(made);
            }
        }
        panic!("not everything came to its end: {:?}", self.core.attempts);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_attempt_ends_once_or_is_forgotten(made in prop::collection::vec(moves(), 1..120)) {
        let mut world = World::new();
        for made in made {
            world.make(made);
        }
        world.settle();
        for key in &world.assigned {
            prop_assert!(
                world.ends.contains_key(key) || world.forgotten.contains(key),
                "{key:?} has neither an end nor been forgotten"
            );
        }
        prop_assert!(world.processes.is_empty(), "every process was forgotten");
    }
}
