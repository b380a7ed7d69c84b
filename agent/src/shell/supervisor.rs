//! Orders to the node's processes, and their reports.
//!
//! What must hold: orders reach the supervisor in the order given; a launch
//! that may or may not have happened is never handed over again, but ordered
//! to be forgotten (and so killed); what ends processes is repeated until the
//! supervisor has it.

use super::{Inbound, tell};
use crate::core::{Event, Order};
use crate::limits;
use std::collections::BTreeMap;
use std::sync::Arc;
use world::processes::{Command, Signal};
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
    let mut owed = Owed::default();
    loop {
        let first = if owed.is_empty() {
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
        let mut batches = vec![first];
        while let Ok(batch) = due.try_recv() {
            batches.push(batch);
        }
        let (commands, lapsed) = commands(owed.commands(), batches, clock.monotonic_ms());
        if !lapsed.is_empty() {
            tell(&inbox, vec![Event::Lapsed { launches: lapsed }]).await;
        }
        if commands.is_empty() {
            continue;
        }
        let (launches, fallback) = fallback(&commands);
        let sent = timeout(ms(limits::SUPERVISOR_MS_MAX), processes.send(commands)).await;
        let reason = match sent {
            Ok(Ok(())) => {
                owed = Owed::default();
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the node's supervisor does not answer".to_owned(),
        };
        tracing::warn!(reason, "orders could not be handed over");
        owed.keep(fallback);
        tell(&inbox, vec![Event::Unreachable { launches, reason }]).await;
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

/// What has to be handed over again, by process: the strongest word for each.
#[derive(Debug, Default)]
struct Owed(BTreeMap<String, Command>);

impl Owed {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn commands(&self) -> Vec<Command> {
        self.0.values().cloned().collect()
    }

    fn keep(&mut self, fallback: Vec<Command>) {
        for command in fallback {
            let (key, strength) = match &command {
                Command::Forget { key } => (key, 3),
                Command::Signal { key, signal: Signal::Kill } => (key, 2),
                Command::Signal { key, signal: Signal::Term } => (key, 1),
                Command::Launch(_) | Command::KeepAlive { .. } | Command::Retire => continue,
            };
            let held = match self.0.get(key) {
                Some(Command::Forget { .. }) => 3,
                Some(Command::Signal { signal: Signal::Kill, .. }) => 2,
                Some(_) => 1,
                None => 0,
            };
            if strength > held {
                self.0.insert(key.clone(), command);
            }
        }
    }
}

/// What is handed over at this instant, and the launches that come too late.
fn commands(owed: Vec<Command>, batches: Vec<Vec<Order>>, mono_ms: u64) -> (Vec<Command>, Vec<String>) {
    let mut commands = owed;
    let mut lapsed = Vec::new();
    for order in batches.into_iter().flatten() {
        match order {
            Order::Launch { launch, until_ms } if until_ms <= mono_ms => lapsed.push(launch.key),
            order => commands.extend(order.command(mono_ms)),
        }
    }
    (commands, lapsed)
}

/// Should these not arrive: which launches are in doubt, and what is owed then.
fn fallback(commands: &[Command]) -> (Vec<String>, Vec<Command>) {
    let mut launches = Vec::new();
    let mut owed = Vec::new();
    for command in commands {
        match command {
            Command::Launch(launch) => {
                launches.push(launch.key.clone());
                owed.push(Command::Forget { key: launch.key.clone() });
            }
            Command::Signal { .. } | Command::Forget { .. } => owed.push(command.clone()),
            Command::KeepAlive { .. } | Command::Retire => {}
        }
    }
    (launches, owed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use world::processes::Launch;

    fn launch(key: &str) -> Order {
        let launch = Launch {
            key: key.to_owned(),
            argv: vec!["true".to_owned()],
            env: Vec::new(),
            cwd: "/".into(),
            stdout: "/o".into(),
            stderr: "/e".into(),
            limits: Default::default(),
            context: Vec::new(),
        };
        Order::Launch { launch: Box::new(launch), until_ms: 100 }
    }

    #[test]
    fn a_launch_that_stood_in_the_queue_past_its_lease_is_dropped() {
        let (now, lapsed) = commands(Vec::new(), vec![vec![launch("a")]], 99);
        assert_eq!((now.len(), lapsed.len()), (1, 0));
        let (now, lapsed) = commands(Vec::new(), vec![vec![launch("a")]], 100);
        assert_eq!((now.len(), lapsed), (0, vec!["a".to_owned()]));
        let keep = vec![vec![Order::KeepAlive { until_ms: 100 }]];
        assert_eq!(commands(Vec::new(), keep, 40).0, vec![Command::KeepAlive { for_ms: 60 }]);
    }

    #[test]
    fn a_doubtful_launch_is_owed_its_end_and_never_launched_again() {
        let (sent, _) = commands(Vec::new(), vec![vec![launch("a")]], 0);
        let (launches, owed) = fallback(&sent);
        assert_eq!(launches, vec!["a".to_owned()]);
        let mut kept = Owed::default();
        kept.keep(owed);
        kept.keep(vec![Command::Signal { key: "a".to_owned(), signal: Signal::Kill }]);
        assert_eq!(kept.commands(), vec![Command::Forget { key: "a".to_owned() }]);
    }
}
