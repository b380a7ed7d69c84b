//! Fires the faults of a plan at their time, and heals all at the end.

mod weather;

use crate::clients::Door;
use crate::cluster::{Cluster, Machine};
use crate::faults::{DOWN_MS_MIN, Fault, Fired, Planned, STORAGE};
use crate::load;
use crate::trace::{Trace, lines};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use weather::Holding;
use world::sim::universe::{self, Net, NodeId};
use world::sync::Notify;
use world::task::JoinHandle;
use world::time;

/// A server that is to be outlived is far from its store for so long before it stands
/// still: what it asked for last is still under way then.
const OUTLIVED_FAR_MS: u64 = 2_500;
/// Between two looks whether another serves.
const OUTLIVED_LOOK_MS: u64 = 100;

/// One thing to do at one time.
#[derive(Clone, Debug)]
enum Act {
    Strike(Fault),
    Heal(Fault),
    /// The second power loss of a crash in recovery.
    Again(Fault),
    TakeDown(usize),
    BringUp(usize),
    /// A server that is to be outlived stands still.
    Stand(Fault),
    /// Whether another serves already.
    Look(Fault),
    /// It does, and the one that stood still goes on.
    Wake(Fault),
    /// A machine and the server no longer hear each other.
    Cut(usize),
    Uncut(usize),
}

pub struct Injector<'a> {
    cluster: &'a Cluster,
    trace: &'a Trace,
    rng: SmallRng,
    pub fired: Fired,
    /// By time, then in the order in which they were planned.
    acts: BTreeMap<(u64, usize), Act>,
    planned: usize,
    holding: Vec<Holding>,
    /// Machines that stand still with their clocks.
    still: BTreeSet<usize>,
    /// Machines whose agents stand still for good, however often they are started.
    stuck: BTreeSet<usize>,
    /// Machines that are to die as they make a file, with what made them so.
    doomed: BTreeMap<usize, Fault>,
    /// One of them did.
    died: Arc<Notify>,
    /// Which servers each such fault cut from their store.
    storeless: Vec<(Fault, usize)>,
    /// Which server each such fault struck.
    outlived: Vec<(Fault, usize)>,
    /// How many faults hold each link.
    held: BTreeMap<(NodeId, NodeId), u32>,
    /// For clients that press, and these.
    door: Door,
    pressing: Vec<JoinHandle<()>>,
}

impl<'a> Injector<'a> {
    pub fn new(cluster: &'a Cluster, trace: &'a Trace, door: Door, seed: u64) -> Self {
        Self {
            cluster,
            trace,
            rng: SmallRng::seed_from_u64(seed ^ 0x696e_6a65_6374),
            fired: Fired::default(),
            acts: BTreeMap::new(),
            planned: 0,
            holding: Vec::new(),
            still: BTreeSet::new(),
            stuck: BTreeSet::new(),
            doomed: BTreeMap::new(),
            died: Arc::new(Notify::new()),
            storeless: Vec::new(),
            outlived: Vec::new(),
            held: BTreeMap::new(),
            door,
            pressing: Vec::new(),
        }
    }

    /// Runs a plan to its end; afterwards nothing is broken any more.
    pub async fn run(&mut self, plan: &[Planned]) {
        universe::set_net(&Net::default());
        for planned in plan {
            self.plan(planned.at_ms, Act::Strike(planned.fault.clone()));
            self.plan(planned.at_ms + planned.fault.span_ms(), Act::Heal(planned.fault.clone()));
        }
        while let Some((&(at_ms, _), _)) = self.acts.first_key_value() {
            let died = Arc::clone(&self.died);
            let now = now_ms();
            world::select! {
                biased;
                () = died.notified() => self.bury(),
                () = time::sleep(time::ms(at_ms.saturating_sub(now))) => {
                    let (_, act) = self.acts.pop_first().expect("seen above");
                    self.act(act);
                }
            }
        }
        assert!(self.holding.is_empty() && self.doomed.is_empty(), "a fault was not healed");
        for pressing in self.pressing.drain(..) {
            pressing.await.expect("the clients' node is never killed");
        }
        self.count();
    }

