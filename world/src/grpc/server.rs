//! What a server offers, said once for both builds.

use crate::{limits, sim::SimObjects, transfer::ObjectDoor};
use std::{fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};

#[cfg(not(madsim))]
pub(super) use super::native as side;
#[cfg(madsim)]
pub(super) use super::simulated as side;

pub use side::{GrpcService, Listener, bind};

/// Why a port cannot be listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindError {
    /// Another process has it.
    InUse {
        /// As asked.
        address: SocketAddr,
    },
    /// A port below 1024 without the right to it.
    Denied {
        /// As asked.
        address: SocketAddr,
    },
    /// This machine has no such address, or anything else.
    Other {
        /// As asked.
        address: SocketAddr,
        /// One line.
        reason: String,
    },
}

impl BindError {
    pub(super) fn new(address: SocketAddr, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::AddrInUse => Self::InUse { address },
            std::io::ErrorKind::PermissionDenied => Self::Denied { address },
            _ => Self::Other { address, reason: error.to_string() },
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { address } => {
                write!(
                    f,
                    "{address} is in use: stop what listens there or choose another port (0 finds a free one)"
                )
            }
            Self::Denied { address } => {
                write!(f, "no right to listen on {address}: choose a port above 1023")
            }
            Self::Other { address, reason } => write!(f, "cannot listen on {address}: {reason}"),
        }
    }
}
impl std::error::Error for BindError {}

/// Why a server could not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServeError {
    /// The descriptors given for reflection cannot be read.
    Descriptors(String),
    /// The network itself failed.
    Network(String),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptors(why) => write!(f, "the descriptors for reflection cannot be read: {why}"),
            Self::Network(why) => write!(f, "the network failed: {why}"),
        }
    }
}
impl std::error::Error for ServeError {}

/// Which network a server's objects are reached over: this machine's (the
/// default), or a simulated one. Natively it changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Network {
    #[cfg_attr(not(madsim), expect(dead_code, reason = "the machine's network needs no telling"))]
    pub(super) simulated: Option<(Arc<SimObjects>, String)>,
}

impl Network {
    /// A simulated network, seen from the node that others address as `host`.
    #[must_use]
    pub fn simulated(objects: Arc<SimObjects>, host: &str) -> Self {
        Self { simulated: Some((objects, host.to_owned())) }
    }
}

/// The types of messages that travel in a server's calls.
///
/// madsim hands messages over as they lie in memory. So that one which cannot
/// be encoded, or not be read again, is found there too, each is taken through
/// its bytes in simulation. Natively that is the network's matter, and this
/// list is of no use.
#[derive(Clone, Default)]
pub struct Messages {
    #[cfg(madsim)]
    pub(super) types: side::RoundTrips,
}

impl Messages {
    /// Adds a type.
    pub fn add<M>(&mut self)
    where
        M: prost::Message + Default + PartialEq + fmt::Debug + 'static,
    {
        #[cfg(madsim)]
        self.types.add::<M>();
    }
}

/// What is told of a method and a path where no route is.
pub type Nowhere = fn(&axum::http::Method, &str) -> axum::response::Response;

/// What calls are answered with by who serves none.
pub type Refusal = fn() -> tonic::Status;

fn no_such_page(_: &axum::http::Method, _: &str) -> axum::response::Response {
    axum::response::IntoResponse::into_response((axum::http::StatusCode::NOT_FOUND, "no such page\n"))
}

/// Everything one port offers.
pub struct Server {
    pub(super) services: side::Services,
    pub(super) door: Option<Arc<dyn ObjectDoor>>,
    pub(super) http: axum::Router,
    pub(super) nowhere: Nowhere,
    pub(super) refuses: Option<Refusal>,
    pub(super) descriptors: Vec<&'static [u8]>,
    pub(super) network: Network,
    pub(super) messages: Messages,
    pub(super) grace: Duration,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("objects", &self.door.is_some()).finish_non_exhaustive()
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// Offers nothing but (natively) health.
    #[must_use]
    pub fn new() -> Self {
        Self {
            services: side::Services::default(),
            door: None,
            http: axum::Router::new(),
            nowhere: no_such_page,
            refuses: None,
            descriptors: Vec::new(),
            network: Network::default(),
            messages: Messages::default(),
            grace: limits::SHUTDOWN_GRACE,
        }
    }

    /// Adds a gRPC service, as generated.
    #[must_use]
    pub fn service<S: GrpcService>(mut self, service: S) -> Self {
        service.add_to(&mut self.services);
        self
    }

    /// Answers `GET` and `PUT` of `/v1/objects/…` by this door.
    #[must_use]
    pub fn door(mut self, door: Arc<dyn ObjectDoor>) -> Self {
        self.door = Some(door);
        self
    }

    /// Adds HTTP routes; only served natively. They have no fallback of their own.
    #[must_use]
    pub fn http(mut self, routes: axum::Router) -> Self {
        self.http = self.http.merge(routes);
        self
    }

    /// How HTTP clients are told that there is no route; gRPC clients are told in
    /// their own words.
    #[must_use]
    pub fn nowhere(mut self, nowhere: Nowhere) -> Self {
        self.nowhere = nowhere;
        self
    }

    /// Answers every call of a service that it does not have with this, rather than that
    /// there is no such service; and says that it is not serving to who asks for health.
    #[must_use]
    pub fn refusing(mut self, refusal: Refusal) -> Self {
        self.refuses = Some(refusal);
        self
    }

    /// Answers reflection from these encoded descriptors; only natively.
    #[must_use]
    pub fn reflection(mut self, descriptors: &'static [u8]) -> Self {
        self.descriptors.push(descriptors);
        self
    }

    /// Which network the objects are reached over.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// The types of all messages of its services. In simulation a message of
    /// another type panics; without any type nothing is taken through bytes.
    #[must_use]
    pub fn messages(mut self, messages: Messages) -> Self {
        self.messages = messages;
        self
    }

    /// How long open calls may go on after the shutdown signal.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Serves until `shutdown` completes and then what is open has ended or
    /// the grace has passed. Dropped, it ends at once.
    pub async fn serve(
        self,
        listener: Listener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        side::serve(self, listener, shutdown).await
    }
}
