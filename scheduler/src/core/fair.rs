//! Who has had how much of the cluster, and so who is next.
//!
//! A tenant's standing is what it holds, and on top what it held on average of
//! late, both as its dominant share, divided by its weight. So who had an idle
//! cluster for itself goes behind who comes new, until that is forgotten: half of
//! it after each half-life.
//!
//! All is in whole numbers, the same on every host. What is in between two
//! half-lives is taken on a straight line, and the half-lives of all tenants begin
//! at the same instants. So how a time is cut into steps changes nothing but the
//! last binary place: the factors of the steps multiply to that of the whole.

use super::Core;
use super::pass::Pass;
use super::tenants::TenantId;
use super::turns::{Level, Turn};
use crate::amount::Amount;
use crate::limits::TURN_LEVEL_TENANTS_MAX;
use proto::fairness;

/// The whole cluster. Shares and averages are parts of it, and so precise.
const WHOLE: u128 = 1 << 52;
/// After so many half-lives nothing is left.
const HALF_LIVES_MAX: u64 = 60;
/// The weight of who is given none.
pub(super) const WEIGHT: u64 = fairness::WEIGHT as u64;

/// The largest part of anything (dominant resource fairness, Ghodsi et al., NSDI 2011).
pub(super) fn share(amount: Amount, cluster: Amount) -> u128 {
    let part = |amount: u64, all: u64| match all {
        0 if amount == 0 => 0,
        // It holds what there is nothing of any more: more than anyone else.
        0 => WHOLE << 32,
        all => u128::from(amount) * WHOLE / u128::from(all),
    };
    part(amount.millicores, cluster.millicores)
        .max(part(amount.memory_bytes, cluster.memory_bytes))
        .max(part(amount.gpus, cluster.gpus))
        .min(WHOLE << 32)
}

/// What a tenant held on average of late.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past {
    /// Until then.
    average: u128,
    /// Monotonic.
    at_ms: u64,
    /// Held since then; no more than the whole cluster, also where nodes went.
    share: u128,
}

impl Past {
    /// The average until now. It changes nothing: what looks often would round often.
    fn until(&self, now_ms: u64, half_life_ms: u64) -> u128 {
        if half_life_ms == 0 {
            return 0;
        }
        let now_ms = now_ms.max(self.at_ms);
        let half_lives = now_ms / half_life_ms - self.at_ms / half_life_ms;
        if half_lives > HALF_LIVES_MAX {
            return self.share;
        }
        // From all of it at the begin of a half-life down to half of it at the end.
        let left = |ms: u64| 2 * u128::from(half_life_ms) - u128::from(ms % half_life_ms);
        let fade = |distance: u128| distance * left(now_ms) / (left(self.at_ms) << half_lives);
        if self.average > self.share {
            self.share + fade(self.average - self.share)
        } else {
            self.share - fade(self.share - self.average)
        }
    }

    /// From now on it holds this.
    fn holds(&mut self, share: u128, now_ms: u64, half_life_ms: u64) {
        let share = share.min(WHOLE);
        if share != self.share {
            self.average = self.until(now_ms, half_life_ms);
            self.at_ms = now_ms.max(self.at_ms);
            self.share = share;
        }
    }
}

impl Core {
    /// Smaller is next: standing, then who waited longer for a turn.
    pub(super) fn turn_of(&self, id: TenantId) -> Turn {
        let tenant = self.tenants.get(id);
        let present = share(tenant.held, self.nodes.capacity);
        let past = tenant.past.until(self.now.mono_ms, self.config.fair_half_life_ms);
        let standing = (present + past) * u128::from(WEIGHT) / u128::from(self.weight_of(id));
        (standing, tenant.last_turn, id)
    }

    /// What its share is divided by; the usual is 100.
    pub(super) fn weight_of(&self, id: TenantId) -> u64 {
        self.tenants.get(id).row.as_ref().map_or(WEIGHT, |row| u64::from(fairness::weight(row)))
    }

