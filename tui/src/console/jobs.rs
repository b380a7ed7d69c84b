//! All jobs the console knows, and the list of them that is looked at.
//!
//! A job lies in a slot. `order` has the slots newest first; `shown` those of
//! them that pass the filter (absent where all do). What must hold: both are
//! sorted and name each slot in use once; the counts are those of the slots;
//! the cursor stays with its job as the list changes.

mod filter;
mod job;

pub(crate) use filter::Filter;
pub(crate) use job::{Job, Key};

use super::window::{Move, Window};
use crate::limits::JOBS_HELD_MAX;
use proto::{ids::JobId, v1::State};
use std::collections::BTreeMap;

/// What of a list's looks has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// A row in the window, or how many rows there are.
    pub rows: bool,
    /// How many jobs are in which state.
    pub counts: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jobs {
    tenants: Vec<String>,
    slots: Vec<Job>,
    free: Vec<u32>,
    by_key: BTreeMap<Key, u32>,
    order: Vec<u32>,
    shown: Option<Vec<u32>>,
    filter: Filter,
    counts: [u64; 7],
    cursor: Option<Key>,
    window: Window,
}

impl Jobs {
    /// The place of a tenant, found or made.
    pub(crate) fn tenant(&mut self, name: &str) -> u16 {
        let at = self.tenants.iter().position(|known| known == name).unwrap_or_else(|| {
            self.tenants.push(name.to_owned());
            self.tenants.len() - 1
        });
        u16::try_from(at).expect("tenants are few")
    }

    pub(crate) fn id(&self, job: &Job) -> JobId {
        JobId::new(self.tenants.get(usize::from(job.tenant)).map_or("", String::as_str), job.number)
    }

    pub(crate) fn key_of(&self, id: &JobId) -> Option<Key> {
        let tenant = self.tenants.iter().position(|known| *known == id.tenant)?;
        Some((u16::try_from(tenant).ok()?, id.number))
    }

    #[cfg(test)]
    pub(crate) fn get(&self, key: Key) -> Option<&Job> {
        Some(self.at(*self.by_key.get(&key)?))
    }

    fn at(&self, slot: u32) -> &Job {
        &self.slots[slot as usize]
    }

    fn at_mut(&mut self, slot: u32) -> &mut Job {
        &mut self.slots[slot as usize]
    }

    /// All of them, whatever the filter.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Those in a state.
    pub(crate) fn count(&self, state: State) -> u64 {
        self.counts[place(state)]
    }

    /// The list, newest first.
    fn list(&self) -> &[u32] {
        self.shown.as_deref().unwrap_or(&self.order)
    }

    /// Rows of the list.
    pub(crate) fn rows(&self) -> usize {
        self.list().len()
    }

    /// The jobs in the window, from the top.
    pub(crate) fn visible(&self) -> impl Iterator<Item = &Job> {
        self.list()[self.window.shown(self.rows())].iter().map(|slot| self.at(*slot))
    }

    pub(crate) fn window(&self) -> Window {
        self.window
    }

