//! Which machines run. Whoever takes one down or brings it up does it here, so
//! that a machine that several faults hold down comes up with the last of them.
//! A server that ends by itself is started again, as whoever runs one sees to.

use crate::cluster::Machine;
use crate::trace::Trace;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use world::sim::universe::{self, NodeId};
use world::sim::{HostileDisk, SimProcesses};
use world::sync::mpsc;
use world::time;

/// From the end of a server to its next start, where it ended by itself.
const AGAIN_MS: u64 = 1_000;

/// See the module.
pub struct Power {
    machines: Vec<Held>,
    /// How many hold each of them down.
    down: Mutex<BTreeMap<usize, u32>>,
    trace: Trace,
}

struct Held {
    node: NodeId,
    disk: Arc<HostileDisk>,
    processes: Option<Arc<SimProcesses>>,
}

impl Power {
    /// Of all machines, the server's first.
    pub fn new<'a>(machines: impl Iterator<Item = &'a Machine>, trace: &Trace) -> Arc<Self> {
        let held = |machine: &Machine| Held {
            node: machine.node,
            disk: Arc::clone(&machine.disk),
            processes: machine.processes.clone(),
        };
        let machines = machines.map(held).collect();
        Arc::new(Self { machines, down: Mutex::default(), trace: trace.clone() })
    }

    /// Ends a machine's processes; with a generator it loses power as well.
    pub fn take_down(&self, index: usize, loses: Option<&mut SmallRng>) {
        let machine = &self.machines[index];
        let mut all = self.down.lock().expect("no holder panics");
        let down = all.entry(index).or_default();
        *down += 1;
        if *down == 1 {
            universe::kill(machine.node);
        }
        match loses {
            Some(rng) => {
                machine.disk.crash(rng);
                if let Some(processes) = &machine.processes {
                    processes.crash();
                }
            }
            None if *down == 1 => machine.disk.fence(),
            None => {}
        }
    }

    /// Takes back one [`Power::take_down`].
    pub fn bring_up(&self, index: usize) {
        let mut all = self.down.lock().expect("no holder panics");
        let down = all.entry(index).or_default();
        *down = down.saturating_sub(1);
        if *down == 0 {
            universe::restart(self.machines[index].node);
        }
    }

    #[must_use]
    pub fn is_up(&self, index: usize) -> bool {
        self.down.lock().expect("no holder panics").get(&index).is_none_or(|down| *down == 0)
    }

    /// Starts the server again each time it has ended by itself; it tells the
    /// incarnation that did.
    pub async fn attend(self: Arc<Self>, mut ended: mpsc::Receiver<u64>) {
        while let Some(incarnation) = ended.recv().await {
            // A fault may have been there first.
            if self.machines[0].disk.incarnation() != incarnation || !self.is_up(0) {
                continue;
            }
            self.trace.tell("the server ended by itself");
            self.take_down(0, None);
            time::sleep(time::ms(AGAIN_MS)).await;
            self.bring_up(0);
        }
    }
}
