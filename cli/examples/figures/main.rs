//! The figures of the README, measured now on this machine.
//!
//! Every figure is a ratio to a limit that is measured in the same run: the
//! machine's own rate of `posix_spawn`, its own sync. Absolute times mean
//! little on shared machines.
//!
//! `cargo run --release -p drumline --example figures [array|submissions|latency|schedulers|logs|staging|memory]`
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark measures the machine itself, from outside the world"
)]

mod logs;
mod schedulers;
mod staging;

use agent::{AgentConfig, AgentParts, TasksAtStop};
use gateway::server::{RunningServer, ServerConfig, ServerParts};
use proto::v1::drumline_client::DrumlineClient;
use proto::v1::{
    ArrayItem, ArraySpec, EventsRequest, JobRequest, JobSpec, Resources, State, Step, SubmitRequest,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use world::grpc::Channel;
use world::grpc::tonic::Request;
use world::real::{FsDisk, HttpTransfer, NodeOptions, NodeProcesses, SystemClock, TransferLimits};

type Failure = Box<dyn std::error::Error>;

/// Tasks of the array, and submissions.
const COUNT: u64 = 10_000;
/// Samples of the latency.
const SAMPLES: usize = 200;
/// No measurement takes longer.
const DEADLINE: Duration = Duration::from_secs(300);

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    // This binary is also its own supervisor, the task that tells when it was
    // started, and the one that writes lines.
    match arguments.get(1).map(String::as_str) {
        Some("supervisor") => return supervisor(&arguments[2..]),
        Some("stamp") => {
            std::fs::write(&arguments[2], now_ns().to_string())?;
            return Ok(());
        }
        Some("emit") => return logs::emit(&arguments[2], &arguments[3]),
        _ => {}
    }
    let only = arguments.get(1).cloned();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if wanted("array") {
        runtime.block_on(array())?;
    }
    if wanted("submissions") {
        runtime.block_on(submissions())?;
    }
    if wanted("latency") {
        runtime.block_on(latency())?;
    }
    if wanted("schedulers") {
        runtime.block_on(schedulers::schedulers())?;
    }
    if wanted("logs") {
        runtime.block_on(logs::logs())?;
    }
    if wanted("staging") {
        runtime.block_on(staging::staging())?;
    }
    if wanted("memory") {
        runtime.block_on(memory())?;
    }
    Ok(())
}

fn supervisor(words: &[String]) -> Result<(), Failure> {
    let after = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let socket = PathBuf::from(after("--socket").ok_or("--socket is missing")?);
    let linger_ms = after("--linger-ms").map_or(Ok(0), |text| text.parse())?;
    Ok(world::real::supervisor::run(world::real::SupervisorOptions { socket, linger_ms })?)
}

/// A server and one agent of two slots, on a directory of their own.
struct Bench {
    dir: PathBuf,
    server: RunningServer,
    agent: Option<agent::AgentHandle>,
    client: DrumlineClient<Channel>,
}

impl Bench {
    async fn start(parent: &Path, slots: u32) -> Result<Self, Failure> {
        let dir = parent.join(format!("drumline-figures-{:016x}", world::rand::u64()));
        std::fs::create_dir_all(dir.join("server"))?;
        let clock: Arc<dyn world::NodeClock> = Arc::new(SystemClock::new());
        let server = gateway::server::start(ServerParts {
            disk: FsDisk::open(dir.join("server"))?,
            clock: Arc::clone(&clock),
            listen: "127.0.0.1:0".parse()?,
            config: ServerConfig::default(),
            shared: None,
        })
        .await?;
        let agent = if slots > 0 { Some(start_agent(&dir, &server, clock, slots).await?) } else { None };
        let channel = world::grpc::connect(&server.address, Duration::from_secs(5)).await?;
        Ok(Self { dir, server, agent, client: DrumlineClient::new(channel) })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", self.server.token).parse().expect("a token is plain text");
        request.metadata_mut().insert("authorization", bearer);
        request
    }

    async fn submit(&mut self, spec: JobSpec) -> Result<u64, Failure> {
        let request = SubmitRequest { spec: Some(spec), ..SubmitRequest::default() };
        let request = self.request(request);
        Ok(self.client.submit(request).await?.into_inner().number)
    }

    /// Follows the job's events to its end.
    async fn ended(&mut self, number: u64) -> Result<State, Failure> {
        let request =
            self.request(EventsRequest { follow: true, job_number: number, ..EventsRequest::default() });
        let mut events = self.client.events(request).await?.into_inner();
        while let Some(reply) = events.message().await? {
            let end = reply.events.iter().find(|event| {
                event.step.is_none()
                    && matches!(event.to(), State::Completed | State::Failed | State::Cancelled)
            });
            if let Some(end) = end {
                return Ok(end.to());
            }
        }
        Err("the events ended before the job".into())
    }

