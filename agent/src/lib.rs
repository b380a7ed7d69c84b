//! The node agent: one on every machine that runs work.
//!
//! [`core`] is pure: it is told what happened and says what to do, with the
//! time as data. [`start`] puts the shell around it: the session with the
//! server, the node's processes, staging, outputs and logs.
//!
//! What must hold here: a task runs only while the node's lease is surely this
//! node's; every attempt that was taken on ends in exactly one report, or is
//! forgotten because the server said so; no byte of a log is dropped before
//! the server has it.
//!
//! The agent keeps nothing durable of its own. What survives its death is what
//! the node's supervisor remembers of processes (with the context given at
//! launch) and the spool files; from these a new agent takes everything over.

pub mod config;
pub mod core;
pub mod limits;
pub mod logs;
pub mod shell;
pub mod staging;
#[cfg(test)]
mod testing;

pub use config::{AgentConfig, Directories, Margins};
pub use shell::{AgentEnd, AgentHandle, AgentParts, StartError, TasksAtStop, start};
