//! `drumline ls`: jobs, newest first.

use super::{Outcome, done};
use crate::{
    args::{Format, LsArgs},
    client::Client,
    commands::submit::labels,
    limits,
    output::{self, Table, json, words},
};
use proto::v1::{JobSummary, ListJobsRequest};
use world::{NodeClock as _, real::SystemClock};

pub(super) async fn run(client: Client, args: LsArgs) -> Outcome {
    let states: Vec<i32> = args
        .states
        .iter()
        .map(|text| Ok(words::parse_state(text)?.into()))
        .collect::<Result<_, crate::failure::Failure>>()?;
    let labels = labels(&args.labels)?;
    let mut jobs: Vec<JobSummary> = Vec::new();
    let mut before = 0;
    while jobs.len() < args.limit as usize {
        let left = args.limit - u32::try_from(jobs.len()).expect("fewer than the limit");
        let request = ListJobsRequest {
            tenant: client.tenant.clone(),
            states: states.clone(),
            labels: labels.clone(),
            limit: left.min(limits::JOBS_PAGE),
            before,
            all_tenants: args.all_tenants,
        };
        let reply = client.list_jobs(request).await?;
        jobs.extend(reply.jobs);
        before = reply.next_before;
        if before == 0 {
            break;
        }
    }
    print(&jobs, args.format.format)?;
    done()
}

/// How long ago what it gave expired.
fn expired(at_ms: u64, now_ms: u64) -> String {
    if at_ms == 0 { "-".to_owned() } else { format!("{} ago", words::age(at_ms, now_ms)) }
}

fn print(jobs: &[JobSummary], format: Format) -> Result<(), crate::failure::Failure> {
    let id = |job: &JobSummary| words::job_id(&job.tenant, job.number);
    match format {
        Format::Json => output::json(&jobs.iter().map(json::job_summary).collect()),
        Format::Name => output::text(&jobs.iter().map(|job| id(job) + "\n").collect::<String>()),
        Format::Table | Format::Wide => {
            let now_ms = SystemClock::new().wall_ms();
            let wide = format == Format::Wide;
            let mut headers = vec!["ID", "NAME", "STATE", "DONE", "FAILED", "AGE", "RAN", "PROGRESS"];
            if wide {
                headers.extend(["PRIORITY", "LABELS", "EXPIRED", "CAUSE"]);
            }
            let mut table = Table::new(&headers);
            for job in jobs {
                let state = job.state.clone().unwrap_or_default();
                let over =
                    state.steps.iter().map(|step| step.completed + step.failed + step.cancelled).sum::<u64>();
                let failed = state.steps.iter().map(|step| step.failed).sum::<u64>();
                let mut cells = vec![
                    id(job),
                    job.name.clone(),
                    words::state(state.state()).to_owned(),
                    format!("{over}/{}", job.tasks),
                    failed.to_string(),
                    words::age(job.submitted_ms, now_ms),
                    words::ran(state.started_ms, state.ended_ms, now_ms),
                    words::percent(job.progress.as_ref().map(|told| told.percent)),
                ];
                if wide {
                    let labels: Vec<String> =
                        job.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    cells.extend([
                        job.priority.to_string(),
                        labels.join(","),
                        expired(state.expired_ms, now_ms),
                        words::cause(state.cause.as_ref()),
                    ]);
                }
                table.row(cells);
            }
            table.print("no jobs")
        }
    }
}
