//! The world: the only door to time, tasks, network, chance, disk and
//! processes.
//!
//! In production tokio and the machine stand behind it; built with
//! `--cfg madsim`, a simulated and hostile world does. The code on this side of
//! the door is the same. `cfg(madsim)` appears in this crate alone.
//!
//! - [`time`], [`task`], [`sync`], [`grpc`], [`rand`]: one implementation each,
//!   switched at compile time.
//! - [`mark!`]: places that rehearsals must reach; nothing in production.
//! - [`Disk`], [`Processes`], [`NodeClock`], [`Transfer`],
//!   [`Bucket`], [`Webhook`], [`Program`]: traits, since madsim
//!   has nothing (or nothing hostile) for them. The real sides are in
//!   [`real`], the simulated ones in [`sim`].

pub mod bucket;
pub mod clock;
pub mod disk;
pub mod grpc;
pub mod limits;
pub mod marks;
pub mod pace;
pub mod processes;
pub mod program;
pub mod rand;
pub mod task;
pub mod time;
pub mod transfer;
pub mod webhook;

#[cfg(not(madsim))]
pub mod real;
pub mod sim;

/// Whether cores are checked after every step, and whatever else costs more than
/// production should pay: in every rehearsal, and in debug builds.
///
/// Not the same as debug assertions: those also make the standard library and
/// all that is generic check what only unsafe code can break, of which there is
/// none of ours in a rehearsal.
pub const CHECKED: bool = cfg!(any(madsim, debug_assertions));

pub use bucket::Bucket;
pub use clock::NodeClock;
pub use disk::{Disk, DiskFile};
pub use processes::Processes;
pub use program::Program;
pub use tokio::{select, sync};
pub use transfer::Transfer;
pub use webhook::Webhook;
