//! What a slot asks of a node. Demands of one shape are alike for placement:
//! where one does not fit, none does. That is what keeps a pass over a million
//! queued demands short.

use crate::amount::Amount;
use proto::v1::{Constraint, Demand, NodeRow};

/// Names a [`Shape`] in use.
pub type ShapeId = u32;

/// Nodes × ranks, all or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gang {
    /// Distinct nodes.
    pub nodes: u32,
    /// Ranks on each.
    pub tasks_per_node: u32,
}

/// A label a node must carry, or must not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    label: String,
    value: String,
    negated: bool,
}

/// What a slot asks of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Of one task or rank.
    pub per_slot: Amount,
    /// Set for a gang.
    pub gang: Option<Gang>,
    /// Empty: any pool.
    pub pool: String,
    /// Only whole nodes, on which nothing is granted.
    pub exclusive: bool,
    /// What one slot holds of what, or a gang as a whole; sorted by name.
    pub licenses: Vec<(String, u64)>,
    /// Sorted.
    pub needs: Vec<Need>,
    /// Nodes to avoid while another could do it; sorted.
    pub avoid: Vec<String>,
    /// How long a slot takes at most: what is short fits where something is to start
    /// later. Rounded up, so that there are few shapes; where a pass remembers that
    /// one of them did not fit, one that is a little shorter is not tried. 0: not told.
    pub bound_ms: u64,
}

/// How long a slot takes at most: its time limit, or what is expected of it; 0:
/// neither is told.
#[must_use]
pub fn bound_ms(demand: &Demand) -> u64 {
    if demand.limit_ms > 0 { demand.limit_ms } else { demand.expected_runtime_ms }
}

/// Up to the next fourth of a power of two.
fn round_up(ms: u64) -> u64 {
    let step = ms.checked_ilog2().map_or(1, |power| ((1 << power) / 4).max(1));
    ms.checked_next_multiple_of(step).unwrap_or(u64::MAX)
}

impl Shape {
    /// The shape of a demand.
    #[must_use]
    pub fn of(demand: &Demand) -> Shape {
        let mut needs: Vec<Need> = demand.constraints.iter().map(Need::from).collect();
        needs.sort();
        needs.dedup();
        let mut avoid = demand.avoid.clone();
        avoid.sort();
        avoid.dedup();
        let gang = (demand.gang_nodes > 0)
            .then(|| Gang { nodes: demand.gang_nodes, tasks_per_node: demand.gang_tasks_per_node.max(1) });
        Shape {
            per_slot: Amount::of(demand.per_slot.as_ref()),
            gang,
            pool: demand.pool.clone(),
            exclusive: demand.exclusive,
            licenses: demand.licenses.iter().map(|(name, &count)| (name.clone(), u64::from(count))).collect(),
            needs,
            avoid,
            bound_ms: round_up(bound_ms(demand)),
        }
    }

    /// What one node must have free at least.
    #[must_use]
    pub fn unit(&self) -> Amount {
        self.gang.map_or(self.per_slot, |gang| self.per_slot.times(u64::from(gang.tasks_per_node)))
    }

    /// Wherever the other could start, this could.
    #[must_use]
    pub fn asks_less_than(&self, other: &Shape) -> bool {
        self.unit().fits_in(other.unit())
            && self.nodes_wanted() <= other.nodes_wanted()
            && (self.pool.is_empty() || self.pool == other.pool)
            && (other.exclusive || !self.exclusive)
            && self.licenses.iter().all(|(name, count)| other.licenses_of(name) >= *count)
            && self.needs.iter().all(|need| other.needs.contains(need))
            && self.avoid.iter().all(|node| other.avoids(node))
    }

    /// What it takes to start anything: one slot, or the whole gang. What takes whole nodes
    /// takes more: all that these have.
    #[must_use]
    pub fn least(&self) -> Amount {
        self.unit().times(self.nodes_wanted() as u64)
    }

    /// Distinct nodes needed at once.
    #[must_use]
    pub fn nodes_wanted(&self) -> usize {
        self.gang.map_or(1, |gang| gang.nodes as usize)
    }

    fn licenses_of(&self, name: &str) -> u64 {
        self.licenses.iter().find(|(of, _)| of == name).map_or(0, |(_, count)| *count)
    }

    /// The first label this node is wrong in.
    #[must_use]
    pub fn label_missed(&self, row: &NodeRow) -> Option<&Need> {
        self.needs.iter().find(|need| !need.met_by(row))
    }

    /// The node is on the list of those to avoid.
    #[must_use]
    pub fn avoids(&self, node: &str) -> bool {
        self.avoid.binary_search_by(|name| name.as_str().cmp(node)).is_ok()
    }
}

impl Need {
    /// An empty value asks only that the label is there.
    #[must_use]
    pub fn met_by(&self, row: &NodeRow) -> bool {
        let found = row.labels.get(&self.label);
        let met = found.is_some_and(|value| self.value.is_empty() || *value == self.value);
        met != self.negated
    }
}

impl From<&Constraint> for Need {
    fn from(c: &Constraint) -> Need {
        Need { label: c.label.clone(), value: c.value.clone(), negated: c.negated }
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let relation = if self.negated { "!=" } else { "=" };
        if self.value.is_empty() {
            return write!(f, "{}{}", if self.negated { "no " } else { "" }, self.label);
        }
        write!(f, "{}{relation}{}", self.label, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::round_up;

    #[test]
    fn a_bound_is_rounded_up_by_less_than_a_fourth() {
        assert_eq!([0, 1, 3, 5, 9, 60_000, 65_537].map(round_up), [0, 1, 3, 5, 10, 65_536, 81_920]);
        for ms in (1..100_000).chain([u64::MAX / 3]) {
            let rounded = round_up(ms);
            assert!(rounded >= ms && (rounded - ms) <= ms / 4, "{ms} {rounded}");
        }
        assert_eq!(round_up(u64::MAX), u64::MAX);
    }
}
