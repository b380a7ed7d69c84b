//! What runs, and who may overtake whom because of it.

use crate::replay::machine::{JobIndex, Machine};
use crate::replay::swf::LogJob;
use std::collections::BTreeMap;

/// Sizes of the jobs that run, by when they end at the latest.
#[derive(Debug, Default)]
pub(super) struct Running(BTreeMap<(u64, JobIndex), u64>);

/// When the first that waits starts at the latest, and how many processors it leaves
/// free then.
struct Reservation {
    at: u64,
    spare: u64,
}

impl Running {
    pub(super) fn ended(&mut self, index: JobIndex, job: &LogJob, started: u64) {
        self.0.remove(&(started + job.estimate, index));
    }

    /// Starts those that wait while they fit, in their order. The first that does not
    /// gets a reservation. Of the others, in the order that `overtaking` brings them
    /// into, those start that do not delay it.
    pub(super) fn fill(
        &mut self,
        now: u64,
        machine: &mut Machine<'_>,
        mut waiting: &[JobIndex],
        overtaking: impl FnOnce(&mut [JobIndex]),
    ) {
        while let [first, rest @ ..] = waiting
            && machine.job(*first).size <= machine.free()
        {
            self.start(now, *first, machine);
            waiting = rest;
        }
        let [first, rest @ ..] = waiting else { return };
        if rest.is_empty() || machine.free() == 0 {
            return;
        }
        let mut reservation = self.reserve(machine.free(), machine.job(*first).size);
        let mut rest = rest.to_vec();
        overtaking(&mut rest);
        for index in rest {
            let job = machine.job(index);
            if job.size > machine.free() {
                continue;
            }
            if now + job.estimate > reservation.at {
                // It may still be there by then.
                let Some(spare) = reservation.spare.checked_sub(job.size) else { continue };
                reservation.spare = spare;
            }
            self.start(now, index, machine);
        }
    }

    fn start(&mut self, now: u64, index: JobIndex, machine: &mut Machine<'_>) {
        let job = machine.job(index);
        self.0.insert((now + job.estimate, index), job.size);
        machine.start(index);
    }

    fn reserve(&self, mut free: u64, size: u64) -> Reservation {
        let mut at = 0;
        for (&(end, _), &more) in &self.0 {
            if free >= size && end > at {
                break;
            }
            free += more;
            at = end;
        }
        Reservation { at, spare: free - size }
    }
}
