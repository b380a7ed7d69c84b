//! The agent's lease from end to end: the core, the way of its orders, a
//! supervisor with its dead man's switch, and a server that counts from when it
//! answered.
//!
//! What must hold, whatever is late, lost, said twice or in doubt, whoever
//! sleeps or dies: no process of this node runs at an instant from which its
//! work could be given to another. And while every heartbeat is answered in
//! time, nothing is ended for want of a lease.

mod supervisor;

use crate::draw::Draw;
use agent::AgentConfig;
use agent::core::handover::Handover;
use agent::core::{Action, Core, Event, Order, StageOrder};
use proto::v1::server_frame::Frame as Told;
use proto::v1::{
    Assign, AssignedTask, AttemptRef, LeaseRenewal, Reports, ReportsAck, Resources, Step, Stop, agent_frame,
};
use std::collections::VecDeque;
use std::sync::Arc;
use supervisor::{Process, Supervisor};
use world::clock::Now;
use world::processes::{Record, Report};

/// What comes behind is cut off.
const MOVES_MAX: usize = 250;
/// Heartbeats and answers on their way; the oldest are lost.
const UNDER_WAY_MAX: usize = 32;
const HEARTBEAT_MS: u64 = 5_000;
const TTL_MS: u64 = 30_000;
const EPOCH: u64 = 9;

/// Moves and what becomes of them.
pub fn agent_lease(data: &[u8]) {
    let mut draw = Draw::new(data);
    let mut world = World::new();
    for _ in 0..MOVES_MAX {
        if draw.is_over() {
            break;
        }
        world.act(&mut draw);
    }
    world.end();
}

/// The agent's process; all of it is lost with it.
struct Agent {
    core: Core,
    handover: Handover,
    /// Not yet handed over.
    orders: Vec<Order>,
    stages: Vec<StageOrder>,
}

struct World {
    now: Now,
    agent: Option<Agent>,
    supervisor: Supervisor,
    /// Not yet told to the agent.
    told: VecDeque<Report>,
    session: u64,
    open: bool,
    /// Session and number of heartbeats that the server has not answered.
    beats: VecDeque<(u64, u64)>,
    /// Session and answer, on their way back.
    answers: VecDeque<(u64, LeaseRenewal)>,
    reports: Vec<Reports>,
    /// From here on the server may give this node's work to another.
    given_away_ms: u64,
    next_task: u64,
    /// Orders are handed over as soon as they are given.
    is_prompt: bool,
}

fn agent_at(now: Now) -> Agent {
    let config = AgentConfig::new("h:1", "dl_x", "n1", Resources::default());
    let core = Core::new(Arc::new(config), "/d/work".into(), "/d/spool".into(), now);
    Agent { core, handover: Handover::default(), orders: Vec::new(), stages: Vec::new() }
}

