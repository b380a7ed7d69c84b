//! The connection to the server and the session on it, kept up for ever.
//!
//! What must hold: one session at a time; every call has a deadline; a server
//! that falls silent is left and sought again, with pauses that grow to a cap
//! and are spread by chance so that a restarted server is not stormed. Where
//! several are known the next is asked then, and the pause grows once all were.

use super::turn::OpenSession;
use super::{Inbound, StartError, tell};
use crate::config::AgentConfig;
use crate::core::Event;
use crate::limits;
use proto::problem::STANDBY;
use proto::v1::agents_client::AgentsClient;
use proto::v1::{Problem, RegisterReply, RegisterRequest};
use std::fmt;
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use world::grpc::tonic::metadata::{Ascii, MetadataValue};
use world::grpc::tonic::{Code, Request, Status};
use world::grpc::{Channel, ConnectError, Servers, connect};
use world::sync::{mpsc, oneshot, watch};
use world::time::{Alarm, ms, sleep, timeout};

/// What goes with every call.
pub(crate) type Authorization = MetadataValue<Ascii>;

/// The header of a token; `None` where it cannot be one.
pub(crate) fn authorization(token: &str) -> Option<Authorization> {
    format!("Bearer {token}").parse().ok()
}

/// A session that stands, for those who make calls beside it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// Names it in calls.
    pub(crate) session: u64,
    client: AgentsClient<Channel>,
    authorization: Authorization,
}

impl Connection {
    /// A client for one call.
    pub(crate) fn client(&self) -> AgentsClient<Channel> {
        self.client.clone()
    }

    /// A request that says who asks.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        authorized(&self.authorization, message)
    }
}

fn authorized<T>(authorization: &Authorization, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", authorization.clone());
    request
}

/// Why there is no session.
#[derive(Debug)]
enum LinkError {
    Connect(ConnectError),
    Refused(Problem),
    Failed(Status),
    Silent(&'static str),
    Left(String),
}
impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Refused(problem) => write!(f, "the server refused this node: {problem}"),
            Self::Failed(status) => write!(f, "the server failed: {}", Problem::from(status)),
            Self::Silent(what) => write!(f, "the server did not answer {what} in time"),
            Self::Left(reason) => write!(f, "the session ended: {reason}"),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    config: Arc<AgentConfig>,
    servers: Servers,
    authorization: Authorization,
    inbox: mpsc::Sender<Inbound>,
    connected: watch::Sender<Option<Connection>>,
    /// Until the server's first word.
    first: Option<oneshot::Sender<Result<(), StartError>>>,
    last_error: String,
}

