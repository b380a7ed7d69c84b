//! Orders on their way to the supervisor, as commands.
//!
//! What must hold: orders reach it in the order given; a launch that may or may
//! not have happened is never handed over again, but ordered to be forgotten
//! (and so killed); what ends processes is repeated until the supervisor has
//! it. No launch is handed over but behind the dead man's switch that ends it:
//! the supervisor may be another than the one that was told last, and nobody
//! knows whether this agent lives until the next renewal.

use super::Order;
use std::collections::BTreeMap;
use world::processes::{Command, Signal};

/// See the module.
#[derive(Debug, Default)]
pub struct Handover {
    /// What has to be handed over again, by process: the strongest word for each.
    owed: BTreeMap<String, Command>,
    /// Launches under way.
    launches: Vec<String>,
    /// What is owed should those under way not arrive.
    fallback: Vec<Command>,
    /// The instant last given to the switch.
    switch_ms: u64,
}

impl Handover {
    /// Nothing has to be handed over again.
    #[must_use]
    pub fn owes_nothing(&self) -> bool {
        self.owed.is_empty()
    }

    /// What is handed over at this instant, and the launches that come too late.
    /// [`Handover::done`] or [`Handover::failed`] says what became of it.
    pub fn commands(
        &mut self,
        orders: impl IntoIterator<Item = Order>,
        mono_ms: u64,
    ) -> (Vec<Command>, Vec<String>) {
        if !self.owed.is_empty() {
            world::mark!("agent.handover.owed_again");
        }
        let mut commands: Vec<Command> = self.owed.values().cloned().collect();
        let mut lapsed = Vec::new();
        let mut is_wound = false;
        for order in orders {
            match &order {
                Order::Launch { launch, until_ms } if *until_ms <= mono_ms => {
                    world::mark!("agent.handover.launch_too_late");
                    lapsed.push(launch.key.clone());
                    continue;
                }
                Order::Launch { .. } if !is_wound => {
                    commands.extend(Order::KeepAlive { until_ms: self.switch_ms }.command(mono_ms));
                    is_wound = true;
                }
                Order::KeepAlive { until_ms } => {
                    self.switch_ms = *until_ms;
                    is_wound = true;
                }
                _ => {}
            }
            commands.extend(order.command(mono_ms));
        }
        (self.launches, self.fallback) = fallback(&commands);
        (commands, lapsed)
    }

    /// The supervisor has them.
    pub fn done(&mut self) {
        self.owed.clear();
    }

    /// Nobody knows what of them the supervisor has. Returns the launches in
    /// doubt.
    pub fn failed(&mut self) -> Vec<String> {
        for command in std::mem::take(&mut self.fallback) {
            self.keep(command);
        }
        std::mem::take(&mut self.launches)
    }

    fn keep(&mut self, command: Command) {
        let (key, strength) = match &command {
            Command::Forget { key } => (key, 3),
            Command::Signal { key, signal: Signal::Kill } => (key, 2),
            Command::Signal { key, signal: Signal::Term } => (key, 1),
            // Who is asked for a checkpoint is asked again.
            Command::Launch(_) | Command::Nudge { .. } | Command::KeepAlive { .. } | Command::Retire => {
                return;
            }
        };
        let held = match self.owed.get(key) {
            Some(Command::Forget { .. }) => 3,
            Some(Command::Signal { signal: Signal::Kill, .. }) => 2,
            Some(_) => 1,
            None => 0,
        };
        if strength > held {
            self.owed.insert(key.clone(), command);
        }
    }
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
            Command::Nudge { .. } | Command::KeepAlive { .. } | Command::Retire => {}
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

    fn shown(commands: &[Command]) -> Vec<String> {
        let line = |command: &Command| match command {
            Command::Launch(launch) => format!("launch {}", launch.key),
            Command::Signal { key, signal } => format!("{signal:?} {key}"),
            Command::Nudge { key, signal } => format!("{signal} {key}"),
            Command::Forget { key } => format!("forget {key}"),
            Command::KeepAlive { for_ms } => format!("alive for {for_ms}"),
            Command::Retire => "retire".to_owned(),
        };
        commands.iter().map(line).collect()
    }

    #[test]
    fn a_launch_that_stood_in_the_queue_past_its_lease_is_dropped() {
        let mut handover = Handover::default();
        let (now, lapsed) = handover.commands([launch("a")], 99);
        assert_eq!((now.len(), lapsed.len()), (1, 0));
        let (now, lapsed) = handover.commands([launch("a")], 100);
        assert_eq!((now.len(), lapsed), (0, vec!["a".to_owned()]));
        let (now, _) = handover.commands([Order::KeepAlive { until_ms: 100 }], 40);
        assert_eq!(shown(&now), ["alive for 60"]);
    }

    #[test]
    fn a_doubtful_launch_is_owed_its_end_and_never_launched_again() {
        let mut handover = Handover::default();
        handover.commands([launch("a")], 0);
        assert!(handover.owes_nothing());
        assert_eq!(handover.failed(), ["a"]);
        let kill = Order::Signal { key: "a".to_owned(), signal: Signal::Kill };
        assert_eq!(shown(&handover.commands([kill], 1).0), ["forget a", "Kill a"]);
        assert!(handover.failed().is_empty());
        assert_eq!(shown(&handover.commands([], 2).0), ["forget a"], "the stronger word");
        handover.done();
        assert!(handover.owes_nothing());
    }

    #[test]
    fn no_launch_goes_but_behind_the_switch() {
        let mut handover = Handover::default();
        let (sent, _) = handover.commands([Order::KeepAlive { until_ms: 130 }, launch("a"), launch("b")], 0);
        assert_eq!(shown(&sent), ["alive for 130", "launch a", "launch b"]);
        // Whether the supervisor has it is not known, or another took its place.
        handover.failed();
        let (sent, _) = handover.commands([launch("c"), launch("d")], 10);
        assert_eq!(shown(&sent), ["forget a", "forget b", "alive for 120", "launch c", "launch d"]);
        handover.done();
        let (sent, _) = handover.commands([launch("e")], 20);
        assert_eq!(shown(&sent), ["alive for 110", "launch e"]);
    }
}
