//! Frames, reports and answers out of place, and launches that fail.

use super::{GRANTS, World, key};
use crate::draw::Draw;
use agent::core::Event;
use agent::core::key::Key;
use proto::v1::server_frame::Frame as Told;
use proto::v1::{Goodbye, LeaseRenewal, Reconcile, ReportsAck, Stop};
use world::processes::{Exit, Report};

impl World {
    /// Frames out of place: of other sessions, about nothing, with odd numbers.
    pub(super) fn strange_frame(&mut self, draw: &mut Draw<'_>) {
        let attempt = key(GRANTS[0], draw.number(), draw.number_u32()).attempt_ref();
        let frame = match draw.below(6) {
            // An answer to no heartbeat renews nothing; one to a real one may
            // promise a span of any length.
            0 => Told::Lease(LeaseRenewal { sequence: u64::MAX, ttl_ms: draw.number() }),
            1 => match self.heartbeats.pop() {
                Some(sequence) => Told::Lease(LeaseRenewal { sequence, ttl_ms: draw.number() }),
                None => return,
            },
            2 => Told::Stop(Stop { attempts: vec![attempt; 3], grace_ms: draw.number(), ..Stop::default() }),
            // Not one of those sent: its numbers begin at 1 and grow slowly.
            3 => Told::ReportsAck(ReportsAck { sequence: u64::MAX - draw.number() % 9 }),
            4 => Told::Goodbye(Goodbye { reason: "over".to_owned() }),
            _ => {
                let session = [0, self.session.wrapping_sub(1), draw.number() | 1 << 40][draw.below(3)];
                let frame = Told::Reconcile(Reconcile { keep: Vec::new() });
                return self.step(Event::Frame { session, frame });
            }
        };
        self.hear(frame);
    }

    pub(super) fn processes_fail(&mut self, draw: &mut Draw<'_>) {
        let Some((key, launch)) = self.launching.pop_first() else { return };
        match draw.below(5) {
            0 => self.step(Event::Processes(vec![Report::LaunchFailed { key, error: "no".to_owned() }])),
            1 => self.step(Event::Lapsed { launches: vec![key] }),
            2 => self.step(Event::Unreachable { launches: vec![key], reason: "no answer".to_owned() }),
            3 => {
                // It happened nevertheless.
                self.arrived(key.clone(), launch);
                self.strays.insert(key.clone());
                self.step(Event::Unreachable { launches: vec![key.clone()], reason: "no answer".to_owned() });
                self.step(Event::Processes(vec![Report::Started { key, pid: 2 }]));
            }
            _ => {
                self.launching.clear();
                self.processes.clear();
                self.step(Event::Processes(vec![Report::SupervisorLost]));
            }
        }
    }

    /// Reports of processes nobody launched, or that cannot be now.
    pub(super) fn strange_process(&mut self, draw: &mut Draw<'_>) {
        let key = match draw.below(4) {
            0 => String::from_utf8_lossy(draw.bytes(12)).into_owned(),
            1 => key(GRANTS[1], draw.number() | 1 << 40, draw.number_u32()).process_key(),
            _ => self.processes.keys().next().cloned().unwrap_or_default(),
        };
        let exists = self.processes.contains_key(&key);
        let report = match draw.below(3) {
            0 => Report::Started { key, pid: 0 },
            1 if !exists => Report::Exited { key, exit: Exit::default() },
            _ => Report::LaunchFailed { key, error: "x".repeat(draw.below(64)) },
        };
        self.step(Event::Processes(vec![report]));
    }

    /// Answers to what was not asked, or is over.
    pub(super) fn strange_answer(&mut self, draw: &mut Draw<'_>) {
        let held: Vec<Key> = self.core.keys().into_iter().take(256).collect();
        let key = if held.is_empty() { key(GRANTS[0], draw.number(), 0) } else { draw.pick(&held).clone() };
        match draw.below(6) {
            0 => {
                let directory = format!("old.{}", draw.byte());
                self.step(Event::Staged { key, directory, result: Ok(()) });
            }
            1 if !self.collects.contains(&key) => {
                self.step(Event::Collected { key, result: Ok(Vec::new()) });
            }
            2 if !self.measures.contains(&key) => {
                self.step(Event::Measured { key, stdout_bytes: draw.number(), stderr_bytes: draw.number() });
            }
            3 => self.step(Event::SpoolBytes(draw.number())),
            4 => self.step(Event::SessionClosed { session: self.session ^ 1 << 20 }),
            _ => {
                let opened = Event::SessionOpened { session: 0, heartbeat_ms: 1, lease_ttl_ms: 1 };
                if self.open {
                    self.step(opened);
                }
            }
        }
    }
}