impl World {
    fn new() -> Self {
        let now = Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 };
        let mut world = Self {
            now,
            agent: Some(agent_at(now)),
            supervisor: Supervisor::default(),
            told: VecDeque::new(),
            session: 0,
            open: false,
            beats: VecDeque::new(),
            answers: VecDeque::new(),
            reports: Vec::new(),
            given_away_ms: 0,
            next_task: 0,
            is_prompt: true,
        };
        world.step(Event::Adopted(Vec::new()));
        world.open(HEARTBEAT_MS, TTL_MS);
        world
    }

    fn act(&mut self, draw: &mut Draw<'_>) {
        match draw.below(32) {
            0..=2 => self.assign(1 + draw.below(3) as u64),
            3..=5 => self.stage(),
            6..=8 => self.hand_over(None, draw.byte()),
            9 => self.hand_over(Some(draw.below(8)), draw.byte()),
            10..=12 => self.tell(1 + draw.below(4)),
            13 => self.exit(draw.below(4)),
            14..=16 => self.answer(draw),
            17..=19 => self.deliver(draw.below(4), draw.seldom(4)),
            20..=22 => self.pass(draw.word() % 9_000, true),
            23 => self.pass(draw.word() % 100_000, true),
            // The agent sleeps, or the machine is too slow for it.
            24 => self.pass(draw.word() % 60_000, false),
            25 => self.link(draw),
            26 => self.supervisor_lost(),
            27 => self.agent_dies(),
            28 => self.agent_starts(),
            29 => self.stop(draw),
            30 => self.is_prompt = draw.coin(),
            _ => self.acknowledge(),
        }
    }

    fn step(&mut self, event: Event) {
        let Some(agent) = &mut self.agent else { return };
        let mut actions = agent.core.step(self.now, event);
        actions.extend(agent.core.step(self.now, Event::Tick));
        agent.core.check();
        for action in actions {
            match action {
                Action::Send(frame) => match frame.frame {
                    Some(agent_frame::Frame::Heartbeat(beat)) => {
                        self.beats.push_back((self.session, beat.sequence));
                    }
                    Some(agent_frame::Frame::Reports(reports)) => self.reports.push(reports),
                    _ => {}
                },
                Action::Order(order) => agent.orders.push(order),
                Action::Stage(order) => agent.stages.push(order),
                _ => {}
            }
        }
        let surplus = self.beats.len().saturating_sub(UNDER_WAY_MAX);
        self.beats.drain(..surplus);
        if self.is_prompt {
            self.hand_over(None, 0);
        }
        self.check();
    }

    /// What all of this is for.
    fn check(&self) {
        let runs = self.supervisor.processes.iter().find(|(_, process)| process.exit.is_none());
        if let Some((key, _)) = runs {
            let (now_ms, given_away_ms) = (self.now.mono_ms, self.given_away_ms);
            assert!(now_ms < given_away_ms, "{key} runs at {now_ms}; given away from {given_away_ms} on");
        }
    }

    /// Time passes; the switch strikes when it is due, and the agent wakes when it
    /// wants, if it can.
    fn pass(&mut self, ms: u64, awake: bool) {
        let until_ms = self.now.mono_ms + ms;
        while self.now.mono_ms < until_ms {
            let wakeup = self.agent.as_ref().filter(|_| awake).and_then(|agent| agent.core.next_wakeup_ms());
            let next = wakeup.map_or(until_ms, |at| at.clamp(self.now.mono_ms + 1, until_ms));
            let next = self.supervisor.switch_ms.map_or(next, |at| next.min(at.max(self.now.mono_ms)));
            self.now.wall_ms += next - self.now.mono_ms;
            self.now.mono_ms = next;
            self.strike();
            self.check();
            if wakeup.is_some_and(|at| at <= next) {
                self.step(Event::Tick);
            }
        }
        if awake {
            self.step(Event::Tick);
        }
    }

    // ------------------------------------------------------------ the server

    fn hear(&mut self, session: u64, frame: Told) {
        self.step(Event::Frame { session, frame });
    }

    fn open(&mut self, heartbeat_ms: u64, lease_ttl_ms: u64) {
        if !self.open && self.agent.is_some() {
            self.open = true;
            self.session += 1;
            self.step(Event::SessionOpened { session: self.session, heartbeat_ms, lease_ttl_ms });
        }
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            self.reports.clear();
            self.step(Event::SessionClosed { session: self.session });
        }
    }

    fn link(&mut self, draw: &mut Draw<'_>) {
        match draw.below(4) {
            0 | 1 => self.close(),
            2 => self.open(*draw.pick(&[500, 1_000, 20_000, u64::MAX]), draw.number().saturating_mul(1_000)),
            _ => self.open(HEARTBEAT_MS, TTL_MS),
        }
    }

    /// The server answers some heartbeat that came to it, perhaps late, and
    /// counts from now.
    fn answer(&mut self, draw: &mut Draw<'_>) {
        if self.beats.is_empty() {
            return;
        }
        let at = draw.below(self.beats.len());
        let Some((session, sequence)) = self.beats.remove(at) else { return };
        let ttl_ms = match draw.below(8) {
            0 => *draw.pick(&[1, 2_000, 4_000, 5_001, 10_000, 60_000]),
            1 => draw.word().max(1),
            _ => TTL_MS,
        };
        self.promise(session, sequence, ttl_ms);
    }

    fn promise(&mut self, session: u64, sequence: u64, ttl_ms: u64) {
        self.given_away_ms = self.given_away_ms.max(self.now.mono_ms.saturating_add(ttl_ms));
        self.answers.push_back((session, LeaseRenewal { sequence, ttl_ms }));
        if self.answers.len() > UNDER_WAY_MAX {
            self.answers.pop_front();
        }
    }

    fn deliver(&mut self, which: usize, once_more: bool) {
        if let Some((session, renewal)) = self.answers.get(which % self.answers.len().max(1)).copied() {
            if !once_more {
                self.answers.remove(which % self.answers.len());
            }
            self.hear(session, Told::Lease(renewal));
        }
    }

    fn assign(&mut self, count: u64) {
        let tasks = self.next_task..self.next_task + count;
        if !self.open {
            return;
        }
        self.next_task += count;
        let assign = Assign {
            tenant: "t".to_owned(),
            job_number: 1,
            job_id: "t-1".to_owned(),
            epoch: EPOCH,
            slots: 2,
            step: Some(Step { name: "s".to_owned(), argv: vec!["prog".to_owned()], ..Step::default() }),
            tasks: tasks
                .map(|task| AssignedTask { task, index: task, attempt: 1, ..AssignedTask::default() })
                .collect(),
            ..Assign::default()
        };
        self.hear(self.session, Told::Assign(assign));
    }

    fn stop(&mut self, draw: &mut Draw<'_>) {
        let attempt = AttemptRef {
            tenant: "t".to_owned(),
            job_number: 1,
            task: self.next_task.saturating_sub(1 + draw.below(4) as u64),
            attempt: 1,
            epoch: EPOCH,
            ..AttemptRef::default()
        };
        let stop =
            Stop { attempts: vec![attempt], grace_ms: draw.number().saturating_mul(100), ..Stop::default() };
        self.hear(self.session, Told::Stop(stop));
    }

    fn acknowledge(&mut self) {
        for Reports { sequence, .. } in std::mem::take(&mut self.reports) {
            self.hear(self.session, Told::ReportsAck(ReportsAck { sequence }));
        }
    }

    // ------------------------------------------------------------ the node

    fn stage(&mut self) {
        let stages = self.agent.as_mut().map(|agent| std::mem::take(&mut agent.stages)).unwrap_or_default();
        for StageOrder { key, directory, .. } in stages {
            self.step(Event::Staged { key, directory, result: Ok(()) });
        }
    }

    /// The orders given so far go to the supervisor; `in_doubt`: only so many
    /// commands arrive, and the agent does not know which.
    fn hand_over(&mut self, in_doubt: Option<usize>, stubborn: u8) {
        let Some(agent) = &mut self.agent else { return };
        let orders = std::mem::take(&mut agent.orders);
        let (commands, lapsed) = agent.handover.commands(orders, self.now.mono_ms);
        let arrive = in_doubt.unwrap_or(commands.len());
        let doubted = if in_doubt.is_some() { agent.handover.failed() } else { Vec::new() };
        if in_doubt.is_none() {
            agent.handover.done();
        }
        for (at, command) in commands.into_iter().take(arrive).enumerate() {
            self.obey(command, stubborn >> (at % 8) & 1 == 1);
        }
        if !lapsed.is_empty() {
            self.step(Event::Lapsed { launches: lapsed });
        }
        if in_doubt.is_some() {
            self.step(Event::Unreachable { launches: doubted, reason: "no answer".to_owned() });
        }
    }

    fn tell(&mut self, count: usize) {
        if self.agent.is_some() {
            let count = count.min(self.told.len());
            let reports = self.told.drain(..count).collect();
            self.step(Event::Processes(reports));
        }
    }

    fn agent_dies(&mut self) {
        self.agent = None;
        self.open = false;
        self.reports.clear();
        self.told.clear();
    }

    fn agent_starts(&mut self) {
        if self.agent.is_some() {
            return;
        }
        self.agent = Some(agent_at(self.now));
        let record = |(key, process): (&String, &Process)| Record {
            key: key.clone(),
            context: process.context.clone(),
            pid: 1,
            exit: process.exit,
        };
        self.step(Event::Adopted(self.supervisor.processes.iter().map(record).collect()));
    }

    // ------------------------------------------------------------- the end

    /// All is well from here on: what is launched then runs as long as it likes.
    fn end(mut self) {
        self.is_prompt = true;
        self.agent_dies();
        self.agent_starts();
        self.supervisor_lost();
        self.calm(3_000);
        self.open(HEARTBEAT_MS, TTL_MS);
        self.calm(40_000);
        self.assign(1);
        self.calm(100);
        let task = self.next_task - 1;
        let runs = |world: &Self| {
            let mut live = world.supervisor.processes.iter().filter(|(_, process)| process.exit.is_none());
            live.any(|(key, _)| key.contains(&format!("/{task}/")))
        };
        assert!(runs(&self), "task {task} was not launched");
        self.calm(200_000);
        assert!(runs(&self), "task {task} was ended, and every heartbeat had its answer");
    }

    /// Each heartbeat is answered, whatever is told is heard.
    fn calm(&mut self, ms: u64) {
        let until_ms = self.now.mono_ms + ms;
        loop {
            self.stage();
            self.tell(usize::MAX);
            self.acknowledge();
            while let Some((session, sequence)) = self.beats.pop_front() {
                self.promise(session, sequence, TTL_MS);
            }
            while !self.answers.is_empty() {
                self.deliver(0, false);
            }
            if self.now.mono_ms >= until_ms {
                return;
            }
            self.pass(1_000.min(until_ms - self.now.mono_ms), true);
        }
    }
}
