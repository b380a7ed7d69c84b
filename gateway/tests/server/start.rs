//! How a server starts, starts again, and says why it cannot.

use crate::support::{Client, TestDir, serve, serve_at, submission};
use gateway::server::{ServerConfig, ServerParts, StartError, start};
use prost::Message;
use proto::v1::{FormatRow, JobRequest};
use std::sync::Arc;
use store::{Commit, RedbStore, Store};
use world::disk::read_all;
use world::real::SystemClock;
use world::sim::{DiskFaults, HostileDisk};
use world::time;

fn client_env(dir: &TestDir) -> (String, u32) {
    let disk = dir.disk();
    let text = String::from_utf8(read_all(&*disk, "client.env", 4096).unwrap()).unwrap();
    (text, disk.entry("client.env").unwrap().mode)
}

#[tokio::test]
async fn client_env_tells_address_and_token_and_the_token_stays() {
    let dir = TestDir::new();
    let first = serve(&dir).await.unwrap();
    let (address, token) = (first.address.clone(), first.token.clone());
    assert_eq!(
        client_env(&dir),
        (format!("export DRUMLINE_SERVER={address}\nexport DRUMLINE_TOKEN={token}\n"), 0o600)
    );
    assert!(token.starts_with("dl_") && address.starts_with("http://127.0.0.1:"));
    let mut client = Client::new(&first, &token).await;
    let request = client.request(submission("kept", ""));
    let number = client.grpc.submit(request).await.unwrap().into_inner().number;
    drop(client);
    first.stop().await;

    let second = serve(&dir).await.unwrap();
    assert_eq!(second.token, token);
    let mut client = Client::new(&second, &token).await;
    let request = client.request(JobRequest { tenant: String::new(), number });
    let view = client.grpc.get_job(request).await.unwrap().into_inner();
    assert_eq!(view.job.unwrap().spec.unwrap().name, "kept");
    drop(client);
    second.stop().await;

    // Lost or altered, a new token takes its place.
    dir.disk().remove("client.env").unwrap();
    let third = serve(&dir).await.unwrap();
    assert_ne!(third.token, token);
    assert!(client_env(&dir).0.contains(&third.token));
    third.stop().await;
}

#[tokio::test]
async fn a_data_directory_has_one_server() {
    let dir = TestDir::new();
    let first = serve(&dir).await.unwrap();
    let error = serve(&dir).await.unwrap_err();
    assert!(matches!(error, StartError::DataInUse { .. }), "{error:?}");
    assert!(error.to_string().contains("in use by another server"), "{error}");
    first.stop().await;
    serve(&dir).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (one, two) = (TestDir::new(), TestDir::new());
    let first = serve(&one).await.unwrap();
    let address = first.listening.to_string();
    let error = serve_at(&two, &address).await.unwrap_err();
    assert!(matches!(error, StartError::Port(_)), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
    // The directory was let go again.
    serve(&two).await.unwrap().stop().await;
    first.stop().await;
}

/// After a failed sync nobody knows what is durable before the file is opened
/// anew. So the server ends, and whoever started it sees that.
#[tokio::test]
async fn a_server_whose_store_failed_ends_and_the_next_one_has_all() {
    let disk = HostileDisk::new(1);
    let begin = || {
        start(ServerParts {
            disk: disk.handle(),
            clock: Arc::new(SystemClock::new()),
            listen: "127.0.0.1:0".parse().unwrap(),
            config: ServerConfig { stop_grace_ms: 100, ..ServerConfig::default() },
            shared: None,
        })
    };
    let mut first = begin().await.unwrap();
    let mut client = Client::new(&first, &first.token).await;
    let request = client.request(submission("kept", ""));
    let number = client.grpc.submit(request).await.unwrap().into_inner().number;
    disk.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::default() });
    let mut unsure = client.clone();
    let asked = world::task::spawn(async move {
        let request = unsure.request(submission("unsure", ""));
        unsure.grpc.submit(request).await.is_ok()
    });
    time::timeout(time::ms(20_000), first.ended()).await.expect("it ends by itself");
    assert!(!asked.await.unwrap(), "nothing was durable");
    drop((client, first));
    disk.set_faults(DiskFaults::default());
    disk.fence();
    let second = begin().await.unwrap();
    let mut client = Client::new(&second, &second.token).await;
    let request = client.request(JobRequest { tenant: String::new(), number });
    let view = client.grpc.get_job(request).await.unwrap().into_inner();
    assert_eq!(view.job.unwrap().spec.unwrap().name, "kept");
}

async fn with_store(dir: &TestDir, commit: impl FnOnce(Commit) -> Commit) {
    let clock = Arc::new(SystemClock::new());
    let store = RedbStore::open(dir.disk(), "store.redb", clock).await.unwrap();
    store.commit(commit(Commit::new())).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn data_of_a_newer_version_is_left_alone() {
    let dir = TestDir::new();
    let row = FormatRow { version: 2, signing_key: vec![1].into(), ..FormatRow::default() };
    with_store(&dir, |commit| commit.put(proto::keys::format(), row.encode_to_vec())).await;
    let error = serve(&dir).await.unwrap_err();
    assert!(matches!(error, StartError::NewerFormat { found: 2, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("format 2") && text.contains("up to 1"), "{text}");
}

#[tokio::test]
async fn damage_is_called_damage() {
    let dir = TestDir::new();
    let file = dir.disk().open("store.redb", world::disk::OpenMode::CreateNew).unwrap();
    file.write_at(0, &[0x5a; 8192]).unwrap();
    let error = serve(&dir).await.unwrap_err();
    assert!(matches!(error, StartError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("damaged"), "{error}");

    let dir = TestDir::new();
    with_store(&dir, |commit| commit.put(proto::keys::format(), &b"\xff\xff"[..])).await;
    let error = serve(&dir).await.unwrap_err();
    assert!(matches!(error, StartError::Damaged { .. }), "{error:?}");
}
