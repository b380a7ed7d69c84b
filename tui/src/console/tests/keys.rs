//! Keys on every screen.

use super::fixture::{draw, full, hit, press, tell, text, with_job};
use crate::console::{
    Command, Message,
    detail::Pane,
    model::{Overlay, Screen},
};
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

#[test]
fn screens_by_number_and_by_tab() {
    let mut model = full(80, 24, true);
    let mut seen = Vec::new();
    for key in ['2', '3', '1'] {
        press(&mut model, &key.to_string());
        seen.push(model.screen);
    }
    assert_eq!(seen, [Screen::Jobs, Screen::Nodes, Screen::Overview]);
    for expected in [Screen::Jobs, Screen::Nodes, Screen::Overview] {
        hit(&mut model, KeyCode::Tab);
        assert_eq!(model.screen, expected);
    }
    hit(&mut model, KeyCode::BackTab);
    assert_eq!(model.screen, Screen::Nodes);
}

#[test]
fn the_cursor_moves_by_arrows_vi_keys_and_pages() {
    let mut model = full(80, 24, true);
    press(&mut model, "2");
    let at = |model: &crate::console::Model| model.jobs.window().at;
    press(&mut model, "jjk");
    hit(&mut model, KeyCode::Down);
    assert_eq!(at(&model), 2);
    hit(&mut model, KeyCode::PageDown);
    assert_eq!(at(&model), 2 + 18);
    press(&mut model, "G");
    assert_eq!(at(&model), 40);
    hit(&mut model, KeyCode::PageUp);
    hit(&mut model, KeyCode::Up);
    assert_eq!(at(&model), 21);
    press(&mut model, "g");
    assert_eq!(at(&model), 0);
    let held = KeyEvent::new(KeyCode::Char('f'), KeyModifiers::CONTROL);
    tell(&mut model, Message::Key(held));
    assert_eq!(at(&model), 18);
    // The release of a key, where a terminal tells it, is no key.
    let release =
        KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::new(KeyCode::Home, KeyModifiers::NONE) };
    tell(&mut model, Message::Key(release));
    assert_eq!(at(&model), 18);
}

#[test]
fn the_parts_of_a_job_come_and_go() {
    let mut model = with_job(80, 24, true);
    let pane = |model: &crate::console::Model| model.detail.as_ref().unwrap().pane;
    for (key, expected) in [("l", Pane::Log), ("w", Pane::Why), ("w", Pane::All), ("s", Pane::Steps)] {
        press(&mut model, key);
        assert_eq!(pane(&model), expected);
    }
    hit(&mut model, KeyCode::Esc);
    assert_eq!(pane(&model), Pane::All);
    hit(&mut model, KeyCode::Right);
    let shown = text(&draw(&model));
    assert!(shown.contains("from column 17"), "{shown}");
    hit(&mut model, KeyCode::Left);
    hit(&mut model, KeyCode::Esc);
    assert_eq!((model.screen, model.detail.is_none()), (Screen::Jobs, true));
    // From the list straight to one part.
    press(&mut model, "l");
    assert_eq!(pane(&model), Pane::Log);
}

#[test]
fn help_lists_every_key_and_scrolls() {
    let mut model = full(80, 10, true);
    press(&mut model, "2?");
    assert_eq!(model.overlay, Overlay::Help);
    let mut seen = String::new();
    for _ in 0..40 {
        seen.push_str(&text(&draw(&model)));
        press(&mut model, "j");
    }
    for binding in crate::console::keys::BINDINGS {
        assert!(seen.contains(binding.help), "{}", binding.help);
    }
    press(&mut model, "q");
    assert_eq!((model.overlay.clone(), model.screen, model.over), (Overlay::None, Screen::Jobs, false));
}

#[test]
fn what_is_pasted_is_never_a_command() {
    let mut model = full(80, 24, true);
    press(&mut model, "2");
    assert_eq!(tell(&mut model, Message::Paste("cyq".into())), []);
    assert_eq!((model.overlay.clone(), model.over), (Overlay::None, false));
    press(&mut model, "/");
    tell(&mut model, Message::Paste(format!("back\n\x1b{}", "x".repeat(500))));
    assert!(model.jobs.filter().text.starts_with("backxx"), "{}", model.jobs.filter().text);
    assert_eq!(model.jobs.filter().text.chars().count(), crate::limits::FILTER_CHARS_MAX);
}

#[test]
fn it_ends_by_q_and_always_by_ctrl_c() {
    assert_eq!(press(&mut full(80, 24, true), "q"), [Command::Quit]);
    let interrupt = || Message::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    for state in ["2/ab", "2c", "?"] {
        let mut model = full(80, 24, true);
        press(&mut model, state);
        assert_eq!(tell(&mut model, interrupt()), [Command::Quit], "{state}");
    }
}

#[test]
fn nodes_are_filtered_by_name_and_pool() {
    let mut model = full(80, 24, true);
    press(&mut model, "3G/GPU");
    assert_eq!(model.node_rows().len(), 1);
    assert_eq!(model.node_window.at, 0);
    hit(&mut model, KeyCode::Backspace);
    hit(&mut model, KeyCode::Enter);
    hit(&mut model, KeyCode::Esc);
    assert_eq!(model.node_rows().len(), 5);
}
