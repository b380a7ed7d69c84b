//! `drumline up`: a server and one agent in one process, until ctrl-c or TERM.

use super::{Outcome, done};
use crate::{
    args::UpArgs,
    cluster,
    config::{self, AgentSettings, LISTEN_DEFAULT},
    failure::Failure,
    output,
};
use ::agent::TasksAtStop;
use gateway::ServerConfig;
use std::{collections::BTreeMap, path::PathBuf};
use world::select;

pub(super) async fn run(args: UpArgs) -> Outcome {
    let UpArgs { place, capacity } = args;
    let capacity = config::capacity(capacity.cores.as_deref(), capacity.memory.as_deref(), capacity.gpus)
        .map_err(Failure::WrongUse)?;
    let data = place.data.unwrap_or_else(|| PathBuf::from("drumline-data"));
    cluster::log_to_stderr("warn");
    let mut told = cluster::Told::listen()?;
    let mut server =
        cluster::start_server(&data, place.listen.unwrap_or(LISTEN_DEFAULT), ServerConfig::default(), None)
            .await?;
    let settings = AgentSettings {
        server: server.address.clone(),
        token: server.token.clone(),
        data: data.join("agent"),
        node: "local".to_owned(),
        pool: "default".to_owned(),
        address: "127.0.0.1".to_owned(),
        capacity,
        labels: BTreeMap::new(),
        staging_bytes_per_s: 0,
        log_spool_bytes: 0,
    };
    let agent = match cluster::start_agent(settings, cluster::LINGER_MS).await {
        Ok(agent) => agent,
        Err(failure) => {
            server.stop().await;
            return Err(failure);
        }
    };
    output::line(&format!(
        "listening on {}; in another terminal: . {}",
        server.address,
        data.join("client.env").display()
    ))?;
    let failed = select! { biased;
        () = told.told() => None,
        end = agent.wait() => Some(cluster::agent_ended("local", end)),
        () = server.ended() => {
            Some(Failure::broken("server", "", "stopped by itself", "the log above tells why"))
        }
    };
    output::note("stopping; running tasks are ended and will be tried again");
    agent.stop(TasksAtStop::Kill).await;
    server.stop().await;
    match failed {
        Some(failure) => Err(failure),
        None => done(),
    }
}
