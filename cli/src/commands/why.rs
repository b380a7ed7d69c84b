//! `drumline why`: what a job waits for, in the words of what decides it.

use super::{Outcome, done};
use crate::{
    args::{Format, WhyArgs},
    client::Client,
    failure::Failure,
    output::{self, json, words},
};
use proto::{
    units::{self, Since},
    v1::WhyRequest,
};
use world::{NodeClock as _, real::SystemClock};

pub(super) async fn run(client: Client, args: WhyArgs) -> Outcome {
    let job = client.named_job(&args.job).await?;
    let at = args.at.as_deref().map(units::parse_since).transpose();
    let at = at.map_err(|error| Failure::WrongUse(error.at("--at")))?;
    let (at_ms, ago_ms) = match at {
        Some(Since::At(at_ms)) => (at_ms, 0),
        Some(Since::Ago(ago_ms)) => (0, ago_ms),
        None => (0, 0),
    };
    let request = WhyRequest { tenant: job.tenant.clone(), number: job.number, at_ms, ago_ms };
    let reply = client.why(request).await?;
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
