//! One run: a cluster, a workload, a plan of faults, the checkers, a verdict.

use crate::bounds;
use crate::built;
use crate::checkers;
use crate::clients::{self, Door};
use crate::cluster::Cluster;
use crate::faults::{Fault, Fired};
use crate::history::{Ack, History};
use crate::injector::Injector;
use crate::load;
use crate::networked_store;
use crate::plan::{self, Plan};
use crate::readers;
use crate::recording::Recording;
use crate::scenario;
use crate::trace::{self, Took, Trace, Wanted};
use crate::witness::{SharedWitness, Witness};
use clap::Args;
use proto::trace::{Head, Writer};
use proto::v1::State;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::grpc::Servers;
use world::sim::universe;
use world::time;

/// Arguments of the subcommand.
#[derive(Args)]
pub struct RunArguments {
    /// Decides everything
    #[arg(long)]
    seed: u64,
    /// See `cargo chaos list`
    #[arg(long, default_value = "chaos")]
    scenario: String,
    #[command(flatten)]
    shown: Shown,
}

/// What is printed and written of a run.
#[derive(Args)]
struct Shown {
    /// Only the verdict
    #[arg(long)]
    quiet: bool,
    /// Print every line of the trace (for comparing two runs)
    #[arg(long)]
    trace: bool,
    /// Write a trace file, for `cargo chaos trace`; docs/trace.md has its format
    #[arg(long, value_name = "FILE")]
    trace_out: Option<PathBuf>,
    /// Instead of the time line all that was decided for this job, such as lab-17
    /// (may be said more than once)
    #[arg(long, value_name = "NAME")]
    job: Vec<String>,
    /// Likewise for this node: node-3, server
    #[arg(long, value_name = "NAME")]
    node: Vec<String>,
}

/// A run longer than this (in virtual time) is stuck.
const RUN_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// The store's suite lets leases of hours pass, many times.
const STORE_RUN_LIMIT: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Default)]
struct Ended {
    broken: Option<(u8, String)>,
    simulated: Duration,
    fired: Fired,
    jobs: usize,
    states: String,
    refused: String,
    limits_changed: u64,
    recording: Option<Recording>,
}

/// Arguments of the subcommand.
#[derive(Args)]
pub struct ReplayArguments {
    /// As `cargo chaos shrink` writes it
    plan: PathBuf,
    #[command(flatten)]
    shown: Shown,
}

pub fn command(arguments: &RunArguments) -> ExitCode {
    let Some(scenario) = scenario::named(&arguments.scenario) else {
        eprintln!(
            "error: scenario = {}: there is none of that name; see `cargo chaos list`",
            arguments.scenario
        );
        return ExitCode::from(2);
    };
    let again = format!("cargo chaos run --seed {} --scenario {}", arguments.seed, scenario.name);
    play(Plan::draw(arguments.seed, scenario), &again, &arguments.shown)
}

pub fn replay(arguments: &ReplayArguments) -> ExitCode {
    let path = arguments.plan.display();
    match plan::load(&arguments.plan) {
        Ok(plan) => play(plan, &format!("cargo chaos replay {path}"), &arguments.shown),
        Err(why) => {
            eprintln!("error: {path}: {why}");
            ExitCode::from(2)
        }
    }
}