    async fn stop(self) -> Result<(), Failure> {
        if let Some(agent) = self.agent {
            agent.stop(TasksAtStop::Kill).await;
        }
        self.server.stop().await;
        Ok(std::fs::remove_dir_all(&self.dir)?)
    }
}

async fn start_agent(
    dir: &Path,
    server: &RunningServer,
    clock: Arc<dyn world::NodeClock>,
    slots: u32,
) -> Result<agent::AgentHandle, Failure> {
    std::fs::create_dir_all(dir.join("agent"))?;
    let processes = NodeProcesses::start(NodeOptions {
        socket: dir.join("agent/supervisor.sock"),
        exe: std::env::current_exe()?,
        args: vec!["supervisor".into()],
        linger_ms: 5_000,
    })
    .await?;
    let capacity = Resources { millicores: slots * 1000, memory_bytes: 4 << 30, gpus: 0 };
    Ok(agent::start(AgentParts {
        config: AgentConfig::new(&server.address, &server.token, "bench", capacity),
        disk: FsDisk::open(dir.join("agent"))?,
        processes,
        clock,
        transfer: HttpTransfer::new(TransferLimits::default()),
    })
    .await?)
}

fn job(argv: &[&str], tasks: u64) -> JobSpec {
    let items = vec![ArrayItem { first: 0, last: tasks - 1, stride: 1 }];
    let step = Step {
        name: "main".into(),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        array: (tasks > 1).then_some(ArraySpec { items, max_running: 0 }),
        ..Step::default()
    };
    JobSpec { name: "figures".into(), steps: vec![step], ..JobSpec::default() }
}

/// `/bin/true` so many times, two at once, by nothing but posix_spawn and wait.
fn spawn_rate(count: u64) -> Result<f64, Failure> {
    let begun = Instant::now();
    let half = move || -> std::io::Result<()> {
        for _ in 0..count / 2 {
            std::process::Command::new("/bin/true").stdin(std::process::Stdio::null()).status()?;
        }
        Ok(())
    };
    let other = std::thread::spawn(half);
    half()?;
    other.join().map_err(|_| "the other thread panicked")??;
    Ok(rate(count, begun.elapsed()))
}

#[allow(clippy::cast_precision_loss, reason = "counts here are small")]
fn count(count: u64) -> f64 {
    count as f64
}

fn rate(number: u64, span: Duration) -> f64 {
    count(number) / span.as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "nanoseconds of seconds")]
fn millis(span_ns: u128) -> f64 {
    span_ns as f64 / 1e6
}

/// A 4 KiB write and its sync, over and over.
fn sync_time(dir: &Path) -> Result<Duration, Failure> {
    use std::os::unix::fs::FileExt;
    let path = dir.join("sync-probe");
    let file = std::fs::File::create(&path)?;
    let mut spans = Vec::new();
    for at in 0..64 {
        file.write_all_at(&[7; 4096], at * 4096)?;
        let begun = Instant::now();
        file.sync_data()?;
        spans.push(begun.elapsed());
    }
    std::fs::remove_file(path)?;
    spans.sort_unstable();
    Ok(spans[spans.len() / 2])
}

async fn array() -> Result<(), Failure> {
    println!("{COUNT} x /bin/true as one array, 2 slots, logs captured, durable");
    let mut ratios = Vec::new();
    for round in 1..=3 {
        let machine = spawn_rate(2_000)?;
        let mut bench = Bench::start(&std::env::temp_dir(), 2).await?;
        let begun = Instant::now();
        let number = bench.submit(job(&["/bin/true"], COUNT)).await?;
        let end = tokio::time::timeout(DEADLINE, bench.ended(number)).await??;
        let ours = rate(COUNT, begun.elapsed());
        bench.stop().await?;
        let machine = f64::midpoint(machine, spawn_rate(2_000)?);
        println!(
            "  round {round}: {ours:.0} tasks/s ({end:?}); 2-way posix_spawn {machine:.0}/s; ratio {:.2}",
            ours / machine
        );
        ratios.push(ours / machine);
    }
    ratios.sort_by(f64::total_cmp);
    println!("  median ratio {:.2} (target 0.75)", ratios[1]);
    Ok(())
}

