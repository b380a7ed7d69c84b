//! Any order of events, losses and crashes: the invariants hold after each, and
//! once all is whole again every job ends.

mod model;

use controller::{Config, Event, Moved, NewJob, Reply, Scaling, Upload};
use model::agent::Phase;
use model::{Cluster, specs};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use proto::keys::Parsed;
use proto::v1::{Budget, Cause, CauseKind, Drainer, LedgerRow, NodeRow, State, TenantRow, UploadRow};
use std::collections::BTreeMap;

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const TENANTS: [&str; 2] = ["acme", "lab"];

#[derive(Clone, Debug)]
enum Action {
    Submit {
        tenant: usize,
        shape: u32,
        key: u32,
        after: u32,
    },
    Cancel {
        job: usize,
    },
    Retry {
        job: usize,
        from_step: bool,
    },
    /// All of a healthy cluster's work once; the bits choose what ends, and how.
    Turn {
        which: u32,
        how: u32,
    },
    Schedule {
        up_to: usize,
    },
    TellGrants,
    Work {
        node: usize,
    },
    /// Ends some running tasks; the bits choose which, and how.
    End {
        node: usize,
        which: u32,
        how: u32,
    },
    Report {
        node: usize,
        missing: bool,
    },
    Replay {
        node: usize,
    },
    Heartbeats,
    Advance {
        ms: u64,
    },
    Cut {
        node: usize,
    },
    Heal {
        node: usize,
    },
    Reconnect {
        node: usize,
        register: bool,
    },
    AgentDies {
        node: usize,
    },
    AgentReturns {
        node: usize,
    },
    SessionLost {
        node: usize,
    },
    Drain {
        node: usize,
        drained: bool,
    },
    /// The autoscaler takes one step with a node.
    Scale {
        node: usize,
        step: usize,
    },
    /// Clients of a tenant moved bytes.
    Moved {
        tenant: usize,
        ingress_bytes: u64,
        egress_bytes: u64,
    },
    Crash,
    /// The next step's rows are lost with the process.
    LoseNext,
}

fn action() -> impl Strategy<Value = Action> {
    let node = || 0..NODES.len();
    prop_oneof![
        6 => (0..2_usize, any::<u32>(), 0..6_u32, any::<u32>())
            .prop_map(|(tenant, shape, key, after)| Action::Submit { tenant, shape, key, after }),
        1 => (0..8_usize).prop_map(|job| Action::Cancel { job }),
        3 => (0..8_usize, any::<bool>()).prop_map(|(job, from_step)| Action::Retry { job, from_step }),
        24 => (any::<u32>(), any::<u32>()).prop_map(|(which, how)| Action::Turn { which, how }),
        8 => (1..6_usize).prop_map(|up_to| Action::Schedule { up_to }),
        8 => Just(Action::TellGrants),
        8 => node().prop_map(|node| Action::Work { node }),
        8 => (node(), any::<u32>(), any::<u32>()).prop_map(|(node, which, how)| Action::End { node, which, how }),
        8 => (node(), prop::bool::weighted(0.1)).prop_map(|(node, missing)| Action::Report { node, missing }),
        2 => node().prop_map(|node| Action::Replay { node }),
        6 => Just(Action::Heartbeats),
        6 => (1..6_000_u64).prop_map(|ms| Action::Advance { ms }),
        1 => (10_000..70_000_u64).prop_map(|ms| Action::Advance { ms }),
        1 => node().prop_map(|node| Action::Cut { node }),
        1 => node().prop_map(|node| Action::Heal { node }),
        2 => (node(), any::<bool>()).prop_map(|(node, register)| Action::Reconnect { node, register }),
        1 => node().prop_map(|node| Action::AgentDies { node }),
        1 => node().prop_map(|node| Action::AgentReturns { node }),
        1 => node().prop_map(|node| Action::SessionLost { node }),
        1 => (node(), any::<bool>()).prop_map(|(node, drained)| Action::Drain { node, drained }),
        2 => (node(), 0..6_usize).prop_map(|(node, step)| Action::Scale { node, step }),
        2 => (0..2_usize, 0..100_u64, 0..100_u64)
            .prop_map(|(tenant, ingress_bytes, egress_bytes)| Action::Moved { tenant, ingress_bytes, egress_bytes }),
        1 => Just(Action::Crash),
        2 => Just(Action::LoseNext),
    ]
}

