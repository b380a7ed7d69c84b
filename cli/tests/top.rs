//! `drumline top` as people use it: in a terminal of the test's own, and driven
//! by tmux against a live cluster.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

#[path = "../../tui/tests/support/pty.rs"]
mod pty;
mod support;

use pty::{InTerminal, TAKEN};
use std::process::Command;
use support::{Cluster, DEADLINE, Dir, drumline, processes, run};

/// The console of a cluster, in a terminal that can do everything.
fn top(cluster: &Cluster) -> Command {
    let mut command = cluster.command(&["top"]);
    command.env("TERM", "xterm-256color");
    command
}

// ------------------------------------------------------------------ where it ends

#[test]
fn it_gives_the_terminal_back_when_it_ends_or_is_ended() {
    let cluster = Cluster::bare("top-ends");
    for (signal, code) in [("", 0), ("INT", 130), ("TERM", 143), ("HUP", 129), ("QUIT", 131)] {
        let mut console = InTerminal::start(&mut top(&cluster));
        console.until_written("RECENT");
        assert!(console.is_raw());
        match signal {
            "" => console.press("q"),
            signal => processes::signal(signal, &[console.pid()]),
        }
        let left = console.wait();
        assert_eq!(left.status.code(), Some(code), "{signal}: {:?}", left.written);
        left.assert_given_back();
        assert_eq!(left.said_after().replace("\x1b[?25h", ""), "", "{signal}");
    }
}

#[test]
fn ctrl_c_is_a_key_that_ends_it_also_while_a_filter_is_written() {
    let cluster = Cluster::bare("top-ctrl-c");
    let mut console = InTerminal::start(&mut top(&cluster));
    console.until_written("RECENT");
    console.press("2/abc");
    console.until_written("filter:");
    console.press("\x03");
    let left = console.wait();
    assert_eq!(left.status.code(), Some(0));
    left.assert_given_back();
}

#[test]
fn colours_only_where_they_are_wanted() {
    let cluster = Cluster::new("top-colours", 1, "2");
    for (value, wanted) in [("", true), ("1", false)] {
        let mut command = top(&cluster);
        let mut console = InTerminal::start(command.env("NO_COLOR", value));
        console.until_written("ready");
        console.press("q");
        let left = console.wait();
        left.assert_given_back();
        assert_eq!(is_coloured(&left.written), wanted, "{:?}", left.written);
    }
}

/// Whether a colour is ever chosen: CSI 38;… m or 48;… m. (39 and 49 are the
/// terminal's own.)
fn is_coloured(written: &str) -> bool {
    let sequences = written.split("\x1b[").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        rest[end..].starts_with('m').then_some(&rest[..end])
    });
    sequences.into_iter().any(|numbers| numbers.starts_with("38;") || numbers.starts_with("48;"))
}

#[test]
fn where_it_cannot_be_shown_it_says_so_and_touches_nothing() {
    let cluster = Cluster::bare("top-refused");
    let mut piped = top(&cluster);
    run(&mut piped).says(2, &["standard output is no terminal", "drumline ls"]);
    for term in ["dumb", ""] {
        let left = InTerminal::start(top(&cluster).env("TERM", term)).wait();
        assert_eq!(left.status.code(), Some(2), "{}", left.written);
        assert!(left.written.contains("TERM") && left.written.contains("xterm-256color"), "{}", left.written);
        assert!(!left.written.contains('\x1b'), "{:?}", left.written);
    }
    // A server that was never there is told before the screen is taken.
    let mut nowhere = drumline();
    nowhere.args(["top", "--server", "127.0.0.1:1", "--token", "dl_x"]).env("TERM", "xterm-256color");
    let left = InTerminal::start(&mut nowhere).wait();
    assert_eq!(left.status.code(), Some(4), "{}", left.written);
    assert!(!left.written.contains(TAKEN) && left.written.contains("127.0.0.1:1"), "{}", left.written);
}

// ------------------------------------------------------------------------ by tmux

/// A tmux server of the test's own.
struct Tmux {
    dir: Dir,
}

impl Tmux {
    fn start(columns: u16, rows: u16, shell: &mut Command) -> Self {
        assert!(
            Command::new("tmux").arg("-V").output().is_ok_and(|done| done.status.success()),
            "this test drives the console with tmux, which is not here; install it with `apt-get install tmux`"
        );
        let tmux = Self { dir: Dir::new("tmux") };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        // The command line is the shell's; its environment is this command's.
        let mut command = tmux.command(&["new-session", "-d", "-x", &columns, "-y", &rows]);
        command.envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.arg("sh");
        run(&mut command).ok();
        tmux.until_prompt();
        tmux
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("LC_ALL", "C.UTF-8");
        command
            .env("PS1", "$ ")
            .arg("-S")
            .arg(self.dir.join("socket"))
            .args(["-u", "-f", "/dev/null"])
            .args(args);
        command
    }

    fn call(&self, args: &[&str]) -> String {
        run(&mut self.command(args)).ok().stdout
    }

