//! The machine's processes, as /proc shows them.
#![allow(clippy::disallowed_methods, reason = "tests stand outside the world they drive")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Sends a signal to each of these; those that are gone already do not matter.
pub fn signal(name: &str, pids: &[i32]) {
    if pids.is_empty() {
        return;
    }
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}")).args(pids.iter().map(ToString::to_string));
    kill.stdout(Stdio::null()).stderr(Stdio::null());
    kill.status().unwrap();
}

/// The same command, which ctrl-c ends also where these tests were started in the
/// background: a shell lets such ignore it, and whatever they start.
pub fn interruptible(command: &Command) -> Command {
    let mut env = Command::new("env");
    env.env_clear().arg("--default-signal=INT").arg(command.get_program()).args(command.get_args());
    env.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        env.current_dir(dir);
    }
    env
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn words(pid: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Parent, and state as one letter.
fn stat(pid: i32) -> Option<(i32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// Whether it runs; a zombie does not.
pub fn lives(pid: i32) -> bool {
    stat(pid).is_some_and(|(_, state)| state != 'Z')
}

/// The supervisor that listens in a node's directory.
pub fn supervisor_of(data: &Path) -> Option<i32> {
    let socket = data.join("supervisor.sock").display().to_string();
    pids().into_iter().find(|pid| {
        let words = words(*pid);
        words.iter().any(|word| word == "supervisor") && words.contains(&socket)
    })
}

/// Processes whose command line has this word.
pub fn with_word(wanted: &str) -> Vec<i32> {
    pids().into_iter().filter(|pid| words(*pid).iter().any(|word| word == wanted)).collect()
}

/// Processes whose command line has this text somewhere.
pub fn mentioning(text: &str) -> Vec<i32> {
    pids().into_iter().filter(|pid| words(*pid).iter().any(|word| word.contains(text))).collect()
}

/// Tasks of a node: what its supervisor started, what descends from that, and
/// what works in its directory.
pub fn below(data: &Path, supervisor: Option<i32>) -> Vec<i32> {
    let work = data.join("work");
    let mut found: BTreeSet<i32> = BTreeSet::new();
    let all = pids();
    loop {
        let before = found.len();
        for pid in &all {
            let Some((parent, _)) = stat(*pid) else { continue };
            let is_child = Some(parent) == supervisor || found.contains(&parent);
            let cwd = || fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            if is_child || cwd().starts_with(&work) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            return found.into_iter().collect();
        }
    }
}
