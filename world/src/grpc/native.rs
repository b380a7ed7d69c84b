//! Serving over TCP: HTTP/1.1 and HTTP/2 without TLS on one port.
//!
//! Every connection costs one of a fixed number of places, must send its first
//! byte soon, its headers soon after, and take what is sent to it; otherwise
//! it is cut off. One that has not asked for anything yet has to make room for
//! newer ones: a crowd of idle sockets keeps nobody out.

use super::{
    objects,
    server::{BindError, Nowhere, Refusal, ServeError, Server},
};
use crate::{limits, time};
use axum::{Router, response::IntoResponse};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto::Builder,
};
use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{AbortHandle, JoinSet},
};
use tonic::{
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    service::Routes,
    transport::server::TcpConnectInfo,
};

/// Services as routes, and their names for health.
pub struct Services {
    routes: Routes,
    names: Vec<&'static str>,
}

impl Default for Services {
    fn default() -> Self {
        // Without tonic's fallback: ours tells a browser 404.
        Self { routes: Routes::from(Router::new()), names: Vec::new() }
    }
}

/// A generated gRPC service.
pub trait GrpcService {
    /// Puts it among others.
    fn add_to(self, services: &mut Services);
}

impl<S> GrpcService for S
where
    S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    fn add_to(self, services: &mut Services) {
        services.names.push(S::NAME);
        services.routes = std::mem::take(&mut services.routes).add_service(self);
    }
}

/// A port that is listened on.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// With the port that was found where 0 was asked.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Takes a port of this machine.
pub async fn bind(address: SocketAddr) -> Result<Listener, BindError> {
    let failed = |error: std::io::Error| BindError::new(address, &error);
    let tcp = TcpListener::bind(address).await.map_err(failed)?;
    let address = tcp.local_addr().map_err(failed)?;
    Ok(Listener { tcp, address })
}

/// What has no route: gRPC clients are told in their own words.
async fn nowhere(
    told: Nowhere,
    refuses: Option<Refusal>,
    request: axum::extract::Request,
) -> axum::response::Response {
    let is_grpc = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let unknown = || tonic::Status::unimplemented("no such service or method");
        return refuses.map_or_else(unknown, |refusal| refusal()).into_http::<axum::body::Body>();
    }
    let (head, mut body) = request.into_parts();
    if !head.headers.contains_key(http::header::EXPECT) {
        objects::drain(&mut body).await;
    }
    told(&head.method, head.uri.path())
}

/// All routes of one port, and the word about its health.
async fn routes(server: Server) -> Result<(Router, tonic_health::server::HealthReporter), ServeError> {
    let Services { mut routes, names } = server.services;
    let (reporter, health) = tonic_health::server::health_reporter();
    for name in names {
        reporter.set_service_status(name, tonic_health::ServingStatus::Serving).await;
    }
    routes = routes.add_service(health);
    if !server.descriptors.is_empty() {
        let mut builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        for descriptors in &server.descriptors {
            builder = builder.register_encoded_file_descriptor_set(descriptors);
        }
        let reflection = builder.build_v1().map_err(|error| ServeError::Descriptors(error.to_string()))?;
        routes = routes.add_service(reflection);
    }
    let mut router = routes.into_axum_router().merge(server.http);
    if let Some(door) = server.door {
        router = router.merge(objects::routes(door));
    }
    let (told, refuses) = (server.nowhere, server.refuses);
    if refuses.is_some() {
        reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    }
    let router = router.fallback(move |request| nowhere(told, refuses, request)).with_state(());
    Ok((router, reporter))
}

fn protocols() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_READ)
        .max_buf_size(512 * 1024)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::STREAMS_MAX)
        .max_frame_size(limits::FRAME_BYTES_MAX)
        .max_header_list_size(limits::HEADER_BYTES_MAX)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(limits::SERVER_KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT);
    builder
}

pub(super) async fn serve(
    server: Server,
    listener: Listener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let grace = server.grace;
    let (router, health) = routes(server).await?;
    let builder = Arc::new(protocols());
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut newest = Newest::default();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, peer, place) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a connection panicked");
                }
                continue;
            }
            accepted = accept(&listener.tcp, &places) => accepted,
        };
        // Of a listener on all addresses, the one by which this peer came.
        let local_addr = stream.local_addr().ok().or(Some(listener.address));
        let info = TcpConnectInfo { local_addr, remote_addr: Some(peer) };
        let asked = Arc::new(AtomicBool::new(false));
        // The place is the socket's, which outlives this task where it is upgraded.
        let io = super::stall::Guarded::new(stream, limits::FIRST_BYTE, limits::STALL, place);
        let task =
            connection(builder.clone(), io, info, router.clone(), Arc::clone(&asked), stopping.clone());
        newest.add(connections.spawn(task), asked);
    }
    drop(listener);
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    // Receivers see the sender gone.
    drop(stop);
    let ended = async { while connections.join_next().await.is_some() {} };
    if time::timeout(grace, ended).await.is_err() {
        tracing::info!(open = connections.len(), "cutting off connections that outlast the grace");
        connections.shutdown().await;
    }
    Ok(())
}

/// Waits for a place, then for a connection. Cancelled, nothing is lost but
/// the place in the line.
async fn accept(tcp: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match tcp.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                time::sleep(limits::ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// The connections that came last, with whether each has asked for anything.
#[derive(Default)]
struct Newest(VecDeque<(AbortHandle, Arc<AtomicBool>)>);

impl Newest {
    fn add(&mut self, connection: AbortHandle, asked: Arc<AtomicBool>) {
        self.0.push_back((connection, asked));
        if self.0.len() > limits::UNASKED_MAX
            && let Some((oldest, asked)) = self.0.pop_front()
            && !asked.load(Ordering::Relaxed)
        {
            oldest.abort();
        }
    }
}

async fn connection(
    builder: Arc<Builder<TokioExecutor>>,
    io: super::stall::Guarded,
    info: TcpConnectInfo,
    router: Router,
    asked: Arc<AtomicBool>,
    mut stopping: watch::Receiver<()>,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(info.clone());
        router.clone().call(request)
    });
    let mut serving = pin!(builder.serve_connection_with_upgrades(io, service));
    let result = tokio::select! {
        biased;
        result = serving.as_mut() => result,
        // The sender gone is the signal.
        _gone = stopping.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}
