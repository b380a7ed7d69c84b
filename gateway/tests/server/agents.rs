//! The agents' door, by an agent made of nothing but calls: it runs a task from
//! assignment to outputs and logs.

use crate::http::Http;
use crate::support::{Client, TestDir, code, job, serve};
use futures_util::stream;
use proto::v1::agents_client::AgentsClient;
use proto::v1::{
    AgentFrame, Artifact, Assign, AttemptRef, Cause, CauseKind, Ended, Heartbeat, Hello, JobRequest,
    LogShipment, LogsRequest, NodesRequest, RegisterRequest, Report, Reports, Resources, Role, ServerFrame,
    SignTransfersRequest, Started, State, Stream, SubmitRequest, TransferNeed, WhyRequest, agent_frame,
    report, server_frame,
};
use sha2::{Digest, Sha256};
use world::disk::{OpenMode, read_all};
use world::grpc::Channel;
use world::grpc::tonic::Streaming;
use world::real::{HttpTransfer, TransferLimits};
use world::sync::mpsc;
use world::{Transfer, time};

pub struct Agent {
    pub client: Client,
    pub grpc: AgentsClient<Channel>,
    session: u64,
    say: mpsc::Sender<AgentFrame>,
    hear: Streaming<ServerFrame>,
}

const NODE: &str = "n1";

fn introduction() -> RegisterRequest {
    RegisterRequest {
        node: NODE.into(),
        pool: "default".into(),
        capacity: Some(Resources { millicores: 4_000, memory_bytes: 8 << 30, gpus: 0 }),
        address: "127.0.0.1".into(),
        ..RegisterRequest::default()
    }
}

impl Agent {
    pub async fn join(admin: &Client) -> Self {
        let client = admin.with(&admin.token(Role::Agent, "").await);
        let mut grpc = AgentsClient::new(client.channel.clone());
        let session = grpc.register(client.request(introduction())).await.unwrap().into_inner().session;
        let (say, said) = mpsc::channel(16);
        let hello = Hello { node: NODE.into(), session, held: Vec::new() };
        say.send(AgentFrame { frame: Some(agent_frame::Frame::Hello(hello)) }).await.unwrap();
        let said =
            stream::unfold(said, |mut said| async move { said.recv().await.map(|frame| (frame, said)) });
        let hear = grpc.session(client.request(said)).await.unwrap().into_inner();
        let beat = Heartbeat { sequence: 1, ..Heartbeat::default() };
        say.send(AgentFrame { frame: Some(agent_frame::Frame::Heartbeat(beat)) }).await.unwrap();
        Self { client, grpc, session, say, hear }
    }

    /// The next frame that `pick` wants.
    pub async fn hear<T>(&mut self, pick: impl Fn(server_frame::Frame) -> Option<T>) -> T {
        loop {
            let frame = time::timeout(time::ms(10_000), self.hear.message()).await.expect("a frame comes");
            if let Some(found) = pick(frame.unwrap().unwrap().frame.unwrap()) {
                return found;
            }
        }
    }

    /// The next assignment.
    pub async fn assigned(&mut self) -> Assign {
        self.hear(|frame| match frame {
            server_frame::Frame::Assign(assign) => Some(assign),
            _ => None,
        })
        .await
    }

    pub async fn report(&mut self, sequence: u64, attempt: &AttemptRef, what: report::What) {
        let report = Report { attempt: Some(attempt.clone()), rank: 0, what: Some(what) };
        let reports = Reports { sequence, reports: vec![report] };
        self.say.send(AgentFrame { frame: Some(agent_frame::Frame::Reports(reports)) }).await.unwrap();
        self.hear(|frame| match frame {
            server_frame::Frame::ReportsAck(ack) if ack.sequence == sequence => Some(()),
            _ => None,
        })
        .await;
    }

    pub fn needs(
        &self,
        attempt: &AttemptRef,
        put: bool,
        digest: &str,
        size_bytes: u64,
    ) -> SignTransfersRequest {
        SignTransfersRequest {
            node: NODE.into(),
            session: self.session,
            attempt: Some(attempt.clone()),
            needs: vec![TransferNeed { put, digest: digest.into(), size_bytes, ..TransferNeed::default() }],
        }
    }

