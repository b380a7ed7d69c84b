//! `drumline wait`: until jobs have ended.

use super::{Outcome, show};
use crate::{args::WaitArgs, client::Client, failure::Failure, follow};
use proto::{problem::Problem, units};
use world::time;

pub(super) async fn run(client: Client, args: WaitArgs) -> Outcome {
    let jobs = args.jobs.iter().map(|text| client.job(text)).collect::<Result<Vec<_>, _>>()?;
    let all = async {
        let mut highest = 0;
        for job in jobs {
            let view = follow::wait_for_end(&client, job).await?;
            show::note_end(&view);
            highest = highest.max(follow::exit_code(&view));
        }
        Ok(highest)
    };
    let Some(timeout) = &args.timeout else { return all.await };
    let span_ms =
        units::parse_duration_ms(timeout).map_err(|error| Failure::WrongUse(error.at("--timeout")))?;
    match time::timeout(time::ms(span_ms), all).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Broken(Problem::new(
            "local.timeout",
            "timeout",
            timeout,
            "passed before all jobs had ended",
            "they go on; wait again, or see `drumline why`",
        ))),
    }
}
