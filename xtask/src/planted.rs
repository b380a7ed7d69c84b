//! `cargo xtask planted`: are the rehearsals strong enough to find real bugs?
//!
//! Each file of `sim/planted/` plants one in a scratch copy of the sources, behind
//! a switch of its own. The copy is built once; which bug is awake, the variable
//! `DRUMLINE_PLANTED` says. Then seeds are run until one of them is not green.
//! CPU time is that of the runs (user and system), as Linux counts it.

pub mod copy;
pub mod run;

use run::{Cpu, Found, Run};
use std::path::{Path, PathBuf};

/// Those that every test of the project looks for: each breaks another invariant.
const QUICK: &[&str] =
    &["cancelled-task-completes", "limit-ignored", "gang-released-in-part", "event-number-reused"];

/// A run that costs more is taken for one that never ends.
const RUN_CPU_S_MAX: f64 = 60.0;

/// Seeds that must be green with all bugs asleep, in each scenario.
const HEALTHY_SEEDS: u64 = 3;

/// Of a hundred bugs so many must be found, and in the median in so many CPU seconds.
const FOUND_PERCENT: usize = 95;
const MEDIAN_CPU_S: f64 = 60.0;

pub const HELP: &str = "USAGE: cargo xtask planted [OPTIONS]

  --quick           four bugs, 20 seeds each: all must be found
  --only NAME       one bug of sim/planted/ (may be said more than once)
  --class NAME      those whose names begin with NAME-, such as leak (likewise)
  --seeds N         seeds tried for each (400)
  --cpu-seconds S   CPU seconds spent on each (240)
  --fast-build      built in pieces, in a directory of its own: for whoever builds often";

struct Options {
    quick: bool,
    only: Vec<String>,
    classes: Vec<String>,
    fast_build: bool,
    seeds: u64,
    cpu_seconds: u64,
}

/// One file of `sim/planted/`.
struct Bug {
    name: String,
    what: String,
    invariant: String,
    scenario: String,
    /// One run shows nothing: two of one seed must differ.
    twice: bool,
    patch: PathBuf,
}

pub fn command(words: &[&str]) -> Result<(), String> {
    let options = options(words)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask lies in no workspace")?;
    let place = root.join("target/planted");
    let all = bugs(root)?;
    let chosen: Vec<&Bug> = all.iter().filter(|bug| options.chooses(&bug.name)).collect();
    if let Some(unknown) = options.only.iter().find(|name| all.iter().all(|bug| bug.name != **name)) {
        return Err(format!("--only {unknown}: sim/planted/ has no patch of that name"));
    }
    if let Some(unknown) = options.classes.iter().find(|class| !all.iter().any(|bug| is_of(&bug.name, class)))
    {
        return Err(format!("--class {unknown}: sim/planted/ has no patch of that class"));
    }
    println!("== the scratch copy: {} patches", all.len());
    copy::update(root, &place, |next| {
        copy::apply(next, &root.join("sim/planted/switch.patch"))?;
        all.iter().try_for_each(|bug| copy::apply(next, &bug.patch))
    })?;
    let simulator = copy::simulator(&place, options.fast_build, "'--cfg','madsim'")?;
    println!("== all bugs asleep: {HEALTHY_SEEDS} seeds of each scenario must be green");
    let mut cpu = Cpu::now()?;
    for scenario in ["chaos", "narrow"] {
        for seed in 1..=HEALTHY_SEEDS {
            if let Some(why) = one(&simulator, "", seed, scenario, false)?.not_ok() {
                return Err(format!("seed {seed} of {scenario} is not green by itself: {why}"));
            }
        }
    }
    println!("green, {:.1} CPU seconds\n", cpu.lap()?);
    println!("| bug | what | meant for | found by | seeds | CPU s |\n|---|---|---|---|---:|---:|");
    let mut rows = Vec::new();
    for bug in chosen {
        rows.push(search(bug, &options, &simulator, &mut cpu)?);
    }
    judge(&rows, &options)
}

impl Options {
    fn chooses(&self, name: &str) -> bool {
        if self.only.is_empty() && self.classes.is_empty() {
            return !self.quick || QUICK.contains(&name);
        }
        self.only.iter().any(|only| only == name) || self.classes.iter().any(|class| is_of(name, class))
    }
}

/// `leak-environment` is of the class `leak`.
fn is_of(name: &str, class: &str) -> bool {
    name.strip_prefix(class).is_some_and(|rest| rest.starts_with('-'))
}

fn options(words: &[&str]) -> Result<Options, String> {
    let quick = words.contains(&"--quick");
    let seeds = if quick { 20 } else { 400 };
    let mut options =
        Options { quick, only: Vec::new(), classes: Vec::new(), fast_build: false, seeds, cpu_seconds: 240 };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value\n\n{HELP}"));
        let number = |text: &str| text.parse().map_err(|_| format!("{word} {text}: no number\n\n{HELP}"));
        match *word {
            "--quick" => {}
            "--fast-build" => options.fast_build = true,
            "--class" => options.classes.push((*value()?).to_owned()),
            "--only" => options.only.push((*value()?).to_owned()),
            "--seeds" => options.seeds = number(value()?)?,
            "--cpu-seconds" => options.cpu_seconds = number(value()?)?,
            _ => return Err(format!("unknown: {word}\n\n{HELP}")),
        }
    }
    Ok(options)
}

