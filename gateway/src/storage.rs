//! A store on the network, for servers that share it: rows on this machine's disk,
//! behind a token of its own.
//!
//! What must hold: nobody who does not bear that token reads or writes a row. The token
//! is made at the first start, and with the address it is in `store.env`, which only its
//! owner may read. Leases outlive the process: whoever reigned goes on reigning.

use crate::limits;
use crate::server::{StartError, messages, reachable};
use futures_util::stream::BoxStream;
use proto::problem;
use proto::v1::rows_server::{Rows, RowsServer};
use proto::v1::{
    CommitReply, CommitRequest, GrantLeaseReply, GrantLeaseRequest, KeepLeaseReply, KeepLeaseRequest,
    RangeReply, RangeRequest, RevokeLeaseReply, RevokeLeaseRequest, WatchReply, WatchRequest,
};
use sha2::{Digest, Sha256};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use store::{OpenError, OpenOptions, RedbStore, RowsService, Store};
use world::disk::OpenMode;
use world::grpc::tonic::{self, Request, Response, Status};
use world::grpc::{Network, Server, bind};
use world::sync::oneshot;
use world::task::{JoinHandle, blocking, spawn};
use world::{Disk, NodeClock, time};

/// Where address and token are kept.
pub const ENV_FILE: &str = "store.env";

/// What a store is made of.
#[derive(Clone, Debug)]
pub struct StorageParts {
    /// Where its file is.
    pub disk: Arc<dyn Disk>,
    /// This node's clock: leases end by it.
    pub clock: Arc<dyn NodeClock>,
    /// Where to listen; port 0 finds a free one.
    pub listen: SocketAddr,
    /// Only in simulation.
    pub network: Network,
}

