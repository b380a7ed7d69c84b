//! A controller's link to a scheduler elsewhere.
//!
//! Forwards what the controller says; after every (re)connection it first drops
//! what was queued, takes a fresh snapshot and sends that, so that the scheduler
//! never works from a mixture. What must hold: the snapshot is at least as new
//! as every update taken from the channel before it was asked for.

use crate::limits::{DEMANDS_PER_UPDATE_MAX, LINK_DEADLINE_MS, LINK_QUEUE, RETRY_PAUSE_MS};
use futures_util::stream;
use proto::v1::DemandUpdate;
use proto::v1::planning_client::PlanningClient;
use std::sync::Arc;
use world::grpc::connect;
use world::sync::mpsc;
use world::{task, time};

/// Tells all of a controller's demand as it is now.
pub type SnapshotSource = Arc<dyn Fn() -> DemandUpdate + Send + Sync>;

/// Why a link ended.
enum Ended {
    /// The controller is gone: for good.
    Controller,
    /// The scheduler or the way to it: to be tried again.
    Scheduler(String),
}

/// Links to the scheduler at `address` until the controller's end of `demand`
/// is dropped.
pub fn link(
    address: String,
    demand: mpsc::Receiver<DemandUpdate>,
    snapshot: SnapshotSource,
) -> task::JoinHandle<()> {
    task::spawn(async move {
        let mut demand = demand;
        loop {
            match run_once(&address, &mut demand, &snapshot).await {
                Ended::Controller => return,
                Ended::Scheduler(why) => tracing::info!(address, why, "no link to the scheduler"),
            }
            time::sleep(time::ms(RETRY_PAUSE_MS)).await;
        }
    })
}

async fn run_once(
    address: &str,
    demand: &mut mpsc::Receiver<DemandUpdate>,
    snapshot: &SnapshotSource,
) -> Ended {
    let deadline = time::ms(LINK_DEADLINE_MS);
    let channel = match connect(address, deadline).await {
        Ok(channel) => channel,
        Err(error) => return Ended::Scheduler(error.to_string()),
    };
    let (updates, queue) = mpsc::channel(LINK_QUEUE);
    let outgoing = stream::unfold(queue, |mut queue: mpsc::Receiver<DemandUpdate>| async move {
        queue.recv().await.map(|update| (update, queue))
    });
    let mut client = PlanningClient::new(channel);
    let mut receipts = match time::timeout(deadline, client.link(outgoing)).await {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) => return Ended::Scheduler(status.to_string()),
        Err(_) => return Ended::Scheduler("it did not answer in time".to_owned()),
    };
    loop {
        match demand.try_recv() {
            Ok(_) => {}
            Err(mpsc::error::TryRecvError::Empty) => break,
            Err(mpsc::error::TryRecvError::Disconnected) => return Ended::Controller,
        }
    }
    let mut waiting = parts(snapshot());
    waiting.reverse();
    // Receipts are read while sending, so that neither side waits for the other.
    loop {
        world::select! {
            biased;
            receipt = receipts.message() => match receipt {
                Ok(Some(_)) => {}
                Ok(None) => return Ended::Scheduler("it closed the link".to_owned()),
                Err(status) => return Ended::Scheduler(status.to_string()),
            },
            permit = updates.reserve(), if !waiting.is_empty() => match permit {
                Ok(permit) => permit.send(waiting.pop().expect("there is one")),
                Err(_) => return Ended::Scheduler("the link broke".to_owned()),
            },
            update = demand.recv(), if waiting.is_empty() => match update {
                Some(update) => {
                    waiting = parts(update);
                    waiting.reverse();
                }
                None => return Ended::Controller,
            },
        }
    }
}

/// Cuts an update so that each part fits a message; only the first part of a
/// snapshot is marked as one.
fn parts(update: DemandUpdate) -> Vec<DemandUpdate> {
    let DemandUpdate { snapshot, controller, changed, gone } = update;
    let part =
        |changed, gone| DemandUpdate { snapshot: false, controller: controller.clone(), changed, gone };
    let mut parts: Vec<DemandUpdate> =
        gone.chunks(DEMANDS_PER_UPDATE_MAX).map(|gone| part(Vec::new(), gone.to_vec())).collect();
    parts.extend(changed.chunks(DEMANDS_PER_UPDATE_MAX).map(|changed| part(changed.to_vec(), Vec::new())));
    if parts.is_empty() {
        parts.push(part(Vec::new(), Vec::new()));
    }
    parts[0].snapshot = snapshot;
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Demand, DemandKey};

    #[test]
    fn only_the_first_part_of_a_snapshot_is_one() {
        let changed = vec![Demand::default(); DEMANDS_PER_UPDATE_MAX + 1];
        let update = DemandUpdate { snapshot: true, controller: "c".into(), changed, gone: vec![] };
        let parts = parts(update);
        assert_eq!(parts.iter().map(|p| p.snapshot).collect::<Vec<_>>(), [true, false]);
        assert_eq!(parts[1].changed.len(), 1);
    }

    #[test]
    fn an_empty_snapshot_is_told_too_and_ends_go_first() {
        let empty = DemandUpdate { snapshot: true, controller: "c".into(), ..DemandUpdate::default() };
        assert_eq!(parts(empty.clone()), [empty]);
        let update = DemandUpdate {
            snapshot: false,
            controller: "c".into(),
            changed: vec![Demand::default()],
            gone: vec![DemandKey::default()],
        };
        assert_eq!(parts(update).iter().map(|p| p.gone.len()).collect::<Vec<_>>(), [1, 0]);
    }
}
