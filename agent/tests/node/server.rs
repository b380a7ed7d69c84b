//! A server of one node: answers what an agent asks, remembers what it said.

use crate::processes::FakeProcesses;
use agent::core::key::Key;
use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt as _};
use proto::problem::Problem;
use proto::v1::agents_server::{Agents, AgentsServer};
use proto::v1::server_frame::Frame;
use proto::v1::{
    AgentFrame, Assign, Ended, LeaseRenewal, LogReceipt, LogShipment, Reconcile, RegisterReply,
    RegisterRequest, ReportsAck, ServerFrame, SignTransfersReply, SignTransfersRequest, Stop, Stream,
    agent_frame, report,
};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio_stream::wrappers::ReceiverStream;
use world::disk::{Disk, OpenMode, read_all};
use world::grpc::Server;
use world::grpc::tonic::{Request, Response, Status, Streaming};
use world::sync::{mpsc, watch};
use world::time::{ms, timeout};
use world::transfer::{Transfer, TransferError};

#[derive(Debug, Default)]
struct State {
    sessions: u64,
    frames: Option<mpsc::Sender<Result<ServerFrame, Status>>>,
    refusal: Option<Problem>,
    silent: bool,
    takes_no_logs: bool,
    held: Vec<String>,
    started: BTreeSet<String>,
    ends: BTreeMap<String, Ended>,
    logs: BTreeMap<(String, i32), Vec<u8>>,
    objects: BTreeMap<String, Vec<u8>>,
    gets: usize,
    signs: usize,
    /// So many downloads more are by URLs that have expired.
    expired: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.state.lock().unwrap());
        self.changes.send_modify(|count| *count += 1);
        value
    }
}

#[derive(Clone, Debug)]
pub struct FakeServer {
    shared: Arc<Shared>,
    address: SocketAddr,
}

pub fn key_of(task: u64) -> String {
    format!("t/1/0/{task}/0/1/9")
}

pub fn digest_of(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl FakeServer {
    pub async fn start() -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), changes: watch::channel(0).0 });
        let listener = world::grpc::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address();
        let service = AgentsServer::new(Door(Arc::clone(&shared)));
        world::task::spawn(Server::new().service(service).serve(listener, std::future::pending()));
        Self { shared, address }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn transfer(&self) -> Arc<dyn Transfer> {
        Arc::new(FakeTransfer(Arc::clone(&self.shared)))
    }

    pub fn refuse(&self, code: &str, reason: &str) {
        let problem = Problem::new(code, "token", "", reason, "");
        self.shared.change(|state| state.refusal = Some(problem));
    }

    pub fn keep_silent_on_reports(&self, silent: bool) {
        self.shared.change(|state| state.silent = silent);
    }

    /// It closes every stream of logs.
    pub fn take_no_logs(&self, takes_none: bool) {
        self.shared.change(|state| state.takes_no_logs = takes_none);
    }

    pub fn hang_up(&self) {
        self.shared.change(|state| state.frames = None);
    }

    pub fn put_object(&self, data: &[u8]) -> String {
        let digest = digest_of(data);
        self.shared.change(|state| state.objects.insert(digest.clone(), data.to_vec()));
        digest
    }

    pub fn object(&self, digest: &str) -> Option<Vec<u8>> {
        self.shared.state.lock().unwrap().objects.get(digest).cloned()
    }

    /// Downloads begun so far.
    pub fn gets(&self) -> usize {
        self.shared.state.lock().unwrap().gets
    }

    /// Needs signed so far.
    pub fn signs(&self) -> usize {
        self.shared.state.lock().unwrap().signs
    }

    pub fn let_urls_expire(&self, count: usize) {
        self.shared.change(|state| state.expired = count);
    }

    /// Waits until the state answers.
    async fn until<T>(&self, mut answer: impl FnMut(&State) -> Option<T>) -> T {
        let mut changes = self.shared.changes.subscribe();
        let waited = timeout(ms(30_000), async {
            loop {
                changes.mark_unchanged();
                if let Some(value) = answer(&self.shared.state.lock().unwrap()) {
                    return value;
                }
                changes.changed().await.unwrap();
            }
        });
        waited.await.expect("it came to pass in time")
    }

    async fn say(&self, frame: Frame) {
        let frames = self.until(|state| state.frames.clone()).await;
        frames.send(Ok(ServerFrame { frame: Some(frame) })).await.unwrap();
    }

    pub async fn say_assign(&self, assign: Assign) {
        self.say(Frame::Assign(assign)).await;
    }

    pub async fn say_stop(&self, stop: Stop) {
        self.say(Frame::Stop(stop)).await;
    }

    pub async fn ends(&self, count: usize) -> BTreeMap<String, Ended> {
        self.until(|state| (state.ends.len() >= count).then(|| state.ends.clone())).await
    }

    pub async fn started(&self, key: &str) {
        self.until(|state| state.started.contains(key).then_some(())).await;
    }

    pub async fn held(&self) -> Vec<String> {
        self.until(|state| (!state.held.is_empty()).then(|| state.held.clone())).await
    }

    pub async fn log(&self, key: &str, bytes: u64) -> Vec<u8> {
        let at = (key.to_owned(), Stream::Stdout as i32);
        self.until(|state| state.logs.get(&at).filter(|log| log.len() as u64 >= bytes).cloned()).await
    }

    /// Waits until so many processes were forgotten: their ends are confirmed.
    pub async fn forgotten(&self, processes: &FakeProcesses, count: usize) {
        let waited = timeout(ms(30_000), async {
            while processes.forgotten() < count {
                tokio::task::yield_now().await;
            }
        });
        waited.await.expect("all were forgotten in time");
    }
}

