//! What must hold after every step.

use super::{Core, Phase};
use std::collections::BTreeMap;

impl Core {
    /// Panics where an invariant is broken. Costs a walk over all that is held.
    pub fn check(&self) {
        let mut counts: BTreeMap<_, [usize; 5]> = BTreeMap::new();
        let mut running = 0;
        let ends = self.reports.ends();
        for (key, attempt) in &self.attempts {
            let [held, queued, ready, busy, collecting] = counts.entry(key.grant()).or_default();
            *held += 1;
            match attempt.phase {
                Phase::Waiting => *queued += 1,
                Phase::Staging | Phase::Staged => {
                    *queued += 1;
                    *ready += 1;
                }
                Phase::Launching | Phase::Running => *busy += 1,
                Phase::Collecting(_) => *collecting += 1,
                Phase::Measuring | Phase::Ended(_) => {}
            }
            running += u32::from(attempt.phase == Phase::Running);
            let ended = matches!(attempt.phase, Phase::Ended(_));
            let reported = ends.get(key).copied().unwrap_or_default();
            assert_eq!(reported, usize::from(ended), "{key:?}: an end is reported once, and then it is one");
            assert_eq!(
                attempt.timer_ms.is_some_and(|at| self.timers.contains(&(at, key.clone()))),
                attempt.timer_ms.is_some(),
                "{key:?}: a timer is in the list of timers"
            );
            let may_have_none = matches!(attempt.phase, Phase::Waiting | Phase::Ended(_));
            assert!(attempt.directory.is_some() || may_have_none, "{key:?} runs without a directory");
        }
        assert_eq!(running, self.running, "the running ones are counted");
        assert_eq!(counts.len(), self.grants.len(), "a grant is held while one of its attempts is");
        for (key, grant) in &self.grants {
            let found = [grant.held, grant.queued as usize, grant.ready, grant.busy, grant.collecting];
            assert_eq!(counts.get(key), Some(&found), "{key:?}: the counts follow the phases");
            assert!(grant.gang || grant.busy <= grant.slots, "{key:?}: more run than the grant has slots");
        }
        for (at, key) in &self.timers {
            let timer = self.attempts.get(key).and_then(|attempt| attempt.timer_ms);
            assert_eq!(timer, Some(*at), "{key:?}: a timer belongs to its attempt");
        }
        assert!(self.dirty.is_empty(), "every grant with room was looked at");
    }
}
