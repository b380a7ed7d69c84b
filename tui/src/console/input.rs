//! What keys do to the model.

use super::{
    detail::{Detail, Pane},
    jobs::Filter,
    keys::{self, Action, BINDINGS},
    message::{Ask, Command},
    model::{Model, Overlay, Part, Screen},
    window::Move,
};
use crate::words;
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use proto::{ids::JobId, v1::State};

/// A key was pressed.
pub(crate) fn key(model: &mut Model, event: &KeyEvent) -> Vec<Command> {
    if event.kind == KeyEventKind::Release {
        return Vec::new();
    }
    if keys::is_interrupt(event) {
        return quit(model);
    }
    if model.notice.take().is_some() {
        model.touch(Part::Status);
    }
    match model.overlay {
        Overlay::Cancel { .. } => return answer(model, event),
        Overlay::Help => return help(model, event),
        Overlay::None => {}
    }
    if model.typing {
        write_filter(model, event);
        return Vec::new();
    }
    match keys::action(event, model.screen) {
        Some(action) => act(model, action),
        None => Vec::new(),
    }
}

/// Pasted text goes where text is written, and nowhere else.
pub(crate) fn paste(model: &mut Model, text: &str) {
    if model.typing && model.overlay == Overlay::None {
        change_filter(model, |filter| text.chars().for_each(|c| Filter::push(filter, c)));
    }
}

fn quit(model: &mut Model) -> Vec<Command> {
    model.over = true;
    vec![Command::Quit]
}

fn act(model: &mut Model, action: Action) -> Vec<Command> {
    match action {
        Action::Quit => return quit(model),
        Action::Help => {
            model.overlay = Overlay::Help;
            model.help.top = 0;
            model.touch_all();
        }
        Action::Show(screen) => return show(model, screen),
        Action::NextScreen => return show(model, neighbour(model.screen, true)),
        Action::EarlierScreen => return show(model, neighbour(model.screen, false)),
        Action::Go(to) => go(model, to),
        Action::Aside { right } => {
            if let Some(detail) = model.detail.as_mut() {
                detail.log.shift(right);
                model.touch(Part::Log);
            }
        }
        Action::Open => return open(model, Pane::All),
        Action::Back => return back(model),
        Action::Filter => {
            model.typing = true;
            model.touch_all();
        }
        Action::State { back } => {
            let filter =
                Filter { state: model.jobs.filter().next_state(back), ..model.jobs.filter().clone() };
            model.jobs.set_filter(filter);
            model.touch_all();
        }
        Action::Cancel => ask_to_cancel(model),
        Action::Why => return pane(model, Pane::Why),
        Action::Log => return pane(model, Pane::Log),
        Action::Steps => return pane(model, Pane::Steps),
    }
    Vec::new()
}

fn neighbour(screen: Screen, next: bool) -> Screen {
    match (screen, next) {
        (Screen::Overview, true) | (Screen::Nodes, false) => Screen::Jobs,
        (Screen::Jobs | Screen::Job, true) | (Screen::Overview, false) => Screen::Nodes,
        (Screen::Nodes, true) | (Screen::Jobs | Screen::Job, false) => Screen::Overview,
    }
}

/// Another screen; a job that was open is closed.
fn show(model: &mut Model, screen: Screen) -> Vec<Command> {
    if model.screen == screen {
        return Vec::new();
    }
    model.screen = screen;
    model.touch_all();
    if model.detail.take().is_none() {
        return Vec::new();
    }
    model.feeds.forget_job();
    vec![Command::StopLogs]
}

fn go(model: &mut Model, to: Move) {
    match model.screen {
        Screen::Overview => return,
        Screen::Jobs => model.jobs.go(to),
        Screen::Nodes => {
            let rows = model.node_rows().len();
            model.node_window.go(to, rows);
        }
        Screen::Job => {
            if let Some(detail) = model.detail.as_mut() {
                detail.scroll(to);
            }
        }
    }
    model.touch_all();
}

