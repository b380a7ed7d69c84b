//! One run of the simulator, what it came to, and what it cost.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "runs on the builder's machine")]

use std::fmt;
use std::fs;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// So much longer than its CPU time a run may last.
const WALL_PER_CPU: f64 = 5.0;
/// Address space, in KiB: what never ends often never ends to take more.
const MEMORY_KIB_MAX: &str = "8000000";
/// What Linux counts CPU time in, for programs to read: hundredths.
const TICKS_PER_S: f64 = 100.0;
/// How much of a panic's message is told.
const MESSAGE_CHARS_MAX: usize = 100;

/// The CPU time of processes that ended and were waited for.
pub struct Cpu(f64);

impl Cpu {
    pub fn now() -> Result<Self, String> {
        Ok(Self(seconds("self", 13 + 2)?))
    }

    /// Since the last time this was asked.
    pub fn lap(&mut self) -> Result<f64, String> {
        let now = Self::now()?;
        let spent = now.0 - self.0;
        *self = now;
        Ok(spent)
    }
}

/// Two neighbouring fields of a process's `stat`, counted from 0: user and system.
fn seconds(process: &str, field: usize) -> Result<f64, String> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // The second field is a name in brackets and may hold anything.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = rest.split_whitespace().skip(field - 2).take(2).filter_map(|word| word.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / TICKS_PER_S)
}

/// What one run printed.
pub struct Ran {
    text: String,
    endless: bool,
}

/// Why a run is not green.
#[derive(Debug, PartialEq)]
pub enum Found {
    Invariant(String),
    CoreCheck(String),
    Panic(String),
    Other(String),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invariant(which) => write!(f, "{which}"),
            Self::CoreCheck(what) => write!(f, "check of the core: {what}"),
            Self::Panic(what) => write!(f, "panic: {what}"),
            Self::Other(what) => write!(f, "{what}"),
        }
    }
}

/// One seed, with one bug or one mutant awake.
pub struct Run<'a> {
    pub simulator: &'a Path,
    /// A variable, and what it says; nothing where all sleep.
    pub awake: (&'a str, &'a str),
    pub seed: u64,
    pub scenario: &'a str,
    /// Watched, as in a sweep: who is must do the same.
    pub watched: bool,
    pub cpu_s_max: f64,
    /// What it prints goes there on its way.
    pub output: &'a Path,
}

impl Run<'_> {
    /// In a process of its own. One that idles is waited for as long as one that
    /// works would be, on a machine that has much else to do.
    pub fn run(&self) -> Result<Ran, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.output.display());
        let mut output = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.output)
            .map_err(failed)?;
        let mut command = limited(self.simulator);
        if self.watched {
            command.env("RUST_LOG", "error");
        } else {
            command.env_remove("RUST_LOG");
        }
        let mut child = command
            .args(["run", "--quiet", "--seed", &self.seed.to_string(), "--scenario", self.scenario])
            .env(self.awake.0, self.awake.1)
            .env("MIMALLOC_PURGE_DELAY", "-1")
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output.try_clone().map_err(failed)?)
            .spawn()
            .map_err(|error| format!("{}: {error}", self.simulator.display()))?;
        let began = Instant::now();
        let mut endless = false;
        while child.try_wait().map_err(|error| error.to_string())?.is_none() {
            std::thread::sleep(Duration::from_millis(10));
            let spent = seconds(&child.id().to_string(), 13).unwrap_or_default();
            let waited = began.elapsed().as_secs_f64() / WALL_PER_CPU;
            if !endless && spent.max(waited) > self.cpu_s_max {
                endless = true;
                child.kill().map_err(|error| error.to_string())?;
            }
        }
        let mut bytes = Vec::new();
        output.rewind().and_then(|()| output.read_to_end(&mut bytes)).map_err(failed)?;
        Ok(Ran { text: String::from_utf8_lossy(&bytes).into_owned(), endless })
    }
}

/// A program that cannot take all memory of the machine, whatever is wrong with it.
pub fn limited(program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -v "$0"; exec "$@""#, MEMORY_KIB_MAX]).arg(program);
    command
}

impl Ran {
    /// Why it is not green, if it is not.
    pub fn not_ok(&self) -> Option<Found> {
        if let Some(broken) = self.text.lines().find_map(|line| line.strip_prefix("BROKEN invariant ")) {
            // `3: ledger: and in words`; some have no checker's name.
            let (number, rest) = broken.split_once(": ").unwrap_or((broken, ""));
            let checker = rest.split_once(": ").map(|(name, _)| name).filter(|name| !name.contains(' '));
            let told = checker.map_or_else(|| short(rest), str::to_owned);
            return Some(Found::Invariant(format!("{number} {told}")));
        }
        if let Some(panicked) = self.panicked() {
            return Some(panicked);
        }
        if self.endless {
            return Some(Found::Other("no end".to_owned()));
        }
        if self.text.contains(" verdict=ok ") {
            return None;
        }
        let last = self.text.lines().rfind(|line| !line.trim().is_empty());
        Some(Found::Other(short(last.unwrap_or("no word"))))
    }

    fn panicked(&self) -> Option<Found> {
        let mut lines = self.text.lines();
        let at = lines.by_ref().find_map(|line| line.split_once(" panicked at ").map(|(_, at)| at))?;
        let file = at.split(':').next().unwrap_or_default();
        let message = short(lines.next().unwrap_or_default());
        let of_core = file.contains("/core/check") || file.ends_with("check_step.rs");
        Some(if of_core { Found::CoreCheck(message) } else { Found::Panic(format!("{file}: {message}")) })
    }

    /// Two runs of one seed that are not the same to the last byte of their trace.
    pub fn differs(&self, other: &Self) -> Option<Found> {
        (self.hash() != other.hash()).then(|| Found::Invariant("10 two processes, two traces".to_owned()))
    }

    fn hash(&self) -> Option<&str> {
        self.text.split_whitespace().rev().find_map(|word| word.strip_prefix("trace="))
    }
}

/// On one line of a table.
fn short(text: &str) -> String {
    let text: String = text.trim().replace('|', "/").chars().take(MESSAGE_CHARS_MAX).collect();
    text.trim_end_matches(':').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(text: &str) -> Ran {
        Ran { text: text.to_owned(), endless: false }
    }

    #[test]
    fn a_run_is_green_broken_or_panicked() {
        let green = "fired a=1\nseed=1 verdict=ok trace=ab sim_s=1\n";
        assert_eq!(ran(green).not_ok(), None);
        let nameless = ran("BROKEN invariant 1: rows came back\n");
        assert_eq!(nameless.not_ok(), Some(Found::Invariant("1 rows came back".to_owned())));
        let broken = ran("BROKEN invariant 3: ledger: 4 is not 5\nseed=1 verdict=broken trace=cd sim_s=1\n");
        assert_eq!(broken.not_ok(), Some(Found::Invariant("3 ledger".to_owned())));
        assert!(ran(green).differs(&broken).is_some());
        assert!(ran(green).differs(&ran(green)).is_none());
        let core = ran("thread 'main' panicked at controller/src/core/check.rs:7:9:\nassertion failed | x\n");
        assert_eq!(core.not_ok(), Some(Found::CoreCheck("assertion failed / x".to_owned())));
        let other = ran("thread 'main' panicked at store/src/lib.rs:7:9:\nboom\n");
        assert_eq!(other.not_ok(), Some(Found::Panic("store/src/lib.rs: boom".to_owned())));
        assert_eq!(ran("").not_ok(), Some(Found::Other("no word".to_owned())));
    }
}