struct Story {
    cluster: Cluster,
    jobs: Vec<(String, u64)>,
    /// In and out, as far as it was answered for.
    traffic: BTreeMap<&'static str, (u64, u64)>,
}

impl Story {
    fn new() -> Self {
        let mut cluster = Cluster::new(Config::default(), 4);
        for tenant in TENANTS {
            let budget = Budget { core_hour_micros: 60_000_000, ..Budget::default() };
            cluster.tenant(TenantRow {
                name: tenant.to_owned(),
                budget: Some(budget),
                ..TenantRow::default()
            });
        }
        for node in NODES {
            cluster.add_node(node);
        }
        Self { cluster, jobs: Vec::new(), traffic: BTreeMap::new() }
    }

    fn job(&self, pick: usize) -> Option<(String, u64)> {
        // The latest are the most alive.
        self.jobs.iter().rev().nth(pick).cloned()
    }

    fn new_job(&mut self, tenant: usize, shape: u32, key: u32, after: u32) -> NewJob {
        let tenant = TENANTS[tenant].to_owned();
        let own: Vec<u64> = self.jobs.iter().filter(|(name, _)| *name == tenant).map(|(_, n)| *n).collect();
        let on = if after.is_multiple_of(4) && !own.is_empty() {
            Some(own[after as usize / 4 % own.len()])
        } else {
            None
        };
        let spec = specs::pick(shape, on);
        let known =
            self.cluster.rows.get::<proto::v1::IdempotencyRow>(&proto::keys::idem(&tenant, &key.to_string()));
        NewJob {
            followed: self.cluster.rows.followed(&tenant, &spec),
            dependencies: on
                .map(|on| {
                    let state = self.cluster.state(&tenant, on);
                    (on, Some(state).filter(|state| over(*state)))
                })
                .into_iter()
                .collect(),
            spec,
            // A key in three tries, so that some come twice.
            key: if key < 2 { key.to_string() } else { String::new() },
            spec_digest: format!("{shape}"),
            by: "tests".to_owned(),
            dry_run: false,
            known: known.map(|row| (row.job_number, row.spec_digest)),
            tenant,
        }
    }

    fn submitted(&mut self, ticket: u64, tenant: &str) {
        match self.cluster.replies.get(&ticket) {
            Some(Reply::Submitted(reply)) => {
                let job = (tenant.to_owned(), reply.number);
                if self.cluster.accepted.insert(job.clone()) {
                    assert!(!reply.existing, "an existing job nobody knows");
                    self.jobs.push(job);
                }
            }
            Some(Reply::Refused(problem)) => assert!(problem.code.contains('.'), "{problem:?}"),
            // Lost with the controller.
            None => {}
            other => panic!("{other:?}"),
        }
    }

