//! `scancel`: cancels jobs, named or chosen.

use super::{LIVE, jobs_in, me, user_of, words};
use crate::{
    args::ScancelArgs,
    client::Client,
    commands::{Outcome, done},
    failure::Failure,
    follow, output,
};
use proto::v1::{CancelRequest, JobRequest, JobSummary};
use std::collections::BTreeSet;

pub async fn run(client: Client, args: ScancelArgs) -> Outcome {
    // All is read before anything is cancelled: a slip in one harms none.
    let mut named = Vec::new();
    for text in &args.jobs {
        if text.contains(['_', '[']) {
            return Err(Failure::wrong_use(
                "ID",
                text,
                "is a task of an array, and only whole jobs can be cancelled",
                "name the job",
            ));
        }
        named.push(client.named_job(text).await?);
    }
    let states = match &args.state {
        None => LIVE.to_vec(),
        Some(text) => words::states_behind(&words::parse_states(std::slice::from_ref(text))?),
    };
    let chosen = match chooses(&args) {
        true => chosen(&client, &args, &named, &states).await?,
        false => named,
    };
    for job in chosen {
        let number = job.number;
        let reply = client.cancel(CancelRequest { job: Some(job), reason: "scancel".to_owned() }).await?;
        if follow::is_ended(reply.state()) && !args.quiet && !chooses(&args) {
            let state = words::state(reply.state(), None, false).0;
            if state != "CANCELLED" {
                output::note(&format!("scancel: job {number} had ended: {state}"));
            }
        }
    }
    done()
}

/// Whether anything but ids says which jobs are meant.
fn chooses(args: &ScancelArgs) -> bool {
    !args.name.is_empty()
        || args.user.is_some()
        || args.me
        || args.state.is_some()
        || args.partition.is_some()
}

/// Live jobs that meet every condition, ids among them.
async fn chosen(
    client: &Client,
    args: &ScancelArgs,
    named: &[JobRequest],
    states: &[proto::v1::State],
) -> Result<Vec<JobRequest>, Failure> {
    let numbers: BTreeSet<u64> = named.iter().map(|job| job.number).collect();
    let mut users: Vec<String> = args.user.iter().cloned().collect();
    if args.me {
        users.push(me()?);
    }
    let meets = |job: &JobSummary| {
        (numbers.is_empty() || numbers.contains(&job.number))
            && (users.is_empty() || users.iter().any(|user| user == user_of(job) || *user == job.tenant))
            && (args.name.is_empty() || args.name.contains(&job.name))
    };
    let mut chosen = Vec::new();
    for job in jobs_in(client, states).await?.into_iter().filter(meets) {
        let request = JobRequest { tenant: job.tenant, number: job.number };
        if let Some(pool) = &args.partition {
            let spec =
                client.get_job(request.clone()).await?.job.and_then(|job| job.spec).unwrap_or_default();
            if !spec.steps.iter().any(|step| step.pool == *pool) {
                continue;
            }
        }
        chosen.push(request);
    }
    Ok(chosen)
}
