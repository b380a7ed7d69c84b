//! A job that runs, as REST shows it: nodes and pools, logs while they come,
//! outputs, the end.

use crate::agents::{Agent, attempt_of};
use crate::http::Http;
use crate::rest_events::{Socket, socket};
use crate::support::{Client, TestDir, serve};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use proto::v1::{AttemptRef, Cause, CauseKind, Ended, LogShipment, Started, report};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use world::time;

async fn ship(agent: &mut Agent, shipment: LogShipment) {
    let request = agent.client.request(stream::iter([shipment]));
    let mut receipts = agent.grpc.ship_logs(request).await.unwrap().into_inner();
    receipts.message().await.unwrap().unwrap();
}

async fn end(agent: &mut Agent, attempt: &AttemptRef, stdout_bytes: u64) {
    let cause = Some(Cause { kind: CauseKind::Succeeded.into(), ..Cause::default() });
    let ended = Ended { cause, wall_ms: 5, stdout_bytes, ..Ended::default() };
    agent.report(2, attempt, report::What::Ended(ended)).await;
}

/// What came of a body so far.
async fn next_part(body: &mut hyper::body::Incoming) -> Option<String> {
    let frame = time::timeout(time::ms(10_000), body.frame()).await.expect("something comes")?;
    Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn a_run_is_followed_to_its_end() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let admin = Client::new(&server, &server.token).await;
    let http = Http::new(&server, &server.token).await;
    let mut agent = Agent::join(&admin).await;
    let eta = &http.get("/v1/nodepools?cores=2&memory=1GiB").await.json()["pools"][0]["eta"];
    assert!(eta["earliest_start_ms"].as_u64().unwrap() > 0, "{eta}");
    let eta = &http.get("/v1/nodepools?cores=64").await.json()["pools"][0]["eta"];
    assert!(eta["earliest_start_ms"].is_null(), "{eta}");
    let eta = &http.get("/v1/nodepools").await.json()["pools"][0]["eta"];
    assert!(eta["earliest_start_ms"].as_u64().unwrap() > 0, "one core, if nothing is asked: {eta}");

    let body = r#"{"step": [{"name": "main", "array": 7, "run": "echo hello", "cores": 2}]}"#;
    http.post("/v1/jobs", body).await;
    let assign = agent.assigned().await;
    let attempt = attempt_of(&assign);
    agent.report(1, &attempt, report::What::Started(Started { at_ms: 1, pid: 7 })).await;
    let node = http.get("/v1/nodes").await.json()["nodes"][0].clone();
    assert_eq!(
        (&node["used"]["cores"], &node["grants"], &node["state"]),
        (&json!(2.0), &json!(1), &json!("READY"))
    );
    assert_eq!(http.get("/v1/jobs/1/why").await.json()["code"], "running");

    // A follower sees bytes as they come.
    let mut text = http.open(http.request("GET", "/v1/jobs/1/logs?follow=true")).await.into_body();
    let lines = http.request("GET", "/v1/jobs/1/logs?follow=true").header("accept", "application/x-ndjson");
    let mut lines = http.open(lines).await.into_body();
    let mut messages = socket(&http, "/v1/jobs/1/logs?follow=true").await.unwrap();
    let now_ms = http.get("/v1/jobs/1").await.json()["submitted_ms"].as_u64().unwrap();
    let part = LogShipment { end: false, at_ms: now_ms, ..agent.shipment(&attempt, "grüße\n".as_bytes()) };
    ship(&mut agent, part).await;
    assert_eq!(next_part(&mut text).await.unwrap(), "grüße\n");
    let line: Value = serde_json::from_str(&next_part(&mut lines).await.unwrap()).unwrap();
    assert_eq!((&line["chunks"][0]["index"], &line["chunks"][0]["text"]), (&json!(7), &json!("grüße\n")));
    assert_eq!(message(&mut messages).await, Some(line.clone()));
    let first = line["cursor"].as_u64().unwrap();
    // What is not text comes whole all the same.
    let part = LogShipment { offset: 8, at_ms: now_ms, ..agent.shipment(&attempt, b"\xff\n") };
    ship(&mut agent, part).await;
    let line: Value = serde_json::from_str(&next_part(&mut lines).await.unwrap()).unwrap();
    assert_eq!(line["chunks"][0]["data"], "/wo=");
    assert_eq!(message(&mut messages).await, Some(line.clone()));
    let cursor = line["cursor"].as_u64().unwrap();
    drop(text);

    end(&mut agent, &attempt, 10).await;
    http.delete("/v1/jobs/1").await;
    let line: Value = serde_json::from_str(&next_part(&mut lines).await.unwrap()).unwrap();
    assert_eq!(
        (&line["end"], &line["cursor"], &line["missing_bytes"]),
        (&json!(true), &json!(cursor), &json!(0))
    );
    assert!(next_part(&mut lines).await.is_none(), "nothing comes after the end");
    assert_eq!((message(&mut messages).await, message(&mut messages).await), (Some(line), None));

    // Afterwards: from a cursor, of one task, of a time.
    let lines = http.request("GET", &format!("/v1/jobs/1/logs?cursor={cursor}"));
    let rest = http.send(lines.header("accept", "text/plain, application/x-ndjson;q=0.5"), "").await;
    assert_eq!(rest.json()["end"], true);
    for (query, expected) in [
        ("step=main&task=7&stream=stdout&attempt=1&rank=0&cursor=0", true),
        ("step=main&rank=1", false),
        ("stream=stderr", false),
        ("tail=1h", true),
        ("since=1h", true),
        ("since=2026-01-01T00:00:00Z", true),
        ("since=2100-01-01T02:00:00%2B02:00", false),
        ("since=0", true),
        ("since=4102444800000", false),
    ] {
        let lines = http.request("GET", &format!("/v1/jobs/1/logs?{query}"));
        let answer = http.send(lines.header("accept", "application/x-ndjson"), "").await;
        assert_eq!(answer.text.contains("grüße"), expected, "{query}: {}", answer.text);
    }
    // Behind a cursor nothing is left out, however old it is by now.
    for begin in ["since=4102444800000", "tail=1ms"] {
        let lines = http.request("GET", &format!("/v1/jobs/1/logs?{begin}&cursor={first}"));
        let answer = http.send(lines.header("accept", "application/x-ndjson"), "").await;
        assert!(answer.text.contains("/wo="), "{begin}: {}", answer.text);
    }
    let behind = http.get("/v1/jobs/1/logs?cursor=9999").await.refusal();
    assert_eq!(behind, (422, "spec.cursor".into(), "cursor".into()));
    of_one_stream(&http, &attempt).await;
    drop(agent);
    server.stop().await;
}