    fn act(&mut self, action: Action) {
        let cluster = &mut self.cluster;
        match action {
            Action::Submit { tenant, shape, key, after } => {
                let job = self.new_job(tenant, shape, key, after);
                let ticket = self.cluster.ticket();
                self.cluster.step(Event::Submit { ticket, job });
                self.submitted(ticket, TENANTS[tenant]);
            }
            Action::Cancel { job } => {
                let Some((tenant, number)) = self.job(job) else { return };
                self.cancel(tenant, number);
            }
            Action::Retry { job, from_step } => {
                // Mostly one that has ended.
                let ended: Vec<_> =
                    self.jobs.iter().filter(|(t, n)| over(self.cluster.state(t, *n))).cloned().collect();
                let pick = ended.get(job).cloned().or_else(|| self.job(job));
                let Some((tenant, number)) = pick else { return };
                self.retry(tenant, number, from_step);
            }
            Action::Turn { which, how } => {
                cluster.schedule(8);
                cluster.tell_grants();
                for node in NODES {
                    cluster.heartbeat(node);
                    cluster.work(node);
                    end(cluster, node, which, how);
                    let missing = if how.is_multiple_of(8) { (0..4).collect() } else { Vec::new() };
                    cluster.report(node, missing);
                }
                cluster.advance(500 + u64::from(how % 4000));
            }
            Action::Schedule { up_to } => cluster.schedule(up_to),
            Action::TellGrants => drop(cluster.tell_grants()),
            Action::Work { node } => cluster.work(NODES[node]),
            Action::End { node, which, how } => end(cluster, NODES[node], which, how),
            Action::Report { node, missing } => {
                cluster.report(NODES[node], if missing { vec![0, 1] } else { Vec::new() });
            }
            Action::Replay { node } => cluster.replay(NODES[node]),
            Action::Heartbeats => NODES.iter().for_each(|node| cluster.heartbeat(node)),
            Action::Advance { ms } => cluster.advance(ms),
            Action::Cut { node } => cluster.agents.get_mut(NODES[node]).unwrap().cut = true,
            Action::Heal { node } => cluster.agents.get_mut(NODES[node]).unwrap().cut = false,
            Action::Reconnect { node, register } => reconnect(cluster, NODES[node], register),
            Action::AgentDies { node } => cluster.agents.get_mut(NODES[node]).unwrap().die(),
            Action::AgentReturns { node } => {
                let agent = cluster.agents.get_mut(NODES[node]).unwrap();
                if !agent.alive {
                    agent.alive = true;
                    reconnect(cluster, NODES[node], true);
                }
            }
            Action::SessionLost { node } => {
                let agent = cluster.agents.get_mut(NODES[node]).unwrap();
                agent.linked = false;
                let session = agent.session;
                cluster.step(Event::SessionLost { node: NODES[node].to_owned(), session });
            }
            Action::Drain { node, drained } => {
                let ticket = cluster.ticket();
                let (node, reason) = (NODES[node].to_owned(), "tests".to_owned());
                cluster.step(Event::DrainNode { ticket, node, drained, reason });
            }
            Action::Scale { node, step } => scale(cluster, NODES[node], step),
            Action::Moved { tenant, ingress_bytes, egress_bytes } => {
                let ticket = cluster.ticket();
                // Half of what came in was there already.
                let stored = vec![Upload { digest: format!("{ticket:064x}"), size_bytes: ingress_bytes / 2 }];
                let tenant_name = TENANTS[tenant].to_owned();
                let moved = Moved { tenant: tenant_name, ingress_bytes, egress_bytes, stored };
                cluster.step(Event::Moved { ticket, moved: vec![moved] });
                self.forget_one(TENANTS[tenant], egress_bytes);
                let cluster = &mut self.cluster;
                // Unanswered it was lost with the controller, and is not told again.
                if cluster.replies.get(&ticket) == Some(&Reply::Done) {
                    let sum = self.traffic.entry(TENANTS[tenant]).or_default();
                    *sum = (sum.0 + ingress_bytes, sum.1 + egress_bytes);
                }
            }
            Action::Crash => cluster.crash(),
            Action::LoseNext => cluster.lose_next = true,
        }
        for (tenant, sum) in &self.traffic {
            let ledger: LedgerRow = self.cluster.rows.get(&proto::keys::ledger(tenant)).unwrap_or_default();
            assert_eq!((ledger.ingress_bytes, ledger.egress_bytes), *sum, "traffic of {tenant}");
            let uploads = self.uploads(tenant);
            let kept: u64 = uploads.iter().map(|upload| upload.size_bytes).sum();
            assert_eq!(ledger.uploaded_bytes, kept, "uploads of {tenant}");
        }
        self.cluster.check_running();
    }

    fn uploads(&self, tenant: &str) -> Vec<Upload> {
        let prefix = format!("{}{tenant}/", proto::keys::UPLOADS);
        let rows = self.cluster.rows.below::<UploadRow>(&prefix);
        let upload = |(parsed, row): (Parsed, UploadRow)| match parsed {
            Parsed::Upload { digest, .. } => Upload { digest, size_bytes: row.size_bytes },
            other => panic!("{other:?}"),
        };
        rows.map(upload).collect()
    }

    /// As the collector does where no job names it, and now and then.
    fn forget_one(&mut self, tenant: &str, chance: u64) {
        let uploads = self.uploads(tenant);
        let Some(upload) = uploads.get(usize::try_from(chance % 8).unwrap()) else { return };
        let (ticket, uploads) = (self.cluster.ticket(), vec![upload.clone()]);
        self.cluster.step(Event::Forget { ticket, tenant: tenant.to_owned(), uploads });
    }

    fn cancel(&mut self, tenant: String, number: u64) {
        let ticket = self.cluster.ticket();
        let ended = Some(self.cluster.state(&tenant, number)).filter(|state| over(*state));
        let event = Event::Cancel { ticket, tenant: tenant.clone(), number, reason: "enough".into(), ended };
        self.cluster.step(event);
        match self.cluster.replies.get(&ticket) {
            Some(Reply::Cancelled(State::Completed | State::Failed)) => {}
            Some(Reply::Cancelled(_)) => drop(self.cluster.cancelled.insert((tenant, number))),
            None => {}
            other => panic!("{other:?}"),
        }
    }

