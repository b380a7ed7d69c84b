//! Processes of this machine that nobody waits for: started in a session of their own, found
//! again by their command line, and ended.
//!
//! They are found in the table of processes and nowhere else: so no file can be out of date,
//! and whoever starts or ends one may die in the midst of it.

use crate::time::{Duration, Instant, ms, sleep};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

const LOOK: Duration = ms(10);

/// Starts a program in a session of its own; what it writes goes to the end of a file.
///
/// # Errors
/// Where that file or the program cannot be opened.
#[expect(unsafe_code, reason = "a session begins between fork and exec")]
#[expect(clippy::disallowed_methods, reason = "an agent of this machine, started by its driver")]
pub fn start(program: &Path, args: &[String], env: &[(String, String)], log: &Path) -> io::Result<()> {
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(log)?;
    let mut command = Command::new(program);
    command.args(args).envs(env.iter().cloned()).current_dir("/");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: setsid(2) is async-signal-safe, and nothing else happens there.
    unsafe { command.pre_exec(|| setsid().map(|_| ()).map_err(io::Error::from)) };
    command.spawn().map(|_| ())
}

/// Processes, other than this one, whose command line has all of these words.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the kernel's own files")]
pub fn with_words(wanted: &[&str]) -> Vec<i32> {
    let own = Pid::this().as_raw();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let has = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        wanted.iter().all(|word| words.contains(&word.as_bytes()))
    };
    pids.filter(|pid| *pid != own && has(pid)).collect()
}

/// Ends the processes that `find` finds: they are told by TERM, and by KILL once `grace` is
/// over. Returns once it finds none.
///
/// # Errors
/// Where some do not go.
pub async fn end(find: impl Fn() -> Vec<i32>, grace: Duration) -> io::Result<()> {
    let begun = Instant::now();
    let mut told = Vec::new();
    loop {
        let found = find();
        if found.is_empty() {
            return Ok(());
        }
        let over = begun.elapsed();
        if over > grace * 2 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{found:?} do not go")));
        }
        for pid in found {
            let pid = Pid::from_raw(pid);
            let signal = if over > grace { Signal::SIGKILL } else { Signal::SIGTERM };
            if signal == Signal::SIGKILL || !told.contains(&pid) {
                told.push(pid);
                match kill(pid, signal) {
                    // It went by itself.
                    Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        sleep(LOOK).await;
    }
}
