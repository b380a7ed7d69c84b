//! What is fuzzed, and what must hold of it.
//!
//! Each target is a plain function of bytes that panics where something broken
//! is found. `cargo fuzz` drives them (see README.md); `tests/corpus.rs` replays
//! on any toolchain what it found worth keeping.
//!
//! What must hold here: a target looks at nothing but its bytes, so that the
//! same bytes do the same everywhere; its work is bounded by their number.

mod agent_core;
mod agent_lease;
mod controller_core;
mod door;
mod draw;
mod grammars;
mod jobs;
mod log_frames;
mod rest_request;
mod rows;
mod scheduler_core;
mod store_rows;

pub use agent_core::agent_core;
pub use agent_lease::agent_lease;
pub use controller_core::controller_core;
pub use grammars::grammars;
pub use jobs::{job_file, job_spec, rest_body, sbatch};
pub use log_frames::log_frames;
pub use rest_request::rest_request;
pub use rows::rows;
pub use scheduler_core::scheduler_core;
pub use store_rows::store_rows;

/// The body of a target.
pub type Target = fn(&[u8]);

/// All targets by name; each has a binary and a corpus of that name.
pub const TARGETS: &[(&str, Target)] = &[
    ("job_file", job_file),
    ("job_spec", job_spec),
    ("rest_body", rest_body),
    ("rest_request", rest_request),
    ("sbatch", sbatch),
    ("grammars", grammars),
    ("rows", rows),
    ("log_frames", log_frames),
    ("store_rows", store_rows),
    ("agent_core", agent_core),
    ("agent_lease", agent_lease),
    ("scheduler_core", scheduler_core),
    ("controller_core", controller_core),
];
