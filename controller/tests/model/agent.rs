//! An agent that keeps its promises: runs no more than its slots, kills its own
//! when its lease may have passed, reports until acknowledged.

use proto::v1::{
    Artifact, AttemptRef, Cause, CauseKind, CheckpointId, Checkpointed, Ended, HeldAttempt, Refused, Report,
    Reports, ServerFrame, Started, State, report, server_frame,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A stream silent for so long is left.
const SILENCE_MS: u64 = 12_500;
/// After so long without a renewal an agent ends its tasks.
const FENCE_MS: u64 = 25_000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    pub tenant: String,
    pub number: u64,
    pub step: u32,
    pub task: u64,
    pub attempt: u32,
    pub epoch: u64,
    pub rank: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Queued,
    Running,
    Ended,
}

#[derive(Clone, Debug)]
pub struct Run {
    pub phase: Phase,
    pub slots: u32,
    /// Order of arrival.
    pub order: u64,
    pub outputs: bool,
    /// Its step has checkpoints.
    pub saves: bool,
    /// Epoch and attempt that made what it goes on from, and its label.
    pub from: Option<((u64, u32), String)>,
}

pub struct Agent {
    pub name: String,
    pub slots: u32,
    pub session: u64,
    /// The stream is open.
    pub linked: bool,
    /// A silent partition: nothing passes either way.
    pub cut: bool,
    pub alive: bool,
    pub inbox: VecDeque<ServerFrame>,
    pub runs: BTreeMap<Held, Run>,
    pub pending: Vec<Report>,
    pub sent: Vec<Reports>,
    pub sequence: u64,
    pub asked: BTreeMap<u64, u64>,
    pub renewed_ms: Option<u64>,
    /// When a frame last came.
    pub heard_ms: u64,
    order: u64,
    refused: BTreeSet<Held>,
    /// How many checkpoints it took.
    taken: u64,
}

/// What a rank of an attempt keeps under a label.
fn state_of(held: &Held, (epoch, attempt): (u64, u32), label: &str) -> Artifact {
    let digest = format!("{:08}{:08}{epoch:08}{attempt:08}{label:>32}", held.task, held.rank);
    Artifact { path: "state".into(), size_bytes: 7, digest, mode: 0o644 }
}

impl Agent {
    pub fn new(name: &str, slots: u32) -> Self {
        Self {
            name: name.to_owned(),
            slots,
            session: 0,
            linked: false,
            cut: false,
            alive: true,
            inbox: VecDeque::new(),
            runs: BTreeMap::new(),
            pending: Vec::new(),
            sent: Vec::new(),
            sequence: 0,
            asked: BTreeMap::new(),
            renewed_ms: None,
            heard_ms: 0,
            order: 0,
            refused: BTreeSet::new(),
            taken: 0,
        }
    }

    pub fn held(&self) -> Vec<HeldAttempt> {
        self.runs
            .iter()
            .map(|(held, run)| HeldAttempt {
                attempt: Some(held.attempt_ref()),
                rank: held.rank,
                state: match run.phase {
                    Phase::Queued => State::Staging,
                    Phase::Running => State::Running,
                    Phase::Ended => State::Completed,
                }
                .into(),
            })
            .collect()
    }

    pub fn running(&self) -> impl Iterator<Item = &Held> {
        self.runs.iter().filter(|(_, run)| run.phase == Phase::Running).map(|(held, _)| held)
    }

    pub fn queued(&self) -> impl Iterator<Item = &Held> {
        self.runs.iter().filter(|(_, run)| run.phase == Phase::Queued).map(|(held, _)| held)
    }

