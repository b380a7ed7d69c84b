//! Which machines run. Whoever takes one down or brings it up does it here, so
//! that a machine that several faults hold down comes up with the last of them.
//! A server that ends by itself is started again, as whoever runs one sees to.

use crate::cluster::Machine;
use crate::trace::{Trace, lines};
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use world::sim::universe::{self, NodeId};
use world::sim::{HostileDisk, Mount, SimProcesses};
use world::sync::mpsc;
use world::time;

/// From the end of a server to its next start, where it ended by itself.
const AGAIN_MS: u64 = 1_000;

/// See the module.
pub struct Power {
    machines: BTreeMap<usize, Held>,
    /// How many hold each of them down.
    down: Mutex<BTreeMap<usize, u32>>,
    trace: Trace,
}

struct Held {
    node: NodeId,
    disk: Arc<HostileDisk>,
    /// Its view of another's disk.
    mount: Option<Mount>,
    processes: Option<Arc<SimProcesses>>,
}

impl Power {
    /// Of all machines, by their index.
    pub fn new<'a>(machines: impl Iterator<Item = (usize, &'a Machine)>, trace: &Trace) -> Arc<Self> {
        let held = |(index, machine): (usize, &Machine)| {
            let held = Held {
                node: machine.node,
                disk: Arc::clone(&machine.disk),
                mount: machine.mount.clone(),
                processes: machine.processes.clone(),
            };
            (index, held)
        };
        let machines = machines.map(held).collect();
        Arc::new(Self { machines, down: Mutex::default(), trace: trace.clone() })
    }

    /// Ends a machine's processes; with a generator it loses power as well.
    pub fn take_down(&self, index: usize, loses: Option<&mut SmallRng>) {
        let machine = &self.machines[&index];
        let mut all = self.down.lock().expect("no holder panics");
        let down = all.entry(index).or_default();
        *down += 1;
        if *down == 1 {
            universe::kill(machine.node);
            machine.disk.set_away(true);
        }
        match loses {
            Some(rng) => {
                machine.disk.crash(rng);
                if let Some(mount) = &machine.mount {
                    mount.crash(rng);
                }
                if let Some(processes) = &machine.processes {
                    processes.crash();
                }
            }
            None if *down == 1 => {
                machine.disk.fence();
                if let Some(mount) = &machine.mount {
                    mount.fence();
                }
            }
            None => {}
        }
    }

    /// Takes back one [`Power::take_down`].
    pub fn bring_up(&self, index: usize) {
        let mut all = self.down.lock().expect("no holder panics");
        let down = all.entry(index).or_default();
        *down = down.saturating_sub(1);
        if *down == 0 {
            self.machines[&index].disk.set_away(false);
            universe::restart(self.machines[&index].node);
        }
    }

    #[must_use]
    pub fn is_up(&self, index: usize) -> bool {
        self.down.lock().expect("no holder panics").get(&index).is_none_or(|down| *down == 0)
    }

    /// Starts a server, or their store, again each time it has ended by itself; it tells
    /// which, and the incarnation that did.
    pub async fn attend(self: Arc<Self>, mut ended: mpsc::Receiver<(usize, u64)>) {
        while let Some((index, incarnation)) = ended.recv().await {
            // A fault may have been there first.
            if self.machines[&index].disk.incarnation() != incarnation || !self.is_up(index) {
                continue;
            }
            match index {
                0 => self.trace.tell("the server ended by itself"),
                other => self.trace.tell(&format!("{} ended by itself", lines::machine(other))),
            }
            self.take_down(index, None);
            time::sleep(time::ms(AGAIN_MS)).await;
            self.bring_up(index);
        }
    }
}
