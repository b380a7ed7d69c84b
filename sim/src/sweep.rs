//! `cargo chaos sweep`: one process a seed, all cores, failures first.
//!
//! This is a tool around simulations, not part of one: it lives in real time
//! and starts real processes.

mod recovery;

use crate::built;
use crate::marks;
use crate::scenario::Scenario;
use clap::Args;
use recovery::Recoveries;
use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

/// Arguments of the subcommand.
#[derive(Args)]
pub struct SweepArguments {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Go on for so long, however many seeds that takes
    #[arg(long)]
    minutes: Option<u64>,
    /// See `cargo chaos list`
    #[arg(long, default_value = "chaos")]
    scenario: String,
    /// Runs at once; default: the machine's cores
    #[arg(long)]
    jobs: Option<usize>,
    /// Every so many seeds one is run twice, in two processes, and the trace
    /// hashes are compared; 0: never
    #[arg(long, default_value_t = 10)]
    twice_every: u64,
    /// A run that takes longer than this is killed and has failed
    #[arg(long, default_value_t = 300)]
    watchdog_s: u64,
}

/// What one run printed last, taken apart.
#[derive(Clone, Debug, Default)]
struct Verdict {
    seed: u64,
    ok: bool,
    hash: String,
    sim_s: f64,
    wall_s: f64,
    why: String,
}

struct Running {
    seed: u64,
    second: bool,
    child: Child,
    started: Moment,
    output: std::fs::File,
}

/// Real time; only here.
#[derive(Clone, Copy)]
#[allow(clippy::disallowed_types, reason = "the sweep runs in real time")]
pub struct Moment(std::time::Instant);

impl Moment {
    #[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the sweep runs in real time")]
    pub fn now() -> Self {
        Self(std::time::Instant::now())
    }
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[derive(Default)]
struct Table {
    verdicts: BTreeMap<u64, Verdict>,
    seconds: BTreeMap<u64, Verdict>,
    fired: Counts,
    marks: Counts,
    recovery: Recoveries,
}

/// How often each of a kind happened.
type Counts = BTreeMap<String, u64>;

pub fn command(arguments: &SweepArguments) -> ExitCode {
    let Some(scenario) = crate::scenario::named(&arguments.scenario) else {
        eprintln!(
            "error: scenario = {}: there is none of that name; see `cargo chaos list`",
            arguments.scenario
        );
        return ExitCode::from(2);
    };
    let begun = Moment::now();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let slots = arguments.jobs.unwrap_or(cores).max(1);
    let mut queue = Queue::new(arguments);
    let mut running: Vec<Running> = Vec::new();
    let mut table = Table::default();
    loop {
        while running.len() < slots
            && let Some((seed, second)) = queue.next(begun)
        {
            match start(seed, second, scenario.name) {
                Ok(run) => running.push(run),
                Err(error) => {
                    eprintln!("error: a run could not be started: {error}");
                    return ExitCode::from(2);
                }
            }
        }
        if running.is_empty() {
            break;
        }
        pause();
        let mut still = Vec::new();
        for run in running {
            match finished(run, Duration::from_secs(arguments.watchdog_s)) {
                Ok((told, second)) => table.take(told, second),
                Err(run) => still.push(run),
            }
        }
        running = still;
    }
    table.print(&scenario, begun.elapsed())
}

/// Which seed comes next.
struct Queue {
    next: u64,
    end: Option<u64>,
    limit: Option<Duration>,
    twice_every: u64,
    again: Option<u64>,
}

impl Queue {
    fn new(arguments: &SweepArguments) -> Self {
        let limit = arguments.minutes.map(|minutes| Duration::from_secs(minutes * 60));
        Self {
            next: arguments.from,
            end: limit.is_none().then_some(arguments.from + arguments.seeds),
            limit,
            twice_every: arguments.twice_every,
            again: None,
        }
    }

