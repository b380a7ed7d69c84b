//! HTTP clients of this machine: plain, and over TLS with the certificates that its
//! system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).
//!
//! Reading those takes tens of milliseconds: only who meets the first `https://` pays.

use crate::{limits::HEADER_READ, task};
use hyper::{
    Request, Response,
    body::{Body, Incoming},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use std::{error::Error, io, time::Duration};
use tokio::sync::OnceCell;

/// Clients that keep connections for later requests.
pub struct Clients<B> {
    plain: Client<HttpConnector, B>,
    secure: OnceCell<Client<HttpsConnector<HttpConnector>, B>>,
    connect: Duration,
    idle_connections_max: usize,
    read_bytes: usize,
}

/// What hyper asks of a body.
pub trait Sendable:
    Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static
{
}
impl<B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static> Sendable for B {}

impl<B: Sendable> Clients<B> {
    /// `read_bytes` are read from a connection at once, at most.
    pub fn new(connect: Duration, idle_connections_max: usize, read_bytes: usize) -> Self {
        let plain = builder(idle_connections_max, read_bytes).build(tcp(connect));
        Self { plain, secure: OnceCell::new(), connect, idle_connections_max, read_bytes }
    }

    /// By the scheme of its URL, which is `http` or `https`.
    pub async fn request(&self, request: Request<B>) -> io::Result<Response<Incoming>> {
        let answered = match request.uri().scheme_str() {
            Some("https") => self.secure().await?.request(request).await,
            _ => self.plain.request(request).await,
        };
        answered.map_err(io::Error::other)
    }

    async fn secure(&self) -> io::Result<&Client<HttpsConnector<HttpConnector>, B>> {
        let (connect, idle, read) = (self.connect, self.idle_connections_max, self.read_bytes);
        let open = || async move {
            let connector = task::blocking(move || secured(tcp(connect))).await?;
            Ok(builder(idle, read).build(connector))
        };
        self.secure.get_or_try_init(open).await
    }
}

fn tcp(connect: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(connect));
    connector.set_nodelay(true);
    connector.enforce_http(false);
    connector
}

/// Blocks.
fn secured(tcp: HttpConnector) -> io::Result<HttpsConnector<HttpConnector>> {
    let provider = rustls::crypto::ring::default_provider();
    let roots = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider).map_err(|error| {
        let remedy = "install the package ca-certificates, or name a file of them in SSL_CERT_FILE";
        io::Error::other(format!("no certificates to trust were found ({error}): {remedy}"))
    })?;
    Ok(roots.https_only().enable_http1().wrap_connector(tcp))
}

fn builder(idle_connections_max: usize, read_bytes: usize) -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        // Sooner than the server, which closes what is silent for its own limit.
        .pool_idle_timeout(HEADER_READ / 2)
        .pool_max_idle_per_host(idle_connections_max)
        .http1_max_buf_size(read_bytes);
    builder
}
