//! One control plane in one process: the store, the controller, the scheduler,
//! the log relay, the object place, and every service on one port.
//!
//! A start either succeeds whole or says in one line what stands in the way and
//! what to do about it. The first start makes what a cluster has once: its
//! format row with the signing key, the tenant `default`, an admin token. Each
//! start leaves the address and that token in `client.env`.
//!
//! Of several servers that share a store ([`standby`]) one serves, and the others
//! stand by.

mod client_env;
mod first;
mod standby;

use crate::alerts::{self, Board};
use crate::config::ObjectsConfig;
pub use crate::config::ServerConfig;
use crate::drumline::Front;
use crate::gate::{Base, Gate, Pace, Streams, Tenants};
use crate::notes::{self, Notes};
use crate::objects::collector::collect;
use crate::objects::{Door, Objects};
use crate::packing;
use crate::planner::{Planner, Policy};
use crate::scaling::{self, Sites};
use crate::trees::Trees;
use crate::urls::Signer;
use crate::{
    agents::AgentsDoor, auth, auth::Auth, demand::Demand, expiry, limits, meter, rest, rows,
    schedulers::SchedulersDoor,
};
use controller::logs::LogRelay;
use controller::shell::{ControllerParts, Handle, ObjectIndex};
use proto::checkpoints;
use proto::keys::{self, Parsed};
use proto::v1::agents_server::AgentsServer;
use proto::v1::drumline_server::DrumlineServer;
use proto::v1::planning_server::PlanningServer;
use proto::v1::rows_server::RowsServer;
use proto::v1::{CheckpointRow, DemandUpdate, FormatRow, License};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use store::{OpenError, OpenOptions, RedbStore, Store};
use world::grpc::{BindError, Listener, Messages, Server};
use world::sync::{mpsc, oneshot, watch};
use world::task::{JoinHandle, spawn};
use world::{Disk, NodeClock, time};

/// The format that this version reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// The store's file in the data directory.
pub const STORE_FILE: &str = "store.redb";

/// What a server is made of.
#[derive(Clone, Debug)]
pub struct ServerParts {
    /// The data directory.
    pub disk: Arc<dyn Disk>,
    /// This node's clock.
    pub clock: Arc<dyn NodeClock>,
    /// Where to listen; port 0 finds a free one.
    pub listen: SocketAddr,
    /// All numbers.
    pub config: ServerConfig,
    /// The store that other servers share, and with it the data directory; `None`: its
    /// own, in the data directory.
    pub shared: Option<SharedStore>,
}

/// A store on the network.
#[derive(Clone)]
pub struct SharedStore {
    /// `host:port`.
    pub address: String,
    /// The token that it made at its first start.
    pub token: String,
}

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedStore").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Why a server did not start; each says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// Another server has the data directory.
    DataInUse {
        /// The directory.
        data: String,
    },
    /// A newer version wrote the data.
    NewerFormat {
        /// The directory.
        data: String,
        /// As written.
        found: u32,
    },
    /// The port cannot be had.
    Port(BindError),
    /// The disk is full.
    DiskFull {
        /// The directory.
        data: String,
    },
    /// The store's file, or rows in it, cannot be read.
    Damaged {
        /// The directory.
        data: String,
        /// One line.
        why: String,
    },
    /// The store on the network does not take this server, or is none.
    Store {
        /// As told.
        address: String,
        /// One line.
        why: String,
    },
    /// The directory is not the one that the other servers of the store share.
    NotShared {
        /// The directory.
        data: String,
    },
    /// The data directory cannot be used for another reason.
    Data {
        /// The directory.
        data: String,
        /// One line.
        why: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataInUse { data } => {
                write!(
                    f,
                    "data directory {data} is in use by another server; stop that one or give another --data"
                )
            }
            Self::NewerFormat { data, found } => write!(
                f,
                "data directory {data} has format {found}, but this version reads up to {FORMAT_VERSION}; \
                 run the newer version that wrote it, or give another --data"
            ),
            Self::Port(error) => error.fmt(f),
            Self::DiskFull { data } => {
                write!(
                    f,
                    "the disk of data directory {data} is full; free some space and start again, nothing was lost"
                )
            }
            Self::Damaged { data, why } => write!(
                f,
                "the store in data directory {data} is damaged: {why}; restore {STORE_FILE} from a copy, \
                 or give another --data to begin anew"
            ),
            Self::Store { address, why } => write!(
                f,
                "the store at {address} cannot be used: {why}; give its address and the token of its store.env"
            ),
            Self::NotShared { data } => write!(
                f,
                "data directory {data} is not the one that the other servers of this store share; \
                 mount the same directory on all of their machines"
            ),
            Self::Data { data, why } => {
                write!(
                    f,
                    "data directory {data} cannot be used: {why}; check that it exists and may be written"
                )
            }
        }
    }
}
impl std::error::Error for StartError {}

