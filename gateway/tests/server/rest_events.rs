//! Events over HTTP: pages, server-sent events, WebSocket. However often a
//! subscriber is cut off, the pieces join without gap or repeat.

use crate::http::Http;
use crate::support::{Client, TestDir, serve, serve_with};
use futures_util::{SinkExt, StreamExt};
use gateway::server::{RunningServer, ServerConfig};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message as _;
use proto::keys;
use proto::v1::{Cause, CauseKind, Event, EventBatchRow, EventsRequest, Role, State};
use serde_json::{Value, json};
use std::future::Future;
use std::net::SocketAddr;
use store::Commit;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use world::time;

const JOB: &str = r#"{"step": [{"run": "true"}]}"#;
const CUTS: usize = 100;

fn deadline() -> time::Duration {
    time::ms(20_000)
}

fn chance(below: usize) -> usize {
    usize::try_from(world::rand::u64() % below as u64).unwrap()
}

/// One side of a subscription: what it was told of events, and what else.
struct Sse {
    body: Incoming,
    unread: String,
}

#[derive(Debug, PartialEq)]
enum Said {
    Event(u64),
    Named(String, Value),
    Ping,
    Nothing,
}

impl Sse {
    async fn open(http: &Http, target: &str, last: Option<u64>) -> Self {
        let mut request = http.request("GET", target).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let response = http.open(request).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), unread: String::new() }
    }

    /// The next block; `None` at the stream's end. Bytes after the last whole
    /// block are lost with a cut, as on any connection.
    async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some((block, rest)) = self.unread.split_once("\n\n") {
                let said = Self::read(block);
                self.unread = rest.to_owned();
                return Some(said);
            }
            // A stream that was cut is over, and what of a block has come says nothing.
            let frame = time::timeout(deadline(), self.body.frame()).await.expect("something comes")?.ok()?;
            self.unread += std::str::from_utf8(&frame.into_data().unwrap()).unwrap();
        }
    }

    fn read(block: &str) -> Said {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let data = || serde_json::from_str::<Value>(field("data").unwrap()).unwrap();
        match (field("event"), field("id")) {
            (Some(name), _) => Said::Named(name.to_owned(), data()),
            (None, Some(id)) => {
                assert_eq!(data()["seq"], id.parse::<u64>().unwrap());
                Said::Event(id.parse().unwrap())
            }
            (None, None) if block.starts_with(": ping") => Said::Ping,
            (None, None) => Said::Nothing,
        }
    }
}

pub type Socket = WebSocketStream<TcpStream>;

pub async fn socket(http: &Http, target: &str) -> Result<Socket, Error> {
    let stream = TcpStream::connect(http.base.strip_prefix("http://").unwrap()).await.unwrap();
    let mut request = format!("{}{target}", http.base.replace("http", "ws")).into_client_request().unwrap();
    if !http.token.is_empty() {
        let token = format!("Bearer {}", http.token).parse().unwrap();
        request.headers_mut().insert("authorization", token);
    }
    Ok(client_async(request, stream).await?.0)
}

/// The next thing said; a close as its code.
async fn heard(socket: &mut Socket) -> Said {
    said(time::timeout(deadline(), socket.next()).await.expect("something comes"))
}

fn said(message: Option<Result<Message, Error>>) -> Said {
    match message {
        Some(Ok(Message::Text(text))) => {
            let value: Value = serde_json::from_str(&text).unwrap();
            match value["seq"].as_u64() {
                Some(seq) => Said::Event(seq),
                None => {
                    let (name, value) = value.as_object().unwrap().iter().next().unwrap();
                    Said::Named(name.clone(), value.clone())
                }
            }
        }
        Some(Ok(Message::Ping(_))) => Said::Ping,
        Some(Ok(Message::Close(Some(frame)))) => Said::Named("close".into(), json!(u16::from(frame.code))),
        other => panic!("{other:?}"),
    }
}

