//! Clients that behave badly, and a good one among them.
//!
//! The load test measures with them (`cli/examples/load.rs`), and a test of every run
//! holds the server to serving the good one (`cli/tests/hostile.rs`). What must hold:
//! every load is bounded in count and ends soon after it is told to; what it did is
//! counted, so that a load which did nothing proves nothing.

use proto::v1::drumline_client::DrumlineClient;
use proto::v1::submit_outcome::Outcome;
use proto::v1::{
    EventsRequest, JobRequest, JobSpec, PutTenantRequest, Quota, Resources, Step, SubmitRequest, TenantRow,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use world::grpc::Channel;
use world::grpc::tonic::{Code, Request};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// No answer takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The good client asks so often.
const PACE: Duration = Duration::from_millis(5);
/// And so often at least, however slow the answers are.
const TURNS_MIN: u32 = 60;
/// Jobs there are before anybody behaves badly: a history that no socket's buffers hold.
const HISTORY: usize = 10_000;
/// The tenant whose limit is so low that all its jobs are refused.
const POOR: &str = "poor";

/// What others do meanwhile; each counts what it did.
pub type Load = fn(Arc<Crowd>) -> JoinSet<()>;

/// All of them, with how often each does something at least.
pub const LOADS: [(&str, u64, Load); 7] = [
    ("1,000 clients at once, each asks every second", 1_000, many_clients),
    ("100 readers who do not read", 100, slow_readers),
    ("500 writers of ten bytes a second", 500, slow_writers),
    ("500 connections dead after their greeting", 500, half_open),
    ("4 senders of bodies of 100 MB", 4, huge_bodies),
    ("10,000 idle sockets", 1_000, idle_sockets),
    ("1,000 refused submissions a second", 500, refused_submissions),
];

/// As many file descriptors as this machine gives to a process, and how many they are.
/// A server that is started later gets as many.
pub fn allow_many_files() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    most
}

/// Resident memory of a process, now and at its highest, in MiB.
pub fn memory_mib(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mib = |name: &str| -> f64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1024.0
    };
    (mib("VmRSS:"), mib("VmHWM:"))
}

// ---------------------------------------------------------------------- the good one

#[derive(Clone)]
pub struct Client {
    grpc: DrumlineClient<Channel>,
    token: String,
}

impl Client {
    pub async fn new(address: &str, token: &str) -> Result<Self, Failure> {
        let channel = world::grpc::connect(address, Duration::from_secs(15)).await?;
        Ok(Self { grpc: DrumlineClient::new(channel), token: token.to_owned() })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", self.token).parse().expect("a token is plain text");
        request.metadata_mut().insert("authorization", bearer);
        request.set_timeout(PATIENCE);
        request
    }

    async fn submit(&mut self, tenant: &str, spec: JobSpec) -> Result<(), Code> {
        let request = SubmitRequest { tenant: tenant.into(), spec: Some(spec), ..SubmitRequest::default() };
        let request = self.request(request);
        self.grpc.submit(request).await.map(|_| ()).map_err(|status| status.code())
    }

    async fn look(&mut self) -> Result<(), Code> {
        let request = self.request(JobRequest { tenant: String::new(), number: 1 });
        self.grpc.get_job(request).await.map(|_| ()).map_err(|status| status.code())
    }

    /// What the loads need of a server: jobs with their history, and a tenant that is
    /// refused whatever it asks.
    pub async fn prepare(&mut self) -> Result<(), Failure> {
        let quota = Quota { millicores: Some(1_000), ..Quota::default() };
        let tenant = TenantRow { name: POOR.into(), quota: Some(quota), ..TenantRow::default() };
        let request = self.request(PutTenantRequest { tenant: Some(tenant), was: None });
        self.grpc.put_tenant(request).await?;
        let jobs = (0..HISTORY).map(|_| SubmitRequest { spec: Some(job(1)), ..SubmitRequest::default() });
        let mut request = self.request(tokio_stream::iter(jobs.collect::<Vec<_>>()));
        request.set_timeout(PATIENCE * 3);
        let mut outcomes = self.grpc.submit_many(request).await?.into_inner();
        let mut accepted = 0;
        while let Some(outcome) = outcomes.message().await? {
            accepted += usize::from(matches!(outcome.outcome, Some(Outcome::Accepted(_))));
        }
        if accepted == HISTORY { Ok(()) } else { Err(format!("only {accepted} jobs were taken").into()) }
    }
}

