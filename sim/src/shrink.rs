//! `cargo chaos shrink`: from a seed that breaks an invariant to the fewest
//! things that still break it, written out as a plan.
//!
//! Delta debugging over all that happens in the run, work and faults alike:
//! parts are left out, halves first, and stay out where the same invariant
//! still breaks. What ends a trouble is not left out before the trouble is: a
//! fault heals by itself, and limits are given back by the last change of them.
//! Each try is a process of its own, so that one that hangs or panics ends
//! nothing.

use crate::plan::{Act, Plan};
use crate::scenario;
use crate::sweep::{self, Moment};
use crate::workload::Change;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Arguments of the subcommand.
#[derive(Args)]
pub struct ShrinkArguments {
    /// A seed that fails
    #[arg(long)]
    seed: u64,
    /// See `cargo chaos list`
    #[arg(long, default_value = "chaos")]
    scenario: String,
    /// Where the plan goes; default: SCENARIO-SEED.jsonl, here
    #[arg(long)]
    out: Option<PathBuf>,
    /// No new try after so long
    #[arg(long, default_value_t = 10)]
    minutes: u64,
}

/// A try that takes longer hangs.
const TRY_MAX: Duration = Duration::from_secs(120);

/// How a run of a plan ended.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Held,
    /// The invariant by its number, or where the run panicked.
    Broke(String),
    /// It ended in another way: too late, or by wrong use.
    Fell,
}

/// A plan is tried; whoever judges may be a process or, in tests, a closure.
trait Judge {
    fn judge(&mut self, plan: &Plan) -> Result<Verdict, String>;
    /// No further try.
    fn is_over(&self) -> bool;
}

/// Real runs, each of a file and in a process.
struct Runs {
    path: PathBuf,
    begun: Moment,
    most: Duration,
    tries: u64,
}

