//! The console's shell: the terminal, the keys, the clock and the server around
//! the pure console of `tui`.
//!
//! Messages go in, one at a time, and frames come out where the model wants
//! them. Keys go before all else, so that a flood of news never holds them up;
//! news before frames that follow each other too closely, so that it does not
//! draw what nobody could read.

mod answers;
mod signals;

use crate::{client::Client, commands::Outcome, failure::Failure, limits};
use answers::Answers;
use crossterm::event::{Event, EventStream};
use futures_util::StreamExt as _;
use signals::Signals;
use tui::{
    console::{self, Command, Message, Model, Settings, update, view},
    terminal::{self, Screen},
};
use world::{
    NodeClock as _,
    real::SystemClock,
    select,
    time::{self, Instant},
};

/// What the loop was woken by.
enum Woken {
    Signal(u8),
    Typed(Option<std::io::Result<Event>>),
    Time,
    News(Message),
}

/// Runs the console until the user quits or a signal ends it. The terminal is
/// given back in any case.
pub async fn run(client: Client, settings: Settings) -> Outcome {
    let mut signals = Signals::listen()?;
    let mut screen = Screen::enter().map_err(broken)?;
    let outcome = drive(&mut screen, &mut signals, client, settings).await;
    screen.leave().map_err(broken)?;
    outcome
}

async fn drive(screen: &mut Screen, signals: &mut Signals, client: Client, settings: Settings) -> Outcome {
    let clock = SystemClock::new();
    let size = screen.terminal.size().map_err(broken)?;
    let mut model = Model::new(settings, size.width, size.height, clock.wall_ms());
    let (mut answers, mut news) = Answers::new(client);
    console::start().into_iter().for_each(|command| answers.carry_out(command));
    let mut keys = EventStream::new();
    // Before this, a frame would follow too closely; a key does not wait.
    let mut next_frame = Instant::now();
    loop {
        if model.wants_frame() && Instant::now() >= next_frame {
            draw(screen, &mut model)?;
            next_frame = Instant::now() + limits::CONSOLE_FRAME;
        }
        let wake = wake_at(&model, next_frame, clock.wall_ms());
        let woken = select! { biased;
            code = signals.next() => Woken::Signal(code),
            event = keys.next() => Woken::Typed(event),
            () = time::sleep_until(wake) => Woken::Time,
            Some(message) = news.recv() => Woken::News(message),
            () = answers.reap() => continue,
        };
        let commands = match woken {
            Woken::Signal(code) => return Ok(code),
            Woken::Typed(Some(Ok(event))) => {
                next_frame = Instant::now();
                typed(&mut model, clock.wall_ms(), event)
            }
            // The terminal is gone.
            Woken::Typed(_) => return Ok(signals::HANGUP),
            Woken::Time => update(&mut model, clock.wall_ms(), Message::Tick),
            Woken::News(message) => {
                let mut commands = update(&mut model, clock.wall_ms(), message);
                // What waits already is taken in before the next frame.
                for _ in 0..limits::CONSOLE_QUEUE {
                    let Ok(message) = news.try_recv() else { break };
                    commands.extend(update(&mut model, clock.wall_ms(), message));
                }
                commands
            }
        };
        for command in commands {
            if command == Command::Quit {
                return Ok(crate::failure::EXIT_OK);
            }
            answers.carry_out(command);
        }
    }
}

fn draw(screen: &mut Screen, model: &mut Model) -> Result<(), Failure> {
    if terminal::is_lost() {
        return Err(broken(std::io::Error::other("a part of it panicked; the lines above tell where")));
    }
    screen.terminal.draw(|frame| view(model, frame)).map_err(broken)?;
    model.drawn();
    Ok(())
}

/// When there is something to do though nobody says anything: the next frame,
/// or the moment at which time alone changes what is shown.
fn wake_at(model: &Model, next_frame: Instant, wall_ms: u64) -> Instant {
    if model.wants_frame() {
        return next_frame;
    }
    let now = Instant::now();
    let longest_ms = limits::CONSOLE_REST_MS_MAX;
    let pause_ms = model.due_ms().map_or(longest_ms, |due| due.saturating_sub(wall_ms).min(longest_ms));
    (now + time::ms(pause_ms)).max(next_frame)
}

fn typed(model: &mut Model, at_ms: u64, event: Event) -> Vec<Command> {
    let message = match event {
        Event::Key(key) => Message::Key(key),
        Event::Paste(text) => Message::Paste(text),
        Event::Resize(columns, rows) => Message::Resize { columns, rows },
        Event::FocusGained | Event::FocusLost | Event::Mouse(_) => return Vec::new(),
    };
    update(model, at_ms, message)
}

fn broken(error: std::io::Error) -> Failure {
    Failure::broken("terminal", "", error.to_string(), "look at the terminal, then start it again")
}
