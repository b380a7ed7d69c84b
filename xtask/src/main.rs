//! What one would otherwise have to remember.
//!
//! `cargo xtask test` passes every test: formatting, lints, the tests of all
//! crates and of the real binaries, the Python client, the REST contract, what the
//! README shows, and the rehearsals. It is what the README names and what CI runs.

mod mutants;
mod planted;
mod scale;

use std::{
    ffi::OsStr,
    process::{Child, Command, ExitCode},
};

const HELP: &str = "USAGE: cargo xtask COMMAND

  test             everything CI runs
  test --quick     the same with few seeds
  figures          the figures of the README, measured now
  scale            what deciding costs on 1,000 to 10,000 nodes, in time and in instructions
  load             what one good client notices while others behave badly
  planted          whether the rehearsals find bugs that were planted (--quick, --only NAME, --class NAME,
                   --seeds N, --cpu-seconds S, --fast-build)
  mutants          whether tests and rehearsals notice when the cores are wrong (--every N, --from K, --only NUMBER,
                   --seeds N, --jobs N, --list, --fast-build)
  help             this";

/// The build flags of `cargo chaos`, for building and testing its crate.
const SIMULATED: &[&str] = &[
    "--target-dir",
    "target/sim",
    "--config",
    "build.rustflags=['--cfg','madsim']",
    "--config",
    "profile.release.overflow-checks=true",
    "--config",
    "profile.release.package.\"*\".overflow-checks=false",
    "--config",
    "profile.release.lto='fat'",
    "--config",
    "profile.release.codegen-units=1",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["test"] => test("500", "250", "40"),
        ["test", "--quick"] => test("20", "10", "5"),
        ["figures"] => figures(),
        ["scale"] => scale(),
        ["load"] => load(),
        ["planted", ref options @ ..] => planted::command(options),
        ["mutants", ref options @ ..] => mutants::command(options),
        ["help"] | [] => {
            println!("{HELP}");
            Ok(())
        }
        _ => Err(format!("unknown: {}\n\n{HELP}", words.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn test(seeds: &str, narrow: &str, sizes: &str) -> Result<(), String> {
    tools(TESTED_WITH)?;
    cargo("formatting", &["fmt", "--all", "--check"])?;
    cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo("what is tested", &["test", "--workspace", "--no-run"])?;
    let build = [&["build", "--release", "--package", "sim"], SIMULATED].concat();
    // The tests mostly wait for processes: the simulator is built in what they leave.
    script("the S3 server of the tests", "scripts/s3/install.sh")?;
    let simulator = Aside::start("the simulator", &build)?;
    cargo("tests", &["test", "--workspace"])?;
    println!("== what a decision costs, in instructions");
    scale::guard(&[1_000, 3_000])?;
    script("the Python client", "clients/python/test.sh")?;
    script("the REST contract", "scripts/rest/check.sh")?;
    script("a newcomer's path", "scripts/newcomer.sh")?;
    simulator.wait()?;
    // What of the world's tests there is under madsim alone, and the others once
    // more; built by what the simulator is built of.
    let world = [&["test", "--release", "--package", "world"], SIMULATED].concat();
    cargo("the simulated world", &world)?;
    cargo("what can be rehearsed", &["chaos", "list"])?;
    cargo("the checkers, on histories that are wrong", &["chaos", "corrupt"])?;
    cargo("a canary must be found", &["chaos", "sweep", "--scenario", "canary", "--seeds", "2"])?;
    let plan = "target/canary.jsonl";
    cargo(
        "what broke can be shrunk",
        &["chaos", "shrink", "--scenario", "canary", "--seed", "1", "--out", plan],
    )?;
    println!("== planted bugs must be found: cargo xtask planted --quick");
    planted::command(&["--quick"])?;
    println!("== leaks of determinism must be found: cargo xtask planted --class leak --seeds 20");
    planted::command(&["--class", "leak", "--seeds", "20"])?;
    cargo(
        "the networked store",
        &["chaos", "sweep", "--scenario", "store", "--seeds", "4", "--twice-every", "2"],
    )?;
    for plan in plans()? {
        cargo("a plan of what was mended", &["chaos", "replay", &plan, "--quiet"])?;
    }
    cargo("a calm cluster", &["chaos", "sweep", "--scenario", "calm", "--seeds", "4"])?;
    let swarm = ["chaos", "sweep", "--scenario", "swarm", "--seeds", sizes];
    cargo("clusters of any size, with one scheduler or several", &swarm)?;
    cargo("faults one at a time", &["chaos", "sweep", "--scenario", "apart", "--seeds", "4"])?;
    cargo("machines that come and go", &["chaos", "sweep", "--scenario", "elastic", "--seeds", sizes])?;
    cargo("a narrow cluster", &["chaos", "sweep", "--scenario", "narrow", "--seeds", narrow])?;
    cargo("the rehearsal", &["chaos", "sweep", "--seeds", seeds])
}

/// The plans of bugs that were found, by path.
#[allow(clippy::disallowed_methods, reason = "a build tool runs on the builder's machine, outside the world")]
fn plans() -> Result<Vec<String>, String> {
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../sim/plans");
    let entries = std::fs::read_dir(place).map_err(|error| format!("{place}: {error}"))?;
    let paths = entries.filter_map(|entry| entry.ok()?.path().into_os_string().into_string().ok());
    let mut plans: Vec<String> = paths.filter(|path| path.ends_with(".jsonl")).collect();
    plans.sort();
    if plans.is_empty() { Err(format!("{place}: there is no plan")) } else { Ok(plans) }
}

/// What the tests drive: a program, how it tells its version, its Debian package.
const TESTED_WITH: &[Tool] = &[("tmux", "-V", "tmux"), ("curl", "--version", "curl")];
/// What the figures are measured beside.
const MEASURED_BESIDE: &[Tool] = &[("nginx", "-v", "nginx-light"), ("curl", "--version", "curl")];

type Tool = (&'static str, &'static str, &'static str);

/// What is not there, root gets installed; others are told how.
fn tools(needed: &[Tool]) -> Result<(), String> {
    for (tool, version, package) in needed {
        let aside = format!("/usr/sbin/{tool}");
        let is_here = || succeeds(tool, &[version]) || succeeds(&aside, &[version]);
        if is_here() {
            continue;
        }
        println!("== {tool} is not here: installing it");
        let installed = output("id", &["-u"]).as_deref() == Some("0")
            && succeeds("apt-get", &["update", "-q"])
            && succeeds("apt-get", &["install", "-q", "-y", "--no-install-recommends", package])
            && is_here();
        if !installed {
            return Err(format!("{tool} is needed; install it with `sudo apt-get install {package}`"));
        }
    }
    Ok(())
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    output(program, arguments).is_some()
}

/// What a program says, where it is there and ends well.
#[allow(clippy::disallowed_methods, reason = "a build tool runs on the builder's machine, outside the world")]
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let done = command.output().ok().filter(|done| done.status.success())?;
    Some(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

fn figures() -> Result<(), String> {
    tools(MEASURED_BESIDE)?;
    cargo("the console's frames", &["run", "--release", "--package", "tui", "--example", "frames"])?;
    cargo("the binary", &["build", "--release", "--package", "drumline"])?;
    cargo("figures", &["run", "--release", "--package", "drumline", "--example", "figures"])?;
    for (scenario, seeds) in [("chaos", "16"), ("wide", "16"), ("long", "4"), ("large", "4"), ("vast", "2")] {
        let sweep =
            ["chaos", "sweep", "--scenario", scenario, "--seeds", seeds, "--jobs", "1", "--twice-every", "0"];
        cargo(&format!("simulated over real time ({scenario})"), &sweep)?;
    }
    Ok(())
}

fn scale() -> Result<(), String> {
    let times = ["run", "--release", "--package", "scheduler", "--example", "scale"];
    cargo("how long deciding takes", &times)?;
    scale::guard(&[1_000, 3_000, 10_000])
}

fn load() -> Result<(), String> {
    let build = ["build", "--release", "--package", "drumline", "--bin", "drumline", "--example", "load"];
    cargo("the binary", &build)?;
    cargo("a good client among bad ones", &["run", "--release", "--package", "drumline", "--example", "load"])
}

fn cargo(what: &str, arguments: &[&str]) -> Result<(), String> {
    println!("== {what}: cargo {}", arguments.join(" "));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(what, &cargo, arguments)
}

/// A cargo that works beside others, and gives way to them.
struct Aside {
    what: &'static str,
    child: Child,
}

impl Aside {
    #[allow(
        clippy::disallowed_methods,
        reason = "a build tool runs on the builder's machine, outside the world"
    )]
    fn start(what: &'static str, arguments: &[&str]) -> Result<Self, String> {
        println!("== {what}, aside: cargo {}", arguments.join(" "));
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let child = Command::new("nice").arg("-n19").arg(cargo).args(arguments).spawn();
        Ok(Self { what, child: child.map_err(|error| format!("nice could not be started: {error}"))? })
    }

    fn wait(mut self) -> Result<(), String> {
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{} failed ({status})", self.what)),
            Err(error) => Err(format!("{}: {error}", self.what)),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Where something else failed nobody waits for it. Of one that ended there is none.
        let _ = self.child.kill();
    }
}

/// Runs a script of the repository, wherever this was called from.
fn script(what: &str, path: &str) -> Result<(), String> {
    println!("== {what}: {path}");
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    run(what, path.as_ref(), &[])
}

#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a build tool runs on the builder's machine, outside the world"
)]
fn run(what: &str, program: &OsStr, arguments: &[&str]) -> Result<(), String> {
    let began = std::time::Instant::now();
    let status = Command::new(program).args(arguments).status();
    println!("== {what}: {} s", began.elapsed().as_secs());
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what} failed ({status})")),
        Err(error) => Err(format!("{} could not be started: {error}", program.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulator_is_built_once() {
        let alias = include_str!("../../.cargo/config.toml").split("chaos = [").nth(1).unwrap();
        let alias = alias.split(']').collect::<Vec<_>>().join("]");
        let flags =
            SIMULATED.iter().filter(|flag| flag.starts_with("build.") || flag.starts_with("profile."));
        for flag in flags.clone() {
            assert!(alias.contains(flag), "cargo chaos is built without {flag}");
        }
        assert_eq!(alias.matches("--config").count(), flags.count(), "cargo chaos is built with other flags");
    }
}
