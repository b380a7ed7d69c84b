//! gRPC (and, on the same port, HTTP for objects), native or simulated.
//!
//! Code on this side of the door writes services once; [`Server`] takes them
//! in either build. Natively one port speaks HTTP/1.1 and HTTP/2 without TLS;
//! simulated, calls go over madsim's network and objects over [`Network`].

mod client;
#[cfg(not(madsim))]
mod native;
#[cfg(not(madsim))]
mod objects;
// Simulated, objects come without HTTP, and only its questions are read.
#[cfg_attr(madsim, allow(dead_code))]
mod ranges;
#[cfg(any(madsim, test))]
mod round_trip;
mod server;
mod servers;
#[cfg(madsim)]
mod simulated;
#[cfg(not(madsim))]
mod stall;

pub use axum;
pub use client::{ConnectError, connect};
#[cfg(not(madsim))]
pub(crate) use objects::{DIGEST_EXPECTED, DIGEST_FOUND, VERIFYING};
pub use ranges::{Wanted, wanted_untagged};
#[cfg(not(madsim))]
pub(crate) use ranges::{content_range, so_far, tag, told};
pub use server::{
    BindError, GrpcService, Listener, Messages, Network, Nowhere, Refusal, ServeError, Server, bind,
};
pub use servers::{SERVERS_MAX, Servers};
pub use tonic;
pub use tonic::transport::Channel;