    pub fn take(&mut self, frame: ServerFrame, now_ms: u64) {
        match frame.frame {
            Some(server_frame::Frame::Lease(lease)) => {
                if let Some(asked) = self.asked.remove(&lease.sequence) {
                    self.renewed_ms = Some(self.renewed_ms.unwrap_or(0).max(asked));
                }
            }
            Some(server_frame::Frame::Assign(assign)) => {
                // A lease begins with the first heartbeat answered after it; the
                // assignment itself is as good as an answer now.
                self.renewed_ms = self.renewed_ms.or(Some(now_ms));
                let ranks = match &assign.gang {
                    Some(gang) => gang.first_rank..gang.first_rank + gang.local_ranks,
                    None => 0..1,
                };
                let outputs = assign.step.as_ref().is_some_and(|step| !step.outputs.is_empty());
                let saves = assign.step.as_ref().is_some_and(|step| step.checkpoint.is_some());
                for task in &assign.tasks {
                    for rank in ranks.clone() {
                        let held = Held {
                            tenant: assign.tenant.clone(),
                            number: assign.job_number,
                            step: assign.step_index,
                            task: task.task,
                            attempt: task.attempt,
                            epoch: assign.epoch,
                            rank,
                        };
                        if self.refused.contains(&held) {
                            continue;
                        }
                        self.order += 1;
                        let order = self.order;
                        let slots = assign.slots;
                        let from = task.checkpoints.iter().find(|from| from.rank == rank).map(|from| {
                            let CheckpointId { epoch, attempt, .. } = from.id.unwrap();
                            let made_in = (epoch, attempt);
                            assert_ne!(made_in, (held.epoch, held.attempt), "{held:?} goes on from {from:?}");
                            assert_eq!(from.artifacts, [state_of(&held, made_in, &from.label)]);
                            (made_in, from.label.clone())
                        });
                        let phase = Phase::Queued;
                        self.runs.entry(held).or_insert(Run { phase, slots, order, outputs, saves, from });
                    }
                }
            }
            Some(server_frame::Frame::Stop(stop)) => {
                for attempt in &stop.attempts {
                    let named: Vec<Held> = self
                        .runs
                        .iter()
                        .filter(|(held, run)| held.attempt_ref() == *attempt && run.phase != Phase::Ended)
                        .map(|(held, _)| held.clone())
                        .collect();
                    for held in named {
                        self.end(&held, stop.cause.clone().unwrap_or_default());
                    }
                }
            }
            Some(server_frame::Frame::ReportsAck(ack)) => {
                let acked = self.sent.iter().find(|sent| sent.sequence == ack.sequence).cloned();
                for report in acked.into_iter().flat_map(|sent| sent.reports) {
                    self.pending.retain(|pending| *pending != report);
                    if matches!(report.what, Some(report::What::Ended(_))) {
                        self.runs.remove(&Held::of(report.attempt.as_ref().unwrap(), report.rank));
                    }
                }
            }
            Some(server_frame::Frame::Reconcile(reconcile)) => {
                let keep = reconcile.keep;
                self.runs.retain(|held, _| keep.contains(&held.attempt_ref()));
                let runs = &self.runs;
                self.pending.retain(|report| {
                    matches!(report.what, Some(report::What::Refused(_)))
                        || runs.contains_key(&Held::of(report.attempt.as_ref().unwrap(), report.rank))
                });
            }
            Some(server_frame::Frame::Goodbye(_)) | None => {}
        }
    }

    /// Leaves a stream that fell silent, and kills what runs once the lease may
    /// have passed.
    pub fn fence(&mut self, now_ms: u64) {
        if now_ms - self.heard_ms > SILENCE_MS {
            self.linked = false;
            self.inbox.clear();
        }
        let passed = self.renewed_ms.is_some_and(|renewed| now_ms - renewed >= FENCE_MS);
        if passed {
            self.renewed_ms = None;
            let open: Vec<Held> = self
                .runs
                .iter()
                .filter(|(_, run)| run.phase != Phase::Ended)
                .map(|(held, _)| held.clone())
                .collect();
            for held in open {
                self.end(&held, Cause { kind: CauseKind::LeaseExpired.into(), ..Cause::default() });
            }
        }
    }

