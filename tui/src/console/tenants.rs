//! How the jobs of each tenant come to be known: pages from the newest down, and
//! the history from the moment before the first page on.
//!
//! What must hold: each tenant has at most one page on its way and one stream;
//! what the history tells of jobs of that page is kept until it comes, since
//! the page may have been read before; jobs newer than all known ones are
//! fetched in pages too, so that a flood of submissions is a few questions.

use super::message::Ask;
use crate::limits::{JOBS_PER_PAGE, LATE_MAX, PAGES_IN_FLIGHT};
use proto::v1::State;
use std::collections::{BTreeMap, VecDeque};

/// Pages to be read: numbers below `before` (0: all), down to `down_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Walk {
    before: u64,
    down_to: u64,
}

/// What happened to a job that is on its way: its last state told, and when.
pub(crate) type Late = (Option<State>, u64);

/// One tenant's jobs, as far as they are known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tenant {
    /// The first number of the history not yet heard.
    pub next_seq: u64,
    /// The highest number held, and the highest heard of.
    newest: u64,
    heard_of: u64,
    /// What had been heard of when the page was asked for.
    expected: u64,
    walks: VecDeque<Walk>,
    /// The first walk's page is on its way.
    asked: bool,
    late: BTreeMap<u64, Late>,
    /// More happened than could be kept.
    late_lost: bool,
}

impl Tenant {
    fn new(next_seq: u64) -> Self {
        Self { next_seq, walks: VecDeque::from([Walk { before: 0, down_to: 0 }]), ..Self::default() }
    }

    /// Something happened to a job that is not held.
    pub(crate) fn happened(&mut self, number: u64, state: Option<State>, at_ms: u64) {
        self.heard_of = self.heard_of.max(number);
        if !self.asked {
            return;
        }
        if self.late.len() >= LATE_MAX && !self.late.contains_key(&number) {
            self.late_lost = true;
            return;
        }
        let late = self.late.entry(number).or_default();
        *late = (state.or(late.0), at_ms);
    }

    /// The next page to ask for, if there is one and none is on its way.
    fn next(&mut self, name: &str) -> Option<Ask> {
        if self.asked {
            return None;
        }
        // The first walk of all finds what is newest, too.
        let first = self.newest == 0 && !self.walks.is_empty();
        if self.heard_of > self.newest && !first && self.walks.iter().all(|walk| walk.before != 0) {
            self.walks.push_front(Walk { before: 0, down_to: self.newest });
        }
        let walk = *self.walks.front()?;
        self.asked = true;
        self.expected = self.heard_of;
        let ahead = self.heard_of.saturating_sub(walk.down_to).max(1);
        let limit = match (walk.before, walk.down_to) {
            // A few new ones need no whole page.
            (0, 1..) => u32::try_from(ahead).unwrap_or(u32::MAX).min(JOBS_PER_PAGE),
            _ => JOBS_PER_PAGE,
        };
        Some(Ask::Jobs { tenant: name.to_owned(), before: walk.before, limit })
    }

    /// A page came, with jobs from `highest` down. What happened meanwhile is
    /// given back; `None`: the page is of no use and must be asked for again.
    pub(crate) fn came(
        &mut self,
        highest: u64,
        next_before: u64,
        is_full: bool,
    ) -> Option<BTreeMap<u64, Late>> {
        self.asked = false;
        let late = std::mem::take(&mut self.late);
        if std::mem::take(&mut self.late_lost) {
            return None;
        }
        let Some(walk) = self.walks.pop_front() else { return Some(late) };
        self.newest = self.newest.max(highest);
        if walk.before == 0 {
            // Heard of and still not there: there is no such job (any more).
            self.newest = self.newest.max(self.expected);
        }
        self.heard_of = self.heard_of.max(self.newest);
        if next_before > walk.down_to.saturating_add(1) && !(is_full && walk.down_to == 0) {
            // Behind the others: new jobs and old ones take turns.
            self.walks.push_back(Walk { before: next_before, down_to: walk.down_to });
        }
        Some(late)
    }

    /// All jobs have been asked for.
    pub(crate) fn is_loaded(&self) -> bool {
        self.walks.is_empty()
    }
}

/// All tenants shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tenants {
    known: BTreeMap<String, Tenant>,
    /// Those past the limit.
    pub left_out: usize,
}

