//! Every limit of the world's network, named. A limit is hit rather than
//! waited on for ever: what then happens is said beside it.

use std::time::Duration;

/// Connections of one server at once; more wait in the backlog.
pub const CONNECTIONS_MAX: usize = 4096;
/// Connections that have not asked for anything yet; the oldest of them is cut
/// off for a newer one, so that idle sockets keep nobody out.
pub const UNASKED_MAX: usize = 1024;
/// Calls of one HTTP/2 connection at once; more wait at the client.
pub const STREAMS_MAX: u32 = 1024;
/// Bytes of one HTTP/2 frame.
pub const FRAME_BYTES_MAX: u32 = 256 * 1024;
/// Bytes of one request's headers; more is refused with 431.
pub const HEADER_BYTES_MAX: u32 = 32 * 1024;
/// Bytes in flight of one call.
pub const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes in flight of one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes of a request's target (path and query) for objects; more is refused with 414.
pub const TARGET_BYTES_MAX: usize = 4096;
/// What a server still reads of an upload it has refused, so that the answer
/// is not lost to a reset; past it the connection is closed.
pub const REFUSED_DRAIN_BYTES_MAX: u64 = 1024 * 1024;
/// How long it reads so.
pub const REFUSED_DRAIN: Duration = Duration::from_secs(1);
/// How much of a refusal's text a client reads.
pub const REASON_BYTES_MAX: usize = 4096;
/// From accepting a connection to its first byte.
pub const FIRST_BYTE: Duration = Duration::from_secs(10);
/// From the first byte of an HTTP/1 request to the end of its headers.
pub const HEADER_READ: Duration = Duration::from_secs(10);
/// A peer that takes nothing for so long, or an upload that brings nothing,
/// is cut off.
pub const STALL: Duration = Duration::from_secs(30);
/// An upload whose bytes are all there is verified within a time for all alike, and so many
/// milliseconds for each MiB; its client waits no longer.
pub const VERIFY_MS_PER_MIB: u64 = 100;
/// The time for all alike.
pub const VERIFY: Duration = Duration::from_secs(60);
/// Between two asks whether it is verified. What servers tell others to wait, too.
pub const VERIFY_PAUSE: Duration = Duration::from_secs(1);
/// Between two HTTP/2 pings of an idle connection, from the client.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a ping may stay unanswered.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two HTTP/2 pings from the server.
pub const SERVER_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// From the shutdown signal to cutting off what still runs.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// After a failed accept (no descriptors left, say).
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// For a connection to a webhook to stand.
pub const WEBHOOK_CONNECT: Duration = Duration::from_secs(5);
/// From posting to a webhook to its whole answer.
pub const WEBHOOK_ANSWER: Duration = Duration::from_secs(10);

/// Bytes that a program may answer.
pub const PROGRAM_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Between asking a program to end and ending it.
pub const PROGRAM_GRACE: Duration = Duration::from_secs(2);
/// How long its pipes are read after its end, where something holds them open.
pub const PROGRAM_LEFT_OPEN: Duration = Duration::from_millis(200);
/// Between two looks at a program that runs.
pub const PROGRAM_LOOK: Duration = Duration::from_millis(10);
