//! What must hold after every step.

use super::looks::Look;
use super::{Core, Phase};
use std::collections::BTreeMap;

impl Core {
    /// Panics where an invariant is broken. Costs a walk over all that is held.
    pub fn check(&self) {
        // By epoch first: names of tenants are the slower to compare.
        let mut counts: BTreeMap<(u64, &str), [usize; 5]> = BTreeMap::new();
        let (mut running, mut ended, mut timers) = (0, 0, 0);
        for (key, attempt) in &self.attempts {
            let [held, queued, ready, busy, collecting] = counts.entry((key.epoch, &key.tenant)).or_default();
            *held += 1;
            match attempt.phase {
                Phase::Waiting => *queued += 1,
                Phase::Staging | Phase::Staged => {
                    *queued += 1;
                    *ready += 1;
                }
                Phase::Launching | Phase::Running => *busy += 1,
                Phase::Collecting(_) | Phase::Saving(..) => *collecting += 1,
                Phase::Measuring | Phase::Ended(_) => {}
            }
            running += u32::from(attempt.phase == Phase::Running);
            ended += usize::from(matches!(attempt.phase, Phase::Ended(_)));
            timers += usize::from(attempt.timer_ms.is_some());
            let may_have_none = matches!(attempt.phase, Phase::Waiting | Phase::Ended(_));
            assert!(attempt.directory.is_some() || may_have_none, "{key:?} runs without a directory");
        }
        assert_eq!(running, self.running, "the running ones are counted");
        assert_eq!(counts.len(), self.grants.len(), "a grant is held while one of its attempts is");
        for ((tenant, epoch), grant) in &self.grants {
            let found = [grant.held, grant.queued as usize, grant.ready, grant.busy, grant.collecting];
            let counted = counts.get(&(*epoch, &**tenant));
            assert_eq!(counted, Some(&found), "{tenant}, {epoch}: the counts follow the phases");
            let fits = grant.gang || grant.busy <= grant.slots;
            assert!(fits, "{tenant}, {epoch}: more run than the grant has slots");
        }
        let mut reported = 0;
        for (key, times) in self.reports.ends() {
            let Some(attempt) = self.attempts.get(key) else { continue };
            let once = times == 1 && matches!(attempt.phase, Phase::Ended(_));
            assert!(once, "{key:?}: an end is reported once, and then it is one");
            reported += 1;
        }
        assert_eq!(reported, ended, "every end is reported");
        assert_eq!(timers, self.timers.len(), "a timer is in the list of timers");
        for (at, key) in &self.timers {
            let timer = self.attempts.get(key).and_then(|attempt| attempt.timer_ms);
            assert_eq!(timer, Some(*at), "{key:?}: a timer belongs to its attempt");
        }
        for (at, key) in &self.looks {
            let attempt = self.attempts.get(key);
            let runs = attempt.is_some_and(|held| held.look_at_ms == Some(*at) && held.look == Look::Idle);
            assert!(runs, "{key:?}: a look that is due belongs to an attempt at which nobody looks");
        }
        let looks = (self.progress.under_way(), self.progress.due_ms());
        assert!(!(looks.0 && looks.1.is_some()), "a look at progress is due while one is under way");
        assert!(self.dirty.is_empty(), "every grant with room was looked at");
    }
}
