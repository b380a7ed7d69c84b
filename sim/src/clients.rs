//! The clients of a run: each deed is done as a careful user's script does it,
//! with an idempotency key and another try when no answer came.

use crate::cluster::DAWN_MS;
use crate::history::{Ack, History};
use crate::readers;
use crate::rows::JobName;
use crate::trace::Trace;
use crate::uploads::Uploads;
use crate::workload::{self, Change, Deed, Follows, Retry};
use prost::Message;
use proto::estimate;
use proto::v1::drumline_client::DrumlineClient;
use proto::v1::{
    CancelRequest, Dependency, DrainNodeRequest, Drainer, JobRequest, ListTenantsRequest, NodeRow,
    NodesRequest, Problem, PutTenantRequest, Reservation, ReserveRequest, RetryRequest, State, Step,
    SubmitReply, SubmitRequest, TenantRow,
};
use std::future::Future;
use std::sync::{Arc, Mutex};
use world::grpc::tonic::{Request, Status};
use world::grpc::{Channel, Servers};
use world::sim::universe;
use world::time;

/// One call's deadline.
const CALL_MS: u64 = 5_000;
/// Of connecting to one of several servers.
const SEVERAL_MS: u64 = 1_000;
/// Between two tries.
const AGAIN_MS: u64 = 700;
/// Tries of one call: long enough for every fault to heal.
const TRIES: u32 = 400;

/// What every client needs.
#[derive(Clone)]
pub struct Door {
    /// All servers, with commas between.
    pub address: Arc<str>,
    /// The same; the one that served last is asked first.
    pub servers: Arc<Mutex<Servers>>,
    pub token: Arc<Mutex<String>>,
    pub history: Arc<Mutex<History>>,
    pub trace: Trace,
    pub uploads: Arc<Uploads>,
}

/// How a call ended for good.
pub enum Refusal {
    Problem(Problem),
    GaveUp,
}

/// Makes the tenants: `lab` has limits that its work runs into.
pub async fn make_tenants(door: Door) {
    let outcome = door
        .call(|mut client, door| {
            let request = PutTenantRequest { tenant: Some(workload::lab()), was: None };
            async move { client.put_tenant(door.request(request)).await.map(|_| ()) }
        })
        .await;
    if let Err(Refusal::Problem(problem)) = outcome {
        door.trace.tell(&format!("the tenant was refused: {problem}"));
    }
}

/// Changes limits one after another, each until it is done.
pub async fn change_limits(door: Door, changes: Vec<Change>) {
    for change in changes {
        time::sleep(time::ms(change.at_ms.saturating_sub(now_ms()))).await;
        for _ in 0..TRIES {
            match set_limits(&door, &change.row).await {
                Ok(()) => {
                    door.trace.line(&format!("limits {:?}", change.row));
                    door.history.lock().expect("no holder panics").limits_changed += 1;
                    break;
                }
                // An earlier try of ours came through after all, or did just now.
                Err(Refusal::Problem(problem)) if problem.code == "conflict.tenant" => {}
                Err(Refusal::Problem(problem)) => {
                    door.trace.tell(&format!("new limits were refused: {problem}"));
                    break;
                }
                Err(Refusal::GaveUp) => break,
            }
        }
    }
}

/// As an operator's command does it: what is changed is what was seen, so that a
/// try that is late undoes nothing.
async fn set_limits(door: &Door, row: &TenantRow) -> Result<(), Refusal> {
    let set = |mut client: DrumlineClient<Channel>, door: Door| {
        let row = row.clone();
        async move {
            let listed = client.list_tenants(door.request(ListTenantsRequest {})).await?.into_inner();
            let mut tenants = listed.tenants.into_iter().filter_map(|view| view.tenant);
            let was = tenants.find(|known| known.name == row.name);
            let created_ms = was.as_ref().map_or(0, |was| was.created_ms);
            let row = TenantRow { created_ms, ..row };
            if was.as_ref() == Some(&row) {
                return Ok(());
            }
            let request = PutTenantRequest { tenant: Some(row), was };
            client.put_tenant(door.request(request)).await.map(|_| ())
        }
    };
    door.call(set).await
}

