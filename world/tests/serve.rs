//! One real port that speaks gRPC and HTTP/1.1 at once, and real transfers
//! against it.
#![cfg(not(madsim))]
#![allow(clippy::disallowed_methods, reason = "raw sockets play the clients that misbehave")]

mod common;

use common::{MemoryDoor, Shared, bytes, digest};
use std::{
    io::ErrorKind,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use world::{
    Disk, Transfer,
    disk::{OpenMode, read_all},
    grpc::{self, BindError, ConnectError, Server, axum, bind, connect},
    real::{FsDisk, HttpTransfer, TransferLimits, Wanted},
    time::{Duration, ms, timeout},
    transfer::TransferError,
};

const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<Result<(), grpc::ServeError>>,
    door: Arc<MemoryDoor>,
}

async fn serve() -> Running {
    let door = MemoryDoor::new();
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address();
    assert_ne!(address.port(), 0);
    let (stop, stopped) = oneshot::channel();
    let older_reflection = tonic_reflection::server::Builder::configure().build_v1alpha().unwrap();
    let server = Server::new()
        .service(older_reflection)
        .door(Arc::new(Shared(door.clone())))
        .http(axum::Router::new().route("/v1/hello", axum::routing::get(|| async { "hello" })))
        .reflection(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .grace(ms(500));
    let served = tokio::spawn(server.serve(listener, async {
        let _sender_gone = stopped.await;
    }));
    Running { address, stop, served, door }
}

fn disk(name: &str) -> Arc<FsDisk> {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("world-serve").join(name);
    let _absent = std::fs::remove_dir_all(&root);
    FsDisk::open(root).unwrap()
}

fn write(disk: &FsDisk, path: &str, data: &[u8]) {
    disk.open(path, OpenMode::CreateOrWrite).unwrap().write_at(0, data).unwrap();
}

/// A plain HTTP/1.1 exchange: everything until the server closes.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(address: SocketAddr, path: &str) -> String {
    raw(address, &format!("GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn one_port_speaks_both() {
    let running = serve().await;
    let channel = connect(&running.address.to_string(), PATIENCE).await.unwrap();
    for service in ["", "grpc.reflection.v1alpha.ServerReflection"] {
        let ask = HealthCheckRequest { service: service.into() };
        let reply = HealthClient::new(channel.clone()).check(ask).await.unwrap().into_inner();
        assert_eq!(reply.status, i32::from(ServingStatus::Serving), "{service:?}");
    }

    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut replies = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(futures_util::stream::iter([ask]))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        replies.message().await.unwrap().unwrap().message_response
    else {
        panic!("services were asked for")
    };
    assert!(list.service.iter().any(|service| service.name == "grpc.health.v1.Health"), "{list:?}");

    // Unknown things are told in the asker's own words.
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let unknown = grpc
        .unary::<HealthCheckRequest, HealthCheckRequest, _>(
            tonic::Request::new(HealthCheckRequest::default()),
            "/no.such.Service/Call".parse().unwrap(),
            tonic_prost::ProstCodec::default(),
        )
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::Unimplemented);
    assert!(get(running.address, "/no/such/page").await.starts_with("HTTP/1.1 404 "));
    assert!(get(running.address, "/v1/hello").await.ends_with("hello"));

    let name = running.door.add(b"an object");
    assert!(get(running.address, &format!("/v1/objects/{name}?key=1")).await.ends_with("an object"));
    let refused = get(running.address, "/v1/objects/refused").await;
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.ends_with("the URL has expired"), "{refused}");
    let long = "x".repeat(5000);
    assert!(get(running.address, &format!("/v1/objects/{long}")).await.starts_with("HTTP/1.1 414 "));

    running.stop.send(()).unwrap();
    timeout(PATIENCE, running.served).await.unwrap().unwrap().unwrap();
    assert_eq!(TcpStream::connect(running.address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let error = bind(first.address()).await.unwrap_err();
    assert_eq!(error, BindError::InUse { address: first.address() });
    assert!(error.to_string().contains("choose another port"));
}

#[tokio::test]
async fn where_no_server_is_the_error_says_so() {
    for bad in
        ["", "host", "host:", ":1", "host:port", "host:0", "https://host:1", "http://host:1/path", "a b:1"]
    {
        let error = connect(bad, PATIENCE).await.unwrap_err();
        assert!(matches!(error, ConnectError::Address { .. }), "{bad:?}: {error}");
    }
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let error = connect(&closed.to_string(), PATIENCE).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.to_string().to_lowercase().contains("refused"), "{error}");
    // One that accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let channel = connect(&address, ms(300)).await;
    if let Ok(channel) = channel {
        // HTTP/2 lets a client begin before the server has spoken.
        let call = async { HealthClient::new(channel).check(HealthCheckRequest::default()).await };
        assert!(timeout(ms(300), call).await.map_or(true, |answer| answer.is_err()));
    }
}

#[tokio::test]
async fn an_idle_call_does_not_outlast_the_grace() {
    let running = serve().await;
    let channel = connect(&running.address.to_string(), PATIENCE).await.unwrap();
    let mut watched = HealthClient::new(channel)
        .watch(HealthCheckRequest { service: String::new() })
        .await
        .unwrap()
        .into_inner();
    assert!(watched.message().await.unwrap().is_some());
    running.stop.send(()).unwrap();
    timeout(PATIENCE, running.served).await.unwrap().unwrap().unwrap();
    while let Ok(Some(_)) = watched.message().await {}
}

/// Both ends of a crowd of sockets are in this process.
fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

#[tokio::test]
async fn a_crowd_of_silent_sockets_keeps_nobody_out() {
    allow_many_files();
    let running = serve().await;
    let mut first = TcpStream::connect(running.address).await.unwrap();
    let mut asker = TcpStream::connect(running.address).await.unwrap();
    asker.write_all(b"GET /v1/hello HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    asker.read_exact(&mut answer).await.unwrap();
    let mut crowd = Vec::new();
    for _ in 0..=world::limits::UNASKED_MAX {
        crowd.push(TcpStream::connect(running.address).await.unwrap());
    }
    // Served at once, though all others only wait for their first byte to be due.
    let served = timeout(ms(5_000), get(running.address, "/v1/hello")).await.unwrap();
    assert!(served.ends_with("hello"), "{served}");
    let cut = timeout(ms(5_000), first.read(&mut answer)).await.unwrap();
    assert!(matches!(cut, Ok(0) | Err(_)), "the oldest silent one had to go: {cut:?}");
    let mut rest = [0; 4096];
    let _headers = asker.read(&mut rest).await.unwrap();
    asker.write_all(b"GET /v1/hello HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let read = timeout(ms(5_000), asker.read(&mut rest)).await.unwrap().unwrap();
    assert!(rest[..read].starts_with(b"HTTP/1.1 200"), "whoever asked keeps the connection");
}

#[tokio::test]
async fn files_go_up_and_come_down() {
    let running = serve().await;
    let disk = disk("both-ways");
    let transfer = HttpTransfer::new(TransferLimits { chunk_bytes: 100_000, ..TransferLimits::default() });
    for len in [0, 1, 65_536, 65_537, 1_000_000] {
        let data = bytes(len);
        write(&disk, &format!("up-{len}"), &data);
        let url = format!("http://{}/v1/objects/{}?sig=abc", running.address, digest(&data));
        transfer.put(&url, disk.clone(), &format!("up-{len}")).await.unwrap();
        let down = format!("down-{len}");
        assert_eq!(transfer.get(&url, disk.clone(), &down, &digest(&data)).await.unwrap(), len as u64);
        assert_eq!(read_all(&*disk, &down, 1 << 30).unwrap(), data);
    }
    assert_eq!(*running.door.open_sinks.lock().unwrap(), 0);
    let names: Vec<_> = disk.list("").unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(!names.iter().any(|name| name.contains("part")), "{names:?}");
}

#[tokio::test]
async fn an_upload_that_is_being_verified_is_waited_for_within_limits() {
    let running = serve().await;
    let disk = disk("verified");
    let pause = Duration::from_millis(1);
    let patient = TransferLimits { verify_pause: pause, ..TransferLimits::default() };
    for len in [10, 2_000_000] {
        let data = bytes(len);
        write(&disk, &format!("up-{len}"), &data);
        let url = format!("http://{}/v1/objects/{}", running.address, digest(&data));
        *running.door.verified_after.lock().unwrap() = 20;
        HttpTransfer::new(patient).put(&url, disk.clone(), &format!("up-{len}")).await.unwrap();
        assert!(running.door.objects.lock().unwrap().contains_key(&digest(&data)));
    }
    assert_eq!(*running.door.received.lock().unwrap(), 2_000_010, "nothing was sent twice");
    // One that never comes to an end.
    *running.door.verified_after.lock().unwrap() = u32::MAX;
    let data = bytes(11);
    write(&disk, "up", &data);
    let url = format!("http://{}/v1/objects/{}", running.address, digest(&data));
    let short = TransferLimits { verify: Duration::from_millis(5), ..patient };
    let error = HttpTransfer::new(short).put(&url, disk.clone(), "up").await.unwrap_err();
    assert!(matches!(error, TransferError::Network(_)), "{error}");
    // Others are told so that they try again.
    let asked = format!(
        "PUT /v1/objects/{} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-range: bytes */11\r\nconnection: close\r\n\r\n",
        digest(&data)
    );
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
}

#[tokio::test]
async fn refusals_and_failures_arrive_as_they_were_meant() {
    let running = serve().await;
    let disk = disk("refused");
    let transfer = HttpTransfer::new(TransferLimits::default());
    let refused = TransferError::Refused { status: 403, reason: "the URL has expired".into() };
    let broken = TransferError::Server { status: 503, reason: "no disk".into() };
    let url = |name: &str| format!("http://{}/v1/objects/{name}", running.address);
    // Small ones are sent along, large ones ask first and cost nothing.
    for len in [10, 60_000, 50_000_000] {
        write(&disk, "file", &bytes(len));
        assert_eq!(transfer.put(&url("refused"), disk.clone(), "file").await.unwrap_err(), refused);
        assert_eq!(transfer.put(&url("broken"), disk.clone(), "file").await.unwrap_err(), broken);
    }
    let busy = TransferError::Busy { status: 503, reason: "too many".into(), after_ms: Some(7_000) };
    assert_eq!(transfer.put(&url("busy"), disk.clone(), "file").await.unwrap_err(), busy);
    assert_eq!(transfer.get(&url("busy"), disk.clone(), "x", "").await.unwrap_err(), busy);
    assert_eq!(*running.door.received.lock().unwrap(), 0);
    assert_eq!(transfer.get(&url("refused"), disk.clone(), "x", "").await.unwrap_err(), refused);
    assert_eq!(transfer.get(&url("broken"), disk.clone(), "x", "").await.unwrap_err(), broken);
    let missing = transfer.get(&url("00"), disk.clone(), "x", "").await.unwrap_err();
    assert_eq!(missing, TransferError::Refused { status: 404, reason: "no such object".into() });
    let error = transfer.put("ftp://host/file", disk.clone(), "file").await.unwrap_err();
    assert!(matches!(error, TransferError::Refused { status: 400, .. }), "{error}");
    let error = transfer.put(&url("00"), disk.clone(), "absent").await.unwrap_err();
    assert!(matches!(error, TransferError::Disk(_)), "{error}");
}

#[tokio::test]
async fn wrong_bytes_are_never_taken() {
    let running = serve().await;
    let disk = disk("wrong");
    let transfer = HttpTransfer::new(TransferLimits::default());
    let (data, other) = (bytes(100_000), bytes(99_999));
    write(&disk, "file", &other);
    let url = format!("http://{}/v1/objects/{}", running.address, digest(&data));
    let due = TransferError::Digest { expected: digest(&data), found: digest(&other) };
    assert_eq!(transfer.put(&url, disk.clone(), "file").await.unwrap_err(), due);
    assert!(running.door.objects.lock().unwrap().is_empty());

    let name = running.door.add(&other);
    let url = format!("http://{}/v1/objects/{name}", running.address);
    assert_eq!(transfer.get(&url, disk.clone(), "down", &digest(&data)).await.unwrap_err(), due);
    assert_eq!(disk.entry("down").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.entry("down.part").unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_broken_download_leaves_nothing() {
    let running = serve().await;
    let disk = disk("broken");
    let transfer = HttpTransfer::new(TransferLimits { idle: ms(500), ..TransferLimits::default() });
    let data = bytes(1_000_000);
    let name = running.door.add(&data);
    let url = format!("http://{}/v1/objects/{name}", running.address);
    let alter = |ends_at, fails_at| {
        let mut objects = running.door.objects.lock().unwrap();
        let object = objects.get_mut(&name).unwrap();
        (object.ends_at, object.fails_at) = (ends_at, fails_at);
    };
    for (ends_at, fails_at) in [(Some(500_000), None), (None, Some(700_000)), (Some(0), None)] {
        alter(ends_at, fails_at);
        let error = transfer.get(&url, disk.clone(), "down", &name).await.unwrap_err();
        assert!(matches!(error, TransferError::Network(_)), "{error}");
        assert_eq!(disk.list("").unwrap(), [], "nothing half stays");
    }
    alter(None, None);
    assert_eq!(transfer.get(&url, disk.clone(), "down", &name).await.unwrap(), 1_000_000);
}

/// The head of an answer in lower case, and its body.
async fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> (String, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n{headers}\r\n");
    let answer = raw(address, &request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn a_part_of_an_object_is_served_and_who_has_it_is_told_so() {
    let running = serve().await;
    let name = running.door.add(b"0123456789");
    let path = format!("/v1/objects/{name}?key=1");
    let get = async |headers: &str| ask(running.address, "GET", &path, headers).await;
    let tag = format!("\"{name}\"");

    let (head, body) = get("").await;
    assert!(head.starts_with("http/1.1 200 ") && head.contains("accept-ranges: bytes"), "{head}");
    assert!(head.contains(&format!("etag: {tag}")) && body == "0123456789", "{head}");
    for (range, told, bytes) in [("2-4", "2-4", "234"), ("7-", "7-9", "789"), ("-1", "9-9", "9")] {
        let (head, body) = get(&format!("range: bytes={range}\r\n")).await;
        assert!(head.starts_with("http/1.1 206 "), "{head}");
        assert!(head.contains(&format!("content-range: bytes {told}/10")), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", bytes.len())), "{head}");
        assert_eq!(body, bytes);
    }
    let (head, _) = get("range: bytes=10-\r\n").await;
    assert!(head.starts_with("http/1.1 416 ") && head.contains("content-range: bytes */10"), "{head}");
    let (head, body) = get(&format!("if-none-match: {tag}\r\n")).await;
    assert!(head.starts_with("http/1.1 304 ") && head.contains(&tag) && body.is_empty(), "{head}");
    let (head, body) = get(&format!("range: bytes=8-\r\nif-range: {tag}\r\n")).await;
    assert!(head.starts_with("http/1.1 206 ") && body == "89", "{head}");
    let (head, body) = get("range: bytes=8-\r\nif-range: \"other\"\r\n").await;
    assert!(head.starts_with("http/1.1 200 ") && body == "0123456789", "{head}");

    let head_of = async |headers: &str| ask(running.address, "HEAD", &path, headers).await;
    let (head, body) = head_of("range: bytes=8-\r\n").await;
    assert!(head.starts_with("http/1.1 200 ") && head.contains("content-length: 10"), "{head}");
    assert!(head.contains(&tag) && body.is_empty(), "{head}");
    let (head, _) = head_of(&format!("if-none-match: W/{tag}\r\n")).await;
    assert!(head.starts_with("http/1.1 304 "), "{head}");
    assert_eq!(*running.door.given.lock().unwrap(), 29, "what nobody asked for was not read");
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off() {
    let running = serve().await;
    let disk = disk("resumed");
    let limits = TransferLimits { chunk_bytes: 30_000, ..TransferLimits::default() };
    let transfer = HttpTransfer::new(limits);
    let data = bytes(1_000_000);
    let name = running.door.add(&data);
    let url = format!("http://{}/v1/objects/{name}", running.address);
    let wanted =
        Wanted { url: &url, path: "down", part: ".part", digest: &name, size_bytes: data.len() as u64 };
    let alter = |ends_at, fails_at| {
        let mut objects = running.door.objects.lock().unwrap();
        let object = objects.get_mut(&name).unwrap();
        (object.ends_at, object.fails_at) = (ends_at, fails_at);
    };
    let mut there = 0;
    for (ends_at, fails_at) in [(Some(400_000), None), (None, Some(700_000)), (Some(900_000), None)] {
        alter(ends_at, fails_at);
        let error = transfer.resume(disk.clone(), &wanted).await.unwrap_err();
        assert!(matches!(error, TransferError::Network(_)), "{error}");
        assert_eq!(disk.entry("down").unwrap_err().kind(), ErrorKind::NotFound, "nothing half is seen");
        let len = disk.entry(".part").unwrap().len;
        assert!(len > there, "{len} after {there}");
        there = len;
    }
    alter(None, None);
    assert_eq!(transfer.resume(disk.clone(), &wanted).await.unwrap(), 1_000_000);
    assert_eq!(read_all(&*disk, "down", 1 << 30).unwrap(), data);
    // A break throws away what its buffers held, no more: from the start it were 3,000,000.
    let given = *running.door.given.lock().unwrap();
    assert!((1_000_000..2_000_000).contains(&given), "{given}");
    assert_eq!(disk.list("").unwrap().len(), 1, "the part took its place");

    // Of all that came but its name nothing is asked for again.
    write(&disk, ".part", &data);
    assert_eq!(transfer.resume(disk.clone(), &wanted).await.unwrap(), 1_000_000);
    assert_eq!(*running.door.given.lock().unwrap(), given);
}

#[tokio::test]
async fn a_part_that_is_of_something_else_is_begun_anew() {
    let running = serve().await;
    let disk = disk("resumed-other");
    let transfer = HttpTransfer::new(TransferLimits::default());
    let data = bytes(100_000);
    let name = running.door.add(&data);
    let url = format!("http://{}/v1/objects/{name}", running.address);
    let wanted = Wanted { url: &url, path: "down", part: ".part", digest: &name, size_bytes: 100_000 };
    for wrong in [bytes(40_000).iter().map(|byte| byte ^ 1).collect(), vec![0; 100_000], vec![0; 100_001]] {
        write(&disk, ".part", &wrong);
        assert_eq!(transfer.resume(disk.clone(), &wanted).await.unwrap(), 100_000, "{}", wrong.len());
        assert_eq!(read_all(&*disk, "down", 1 << 30).unwrap(), data);
        disk.remove("down").unwrap();
    }
    // The object itself is another: what came of it is not kept.
    let other = Wanted { digest: &digest(b"other"), ..wanted };
    let error = transfer.resume(disk.clone(), &other).await.unwrap_err();
    assert!(matches!(error, TransferError::Digest { .. }), "{error}");
    assert_eq!(disk.list("").unwrap(), []);
    // One command at a time.
    write(&disk, ".part", &data[..10]);
    let held = disk.open(".part", OpenMode::Write).unwrap();
    assert!(held.try_lock().unwrap());
    let error = transfer.resume(disk.clone(), &wanted).await.unwrap_err();
    assert!(matches!(&error, TransferError::Disk(why) if why.contains("another command")), "{error}");
    drop(held);
    assert_eq!(transfer.resume(disk.clone(), &wanted).await.unwrap(), 100_000);
}

#[tokio::test]
async fn an_upload_goes_on_where_it_broke_off() {
    let running = serve().await;
    let disk = disk("up-resumed");
    let limits =
        TransferLimits { chunk_bytes: 30_000, resume_above_bytes: 99_999, ..TransferLimits::default() };
    let transfer = HttpTransfer::new(limits);
    let data = bytes(1_000_000);
    let name = digest(&data);
    let url = format!("http://{}/v1/objects/{name}", running.address);
    write(&disk, "up", &data);
    let received = || std::mem::take(&mut *running.door.received.lock().unwrap());
    let part = |bytes: &[u8]| running.door.parts.lock().unwrap().insert(name.clone(), bytes.to_vec());
    let away = Arc::default();
    part(&data[..654_321]);
    transfer.put_watched(&url, disk.clone(), "up", &away).await.unwrap();
    assert_eq!((received(), away.load(Ordering::Relaxed)), (1_000_000 - 654_321, 1_000_000));
    // It is there: nobody sends it.
    transfer.put(&url, disk.clone(), "up").await.unwrap();
    assert_eq!(received(), 0);
    // What is there is of other bytes: all is sent, and once.
    running.door.objects.lock().unwrap().clear();
    part(&[0; 600_000]);
    transfer.put(&url, disk.clone(), "up").await.unwrap();
    assert_eq!(received(), 400_000 + 1_000_000);
    // But for bytes that were never those of the digest.
    let url = format!("http://{}/v1/objects/{}", running.address, digest(b"other"));
    let error = transfer.put(&url, disk.clone(), "up").await.unwrap_err();
    assert!(matches!(error, TransferError::Digest { .. }), "{error}");
    assert_eq!(received(), 1_000_000);
}

#[tokio::test]
async fn an_upload_in_pieces_is_told_what_is_there() {
    let running = serve().await;
    let name = digest(b"0123456789");
    let path = format!("/v1/objects/{name}");
    let put = async |range: &str, body: &str| {
        let headers = format!("content-range: {range}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let request = format!("PUT {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n{headers}");
        raw(running.address, &request).await.to_lowercase()
    };
    let there = |answer: &str| {
        assert!(answer.starts_with("http/1.1 308 "), "{answer}");
        answer.lines().find_map(|line| line.strip_prefix("range: ")).map(str::to_owned)
    };
    assert_eq!(there(&put("bytes */10", "").await), None);
    assert_eq!(there(&put("bytes 0-3/10", "0123").await).as_deref(), Some("bytes=0-3"));
    assert_eq!(there(&put("bytes */10", "").await).as_deref(), Some("bytes=0-3"));
    let answer = put("bytes 5-9/10", "56789").await;
    assert!(answer.starts_with("http/1.1 409 "), "{answer}");
    for nonsense in ["bytes 4-9", "4-9/10", "bytes 9-4/10", "bytes 4-10/10"] {
        let answer = put(nonsense, "456789").await;
        assert!(answer.starts_with("http/1.1 400 ") && answer.contains("bytes */size"), "{answer}");
    }
    assert!(put("bytes 4-9/10", "456789").await.starts_with("http/1.1 201 "));
    assert!(put("bytes */10", "").await.starts_with("http/1.1 200 "));
    assert_eq!(*running.door.received.lock().unwrap(), 10);
}

#[tokio::test]
async fn a_silent_server_costs_the_idle_limit() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/objects/00", silent.local_addr().unwrap());
    let disk = disk("silent");
    let limits = TransferLimits { idle: ms(200), finish: ms(300), ..TransferLimits::default() };
    let transfer = HttpTransfer::new(limits);
    let error = transfer.get(&url, disk.clone(), "x", "").await.unwrap_err();
    assert!(matches!(&error, TransferError::Network(why) if why.contains("no progress")), "{error}");
    write(&disk, "small", &bytes(1000));
    write(&disk, "large", &bytes(20_000_000));
    for file in ["small", "large"] {
        let error = timeout(PATIENCE, transfer.put(&url, disk.clone(), file)).await.unwrap().unwrap_err();
        assert!(
            matches!(&error, TransferError::Network(why) if why.contains("no progress")),
            "{file}: {error}"
        );
    }
}

#[tokio::test]
async fn an_upload_cut_short_is_not_taken() {
    let running = serve().await;
    let name = digest(b"0123456789");
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = format!("PUT /v1/objects/{name} HTTP/1.1\r\nhost: here\r\ncontent-length: 10\r\n\r\n01234");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _reset = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 2"));
    assert!(running.door.objects.lock().unwrap().is_empty());
    // The sink is dropped with its request.
    running.stop.send(()).unwrap();
    timeout(PATIENCE, running.served).await.unwrap().unwrap().unwrap();
    assert_eq!(*running.door.open_sinks.lock().unwrap(), 0);
}
