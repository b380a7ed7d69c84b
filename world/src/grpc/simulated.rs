//! Serving over madsim's network.
//!
//! The loop is ours and not madsim-tonic's: that one waits for each call's
//! first message before it takes the next call, so that one node behind a cut
//! link would hold up all others.

pub(super) use super::round_trip::RoundTrips;
use super::server::{BindError, Refusal, ServeError, Server};
use crate::sim::universe;
use madsim::net::{Endpoint, Receiver, Sender};
use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use tonic::{
    Request, Response, Status,
    codegen::{
        BoxFuture, BoxMessage, BoxMessageStream, RequestExt, Service,
        futures::{StreamExt, stream},
        http::uri::PathAndQuery,
    },
    transport::NamedService,
};

type BoxService = Box<
    dyn Service<
            (PathAndQuery, Request<BoxMessageStream>),
            Response = Response<BoxMessageStream>,
            Error = Status,
            Future = BoxFuture<Response<BoxMessageStream>, Status>,
        > + Send,
>;

/// Services by name.
#[derive(Default)]
pub struct Services {
    by_name: BTreeMap<&'static str, Arc<Mutex<BoxService>>>,
}

/// A generated gRPC service.
pub trait GrpcService {
    /// Puts it among others.
    fn add_to(self, services: &mut Services);
}

impl<S> GrpcService for S
where
    S: Service<
            (PathAndQuery, Request<BoxMessageStream>),
            Response = Response<BoxMessageStream>,
            Error = Status,
            Future = BoxFuture<Response<BoxMessageStream>, Status>,
        > + NamedService
        + Send
        + 'static,
{
    fn add_to(self, services: &mut Services) {
        services.by_name.insert(S::NAME, Arc::new(Mutex::new(Box::new(self))));
    }
}

/// A bound port of the simulated network.
pub struct Listener {
    endpoint: Endpoint,
    address: SocketAddr,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish()
    }
}

impl Listener {
    /// With the port that was found where 0 was asked.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Takes a port of this node.
pub async fn bind(address: SocketAddr) -> Result<Listener, BindError> {
    let failed = |error: std::io::Error| BindError::new(address, &error);
    let endpoint = Endpoint::bind(address).await.map_err(failed)?;
    let address = endpoint.local_addr().map_err(failed)?;
    Ok(Listener { endpoint, address })
}

pub(super) async fn serve(
    server: Server,
    listener: Listener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let Listener { endpoint, address } = listener;
    // Found by transfers for as long as this future lives.
    let _door = match (server.network.simulated, server.door) {
        (Some((objects, host)), Some(door)) => {
            Some(objects.register(&format!("{host}:{}", address.port()), door))
        }
        _ => None,
    };
    let services = Arc::new((server.services, server.messages.types));
    let refuses = server.refuses;
    let mut shutdown = pin!(shutdown);
    loop {
        let (tx, rx, peer) = tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            accepted = endpoint.accept1() => accepted.map_err(|error| ServeError::Network(error.to_string()))?,
        };
        let services = services.clone();
        madsim::task::spawn(async move {
            // An error here is the caller's end gone: nobody is left to tell.
            let (services, messages) = &*services;
            let _gone = answer((services, refuses), messages, tx, rx, address, peer).await;
        });
    }
}

fn with_metadata(mut status: Status) -> Status {
    status.metadata_mut().insert("content-type", "application/grpc".parse().expect("a plain word"));
    status
}

