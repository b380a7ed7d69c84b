//! What ended jobs gave is kept for a time; then it goes.
//!
//! What must hold: nothing goes before its time. First comes the mark in the job's state, in
//! one commit with what its tenant gets back; then its rows of manifests and checkpoints go,
//! some in each commit, then its log. So a crash in the midst goes on where it was, and gives
//! nothing back twice. A job with the mark is never tried again.
//!
//! The core holds no job that has ended, only what is due when: whoever carries it out reads
//! the rows and brings them ([`Event::Expire`](super::Event::Expire)). What is due is a hint;
//! the row that is brought decides.

use super::model::{Tenant, over};
use super::types::{DueJobs, EndedJob, Expiring, Reply};
use super::{Core, ledger};
use crate::limits;
use prost::Message as _;
use proto::v1::{JobStateRow, TenantRow};
use proto::{keys, month, retention};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Ended jobs of a tenant whose outputs go some time.
#[derive(Default)]
pub(super) struct Retained {
    /// By the instant at which they ended; none where the tenant keeps all for ever.
    ended: Instants,
    /// Those that asked for a time of their own, by the instant at which it is over.
    own: Instants,
    /// Those that have the mark and are not done with.
    expired: BTreeSet<u64>,
    /// Its rows are to be looked through.
    survey: bool,
}

/// Instants with the numbers of jobs, the earliest of them.
#[derive(Default)]
struct Instants {
    jobs: BTreeSet<(u64, u64)>,
    /// Later ones are in the rows alone.
    cut: bool,
}

impl Instants {
    fn insert(&mut self, at: (u64, u64)) {
        if self.cut && self.jobs.last().is_none_or(|last| *last < at) {
            return;
        }
        self.jobs.insert(at);
        if self.jobs.len() > limits::RETAINED_MAX {
            self.jobs.pop_last();
            self.cut = true;
        }
    }

    fn until(&self, at_ms: u64) -> impl Iterator<Item = u64> + '_ {
        let due = self.jobs.range(..=(at_ms, u64::MAX)).take(limits::DUE_PER_TENANT);
        due.map(|(_, number)| *number)
    }
}

impl Retained {
    fn take(&mut self, retention_ms: Option<u64>, job: &EndedJob) {
        if job.expired {
            self.expired.insert(job.number);
            return;
        }
        if retention_ms.is_some() {
            self.ended.insert((job.ended_ms, job.number));
        }
        if job.keep_ms > 0 {
            self.own.insert((job.ended_ms.saturating_add(job.keep_ms), job.number));
        }
    }

    /// It is looked at no more as one that ended then.
    pub(super) fn drop(&mut self, number: u64, state: &JobStateRow) {
        self.ended.jobs.remove(&(state.ended_ms, number));
        self.own.jobs.remove(&(state.ended_ms.saturating_add(state.keep_ms), number));
        self.look_for_more();
    }

    /// It has the mark, and is not done with.
    pub(super) fn has_expired(&self, number: u64) -> bool {
        self.expired.contains(&number)
    }

    /// Whatever was told of it.
    fn forget(&mut self, number: u64) {
        for instants in [&mut self.ended, &mut self.own] {
            instants.jobs.retain(|(_, of)| *of != number);
        }
        self.look_for_more();
    }

    fn look_for_more(&mut self) {
        for instants in [&mut self.ended, &mut self.own] {
            if instants.cut && instants.jobs.is_empty() {
                instants.cut = false;
                self.survey = true;
            }
        }
    }

    /// Some of those whose time is over: what is begun first.
    fn due(&self, retention_ms: Option<u64>, now_ms: u64) -> BTreeSet<u64> {
        let begun = self.expired.iter().copied().take(limits::DUE_PER_TENANT);
        let ended_by_ms = retention_ms.and_then(|kept_ms| now_ms.checked_sub(kept_ms));
        let ended = ended_by_ms.into_iter().flat_map(|by_ms| self.ended.until(by_ms));
        begun.chain(ended).chain(self.own.until(now_ms)).collect()
    }
}

impl Tenant {
    /// A job ended, or was found to have.
    pub(super) fn retain(&mut self, job: &EndedJob) {
        self.retained.take(self.row.retention_ms, job);
    }

    /// Its row is to be the other one.
    pub(super) fn retention_changes(&mut self, row: &TenantRow) {
        match (self.row.retention_ms, row.retention_ms) {
            (None, Some(_)) => self.retained.survey = true,
            (Some(_), None) => self.retained.ended = Instants::default(),
            _ => {}
        }
    }
}