    pub fn shipment(&self, attempt: &AttemptRef, data: &[u8]) -> LogShipment {
        LogShipment {
            node: NODE.into(),
            session: self.session,
            attempt: Some(attempt.clone()),
            stream: Stream::Stdout.into(),
            data: data.to_vec().into(),
            end: true,
            at_ms: 1,
            ..LogShipment::default()
        }
    }
}

pub fn attempt_of(assign: &Assign) -> AttemptRef {
    AttemptRef {
        tenant: assign.tenant.clone(),
        job_number: assign.job_number,
        step: assign.step_index,
        task: assign.tasks[0].task,
        attempt: assign.tasks[0].attempt,
        epoch: assign.epoch,
    }
}

#[tokio::test]
async fn a_task_goes_from_assignment_to_outputs_and_logs() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let mut admin = Client::new(&server, &server.token).await;
    let mut agent = Agent::join(&admin).await;
    let mut spec = job("words");
    spec.steps[0].outputs = vec!["total".into()];
    let request = admin.request(SubmitRequest { spec: Some(spec), ..SubmitRequest::default() });
    let number = admin.grpc.submit(request).await.unwrap().into_inner().number;
    let named = || Some(JobRequest { tenant: String::new(), number });
    let request = admin.request(LogsRequest { job: named(), follow: true, ..LogsRequest::default() });
    let mut log = admin.grpc.logs(request).await.unwrap().into_inner();

    let assign = agent.assigned().await;
    let attempt = attempt_of(&assign);
    agent.report(1, &attempt, report::What::Started(Started { at_ms: 1, pid: 7 })).await;
    let request = admin.request(NodesRequest {});
    let nodes = admin.grpc.nodes(request).await.unwrap().into_inner().nodes;
    assert_eq!((nodes.len(), nodes[0].grants, nodes[0].used.unwrap().millicores), (1, 1, 1_000));
    assert!(nodes[0].last_heard_ms > 0);
    let JobRequest { tenant, number } = named().unwrap();
    let request = admin.request(WhyRequest { tenant, number, ..WhyRequest::default() });
    assert_eq!(admin.grpc.why(request).await.unwrap().into_inner().code, "running");

    // The output's bytes go to the object place.
    let output = b"42\n";
    let digest: String = Sha256::digest(output).iter().map(|byte| format!("{byte:02x}")).collect();
    let request = agent.client.request(agent.needs(&attempt, false, &digest, 3));
    assert_eq!(agent.grpc.sign_transfers(request).await.unwrap().into_inner().urls, [""], "it is not there");
    let request = agent.client.request(agent.needs(&attempt, true, &digest, 3));
    let url = agent.grpc.sign_transfers(request).await.unwrap().into_inner().urls.remove(0);
    let local = TestDir::new();
    let disk = local.disk();
    disk.open("total", OpenMode::CreateNew).unwrap().write_at(0, output).unwrap();
    let transfer = HttpTransfer::new(TransferLimits::default());
    transfer.put(&url, disk.clone(), "total").await.unwrap();
    let request = agent.client.request(agent.needs(&attempt, true, &digest, 3));
    assert_eq!(agent.grpc.sign_transfers(request).await.unwrap().into_inner().urls, [""]);

    let artifact = Artifact { path: "total".into(), size_bytes: 3, digest: digest.clone(), mode: 0o644 };
    let cause = Cause { kind: CauseKind::Succeeded.into(), ..Cause::default() };
    let ended = Ended {
        cause: Some(cause),
        artifacts: vec![artifact.clone()],
        wall_ms: 5,
        stdout_bytes: 6,
        ..Ended::default()
    };
    agent.report(2, &attempt, report::What::Ended(ended)).await;
    let request = admin.request(named().unwrap());
    let state = admin.grpc.get_job(request).await.unwrap().into_inner().state.unwrap();
    assert_eq!((state.state(), state.log_bytes), (State::Completed, 6));

    // The log comes after the end, and the follower waits for it.
    let shipment = agent.shipment(&attempt, b"hello\n");
    let request = agent.client.request(stream::iter([shipment]));
    let mut receipts = agent.grpc.ship_logs(request).await.unwrap().into_inner();
    let receipt = receipts.message().await.unwrap().unwrap();
    assert_eq!((receipt.offset, receipt.done), (6, true));
    let mut text = Vec::new();
    loop {
        let reply = log.message().await.unwrap().expect("the end is told");
        reply.chunks.iter().for_each(|chunk| text.extend_from_slice(&chunk.data));
        if reply.end {
            assert_eq!(reply.missing_bytes, 0);
            break;
        }
    }
    assert_eq!(text, b"hello\n");

    let request = admin.request(named().unwrap());
    let steps = admin.grpc.outputs(request).await.unwrap().into_inner().steps;
    assert_eq!((steps.len(), steps[0].step.as_str(), steps[0].indexed), (1, "main", false));
    let link = &steps[0].tasks[0].artifacts[0];
    assert_eq!(link.artifact.as_ref(), Some(&artifact));
    transfer.get(&link.url, disk.clone(), "copy", &digest).await.unwrap();
    assert_eq!(read_all(&*disk, "copy", 100).unwrap(), output);

    // The attempt is over: nothing more may be put in its name.
    let request = agent.client.request(agent.needs(&attempt, true, &"0f".repeat(32), 3));
    assert_eq!(code(agent.grpc.sign_transfers(request).await), "conflict.attempt");
    let again = Ended { wall_ms: 9, ..Ended::default() };
    agent.report(3, &attempt, report::What::Ended(again.clone())).await;
    agent.report(4, &attempt, report::What::Ended(again)).await;
    let text = Http::new(&server, "").await.get("/metrics").await.text;
    for line in
        ["drumline_stale_refused_total{what=\"report\"} 2", "drumline_stale_refused_total{what=\"upload\"} 1"]
    {
        assert!(text.lines().any(|told| told == line), "{line}\n{text}");
    }
    drop((agent, log));
    server.stop().await;
}

