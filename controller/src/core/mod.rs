//! The pure core: `step(now, event)` returns rows to write and effects to
//! perform once they are durable. No clock, chance, IO or hash order in here.
//!
//! What must hold in this module tree:
//! - The core's memory is always ahead of the store by exactly the transactions
//!   it returned. If one of them fails, the core is dropped and built anew from
//!   the rows; nothing it decided since has been seen by anyone.
//! - A transaction carries every row it changes, whole, and no more rows than
//!   fit one commit. Work that would exceed that stays in the backlog, in order,
//!   and [`Core::next_wakeup_ms`] asks for a step at once.
//! - Nothing said from outside panics here. A broken invariant does (`check`).
//!
//! One room each: `submit`, `cancel`, `retry` (tenants); `nodes` (sessions,
//! verdicts, leases); `grants`, `frames` (capacity to tasks to agents);
//! `reports`, `gangs`, `finish` (attempts to their ends); `follow`, `gates`,
//! `pairs`, `unmet` (tasks that wait for another job's tasks); `expiry` (what ended jobs
//! gave, for how long); `traffic` (bytes
//! that clients moved); `preempt` (what gives way to work of higher priority); `progress` (what attempts say while they run); `blocks`, `ledger`, `events`, `outbox` (rows); `demand`;
//! `check`, `check_step`, `watched`.

mod blocks;
mod cancel;
mod check;
mod check_step;
mod checkpoints;
mod config;
mod demand;
mod events;
mod expiry;
mod finish;
mod follow;
mod frames;
mod gangs;
mod gates;
mod grants;
mod ledger;
mod model;
mod nodes;
mod outbox;
mod pace;
mod pairs;
mod preempt;
mod progress;
mod reports;
mod retry;
mod retry_user;
mod scale;
mod start;
mod submit;
mod traffic;
mod types;
mod unmet;
mod watched;

pub use config::Config;
pub(crate) use follow::JOB_ENDING;
pub use pace::Straggler;
pub use preempt::Rules as PreemptionRules;
pub use progress::{StepSaid, TaskSaid, TaskStaged};
pub use types::{
    Admission, AdmissionAsk, AdmissionVerdict, DemandChange, DueJobs, Effect, EndedJob, Event, Expiring,
    Loaded, LoadedJob, Moved, NewJob, Now, Reply, Resources64, Scaling, Txn, Upload,
};

use crate::limits;
use model::{Node, Tenant};
use outbox::Outbox;
use proto::problem::Problem;
use proto::spans::Spans;
use proto::v1::{AttemptRef, Cause, HeldAttempt, State};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use watched::Watched;

/// Numbers of one step: tenant, job, step.
type StepKey = (String, u64, u32);

/// See the module.
pub struct Core {
    config: Config,
    admission: Arc<dyn Admission>,
    now: Now,
    tenants: BTreeMap<String, Tenant>,
    /// By the grants that name them.
    held_in_groups: BTreeMap<String, model::Holding>,
    nodes: Watched<String, Node>,
    live_jobs: usize,
    /// What to do when, in monotonic milliseconds.
    timers: BTreeSet<(u64, Timer)>,
    /// Work that did not fit, then events that came after it.
    backlog: VecDeque<Work>,
    /// Tasks that ended for good and that others look at: completed, and not.
    /// Told before any further work.
    progress: BTreeMap<StepKey, (Spans, Spans)>,
    /// Grants to feed or to release.
    feeding: BTreeSet<(String, u64)>,
    bind_order: u64,
    cluster_retries: retry::Bucket,
    node_deadlines: BTreeSet<(u64, String)>,
    /// The highest session that a node had which is forgotten.
    sessions_forgotten: u64,
    brake: nodes::Brake,
    demand: demand::Told,
    yielding: preempt::Told,
    recent: submit::Recent,
    /// Grants told at loading, linked and judged at the start.
    orphans: Vec<proto::v1::GrantRow>,
    ends: BTreeMap<(String, u64), State>,
    /// Ended jobs whose tasks are looked at, told at loading.
    followed: BTreeMap<String, Vec<LoadedJob>>,
    /// The tenant that was told of last when it was asked what is due.
    due_told: String,
    stats: Stats,
    out: Outbox,
    seen: check_step::Seen,
}

/// Counters for operators and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reports that named an attempt that is not the current one.
    pub stale_reports: u64,
    /// Grants given back without a task ever bound to them.
    pub surplus_grants: u64,
    /// How often the brake was pulled.
    pub brakes: u64,
    /// Retries that the work's own failures and the platform's led to.
    pub retries: u64,
    /// Attempts that gave way to work of higher priority.
    pub preemptions: u64,
}

/// Ordered by what they are about, so that timers of one instant have an order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A task of this step may be tried again.
    Retry(String, u64, u32),
    /// Stops of this job that led to no end are sent again.
    Stop(String, u64),
    /// This step is looked at for stragglers.
    Pace(String, u64, u32),
    /// More of this grant could give way.
    Yielding(String, u64),
}

