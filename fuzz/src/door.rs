//! What must hold of a job at the door: a refusal says what is wrong in few
//! words, and what is let in goes through admission, both planning cores and an
//! agent without breaking an invariant of theirs.

use agent::AgentConfig;
use controller::{Admission, AdmissionAsk, AdmissionVerdict, Effect, Event, NewJob, Reply, Txn};
use prost::Message as _;
use proto::limits::{PROBLEM_FIELD_BYTES_MAX, PROBLEM_TEXT_BYTES_MAX, PROBLEM_VALUE_BYTES_MAX, TASKS_MAX};
use proto::problem::Problem;
use proto::v1::{
    Budget, DemandUpdate, GrantRow, JobSpec, NodeRow, NodeState, Quota, RegisterRequest, Resources,
    ServerFrame, TenantRow, WhenFull,
};
use proto::{array, estimate, validate};
use scheduler::Amount;
use scheduler::admission::{Ask, Verdict};
use scheduler::core::Snapshot;
use std::collections::BTreeMap;
use std::sync::Arc;
use world::clock::Now;

const TENANT: &str = "lab";
const NODES: [&str; 2] = ["n1", "n2"];
const NOW: Now = Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 };
/// Steps of a core after which it must have caught up.
const TURNS_MAX: usize = 1_000;

/// A refusal has a code, a reason, and fits one line of a header.
pub(crate) fn refused(problem: &Problem) {
    let cut = '…'.len_utf8();
    assert!(problem.code.contains('.'), "{problem:?}");
    assert!(!problem.reason.is_empty(), "{problem:?}");
    assert!(problem.value.len() <= PROBLEM_VALUE_BYTES_MAX + cut, "{problem:?}");
    assert!(problem.field.len() <= PROBLEM_FIELD_BYTES_MAX + cut, "{problem:?}");
    assert!(problem.reason.len() <= PROBLEM_TEXT_BYTES_MAX + cut, "{problem:?}");
    assert!(problem.remedy.len() <= PROBLEM_TEXT_BYTES_MAX + cut, "{problem:?}");
    assert!(!problem.to_string().contains(['\n', '\r']), "{problem:?}");
}

/// What a door lets in, everything behind it takes.
pub(crate) fn let_in(spec: &JobSpec) {
    let mut again = spec.clone();
    validate::normalize(&mut again);
    assert!(again == *spec, "what is normalized stays as it is: {spec:?} became {again:?}");
    assert!(JobSpec::decode(&spec.encode_to_vec()[..]).is_ok_and(|read| read == *spec), "{spec:?}");
    let tasks = estimate::tasks(spec);
    assert!((1..=TASKS_MAX).contains(&tasks), "{tasks} tasks: {spec:?}");
    for step in &spec.steps {
        if let Some(array) = &step.array {
            assert_eq!(array::parse(&array::format(array)).as_ref(), Ok(array), "{array:?}");
        }
    }
    if let Err(problem) = scheduler::feasible::feasible(&nodes(), spec) {
        return refused(&problem);
    }
    Cluster::new().run(spec);
}

/// The scheduler's policy of admission in the controller's words.
pub(crate) struct Policy;

impl Admission for Policy {
    fn decide(&self, ask: &AdmissionAsk<'_>) -> AdmissionVerdict {
        let held = Amount {
            millicores: ask.held.millicores,
            memory_bytes: ask.held.memory_bytes,
            gpus: ask.held.gpus,
        };
        let ask = Ask {
            tenant: ask.tenant,
            ledger: ask.ledger,
            held,
            groups: &[],
            spec: ask.spec,
            now_ms: ask.now_ms,
        };
        match scheduler::admission::decide(&ask) {
            Verdict::Admit { price_micros, waiting_for } => {
                AdmissionVerdict::Admit { price_micros, waiting_for }
            }
            Verdict::Refuse(problem) => AdmissionVerdict::Refuse(problem),
        }
    }
}

fn capacity() -> Resources {
    Resources { millicores: 8_000, memory_bytes: 64 << 30, gpus: 2 }
}

fn nodes() -> Vec<NodeRow> {
    let row = |name: &&str| NodeRow {
        name: (*name).to_owned(),
        pool: "default".to_owned(),
        labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        capacity: Some(capacity()),
        state: NodeState::Ready.into(),
        ..NodeRow::default()
    };
    NODES.iter().map(row).collect()
}