/// Does one deed to its end.
pub async fn act(door: Door, mut deed: Deed) {
    let follows = std::mem::take(&mut deed.follows);
    deed.spec.after.extend(follows.into_iter().filter_map(|follows| known(&door, &deed.tenant, follows)));
    let spoken = format!("{} {}", deed.tenant, deed.key);
    let given = std::mem::take(&mut deed.inputs);
    let Some(inputs) = door.uploads.supply(&door, &deed.tenant, &given).await else { return };
    deed.spec.inputs = inputs;
    let Some(job) = submit(&door, &deed).await else { return };
    if deed.again && submit(&door, &deed).await.as_ref() != Some(&job) {
        door.trace.tell(&format!("{spoken}: said twice, and another answer"));
    }
    // All of a gang or nothing, also in the midst of its end.
    let gang = |step: &Step| estimate::is_gang(step) && !step.outputs.is_empty();
    let looks = deed.spec.steps.iter().any(gang);
    let looking = looks.then(|| world::task::spawn(readers::look(door.clone(), job.clone())));
    if let Some(after_ms) = deed.cancel_after_ms {
        time::sleep(time::ms(after_ms)).await;
        cancel(&door, &job).await;
    }
    if let Some(retry) = deed.retry {
        retry_by(&door, &job, &retry).await;
    }
    if let Some(looking) = looking {
        looking.await.expect("the clients' node is never killed");
    }
}

async fn retry_by(door: &Door, job: &JobName, retry: &Retry) {
    let clients: Vec<_> = (0..retry.clients)
        .map(|_| world::task::spawn(retry_once_ended(door.clone(), job.clone(), retry.from_step.clone())))
        .collect();
    for client in clients {
        client.await.expect("the clients' node is never killed");
    }
}

/// What is waited for, once the job is acknowledged that it is of.
fn known(door: &Door, tenant: &str, follows: Follows) -> Option<Dependency> {
    let history = door.history.lock().expect("no holder panics");
    history.acks.iter().find_map(|ack| match ack {
        Ack::Submitted { job, key, .. } if job.tenant == tenant && *key == follows.key => {
            Some(Dependency { job_number: job.number, ..follows.on.clone() })
        }
        _ => None,
    })
}

/// Between two looks of an operator.
const TEND_EVERY_MS: u64 = 10_000;

/// What a person does once a machine is well again: a node that drained itself,
/// as one does where no launch succeeds, takes work again only when it is told.
pub async fn tend_nodes(door: Door) {
    loop {
        let looked = door
            .call(|mut client, door| async move {
                let nodes = client.nodes(door.request(NodesRequest::default())).await?.into_inner().nodes;
                // What is not needed is no person's affair.
                let by_hand = |row: &NodeRow| row.drained && row.drainer() == Drainer::Unspecified;
                for row in nodes.into_iter().filter_map(|view| view.row).filter(by_hand) {
                    let request = DrainNodeRequest { node: row.name, drained: false, reason: String::new() };
                    client.drain_node(door.request(request)).await?;
                }
                Ok(())
            })
            .await;
        if let Err(Refusal::Problem(problem)) = looked {
            door.trace.tell(&format!("the operator was refused: {problem}"));
        }
        time::sleep(time::ms(TEND_EVERY_MS)).await;
    }
}

/// One try.
pub fn submit_once(
    mut client: DrumlineClient<Channel>,
    door: Door,
    deed: &Deed,
) -> impl Future<Output = Result<SubmitReply, Status>> + Send + use<> {
    let request = SubmitRequest {
        tenant: deed.tenant.clone(),
        spec: Some(deed.spec.clone()),
        idempotency_key: deed.key.clone(),
        dry_run: false,
    };
    async move { Ok(client.submit(door.request(request)).await?.into_inner()) }
}

pub async fn submit(door: &Door, deed: &Deed) -> Option<JobName> {
    let outcome = door.call(|client, door| submit_once(client, door, deed)).await;
    submitted(door, deed, outcome)
}

/// Asks once, and gives up where it is told that nothing was taken: then nothing may
/// have been. Where there is no such word it goes on as others do.
pub async fn submit_or_believe(door: &Door, deed: &Deed) -> Option<JobName> {
    let deadline = time::ms(CALL_MS);
    let tried = time::timeout(deadline, async {
        let channel = door.connect(deadline).await?;
        submit_once(DrumlineClient::new(channel), door.clone(), deed).await.err()
    })
    .await;
    let told = tried.ok().flatten().and_then(|status| Problem::decode(status.details()).ok());
    if told.is_some_and(|problem| problem.code == "limit.disk") {
        door.trace.line(&format!("gave up {}", deed.key));
        let given_up = (deed.tenant.clone(), deed.key.clone());
        door.history.lock().expect("no holder panics").given_up.push(given_up);
        return None;
    }
    submit(door, deed).await
}

