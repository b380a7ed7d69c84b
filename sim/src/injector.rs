//! Fires the faults of a plan at their time, and heals all at the end.

use crate::cluster::{Cluster, Machine};
use crate::faults::{Fault, Fired, Planned};
use crate::trace::Trace;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use world::sim::ProcessFaults;
use world::sim::universe::{self, Net, NodeId};
use world::time;

/// One thing to do at one time.
#[derive(Clone, Debug)]
enum Act {
    Strike(Fault),
    Heal(Fault),
}

/// Between a kill and a restart at least: sockets must be gone.
const DOWN_MS_MIN: u64 = 50;

pub struct Injector<'a> {
    cluster: &'a Cluster,
    trace: &'a Trace,
    rng: SmallRng,
    pub fired: Fired,
    /// Machines that are down, and how many faults hold each link.
    down: BTreeMap<usize, u32>,
    held: BTreeMap<(NodeId, NodeId), u32>,
    net: Net,
}

impl<'a> Injector<'a> {
    pub fn new(cluster: &'a Cluster, trace: &'a Trace, seed: u64) -> Self {
        let rng = SmallRng::seed_from_u64(seed ^ 0x696e_6a65_6374);
        let net = Net::default();
        Self {
            cluster,
            trace,
            rng,
            fired: Fired::default(),
            down: BTreeMap::new(),
            held: BTreeMap::new(),
            net,
        }
    }

    /// Runs a plan to its end; afterwards nothing is broken any more.
    pub async fn run(&mut self, plan: &[Planned]) {
        universe::set_net(&self.net);
        let mut acts: Vec<(u64, usize, Act)> = Vec::new();
        for planned in plan {
            acts.push((planned.at_ms, acts.len(), Act::Strike(planned.fault.clone())));
            let until = planned.at_ms + span_ms(&planned.fault);
            acts.push((until, acts.len(), Act::Heal(planned.fault.clone())));
        }
        acts.sort_by_key(|(at, order, _)| (*at, *order));
        for (at_ms, _, act) in acts {
            let now = u64::try_from(universe::elapsed().as_millis()).expect("a run is shorter");
            time::sleep(time::ms(at_ms.saturating_sub(now))).await;
            match act {
                Act::Strike(fault) => self.strike(&fault),
                Act::Heal(fault) => self.heal(&fault),
            }
        }
    }

    fn strike(&mut self, fault: &Fault) {
        self.trace.tell(&format!("fault {fault:?}"));
        self.fired.count(fault.kind());
        match *fault {
            Fault::ServerKilled { .. } => self.take_down(0, false),
            Fault::ServerPowerLoss { .. } => self.take_down(0, true),
            Fault::AgentKilled { agent, .. } => self.take_down(agent + 1, false),
            Fault::MachinePowerLoss { agent, .. } => self.take_down(agent + 1, true),
            Fault::AgentPaused { agent, .. } => universe::pause(self.cluster.agents[agent].node),
            Fault::SlowDisk { machine, lag_ms, .. } => self.slow_disk(machine, lag_ms),
            Fault::Partition { agent, .. } => {
                let (agent, server) = (&self.cluster.agents[agent], &self.cluster.server);
                self.cut(agent, server);
                self.cut(server, agent);
            }
            Fault::RepliesLost { agent, .. } => self.cut(&self.cluster.server, &self.cluster.agents[agent]),
            Fault::RequestsLost { agent, .. } => self.cut(&self.cluster.agents[agent], &self.cluster.server),
            Fault::ClientRepliesLost { .. } => self.hold(self.cluster.server.node, self.cluster.clients),
            Fault::MessageLoss { percent, .. } => {
                self.net.loss = f64::from(percent) / 100.0;
                universe::set_net(&self.net);
            }
            Fault::SlowLinks { latency_ms, .. } => {
                self.net.latency = time::ms(latency_ms / 2)..time::ms(latency_ms);
                universe::set_net(&self.net);
            }
            Fault::ClockSkew { machine, offset_ms, drift_ppm } => {
                let clock = &self.cluster.machine(machine).clock;
                clock.jump_wall_ms(offset_ms);
                clock.set_drift_ppm(i32::try_from(drift_ppm).expect("drawn small"));
            }
            Fault::TasksFail { agent, .. } => {
                if let Some(processes) = &self.cluster.agents[agent].processes {
                    processes.set_faults(ProcessFaults::nasty());
                }
            }
        }
    }