fn tenant() -> TenantRow {
    TenantRow {
        name: TENANT.to_owned(),
        quota: Some(Quota { millicores: Some(64_000), gpus: Some(4), ..Quota::default() }),
        budget: Some(Budget {
            month_micros: Some(1 << 50),
            core_hour_micros: 60_000,
            gpu_hour_micros: 1_000_000,
        }),
        when_full: WhenFull::Queue.into(),
        ..TenantRow::default()
    }
}

/// The three cores, joined without a store.
struct Cluster {
    controller: controller::Core,
    scheduler: scheduler::core::Core,
    sessions: BTreeMap<String, u64>,
    grants: Vec<GrantRow>,
    frames: Vec<(String, ServerFrame)>,
    replies: Vec<(u64, Reply)>,
}

impl Cluster {
    fn new() -> Self {
        let mut controller = controller::Core::new(controller::Config::default(), Arc::new(Policy));
        let opening = controller.start(NOW);
        let mut scheduler = scheduler::core::Core::new(scheduler::core::Config::default());
        let snapshot = Snapshot { nodes: nodes(), tenants: vec![tenant()], ..Snapshot::default() };
        scheduler.step(NOW, scheduler::core::Event::Reread(Box::new(snapshot)));
        let (grants, frames, replies) = Default::default();
        let sessions = BTreeMap::new();
        let mut cluster = Self { controller, scheduler, sessions, grants, frames, replies };
        cluster.done(opening);
        cluster.tell(Event::Tenant(tenant()));
        for (ticket, node) in (100..).zip(NODES) {
            let request = RegisterRequest {
                node: node.to_owned(),
                pool: "default".to_owned(),
                capacity: Some(capacity()),
                ..RegisterRequest::default()
            };
            cluster.tell(Event::Register { ticket, request });
            let Some((_, Reply::Registered(reply))) = cluster.replies.pop() else {
                panic!("a node was not registered");
            };
            let session = reply.session;
            cluster.sessions.insert(node.to_owned(), session);
            cluster.tell(Event::Hello { node: node.to_owned(), session, held: Vec::new() });
        }
        cluster
    }

    /// One event for the controller, and all that it leaves to be done.
    fn tell(&mut self, event: Event) {
        let txn = self.controller.step(NOW, event);
        self.controller.check();
        self.done(txn);
        for _ in 0..TURNS_MAX {
            if !self.controller.backlogged() {
                return;
            }
            let txn = self.controller.step(NOW, Event::Tick);
            self.controller.check();
            self.done(txn);
        }
        panic!("the controller does not come to its end");
    }

    fn done(&mut self, txn: Txn) {
        let update = DemandUpdate {
            controller: "c".to_owned(),
            changed: txn.demand.changed,
            gone: txn.demand.gone,
            ..DemandUpdate::default()
        };
        self.scheduler.step(NOW, scheduler::core::Event::Demand(update));
        for proposal in self.scheduler.plan(NOW) {
            self.grants.extend(proposal.grants);
        }
        self.scheduler.check();
        for effect in txn.effects {
            match effect {
                Effect::Reply { ticket, reply } => self.replies.push((ticket, reply)),
                Effect::Send { node, frame, .. } => self.frames.push((node, frame)),
                Effect::Log { .. } | Effect::Release { .. } => {}
            }
        }
    }

    fn run(mut self, spec: &JobSpec) {
        let job = NewJob {
            tenant: TENANT.to_owned(),
            spec: spec.clone(),
            spec_digest: validate::digest(spec),
            dependencies: spec.after.iter().map(|on| (on.job_number, None)).collect(),
            ..NewJob::default()
        };
        self.tell(Event::Submit { ticket: 1, job });
        match &self.replies[..] {
            [(1, Reply::Submitted(_))] => {}
            [(1, Reply::Refused(problem))] => return refused(problem),
            other => panic!("a submission was answered with {other:?}"),
        }
        for grant in std::mem::take(&mut self.grants) {
            self.tell(Event::Granted(grant));
        }
        self.assigned();
    }

    /// What reaches the nodes is taken on there, up to the staging.
    fn assigned(self) {
        for (name, session) in self.sessions {
            let config = AgentConfig::new("h:1", "dl_x", &name, capacity());
            let mut core = agent::core::Core::new(Arc::new(config), "/w".into(), "/s".into(), NOW);
            let opened =
                agent::core::Event::SessionOpened { session, heartbeat_ms: 5_000, lease_ttl_ms: 30_000 };
            core.step(NOW, opened);
            for (_, frame) in self.frames.iter().filter(|(node, _)| *node == name) {
                if let Some(frame) = frame.frame.clone() {
                    core.step(NOW, agent::core::Event::Frame { session, frame });
                    core.check();
                }
            }
        }
    }
}
