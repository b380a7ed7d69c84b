//! The terminal is given back however the console ends. Each case runs this
//! program itself in a terminal of its own, with the case's name as argument.
#![allow(clippy::disallowed_methods, reason = "tests stand outside the world they drive")]

#[path = "support/pty.rs"]
mod pty;

use pty::{InTerminal, Left};
use std::io::Read as _;
use std::process::{Command, ExitCode, Stdio};
use tui::terminal::{self, Screen};

/// A name, and what must hold at its end.
type Case = (&'static str, fn(&Left));

const CASES: [Case; 4] = [
    ("done", |left| assert!(left.status.success(), "{:?}", left.written)),
    ("dropped", |left| assert!(left.status.success(), "{:?}", left.written)),
    ("panic", |left| {
        assert_eq!(left.status.code(), Some(101));
        // The panic is told where it can be read.
        assert!(left.said_after().contains("a panic on purpose"), "{:?}", left.written);
    }),
    ("elsewhere", |left| {
        assert!(left.status.success(), "{:?}", left.written);
        assert!(left.said_after().contains("another thread's panic"), "{:?}", left.written);
    }),
];

fn main() -> ExitCode {
    let case = std::env::args().nth(1);
    if let Some(name) = case.filter(|case| CASES.iter().any(|(name, _)| name == case)) {
        return run(&name);
    }
    for (name, check) in CASES {
        let program = std::env::current_exe().unwrap();
        let running = InTerminal::start(Command::new(program).arg(name).env("RUST_BACKTRACE", "0"));
        let left = running.wait();
        left.assert_given_back();
        check(&left);
        println!("given back: {name}");
    }
    without_a_terminal();
    ExitCode::SUCCESS
}

fn run(case: &str) -> ExitCode {
    let mut screen = Screen::enter().unwrap();
    screen
        .terminal
        .draw(|frame| frame.buffer_mut().set_string(0, 0, case, ratatui::style::Style::new()))
        .unwrap();
    match case {
        "done" => {
            screen.leave().unwrap();
            // Given back, it can be taken again.
            Screen::enter().unwrap().leave().unwrap();
        }
        "dropped" => drop(screen),
        "panic" => panic!("a panic on purpose"),
        _ => {
            let other = std::thread::spawn(|| panic!("another thread's panic"));
            assert!(other.join().is_err());
            assert!(terminal::is_lost());
        }
    }
    ExitCode::SUCCESS
}

/// Without a terminal the screen is refused, and nothing of it is written.
fn without_a_terminal() {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.arg("done").env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    assert_eq!(pty::end_of(&mut child).and_then(|status| status.code()), Some(101));
    let mut written = String::new();
    child.stdout.take().unwrap().read_to_string(&mut written).unwrap();
    assert_eq!(written, "");
    println!("refused without a terminal");
}
