//! Logs on their way to the server: from the spool files that tasks write to
//! directly, in order, each byte until the server has it.
//!
//! [`book`] is pure: it knows which ranges are known, sent, confirmed, and
//! which one goes next. [`shipper`] reads files and holds the stream.

pub mod book;
pub(crate) mod floors;
pub(crate) mod shipper;
mod surplus;
mod turns;
