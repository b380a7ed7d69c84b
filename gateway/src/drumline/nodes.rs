//! Nodes, with what is granted on them.

use crate::gate::Gate;
use crate::rows;
use proto::estimate::{self, Need};
use proto::ids::NodeName;
use proto::keys;
use proto::problem::{self, Problem};
use proto::v1::{DrainNodeReply, DrainNodeRequest, GrantRow, NodeRow, NodeView, NodesReply, Resources};
use std::collections::BTreeMap;

pub(super) async fn nodes(gate: &Gate) -> Result<NodesReply, Problem> {
    let rows: Vec<NodeRow> = rows::all_decoded(&*gate.store, keys::NODES.as_bytes()).await?;
    let grants: Vec<GrantRow> = rows::all_decoded(&*gate.store, keys::GRANTS.as_bytes()).await?;
    let mut held: BTreeMap<&str, (Need, u32)> = BTreeMap::new();
    for grant in &grants {
        for (node, need) in estimate::held(grant) {
            let (used, count) = held.entry(node).or_default();
            *used = used.plus(need);
            *count += 1;
        }
    }
    let dropped = gate.logs.dropped();
    let nodes = rows
        .into_iter()
        .map(|row| {
            let (used, grants) = held.get(row.name.as_str()).copied().unwrap_or_default();
            let last_heard_ms = gate.controller.last_heard_ms(&row.name);
            let log_dropped_bytes = dropped.get(&row.name).copied().unwrap_or(0);
            NodeView { row: Some(row), used: Some(narrow(used)), last_heard_ms, grants, log_dropped_bytes }
        })
        .collect();
    Ok(NodesReply { nodes })
}

pub(super) fn narrow(need: Need) -> Resources {
    Resources {
        millicores: u32::try_from(need.millicores).unwrap_or(u32::MAX),
        memory_bytes: need.memory_bytes,
        gpus: u32::try_from(need.gpus).unwrap_or(u32::MAX),
    }
}

pub(super) async fn drain(gate: &Gate, request: &DrainNodeRequest) -> Result<DrainNodeReply, Problem> {
    let node = NodeName::parse(&request.node)?;
    let reason = request.reason.trim();
    if reason.len() > proto::limits::PROBLEM_TEXT_BYTES_MAX || reason.contains(['\n', '\r']) {
        return Err(Problem::new("spec.reason", "reason", reason, "is not one short line", "shorten it"));
    }
    let row: Option<NodeRow> = rows::get(&*gate.store, keys::node(node.as_str())).await?;
    if row.is_none() {
        return Err(problem::missing("node", node));
    }
    gate.controller.drain(node.as_str(), request.drained, reason).await?;
    Ok(DrainNodeReply {})
}
