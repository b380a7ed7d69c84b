//! The controller's core among agents that keep their promises, one that lies,
//! and a scheduler whose grants may name anything.
//!
//! The cluster around it, with its checks of every transaction (sizes, edges of
//! the state machine, numbered events, one manifest a task, nothing running
//! twice), is the one of the controller's own tests. On top of it here: every
//! asker is answered once; once the lies end and all is whole, every job ends.

#[path = "../../../controller/tests/model/mod.rs"]
#[allow(unreachable_pub, reason = "the model is written for the tests of its own crate")]
mod model;
mod strange;

use crate::door::refused;
use crate::draw::Draw;
use controller::{Config, Event, NewJob, Reply};
use model::agent::{Agent, Phase};
use model::{Cluster, specs};
use proto::v1::{AttemptRef, Budget, Cause, Heartbeat, JobSpec, State, Step, TenantRow, server_frame};

const HONEST: [&str; 3] = ["n1", "n2", "n3"];
/// Registered and granted to as any, but what it says is drawn.
const LIAR: &str = "n4";
const NODES: [&str; 4] = ["n1", "n2", "n3", LIAR];
const TENANTS: [&str; 2] = ["acme", "lab"];
const SLOTS: u32 = 4;
/// What comes behind is cut off.
const MOVES_MAX: usize = 200;
/// Attempts remembered to lie about.
const KNOWN_MAX: usize = 256;

/// Events and what becomes of them.
pub fn controller_core(data: &[u8]) {
    let mut draw = Draw::new(data);
    let mut story = Story::new();
    for _ in 0..MOVES_MAX {
        if draw.is_over() {
            break;
        }
        story.act(&mut draw);
    }
    story.end();
}

struct Story {
    cluster: Cluster,
    jobs: Vec<(String, u64)>,
    /// What the liar was assigned, and whatever else it heard of.
    known: Vec<AttemptRef>,
}

impl Story {
    fn new() -> Self {
        let mut cluster = Cluster::new(Config::default(), SLOTS);
        for tenant in TENANTS {
            let budget = Budget { core_hour_micros: 60_000_000, ..Budget::default() };
            let row = TenantRow { name: tenant.to_owned(), budget: Some(budget), ..TenantRow::default() };
            cluster.tenant(row);
        }
        for node in HONEST {
            cluster.add_node(node);
        }
        cluster.agents.insert(LIAR.to_owned(), Agent::new(LIAR, SLOTS));
        cluster.register(LIAR);
        let mut story = Self { cluster, jobs: Vec::new(), known: Vec::new() };
        story.liar_joins();
        story
    }

    /// The liar's stream is open, but nothing in the model acts for it.
    fn liar_joins(&mut self) {
        let agent = self.cluster.agents.get_mut(LIAR).expect("it was put there");
        (agent.alive, agent.linked) = (false, true);
        let session = agent.session;
        self.cluster.step(Event::Hello { node: LIAR.to_owned(), session, held: Vec::new() });
    }

    fn act(&mut self, draw: &mut Draw<'_>) {
        match draw.below(32) {
            0..=3 => self.submit(draw),
            4..=10 => self.turn(draw),
            11 => self.cancel(draw),
            12 => self.retry(draw),
            13 => self.cluster.schedule(1 + draw.below(6)),
            14 => drop(self.cluster.tell_grants()),
            15 => self.strange_grant(draw),
            16 => self.end_some(draw),
            17 => self.report(draw),
            18 => self.cluster.replay(HONEST[draw.below(3)]),
            19 => self.pass_time(draw),
            20 => self.links(draw),
            21 => self.agents_come_and_go(draw),
            22 => self.strange_node(draw),
            23 => self.controller_dies(draw),
            24..=27 => self.lie(draw),
            28 => self.strange_hello(draw),
            29 => self.stale_frames(draw),
            30 => HONEST.iter().for_each(|node| self.cluster.heartbeat(node)),
            _ => self.strange_submission(draw),
        }
        self.listen();
        self.cluster.check_running();
    }

    /// What the liar was sent, it may speak of.
    fn listen(&mut self) {
        let agent = self.cluster.agents.get_mut(LIAR).expect("it was put there");
        for frame in agent.inbox.drain(..) {
            let Some(server_frame::Frame::Assign(assign)) = frame.frame else { continue };
            self.known.extend(assign.tasks.iter().map(|task| AttemptRef {
                tenant: assign.tenant.clone(),
                job_number: assign.job_number,
                step: assign.step_index,
                task: task.task,
                attempt: task.attempt,
                epoch: assign.epoch,
            }));
        }
        let surplus = self.known.len().saturating_sub(KNOWN_MAX);
        self.known.drain(..surplus);
    }

    // ------------------------------------------------------------- tenants

