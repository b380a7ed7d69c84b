//! Several servers that share a store on another machine, and with it a directory.
//!
//! The directory is on that machine's disk too: what goes wrong with it goes wrong for
//! all. It is reached another way than the store's process, so that a server may have
//! the one and not the other.

use super::{DAWN_MS, Machine, PORT, Place, SERVER_DISKS_MS, Seen, server_config, server_index, watch_on};
use crate::faults::STORAGE;
use crate::rollback;
use crate::trace::lines;
use gateway::server::{ServerParts, SharedStore, StartError};
use gateway::storage::{self, StorageParts};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use world::sim::universe;
use world::sim::{HostileDisk, SkewedClock};
use world::time;

/// Where the store listens, on its machine.
const STORE_PORT: u16 = 7071;

/// The token of the store, once it has made it.
type StoreToken = Arc<Mutex<String>>;

/// Starts the machine with the store, and all servers at once.
pub(super) fn start(servers: usize, seed: u64, place: &Place, seen: &Seen) -> (Vec<Machine>, Machine) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x7368_6172_6564);
    let token = StoreToken::default();
    let pace_ms = *SERVER_DISKS_MS.choose(&mut rng).expect("not empty");
    let storage = start_storage(&mut rng, &token, seen.clone());
    universe::set_disk_pace(storage.node, time::ms(pace_ms));
    let servers = (0..servers)
        .map(|at| {
            let machine = start_server(at, &mut rng, &storage, (place, &token), seen.clone());
            universe::set_disk_pace(machine.node, time::ms(pace_ms));
            machine
        })
        .collect();
    (servers, storage)
}

fn start_storage(rng: &mut SmallRng, token: &StoreToken, seen: Seen) -> Machine {
    let ip = Ipv4Addr::new(10, 0, 0, 9);
    let disk = Arc::new(HostileDisk::new(rng.random()));
    let (clock, clock_handle) = SkewedClock::pair(DAWN_MS);
    let started = Arc::new(AtomicU64::new(0));
    let (held, begun, token) = (Arc::clone(&disk), Arc::clone(&started), Arc::clone(token));
    let init = move || {
        let parts = StorageParts {
            disk: held.handle(),
            clock: Arc::clone(&clock) as Arc<dyn world::NodeClock>,
            listen: SocketAddr::from((ip, STORE_PORT)),
            network: world::grpc::Network::default(),
        };
        keep(parts, seen.clone(), Arc::clone(&held), (Arc::clone(&begun), Arc::clone(&token)))
    };
    let node = universe::create_node("storage", IpAddr::V4(ip), init);
    let (host, clock) = (ip.to_string(), clock_handle);
    Machine {
        host,
        node,
        disk,
        mount: None,
        clock,
        processes: None,
        transfer: None,
        staging_bytes_per_s: 0,
        started,
    }
}

/// One incarnation of the store.
async fn keep(
    parts: StorageParts,
    seen: Seen,
    disk: Arc<HostileDisk>,
    (started, token): (Arc<AtomicU64>, StoreToken),
) {
    let Seen { store, rolled_back, witness, trace, ended, .. } = seen;
    if rolled_back.swap(false, Ordering::Relaxed) {
        let rewritten = rollback::leave_unknown_fields(&disk, &parts.clock, &witness).await;
        trace.tell(&format!("a newer version wrote {rewritten} rows before"));
    }
    let (incarnation, failures) = (disk.incarnation(), disk.counts().failures());
    match storage::start(parts).await {
        Ok(mut running) => {
            trace.line("storage started");
            started.store(incarnation, Ordering::Relaxed);
            token.lock().expect("no holder panics").clone_from(&running.token);
            let watched = running.store();
            *store.lock().expect("no holder panics") = Some(Arc::clone(&watched));
            world::select! { biased;
                () = running.ended() => {}
                () = watch_on(&witness, &watched, &disk) => {}
            }
        }
        // It lost power as it made a file, and is taken down for that just now.
        Err(_) if disk.incarnation() != incarnation => {}
        Err(error) => {
            let excused = disk.counts().failures() > failures && !matches!(error, StartError::Damaged { .. });
            let why = format!("the store did not start: {error}");
            if excused {
                trace.tell(&why);
            } else {
                witness.lock().expect("no holder panics").fail(1, why);
            }
        }
    }
    // Where that is full, one is told already.
    let _ = ended.try_send((STORAGE, incarnation));
    std::future::pending::<()>().await;
}

