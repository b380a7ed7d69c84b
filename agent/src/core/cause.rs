//! Why an attempt ended, in one line for a person.

use proto::v1::{Cause, CauseKind, CheckpointId, State};
use world::processes::Exit;

/// A failure on the way, before it has a node to its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Decides which budget pays for another try.
    pub kind: CauseKind,
    /// One line.
    pub text: String,
}

impl Fault {
    /// Two in one.
    #[must_use]
    pub fn new(kind: CauseKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// Why a work directory could not be made ready.
#[derive(Clone, Debug, PartialEq)]
pub struct StageFault {
    /// What is reported.
    pub fault: Fault,
    /// The checkpoint that it was to go on from is not what it was.
    pub lost_checkpoint: Option<CheckpointId>,
}
impl From<Fault> for StageFault {
    fn from(fault: Fault) -> Self {
        Self { fault, lost_checkpoint: None }
    }
}

/// The cause of an end by the process's own doing: code 0 is success.
#[must_use]
pub fn of_exit(exit: &Exit, memory_bytes: u64) -> Fault {
    if exit.signal == 0 && exit.code == 0 {
        return Fault::new(CauseKind::Succeeded, "exit code 0");
    }
    let how = if exit.signal == 0 {
        format!("exit code {}", exit.code)
    } else {
        format!("killed by signal {}{}", exit.signal, signal_name(exit.signal))
    };
    // A guess: nothing says that memory was short, but a program that failed
    // with nearly all of its memory in use most likely met the limit.
    if memory_bytes > 0 && exit.max_rss_bytes >= memory_bytes / 10 * 9 {
        let limit = bytes_text(memory_bytes);
        let used = bytes_text(exit.max_rss_bytes);
        return Fault::new(CauseKind::OutOfMemory, format!("used {used} of its {limit} of memory; {how}"));
    }
    let kind = if exit.signal == 0 { CauseKind::Exit } else { CauseKind::Signal };
    Fault::new(kind, how)
}

/// What a shell says of a program that is not there.
const NOT_FOUND: i32 = 127;
/// What a shell says of one that is there and cannot be run.
const NOT_RUNNABLE: i32 = 126;

/// The cause of a launch that failed, with the exit code that a shell would
/// give. What the supervisor says of its own state or of files that this agent
/// laid is no fault of the work, and has no code.
#[must_use]
pub fn of_launch(error: &str, program: &str) -> (Fault, i32) {
    const OURS: [&str; 6] = [
        "its working directory",
        "its output",
        "it failed,",
        "a process of this key",
        "the supervisor",
        "the contexts",
    ];
    if OURS.iter().any(|start| error.starts_with(start)) {
        return (Fault::new(CauseKind::StagingFailed, error), 0);
    }
    let absent = error.contains("not found") || error.contains("No such file");
    let (text, code) = if absent {
        (format!("program `{program}` not found"), NOT_FOUND)
    } else {
        (one_line(error), NOT_RUNNABLE)
    };
    (Fault::new(CauseKind::LaunchFailed, text), code)
}

/// The state a Hello shows for an attempt that ended so.
#[must_use]
pub fn state_of(kind: CauseKind) -> State {
    match kind {
        CauseKind::Succeeded => State::Completed,
        CauseKind::CancelledByUser => State::Cancelled,
        _ => State::Failed,
    }
}

/// The cause as reported: with the node and the process's own end.
#[must_use]
pub fn reported(fault: Fault, exit: &Exit, node: &str) -> Cause {
    Cause {
        kind: fault.kind.into(),
        text: one_line(&fault.text),
        exit_code: if exit.signal == 0 { exit.code } else { 0 },
        signal: exit.signal,
        node: node.to_owned(),
    }
}

/// A span as a person reads it: `90s`, `1.5s`.
#[must_use]
pub fn span_text(milliseconds: u64) -> String {
    if milliseconds.is_multiple_of(1_000) {
        format!("{}s", milliseconds / 1_000)
    } else {
        format!("{}.{:03}s", milliseconds / 1_000, milliseconds % 1_000)
    }
}

fn bytes_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in UNITS {
        if bytes >= unit {
            let tenths = bytes * 10 / unit;
            return if tenths.is_multiple_of(10) {
                format!("{}{name}", tenths / 10)
            } else {
                format!("{}.{}{name}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes}B")
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(exit: Exit, memory_bytes: u64) -> (CauseKind, String) {
        let fault = of_exit(&exit, memory_bytes);
        (fault.kind, fault.text)
    }

    #[test]
    fn causes_read_as_a_person_would_say_them() {
        let code = Exit { code: 3, ..Exit::default() };
        let killed = Exit { signal: 9, max_rss_bytes: 63 << 20, ..Exit::default() };
        assert_eq!(text(code, 0), (CauseKind::Exit, "exit code 3".into()));
        assert_eq!(text(killed, 0), (CauseKind::Signal, "killed by signal 9 (SIGKILL)".into()));
        let (kind, line) = text(killed, 64 << 20);
        assert_eq!(kind, CauseKind::OutOfMemory);
        assert_eq!(line, "used 63MiB of its 64MiB of memory; killed by signal 9 (SIGKILL)");
        let launch = |error: &str| {
            let (fault, code) = of_launch(error, "foo");
            (fault.kind, fault.text, code)
        };
        assert_eq!(
            launch("foo: No such file or directory"),
            (CauseKind::LaunchFailed, "program `foo` not found".to_owned(), 127)
        );
        let barred = "program /foo may not be executed";
        assert_eq!(launch(barred), (CauseKind::LaunchFailed, barred.to_owned(), 126));
        let ours = "its output /x cannot be opened: full";
        assert_eq!(launch(ours), (CauseKind::StagingFailed, ours.to_owned(), 0));
        assert_eq!(span_text(90_000), "90s");
        assert_eq!(span_text(1_500), "1.500s");
    }

    #[test]
    fn success_with_all_memory_in_use_is_success() {
        let exit = Exit { max_rss_bytes: 64 << 20, ..Exit::default() };
        assert_eq!(text(exit, 64 << 20).0, CauseKind::Succeeded);
    }
}
