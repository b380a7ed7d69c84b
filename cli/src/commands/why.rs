//! `drumline why`: what a job waits for, in the words of what decides it.

use super::{Outcome, done};
use crate::{
    args::{Format, WhyArgs},
    client::Client,
    output::{self, json, words},
};
use proto::units;
use world::{NodeClock as _, real::SystemClock};

pub(super) async fn run(client: Client, args: WhyArgs) -> Outcome {
    let job = client.named_job(&args.job).await?;
    let reply = client.why(job.clone()).await?;
    match args.format.format {
        Format::Json => output::json(&json::why(&words::job_id(&job.tenant, job.number), &reply))?,
        Format::Name => output::line(&reply.code)?,
        Format::Table | Format::Wide => {
            output::line(&reply.headline)?;
            for detail in &reply.details {
                output::line(&format!("  {detail}"))?;
            }
            let now_ms = SystemClock::new().wall_ms();
            if reply.expected_start_ms > now_ms {
                let wait_ms = reply.expected_start_ms - now_ms;
                output::line(&format!("  expected to start in {}", units::brief_duration_ms(wait_ms)))?;
            }
        }
    }
    done()
}