impl Tenants {
    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Tenant> {
        self.known.get_mut(name)
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// A tenant whose history is followed from this number on. False where it
    /// was known.
    pub(crate) fn add(&mut self, name: &str, next_seq: u64) -> bool {
        if self.known.contains_key(name) {
            return false;
        }
        self.known.insert(name.to_owned(), Tenant::new(next_seq));
        true
    }

    /// Pages to ask for now.
    pub(crate) fn pages(&mut self) -> Vec<Ask> {
        let mut free =
            PAGES_IN_FLIGHT.saturating_sub(self.known.values().filter(|tenant| tenant.asked).count());
        let mut asks = Vec::new();
        for (name, tenant) in &mut self.known {
            if free == 0 {
                break;
            }
            if let Some(ask) = tenant.next(name) {
                free -= 1;
                asks.push(ask);
            }
        }
        asks
    }

    pub(crate) fn is_loading(&self) -> bool {
        self.known.values().any(|tenant| !tenant.is_loaded())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(tenants: &mut Tenants) -> Vec<(u64, u32)> {
        let asks = tenants.pages().into_iter();
        asks.map(|ask| match ask {
            Ask::Jobs { before, limit, .. } => (before, limit),
            other => panic!("{other:?}"),
        })
        .collect()
    }

    fn lab() -> Tenants {
        let mut tenants = Tenants::default();
        assert!(tenants.add("lab", 7) && !tenants.add("lab", 9));
        tenants
    }

    #[test]
    fn pages_are_read_to_the_end_one_at_a_time() {
        let mut tenants = lab();
        assert_eq!(asked(&mut tenants), [(0, JOBS_PER_PAGE)]);
        assert!(asked(&mut tenants).is_empty() && tenants.is_loading());
        tenants.get_mut("lab").unwrap().came(2500, 1501, false);
        assert_eq!(asked(&mut tenants), [(1501, JOBS_PER_PAGE)]);
        tenants.get_mut("lab").unwrap().came(1500, 0, false);
        assert!(asked(&mut tenants).is_empty() && !tenants.is_loading());
    }

    #[test]
    fn new_jobs_and_old_ones_take_turns() {
        let mut tenants = lab();
        asked(&mut tenants);
        tenants.get_mut("lab").unwrap().came(5000, 4001, false);
        // Three came while nothing was asked.
        tenants.get_mut("lab").unwrap().happened(5003, Some(State::Pending), 1);
        assert_eq!(asked(&mut tenants), [(0, 3)]);
        tenants.get_mut("lab").unwrap().came(5003, 5001, false);
        assert_eq!(asked(&mut tenants), [(4001, JOBS_PER_PAGE)]);
        tenants.get_mut("lab").unwrap().happened(9000, Some(State::Pending), 1);
        tenants.get_mut("lab").unwrap().came(4000, 3001, false);
        assert_eq!(asked(&mut tenants), [(0, JOBS_PER_PAGE)]);
        tenants.get_mut("lab").unwrap().came(9000, 8001, false);
        assert_eq!(asked(&mut tenants), [(3001, JOBS_PER_PAGE)]);
        tenants.get_mut("lab").unwrap().came(3000, 0, false);
        // The rest of the gap between the new and the old.
        assert_eq!(asked(&mut tenants), [(8001, JOBS_PER_PAGE)]);
        tenants.get_mut("lab").unwrap().came(8000, 5004, false);
        assert!(asked(&mut tenants).is_empty() && !tenants.is_loading());
    }

    #[test]
    fn what_happens_while_a_page_comes_is_kept_for_it() {
        let mut tenants = lab();
        let tenant = tenants.get_mut("lab").unwrap();
        tenant.happened(3, Some(State::Running), 1);
        asked(&mut tenants);
        let tenant = tenants.get_mut("lab").unwrap();
        tenant.happened(4, Some(State::Running), 2);
        tenant.happened(4, None, 3);
        assert_eq!(tenant.came(4, 0, false), Some(BTreeMap::from([(4, (Some(State::Running), 3))])));
        // Not all could be kept: the page is asked for again.
        let mut tenants = lab();
        asked(&mut tenants);
        for number in 0..=LATE_MAX as u64 {
            tenants.get_mut("lab").unwrap().happened(number + 1, None, 1);
        }
        assert_eq!(tenants.get_mut("lab").unwrap().came(70_000, 69_001, false), None);
        assert_eq!(asked(&mut tenants), [(0, JOBS_PER_PAGE)]);
    }

    #[test]
    fn what_was_heard_of_but_is_not_there_is_not_asked_for_for_ever() {
        let mut tenants = lab();
        asked(&mut tenants);
        tenants.get_mut("lab").unwrap().came(0, 0, false);
        tenants.get_mut("lab").unwrap().happened(5, None, 1);
        assert_eq!(asked(&mut tenants).len(), 1);
        tenants.get_mut("lab").unwrap().came(0, 0, false);
        assert!(asked(&mut tenants).is_empty());
    }

    #[test]
    fn not_too_many_pages_are_on_their_way() {
        let mut tenants = Tenants::default();
        for number in 0..10 {
            tenants.add(&format!("t{number}"), 1);
        }
        assert_eq!(asked(&mut tenants).len(), PAGES_IN_FLIGHT);
        assert!(asked(&mut tenants).is_empty());
        tenants.get_mut("t0").unwrap().came(0, 0, false);
        assert_eq!(asked(&mut tenants).len(), 1);
    }
}
