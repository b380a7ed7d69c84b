//! What is known of the cluster at an instant. A topic that is not there is not known now.

use super::Code;
use proto::v1::NodeState;
use std::collections::BTreeMap;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// All nodes.
    pub nodes: Option<Vec<NodeFact>>,
    /// Pools that have no room while work queues for them.
    pub full_pools: Option<Vec<PoolFact>>,
    /// Pools that grow by need, where something is wrong with that.
    pub scaling: Option<Vec<ScaleFact>>,
    /// Tenants whose queue's first cannot start.
    pub starved: Option<Vec<StarvedFact>>,
    /// Tenants that have a budget.
    pub spending: Option<Vec<SpendFact>>,
    /// Whose retries wait for their budget: tenants; empty: those of all.
    pub storms: Option<Vec<String>>,
    /// Bytes of logs that nodes gave up, by node; these only grow.
    pub dropped: Option<BTreeMap<String, u64>>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFact {
    /// Its name.
    pub name: String,
    /// The verdict about it.
    pub state: NodeState,
    /// Nothing new is placed on it.
    pub drained: bool,
    /// Grows with each registration.
    pub session: u64,
}

/// A pool without room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolFact {
    /// Its name.
    pub name: String,
    /// Slots that wait for it.
    pub queued_slots: u64,
}

/// A pool that grows by need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleFact {
    /// Its name.
    pub pool: String,
    /// How its driver failed, and how often in a row; empty: that is not worth telling.
    pub failing: String,
    /// Why it may not grow although work queues for it; empty: it may, or none does.
    pub capped: String,
}

/// A tenant whose queue's first cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StarvedFact {
    /// Its name.
    pub tenant: String,
    /// The first's.
    pub job_number: u64,
    /// For how long.
    pub blocked_ms: u64,
    /// What keeps it, in one line; may be empty.
    pub why: String,
}

/// A tenant's money, in millionths, this month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpendFact {
    /// Its name.
    pub tenant: String,
    /// Its budget.
    pub month_micros: u64,
    /// Paid.
    pub settled_micros: u64,
    /// Kept for what was let in.
    pub reserved_micros: u64,
}

impl Facts {
    /// Whether its topic is known.
    pub(super) fn tell_of(&self, code: Code) -> bool {
        match code {
            Code::NodeLost | Code::NodeFlapping => self.nodes.is_some(),
            Code::PoolExhausted => self.full_pools.is_some(),
            Code::ScaleFailed | Code::ScaleCapped => self.scaling.is_some(),
            Code::Starvation => self.starved.is_some(),
            Code::Budget80 | Code::Budget90 | Code::Budget100 => self.spending.is_some(),
            Code::RetryStorm => self.storms.is_some(),
            Code::LogsGivenUp => self.dropped.is_some(),
        }
    }
}
