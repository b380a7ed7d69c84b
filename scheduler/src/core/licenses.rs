//! Licenses: things that the cluster has so many of, wherever a step runs that holds some.
//!
//! A license has a row in `alloc/`, which whoever grants some of it writes and guards as it
//! does a node's, so that no two schedulers give the same away. How many there are is told
//! with demand, by the server that knows.
//!
//! What must hold: `used` counts grants and proposals without an outcome. In time a license is
//! as a node that has nothing else: its [`Line`] counts it where it would count GPUs, and so
//! it is planned for by the same rules.

use super::place::Search;
use super::shape::Shape;
use super::timeline::{Line, Part, Planned};
use super::{Core, ProposalId, StepKey};
use crate::amount::Amount;
use crate::limits::PLAN_ROUNDS_MAX;
use proto::v1::{License as Told, LicenseView};
use std::collections::BTreeMap;
use store::Revision;

/// Index of a license in the view.
pub type LicenseId = u32;

/// So many of some.
pub type Counts = Vec<(LicenseId, u64)>;

/// One license as seen.
#[derive(Debug, Default)]
pub struct License {
    /// Its name.
    pub name: String,
    /// How many there are; 0 too where none were told.
    pub total: u64,
    /// Held by grants and by proposals without an outcome.
    pub used: u64,
    /// Version of its alloc row as far as known; 0: there is none.
    pub version: Revision,
    /// A conflict showed this version: nothing is proposed before it is seen.
    pub stale_below: Revision,
    /// A proposal that touches its alloc row has no outcome yet.
    pub in_flight: Option<ProposalId>,
    /// When what is held ends, and for whom some are kept.
    pub line: Line,
}

/// A license of which there are too few now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Which.
    pub license: LicenseId,
    /// To start anything.
    pub need: u64,
    /// Enough are free, and kept for what is to start before.
    pub is_kept: bool,
}

/// As a line counts it.
fn amount(count: u64) -> Amount {
    Amount { gpus: count, ..Amount::default() }
}

impl License {
    /// Neither waiting for an outcome nor for news.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.in_flight.is_none() && self.version >= self.stale_below
    }

    /// What nobody holds.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.total.saturating_sub(self.used)
    }

    /// What is free all the time from an instant to another, for one that is not hindered by
    /// its own plan.
    fn room(&self, now_ms: u64, span: (u64, u64), who: StepKey) -> u64 {
        self.line.room(amount(self.total), now_ms, span, who).gpus
    }
}

/// All licenses.
#[derive(Debug, Default)]
pub struct Licenses {
    list: Vec<License>,
    by_name: BTreeMap<String, LicenseId>,
}

impl Licenses {
    /// The license of this id.
    #[must_use]
    pub fn get(&self, id: LicenseId) -> &License {
        &self.list[id as usize]
    }

    /// The license of this id.
    pub fn get_mut(&mut self, id: LicenseId) -> &mut License {
        &mut self.list[id as usize]
    }

    /// All by name.
    pub fn iter(&self) -> impl Iterator<Item = (LicenseId, &License)> {
        self.by_name.values().map(|&id| (id, self.get(id)))
    }