fn start_server(
    at: usize,
    rng: &mut SmallRng,
    storage: &Machine,
    (place, token): (&Place, &StoreToken),
    seen: Seen,
) -> Machine {
    // The first where one server alone would be; beside the clients' the others.
    let ip = if at == 0 { Ipv4Addr::new(10, 0, 0, 1) } else { Ipv4Addr::new(10, 0, 0, 20 + at as u8) };
    let disk = Arc::new(HostileDisk::new(rng.random()));
    let mount = storage.disk.mount();
    let (clock, clock_handle) = SkewedClock::pair(DAWN_MS);
    let started = Arc::new(AtomicU64::new(0));
    let seed: u64 = rng.random();
    let address = format!("{}:{STORE_PORT}", storage.host);
    let (held, mounted, begun) = (Arc::clone(&disk), mount.clone(), Arc::clone(&started));
    let (place, token) = (place.clone(), Arc::clone(token));
    let init = move || {
        let store = SharedStore { address: address.clone(), token: String::new() };
        let parts = ServerParts {
            disk: mounted.handle(),
            clock: Arc::clone(&clock) as Arc<dyn world::NodeClock>,
            listen: SocketAddr::from((ip, PORT)),
            config: server_config(seed, &place, ip),
            shared: Some(store),
        };
        let begun = (Arc::clone(&begun), held.incarnation());
        serve(server_index(at), parts, seen.clone(), begun, Arc::clone(&token))
    };
    let node = universe::create_node(&lines::machine(server_index(at)), IpAddr::V4(ip), init);
    let (host, clock, mount) = (ip.to_string(), clock_handle, Some(mount));
    Machine {
        host,
        node,
        disk,
        mount,
        clock,
        processes: None,
        transfer: None,
        staging_bytes_per_s: 0,
        started,
    }
}

/// One incarnation of one server: it serves and stands by, and serves again.
async fn serve(
    index: usize,
    mut parts: ServerParts,
    seen: Seen,
    (started, incarnation): (Arc<AtomicU64>, u64),
    store_token: StoreToken,
) {
    let Seen { token, serving, witness, trace, ended, .. } = seen;
    let name = lines::machine(index);
    while store_token.lock().expect("no holder panics").is_empty() {
        time::sleep(time::ms(20)).await;
    }
    if let Some(store) = &mut parts.shared {
        store.token.clone_from(&store_token.lock().expect("no holder panics"));
    }
    match gateway::server::start(parts).await {
        Ok(mut running) => {
            trace.line(&format!("{name} started"));
            started.store(incarnation, Ordering::Relaxed);
            let mut serves = running.serves();
            let tell = async {
                while serves.changed().await.is_ok() {
                    let now = serves.borrow_and_update().clone();
                    let mut serving = serving.lock().expect("no holder panics");
                    match now {
                        Some(of_admin) => {
                            trace.tell(&format!("{name} serves"));
                            *token.lock().expect("no holder panics") = of_admin;
                            *serving = Some(index);
                        }
                        None => {
                            trace.tell(&format!("{name} stands by"));
                            serving.take_if(|server| *server == index);
                        }
                    }
                }
                std::future::pending::<()>().await;
            };
            world::select! { biased;
                () = running.ended() => {}
                () = tell => {}
            }
        }
        Err(error) => {
            witness.lock().expect("no holder panics").fail(1, format!("{name} did not start: {error}"));
        }
    }
    // Where that is full, one is told already.
    let _ = ended.try_send((index, incarnation));
    std::future::pending::<()>().await;
}
