//! Following jobs: logs and events that survive a server's restart, and the wait
//! for a job's end.
//!
//! Each stream is resumed after what was already handed over, so a follower
//! sees everything once and in order. What a follower wanted left out it tells the
//! server once: whoever asks again goes on from there, however long it took.

use crate::{client::Client, failure::Failure, limits};
use proto::v1::{
    Event, EventsReply, EventsRequest, JobRequest, JobView, LogChunk, LogsReply, LogsRequest, State,
};
use std::time::Duration;
use world::{
    grpc::tonic::Streaming,
    sync::mpsc,
    task,
    time::{self, Instant},
};

pub use proto::words::is_ended;

/// What a log's stream says.
#[derive(Debug)]
pub enum LogNews {
    /// Further bytes.
    Chunks(Vec<LogChunk>),
    /// Nothing more will ever come; so many bytes died with their node.
    End {
        /// Bytes written but lost.
        missing_bytes: u64,
    },
    /// It broke for good.
    Failed(Failure),
}

/// What the history's stream says.
#[derive(Debug)]
pub enum EventNews {
    /// Further events.
    Events(Vec<Event>),
    /// The job is over, or all there was has been told.
    End,
    /// It broke for good.
    Failed(Failure),
}

/// The exit code that a job's end stands for.
#[must_use]
pub fn exit_code(view: &JobView) -> u8 {
    let state = view.state.clone().unwrap_or_default();
    if state.state() == State::Completed {
        return 0;
    }
    match u8::try_from(state.exit_code) {
        Ok(0) | Err(_) => 1,
        Ok(code) => code,
    }
}

/// How long the server has been away, and whether to go on trying.
struct Patience {
    since: Option<Instant>,
}
impl Patience {
    fn new() -> Self {
        Self { since: None }
    }
    fn heard(&mut self) {
        self.since = None;
    }
    /// Waits before the next try, or gives the failure back.
    async fn bear(&mut self, failure: Failure) -> Result<(), Failure> {
        if !matches!(failure, Failure::Unreachable(_)) {
            return Err(failure);
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= time::ms(limits::RECONNECT_MS_MAX) {
            return Err(failure);
        }
        time::sleep(limits::RECONNECT_PAUSE).await;
        Ok(())
    }
}

/// News of a stream that can be resumed after what was handed over.
trait Followed: Sized + Send + 'static {
    /// Holds the place to go on from.
    type Request: Clone + Send + 'static;
    /// As the server sends it.
    type Reply: Send;

    /// Opens the stream at the request's place.
    fn open(
        client: &Client,
        request: Self::Request,
    ) -> impl Future<Output = Result<Streaming<Self::Reply>, Failure>> + Send;

    /// What to ask for, so long after the follower began.
    fn ask(request: &Self::Request, begun: Duration) -> Self::Request;

    /// Moves the place behind a reply: its news, if any, and the end if this
    /// was the last.
    fn take(request: &mut Self::Request, reply: Self::Reply) -> (Option<Self>, Option<Self>);

    /// It broke for good.
    fn failed(failure: Failure) -> Self;
}

impl Followed for LogNews {
    type Request = LogsRequest;
    type Reply = LogsReply;

    async fn open(client: &Client, request: LogsRequest) -> Result<Streaming<LogsReply>, Failure> {
        client.logs(request).await
    }

    fn ask(request: &LogsRequest, begun: Duration) -> LogsRequest {
        let mut asked = request.clone();
        if asked.tail_ms > 0 {
            // The server counts back from when it is asked; the tail began when we were.
            let begun_ms = u64::try_from(begun.as_millis()).unwrap_or(u64::MAX);
            asked.tail_ms = asked.tail_ms.saturating_add(begun_ms);
        }
        asked
    }

    fn take(request: &mut LogsRequest, reply: LogsReply) -> (Option<Self>, Option<Self>) {
        // What the tail left out lies before the cursor, which alone tells from where on:
        // what is written while nobody is connected may be older than any tail.
        request.cursor = reply.cursor;
        request.tail_ms = 0;
        let more = (!reply.chunks.is_empty()).then_some(Self::Chunks(reply.chunks));
        (more, reply.end.then_some(Self::End { missing_bytes: reply.missing_bytes }))
    }

