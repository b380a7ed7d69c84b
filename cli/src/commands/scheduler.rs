//! `drumline scheduler`: until ctrl-c or TERM. It keeps nothing, so nothing is
//! lost with it.

use super::{Outcome, done};
use crate::{
    args::{Connection, SchedulerArgs},
    client, cluster, config,
    failure::Failure,
    limits, output,
};
use ::scheduler::follow::{self, FollowError, FollowParts};
use ::scheduler::shell::Proposals;
use std::sync::Arc;
use world::{grpc::Servers, real::SystemClock, select, time};

pub(super) async fn run(connection: Connection, args: SchedulerArgs) -> Outcome {
    let settings = config::scheduler(&connection, &args)?;
    cluster::log_to_stderr("info");
    let mut told = cluster::Told::listen()?;
    let (name, server) = (settings.name, settings.server);
    let several = Servers::parse(&server).len() > 1;
    let parts = FollowParts {
        server: server.clone(),
        token: settings.token,
        name: name.clone(),
        clock: Arc::new(SystemClock::new()),
        config: settings.numbers,
    };
    let mut scheduler = follow::start(parts.clone()).await.map_err(|error| match error {
        FollowError::Connect(error) => client::unconnected(&server, &error),
        FollowError::Token => {
            Failure::wrong_use("token", "", "holds characters that no token has", "copy it again, as dl_…")
        }
        FollowError::Refused(problem) => Failure::from(problem),
    })?;
    output::line(&format!("scheduler {name} works for {server}"))?;
    loop {
        select! { biased;
            () = told.told() => break,
            () = scheduler.ended() => {}
        }
        if !several {
            return Err(Failure::broken("scheduler", &name, "stopped by itself", "the log above tells why"));
        }
        // It ends with the server that it followed; another serves, or will.
        scheduler = loop {
            match follow::start(parts.clone()).await {
                Ok(scheduler) => break scheduler,
                Err(error) => tracing::warn!(%error, "waiting for a server that serves"),
            }
            select! { biased;
                () = told.told() => return done(),
                () = time::sleep(limits::RECONNECT_PAUSE) => {}
            }
        };
    }
    scheduler.stop();
    scheduler.ended().await;
    let Proposals { committed, conflicts, failed } = scheduler.proposals();
    output::note(&format!(
        "stopped; of its proposals {committed} were taken, {conflicts} came too late, {failed} failed"
    ));
    done()
}