/// A piece of work; large ones are taken up again where they stopped.
enum Work {
    Event(Event),
    Reports(reports::Frame),
    Hello {
        node: String,
        session: u64,
        held: Vec<HeldAttempt>,
    },
    /// A job ended: those that wait for it look again.
    Waiters {
        tenant: String,
        number: u64,
        state: State,
        waiters: Vec<u64>,
    },
    /// What a job still has pending is cancelled.
    CancelPending {
        tenant: String,
        number: u64,
        cause: Cause,
    },
    /// All ranks ended well: manifests, then the end.
    CommitGang {
        spot: model::Spot,
        from_rank: u32,
    },
    /// Look what has ended; after loading, go on where the last core stopped.
    Review {
        tenant: String,
        number: u64,
    },
    /// After loading: all ranks of a gang had ended.
    GangOver {
        spot: model::Spot,
        epoch: u64,
    },
    /// After loading: a grant that nothing is bound to.
    Grant(proto::v1::GrantRow),
    /// After loading: an attempt without a grant.
    Unheld(model::Spot),
    /// After loading: a job that waits for what can never be, and why.
    Doom {
        tenant: String,
        number: u64,
        text: String,
    },
    /// A task ended: those that wait for it look again.
    TaskEnded {
        tenant: String,
        /// Job, step, task.
        on: (u64, u32, u64),
        well: bool,
        waiters: Vec<u64>,
    },
    /// Tasks of a step that can never begin are cancelled.
    Unmet {
        tenant: String,
        number: u64,
        step: u32,
    },
}

impl Core {
    /// An empty core. Tell it the rows with [`Core::load`], then start it.
    #[must_use]
    pub fn new(config: Config, admission: Arc<dyn Admission>) -> Self {
        let cluster_retries = retry::Bucket::new(config.cluster_retry_burst, config.cluster_retries_per_s);
        Self {
            config,
            admission,
            now: Now::default(),
            tenants: BTreeMap::new(),
            held_in_groups: BTreeMap::new(),
            nodes: Watched::default(),
            live_jobs: 0,
            timers: BTreeSet::new(),
            backlog: VecDeque::new(),
            progress: BTreeMap::new(),
            feeding: BTreeSet::new(),
            bind_order: 1 << 40,
            cluster_retries,
            node_deadlines: BTreeSet::new(),
            sessions_forgotten: 0,
            brake: nodes::Brake::default(),
            demand: demand::Told::default(),
            yielding: preempt::Told::default(),
            recent: submit::Recent::default(),
            orphans: Vec::new(),
            ends: BTreeMap::new(),
            followed: BTreeMap::new(),
            due_told: String::new(),
            stats: Stats::default(),
            out: Outbox::default(),
            seen: check_step::Seen::default(),
        }
    }

    /// Takes one event. The transaction may also carry what earlier events left
    /// to do, and may leave some of this event's to the next step.
    pub fn step(&mut self, now: Now, event: Event) -> Txn {
        self.pass(now);
        if self.backlog.is_empty() && self.progress.is_empty() {
            self.take(event);
        } else {
            world::mark!("controller.backlog.event_waits");
            self.queue(event);
        }
        self.run();
        self.close()
    }

    /// Does what is due and fits: grants to feed first, so that an event and the
    /// tasks it makes room for share one commit.
    fn run(&mut self) {
        while !self.out.full() {
            if let Some((tenant, epoch)) = self.feeding.pop_first() {
                self.feed(&tenant, epoch);
            } else if let Some(((tenant, number, step), (completed, ill))) = self.progress.pop_first() {
                self.tell_progress(&tenant, (number, step), &completed, &ill);
            } else if let Some(work) = self.backlog.pop_front() {
                self.work(work);
            } else if !self.fire_timer() && !self.judge_nodes() {
                break;
            }
        }
    }