/// The next message of a log; `None` at the close.
async fn message(socket: &mut Socket) -> Option<Value> {
    loop {
        let message = time::timeout(time::ms(10_000), socket.next()).await.expect("something comes");
        match message?.unwrap() {
            Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

/// Ten bytes, from where one asks.
async fn of_one_stream(http: &Http, attempt: &AttemptRef) {
    let stream = format!("/v1/jobs/1/logs?step=main&task=7&attempt=1&stream=stdout&epoch={}", attempt.epoch);
    let (_, bytes) = http.raw_bytes(http.request("GET", &format!("{stream}&offset=6"))).await;
    assert_eq!(bytes, b"e\n\xff\n");
    let (_, bytes) = http.raw_bytes(http.request("GET", &format!("{stream}&offset=10"))).await;
    assert!(bytes.is_empty());
    let refused = http.get("/v1/jobs/1/logs?step=main&task=7&stream=stdout&offset=6").await;
    assert_eq!(refused.refusal(), (409, "conflict.offset".into(), "offset".into()));
    assert!(refused.text.contains("no attempt is named"), "{}", refused.text);

    for (range, expected, content_range) in [
        ("bytes=6-7", "e\n", "bytes 6-7/10"),
        ("bytes=0-1", "gr", "bytes 0-1/10"),
        ("bytes=-1", "\n", "bytes 9-9/10"),
    ] {
        let answer = http.send(http.request("GET", &stream).header("range", range), "").await;
        let told = (answer.status, answer.header("content-range"), answer.text.as_str());
        assert_eq!(told, (206, content_range, expected), "{range}");
    }
    let rest = http.raw_bytes(http.request("GET", &stream).header("range", "bytes=6-")).await;
    assert_eq!(rest, (206, b"e\n\xff\n".to_vec()));
    let behind = http.send(http.request("GET", &stream).header("range", "bytes=10-"), "").await;
    assert_eq!(behind.refusal(), (416, "http.range".into(), "range".into()));
    // Of several streams, or where something else says where to begin, all of it comes.
    for target in ["/v1/jobs/1/logs".to_owned(), format!("{stream}&follow=true"), format!("{stream}&since=1")]
    {
        let (status, bytes) = http.raw_bytes(http.request("GET", &target).header("range", "bytes=8-")).await;
        assert_eq!((status, bytes.len()), (200, 10), "{target}");
    }
    let other = stream.replace(&format!("epoch={}", attempt.epoch), "epoch=999999");
    assert_eq!(http.get(&other).await.text, "");
}

/// What `GET /v1/nodepools` tells of the one pool there is.
async fn eta(http: &Http, query: &str) -> (Option<u64>, String) {
    let eta = http.get(&format!("/v1/nodepools{query}")).await.json()["pools"][0]["eta"].clone();
    (eta["earliest_start_ms"].as_u64(), eta["assumption"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_full_pool_tells_when_it_has_room() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let admin = Client::new(&server, &server.token).await;
    let http = Http::new(&server, &server.token).await;
    let mut agent = Agent::join(&admin).await;
    // It fills the node of four cores, for ten minutes at most.
    let job = r#"{"step": [{"name": "main", "run": "true", "cores": 4, "timeout": "10m"}]}"#;
    http.post("/v1/jobs", job).await;
    agent.assigned().await;
    let granted_ms = http.get("/v1/jobs/1").await.json()["submitted_ms"].as_u64().unwrap();
    let (start_ms, assumption) = eta(&http, "").await;
    let wait_ms = start_ms.unwrap() - granted_ms;
    assert!((600_000..610_000).contains(&wait_ms), "{wait_ms} {assumption}");
    assert!(assumption.starts_with("nothing is queued before it"), "{assumption}");

    // What is queued comes first, for as long as it is expected to run.
    let job = r#"{"expected_runtime": "5m", "step": [{"name": "main", "run": "true", "cores": 3}]}"#;
    http.post("/v1/jobs", job).await;
    let queued = async {
        loop {
            if http.get("/v1/nodepools").await.json()["pools"][0]["queued_slots"] == json!(1) {
                break;
            }
        }
    };
    time::timeout(time::ms(10_000), queued).await.expect("it queues");
    let (start_ms, assumption) = eta(&http, "?cores=2&memory=1GiB").await;
    let wait_ms = start_ms.unwrap() - granted_ms;
    assert!((900_000..910_000).contains(&wait_ms), "{wait_ms} {assumption}");
    assert!(assumption.starts_with("in the order of the queue, 1 step before it"), "{assumption}");
    let (start_ms, _) = eta(&http, "?cores=1").await;
    assert!((600_000..610_000).contains(&(start_ms.unwrap() - granted_ms)), "beside it");
    let (start_ms, assumption) = eta(&http, "?cores=1&nodes=2").await;
    assert!(start_ms.is_none() && assumption.starts_with("1 of 2 nodes are large enough"), "{assumption}");

    // Behind work that tells no end nothing is promised, but it is named.
    http.post("/v1/jobs", r#"{"step": [{"name": "main", "run": "true", "cores": 4}]}"#).await;
    let promised = async {
        loop {
            let (start_ms, assumption) = eta(&http, "?cores=1").await;
            if start_ms.is_none() {
                break assumption;
            }
        }
    };
    let assumption = time::timeout(time::ms(10_000), promised).await.expect("it queues");
    assert!(assumption.contains("whose end is not known (default-3)"), "{assumption}");
}
