//! The store's conformance suite over the simulated network: redb on a hostile
//! disk on one node, its client on another. Nothing breaks: the suite is for a healthy
//! store.
//!
//! The suite panics where the store does not do what every store must; a panic
//! ends the run as broken.

use crate::trace::Trace;
use proto::v1::rows_server::RowsServer;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use store::conformance::{Make, Pass, Subject, run_all};
use store::{RedbStore, RemoteStore, RowsService};
use world::sim::universe::{self, Net};
use world::sim::{HostileDisk, SkewedClock};
use world::{grpc, time};

const PORT: u16 = 7071;
/// Between the store's node being made and its first call at most.
const START: time::Duration = time::Duration::from_secs(10);

/// Runs the whole suite on a client's node.
pub async fn conform(seed: u64, trace: Trace) {
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    universe::set_net(&Net::default());
    let client = universe::create_node("client", ip, std::future::pending);
    let made = Arc::new(AtomicU32::new(0));
    let told = trace.clone();
    let make: Make = Box::new(move || {
        let number = made.fetch_add(1, Ordering::Relaxed);
        told.tell(&format!("store {number}"));
        Box::pin(subject(seed, number))
    });
    universe::spawn_on(client, run_all(make, seed)).await.expect("the client's node is never killed");
    trace.tell("the suite is done");
}

/// A fresh store on a node of its own, seen through the network.
async fn subject(seed: u64, number: u32) -> Subject {
    let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 2, 0)) + number + 1);
    let disk = Arc::new(HostileDisk::new(seed ^ u64::from(number)));
    let (clock, _) = SkewedClock::pair(0);
    let init = move || serve(Arc::clone(&disk), Arc::clone(&clock), SocketAddr::from((ip, PORT)));
    universe::create_node(&format!("store-{number}"), IpAddr::V4(ip), init);
    let address = format!("{ip}:{PORT}");
    let begun = universe::elapsed();
    let channel = loop {
        match grpc::connect(&address, time::ms(500)).await {
            Ok(channel) => break channel,
            Err(error) => assert!(universe::elapsed() - begun < START, "no store at {address}: {error}"),
        }
        time::sleep(time::ms(20)).await;
    };
    let pass: Pass = Arc::new(|span_ms| -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(time::sleep(time::ms(span_ms)))
    });
    Subject { store: RemoteStore::new(channel), pass }
}

async fn serve(disk: Arc<HostileDisk>, clock: Arc<SkewedClock>, address: SocketAddr) {
    let store =
        RedbStore::open(disk.handle(), "store.redb", clock).await.expect("a fresh disk takes a store");
    let listener = grpc::bind(address).await.expect("a fresh node has its ports");
    let server = grpc::Server::new()
        .messages(gateway::server::messages())
        .service(RowsServer::new(RowsService::new(store)));
    server.serve(listener, std::future::pending()).await.expect("nothing closes this network");
}