    fn next(&mut self, begun: Moment) -> Option<(u64, bool)> {
        if let Some(seed) = self.again.take() {
            return Some((seed, true));
        }
        let over = self.end.is_some_and(|end| self.next >= end)
            || self.limit.is_some_and(|limit| begun.elapsed() >= limit);
        if over {
            return None;
        }
        let seed = self.next;
        self.next += 1;
        if self.twice_every > 0 && seed.is_multiple_of(self.twice_every) {
            self.again = Some(seed);
        }
        Some((seed, false))
    }
}

#[allow(clippy::disallowed_methods, reason = "a sweep starts a process for each seed")]
fn start(seed: u64, second: bool, scenario: &str) -> std::io::Result<Running> {
    let output = tempfile()?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    if second {
        // A run that somebody watches must be the one that nobody watched.
        command.env("RUST_LOG", "error");
        // Nor may it matter that all of it is written down.
        command.args(["run", "--trace-out", "/dev/null"]);
    } else {
        command.arg("run");
    }
    // Memory comes in large pages, and once taken is kept: to ask for it page by page,
    // or again, costs four runs in a hundred.
    let child = command
        .env("MIMALLOC_ALLOW_LARGE_OS_PAGES", "1")
        .env("MIMALLOC_PURGE_DELAY", "-1")
        .args(["--quiet", "--seed", &seed.to_string(), "--scenario", scenario])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()?;
    Ok(Running { seed, second, child, started: Moment::now(), output })
}

/// A file without a name, for a child's output.
#[allow(clippy::disallowed_methods, reason = "a sweep keeps its children's output in files")]
fn tempfile() -> std::io::Result<std::fs::File> {
    let path = std::env::temp_dir().join(format!("drumline-chaos-{}-{:016x}", std::process::id(), nonce()));
    let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn nonce() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

#[allow(clippy::disallowed_methods, reason = "the sweep polls its children in real time")]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// What one run printed.
#[derive(Default)]
struct Told {
    verdict: Verdict,
    fired: Counts,
    marks: Counts,
    recovery: Recoveries,
}

fn finished(mut run: Running, watchdog: Duration) -> Result<(Told, bool), Running> {
    let over = run.started.elapsed() > watchdog;
    match run.child.try_wait() {
        Ok(None) if !over => return Err(run),
        Ok(None) => {
            // It is killed and reaped; what it printed so far is still read.
            let _ = run.child.kill();
            let _ = run.child.wait();
        }
        Ok(Some(_)) | Err(_) => {}
    }
    let mut text = String::new();
    use std::io::Seek;
    let read = run.output.rewind().and_then(|()| run.output.read_to_string(&mut text));
    if let Err(error) = read {
        text = format!("its output could not be read: {error}");
    }
    let mut told = parse(&text);
    told.verdict.seed = run.seed;
    if over {
        told.verdict.ok = false;
        told.verdict.why = format!("still running after {} s", watchdog.as_secs());
    }
    Ok((told, run.second))
}

/// Adds what a line says as `name=count name=count`.
fn count<'a>(counts: &mut Counts, words: impl Iterator<Item = &'a str>) {
    for (name, count) in words.filter_map(|word| word.split_once('=')) {
        *counts.entry(name.to_owned()).or_default() += count.parse::<u64>().unwrap_or(0);
    }
}

fn parse(text: &str) -> Told {
    let Told { mut verdict, mut fired, mut marks, mut recovery } = Told::default();
    let mut last_words = String::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if line.starts_with("fired ") {
            count(&mut fired, words.skip(1));
        } else if line.starts_with("marks ") {
            count(&mut marks, words.skip(1));
        } else if line.starts_with("recovery ") {
            recovery.read(words.skip(1));
        } else if line.starts_with("seed=") {
            let fields: BTreeMap<&str, &str> =
                words.by_ref().filter_map(|word| word.split_once('=')).collect();
            let number = |name: &str| fields.get(name).and_then(|text| text.parse().ok()).unwrap_or(0.0);
            verdict.ok = fields.get("verdict") == Some(&"ok");
            verdict.hash = fields.get("trace").unwrap_or(&"").to_string();
            verdict.sim_s = number("sim_s");
            verdict.wall_s = number("wall_s");
        } else if !line.trim().is_empty() {
            line.clone_into(&mut last_words);
            if line.contains("BROKEN") || line.contains("panicked at") {
                verdict.why = line.trim().to_owned();
            }
        }
    }
    if !verdict.ok && verdict.why.is_empty() {
        verdict.why = last_words;
    }
    Told { verdict, fired, marks, recovery }
}