    fn heal(&mut self, fault: &Fault) {
        self.trace.tell(&format!("healed {}", fault.kind()));
        match *fault {
            Fault::ServerKilled { .. } | Fault::ServerPowerLoss { .. } => self.bring_up(0),
            Fault::AgentKilled { agent, .. } | Fault::MachinePowerLoss { agent, .. } => {
                self.bring_up(agent + 1)
            }
            // One that was killed meanwhile and runs again does not mind.
            Fault::AgentPaused { agent, .. } => universe::resume(self.cluster.agents[agent].node),
            Fault::SlowDisk { machine, .. } => self.slow_disk(machine, 0),
            Fault::Partition { agent, .. } => {
                let (agent, server) = (&self.cluster.agents[agent], &self.cluster.server);
                self.uncut(agent, server);
                self.uncut(server, agent);
            }
            Fault::RepliesLost { agent, .. } => self.uncut(&self.cluster.server, &self.cluster.agents[agent]),
            Fault::RequestsLost { agent, .. } => {
                self.uncut(&self.cluster.agents[agent], &self.cluster.server)
            }
            Fault::ClientRepliesLost { .. } => {
                self.release(self.cluster.server.node, self.cluster.clients);
            }
            Fault::MessageLoss { .. } => {
                self.net.loss = 0.0;
                universe::set_net(&self.net);
            }
            Fault::SlowLinks { .. } => {
                self.net.latency = Net::default().latency;
                universe::set_net(&self.net);
            }
            // A wrong date stays wrong; the drift ends.
            Fault::ClockSkew { machine, .. } => self.cluster.machine(machine).clock.set_drift_ppm(0),
            Fault::TasksFail { agent, .. } => {
                if let Some(processes) = &self.cluster.agents[agent].processes {
                    processes.set_faults(ProcessFaults::default());
                }
            }
        }
    }

    fn take_down(&mut self, index: usize, power: bool) {
        let machine = self.cluster.machine(index);
        let down = self.down.entry(index).or_default();
        *down += 1;
        if *down == 1 {
            universe::kill(machine.node);
        }
        if power {
            machine.disk.crash(&mut self.rng);
            if let Some(processes) = &machine.processes {
                processes.crash();
            }
        } else if *down == 1 {
            machine.disk.fence();
        }
    }

    fn bring_up(&mut self, index: usize) {
        let down = self.down.entry(index).or_default();
        *down = down.saturating_sub(1);
        if *down == 0 {
            universe::restart(self.cluster.machine(index).node);
        }
    }

    fn slow_disk(&self, index: usize, lag_ms: u64) {
        universe::set_disk_lag(self.cluster.machine(index).node, time::ms(lag_ms));
    }

    fn cut(&mut self, from: &Machine, to: &Machine) {
        self.cluster.cuts.cut(&from.host, &to.host);
        self.hold(from.node, to.node);
    }

    fn uncut(&mut self, from: &Machine, to: &Machine) {
        if self.release(from.node, to.node) {
            self.cluster.cuts.heal(&from.host, &to.host);
        }
    }

    fn hold(&mut self, from: NodeId, to: NodeId) {
        *self.held.entry((from, to)).or_default() += 1;
        universe::clog(from, to);
    }

    /// True where nothing holds the link any more.
    fn release(&mut self, from: NodeId, to: NodeId) -> bool {
        let count = self.held.entry((from, to)).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            universe::unclog(from, to);
        }
        *count == 0
    }
}

fn span_ms(fault: &Fault) -> u64 {
    match *fault {
        Fault::ServerKilled { down_ms }
        | Fault::ServerPowerLoss { down_ms }
        | Fault::AgentKilled { down_ms, .. }
        | Fault::MachinePowerLoss { down_ms, .. } => down_ms.max(DOWN_MS_MIN),
        Fault::Partition { for_ms, .. }
        | Fault::RepliesLost { for_ms, .. }
        | Fault::RequestsLost { for_ms, .. }
        | Fault::AgentPaused { for_ms, .. }
        | Fault::SlowDisk { for_ms, .. }
        | Fault::ClientRepliesLost { for_ms }
        | Fault::MessageLoss { for_ms, .. }
        | Fault::SlowLinks { for_ms, .. }
        | Fault::TasksFail { for_ms, .. } => for_ms,
        Fault::ClockSkew { .. } => 60_000,
    }
}
