//! Invariant 3, second half: reserved and used are conserved. What the ledger
//! says is the sum over the jobs, at every commit that touches it; what adds up
//! within a month never shrinks, and holds at least what the jobs brought in. What is
//! stored shrinks by no more than the rows of checkpoints and uploads, and jobs that expire,
//! let go in the same commit, and of it the uploads are what their rows say.
//! What is settled is settled once: the ledger and the jobs grow by the same.
//! Numbers of jobs and of events are given once, too.
//!
//! The sums are kept along with the states that commits show, and made anew
//! from all states at the end of the run.

use super::stored::bytes_of;
use super::{Checker, Committed, Outcome};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::month;
use proto::v1::{JobStateRow, LedgerRow, State};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct LedgerConserved {
    jobs: BTreeMap<JobName, Share>,
    tenants: BTreeMap<String, Sums>,
    /// What jobs have settled since the ledger was last seen, by tenant.
    settled: BTreeMap<String, u64>,
    /// As last committed.
    last: BTreeMap<String, LedgerRow>,
    /// What the rows of uploads say, by tenant.
    uploaded: BTreeMap<String, u64>,
    /// Bytes that checkpoints and uploads let go in the commit at hand, by tenant.
    let_go: BTreeMap<String, u64>,
}

/// What ledgers have of one job.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    reserved_micros: u64,
    settled_micros: u64,
    queued_tasks: u64,
    live_jobs: u64,
    stored_bytes: u64,
    fetched_bytes: u64,
    /// Of its submission.
    month: u32,
}

/// The shares of a tenant's jobs.
#[derive(Debug, Default)]
struct Sums {
    reserved_micros: u64,
    queued_tasks: u64,
    live_jobs: u64,
    stored_bytes: u64,
    /// By month.
    fetched_bytes: BTreeMap<u32, u64>,
}

impl Share {
    fn of(now: &Mirror, job: &JobName, state: &JobStateRow) -> Result<Self, String> {
        let ended = matches!(state.state(), State::Completed | State::Failed | State::Cancelled);
        if ended && (state.reserved_micros != 0 || state.queued_tasks_reserved != 0) {
            return Err(format!("the ended job {job} still reserves: {state:?}"));
        }
        Ok(Self {
            reserved_micros: state.reserved_micros,
            settled_micros: state.settled_micros,
            queued_tasks: state.queued_tasks_reserved,
            live_jobs: u64::from(!ended),
            stored_bytes: state.storage_bytes,
            fetched_bytes: state.ingress_bytes,
            month: month::of(now.jobs.get(job).map_or(0, |job| job.submitted_ms)),
        })
    }
}

impl Sums {
    fn add(&mut self, share: &Share) {
        self.reserved_micros += share.reserved_micros;
        self.queued_tasks += share.queued_tasks;
        self.live_jobs += share.live_jobs;
        self.stored_bytes += share.stored_bytes;
        *self.fetched_bytes.entry(share.month).or_default() += share.fetched_bytes;
    }

    fn subtract(&mut self, share: &Share) {
        self.reserved_micros -= share.reserved_micros;
        self.queued_tasks -= share.queued_tasks;
        self.live_jobs -= share.live_jobs;
        self.stored_bytes -= share.stored_bytes;
        *self.fetched_bytes.entry(share.month).or_default() -= share.fetched_bytes;
    }

    fn check(&self, tenant: &str, ledger: &LedgerRow) -> Result<(), String> {
        let jobs = (self.reserved_micros, self.queued_tasks, self.live_jobs);
        if jobs != (ledger.reserved_micros, ledger.queued_tasks, ledger.live_jobs) {
            return Err(format!(
                "the ledger of {tenant} says reserved {} queued {} live {}; its jobs say {jobs:?}",
                ledger.reserved_micros, ledger.queued_tasks, ledger.live_jobs
            ));
        }
        let (stored, fetched) = (self.stored_bytes, self.fetched_bytes.get(&ledger.month).copied());
        if stored.checked_add(ledger.uploaded_bytes) != Some(ledger.storage_bytes)
            || fetched.unwrap_or_default() > ledger.ingress_bytes
        {
            return Err(format!(
                "the ledger of {tenant} says stored {} and in {}; its jobs stored {stored} and brought in {fetched:?}",
                ledger.storage_bytes, ledger.ingress_bytes
            ));
        }
        Ok(())
    }
}

/// Within a month it only grows; a later one begins at nothing, and what is
/// stored goes on.
fn adds_up(tenant: &str, last: &LedgerRow, ledger: &LedgerRow, let_go: u64) -> Result<(), String> {
    let sums = |row: &LedgerRow| [row.settled_micros, row.ingress_bytes, row.egress_bytes];
    let shrinks = sums(last).iter().zip(sums(ledger)).any(|(before, now)| now < *before);
    if ledger.month < last.month || ledger.month == last.month && shrinks {
        return Err(format!("what adds up in the ledger of {tenant} shrank: {last:?}, then {ledger:?}"));
    }
    if ledger.next_job_number < last.next_job_number || ledger.next_event_seq < last.next_event_seq {
        return Err(format!("{tenant} would give numbers again: {last:?}, then {ledger:?}"));
    }
    if ledger.storage_bytes.saturating_add(let_go) < last.storage_bytes {
        return Err(format!("the ledger of {tenant} forgot bytes stored: {last:?}, then {ledger:?}"));
    }
    Ok(())
}

