//! What one good client notices while others behave badly.
//!
//! A real server process, and against it, one after another: many clients at
//! once, readers who do not read, writers who hardly write, connections that
//! fall silent in the middle, bodies far too large, idle sockets by the thousand, floods of
//! submissions that are refused. All the while one good client asks and
//! submits, on a connection of its own and on fresh ones. Each figure is a
//! ratio to the same client's p99 with nobody else there, in the same run.
//! Every load is bounded in count and time.
//!
//! `cargo run --release -p drumline --example load [BINARY]`; ends with 1 where
//! the good client was refused anything, or waited more than three times as long.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a load test plays clients on the machine itself, from outside the world"
)]

use proto::v1::drumline_client::DrumlineClient;
use proto::v1::{EventsRequest, JobRequest, JobSpec, Resources, Step, SubmitRequest};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use world::grpc::Channel;
use world::grpc::tonic::{Code, Request};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long each load lasts.
const SPAN: Duration = Duration::from_secs(8);
/// The good client asks so often.
const PACE: Duration = Duration::from_millis(5);
/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// The bound on the good client's p99 over its p99 alone.
const RATIO_MAX: f64 = 3.0;
/// Below this a latency is the machine's own noise.
const NOISE_MS: f64 = 2.0;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (_, most) = nix_limit();
    println!("file descriptors: {most}");
    let server = Server::start()?;
    let outcome = measure(&server, most).await;
    drop(server);
    if outcome? { Ok(()) } else { Err("the good client noticed the others".into()) }
}

fn nix_limit() -> (u64, u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    // The server, our child, gets as many.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    (soft, hard)
}

/// A server process on a directory of its own, ended when dropped.
struct Server {
    child: Child,
    dir: PathBuf,
    address: String,
    host: String,
    token: String,
}

