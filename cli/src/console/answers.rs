//! What the console asks, asked of the server, and the answers brought back.
//!
//! What must hold: every question is answered, by its message or by
//! [`Message::Failed`], within its deadline; a stream says so when it is open
//! and when it breaks. The console decides when to ask again, never this.

use crate::{client::Client, failure::Failure, limits};
use proto::{
    ids::JobId,
    problem::{self, Problem},
    v1::{
        CancelRequest, EventsReply, EventsRequest, JobRequest, JobSummary, ListJobsRequest,
        ListTenantsRequest, LogsReply, LogsRequest, NodesRequest, PoolsRequest, WhyRequest,
    },
};
use std::{collections::BTreeMap, future::Future, ops::RangeInclusive};
use tokio::task::{AbortHandle, JoinSet};
use tui::console::{Ask, Command, Message};
use world::{sync::mpsc, time};

/// Questions on their way.
pub(super) struct Answers {
    client: Client,
    news: mpsc::Sender<Message>,
    asked: JoinSet<()>,
    log: Option<AbortHandle>,
}

impl Answers {
    pub(super) fn new(client: Client) -> (Self, mpsc::Receiver<Message>) {
        // When it is full, streams wait: the server holds what is to come.
        let (news, receiver) = mpsc::channel(limits::CONSOLE_QUEUE);
        (Self { client, news, asked: JoinSet::new(), log: None }, receiver)
    }

    pub(super) fn carry_out(&mut self, command: Command) {
        match command {
            Command::Quit => {}
            Command::StopLogs => self.stop_log(),
            Command::Ask { ask, after_ms } => {
                let is_log = matches!(ask, Ask::Logs { .. });
                if is_log {
                    self.stop_log();
                }
                let (client, news) = (self.client.clone(), self.news.clone());
                let handle = self.asked.spawn(async move {
                    time::sleep(time::ms(after_ms)).await;
                    let message = match answer(&client, &news, &ask).await {
                        Ok(message) => message,
                        Err(failure) => Message::Failed { problem: told(&failure), ask },
                    };
                    // Where nobody listens any more, the console is over.
                    let _ = news.send(message).await;
                });
                if is_log {
                    self.log = Some(handle);
                }
            }
        }
    }

    fn stop_log(&mut self) {
        if let Some(log) = self.log.take() {
            log.abort();
        }
    }

