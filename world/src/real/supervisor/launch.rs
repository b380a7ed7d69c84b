//! Starts processes, the quick way.
//!
//! Spawning holds its thread up until the child runs its program, which is
//! most of what a short task costs: one thread that spawned alone would leave
//! half of a two-core machine's rate unused. So a few threads do nothing else.
//! They know nothing: a launch goes in, a process number or a line that says
//! why not comes out; all that the supervisor knows stays with its one thread.
//!
//! What must hold: the child is spawned by `posix_spawn` and not by fork (the
//! program is found here, nothing runs between fork and exec), leads a process
//! group of its own, has none of the supervisor's descriptors, and is under
//! its limits from its first instruction on (see [`super::gate`]).
#![expect(clippy::disallowed_methods, reason = "the supervisor stands behind the world's traits")]

use super::gate::Gate;
use super::limits::{LAUNCHER_STACK_BYTES, LAUNCHERS_MAX};
use super::machine;
use super::wire::Launch;
use nix::libc;
use nix::unistd::{AccessFlags, Pid, access};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// Where programs are looked for when a task's environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What became of a launch.
#[derive(Debug)]
pub struct Launched {
    pub key: String,
    /// Just before it was spawned.
    pub at_ms: u64,
    /// Its number, or in one line why it does not run.
    pub result: Result<Pid, String>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<VecDeque<Launch>>,
    more: Condvar,
    done: Mutex<Vec<Launched>>,
    gate: Gate,
}

/// The launching threads. They end with the process.
#[derive(Debug)]
pub struct Launchers {
    shared: Arc<Shared>,
    /// Launches that did not come back yet.
    under_way: usize,
}

impl Launchers {
    /// Expects stdin to be /dev/null: tasks inherit it.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            more: Condvar::new(),
            done: Mutex::default(),
            gate: Gate::new()?,
        });
        let count = thread::available_parallelism().map_or(1, usize::from).min(LAUNCHERS_MAX);
        for _ in 0..count {
            let shared = Arc::clone(&shared);
            let thread = thread::Builder::new().name("launcher".to_owned()).stack_size(LAUNCHER_STACK_BYTES);
            thread.spawn(move || shared.serve())?;
        }
        Ok(Self { shared, under_way: 0 })
    }

    /// Launches that were handed over and not taken back.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Hands a launch over.
    pub fn launch(&mut self, launch: Launch) {
        self.under_way += 1;
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(launch);
        self.shared.more.notify_one();
    }

    /// What came back; [`machine::wake`] was called for it.
    pub fn take_launched(&mut self) -> Vec<Launched> {
        if self.under_way == 0 {
            return Vec::new();
        }
        let launched = std::mem::take(&mut *self.shared.done.lock().unwrap_or_else(PoisonError::into_inner));
        self.under_way -= launched.len();
        launched
    }
}

impl Shared {
    fn serve(&self) {
        loop {
            let launch = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    match waiting.pop_front() {
                        Some(launch) => break launch,
                        None => waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                    }
                }
            };
            let at_ms = machine::boot_ms();
            let result = spawn(&launch, &self.gate);
            let launched = Launched { key: launch.key, at_ms, result };
            self.done.lock().unwrap_or_else(PoisonError::into_inner).push(launched);
            machine::wake();
        }
    }
}

fn spawn(launch: &Launch, gate: &Gate) -> Result<Pid, String> {
    let cwd = path_of(&launch.cwd);
    let name = launch.argv.first().filter(|name| !name.is_empty()).ok_or("there is no program to run")?;
    let program = find_program(name, cwd, launch)?;
    let stdout = output(&launch.stdout)?;
    let stderr = if launch.stderr == launch.stdout {
        stdout.try_clone().map_err(|error| format!("its output cannot be opened: {error}"))?
    } else {
        output(&launch.stderr)?
    };
    let mut command = Command::new(&program);
    command.arg0(name).args(&launch.argv[1..]).env_clear();
    command.envs(launch.env.iter().map(|variable| (&variable.name, &variable.value)));
    command.current_dir(cwd).process_group(0).stdout(stdout).stderr(stderr);

    let wanted = gate.wanted(launch.memory_bytes, launch.open_files);
    let child = gate.under(wanted, || command.spawn());
    let child = child.map_err(|error| reason(&error, name, &program, cwd))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("process numbers are positive"));
    if let Some(bytes) = wanted.memory_bytes {
        machine::limit_child(pid, libc::RLIMIT_DATA, bytes);
    }
    if let Some(count) = wanted.open_files {
        machine::limit_child(pid, libc::RLIMIT_NOFILE, count);
    }
    Ok(pid)
}

pub fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn output(path: &[u8]) -> Result<File, String> {
    let path = path_of(path);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o640).custom_flags(libc::O_APPEND | libc::O_NOCTTY);
    options.open(path).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "its directory is missing".to_owned(),
            _ => error.to_string(),
        };
        format!("its output {} cannot be opened: {why}", path.display())
    })
}

/// Finds the program as a shell would, in the task's PATH and not in ours.
fn find_program(name: &str, cwd: &Path, launch: &Launch) -> Result<PathBuf, String> {
    if name.contains('/') {
        return Ok(cwd.join(name));
    }
    let path = launch.env.iter().rev().find(|variable| variable.name == "PATH");
    let path = path.map_or(DEFAULT_PATH, |variable| variable.value.as_str());
    let mut barred = None;
    for directory in path.split(':') {
        // An empty part is the working directory.
        let candidate = cwd.join(directory).join(name);
        if !candidate.is_file() {
            continue;
        }
        if access(&candidate, AccessFlags::X_OK).is_ok() {
            return Ok(candidate);
        }
        barred = Some(candidate);
    }
    Err(match barred {
        Some(candidate) => format!("program {} may not be executed", candidate.display()),
        None => format!("program `{name}` not found in {path}"),
    })
}

/// The kernel's refusal, for a person.
fn reason(error: &io::Error, name: &str, program: &Path, cwd: &Path) -> String {
    if !cwd.is_dir() {
        return format!("its working directory {} is missing", cwd.display());
    }
    match error.raw_os_error() {
        Some(libc::ENOENT) if !program.exists() => format!("program `{name}` not found"),
        Some(libc::ENOENT) => format!("the interpreter that {} names was not there", program.display()),
        Some(libc::EACCES) => format!("program {} may not be executed", program.display()),
        Some(libc::ENOEXEC) => {
            format!("{} is no program of this machine (or lacks a `#!` line)", program.display())
        }
        Some(libc::E2BIG) => format!("the arguments and environment of `{name}` are too long"),
        _ => format!("program {} could not be started: {error}", program.display()),
    }
}
