//! Nodes, pools, and when a request could start in a pool.

use super::problem::Refusal;
use super::query::Query;
use super::{Call, ok};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use proto::estimate::Need;
use proto::json as shown;
use proto::problem;
use proto::v1::drumline_server::Drumline as _;
use proto::v1::{NodeState, NodeView, NodesRequest, PoolsRequest, Resources};
use serde_json::{Value, json};
use world::grpc::axum;

pub(super) async fn health() -> Result<Response, Refusal> {
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "ok\n").into_response())
}

pub(super) async fn nodes(call: Call) -> Result<Response, Refusal> {
    let reply = call.rest.front.nodes(call.ask(NodesRequest {})).await?.into_inner();
    ok(&json!({ "nodes": reply.nodes.iter().map(shown::node).collect::<Vec<_>>() }))
}

pub(super) async fn pools(call: Call) -> Result<Response, Refusal> {
    let mut pools = call.rest.front.pools(call.ask(PoolsRequest {})).await?.into_inner().pools;
    if let Some(wanted) = call.query.text("pool") {
        pools.retain(|pool| pool.name == wanted);
        if pools.is_empty() {
            return Err(problem::missing("pool", wanted).into());
        }
    }
    let ask = Ask::of(&call.query);
    let nodes = match &ask {
        Some(_) => call.rest.front.nodes(call.ask(NodesRequest {})).await?.into_inner().nodes,
        None => Vec::new(),
    };
    let now_ms = call.rest.gate.clock.wall_ms();
    let shown = pools.iter().map(|pool| {
        let mut told = shown::pool(pool);
        told["eta"] = match &ask {
            Some(ask) => {
                ask.eta(nodes.iter().filter(|node| is_of(node, &pool.name)), pool.queued_slots, now_ms)
            }
            None => Value::Null,
        };
        told
    });
    ok(&json!({ "pools": shown.collect::<Vec<_>>() }))
}

fn is_of(node: &NodeView, pool: &str) -> bool {
    node.row.as_ref().is_some_and(|row| row.pool == pool)
}

/// What a query asks of a pool: so much on each of so many nodes at once.
struct Ask {
    each: Need,
    nodes: u64,
}

impl Ask {
    fn of(query: &Query) -> Option<Self> {
        let number = |name: &str| query.number(name);
        let asked = ["cores", "memory", "gpus", "nodes", "tasks_per_node"];
        if asked.iter().all(|name| number(name).is_none()) {
            return None;
        }
        let millicores = number("cores").unwrap_or(u64::from(proto::limits::MILLICORES_DEFAULT));
        let tasks = number("tasks_per_node").unwrap_or(1);
        let each = Need {
            millicores: millicores.saturating_mul(tasks),
            memory_bytes: number("memory").unwrap_or(0).saturating_mul(tasks),
            gpus: number("gpus").unwrap_or(0).saturating_mul(tasks),
        };
        Some(Self { each, nodes: number("nodes").unwrap_or(1) })
    }

    /// The scheduler plans no times, so a start is told only where it would be at
    /// once; else what it hangs on.
    fn eta<'a>(&self, nodes: impl Iterator<Item = &'a NodeView>, queued_slots: u64, now_ms: u64) -> Value {
        let (mut could, mut free) = (0, 0);
        for node in nodes {
            let row = node.row.clone().unwrap_or_default();
            let capacity = row.capacity.unwrap_or_default();
            could += u64::from(self.fits(&capacity, &Resources::default()));
            let open = row.state() == NodeState::Ready && !row.drained;
            free += u64::from(open && self.fits(&capacity, &node.used.unwrap_or_default()));
        }
        let told = |earliest_start_ms: Option<u64>, assumption: String| json!({ "earliest_start_ms": earliest_start_ms, "assumption": assumption });
        if could < self.nodes {
            return told(None, format!("{could} of {} nodes are large enough, even when idle", self.nodes));
        }
        if free < self.nodes {
            let assumption = format!(
                "{free} of {} nodes have room now; when others end their work is not known",
                self.nodes
            );
            return told(None, assumption);
        }
        if queued_slots > 0 {
            let assumption = format!("there is room now, but {queued_slots} tasks are queued before it");
            return told(None, assumption);
        }
        told(
            Some(now_ms),
            "there is room now and nothing is queued; the tenant's limits must allow it".into(),
        )
    }

    fn fits(&self, capacity: &Resources, used: &Resources) -> bool {
        let left = |of: u64, used: u64| of.saturating_sub(used);
        self.each.millicores <= left(capacity.millicores.into(), used.millicores.into())
            && self.each.memory_bytes <= left(capacity.memory_bytes, used.memory_bytes)
            && self.each.gpus <= left(capacity.gpus.into(), used.gpus.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::NodeRow;

    fn node(millicores: u32, used: u32) -> NodeView {
        let of = |millicores| Some(Resources { millicores, memory_bytes: 1 << 30, gpus: 0 });
        let row = NodeRow { capacity: of(millicores), state: NodeState::Ready.into(), ..NodeRow::default() };
        let used = Some(Resources { millicores: used, ..Resources::default() });
        NodeView { row: Some(row), used, ..NodeView::default() }
    }

    fn told(millicores: u64, nodes: u64, queued: u64) -> (Value, String) {
        let ask = Ask { each: Need { millicores, ..Need::default() }, nodes };
        let all = [node(4000, 0), node(4000, 3000)];
        let eta = ask.eta(all.iter(), queued, 77);
        (eta["earliest_start_ms"].clone(), eta["assumption"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_start_is_told_only_where_it_would_be_now() {
        assert_eq!(told(4000, 1, 0).0, json!(77));
        assert_eq!(told(1000, 2, 0).0, json!(77));
        let (start, assumption) = told(4000, 1, 5);
        assert!(start.is_null() && assumption.contains("5 tasks are queued"), "{assumption}");
        let (start, assumption) = told(4000, 2, 0);
        assert!(start.is_null() && assumption.starts_with("1 of 2 nodes have room"), "{assumption}");
        let (start, assumption) = told(8000, 1, 0);
        assert!(start.is_null() && assumption.starts_with("0 of 1 nodes are large enough"), "{assumption}");
    }
}