fn submitted(door: &Door, deed: &Deed, outcome: Result<SubmitReply, Refusal>) -> Option<JobName> {
    match outcome {
        Ok(reply) => {
            let job = JobName { tenant: reply.tenant, number: reply.number };
            door.trace.line(&format!("ack submit {job} {}", deed.key));
            let ack = Ack::Submitted { job: job.clone(), key: deed.key.clone(), at_ms: now_ms() };
            door.history.lock().expect("no holder panics").acks.push(ack);
            Some(job)
        }
        Err(Refusal::Problem(problem)) => {
            door.trace.line(&format!("refused {} {}", deed.key, problem.code));
            let mut history = door.history.lock().expect("no holder panics");
            *history.refused.entry(problem.code).or_default() += 1;
            None
        }
        Err(Refusal::GaveUp) => None,
    }
}

pub async fn cancel(door: &Door, job: &JobName) {
    let outcome = door
        .call(|mut client, door| {
            let request = CancelRequest { job: Some(name(job)), reason: "changed my mind".into() };
            async move { Ok(client.cancel(door.request(request)).await?.into_inner().state()) }
        })
        .await;
    match outcome {
        Ok(state) => {
            door.trace.line(&format!("ack cancel {job} {state:?}"));
            let ack = Ack::Cancelled { job: job.clone(), at_ms: now_ms() };
            door.history.lock().expect("no holder panics").acks.push(ack);
        }
        Err(Refusal::Problem(problem)) => door.must_know(job, &problem),
        Err(Refusal::GaveUp) => {}
    }
}

/// Looks at the job now and then until it ends. Then tries it again once: what
/// failed or was cancelled, or from a step on, however it ended.
async fn retry_once_ended(door: Door, job: JobName, from_step: String) {
    for _ in 0..60 {
        time::sleep(time::ms(3_000)).await;
        let seen = door
            .call(|mut client, door| {
                let request = door.request(name(&job));
                async move { Ok(client.get_job(request).await?.into_inner().state.unwrap_or_default().state()) }
            })
            .await;
        match seen {
            Ok(State::Completed) if from_step.is_empty() => return,
            Ok(State::Completed | State::Failed | State::Cancelled) => {
                readers::look_once(&door, &job).await;
                if retry(&door, &job, &from_step).await {
                    readers::look(door, job).await;
                }
                return;
            }
            Err(Refusal::GaveUp) => return,
            Ok(_) | Err(Refusal::Problem(_)) => {}
        }
    }
}

/// Tries an ended job again; false where that was refused.
pub async fn retry(door: &Door, job: &JobName, from_step: &str) -> bool {
    let retried = door
        .call(|mut client, door| {
            // One whose answer is lost may have been taken.
            *door.history.lock().expect("no holder panics").retried.entry(job.clone()).or_default() += 1;
            let request = RetryRequest { job: Some(name(job)), from_step: from_step.to_owned() };
            async move { Ok(client.retry(door.request(request)).await?.into_inner().tasks) }
        })
        .await;
    match &retried {
        Ok(tasks) => door.trace.line(&format!("ack retry {job} {tasks}")),
        Err(Refusal::Problem(problem)) => {
            door.trace.line(&format!("refused retry {job} {}", problem.code));
            door.must_know(job, problem);
        }
        Err(Refusal::GaveUp) => {}
    }
    retried.is_ok()
}

/// Keeps a node from so long to so long after now for some tenants, or no longer.
pub async fn reserve(door: &Door, node: &str, span_ms: Option<(u64, u64)>, tenants: Vec<String>) {
    let now_ms = DAWN_MS + now_ms();
    let (from_ms, until_ms) = span_ms.map_or((0, 0), |(from, until)| (now_ms + from, now_ms + until));
    let name = format!("fans-of-{node}");
    let reservation = Reservation { name, from_ms, until_ms, tenants, reason: String::new() };
    let request = ReserveRequest {
        reservation: Some(reservation),
        nodes: vec![node.to_owned()],
        remove: span_ms.is_none(),
        ..ReserveRequest::default()
    };
    let told = door
        .call(|mut client, door| {
            let request = request.clone();
            async move { client.reserve(door.request(request)).await.map(|_| ()) }
        })
        .await;
    match told {
        Ok(()) => door.trace.line(&format!("ack reserve {node} {span_ms:?}")),
        // It is not known, or by the server's clock that is over.
        Err(Refusal::Problem(problem)) => {
            door.trace.line(&format!("refused reserve {node} {}", problem.code));
        }
        Err(Refusal::GaveUp) => {}
    }
}

