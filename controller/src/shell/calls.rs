//! The handle: what the gateway calls. Each call becomes an event for the core
//! and waits, with a deadline, for the answer that follows its commit.

use super::sessions::StreamId;
use super::{ObjectIndex, limits, load, sessions};
use crate::core::{
    DueJobs, Event, JOB_ENDING, LoadedJob, Moved, NewJob, Reply, Scaling, Stats, StepSaid, Straggler,
    TaskSaid, TaskStaged, Upload,
};
use proto::after;
use proto::problem;
use proto::v1::{
    AgentFrame, AttemptRef, Hello, IdempotencyRow, JobRow, JobSpec, JobStateRow, Problem, RegisterReply,
    RegisterRequest, Reservation, ServerFrame, ShardRow, State, SubmitReply,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use store::{Revision, Store};
use world::sync::{mpsc, oneshot};
use world::time;

/// The controller could not start; one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(pub String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for StartError {}

/// Code of what may or may not have happened.
const INDETERMINATE: &str = "unavailable.indeterminate";

/// Makes the event of a call, given the ticket its reply will carry.
pub(super) type MakeEvent = Box<dyn FnOnce(u64) -> Event + Send>;

/// What reaches the loop.
pub(super) enum Input {
    Event(Event),
    Call(MakeEvent, oneshot::Sender<Reply>),
    /// A session opened: its Hello, its stream, and where its frames go.
    Session(Hello, StreamId, mpsc::Sender<ServerFrame>),
    /// A stream broke, or its agent ended it.
    StreamEnded {
        node: String,
        session: u64,
        stream: StreamId,
    },
    /// Is this attempt the current one?
    Owns(AttemptRef, oneshot::Sender<bool>),
    /// How far have these come?
    Progress(ProgressOf, oneshot::Sender<Told>),
    /// Which of these run far longer than their like?
    Stragglers(StragglersOf, oneshot::Sender<Vec<Straggler>>),
    /// How far have the steps of these jobs come?
    StepsSaid(Vec<(String, u64)>, oneshot::Sender<Vec<Vec<StepSaid>>>),
    /// Whose retry budget is empty?
    Storms(oneshot::Sender<Option<Vec<String>>>),
    /// Which ended jobs are due?
    Due(oneshot::Sender<DueJobs>),
    /// Tell all demand anew, as a snapshot.
    TellAllDemand,
    /// No more is to be done once what is under way is.
    Resign,
}

/// What was told of live attempts, by task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// By themselves: of those that run.
    pub said: BTreeMap<u64, TaskSaid>,
    /// By their agents: of those in STAGING.
    pub staged: BTreeMap<u64, TaskStaged>,
}

/// Tasks of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressOf {
    /// Of the job.
    pub tenant: String,
    /// Of the job.
    pub number: u64,
    /// Index of the step.
    pub step: u32,
    /// Ordinals within the step.
    pub tasks: Range<u64>,
}

/// Tasks of steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StragglersOf {
    /// Of the job.
    pub tenant: String,
    /// Of the job.
    pub number: u64,
    /// Indexes.
    pub steps: Range<u32>,
    /// Ordinals within their steps.
    pub tasks: Range<u64>,
}

/// What others may read without asking the loop.
#[derive(Debug, Default)]
pub(super) struct View {
    nodes: Mutex<BTreeMap<String, NodeSeen>>,
    /// Streams ever opened; what others may not read, but all handles share.
    streams: AtomicU64,
    stale_reports: AtomicU64,
    surplus_grants: AtomicU64,
    reign: Mutex<Option<Reigning>>,
}

/// By whom the shards were taken, and when.
#[derive(Clone, Debug)]
struct Reigning {
    owner: String,
    revision: Revision,
}

#[derive(Clone, Copy, Debug, Default)]
struct NodeSeen {
    session: u64,
    heard_wall_ms: u64,
}

impl View {
    pub(super) fn heard(&self, node: &str, session: u64, wall_ms: u64) {
        let mut nodes = self.nodes.lock().expect("no holder of this lock panics");
        let seen = nodes.entry(node.to_owned()).or_default();
        if session >= seen.session {
            *seen = NodeSeen { session, heard_wall_ms: wall_ms };
        }
    }