    /// Sends an event that asks; every asker is answered once, unless the
    /// controller died over it.
    fn ask(&mut self, event: impl FnOnce(u64) -> Event) -> Option<Reply> {
        let (ticket, dies) = (self.cluster.ticket(), self.cluster.lose_next);
        self.cluster.step(event(ticket));
        let reply = self.cluster.replies.get(&ticket).cloned();
        assert!(reply.is_some() || dies, "ticket {ticket} was not answered");
        if let Some(Reply::Refused(problem)) = &reply {
            refused(problem);
        }
        reply
    }

    fn submit(&mut self, draw: &mut Draw<'_>) {
        let tenant = *draw.pick(&TENANTS);
        let own: Vec<u64> = self.jobs.iter().filter(|(name, _)| name == tenant).map(|(_, n)| *n).collect();
        let on = if draw.seldom(4) && !own.is_empty() { Some(*draw.pick(&own)) } else { None };
        let spec = specs::pick(u32::from(draw.byte()), on);
        let key = if draw.seldom(3) { format!("k{}", draw.below(3)) } else { String::new() };
        self.submitted(tenant, spec, key, false);
    }

    fn submitted(&mut self, tenant: &str, spec: JobSpec, key: String, dry_run: bool) {
        let state = |on: u64| self.cluster.rows.state(tenant, on).map(|row| row.state());
        let dependencies = spec.after.iter().map(|dependency| {
            let on = dependency.job_number;
            (on, state(on).filter(|state| over(*state)))
        });
        let dependencies = dependencies.collect();
        let followed = self.cluster.rows.followed(tenant, &spec);
        let known = self.cluster.rows.get::<proto::v1::IdempotencyRow>(&proto::keys::idem(tenant, &key));
        let job = NewJob {
            tenant: tenant.to_owned(),
            spec_digest: proto::validate::digest(&spec),
            spec,
            key,
            by: "fuzz".to_owned(),
            dry_run,
            known: known.map(|row| (row.job_number, row.spec_digest)),
            dependencies,
            followed,
        };
        if let Some(Reply::Submitted(reply)) = self.ask(|ticket| Event::Submit { ticket, job }) {
            let job = (tenant.to_owned(), reply.number);
            if !dry_run && self.cluster.accepted.insert(job.clone()) {
                assert!(!reply.existing, "an existing job nobody knows");
                self.jobs.push(job);
            }
        }
    }

    /// One of the latest, or (seldom) one that is not there.
    fn job(&self, draw: &mut Draw<'_>) -> (String, u64) {
        let pick = draw.below(16);
        let known = self.jobs.iter().rev().nth(pick).cloned();
        known.unwrap_or_else(|| ((*draw.pick(&TENANTS)).to_owned(), draw.number()))
    }

    fn cancel(&mut self, draw: &mut Draw<'_>) {
        let (tenant, number) = self.job(draw);
        self.cancel_job(tenant, number);
    }

    fn cancel_job(&mut self, tenant: String, number: u64) {
        let ended = Some(self.cluster.state(&tenant, number)).filter(|state| over(*state));
        let event = |ticket| Event::Cancel {
            ticket,
            tenant: tenant.clone(),
            number,
            reason: "enough".to_owned(),
            ended,
        };
        match self.ask(event) {
            Some(Reply::Cancelled(State::Completed | State::Failed)) | None => {}
            Some(Reply::Cancelled(_)) => drop(self.cluster.cancelled.insert((tenant, number))),
            Some(Reply::Refused(_)) => assert!(!self.jobs.contains(&(tenant, number))),
            other => panic!("{other:?}"),
        }
    }

    fn retry(&mut self, draw: &mut Draw<'_>) {
        let (tenant, number) = self.job(draw);
        let exists = self.jobs.contains(&(tenant.clone(), number));
        let loaded = exists.then(|| self.cluster.rows.job(&tenant, number));
        let loaded = loaded.filter(|loaded| over(loaded.state.state())).map(Box::new);
        let ended = loaded.is_some();
        let from_step = ["", "", "one", "split", "count", "nothing"][draw.below(6)].to_owned();
        let event = |ticket| Event::Retry { ticket, tenant: tenant.clone(), number, from_step, loaded };
        match self.ask(event) {
            Some(Reply::Retried(tasks)) => {
                assert!(tasks > 0 && ended);
                self.cluster.cancelled.remove(&(tenant, number));
            }
            Some(Reply::Refused(_)) | None => {}
            other => panic!("{other:?}"),
        }
    }

    // --------------------------------------------------- the healthy course

    fn turn(&mut self, draw: &mut Draw<'_>) {
        let cluster = &mut self.cluster;
        cluster.schedule(8);
        cluster.tell_grants();
        let (which, how) = (draw.byte(), draw.byte());
        for node in HONEST {
            cluster.heartbeat(node);
            cluster.work(node);
            end(cluster, node, which, how);
            let missing = if how.is_multiple_of(16) { (0..4).collect() } else { Vec::new() };
            cluster.report(node, missing);
        }
        self.liar_beats(draw.seldom(8));
        self.cluster.advance(500 + u64::from(how) * 8);
    }