fn play(plan: Plan, again: &str, shown: &Shown) -> ExitCode {
    init_tracing();
    let file = match shown.trace_out.as_deref().map(|path| trace_file(path, &plan, again)).transpose() {
        Ok(file) => file,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    let trace = Trace::new(Wanted { lines: shown.trace, story: shown.tells(), file });
    let seed = plan.seed;
    let limit = if plan.scenario.store_only { STORE_RUN_LIMIT } else { RUN_LIMIT };
    let begun = real_now();
    let main = || one(plan, trace.clone(), false);
    let ended = match universe::run(seed, limit, main) {
        Ok(ended) => ended,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let wall = begun.elapsed();
    for line in trace.lines() {
        println!("{line}");
    }
    let known = !shown.tells() || tell(&trace, &ended, shown);
    tell_counts(&trace, &ended);
    if let Some((invariant, what)) = &ended.broken {
        println!("BROKEN invariant {invariant}: {what}");
        println!("reproduce: {again}  # commit {}", built::COMMIT);
    }
    let verdict = if ended.broken.is_none() { "ok" } else { "broken" };
    println!(
        "seed={seed} verdict={verdict} trace={} sim_s={:.1} wall_s={:.2} faults={} jobs={}",
        trace.hash().0,
        ended.simulated.as_secs_f64(),
        wall.as_secs_f64(),
        ended.fired.total(),
        ended.jobs,
    );
    let simulated_us = u64::try_from(ended.simulated.as_micros()).expect("a run is shorter");
    if let Err(error) = trace.finish(simulated_us, verdict) {
        eprintln!("error: --trace-out: {error}");
        return ExitCode::from(2);
    }
    if !known {
        return ExitCode::from(2);
    }
    ExitCode::from(u8::from(ended.broken.is_some()))
}

impl Shown {
    fn tells(&self) -> bool {
        !self.quiet || !self.job.is_empty() || !self.node.is_empty()
    }
}

/// Begins the file that the trace of a run goes to.
#[allow(clippy::disallowed_methods, reason = "a tool around simulations writes a real file")]
fn trace_file(path: &Path, plan: &Plan, again: &str) -> Result<trace::TraceFile, String> {
    let head = Head {
        seed: plan.seed,
        scenario: plan.scenario.name.to_owned(),
        commit: built::COMMIT.to_owned(),
        lock_sha256: built::lock_sha256(),
        toolchain: built::TOOLCHAIN.to_owned(),
        again: again.to_owned(),
    };
    std::fs::File::create(path)
        .and_then(|file| Writer::begin(Box::new(std::io::BufWriter::new(file)) as _, &head))
        .map_err(|error| format!("--trace-out = {}: {error}", path.display()))
}

/// Prints the story, or what was asked for of it; false where there is nothing of
/// a name that was asked for.
fn tell(trace: &Trace, ended: &Ended, shown: &Shown) -> bool {
    let story = trace.story();
    if shown.job.is_empty() && shown.node.is_empty() {
        trace::timeline(&story).iter().for_each(|line| println!("{line}"));
        println!("jobs: {}", ended.states);
        if !ended.refused.is_empty() {
            println!("refused: {}", ended.refused);
        }
        println!("more: --job NAME, --node NAME, --trace-out FILE");
        return true;
    }
    let jobs = shown.job.iter().map(|name| ("job", name, trace::of_job(&story, name)));
    let nodes = shown.node.iter().map(|name| ("node", name, trace::of_node(&story, name)));
    let mut known = true;
    for (what, name, lines) in jobs.chain(nodes) {
        println!("{what} {name}");
        lines.iter().for_each(|line| println!("{line}"));
        if lines.is_empty() {
            eprintln!("error: --{what} = {name}: there is none of that name in this run");
            known = false;
        }
    }
    known
}

/// What a sweep adds up.
fn tell_counts(trace: &Trace, ended: &Ended) {
    let mut fired: Vec<String> =
        ended.fired.0.iter().map(|(kind, count)| format!("{kind}={count}")).collect();
    fired.push(format!("limits_changed={}", ended.limits_changed));
    println!("fired {}", fired.join(" "));
    let marks: Vec<String> =
        world::marks::reached().iter().map(|(mark, count)| format!("{mark}={count}")).collect();
    println!("marks {}", marks.join(" "));
    // One that was alone is marked.
    let took = |took: &Took| {
        let ms = took.ms.map_or_else(|| "never".to_owned(), |ms| ms.to_string());
        if took.alone { format!("{ms}!") } else { ms }
    };
    let recovery: Vec<String> = trace
        .recovery()
        .iter()
        .map(|(kind, times)| format!("{kind}={}", times.iter().map(took).collect::<Vec<_>>().join(",")))
        .collect();
    println!("recovery {}", recovery.join(" "));
}

#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "how long a run really took")]
fn real_now() -> std::time::Instant {
    std::time::Instant::now()
}

/// `RUST_LOG` shows what the parts of the cluster say, on standard error.
fn init_tracing() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let Ok(filter) = filter else { return };
    tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
}

/// Plays a plan and keeps all that its checkers saw.
pub fn record(plan: Plan) -> Result<Recording, String> {
    let seed = plan.seed;
    let main = || one(plan, Trace::default(), true);
    let ended = universe::run(seed, RUN_LIMIT, main).map_err(|error| error.to_string())?;
    match (ended.broken, ended.recording) {
        (Some((invariant, what)), _) => Err(format!("it broke invariant {invariant} by itself: {what}")),
        (None, recording) => recording.ok_or_else(|| "there is no cluster in it".to_owned()),
    }
}

async fn one(plan: Plan, trace: Trace, keep: bool) -> Ended {
    let (seed, scenario) = (plan.seed, plan.scenario);
    if scenario.store_only {
        networked_store::conform(seed, trace).await;
        return Ended { simulated: universe::elapsed(), ..Ended::default() };
    }
    let faults = plan.faults();
    if faults.iter().any(|planned| matches!(planned.fault, Fault::HalfOpen { .. })) {
        universe::expect_half_open();
    }
    let witness: SharedWitness = Arc::new(Mutex::new(Witness::new(checkers::all(), trace.clone())));
    if keep {
        witness.lock().expect("no holder panics").keep();
    }
    let cluster = Cluster::start(seed, &scenario, Arc::clone(&witness), &trace).await;
    let history = Arc::new(Mutex::new(History::default()));
    let door = Door {
        address: cluster.address.as_str().into(),
        servers: Arc::new(Mutex::new(Servers::parse(&cluster.address))),
        token: Arc::clone(&cluster.token),
        history: Arc::clone(&history),
        trace: trace.clone(),
        uploads: Arc::clone(&cluster.uploads),
    };
    let made = universe::spawn_on(cluster.clients, clients::make_tenants(door.clone()));
    made.await.expect("the clients' node is never killed");
    let deeds = plan.deeds();
    let jobs = deeds.len();
    let mut acting = Vec::with_capacity(jobs);
    for deed in deeds {
        let door = door.own();
        acting.push(universe::spawn_on(cluster.clients, async move {
            let now = u64::try_from(universe::elapsed().as_millis()).expect("a run is shorter");
            time::sleep(time::ms(deed.at_ms.saturating_sub(now))).await;
            clients::act(door, deed).await;
        }));
    }
    let limited = clients::change_limits(door.clone(), plan.changes());
    acting.push(universe::spawn_on(cluster.clients, limited));
    if scenario.faults {
        let maintained = load::maintain(door.clone(), seed, scenario.agents, scenario.trouble);
        acting.push(universe::spawn_on(cluster.clients, maintained));
    }
    let mut injector = Injector::new(&cluster, &trace, door.clone(), seed);
    let tend = || universe::spawn_on(cluster.clients, clients::tend_nodes(door.clone()));
    // What each fault costs alone, it costs with a person at hand.
    let tended = scenario.apart.then(tend);
    injector.run(&faults).await;
    // Until the run is over.
    let _tending = tended.unwrap_or_else(tend);
    let mut fired = std::mem::take(&mut injector.fired);
    for acting in acting {
        acting.await.expect("the clients' node is never killed");
    }
    fired.add("followers_leave", history.lock().expect("no holder panics").broken_off);
    if scenario.canary {
        break_on_purpose(&cluster, &history).await;
    }
    let drained = drain(&witness, &history, bounds::well_ms(&faults), scenario.drain, &trace).await;
    if drained.is_ok() && witness.lock().expect("no holder panics").broken.is_none() {
        let reading = universe::spawn_on(cluster.clients, readers::read_all(door, cluster.logged()));
        reading.await.expect("the clients' node is never killed");
    }
    let mut drained = drained;
    if let Some(elastic) = cluster.elastic.as_ref().filter(|_| drained.is_ok()) {
        drained = elastic.all_gone(&witness).await;
        fired.add("machines_came", elastic.came() as u64);
    }
    trace.tell("the end");
    let history = history.lock().expect("no holder panics").clone();
    // Elsewhere what a fault leaves to be tried again waits behind much other work.
    let recovered = if scenario.apart { trace.recovered() } else { Vec::new() };
    let mut recording = Recording::of(&cluster, history, drained, recovered, faults);
    let mut witness = witness.lock().expect("no holder panics");
    if let Some((invariant, what)) = recording.history.broken.clone() {
        witness.fail(invariant, what);
    }
    witness.end(|mirror, checkers| recording.judge(mirror, checkers));
    recording.commits = witness.take_kept();
    let history = &recording.history;
    Ended {
        broken: witness.broken.clone(),
        simulated: universe::elapsed(),
        fired,
        jobs,
        states: summary(witness.mirror.states.values().map(|state| format!("{:?}", state.state()))),
        limits_changed: history.limits_changed,
        refused: history.refused.iter().map(|(code, count)| format!("{code}={count} ")).collect(),
        recording: keep.then_some(recording),
    }
}

/// The canary: the state of an acknowledged job is deleted behind the
/// controller's back.
async fn break_on_purpose(cluster: &Cluster, history: &Arc<Mutex<History>>) {
    let acknowledged = history.lock().expect("no holder panics").acks.iter().find_map(|ack| match ack {
        Ack::Submitted { job, .. } => Some(job.clone()),
        Ack::Cancelled { .. } => None,
    });
    let store = cluster.store.lock().expect("no holder panics").clone();
    let (Some(job), Some(store)) = (acknowledged, store) else { return };
    let key = proto::keys::state(&job.tenant, job.number);
    // Should this fail the run stays green, and the sweep says so.
    let _ = store.commit(store::Commit::new().delete(key)).await;
}

/// Waits until every job has ended and nothing is held, or until nothing goes on any
/// more, or not all of it within the bound.
async fn drain(
    witness: &SharedWitness,
    history: &Arc<Mutex<History>>,
    well_ms: u64,
    bound: Duration,
    trace: &Trace,
) -> Result<(), String> {
    let begun = universe::elapsed();
    loop {
        let waiting = {
            let witness = witness.lock().expect("no holder panics");
            if witness.broken.is_some() {
                return Ok(());
            }
            let live = witness.mirror.states.iter().filter(|(_, state)| {
                !matches!(state.state(), State::Completed | State::Failed | State::Cancelled)
            });
            if live.clone().next().is_none() && witness.mirror.grants.is_empty() {
                return Ok(());
            }
            let now_ms = u64::try_from(universe::elapsed().as_millis()).expect("a run is shorter");
            let still = now_ms > witness.went_on_ms.max(well_ms) + bounds::QUIET_MS;
            let late = still || universe::elapsed() - begun > bound;
            let names = || live.map(|(job, state)| format!("{job} {:?}", state.state())).collect::<Vec<_>>();
            late.then(names)
        };
        if let Some(waiting) = waiting {
            let submitted = history.lock().expect("no holder panics").acks.len();
            tell_live(&witness.lock().expect("no holder panics"), trace);
            return Err(format!(
                "nothing goes on since {} ms, or not all within {} s: {} of {submitted} jobs live: {}",
                witness.lock().expect("no holder panics").went_on_ms,
                bound.as_secs(),
                waiting.len(),
                waiting.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
            ));
        }
        time::sleep(time::ms(500)).await;
    }
}

/// What the rows say of the jobs that do not end.
fn tell_live(witness: &Witness, trace: &Trace) {
    let mirror = &witness.mirror;
    let live = mirror
        .states
        .iter()
        .filter(|(_, state)| !matches!(state.state(), State::Completed | State::Failed | State::Cancelled));
    for (job, state) in live.take(3) {
        trace.tell(&format!("live {job}: {:?}", mirror.jobs.get(job).and_then(|row| row.spec.as_ref())));
        trace.tell(&format!("  {state:?}"));
        for ((_, step, _), block) in mirror.blocks.iter().filter(|((owner, _, _), _)| owner == job) {
            trace.tell(&format!("  step {step} {block:?}"));
        }
    }
    for ((tenant, epoch), grant) in &mirror.grants {
        trace.tell(&format!("  held grant {tenant}/{epoch} {grant:?}"));
    }
}

fn summary(states: impl Iterator<Item = String>) -> String {
    let mut counts = std::collections::BTreeMap::<String, u64>::new();
    for state in states {
        *counts.entry(state).or_default() += 1;
    }
    counts.iter().map(|(state, count)| format!("{state}={count}")).collect::<Vec<_>>().join(" ")
}