/// All of `sim/planted/`, by name.
#[allow(clippy::disallowed_methods, reason = "a build tool reads the sources on the builder's machine")]
fn bugs(root: &Path) -> Result<Vec<Bug>, String> {
    let directory = root.join("sim/planted");
    let entries = std::fs::read_dir(&directory).map_err(|error| format!("sim/planted: {error}"))?;
    let mut patches: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    patches.sort();
    let mut bugs = Vec::new();
    for patch in patches {
        let name = patch.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if name == "switch" {
            continue;
        }
        let text = std::fs::read_to_string(&patch).map_err(|error| format!("{name}: {error}"))?;
        let head = |field: &str| {
            let lines = text.lines().take_while(|line| !line.starts_with("diff "));
            lines.filter_map(|line| line.strip_prefix(field)).map(|rest| rest.trim().to_owned()).next()
        };
        let wanted = |field: &str| head(field).ok_or_else(|| format!("{name}.patch has no line `{field}`"));
        bugs.push(Bug {
            what: wanted("what:")?,
            invariant: wanted("invariant:")?,
            scenario: wanted("scenario:")?,
            twice: head("found-by:").is_some_and(|how| how == "twice"),
            name,
            patch,
        });
    }
    Ok(bugs)
}

/// Runs one seed with one bug awake (none: an empty name).
fn one(simulator: &Path, bug: &str, seed: u64, scenario: &str, watched: bool) -> Result<run::Ran, String> {
    let output = simulator.with_file_name("planted.out");
    let awake = ("DRUMLINE_PLANTED", bug);
    Run { simulator, awake, seed, scenario, watched, cpu_s_max: RUN_CPU_S_MAX, output: &output }.run()
}

/// What a search came to.
struct Row {
    found: bool,
    cpu_s: f64,
}

fn search(bug: &Bug, options: &Options, simulator: &Path, cpu: &mut Cpu) -> Result<Row, String> {
    let mut cpu_s = 0.0;
    let mut seeds = 0;
    let mut found: Option<Found> = None;
    for seed in 1..=options.seeds {
        if cpu_s >= options.cpu_seconds as f64 {
            break;
        }
        seeds = seed;
        let first = one(simulator, &bug.name, seed, &bug.scenario, false)?;
        found = first.not_ok();
        if bug.twice && found.is_none() {
            let second = one(simulator, &bug.name, seed, &bug.scenario, true)?;
            found = second.not_ok().or_else(|| first.differs(&second));
        }
        cpu_s += cpu.lap()?;
        if found.is_some() {
            break;
        }
    }
    let by = found.as_ref().map_or_else(|| "**survived**".to_owned(), ToString::to_string);
    println!("| {} | {} | {} | {by} | {seeds} | {cpu_s:.1} |", bug.name, bug.what, bug.invariant);
    Ok(Row { found: found.is_some(), cpu_s })
}

fn judge(rows: &[Row], options: &Options) -> Result<(), String> {
    let found = rows.iter().filter(|row| row.found).count();
    let mut spent: Vec<f64> = rows.iter().map(|row| row.cpu_s).collect();
    spent.sort_by(f64::total_cmp);
    let median = spent.get(spent.len() / 2).copied().unwrap_or_default();
    println!(
        "\nplanted={} found={found} survived={} median_cpu_s={median:.1}",
        rows.len(),
        rows.len() - found
    );
    let percent = if options.quick { 100 } else { FOUND_PERCENT };
    if found * 100 < rows.len() * percent {
        return Err(format!("fewer than {percent} in a hundred planted bugs were found"));
    }
    if median > MEDIAN_CPU_S {
        return Err(format!("the median search took more than {MEDIAN_CPU_S} CPU seconds"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bugs_are_chosen_by_name_and_by_class() {
        let chosen = |words: &[&str]| {
            let options = options(words).unwrap();
            let names = ["gang-released-in-part", "leak-environment", "leaking", "zombie-manifest"];
            names.into_iter().filter(|name| options.chooses(name)).collect::<Vec<_>>()
        };
        assert_eq!(chosen(&[]).len(), 4);
        assert_eq!(chosen(&["--quick"]), ["gang-released-in-part"]);
        assert_eq!(chosen(&["--class", "leak", "--fast-build"]), ["leak-environment"]);
        let both = ["--only", "zombie-manifest", "--only", "leaking", "--class", "leak"];
        assert_eq!(chosen(&both), ["leak-environment", "leaking", "zombie-manifest"]);
        assert!(options(&["--class"]).is_err());
        assert!(options(&["--slow-build"]).is_err());
    }
}
