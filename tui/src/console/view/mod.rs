//! Draws the model. What must hold: nothing is changed, nothing is waited for,
//! and nothing is written outside the frame, however small that is.

mod chrome;
mod dialog;
mod job;
mod jobs;
pub(crate) mod layout;
mod nodes;
mod overview;
mod paint;
mod table;

pub(crate) use chrome::status;
#[cfg(test)]
pub(crate) use jobs::FORMATTED;

use super::model::{Model, Overlay, Screen};
use paint::Pen;
use ratatui::Frame;

/// Draws one frame.
pub fn view(model: &Model, frame: &mut Frame<'_>) {
    let area = frame.area();
    let body = layout::body(area);
    let mut pen = Pen::new(frame.buffer_mut(), model.settings.color);
    chrome::title(model, &mut pen, layout::title(area));
    let cursor = chrome::status_line(model, &mut pen, layout::status(area));
    chrome::hints(model, &mut pen, layout::hints(area));
    match (&model.overlay, model.screen) {
        (Overlay::Help, _) => dialog::help(model, &mut pen, body),
        (_, Screen::Overview) => overview::draw(model, &mut pen, body),
        (_, Screen::Jobs) => jobs::draw(model, &mut pen, body),
        (_, Screen::Nodes) => nodes::draw(model, &mut pen, body),
        (_, Screen::Job) => job::draw(model, &mut pen, body),
    }
    if let Overlay::Cancel { id, name } = &model.overlay {
        dialog::cancel(&mut pen, body, id, name);
    }
    if let Some(position) = cursor {
        frame.set_cursor_position(position);
    }
}
