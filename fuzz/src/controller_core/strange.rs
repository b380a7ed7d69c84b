//! What no honest part would say: grants on nothing, submissions past every
//! door, an agent that lies, frames of sessions long over.

use super::model::specs;
use super::{HONEST, LIAR, NODES, Story, TENANTS};
use crate::draw::Draw;
use controller::{Event, Moved, NewJob, Reply, Upload};
use proto::v1::{
    Artifact, AttemptRef, Cause, CheckpointId, Checkpointed, DemandKey, Dependency, Ended, GrantNode,
    Heartbeat, HeldAttempt, JobSpec, Progress, Refused, RegisterRequest, Report, Reports, Resources, Staging,
    Started, Step, TaskProgress, TaskStaging, report,
};

const CAUSES: [i32; 20] = [4, 4, 4, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25, 30, 34, 0, 1, 99];

impl Story {
    /// Past no door: the core itself must refuse what it cannot hold.
    pub(super) fn strange_submission(&mut self, draw: &mut Draw<'_>) {
        let mut spec = specs::pick(u32::from(draw.byte()), None);
        match draw.below(8) {
            0 => spec.steps.clear(),
            1 => spec.steps.extend(spec.steps.clone()),
            2 => spec.after = (0..draw.below(80)).map(|_| dependency(draw)).collect(),
            3 => {
                if let Some(step) = spec.steps.first_mut() {
                    step.after = vec![["one", "split", "sum", "last", ""][draw.below(5)].to_owned()];
                }
            }
            4 => {
                let (nodes, tasks_per_node) = (draw.number_u32(), draw.number_u32());
                spec.steps = vec![Step { nodes, tasks_per_node, ..specs::step("large") }];
            }
            5 => {
                let last = draw.word() % 6_000;
                let text = format!("0-{last}%{}", 1 + draw.below(9));
                spec.steps = vec![specs::array("long", &text)];
            }
            6 => {
                let per_task = Some(Resources {
                    millicores: draw.number_u32(),
                    memory_bytes: draw.number(),
                    gpus: draw.number_u32(),
                });
                let retries = Some(draw.number_u32());
                spec.steps = vec![Step { per_task, retries, ..specs::step("odd") }];
                (spec.expected_runtime_ms, spec.priority) = (draw.number(), i32::MIN);
            }
            _ => return self.submit_elsewhere(draw, spec),
        }
        let tenant = *draw.pick(&TENANTS);
        self.submitted(tenant, spec, String::new(), draw.seldom(4));
    }

    fn submit_elsewhere(&mut self, draw: &mut Draw<'_>, spec: JobSpec) {
        let tenant = ["nobody", "", "acme/.."][draw.below(3)].to_owned();
        let job = NewJob { tenant, spec, ..NewJob::default() };
        let reply = self.ask(|ticket| Event::Submit { ticket, job });
        assert!(matches!(reply, Some(Reply::Refused(_)) | None), "a job of nobody: {reply:?}");
    }

    /// A grant on nodes that may not be there, for a step that may want none.
    pub(super) fn strange_grant(&mut self, draw: &mut Draw<'_>) {
        if draw.coin() {
            // One told before, or told after it was given back.
            let rows: Vec<_> = self.cluster.rows.grants().collect();
            if !rows.is_empty() {
                let row = rows[draw.below(rows.len())].clone();
                self.cluster.step(Event::Granted(row));
            }
            return;
        }
        let (tenant, job_number) = self.job(draw);
        if !TENANTS.contains(&tenant.as_str()) {
            return;
        }
        let key = DemandKey { tenant, job_number, step: draw.below(4) as u32 };
        let absent = ["gone", "n9", ""];
        let nodes = (0..draw.below(4))
            .map(|_| GrantNode { node: absent[draw.below(3)].to_owned(), slots: draw.number_u32() })
            .collect();
        let per_slot = Resources { millicores: draw.number_u32(), ..Resources::default() };
        let mut row = self.cluster.grant(&key, nodes, draw.coin(), Some(per_slot), 0);
        if draw.coin() {
            (row.granted_ms, row.feed_until_ms) = (draw.number(), draw.number());
        }
        self.cluster.step(Event::Granted(row));
    }

