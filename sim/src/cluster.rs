//! A whole Drumline in the universe: a server, some agents, each on a machine
//! of its own with a hostile disk and a clock that may be wrong. Or several servers,
//! which share a store and a directory: both are on the disk of a machine more.

mod shared;

use crate::checkers;
use crate::elastic::{self, Elastic};
use crate::faults::{SECOND_SERVER, STORAGE};
use crate::power::Power;
use crate::rollback;
use crate::rows::JobName;
use crate::scenario::Scenario;
use crate::shape::{self, Kind};
use crate::trace::Trace;
use crate::uploads::Uploads;
use crate::witness::{self, SharedWitness};
use agent::{AgentConfig, AgentParts};
use gateway::ObjectsConfig;
use gateway::PreemptionConfig;
use gateway::server::{ServerConfig, ServerParts, StartError};
use proto::v1::Resources;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use scheduler::follow::{self, FollowParts};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use world::sim::universe::{self, NodeId};
use world::sim::{
    BucketDoor, ClockHandle, DoorGuard, HostileDisk, Mount, SimBucket, SimObjects, SimProcesses, SimTransfer,
    SkewedClock,
};
use world::sync::mpsc;
use world::time;

/// Where the server listens, on its machine.
const PORT: u16 = 7070;
/// Where the bucket is, which nobody of the cluster runs.
const BUCKET: &str = "10.0.0.4:9000";
/// What the server's disk takes for a sync, at most: a battery behind it, flash,
/// and a disk that turns. On the slower ones commits gather in groups.
const SERVER_DISKS_MS: [u64; 3] = [0, 8, 20];
/// The date at which every simulation begins.
pub const DAWN_MS: u64 = 1_767_225_600_000;

/// One machine.
pub struct Machine {
    pub host: String,
    pub node: NodeId,
    pub disk: Arc<HostileDisk>,
    /// Of several servers: their directory, on another's disk.
    pub mount: Option<Mount>,
    pub clock: ClockHandle,
    /// Only agents have tasks.
    pub processes: Option<Arc<SimProcesses>>,
    /// And transfers of their own.
    pub transfer: Option<Arc<SimTransfer>>,
    /// Which move so many bytes a second at most; 0: as they like.
    pub staging_bytes_per_s: u64,
    /// The incarnation that has come to its work.
    started: Arc<AtomicU64>,
}

impl Machine {
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.host.parse().expect("a host is named by its address")
    }

    /// False while it recovers.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.started.load(Ordering::Relaxed) == self.disk.incarnation()
    }
}

/// See the module.
pub struct Cluster {
    /// One, or all that share a store.
    pub servers: Vec<Machine>,
    /// Where that store is, where they do.
    pub storage: Option<Machine>,
    pub agents: Vec<Machine>,
    /// Bytes of logs that they keep for a server that cannot take them; 0: all.
    pub log_spool_bytes: u64,
    /// Pools in which work gives way to work of higher priority.
    pub preemption: BTreeMap<String, PreemptionConfig>,
    /// How many there are of each license.
    pub licenses: BTreeMap<String, u32>,
    /// Beside the server's own.
    pub schedulers: Vec<Machine>,
    pub clients: NodeId,
    pub uploads: Arc<Uploads>,
    /// Of all servers, with commas between.
    pub address: String,
    /// The index of the server that serves, while one does.
    pub serving: Serving,
    /// The admin token, known once the server has started.
    pub token: Arc<Mutex<String>>,
    pub cuts: Cuts,
    pub power: Arc<Power>,
    /// The rows of the server's present incarnation.
    pub store: SharedStore,
    /// Before its next start a newer version of the server ran; see [`rollback`].
    pub rolled_back: Arc<AtomicBool>,
    /// Where objects are, if not on the data disk.
    pub bucket: Option<Arc<SimBucket>>,
    /// Where machines come and go.
    pub elastic: Option<Arc<Elastic>>,
    _served: Option<DoorGuard>,
}

/// See [`Cluster::serving`].
pub type Serving = Arc<Mutex<Option<usize>>>;

