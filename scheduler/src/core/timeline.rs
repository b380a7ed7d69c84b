//! One node in time: when what is held of it ends, and what is to start on it.
//!
//! What is free of a node only grows by itself, as held work ends, and shrinks
//! only where something is planned to start. So it is enough to look at the
//! instants at which a plan begins, and where one is looked for a place, at those
//! at which something ends.
//!
//! Operators keep nodes free for a while: no work begins that may run then, but that of
//! tenants whom they let in.
//!
//! Instants are wall-clock milliseconds, as grants tell them. What should have
//! ended and is still there counts as without an end: nobody knows.

use super::StepKey;
use super::tenants::TenantId;
use crate::amount::Amount;
use std::collections::{BTreeMap, BTreeSet};

/// No end is known.
pub const NEVER: u64 = u64::MAX;

/// A demand that is to start here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Whose nodes these will be.
    pub owner: StepKey,
    /// From when on; 0: nobody knows, so from now on.
    pub from_ms: u64,
    /// Until when; [`NEVER`] where it tells no end.
    pub until_ms: u64,
    /// What it takes of this node; [`Amount::ALL`] where it is to be there alone.
    pub unit: Amount,
}

/// A span in which an operator lets in some tenants only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// From when on.
    pub from_ms: u64,
    /// Until when.
    pub until_ms: u64,
    /// Whose work may run there.
    pub tenants: BTreeSet<TenantId>,
}

impl Kept {
    fn is_in_the_way(&self, (from_ms, until_ms): (u64, u64), who: StepKey) -> bool {
        self.from_ms < until_ms && from_ms < self.until_ms && !self.tenants.contains(&who.tenant)
    }
}

/// What a grant holds of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// How much.
    pub amount: Amount,
    /// All of the node, also of what it is told to have more meanwhile.
    pub alone: bool,
    /// By when it ends; 0: not told.
    pub ends_by_ms: u64,
}

impl Part {
    fn is_nothing(self) -> bool {
        self.amount == Amount::default() && !self.alone
    }
}

/// What is held until one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Until {
    amount: Amount,
    /// Parts that are all of the node.
    alone: u32,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// What is held, by when it ends.
    ends: BTreeMap<u64, Until>,
    planned: Vec<Planned>,
    kept: Vec<Kept>,
    /// What is being made free here, and for whom.
    promised: BTreeMap<StepKey, Amount>,
}

/// Grants without an end say 0.
fn end(ends_by_ms: u64) -> u64 {
    if ends_by_ms == 0 { NEVER } else { ends_by_ms }
}

impl Line {
    /// Something is held.
    pub fn take(&mut self, part: Part) {
        if part.is_nothing() {
            return;
        }
        let held = self.ends.entry(end(part.ends_by_ms)).or_default();
        held.amount = held.amount.plus(part.amount);
        held.alone += u32::from(part.alone);
    }

    /// The reverse.
    pub fn release(&mut self, part: Part) {
        if part.is_nothing() {
            return;
        }
        let at = end(part.ends_by_ms);
        let held = self.ends.get_mut(&at).expect("what is given back was held until then");
        held.amount.release(part.amount);
        held.alone -= u32::from(part.alone);
        if *held == Until::default() {
            self.ends.remove(&at);
        }
    }

    /// As if this had been given back. What a row says of a slot may be more than counts on
    /// the node.
    pub fn suppose_released(&mut self, amount: Amount, ends_by_ms: u64) {
        if let Some(held) = self.ends.get_mut(&end(ends_by_ms)) {
            held.amount = held.amount.minus(amount);
        }
    }

    /// All that is held, and how many parts of it are all of the node.
    #[must_use]
    pub fn held(&self) -> (Amount, u32) {
        let sums = |(sum, alone): (Amount, u32), held: &Until| (sum.plus(held.amount), alone + held.alone);
        self.ends.values().fold((Amount::default(), 0), sums)
    }

    /// What is to start here.
    #[must_use]
    pub fn planned(&self) -> &[Planned] {
        &self.planned
    }

    /// Nobody but this one is to start here, and it is kept for no others.
    #[must_use]
    pub fn is_clear_for(&self, who: StepKey) -> bool {
        self.planned.iter().all(|plan| plan.owner == who)
            && self.promised.keys().all(|owner| *owner == who)
            && !self.kept.iter().any(|kept| kept.is_in_the_way((0, NEVER), who))
    }

