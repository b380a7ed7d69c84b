//! One batch script: run with files of its own while its output is shown to
//! whoever started it as well.
//!
//! The process that calls [`run`] is a task of a node's supervisor; the script
//! is its only child, in its process group, so that signals for the task reach
//! both. What must hold:
//! - Every byte the script wrote before it ended is in its file and has been
//!   passed on, in order, before [`run`] returns, whatever else still holds the
//!   pipe.
//! - A signal for the group ends the script; this process stays until it has.
//! - A file that cannot be opened is told before anything runs.

mod hold;
mod output;

pub use hold::{Gathering, Hold, HoldError, gather, wait_for_end};

use crate::time::{Duration, sleep};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid, getpgrp};
use output::Copier;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use tokio::signal::unix::{SignalKind, signal};

/// Registered processes at most, for a signal to them all.
const STEPS_MAX: usize = 65_536;

/// A script and where it runs.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Written to `script_path` and run by its own interpreter.
    pub script: String,
    /// Made anew; in a directory that is this task's alone.
    pub script_path: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// It runs here; relative names of files start here.
    pub directory: PathBuf,
    /// Standard input; nothing where it is absent.
    pub input: Option<PathBuf>,
    /// Standard output.
    pub output: PathBuf,
    /// Standard error; absent: together with the output.
    pub error: Option<PathBuf>,
    /// Keep what the files hold.
    pub append: bool,
    /// To be sent while it runs.
    pub warning: Option<Warning>,
}

/// A signal some time after the start.
#[derive(Clone, Debug)]
pub struct Warning {
    /// `USR1`, or a number.
    pub signal: String,
    /// Since the start.
    pub after: Duration,
    /// To the processes registered in this directory; absent: to the script.
    pub steps: Option<PathBuf>,
}

/// What could not be done, with the path it is about.
#[derive(Debug)]
pub struct BatchError {
    /// A path, or what was tried.
    pub what: String,
    /// Why not.
    pub error: io::Error,
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> BatchError {
    let what = what.into();
    move |error| BatchError { what, error }
}

/// Runs the script to its end. Returns its exit code; 128 + n where signal n
/// ended it.
pub async fn run(batch: Batch) -> Result<u8, BatchError> {
    let warned = batch.warning.as_ref().map(|warning| signal_of(&warning.signal)).transpose();
    let warned = warned.map_err(failed("the signal before the end"))?;
    if !batch.directory.is_dir() {
        let error = io::Error::new(io::ErrorKind::NotFound, "there is no such directory on this node");
        return Err(failed(batch.directory.display().to_string())(error));
    }
    let (mut out, out_end) = open(&batch, &batch.output, io::stdout())?;
    let error_path = batch.error.as_ref().filter(|path| **path != batch.output);
    let (mut err, err_end) = match error_path {
        Some(path) => {
            let (copier, end) = open(&batch, path, io::stderr())?;
            (Some(copier), end)
        }
        // One pipe for both, so that lines keep their order.
        None => {
            let end = out_end.try_clone().map_err(failed("the pipe of the output"))?;
            (None, end)
        }
    };
    let input = open_input(&batch)?;
    write_script(&batch.script_path, &batch.script)
        .map_err(failed(batch.script_path.display().to_string()))?;

    // All handlers before the child is there; a handler (other than an ignored
    // signal) does not pass to it.
    let mut ended = signal(SignalKind::child()).map_err(failed("SIGCHLD"))?;
    let mut survived = Vec::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        survived.push(signal(kind).map_err(failed("signals"))?);
    }
    let mut child = spawn(&batch, input, out_end, err_end)?;
    let (at, steps) = match &batch.warning {
        Some(warning) => (Some(warning.after), warning.steps.as_deref()),
        None => (None, None),
    };
    let mut alarm = std::pin::pin!(sleep(at.unwrap_or_default()));
    let mut due = at.is_some();
    let status = loop {
        tokio::select! {
            biased;
            () = &mut alarm, if due => {
                due = false;
                warn(&child, warned, steps);
            }
            _ = ended.recv() => {
                if let Some(status) = child.try_wait().map_err(failed("the end of the script"))? {
                    break status;
                }
            }
            () = out.copy() => {}
            () = copy(&mut err) => {}
        }
    };
    out.drain();
    if let Some(err) = &mut err {
        err.drain();
    }
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    for copier in [Some(out), err].into_iter().flatten() {
        copier.finish()?;
    }
    Ok(u8::try_from(code).unwrap_or(1))
}

/// Copies what the second pipe brings; never, where there is none.
async fn copy(copier: &mut Option<Copier>) {
    match copier {
        Some(copier) => copier.copy().await,
        None => std::future::pending().await,
    }
}

