//! The terminal as the console needs it, and as it was before.
//!
//! What must hold: however the console ends (done, an error, a panic, a signal
//! that was caught), the terminal is given back as it was found: out of the
//! alternate screen, cursor shown, line editing and echo on. So [`Screen`] gives
//! it back when dropped, and a panic gives it back before it is told, since the
//! telling would be lost on the alternate screen.

use crossterm::{
    cursor, event, execute,
    terminal::{
        Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
    },
};
use ratatui::{Terminal, backend::CrosstermBackend};
use std::{
    io::{self, BufWriter, Write},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

/// Whether the terminal is ours now.
static TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal's way out: a frame is one write, and once the terminal is given
/// back, nothing that was still to be drawn gets to it.
#[derive(Debug, Default)]
pub struct Frames(());

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if is_lost() { Ok(bytes.len()) } else { io::stdout().write(bytes) }
    }
    fn flush(&mut self) -> io::Result<()> {
        if is_lost() { Ok(()) } else { io::stdout().flush() }
    }
}

/// Bytes of a frame before it is written in parts.
const FRAME_BYTES: usize = 256 << 10;

/// The whole terminal, until dropped. There is one at a time.
#[derive(Debug)]
pub struct Screen {
    /// Where frames are drawn.
    pub terminal: Terminal<CrosstermBackend<BufWriter<Frames>>>,
}

impl Screen {
    /// Takes the terminal. On an error it is as it was.
    pub fn enter() -> io::Result<Self> {
        HOOK.call_once(restore_in_panics);
        let taken = TAKEN.swap(true, Ordering::SeqCst);
        assert!(!taken, "one screen at a time");
        if let Err(error) = enable_raw_mode() {
            // Nothing was changed and nothing is given back: standard output may
            // be a pipe.
            TAKEN.store(false, Ordering::SeqCst);
            return Err(error);
        }
        match take() {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                // The error that stood in the way is the one to tell.
                let _ = restore();
                Err(error)
            }
        }
    }

    /// Gives the terminal back, and tells where that failed.
    pub fn leave(self) -> io::Result<()> {
        restore()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal is gone there is nobody to tell.
        let _ = restore();
    }
}

fn take() -> io::Result<Terminal<CrosstermBackend<BufWriter<Frames>>>> {
    let clear = Clear(ClearType::All);
    execute!(io::stdout(), EnterAlternateScreen, event::EnableBracketedPaste, cursor::Hide, clear)?;
    // Not the terminal's own way to clear, which asks for the cursor's place and
    // waits for an answer that not every terminal gives.
    Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(FRAME_BYTES, Frames::default())))
}

/// Gives the terminal back; a second time changes nothing.
fn restore() -> io::Result<()> {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return Ok(());
    }
    // Each is tried, whatever became of the one before.
    let drawn = give_back(&mut io::stdout());
    let mode = disable_raw_mode();
    drawn.and(mode)
}

fn give_back(out: &mut impl Write) -> io::Result<()> {
    execute!(out, event::DisableBracketedPaste, LeaveAlternateScreen, cursor::Show)
}

fn restore_in_panics() {
    let told = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let _ = restore();
        told(info);
    }));
}

/// Whether a panic anywhere has given the terminal back while a [`Screen`] is
/// still held: nothing more may be drawn then.
#[must_use]
pub fn is_lost() -> bool {
    !TAKEN.load(Ordering::SeqCst)
}
