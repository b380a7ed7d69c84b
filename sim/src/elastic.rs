//! Machines that come and go: the driver of a pool that grows by need, in the scenario that
//! has one. It starts agents on machines of their own and takes machines away, late, in part,
//! or not at all; answers get lost, and some machines never come.
//!
//! What must hold is looked at where a machine goes (nothing runs there), and at the end:
//! all that came has gone, and no row speaks of it.

use crate::cluster::Machine;
use crate::trace::Trace;
use crate::witness::SharedWitness;
use async_trait::async_trait;
use gateway::server::ServerConfig;
use gateway::{AutoscaleConfig, NodeShape};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use world::program::{Program, Unanswered};
use world::sim::universe;
use world::sync::{mpsc, oneshot};
use world::time;

/// The pool that grows.
pub const POOL: &str = "default";
/// By so many machines at most.
pub const GROWS_BY: u32 = 4;
/// Asks that nobody has taken yet.
const ASKS_WAITING: usize = 16;
/// How long a server waits for an answer.
const ANSWER_MS: u64 = 8_000;
/// Once all work has ended, all that came has gone after so long: a driver that failed is
/// asked again after 5 minutes at the latest.
const GONE_MS: u64 = 900_000;

#[derive(Deserialize)]
struct Question {
    action: String,
    nodes: Vec<String>,
}

/// A question under way, and where its answer goes.
struct Asked(Question, oneshot::Sender<Result<String, Unanswered>>);

/// What a server has of it.
#[derive(Clone, Debug)]
struct Door(mpsc::Sender<Asked>);

#[async_trait]
impl Program for Door {
    async fn ask(&self, text: String) -> Result<String, Unanswered> {
        let question = serde_json::from_str(&text).expect("servers ask as is documented");
        let (reply, answer) = oneshot::channel();
        let silent = || Unanswered::Failed("it did not answer".to_owned());
        self.0.try_send(Asked(question, reply)).map_err(|_| silent())?;
        let answered = time::timeout(time::ms(ANSWER_MS), answer).await;
        answered.map_err(|_| silent())?.map_err(|_| silent())?
    }
}

/// One that came.
struct Guest {
    machine: Machine,
    is_up: bool,
}

/// See the module.
pub struct Elastic {
    door: Door,
    guests: Mutex<BTreeMap<String, Guest>>,
    /// Until when things go wrong.
    trouble_ms: u64,
}

/// The asks, for [`Elastic::attend`].
pub struct Asks(mpsc::Receiver<Asked>);

impl Elastic {
    pub fn new(trouble_ms: u64) -> (Arc<Self>, Asks) {
        let (door, asks) = mpsc::channel(ASKS_WAITING);
        (Arc::new(Self { door: Door(door), guests: Mutex::default(), trouble_ms }), Asks(asks))
    }

    /// Has a server's pool grow.
    pub fn configure(&self, config: &mut ServerConfig, agents: usize) {
        let agents = u32::try_from(agents).expect("a scenario has fewer agents");
        let autoscale = AutoscaleConfig {
            command: vec!["elastic".to_owned()],
            command_ms: ANSWER_MS,
            min: 0,
            max: agents + GROWS_BY,
            queued_ms: 1_000,
            idle_ms: 2_000,
            cooldown_ms: 1_000,
            arrive_ms: 40_000,
            price_per_node_hour: "1".to_owned(),
            cost_per_hour_max: GROWS_BY.to_string(),
            node: Some(NodeShape {
                cores: "4".to_owned(),
                memory: "8GiB".to_owned(),
                gpus: 1,
                labels: BTreeMap::new(),
            }),
        };
        config.pools.entry(POOL.to_owned()).or_default().autoscale = Some(autoscale);
        config.drivers.insert(POOL.to_owned(), Arc::new(self.door.clone()));
    }