    fn plan(&mut self, at_ms: u64, act: Act) {
        self.acts.insert((at_ms, self.planned), act);
        self.planned += 1;
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Strike(fault) => {
                self.trace.struck(&fault);
                if !weather::may_miss(&fault) {
                    self.fired.count(fault.kind());
                }
                self.strike(&fault);
                self.hold(fault);
            }
            Act::Heal(fault) => {
                self.trace.healed(&fault);
                self.heal(&fault);
                self.let_go(&fault);
            }
            Act::Again(fault) => self.again(&fault),
            Act::Stand(fault) => self.stand(&fault),
            Act::Look(fault) => self.look(&fault),
            Act::Wake(fault) => self.wake(&fault),
            Act::TakeDown(machine) => self.take_down(machine, false),
            Act::BringUp(machine) => self.bring_up(machine),
            Act::Cut(machine) => {
                for server in &self.cluster.servers {
                    self.cut(self.machine(machine), server);
                    self.cut(server, self.machine(machine));
                }
            }
            Act::Uncut(machine) => {
                for server in &self.cluster.servers {
                    self.uncut(self.machine(machine), server);
                    self.uncut(server, self.machine(machine));
                }
            }
        }
    }

    fn machine(&self, index: usize) -> &'a Machine {
        self.cluster.machine(index)
    }

    /// What strikes once; the rest is the weather's.
    fn strike(&mut self, fault: &Fault) {
        match *fault {
            Fault::ServerKilled { .. } | Fault::AgentKilled { .. } | Fault::SchedulerKilled { .. } => {
                self.take_down(fault.machine(), false);
            }
            Fault::ServerPowerLoss { .. }
            | Fault::MachinePowerLoss { .. }
            | Fault::MachineGone { .. }
            | Fault::CrashInRecovery { .. } => {
                self.take_down(fault.machine(), true);
            }
            Fault::ServerRolledBack { .. } => {
                self.cluster.rolled_back.store(true, Ordering::Relaxed);
                self.take_down(fault.machine(), false);
            }
            Fault::ServersStartAtOnce { .. } => {
                self.cluster.server_indexes().for_each(|server| self.take_down(server, false));
            }
            Fault::ServerCutFromStore { .. } => self.cut_from_store(fault),
            Fault::ServerPaused { machine, .. } => {
                universe::pause(self.machine(machine).node);
                self.still.insert(machine);
            }
            Fault::ServerOutlived { .. } => self.outlive(fault),
            Fault::AgentPaused { .. } | Fault::SchedulerPaused { .. } => {
                universe::pause(self.machine(fault.machine()).node);
            }
            Fault::AgentStuck { agent } => {
                universe::pause(self.machine(agent + 1).node);
                self.stuck.insert(agent + 1);
            }
            Fault::SupervisorKilled { agent } => {
                if let Some(processes) = &self.cluster.agents[agent].processes {
                    processes.lose_supervisor();
                }
            }
            Fault::SupervisorDiesLaunching { agent, launches_before, .. } => {
                if let Some(processes) = &self.cluster.agents[agent].processes {
                    processes.lose_supervisor_launching(Some(launches_before));
                }
            }
            Fault::CrashInCreation { machine, files_before, .. } => {
                self.machine(machine).disk.die_at_creation(files_before, Arc::clone(&self.died));
                self.doomed.insert(machine, fault.clone());
            }
            Fault::Partition { .. } | Fault::MachineCutOff { .. } | Fault::SchedulerCut { .. } => {
                self.act(Act::Cut(fault.machine()));
            }
            Fault::Flapping { cut_ms, whole_ms, for_ms, .. } => {
                let (begun, mut at_ms) = (now_ms(), 0);
                while at_ms < for_ms {
                    self.plan(begun + at_ms, Act::Cut(fault.machine()));
                    self.plan(begun + (at_ms + cut_ms).min(for_ms), Act::Uncut(fault.machine()));
                    at_ms += cut_ms + whole_ms.max(1);
                }
            }
            Fault::AgentsUpgraded { down_ms, for_ms } => {
                let (begun, agents) = (now_ms(), self.cluster.agents.len());
                for machine in 1..=agents {
                    let at_ms = begun + for_ms * (machine as u64 - 1) / agents as u64;
                    self.plan(at_ms, Act::TakeDown(machine));
                    self.plan(at_ms + down_ms.max(DOWN_MS_MIN), Act::BringUp(machine));
                }
            }
            Fault::HalfOpen { agent } if universe::strike_half_open(self.machine(agent + 1).ip()) > 0 => {
                self.fired.count(fault.kind());
            }
            Fault::RepliesLost { .. } | Fault::SchedulerRepliesLost { .. } => {
                for server in &self.cluster.servers {
                    self.cut(server, self.machine(fault.machine()));
                }
            }
            Fault::RequestsLost { agent, .. } => {
                for server in &self.cluster.servers {
                    self.cut(self.machine(agent + 1), server);
                }
            }
            Fault::ClientRepliesLost { .. } => {
                for server in &self.cluster.servers {
                    self.clog(server.node, self.cluster.clients);
                }
            }
            Fault::ClockSkew { machine, offset_ms: by_ms, .. }
            | Fault::ClockForward { machine, by_ms, .. } => {
                self.machine(machine).clock.jump_wall_ms(by_ms);
            }
            Fault::ClockBack { machine, by_ms, .. } => self.machine(machine).clock.jump_wall_ms(-by_ms),
            _ => {
                let seed = self.rng.random();
                self.pressing.extend(load::press(self.cluster.clients, &self.door, fault, seed));
            }
        }
    }

    fn heal(&mut self, fault: &Fault) {
        match *fault {
            Fault::ServerKilled { .. }
            | Fault::ServerPowerLoss { .. }
            | Fault::ServerRolledBack { .. }
            | Fault::AgentKilled { .. }
            | Fault::SchedulerKilled { .. }
            | Fault::MachinePowerLoss { .. } => self.bring_up(fault.machine()),
            Fault::CrashInRecovery { machine, after_ms, .. } => {
                self.bring_up(machine);
                self.plan(now_ms() + after_ms, Act::Again(fault.clone()));
            }
            // One that was killed meanwhile and runs again does not mind.
            Fault::ServerPaused { machine, .. } => {
                universe::resume(self.machine(machine).node);
                self.still.remove(&machine);
            }
            Fault::ServersStartAtOnce { .. } => {
                self.cluster.server_indexes().for_each(|server| self.bring_up(server));
            }
            Fault::ServerCutFromStore { .. } => self.join_to_store(fault),
            Fault::ServerOutlived { .. } => {
                self.wake(fault);
                let at = self.outlived.iter().position(|(of, _)| of == fault);
                let (_, server) = self.outlived.remove(at.expect("it struck before it heals"));
                self.set(server);
            }
            Fault::AgentPaused { .. } | Fault::SchedulerPaused { .. }
                if !self.stuck.contains(&fault.machine()) =>
            {
                universe::resume(self.machine(fault.machine()).node);
            }
            Fault::CrashInCreation { machine, .. } if self.doomed.get(&machine) == Some(fault) => {
                self.machine(machine).disk.spare();
                self.doomed.remove(&machine);
            }
            Fault::Partition { .. } | Fault::SchedulerCut { .. } => self.act(Act::Uncut(fault.machine())),
            Fault::RepliesLost { .. } | Fault::SchedulerRepliesLost { .. } => {
                for server in &self.cluster.servers {
                    self.uncut(server, self.machine(fault.machine()));
                }
            }
            Fault::RequestsLost { agent, .. } => {
                for server in &self.cluster.servers {
                    self.uncut(self.machine(agent + 1), server);
                }
            }
            Fault::ClientRepliesLost { .. } => {
                for server in &self.cluster.servers {
                    self.unclog(server.node, self.cluster.clients);
                }
            }
            Fault::ClockForward { machine, by_ms, .. } => self.machine(machine).clock.jump_wall_ms(-by_ms),
            Fault::ClockBack { machine, by_ms, .. } => self.machine(machine).clock.jump_wall_ms(by_ms),
            Fault::SupervisorDiesLaunching { agent, .. } => {
                if let Some(processes) = &self.cluster.agents[agent].processes {
                    processes.lose_supervisor_launching(None);
                }
            }
            Fault::TasksHang { agent, .. } => {
                if let Some(processes) = &self.cluster.agents[agent].processes {
                    processes.wake_hung();
                }
            }
            _ => {}
        }
    }

    /// Cuts whoever serves now, alone, from the store. The directory that servers share
    /// is reached another way.
    fn cut_from_store(&mut self, fault: &Fault) {
        let serving = self.cluster.serving.lock().expect("no holder panics").unwrap_or(0);
        self.trace.tell(&format!("cut from the store is {}", lines::machine(serving)));
        let (server, storage) = (self.machine(serving).node, self.machine(STORAGE).node);
        self.clog(server, storage);
        self.clog(storage, server);
        self.storeless.push((fault.clone(), serving));
    }

    fn join_to_store(&mut self, fault: &Fault) {
        let at = self.storeless.iter().position(|(cut, _)| cut == fault).expect("it struck before it heals");
        let (_, server) = self.storeless.remove(at);
        let (server, storage) = (self.machine(server).node, self.machine(STORAGE).node);
        self.unclog(server, storage);
        self.unclog(storage, server);
    }

    /// Whoever serves now hears of the store late, and then it stands still.
    fn outlive(&mut self, fault: &Fault) {
        let serving = self.cluster.serving.lock().expect("no holder panics").unwrap_or(0);
        self.trace.tell(&format!("to be outlived is {}", lines::machine(serving)));
        self.outlived.push((fault.clone(), serving));
        self.set(serving);
        self.plan(now_ms() + OUTLIVED_FAR_MS, Act::Stand(fault.clone()));
    }

    fn stand(&mut self, fault: &Fault) {
        let Some(server) = self.to_outlive(fault) else { return };
        universe::pause(self.machine(server).node);
        self.still.insert(server);
        self.set(server);
        self.plan(now_ms() + OUTLIVED_LOOK_MS, Act::Look(fault.clone()));
    }

    fn look(&mut self, fault: &Fault) {
        let (Fault::ServerOutlived { after_ms, .. }, Some(server)) = (fault, self.to_outlive(fault)) else {
            return;
        };
        let serving = *self.cluster.serving.lock().expect("no holder panics");
        if let Some(next) = serving.filter(|serving| *serving != server) {
            self.fired.count(fault.kind());
            // Who has its answer from the one may go on with the other.
            let (door, seed) = (self.door.of(&self.machine(next).host), self.rng.random());
            self.pressing.extend(load::press(self.cluster.clients, &door, fault, seed));
            self.plan(now_ms() + after_ms, Act::Wake(fault.clone()));
        } else {
            self.plan(now_ms() + OUTLIVED_LOOK_MS, Act::Look(fault.clone()));
        }
    }

    /// One that was killed meanwhile and runs again does not mind.
    fn wake(&mut self, fault: &Fault) {
        let Some(server) = self.to_outlive(fault).filter(|server| self.still.contains(server)) else {
            return;
        };
        self.trace.tell(&format!("{} goes on", lines::machine(server)));
        universe::resume(self.machine(server).node);
        self.still.remove(&server);
        self.set(server);
    }

    /// While that fault holds.
    fn to_outlive(&self, fault: &Fault) -> Option<usize> {
        self.outlived.iter().find(|(of, _)| of == fault).map(|(_, server)| *server)
    }

    /// A machine that comes back is struck again, if it is still at that.
    fn again(&mut self, fault: &Fault) {
        let Fault::CrashInRecovery { machine, down_ms, .. } = *fault else { return };
        if self.cluster.power.is_up(machine) && !self.machine(machine).has_started() {
            self.trace.tell(&format!("machine {machine} loses power while it comes back"));
            self.fired.count("crash_in_recovery");
            self.take_down(machine, true);
            self.plan(now_ms() + down_ms.max(DOWN_MS_MIN), Act::BringUp(machine));
        }
    }

    /// Takes down those that died making a file.
    fn bury(&mut self) {
        let dead: Vec<(usize, Fault)> = self
            .doomed
            .extract_if(.., |machine, _| !self.cluster.machine(*machine).disk.is_doomed())
            .collect();
        for (machine, fault) in dead {
            self.trace.tell(&format!("machine {machine} loses power as it makes a file"));
            self.fired.count(fault.kind());
            self.take_down(machine, true);
            if let Fault::CrashInCreation { down_ms, .. } = fault {
                self.plan(now_ms() + down_ms.max(DOWN_MS_MIN), Act::BringUp(machine));
            }
        }
    }

    fn take_down(&mut self, machine: usize, power: bool) {
        self.cluster.power.take_down(machine, power.then_some(&mut self.rng));
    }

    fn bring_up(&mut self, machine: usize) {
        // Started anew it runs, and its clock with it.
        self.still.remove(&machine);
        self.set(machine);
        self.cluster.power.bring_up(machine);
        if self.stuck.contains(&machine) {
            universe::pause(self.machine(machine).node);
        }
    }

    fn hold(&mut self, fault: Fault) {
        let machine = fault.machine();
        let used_bytes = self.machine(machine).disk.used_bytes();
        self.holding.push(Holding { fault, used_bytes });
        self.set(machine);
    }

    fn let_go(&mut self, fault: &Fault) {
        let at =
            self.holding.iter().position(|held| held.fault == *fault).expect("it struck before it heals");
        self.holding.remove(at);
        self.set(fault.machine());
    }

    /// Makes a machine as all that holds wants it.
    fn set(&self, index: usize) {
        let machine = self.machine(index);
        let holding = &self.holding;
        universe::set_net(&weather::net(holding));
        universe::set_disk_lag(machine.node, time::ms(weather::disk_lag_ms(holding, index)));
        if index == STORAGE {
            // Whoever shares the directory waits as long for it.
            let lag = time::ms(weather::disk_lag_ms(holding, index));
            self.cluster.servers.iter().for_each(|server| universe::set_disk_lag(server.node, lag));
        }
        let far_ms = self.outlived.iter().filter_map(|(fault, server)| match fault {
            Fault::ServerOutlived { lag_ms, .. } if *server == index => Some(*lag_ms),
            _ => None,
        });
        let lag_ms = far_ms.chain([weather::link_lag_ms(holding, index)]).max().unwrap_or(0);
        universe::set_link_lag(machine.ip(), time::ms(lag_ms));
        machine.disk.set_faults(weather::disk(holding, index));
        if self.still.contains(&index) {
            machine.clock.stand_still();
        } else {
            machine.clock.set_drift_ppm(weather::drift_ppm(holding, index));
        }
        if let Some(transfer) = &machine.transfer {
            transfer.set_faults(weather::transfers(holding, index));
        }
        if let Some(processes) = &machine.processes {
            processes.set_faults(weather::processes(holding, index));
        }
    }

    /// Adds what struck by chance.
    fn count(&mut self) {
        for (_, machine) in self.cluster.machines() {
            weather::count_disk(&mut self.fired, &machine.disk.counts());
            if let Some(transfer) = &machine.transfer {
                weather::count_transfers(&mut self.fired, &transfer.counts());
            }
            if let Some(processes) = &machine.processes {
                weather::count_processes(&mut self.fired, &processes.counts());
            }
        }
    }

    fn cut(&mut self, from: &Machine, to: &Machine) {
        self.cluster.cuts.cut(&from.host, &to.host);
        self.clog(from.node, to.node);
    }

    fn uncut(&mut self, from: &Machine, to: &Machine) {
        if self.unclog(from.node, to.node) {
            self.cluster.cuts.heal(&from.host, &to.host);
        }
    }

    fn clog(&mut self, from: NodeId, to: NodeId) {
        *self.held.entry((from, to)).or_default() += 1;
        universe::clog(from, to);
    }

    /// True where nothing holds the link any more.
    fn unclog(&mut self, from: NodeId, to: NodeId) -> bool {
        let count = self.held.entry((from, to)).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            universe::unclog(from, to);
        }
        *count == 0
    }
}

fn now_ms() -> u64 {
    u64::try_from(universe::elapsed().as_millis()).expect("a run is shorter")
}