/// A wire to the server that breaks: each connection carries the bytes of its turn
/// towards the client and is cut then, wherever in a message that is.
async fn wire(listener: TcpListener, server: SocketAddr) {
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        // A head has some 300 bytes, and so has an event.
        let carried = chance(4_000) as u64;
        let (mut from_client, mut to_client) = client.split();
        let (from_server, mut to_server) = server.split();
        let mut from_server = from_server.take(carried);
        world::select! { biased;
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {},
            _ = tokio::io::copy(&mut from_client, &mut to_server) => {},
        }
    }
}

/// Numbers in the order told; every one exactly once, from 1.
fn joins(seen: &[u64], newest: u64) {
    let expected: Vec<u64> = (1..=newest).collect();
    assert_eq!(seen, expected);
}

/// The newest number there is.
async fn newest(http: &Http) -> u64 {
    let mut from = 0;
    loop {
        let page = http.get(&format!("/v1/events?limit=1000&from={from}")).await.json();
        from = page["next_seq"].as_u64().unwrap();
        if page["events"] == json!([]) {
            return from - 1;
        }
    }
}

async fn busy(http: &Http, jobs: usize) {
    for number in 1..=jobs {
        http.post("/v1/jobs", JOB).await;
        if number % 3 == 0 {
            http.delete(&format!("/v1/jobs/{number}")).await;
        }
    }
}

/// Goes on for as long as `subscriber` listens.
async fn while_busy<T>(http: &Http, subscriber: impl Future<Output = T>) -> T {
    world::select! { biased;
        heard = subscriber => heard,
        () = busy(http, usize::MAX) => panic!("there is always another job"),
    }
}