impl EndedJob {
    /// Nothing where it has not ended, or nothing is left to go.
    #[must_use]
    pub fn of(number: u64, state: &JobStateRow) -> Option<Self> {
        (over(state.state()) && !state.cleared).then(|| Self::ended(number, state))
    }

    pub(super) fn ended(number: u64, state: &JobStateRow) -> Self {
        let JobStateRow { ended_ms, keep_ms, expired_ms, .. } = *state;
        Self { number, ended_ms, keep_ms, expired: expired_ms > 0 }
    }
}

impl Core {
    /// After loading: all that the rows have was told.
    pub(super) fn all_ended_told(&mut self) {
        self.tenants.values_mut().for_each(|tenant| tenant.retained.survey = false);
    }

    /// Some jobs of some tenants, in turn, whose time is over, and tenants whose ended jobs
    /// are to be told.
    #[must_use]
    pub fn due_jobs(&mut self, now_ms: u64) -> DueJobs {
        let mut due = DueJobs::default();
        let from = std::mem::take(&mut self.due_told);
        let behind = self.tenants.range::<str, _>((Bound::Excluded(&*from), Bound::Unbounded));
        let others = self.tenants.range::<str, _>((Bound::Unbounded, Bound::Included(&*from)));
        for (name, tenant) in behind.chain(others) {
            if due.jobs.len() + due.survey.len() >= limits::DUE_MAX {
                break;
            }
            self.due_told.clone_from(name);
            let numbers = tenant.retained.due(tenant.row.retention_ms, now_ms);
            due.jobs.extend(numbers.into_iter().map(|number| (name.clone(), number)));
            if tenant.retained.survey {
                due.survey.push(name.clone());
            }
        }
        due
    }

    /// Ended jobs of a tenant, as its rows have them. With the last of them it knows all.
    pub(super) fn ended_told(&mut self, ticket: u64, tenant: &str, jobs: &[EndedJob], last: bool) {
        if let Some(owner) = self.tenants.get_mut(tenant) {
            if last {
                owner.retained.survey = false;
            }
            for job in jobs {
                if !owner.jobs.contains_key(&job.number) {
                    owner.retain(job);
                }
            }
        }
        self.reply(ticket, Reply::Done);
    }

    /// Goes on with what has expired.
    pub(super) fn expire(&mut self, ticket: u64, tenant: &str, number: u64, found: Expiring) {
        let more = self.try_expire(tenant, number, found);
        self.reply(ticket, Reply::Expired(more));
    }

    /// Whether there is more to be done at once.
    fn try_expire(&mut self, name: &str, number: u64, found: Expiring) -> bool {
        let Expiring { mut state, rows, log_gone } = found;
        let now_ms = self.now.wall_ms;
        let Some(owner) = self.tenants.get_mut(name) else { return false };
        let stale = self.recent.end(name, number).is_some_and(|(_, of)| of != state.generation);
        if owner.jobs.contains_key(&number) || stale || !over(state.state()) || state.cleared {
            world::mark!("controller.expiry.not_any_more");
            return false;
        }
        let begun = owner.retained.has_expired(number);
        if state.expired_ms == 0 {
            if begun || self.recent.expired(name, number) {
                // Read before the mark was durable.
                return begun;
            }
            let kept_ms = retention::kept_ms(owner.row.retention_ms, state.keep_ms);
            let Some(kept_ms) = kept_ms.filter(|ms| state.ended_ms.saturating_add(*ms) <= now_ms) else {
                owner.retained.forget(number);
                owner.retain(&EndedJob::ended(number, &state));
                return false;
            };
            world::mark!("controller.expiry.marked");
            owner.retained.drop(number, &state);
            owner.retained.expired.insert(number);
            state.expired_ms = now_ms.max(1);
            state.retained_ms = kept_ms;
            month::turn(&mut owner.ledger, now_ms);
            let given_back = state.storage_bytes;
            ledger::drop_stored(&mut owner.ledger, &mut state, given_back);
            self.recent.remember_expired(name, number);
            self.out.ledger(name);
            self.out.direct(name, keys::state(name, number), Some(state.encode_to_vec().into()));
        } else if rows.is_empty() && log_gone {
            world::mark!("controller.expiry.cleared");
            state.cleared = true;
            owner.retained.expired.remove(&number);
            self.out.direct(name, keys::state(name, number), Some(state.encode_to_vec().into()));
            return false;
        }
        let below = [keys::manifests_of_job(name, number), keys::checkpoints_of_job(name, number)];
        debug_assert!(rows.len() <= limits::ROWS_PER_EXPIRY, "the shell cuts it");
        for key in rows.into_iter().filter(|key| below.iter().any(|prefix| key.starts_with(prefix))) {
            self.out.direct(name, key, None);
        }
        true
    }
}
