//! Nodes, pools, when a request would start in a pool, and alerts.

use super::problem::Refusal;
use super::query::Query;
use super::{Call, ok};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use proto::json as shown;
use proto::problem;
use proto::v1::drumline_server::Drumline as _;
use proto::v1::{AlertsRequest, LicensesRequest, NodesRequest, PoolAsk, PoolsRequest, Resources};
use serde_json::json;
use world::grpc::axum;

pub(super) async fn health() -> Result<Response, Refusal> {
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "ok\n").into_response())
}

pub(super) async fn nodes(call: Call) -> Result<Response, Refusal> {
    let reply = call.rest.front.nodes(call.ask(NodesRequest {})).await?.into_inner();
    ok(&json!({ "nodes": reply.nodes.iter().map(shown::node).collect::<Vec<_>>() }))
}

pub(super) async fn pools(call: Call) -> Result<Response, Refusal> {
    let request = PoolsRequest { ask: Some(ask(&call.query)) };
    let mut pools = call.rest.front.pools(call.ask(request)).await?.into_inner().pools;
    if let Some(wanted) = call.query.text("pool") {
        pools.retain(|pool| pool.name == wanted);
        if pools.is_empty() {
            return Err(problem::missing("pool", wanted).into());
        }
    }
    ok(&json!({ "pools": pools.iter().map(shown::pool).collect::<Vec<_>>() }))
}

pub(super) async fn licenses(call: Call) -> Result<Response, Refusal> {
    let reply = call.rest.front.licenses(call.ask(LicensesRequest {})).await?.into_inner();
    ok(&json!({ "licenses": reply.licenses.iter().map(shown::license).collect::<Vec<_>>() }))
}

pub(super) async fn alerts(call: Call) -> Result<Response, Refusal> {
    let request = AlertsRequest { cleared: call.query.flag("cleared") };
    let alerts = call.rest.front.alerts(call.ask(request)).await?.into_inner().alerts;
    ok(&json!({ "alerts": alerts.iter().map(shown::alert).collect::<Vec<_>>() }))
}

/// What a query asks of a pool: so much on each of so many nodes at once.
fn ask(query: &Query) -> PoolAsk {
    // All kinds of number here are within these.
    let narrow = |name: &str| query.number(name).map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX));
    let per_task = Resources {
        millicores: narrow("cores"),
        memory_bytes: query.number("memory").unwrap_or(0),
        gpus: narrow("gpus"),
    };
    PoolAsk {
        per_task: Some(per_task),
        nodes: narrow("nodes"),
        tasks_per_node: narrow("tasks_per_node"),
        exclusive: query.flag("exclusive"),
    }
}
