//! What [`crate::core::Core`] tells of nodes, pools and queues to whoever warns operators.

use proto::v1::{DemandKey, NodeState};

/// A node as its row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSign {
    /// Its name.
    pub name: String,
    /// The controller's verdict.
    pub state: NodeState,
    /// Kept from new work by an operator, or by itself.
    pub drained: bool,
    /// Grows with each registration.
    pub session: u64,
}

/// A pool for which work queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSign {
    /// Its name.
    pub name: String,
    /// Slots that are wanted of it.
    pub queued_slots: u64,
    /// None of its nodes has room for any of them.
    pub is_full: bool,
}

impl PoolSign {
    /// Nothing is wanted of it yet.
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), queued_slots: 0, is_full: true }
    }
}

/// The first of a tenant's queue, which cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadSign {
    /// Who.
    pub step: DemandKey,
    /// For how long.
    pub blocked_ms: u64,
}

/// A tenant with a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetSign {
    /// Its name.
    pub tenant: String,
    /// Millionths, each month.
    pub month_micros: u64,
}