fn back(model: &mut Model) -> Vec<Command> {
    match model.screen {
        Screen::Job => match model.detail.as_mut() {
            Some(detail) if detail.pane != Pane::All => {
                detail.pane = Pane::All;
                model.fit();
                model.touch_all();
                Vec::new()
            }
            _ => show(model, Screen::Jobs),
        },
        Screen::Jobs => {
            model.jobs.set_filter(Filter::default());
            model.touch_all();
            Vec::new()
        }
        Screen::Nodes => {
            model.node_filter.clear();
            model.fit();
            model.touch_all();
            Vec::new()
        }
        Screen::Overview => Vec::new(),
    }
}

/// Opens the job under the cursor.
fn open(model: &mut Model, pane: Pane) -> Vec<Command> {
    let Some(job) = model.jobs.selected() else { return Vec::new() };
    let id = model.jobs.id(job);
    model.visits += 1;
    let visit = model.visits;
    let mut detail = Detail::new(id.clone(), visit, pane);
    detail.asked = true;
    detail.why_asked = true;
    detail.asked_ms = model.now_ms;
    model.detail = Some(detail);
    model.screen = Screen::Job;
    model.fit();
    model.touch_all();
    vec![Ask::Job { job: id.clone(), visit }.now(), Ask::Why { job: id, visit }.now()]
}

/// One part of the job all over the screen, or all parts again.
fn pane(model: &mut Model, pane: Pane) -> Vec<Command> {
    let Some(detail) = model.detail.as_mut() else { return open(model, pane) };
    detail.pane = if detail.pane == pane { Pane::All } else { pane };
    model.fit();
    model.touch_all();
    Vec::new()
}

/// The job that a key is about: the open one, or that under the cursor.
fn meant(model: &Model) -> Option<(JobId, String, State)> {
    if let Some(detail) = &model.detail {
        let name = detail.spec().map(|spec| spec.name.clone()).unwrap_or_default();
        return Some((detail.id.clone(), name, detail.state()));
    }
    let job = model.jobs.selected()?;
    Some((model.jobs.id(job), job.name.clone(), job.state))
}

fn ask_to_cancel(model: &mut Model) {
    let Some((id, name, state)) = meant(model) else { return };
    if words::is_ended(state) {
        model.tell(format!("{id} is over already"), false);
        return;
    }
    model.overlay = Overlay::Cancel { id, name };
    model.touch_all();
}

/// Only `y` is a yes, and nothing that is easily hit by chance.
fn answer(model: &mut Model, event: &KeyEvent) -> Vec<Command> {
    let Overlay::Cancel { id, .. } = model.overlay.clone() else { return Vec::new() };
    match event.code {
        KeyCode::Char('y' | 'Y') => {
            model.tell(format!("asking to cancel {id} …"), false);
            model.overlay = Overlay::None;
            model.touch_all();
            vec![Ask::Cancel(id).now()]
        }
        KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
            model.overlay = Overlay::None;
            model.touch_all();
            Vec::new()
        }
        _ => Vec::new(),
    }
}

fn help(model: &mut Model, event: &KeyEvent) -> Vec<Command> {
    match event.code {
        KeyCode::Char('?' | 'q') | KeyCode::Esc | KeyCode::Enter => model.overlay = Overlay::None,
        _ => match keys::action(event, Screen::Jobs) {
            Some(Action::Go(to)) => model.help.scroll(to, BINDINGS.len()),
            _ => return Vec::new(),
        },
    }
    model.touch_all();
    Vec::new()
}

fn write_filter(model: &mut Model, event: &KeyEvent) {
    let held = event.modifiers.contains(KeyModifiers::CONTROL);
    match event.code {
        KeyCode::Enter | KeyCode::Up | KeyCode::Down => model.typing = false,
        KeyCode::Esc => {
            model.typing = false;
            change_filter(model, String::clear);
        }
        KeyCode::Backspace => change_filter(model, |text| {
            text.pop();
        }),
        KeyCode::Char('u') if held => change_filter(model, String::clear),
        KeyCode::Char(typed) if !held => change_filter(model, |text| Filter::push(text, typed)),
        _ => return,
    }
    model.touch_all();
}

fn change_filter(model: &mut Model, change: impl FnOnce(&mut String)) {
    if model.screen == Screen::Nodes {
        change(&mut model.node_filter);
        model.fit();
    } else {
        let mut filter = model.jobs.filter().clone();
        change(&mut filter.text);
        model.jobs.set_filter(filter);
    }
    model.touch_all();
}
