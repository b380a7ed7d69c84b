//! The operator's console, in the manner of Elm: a [`Model`], [`Message`]s that
//! change it by [`update`], and [`view`] that draws it.
//!
//! There is no IO in here and no clock. What the console wants to know it asks
//! for by [`Command`]s; a shell carries them out and brings the answers back as
//! messages, each with the time. What must hold:
//! - `update` never waits and never fails; whatever a server says, it is data.
//! - Every [`Ask`] is answered: by its message, or by [`Message::Failed`]. So
//!   each source has at most one question on its way, and the model alone
//!   decides when it is asked again.
//! - A frame is wanted only where something that is on the screen has changed,
//!   time included ([`Model::due_ms`]). At rest none is.
//! - What a frame costs does not depend on how many jobs there are: rows that
//!   are not in the window are neither formatted nor looked at.

mod clock;
mod detail;
mod feeds;
mod input;
mod jobs;
mod keys;
mod message;
mod model;
mod tenants;
mod update;
mod view;
mod window;

#[cfg(test)]
mod tests;

pub use message::{Ask, Command, Message};
pub use model::{Model, Settings};
pub use update::{start, update};
pub use view::view;