impl StartError {
    pub(crate) fn of_disk(data: String, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { data },
            _ => Self::Data { data, why: error.to_string() },
        }
    }
}

/// The data directory, for errors about it.
struct Data<'a>(&'a dyn Disk);

impl Data<'_> {
    fn name(&self) -> String {
        self.0.absolute("").display().to_string()
    }

    fn failed(&self, error: &io::Error) -> StartError {
        StartError::of_disk(self.name(), error)
    }

    fn unopened(&self, error: OpenError) -> StartError {
        match error {
            OpenError::Locked => StartError::DataInUse { data: self.name() },
            OpenError::Damaged(why) => StartError::Damaged { data: self.name(), why },
            OpenError::Io(error) => self.failed(&error),
        }
    }

    fn uncommitted(&self, error: &store::CommitError) -> StartError {
        match error {
            store::CommitError::Full => StartError::DiskFull { data: self.name() },
            error => StartError::Data { data: self.name(), why: error.to_string() },
        }
    }

    fn damaged(&self, why: impl Into<String>) -> StartError {
        StartError::Damaged { data: self.name(), why: why.into() }
    }
}

/// Where one reaches what listens at `address`.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A server that runs. Dropped, it stops by itself some time later;
/// [`RunningServer::stop`] waits for that.
#[derive(Debug)]
pub struct RunningServer {
    /// `http://host:port`, as in `client.env`.
    pub address: String,
    /// Where it listens.
    pub listening: SocketAddr,
    /// An admin's. Of a server that shares its store: empty, since another may have made
    /// it; see [`RunningServer::serves`].
    pub token: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    own: Option<Arc<RedbStore>>,
    serves: watch::Receiver<Option<String>>,
}

impl RunningServer {
    /// Its rows, for whoever watches over it, where they are its own.
    #[must_use]
    pub fn store(&self) -> Option<Arc<dyn Store>> {
        self.own.clone().map(|own| own as Arc<dyn Store>)
    }

    /// An admin's token for as long as this server serves; nothing while it stands by.
    #[must_use]
    pub fn serves(&self) -> watch::Receiver<Option<String>> {
        self.serves.clone()
    }

    /// Takes no more calls, lets open ones end within the grace, writes what is
    /// in line, and closes the store.
    pub async fn stop(self) {
        // If nobody listens it has stopped already.
        let _ = self.stop.send(());
        let deadline = time::ms(limits::STOP_DEADLINE_MS);
        if time::timeout(deadline, self.serving).await.is_err() {
            tracing::warn!("open calls did not end in time");
        }
        let Some(own) = self.own else { return };
        if time::timeout(deadline, own.close()).await.is_err() {
            tracing::warn!("the store did not close in time; what was acknowledged is durable");
        }
    }

    /// Waits until the server has stopped serving: it was told to, its socket
    /// failed, or its store did.
    pub async fn ended(&mut self) {
        // A panic is as much an end.
        let _ = (&mut self.serving).await;
    }
}

