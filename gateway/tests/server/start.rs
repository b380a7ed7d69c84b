//! How a server starts, starts again, and says why it cannot.

use crate::support::{Client, TestDir, serve, serve_at, submission};
use gateway::server::StartError;
use prost::Message;
use proto::v1::{FormatRow, JobRequest};
use std::sync::Arc;
use store::{Commit, RedbStore, Store};
use world::disk::read_all;
use world::real::SystemClock;

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