    fn retry(&mut self, tenant: String, number: u64, from_step: bool) {
        let loaded = self.cluster.rows.job(&tenant, number);
        let ended = over(loaded.state.state());
        let from_step =
            if from_step { loaded.job.spec.as_ref().unwrap().steps[0].name.clone() } else { String::new() };
        let ticket = self.cluster.ticket();
        let loaded = ended.then(|| Box::new(loaded));
        self.cluster.step(Event::Retry { ticket, tenant: tenant.clone(), number, from_step, loaded });
        match self.cluster.replies.get(&ticket) {
            Some(Reply::Retried(tasks)) => {
                assert!(*tasks > 0 && ended);
                self.cluster.cancelled.remove(&(tenant, number));
            }
            Some(Reply::Refused(problem)) => assert!(problem.code.starts_with("conflict."), "{problem:?}"),
            None => {}
            other => panic!("{other:?}"),
        }
    }
}

fn scale(cluster: &mut Cluster, node: &str, step: usize) {
    let row = |cluster: &Cluster| cluster.rows.get::<NodeRow>(&proto::keys::node(node));
    let before = row(cluster);
    // Once drained it is mostly retired, and then forgotten.
    let wanted = match step {
        0 | 1 => Scaling::Drain("idle".to_owned()),
        2 => Scaling::Resume,
        3 | 4 if before.is_some() => Scaling::Retire { pool: "default".to_owned(), reason: String::new() },
        _ => Scaling::Forget,
    };
    let ticket = cluster.ticket();
    let event = Event::Scale { ticket, node: node.to_owned(), wanted: wanted.clone() };
    cluster.step(event);
    let done = cluster.replies.get(&ticket) == Some(&Reply::Done);
    let was = before.map(|row| (row.drained, row.drainer()));
    let is = row(cluster).map(|row| (row.drained, row.drainer()));
    match (wanted, was) {
        _ if !done => assert_eq!(is, was, "what is refused changes nothing"),
        (Scaling::Drain(_), _) => assert_eq!(is, Some((true, Drainer::Autoscaler))),
        (Scaling::Resume, _) => assert_eq!(is, Some((false, Drainer::Unspecified))),
        (Scaling::Retire { .. }, _) => {
            assert_eq!(is, Some((true, Drainer::Removal)));
            // Those that the core was told of.
            let unheard: Vec<_> = cluster.on_the_way.iter().map(|row| (&row.tenant, row.epoch)).collect();
            let on_it = cluster.rows.grants().find(|grant| {
                grant.nodes.iter().any(|part| part.node == node)
                    && !unheard.contains(&(&grant.tenant, grant.epoch))
            });
            assert!(on_it.is_none(), "{node} has {on_it:?}");
        }
        (Scaling::Forget, None | Some((_, Drainer::Removal))) => assert_eq!(is, None),
        (Scaling::Forget, _) => panic!("{was:?} is forgotten"),
    }
}

fn reconnect(cluster: &mut Cluster, node: &str, register: bool) {
    let agent = &cluster.agents[node];
    if agent.alive && !agent.cut {
        if register {
            cluster.register(node);
        }
        cluster.hello(node);
    }
}

fn end(cluster: &mut Cluster, node: &str, which: u32, how: u32) {
    let agent = cluster.agents.get_mut(node).unwrap();
    let held: Vec<_> = agent.runs.iter().map(|(held, run)| (held.clone(), run.phase)).collect();
    for (index, (held, phase)) in held.into_iter().enumerate() {
        if phase == Phase::Running && how.is_multiple_of(3) {
            // The ranks of a gang call theirs the same, if they come to it at once.
            agent.checkpoint(&held, &format!("{}", how % 1_000));
        }
        if which >> (index % 32) & 1 == 0 || phase == Phase::Ended {
            continue;
        }
        let kinds = [
            CauseKind::Succeeded,
            CauseKind::Succeeded,
            CauseKind::Succeeded,
            CauseKind::Exit,
            CauseKind::Signal,
            CauseKind::StagingFailed,
            CauseKind::LaunchFailed,
            CauseKind::Preempted,
        ];
        let kind = kinds[(how as usize + index) % kinds.len()];
        let launched = !matches!(kind, CauseKind::StagingFailed | CauseKind::LaunchFailed);
        if phase == Phase::Queued && how.is_multiple_of(5) {
            agent.refuse(&held);
        } else if launched == (phase == Phase::Running) {
            let exit_code = i32::from(kind == CauseKind::Exit) * 3;
            agent.end(&held, Cause { kind: kind.into(), exit_code, ..Cause::default() });
        }
    }
}