    /// What came to what a core had counted before.
    pub(super) fn counted(&self, before: Stats, now: Stats) {
        let more = [
            (&self.stale_reports, now.stale_reports - before.stale_reports),
            (&self.surplus_grants, now.surplus_grants - before.surplus_grants),
        ];
        for (counter, count) in more {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(super) fn reigns(&self, owner: &str, revision: Revision) {
        let reigning = Reigning { owner: owner.to_owned(), revision };
        *self.reign.lock().expect("no holder of this lock panics") = Some(reigning);
    }

    pub(super) fn deposed(&self) {
        *self.reign.lock().expect("no holder of this lock panics") = None;
    }

    fn reign(&self) -> Option<Reigning> {
        self.reign.lock().expect("no holder of this lock panics").clone()
    }

    fn get(&self, node: &str) -> NodeSeen {
        self.nodes.lock().expect("no holder of this lock panics").get(node).copied().unwrap_or_default()
    }
}

/// See the module.
#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    pub(super) store: Arc<dyn Store>,
    objects: Arc<dyn ObjectIndex>,
    view: Arc<View>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    pub(super) fn new(
        inputs: mpsc::Sender<Input>,
        store: Arc<dyn Store>,
        objects: Arc<dyn ObjectIndex>,
        view: Arc<View>,
    ) -> Self {
        Self { inputs, store, objects, view }
    }

    /// Submits a validated, normalized spec; returns once the job is durable.
    pub async fn submit(
        &self,
        tenant: &str,
        by: &str,
        spec: JobSpec,
        key: &str,
        dry_run: bool,
    ) -> Result<SubmitReply, Problem> {
        self.submit_later(tenant, by, spec, key, dry_run, Arc::default()).await?.await
    }

    /// Queues a submission in call order; the inner future waits for its
    /// durability. `using` is held while what the submission names may still come to be
    /// named by a row that is not under way yet.
    ///
    /// # Errors
    /// Where the queue is closed or stays full past the deadline, or the rows
    /// it needs cannot be read.
    pub async fn submit_later(
        &self,
        tenant: &str,
        by: &str,
        spec: JobSpec,
        key: &str,
        dry_run: bool,
        using: Arc<()>,
    ) -> Result<impl Future<Output = Result<SubmitReply, Problem>> + Send + 'static, Problem> {
        let mut job = NewJob {
            tenant: tenant.to_owned(),
            spec_digest: if key.is_empty() { String::new() } else { digest(&spec) },
            spec,
            key: key.to_owned(),
            by: by.to_owned(),
            dry_run,
            ..NewJob::default()
        };
        self.look_up(&mut job).await?;
        // Only what looks at other jobs' tasks can be asked too early.
        let mut kept = job.spec.after.iter().any(after::by_task).then(|| job.clone());
        let mut asked = self.ask_submit(job).await?;
        let handle = self.clone();
        let using = kept.is_some().then_some(using);
        Ok(async move {
            let _until_asked_again = using;
            let mut waits_ms = limits::ENDING_WAITS_MS.into_iter();
            loop {
                let problem = match answer(asked).await {
                    Ok(Reply::Submitted(reply)) => return Ok(reply),
                    Ok(other) => return Err(unexpected(&other)),
                    Err(problem) => problem,
                };
                let ending = problem.code == JOB_ENDING;
                let (Some(job), Some(wait_ms)) = (kept.as_mut().filter(|_| ending), waits_ms.next()) else {
                    return Err(problem);
                };
                // What it looks at is stored in a moment.
                time::sleep(time::ms(wait_ms)).await;
                handle.look_up(job).await?;
                asked = handle.ask_submit(job.clone()).await?;
            }
        })
    }

    async fn ask_submit(&self, job: NewJob) -> Result<oneshot::Receiver<Reply>, Problem> {
        self.call(Box::new(move |ticket| Event::Submit { ticket, job })).await
    }

    /// What the rows know of a submission: its key, and the jobs it comes after.
    async fn look_up(&self, job: &mut NewJob) -> Result<(), Problem> {
        let (tenant, key) = (job.tenant.as_str(), job.key.as_str());
        job.known = if key.is_empty() { None } else { self.known_submission(tenant, key).await? };
        (job.dependencies, job.followed) = (Vec::with_capacity(job.spec.after.len()), Vec::new());
        for dependency in &job.spec.after {
            let number = dependency.job_number;
            let state = self.job_state(tenant, number).await?.map(|state| state.state());
            let ended = state.filter(|state| load::ended(*state));
            job.dependencies.push((number, ended));
            let told = job.followed.iter().any(|rows| rows.job.number == number);
            if ended.is_some() && after::by_task(dependency) && !told {
                job.followed.extend(load::tasks_of(&*self.store, tenant, number).await.map_err(unreadable)?);
            }
        }
        Ok(())
    }