/// Stands in logs for what was given up.
pub const GIVEN_UP: u8 = b'-';

struct Door(Arc<Shared>);

impl Door {
    async fn listen(
        shared: Arc<Shared>,
        mut frames: Streaming<AgentFrame>,
        out: mpsc::WeakSender<Result<ServerFrame, Status>>,
    ) {
        while let Ok(Some(frame)) = frames.message().await {
            let answer = match frame.frame.unwrap() {
                agent_frame::Frame::Hello(_) | agent_frame::Frame::Progress(_) => None,
                agent_frame::Frame::Heartbeat(beat) => {
                    Some(Frame::Lease(LeaseRenewal { sequence: beat.sequence, ttl_ms: 30_000 }))
                }
                agent_frame::Frame::Reports(reports) => shared.change(|state| {
                    for report in reports.reports {
                        let key = Key::of(&report.attempt.unwrap(), report.rank).process_key();
                        match report.what.unwrap() {
                            report::What::Ended(ended) => _ = state.ends.insert(key, ended),
                            _ => _ = state.started.insert(key),
                        }
                    }
                    let sequence = reports.sequence;
                    (!state.silent).then_some(Frame::ReportsAck(ReportsAck { sequence }))
                }),
            };
            let Some(out) = out.upgrade() else { return };
            if let Some(frame) = answer
                && out.send(Ok(ServerFrame { frame: Some(frame) })).await.is_err()
            {
                return;
            }
        }
    }
}