/// Ends of servers that nobody has seen to yet.
const ENDS_UNTOLD: usize = 16;
/// Between two looks at a store whose disk failed.
const WATCH_AGAIN_MS: u64 = 20;

/// Set anew by each incarnation of the server, or of the store that several share.
pub type SharedStore = Arc<Mutex<Option<Arc<dyn store::Store>>>>;

/// Links cut on purpose, for the parts of the world that madsim's network does
/// not carry (transfers).
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    links: Arc<Mutex<BTreeSet<(String, String)>>>,
}

impl Cuts {
    pub fn cut(&self, from: &str, to: &str) {
        self.links.lock().expect("no holder panics").insert((from.into(), to.into()));
    }
    pub fn heal(&self, from: &str, to: &str) {
        self.links.lock().expect("no holder panics").remove(&(from.into(), to.into()));
    }
    fn passes(&self, from: &str, to: &str) -> bool {
        let links = self.links.lock().expect("no holder panics");
        // A transfer needs both directions.
        !links.contains(&(from.into(), to.into())) && !links.contains(&(to.into(), from.into()))
    }
}

fn host(index: usize) -> Ipv4Addr {
    let index = u32::try_from(index).expect("a cluster is smaller");
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 1, 0)) + index + 1)
}

/// Of a machine that came.
fn guest(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).expect("fewer come");
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 2, 0, 0)) + number + 1)
}