fn job(cores: u32) -> JobSpec {
    let step = Step {
        name: "main".into(),
        argv: vec!["/bin/true".into()],
        per_task: Some(Resources { millicores: cores * 1000, ..Resources::default() }),
        ..Step::default()
    };
    JobSpec { name: "load".into(), steps: vec![step], ..JobSpec::default() }
}

/// What the good client saw: how long each answer took, in milliseconds.
#[derive(Default)]
pub struct Seen {
    pub looks: Vec<f64>,
    pub submits: Vec<f64>,
    /// On a connection of their own.
    pub fresh: Vec<f64>,
    /// What was refused or lost, in words.
    pub failed: Vec<String>,
}

impl Seen {
    fn note(&mut self, what: fn(&mut Self) -> &mut Vec<f64>, begun: Instant, result: Result<(), Failure>) {
        match result {
            Ok(()) => what(self).push(begun.elapsed().as_secs_f64() * 1e3),
            Err(error) => self.failed.push(error.to_string()),
        }
    }
}

/// Asks, submits, and now and then comes on a new connection, until the span is over.
pub async fn good_client(address: &str, token: &str, span: Duration) -> Result<Seen, Failure> {
    let told = |code: Code| Failure::from(format!("{code:?}"));
    let mut client = Client::new(address, token).await?;
    let mut seen = Seen::default();
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let end = Instant::now() + span;
    let mut turn = 0_u32;
    while turn < TURNS_MIN || Instant::now() < end {
        pace.tick().await;
        turn += 1;
        let begun = Instant::now();
        if turn.is_multiple_of(20) {
            let result = match Client::new(address, token).await {
                Ok(mut fresh) => fresh.look().await.map_err(told),
                Err(error) => Err(error),
            };
            seen.note(|seen| &mut seen.fresh, begun, result);
        } else if turn.is_multiple_of(4) {
            let result = client.submit("", job(1)).await.map_err(told);
            seen.note(|seen| &mut seen.submits, begun, result);
        } else {
            let result = client.look().await.map_err(told);
            seen.note(|seen| &mut seen.looks, begun, result);
        }
    }
    Ok(seen)
}

// ------------------------------------------------------------------------ all others

/// What all bad clients need.
pub struct Crowd {
    address: String,
    host: String,
    token: String,
    over: AtomicBool,
    done: AtomicU64,
    files: u64,
}

impl Crowd {
    /// Against this server; no more files are open at once than this.
    pub fn new(address: &str, token: &str, files: u64) -> Arc<Self> {
        Arc::new(Self {
            address: address.to_owned(),
            host: address.trim_start_matches("http://").to_owned(),
            token: token.to_owned(),
            over: AtomicBool::new(false),
            done: AtomicU64::new(0),
            files,
        })
    }

    /// What was done so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Tells them to stop, and waits for their end.
    pub async fn end(&self, mut tasks: JoinSet<()>) -> Result<(), Failure> {
        self.over.store(true, Ordering::Relaxed);
        let gone = async { while tasks.join_next().await.is_some() {} };
        tokio::time::timeout(PATIENCE * 2, gone).await.map_err(|_| "a bad client did not end".into())
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn did(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    async fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.address, &self.token).await
    }

