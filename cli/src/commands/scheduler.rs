//! `drumline scheduler`: until ctrl-c or TERM. It keeps nothing, so nothing is
//! lost with it.

use super::{Outcome, done};
use crate::{
    args::{Connection, SchedulerArgs},
    client, cluster, config,
    failure::Failure,
    output,
};
use ::scheduler::follow::{self, FollowError, FollowParts};
use ::scheduler::shell::Proposals;
use std::sync::Arc;
use world::{real::SystemClock, select};

pub(super) async fn run(connection: Connection, args: SchedulerArgs) -> Outcome {
    let settings = config::scheduler(&connection, &args)?;
    cluster::log_to_stderr("info");
    let mut told = cluster::Told::listen()?;
    let (name, server) = (settings.name, settings.server);
    let parts = FollowParts {
        server: server.clone(),
        token: settings.token,
        name: name.clone(),
        clock: Arc::new(SystemClock::new()),
        config: settings.numbers,
    };
    let scheduler = follow::start(parts).await.map_err(|error| match error {
        FollowError::Connect(error) => client::unconnected(&server, &error),
        FollowError::Token => {
            Failure::wrong_use("token", "", "holds characters that no token has", "copy it again, as dl_…")
        }
        FollowError::Refused(problem) => Failure::from(problem),
    })?;
    output::line(&format!("scheduler {name} works for {server}"))?;
    select! { biased;
        () = told.told() => {}
        () = scheduler.ended() => {
            return Err(Failure::broken("scheduler", &name, "stopped by itself", "the log above tells why"));
        }
    }
    scheduler.stop();
    scheduler.ended().await;
    let Proposals { committed, conflicts, failed } = scheduler.proposals();
    output::note(&format!(
        "stopped; of its proposals {committed} were taken, {conflicts} came too late, {failed} failed"
    ));
    done()
}