/// Starts a server.
pub async fn start(parts: ServerParts) -> Result<RunningServer, StartError> {
    let ServerParts { disk, clock, listen, config, shared } = parts;
    if let Some(store) = shared {
        return standby::start(Site { disk, clock, config, shared: true }, listen, store).await;
    }
    let data = Data(&*disk);
    let options = OpenOptions {
        cache_bytes: config.store_cache_bytes,
        // Every owner of a lease lived in the process that had this store.
        drop_leases: true,
        verify: config.store_verify,
    };
    let opened = RedbStore::open_with(Arc::clone(&disk), STORE_FILE, Arc::clone(&clock), options).await;
    let store = opened.map_err(|error| data.unopened(error))?;
    let site = Site { disk: Arc::clone(&disk), clock, config, shared: false };
    let assembled = world::select! {
        biased;
        assembled = assemble(&site, listen, &store) => assembled,
        // The controller would try for ever to read rows from it.
        why = store.stopped() => Err(StartError::Data { data: data.name(), why }),
    };
    match assembled {
        Ok(server) => Ok(server),
        Err(error) => {
            // So that another try, or another process, finds it free.
            store.close().await;
            Err(error)
        }
    }
}

/// What a server has whether it serves or not.
struct Site {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn NodeClock>,
    config: ServerConfig,
    /// Store and directory are those of other servers too.
    shared: bool,
}

/// What is opened before there is a controller.
struct Rooms {
    meter: Arc<meter::Meter>,
    dues: mpsc::Receiver<()>,
    objects: Arc<Objects>,
    logs: Arc<LogRelay>,
    address: String,
    token: String,
}

/// What lets calls through; once `open` is dropped its streams end by themselves.
struct Opened {
    gate: Arc<Gate>,
    open: watch::Sender<()>,
}

async fn assemble(
    site: &Site,
    listen: SocketAddr,
    redb: &Arc<RedbStore>,
) -> Result<RunningServer, StartError> {
    let Site { disk, clock, config, .. } = site;
    let data = Data(&**disk);
    let store: Arc<dyn Store> = Arc::clone(redb) as Arc<dyn Store>;
    let format = first::format(&*store, clock.wall_ms(), &data, None).await?;
    let listener = world::grpc::bind(listen).await.map_err(StartError::Port)?;
    let listening = listener.address();
    let rooms = open_rooms(site, &store, &format, listening, None).await?;
    let (address, token) = (rooms.address.clone(), rooms.token.clone());

    let objects = Arc::new(Door(Arc::clone(&rooms.objects)));
    let (parts, numbers) =
        controller_parts(site, &store, objects, format!("{}@{listening}", format.cluster_id));
    let started = controller::shell::start(parts).await;
    let government = started.map_err(|error| data.damaged(error.to_string()))?;
    let stores = (Arc::clone(&store), store);
    let opened = open_gate(site, rooms, stores, government, (numbers, listening));
    let server = server(&opened.gate).network(config.network.clone()).grace(time::ms(config.stop_grace_ms));
    let (stop, stopped) = oneshot::channel();
    let (_, serves) = watch::channel(Some(token.clone()));
    let serving = spawn(serve(server, opened, listener, (stopped, Arc::clone(redb))));
    Ok(RunningServer { address, listening, token, stop, serving, own: Some(Arc::clone(redb)), serves })
}

/// Opens what is on the disk. With the number of a reign other servers share it.
async fn open_rooms(
    site: &Site,
    store: &Arc<dyn Store>,
    format: &FormatRow,
    listening: SocketAddr,
    reign: Option<u64>,
) -> Result<Rooms, StartError> {
    let Site { disk, clock, config, .. } = site;
    let data = Data(&**disk);
    let signer = Signer::new(&format.signing_key);
    let (meter, dues) = meter::Meter::new(Arc::clone(store), Arc::clone(clock));
    let (counted, ttl_ms) = (Arc::clone(&meter), config.url_ttl_ms);
    let objects = Objects::open(
        Arc::clone(disk),
        config.bucket.clone(),
        Arc::clone(clock),
        signer,
        counted,
        ttl_ms,
        reign,
    )
    .await
    .map_err(|error| data.failed(&error))?;
    if reign.is_none() {
        forget_checkpoints(&objects, &**store).await;
    }
    let (bucket, file_bytes) = (config.bucket.clone(), config.logs.file_bytes);
    let logs = LogRelay::open(Arc::clone(disk), bucket, "logs", reign, file_bytes).await;
    let logs = logs.map_err(|error| data.failed(&error))?;
    let address = format!("http://{}", reachable(listening));
    let token = first::admin_token(disk, &**store, clock.wall_ms(), &data).await?;
    client_env::write(disk, &address, &token, reign).await.map_err(|error| data.failed(&error))?;
    Ok(Rooms { meter, dues, objects, logs, address, token })
}

