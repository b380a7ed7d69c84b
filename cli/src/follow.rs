//! Following jobs: logs and events that survive a server's restart, and the wait
//! for a job's end.
//!
//! Each stream is resumed after what was already handed over, so a follower
//! sees everything once and in order.

use crate::{client::Client, failure::Failure, limits};
use proto::v1::{Event, EventsRequest, JobRequest, JobView, LogChunk, LogsRequest, State};
use world::{
    sync::mpsc,
    task,
    time::{self, Instant},
};

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

/// True once a job or step will not change by itself any more.
#[must_use]
pub fn is_ended(state: State) -> bool {
    matches!(state, State::Completed | State::Failed | State::Cancelled)
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

/// Follows a log from `request.cursor` on.
pub fn logs(client: &Client, request: LogsRequest) -> mpsc::Receiver<LogNews> {
    let (news, receiver) = mpsc::channel(limits::FOLLOW_QUEUE);
    let client = client.clone();
    task::spawn(async move {
        let last = match pump_logs(&client, request, &news).await {
            Ok(missing_bytes) => LogNews::End { missing_bytes },
            Err(failure) => LogNews::Failed(failure),
        };
        // Nobody listens any more: nothing is owed.
        let _ = news.send(last).await;
    });
    receiver
}

async fn pump_logs(
    client: &Client,
    mut request: LogsRequest,
    news: &mpsc::Sender<LogNews>,
) -> Result<u64, Failure> {
    let mut patience = Patience::new();
    loop {
        let failure = match client.logs(request.clone()).await {
            Err(failure) => failure,
            Ok(mut stream) => loop {
                match stream.message().await {
                    Err(status) => break client.failure(&status),
                    // A stream that breaks never looks finished: that is what `end` is for.
                    Ok(None) => break cut_off(),
                    Ok(Some(reply)) => {
                        patience.heard();
                        request.cursor = reply.cursor;
                        // What a tail left out stays out; the cursor alone tells from where.
                        if !reply.chunks.is_empty() && news.send(LogNews::Chunks(reply.chunks)).await.is_err()
                        {
                            return Ok(0);
                        }
                        if reply.end {
                            return Ok(reply.missing_bytes);
                        }
                    }
                }
            },
        };
        patience.bear(failure).await?;
    }
}

/// Follows the history from `request.from_seq` on.
pub fn events(client: &Client, request: EventsRequest) -> mpsc::Receiver<EventNews> {
    let (news, receiver) = mpsc::channel(limits::FOLLOW_QUEUE);
    let client = client.clone();
    task::spawn(async move {
        let last = match pump_events(&client, request, &news).await {
            Ok(()) => EventNews::End,
            Err(failure) => EventNews::Failed(failure),
        };
        let _ = news.send(last).await;
    });
    receiver
}

async fn pump_events(
    client: &Client,
    mut request: EventsRequest,
    news: &mpsc::Sender<EventNews>,
) -> Result<(), Failure> {
    let mut patience = Patience::new();
    loop {
        let failure = match client.events(request.clone()).await {
            Err(failure) => failure,
            Ok(mut stream) => loop {
                match stream.message().await {
                    Err(status) => break client.failure(&status),
                    Ok(None) => break cut_off(),
                    Ok(Some(reply)) => {
                        patience.heard();
                        request.from_seq = reply.next_seq;
                        if !reply.events.is_empty()
                            && news.send(EventNews::Events(reply.events)).await.is_err()
                        {
                            return Ok(());
                        }
                        if reply.end {
                            return Ok(());
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