    fn guests(&self) -> MutexGuard<'_, BTreeMap<String, Guest>> {
        self.guests.lock().expect("no holder panics")
    }

    /// Each that ever came.
    pub fn each(&self, mut see: impl FnMut(&Machine)) {
        self.guests().values().for_each(|guest| see(&guest.machine));
    }

    /// Does what is asked, one ask after the other. `start` starts an agent's machine: its
    /// number among those that came, its name, and how long it takes to boot.
    pub async fn attend(
        self: Arc<Self>,
        mut asks: Asks,
        seed: u64,
        witness: SharedWitness,
        trace: Trace,
        mut start: impl FnMut(usize, &str, u64) -> Machine,
    ) {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x0065_6c61_7374_6963);
        while let Some(Asked(question, reply)) = asks.0.recv().await {
            time::sleep(time::ms(rng.random_range(0..3_000))).await;
            let in_trouble = universe::elapsed() < time::ms(self.trouble_ms);
            let how = if in_trouble { rng.random_range(0..100) } else { 100 };
            let told = format!("driver {} {}", question.action, question.nodes.join(" "));
            let mut nodes = question.nodes;
            let answer = match how {
                0..8 => Err(Unanswered::Failed("it fell over at once".to_owned())),
                8..14 => Ok(json!({ "error": "no quota" }).to_string()),
                _ => {
                    if (14..24).contains(&how) {
                        nodes.truncate(nodes.len().div_ceil(2));
                    }
                    for name in &nodes {
                        if question.action == "remove" {
                            self.remove(name, &witness);
                        } else if !self.guests().contains_key(name) && !(24..30).contains(&how) {
                            let boot_ms = rng.random_range(0..15_000);
                            let number = self.guests().len();
                            let machine = start(number, name, boot_ms);
                            self.guests().insert(name.clone(), Guest { machine, is_up: true });
                        }
                    }
                    if (30..38).contains(&how) {
                        // Too late for whoever waits.
                        time::sleep(time::ms(ANSWER_MS)).await;
                    }
                    Ok(json!({ "nodes": nodes }).to_string())
                }
            };
            trace.line(&format!("{told}: {answer:?}"));
            // Whoever asked may be gone.
            let _ = reply.send(answer);
        }
    }

    /// What befalls them meanwhile: one is taken away for good, stands still, or its agent dies.
    pub async fn weather(self: Arc<Self>, seed: u64, trace: Trace) {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x7765_6174_6865_7221);
        while universe::elapsed() < time::ms(self.trouble_ms) {
            time::sleep(time::ms(rng.random_range(3_000..20_000))).await;
            let up: Vec<String> =
                self.guests().iter().filter(|(_, guest)| guest.is_up).map(|(name, _)| name.clone()).collect();
            let Some(name) = up.choose(&mut rng).cloned() else { continue };
            let (what, span_ms) = (rng.random_range(0..4), rng.random_range(1_000..45_000));
            trace.line(&format!("machine {name}: blow {what} for {span_ms} ms"));
            match what {
                0 => self.take_away(&name),
                1 => {
                    self.with(&name, |machine| {
                        universe::kill(machine.node);
                        machine.disk.fence();
                    });
                    time::sleep(time::ms(span_ms / 9)).await;
                    self.with(&name, |machine| universe::restart(machine.node));
                }
                _ => {
                    self.with(&name, |machine| universe::pause(machine.node));
                    time::sleep(time::ms(span_ms)).await;
                    self.with(&name, |machine| universe::resume(machine.node));
                }
            }
        }
    }

    /// Does it with a machine that is up.
    fn with(&self, name: &str, act: impl FnOnce(&Machine)) {
        if let Some(guest) = self.guests().get(name).filter(|guest| guest.is_up) {
            act(&guest.machine);
        }
    }

    fn take_away(&self, name: &str) {
        let mut guests = self.guests();
        let Some(Guest { machine, is_up }) = guests.get_mut(name).filter(|guest| guest.is_up) else { return };
        *is_up = false;
        universe::kill(machine.node);
        machine.disk.set_away(true);
        machine.processes.as_ref().expect("an agent has processes").crash();
    }

    /// The machine is gone, and all that ran there.
    fn remove(&self, name: &str, witness: &SharedWitness) {
        self.with(name, |machine| {
            let processes = machine.processes.as_ref().expect("an agent has processes");
            if let Some(span) = processes.history().into_iter().find(|span| span.ended_ms.is_none()) {
                let what = format!("{name} is removed while {:?} runs there", span.key);
                witness.lock().expect("no holder panics").fail(2, what);
            }
        });
        self.take_away(name);
    }

    /// Waits until all that came has gone, once there is no work any more.
    pub async fn all_gone(&self, witness: &SharedWitness) -> Result<(), String> {
        let begun = universe::elapsed();
        loop {
            let up: Vec<String> =
                self.guests().iter().filter(|(_, guest)| guest.is_up).map(|(name, _)| name.clone()).collect();
            let rows: Vec<String> = {
                let witness = witness.lock().expect("no holder panics");
                witness.mirror.nodes.keys().filter(|name| name.contains("-auto-")).cloned().collect()
            };
            if up.is_empty() && rows.is_empty() {
                return Ok(());
            }
            if universe::elapsed() - begun > time::ms(GONE_MS) {
                return Err(format!("machines {up:?} and rows {rows:?} stay though there is no work"));
            }
            time::sleep(time::ms(500)).await;
        }
    }

    /// How many ever came.
    pub fn came(&self) -> usize {
        self.guests().len()
    }
}