    /// Slots that a tenant may be given in one turn while others wait: about as many as
    /// it would get were all that is free dealt out slot by slot, each to whoever stands
    /// lowest. That takes few turns, and so few grants. Where many wait, it is a quarter of
    /// its part of the cluster at least: what ends is given on as it was, not slot by slot
    /// to as many. Of what a group would get its tenants get theirs likewise.
    pub(super) fn slots_in_turn(&self, pass: &Pass, id: TenantId, unit: Amount) -> u64 {
        let slot = share(unit, self.nodes.capacity).max(1) * u128::from(WEIGHT);
        let mut slots = u128::from(unit.count_in(self.nodes.free));
        let mut part = u128::from(unit.count_in(self.nodes.capacity));
        let path = self.tenants.path(id);
        for (at, &id) in path.iter().enumerate().rev() {
            let Some(level) = pass.turns.level(path.get(at + 1).copied()) else { continue };
            part = part * u128::from(self.weight_of(id)) / u128::from(level.weights.max(1));
            let least = if level.order.len() > TURN_LEVEL_TENANTS_MAX { part / 4 } else { 0 };
            slots = (self.rise_in(level, id, slots * slot) / slot).max(least);
        }
        u64::try_from(slots.max(1)).unwrap_or(u64::MAX)
    }

    /// What one of a level would get of what is free, as water rises over a floor of steps
    /// that are as wide as their weights.
    fn rise_in(&self, level: &Level, id: TenantId, free: u128) -> u128 {
        let (standing, own) = (self.turn_of(id).0, u128::from(self.weight_of(id)));
        let (mut water, mut weights) = (free + standing * own, own);
        for (looked_at, &(next, _, other)) in level.order.iter().enumerate() {
            if next * weights >= water {
                break;
            }
            // All others stand no lower: as if they stood there, the level is no higher.
            let is_last = looked_at == TURN_LEVEL_TENANTS_MAX;
            let all = u128::from(level.weights).saturating_sub(weights);
            let weight = if is_last { all } else { u128::from(self.weight_of(other)) };
            (water, weights) = (water + next * weight, weights + weight);
            if is_last {
                break;
            }
        }
        (water / weights).saturating_sub(standing) * own
    }

    /// What this tenant holds has changed, or the cluster of which it is a part.
    pub(super) fn remember(&mut self, id: TenantId) {
        let (now_ms, half_life_ms) = (self.now.mono_ms, self.config.fair_half_life_ms);
        let tenant = self.tenants.get_mut(id);
        tenant.past.holds(share(tenant.held, self.nodes.capacity), now_ms, half_life_ms);
    }

    /// The cluster may have grown or shrunk: then all hold other parts of it.
    pub(super) fn remember_cluster(&mut self) {
        if self.remembered != self.nodes.capacity {
            self.remembered = self.nodes.capacity;
            let all: Vec<TenantId> = self.tenants.iter().map(|(id, _)| id).collect();
            all.into_iter().for_each(|id| self.remember(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_MS: u64 = 3_600_000;

    fn had_all() -> Past {
        Past { average: WHOLE, at_ms: 17, share: 0 }
    }

    #[test]
    fn half_is_left_after_each_half_life() {
        let past = had_all();
        assert_eq!(past.until(17, HOUR_MS), WHOLE);
        assert_eq!(past.until(17 + HOUR_MS, HOUR_MS), WHOLE / 2);
        assert_eq!(past.until(17 + 3 * HOUR_MS, HOUR_MS), WHOLE / 8);
        assert_eq!(past.until(u64::MAX, HOUR_MS), 0);
        assert_eq!(past.until(16, HOUR_MS), WHOLE, "time does not go back");
        assert_eq!(past.until(17, 0), 0, "without a half-life there is no past");
        let comes = Past { share: WHOLE, ..Past::default() };
        assert_eq!(comes.until(HOUR_MS / 2, HOUR_MS), WHOLE / 4);
        assert_eq!(comes.until(2 * HOUR_MS, HOUR_MS), WHOLE / 4 * 3);
        assert_eq!(Past { average: WHOLE, share: WHOLE, at_ms: 0 }.until(12_345, u64::MAX), WHOLE);
    }

    proptest! {
        /// However a time is cut, at most a last place is lost with each step.
        #[test]
        fn many_steps_are_as_one(
            steps in prop::collection::vec(1..600_000_u64, 1..200),
            from_ms in 0..10_000_000_u64,
            share in 0..=WHOLE as u64,
            half_life_ms in 1..5_000_000_u64,
        ) {
            let share = u128::from(share);
            let whole = Past { average: WHOLE / 3, at_ms: from_ms, share };
            let mut cut = whole;
            for step in &steps {
                let now_ms = cut.at_ms + step;
                cut = Past { average: cut.until(now_ms, half_life_ms), at_ms: now_ms, share };
            }
            let (cut, whole) = (cut.average, whole.until(cut.at_ms, half_life_ms));
            prop_assert!(cut.abs_diff(whole) <= steps.len() as u128, "{cut} and {whole}");
        }
    }
}
