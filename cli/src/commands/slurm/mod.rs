//! `sbatch`, `squeue`, `scancel`, `sinfo`, and what they need on a node.

pub mod batch;
mod columns;
mod hosts;
pub mod sbatch;
pub mod scancel;
pub mod sinfo;
pub mod squeue;
mod words;

use crate::{client::Client, failure::Failure, limits};
use proto::v1::{JobSummary, ListJobsRequest, State};

/// States of jobs that have not ended.
const LIVE: [State; 3] = [State::Pending, State::Staging, State::Running];

/// All jobs in these states, newest first.
async fn jobs_in(client: &Client, states: &[State]) -> Result<Vec<JobSummary>, Failure> {
    let mut jobs = Vec::new();
    let mut before = 0;
    loop {
        let request = ListJobsRequest {
            tenant: client.tenant.clone(),
            states: states.iter().map(|state| i32::from(*state)).collect(),
            limit: limits::JOBS_PAGE,
            before,
            ..ListJobsRequest::default()
        };
        let reply = client.list_jobs(request).await?;
        jobs.extend(reply.jobs);
        before = reply.next_before;
        if before == 0 || jobs.len() >= limits::QUEUE_JOBS_MAX {
            return Ok(jobs);
        }
    }
}

/// Who a job belongs to, for people: as `sbatch` labelled it, else its tenant.
fn user_of(job: &JobSummary) -> &str {
    job.labels.get(proto::sbatch::USER_LABEL).map_or(&job.tenant, String::as_str)
}

/// The name of whoever calls.
fn me() -> Result<String, Failure> {
    ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).ok_or_else(|| {
        Failure::wrong_use(
            "--me",
            "",
            "USER is not set, so nobody knows who you are",
            "name the user with -u",
        )
    })
}

/// A job's id as its owner writes it: the number alone, unless a tenant was
/// named by hand.
fn short_id(client: &Client, tenant: &str, number: u64) -> String {
    if client.tenant.is_empty() { number.to_string() } else { crate::output::words::job_id(tenant, number) }
}