/// One call, in the words of madsim-tonic's client: a request (alone, or an
/// empty one and then its stream), then a response (alone, or its head, its
/// stream and an end mark). Every message passes here, so here each is taken
/// through its bytes.
async fn answer(
    (services, refuses): (&Services, Option<Refusal>),
    messages: &RoundTrips,
    tx: Sender,
    mut rx: Receiver,
    address: SocketAddr,
    peer: SocketAddr,
) -> std::io::Result<()> {
    let first = rx.recv().await?;
    let peer_ip = peer.ip();
    carried(peer_ip).await;
    let (path, streams, mut request) = *first
        .downcast::<(PathAndQuery, bool, Request<BoxMessage>)>()
        .expect("only madsim-tonic's clients connect to this port");
    request.set_tcp_connect_info(address, peer);
    let bytes = messages.clone();
    let mut struck = if streams { universe::half_open(peer_ip) } else { None };
    // Set before the peer's end of a stream that is struck goes away.
    let deaf = struck.as_ref().map(|_| Arc::new(AtomicBool::new(false)));
    let hears = deaf.clone();
    let request = request.map(move |message| -> BoxMessageStream {
        if message.downcast_ref::<()>().is_none() {
            let message = bytes.take(message);
            return stream::once(async move { Ok(message) }).boxed();
        }
        stream::unfold((rx, bytes, hears), move |(mut rx, bytes, hears)| async move {
            let message = rx.recv().await;
            if hears.as_ref().is_some_and(|deaf| deaf.load(Ordering::Relaxed)) {
                std::future::pending::<()>().await;
            }
            carried(peer_ip).await;
            Some((Ok(bytes.take(message.ok()?)), (rx, bytes, hears)))
        })
        .boxed()
    });
    let name = path.path().split('/').nth(1).unwrap_or_default();
    let result = match services.by_name.get(name) {
        None => {
            let unknown = || Status::unimplemented(format!("service not found: {path}"));
            Err(refuses.map_or_else(unknown, |refusal| refusal()))
        }
        Some(service) => {
            poll_fn(|context| service.lock().expect("services do not panic when called").poll_ready(context))
                .await
                .expect("generated services are always ready");
            let call = service.lock().expect("services do not panic when called").call((path, request));
            call.await
        }
    };
    let result = result.map(|response| response.map(|stream| through_bytes(stream, messages.clone())));
    if !streams {
        return send_one(&tx, result, peer_ip).await;
    }
    let Some((told, deaf)) = struck.as_mut().zip(deaf) else {
        return send_stream(tx, result, peer_ip, std::future::pending()).await;
    };
    let struck = async {
        // Without a word for as long as nothing strikes.
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
        deaf.store(true, Ordering::Relaxed);
    };
    send_stream(tx, result, peer_ip, struck).await
}

/// A message on a slow link.
async fn carried(peer: IpAddr) {
    if let Some(lag) = universe::link_lag(peer) {
        crate::time::sleep(lag).await;
    }
}

fn through_bytes(stream: BoxMessageStream, messages: RoundTrips) -> BoxMessageStream {
    stream.map(move |message| message.map(|message| messages.take(message))).boxed()
}

async fn send_one(
    tx: &Sender,
    result: Result<Response<BoxMessageStream>, Status>,
    peer: IpAddr,
) -> std::io::Result<()> {
    let reply: Result<Response<BoxMessage>, Status> = match result {
        Ok(response) => {
            let (metadata, mut messages, extensions) = response.into_parts();
            let message = tokio::select! {
                biased;
                () = tx.closed() => return Ok(()),
                message = messages.next() => message,
            };
            match message {
                Some(Ok(message)) => Ok(Response::from_parts(metadata, message, extensions)),
                Some(Err(status)) => Err(with_metadata(status)),
                None => Err(with_metadata(Status::internal("the service gave no answer"))),
            }
        }
        Err(status) => Err(with_metadata(status)),
    };
    carried(peer).await;
    tx.send(Box::new(reply)).await
}

/// `struck` comes where the peer's side ends and this one is not told.
async fn send_stream(
    tx: Sender,
    result: Result<Response<BoxMessageStream>, Status>,
    peer: IpAddr,
    struck: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let mut struck = pin!(struck);
    let mut messages = match result {
        Ok(response) => {
            let (metadata, messages, extensions) = response.into_parts();
            let head: Result<Response<()>, Status> = Ok(Response::from_parts(metadata, (), extensions));
            tx.send(Box::new(head)).await?;
            messages
        }
        Err(status) => {
            let head: Result<Response<()>, Status> = Err(with_metadata(status));
            return tx.send(Box::new(head)).await;
        }
    };
    loop {
        let message = tokio::select! {
            biased;
            () = &mut struck => {
                drop(tx);
                // What is said goes nowhere, and nothing comes back.
                while messages.next().await.is_some() {}
                return Ok(());
            }
            () = tx.closed() => return Ok(()),
            message = messages.next() => message,
        };
        let Some(message) = message else { break };
        let message: Result<BoxMessage, Status> = message;
        carried(peer).await;
        tx.send(Box::new(message)).await?;
    }
    tx.send(Box::new(())).await
}