impl Cluster {
    /// Builds and starts everything; returns once the server and all agents
    /// have been started (agents may still be connecting).
    pub async fn start(seed: u64, scenario: &Scenario, witness: SharedWitness, trace: &Trace) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x0063_6c75_7374_6572);
        let base = time::Instant::now();
        let objects = SimObjects::new();
        let cuts = Cuts::default();
        let passes = cuts.clone();
        objects.set_reachable(move |from, to| passes.passes(from, to));
        let token = Arc::new(Mutex::new(String::new()));
        let store = SharedStore::default();
        let (ended, ends) = mpsc::channel(ENDS_UNTOLD);
        let rolled_back = Arc::new(AtomicBool::new(false));
        let serving = Serving::default();
        let seen = Seen {
            token: Arc::clone(&token),
            store: Arc::clone(&store),
            rolled_back: Arc::clone(&rolled_back),
            serving: Arc::clone(&serving),
            witness,
            trace: trace.clone(),
            ended,
        };
        let trouble_ms = if scenario.faults { scenario.load().over_ms } else { 0 };
        let (elastic, asks) = scenario.elastic.then(|| Elastic::new(trouble_ms)).unzip();
        let bucket = shape::bucket(seed, scenario.bucket_trouble_ms());
        let bucket = bucket.map(|faults| SimBucket::new(BUCKET, seed, faults));
        let served = bucket.as_ref().map(|bucket| {
            let door = BucketDoor(Arc::clone(bucket));
            objects.register(BUCKET, Arc::new(door))
        });
        let url_ttl_ms = shape::url_ttl_ms(seed);
        let (objects_of, collect_every_ms) = (Arc::clone(&objects), scenario.collect_every_ms());
        let elastic_for = elastic.clone().map(|elastic| (elastic, scenario.agents));
        let place = Place {
            objects: objects_of,
            url_ttl_ms,
            preemption: shape::preemption(seed),
            licenses: shape::licenses(seed),
            collect_every_ms,
            bucket: bucket.clone(),
            elastic: elastic_for,
        };
        let saw = Arc::clone(&seen.witness);
        let (servers, storage) = match scenario.servers {
            0 | 1 => (vec![start_server(&mut rng, place, seen)], None),
            several => {
                let (servers, storage) = shared::start(several, seed, &place, &seen);
                (servers, Some(storage))
            }
        };
        let uploads = Uploads::new(&objects, "10.0.0.2", seed);
        // A node whose `init` ends is taken down with all its tasks.
        let clients =
            universe::create_node("clients", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), std::future::pending);
        let addresses: Vec<String> = servers.iter().map(|server| format!("{}:{PORT}", server.host)).collect();
        let address = addresses.join(",");
        while token.lock().expect("no holder panics").is_empty() {
            time::sleep(time::ms(20)).await;
        }
        let kinds = shape::draw(seed, scenario.agents);
        let agents = kinds
            .into_iter()
            .enumerate()
            .map(|named| {
                start_agent(named, &mut rng, &address, Arc::clone(&token), &objects, trace.clone(), base)
            })
            .collect::<Vec<_>>();
        if let (Some(elastic), Some(asks)) = (&elastic, asks) {
            let (address, token) = (address.clone(), Arc::clone(&token));
            let (objects, told) = (Arc::clone(&objects), trace.clone());
            let mut rng = SmallRng::seed_from_u64(seed ^ 0x6775_6573_7473);
            let start = move |number: usize, name: &str, boot_ms: u64| {
                let kind = Kind { pool: elastic::POOL.to_owned(), ..Kind::default() };
                let place = AgentPlace { ip: guest(number), name: name.to_owned(), boot_ms };
                start_agent_at(
                    place,
                    kind,
                    &mut rng,
                    &address,
                    Arc::clone(&token),
                    &objects,
                    told.clone(),
                    base,
                )
            };
            world::task::spawn(Arc::clone(elastic).weather(seed, trace.clone()));
            world::task::spawn(Arc::clone(elastic).attend(asks, seed, saw, trace.clone(), start));
        }
        let schedulers = (0..scenario.schedulers)
            .map(|index| start_scheduler(index, &mut rng, &address, Arc::clone(&token), trace.clone()))
            .collect::<Vec<_>>();
        let power = Power::new(machines(&servers, &agents, &schedulers, storage.as_ref()), trace);
        world::task::spawn(Arc::clone(&power).attend(ends));
        Self {
            servers,
            storage,
            agents,
            log_spool_bytes: shape::log_spool(seed),
            preemption: shape::preemption(seed),
            licenses: shape::licenses(seed),
            schedulers,
            clients,
            uploads,
            address,
            serving,
            token,
            cuts,
            power,
            store,
            rolled_back,
            bucket,
            elastic,
            _served: served,
        }
    }

    /// Jobs of which any process wrote something.
    pub fn logged(&self) -> BTreeSet<JobName> {
        let processes = self.processes();
        let spans = processes.iter().flat_map(|processes| processes.history());
        let logged = spans.filter(|span| span.streams.iter().any(|stream| !stream.is_empty()));
        logged.filter_map(|span| Some(checkers::attempt_of(&span.key)?.0.0)).collect()
    }

    /// Of all agents, those too that came and went.
    pub fn processes(&self) -> Vec<Arc<SimProcesses>> {
        let mut all: Vec<_> = self.agents.iter().filter_map(|agent| agent.processes.clone()).collect();
        if let Some(elastic) = &self.elastic {
            elastic.each(|machine| all.extend(machine.processes.clone()));
        }
        all
    }

    /// Machine 0 is the server, or the first; the agents come next, then the schedulers;
    /// further servers and their store are [`SECOND_SERVER`] and [`STORAGE`].
    pub fn machine(&self, index: usize) -> &Machine {
        let found = match index {
            STORAGE => self.storage.as_ref(),
            further if further >= SECOND_SERVER => self.servers.get(further - SECOND_SERVER + 1),
            other => self.servers[..1].iter().chain(&self.agents).chain(&self.schedulers).nth(other),
        };
        found.expect("faults are drawn for machines that there are")
    }

    /// Each with its index.
    pub fn machines(&self) -> impl Iterator<Item = (usize, &Machine)> {
        machines(&self.servers, &self.agents, &self.schedulers, self.storage.as_ref())
    }

    /// Of all servers.
    pub fn server_indexes(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.servers.len()).map(server_index)
    }

    /// Where objects and logs are.
    pub fn data_disk(&self) -> &HostileDisk {
        self.storage.as_ref().map_or(&self.servers[0].disk, |storage| &storage.disk)
    }
}

/// The index of the machine of one of several servers.
fn server_index(server: usize) -> usize {
    server.checked_sub(1).map_or(0, |further| SECOND_SERVER + further)
}

