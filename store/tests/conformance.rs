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

async fn embedded(disk: Arc<dyn Disk>, path: String) -> Subject {
    let clock = Arc::new(ManualClock::default());
    let store =
        RedbStore::open_with(disk, &path, Arc::clone(&clock) as Arc<dyn NodeClock>, SMALL).await.unwrap();
    Subject { store, pass: pass_of(&clock) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_in_memory() {
    for seed in 0..4 {
        let make = move || Box::pin(embedded(HostileDisk::new(seed).handle(), "store.redb".to_owned())) as _;
        // A task, as the simulator runs it.
        world::task::spawn(run_all(Box::new(make), seed)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_on_a_real_disk() {
    let disk: Arc<dyn Disk> = FsDisk::open(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    disk.remove_dir_all("conformance").unwrap();
    let (files, count) = (Arc::clone(&disk), AtomicU64::new(0));
    let make = move || {
        let path = format!("conformance/{}/store.redb", count.fetch_add(1, Ordering::Relaxed));
        Box::pin(embedded(Arc::clone(&files), path)) as _
    };
    run_all(Box::new(make), 11).await;
    disk.remove_dir_all("conformance").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_over_the_network() {
    let make = || {
        Box::pin(async {
            let subject = embedded(HostileDisk::new(5).handle(), "store.redb".to_owned()).await;
            Subject { store: over_the_network(subject.store).await, pass: subject.pass }
        }) as _
    };
    run_all(Box::new(make), 12).await;
}

async fn over_the_network(store: Arc<dyn Store>) -> Arc<dyn Store> {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address().to_string();
    let rows = proto::v1::rows_server::RowsServer::new(RowsService::new(store));
    world::task::spawn(Server::new().service(rows).serve(listener, std::future::pending()));
    RemoteStore::new(connect(&address, Duration::from_secs(10)).await.unwrap())
}
