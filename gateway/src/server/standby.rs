//! Servers that share a store: one serves, the others stand by.
//!
//! What must hold: who does not have the shards says so at once to whoever asks
//! (`unavailable.standby`), and answers nothing else. All that a server knows it reads
//! when its reign begins and forgets when that ends: gate, relay, objects, scheduler
//! and controller are of one reign. Then it stands by again.
//!
//! The store tells who reigns, nobody else: no clock, no lock of the directory. What is
//! written beside the store, in the shared directory, is such that a server that was
//! deposed and does not know it does no harm there; see `controller::logs` and
//! [`crate::objects`].

use super::{
    Data, Opened, RunningServer, SharedStore, Site, StartError, controller_parts, first, open_gate,
    open_rooms, reachable, server,
};
use crate::limits;
use crate::objects::Door;
use async_trait::async_trait;
use controller::shell::{Handle, ObjectIndex};
use proto::problem::{self, Problem};
use proto::v1::{DemandUpdate, RangeRequest, rows_client::RowsClient};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use store::{RemoteStore, Store};
use world::grpc::tonic::metadata::{Ascii, MetadataValue};
use world::grpc::tonic::{Code, Request, Status};
use world::grpc::{Channel, Listener, Server, axum, bind, connect};
use world::sync::{mpsc, oneshot, watch};
use world::task::spawn;
use world::time;

/// How one reign ended, or why none began.
enum End {
    /// The server was told to stop.
    Stopped,
    /// It does not have the shards any more.
    Deposed,
    /// It cannot serve.
    Failed(StartError),
}

struct Standby {
    site: Site,
    listening: SocketAddr,
    store: SharedStore,
    authorization: MetadataValue<Ascii>,
    stopped: oneshot::Receiver<()>,
    serves: watch::Sender<Option<String>>,
}

/// Starts a server that stands by until it serves.
pub(super) async fn start(
    site: Site,
    listen: SocketAddr,
    store: SharedStore,
) -> Result<RunningServer, StartError> {
    let bad = |why: &str| StartError::Store { address: store.address.clone(), why: why.to_owned() };
    let authorization: MetadataValue<Ascii> = format!("Bearer {}", store.token)
        .parse()
        .map_err(|_| bad("the token has letters that no token has"))?;
    // A store that is away is waited for; one that says no is not.
    if let Ok(channel) = connect(&store.address, time::ms(limits::STORE_CONNECT_MS)).await
        && let Err(status) = knock(channel, &authorization).await
        && is_refusal(&status)
    {
        return Err(bad(status.message()));
    }
    let listener = bind(listen).await.map_err(StartError::Port)?;
    let listening = listener.address();
    let address = format!("http://{}", reachable(listening));
    let (stop, stopped) = oneshot::channel();
    let (tells, serves) = watch::channel(None);
    let standby = Standby { site, listening, store, authorization, stopped, serves: tells };
    let serving = spawn(standby.run(listener));
    Ok(RunningServer { address, listening, token: String::new(), stop, serving, own: None, serves })
}

/// Asks the store for a row: whether it lets us in.
async fn knock(channel: Channel, authorization: &MetadataValue<Ascii>) -> Result<(), Status> {
    let key = proto::keys::format();
    let to = store::key_after(&key);
    let mut request = Request::new(RangeRequest { from: key, to, limit: 1, backwards: false });
    request.metadata_mut().insert("authorization", authorization.clone());
    match time::timeout(time::ms(limits::STORE_CONNECT_MS), RowsClient::new(channel).range(request)).await {
        Ok(reply) => reply.map(|_| ()),
        Err(_) => Err(Status::unavailable("no answer in time")),
    }
}

fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented)
}

impl Standby {
    async fn run(mut self, mut listener: Listener) {
        loop {
            let end = match self.stand_by(listener).await {
                Ok(government) => self.serve(government).await,
                Err(end) => end,
            };
            self.serves.send_replace(None);
            match end {
                End::Stopped => return,
                End::Deposed => tracing::info!("standing by"),
                End::Failed(error @ (StartError::NewerFormat { .. } | StartError::NotShared { .. })) => {
                    tracing::error!(%error, "the server stops");
                    return;
                }
                End::Failed(error) => tracing::warn!(%error, "standing by: this server cannot serve now"),
            }
            listener = match self.bind_again().await {
                Some(listener) => listener,
                None => return,
            };
        }
    }

    /// Its own port once more; `None` once it is told to stop, or another process has
    /// taken it for good.
    async fn bind_again(&mut self) -> Option<Listener> {
        for _ in 0..limits::BIND_TRIES {
            match bind(self.listening).await {
                Ok(listener) => return Some(listener),
                Err(error) => tracing::warn!(%error, "the port is not free again yet"),
            }
            world::select! { biased;
                _ = &mut self.stopped => return None,
                () = time::sleep(time::ms(limits::BIND_PAUSE_MS)) => {}
            }
        }
        tracing::error!(listening = %self.listening, "the port is lost; the server stops");
        None
    }

    /// Refuses all calls until it has the shards.
    async fn stand_by(&mut self, listener: Listener) -> Result<Government, End> {
        let (enough, refused) = oneshot::channel::<()>();
        // Dropped unsent it means the same.
        let until = async move { _ = refused.await };
        let mut refusing = pin!(refuser(&self.site).serve(listener, until));
        let taking = take(&self.site, self.listening, &self.store, &self.authorization);
        let outcome = world::select! { biased;
            _ = &mut self.stopped => Err(End::Stopped),
            government = taking => Ok(government),
            outcome = &mut refusing => {
                let why = outcome.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
                tracing::error!(why, "the network failed");
                return Err(End::Stopped);
            }
        };
        // Whoever was just asking is refused yet: a call that is cut off may have been done.
        drop(enough);
        let _ = refusing.await;
        outcome
    }