    /// Operators keep it so; whether that is news.
    pub fn keep(&mut self, kept: Vec<Kept>) -> bool {
        let differs = self.kept != kept;
        self.kept = kept;
        differs
    }

    /// When operators let go of it.
    pub fn kept_until(&self) -> impl Iterator<Item = u64> {
        self.kept.iter().map(|kept| kept.until_ms)
    }

    /// It is kept for others at some time of this span.
    #[must_use]
    pub fn is_kept(&self, span: (u64, u64), who: StepKey) -> bool {
        self.kept.iter().any(|kept| kept.is_in_the_way(span, who))
    }

    /// It is to start here. Each demand is planned once on a node.
    pub fn plan(&mut self, plan: Planned) {
        self.unplan(plan.owner);
        self.planned.push(plan);
    }

    /// It is not to start here any more; whether it was.
    pub fn unplan(&mut self, owner: StepKey) -> bool {
        let before = self.planned.len();
        self.planned.retain(|plan| plan.owner != owner);
        self.planned.len() < before
    }

    /// So much is for this one, from now on; nothing: no more.
    pub fn promise(&mut self, owner: StepKey, amount: Amount) {
        if amount == Amount::default() {
            self.promised.remove(&owner);
        } else {
            self.promised.insert(owner, amount);
        }
    }

    /// For whom how much is promised here.
    #[must_use]
    pub fn promised(&self) -> &BTreeMap<StepKey, Amount> {
        &self.promised
    }

    /// What will be free at an instant, for one that is not hindered by its own plan.
    fn free_at(&self, capacity: Amount, now_ms: u64, at_ms: u64, who: StepKey) -> Amount {
        let stays = |ends_ms: u64| ends_ms > at_ms || ends_ms <= now_ms;
        let held =
            self.ends.iter().filter(|(ends_ms, _)| stays(**ends_ms)).map(|(_, held)| match held.alone {
                0 => held.amount,
                _ => Amount::ALL,
            });
        let is_there = |plan: &&Planned| plan.owner != who && plan.from_ms <= at_ms && at_ms < plan.until_ms;
        let planned = self.planned.iter().filter(is_there).map(|plan| plan.unit);
        let promised = self.promised.iter().filter(|(owner, _)| **owner != who).map(|(_, amount)| *amount);
        capacity.minus(held.chain(planned).chain(promised).fold(Amount::default(), Amount::plus))
    }

    /// What is free all the time from an instant to another.
    #[must_use]
    pub fn room(&self, capacity: Amount, now_ms: u64, span: (u64, u64), who: StepKey) -> Amount {
        let (from_ms, until_ms) = span;
        if self.is_kept(span, who) {
            return Amount::default();
        }
        let begins = self.planned.iter().filter(|plan| plan.owner != who).map(|plan| plan.from_ms);
        begins
            .filter(|at_ms| *at_ms > from_ms && *at_ms < until_ms)
            .map(|at_ms| self.free_at(capacity, now_ms, at_ms, who))
            .fold(self.free_at(capacity, now_ms, from_ms, who), Amount::min_each)
    }

    /// The first instant, not before `from_ms`, from which on `unit` is free for
    /// `span_ms`; absent: for all that is known there is none.
    #[must_use]
    pub fn earliest(
        &self,
        capacity: Amount,
        now_ms: u64,
        from_ms: u64,
        (unit, span_ms): (Amount, u64),
        who: StepKey,
    ) -> Option<u64> {
        let fits = |at_ms: &u64| {
            let span = (*at_ms, at_ms.saturating_add(span_ms));
            unit.fits_in(self.room(capacity, now_ms, span, who))
        };
        if fits(&from_ms) {
            return Some(from_ms);
        }
        let ends = self.ends.keys().copied();
        let plans = self.planned.iter().filter(|plan| plan.owner != who).map(|plan| plan.until_ms);
        let kept = self.kept.iter().map(|kept| kept.until_ms);
        let mut at: Vec<u64> =
            ends.chain(plans).chain(kept).filter(|ms| *ms > from_ms && *ms != NEVER).collect();
        at.sort_unstable();
        at.dedup();
        at.into_iter().find(fits)
    }
}
