//! Whose turn it is, level by level: of those below the root, tenants and groups, the
//! one that has had least for its weight; where that is a group, of those in it; and so
//! on down to a tenant.
//!
//! What must hold: a group is in its level exactly while somebody below it may still get
//! something. While one has its turn, it and the groups that it is in are in none: what
//! they hold changes, and so their places.

use super::Core;
use super::tenants::TenantId;
use std::collections::{BTreeMap, BTreeSet};

/// Standing ([`super::fair`]), then who waited longer for a turn; smaller is next.
pub(super) type Turn = (u128, u64, TenantId);

/// Those that are side by side in a group, or below the root.
#[derive(Debug, Default)]
pub(super) struct Level {
    /// But for the one whose turn it is.
    pub order: BTreeSet<Turn>,
    /// Of these and that one together.
    pub weights: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// By the group that they are in.
    levels: BTreeMap<Option<TenantId>, Level>,
}

impl Turns {
    /// Those beside one that is in this group, or in none.
    pub fn level(&self, group: Option<TenantId>) -> Option<&Level> {
        self.levels.get(&group)
    }

    /// Takes out whoever is next, and the groups above.
    pub fn pop(&mut self) -> Option<TenantId> {
        let mut group = None;
        loop {
            let (_, _, id) = self.levels.get_mut(&group)?.order.pop_first()?;
            if !self.levels.contains_key(&Some(id)) {
                return Some(id);
            }
            group = Some(id);
        }
    }
}

/// Of each of a path, from the tenant up, the group that it is in.
fn with_groups(path: &[TenantId]) -> impl Iterator<Item = (TenantId, Option<TenantId>)> {
    path.iter().enumerate().map(|(at, &id)| (id, path.get(at + 1).copied()))
}

impl Core {
    /// A tenant waits for a turn, and so do the groups that it is in.
    pub(super) fn line_up(&self, turns: &mut Turns, tenant: TenantId) {
        for (id, group) in with_groups(&self.tenants.path(tenant)) {
            let level = turns.levels.entry(group).or_default();
            if !level.order.insert(self.turn_of(id)) {
                return;
            }
            level.weights += self.weight_of(id);
        }
    }

    /// Its turn is over; whether it may have another.
    pub(super) fn line_up_again(&self, turns: &mut Turns, tenant: TenantId, mut again: bool) {
        for (id, group) in with_groups(&self.tenants.path(tenant)) {
            let level = turns.levels.get_mut(&group).expect("who had a turn was in its level");
            if again {
                level.order.insert(self.turn_of(id));
            } else {
                level.weights -= self.weight_of(id);
            }
            again = !level.order.is_empty();
            if !again {
                turns.levels.remove(&group);
            }
        }
    }

    /// Whose turn comes before whose: smaller is before, level by level.
    pub(super) fn standing_of(&self, tenant: TenantId) -> Vec<Turn> {
        self.tenants.path(tenant).into_iter().rev().map(|id| self.turn_of(id)).collect()
    }
}
