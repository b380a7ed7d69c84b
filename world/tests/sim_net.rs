//! Simulated transfers, clocks and (under madsim) calls.

mod common;

use common::{MemoryDoor, Shared, bytes, digest};
use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};
use world::{
    Disk, NodeClock, Transfer,
    disk::{OpenMode, read_all},
    sim::{HostileDisk, SimObjects, SimTransfer, SkewedClock, TransferCounts, TransferFaults},
    transfer::{Fetching, TransferError},
};

#[cfg(not(madsim))]
fn run<F: Future>(story: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(story)
}

#[cfg(madsim)]
fn run<F: Future>(story: F) -> F::Output {
    madsim::runtime::Runtime::new().block_on(story)
}

const CALM: TransferFaults = TransferFaults {
    break_ppm: 0,
    lost_reply_ppm: 0,
    truncate_ppm: 0,
    corrupt_ppm: 0,
    slow_ppm: 0,
    slow_ms: 1,
    latency_ms_min: 0,
    latency_ms_max: 0,
};
const ALWAYS: u32 = 1_000_000;

struct Place {
    objects: Arc<SimObjects>,
    door: Arc<MemoryDoor>,
    transfer: Arc<SimTransfer>,
    disk: Arc<dyn Disk>,
}

fn place(seed: u64) -> Place {
    let objects = SimObjects::new();
    let transfer = SimTransfer::new(objects.clone(), "agent-1", seed);
    transfer.set_faults(CALM);
    Place { objects, door: MemoryDoor::new(), transfer, disk: HostileDisk::new(seed).handle() }
}

impl Place {
    fn file(&self, path: &str, data: &[u8]) -> String {
        self.disk.open(path, OpenMode::CreateOrWrite).unwrap().write_at(0, data).unwrap();
        format!("http://server:7700/v1/objects/{}?sig=1", digest(data))
    }

    async fn put(&self, url: &str, path: &str) -> Result<(), TransferError> {
        self.transfer.put(url, self.disk.clone(), path).await
    }

    async fn get(&self, url: &str, digest: &str) -> Result<u64, TransferError> {
        self.transfer.get(url, self.disk.clone(), "down", digest).await
    }
}

#[test]
fn a_calm_network_moves_files_both_ways() {
    run(async {
        let place = place(1);
        let _serving = place.objects.register("server:7700", Arc::new(Shared(place.door.clone())));
        for len in [0, 1, 65_536, 300_000] {
            let data = bytes(len);
            let url = place.file(&format!("up-{len}"), &data);
            place.put(&url, &format!("up-{len}")).await.unwrap();
            assert_eq!(place.get(&url, &digest(&data)).await.unwrap(), len as u64);
            assert_eq!(read_all(&*place.disk, "down", 1 << 20).unwrap(), data);
        }
        let error = place.get("http://server:7700/v1/objects/refused", "").await.unwrap_err();
        assert_eq!(error, TransferError::Refused { status: 403, reason: "the URL has expired".into() });
        let error = place.get("https://server:7700/v1/objects/x", "").await.unwrap_err();
        assert!(matches!(error, TransferError::Refused { status: 400, .. }));
        assert_eq!(place.transfer.counts(), TransferCounts { begun: 9, ..TransferCounts::default() });
    });
}