    pub(super) fn strange_node(&mut self, draw: &mut Draw<'_>) {
        match draw.below(5) {
            4 => {
                let tenant = ["acme", "lab", "nobody"][draw.below(3)].to_owned();
                let (ingress_bytes, egress_bytes) = (draw.number(), draw.number());
                let uploads = vec![Upload { digest: "0f".repeat(32), size_bytes: ingress_bytes / 2 }];
                if draw.coin() {
                    self.ask(|ticket| Event::Forget { ticket, tenant, uploads });
                } else {
                    let moved = vec![Moved { tenant, ingress_bytes, egress_bytes, stored: uploads }];
                    self.ask(|ticket| Event::Moved { ticket, moved });
                }
            }
            0 => {
                let (node, drained) = ((*draw.pick(&NODES)).to_owned(), draw.coin());
                self.ask(|ticket| Event::DrainNode { ticket, node, drained, reason: "fuzz".to_owned() });
            }
            1 => {
                let (node, drained) = ("gone".to_owned(), draw.coin());
                let reply =
                    self.ask(|ticket| Event::DrainNode { ticket, node, drained, reason: String::new() });
                assert!(matches!(reply, Some(Reply::Refused(_)) | None));
            }
            2 => {
                // The liar begins a new session, with another size of itself.
                let request = RegisterRequest {
                    node: LIAR.to_owned(),
                    pool: "default".to_owned(),
                    capacity: Some(Resources { millicores: draw.number_u32(), ..Resources::default() }),
                    ..RegisterRequest::default()
                };
                if let Some(Reply::Registered(reply)) = self.ask(|ticket| Event::Register { ticket, request })
                {
                    self.cluster.agents.get_mut(LIAR).expect("it was put there").session = reply.session;
                    self.liar_joins();
                }
            }
            _ => {
                let session = self.cluster.agents[LIAR].session;
                self.cluster.step(Event::SessionLost { node: LIAR.to_owned(), session });
            }
        }
    }

    /// An attempt the liar knows, or runs elsewhere, or never was.
    fn attempt(&self, draw: &mut Draw<'_>) -> AttemptRef {
        let mut attempt = match draw.below(8) {
            0..=5 if !self.known.is_empty() => {
                let back = draw.below(self.known.len().min(32));
                self.known[self.known.len() - 1 - back].clone()
            }
            6 => {
                let agent = &self.cluster.agents[*draw.pick(&HONEST)];
                let held: Vec<_> = agent.runs.keys().take(256).collect();
                if held.is_empty() { AttemptRef::default() } else { draw.pick(&held).attempt_ref() }
            }
            _ => AttemptRef {
                tenant: (*draw.pick(&TENANTS)).to_owned(),
                job_number: draw.number(),
                step: draw.number_u32(),
                task: draw.number(),
                attempt: draw.number_u32(),
                epoch: draw.number(),
            },
        };
        match draw.below(12) {
            0 => attempt.epoch = attempt.epoch.wrapping_add(1),
            1 => attempt.epoch = attempt.epoch.wrapping_sub(1),
            2 => attempt.attempt = attempt.attempt.wrapping_add(1),
            3 => attempt.task = draw.number(),
            4 => attempt.step = draw.number_u32(),
            _ => {}
        }
        attempt
    }

    pub(super) fn lie(&mut self, draw: &mut Draw<'_>) {
        let count = 1 + draw.below(4);
        let reports: Vec<Report> = (0..count).map(|_| self.said(draw)).collect();
        let session = self.session(draw, LIAR);
        let missing = if draw.seldom(4) { vec![draw.below(4), 77] } else { Vec::new() };
        let reports = Reports { sequence: draw.number(), reports };
        self.cluster.step(Event::Reports { node: LIAR.to_owned(), session, reports, missing });
    }

    fn said(&self, draw: &mut Draw<'_>) -> Report {
        let attempt = self.attempt(draw);
        let rank = if draw.seldom(4) { draw.number_u32() } else { draw.below(4) as u32 };
        let what = match draw.below(10) {
            0 => Some(report::What::Staging(Staging {})),
            1..=3 => Some(report::What::Started(Started { at_ms: draw.number(), pid: 1 })),
            4 => Some(report::What::Refused(Refused { reason: "no".to_owned() })),
            5 => None,
            6..=7 => Some(report::What::Checkpointed(checkpointed(draw))),
            _ => Some(report::What::Ended(ended(draw))),
        };
        let attempt = if draw.seldom(32) { None } else { Some(attempt) };
        Report { attempt, rank, what }
    }