impl Server {
    fn start() -> Result<Self, Failure> {
        let binary = match std::env::args().nth(1) {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe()?
                .parent()
                .and_then(Path::parent)
                .ok_or("no directory above this program")?
                .join("drumline"),
        };
        let dir = std::env::temp_dir().join(format!("drumline-load-{:016x}", world::rand::u64()));
        std::fs::create_dir_all(&dir)?;
        let mut command = Command::new(&binary);
        command.args(["server", "--listen", "127.0.0.1:0", "--data"]).arg(&dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("{}: {error}", binary.display()))?;
        let mut server =
            Self { child, dir, address: String::new(), host: String::new(), token: String::new() };
        let begun = Instant::now();
        while server.token.is_empty() {
            if begun.elapsed() > PATIENCE {
                return Err("the server did not start".into());
            }
            std::thread::sleep(Duration::from_millis(20));
            let Ok(text) = std::fs::read_to_string(server.dir.join("client.env")) else { continue };
            let value = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
                line.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
            };
            (server.address, server.token) = (value("DRUMLINE_SERVER"), value("DRUMLINE_TOKEN"));
            server.host = server.address.trim_start_matches("http://").to_owned();
        }
        Ok(server)
    }

    async fn client(&self) -> Result<Client, Failure> {
        let channel = world::grpc::connect(&self.address, Duration::from_secs(5)).await?;
        Ok(Client { grpc: DrumlineClient::new(channel), token: self.token.clone() })
    }

    /// Resident memory now and at its highest, in MiB.
    fn memory(&self) -> (f64, f64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let mib = |name: &str| -> f64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default()
                / 1024.0
        };
        (mib("VmRSS:"), mib("VmHWM:"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its data goes with it: there is nothing to end gracefully.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[derive(Clone)]
struct Client {
    grpc: DrumlineClient<Channel>,
    token: String,
}

impl Client {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", self.token).parse().expect("a token is plain text");
        request.metadata_mut().insert("authorization", bearer);
        request.set_timeout(PATIENCE);
        request
    }

    async fn submit(&mut self, spec: JobSpec) -> Result<(), Code> {
        let request = self.request(SubmitRequest { spec: Some(spec), ..SubmitRequest::default() });
        self.grpc.submit(request).await.map(|_| ()).map_err(|status| status.code())
    }

    async fn look(&mut self) -> Result<(), Code> {
        let request = self.request(JobRequest { tenant: String::new(), number: 1 });
        self.grpc.get_job(request).await.map(|_| ()).map_err(|status| status.code())
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

/// What the good client saw.
#[derive(Default)]
struct Seen {
    looks: Vec<f64>,
    submits: Vec<f64>,
    fresh: Vec<f64>,
    failed: u64,
}

impl Seen {
    fn note(&mut self, what: fn(&mut Self) -> &mut Vec<f64>, begun: Instant, result: Result<(), Failure>) {
        match result {
            Ok(()) => what(self).push(begun.elapsed().as_secs_f64() * 1e3),
            Err(_) => self.failed += 1,
        }
    }
}

fn p99(spans: &mut [f64]) -> f64 {
    spans.sort_by(f64::total_cmp);
    spans.get(spans.len() * 99 / 100).copied().unwrap_or(f64::INFINITY)
}

/// Asks, submits, and now and then comes on a new connection, until the span is
/// over.
async fn good_client(server: &Server) -> Result<Seen, Failure> {
    let mut client = server.client().await?;
    let mut seen = Seen::default();
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let end = Instant::now() + SPAN;
    let mut turn = 0_u32;
    while Instant::now() < end {
        pace.tick().await;
        turn += 1;
        let begun = Instant::now();
        if turn.is_multiple_of(20) {
            let result = match server.client().await {
                Ok(mut fresh) => fresh.look().await.map_err(|code| format!("{code:?}").into()),
                Err(error) => Err(error),
            };
            seen.note(|seen| &mut seen.fresh, begun, result);
        } else if turn.is_multiple_of(4) {
            let result = client.submit(job(1)).await.map_err(|code| format!("{code:?}").into());
            seen.note(|seen| &mut seen.submits, begun, result);
        } else {
            let result = client.look().await.map_err(|code| format!("{code:?}").into());
            seen.note(|seen| &mut seen.looks, begun, result);
        }
    }
    Ok(seen)
}

/// What others do meanwhile; each counts what it did.
type Load = fn(Arc<Crowd>) -> JoinSet<()>;

/// What all bad clients need.
struct Crowd {
    address: String,
    host: String,
    token: String,
    over: AtomicBool,
    done: AtomicU64,
    files: u64,
}

impl Crowd {
    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
    fn did(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
    async fn client(&self) -> Result<Client, Failure> {
        let channel = world::grpc::connect(&self.address, Duration::from_secs(15)).await?;
        Ok(Client { grpc: DrumlineClient::new(channel), token: self.token.clone() })
    }
    async fn wait_over(&self) {
        while !self.over() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn nobody(_: Arc<Crowd>) -> JoinSet<()> {
    JoinSet::new()
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

/// Followers of the history who never read what comes.
fn slow_readers(crowd: Arc<Crowd>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let crowd = Arc::clone(&crowd);
        tasks.spawn(async move {
            let Ok(mut client) = crowd.client().await else { return };
            let request = client.request(EventsRequest { follow: true, ..EventsRequest::default() });
            if let Ok(stream) = client.grpc.events(request).await {
                crowd.did();
                crowd.wait_over().await;
                drop(stream);
            }
        });
    }
    tasks
}

/// Uploads and requests that come byte by byte.
fn slow_writers(crowd: Arc<Crowd>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..500 {
        let crowd = Arc::clone(&crowd);
        tasks.spawn(async move {
            let Ok(mut socket) = TcpStream::connect(&crowd.host).await else { return };
            let text = format!(
                "PUT /v1/objects/x{number} HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\nX-Slow: "
            );
            for byte in text.bytes().cycle() {
                if crowd.over() || socket.write_all(&[byte]).await.is_err() {
                    return;
                }
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
                    "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\nContent-Length: 100000000\r\n\r\n",
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
                if let Ok(Ok(socket)) =
                    tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(&crowd.host)).await
                {
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

/// Submissions that no pool could hold: refused, a thousand a second.
fn refused_submissions(crowd: Arc<Crowd>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let crowd = Arc::clone(&crowd);
        tasks.spawn(async move {
            let Ok(mut client) = crowd.client().await else { return };
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            while !crowd.over() {
                pace.tick().await;
                let mut spec = job(1);
                spec.steps[0].after = vec!["nowhere".into()];
                if client.submit(spec).await.is_err() {
                    crowd.did();
                }
            }
        });
    }
    tasks
}

async fn measure(server: &Server, files: u64) -> Result<bool, Failure> {
    let mut first = server.client().await?;
    first.submit(job(1)).await.map_err(|code| format!("{code:?}"))?;
    let loads: [(&str, Load); 8] = [
        ("nobody else", nobody),
        ("1,000 clients at once, each asks every second", many_clients),
        ("100 readers who do not read", slow_readers),
        ("500 writers of ten bytes a second", slow_writers),
        ("500 connections dead after their greeting", half_open),
        ("4 senders of bodies of 100 MB", huge_bodies),
        ("10,000 idle sockets", idle_sockets),
        ("1,000 refused submissions a second", refused_submissions),
    ];
    let mut quiet = None;
    let mut well = true;
    for (what, load) in loads {
        let crowd = Arc::new(Crowd {
            address: server.address.clone(),
            host: server.host.clone(),
            token: server.token.clone(),
            over: AtomicBool::new(false),
            done: AtomicU64::new(0),
            files,
        });
        let mut tasks = load(Arc::clone(&crowd));
        // Let the crowd gather.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut seen = good_client(server).await?;
        crowd.over.store(true, Ordering::Relaxed);
        let gone = tokio::time::timeout(PATIENCE * 2, async { while tasks.join_next().await.is_some() {} });
        gone.await.map_err(|_| "a bad client did not end")?;
        let now = [p99(&mut seen.looks), p99(&mut seen.submits), p99(&mut seen.fresh)];
        let alone = *quiet.get_or_insert(now);
        let ratio = |at: usize| now[at] / alone[at].max(NOISE_MS);
        let worst = ratio(0).max(ratio(1)).max(ratio(2));
        well &= worst <= RATIO_MAX && seen.failed == 0;
        let (rss, peak) = server.memory();
        println!(
            "{what}: they did {}; p99 of a look {:.1} ms, a submission {:.1} ms, a new connection {:.1} ms; \
             at most {worst:.1} times alone (limit {RATIO_MAX}); refused or lost {}; server {rss:.0} MiB, at most {peak:.0}",
            crowd.done.load(Ordering::Relaxed),
            now[0],
            now[1],
            now[2],
            seen.failed
        );
    }
    Ok(well)
}