#[expect(clippy::disallowed_methods, reason = "a batch script's files are the user's own")]
fn open(
    batch: &Batch,
    path: &Path,
    also: impl io::Write + Send + 'static,
) -> Result<(Copier, io::PipeWriter), BatchError> {
    let full = batch.directory.join(path);
    let mut options = OpenOptions::new();
    options.write(true).create(true).custom_flags(nix::libc::O_NOCTTY);
    // Several tasks may append to one file: each write goes to its end.
    options.append(batch.append).truncate(!batch.append);
    let file = options.open(&full).map_err(failed(full.display().to_string()))?;
    let (reader, writer) = io::pipe().map_err(failed("a pipe"))?;
    let copier = Copier::new(reader, file, full, Box::new(also)).map_err(failed("a pipe"))?;
    Ok((copier, writer))
}

#[expect(clippy::disallowed_methods, reason = "a batch script's files are the user's own")]
fn open_input(batch: &Batch) -> Result<File, BatchError> {
    let path =
        batch.input.as_ref().map_or_else(|| PathBuf::from("/dev/null"), |path| batch.directory.join(path));
    File::open(&path).map_err(failed(path.display().to_string()))
}

#[expect(clippy::disallowed_methods, reason = "a batch script's files are the user's own")]
fn write_script(path: &Path, text: &str) -> io::Result<()> {
    use io::Write as _;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o700).open(path)?;
    file.write_all(text.as_bytes())?;
    // The mode of an open is cut by the umask.
    file.set_permissions(Permissions::from_mode(0o700))
}

#[expect(clippy::disallowed_methods, reason = "a task's process starts the script it is for")]
fn spawn(
    batch: &Batch,
    input: File,
    output: io::PipeWriter,
    error: io::PipeWriter,
) -> Result<Child, BatchError> {
    let mut command = Command::new(&batch.script_path);
    command.args(&batch.args).envs(batch.env.iter().cloned()).current_dir(&batch.directory);
    command.stdin(Stdio::from(input)).stdout(Stdio::from(output)).stderr(Stdio::from(error));
    command.spawn().map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ENOENT | nix::libc::EACCES) => {
            let first = batch.script.lines().next().unwrap_or_default();
            let what = format!("the script's interpreter `{}`", first.trim_start_matches("#!").trim());
            BatchError { what, error }
        }
        _ => BatchError { what: batch.script_path.display().to_string(), error },
    })
}

/// Takes this process's place by a command; returns only where that failed.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a command in the place of this process")]
pub fn replace(argv: &[String], env: &[(String, String)], directory: Option<&Path>) -> BatchError {
    let Some((program, args)) = argv.split_first() else {
        return failed("the command")(io::ErrorKind::InvalidInput.into());
    };
    let mut command = Command::new(program);
    command.args(args).envs(env.iter().cloned());
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    failed(program.clone())(command.exec())
}

/// Registers this process, whose number its successor by [`replace`] keeps, for
/// a signal to the steps of its script.
#[expect(clippy::disallowed_methods, reason = "a task's own directory")]
pub fn register(steps: &Path) -> io::Result<()> {
    File::create(steps.join(Pid::this().to_string())).map(|_| ())
}

/// Makes a directory, and in it a link to a program under another name.
#[expect(clippy::disallowed_methods, reason = "a task's own directory")]
pub fn link(program: &Path, directory: &Path, name: &str) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    match std::os::unix::fs::symlink(program, directory.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Makes the directory that [`register`] writes to.
#[expect(clippy::disallowed_methods, reason = "a task's own directory")]
pub fn make_steps(steps: &Path) -> io::Result<()> {
    std::fs::create_dir_all(steps)
}

fn signal_of(name: &str) -> io::Result<Signal> {
    let unknown = || io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` is no signal"));
    match name.parse::<i32>() {
        Ok(number) => Signal::try_from(number).map_err(|_| unknown()),
        Err(_) => Signal::from_str(&format!("SIG{name}")).map_err(|_| unknown()),
    }
}

/// Sends the signal to the script, or to what it started by srun. Whoever is
/// gone needs none.
fn warn(child: &Child, signal: Option<Signal>, steps: Option<&Path>) {
    let Some(steps) = steps else {
        if let Ok(pid) = i32::try_from(child.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        return;
    };
    for pid in registered(steps) {
        // A number may have been given to a stranger since.
        if getpgid(Some(pid)) == Ok(getpgrp()) {
            let _ = kill(pid, signal);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a task's own directory")]
fn registered(steps: &Path) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir(steps) else { return Vec::new() };
    let names = entries.take(STEPS_MAX).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).filter(|pid| *pid > 1).map(Pid::from_raw).collect()
}