/// CPU time, user and system, of all runs that ended, as Linux counts it: in
/// hundredths of a second. Elsewhere nobody says.
#[allow(clippy::disallowed_methods, reason = "a sweep asks the machine what its runs cost")]
fn children_cpu_s() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in brackets and may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let ticks: Vec<f64> =
        rest.split_whitespace().skip(13).take(2).filter_map(|word| word.parse().ok()).collect();
    (ticks.len() == 2).then(|| ticks.iter().sum::<f64>() / 100.0)
}

impl Table {
    fn take(&mut self, told: Told, second: bool) {
        let Told { verdict, fired, marks, recovery } = told;
        if !second {
            self.recovery.add(recovery);
        }
        for (counts, more) in [(&mut self.fired, fired), (&mut self.marks, marks)] {
            for (name, count) in more {
                *counts.entry(name).or_default() += count;
            }
        }
        if !verdict.ok {
            println!("FAILED seed {}: {}", verdict.seed, verdict.why);
        }
        let place = if second { &mut self.seconds } else { &mut self.verdicts };
        place.insert(verdict.seed, verdict);
    }

    /// Marks that this sweep should have reached; those are judged only where
    /// there were seeds enough.
    fn print_marks(&self, scenario: &Scenario) -> bool {
        let missed = marks::missed(scenario, &self.marks);
        let judged = self.verdicts.len() >= marks::SEEDS_JUDGED;
        for (name, about) in &missed {
            let word = if judged { "failed  " } else { "" };
            println!("{word}mark {name} stayed at zero: {about}");
        }
        let due = marks::ALL.iter().filter(|(_, by, _)| by.scenario() == scenario.name).count();
        println!("marks reached={} due={due} at_zero={}", self.marks.len(), missed.len());
        !judged || missed.is_empty()
    }

    fn print(&self, scenario: &Scenario, wall: Duration) -> ExitCode {
        let mut failed: Vec<(u64, String)> = Vec::new();
        for (seed, verdict) in &self.verdicts {
            if !verdict.ok {
                failed.push((*seed, verdict.why.clone()));
            }
            if let Some(second) = self.seconds.get(seed)
                && second.hash != verdict.hash
            {
                let why = format!("two processes, two traces: {} and {}", verdict.hash, second.hash);
                failed.push((*seed, why));
            }
        }
        for (seed, why) in &failed {
            println!("failed  seed={seed}  {why}");
            println!(
                "        cargo chaos run --seed {seed} --scenario {}  # commit {}",
                scenario.name,
                built::COMMIT
            );
        }
        let (sim, cpu) = self
            .verdicts
            .values()
            .fold((0.0, 0.0), |(sim, wall), each| (sim + each.sim_s, wall + each.wall_s));
        println!("{:<22} fired", "fault");
        for (kind, count) in &self.fired {
            println!("{kind:<22} {count}");
        }
        self.recovery.lines().iter().for_each(|line| println!("{line}"));
        let marked = self.print_marks(scenario);
        let rate = if cpu > 0.0 { sim / cpu } else { 0.0 };
        let spent_s = children_cpu_s().unwrap_or(cpu);
        let seeds = self.verdicts.len() as f64;
        let hourly = if spent_s > 0.0 { seeds * 3600.0 / spent_s } else { 0.0 };
        println!(
            "seeds={} failed={} twice={} sim_s={sim:.0} run_s={cpu:.1} sim/real={rate:.0} wall_s={:.1} cpu_s={spent_s:.1} seeds/cpu_h={hourly:.0} commit={}",
            self.verdicts.len(),
            failed.len(),
            self.seconds.len(),
            wall.as_secs_f64(),
            built::COMMIT
        );
        // What a canary breaks must be found on every seed.
        let green = if scenario.canary { failed.len() >= self.verdicts.len() } else { failed.is_empty() };
        ExitCode::from(u8::from(!(green && marked)))
    }
}