async fn start() -> (TestDir, RunningServer, Http) {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let http = Http::new(&server, &server.token).await;
    (dir, server, http)
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended() {
    let (_dir, server, http) = start().await;
    assert_eq!(http.get("/v1/events").await.json(), json!({ "events": [], "next_seq": 0 }));
    busy(&http, 9).await;
    let newest = newest(&http).await;
    let (mut seen, mut from) = (Vec::new(), 0);
    loop {
        let page = http.get(&format!("/v1/events?limit=4&from={from}")).await.json();
        let events = page["events"].as_array().unwrap();
        assert!(events.len() <= 4);
        seen.extend(events.iter().map(|event| event["seq"].as_u64().unwrap()));
        from = page["next_seq"].as_u64().unwrap();
        if events.is_empty() {
            break;
        }
    }
    joins(&seen, newest);
    let of_one = http.get("/v1/events?job=default-3").await.json();
    assert!(of_one["events"].as_array().unwrap().iter().all(|event| event["job"] == "default-3"), "{of_one}");
    for (target, status, code) in [
        ("/v1/events?from=x", 400, "http.query"),
        ("/v1/events?job=nonsense", 400, "spec.job_id"),
        ("/v1/events?job=99", 404, "missing.job"),
        ("/v1/events?tenant=nobody", 404, "missing.tenant"),
        ("/v1/events?tenant=lab&job=default-1", 409, "conflict.tenant"),
    ] {
        let refusal = http.get(target).await.refusal();
        assert_eq!((refusal.0, refusal.1.as_str()), (status, code), "{target}");
    }
    let request = http.request("GET", "/v1/events").header("last-event-id", "soon");
    assert_eq!(http.send(request, "").await.refusal().2, "last-event-id");
    server.stop().await;
}

#[tokio::test]
async fn server_sent_events_cut_a_hundred_times_join() {
    let (_dir, server, http) = start().await;
    let subscribe = async {
        let (mut seen, mut last) = (Vec::new(), None);
        for _ in 0..CUTS {
            let mut stream = Sse::open(&http, "/v1/events?from=1", last).await;
            for _ in 0..chance(6) {
                // Cut in the middle of whatever came besides.
                if let Some(Said::Event(seq)) = stream.next().await {
                    seen.push(seq);
                    last = Some(seq);
                }
            }
        }
        (seen, last)
    };
    let (mut seen, last) = while_busy(&http, subscribe).await;
    let newest = newest(&http).await;
    let mut stream = Sse::open(&http, "/v1/events", last.or(Some(0))).await;
    while seen.last().copied().unwrap_or(0) < newest {
        if let Some(Said::Event(seq)) = stream.next().await {
            seen.push(seq);
        }
    }
    joins(&seen, newest);
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_socket_cut_a_hundred_times_joins() {
    let (_dir, server, http) = start().await;
    let subscribe = async {
        let mut seen: Vec<u64> = Vec::new();
        for _ in 0..CUTS {
            let from = seen.last().map_or(0, |seq| seq + 1);
            let mut socket = socket(&http, &format!("/v1/events?from={from}")).await.unwrap();
            for _ in 0..chance(6) {
                if let Said::Event(seq) = heard(&mut socket).await {
                    seen.push(seq);
                }
            }
        }
        seen
    };
    let mut seen = while_busy(&http, subscribe).await;
    let newest = newest(&http).await;
    let from = seen.last().map_or(0, |seq| seq + 1);
    let mut socket = socket(&http, &format!("/v1/events?from={from}")).await.unwrap();
    while seen.last().copied().unwrap_or(0) < newest {
        if let Said::Event(seq) = heard(&mut socket).await {
            seen.push(seq);
        }
    }
    joins(&seen, newest);
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn streams_cut_anywhere_a_hundred_times_join() {
    let (_dir, server, http) = start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cut = http.at(listener.local_addr().unwrap());
    let subscribe = async {
        let (mut by_sse, mut by_socket): (Vec<u64>, Vec<u64>) = Default::default();
        for _ in 0..CUTS {
            let last = by_sse.last().copied().unwrap_or(0).to_string();
            let request = cut.request("GET", "/v1/events").header("accept", "text/event-stream");
            // Also the answer's head may be lost.
            if let Ok(response) = cut.try_open(request.header("last-event-id", last)).await {
                let mut stream = Sse { body: response.into_body(), unread: String::new() };
                while let Some(told) = stream.next().await {
                    by_sse.extend(match told {
                        Said::Event(seq) => Some(seq),
                        _ => None,
                    });
                }
            }
            let from = by_socket.last().map_or(0, |seq| seq + 1);
            let Ok(mut socket) = socket(&cut, &format!("/v1/events?from={from}")).await else { continue };
            while let Some(Ok(message)) = time::timeout(deadline(), socket.next()).await.expect("an end") {
                by_socket.extend(match said(Some(Ok(message))) {
                    Said::Event(seq) => Some(seq),
                    _ => None,
                });
            }
        }
        (by_sse, by_socket)
    };
    let (by_sse, by_socket) = world::select! { biased;
        told = while_busy(&http, subscribe) => told,
        () = wire(listener, server.listening) => panic!("there is always another connection"),
    };
    for seen in [by_sse, by_socket] {
        assert!(seen.len() > CUTS, "only {} events were told", seen.len());
        joins(&seen, seen.len() as u64);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stream_of_one_job_ends_with_it() {
    let (_dir, server, http) = start().await;
    http.post("/v1/jobs", JOB).await;
    http.post("/v1/jobs", JOB).await;
    let mut stream = Sse::open(&http, "/v1/events?job=2", None).await;
    let mut socket = socket(&http, "/v1/events?job=default-2").await.unwrap();
    http.delete("/v1/jobs/2").await;
    loop {
        match stream.next().await.expect("the end is told") {
            Said::Named(name, _) => break assert_eq!(name, "end"),
            said => assert_ne!(said, Said::Event(1), "another job's"),
        }
    }
    assert_eq!(stream.next().await, None);
    loop {
        match heard(&mut socket).await {
            Said::Named(name, _) if name == "end" => break,
            said => assert_ne!(said, Said::Event(1), "another job's"),
        }
    }
    assert_eq!(heard(&mut socket).await, Said::Named("close".into(), json!(1000)));
    server.stop().await;
}

#[tokio::test]
async fn silence_is_broken_by_signs_of_life_and_a_stop_is_told() {
    let dir = TestDir::new();
    let config = ServerConfig { events_ping_ms: 20, ..ServerConfig::default() };
    let server = serve_with(&dir, "127.0.0.1:0", config).await.unwrap();
    let http = Http::new(&server, &server.token).await;
    let mut stream = Sse::open(&http, "/v1/events", None).await;
    assert_eq!(stream.next().await, Some(Said::Nothing), "how soon to come again");
    assert_eq!(stream.next().await, Some(Said::Ping));
    let mut socket = socket(&http, "/v1/events").await.unwrap();
    for _ in 0..5 {
        // Answered by the library, or the server would give up after three.
        assert_eq!(heard(&mut socket).await, Said::Ping);
    }
    socket.send(Message::text("anything")).await.unwrap();
    assert_eq!(heard(&mut socket).await, Said::Ping);
    let listens = async {
        loop {
            match heard(&mut socket).await {
                Said::Ping => {}
                said => break said,
            }
        }
    };
    let ends = async { while stream.next().await.is_some() {} };
    let (said, (), ()) = tokio::join!(listens, ends, server.stop());
    assert_eq!(said, Said::Named("close".into(), json!(u16::from(CloseCode::Away))));
}

#[tokio::test]
async fn who_may_not_subscribe_is_told_with_a_status() {
    let (_dir, server, http) = start().await;
    let admin = Client::new(&server, &server.token).await;
    let status = |error: Error| match error {
        Error::Http(response) => {
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            response.status().as_u16()
        }
        other => panic!("{other}"),
    };
    let nobody = http.with("");
    assert_eq!(status(socket(&nobody, "/v1/events").await.unwrap_err()), 401);
    let agent = http.with(&admin.token(Role::Agent, "").await);
    assert_eq!(status(socket(&agent, "/v1/events").await.unwrap_err()), 403);
    assert_eq!(status(socket(&http, "/v1/events?tenant=nobody").await.unwrap_err()), 404);
    assert_eq!(status(socket(&http, "/v1/events?from=x").await.unwrap_err()), 400);
    // No upgrade of RFC 6455.
    let request = http.request("GET", "/v1/events").header("upgrade", "websocket");
    assert_eq!(http.send(request, "").await.refusal(), (400, "http.upgrade".into(), "upgrade".into()));
    // Whoever takes a page too gets that.
    let request = http.request("GET", "/v1/events").header("accept", "application/json, text/event-stream");
    assert_eq!(http.send(request, "").await.header("content-type"), "application/json");
    // One token has so many streams.
    let mut open = Vec::new();
    for _ in 0..gateway::limits::STREAMS_PER_CALLER {
        open.push(Sse::open(&http, "/v1/events", None).await);
    }
    assert_eq!(status(socket(&http, "/v1/events").await.unwrap_err()), 429);
    let request = http.request("GET", "/v1/events").header("accept", "text/event-stream");
    let refusal = http.send(request, "").await;
    assert_eq!(refusal.header("retry-after"), "1");
    assert_eq!(refusal.refusal().1, "limit.streams");
    drop(open);
    server.stop().await;
}

/// Events of the slow tenant's history, each of some bytes.
const HISTORY: u64 = 4_000;
const EVENTS_PER_ROW: u64 = 50;

/// A history of a size that no socket's buffers hold.
async fn long_history(server: &RunningServer) {
    for first in (1..=HISTORY).step_by(usize::try_from(EVENTS_PER_ROW).unwrap()) {
        let event = |seq| Event {
            seq,
            at_ms: seq,
            job_number: 1,
            to: State::Pending.into(),
            cause: Some(Cause {
                kind: CauseKind::Submitted.into(),
                text: "x".repeat(8_000),
                ..Cause::default()
            }),
            ..Event::default()
        };
        let batch = EventBatchRow { events: (first..first + EVENTS_PER_ROW).map(event).collect() };
        let commit = Commit::new().put(keys::event("lab", first), batch.encode_to_vec());
        server.store().unwrap().commit(commit).await.unwrap();
    }
}

/// Waits until the server can send no more to a connection that does not read:
/// what has arrived stays the same over many looks.
async fn stuffed(stream: &TcpStream) {
    let mut buffer = vec![0; 64 << 20];
    let (mut held, mut same) = (0, 0);
    while same < 20 {
        let now = time::timeout(deadline(), stream.peek(&mut buffer)).await.unwrap().unwrap();
        same = if now == held { same + 1 } else { 0 };
        held = now;
        time::sleep(time::ms(10)).await;
    }
}

async fn slow_server() -> (TestDir, RunningServer, Http) {
    let dir = TestDir::new();
    let config = ServerConfig { events_slow_ms: 5, ..ServerConfig::default() };
    let server = serve_with(&dir, "127.0.0.1:0", config).await.unwrap();
    let admin = Client::new(&server, &server.token).await;
    admin.tenant("lab").await;
    let http = Http::new(&server, &admin.token(Role::Tenant, "lab").await).await;
    long_history(&server).await;
    (dir, server, http)
}

#[tokio::test]
async fn a_slow_socket_is_told_what_it_missed_and_resumes() {
    let (_dir, server, http) = slow_server().await;
    let mut seen: Vec<u64> = Vec::new();
    let mut told = 0;
    while seen.len() < usize::try_from(HISTORY).unwrap() {
        let from = seen.last().map_or(0, |seq| seq + 1);
        let mut socket = socket(&http, &format!("/v1/events?from={from}")).await.unwrap();
        if told == 0 {
            stuffed(socket.get_ref()).await;
        }
        while seen.len() < usize::try_from(HISTORY).unwrap() {
            match heard(&mut socket).await {
                Said::Event(seq) => seen.push(seq),
                Said::Named(name, missed) => {
                    assert_eq!(name, "missed");
                    let from = seen.last().unwrap() + 1;
                    assert_eq!(missed, json!({ "from": from, "to": HISTORY }));
                    assert_eq!(
                        heard(&mut socket).await,
                        Said::Named("close".into(), json!(u16::from(CloseCode::Again)))
                    );
                    told += 1;
                    break;
                }
                Said::Ping | Said::Nothing => {}
            }
        }
    }
    assert!(told > 0, "it was slow");
    joins(&seen, HISTORY);
    server.stop().await;
}

#[tokio::test]
async fn a_slow_stream_is_told_what_it_missed_and_resumes() {
    let (_dir, server, http) = slow_server().await;
    let mut seen: Vec<u64> = Vec::new();
    let mut told = 0;
    while seen.len() < usize::try_from(HISTORY).unwrap() {
        let mut stream = Sse::open(&http, "/v1/events", Some(seen.last().copied().unwrap_or(0))).await;
        if told == 0 {
            // One that does not read at all: a second connection shows when the
            // server has had time enough to notice.
            let mut other = socket(&http, "/v1/events").await.unwrap();
            stuffed(other.get_ref()).await;
            assert_eq!(heard(&mut other).await, Said::Event(1));
        }
        loop {
            match stream.next().await {
                Some(Said::Event(seq)) => seen.push(seq),
                Some(Said::Named(name, missed)) => {
                    assert_eq!(name, "missed");
                    assert_eq!(missed, json!({ "from": seen.last().unwrap() + 1, "to": HISTORY }));
                    told += 1;
                }
                Some(Said::Ping | Said::Nothing) => {}
                None => break,
            }
            if seen.len() == usize::try_from(HISTORY).unwrap() {
                break;
            }
        }
    }
    assert!(told > 0, "it was slow");
    joins(&seen, HISTORY);
    server.stop().await;
}

#[tokio::test]
async fn a_long_history_comes_in_replies_that_any_client_takes() {
    let (_dir, server, _) = slow_server().await;
    // This one takes messages of 4 MiB, as gRPC's clients do unless told otherwise.
    let mut admin = Client::new(&server, &server.token).await;
    for follow in [false, true] {
        let request = EventsRequest { tenant: "lab".into(), follow, ..EventsRequest::default() };
        let mut replies = admin.grpc.events(admin.request(request)).await.unwrap().into_inner();
        let mut seen = Vec::new();
        while seen.len() < usize::try_from(HISTORY).unwrap() {
            let reply = replies.message().await.unwrap().expect("there is more");
            assert!(!reply.events.is_empty() && !reply.end);
            assert!(reply.encoded_len() < 1 << 20, "{} bytes", reply.encoded_len());
            seen.extend(reply.events.iter().map(|event| event.seq));
        }
        joins(&seen, HISTORY);
        if !follow {
            assert!(replies.message().await.unwrap().expect("the end is told").end);
        }
    }
    server.stop().await;
}