    /// One reign.
    async fn serve(&mut self, government: Government) -> End {
        let Government { store, of_scheduler, controller, told, numbers, objects } = government;
        let reign = controller.reign();
        let opening = self.open(&store, &controller, reign);
        let (rooms, listener) = match opening.await {
            Ok(opened) => opened,
            Err(error) => {
                drop((controller, told));
                // So that another is tried, and this one not at once again.
                time::sleep(time::ms(limits::FAILED_START_PAUSE_MS)).await;
                return End::Failed(error);
            }
        };
        // Nobody has asked before the gate is open.
        let _ = objects.0.set(Door(Arc::clone(&rooms.objects)));
        let token = rooms.token.clone();
        let planning = (numbers, self.listening);
        let (stores, ended) = ((store, of_scheduler), controller.clone());
        let Opened { gate, open } = open_gate(&self.site, rooms, stores, (controller, told), planning);
        world::mark!("gateway.standby.serves");
        tracing::info!(reign, "serving");
        self.serves.send_replace(Some(token));
        let config = &self.site.config;
        let server = server(&gate).network(config.network.clone()).grace(time::ms(config.stop_grace_ms));
        let mut end = End::Deposed;
        let shutdown = async {
            world::select! { biased;
                _ = &mut self.stopped => end = End::Stopped,
                () = ended.ended() => {}
            }
            drop(open);
        };
        if let Err(error) = server.serve(listener, shutdown).await {
            tracing::error!(%error, "the server stopped serving");
        }
        if matches!(end, End::Stopped) {
            gate.meter.book(&gate.controller).await;
            if time::timeout(time::ms(limits::RESIGN_MS), ended.resign()).await.is_err() {
                tracing::warn!("the store did not hear of the end; another server waits for the lease");
            }
        }
        end
    }

    /// All that can fail of the beginning of a reign.
    async fn open(
        &self,
        store: &Arc<dyn Store>,
        controller: &Handle,
        reign: u64,
    ) -> Result<(super::Rooms, Listener), StartError> {
        let data = Data(&*self.site.disk);
        let id = first::shared_directory(&self.site.disk, &**store, &data).await?;
        let format = first::format(&**store, self.site.clock.wall_ms(), &data, Some(id)).await?;
        let rooms = open_rooms(&self.site, store, &format, self.listening, Some(reign)).await?;
        let listener = bind(self.listening).await.map_err(StartError::Port)?;
        // It may have been long.
        controller.must_reign().await.map_err(|problem| data.lost(&problem))?;
        Ok((rooms, listener))
    }
}

/// A controller that has the shards, with what its server is made of.
struct Government {
    store: Arc<dyn Store>,
    of_scheduler: Arc<dyn Store>,
    controller: Handle,
    told: mpsc::Receiver<DemandUpdate>,
    numbers: scheduler::core::Config,
    objects: Arc<Later>,
}

/// Waits for the shards, however long.
async fn take(
    site: &Site,
    listening: SocketAddr,
    store: &SharedStore,
    authorization: &MetadataValue<Ascii>,
) -> Government {
    loop {
        let channel = match connect(&store.address, time::ms(limits::STORE_CONNECT_MS)).await {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(%error, "waiting for the store");
                time::sleep(time::ms(limits::STORE_PAUSE_MS)).await;
                continue;
            }
        };
        // Commits of one client go one at a time. So that none waits for those of others,
        // whose order is nothing to it, each has a client of its own.
        let client = || RemoteStore::bearing(channel.clone(), authorization.clone()) as Arc<dyn Store>;
        let (store, of_scheduler) = (client(), client());
        let objects = Arc::new(Later::default());
        let index = Arc::clone(&objects) as Arc<dyn ObjectIndex>;
        let (parts, numbers) = controller_parts(site, &client(), index, format!("server@{listening}"));
        match controller::shell::start(parts).await {
            Ok((controller, told)) => {
                return Government { store, of_scheduler, controller, told, numbers, objects };
            }
            Err(error) => tracing::error!(%error, "the rows cannot be read"),
        }
        time::sleep(time::ms(limits::STORE_PAUSE_MS)).await;
    }
}

/// The objects, once the reign has begun that they are opened for.
#[derive(Debug, Default)]
struct Later(OnceLock<Door>);

#[async_trait]
impl ObjectIndex for Later {
    async fn has(&self, tenant: &str, digest: &str, size_bytes: u64) -> bool {
        match self.0.get() {
            Some(door) => door.has(tenant, digest, size_bytes).await,
            None => false,
        }
    }

    fn using(&self) -> Arc<()> {
        self.0.get().map(ObjectIndex::using).unwrap_or_default()
    }

    async fn release(&self, space: &str, digests: Vec<String>) {
        if let Some(door) = self.0.get() {
            door.release(space, digests).await;
        }
    }
}

/// What stands by: every call is refused in the caller's own words.
fn refuser(site: &Site) -> Server {
    Server::new()
        .messages(super::messages())
        .network(site.config.network.clone())
        .grace(time::ms(limits::REFUSER_GRACE_MS))
        .refusing(refusal)
        .nowhere(page)
}

fn refusal() -> Status {
    world::mark!("gateway.standby.refuses");
    problem::standby().into()
}

fn page(_: &axum::http::Method, _: &str) -> axum::response::Response {
    crate::rest::refused(problem::standby())
}

impl Data<'_> {
    fn lost(&self, problem: &Problem) -> StartError {
        StartError::Data { data: self.name(), why: problem.reason.clone() }
    }
}
