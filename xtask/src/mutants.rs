//! `cargo xtask mutants`: do the tests and the rehearsals notice when the cores are wrong?
//!
//! What could be changed cargo-mutants lists. All changes are woven into one scratch
//! copy, each behind a switch, and the copy is built once; which mutant is awake, the
//! variable `DRUMLINE_MUTANT` says. A mutant is killed by the tests of its crate or,
//! where these notice nothing, by a seed of the simulator that is not green.

mod build;
mod list;
mod trial;
mod weave;

use list::Mutant;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use trial::{Fate, Trials};

pub const HELP: &str = "USAGE: cargo xtask mutants [OPTIONS]

  --every N      every N-th mutant of the list (10)
  --from K       beginning with the K-th (1)
  --only NUMBER  one mutant, by its number in the list (may be said more than once)
  --seeds N      seeds tried for what the tests do not notice, half of chaos and half of narrow (50)
  --jobs N       mutants tried at the same time (1)
  --list         tells the mutants and their numbers, and tries none
  --fast-build   the simulator built in pieces, in a directory of its own: for whoever builds often";

struct Options {
    every: u32,
    from: u32,
    only: Vec<u32>,
    seeds: u64,
    jobs: usize,
    list: bool,
    fast_build: bool,
}

pub fn command(words: &[&str]) -> Result<(), String> {
    let options = options(words)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask lies in no workspace")?;
    let place = root.join("target/mutants");
    let all = list::all(root)?;
    let chosen: Vec<&Mutant> = all.iter().filter(|mutant| options.chooses(mutant.number)).collect();
    if let Some(unknown) = options.only.iter().find(|only| all.iter().all(|mutant| mutant.number != **only)) {
        return Err(format!("--only {unknown}: there are mutants 1 to {}", all.len()));
    }
    if options.list {
        chosen.iter().for_each(|mutant| println!("{:>5} {}", mutant.number, mutant.name));
        return Ok(());
    }
    println!("== {} mutants, of which {} are to be tried", all.len(), chosen.len());
    let built = build::build(root, &place, &all, options.fast_build)?;
    println!("of {}: not woven {}", all.len(), by_genre(&all, &built.not_woven));
    println!("of {}: unviable {}", all.len(), by_genre(&all, &built.unviable));
    let count = |of: &BTreeSet<u32>| chosen.iter().filter(|mutant| of.contains(&mutant.number)).count();
    let (not_woven, unviable) = (count(&built.not_woven), count(&built.unviable));
    let absent: BTreeSet<u32> = built.not_woven.union(&built.unviable).copied().collect();
    let woven = |mutant: &Mutant| !absent.contains(&mutant.number);
    let tried: Vec<&Mutant> = chosen.into_iter().filter(|mutant| woven(mutant)).collect();
    println!("== no mutant awake: all must be green");
    let trials = Trials::asleep(&place, built, options.seeds)?;
    let never = all.iter().filter(|mutant| woven(mutant) && !trials.reach(mutant.number)).count();
    println!("of {}: reached by no test and no seed {never}", all.len());
    println!("== one mutant awake");
    let fates = try_all(&trials, &tried, options.jobs)?;
    tell(&fates, unviable, not_woven);
    Ok(())
}

/// Tries them, several at a time. What becomes of each is told at once.
fn try_all<'a>(
    trials: &Trials,
    mutants: &[&'a Mutant],
    jobs: usize,
) -> Result<BTreeMap<u32, (&'a Mutant, Fate)>, String> {
    let next = AtomicUsize::new(0);
    let fates = Mutex::new(BTreeMap::new());
    let work = |worker: usize| -> Result<(), String> {
        while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
            let fate = trials.of(mutant, worker)?;
            let mut fates = fates.lock().map_err(|_| "another worker panicked")?;
            let what = match &fate {
                Fate::ByTests(by) => format!("killed by tests ({by})"),
                Fate::BySeed(by) => format!("killed by a seed ({by})"),
                Fate::Survived(..) => "SURVIVED".to_owned(),
            };
            println!("{}/{} #{} {}: {what}", fates.len() + 1, mutants.len(), mutant.number, mutant.name);
            fates.insert(mutant.number, (*mutant, fate));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..jobs.max(1)).map(|worker| scope.spawn(move || work(worker))).collect();
        let ended = workers.into_iter().map(|worker| worker.join().map_err(|_| "a worker panicked")?);
        ended.collect::<Result<(), String>>()
    })?;
    fates.into_inner().map_err(|_| "a worker panicked".to_owned())
}