fn over(state: State) -> bool {
    matches!(state, State::Completed | State::Failed | State::Cancelled)
}

fn tell(actions: Vec<Action>) -> Story {
    let mut story = Story::new();
    for action in actions {
        story.act(action);
    }
    story.cluster.lose_next = false;
    story.cluster.drain(240);
    story
}

/// The stories are worth something only if they come where it hurts.
#[test]
fn the_stories_reach_the_rare_places() {
    let mut runner = TestRunner::deterministic();
    let stories = prop::collection::vec(action(), 150..250);
    let (mut marks, mut stats) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..60 {
        let actions = stories.new_tree(&mut runner).unwrap().current();
        let story = tell(actions);
        for (mark, times) in &story.cluster.rows.marks {
            *marks.entry(mark.clone()).or_insert(0) += times;
        }
        for core in story.cluster.past.iter().copied().chain([story.cluster.core.stats()]) {
            for (name, count) in [
                ("stale reports", core.stale_reports),
                ("surplus grants", core.surplus_grants),
                ("brakes", core.brakes),
                ("retries", core.retries),
            ] {
                *stats.entry(name).or_insert(0) += count;
            }
        }
    }
    for mark in [
        "PENDING>STAGING CAUSE_KIND_GRANTED",
        "PENDING>CANCELLED CAUSE_KIND_CANCELLED_BY_USER",
        "PENDING>CANCELLED CAUSE_KIND_DEPENDENCY_FAILED",
        "STAGING>PENDING CAUSE_KIND_STAGING_FAILED",
        "STAGING>PENDING CAUSE_KIND_NODE_LOST",
        "RUNNING>PENDING CAUSE_KIND_NODE_LOST",
        "RUNNING>PENDING CAUSE_KIND_AGENT_RESTARTED",
        "RUNNING>PENDING CAUSE_KIND_LEASE_EXPIRED",
        "RUNNING>PENDING CAUSE_KIND_UPLOAD_FAILED",
        "RUNNING>PENDING CAUSE_KIND_EXIT",
        "RUNNING>FAILED CAUSE_KIND_EXIT",
        "RUNNING>FAILED CAUSE_KIND_STEP_FAILED",
        "RUNNING>CANCELLED CAUSE_KIND_CANCELLED_BY_USER",
        // Of its array's tasks some began, and others lost their like.
        "RUNNING>CANCELLED CAUSE_KIND_DEPENDENCY_FAILED",
        "COMPLETED>PENDING CAUSE_KIND_RETRIED_BY_USER",
        "FAILED>PENDING CAUSE_KIND_RETRIED_BY_USER",
        "CANCELLED>PENDING CAUSE_KIND_RETRIED_BY_USER",
    ] {
        assert!(marks.contains_key(mark), "never {mark}, but {marks:#?}");
    }
    assert!(stats.values().all(|count| *count > 0), "{stats:?}");
}

/// A node that was lost comes back, is greeted and given a task, and falls silent before it
/// has sent a heartbeat: its task is its own for a lease all the same.
#[test]
fn a_node_that_was_only_greeted_keeps_its_task_for_a_lease() {
    let submit = || Action::Submit { tenant: 0, shape: 0, key: 0, after: 0 };
    let story = tell(vec![
        submit(),
        Action::Advance { ms: 90_000 },
        Action::Reconnect { node: 1, register: false },
        Action::Schedule { up_to: 1 },
        Action::TellGrants,
        Action::Advance { ms: 17_000 },
        Action::Reconnect { node: 0, register: false },
        Action::Turn { which: 0, how: 0 },
    ]);
    assert_eq!(story.cluster.state(&story.jobs[0].0, story.jobs[0].1), State::Completed);
}

proptest! {
    #![proptest_config(ProptestConfig {
        // PROPTEST_CASES asks for more.
        cases: ProptestConfig::default().cases.max(200),
        max_shrink_iters: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_story_keeps_the_invariants_and_ends(actions in prop::collection::vec(action(), 1..250)) {
        let story = tell(actions);
        let states: Vec<State> = story.jobs.iter().map(|(t, n)| story.cluster.state(t, *n)).collect();
        prop_assert!(states.iter().all(|state| over(*state)));
    }
}