    /// Waits for one that is done. A panic in it is a panic here.
    pub(super) async fn reap(&mut self) {
        match self.asked.join_next().await {
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

fn told(failure: &Failure) -> Problem {
    failure.problem().cloned().unwrap_or_else(|| problem::internal("a failure without a reason"))
}

async fn answer(client: &Client, news: &mpsc::Sender<Message>, ask: &Ask) -> Result<Message, Failure> {
    match ask {
        Ask::Tenants => in_time(client.list_tenants(ListTenantsRequest {}))
            .await
            .map(|reply| Message::Tenants(reply.tenants)),
        Ask::Nodes => in_time(client.nodes(NodesRequest {})).await.map(|reply| Message::Nodes(reply.nodes)),
        Ask::Pools => {
            in_time(client.pools(PoolsRequest::default())).await.map(|reply| Message::Pools(reply.pools))
        }
        Ask::Jobs { tenant, before, limit } => {
            let request = page(tenant, *before, *limit);
            let reply = in_time(client.list_jobs(request)).await?;
            Ok(Message::Jobs { tenant: tenant.clone(), reply })
        }
        Ask::Refresh(ids) => in_time(refresh(client, ids)).await.map(Message::Refreshed),
        Ask::Events { tenant, from_seq } => Err(events(client, news, tenant, *from_seq).await),
        Ask::Job { job, visit } => {
            let view = Box::new(in_time(client.get_job(request(job))).await?);
            Ok(Message::Job { visit: *visit, view })
        }
        Ask::Why { job, visit } => {
            let JobRequest { tenant, number } = request(job);
            let request = WhyRequest { tenant, number, ..WhyRequest::default() };
            in_time(client.why(request)).await.map(|reply| Message::Why { visit: *visit, reply })
        }
        Ask::Logs { job, visit, cursor } => logs(client, news, job, *visit, *cursor).await,
        Ask::Cancel(job) => {
            let cancel = CancelRequest { job: Some(request(job)), reason: String::new() };
            let reply = in_time(client.cancel(cancel)).await?;
            Ok(Message::Cancelled { job: job.clone(), state: reply.state() })
        }
    }
}

/// Somebody looks at the screen: what takes long is told as such.
async fn in_time<T>(call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match time::timeout(limits::CONSOLE_DEADLINE, call).await {
        Ok(answer) => answer,
        Err(_) => {
            let reason = format!("no answer within {} s", limits::CONSOLE_DEADLINE.as_secs());
            Err(Failure::from(problem::unavailable("deadline", reason)))
        }
    }
}

fn request(job: &JobId) -> JobRequest {
    JobRequest { tenant: job.tenant.clone(), number: job.number }
}

fn page(tenant: &str, before: u64, limit: u32) -> ListJobsRequest {
    ListJobsRequest { tenant: tenant.to_owned(), limit, before, ..ListJobsRequest::default() }
}

/// Jobs side by side are one question.
async fn refresh(client: &Client, ids: &[JobId]) -> Result<Vec<JobSummary>, Failure> {
    let mut jobs = Vec::with_capacity(ids.len());
    for (tenant, numbers) in runs(ids) {
        let limit = u32::try_from(numbers.end() - numbers.start() + 1).unwrap_or(u32::MAX);
        let request = page(&tenant, numbers.end().saturating_add(1), limit);
        let found = client.list_jobs(request).await?.jobs;
        jobs.extend(found.into_iter().filter(|job| numbers.contains(&job.number)));
    }
    Ok(jobs)
}

/// Numbers without a gap, by tenant.
fn runs(ids: &[JobId]) -> Vec<(String, RangeInclusive<u64>)> {
    let mut by_tenant: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for id in ids {
        by_tenant.entry(&id.tenant).or_default().push(id.number);
    }
    let mut runs: Vec<(String, RangeInclusive<u64>)> = Vec::new();
    for (tenant, mut numbers) in by_tenant {
        numbers.sort_unstable();
        for number in numbers {
            match runs.last_mut() {
                Some((of, run)) if of == tenant && number <= run.end().saturating_add(1) => {
                    *run = *run.start()..=number;
                }
                _ => runs.push((tenant.to_owned(), number..=number)),
            }
        }
    }
    runs
}

fn cut_off() -> Failure {
    Failure::from(problem::unavailable("stream", "the server ended the stream before its end"))
}

/// Follows a history for ever; gives back why it broke.
async fn events(client: &Client, news: &mpsc::Sender<Message>, tenant: &str, from_seq: u64) -> Failure {
    let request =
        EventsRequest { tenant: tenant.to_owned(), from_seq, follow: true, ..EventsRequest::default() };
    let mut stream = match in_time(client.events(request)).await {
        Ok(stream) => stream,
        Err(failure) => return failure,
    };
    let tell = |reply| news.send(Message::Events { tenant: tenant.to_owned(), reply });
    // Open: a history in which nothing happens is as good as any.
    let mut told = tell(EventsReply { next_seq: from_seq, ..EventsReply::default() }).await;
    loop {
        if told.is_err() {
            return cut_off();
        }
        match stream.message().await {
            Ok(Some(reply)) => told = tell(reply).await,
            Ok(None) => return cut_off(),
            Err(status) => return client.failure(&status),
        }
    }
}

/// Follows a log to its end.
async fn logs(
    client: &Client,
    news: &mpsc::Sender<Message>,
    job: &JobId,
    visit: u64,
    cursor: u64,
) -> Result<Message, Failure> {
    let request = LogsRequest { job: Some(request(job)), follow: true, cursor, ..LogsRequest::default() };
    let mut stream = in_time(client.logs(request)).await?;
    let mut reply = LogsReply { cursor, ..LogsReply::default() };
    while !reply.end {
        if news.send(Message::Logs { visit, reply }).await.is_err() {
            return Err(cut_off());
        }
        reply = match stream.message().await {
            Ok(Some(reply)) => reply,
            Ok(None) => return Err(cut_off()),
            Err(status) => return Err(client.failure(&status)),
        };
    }
    Ok(Message::Logs { visit, reply })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_side_by_side_are_one_question() {
        let ids = |list: &[(&str, u64)]| -> Vec<JobId> {
            list.iter().map(|(tenant, number)| JobId::new(*tenant, *number)).collect()
        };
        let found = runs(&ids(&[("b", 4), ("a", 7), ("a", 9), ("a", 8), ("b", 2), ("a", 1), ("a", 8)]));
        let told: Vec<String> =
            found.iter().map(|(tenant, run)| format!("{tenant} {}-{}", run.start(), run.end())).collect();
        assert_eq!(told, ["a 1-1", "a 7-9", "b 2-2", "b 4-4"]);
        assert!(runs(&[]).is_empty());
    }
}
