//! What people see in a terminal, as pure view models and renderers.
//!
//! A view model is built from messages alone; a renderer makes text of it; only
//! the last step touches a terminal. `NO_COLOR` is honoured everywhere.

pub mod console;
pub mod limits;
pub mod lines;
pub mod progress;
pub mod terminal;
pub mod words;
