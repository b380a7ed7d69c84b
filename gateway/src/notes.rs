//! What jobs waited for, noted while they did: so `why` can be asked of a past instant.
//!
//! What must hold: it is bounded and in memory alone, and nothing waits for it. It is noted
//! now and then, and of each tenant's queue those that came first; a server that begins
//! knows of nothing that was before it, and says so.

use crate::drumline;
use crate::gate::Gate;
use crate::limits::{NOTED_JOBS_MAX, NOTES_LOOK_MS, NOTES_PER_JOB_MAX, NOTES_PER_TENANT_MAX, NOTES_SAME_MS};
use proto::ids::JobId;
use proto::v1::WhyReply;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, Weak};
use world::time;

/// See the module.
#[derive(Debug)]
pub(crate) struct Notes {
    /// When it began, milliseconds since 1970.
    pub begun_ms: u64,
    jobs: Mutex<BTreeMap<JobId, VecDeque<Note>>>,
}

/// What held from one look to another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Note {
    /// When it was first seen.
    pub from_ms: u64,
    /// When it was seen last.
    pub until_ms: u64,
    pub why: WhyReply,
}

impl Notes {
    pub fn new(begun_ms: u64) -> Self {
        Self { begun_ms, jobs: Mutex::default() }
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, VecDeque<Note>>> {
        self.jobs.lock().expect("no holder of this lock panics")
    }

    /// What the job was seen to wait for at that instant, or at the last look before it.
    pub fn at(&self, job: &JobId, at_ms: u64) -> Option<Note> {
        let jobs = self.jobs();
        let note = jobs.get(job)?.iter().rev().find(|note| note.from_ms <= at_ms)?;
        (at_ms <= note.until_ms + NOTES_LOOK_MS).then(|| note.clone())
    }

    /// It waits for that now. Numbers in the words change all the time: while the constraint
    /// is the same they are noted anew once in a while.
    fn note(&self, job: JobId, now_ms: u64, why: WhyReply) {
        let mut jobs = self.jobs();
        let notes = jobs.entry(job).or_default();
        if let Some(last) = notes.back_mut()
            && last.why.code == why.code
            && now_ms.saturating_sub(last.until_ms) <= 2 * NOTES_LOOK_MS
            && (last.why.headline == why.headline || now_ms.saturating_sub(last.from_ms) < NOTES_SAME_MS)
        {
            last.until_ms = now_ms;
            return;
        }
        if notes.len() >= NOTES_PER_JOB_MAX {
            notes.pop_front();
        }
        notes.push_back(Note { from_ms: now_ms, until_ms: now_ms, why });
        if jobs.len() > NOTED_JOBS_MAX {
            forget_oldest(&mut jobs);
        }
    }
}

/// A part of those that were seen to wait the longest time ago.
fn forget_oldest(jobs: &mut BTreeMap<JobId, VecDeque<Note>>) {
    let last_seen = |notes: &VecDeque<Note>| notes.back().map_or(0, |note| note.until_ms);
    let mut seen: Vec<u64> = jobs.values().map(last_seen).collect();
    let (_, &mut before, _) = seen.select_nth_unstable(NOTED_JOBS_MAX / 8);
    jobs.retain(|_, notes| last_seen(notes) > before);
}

/// Looks every so often, until the server ends.
pub(crate) async fn keep(gate: Weak<Gate>) {
    loop {
        time::sleep(time::ms(NOTES_LOOK_MS)).await;
        let Some(gate) = gate.upgrade() else { return };
        for key in gate.planner.waiting(NOTES_PER_TENANT_MAX) {
            let job = JobId { tenant: key.tenant, number: key.job_number };
            // One that is just ending is not missed.
            if let Ok(why) = drumline::why(&gate, &job).await {
                gate.notes.note(job, gate.clock.wall_ms(), why);
            }
        }
        world::mark!("gateway.notes.looked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(code: &str, headline: &str) -> WhyReply {
        WhyReply { code: code.to_owned(), headline: headline.to_owned(), ..WhyReply::default() }
    }

    fn job(number: u64) -> JobId {
        JobId { tenant: "lab".to_owned(), number }
    }

    #[test]
    fn what_held_at_an_instant_is_told_and_nothing_where_nobody_looked() {
        let notes = Notes::new(0);
        for (at_ms, code, headline) in [
            (10_000, "waiting.capacity", "2 of 8 cores"),
            (15_000, "waiting.capacity", "3 of 8 cores"),
            (20_000, "waiting.quota", "its limit"),
            (80_000, "waiting.quota", "its limit"),
        ] {
            notes.note(job(1), at_ms, why(code, headline));
        }
        let told = |at_ms| notes.at(&job(1), at_ms).map(|note| (note.from_ms, note.why.headline));
        assert_eq!(told(9_999), None);
        assert_eq!(told(10_000), Some((10_000, "2 of 8 cores".to_owned())));
        assert_eq!(told(19_999), Some((10_000, "2 of 8 cores".to_owned())), "numbers alone are no news");
        assert_eq!(told(20_000), Some((20_000, "its limit".to_owned())));
        assert_eq!(told(50_000), None, "between two looks too far apart it may have run");
        assert_eq!(told(80_001), Some((80_000, "its limit".to_owned())));
        assert_eq!(notes.at(&job(2), 80_000), None);
    }

    #[test]
    fn it_is_bounded() {
        let notes = Notes::new(0);
        for at_ms in 0..2 * NOTES_PER_JOB_MAX as u64 {
            notes.note(job(1), at_ms * 100_000, why("waiting.capacity", ""));
        }
        assert_eq!(notes.jobs()[&job(1)].len(), NOTES_PER_JOB_MAX);
        for number in 0..2 * NOTED_JOBS_MAX as u64 {
            notes.note(job(number + 2), 100_000_000 + number, why("waiting.capacity", ""));
            assert!(notes.jobs().len() <= NOTED_JOBS_MAX);
        }
        assert_eq!(notes.at(&job(1), 100_000), None, "who was seen last stays");
        assert!(notes.at(&job(2 * NOTED_JOBS_MAX as u64 + 1), 200_000_000).is_none());
    }
}
