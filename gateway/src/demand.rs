//! Tells the controller's demand to every scheduler: the server's own, and those
//! that follow from other processes.
//!
//! What must hold: a follower's first word is all demand there is, and it misses
//! nothing after that; one that cannot keep up is cut off and begins anew. The
//! controller waits for the server's own scheduler alone.

use crate::limits::{
    DEMAND_UPDATES_PER_SCHEDULER, DEMANDS_PER_UPDATE_MAX, SCHEDULERS_MAX, YIELDING_PER_UPDATE_MAX,
};
use proto::problem::Problem;
use proto::v1::{DemandUpdate, License};
use std::sync::{Arc, Mutex, MutexGuard};
use world::sync::mpsc;
use world::task::spawn;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    followers: Mutex<Vec<Follower>>,
}

#[derive(Debug)]
struct Follower {
    /// It has been told all there was.
    begun: bool,
    updates: mpsc::Sender<DemandUpdate>,
}

impl Demand {
    /// Hands on what the controller tells, and with all of it how many there are of each
    /// license; the receiver is for the server's own scheduler.
    pub fn hand_on(
        mut told: mpsc::Receiver<DemandUpdate>,
        licenses: Vec<License>,
    ) -> (Arc<Self>, mpsc::Receiver<DemandUpdate>) {
        let demand = Arc::new(Self::default());
        let (own, updates) = mpsc::channel(1);
        let shared = Arc::clone(&demand);
        spawn(async move {
            while let Some(mut update) = told.recv().await {
                if update.snapshot {
                    update.licenses.clone_from(&licenses);
                }
                shared.tell(&update);
                if own.send(update).await.is_err() {
                    return;
                }
            }
        });
        (demand, updates)
    }

    /// What a new follower is told, once the controller was asked to tell all.
    pub fn follow(&self) -> Result<mpsc::Receiver<DemandUpdate>, Problem> {
        let mut followers = self.followers();
        followers.retain(|follower| !follower.updates.is_closed());
        if followers.len() >= SCHEDULERS_MAX {
            return Err(Problem::new(
                "limit.schedulers",
                "schedulers",
                SCHEDULERS_MAX,
                "as many schedulers follow this server as it lets",
                "stop one of them",
            ));
        }
        let (updates, told) = mpsc::channel(DEMAND_UPDATES_PER_SCHEDULER);
        followers.push(Follower { begun: false, updates });
        Ok(told)
    }

    /// How many follow.
    pub fn count(&self) -> usize {
        self.followers().iter().filter(|follower| !follower.updates.is_closed()).count()
    }

    fn tell(&self, update: &DemandUpdate) {
        self.followers().retain_mut(|follower| {
            if !follower.begun && !update.snapshot {
                return true;
            }
            follower.begun = true;
            parts(update).all(|part| follower.updates.try_send(part).is_ok())
        });
    }

    fn followers(&self) -> MutexGuard<'_, Vec<Follower>> {
        self.followers.lock().expect("no holder of this lock panics")
    }
}

/// Cuts an update so that each part fits a message; only the first part of a
/// snapshot is marked as one.
fn parts(update: &DemandUpdate) -> impl Iterator<Item = DemandUpdate> {
    let DemandUpdate { snapshot, controller, changed, gone, pools, yielding, licenses } = update;
    let gone = gone.chunks(DEMANDS_PER_UPDATE_MAX).map(|gone| (&[][..], gone, &[][..]));
    let changed = changed.chunks(DEMANDS_PER_UPDATE_MAX).map(|changed| (changed, &[][..], &[][..]));
    let yielding = yielding.chunks(YIELDING_PER_UPDATE_MAX).map(|yielding| (&[][..], &[][..], yielding));
    let mut all: Vec<_> = gone.chain(changed).chain(yielding).collect();
    if all.is_empty() {
        all.push((&[], &[], &[]));
    }
    all.into_iter().enumerate().map(move |(at, (changed, gone, yielding))| DemandUpdate {
        snapshot: *snapshot && at == 0,
        controller: controller.clone(),
        changed: changed.to_vec(),
        gone: gone.to_vec(),
        pools: if at == 0 { pools.clone() } else { Vec::new() },
        yielding: yielding.to_vec(),
        licenses: if at == 0 { licenses.clone() } else { Vec::new() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Demand as Wanted, DemandKey};

    fn update(snapshot: bool, changed: usize, gone: usize) -> DemandUpdate {
        DemandUpdate {
            snapshot,
            controller: "c".into(),
            changed: vec![Wanted::default(); changed],
            gone: vec![DemandKey::default(); gone],
            ..DemandUpdate::default()
        }
    }

    #[test]
    fn only_the_first_part_of_a_snapshot_is_one() {
        let parts: Vec<DemandUpdate> = parts(&update(true, DEMANDS_PER_UPDATE_MAX + 1, 0)).collect();
        assert_eq!(parts.iter().map(|part| part.snapshot).collect::<Vec<_>>(), [true, false]);
        assert_eq!(parts[1].changed.len(), 1);
    }

    #[test]
    fn an_empty_snapshot_is_told_too_and_ends_go_first() {
        assert_eq!(parts(&update(true, 0, 0)).collect::<Vec<_>>(), [update(true, 0, 0)]);
        let told: Vec<usize> = parts(&update(false, 1, 1)).map(|part| part.gone.len()).collect();
        assert_eq!(told, [1, 0]);
    }

    #[test]
    fn a_follower_begins_with_a_snapshot_and_is_cut_off_when_it_is_too_slow() {
        let demand = Demand::default();
        let mut told = demand.follow().unwrap();
        demand.tell(&update(false, 1, 0));
        demand.tell(&update(true, 2, 0));
        demand.tell(&update(false, 1, 0));
        assert_eq!(told.try_recv().unwrap(), update(true, 2, 0));
        assert_eq!(told.try_recv().unwrap(), update(false, 1, 0));
        for _ in 0..=DEMAND_UPDATES_PER_SCHEDULER {
            demand.tell(&update(false, 1, 0));
        }
        let mut left = 0;
        while told.try_recv().is_ok() {
            left += 1;
        }
        assert_eq!((left, told.is_closed()), (DEMAND_UPDATES_PER_SCHEDULER, true));
    }

    #[test]
    fn there_are_not_endlessly_many_and_those_that_left_do_not_count() {
        let demand = Demand::default();
        let mut held: Vec<_> = (0..SCHEDULERS_MAX).map(|_| demand.follow().unwrap()).collect();
        assert_eq!(demand.follow().unwrap_err().code, "limit.schedulers");
        held.pop();
        demand.follow().unwrap();
    }
}
