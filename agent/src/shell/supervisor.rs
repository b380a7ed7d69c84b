//! Orders to the node's processes, and their reports. What is handed over, and
//! what of it again, [`Handover`] says.

use super::{Inbound, tell};
use crate::core::handover::Handover;
use crate::core::{Event, Order};
use crate::limits;
use std::sync::Arc;
use world::sync::mpsc;
use world::time::{ms, sleep, timeout};
use world::{NodeClock, Processes};

/// Hands orders over until the loop is gone.
pub(super) async fn send(
    processes: Arc<dyn Processes>,
    clock: Arc<dyn NodeClock>,
    mut due: mpsc::Receiver<Vec<Order>>,
    inbox: mpsc::Sender<Inbound>,
) {
    let mut handover = Handover::default();
    loop {
        let first = if handover.owes_nothing() {
            match due.recv().await {
                Some(batch) => batch,
                None => return,
            }
        } else {
            world::select! {
                biased;
                batch = due.recv() => match batch {
                    Some(batch) => batch,
                    None => return,
                },
                () = sleep(ms(limits::SUPERVISOR_PAUSE_MS)) => Vec::new(),
            }
        };
        let mut orders = first;
        while let Ok(batch) = due.try_recv() {
            orders.extend(batch);
        }
        let (commands, lapsed) = handover.commands(orders, clock.monotonic_ms());
        if !lapsed.is_empty() {
            tell(&inbox, vec![Event::Lapsed { launches: lapsed }]).await;
        }
        if commands.is_empty() {
            continue;
        }
        let sent = timeout(ms(limits::SUPERVISOR_MS_MAX), processes.send(commands)).await;
        let reason = match sent {
            Ok(Ok(())) => {
                handover.done();
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the node's supervisor does not answer".to_owned(),
        };
        tracing::warn!(reason, "orders could not be handed over");
        tell(&inbox, vec![Event::Unreachable { launches: handover.failed(), reason }]).await;
    }
}

/// Tells the loop what processes do.
pub(super) async fn receive(processes: Arc<dyn Processes>, inbox: mpsc::Sender<Inbound>) {
    loop {
        let reports = processes.next().await;
        if inbox.send(Inbound::Events(vec![Event::Processes(reports)])).await.is_err() {
            return;
        }
    }
}
