//! `drumline cancel`.

use super::{Outcome, done};
use crate::{
    args::CancelArgs,
    client::Client,
    output::{self, words},
};
use proto::v1::CancelRequest;

pub(super) async fn run(client: Client, args: CancelArgs) -> Outcome {
    // All are read before any is cancelled: a slip in one harms none.
    let mut jobs = Vec::new();
    for text in &args.jobs {
        jobs.push(client.named_job(text).await?);
    }
    for job in jobs {
        let id = words::job_id(&job.tenant, job.number);
        let reply = client.cancel(CancelRequest { job: Some(job), reason: args.reason.clone() }).await?;
        let line = match crate::follow::is_ended(reply.state()) {
            true => format!("{id} is {}", words::state(reply.state())),
            false => format!("{id} is being cancelled"),
        };
        output::line(&line)?;
    }
    done()
}
