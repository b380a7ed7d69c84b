//! The parts of a cluster that run in this process: a server, agents, and the
//! supervisor that an agent starts as a process of its own.
//!
//! Agents find their tasks again after a restart by the supervisor's socket in
//! their data directory, so a node has one directory for ever.

use crate::{
    args::{Connection, RunArgs, SupervisorArgs},
    client::Client,
    commands::Outcome,
    config::{self, AgentSettings},
    failure::{EXIT_OK, Failure},
    files, limits, output,
};
use agent::{AgentConfig, AgentEnd, AgentHandle, AgentParts, TasksAtStop};
use gateway::{
    ObjectsConfig, ServerConfig,
    server::{RunningServer, ServerParts, SharedStore, StartError},
    storage::{RunningStorage, StorageParts},
};
use proto::{problem::Problem, v1::Resources};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use world::{
    Bucket, Disk, NodeClock, Processes, Program, Webhook,
    grpc::{BindError, Network},
    real::{
        DiskLock, Driver, FsDisk, HttpTransfer, HttpWebhook, NodeOptions, NodeProcesses, S3, S3Options,
        SystemClock, TransferLimits,
    },
    select, task, time,
};

/// How long a node's supervisor stays without an agent that did not let it go:
/// longer than any lease, after which nothing it holds is of use.
pub const LINGER_MS: u64 = 120_000;
/// Reads of one connection in the time that a second's bytes take, at least.
const READS_PER_SECOND: u64 = 50;
/// The same for a cluster that lives as long as one job, should its process be
/// killed.
const LINGER_EMBEDDED_MS: u64 = 10_000;