/// Takes away what was uploaded of checkpoints and is named by no row: of tasks that ended
/// meanwhile, or whose word was lost. Nobody uploads yet, and no row is written. Where
/// other servers share the place one of them may, so there it stays.
async fn forget_checkpoints(objects: &Arc<Objects>, store: &dyn Store) {
    let rows = match rows::all(store, keys::CHECKPOINTS.as_bytes()).await {
        Ok(rows) => rows,
        Err(problem) => return tracing::warn!(%problem, "checkpoints that nobody needs stay"),
    };
    let mut named = BTreeSet::new();
    for row in &rows {
        let (Some(Parsed::Checkpoint { tenant, .. }), Ok(kept)) =
            (keys::parse(&row.key), rows::decode::<CheckpointRow>(row))
        else {
            // What it names is not known.
            return tracing::warn!("a row of checkpoints cannot be read: none is taken away");
        };
        let artifacts = kept.entries.into_iter().flat_map(|entry| entry.artifacts);
        named.extend(artifacts.map(|artifact| (checkpoints::space(&tenant), artifact.digest)));
    }
    objects.keep_checkpoints(named).await;
}

/// What a controller is made of, and the numbers of the scheduler beside it.
fn controller_parts(
    site: &Site,
    store: &Arc<dyn Store>,
    objects: Arc<dyn ObjectIndex>,
    name: String,
) -> (ControllerParts, scheduler::core::Config) {
    let (controller, scheduler) = seeded(&site.config);
    let parts = ControllerParts {
        store: Arc::clone(store),
        clock: Arc::clone(&site.clock),
        config: controller,
        admission: Arc::new(Policy),
        objects,
        name,
        shared: site.shared,
    };
    (parts, scheduler)
}

/// Lets calls through to a controller that has the shards.
fn open_gate(
    site: &Site,
    rooms: Rooms,
    (store, of_scheduler): (Arc<dyn Store>, Arc<dyn Store>),
    (controller, told): (Handle, mpsc::Receiver<DemandUpdate>),
    (numbers, listening): (scheduler::core::Config, SocketAddr),
) -> Opened {
    let Site { clock, config, .. } = site;
    let Rooms { meter, dues, objects, logs, .. } = rooms;
    let license = |(name, total): (&String, &u32)| License { name: name.clone(), total: *total };
    let (demand, own) = Demand::hand_on(told, config.licenses.iter().map(license).collect());
    let planner = scheduler::shell::start(of_scheduler, Arc::clone(clock), numbers, own);
    let planner = Planner::new(planner, Arc::clone(clock), config.licenses.clone());
    let sites = Sites::of(config);
    planner.may_come(sites.may_come());
    let (open, stopping) = watch::channel(());
    let gate = Arc::new(Gate {
        auth: Auth::new(Arc::clone(&store), Arc::clone(clock)),
        tenants: Tenants::new(Arc::clone(&store), Arc::clone(clock)),
        store,
        clock: Arc::clone(clock),
        controller,
        planner,
        demand,
        elsewhere: Mutex::default(),
        stale_uploads: AtomicU64::default(),
        logs,
        trees: Trees::new(&objects),
        objects,
        meter,
        notes: Notes::new(clock.wall_ms()),
        alerts: Board::new(&config.alerts, config.webhook.clone()),
        scaling: scaling::Board::of(&sites),
        preemption: config.preemption(),
        streams: Arc::new(Streams::default()),
        base: Base { public_url: config.public_url.clone(), listening },
        events: Pace { ping_ms: config.events_ping_ms, slow_ms: config.events_slow_ms },
        stopping,
        shared: site.shared,
    });
    spawn(auth::hear_changes(Arc::downgrade(&gate)));
    spawn(meter::keep_books(Arc::downgrade(&gate), dues));
    spawn(expiry::expire(Arc::downgrade(&gate)));
    spawn(notes::keep(Arc::downgrade(&gate)));
    let ObjectsConfig { collect_every_ms, uploads_kept_ms, .. } = config.objects;
    // A server that was deposed in the midst of it would take away what another told of:
    // where servers share the place, it stays.
    if collect_every_ms > 0 && !site.shared {
        spawn(collect(Arc::downgrade(&gate), collect_every_ms, uploads_kept_ms));
    }
    if config.alerts.look_ms > 0 {
        spawn(alerts::watch(Arc::downgrade(&gate), config.alerts.look_ms));
    }
    if !sites.is_empty() {
        spawn(scaling::watch(Arc::downgrade(&gate), sites));
    }
    if config.logs.pack_every_ms > 0 {
        spawn(packing::pack(Arc::downgrade(&gate), config.logs));
    }
    Opened { gate, open }
}

