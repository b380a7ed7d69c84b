//! Invariant 8, in time: a task that failed by its own fault is not tried again
//! before its back-off is over.
//!
//! Two clocks must agree that it was too soon: that of the controller, which its
//! events tell and faults set wrong, and true time, in which a commit on a slow
//! disk is seen late.

use super::agreement::events;
use super::retries::is_own;
use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::JobName;
use proto::v1::{Cause, CauseKind, Event, State};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct NotTooSoon {
    config: controller::Config,
    tasks: BTreeMap<(JobName, u32, u64), Tries>,
}

/// A task's own failures since the user's last retry of it, and the last of them.
#[derive(Clone, Copy, Default)]
struct Tries {
    own: u32,
    /// By the controller's clock and in true time; 0: none is waited for.
    failed_ms: [u64; 2],
}

impl NotTooSoon {
    /// The shortest span that may lie before the next try: the jitter may shorten
    /// it, and so may the drift of a clock, by a few in a hundred.
    fn least_ms(&self, own: u32) -> u64 {
        let doubled = self.config.own_backoff_ms.saturating_mul(1 << (own.max(1) - 1).min(32));
        doubled.min(self.config.backoff_ms_max) * (100 - self.config.jitter_percent.min(100)) / 100 * 9 / 10
    }

    fn task(&mut self, name: (JobName, u32, u64), event: &Event, commit: &Committed) -> Result<(), String> {
        let kind = event.cause.as_ref().map_or(CauseKind::Unspecified, Cause::kind);
        if kind == CauseKind::RetriedByUser {
            self.tasks.remove(&name);
            return Ok(());
        }
        let ran = matches!(event.from(), State::Staging | State::Running);
        if ran && event.to() == State::Pending && is_own(kind) {
            let tries = self.tasks.entry(name).or_default();
            tries.own += 1;
            tries.failed_ms = [event.at_ms, commit.since_ms];
        } else if event.from() == State::Pending
            && event.to() == State::Staging
            && let Some(tries) = self.tasks.get_mut(&name)
            && tries.failed_ms != [0, 0]
        {
            let [told, seen] = std::mem::take(&mut tries.failed_ms);
            let (own, waited_ms) =
                (tries.own, event.at_ms.saturating_sub(told).max(commit.at_ms.saturating_sub(seen)));
            let least_ms = self.least_ms(own);
            if waited_ms < least_ms {
                let (job, step, task) = name;
                return Err(format!(
                    "task {task} of step {step} of {job} failed the {own}. time and was tried again after \
                     {waited_ms} ms, before its {least_ms} ms were over"
                ));
            }
        }
        Ok(())
    }
}

impl Checker for NotTooSoon {
    fn name(&self) -> &'static str {
        "backoff"
    }
    fn invariant(&self) -> u8 {
        8
    }

    fn commit(&mut self, _: &Mirror, commit: &Committed) -> Result<(), String> {
        for (tenant, event) in events(commit) {
            let Some(step) = event.step else { continue };
            let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
            for task in event.tasks.iter().flat_map(|span| span.first..=span.last) {
                self.task((job.clone(), step, task), event, commit)?;
            }
        }
        Ok(())
    }
}