    pub fn start_tasks(&mut self) {
        loop {
            let mut queued: Vec<(&Held, &Run)> =
                self.runs.iter().filter(|(_, run)| run.phase == Phase::Queued).collect();
            queued.sort_by_key(|(_, run)| run.order);
            let next = queued.into_iter().find(|(held, run)| {
                let beside =
                    self.running().filter(|other| other.epoch == held.epoch && other.tenant == held.tenant);
                beside.count() < run.slots as usize
            });
            let Some(held) = next.map(|(held, _)| held.clone()) else { return };
            self.runs.get_mut(&held).unwrap().phase = Phase::Running;
            let what = report::What::Started(Started { at_ms: 1, pid: 1 });
            self.pending.push(held.report(what));
        }
    }

    pub fn end_all_well(&mut self) {
        for held in self.running().cloned().collect::<Vec<_>>() {
            self.end(&held, Cause { kind: CauseKind::Succeeded.into(), ..Cause::default() });
        }
    }

    pub fn end(&mut self, held: &Held, cause: Cause) {
        let Some(run) = self.runs.get_mut(held) else { return };
        let artifacts = if cause.kind() == CauseKind::Succeeded && run.outputs {
            let digest = format!("{:064x}", held.task * 1000 + u64::from(held.rank));
            vec![Artifact { path: "out".into(), size_bytes: 10, digest, mode: 0o644 }]
        } else {
            Vec::new()
        };
        let wall_ms = if run.phase == Phase::Running { 40 } else { 0 };
        run.phase = Phase::Ended;
        let ended = Ended { cause: Some(cause), artifacts, wall_ms, stdout_bytes: 5, ..Ended::default() };
        self.pending.push(held.report(report::What::Ended(ended)));
    }

    /// A running task has a checkpoint in the object store.
    pub fn checkpoint(&mut self, held: &Held, label: &str) {
        if !self.runs[held].saves {
            return;
        }
        self.taken += 1;
        let told = self.checkpoint_of(held, label, self.taken);
        self.pending.push(told);
    }

    /// As it is told.
    pub fn checkpoint_of(&self, held: &Held, label: &str, number: u64) -> Report {
        let id = CheckpointId { attempt: held.attempt, epoch: held.epoch, session: self.session, number };
        let artifacts = vec![state_of(held, (held.epoch, held.attempt), label)];
        held.report(report::What::Checkpointed(Checkpointed {
            label: label.to_owned(),
            artifacts,
            id: Some(id),
        }))
    }

    /// Sends an attempt back unstarted.
    pub fn refuse(&mut self, held: &Held) {
        self.runs.remove(held);
        self.refused.insert(held.clone());
        let refused = Refused { reason: "busy".to_owned() };
        self.pending.push(held.report(report::What::Refused(refused)));
    }

    /// All that is not acknowledged, as one frame.
    pub fn reports(&mut self) -> Option<Reports> {
        if self.pending.is_empty() {
            return None;
        }
        self.sequence += 1;
        let reports = Reports { sequence: self.sequence, reports: self.pending.clone() };
        self.sent.push(reports.clone());
        Some(reports)
    }

    /// The agent's process dies and forgets everything with its node.
    pub fn die(&mut self) {
        self.alive = false;
        self.linked = false;
        self.runs.clear();
        self.refused.clear();
        self.pending.clear();
        self.sent.clear();
        self.inbox.clear();
        self.renewed_ms = None;
    }
}

impl Held {
    pub fn attempt_ref(&self) -> AttemptRef {
        AttemptRef {
            tenant: self.tenant.clone(),
            job_number: self.number,
            step: self.step,
            task: self.task,
            attempt: self.attempt,
            epoch: self.epoch,
        }
    }

    pub fn of(attempt: &AttemptRef, rank: u32) -> Self {
        Self {
            tenant: attempt.tenant.clone(),
            number: attempt.job_number,
            step: attempt.step,
            task: attempt.task,
            attempt: attempt.attempt,
            epoch: attempt.epoch,
            rank,
        }
    }

    pub fn report(&self, what: report::What) -> Report {
        Report { attempt: Some(self.attempt_ref()), rank: self.rank, what: Some(what) }
    }
}