fn machines<'a>(
    servers: &'a [Machine],
    agents: &'a [Machine],
    schedulers: &'a [Machine],
    storage: Option<&'a Machine>,
) -> impl Iterator<Item = (usize, &'a Machine)> {
    let first = servers[..1].iter().chain(agents).chain(schedulers).enumerate();
    let further = servers[1..].iter().enumerate().map(|(at, server)| (server_index(at + 1), server));
    first.chain(further).chain(storage.map(|storage| (STORAGE, storage)))
}

/// What the outside sees of the server's incarnations.
#[derive(Clone)]
struct Seen {
    token: Arc<Mutex<String>>,
    store: SharedStore,
    rolled_back: Arc<AtomicBool>,
    serving: Serving,
    witness: SharedWitness,
    trace: Trace,
    /// Told which machine's incarnation ends by itself.
    ended: mpsc::Sender<(usize, u64)>,
}

/// Where servers have their objects.
#[derive(Clone)]
struct Place {
    objects: Arc<SimObjects>,
    url_ttl_ms: u64,
    preemption: BTreeMap<String, PreemptionConfig>,
    collect_every_ms: u64,
    licenses: BTreeMap<String, u32>,
    bucket: Option<Arc<SimBucket>>,
    /// With how many agents there are anyway.
    elastic: Option<(Arc<Elastic>, usize)>,
}

fn start_server(rng: &mut SmallRng, place: Place, seen: Seen) -> Machine {
    let host_ip = Ipv4Addr::new(10, 0, 0, 1);
    let disk = Arc::new(HostileDisk::new(rng.random()));
    let (clock, clock_handle) = SkewedClock::pair(DAWN_MS);
    let held = Arc::clone(&disk);
    let started = Arc::new(AtomicU64::new(0));
    let begun = Arc::clone(&started);
    let seed: u64 = rng.random();
    let init = move || {
        let parts = ServerParts {
            disk: held.handle(),
            clock: Arc::clone(&clock) as Arc<dyn world::NodeClock>,
            listen: SocketAddr::from((host_ip, PORT)),
            config: server_config(seed, &place, host_ip),
            shared: None,
        };
        serve(parts, seen.clone(), Arc::clone(&held), Arc::clone(&begun))
    };
    let node = universe::create_node("server", IpAddr::V4(host_ip), init);
    let pace_ms = *SERVER_DISKS_MS.choose(rng).expect("not empty");
    universe::set_disk_pace(node, time::ms(pace_ms));
    Machine {
        host: host_ip.to_string(),
        node,
        disk,
        clock: clock_handle,
        mount: None,
        processes: None,
        transfer: None,
        staging_bytes_per_s: 0,
        started,
    }
}

fn server_config(seed: u64, place: &Place, host: Ipv4Addr) -> ServerConfig {
    let mut config = ServerConfig {
        network: world::grpc::Network::simulated(Arc::clone(&place.objects), &host.to_string()),
        seed: Some(seed),
        url_ttl_ms: place.url_ttl_ms,
        bucket: place.bucket.clone().map(|bucket| bucket as Arc<dyn world::Bucket>),
        objects: ObjectsConfig {
            collect_every_ms: place.collect_every_ms,
            uploads_kept_ms: 60_000,
            ..ObjectsConfig::default()
        },
        logs: shape::packing(seed),
        licenses: place.licenses.clone(),
        ..ServerConfig::default()
    };
    for (pool, rules) in &place.preemption {
        config.pools.entry(pool.clone()).or_default().preemption = Some(*rules);
    }
    if let Some((elastic, agents)) = &place.elastic {
        elastic.configure(&mut config, *agents);
    }
    config
}

