//! `drumline retry`.

use super::{Outcome, done};
use crate::{
    args::RetryArgs,
    client::Client,
    output::{self, words},
};
use proto::v1::RetryRequest;

pub(super) async fn run(client: Client, args: RetryArgs) -> Outcome {
    let job = client.named_job(&args.job).await?;
    let id = words::job_id(&job.tenant, job.number);
    let reply = client.retry(RetryRequest { job: Some(job), from_step: args.from_step }).await?;
    let tasks = words::count(reply.tasks, "task");
    output::line(&format!("{id}: {tasks} to be tried again"))?;
    done()
}
