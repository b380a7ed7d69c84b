//! Server-sent events (the WHATWG's HTML standard, 9.2): each event with its
//! number as id, so that a browser that comes again resumes by itself.

use super::feed::Events;
use crate::rest::socket::{Feed, Told};
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use std::convert::Infallible;
use std::fmt::Write as _;
use world::grpc::axum;
use world::time::{self, Instant};

/// How long a browser waits before it comes again.
const RETRY: &str = "retry: 1000\n\n";
/// Bytes written at once, about.
const PART_BYTES: usize = 32 << 10;

struct Stream {
    feed: Events,
    /// When the last part was handed over. The next one is asked for once there
    /// is room for it: the time between is what the subscriber took.
    handed_over: Option<Instant>,
    over: bool,
}

pub(super) fn answer(feed: Events) -> Response {
    let stream = Stream { feed, handed_over: None, over: false };
    let parts = unfold(stream, |mut stream| async move {
        let part = stream.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(part)), stream))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(parts)).into_response()
}

impl Stream {
    async fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        let part = match self.handed_over {
            None => RETRY.to_owned(),
            Some(at) if at.elapsed() >= time::ms(self.feed.pace().slow_ms) => {
                match self.feed.missed().await {
                    Some(missed) => {
                        self.over = true;
                        named("missed", &missed.to_string())
                    }
                    None => self.gather().await?,
                }
            }
            Some(_) => self.gather().await?,
        };
        self.handed_over = Some(Instant::now());
        Some(part)
    }

    /// Waits for one event and takes what has come with it.
    async fn gather(&mut self) -> Option<String> {
        let Ok(first) = time::timeout(time::ms(self.feed.pace().ping_ms), self.feed.next()).await else {
            return Some(": ping\n\n".to_owned());
        };
        let mut part = String::new();
        let mut told = Some(first);
        while let Some(next) = told {
            self.over = !matches!(next, Told::Item { .. });
            match next {
                Told::Item { seq, json } => {
                    write!(part, "id: {seq}\ndata: {json}\n\n").expect("a String takes all")
                }
                Told::End => part.push_str(&named("end", "{}")),
                Told::Problem(problem) => part.push_str(&named("problem", &problem.to_string())),
                // It comes again, and finds the next server.
                Told::Leaving => break,
            }
            told = if self.over || part.len() >= PART_BYTES { None } else { self.feed.next_waiting() };
        }
        (!part.is_empty()).then_some(part)
    }
}

fn named(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}