/// One incarnation of the server.
async fn serve(parts: ServerParts, seen: Seen, disk: Arc<HostileDisk>, started: Arc<AtomicU64>) {
    let Seen { token, store, rolled_back, witness, trace, ended, .. } = seen;
    if rolled_back.swap(false, Ordering::Relaxed) {
        let rewritten = rollback::leave_unknown_fields(&disk, &parts.clock, &witness).await;
        trace.tell(&format!("a newer version wrote {rewritten} rows before"));
    }
    let (incarnation, failures) = (disk.incarnation(), disk.counts().failures());
    match gateway::server::start(parts).await {
        Ok(mut running) => {
            trace.line("server started");
            started.store(incarnation, Ordering::Relaxed);
            token.lock().expect("no holder panics").clone_from(&running.token);
            let watched = running.store().expect("it is its own");
            *store.lock().expect("no holder panics") = Some(Arc::clone(&watched));
            world::select! {
                biased;
                () = running.ended() => {}
                () = watch_on(&witness, &watched, &disk) => {}
            }
        }
        // It lost power as it made a file, and is taken down for that just now.
        Err(_) if disk.incarnation() != incarnation => {}
        // While its disk fails it need not start; but it must not take that for
        // damage, and no fault of a plan may leave a server that cannot start again.
        Err(error) => {
            let excused = disk.counts().failures() > failures && !matches!(error, StartError::Damaged { .. });
            let why = format!("the server did not start: {error}");
            if excused {
                trace.tell(&why);
            } else {
                witness.lock().expect("no holder panics").fail(1, why);
            }
        }
    }
    // Where that is full, one is told already.
    let _ = ended.try_send((0, incarnation));
    std::future::pending::<()>().await;
}

/// Shows the witness all that happens to a store.
async fn watch_on(witness: &SharedWitness, watched: &Arc<dyn store::Store>, disk: &HostileDisk) {
    loop {
        witness::watch(Arc::clone(witness), Arc::clone(watched), disk).await;
        time::sleep(time::ms(WATCH_AGAIN_MS)).await;
    }
}

fn start_agent(
    (index, kind): (usize, Kind),
    rng: &mut SmallRng,
    server: &str,
    token: Arc<Mutex<String>>,
    objects: &Arc<SimObjects>,
    trace: Trace,
    base: time::Instant,
) -> Machine {
    let place = AgentPlace { ip: host(index), name: format!("node-{index}"), boot_ms: 0 };
    start_agent_at(place, kind, rng, server, token, objects, trace, base)
}

/// Where an agent is.
struct AgentPlace {
    ip: Ipv4Addr,
    name: String,
    /// How long its machine takes until it runs.
    boot_ms: u64,
}

#[expect(clippy::too_many_arguments, reason = "all that an agent is made of")]
fn start_agent_at(
    place: AgentPlace,
    kind: Kind,
    rng: &mut SmallRng,
    server: &str,
    token: Arc<Mutex<String>>,
    objects: &Arc<SimObjects>,
    trace: Trace,
    base: time::Instant,
) -> Machine {
    let AgentPlace { ip, name, boot_ms } = place;
    let disk = Arc::new(HostileDisk::new(rng.random()));
    let (clock, clock_handle) = SkewedClock::pair(DAWN_MS);
    let started = Arc::new(AtomicU64::new(0));
    let transfer = SimTransfer::new(Arc::clone(objects), &ip.to_string(), rng.random());
    let processes = Arc::new(SimProcesses::new(
        &name,
        Arc::clone(&disk),
        Arc::clone(&clock) as Arc<dyn world::NodeClock>,
        rng.random(),
        base,
    ));
    // Outside of the machine's node: a supervisor outlives its agent.
    world::task::spawn(Arc::clone(&processes).drive());
    let capacity = Resources { millicores: 4000, memory_bytes: 8 << 30, gpus: 1 };
    let mut config = AgentConfig {
        address: ip.to_string(),
        // No invariant is about how soon a line is seen, and looking costs.
        log_poll_ms: 250,
        pool: kind.pool,
        labels: kind.labels,
        staging_bytes_per_s: kind.staging_bytes_per_s,
        ..AgentConfig::new(server, "", &name, capacity)
    };
    if kind.log_spool_bytes > 0 {
        config.spool_unshipped_bytes_max = kind.log_spool_bytes;
    }
    let (held, tasks) = (Arc::clone(&disk), Arc::clone(&processes));
    let (moved, begun) = (Arc::clone(&transfer), Arc::clone(&started));
    let init = move || {
        moved.forget();
        let mut config = config.clone();
        config.token.clone_from(&token.lock().expect("no holder panics"));
        let parts = AgentParts {
            config,
            disk: held.handle(),
            processes: tasks.agent_handle(),
            clock: Arc::clone(&clock) as Arc<dyn world::NodeClock>,
            transfer: Arc::clone(&moved) as Arc<dyn world::Transfer>,
        };
        let run = run_agent(parts, trace.clone(), held.incarnation(), Arc::clone(&begun));
        async move {
            if boot_ms > 0 {
                time::sleep(time::ms(boot_ms)).await;
            }
            run.await;
        }
    };
    let node = universe::create_node(&name, IpAddr::V4(ip), init);
    let (processes, transfer) = (Some(processes), Some(transfer));
    let (host, clock, mount) = (ip.to_string(), clock_handle, None);
    let staging_bytes_per_s = kind.staging_bytes_per_s;
    Machine { host, node, disk, mount, clock, processes, transfer, staging_bytes_per_s, started }
}