/// Ctrl-c and TERM.
#[derive(Debug)]
pub struct Told {
    interrupt: Signal,
    terminate: Signal,
}
impl Told {
    /// From now on neither ends the process by itself.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::broken("signals", "", error.to_string(), "are there enough open files?")
            })
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next of either.
    pub async fn told(&mut self) {
        select! { biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Traces go to standard error; `DRUMLINE_LOG` says how much.
pub fn log_to_stderr(usual: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("DRUMLINE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(usual));
    let colors = std::env::var("NO_COLOR").map_or(true, |value| value.is_empty()) && output::is_watched();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colors)
        .finish();
    // Set once a process; a second time changes nothing.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Runs a node's supervisor in this process.
pub fn supervise(args: SupervisorArgs) -> Outcome {
    let options =
        world::real::supervisor::SupervisorOptions { socket: args.socket.clone(), linger_ms: args.linger_ms };
    match world::real::supervisor::run(options) {
        Ok(()) => Ok(EXIT_OK),
        Err(error) => Err(Failure::broken(
            "socket",
            args.socket.display(),
            error.to_string(),
            "is another supervisor there, or the directory gone?",
        )),
    }
}

/// Starts a store on a directory.
pub async fn start_store(data: &Path, listen: SocketAddr) -> Result<RunningStorage, Failure> {
    let disk: Arc<dyn Disk> = files::directory("data", data)?;
    let clock: Arc<dyn NodeClock> = Arc::new(SystemClock::new());
    let parts = StorageParts { disk, clock, listen, network: Network::default() };
    gateway::storage::start(parts).await.map_err(|error| start_failure(&error))
}

/// Starts a server on a data directory; with a store that it shares it stands by.
pub async fn start_server(
    data: &Path,
    listen: SocketAddr,
    mut config: ServerConfig,
    shared: Option<SharedStore>,
) -> Result<RunningServer, Failure> {
    config.bucket = bucket(&config.objects).await?;
    config.webhook = webhook(&config.alerts.webhook)?;
    config.drivers = drivers(&config)?;
    let disk: Arc<dyn Disk> = files::directory("data", data)?;
    let clock: Arc<dyn NodeClock> = Arc::new(SystemClock::new());
    gateway::server::start(ServerParts { disk, clock, listen, config, shared })
        .await
        .map_err(|error| start_failure(&error))
}

/// The bucket of the configuration, asked once: what is wrong with it shows before anybody
/// is served.
async fn bucket(config: &ObjectsConfig) -> Result<Option<Arc<dyn Bucket>>, Failure> {
    let ObjectsConfig { url, endpoint, region, .. } = config;
    if url.is_empty() {
        let other = [("objects.endpoint", endpoint), ("objects.region", region)];
        return match other.into_iter().find(|(_, value)| !value.is_empty()) {
            Some((field, value)) => Err(Failure::broken(
                field,
                value,
                "tells of a bucket, and objects.url names none",
                "name it: url = \"s3://BUCKET\"",
            )),
            None => Ok(None),
        };
    }
    let (bucket, prefix) = url
        .strip_prefix("s3://")
        .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        .filter(|(bucket, _)| !bucket.is_empty())
        .ok_or_else(|| {
            let remedy = "write s3://BUCKET or s3://BUCKET/PREFIX";
            Failure::broken("objects.url", url, "names no bucket of S3", remedy)
        })?;
    if !endpoint.is_empty() && !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
        let remedy = "write http://HOST:PORT or https://HOST";
        return Err(Failure::broken("objects.endpoint", endpoint, "is no URL of a service", remedy));
    }
    let options = S3Options {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        endpoint: endpoint.clone(),
        region: region.clone(),
    };
    let opened = match S3::new(&options) {
        Ok(bucket) => bucket.list("objects/none").await.map(|_| bucket),
        Err(error) => Err(error),
    };
    match opened {
        Ok(bucket) => Ok(Some(bucket)),
        Err(error) => Err(Failure::broken(
            "objects.url",
            url,
            format!("cannot be used: {error}"),
            "correct the name, the endpoint and the region, and give AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY of one who may list, read, write and delete there",
        )),
    }
}

/// Not tried: it may be away for now.
fn webhook(url: &str) -> Result<Option<Arc<dyn Webhook>>, Failure> {
    if url.is_empty() {
        return Ok(None);
    }
    match HttpWebhook::new(url) {
        Ok(webhook) => Ok(Some(webhook)),
        Err(why) => {
            let remedy = "write http://HOST:PORT/PATH or https://HOST/PATH";
            Err(Failure::broken("alerts.webhook", url, why, remedy))
        }
    }
}

/// The drivers of pools that grow by need. What is wrong with such a pool shows before anybody
/// is served; the programs are not tried.
fn drivers(config: &ServerConfig) -> Result<BTreeMap<String, Arc<dyn Program>>, Failure> {
    let mut drivers: BTreeMap<String, Arc<dyn Program>> = BTreeMap::new();
    for (name, pool) in &config.pools {
        if let Some(preemption) = &pool.preemption {
            preemption.checked(name).map_err(Failure::WrongUse)?;
        }
        let Some(autoscale) = &pool.autoscale else { continue };
        autoscale.checked(name).map_err(Failure::WrongUse)?;
        let driver = Driver::new(autoscale.command.clone(), time::ms(autoscale.command_ms));
        drivers.insert(name.clone(), driver);
    }
    Ok(drivers)
}

/// In the words of a refusal: what, why, and what to do.
fn start_failure(error: &StartError) -> Failure {
    let broken =
        |field: &str, value: &str, reason: &str, remedy: &str| Failure::broken(field, value, reason, remedy);
    match error {
        StartError::DataInUse { data } => {
            broken("data", data, "another server has it", "stop that one, or give another --data")
        }
        StartError::NewerFormat { data, found } => broken(
            "data",
            data,
            &format!(
                "a newer version wrote it: its format is {found}, this version reads up to {}",
                gateway::server::FORMAT_VERSION
            ),
            "run the newer version, or give another --data",
        ),
        StartError::Port(BindError::InUse { address }) => broken(
            "listen",
            &address.to_string(),
            "is in use",
            "stop what listens there, or choose another port (0 finds a free one)",
        ),
        StartError::Port(BindError::Denied { address }) => broken(
            "listen",
            &address.to_string(),
            "needs rights that this user lacks",
            "choose a port above 1023",
        ),
        StartError::Port(BindError::Other { address, reason }) => {
            broken("listen", &address.to_string(), reason, "choose an address that this machine has")
        }
        StartError::DiskFull { data } => {
            broken("data", data, "its disk is full", "free some space and start again; nothing was lost")
        }
        StartError::Damaged { data, why } => broken(
            "data",
            data,
            &format!("the store is damaged: {why}"),
            "restore it from a copy, or give another --data to begin anew",
        ),
        StartError::Store { address, why } => {
            broken("store", address, why, "give its address and the token of its store.env")
        }
        StartError::NotShared { data } => broken(
            "data",
            data,
            "is not the directory that the other servers of this store share",
            "mount the same directory on all of their machines",
        ),
        StartError::Data { data, why } => {
            broken("data", data, &format!("cannot be used: {why}"), "check that it exists and may be written")
        }
    }
}

/// A running agent with its hold on its directory.
#[derive(Debug)]
pub struct Agent {
    handle: AgentHandle,
    _lock: DiskLock,
}
impl Agent {
    /// Until it has ended by itself.
    pub async fn wait(&self) -> AgentEnd {
        self.handle.wait().await
    }

    /// Ends it.
    pub async fn stop(&self, tasks: TasksAtStop) {
        self.handle.stop(tasks).await;
    }
}

/// Starts an agent, and its node's supervisor where none runs.
pub async fn start_agent(settings: AgentSettings, linger_ms: u64) -> Result<Agent, Failure> {
    let disk = files::directory("data", &settings.data)?;
    let data = settings.data.display().to_string();
    let lock = disk.lock("agent.lock").map_err(|error| {
        Failure::broken("data", &data, error.to_string(), "stop the other agent, or give another --data")
    })?;
    let options = NodeOptions {
        socket: disk.absolute("supervisor.sock"),
        exe: PathBuf::from("/proc/self/exe"),
        args: vec!["supervisor".to_owned()],
        linger_ms,
    };
    let processes: Arc<dyn Processes> = NodeProcesses::start(options).await.map_err(|error| {
        Failure::broken("data", &data, error.to_string(), "look into the .log beside its socket")
    })?;
    let AgentSettings { server, token, node, pool, address, capacity, labels, staging_bytes_per_s, .. } =
        settings;
    let log_spool_bytes = settings.log_spool_bytes;
    let mut config = AgentConfig::new(&server, &token, &node, capacity);
    config.pool = pool;
    config.labels = labels;
    config.address = address;
    config.staging_bytes_per_s = staging_bytes_per_s;
    if log_spool_bytes > 0 {
        config.spool_unshipped_bytes_max = log_spool_bytes;
    }
    if let Ok(path) = std::env::var("PATH") {
        // Tasks find the programs that whoever started the agent finds.
        config.base_env.insert("PATH".to_owned(), path);
    }
    if let Some(exe) = std::env::current_exe().ok().and_then(|exe| exe.into_os_string().into_string().ok()) {
        // Batch scripts are run by it, on whatever node.
        config.base_env.insert("DRUMLINE_EXE".to_owned(), exe);
    }
    let parts = AgentParts {
        config,
        disk: disk as Arc<dyn Disk>,
        processes,
        clock: Arc::new(SystemClock::new()),
        transfer: HttpTransfer::new(transfer_limits(staging_bytes_per_s)),
    };
    let handle = agent::start(parts).await.map_err(|error| match error {
        agent::StartError::Refused { problem, .. } => Failure::from(problem),
        agent::StartError::Address(reason) => {
            Failure::wrong_use("server", &server, &reason, "write it like 127.0.0.1:7420")
        }
        agent::StartError::Token => {
            Failure::wrong_use("token", "", "is malformed", "a token reads dl_ and 32 hexadecimal digits")
        }
        agent::StartError::Supervisor(error) => {
            Failure::broken("data", &data, error.to_string(), "look into the .log beside its socket")
        }
        agent::StartError::Disk(error) => {
            Failure::broken("data", &data, error.to_string(), "check that it may be written and has space")
        }
    })?;
    Ok(Agent { handle, _lock: lock })
}

/// Where the rate is limited no connection reads much ahead of it.
fn transfer_limits(bytes_per_s: u64) -> TransferLimits {
    let limits = TransferLimits::default();
    let read_bytes = usize::try_from(bytes_per_s / READS_PER_SECOND).unwrap_or(usize::MAX);
    match bytes_per_s {
        0 => limits,
        _ => TransferLimits { read_bytes: read_bytes.min(limits.read_bytes), ..limits },
    }
}

/// Why an agent that nobody stopped is gone.
pub fn agent_ended(node: &str, end: AgentEnd) -> Failure {
    match end {
        AgentEnd::Refused(problem) => Failure::from(problem),
        AgentEnd::Stopped => Failure::broken("node", node, "the agent was stopped", "start it again"),
        AgentEnd::Broken(reason) => {
            Failure::broken("node", node, reason, "start it again; the log above tells more")
        }
    }
}

/// A server and some nodes that live as long as one job.
#[derive(Debug)]
pub struct Embedded {
    server: RunningServer,
    agents: Vec<Agent>,
    /// A directory to remove at the end: its parent and its name.
    temporary: Option<(PathBuf, String)>,
}

impl Embedded {
    /// Starts it in `--data`, or in a fresh directory.
    pub async fn start(args: &RunArgs) -> Result<Self, Failure> {
        log_to_stderr("error");
        let (data, temporary) = match &args.data {
            Some(data) => (data.clone(), None),
            None => {
                let parent = std::env::temp_dir();
                let name = format!("drumline-run-{:016x}", world::rand::u64());
                (parent.join(&name), Some((parent, name)))
            }
        };
        let capacity = Self::capacity(args).map_err(Failure::WrongUse)?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = match start_server(&data.join("server"), listen, ServerConfig::default(), None).await {
            Ok(server) => server,
            Err(failure) => {
                remove(temporary).await;
                return Err(failure);
            }
        };
        let mut cluster = Self { server, agents: Vec::new(), temporary };
        for number in 1..=args.agents {
            let settings = AgentSettings {
                server: cluster.server.address.clone(),
                token: cluster.server.token.clone(),
                data: data.join(format!("node-{number}")),
                node: format!("node-{number}"),
                pool: "default".to_owned(),
                address: Ipv4Addr::LOCALHOST.to_string(),
                capacity,
                labels: BTreeMap::new(),
                staging_bytes_per_s: 0,
                log_spool_bytes: 0,
            };
            match start_agent(settings, LINGER_EMBEDDED_MS).await {
                Ok(agent) => cluster.agents.push(agent),
                Err(failure) => {
                    cluster.stop().await;
                    return Err(failure);
                }
            }
        }
        Ok(cluster)
    }

    /// Each node offers all of the machine's cores, and two at least: they are
    /// there to rehearse a cluster, not to share a machine out.
    fn capacity(args: &RunArgs) -> Result<Resources, Problem> {
        let mut capacity = config::capacity(args.agent_cores.as_deref(), None, None)?;
        if args.agent_cores.is_none() {
            capacity.millicores = capacity.millicores.max(2000);
        }
        capacity.memory_bytes /= u64::from(args.agents);
        Ok(capacity)
    }

    /// A client of its server.
    pub async fn client(&self, connection: &Connection) -> Result<Client, Failure> {
        Client::open(
            &self.server.address,
            &self.server.token,
            connection.tenant.as_deref().unwrap_or_default(),
        )
        .await
    }

    /// Ends all of it, running tasks too, and removes what nobody asked to keep.
    pub async fn stop(self) {
        let stopping: Vec<_> = self
            .agents
            .into_iter()
            .map(|agent| task::spawn(async move { agent.stop(TasksAtStop::Kill).await }))
            .collect();
        for agent in stopping {
            // Tasks end with the supervisor's linger time whatever happens here.
            let _ = time::timeout(limits::STOP_DEADLINE, agent).await;
        }
        self.server.stop().await;
        remove(self.temporary).await;
    }
}

async fn remove(temporary: Option<(PathBuf, String)>) {
    let Some((parent, name)) = temporary else { return };
    let path = parent.join(&name);
    let removed =
        task::blocking(move || FsDisk::open(parent).and_then(|disk| disk.remove_dir_all(&name))).await;
    if let Err(error) = removed {
        output::note(&format!("note: {} could not be removed: {error}", path.display()));
    }
}