impl Link {
    pub(super) fn new(
        config: Arc<AgentConfig>,
        authorization: Authorization,
        inbox: mpsc::Sender<Inbound>,
        connected: watch::Sender<Option<Connection>>,
        first: oneshot::Sender<Result<(), StartError>>,
    ) -> Self {
        let servers = Servers::parse(&config.server);
        Self {
            config,
            servers,
            authorization,
            inbox,
            connected,
            first: Some(first),
            last_error: String::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut pause_ms = limits::RECONNECT_MS_MIN;
        loop {
            let mut heard = false;
            let error = self.session(&mut heard).await;
            if let Some(fatal) = self.fatal(&error) {
                return self.give_up(fatal).await;
            }
            self.log(&error);
            let round = if heard {
                // It served until just now, and is asked first.
                pause_ms = limits::RECONNECT_MS_MIN;
                true
            } else {
                self.servers.turn()
            };
            if !round {
                sleep(ms(limits::RECONNECT_MS_MIN)).await;
                continue;
            }
            sleep(ms(pause_ms + world::rand::u64() % pause_ms)).await;
            pause_ms = (pause_ms * 2).min(limits::RECONNECT_MS_MAX);
            if pause_ms == limits::RECONNECT_MS_MAX {
                world::mark!("agent.link.longest_pause");
            }
        }
    }

    /// Before the server's first word a refusal is for good: nobody would
    /// correct it while the agent runs.
    fn fatal(&self, error: &LinkError) -> Option<StartError> {
        self.first.as_ref()?;
        match error {
            LinkError::Refused(problem) => {
                Some(StartError::Refused { node: self.config.node.clone(), problem: problem.clone() })
            }
            LinkError::Connect(ConnectError::Address { .. }) => Some(StartError::Address(error.to_string())),
            _ => None,
        }
    }

    async fn give_up(mut self, error: StartError) {
        let Some(first) = self.first.take() else { return };
        if let Err(Err(error)) = first.send(Err(error)) {
            // Nobody waits for the start any more: the agent ends.
            let _ = self.inbox.send(Inbound::Refused(error)).await;
        }
    }

    /// Says each new reason once.
    fn log(&mut self, error: &LinkError) {
        let text = error.to_string();
        if text == self.last_error {
            tracing::debug!(node = self.config.node, "{text}");
        } else {
            tracing::warn!(node = self.config.node, "{text}");
            self.last_error = text;
        }
    }

    /// One session from connecting to its end; how it ended.
    async fn session(&mut self, heard: &mut bool) -> LinkError {
        // Where there is another to ask none is waited for so long that a lease would end.
        let several = self.servers.len() > 1;
        let deadline = ms(if several { limits::CONNECT_MS_OF_SEVERAL } else { limits::CALL_MS_MAX });
        let channel = match connect(self.servers.current(), deadline).await {
            Ok(channel) => channel,
            Err(error) => return LinkError::Connect(error),
        };
        let client = AgentsClient::new(channel).max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
        let registered = match self.register(client.clone()).await {
            Ok(registered) => registered,
            Err(error) => return error,
        };
        if let Some(first) = self.first.take() {
            // Whoever started the agent may have stopped waiting.
            let _ = first.send(Ok(()));
        }
        let session = registered.session;
        let error = self.converse(client, &registered, heard).await;
        self.connected.send_replace(None);
        tell(&self.inbox, vec![Event::SessionClosed { session }]).await;
        error
    }

    async fn register(&self, mut client: AgentsClient<Channel>) -> Result<RegisterReply, LinkError> {
        let request = RegisterRequest {
            node: self.config.node.clone(),
            pool: self.config.pool.clone(),
            labels: self.config.labels.clone(),
            capacity: Some(self.config.capacity),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: self.config.address.clone(),
        };
        let call = client.register(authorized(&self.authorization, request));
        match timeout(ms(limits::CALL_MS_MAX), call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) if Problem::from(&status).code == STANDBY => {
                world::mark!("agent.link.server_stands_by");
                Err(LinkError::Failed(status))
            }
            Ok(Err(status)) if is_refusal(&status) => Err(LinkError::Refused(Problem::from(&status))),
            Ok(Err(status)) => Err(LinkError::Failed(status)),
            Err(_) => {
                world::mark!("agent.link.registration_unanswered");
                Err(LinkError::Silent("the registration"))
            }
        }
    }

    /// The session's stream, from its opening to its end.
    async fn converse(
        &self,
        mut client: AgentsClient<Channel>,
        registered: &RegisterReply,
        heard: &mut bool,
    ) -> LinkError {
        let session = registered.session;
        let heartbeat_ms = registered.heartbeat_ms.max(1);
        let (frames, outbound) = mpsc::channel(limits::FRAMES_WAITING_MAX);
        let (leave, mut left) = oneshot::channel();
        let beside = client.clone();
        // The loop gets its side first: a server may wait for the Hello before
        // it answers the call.
        let open =
            OpenSession { session, heartbeat_ms, lease_ttl_ms: registered.lease_ttl_ms, frames, leave };
        if self.inbox.send(Inbound::Session(open)).await.is_err() {
            return LinkError::Left("the agent ends".to_owned());
        }
        let call = client.session(authorized(&self.authorization, ReceiverStream::new(outbound)));
        let mut stream = match timeout(ms(limits::CALL_MS_MAX), call).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => return LinkError::Failed(status),
            Err(_) => return LinkError::Silent("the session"),
        };
        let authorization = self.authorization.clone();
        self.connected.send_replace(Some(Connection { session, client: beside, authorization }));
        // Every heartbeat is answered: two of them unanswered, and half of one.
        let silence = ms(heartbeat_ms.saturating_mul(5) / 2);
        let mut alarm = Alarm::default();
        loop {
            let frame = world::select! {
                biased;
                reason = &mut left => return LinkError::Left(reason.unwrap_or_default()),
                frame = stream.message() => frame,
                () = alarm.after(silence) => {
                    world::mark!("agent.link.server_fell_silent");
                    return LinkError::Silent("heartbeats");
                }
            };
            match frame {
                Ok(Some(frame)) => {
                    *heard = true;
                    if let Some(frame) = frame.frame {
                        tell(&self.inbox, vec![Event::Frame { session, frame }]).await;
                    }
                }
                Ok(None) => return LinkError::Left("the server closed it".to_owned()),
                Err(status) => return LinkError::Failed(status),
            }
        }
    }
}

/// The server said no, as opposed to: it could not answer.
fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::NotFound
            | Code::Unimplemented
    )
}