#[test]
fn every_fault_surfaces_as_the_error_it_is() {
    run(async {
        let place = place(2);
        let _serving = place.objects.register("server:7700", Arc::new(Shared(place.door.clone())));
        let data = bytes(300_000);
        let url = place.file("up", &data);
        let name = digest(&data);

        place.transfer.set_faults(TransferFaults { corrupt_ppm: ALWAYS, ..CALM });
        let error = place.put(&url, "up").await.unwrap_err();
        assert!(matches!(error, TransferError::Digest { .. }), "{error}");
        assert!(place.door.objects.lock().unwrap().is_empty());

        for faults in
            [TransferFaults { break_ppm: ALWAYS, ..CALM }, TransferFaults { truncate_ppm: ALWAYS, ..CALM }]
        {
            place.transfer.set_faults(faults);
            let error = place.put(&url, "up").await.unwrap_err();
            assert!(matches!(error, TransferError::Network(_)), "{error}");
            assert!(place.door.objects.lock().unwrap().is_empty());
        }

        place.transfer.set_faults(TransferFaults { lost_reply_ppm: ALWAYS, ..CALM });
        let error = place.put(&url, "up").await.unwrap_err();
        assert!(matches!(error, TransferError::Network(_)), "{error}");
        assert!(place.door.objects.lock().unwrap().contains_key(&name), "taken, though nobody was told");

        place.transfer.set_faults(TransferFaults { corrupt_ppm: ALWAYS, ..CALM });
        let error = place.get(&url, &name).await.unwrap_err();
        assert!(matches!(error, TransferError::Digest { .. }), "{error}");
        for faults in
            [TransferFaults { break_ppm: ALWAYS, ..CALM }, TransferFaults { truncate_ppm: ALWAYS, ..CALM }]
        {
            place.transfer.set_faults(faults);
            let error = place.get(&url, &name).await.unwrap_err();
            assert!(matches!(error, TransferError::Network(_)), "{error}");
        }
        let names: Vec<_> = place.disk.list("").unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["up"], "nothing half stays");

        place.transfer.set_faults(TransferFaults { slow_ppm: ALWAYS, slow_ms: 1, ..CALM });
        place.get(&url, &name).await.unwrap();
        let counts = place.transfer.counts();
        assert_eq!((counts.corrupted, counts.broken, counts.truncated), (2, 2, 2));
        assert_eq!((counts.lost_replies, counts.slowed, counts.unreachable), (1, 1, 0));
        assert_eq!(*place.door.open_sinks.lock().unwrap(), 0);
    });
}

#[test]
fn a_server_is_there_while_it_serves_and_can_be_reached() {
    run(async {
        let place = place(3);
        let data = bytes(1000);
        let url = place.file("up", &data);
        assert!(matches!(place.put(&url, "up").await, Err(TransferError::Network(_))));
        let first = place.objects.register("server:7700", Arc::new(Shared(place.door.clone())));
        place.put(&url, "up").await.unwrap();
        // The next life takes the address before the last one has let go.
        let second = place.objects.register("server:7700", Arc::new(Shared(place.door.clone())));
        drop(first);
        place.put(&url, "up").await.unwrap();

        let cut = Arc::new(AtomicBool::new(true));
        let hook = cut.clone();
        place.objects.set_reachable(move |from, to| {
            assert_eq!((from, to), ("agent-1", "server"));
            !hook.load(Ordering::Relaxed)
        });
        assert!(matches!(place.put(&url, "up").await, Err(TransferError::Network(_))));
        cut.store(false, Ordering::Relaxed);
        place.put(&url, "up").await.unwrap();
        drop(second);
        assert!(matches!(place.put(&url, "up").await, Err(TransferError::Network(_))));
        assert_eq!(place.transfer.counts().unreachable, 3);
    });
}

#[test]
fn a_transfer_breaks_when_its_server_comes_back_as_another() {
    run(async {
        let place = place(4);
        let _first = place.objects.register("server:7700", Arc::new(Shared(place.door.clone())));
        let url = place.file("up", &bytes(300_000));
        // Asked before every step; at the fourth the server lives anew.
        let (objects, door) = (place.objects.clone(), place.door.clone());
        let (asked, second) = (AtomicU32::new(0), Mutex::new(None));
        place.objects.set_reachable(move |_, _| {
            if asked.fetch_add(1, Ordering::Relaxed) == 3 {
                *second.lock().unwrap() =
                    Some(objects.register("server:7700", Arc::new(Shared(door.clone()))));
            }
            true
        });
        assert!(matches!(place.put(&url, "up").await, Err(TransferError::Network(_))));
        assert!(*place.door.received.lock().unwrap() > 0, "it was under way");
        assert!(place.door.objects.lock().unwrap().is_empty());
        assert_eq!(*place.door.open_sinks.lock().unwrap(), 0);
        place.put(&url, "up").await.unwrap();
        assert_eq!(*place.door.received.lock().unwrap(), 300_000, "no byte went twice");
    });
}