#[tokio::test]
async fn an_older_session_is_refused() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let admin = Client::new(&server, &server.token).await;
    let mut agent = Agent::join(&admin).await;
    let attempt = AttemptRef { tenant: "default".into(), job_number: 1, ..AttemptRef::default() };
    let old = LogShipment { session: agent.session + 1, ..agent.shipment(&attempt, b"x") };
    let request = agent.client.request(stream::iter([old]));
    let mut receipts = agent.grpc.ship_logs(request).await.unwrap().into_inner();
    assert_eq!(code(receipts.message().await), "conflict.session");
    let mut asked = agent.needs(&attempt, true, &"0f".repeat(32), 1);
    asked.session += 1;
    let request = agent.client.request(asked);
    assert_eq!(code(agent.grpc.sign_transfers(request).await), "conflict.session");
    // A tenant's name that would lead out of its directory.
    let away = AttemptRef { tenant: "../x".into(), ..attempt };
    let request = agent.client.request(stream::iter([agent.shipment(&away, b"x")]));
    let mut receipts = agent.grpc.ship_logs(request).await.unwrap().into_inner();
    assert_eq!(code(receipts.message().await), "spec.tenant_name");
    // Tenants run nothing, and nodes have size and name.
    let mut grpc = agent.grpc.clone();
    let lab = admin.with(&admin.token(Role::Tenant, "default").await);
    assert_eq!(code(grpc.register(lab.request(introduction())).await), "denied.role");
    let empty = RegisterRequest { capacity: None, ..introduction() };
    assert_eq!(code(grpc.register(agent.client.request(empty)).await), "spec.capacity");
    let unnamed = RegisterRequest { node: "a/b".into(), ..introduction() };
    assert_eq!(code(grpc.register(agent.client.request(unnamed)).await), "spec.node_name");
    drop(agent);
    server.stop().await;
}
