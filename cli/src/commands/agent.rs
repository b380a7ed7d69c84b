//! `drumline agent`: until ctrl-c or TERM. Its tasks go on under the node's
//! supervisor until their lease ends, and a new agent takes them over.

use super::{Outcome, done};
use crate::{
    args::{AgentArgs, Connection},
    cluster, config, output,
};
use ::agent::TasksAtStop;
use world::select;

pub(super) async fn run(connection: Connection, args: AgentArgs) -> Outcome {
    let settings = config::agent(&connection, &args)?;
    cluster::log_to_stderr("info");
    let mut told = cluster::Told::listen()?;
    let (node, server) = (settings.node.clone(), settings.server.clone());
    let agent = cluster::start_agent(settings, cluster::LINGER_MS).await?;
    output::line(&format!("node {node} works for {server}"))?;
    select! { biased;
        () = told.told() => {}
        end = agent.wait() => return Err(cluster::agent_ended(&node, end)),
    }
    output::note("stopping; tasks go on until their lease ends");
    agent.stop(TasksAtStop::Leave).await;
    done()
}