    pub(crate) fn selected(&self) -> Option<&Job> {
        self.list().get(self.window.at).map(|slot| self.at(*slot))
    }

    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }

    // ------------------------------------------------------------ what is looked at

    pub(crate) fn go(&mut self, to: Move) {
        self.window.go(to, self.list().len());
        self.cursor = self.selected().map(Job::key);
    }

    pub(crate) fn set_height(&mut self, height: usize) {
        self.window.height = height;
        self.window.fit(self.list().len());
    }

    pub(crate) fn set_filter(&mut self, filter: Filter) {
        self.filter = filter;
        self.shown = (!self.filter.is_empty()).then(|| {
            let mut passes = self.filter.matcher(&self.tenants);
            self.order.iter().copied().filter(|slot| passes(self.at(*slot))).collect()
        });
        self.find_cursor();
    }

    /// After rows came or went: the window goes along with the cursor's job. A
    /// job that is no longer in the list leaves the cursor where it would be.
    fn find_cursor(&mut self) {
        let slot = self.cursor.and_then(|key| self.by_key.get(&key).copied());
        let rows = self.rows();
        match slot {
            Some(slot) => {
                let at = self.position(self.list(), slot).unwrap_or_else(|at| at);
                self.window.follow(at, rows);
            }
            None => self.window.fit(rows),
        }
        // The first job ever seen, or the neighbour of one that was given up.
        if slot.is_none() {
            self.cursor = self.selected().map(Job::key);
        }
    }

    fn position(&self, list: &[u32], slot: u32) -> Result<usize, usize> {
        let rank = self.at(slot).rank();
        list.binary_search_by(|other| self.at(*other).rank().cmp(&rank))
    }

    // ------------------------------------------------------------ what happens

    /// Takes jobs as they were just read: new ones, and known ones anew. Of a
    /// known one to which something happened since it was asked for, the state
    /// that the history told stays.
    pub(crate) fn put(&mut self, jobs: Vec<Job>) -> Changed {
        let counts = self.counts;
        let mut changed = Changed::default();
        // Known ones first: what is held anew is in no list yet.
        let mut fresh = BTreeMap::new();
        for job in jobs {
            match self.by_key.get(&job.key()).copied() {
                Some(slot) => changed.rows |= self.renew(slot, job),
                None => {
                    fresh.insert(job.key(), job);
                }
            }
        }
        let mut new: Vec<u32> = fresh.into_values().map(|job| self.hold(job)).collect();
        if !new.is_empty() {
            changed.rows = true;
            new.sort_by_key(|slot| self.at(*slot).rank());
            if let Some(mut shown) = self.shown.take() {
                let mut passes = self.filter.matcher(&self.tenants);
                let passing: Vec<u32> = new.iter().copied().filter(|slot| passes(self.at(*slot))).collect();
                self.merge(&mut shown, &passing);
                self.shown = Some(shown);
            }
            let mut order = std::mem::take(&mut self.order);
            self.merge(&mut order, &new);
            self.order = order;
            self.give_up_oldest();
            self.find_cursor();
        }
        changed.counts = counts != self.counts;
        changed
    }

    fn hold(&mut self, job: Job) -> u32 {
        self.counts[place(job.state)] += 1;
        let key = job.key();
        let slot = match self.free.pop() {
            Some(slot) => {
                *self.at_mut(slot) = job;
                slot
            }
            None => {
                self.slots.push(job);
                u32::try_from(self.slots.len() - 1).expect("slots are bounded")
            }
        };
        self.by_key.insert(key, slot);
        slot
    }

    /// True where the row looks different and is in the window.
    fn renew(&mut self, slot: u32, mut job: Job) -> bool {
        let known = self.at(slot);
        if known.stale {
            job = Job {
                state: known.state,
                started_ms: known.started_ms,
                ended_ms: known.ended_ms,
                stale: true,
                ..job
            };
        }
        // What a list is sorted by never changes.
        job.submitted_ms = known.submitted_ms;
        if *known == job {
            return false;
        }
        let state = job.state;
        let was_visible = self.is_visible(slot);
        let name_changed = known.name != job.name;
        *self.at_mut(slot) = Job { state: self.at(slot).state, ..job };
        self.set_state(slot, state, name_changed);
        was_visible || self.is_visible(slot)
    }

    /// Moves a job between the counts, and into or out of the list.
    fn set_state(&mut self, slot: u32, state: State, check: bool) {
        let was = self.at(slot).state;
        if was != state {
            self.counts[place(was)] -= 1;
            self.counts[place(state)] += 1;
            self.at_mut(slot).state = state;
        }
        if was == state && !check {
            return;
        }
        let Some(mut shown) = self.shown.take() else { return };
        let passes = self.filter.matcher(&self.tenants)(self.at(slot));
        match (self.position(&shown, slot), passes) {
            (Ok(at), false) => {
                shown.remove(at);
            }
            (Err(at), true) => shown.insert(at, slot),
            _ => {}
        }
        self.shown = Some(shown);
        self.find_cursor();
    }

    fn is_visible(&self, slot: u32) -> bool {
        self.position(self.list(), slot).is_ok_and(|at| self.window.shown(self.rows()).contains(&at))
    }

    /// Puts sorted slots into a sorted list: mostly before or behind all of it.
    fn merge(&self, list: &mut Vec<u32>, new: &[u32]) {
        let (Some(first), Some(last)) = (new.first(), new.last()) else { return };
        let rank = |slot: &u32| self.at(*slot).rank();
        if list.last().is_none_or(|end| rank(end) < rank(first)) {
            list.extend_from_slice(new);
        } else if rank(last) < rank(&list[0]) {
            list.splice(0..0, new.iter().copied());
        } else {
            list.extend_from_slice(new);
            // Two sorted runs: the sort is a merge.
            list.sort_by_key(rank);
        }
    }

    fn give_up_oldest(&mut self) {
        while self.order.len() > JOBS_HELD_MAX {
            let Some(slot) = self.order.pop() else { return };
            if let Some(shown) = self.shown.as_mut()
                && shown.last() == Some(&slot)
            {
                shown.pop();
            }
            let (key, state) = (self.at(slot).key(), self.at(slot).state);
            self.counts[place(state)] -= 1;
            self.by_key.remove(&key);
            self.free.push(slot);
        }
    }

    /// Something happened to a job; `edge` where it is a change of its own
    /// state. `None` where the job is not held.
    ///
    /// A job may have been read after this edge was taken. So only the edge
    /// that begins where the job is counts: read later, the edges up to there
    /// pass by, and what comes after begins there.
    pub(crate) fn happened(&mut self, key: Key, edge: Option<(State, State)>, at_ms: u64) -> Option<Changed> {
        let slot = *self.by_key.get(&key)?;
        let counts = self.counts;
        let was_visible = self.is_visible(slot);
        let rows = self.rows();
        let job = self.at_mut(slot);
        job.stale = true;
        if let Some((from, to)) = edge
            && job.state == from
            && from != to
        {
            job.set_times(to, at_ms);
            self.set_state(slot, to, false);
            return Some(Changed {
                rows: was_visible || rows != self.rows() || self.is_visible(slot),
                counts: counts != self.counts,
            });
        }
        Some(Changed::default())
    }

    /// A job that was on its way while this happened to it.
    pub(crate) fn overtake(job: &mut Job, state: Option<State>, at_ms: u64) {
        job.stale = true;
        if let Some(state) = state {
            job.set_times(state, at_ms);
            job.state = state;
        }
    }

    /// Jobs in the window to which something happened since they were read; from
    /// now on they count as asked for.
    pub(crate) fn take_stale(&mut self) -> Vec<JobId> {
        let window = self.window.shown(self.rows());
        let stale: Vec<u32> =
            self.list()[window].iter().copied().filter(|slot| self.at(*slot).stale).collect();
        for slot in &stale {
            self.at_mut(*slot).stale = false;
        }
        stale.iter().map(|slot| self.id(self.at(*slot))).collect()
    }

    /// Those asked for did not come.
    pub(crate) fn still_stale(&mut self, ids: &[JobId]) {
        for id in ids {
            if let Some(slot) = self.key_of(id).and_then(|key| self.by_key.get(&key).copied()) {
                self.at_mut(slot).stale = true;
            }
        }
    }

    /// What must hold.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let sorted =
            |list: &[u32]| list.windows(2).all(|two| self.at(two[0]).rank() < self.at(two[1]).rank());
        assert!(sorted(&self.order) && sorted(self.list()));
        assert_eq!(self.order.len(), self.by_key.len());
        assert_eq!(self.order.len() + self.free.len(), self.slots.len());
        for state in 0..7 {
            let held = self.order.iter().filter(|slot| place(self.at(**slot).state) == state).count();
            assert_eq!(self.counts[state], held as u64);
        }
        let mut passes = self.filter.matcher(&self.tenants);
        let wanted: Vec<u32> = self.order.iter().copied().filter(|slot| passes(self.at(*slot))).collect();
        assert_eq!(self.list(), wanted);
        let (window, rows) = (self.window, self.rows());
        assert!(rows == 0 || window.at < rows, "{window:?} of {rows}");
        assert!(rows == 0 || window.height == 0 || window.shown(rows).contains(&window.at));
    }
}

fn place(state: State) -> usize {
    usize::try_from(i32::from(state)).unwrap_or(0).min(6)
}

#[cfg(test)]
mod tests;
