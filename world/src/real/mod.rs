//! The machine behind the traits: files, the clock, processes, HTTP.

pub mod batch;
pub mod clock;
pub mod disk;
pub mod processes;
pub mod supervisor;
pub mod transfer;

pub use clock::SystemClock;
pub use disk::{DiskLock, FsDisk};
pub use processes::{NodeOptions, NodeProcesses};
pub use supervisor::SupervisorOptions;
pub use transfer::{HttpTransfer, TransferLimits, Wanted};
