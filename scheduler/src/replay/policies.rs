//! The policies that a log can be worked off under.

mod conservative;
mod default;
mod easy;
mod fcfs;
mod running;

use super::machine::Policy;
use super::swf::Log;
use std::fmt;

/// Names a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// First come, first served: nobody overtakes.
    Fcfs,
    /// The first that waits has a reservation; who does not delay it may overtake.
    Easy,
    /// The same; of those who may overtake the shortest are tried first.
    EasySjbf,
    /// All that wait have reservations.
    Conservative,
    /// Drumline's own.
    Default,
}

impl Name {
    /// Every policy.
    pub const ALL: [Self; 5] = [Self::Fcfs, Self::Easy, Self::EasySjbf, Self::Conservative, Self::Default];

    /// As users write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fcfs => "fcfs",
            Self::Easy => "easy",
            Self::EasySjbf => "easy-sjbf",
            Self::Conservative => "conservative",
            Self::Default => "default",
        }
    }

    /// Ready to work a log off, once.
    #[must_use]
    pub fn policy(self, log: &Log) -> Box<dyn Policy> {
        match self {
            Self::Fcfs => Box::<fcfs::Fcfs>::default(),
            Self::Easy => Box::new(easy::Easy::new(easy::Order::Submission)),
            Self::EasySjbf => Box::new(easy::Easy::new(easy::Order::Shortest)),
            Self::Conservative => Box::new(conservative::Conservative::new(log.processors)),
            Self::Default => Box::<default::Default>::default(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
