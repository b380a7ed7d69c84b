//! A log of which a node gave up some: every door says so in its place, and says no more,
//! also once the log is packed.

use crate::agents::{Agent, attempt_of};
use crate::http::Http;
use crate::support::{Client, TestDir, job, serve_with};
use futures_util::stream;
use gateway::{LogsConfig, ServerConfig};
use proto::gap;
use proto::v1::{
    Cause, CauseKind, Ended, JobRequest, LogShipment, LogsRequest, NodesRequest, Started, SubmitRequest,
    report,
};
use world::time;

#[tokio::test]
async fn what_a_node_gave_up_is_told_at_every_door() {
    let dir = TestDir::new();
    let logs = LogsConfig { pack_every_ms: 20, pack_after_ms: 0, ..LogsConfig::default() };
    let config = ServerConfig { logs, ..ServerConfig::default() };
    let server = serve_with(&dir, "127.0.0.1:0", config).await.unwrap();
    let mut admin = Client::new(&server, &server.token).await;
    let mut agent = Agent::join(&admin).await;
    let submission = SubmitRequest { spec: Some(job("words")), ..SubmitRequest::default() };
    let number = admin.grpc.submit(admin.request(submission)).await.unwrap().into_inner().number;
    let assign = agent.assigned().await;
    let attempt = attempt_of(&assign);
    agent.report(1, &attempt, report::What::Started(Started { at_ms: 1, pid: 7 })).await;
    let half = LogShipment { end: false, ..agent.shipment(&attempt, b"half") };
    // Said in ignorance of two bytes that had come.
    let rest = LogShipment { offset: 2_000, dropped_bytes: 1_998, ..agent.shipment(&attempt, b"rest\n") };
    let request = agent.client.request(stream::iter([half, rest.clone(), rest]));
    let mut receipts = agent.grpc.ship_logs(request).await.unwrap().into_inner();
    for due in [(4, false), (2_005, true), (2_005, true)] {
        let receipt = receipts.message().await.unwrap().unwrap();
        assert_eq!((receipt.offset, receipt.done), due);
    }
    let cause = Cause { kind: CauseKind::Succeeded.into(), ..Cause::default() };
    let ended = Ended { cause: Some(cause), stdout_bytes: 2_005, ..Ended::default() };
    agent.report(2, &attempt, report::What::Ended(ended)).await;

    let http = Http::new(&server, &server.token).await;
    told_at_every_door(&mut admin, &http, number).await;
    let (disk, begun) = (dir.disk(), time::Instant::now());
    while disk.entry("logs/default/0000000000000001.log").is_ok() {
        assert!(begun.elapsed() < time::ms(30_000), "the log is not packed");
        time::sleep(time::ms(10)).await;
    }
    assert!(disk.entry("logs/default/0000000000000001.seg").is_ok());
    told_at_every_door(&mut admin, &http, number).await;

    let nodes = admin.grpc.nodes(admin.request(NodesRequest {})).await.unwrap().into_inner().nodes;
    assert_eq!(nodes[0].log_dropped_bytes, 1_996);
    let metrics = http.get("/metrics").await.text;
    assert!(metrics.lines().any(|line| line == "drumline_log_dropped_bytes_total 1996"), "{metrics}");
    drop((agent, receipts));
    server.stop().await;
}

async fn told_at_every_door(admin: &mut Client, http: &Http, number: u64) {
    let line = gap::told(1_996, true);
    let request =
        LogsRequest { job: Some(JobRequest { number, ..JobRequest::default() }), ..LogsRequest::default() };
    let mut log = admin.grpc.logs(admin.request(request)).await.unwrap().into_inner();
    let (mut chunks, mut missing) = (Vec::new(), None);
    while let Some(reply) = log.message().await.unwrap() {
        missing = reply.end.then_some(reply.missing_bytes);
        let told = reply.chunks.into_iter();
        chunks.extend(told.map(|chunk| (chunk.offset, chunk.dropped_bytes, chunk.data.to_vec())));
    }
    let due = [(0, 0, "half"), (4, 1_996, line.as_str()), (2_000, 0, "rest\n")];
    assert_eq!(chunks, due.map(|(offset, dropped, text)| (offset, dropped, text.as_bytes().to_vec())));
    assert_eq!(missing, Some(0), "it is whole: nothing is missing that is not told");

    let text = format!("half{line}rest\n");
    assert_eq!(http.get("/v1/jobs/1/logs").await.text, text);
    let lines = http.request("GET", "/v1/jobs/1/logs").header("accept", "application/x-ndjson");
    let first = http.send(lines, "").await.text;
    assert!(first.contains("\"dropped_bytes\":1996") && first.contains("1,996 bytes of this log"), "{first}");
    let one = "/v1/jobs/1/logs?step=main&attempt=1&stream=stdout";
    for (range, due) in [
        ("bytes=1-3", (206, "alf".to_owned())),
        ("bytes=1-4", (200, text.clone())),
        ("bytes=2000-", (200, text.clone())),
        ("bytes=9000-", (200, text.clone())),
    ] {
        let answer = http.send(http.request("GET", one).header("range", range), "").await;
        assert_eq!((answer.status, answer.text), due, "{range}");
    }
    for (offset, due) in
        [(2_000, "rest\n".to_owned()), (2_002, "st\n".to_owned()), (9, format!("{line}rest\n"))]
    {
        assert_eq!(http.get(&format!("{one}&offset={offset}")).await.text, due);
    }
}
