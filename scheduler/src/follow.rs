//! A scheduler in a process of its own: it reads rows and writes grants through
//! a server, and follows the demand that the server tells.
//!
//! What must hold: a connection begins with a snapshot, so that the core never
//! works from a mixture of two. A server that has nothing to tell says so; one
//! that is silent is as good as gone, and is followed anew.

use crate::core::Config;
use crate::limits::{FOLLOW_BEAT_MS, FOLLOW_PAUSE_MS, LINK_DEADLINE_MS, LINK_QUEUE};
use crate::shell::{self, Handle};
use proto::problem::{self, Problem};
use proto::v1::planning_client::PlanningClient;
use proto::v1::{DemandUpdate, FollowRequest};
use std::fmt;
use std::sync::Arc;
use store::RemoteStore;
use world::NodeClock;
use world::grpc::tonic::metadata::{Ascii, MetadataValue};
use world::grpc::tonic::{Request, Status, Streaming, transport::Channel};
use world::grpc::{ConnectError, Servers, connect};
use world::sync::mpsc;
use world::{task, time};

/// What such a scheduler is made of.
#[derive(Clone, Debug)]
pub struct FollowParts {
    /// `host:port` of the server; where several share the work of one, all of them with
    /// commas between.
    pub server: String,
    /// A token of role scheduler.
    pub token: String,
    /// Its name, for whoever looks after the cluster.
    pub name: String,
    /// This node's clock.
    pub clock: Arc<dyn NodeClock>,
    /// Numbers of the core.
    pub config: Config,
}

/// Why it did not start.
#[derive(Debug)]
pub enum FollowError {
    /// The server is out of reach.
    Connect(ConnectError),
    /// The token cannot be sent.
    Token,
    /// The server does not let it, or not now.
    Refused(Problem),
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Token => f.write_str("the token has letters that no token has"),
            Self::Refused(problem) => f.write_str(&problem.reason),
        }
    }
}
impl std::error::Error for FollowError {}

/// Starts a scheduler that follows a server until its handle is dropped. Once
/// started it waits out whatever becomes of the server or the way to it. Of several
/// servers it follows the first that lets it; it ends with that one, since another has
/// rows to be read anew, and whoever runs it starts it again.
pub async fn start(parts: FollowParts) -> Result<Handle, FollowError> {
    let mut servers = Servers::parse(&parts.server);
    loop {
        let server = servers.current().to_owned();
        let followed = follow(FollowParts { server, ..parts.clone() }, servers.len() > 1).await;
        // The same everywhere; of other refusals the last one's is told.
        let is_final = matches!(
            followed,
            Ok(_) | Err(FollowError::Connect(ConnectError::Address { .. }) | FollowError::Token)
        );
        if is_final || servers.turn() {
            return followed;
        }
    }
}

async fn follow(parts: FollowParts, one_of_several: bool) -> Result<Handle, FollowError> {
    let FollowParts { server, token, name, clock, config } = parts;
    let authorization = format!("Bearer {token}").parse().map_err(|_| FollowError::Token)?;
    let channel = connect(&server, time::ms(LINK_DEADLINE_MS)).await.map_err(FollowError::Connect)?;
    let store = RemoteStore::bearing(channel.clone(), MetadataValue::clone(&authorization));
    let (demand, told) = mpsc::channel(LINK_QUEUE);
    let handle = shell::start(store, clock, config, told);
    let planning = PlanningClient::new(channel);
    let mut following = Following { planning, authorization, name, demand, one_of_several };
    let updates = following.open().await.map_err(|status| FollowError::Refused(status.into()))?;
    task::spawn(following.run(updates));
    Ok(handle)
}

struct Following {
    planning: PlanningClient<Channel>,
    authorization: MetadataValue<Ascii>,
    name: String,
    demand: mpsc::Sender<DemandUpdate>,
    one_of_several: bool,
}

impl Following {
    /// Follows, over as many connections as it takes, until the scheduler ends.
    async fn run(mut self, first: Streaming<DemandUpdate>) {
        let mut open = Some(first);
        loop {
            let why = match open.take() {
                Some(mut updates) => self.hand_on(&mut updates).await,
                None => match self.open().await {
                    Ok(mut updates) => self.hand_on(&mut updates).await,
                    // Without anybody who tells it demand the scheduler ends.
                    Err(_) if self.one_of_several => return,
                    Err(status) => status.message().to_owned(),
                },
            };
            // A snapshot costs the server all its demand: not at once again.
            let pause = time::ms(FOLLOW_PAUSE_MS + world::rand::u64() % FOLLOW_PAUSE_MS);
            world::select! { biased;
                () = self.demand.closed() => return,
                () = time::sleep(pause) => {}
            }
            world::mark!("scheduler.follow.anew");
            tracing::info!(why, scheduler = self.name, "the server told no demand; following anew");
        }
    }

    async fn open(&mut self) -> Result<Streaming<DemandUpdate>, Status> {
        let mut request = Request::new(FollowRequest { scheduler: self.name.clone() });
        request.metadata_mut().insert("authorization", self.authorization.clone());
        match time::timeout(time::ms(LINK_DEADLINE_MS), self.planning.follow(request)).await {
            Ok(reply) => reply.map(world::grpc::tonic::Response::into_inner),
            Err(_) => Err(problem::unavailable("deadline", "the server did not answer in time").into()),
        }
    }

    /// One connection to its end, and why it ended.
    async fn hand_on(&self, updates: &mut Streaming<DemandUpdate>) -> String {
        loop {
            let update = world::select! { biased;
                () = self.demand.closed() => return "the scheduler has ended".to_owned(),
                update = next(updates) => update,
            };
            match update {
                // A beat tells nothing.
                Ok(update) if update == DemandUpdate::default() => {}
                // Where it has ended the next turn of the loop says so.
                Ok(update) => _ = self.demand.send(update).await,
                Err(why) => return why,
            }
        }
    }
}

async fn next(updates: &mut Streaming<DemandUpdate>) -> Result<DemandUpdate, String> {
    match time::timeout(time::ms(3 * FOLLOW_BEAT_MS), updates.message()).await {
        Ok(Ok(Some(update))) => Ok(update),
        Ok(Ok(None)) => Err("it ended the stream".to_owned()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("it has been silent for too long".to_owned()),
    }
}