#[test]
fn what_broke_off_or_was_altered_is_gone_on_with_or_begun_anew() {
    run(async {
        let place = place(5);
        let _serving = place.objects.register("server:7700", Arc::new(Shared(place.door.clone())));
        let data = bytes(1_000_000);
        let url = place.file("up", &data);
        place.transfer.set_faults(TransferFaults { break_ppm: 700_000, ..CALM });
        while place.put(&url, "up").await.is_err() {}
        assert!(place.transfer.counts().broken > 0);
        assert_eq!(*place.door.received.lock().unwrap(), 1_000_000);
        // Altered bytes that broke off are found at the end, and all is sent anew.
        let other = bytes(500_000);
        let url = place.file("other", &other);
        place.transfer.set_faults(CALM);
        place.door.parts.lock().unwrap().insert(digest(&other), vec![0; 100_000]);
        place.put(&url, "other").await.unwrap();
        assert_eq!(*place.door.received.lock().unwrap(), 1_000_000 + 400_000 + 500_000);
    });
}

#[test]
fn a_file_comes_in_parts_and_goes_on_where_it_broke() {
    run(async {
        let (mut broke, mut went_on) = (0, 0);
        for seed in 0..20 {
            let place = place(seed);
            let _serving = place.objects.register("server:7700", Arc::new(Shared(place.door.clone())));
            let data = bytes(200_000);
            let name = place.door.add(&data);
            let url = format!("http://server:7700/v1/objects/{name}?sig=1");
            place.transfer.set_faults(TransferFaults { break_ppm: 300_000, ..CALM });
            let fetching = Fetching::new(place.disk.clone(), "down", &name);
            let mut tries = 1_u32;
            while let Err(error) = place.transfer.bring(&url, &fetching).await {
                assert!(matches!(error, TransferError::Network(_)), "{error}");
                (tries, went_on) = (tries + 1, went_on + u32::from(fetching.brought_bytes() > 0));
                assert!(tries < 40, "it does not get on");
            }
            broke += tries - 1;
            assert_eq!(read_all(&*place.disk, "down", 1 << 20).unwrap(), data);
            let names: Vec<_> = place.disk.list("").unwrap().into_iter().map(|entry| entry.name).collect();
            assert_eq!(names, ["down"], "nothing half stays");
        }
        assert!(broke > 20 && went_on > 20, "{broke} tries broke, {went_on} left something");
    });
}

#[test]
fn one_byte_of_one_part_that_was_altered_is_found() {
    run(async {
        let place = place(6);
        let _serving = place.objects.register("server:7700", Arc::new(Shared(place.door.clone())));
        let name = place.door.add(&bytes(200_000));
        let url = format!("http://server:7700/v1/objects/{name}?sig=1");
        let fetching = Fetching::new(place.disk.clone(), "down", &name);
        place.transfer.set_faults(TransferFaults { corrupt_ppm: 100_000, ..CALM });
        while place.transfer.counts().corrupted == 0 {
            let _came = place.transfer.bring(&url, &fetching).await;
        }
        let error = place.transfer.bring(&url, &fetching).await;
        place.transfer.set_faults(CALM);
        if error.is_err() {
            place.transfer.bring(&url, &fetching).await.unwrap();
        }
        assert_eq!(read_all(&*place.disk, "down", 1 << 20).unwrap(), bytes(200_000));
    });
}

#[test]
fn a_wrong_clock_is_wrong_as_told() {
    run(async {
        const DATE: u64 = 1_700_000_000_000;
        let (clock, handle) = SkewedClock::pair(DATE);
        assert!(clock.monotonic_ms() < 1000);
        assert!((DATE..DATE + 1000).contains(&clock.wall_ms()));
        handle.jump_wall_ms(-3_600_000);
        assert!((DATE - 3_600_000..DATE - 3_599_000).contains(&clock.wall_ms()));
        handle.jump_wall_ms(-i64::MAX);
        assert_eq!(clock.wall_ms(), 0, "no date is before 1970");
        let before = clock.monotonic_ms();
        handle.jump_monotonic_ms(60_000);
        let after = clock.monotonic_ms();
        assert!((before + 60_000..before + 61_000).contains(&after));
        // Setting the drift moves the rate, never the reading.
        for drift in [500_000, -500_000, 0] {
            let before = clock.monotonic_ms();
            handle.set_drift_ppm(drift);
            assert!((before..before + 1000).contains(&clock.monotonic_ms()));
        }
    });
}