/// Keeps new work from a node, or lets it come again.
pub async fn drain(door: &Door, node: &str, drained: bool) {
    let told = door
        .call(|mut client, door| {
            let reason = if drained { "its fan is loud" } else { "" }.to_owned();
            let request = DrainNodeRequest { node: node.to_owned(), drained, reason };
            async move { client.drain_node(door.request(request)).await.map(|_| ()) }
        })
        .await;
    match told {
        Ok(()) => door.trace.line(&format!("ack drain {node} {drained}")),
        // A node that never came up is not known.
        Err(Refusal::Problem(problem)) => door.trace.line(&format!("refused drain {node} {}", problem.code)),
        Err(Refusal::GaveUp) => {}
    }
}

fn now_ms() -> u64 {
    u64::try_from(universe::elapsed().as_millis()).expect("a run is shorter")
}

fn name(job: &JobName) -> JobRequest {
    JobRequest { tenant: job.tenant.clone(), number: job.number }
}

/// It may be asked again in a while, and the answer says so.
fn is_passing(problem: &Problem) -> bool {
    problem.code.starts_with("unavailable.") || problem.code == "limit.disk"
}

impl Door {
    /// What was seen may not be; the first counts.
    pub fn broke(&self, invariant: u8, what: String) {
        self.history.lock().expect("no holder panics").broken.get_or_insert((invariant, what));
    }

    /// For a client on a machine of its own, which learns by itself who serves: its list
    /// begins anywhere.
    #[must_use]
    pub fn own(&self) -> Self {
        let mut servers = Servers::parse(&self.address);
        if servers.len() > 1 {
            let first = world::rand::u64() % servers.len() as u64;
            (0..first).for_each(|_| _ = servers.turn());
        }
        Self { servers: Arc::new(Mutex::new(servers)), ..self.clone() }
    }

    /// For one that asks this server first.
    #[must_use]
    pub fn of(&self, host: &str) -> Self {
        let mut servers = Servers::parse(&self.address);
        let is_it = |address: &str| address.rsplit_once(':').is_some_and(|(of, _)| of == host);
        while !is_it(servers.current()) && !servers.turn() {}
        Self { servers: Arc::new(Mutex::new(servers)), ..self.clone() }
    }

    /// A job that was acknowledged is found, whoever is asked.
    fn must_know(&self, job: &JobName, problem: &Problem) {
        if problem.code == "missing.job" {
            self.broke(1, format!("job {job} was acknowledged, and then not found: {problem}"));
        }
    }

    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let token = self.token.lock().expect("no holder panics").clone();
        let bearer = format!("Bearer {token}").parse().expect("a token is plain text");
        request.metadata_mut().insert("authorization", bearer);
        request
    }

    /// Connects to the server that served last, or to the next where it does not.
    pub async fn connect(&self, deadline: time::Duration) -> Option<Channel> {
        let address = self.asked();
        let several = self.servers.lock().expect("no holder panics").len() > 1;
        let deadline = if several { deadline.min(time::ms(SEVERAL_MS)) } else { deadline };
        match world::grpc::connect(&address, deadline).await {
            Ok(channel) => Some(channel),
            Err(_) => {
                self.turn(&address);
                None
            }
        }
    }

    /// Who is asked now.
    pub fn asked(&self) -> String {
        self.servers.lock().expect("no holder panics").current().to_owned()
    }

    /// Whoever listens there does not serve: on to the next, if that is still the one.
    pub fn turn(&self, address: &str) {
        let mut servers = self.servers.lock().expect("no holder panics");
        if servers.current() == address {
            servers.turn();
        }
    }

    /// Tries until there is an answer.
    pub async fn call<T, F>(
        &self,
        one: impl Fn(DrumlineClient<Channel>, Self) -> F + Send + Sync,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Status>> + Send,
    {
        for _ in 0..TRIES {
            let deadline = time::ms(CALL_MS);
            let asked = self.asked();
            let tried = time::timeout(deadline, async {
                let channel = self.connect(deadline).await?;
                Some(one(DrumlineClient::new(channel), self.clone()).await)
            })
            .await;
            match tried {
                Ok(Some(Ok(answer))) => return Ok(answer),
                Ok(Some(Err(status))) => {
                    // What says why in a Problem is an answer, unless it says
                    // that now is a bad time.
                    let problem =
                        Problem::decode(status.details()).ok().filter(|problem| !problem.code.is_empty());
                    match problem {
                        Some(problem) if !is_passing(&problem) => {
                            return Err(Refusal::Problem(problem));
                        }
                        _ => self.turn(&asked),
                    }
                }
                Ok(None) => {}
                Err(_) => self.turn(&asked),
            }
            time::sleep(time::ms(AGAIN_MS)).await;
        }
        Err(Refusal::GaveUp)
    }
}
