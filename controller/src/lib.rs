//! The controller: the one writer of job state.
//!
//! - [`core`]: pure and synchronous; `step(now, event)` returns the rows to
//!   write and what to do once they are durable.
//! - `shell`: receives, steps, persists, then sends.
//! - `logs`: the log relay.
//! - [`alerts`]: what operators should look at; pure likewise.
//! - [`scaling`]: pools that grow and shrink by need; pure likewise.

pub mod alerts;
pub mod core;
pub mod limits;
pub mod logs;
pub mod scaling;
pub mod shell;

pub use crate::core::{
    Admission, AdmissionAsk, AdmissionVerdict, Config, Core, DemandChange, DueJobs, Effect, EndedJob, Event,
    Expiring, Loaded, LoadedJob, Moved, NewJob, Reply, Resources64, Scaling, StepSaid, Straggler, TaskSaid,
    TaskStaged, Txn, Upload,
};