    /// What is said to have come how far.
    pub(super) fn progress(&self, draw: &mut Draw<'_>) -> Progress {
        let told = |draw: &mut Draw<'_>| TaskProgress {
            attempt: (!draw.seldom(32)).then(|| self.attempt(draw)),
            rank: draw.below(5) as u32,
            basis_points: draw.number_u32(),
            text: "\u{7}far\u{20ac}".repeat(draw.below(40)),
        };
        let staged = |draw: &mut Draw<'_>| TaskStaging {
            attempt: (!draw.seldom(32)).then(|| self.attempt(draw)),
            rank: draw.below(5) as u32,
            bytes: draw.number(),
            total_bytes: draw.number(),
            bytes_per_s: draw.number(),
            waits_for: "\u{7}wait\u{20ac}".repeat(draw.below(80)),
        };
        Progress {
            tasks: (0..draw.below(4)).map(|_| told(draw)).collect(),
            staging: (0..draw.below(4)).map(|_| staged(draw)).collect(),
        }
    }

    /// Mostly the current session of a node.
    fn session(&self, draw: &mut Draw<'_>, node: &str) -> u64 {
        let session = self.cluster.agents[node].session;
        match draw.below(16) {
            0 => session.wrapping_sub(1),
            1 => draw.number(),
            _ => session,
        }
    }

    pub(super) fn strange_hello(&mut self, draw: &mut Draw<'_>) {
        let held = (0..draw.below(8)).map(|_| HeldAttempt {
            attempt: Some(self.attempt(draw)),
            rank: draw.below(5) as u32,
            state: i32::from(draw.byte() % 9),
        });
        let held = held.collect();
        let session = self.session(draw, LIAR);
        self.cluster.step(Event::Hello { node: LIAR.to_owned(), session, held });
    }

    /// Frames of sessions long over, of any node or none.
    pub(super) fn stale_frames(&mut self, draw: &mut Draw<'_>) {
        let node = *draw.pick(&["n1", "n2", "n3", LIAR, "gone"]);
        let current = self.cluster.agents.get(node).map_or(1, |agent| agent.session);
        let (node, session) = (node.to_owned(), current.wrapping_sub(1 + draw.below(2) as u64));
        let event = match draw.below(5) {
            0 => Event::Heartbeat { node, session, beat: Heartbeat::default() },
            4 => Event::Progress { node, session, told: self.progress(draw) },
            1 => Event::SessionLost { node, session },
            2 => Event::Hello { node, session, held: Vec::new() },
            _ => {
                let reports = Reports { sequence: 1, reports: vec![self.said(draw)] };
                Event::Reports { node, session, reports, missing: Vec::new() }
            }
        };
        self.cluster.step(event);
    }
}

fn dependency(draw: &mut Draw<'_>) -> Dependency {
    let (job_number, kind) = (draw.number() % 12, i32::from(draw.byte() % 6));
    let index = if draw.seldom(3) { Some(draw.number() % 9) } else { None };
    Dependency { job_number, kind, index, ..Dependency::default() }
}

fn ended(draw: &mut Draw<'_>) -> Ended {
    let cause = Cause {
        kind: *draw.pick(&CAUSES),
        text: "lies".repeat(if draw.seldom(32) { 400 } else { draw.below(2) }),
        exit_code: draw.number_u32() as i32,
        signal: draw.number_u32() as i32,
        node: "elsewhere".to_owned(),
    };
    let artifact = |draw: &mut Draw<'_>| Artifact {
        path: format!("out{}", draw.below(3)),
        size_bytes: draw.number(),
        digest: "0".repeat(64),
        mode: draw.number_u32(),
    };
    let count = if draw.seldom(64) { 2_500 } else { draw.below(3) };
    let artifacts = (0..count).map(|_| artifact(draw)).collect();
    Ended {
        cause: (!draw.seldom(32)).then_some(cause),
        artifacts,
        wall_ms: draw.number(),
        cpu_ms: draw.number(),
        max_rss_bytes: draw.number(),
        stdout_bytes: draw.number(),
        stderr_bytes: draw.number(),
        lost_checkpoint: draw.seldom(8).then(|| checkpoint_id(draw)),
    }
}

fn checkpoint_id(draw: &mut Draw<'_>) -> CheckpointId {
    let attempt = draw.below(3) as u32;
    CheckpointId { attempt, epoch: draw.below(8) as u64, session: draw.number(), number: draw.number() }
}

fn checkpointed(draw: &mut Draw<'_>) -> Checkpointed {
    let artifact = |draw: &mut Draw<'_>| Artifact {
        path: format!("state{}", draw.below(3)),
        size_bytes: draw.number(),
        digest: "0".repeat(64),
        mode: draw.number_u32(),
    };
    let count = if draw.seldom(64) { 200 } else { draw.below(3) };
    let artifacts = (0..count).map(|_| artifact(draw)).collect();
    let label = "x".repeat(if draw.seldom(16) { 70 } else { draw.below(3) });
    Checkpointed { label, artifacts, id: (!draw.seldom(16)).then(|| checkpoint_id(draw)) }
}
