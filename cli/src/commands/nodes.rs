//! `drumline nodes` and `drumline node drain | resume`.

use super::{Outcome, done};
use crate::{
    args::{Format, NodeAction, NodeArgs, NodesArgs},
    client::Client,
    output::{self, Table, json, words},
};
use proto::{
    units,
    v1::{DrainNodeRequest, NodesRequest, Resources},
};
use world::{NodeClock as _, real::SystemClock};

pub(super) async fn list(client: Client, args: NodesArgs) -> Outcome {
    let nodes = client.nodes(NodesRequest {}).await?.nodes;
    match args.format.format {
        Format::Json => output::json(&nodes.iter().map(json::node).collect())?,
        Format::Name => {
            let names =
                nodes.iter().filter_map(|node| node.row.as_ref()).map(|row| format!("{}\n", row.name));
            output::text(&names.collect::<String>())?;
        }
        format => {
            let now_ms = SystemClock::new().wall_ms();
            let mut headers = vec!["NODE", "POOL", "STATE", "CORES", "MEMORY", "GPUS", "HEARD"];
            if format == Format::Wide {
                headers.extend(["ADDRESS", "GRANTS", "LABELS", "LOGS LOST", "VERSION", "REASON"]);
            }
            let mut table = Table::new(&headers);
            for node in &nodes {
                let row = node.row.clone().unwrap_or_default();
                let (used, all) = (node.used.unwrap_or_default(), row.capacity.unwrap_or_default());
                let heard = match node.last_heard_ms {
                    0 => "-".to_owned(),
                    at_ms => format!("{} ago", words::age(at_ms, now_ms)),
                };
                let mut cells = vec![
                    row.name.clone(),
                    row.pool.clone(),
                    words::node_state(row.state(), row.drained).to_owned(),
                    cores(&used, &all),
                    format!(
                        "{}/{}",
                        units::brief_memory_bytes(used.memory_bytes),
                        units::brief_memory_bytes(all.memory_bytes)
                    ),
                    format!("{}/{}", used.gpus, all.gpus),
                    heard,
                ];
                if format == Format::Wide {
                    let labels: Vec<String> =
                        row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    cells.extend([
                        row.address.clone(),
                        node.grants.to_string(),
                        labels.join(","),
                        match node.log_dropped_bytes {
                            0 => "-".to_owned(),
                            bytes => units::brief_memory_bytes(bytes),
                        },
                        row.version.clone(),
                        row.drain_reason.clone(),
                    ]);
                }
                table.row(cells);
            }
            table.print("no nodes; start one with `drumline agent`")?;
        }
    }
    done()
}

fn cores(used: &Resources, all: &Resources) -> String {
    format!(
        "{}/{}",
        units::format_millicores(u64::from(used.millicores)),
        units::format_millicores(u64::from(all.millicores))
    )
}

pub(super) async fn change(client: Client, args: NodeArgs) -> Outcome {
    let (request, word) = match args.action {
        NodeAction::Drain { node, reason } => (DrainNodeRequest { node, drained: true, reason }, "drained"),
        NodeAction::Resume { node } => {
            (DrainNodeRequest { node, drained: false, reason: String::new() }, "in use again")
        }
    };
    let node = request.node.clone();
    client.drain_node(request).await?;
    output::line(&format!("{node} is {word}"))?;
    done()
}