    fn queue(&mut self, event: Event) {
        if self.backlog.len() >= limits::BACKLOG_MAX
            && let Event::Submit { ticket, .. } | Event::Cancel { ticket, .. } | Event::Retry { ticket, .. } =
                event
        {
            let problem = Problem::new(
                "limit.busy",
                "",
                "",
                "the controller has more to write than it can take in now",
                "try again in a moment",
            );
            self.reply(ticket, Reply::Refused(problem));
        } else {
            self.backlog.push_back(Work::Event(event));
        }
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::Event(event) => self.take(event),
            Work::Reports(frame) => self.reports(frame),
            Work::Hello { node, session, held } => self.reconcile(node, session, held),
            Work::Waiters { tenant, number, state, waiters } => {
                self.tell_waiters(tenant, number, state, waiters);
            }
            Work::CancelPending { tenant, number, cause } => self.cancel_pending(&tenant, number, &cause),
            Work::CommitGang { spot, from_rank } => self.commit_gang(spot, from_rank),
            Work::Review { tenant, number } => self.review(&tenant, number),
            Work::GangOver { spot, epoch } => self.gang_over(&spot, epoch),
            Work::Grant(row) => self.take_grant(row),
            Work::Unheld(spot) => self.unheld(&spot),
            Work::Doom { tenant, number, text } => self.doom(&tenant, number, text),
            Work::TaskEnded { tenant, on, well, waiters } => {
                world::mark!("controller.follow.task_ended");
                self.task_ended(tenant, on, well, waiters);
            }
            Work::Unmet { tenant, number, step } => {
                world::mark!("controller.follow.never_met");
                self.cancel_unmet(tenant, number, step);
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::Tenant(row) => self.tenant_changed(row),
            Event::Submit { ticket, job } => self.submit(ticket, job),
            Event::Cancel { ticket, tenant, number, reason, ended } => {
                self.cancel(ticket, &tenant, number, reason, ended);
            }
            Event::Retry { ticket, tenant, number, from_step, loaded } => {
                self.retry_by_user(ticket, &tenant, number, &from_step, loaded);
            }
            Event::Register { ticket, request } => self.register(ticket, request),
            Event::Hello { node, session, held } => self.hello(node, session, held),
            Event::Heartbeat { node, session, beat } => self.heartbeat(&node, session, &beat),
            Event::SessionLost { node, session } => self.session_lost(&node, session),
            Event::Reports { node, session, reports, missing } => {
                self.reports_heard(node, session, reports, missing);
            }
            Event::Progress { node, session, told } => self.progress_heard(&node, session, told),
            Event::Granted(row) => self.granted(row),
            Event::Moved { ticket, moved } => self.moved(ticket, moved),
            Event::Forget { ticket, tenant, uploads } => self.forget_uploads(ticket, &tenant, &uploads),
            Event::Ended { ticket, tenant, jobs, last } => self.ended_told(ticket, &tenant, &jobs, last),
            Event::Expire { ticket, tenant, number, found } => self.expire(ticket, &tenant, number, *found),
            Event::Settle { ticket } => self.reply(ticket, Reply::Done),
            Event::Reserve { ticket, nodes, reservation, remove } => {
                self.reserve(ticket, &nodes, &reservation, remove);
            }
            Event::DrainNode { ticket, node, drained, reason } => {
                self.drain_node(ticket, &node, drained, reason);
            }
            Event::Scale { ticket, node, wanted } => {
                let reply = self.scale_node(&node, wanted).map_or_else(Reply::Refused, |()| Reply::Done);
                self.reply(ticket, reply);
            }
        }
    }

    /// Lets time pass; a gap in it means that the judge itself was absent.
    fn pass(&mut self, now: Now) {
        let before = self.now;
        self.now = Now { mono_ms: now.mono_ms.max(before.mono_ms), wall_ms: now.wall_ms };
        if self.now.mono_ms - before.mono_ms > self.config.tick_gap_ms_max && !self.nodes.is_empty() {
            world::mark!("controller.brake.judge_was_absent");
            self.pull_brake("the controller itself was paused");
        }
    }

    /// When the core wants its next step at the latest, in monotonic
    /// milliseconds; the shell then sends [`Event::Tick`]. In the past while
    /// there is a backlog.
    #[must_use]
    pub fn next_wakeup_ms(&self) -> Option<u64> {
        if self.backlogged() {
            return Some(self.now.mono_ms);
        }
        let timer = self.timers.first().map(|(at, _)| *at);
        let tick = (!self.nodes.is_empty()).then(|| self.now.mono_ms + self.config.tick_ms);
        let verdict = if self.brake.pulled() { None } else { self.node_deadlines.first().map(|(at, _)| *at) };
        [timer, tick, verdict, self.brake.until_ms()].into_iter().flatten().min()
    }

    /// True while the last step left work undone; ticks do it.
    #[must_use]
    pub fn backlogged(&self) -> bool {
        !self.backlog.is_empty() || !self.feeding.is_empty() || !self.progress.is_empty()
    }

    /// Whether this attempt with this epoch is the one that may commit.
    #[must_use]
    pub fn is_current(&self, attempt: &AttemptRef) -> bool {
        self.find_active(attempt).is_some()
    }

    /// Whose retry budget is empty at this instant (monotonic): tenants by name; empty, and
    /// first: that of all.
    #[must_use]
    pub fn storms(&self, now_ms: u64) -> Vec<String> {
        let tenants = self.tenants.iter().filter(|(_, tenant)| tenant.retries.is_empty(now_ms));
        let cluster = self.cluster_retries.is_empty(now_ms).then(String::new);
        cluster.into_iter().chain(tenants.map(|(name, _)| name.clone())).collect()
    }

    /// Counters since the core was made.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn reply(&mut self, ticket: u64, reply: Reply) {
        self.out.effects.push(Effect::Reply { ticket, reply });
    }

    fn log(&mut self, tenant: &str, number: u64, text: String) {
        self.out.effects.push(Effect::Log { tenant: tenant.to_owned(), number, text });
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("now", &self.now)
            .field("tenants", &self.tenants.len())
            .field("nodes", &self.nodes.len())
            .field("live_jobs", &self.live_jobs)
            .field("backlog", &self.backlog.len())
            .finish_non_exhaustive()
    }
}