/// What jobs settled went into the ledger, and nothing else did. Where a month
/// turned some of it may be of the one before.
fn settles_once(tenant: &str, last: &LedgerRow, ledger: &LedgerRow, by_jobs: u64) -> Result<(), String> {
    let same = ledger.month == last.month;
    let more = ledger.settled_micros - if same { last.settled_micros } else { 0 };
    if more == by_jobs || !same && more < by_jobs {
        return Ok(());
    }
    Err(format!("the ledger of {tenant} settled {more} more, its jobs {by_jobs}"))
}

impl LedgerConserved {
    /// Whoever had rows or events in this commit has a ledger that knows.
    fn touched(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        let tenants = commit.rows.iter().filter_map(|row| match row {
            Row::State(JobName { tenant, .. }, _)
            | Row::Job(JobName { tenant, .. }, _)
            | Row::Events { tenant, .. }
            | Row::Ledger(tenant, _) => Some(tenant.as_str()),
            _ => None,
        });
        for tenant in tenants.collect::<BTreeSet<_>>() {
            let Some(ledger) = now.ledgers.get(tenant) else {
                return Err(format!("{tenant} has jobs and no ledger"));
            };
            self.tenants.entry(tenant.to_owned()).or_default().check(tenant, ledger)?;
            let next_event = now.next_event.get(tenant).copied().unwrap_or(ledger.next_event_seq);
            if ledger.next_event_seq != next_event {
                return Err(format!(
                    "the ledger of {tenant} says event {} is next, its history {next_event}",
                    ledger.next_event_seq
                ));
            }
        }
        for row in &commit.rows {
            let Row::Job(job, Some(_)) = row else { continue };
            let next = now.ledgers.get(&job.tenant).map_or(0, |ledger| ledger.next_job_number);
            if job.number >= next {
                return Err(format!("job {job} is stored, and number {next} is given next"));
            }
        }
        Ok(())
    }
}

impl Checker for LedgerConserved {
    fn name(&self) -> &'static str {
        "ledger"
    }
    fn invariant(&self) -> u8 {
        3
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        self.let_go.clear();
        for row in &commit.rows {
            if let Row::Upload { tenant, digest, row } = row {
                let was = before.uploads.get(&(tenant.clone(), digest.clone()));
                let (was, is) = (was.map_or(0, |row| row.size_bytes), row.map_or(0, |row| row.size_bytes));
                let sum = self.uploaded.entry(tenant.clone()).or_default();
                *sum = *sum + is - was;
                *self.let_go.entry(tenant.clone()).or_default() += was.saturating_sub(is);
            }
            if let Row::State(job, Some(state)) = row
                && state.expired_ms > 0
            {
                let was = before.states.get(job).map_or(0, |was| was.storage_bytes);
                *self.let_go.entry(job.tenant.clone()).or_default() += was;
            }
            let Row::Checkpoint { job, step, task, rank, row } = row else { continue };
            let was = before.checkpoints.get(&(job.clone(), *step, *task, *rank));
            let now = row.as_ref().map_or(0, |row| bytes_of(row));
            let less = was.map_or(0, |row| bytes_of(row)).saturating_sub(now);
            *self.let_go.entry(job.tenant.clone()).or_default() += less;
        }
        Ok(())
    }

    fn after(&mut self, now: &Mirror, commit: &Committed) -> Result<(), String> {
        for row in &commit.rows {
            let Row::State(job, state) = row else { continue };
            let is = state.as_ref().map(|state| Share::of(now, job, state)).transpose()?;
            let was = match is {
                Some(is) => self.jobs.insert(job.clone(), is),
                None => self.jobs.remove(job),
            };
            let sums = self.tenants.entry(job.tenant.clone()).or_default();
            is.iter().for_each(|is| sums.add(is));
            was.iter().for_each(|was| sums.subtract(was));
            let before = was.map_or(0, |was| was.settled_micros);
            let more = is.map_or(0, |is| is.settled_micros).checked_sub(before);
            let more = more.ok_or_else(|| format!("{job} had settled {before}, then less"))?;
            *self.settled.entry(job.tenant.clone()).or_default() += more;
        }
        for row in &commit.rows {
            let Row::Ledger(tenant, Some(ledger)) = row else { continue };
            let last = self.last.insert(tenant.clone(), *ledger).unwrap_or_default();
            let let_go = self.let_go.get(tenant).copied().unwrap_or_default();
            adds_up(tenant, &last, ledger, let_go)?;
            let uploaded = self.uploaded.get(tenant).copied().unwrap_or_default();
            if ledger.uploaded_bytes != uploaded {
                return Err(format!(
                    "the ledger of {tenant} says {} bytes were uploaded, the rows of uploads {uploaded}",
                    ledger.uploaded_bytes
                ));
            }
            let settled = self.settled.remove(tenant).unwrap_or_default();
            settles_once(tenant, &last, ledger, settled)?;
        }
        self.touched(now, commit)
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        let mut tenants: BTreeMap<&str, Sums> = BTreeMap::new();
        for (job, state) in &outcome.mirror.states {
            tenants.entry(&job.tenant).or_default().add(&Share::of(outcome.mirror, job, state)?);
        }
        let ledgers = &outcome.mirror.ledgers;
        ledgers.iter().try_for_each(|(tenant, ledger)| {
            tenants.entry(tenant.as_str()).or_default().check(tenant, ledger)
        })
    }
}
