//! WebSocket (RFC 6455): one text message for each thing that a subscriber follows.
//! All else that is said has a member that names it: `missed`, `end`, `problem`.

use super::Call;
use super::problem::Refusal;
use crate::gate::Pace;
use crate::limits;
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{Request, header};
use axum::response::Response;
use proto::problem::Problem;
use serde_json::{Value, json};
use std::future::Future;
use std::pin::pin;
use world::grpc::axum;
use world::time::{self, Instant};

/// What a subscriber is told.
#[derive(Debug)]
pub(super) enum Told {
    /// One of what it follows, as JSON, with its number.
    Item { seq: u64, json: String },
    /// Nothing more will ever come.
    End,
    /// It cannot go on.
    Problem(Value),
    /// The server stops; another one will go on.
    Leaving,
}

/// Something to be followed.
pub(super) trait Feed: Send + 'static {
    fn pace(&self) -> Pace;

    /// Dropped while it waits, it has told nothing and lost nothing.
    fn next(&mut self) -> impl Future<Output = Told> + Send;

    /// What a slow subscriber is let go with; `None`: it is waited for.
    fn missed(&mut self) -> impl Future<Output = Option<Value>> + Send;

    /// What is said at the end.
    fn end(&self) -> Value {
        json!({ "end": true })
    }
}

/// Whether the caller wants one.
pub(super) fn is_wanted(call: &Call) -> bool {
    call.header(header::UPGRADE.as_str()).is_some_and(|to| to.eq_ignore_ascii_case("websocket"))
}

/// Opened once the feed is: its refusals have a status only before the upgrade.
pub(super) async fn open(call: Call, feed: impl Feed) -> Result<Response, Refusal> {
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.headers, parts.extensions) = (call.headers, call.extensions);
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await.map_err(|error| {
        let remedy = "upgrade as RFC 6455 says, over HTTP/1.1";
        Problem::new("http.upgrade", "upgrade", "websocket", error.to_string(), remedy)
    })?;
    let upgrade = upgrade
        .max_message_size(limits::SOCKET_MESSAGE_BYTES_MAX)
        .max_frame_size(limits::SOCKET_MESSAGE_BYTES_MAX)
        .max_write_buffer_size(limits::SOCKET_WRITE_BYTES_MAX);
    Ok(upgrade.on_upgrade(|socket| Subscriber { socket, feed, heard: Instant::now() }.serve()))
}

struct Subscriber<F> {
    socket: WebSocket,
    feed: F,
    /// When the other side last said anything.
    heard: Instant,
}

/// How a subscription ends, as the other side is told.
struct Close(u16, &'static str);

const GONE: Close = Close(close_code::AWAY, "the server stops; resume where it ended");
const SLOW: Close = Close(close_code::AGAIN, "too slow; resume from the first number missed");
const DONE: Close = Close(close_code::NORMAL, "that is all");
const FAILED: Close = Close(close_code::ERROR, "it cannot be read");

impl<F: Feed> Subscriber<F> {
    async fn serve(mut self) {
        // An error is the other side gone: nobody is left to tell.
        if let Ok(Close(code, reason)) = self.run().await {
            let frame = CloseFrame { code, reason: reason.into() };
            let patience = time::ms(self.feed.pace().slow_ms);
            let closing = self.socket.send(Message::Close(Some(frame)));
            let _in_time = time::timeout(patience, closing).await;
        }
    }

    async fn run(&mut self) -> Result<Close, axum::Error> {
        let ping = time::ms(self.feed.pace().ping_ms);
        let mut due = Instant::now() + ping;
        loop {
            let told = world::select! { biased;
                heard = self.socket.recv() => match heard {
                    Some(Ok(Message::Close(_))) | None => return Ok(DONE),
                    Some(Err(error)) => return Err(error),
                    // Nothing is asked over it; a sign of life all the same.
                    Some(Ok(_)) => {
                        self.heard = Instant::now();
                        continue;
                    }
                },
                told = self.feed.next() => told,
                () = time::sleep_until(due) => {
                    if self.heard.elapsed() > ping * 3 {
                        return Err(axum::Error::new("no pong came"));
                    }
                    due = Instant::now() + ping;
                    self.socket.send(Message::Ping(Vec::new().into())).await?;
                    continue;
                }
            };
            match told {
                Told::Item { json, .. } => {
                    if self.send(json).await? {
                        continue;
                    }
                    if let Some(missed) = self.feed.missed().await {
                        self.say("missed", missed).await?;
                        return Ok(SLOW);
                    }
                }
                Told::End => {
                    let end = self.feed.end().to_string();
                    self.socket.send(Message::text(end)).await?;
                    return Ok(DONE);
                }
                Told::Problem(problem) => {
                    self.say("problem", problem).await?;
                    return Ok(FAILED);
                }
                Told::Leaving => return Ok(GONE),
            }
        }
    }

    async fn say(&mut self, name: &str, value: Value) -> Result<(), axum::Error> {
        self.socket.send(Message::text(json!({ name: value }).to_string())).await
    }

    /// Sends one message to its end. `false`: it took longer than patience has.
    /// What takes for ever is cut off below (`world::limits::STALL`).
    async fn send(&mut self, text: String) -> Result<bool, axum::Error> {
        let patience = time::ms(self.feed.pace().slow_ms);
        let mut sending = pin!(self.socket.send(Message::text(text)));
        let in_time = time::timeout(patience, sending.as_mut()).await;
        let slow = in_time.is_err();
        match in_time {
            Ok(sent) => sent?,
            Err(_) => sending.await?,
        }
        if slow {
            // It read just now.
            self.heard = Instant::now();
        }
        Ok(!slow)
    }
}
