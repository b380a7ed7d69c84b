//! The conformance suite over every store that runs natively.

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::conformance::{Subject, run_all};
use store::{OpenOptions, RedbStore, RemoteStore, RowsService, Store};
use support::{ManualClock, pass_of};
use world::grpc::{Server, bind, connect};
use world::real::FsDisk;
use world::sim::HostileDisk;
use world::time::Duration;
use world::{Disk, NodeClock};

const SMALL: OpenOptions = OpenOptions { cache_bytes: 1 << 20, drop_leases: false, verify: true };

async fn embedded(disk: Arc<dyn Disk>, path: &str) -> Subject {
    let clock = Arc::new(ManualClock::default());
    let store =
        RedbStore::open_with(disk, path, Arc::clone(&clock) as Arc<dyn NodeClock>, SMALL).await.unwrap();
    Subject { store, pass: pass_of(&clock) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_in_memory() {
    for seed in 0..4 {
        run_all(async || embedded(HostileDisk::new(seed).handle(), "store.redb").await, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_on_a_real_disk() {
    let disk = FsDisk::open(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    disk.remove_dir_all("conformance").unwrap();
    let count = AtomicU64::new(0);
    let make = async || {
        let path = format!("conformance/{}/store.redb", count.fetch_add(1, Ordering::Relaxed));
        embedded(Arc::clone(&disk) as Arc<dyn Disk>, &path).await
    };
    run_all(make, 11).await;
    disk.remove_dir_all("conformance").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_over_the_network() {
    let make = async || {
        let subject = embedded(HostileDisk::new(5).handle(), "store.redb").await;
        Subject { store: over_the_network(subject.store).await, pass: subject.pass }
    };
    run_all(make, 12).await;
}

async fn over_the_network(store: Arc<dyn Store>) -> Arc<dyn Store> {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address().to_string();
    let rows = proto::v1::rows_server::RowsServer::new(RowsService::new(store));
    world::task::spawn(Server::new().service(rows).serve(listener, std::future::pending()));
    RemoteStore::new(connect(&address, Duration::from_secs(10)).await.unwrap())
}