    /// The id of a name, known from now on.
    pub fn intern(&mut self, name: &str) -> LicenseId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        let id = LicenseId::try_from(self.list.len()).expect("fewer licenses than 2^32");
        self.list.push(License { name: name.to_owned(), ..License::default() });
        self.by_name.insert(name.to_owned(), id);
        id
    }

    /// How many there are, of all.
    pub fn told(&mut self, told: &[Told]) {
        self.list.iter_mut().for_each(|license| license.total = 0);
        for Told { name, total } in told {
            let id = self.intern(name);
            self.get_mut(id).total = u64::from(*total);
        }
    }

    /// Counts what a grant holds.
    pub fn take(&mut self, counts: &Counts, ends_by_ms: u64) {
        for &(id, count) in counts {
            let license = self.get_mut(id);
            license.used += count;
            license.line.take(Part { amount: amount(count), alone: false, ends_by_ms });
        }
    }

    /// The reverse.
    pub fn release(&mut self, counts: &Counts, ends_by_ms: u64) {
        for &(id, count) in counts {
            let license = self.get_mut(id);
            license.used -= count;
            license.line.release(Part { amount: amount(count), alone: false, ends_by_ms });
        }
    }

    /// Keeps so many for a demand that is to start.
    pub fn plan(&mut self, counts: &Counts, owner: StepKey, (from_ms, until_ms): (u64, u64)) {
        for &(id, count) in counts {
            let unit = amount(count);
            self.get_mut(id).line.plan(Planned { owner, from_ms, until_ms, unit });
        }
    }

    /// Keeps none for it any more.
    pub fn unplan(&mut self, counts: &Counts, owner: StepKey) {
        for &(id, _) in counts {
            self.get_mut(id).line.unplan(owner);
        }
    }
}

impl Core {
    /// How many there are of each license, and how many are held. By name.
    #[must_use]
    pub fn license_views(&self) -> Vec<LicenseView> {
        let known = self.licenses.iter().filter(|(_, license)| license.total > 0 || license.used > 0);
        let views = known.map(|(_, license)| LicenseView {
            name: license.name.clone(),
            total: license.total,
            used: license.used,
        });
        views.collect()
    }

    /// What one unit of a shape holds, as the view names it: of a gang, all of it.
    pub(super) fn licenses_of(&self, shape: &Shape) -> Counts {
        // Demand that names one makes it known.
        let id = |name: &String| *self.licenses.by_name.get(name).expect("it came with the demand");
        shape.licenses.iter().map(|(name, count)| (id(name), *count)).collect()
    }

    /// How many units there are licenses for now; which lack where there are none for one.
    pub(super) fn licensed(&self, search: &Search<'_>, counts: &Counts) -> Result<u64, Vec<Lack>> {
        let span = (self.now.wall_ms, search.until_ms);
        let (mut units, mut lacks) = (u64::MAX, Vec::new());
        for &(id, count) in counts {
            let license = self.licenses.get(id);
            let room = license.room(self.now.wall_ms, span, search.key).min(license.free());
            units = units.min(room / count.max(1));
            if room < count {
                let is_kept = license.free() >= count;
                lacks.push(Lack { license: id, need: count, is_kept });
            }
        }
        if lacks.is_empty() { Ok(units) } else { Err(lacks) }
    }

    /// How many units could hold licenses that nobody holds.
    pub(super) fn licensed_units(&self, shape: &Shape) -> u64 {
        let free = |(id, count): (LicenseId, u64)| self.licenses.get(id).free() / count.max(1);
        self.licenses_of(shape).into_iter().map(free).min().unwrap_or(u64::MAX)
    }

    /// The first instant, not before `from_ms`, from which on so many of all of them are free
    /// for a span; absent: for all that is told there is none.
    pub(super) fn licensed_from(
        &self,
        counts: &Counts,
        from_ms: u64,
        span_ms: u64,
        who: StepKey,
    ) -> Option<u64> {
        let mut at_ms = from_ms;
        for _ in 0..PLAN_ROUNDS_MAX {
            let before_ms = at_ms;
            for &(id, count) in counts {
                let license = self.licenses.get(id);
                let (total, need) = (amount(license.total), (amount(count), span_ms));
                at_ms = license.line.earliest(total, self.now.wall_ms, at_ms, need, who)?;
            }
            if at_ms == before_ms {
                return Some(at_ms);
            }
        }
        None
    }

    /// Nothing else is to start with any of them.
    pub(super) fn are_clear_for(&self, counts: &Counts, who: StepKey) -> bool {
        counts.iter().all(|&(id, _)| self.licenses.get(id).line.is_clear_for(who))
    }
}
