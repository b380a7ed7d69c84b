//! Which key does what, where: the one table that input, the line of hints and
//! the help screen follow.

use super::{model::Screen, window::Move};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Quit,
    Help,
    Show(Screen),
    NextScreen,
    EarlierScreen,
    Go(Move),
    Aside { right: bool },
    Open,
    Back,
    Filter,
    State { back: bool },
    Cancel,
    Why,
    Log,
    Steps,
}

/// One line of the table.
pub(crate) struct Binding {
    keys: &'static [Key],
    /// As people write the keys.
    pub shown: &'static str,
    pub help: &'static str,
    /// One word for the line of hints, where it has a place there.
    pub hint: &'static str,
    pub action: Action,
    pub on: &'static [Screen],
}

#[derive(Clone, Copy)]
struct Key(KeyCode, bool);

const fn key(code: KeyCode) -> Key {
    Key(code, false)
}
const fn char(char: char) -> Key {
    Key(KeyCode::Char(char), false)
}
const fn ctrl(char: char) -> Key {
    Key(KeyCode::Char(char), true)
}

const ALL: &[Screen] = &[Screen::Overview, Screen::Jobs, Screen::Nodes, Screen::Job];
const LISTS: &[Screen] = &[Screen::Jobs, Screen::Nodes];
const MOVES: &[Screen] = &[Screen::Jobs, Screen::Nodes, Screen::Job];
const JOBS: &[Screen] = &[Screen::Jobs];
const JOB: &[Screen] = &[Screen::Job];
const OF_JOBS: &[Screen] = &[Screen::Jobs, Screen::Job];

#[rustfmt::skip]
pub(crate) const BINDINGS: &[Binding] = &[
    Binding { keys: &[char('1')], shown: "1", help: "overview: totals, pools, what happened", hint: "", action: Action::Show(Screen::Overview), on: ALL },
    Binding { keys: &[char('2')], shown: "2", help: "jobs", hint: "", action: Action::Show(Screen::Jobs), on: ALL },
    Binding { keys: &[char('3')], shown: "3", help: "nodes", hint: "", action: Action::Show(Screen::Nodes), on: ALL },
    Binding { keys: &[key(KeyCode::Tab)], shown: "Tab", help: "next screen", hint: "screens", action: Action::NextScreen, on: ALL },
    Binding { keys: &[key(KeyCode::BackTab)], shown: "Shift-Tab", help: "screen before", hint: "", action: Action::EarlierScreen, on: ALL },
    Binding { keys: &[key(KeyCode::Up), char('k')], shown: "↑ k", help: "up", hint: "", action: Action::Go(Move::Up), on: MOVES },
    Binding { keys: &[key(KeyCode::Down), char('j')], shown: "↓ j", help: "down", hint: "", action: Action::Go(Move::Down), on: MOVES },
    Binding { keys: &[key(KeyCode::PageUp), ctrl('b'), ctrl('u')], shown: "PgUp Ctrl-B", help: "a page up", hint: "", action: Action::Go(Move::PageUp), on: MOVES },
    Binding { keys: &[key(KeyCode::PageDown), ctrl('f'), ctrl('d')], shown: "PgDn Ctrl-F", help: "a page down", hint: "", action: Action::Go(Move::PageDown), on: MOVES },
    Binding { keys: &[key(KeyCode::Home), char('g')], shown: "Home g", help: "to the first", hint: "", action: Action::Go(Move::Home), on: MOVES },
    Binding { keys: &[key(KeyCode::End), char('G')], shown: "End G", help: "to the last; a log goes along again", hint: "", action: Action::Go(Move::End), on: MOVES },
    Binding { keys: &[key(KeyCode::Left)], shown: "←", help: "log: the part on the left", hint: "", action: Action::Aside { right: false }, on: JOB },
    Binding { keys: &[key(KeyCode::Right)], shown: "→", help: "log: the part on the right", hint: "", action: Action::Aside { right: true }, on: JOB },
    Binding { keys: &[key(KeyCode::Enter)], shown: "Enter", help: "open the job", hint: "open", action: Action::Open, on: JOBS },
    Binding { keys: &[char('/')], shown: "/", help: "filter by a text in id or name; Enter keeps it", hint: "filter", action: Action::Filter, on: LISTS },
    Binding { keys: &[char('f')], shown: "f", help: "only jobs in one state: the next state", hint: "state", action: Action::State { back: false }, on: JOBS },
    Binding { keys: &[char('F')], shown: "F", help: "likewise, the state before", hint: "", action: Action::State { back: true }, on: JOBS },
    Binding { keys: &[char('l')], shown: "l", help: "the job's log, all over; again: all parts", hint: "log", action: Action::Log, on: OF_JOBS },
    Binding { keys: &[char('w')], shown: "w", help: "why it waits, or what became of it", hint: "why", action: Action::Why, on: OF_JOBS },
    Binding { keys: &[char('s')], shown: "s", help: "the job's steps, all over", hint: "steps", action: Action::Steps, on: JOB },
    Binding { keys: &[char('c')], shown: "c", help: "cancel the job; asks before", hint: "cancel", action: Action::Cancel, on: OF_JOBS },
    Binding { keys: &[key(KeyCode::Esc)], shown: "Esc", help: "back; without the filter", hint: "back", action: Action::Back, on: MOVES },
    Binding { keys: &[char('?')], shown: "?", help: "this help", hint: "help", action: Action::Help, on: ALL },
    Binding { keys: &[char('q'), ctrl('c')], shown: "q Ctrl-C", help: "quit", hint: "quit", action: Action::Quit, on: ALL },
];

/// What a key does on a screen.
pub(crate) fn action(event: &KeyEvent, screen: Screen) -> Option<Action> {
    let held = event.modifiers.contains(KeyModifiers::CONTROL);
    if event.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    let hit = |key: &Key| key.0 == event.code && key.1 == held;
    let found = BINDINGS.iter().find(|binding| binding.on.contains(&screen) && binding.keys.iter().any(hit));
    found.map(|binding| binding.action)
}

/// The one key that works everywhere, also while something is written.
pub(crate) fn is_interrupt(event: &KeyEvent) -> bool {
    event.code == KeyCode::Char('c') && event.modifiers.contains(KeyModifiers::CONTROL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_has_two_meanings_on_one_screen() {
        for screen in ALL {
            let mut seen = Vec::new();
            for binding in BINDINGS.iter().filter(|binding| binding.on.contains(screen)) {
                for key in binding.keys {
                    assert!(!seen.contains(&(key.0, key.1)), "{screen:?}: {}", binding.shown);
                    seen.push((key.0, key.1));
                }
            }
        }
    }
}
