//! The supervisor, as far as the lease goes: it does as it is told, in order,
//! and its switch strikes at the instant it was wound to.

use super::World;
use std::collections::{BTreeMap, VecDeque};
use world::processes::{Command, Exit, Report, Signal};

/// The supervisor's; it lives on without an agent.
#[derive(Default)]
pub(super) struct Supervisor {
    pub(super) processes: BTreeMap<String, Process>,
    /// When the dead man's switch strikes.
    pub(super) switch_ms: Option<u64>,
    /// It struck and was not wound since.
    struck: bool,
}

pub(super) struct Process {
    pub(super) context: Vec<u8>,
    /// Set once it has ended.
    pub(super) exit: Option<Exit>,
    /// It takes no notice of TERM.
    stubborn: bool,
}

impl World {
    pub(super) fn obey(&mut self, command: Command, stubborn: bool) {
        self.strike();
        let supervisor = &mut self.supervisor;
        match command {
            Command::Launch(launch) if supervisor.struck => {
                let fenced = Exit { signal: 9, fenced: true, ..Exit::default() };
                let process = Process { context: launch.context, exit: Some(fenced), stubborn };
                supervisor.processes.insert(launch.key.clone(), process);
                self.told.push_back(Report::Exited { key: launch.key, exit: fenced });
            }
            Command::Launch(launch) => {
                let process = Process { context: launch.context, exit: None, stubborn };
                let before = supervisor.processes.insert(launch.key.clone(), process);
                assert!(before.is_none(), "{} is launched twice", launch.key);
                self.told.push_back(Report::Started { key: launch.key, pid: 1 });
            }
            Command::Signal { key, signal } => {
                let takes = |process: &Process| signal == Signal::Kill || !process.stubborn;
                if supervisor.processes.get(&key).is_some_and(takes) {
                    self.ends(&key, Exit { signal: 15, ..Exit::default() });
                }
            }
            Command::Forget { key } => drop(supervisor.processes.remove(&key)),
            Command::KeepAlive { for_ms } => {
                supervisor.switch_ms = Some(self.now.mono_ms + for_ms);
                supervisor.struck = false;
            }
            Command::Nudge { .. } | Command::Retire => {}
        }
    }

    pub(super) fn strike(&mut self) {
        if self.supervisor.switch_ms.is_some_and(|at| at <= self.now.mono_ms) {
            (self.supervisor.switch_ms, self.supervisor.struck) = (None, true);
            for key in self.supervisor.processes.keys().cloned().collect::<Vec<_>>() {
                self.ends(&key, Exit { signal: 9, fenced: true, ..Exit::default() });
            }
        }
    }

    fn ends(&mut self, key: &str, exit: Exit) {
        let process = self.supervisor.processes.get_mut(key).filter(|process| process.exit.is_none());
        if let Some(process) = process {
            process.exit = Some(exit);
            self.told.push_back(Report::Exited { key: key.to_owned(), exit });
        }
    }

    pub(super) fn exit(&mut self, which: usize) {
        let live = self.supervisor.processes.iter().filter(|(_, process)| process.exit.is_none());
        let key = live.map(|(key, _)| key.clone()).nth(which);
        if let Some(key) = key {
            self.ends(&key, Exit::default());
        }
    }

    /// Its processes die with it; a fresh one takes its place, which knows nothing.
    pub(super) fn supervisor_lost(&mut self) {
        self.supervisor = Supervisor::default();
        self.told = VecDeque::from([Report::SupervisorLost]);
    }
}
