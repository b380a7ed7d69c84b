//! A terminal of the test's own: a program runs in it, what it writes is kept,
//! and how it leaves the terminal can be seen.
#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

use nix::{
    pty::{Winsize, openpty},
    sys::termios::{self, Termios},
};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// How long anything may take before its test fails.
const DEADLINE: Duration = Duration::from_secs(90);

/// What a console writes when it takes the screen, and when it gives it back.
pub const TAKEN: &str = "\x1b[?1049h";
pub const GIVEN_BACK: &str = "\x1b[?1049l";
const THE_END: &str = "(the test's own last words)";
const CURSOR_HIDDEN: &str = "\x1b[?25l";
const CURSOR_SHOWN: &str = "\x1b[?25h";

/// A program in a terminal.
pub struct InTerminal {
    child: Child,
    keyboard: File,
    /// Kept open, so that the terminal outlives the program.
    terminal: OwnedFd,
    before: Termios,
    written: Arc<Mutex<Vec<u8>>>,
}

/// How it ended.
pub struct Left {
    pub status: ExitStatus,
    /// All that it wrote.
    pub written: String,
    before: Termios,
    after: Termios,
}

/// How a program ended; it is killed where it does not.
pub fn end_of(child: &mut Child) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if begun.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl InTerminal {
    /// Starts a program in a new terminal of 80 columns and 24 rows.
    pub fn start(command: &mut Command) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let before = termios::tcgetattr(&pty.slave).unwrap();
        let end = || pty.slave.try_clone().unwrap();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let mut screen = File::from(pty.master);
        let keyboard = screen.try_clone().unwrap();
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        let sink = Arc::clone(&written);
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(read @ 1..) = screen.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Self { child, keyboard, terminal: pty.slave, before, written }
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What it wrote so far.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until it has written this.
    #[track_caller]
    pub fn until_written(&self, text: &str) {
        let begun = Instant::now();
        while !self.written().contains(text) {
            assert!(begun.elapsed() < DEADLINE, "{text:?} was not written:\n{:?}", self.written());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether keys come as they are typed, without echo.
    pub fn is_raw(&self) -> bool {
        let now = termios::tcgetattr(&self.terminal).unwrap();
        !now.local_flags.intersects(termios::LocalFlags::ICANON | termios::LocalFlags::ECHO)
    }

    /// Its end.
    #[track_caller]
    pub fn wait(mut self) -> Left {
        let Some(status) = end_of(&mut self.child) else {
            panic!("it does not end:\n{:?}", self.written());
        };
        let after = termios::tcgetattr(&self.terminal).unwrap();
        // What is written last comes last: then all of it was read. The terminal's
        // own end is no sign, since other tests' children may hold it open too.
        File::from(self.terminal.try_clone().unwrap()).write_all(THE_END.as_bytes()).unwrap();
        self.until_written(THE_END);
        let written = self.written().replace(THE_END, "");
        Left { status, written, before: self.before.clone(), after }
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        // Where its test failed, nothing outlives it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Left {
    /// The terminal is as it was: modes, screen and cursor.
    #[track_caller]
    pub fn assert_given_back(&self) {
        let modes = |of: &Termios| {
            (of.input_flags, of.output_flags, of.control_flags, of.local_flags, of.control_chars)
        };
        assert_eq!(modes(&self.before), modes(&self.after), "{:?}", self.written);
        let last = |text: &str| self.written.rfind(text);
        assert!(last(TAKEN).is_some(), "the screen was never taken: {:?}", self.written);
        assert!(last(GIVEN_BACK) > last(TAKEN), "the screen was kept: {:?}", self.written);
        assert!(last(CURSOR_SHOWN) > last(CURSOR_HIDDEN), "no cursor: {:?}", self.written);
    }

    /// What it wrote after it gave the screen back, as lines.
    pub fn said_after(&self) -> &str {
        self.written.rsplit(GIVEN_BACK).next().unwrap_or_default()
    }
}
