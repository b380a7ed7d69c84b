//! The machine behind the traits: files, the clock, processes, HTTP.

pub mod batch;
pub mod clock;
pub mod detached;
pub mod disk;
pub mod processes;
mod program;
mod s3;
pub mod supervisor;
mod tls;
pub mod transfer;
pub mod walk;
mod webhook;

pub use clock::SystemClock;
pub use disk::{DiskLock, FsDisk};
pub use processes::{NodeOptions, NodeProcesses};
pub use program::Driver;
pub use s3::{S3, S3Options};
pub use supervisor::SupervisorOptions;
pub use transfer::{HttpTransfer, TransferLimits, Wanted};
pub use webhook::HttpWebhook;