    fn failed(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Followed for EventNews {
    type Request = EventsRequest;
    type Reply = EventsReply;

    async fn open(client: &Client, request: EventsRequest) -> Result<Streaming<EventsReply>, Failure> {
        client.events(request).await
    }

    fn ask(request: &EventsRequest, _begun: Duration) -> EventsRequest {
        request.clone()
    }

    fn take(request: &mut EventsRequest, reply: EventsReply) -> (Option<Self>, Option<Self>) {
        request.from_seq = reply.next_seq;
        let more = (!reply.events.is_empty()).then_some(Self::Events(reply.events));
        (more, reply.end.then_some(Self::End))
    }

    fn failed(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Follows a log from `request.cursor` on, or what its tail names.
pub fn logs(client: &Client, request: LogsRequest) -> mpsc::Receiver<LogNews> {
    follow(client, request)
}

/// Follows the history from `request.from_seq` on.
pub fn events(client: &Client, request: EventsRequest) -> mpsc::Receiver<EventNews> {
    follow(client, request)
}

fn follow<N: Followed>(client: &Client, request: N::Request) -> mpsc::Receiver<N> {
    let (news, receiver) = mpsc::channel(limits::FOLLOW_QUEUE);
    let client = client.clone();
    task::spawn(async move {
        let last = pump(&client, request, &news).await.unwrap_or_else(|failure| Some(N::failed(failure)));
        if let Some(last) = last {
            // Nobody listens any more: nothing is owed.
            let _ = news.send(last).await;
        }
    });
    receiver
}

/// Hands on what comes, connection after connection, up to the end; `None` once
/// nobody listens.
async fn pump<N: Followed>(
    client: &Client,
    mut request: N::Request,
    news: &mpsc::Sender<N>,
) -> Result<Option<N>, Failure> {
    let begun = Instant::now();
    let mut patience = Patience::new();
    loop {
        let failure = match N::open(client, N::ask(&request, begun.elapsed())).await {
            Err(failure) => failure,
            Ok(mut stream) => loop {
                match stream.message().await {
                    Err(status) => break client.failure(&status),
                    // A stream that breaks never looks finished: that is what `end` is for.
                    Ok(None) => break cut_off(),
                    Ok(Some(reply)) => {
                        patience.heard();
                        let (more, end) = N::take(&mut request, reply);
                        if let Some(more) = more
                            && news.send(more).await.is_err()
                        {
                            return Ok(None);
                        }
                        if end.is_some() {
                            return Ok(end);
                        }
                    }
                }
            },
        };
        patience.bear(failure).await?;
    }
}

fn cut_off() -> Failure {
    Failure::from(proto::problem::unavailable("stream", "the server ended the stream before its end"))
}

/// Looks at a job until it is over, and tells each look.
pub fn watch_job(client: &Client, job: JobRequest) -> mpsc::Receiver<Result<JobView, Failure>> {
    let (looks, receiver) = mpsc::channel(1);
    let client = client.clone();
    task::spawn(async move {
        let mut patience = Patience::new();
        let mut pause = limits::POLL_FIRST;
        loop {
            match client.get_job(job.clone()).await {
                Ok(view) => {
                    patience.heard();
                    let over =
                        is_ended(view.state.as_ref().map_or(State::Unspecified, |state| state.state()));
                    if looks.send(Ok(view)).await.is_err() || over {
                        return;
                    }
                    time::sleep(pause).await;
                    pause = (pause * 2).min(limits::POLL_LONGEST);
                }
                Err(failure) => {
                    if let Err(failure) = patience.bear(failure).await {
                        let _ = looks.send(Err(failure)).await;
                        return;
                    }
                }
            }
        }
    });
    receiver
}

/// Waits for a job's end.
pub async fn wait_for_end(client: &Client, job: JobRequest) -> Result<JobView, Failure> {
    let mut looks = watch_job(client, job);
    let mut last = None;
    while let Some(look) = looks.recv().await {
        last = Some(look?);
    }
    last.ok_or_else(|| Failure::from(proto::problem::internal("the job was never seen")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::JobStateRow;

    #[test]
    fn a_tail_begins_once_and_the_cursor_tells_the_rest() {
        let ms = Duration::from_millis;
        let mut request = LogsRequest { tail_ms: 2_000, follow: true, ..LogsRequest::default() };
        let mut asked = |reply: Option<LogsReply>, begun_ms| {
            if let Some(reply) = reply {
                LogNews::take(&mut request, reply);
            }
            let asked = LogNews::ask(&request, ms(begun_ms));
            (asked.tail_ms, asked.cursor)
        };
        assert_eq!(asked(None, 0), (2_000, 0));
        // Nothing was told yet: what was asked for is so much older by now.
        assert_eq!(asked(None, 5_000), (7_000, 0));
        // What was written during a break longer than the tail is not left out.
        let reply = LogsReply { cursor: 40, ..LogsReply::default() };
        assert_eq!(asked(Some(reply), 60_000), (0, 40));
        assert_eq!(asked(None, 90_000), (0, 40));
        let whole = LogsRequest::default();
        assert_eq!(LogNews::ask(&whole, ms(5_000)).tail_ms, 0, "all of it stays all of it");
    }

    #[test]
    fn the_exit_code_is_the_jobs_own() {
        let code = |state: State, exit_code: i32| {
            let state = JobStateRow { state: state.into(), exit_code, ..JobStateRow::default() };
            super::exit_code(&JobView { state: Some(state), ..JobView::default() })
        };
        assert_eq!(code(State::Completed, 0), 0);
        assert_eq!(code(State::Failed, 3), 3);
        assert_eq!(code(State::Failed, 137), 137);
        assert_eq!(code(State::Failed, 0), 1);
        assert_eq!(code(State::Cancelled, 0), 1);
        assert_eq!(code(State::Failed, 70_000), 1);
    }
}
