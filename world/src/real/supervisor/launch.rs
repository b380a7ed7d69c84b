//! Starts one process, the quick way.
//!
//! What must hold: the child is spawned by `posix_spawn` and not by fork (the
//! program is found here, nothing runs between fork and exec), leads a process
//! group of its own, has none of the supervisor's descriptors, and is under
//! its limits from its first instruction on.
#![expect(clippy::disallowed_methods, reason = "the supervisor stands behind the world's traits")]

use super::limits::{OWN_MEMORY_CHECK_BELOW_BYTES, OWN_MEMORY_MARGIN_BYTES};
use super::machine;
use super::wire::Launch;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{AccessFlags, Pid, access};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where programs are looked for when a task's environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Soft and hard.
type Pair = (u64, u64);

/// Starts processes; knows the supervisor's own limits, to restore them.
#[derive(Debug)]
pub struct Launcher {
    data: Pair,
    files: Pair,
}

impl Launcher {
    /// Expects stdin to be /dev/null: tasks inherit it.
    pub fn new() -> io::Result<Self> {
        Ok(Self { data: getrlimit(Resource::RLIMIT_DATA)?, files: getrlimit(Resource::RLIMIT_NOFILE)? })
    }

    /// Starts it, or says in one line why not.
    pub fn launch(&self, launch: &Launch) -> Result<Pid, String> {
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

        let memory = wanted(launch.memory_bytes, self.data);
        let files = wanted(launch.open_files, self.files);
        let spawned = {
            let _memory = memory.map(|bytes| Lowered::new(Resource::RLIMIT_DATA, self.data, spared(bytes)));
            let _files = files.map(|count| Lowered::new(Resource::RLIMIT_NOFILE, self.files, count));
            command.spawn()
        };
        let child = spawned.map_err(|error| reason(&error, name, &program, cwd))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("process numbers are positive"));
        if let Some(bytes) = memory {
            machine::limit_child(pid, libc::RLIMIT_DATA, bytes);
        }
        if let Some(count) = files {
            machine::limit_child(pid, libc::RLIMIT_NOFILE, count);
        }
        Ok(pid)
    }
}

/// A limit that was asked for, as far as the supervisor may set it.
fn wanted(limit: u64, own: Pair) -> Option<u64> {
    (limit > 0).then(|| limit.min(own.1))
}

/// The child takes the supervisor's soft limit over, which is lowered for that
/// moment. Never so far that the supervisor itself could not go on: a child
/// with less gets its limit an instant later.
fn spared(bytes: u64) -> u64 {
    if bytes >= OWN_MEMORY_CHECK_BELOW_BYTES {
        bytes
    } else {
        bytes.max(machine::own_data_bytes() + OWN_MEMORY_MARGIN_BYTES)
    }
}

/// A soft limit of the supervisor, put back when dropped.
struct Lowered {
    resource: Resource,
    own: Pair,
}

impl Lowered {
    fn new(resource: Resource, own: Pair, soft: u64) -> Self {
        // Only refused above the hard limit; the limit set on the child
        // afterwards decides then.
        let _ = setrlimit(resource, soft.min(own.1), own.1);
        Self { resource, own }
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        setrlimit(self.resource, self.own.0, self.own.1).expect("a soft limit may be raised to what it was");
    }
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