    fn press(&self, keys: &[&str]) {
        self.call(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        self.call(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as it should be.
    #[track_caller]
    fn until(&self, what: &str, so: impl Fn(&str) -> bool) -> String {
        let begun = std::time::Instant::now();
        loop {
            let screen = self.screen();
            if so(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < DEADLINE, "not seen: {what}\n{screen}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Waits until the shell takes the keys; before, a console may still do.
    #[track_caller]
    fn until_prompt(&self) -> String {
        let is_prompt = |line: &str| matches!(line.trim(), "$" | "#");
        self.until("a shell's prompt", |screen| screen.trim_end().lines().last().is_some_and(is_prompt))
    }

    #[track_caller]
    fn until_shown(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text))
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]).output();
    }
}

/// The line of the screen that has this.
fn line<'a>(screen: &'a str, text: &str) -> &'a str {
    screen.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text} in:\n{screen}"))
}

#[test]
fn a_job_is_found_opened_read_and_cancelled() {
    let cluster = Cluster::new("top-tmux", 1, "2");
    let done = cluster.submit(&["--", "echo", "the first job"]);
    cluster.until_state(&done, "COMPLETED");
    let tmux = Tmux::start(100, 30, &mut cluster.command(&[]));
    tmux.press(&["echo before the console", "Enter"]);
    tmux.until_shown("\nbefore the console");
    tmux.press(&[&format!("{} top", env!("CARGO_BIN_EXE_drumline")), "Enter"]);
    let screen = tmux.until_shown("1 ready");
    assert!(line(&screen, "cores").contains("of 2"), "{screen}");

    // A job that was there, and one that comes while one looks.
    tmux.press(&["2"]);
    tmux.until(&format!("{done} in the list"), |screen| {
        screen.contains(&done) && screen.contains("COMPLETED") && screen.contains("1/1")
    });
    let flag = cluster.dir.join("flag");
    let script =
        format!("echo one; echo two >&2; while [ ! -e {} ]; do sleep 0.05; done; echo three", flag.display());
    let id = cluster.submit(&["--", "sh", "-c", &script]);
    tmux.until(&format!("{id} runs"), |screen| {
        screen.lines().any(|line| line.contains(&id) && line.contains("RUNNING"))
    });

    // The cursor stayed with the first job; the filter finds the other.
    tmux.press(&["/", &id, "Enter"]);
    tmux.until_shown("1 of 2 jobs");
    tmux.press(&["Enter"]);
    tmux.until_shown("main | two");
    let screen = tmux.until_shown("main | one");
    assert!(line(&screen, "job  ").contains(&id) && line(&screen, "state").contains("RUNNING"), "{screen}");

    // The log as it comes, all over the screen, in a window of another size.
    tmux.press(&["l"]);
    tmux.until("only the log", |screen| screen.contains("LOG") && !screen.contains("PENDING"));
    tmux.call(&["resize-window", "-x", "80", "-y", "12"]);
    std::fs::write(&flag, "").unwrap();
    tmux.until_shown("main | three");
    tmux.until_shown("whole");
    tmux.call(&["resize-window", "-x", "100", "-y", "30"]);
    tmux.press(&["Escape"]);
    tmux.until_shown("exit code 0");

    // Another is cancelled: asked before, not done by a no, done by a yes.
    let id = cluster.submit(&["--", "sh", "-c", "echo begun; sleep 600"]);
    tmux.press(&["Escape"]);
    tmux.until_shown("1 of 3 jobs");
    tmux.press(&["Escape"]);
    tmux.until(&format!("{id} runs"), |screen| {
        screen.lines().any(|line| line.contains(&id) && line.contains("RUNNING"))
    });
    tmux.press(&["g", "c"]);
    tmux.until_shown(&format!("Cancel {id}"));
    tmux.press(&["n"]);
    tmux.until("no question", |screen| !screen.contains(&format!("Cancel {id}")));
    assert_eq!(cluster.state(&id), "RUNNING");
    tmux.press(&["c"]);
    tmux.until_shown(&format!("Cancel {id}"));
    tmux.press(&["y"]);
    tmux.until(&format!("{id} is cancelled"), |screen| {
        screen.lines().any(|line| line.contains(&id) && line.contains("CANCELLED"))
    });
    cluster.until_state(&id, "CANCELLED");
    tmux.press(&["w"]);
    tmux.until_shown("cancelled by");

    // Back in the shell, with what was on the screen before.
    tmux.press(&["q"]);
    let screen = tmux.until_prompt();
    assert!(screen.contains("\nbefore the console"), "{screen}");
    assert!(!screen.contains("overview"), "{screen}");
    tmux.press(&["echo code=$?", "Enter"]);
    tmux.until_shown("\ncode=0");
}

#[test]
fn a_server_that_goes_away_is_waited_for_and_its_history_taken_up() {
    let mut cluster = Cluster::new("top-away", 1, "2");
    let first = cluster.submit(&["--", "true"]);
    cluster.until_state(&first, "COMPLETED");
    let tmux = Tmux::start(140, 30, &mut cluster.command(&[]));
    tmux.press(&[&format!("{} top", env!("CARGO_BIN_EXE_drumline")), "Enter"]);
    tmux.until_shown("1 completed");
    cluster.server.kill();
    tmux.until_shown("out of reach since");
    // Keys work all the while.
    tmux.press(&["2"]);
    tmux.until_shown(&first);
    cluster.server.restart();
    tmux.until("it is heard again", |screen| !screen.contains("out of reach"));
    let second = cluster.submit(&["--", "true"]);
    tmux.until(&format!("{second} is over"), |screen| {
        screen.lines().any(|line| line.contains(&second) && line.contains("COMPLETED"))
    });
    tmux.press(&["q"]);
    tmux.until_prompt();
    tmux.press(&["echo code=$?", "Enter"]);
    tmux.until_shown("\ncode=0");
}