    /// Cancels a job. Acknowledged, it never runs again.
    pub async fn cancel(&self, tenant: &str, number: u64, reason: &str) -> Result<State, Problem> {
        let state = self.job_state(tenant, number).await?.ok_or_else(|| no_job(tenant, number))?;
        let ended = Some(state.state()).filter(|state| load::ended(*state));
        let (tenant, reason) = (tenant.to_owned(), reason.to_owned());
        let make = move |ticket| Event::Cancel { ticket, tenant, number, reason, ended };
        match self.ask(Box::new(make)).await? {
            Reply::Cancelled(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Tries the failed and cancelled tasks of an ended job again, or a step
    /// and all after it. Returns how many tasks wait again.
    pub async fn retry(&self, tenant: &str, number: u64, from_step: &str) -> Result<u64, Problem> {
        let state = self.job_state(tenant, number).await?.ok_or_else(|| no_job(tenant, number))?;
        let loaded = if load::ended(state.state()) {
            Some(Box::new(self.load_job(tenant, number, state).await?))
        } else {
            None
        };
        let (tenant, from_step) = (tenant.to_owned(), from_step.to_owned());
        let make = move |ticket| Event::Retry { ticket, tenant, number, from_step, loaded };
        match self.ask(Box::new(make)).await? {
            Reply::Retried(tasks) => Ok(tasks),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes or renews a node.
    pub async fn register(&self, request: RegisterRequest) -> Result<RegisterReply, Problem> {
        match self.ask(Box::new(move |ticket| Event::Register { ticket, request })).await? {
            Reply::Registered(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// Opens an agent's session: where its further frames go, and what it is to
    /// be told. Dropping the sender ends it; so does the end of the receiver.
    pub async fn session(
        &self,
        hello: Hello,
    ) -> Result<(mpsc::Sender<AgentFrame>, mpsc::Receiver<ServerFrame>), Problem> {
        let (frames_out, frames) = sessions::queues();
        let (inbound, heard) = mpsc::channel(limits::EVENTS_PER_TURN);
        let stream = StreamId(self.view.streams.fetch_add(1, Ordering::Relaxed));
        let named = (hello.node.clone(), hello.session, stream);
        self.enqueue(Input::Session(hello, stream, frames_out)).await?;
        world::task::spawn(sessions::listen(named, heard, self.inputs.clone(), Arc::clone(&self.objects)));
        Ok((inbound, frames))
    }

    /// Keeps new work from a node, or lets it come again.
    pub async fn drain(&self, node: &str, drained: bool, reason: &str) -> Result<(), Problem> {
        let (node, reason) = (node.to_owned(), reason.to_owned());
        match self.ask(Box::new(move |ticket| Event::DrainNode { ticket, node, drained, reason })).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Keeps nodes free for a while, or gives them back: at most
    /// [`proto::limits::RESERVED_AT_ONCE`] of them.
    pub async fn reserve(
        &self,
        nodes: Vec<String>,
        reservation: Reservation,
        remove: bool,
    ) -> Result<(), Problem> {
        match self.ask(Box::new(move |ticket| Event::Reserve { ticket, nodes, reservation, remove })).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes what is to become of a node whose pool grows and shrinks.
    pub async fn scale(&self, node: &str, wanted: Scaling) -> Result<(), Problem> {
        let node = node.to_owned();
        match self.ask(Box::new(move |ticket| Event::Scale { ticket, node, wanted })).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Books what clients moved; cuts it into commits. The answer lists what is
    /// surely not booked, to be told again. What may or may not be is booked, or
    /// lost, with whatever was lost with the controller.
    pub async fn moved(&self, moved: Vec<Moved>) -> Vec<Moved> {
        let mut left = Vec::new();
        for part in cut(moved) {
            let told = part.clone();
            match self.ask(Box::new(move |ticket| Event::Moved { ticket, moved: told })).await {
                Ok(_) => {}
                Err(problem) if problem.code == INDETERMINATE => {
                    tracing::warn!(%problem, tenants = part.len(), "traffic may not have been booked");
                }
                Err(_) => left.extend(part),
            }
        }
        left
    }

    /// Uploads, of these sizes in their rows, go and count no longer; cuts it into commits.
    pub async fn forget_uploads(&self, tenant: &str, uploads: Vec<Upload>) -> Result<(), Problem> {
        for part in uploads.chunks(crate::limits::UPLOADS_PER_BOOKING) {
            let (tenant, uploads) = (tenant.to_owned(), part.to_vec());
            match self.ask(Box::new(move |ticket| Event::Forget { ticket, tenant, uploads })).await? {
                Reply::Done => {}
                other => return Err(unexpected(&other)),
            }
        }
        Ok(())
    }

    /// Waits until all that was said to the controller before this is durable, or came to
    /// nothing.
    pub async fn settled(&self) -> Result<(), Problem> {
        match self.ask(Box::new(|ticket| Event::Settle { ticket })).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// True for the newest session of a node.
    #[must_use]
    pub fn session_is_current(&self, node: &str, session: u64) -> bool {
        self.view.get(node).session == session
    }

    /// When the node was last heard, milliseconds since 1970; 0: never.
    #[must_use]
    pub fn last_heard_ms(&self, node: &str) -> u64 {
        self.view.get(node).heard_wall_ms
    }

    /// Reports that changed nothing, since they named an attempt that was not the
    /// current one; counted since this controller was started, over all its reigns.
    #[must_use]
    pub fn stale_reports(&self) -> u64 {
        self.view.stale_reports.load(Ordering::Relaxed)
    }

    /// Grants that were given back without a task ever bound to them: of several schedulers
    /// more than one had answered a demand. Counted likewise.
    #[must_use]
    pub fn surplus_grants(&self) -> u64 {
        self.view.surplus_grants.load(Ordering::Relaxed)
    }

    /// True while this attempt with this epoch is the one that may commit.
    pub async fn owns(&self, attempt: &AttemptRef) -> bool {
        let (reply, answer) = oneshot::channel();
        if self.enqueue(Input::Owns(attempt.clone(), reply)).await.is_err() {
            return false;
        }
        let deadline = time::ms(limits::CALL_DEADLINE_MS);
        matches!(time::timeout(deadline, answer).await, Ok(Ok(true)))
    }

    /// How far the live attempts of these tasks have come, and how their inputs come, where
    /// that was told. Nothing where the controller is too busy to say: it is no more than
    /// news.
    pub async fn progress(&self, of: ProgressOf) -> Told {
        self.news(|reply| Input::Progress(of, reply)).await
    }

    /// Those of these tasks that run far longer than their like: by step, the slowest first.
    pub async fn stragglers(&self, of: StragglersOf) -> Vec<Straggler> {
        self.news(|reply| Input::Stragglers(of, reply)).await
    }

    /// How far the steps of these jobs (tenant, number) have come, job by job; none of one
    /// that does not live. Nothing at all where the controller is too busy to say.
    pub async fn steps_said(&self, jobs: Vec<(String, u64)>) -> Vec<Vec<StepSaid>> {
        self.news(|reply| Input::StepsSaid(jobs, reply)).await
    }

    /// Whose retry budget is empty: tenants; empty: that of all. `None` where the controller
    /// is too busy to say.
    pub async fn storms(&self) -> Option<Vec<String>> {
        self.news(Input::Storms).await
    }

    /// What is worth no long wait.
    pub(super) async fn news<T: Default>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Input) -> T {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.inputs.send(make(reply)).await.ok()?;
            answer.await.ok()
        };
        let deadline = time::ms(limits::PROGRESS_DEADLINE_MS);
        time::timeout(deadline, asked).await.ok().flatten().unwrap_or_default()
    }

    /// Has all demand told anew to the schedulers, for one that only begins to
    /// listen.
    pub async fn tell_all_demand(&self) {
        // A controller that is gone wants nothing; the next one tells all first.
        let _ = self.enqueue(Input::TellAllDemand).await;
    }

    /// The number of the reign: that of a later one is higher, whoever reigns. 0: there is none.
    #[must_use]
    pub fn reign(&self) -> Revision {
        self.view.reign().map_or(0, |reigning| reigning.revision)
    }

    /// Whether the shards are still this server's, asked of a store that it shares.
    /// Then they were since this was called, and what was done before that was done in
    /// this reign.
    pub async fn must_reign(&self) -> Result<(), Problem> {
        let row = self.store.get(proto::keys::shard(0)).await.map_err(unreadable)?;
        let row: Option<ShardRow> = row.map(|row| load::decode(&row)).transpose().map_err(unreadable)?;
        match (row, self.view.reign()) {
            (Some(row), Some(reigning)) if row.owner == reigning.owner => Ok(()),
            _ => {
                world::mark!("controller.reign.found_over");
                Err(problem::standby())
            }
        }
    }

    /// Ends the controller of a store that is shared: what is under way is done, and the
    /// shards are given back, so that another server need not wait for their lease.
    pub async fn resign(&self) {
        // One that has ended has nothing to give back.
        let _ = self.enqueue(Input::Resign).await;
        self.ended().await;
    }

    /// Returns once the controller has ended.
    pub async fn ended(&self) {
        self.inputs.closed().await;
    }

    pub(super) async fn ask(&self, make: MakeEvent) -> Result<Reply, Problem> {
        answer(self.call(make).await?).await
    }

    async fn call(&self, make: MakeEvent) -> Result<oneshot::Receiver<Reply>, Problem> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Input::Call(make, reply)).await?;
        Ok(answer)
    }

    async fn enqueue(&self, input: Input) -> Result<(), Problem> {
        let deadline = time::ms(limits::CALL_DEADLINE_MS);
        match time::timeout(deadline, self.inputs.send(input)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(problem::unavailable("controller", "the controller has ended")),
            Err(_) => Err(problem::unavailable("controller", "the controller's queue stayed full")),
        }
    }

    async fn known_submission(&self, tenant: &str, key: &str) -> Result<Option<(u64, String)>, Problem> {
        let row = self.store.get(proto::keys::idem(tenant, key)).await.map_err(unreadable)?;
        row.map(|row| load::decode::<IdempotencyRow>(&row))
            .transpose()
            .map(|row| row.map(|row| (row.job_number, row.spec_digest)))
            .map_err(unreadable)
    }

    pub(super) async fn job_state(&self, tenant: &str, number: u64) -> Result<Option<JobStateRow>, Problem> {
        let row = self.store.get(proto::keys::state(tenant, number)).await.map_err(unreadable)?;
        row.map(|row| load::decode(&row)).transpose().map_err(unreadable)
    }

    async fn load_job(&self, tenant: &str, number: u64, state: JobStateRow) -> Result<LoadedJob, Problem> {
        let store = &*self.store;
        let row = store.get(proto::keys::job(tenant, number)).await.map_err(unreadable)?;
        let job: JobRow = row
            .map(|row| load::decode(&row))
            .transpose()
            .map_err(unreadable)?
            .ok_or_else(|| no_job(tenant, number))?;
        let blocks = load::blocks(store, tenant, number).await.map_err(unreadable)?;
        let manifests = load::manifests(store, tenant, number).await.map_err(unreadable)?;
        let checkpoints = load::checkpoints(store, tenant, number).await.map_err(unreadable)?;
        Ok(LoadedJob { job, state, blocks, manifests, checkpoints })
    }
}

async fn answer(reply: oneshot::Receiver<Reply>) -> Result<Reply, Problem> {
    match time::timeout(time::ms(limits::CALL_DEADLINE_MS), reply).await {
        Ok(Ok(Reply::Refused(problem))) => Err(problem),
        Ok(Ok(reply)) => Ok(reply),
        // The controller abdicated with this call open.
        Ok(Err(_)) => Err(indeterminate("the controller lost its store before it could answer")),
        Err(_) => Err(indeterminate("no answer within the deadline")),
    }
}

fn digest(spec: &JobSpec) -> String {
    use prost::Message;
    proto::keys::hex_of(&Sha256::digest(spec.encode_to_vec()))
}

/// It may have happened: asking again with the same idempotency key is safe.
fn indeterminate(reason: &str) -> Problem {
    let problem = problem::unavailable("indeterminate", reason);
    debug_assert_eq!(problem.code, INDETERMINATE);
    problem
}

fn no_job(tenant: &str, number: u64) -> Problem {
    problem::missing("job", proto::ids::JobId::new(tenant, number))
}

pub(super) fn unreadable(error: impl fmt::Display) -> Problem {
    problem::unavailable("store", error.to_string())
}

pub(super) fn unexpected(reply: &Reply) -> Problem {
    problem::internal(format!("the core answered with {reply:?}"))
}

/// What clients moved in parts that fit a commit each; a tenant of many uploads is in several.
fn cut(moved: Vec<Moved>) -> Vec<Vec<Moved>> {
    let most = crate::limits::UPLOADS_PER_BOOKING;
    let (mut parts, mut part, mut uploads) = (Vec::new(), Vec::new(), 0);
    for mut one in moved {
        loop {
            if part.len() == crate::limits::MOVED_TENANTS_MAX || (uploads == most && !one.stored.is_empty()) {
                parts.push(std::mem::take(&mut part));
                uploads = 0;
            }
            let rest = one.stored.split_off(one.stored.len().min(most - uploads));
            uploads += one.stored.len();
            let next = Moved { tenant: one.tenant.clone(), stored: rest, ..Moved::default() };
            part.push(one);
            if next.stored.is_empty() {
                break;
            }
            one = next;
        }
    }
    parts.extend((!part.is_empty()).then_some(part));
    parts
}
