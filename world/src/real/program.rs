//! A program of this machine, started anew for each text: it has it on standard input, and
//! answers on standard output with exit code 0. What it says on standard error is the reason
//! where it fails.
//!
//! What must hold: it never outlives its deadline, nor whoever asked. It is told to end by
//! TERM, and by KILL where it does not; both reach all that it started in its process group.

use crate::{
    limits::{PROGRAM_ANSWER_BYTES_MAX, PROGRAM_GRACE, PROGRAM_LEFT_OPEN, PROGRAM_LOOK, REASON_BYTES_MAX},
    program::{Program, Unanswered},
    time::{Duration, Instant, sleep},
};
use async_trait::async_trait;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct Driver {
    argv: Vec<String>,
    deadline: Duration,
}

impl Driver {
    /// Nothing is started yet.
    #[must_use]
    pub fn new(argv: Vec<String>, deadline: Duration) -> Arc<Self> {
        Arc::new(Self { argv, deadline })
    }
}

#[async_trait]
impl Program for Driver {
    async fn ask(&self, text: String) -> Result<String, Unanswered> {
        let spawned = spawn(&self.argv).map_err(|error| {
            let program = self.argv.first().map_or("", String::as_str);
            Unanswered::NotBegun(format!("{program} cannot be started: {error}"))
        })?;
        let ran = follow(Group(spawned), self.deadline, text.as_bytes()).await;
        let Ran { ended, answer, said } =
            ran.map_err(|error| Unanswered::Failed(format!("it could not be followed: {error}")))?;
        let said = String::from_utf8_lossy(&said.bytes).trim().replace('\n', "; ");
        let because = |what: String| if said.is_empty() { what } else { format!("{what}: {said}") };
        match ended {
            Some(status) if !status.success() => Err(Unanswered::Failed(because(status.to_string()))),
            Some(_) if answer.cut => {
                let most = PROGRAM_ANSWER_BYTES_MAX;
                Err(Unanswered::Failed(format!("it answered more than {most} bytes")))
            }
            Some(_) => String::from_utf8(answer.bytes)
                .map_err(|_| Unanswered::Failed("its answer is no text".to_owned())),
            None => {
                let span = self.deadline.as_secs_f32();
                Err(Unanswered::Failed(because(format!("it did not end within {span} s"))))
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an operator's own program")]
fn spawn(argv: &[String]) -> io::Result<Child> {
    let Some((program, args)) = argv.split_first() else { return Err(ErrorKind::InvalidInput.into()) };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).spawn()
}

/// The program with all that it started. Where nobody waits for its end any more it is ended.
struct Group(Child);

impl Group {
    /// Those that are gone already do not matter.
    fn signal(&self, signal: Signal) {
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.signal(Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }
}

struct Ran {
    /// Absent: it was ended.
    ended: Option<ExitStatus>,
    answer: Kept,
    said: Kept,
}

async fn follow(mut group: Group, deadline: Duration, text: &[u8]) -> io::Result<Ran> {
    let child = &mut group.0;
    let (Some(mut input), Some(mut output), Some(mut error)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(ErrorKind::BrokenPipe.into());
    };
    for pipe in [input.as_fd(), output.as_fd(), error.as_fd()] {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    // A pipe takes more than any text of ours, so all of it goes at once or nobody reads.
    match input.write_all(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other?,
    }
    drop(input);
    let (mut answer, mut said) = (Kept::new(PROGRAM_ANSWER_BYTES_MAX), Kept::new(REASON_BYTES_MAX));
    let until = Instant::now() + deadline;
    let mut ended = None;
    let mut told = false;
    loop {
        let open = answer.take(&mut output)? | said.take(&mut error)?;
        let now = Instant::now();
        if let Some((_, at)) = ended {
            // What it left behind may hold the pipes open for ever.
            if !open || now >= at + PROGRAM_LEFT_OPEN {
                break;
            }
        } else if let Some(status) = group.0.try_wait()? {
            ended = Some((status, now));
            continue;
        } else if now >= until + PROGRAM_GRACE {
            break;
        } else if !told && now >= until {
            told = true;
            group.signal(Signal::SIGTERM);
        }
        sleep(PROGRAM_LOOK).await;
    }
    // One that ends because it was told to has not answered.
    Ok(Ran { ended: ended.map(|(status, _)| status).filter(|_| !told), answer, said })
}

/// The beginning of what a pipe brings.
struct Kept {
    bytes: Vec<u8>,
    most: usize,
    cut: bool,
}

impl Kept {
    fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most, cut: false }
    }

    /// Takes what is there. False at the end.
    fn take(&mut self, pipe: &mut impl Read) -> io::Result<bool> {
        let mut block = [0; 4096];
        loop {
            match pipe.read(&mut block) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    let room = (self.most - self.bytes.len()).min(read);
                    self.cut |= room < read;
                    self.bytes.extend_from_slice(&block[..room]);
                    if self.cut {
                        // The rest waits in the pipe, so that nobody writes for ever.
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(script: &str, deadline: Duration) -> Result<String, Unanswered> {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        Driver::new(argv, deadline).ask("a\nb\n".to_owned()).await
    }

    const LONG: Duration = Duration::from_secs(20);

    fn failed(answer: Result<String, Unanswered>) -> String {
        match answer {
            Err(Unanswered::Failed(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn it_has_the_text_and_its_answer_comes_back() {
        assert_eq!(ask("tr a-z A-Z", LONG).await, Ok("A\nB\n".into()));
        assert_eq!(ask("exec true", LONG).await, Ok(String::new()), "nobody need read");
        // What it leaves behind does not hold the answer back.
        assert_eq!(ask("sleep 3 & echo on", LONG).await, Ok("on\n".into()));
    }

    #[tokio::test]
    async fn what_it_says_is_the_reason_where_it_fails() {
        let why = failed(ask("echo no quota >&2; echo here >&2; exit 7", LONG).await);
        assert_eq!(why, "exit status: 7: no quota; here");
        let why = failed(ask("head -c 2000000 /dev/zero", LONG).await);
        assert!(why.contains("more than") || why.contains("signal"), "{why}");
        let none = Driver::new(vec!["/no/such".into()], LONG).ask(String::new()).await;
        assert!(matches!(&none, Err(Unanswered::NotBegun(why)) if why.contains("/no/such")), "{none:?}");
    }

    #[tokio::test]
    async fn past_its_deadline_it_is_ended_with_all_that_it_started() {
        let begun = Instant::now();
        let why = failed(ask("echo at it >&2; sleep 60", Duration::from_millis(200)).await);
        assert_eq!(why, "it did not end within 0.2 s: at it");
        assert!(begun.elapsed() < Duration::from_secs(30), "TERM reached the child of the shell too");
        let why = failed(ask("trap '' TERM; while :; do sleep 1; done", Duration::from_millis(200)).await);
        assert!(why.starts_with("it did not end"), "{why}");
    }
}