/// The cores' numbers. Two cores should not jitter alike.
fn seeded(config: &ServerConfig) -> (controller::core::Config, scheduler::core::Config) {
    let (mut controller, mut scheduler) = (config.controller.clone(), config.scheduler.clone());
    let seed = |salt: u64| config.seed.map_or_else(world::rand::u64, |seed| seed.wrapping_add(salt));
    if controller.seed == 0 {
        controller.seed = seed(1);
    }
    if scheduler.seed == 0 {
        scheduler.seed = seed(2);
    }
    controller.preemption.extend(config.preemption());
    (controller, scheduler)
}

/// The types of all messages of all services.
#[must_use]
pub fn messages() -> Messages {
    struct Types(Messages);
    impl proto::travelling::MessageTypes for Types {
        fn add<M: prost::Message + Default + PartialEq + std::fmt::Debug + 'static>(&mut self) {
            self.0.add::<M>();
        }
    }
    let mut types = Types(Messages::default());
    proto::travelling::every_message(&mut types);
    types.0
}

fn server(gate: &Arc<Gate>) -> Server {
    Server::new()
        .messages(messages())
        .service(DrumlineServer::new(Front(Arc::clone(gate))))
        .service(
            // A Hello names all that an agent holds.
            AgentsServer::new(AgentsDoor(Arc::clone(gate)))
                .max_decoding_message_size(limits::AGENT_FRAME_BYTES_MAX),
        )
        .service(PlanningServer::new(SchedulersDoor::new(gate)))
        .service(RowsServer::new(SchedulersDoor::new(gate)))
        .door(Arc::new(Door(Arc::clone(&gate.objects))))
        .http(rest::router(Arc::clone(gate)))
        .nowhere(rest::nowhere)
        .reflection(proto::v1::DESCRIPTORS)
}

async fn serve(
    server: Server,
    opened: Opened,
    listener: Listener,
    (stopped, store): (oneshot::Receiver<()>, Arc<RedbStore>),
) {
    let Opened { gate, open } = opened;
    let rows = Arc::clone(&store);
    let shutdown = async move {
        world::select! {
            biased;
            // Dropped unsent it means the same.
            _ = stopped => {}
            // Without rows nothing can be promised any more. Whoever started this
            // process starts it again, and it opens the file anew.
            why = rows.stopped() => tracing::error!(why, "the server stops: its store has"),
        }
        // Streams that would go on for ever end by themselves.
        drop(open);
    };
    if let Err(error) = server.serve(listener, shutdown).await {
        tracing::error!(%error, "the server stopped serving");
    }
    if !store.is_stopped() {
        gate.meter.book(&gate.controller).await;
    }
}