fn tell(fates: &BTreeMap<u32, (&Mutant, Fate)>, unviable: usize, not_woven: usize) {
    let (mut by_tests, mut by_seeds) = (0, 0);
    println!("\n| mutant | where | what | files of tests, seeds that come there |\n|---:|---|---|---:|");
    for (number, (mutant, fate)) in fates {
        match fate {
            Fate::ByTests(_) => by_tests += 1,
            Fate::BySeed(_) => by_seeds += 1,
            Fate::Survived(tests, seeds) => {
                // `file:line:column: what`, and `|` ends a cell.
                let what = mutant.name.split_once(": ").map_or("", |(_, what)| what).replace('|', "\\|");
                let reach = match (tests, seeds) {
                    (0, 0) => "never reached".to_owned(),
                    _ => format!("{tests}, {seeds}"),
                };
                println!("| {number} | {}:{} | {what} | {reach} |", mutant.file, mutant.line);
            }
        }
    }
    let (killed, tried) = (by_tests + by_seeds, fates.len());
    println!(
        "\nmutants={} tried={tried} killed_by_tests={by_tests} killed_by_seeds={by_seeds} \
         survived={} unviable={unviable} not_woven={not_woven} score={:.1}",
        tried + unviable + not_woven,
        tried - killed,
        100.0 * killed as f64 / tried.max(1) as f64,
    );
}

/// `12 (BinaryOperator 10, FnValue 2)`
fn by_genre(all: &[Mutant], which: &BTreeSet<u32>) -> String {
    let mut genres: BTreeMap<&str, u32> = BTreeMap::new();
    for mutant in all.iter().filter(|mutant| which.contains(&mutant.number)) {
        *genres.entry(&mutant.genre).or_default() += 1;
    }
    let genres: Vec<String> = genres.iter().map(|(genre, count)| format!("{genre} {count}")).collect();
    if genres.is_empty() { "0".to_owned() } else { format!("{} ({})", which.len(), genres.join(", ")) }
}

impl Options {
    fn chooses(&self, number: u32) -> bool {
        if self.only.is_empty() {
            number >= self.from && (number - self.from).is_multiple_of(self.every)
        } else {
            self.only.contains(&number)
        }
    }
}

fn options(words: &[&str]) -> Result<Options, String> {
    let mut options =
        Options { every: 10, from: 1, only: Vec::new(), seeds: 50, jobs: 1, list: false, fast_build: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || -> Result<u32, String> {
            let value = words.next().ok_or_else(|| format!("{word} wants a value\n\n{HELP}"))?;
            value.parse().map_err(|_| format!("{word} {value}: no number\n\n{HELP}"))
        };
        match *word {
            "--list" => options.list = true,
            "--fast-build" => options.fast_build = true,
            "--every" => options.every = number()?.max(1),
            "--from" => options.from = number()?.max(1),
            "--only" => options.only.push(number()?),
            "--seeds" => options.seeds = number()?.into(),
            "--jobs" => options.jobs = number()? as usize,
            _ => return Err(format!("unknown: {word}\n\n{HELP}")),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_are_chosen_by_distance_or_by_number() {
        let chosen = |words: &[&str]| {
            let options = options(words).unwrap();
            (1..=25).filter(|number| options.chooses(*number)).collect::<Vec<u32>>()
        };
        assert_eq!(chosen(&[]), [1, 11, 21]);
        assert_eq!(chosen(&["--every", "9", "--from", "4"]), [4, 13, 22]);
        assert_eq!(chosen(&["--only", "7", "--only", "2", "--list"]), [2, 7]);
        assert!(options(&["--every"]).is_err());
        assert!(options(&["--shard", "1/2"]).is_err());
    }
}
