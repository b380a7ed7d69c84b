//! What is run to see whether anything notices a mutant.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "runs on the builder's machine")]

use super::build::{Binary, Built};
use super::list::Mutant;
use crate::planted::run::{Run, limited};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A seed that costs more than this has no end.
const SEED_CPU_S_MAX: f64 = 30.0;
/// Tests may last so many times as long as with no mutant awake, and so many seconds
/// more, on a machine that has much else to do.
const DEADLINE_FACTOR: u32 = 5;
const DEADLINE_MORE: Duration = Duration::from_secs(5);

/// What became of a mutant.
pub enum Fate {
    ByTests(String),
    BySeed(String),
    /// Nothing noticed. So many files of tests, and so many seeds, come to the place.
    Survived(usize, usize),
}

/// All that can notice a mutant, and which mutants it comes to.
pub struct Trials {
    tests: Vec<(Binary, BTreeSet<u32>, Duration)>,
    seeds: Vec<(u64, &'static str, BTreeSet<u32>)>,
    simulator: PathBuf,
    place: PathBuf,
}

impl Trials {
    /// Runs all with no mutant awake: it must be green, and tells what it comes to.
    pub fn asleep(place: &Path, built: Built, seeds: u64) -> Result<Self, String> {
        let reached = place.join("reached");
        let watching = ("DRUMLINE_MUTANTS_REACHED", reached.to_str().ok_or("the path is no text")?);
        let output = place.join("asleep.out");
        let mut trials = Self {
            tests: Vec::new(),
            seeds: Vec::new(),
            simulator: built.simulator,
            place: place.to_owned(),
        };
        for binary in built.tests {
            let began = Instant::now();
            forget(&reached)?;
            if let Some(why) = test(&binary, watching, None, &output)? {
                return Err(format!("{} is not green with no mutant awake: {why}", binary.name));
            }
            let took = began.elapsed();
            println!("{}: green, {:.1} s", binary.name, took.as_secs_f64());
            trials.tests.push((binary, numbers(&reached), took));
        }
        // The quickest first: most mutants are noticed by many.
        trials.tests.sort_by_key(|(_, _, took)| *took);
        for turn in 0..seeds {
            let (seed, scenario) = (turn / 2 + 1, ["chaos", "narrow"][turn as usize % 2]);
            forget(&reached)?;
            if let Some(why) = trials.seed(seed, scenario, watching, &output)? {
                return Err(format!("seed {seed} of {scenario} is not green with no mutant awake: {why}"));
            }
            trials.seeds.push((seed, scenario, numbers(&reached)));
        }
        println!("{seeds} seeds: green");
        Ok(trials)
    }

    /// Whether anything comes to the place.
    pub fn reach(&self, mutant: u32) -> bool {
        let mut reached = self.tests.iter().map(|(_, reached, _)| reached);
        let mut by_seeds = self.seeds.iter().map(|(.., reached)| reached);
        reached.any(|reached| reached.contains(&mutant)) || by_seeds.any(|reached| reached.contains(&mutant))
    }

    /// Until one notices. What does not come to the place need not be run.
    pub fn of(&self, mutant: &Mutant, worker: usize) -> Result<Fate, String> {
        let number = mutant.number.to_string();
        let awake = ("DRUMLINE_MUTANT", number.as_str());
        let output = self.place.join(format!("worker-{worker}.out"));
        let of_package = self.tests.iter().filter(|(binary, ..)| binary.package == mutant.package);
        let mut tests = 0;
        for (binary, _, took) in of_package.filter(|(_, reached, _)| reached.contains(&mutant.number)) {
            tests += 1;
            let deadline = *took * DEADLINE_FACTOR + DEADLINE_MORE;
            if let Some(why) = test(binary, awake, Some(deadline), &output)? {
                return Ok(Fate::ByTests(format!("{}: {why}", binary.name)));
            }
        }
        let mut seeds = 0;
        for (seed, scenario, _) in self.seeds.iter().filter(|(.., reached)| reached.contains(&mutant.number))
        {
            seeds += 1;
            if let Some(why) = self.seed(*seed, scenario, awake, &output)? {
                return Ok(Fate::BySeed(format!("{scenario} {seed}: {why}")));
            }
        }
        Ok(Fate::Survived(tests, seeds))
    }

    fn seed(
        &self,
        seed: u64,
        scenario: &str,
        awake: (&str, &str),
        output: &Path,
    ) -> Result<Option<String>, String> {
        let (simulator, cpu_s_max) = (self.simulator.as_path(), SEED_CPU_S_MAX);
        let run = Run { simulator, awake, seed, scenario, watched: false, cpu_s_max, output };
        Ok(run.run()?.not_ok().map(|why| why.to_string()))
    }
}

/// Runs a file of tests until one fails; tells which.
fn test(
    binary: &Binary,
    awake: (&str, &str),
    deadline: Option<Duration>,
    path: &Path,
) -> Result<Option<String>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let output = fs::File::create(path).map_err(failed)?;
    let mut child = limited(&binary.path)
        .current_dir(&binary.directory)
        .env(awake.0, awake.1)
        .env("RUST_TEST_THREADS", "1")
        .env("RUST_BACKTRACE", "0")
        .env("INSTA_UPDATE", "no")
        .env("PROPTEST_RNG_SEED", "1")
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output)
        .spawn()
        .map_err(|error| format!("{}: {error}", binary.path.display()))?;
    let began = Instant::now();
    let ended = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break Some(status);
        }
        let late = deadline.is_some_and(|deadline| began.elapsed() > deadline);
        if late || failure(path).is_some() {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    if ended.is_some_and(|status| status.success()) {
        return Ok(None);
    }
    let otherwise = || ended.map_or_else(|| "no end".to_owned(), |status| status.to_string());
    Ok(Some(failure(path).unwrap_or_else(otherwise)))
}

/// The first test that failed.
fn failure(output: &Path) -> Option<String> {
    let text = fs::read(output).ok()?;
    let text = String::from_utf8_lossy(&text);
    let failed = text.lines().find(|line| line.starts_with("test ") && line.ends_with("FAILED"))?;
    failed.split_whitespace().nth(1).map(str::to_owned)
}

fn forget(path: &Path) -> Result<(), String> {
    fs::write(path, "").map_err(|error| format!("{}: {error}", path.display()))
}

fn numbers(path: &Path) -> BTreeSet<u32> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}