    async fn wait_over(&self) {
        while !self.over() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A thousand clients, each of which asks once a second.
fn many_clients(crowd: Arc<Crowd>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..1_000_u64 {
        let crowd = Arc::clone(&crowd);
        tasks.spawn(async move {
            tokio::time::sleep(Duration::from_millis(number)).await;
            let Ok(mut client) = crowd.client().await else { return };
            while !crowd.over() {
                if client.look().await.is_ok() {
                    crowd.did();
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    tasks
}

/// Followers of the history who never read what comes: half of them by gRPC, half as
/// server-sent events into the smallest of buffers.
fn slow_readers(crowd: Arc<Crowd>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let crowd = Arc::clone(&crowd);
        tasks.spawn(async move {
            if number % 2 == 0 {
                let Ok(mut client) = crowd.client().await else { return };
                let request = client.request(EventsRequest { follow: true, ..EventsRequest::default() });
                if let Ok(stream) = client.grpc.events(request).await {
                    crowd.did();
                    crowd.wait_over().await;
                    drop(stream);
                }
            } else if let Ok(socket) = deaf_subscriber(&crowd).await {
                crowd.did();
                crowd.wait_over().await;
                drop(socket);
            }
        });
    }
    tasks
}

async fn deaf_subscriber(crowd: &Crowd) -> Result<TcpStream, Failure> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(2048)?;
    let mut stream = socket.connect(crowd.host.parse()?).await?;
    let request = format!(
        "GET /v1/events?from=1 HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\nAuthorization: Bearer {}\r\n\r\n",
        crowd.token
    );
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// Requests that come byte by byte: half of them never end their headers, half of them
/// their body.
fn slow_writers(crowd: Arc<Crowd>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..500 {
        let crowd = Arc::clone(&crowd);
        tasks.spawn(async move {
            let Ok(mut socket) = TcpStream::connect(&crowd.host).await else { return };
            let head = if number % 2 == 0 {
                format!("PUT /v1/objects/x{number} HTTP/1.1\r\nHost: h\r\nX-Slow: ")
            } else {
                format!(
                    "POST /v1/jobs HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n\
                     Authorization: Bearer {}\r\nContent-Length: 100000\r\n\r\n",
                    crowd.token
                )
            };
            if socket.write_all(head.as_bytes()).await.is_err() {
                return;
            }
            while !crowd.over() && socket.write_all(b" ").await.is_ok() {
                crowd.did();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    tasks
}

/// HTTP/2 connections that greet and then are as dead.
fn half_open(crowd: Arc<Crowd>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..500 {
        let crowd = Arc::clone(&crowd);
        tasks.spawn(async move {
            let Ok(mut socket) = TcpStream::connect(&crowd.host).await else { return };
            let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            if socket.write_all(greeting).await.is_ok() {
                crowd.did();
                crowd.wait_over().await;
            }
        });
    }
    tasks
}

/// Bodies of 100 MB to where they are not wanted.
fn huge_bodies(crowd: Arc<Crowd>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for path in ["/v1/jobs", "/v1/objects/none", "/drumline.v1.Drumline/Submit", "/v1/jobs"] {
        let crowd = Arc::clone(&crowd);
        tasks.spawn(async move {
            let block = vec![b'x'; 64 << 10];
            while !crowd.over() {
                let Ok(mut socket) = TcpStream::connect(&crowd.host).await else { return };
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n\
                     Authorization: Bearer {}\r\nContent-Length: 100000000\r\n\r\n",
                    crowd.token
                );
                let send = async {
                    socket.write_all(head.as_bytes()).await?;
                    for _ in 0..100_000_000 / block.len() {
                        socket.write_all(&block).await?;
                    }
                    socket.read(&mut [0; 1024]).await
                };
                // Cut off or answered: either is right, waiting for ever is not.
                let _ = tokio::time::timeout(PATIENCE, send).await;
                crowd.did();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    tasks
}

/// Sockets that are opened and left alone.
fn idle_sockets(crowd: Arc<Crowd>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let each = (crowd.files.saturating_sub(500) / 20).min(500);
    for _ in 0..20 {
        let crowd = Arc::clone(&crowd);
        tasks.spawn(async move {
            let mut held = Vec::new();
            for _ in 0..each {
                let connecting = TcpStream::connect(&crowd.host);
                if let Ok(Ok(socket)) = tokio::time::timeout(Duration::from_secs(5), connecting).await {
                    crowd.did();
                    held.push(socket);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            crowd.wait_over().await;
        });
    }
    tasks
}

/// A thousand submissions a second that are refused: half of them make no sense, half
/// of them are past their tenant's limit.
fn refused_submissions(crowd: Arc<Crowd>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..20 {
        let crowd = Arc::clone(&crowd);
        tasks.spawn(async move {
            let Ok(mut client) = crowd.client().await else { return };
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            while !crowd.over() {
                pace.tick().await;
                let refused = if number % 2 == 0 {
                    let mut spec = job(1);
                    spec.steps[0].after = vec!["nowhere".into()];
                    client.submit("", spec).await == Err(Code::InvalidArgument)
                } else {
                    client.submit(POOR, job(1)).await == Err(Code::ResourceExhausted)
                };
                if refused {
                    crowd.did();
                }
            }
        });
    }
    tasks
}
