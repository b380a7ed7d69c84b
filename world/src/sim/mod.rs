//! A hostile world behind the traits: a disk that forgets, a clock that is
//! wrong, transfers that break, a bucket that does not answer. In memory, deterministic by
//! seed, and built both natively (for tests) and under madsim.

pub mod bucket;
pub mod clock;
pub mod disk;
pub mod faults;
pub mod processes;
pub mod transfer;
pub mod universe;

pub use bucket::{BucketCounts, BucketDoor, BucketFaults, SimBucket};
pub use clock::{ClockHandle, SkewedClock};
pub use disk::{HostileDisk, Mount};
pub use faults::{DiskCounts, DiskFaults, TransferCounts, TransferFaults};
pub use processes::{Kept, LaunchAsked, ProcessCounts, ProcessFaults, ProcessSpan, SimProcesses};
pub use transfer::{DoorGuard, PLAIN_FAILURES, SimObjects, SimTransfer};
