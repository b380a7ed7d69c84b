//! Nodes that are kept for a while: for maintenance, or for some tenants.
//!
//! A reservation is a part of each of its nodes' rows, so that who places work and who
//! begins it see both at once. Where one is of more nodes than a commit may have, it is there
//! on all of them when its maker is answered.

use crate::gate::Gate;
use crate::rows;
use proto::ids::{NodeName, PoolName, ReservationName, TenantName};
use proto::problem::{self, Problem};
use proto::v1::{NodeRow, Reservation, ReserveReply, ReserveRequest, TenantRow};
use proto::{keys, limits, reservations};
use std::collections::BTreeSet;

pub(super) async fn reserve(gate: &Gate, request: ReserveRequest) -> Result<ReserveReply, Problem> {
    let asked = request.reservation.unwrap_or_default();
    let known: Vec<NodeRow> = rows::all_decoded(&*gate.store, keys::NODES.as_bytes()).await?;
    let has_it = |row: &NodeRow| row.reservations.iter().any(|other| other.name == asked.name);
    let before: BTreeSet<String> =
        known.iter().filter(|row| has_it(row)).map(|row| row.name.clone()).collect();
    if request.remove {
        ReservationName::parse(&asked.name)?;
        if before.is_empty() {
            return Err(problem::missing("reservation", &asked.name));
        }
        put(gate, &before, &asked, true).await?;
        return Ok(ReserveReply { nodes: before.into_iter().collect() });
    }
    reservations::check(&asked, gate.clock.wall_ms())?;
    for tenant in &asked.tenants {
        let row: Option<TenantRow> = rows::get(&*gate.store, keys::tenant(tenant)).await?;
        row.ok_or_else(|| problem::missing("tenant", TenantName::parse(tenant).map_or("", |_| tenant)))?;
    }
    let nodes = wanted(&known, &request.nodes, &request.pool)?;
    put(gate, &nodes, &asked, false).await?;
    let left: BTreeSet<String> = before.difference(&nodes).cloned().collect();
    put(gate, &left, &asked, true).await?;
    Ok(ReserveReply { nodes: nodes.into_iter().collect() })
}

/// Those that are named, and those of the pool.
fn wanted(known: &[NodeRow], names: &[String], pool: &str) -> Result<BTreeSet<String>, Problem> {
    let mut nodes = BTreeSet::new();
    for name in names {
        let name = NodeName::parse(name)?.into_string();
        if !known.iter().any(|row| row.name == name) {
            return Err(problem::missing("node", name));
        }
        nodes.insert(name);
    }
    if !pool.is_empty() {
        let pool = PoolName::parse(pool)?.into_string();
        let mut members = known.iter().filter(|row| row.pool == pool).peekable();
        if members.peek().is_none() {
            return Err(problem::missing("pool", pool));
        }
        nodes.extend(members.map(|row| row.name.clone()));
    }
    if nodes.is_empty() {
        let reason = "neither a node nor a pool is named";
        return Err(Problem::new("spec.missing", "nodes", "", reason, "name nodes, or a pool"));
    }
    Ok(nodes)
}

async fn put(
    gate: &Gate,
    nodes: &BTreeSet<String>,
    asked: &Reservation,
    remove: bool,
) -> Result<(), Problem> {
    let nodes: Vec<String> = nodes.iter().cloned().collect();
    for some in nodes.chunks(limits::RESERVED_AT_ONCE) {
        gate.controller.reserve(some.to_vec(), asked.clone(), remove).await?;
    }
    Ok(())
}
