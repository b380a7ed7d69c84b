//! The networked store where the link or the other side fails it.

mod support;

use async_trait::async_trait;
use std::sync::Arc;
use store::{
    Commit, CommitError, Key, LeaseId, Notice, OpenOptions, Page, RangeRequest, ReadError, RedbStore,
    RemoteStore, Revision, Row, RowsService, Store, Watch,
};
use support::ManualClock;
use world::grpc::{Channel, Server, bind, connect};
use world::sim::HostileDisk;
use world::task::{JoinHandle, spawn};
use world::time::{Duration, ms};

async fn serve(store: Arc<dyn Store>) -> (Channel, JoinHandle<()>) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address().to_string();
    let rows = proto::v1::rows_server::RowsServer::new(RowsService::new(store));
    let server = spawn(async move {
        Server::new().service(rows).serve(listener, std::future::pending()).await.unwrap();
    });
    (connect(&address, Duration::from_secs(10)).await.unwrap(), server)
}

/// A store that never answers a commit and keeps an empty watch open.
#[derive(Debug)]
struct Stuck;

#[async_trait]
impl Store for Stuck {
    async fn commit(&self, _: Commit) -> Result<Revision, CommitError> {
        std::future::pending().await
    }
    async fn range(&self, _: RangeRequest) -> Result<Page, ReadError> {
        std::future::pending().await
    }
    async fn get(&self, _: Key) -> Result<Option<Row>, ReadError> {
        std::future::pending().await
    }
    async fn watch(&self, _: Key) -> Result<Watch, ReadError> {
        std::future::pending().await
    }
    async fn lease(&self, _: &str, _: u64) -> Result<LeaseId, CommitError> {
        std::future::pending().await
    }
    async fn keep(&self, _: LeaseId) -> Result<(), CommitError> {
        std::future::pending().await
    }
    async fn revoke(&self, _: LeaseId) -> Result<(), CommitError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn every_call_has_a_deadline() {
    let (channel, _server) = serve(Arc::new(Stuck)).await;
    let store = RemoteStore::with_deadline(channel, ms(50));
    let commit = || store.commit(Commit::new().put("a", "1"));
    assert!(matches!(commit().await, Err(CommitError::Indeterminate(_))));
    assert!(matches!(store.get("a".into()).await, Err(ReadError::Unavailable(_))));
    assert!(matches!(store.range(RangeRequest::below(b"a", 1)).await, Err(ReadError::Unavailable(_))));
    assert!(matches!(store.watch("a".into()).await, Err(ReadError::Unavailable(_))));
    assert!(matches!(store.lease("me", 1).await, Err(CommitError::Indeterminate(_))));
    assert!(matches!(store.keep(1).await, Err(CommitError::Indeterminate(_))));
    assert!(matches!(store.revoke(1).await, Err(CommitError::Indeterminate(_))));
    // Whoever waits in line for longer than that was never sent.
    let outcomes = futures_util::future::join_all((0..4).map(|_| commit())).await;
    assert!(matches!(outcomes[0], Err(CommitError::Indeterminate(_))));
    assert!(
        outcomes[3..].iter().all(|outcome| matches!(outcome, Err(CommitError::Unavailable(_)))),
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn a_store_that_is_gone_is_told_from_an_answer_that_is_lost() {
    let disk = HostileDisk::new(1);
    let options = OpenOptions { cache_bytes: 1 << 20, ..OpenOptions::default() };
    let clock = Arc::new(ManualClock::default());
    let inner = RedbStore::open_with(disk.handle(), "store.redb", clock, options).await.unwrap();
    let (channel, server) = serve(Arc::clone(&inner) as _).await;
    let store = RemoteStore::new(channel);
    store.commit(Commit::new().put("a", "1")).await.unwrap();
    let mut watch = store.watch(Key::new()).await.unwrap();

    // A store that is closed says so itself: nothing happened, and that is sure.
    let mut own = inner.watch(Key::new()).await.unwrap();
    inner.close().await;
    assert_eq!(own.notices.recv().await, Some(Notice::Lagged));
    assert_eq!(watch.notices.recv().await, Some(Notice::Lagged));
    assert_eq!(watch.notices.recv().await, None);
    assert!(matches!(store.commit(Commit::new().put("a", "2")).await, Err(CommitError::Unavailable(_))));

    // Its node is gone: the first calls may lose their answers on the broken
    // connection, soon nobody listens any more.
    server.abort();
    let mut outcome = store.commit(Commit::new().put("a", "3")).await;
    for _ in 0..20 {
        match outcome {
            Err(CommitError::Unavailable(_)) => break,
            Err(CommitError::Indeterminate(_)) => {}
            other => panic!("{other:?}"),
        }
        outcome = store.commit(Commit::new().put("a", "3")).await;
    }
    assert!(matches!(&outcome, Err(CommitError::Unavailable(why)) if why.contains("link")), "{outcome:?}");
    assert!(matches!(store.get("a".into()).await, Err(ReadError::Unavailable(_))));
}

#[tokio::test]
async fn a_watch_whose_link_breaks_lags() {
    let disk = HostileDisk::new(2);
    let inner = RedbStore::open(disk.handle(), "store.redb", Arc::new(ManualClock::default())).await.unwrap();
    let (channel, server) = serve(Arc::clone(&inner) as _).await;
    let store = RemoteStore::new(channel);
    let mut watch = store.watch(Key::new()).await.unwrap();
    inner.commit(Commit::new().put("a", "1")).await.unwrap();
    assert!(matches!(watch.notices.recv().await, Some(Notice::Changed { .. })));
    server.abort();
    assert_eq!(watch.notices.recv().await, Some(Notice::Lagged));
    assert_eq!(watch.notices.recv().await, None);
}