/// A store that runs. Dropped, it stops by itself some time later.
#[derive(Debug)]
pub struct RunningStorage {
    /// `host:port`, as in `store.env`.
    pub address: String,
    /// What servers bear.
    pub token: String,
    store: Arc<RedbStore>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl RunningStorage {
    /// Its rows, for whoever watches over it.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    /// Waits until it has stopped: its network failed, or its disk did.
    pub async fn ended(&mut self) {
        // A panic is as much an end.
        let _ = (&mut self.serving).await;
    }

    /// Takes no more calls and closes its file.
    pub async fn stop(self) {
        // If nobody listens it has stopped already.
        let _ = self.stop.send(());
        let deadline = time::ms(limits::STOP_DEADLINE_MS);
        let _ = time::timeout(deadline, self.serving).await;
        if time::timeout(deadline, self.store.close()).await.is_err() {
            tracing::warn!("the store did not close in time; what was acknowledged is durable");
        }
    }
}

/// Starts a store.
pub async fn start(parts: StorageParts) -> Result<RunningStorage, StartError> {
    let StorageParts { disk, clock, listen, network } = parts;
    let options = OpenOptions { drop_leases: false, ..OpenOptions::default() };
    let opened = RedbStore::open_with(Arc::clone(&disk), crate::server::STORE_FILE, clock, options).await;
    let store = opened.map_err(|error| unopened(&*disk, error))?;
    let listener = match bind(listen).await {
        Ok(listener) => listener,
        Err(error) => {
            store.close().await;
            return Err(StartError::Port(error));
        }
    };
    let address = reachable(listener.address()).to_string();
    let token = match token(&disk, &address).await {
        Ok(token) => token,
        Err(error) => {
            store.close().await;
            return Err(failed(&*disk, &error));
        }
    };
    let rows = RowsService::new(Arc::clone(&store) as Arc<dyn Store>);
    let door = StoreDoor { rows, token: hash(&token) };
    let server = Server::new()
        .messages(messages())
        .network(network)
        .grace(time::ms(limits::STORE_GRACE_MS))
        .service(RowsServer::new(door));
    let (stop, stopped) = oneshot::channel();
    let rows = Arc::clone(&store);
    let serving = spawn(async move {
        let shutdown = async {
            world::select! { biased;
                // Dropped unsent it means the same.
                _ = stopped => {}
                why = rows.stopped() => tracing::error!(why, "the store stops"),
            }
        };
        if let Err(error) = server.serve(listener, shutdown).await {
            tracing::error!(%error, "the store stopped serving");
        }
    });
    Ok(RunningStorage { address, token, store, stop, serving })
}

fn data(disk: &dyn Disk) -> String {
    disk.absolute("").display().to_string()
}

fn failed(disk: &dyn Disk, error: &io::Error) -> StartError {
    StartError::of_disk(data(disk), error)
}

fn unopened(disk: &dyn Disk, error: OpenError) -> StartError {
    match error {
        OpenError::Locked => StartError::DataInUse { data: data(disk) },
        OpenError::Damaged(why) => StartError::Damaged { data: data(disk), why },
        OpenError::Io(error) => failed(disk, &error),
    }
}

/// The token of `store.env`, made where there is none; the file names the present
/// address in any case.
async fn token(disk: &Arc<dyn Disk>, address: &str) -> io::Result<String> {
    let (disk, address) = (Arc::clone(disk), address.to_owned());
    let fresh = world::rand::token();
    blocking(move || {
        let found = match world::disk::read_all(&*disk, ENV_FILE, limits::CLIENT_ENV_BYTES_MAX) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let line =
                    text.lines().find_map(|line| line.trim().strip_prefix("export DRUMLINE_STORE_TOKEN="));
                line.map(str::to_owned).filter(|token| !token.is_empty())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let token = found.unwrap_or(fresh);
        let text = format!("export DRUMLINE_STORE={address}\nexport DRUMLINE_STORE_TOKEN={token}\n");
        let unready = format!("{ENV_FILE}.new");
        let file = disk.open(&unready, OpenMode::CreateOrWrite)?;
        disk.set_mode(&unready, 0o600)?;
        file.set_len(0)?;
        file.write_at(0, text.as_bytes())?;
        file.sync()?;
        drop(file);
        disk.rename(&unready, ENV_FILE)?;
        disk.sync_dir("")?;
        Ok(token)
    })
    .await
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The rows, for whoever bears the token.
struct StoreDoor {
    rows: RowsService,
    /// Compared by its hash: how long that takes tells nothing of the token.
    token: [u8; 32],
}

impl StoreDoor {
    fn admit<T>(&self, request: Request<T>) -> Result<Request<T>, Status> {
        let value = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = value.and_then(|text| text.strip_prefix("Bearer ")).map(str::trim);
        match token.filter(|token| token.len() <= limits::TOKEN_BYTES_MAX) {
            Some(token) if hash(token) == self.token => Ok(request),
            _ => Err(problem::auth("this is not the store's token").into()),
        }
    }
}

#[tonic::async_trait]
impl Rows for StoreDoor {
    async fn commit(&self, request: Request<CommitRequest>) -> Result<Response<CommitReply>, Status> {
        self.rows.commit(self.admit(request)?).await
    }

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeReply>, Status> {
        self.rows.range(self.admit(request)?).await
    }

    type WatchStream = BoxStream<'static, Result<WatchReply, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.rows.watch(self.admit(request)?).await
    }

    async fn grant_lease(
        &self,
        request: Request<GrantLeaseRequest>,
    ) -> Result<Response<GrantLeaseReply>, Status> {
        self.rows.grant_lease(self.admit(request)?).await
    }

    async fn keep_lease(
        &self,
        request: Request<KeepLeaseRequest>,
    ) -> Result<Response<KeepLeaseReply>, Status> {
        self.rows.keep_lease(self.admit(request)?).await
    }

    async fn revoke_lease(
        &self,
        request: Request<RevokeLeaseRequest>,
    ) -> Result<Response<RevokeLeaseReply>, Status> {
        self.rows.revoke_lease(self.admit(request)?).await
    }
}