/// One incarnation of an agent; whoever runs it on a real machine starts it
/// again when it could not reach its server.
async fn run_agent(parts: AgentParts, trace: Trace, incarnation: u64, started: Arc<AtomicU64>) {
    loop {
        let again = AgentParts {
            config: parts.config.clone(),
            disk: Arc::clone(&parts.disk),
            processes: Arc::clone(&parts.processes),
            clock: Arc::clone(&parts.clock),
            transfer: Arc::clone(&parts.transfer),
        };
        match agent::start(again).await {
            Ok(handle) => {
                trace.line(&format!("agent {} started", parts.config.node));
                started.store(incarnation, Ordering::Relaxed);
                let end = handle.wait().await;
                trace.tell(&format!("agent {} ended: {end:?}", parts.config.node));
            }
            Err(error) => trace.line(&format!("agent {} did not start: {error}", parts.config.node)),
        }
        time::sleep(time::ms(1_000)).await;
    }
}

fn start_scheduler(
    index: usize,
    rng: &mut SmallRng,
    server: &str,
    token: Arc<Mutex<String>>,
    trace: Trace,
) -> Machine {
    let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 1)) + u32::try_from(index).expect("a few"));
    let name = format!("scheduler-{index}");
    let disk = Arc::new(HostileDisk::new(rng.random()));
    let (clock, clock_handle) = SkewedClock::pair(DAWN_MS);
    let started = Arc::new(AtomicU64::new(0));
    let parts = FollowParts {
        server: server.to_owned(),
        token: String::new(),
        name: name.clone(),
        clock: clock as Arc<dyn world::NodeClock>,
        config: scheduler::core::Config { seed: rng.random(), ..scheduler::core::Config::default() },
    };
    let (held, begun) = (Arc::clone(&disk), Arc::clone(&started));
    let init = move || {
        let mut parts = parts.clone();
        parts.token.clone_from(&token.lock().expect("no holder panics"));
        run_scheduler(parts, trace.clone(), held.incarnation(), Arc::clone(&begun))
    };
    let node = universe::create_node(&name, IpAddr::V4(ip), init);
    Machine {
        host: ip.to_string(),
        node,
        disk,
        clock: clock_handle,
        mount: None,
        processes: None,
        transfer: None,
        staging_bytes_per_s: 0,
        started,
    }
}

/// One incarnation of a scheduler; likewise.
async fn run_scheduler(parts: FollowParts, trace: Trace, incarnation: u64, started: Arc<AtomicU64>) {
    loop {
        match follow::start(parts.clone()).await {
            Ok(handle) => {
                trace.line(&format!("{} started", parts.name));
                started.store(incarnation, Ordering::Relaxed);
                handle.ended().await;
                trace.tell(&format!("{} ended", parts.name));
            }
            Err(error) => trace.line(&format!("{} did not start: {error}", parts.name)),
        }
        time::sleep(time::ms(1_000)).await;
    }
}
