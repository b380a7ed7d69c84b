//! Decides who runs where: admission, queues, fair share, placement, grants of
//! leases, and "why is it waiting".
//!
//! [`core`] is pure: events in, proposals out. [`shell`] follows the store's
//! rows, commits what the core proposes and tells it the outcome. Any number of
//! schedulers may run at once: a grant is one commit guarded by the versions of
//! all it takes from, so that the loser of a race only plans again. A scheduler
//! keeps nothing of its own; one that dies is missed by nobody.
//!
//! [`follow`] is a scheduler in a process of its own. [`admission`] and [`feasible`] judge a job before it is taken in; [`eta`] says
//! when it would start; [`signs`] is what warns operators.

pub mod admission;
pub mod amount;
pub mod core;
pub mod eta;
pub mod feasible;
pub mod follow;
pub mod limits;
pub mod replay;
pub mod shell;
pub mod signs;

pub use amount::Amount;