#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a tool around simulations: real files, processes, and time"
)]
pub fn command(arguments: &ShrinkArguments) -> ExitCode {
    let Some(scenario) = scenario::named(&arguments.scenario).filter(|scenario| !scenario.store_only) else {
        eprintln!(
            "error: scenario = {}: there is no cluster of that name; see `cargo chaos list`",
            arguments.scenario
        );
        return ExitCode::from(2);
    };
    let out = arguments
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{}-{}.jsonl", scenario.name, arguments.seed)));
    let whole = Plan::draw(arguments.seed, scenario);
    let most = Duration::from_secs(arguments.minutes.saturating_mul(60));
    let mut runs = Runs { path: out.with_extension("try.jsonl"), begun: Moment::now(), most, tries: 0 };
    let shrunk = shrink(&whole, &mut runs);
    let _ = std::fs::remove_file(&runs.path);
    match shrunk {
        Ok(Some((plan, invariant))) => {
            if let Err(error) = std::fs::write(&out, plan.text()) {
                eprintln!("error: --out = {}: {error}", out.display());
                return ExitCode::from(2);
            }
            println!("{invariant} still breaks with {} of {} things:", plan.acts.len(), whole.acts.len());
            print!("{}", plan.text());
            println!("tries={} plan={}", runs.tries, out.display());
            println!("reproduce: cargo chaos replay {}", out.display());
            ExitCode::SUCCESS
        }
        Ok(None) => {
            eprintln!("error: seed = {}: all invariants hold there; nothing can be shrunk", arguments.seed);
            ExitCode::from(2)
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

/// The least that breaks the invariant the whole breaks; `None` where it holds.
fn shrink(whole: &Plan, judge: &mut dyn Judge) -> Result<Option<(Plan, String)>, String> {
    let wanted = match judge.judge(whole)? {
        Verdict::Broke(invariant) => invariant,
        Verdict::Held => return Ok(None),
        Verdict::Fell => return Err("the run ends without a verdict; see `cargo chaos run`".to_owned()),
    };
    let mut plan = whole.clone();
    let mut part = plan.acts.len().div_ceil(2);
    while part > 0 && !plan.acts.is_empty() {
        let before = plan.acts.len();
        let mut at = 0;
        while at < plan.acts.len() {
            if judge.is_over() {
                return Ok(Some((plan, wanted)));
            }
            let mut acts: Vec<Act> = plan.acts.clone();
            acts.drain(at..(at + part).min(acts.len()));
            let less = Plan { acts, ..plan.clone() };
            if gives_back(whole, &less) && judge.judge(&less)? == Verdict::Broke(wanted.clone()) {
                plan = less;
            } else {
                at += part;
            }
        }
        // The same size again as long as it helps, for what only goes together.
        if plan.acts.len() == before || part > 1 {
            part /= 2;
        }
    }
    Ok(Some((plan, wanted)))
}

/// Without the last change of a tenant's limits, work may wait for ever through nobody's
/// fault: another bug than the one that is looked for, and none at all.
fn gives_back(whole: &Plan, less: &Plan) -> bool {
    let (all, left) = (whole.changes(), less.changes());
    let last = |changes: &[Change], name: &str| changes.iter().rfind(|c| c.row.name == name).cloned();
    left.iter().all(|change| last(&left, &change.row.name) == last(&all, &change.row.name))
}

impl Judge for Runs {
    #[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real files and processes")]
    fn judge(&mut self, plan: &Plan) -> Result<Verdict, String> {
        self.tries += 1;
        let write = |path: &Path| std::fs::write(path, plan.text());
        write(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))?;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .arg("replay")
            .arg(&self.path)
            .arg("--quiet")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let begun = Moment::now();
        // What it prints is a few lines, far less than a pipe holds.
        while child.try_wait().map_err(|error| error.to_string())?.is_none() {
            if begun.elapsed() > TRY_MAX {
                child.kill().map_err(|error| error.to_string())?;
            }
            sweep::pause();
        }
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let broke = text.lines().find_map(|line| line.strip_prefix("BROKEN invariant "));
        let told = String::from_utf8_lossy(&output.stderr);
        let panicked = told.lines().find_map(|line| line.split_once(" panicked at "));
        Ok(match (broke.and_then(|rest| rest.split_once(':')), panicked) {
            (Some((invariant, _)), _) => Verdict::Broke(format!("invariant {invariant}")),
            (None, Some((_, place))) => Verdict::Broke(format!("panic at {}", place.trim_end_matches(':'))),
            (None, None) if output.status.success() => Verdict::Held,
            (None, None) => Verdict::Fell,
        })
    }

    fn is_over(&self) -> bool {
        self.begun.elapsed() >= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Breaks while all of these are in the plan, by the time they happen at.
    struct Needs(Vec<u64>, u32);

    impl Judge for Needs {
        fn judge(&mut self, plan: &Plan) -> Result<Verdict, String> {
            self.1 += 1;
            let deeds = plan.deeds();
            let there = |at_ms: &u64| deeds.iter().any(|deed| deed.at_ms == *at_ms);
            Ok(if self.0.iter().all(there) { Verdict::Broke("3".to_owned()) } else { Verdict::Held })
        }
        fn is_over(&self) -> bool {
            false
        }
    }

    #[test]
    fn what_breaks_stays_and_all_else_goes() {
        let whole = Plan::draw(1, scenario::named("narrow").unwrap());
        let deeds = whole.deeds();
        let needed = vec![deeds[3].at_ms, deeds[17].at_ms, deeds[58].at_ms];
        let mut judge = Needs(needed.clone(), 0);
        let (plan, invariant) = shrink(&whole, &mut judge).unwrap().unwrap();
        assert_eq!(invariant, "3");
        assert_eq!(plan.deeds().iter().map(|deed| deed.at_ms).collect::<Vec<_>>(), needed);
        assert_eq!(plan.acts.len(), 3);
        assert!(judge.1 < 200, "{} tries", judge.1);
    }

    /// Breaks as soon as limits change at all before the end of the load.
    struct NeedsLimits(u64);

    impl Judge for NeedsLimits {
        fn judge(&mut self, plan: &Plan) -> Result<Verdict, String> {
            let there = plan.changes().iter().any(|change| change.at_ms < self.0);
            Ok(if there { Verdict::Broke("9".to_owned()) } else { Verdict::Held })
        }
        fn is_over(&self) -> bool {
            false
        }
    }

    #[test]
    fn limits_are_given_back_in_what_is_left() {
        let changed = |plan: &Plan| {
            let changes = plan.changes();
            changes.len() > 2 && changes.iter().all(|change| change.row.name == "lab")
        };
        let chaos = scenario::named("chaos").unwrap();
        let whole = (1..).map(|seed| Plan::draw(seed, chaos)).find(changed).unwrap();
        let last = whole.changes().pop().unwrap();
        let (plan, _) = shrink(&whole, &mut NeedsLimits(last.at_ms)).unwrap().unwrap();
        assert_eq!(plan.acts.len(), 2, "{plan:?}");
        assert_eq!(plan.changes().pop().unwrap(), last);
    }

    #[test]
    fn what_holds_cannot_be_shrunk() {
        let whole = Plan::draw(1, scenario::named("narrow").unwrap());
        assert!(shrink(&whole, &mut Needs(vec![u64::MAX], 0)).unwrap().is_none());
    }
}