#[cfg(madsim)]
mod calls {
    use super::*;
    use madsim::runtime::Handle;
    use std::net::SocketAddr;
    use tonic::{
        Request, Response, Status,
        codegen::{
            BoxFuture, BoxMessage, BoxMessageStream, Context, Poll, Service, futures::StreamExt,
            http::uri::PathAndQuery,
        },
        transport::NamedService,
    };
    use world::grpc::{BindError, ConnectError, Network, Server, bind, connect};
    use world::time::{ms, sleep};

    /// Doubles numbers; `/Double/Each` those of a stream.
    #[derive(Clone)]
    struct Double;

    impl NamedService for Double {
        const NAME: &'static str = "Double";
    }

    impl Service<(PathAndQuery, Request<BoxMessageStream>)> for Double {
        type Response = Response<BoxMessageStream>;
        type Error = Status;
        type Future = BoxFuture<Self::Response, Status>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (path, request): (PathAndQuery, Request<BoxMessageStream>)) -> Self::Future {
            Box::pin(async move {
                assert!(request.remote_addr().is_some());
                if path.path() == "/Double/Never" {
                    std::future::pending::<()>().await;
                }
                let doubled = request.into_inner().map(|number| {
                    let number = *number?.downcast::<u64>().expect("numbers only");
                    if number == 13 {
                        return Err(Status::invalid_argument("not that one"));
                    }
                    Ok(Box::new(number * 2) as BoxMessage)
                });
                Ok(Response::new(doubled.boxed()))
            })
        }
    }

    fn address() -> SocketAddr {
        "10.0.0.1:7700".parse().unwrap()
    }

    async fn ask(channel: &tonic::transport::Channel, number: u64) -> Result<u64, Status> {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        let path = PathAndQuery::from_static("/Double/One");
        Ok(grpc.unary(Request::new(number), path, ()).await?.into_inner())
    }

    fn server_node() -> madsim::runtime::NodeHandle {
        Handle::current()
            .create_node()
            .name("server")
            .ip(address().ip())
            .init(|| async {
                let listener = bind(address()).await.unwrap();
                assert_eq!(listener.address(), address());
                Server::new().service(Double).serve(listener, std::future::pending()).await.unwrap();
            })
            .build()
    }

    fn client_node(ip: &str) -> madsim::runtime::NodeHandle {
        Handle::current().create_node().name(ip).ip(ip.parse().unwrap()).build()
    }

    #[test]
    fn calls_and_streams_go_over_the_simulated_network() {
        run(async {
            let _server = server_node();
            let client = client_node("10.0.0.2");
            sleep(ms(100)).await;
            client
                .spawn(async {
                    let channel = connect("10.0.0.1:7700", ms(1000)).await.unwrap();
                    assert_eq!(ask(&channel, 21).await.unwrap(), 42);
                    assert_eq!(ask(&channel, 13).await.unwrap_err().code(), tonic::Code::InvalidArgument);
                    let mut grpc = tonic::client::Grpc::new(channel.clone());
                    let each = PathAndQuery::from_static("/Double/Each");
                    let numbers = tonic::codegen::futures::stream::iter([1_u64, 2, 13, 4]);
                    let mut doubled = grpc
                        .streaming::<u64, u64, ()>(Request::new(numbers), each, ())
                        .await
                        .unwrap()
                        .into_inner();
                    assert_eq!(doubled.message().await.unwrap(), Some(2));
                    assert_eq!(doubled.message().await.unwrap(), Some(4));
                    assert_eq!(doubled.message().await.unwrap_err().code(), tonic::Code::InvalidArgument);
                    let lost = grpc
                        .unary::<u64, u64, ()>(Request::new(1), PathAndQuery::from_static("/No/One"), ())
                        .await;
                    assert_eq!(lost.unwrap_err().code(), tonic::Code::Unimplemented);
                    let error = connect("10.0.0.1:7701", ms(1000)).await.unwrap_err();
                    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
                })
                .await
                .unwrap();
        });
    }

    #[test]
    fn a_connection_that_stays_silent_holds_up_nobody_else() {
        run(async {
            let _server = server_node();
            let (silent, well) = (client_node("10.0.0.2"), client_node("10.0.0.3"));
            sleep(ms(100)).await;
            let held = silent.spawn(async {
                let endpoint = madsim::net::Endpoint::connect(address()).await.unwrap();
                endpoint.connect1(address()).await.unwrap()
            });
            let _held = held.await.unwrap();
            well.spawn(async {
                let channel = connect("10.0.0.1:7700", ms(1000)).await.unwrap();
                let all = async {
                    for number in 100..200 {
                        assert_eq!(ask(&channel, number).await.unwrap(), number * 2);
                    }
                };
                world::time::timeout(ms(10_000), all).await.unwrap();
            })
            .await
            .unwrap();
        });
    }

    #[test]
    fn a_drifting_clock_gains_and_loses() {
        run(async {
            let (clock, handle) = SkewedClock::pair(0);
            handle.set_drift_ppm(100_000);
            sleep(ms(1_000_000)).await;
            assert!((1_099_999..1_100_100).contains(&clock.monotonic_ms()), "{}", clock.monotonic_ms());
            handle.set_drift_ppm(-100_000);
            sleep(ms(1_000_000)).await;
            assert!((1_999_999..2_000_100).contains(&clock.monotonic_ms()), "{}", clock.monotonic_ms());
            assert_eq!(clock.wall_ms(), clock.monotonic_ms());
        });
    }

    #[test]
    fn a_killed_server_frees_its_port_and_its_door() {
        run(async {
            let objects = SimObjects::new();
            let door = MemoryDoor::new();
            let name = door.add(b"an object");
            let (for_server, for_door) = (objects.clone(), door.clone());
            let server = Handle::current()
                .create_node()
                .ip(address().ip())
                .init(move || {
                    let (objects, door) = (for_server.clone(), for_door.clone());
                    async move {
                        let listener = bind(address()).await.unwrap();
                        let taken = bind(address()).await.unwrap_err();
                        assert_eq!(taken, BindError::InUse { address: address() });
                        Server::new()
                            .service(Double)
                            .door(Arc::new(Shared(door)))
                            .network(Network::simulated(objects, "10.0.0.1"))
                            .serve(listener, std::future::pending())
                            .await
                            .unwrap();
                    }
                })
                .build();
            let client = client_node("10.0.0.2");
            let transfer = SimTransfer::new(objects, "10.0.0.2", 1);
            let disk = HostileDisk::new(1).handle();
            let url = format!("http://10.0.0.1:7700/v1/objects/{name}");
            for _life in 0..3 {
                sleep(ms(100)).await;
                let (story, down, from, due) = (transfer.clone(), disk.clone(), url.clone(), name.clone());
                client
                    .spawn(async move {
                        let channel = connect("http://10.0.0.1:7700", ms(1000)).await.unwrap();
                        assert_eq!(ask(&channel, 2).await.unwrap(), 4);
                        let mut grpc = tonic::client::Grpc::new(channel);
                        let never = PathAndQuery::from_static("/Double/Never");
                        let call = grpc.unary::<u64, u64, ()>(Request::new(1), never, ());
                        assert!(world::time::timeout(ms(100), call).await.is_err());
                        story.get(&from, down, "down", &due).await.unwrap();
                    })
                    .await
                    .unwrap();
                Handle::current().kill(server.id());
                sleep(ms(100)).await;
                let gone = transfer.get(&url, disk.clone(), "x", &name).await;
                assert!(matches!(gone, Err(TransferError::Network(_))));
                Handle::current().restart(server.id());
            }
        });
    }
}