#[async_trait]
impl Agents for Door {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterReply>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer dl_token");
        self.0.change(|state| match &state.refusal {
            Some(problem) => Err(problem.clone().into()),
            None => {
                state.sessions += 1;
                let session = state.sessions;
                Ok(Response::new(RegisterReply {
                    session,
                    heartbeat_ms: 100,
                    lease_ttl_ms: 30_000,
                    server_ms: 0,
                }))
            }
        })
    }

    type SessionStream = BoxStream<'static, Result<ServerFrame, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut frames = request.into_inner();
        let Some(AgentFrame { frame: Some(agent_frame::Frame::Hello(hello)) }) = frames.message().await?
        else {
            return Err(Status::invalid_argument("the first frame is a Hello"));
        };
        let (out, queue) = mpsc::channel(64);
        let keep = hello.held.iter().filter_map(|held| held.attempt.clone()).collect();
        out.send(Ok(ServerFrame { frame: Some(Frame::Reconcile(Reconcile { keep })) })).await.unwrap();
        let weak = out.downgrade();
        self.0.change(|state| {
            state.held = hello
                .held
                .iter()
                .map(|held| Key::of(held.attempt.as_ref().unwrap(), held.rank).process_key())
                .collect();
            state.frames = Some(out);
        });
        world::task::spawn(Self::listen(Arc::clone(&self.0), frames, weak));
        Ok(Response::new(ReceiverStream::new(queue).boxed()))
    }

    type ShipLogsStream = BoxStream<'static, Result<LogReceipt, Status>>;

    async fn ship_logs(
        &self,
        request: Request<Streaming<LogShipment>>,
    ) -> Result<Response<Self::ShipLogsStream>, Status> {
        let shared = Arc::clone(&self.0);
        if shared.change(|state| state.takes_no_logs) {
            return Err(Status::unavailable("no logs now"));
        }
        let receipts = request.into_inner().map(move |shipment| {
            let shipment = shipment?;
            let key = Key::of(shipment.attempt.as_ref().unwrap(), shipment.rank).process_key();
            shared.change(|state| {
                let log = state.logs.entry((key, shipment.stream)).or_default();
                let told_from = shipment.offset - shipment.dropped_bytes;
                if shipment.offset > log.len() as u64 && told_from <= log.len() as u64 {
                    log.resize(shipment.offset as usize, GIVEN_UP);
                }
                if shipment.offset <= log.len() as u64 {
                    log.truncate(shipment.offset as usize);
                    log.extend_from_slice(&shipment.data);
                }
                let offset = log.len() as u64;
                let LogShipment { attempt, rank, stream, end, .. } = shipment;
                Ok(LogReceipt { attempt, rank, stream, offset, done: end })
            })
        });
        Ok(Response::new(receipts.boxed()))
    }

    async fn sign_transfers(
        &self,
        request: Request<SignTransfersRequest>,
    ) -> Result<Response<SignTransfersReply>, Status> {
        let mut state = self.0.state.lock().unwrap();
        state.signs += request.get_ref().needs.len();
        let urls = request.into_inner().needs.into_iter().map(|need| {
            match (need.put, state.objects.contains_key(&need.digest)) {
                (true, true) => Ok(String::new()),
                (false, false) => Err(proto::problem::missing("object", &need.digest).into()),
                _ => Ok(need.digest),
            }
        });
        let urls: Result<Vec<String>, Status> = urls.collect();
        Ok(Response::new(SignTransfersReply { urls: urls? }))
    }
}

/// URLs are digests.
#[derive(Debug)]
struct FakeTransfer(Arc<Shared>);

#[async_trait]
impl Transfer for FakeTransfer {
    async fn put(&self, url: &str, disk: Arc<dyn Disk>, path: &str) -> Result<(), TransferError> {
        let data = read_all(&*disk, path, 1 << 20).map_err(|error| TransferError::Disk(error.to_string()))?;
        self.0.change(|state| state.objects.insert(url.to_owned(), data));
        Ok(())
    }

    async fn get(
        &self,
        url: &str,
        disk: Arc<dyn Disk>,
        path: &str,
        digest: &str,
    ) -> Result<u64, TransferError> {
        assert_eq!(url, digest);
        let data = self.0.change(|state| {
            state.gets += 1;
            if state.expired > 0 {
                state.expired -= 1;
                let reason = "the URL has expired; ask for a new one".to_owned();
                return Err(TransferError::Refused { status: 403, reason });
            }
            Ok(state.objects.get(url).cloned().unwrap())
        })?;
        let file =
            disk.open(path, OpenMode::CreateNew).map_err(|error| TransferError::Disk(error.to_string()))?;
        file.write_at(0, &data).map_err(|error| TransferError::Disk(error.to_string()))?;
        Ok(data.len() as u64)
    }
}