async fn submissions() -> Result<(), Failure> {
    let mut bench = Bench::start(&std::env::temp_dir(), 0).await?;
    let sync = sync_time(&bench.dir)?;
    println!("{COUNT} separate submissions, each acknowledged after its sync, one connection");
    for round in 1..=3 {
        let (send, receive) = world::sync::mpsc::channel(1024);
        let feed = world::task::spawn(async move {
            for number in 0..COUNT {
                let mut spec = job(&["/bin/true"], 1);
                spec.name = format!("figure-{number}");
                let request = SubmitRequest { spec: Some(spec), ..SubmitRequest::default() };
                if send.send(request).await.is_err() {
                    return;
                }
            }
        });
        let begun = Instant::now();
        let request = bench.request(tokio_stream::wrappers::ReceiverStream::new(receive));
        let mut replies = bench.client.submit_many(request).await?.into_inner();
        let mut accepted = 0;
        while let Some(reply) = replies.message().await? {
            match reply.outcome {
                Some(proto::v1::submit_outcome::Outcome::Accepted(_)) => accepted += 1,
                other => return Err(format!("not accepted: {other:?}").into()),
            }
        }
        feed.await?;
        let ours = rate(accepted, begun.elapsed());
        println!(
            "  round {round}: {accepted} in {:.2} s = {ours:.0}/s; one sync takes {:.2} ms, so one at a time {:.0}/s at most; ratio to that {:.1} (target 20000/s)",
            begun.elapsed().as_secs_f64(),
            sync.as_secs_f64() * 1e3,
            1.0 / sync.as_secs_f64(),
            ours * sync.as_secs_f64()
        );
    }
    bench.stop().await
}

fn now_ns() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |span| span.as_nanos())
}

/// From the call of Submit to the first instruction of the task's own program.
async fn latency() -> Result<(), Failure> {
    println!("submit -> process start, idle system, open connection, {SAMPLES} samples");
    let memory = Path::new("/dev/shm");
    for (what, parent) in
        [("on disk", std::env::temp_dir()), ("in memory (no cost of syncs)", memory.to_path_buf())]
    {
        if !parent.is_dir() {
            println!("  {what}: skipped, {} is not there", parent.display());
            continue;
        }
        let mut bench = Bench::start(&parent, 2).await?;
        let sync = sync_time(&bench.dir)?;
        let stamp = bench.dir.join("stamp");
        let exe = std::env::current_exe()?;
        let argv =
            [exe.to_str().ok_or("a path that is not text")?, "stamp", stamp.to_str().ok_or("likewise")?];
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..SAMPLES {
            let begun = now_ns();
            let number = bench.submit(job(&argv, 1)).await?;
            tokio::time::timeout(DEADLINE, bench.ended(number)).await??;
            ours.push(stamped(&stamp, begun)?);
            let begun = now_ns();
            std::process::Command::new(argv[0]).args(&argv[1..]).status()?;
            bare.push(stamped(&stamp, begun)?);
        }
        ours.sort_by(f64::total_cmp);
        bare.sort_by(f64::total_cmp);
        println!(
            "  {what}: p50 {:.2} ms, p99 {:.2} ms; a bare spawn of the same program {:.2} ms; one sync {:.2} ms (target p50 3 ms, p99 20 ms)",
            ours[SAMPLES / 2],
            ours[SAMPLES * 99 / 100],
            bare[SAMPLES / 2],
            sync.as_secs_f64() * 1e3
        );
        bench.stop().await?;
    }
    Ok(())
}

fn stamped(stamp: &Path, begun: u128) -> Result<f64, Failure> {
    let at: u128 = std::fs::read_to_string(stamp)?.parse()?;
    Ok(millis(at.saturating_sub(begun)))
}

/// Resident memory of this process, in MiB.
fn resident_mib() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib / 1024.0)
}

async fn memory() -> Result<(), Failure> {
    println!("control plane memory with 1,000,000 queued tasks (server in this process, no agent)");
    let mut bench = Bench::start(&std::env::temp_dir(), 0).await?;
    let empty = resident_mib()?;
    bench.submit(job(&["/bin/true"], 500_000)).await?;
    for _ in 0..50 {
        bench.submit(job(&["/bin/true"], 10_000)).await?;
    }
    let full = resident_mib()?;
    let view = bench.request(JobRequest { tenant: String::new(), number: 1 });
    let queued =
        bench.client.get_job(view).await?.into_inner().state.map_or(0, |state| state.steps[0].pending);
    println!(
        "  one array of {queued} and 50 of 10000: {empty:.1} MiB empty, {full:.1} MiB full (limit 1024 MiB)"
    );
    bench.stop().await
}
