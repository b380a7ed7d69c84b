//! Connections to servers.

use crate::{limits, time};
use std::{error::Error, fmt, time::Duration};
use tonic::transport::{Channel, Endpoint};

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The text is no `host:port` or `http://host:port`.
    Address {
        /// As given.
        address: String,
        /// One line.
        reason: String,
    },
    /// Nobody there, or nobody who speaks gRPC.
    Unreachable {
        /// As given.
        address: String,
        /// One line.
        reason: String,
    },
    /// No answer in time.
    Deadline {
        /// As given.
        address: String,
        /// How long it was waited for.
        waited: Duration,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, reason } => write!(f, "{address:?} is no server address: {reason}"),
            Self::Unreachable { address, reason } => {
                write!(f, "no server can be reached at {address}: {reason}")
            }
            Self::Deadline { address, waited } => {
                write!(f, "the server at {address} did not answer within {} ms", waited.as_millis())
            }
        }
    }
}
impl Error for ConnectError {}

/// An error and what is behind it, on one line, no part twice.
fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(source) = at {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        at = source.source();
    }
    text
}

/// Connects to `host:port` or `http://host:port`. The channel connects anew by
/// itself when the connection breaks (each try again within `deadline`), and
/// notices a silent peer by pings.
pub async fn connect(address: &str, deadline: Duration) -> Result<Channel, ConnectError> {
    let bad = |reason: &str| ConnectError::Address { address: address.to_owned(), reason: reason.to_owned() };
    if address.starts_with("https://") {
        return Err(bad("TLS is not supported; use http://host:port behind a trusted network"));
    }
    let host = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    let port = host.rsplit_once(':').map(|(name, port)| (name, port.parse::<u16>()));
    if host.contains('/') || !matches!(port, Some((name, Ok(port))) if !name.is_empty() && port != 0) {
        return Err(bad("it should read host:port"));
    }
    let endpoint = Endpoint::from_shared(format!("http://{host}"))
        .map_err(|error| bad(&one_line(&error)))?
        .connect_timeout(deadline)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(limits::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(limits::HEADER_BYTES_MAX);
    // The endpoint's own deadline ends with the TCP connection.
    match time::timeout(deadline, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => {
            Err(ConnectError::Unreachable { address: address.to_owned(), reason: one_line(&error) })
        }
        Err(_) => Err(ConnectError::Deadline { address: address.to_owned(), waited: deadline }),
    }
}
