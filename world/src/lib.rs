//! The world: the only door to time, tasks, network, chance, disk and
//! processes.
//!
//! In production tokio and the machine stand behind it; built with
//! `--cfg madsim`, a simulated and hostile world does. The code on this side of
//! the door is the same. `cfg(madsim)` appears in this crate alone.
//!
//! - [`time`], [`task`], [`sync`], [`grpc`], [`rand`]: one implementation each,
//!   switched at compile time.
//! - [`Disk`], [`Processes`], [`NodeClock`], [`Transfer`]: traits, since madsim
//!   has nothing (or nothing hostile) for them. The real sides are in
//!   [`real`], the simulated ones in [`sim`].

pub mod clock;
pub mod disk;
pub mod grpc;
pub mod limits;
pub mod processes;
pub mod rand;
pub mod task;
pub mod time;
pub mod transfer;

#[cfg(not(madsim))]
pub mod real;
pub mod sim;

pub use clock::NodeClock;
pub use disk::{Disk, DiskFile};
pub use processes::Processes;
pub use tokio::{select, sync};
pub use transfer::Transfer;
