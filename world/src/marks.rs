//! Marks: named places that a sweep of rehearsals must reach at least once.
//!
//! A branch that no rehearsal takes is one that no checker has seen. So the
//! places that matter (races, recoveries, refusals, retries, brakes) carry a
//! name, and `cargo chaos sweep` says which of them stayed at zero. Each is a
//! counter of its own, known from the first time it is reached; nothing is
//! drawn, ordered or waited for, so a run with marks is the run without.
//! Built without `--cfg madsim` a mark is nothing at all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// One place. Made by [`crate::mark!`] alone.
#[derive(Debug)]
pub struct Mark {
    name: &'static str,
    reached: AtomicU64,
}

/// Those that were reached.
static REACHED: Mutex<Vec<&'static Mark>> = Mutex::new(Vec::new());

impl Mark {
    /// A place not yet reached.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, reached: AtomicU64::new(0) }
    }

    /// It is reached. A simulation is one thread, so no count gets lost.
    #[inline]
    pub fn reach(&'static self) {
        let before = self.reached.load(Ordering::Relaxed);
        self.reached.store(before + 1, Ordering::Relaxed);
        if before == 0 {
            self.first();
        }
    }

    #[cold]
    fn first(&'static self) {
        REACHED.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }
}

/// How often each was reached in this process; what never was is not named.
#[must_use]
pub fn reached() -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for mark in REACHED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        *counts.entry(mark.name).or_default() += mark.reached.load(Ordering::Relaxed);
    }
    counts
}

/// Marks this place by a name, such as `"controller.retry.own_spent"`; see
/// [`mod@crate::marks`].
#[cfg(madsim)]
#[macro_export]
macro_rules! mark {
    ($name:literal) => {{
        static MARK: $crate::marks::Mark = $crate::marks::Mark::new($name);
        MARK.reach();
    }};
}

/// Marks this place by a name, such as `"controller.retry.own_spent"`; see
/// [`mod@crate::marks`].
#[cfg(not(madsim))]
#[macro_export]
macro_rules! mark {
    ($name:literal) => {{}};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_from_the_first_time_it_is_reached() {
        static HERE: Mark = Mark::new("world.test.here");
        static THERE: Mark = Mark::new("world.test.there");
        HERE.reach();
        HERE.reach();
        let counts = reached();
        assert_eq!((counts.get("world.test.here"), counts.get("world.test.there")), (Some(&2), None));
        THERE.reach();
        assert_eq!(reached().get("world.test.there"), Some(&1));
    }
}