    fn liar_beats(&mut self, silent: bool) {
        let session = self.cluster.agents[LIAR].session;
        if !silent {
            let beat = Heartbeat { sequence: 1, ..Heartbeat::default() };
            self.cluster.step(Event::Heartbeat { node: LIAR.to_owned(), session, beat });
        }
    }

    fn end_some(&mut self, draw: &mut Draw<'_>) {
        let node = *draw.pick(&HONEST);
        self.cluster.work(node);
        end(&mut self.cluster, node, draw.byte(), draw.byte());
    }

    fn report(&mut self, draw: &mut Draw<'_>) {
        let missing = if draw.seldom(8) { vec![0, 1, usize::MAX] } else { Vec::new() };
        self.cluster.report(HONEST[draw.below(3)], missing);
    }

    fn pass_time(&mut self, draw: &mut Draw<'_>) {
        match draw.below(8) {
            0..=4 => self.cluster.advance(1 + draw.word() % 6_000),
            5 => self.cluster.advance(10_000 + draw.word()),
            // The date is wrong, or was.
            6 => self.cluster.now.wall_ms = self.cluster.now.wall_ms.saturating_sub(draw.word() << 10),
            _ => self.cluster.now.wall_ms += draw.word() << 20,
        }
    }

    fn links(&mut self, draw: &mut Draw<'_>) {
        let node = *draw.pick(&HONEST);
        let agent = self.cluster.agents.get_mut(node).expect("honest nodes are there");
        match draw.below(4) {
            0 => agent.cut = true,
            1 => agent.cut = false,
            2 => {
                agent.linked = false;
                let session = agent.session;
                self.cluster.step(Event::SessionLost { node: node.to_owned(), session });
            }
            _ => self.rejoin(node, draw.coin()),
        }
    }

    fn rejoin(&mut self, node: &str, register: bool) {
        let agent = &self.cluster.agents[node];
        if agent.alive && !agent.cut {
            if register {
                self.cluster.register(node);
            }
            self.cluster.hello(node);
        }
    }

    fn agents_come_and_go(&mut self, draw: &mut Draw<'_>) {
        let node = *draw.pick(&HONEST);
        let agent = self.cluster.agents.get_mut(node).expect("honest nodes are there");
        if draw.coin() {
            agent.die();
        } else if !agent.alive {
            agent.alive = true;
            self.rejoin(node, true);
        }
    }

    fn controller_dies(&mut self, draw: &mut Draw<'_>) {
        match draw.below(4) {
            0 => {
                self.cluster.crash();
                self.cluster.agents.get_mut(LIAR).expect("it was put there").linked = true;
            }
            1 => self.cluster.lose_next = true,
            _ => {}
        }
    }

    /// The lies end and all is whole: so does every job, but those that no
    /// cluster of this size could ever run.
    fn end(mut self) {
        self.cluster.lose_next = false;
        for (tenant, number) in self.jobs.clone() {
            let steps = self.cluster.rows.job(&tenant, number).job.spec.unwrap_or_default().steps;
            let fits = |step: &Step| step.nodes <= NODES.len() as u32 && step.tasks_per_node <= SLOTS;
            if !steps.iter().all(fits) {
                self.cancel_job(tenant, number);
            }
        }
        let liar = self.cluster.agents.get_mut(LIAR).expect("it was put there");
        (liar.linked, liar.alive) = (false, true);
        liar.inbox.clear();
        self.cluster.drain(24 * 60);
        for (tenant, number) in &self.jobs {
            assert!(over(self.cluster.state(tenant, *number)), "{tenant}-{number} has not ended");
        }
    }
}

/// Ends some of an honest agent's tasks; the bits choose which, and how.
fn end(cluster: &mut Cluster, node: &str, which: u8, how: u8) {
    let agent = cluster.agents.get_mut(node).expect("honest nodes are there");
    let held: Vec<_> = agent.runs.iter().map(|(held, run)| (held.clone(), run.phase)).collect();
    for (index, (held, phase)) in held.into_iter().enumerate() {
        if which >> (index % 8) & 1 == 0 || phase == Phase::Ended {
            continue;
        }
        // Succeeded, Exit, Signal, StagingFailed, LaunchFailed, Preempted.
        let kinds = [4, 4, 4, 10, 11, 23, 15, 22];
        let kind = kinds[(usize::from(how) + index) % kinds.len()];
        let launched = kind != 23 && kind != 15;
        if phase == Phase::Queued && how.is_multiple_of(5) {
            agent.refuse(&held);
        } else if launched == (phase == Phase::Running) {
            let exit_code = i32::from(kind == 10) * 3;
            agent.end(&held, Cause { kind, exit_code, ..Cause::default() });
        }
    }
}

fn over(state: State) -> bool {
    matches!(state, State::Completed | State::Failed | State::Cancelled)
}
