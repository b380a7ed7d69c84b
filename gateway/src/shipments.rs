//! Log shipments of one agent: taken in, made durable, receipted.
//!
//! What must hold: shipments of one tenant are appended in the order in which they
//! came; no tenant waits for another's. So there is one append of each tenant at a
//! time, and what comes meanwhile is held, as much of it as agents may have under way.

use crate::agents::no_attempt;
use crate::gate::{Gate, Replies, boxed};
use crate::{limits, rows};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt, unfold};
use proto::ids::TenantName;
use proto::keys;
use proto::problem::{self, Problem};
use proto::v1::{JobStateRow, LogReceipt, LogShipment};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use world::grpc::tonic::{Status, Streaming};
use world::sync::mpsc;
use world::task::spawn;
use world::time;

type Receipts = Result<Vec<LogReceipt>, Status>;

pub(crate) fn ship_logs(
    gate: &Arc<Gate>,
    token: Arc<str>,
    shipments: Streaming<LogShipment>,
) -> Replies<LogReceipt> {
    let (batches, receipts) = mpsc::channel(limits::APPENDS_IN_FLIGHT);
    spawn(take_logs(Arc::clone(gate), token, shipments, batches));
    let batches = unfold(receipts, |mut receipts| async move {
        receipts.recv().await.map(|batch: Receipts| (batch, receipts))
    });
    boxed(batches.flat_map(|batch| {
        let items: Vec<Result<LogReceipt, Status>> = match batch {
            Ok(receipts) => receipts.into_iter().map(Ok).collect(),
            Err(status) => vec![Err(status)],
        };
        futures_util::stream::iter(items)
    }))
}

/// Appends what has arrived of each tenant in one go, hands the receipts on.
async fn take_logs(
    gate: Arc<Gate>,
    token: Arc<str>,
    shipments: Streaming<LogShipment>,
    receipts: mpsc::Sender<Receipts>,
) {
    let mut revoked = pin!(gate.auth.revoked(&token));
    let mut shipments = shipments.ready_chunks(limits::SHIPMENTS_PER_APPEND);
    let mut held = Held::default();
    let mut appends: FuturesUnordered<BoxFuture<'static, (String, Receipts)>> = FuturesUnordered::new();
    loop {
        let taken = world::select! { biased;
            () = receipts.closed() => return,
            _gone = &mut revoked => return,
            Some((tenant, taken)) = appends.next(), if !appends.is_empty() => {
                held.idle(&tenant);
                taken
            }
            batch = shipments.next(), if !held.is_full() => match batch {
                Some(batch) => held.take(&gate, batch).map(|()| Vec::new()),
                None if appends.is_empty() => return,
                None => {
                    held.over = true;
                    continue;
                }
            },
        };
        while let Some((tenant, group)) = held.next() {
            appends.push(append(&gate, tenant, group));
        }
        let failed = taken.is_err();
        let told = taken.as_ref().is_ok_and(Vec::is_empty) || receipts.send(taken).await.is_ok();
        if failed || !told || held.over && appends.is_empty() {
            return;
        }
    }
}

/// Shipments that wait for the append of their tenant under way.
#[derive(Default)]
struct Held {
    /// `true`: one is under way.
    tenants: BTreeMap<String, (bool, VecDeque<LogShipment>)>,
    bytes: usize,
    count: usize,
    /// No more will come.
    over: bool,
}

impl Held {
    /// An agent that has more under way than it may waits.
    fn is_full(&self) -> bool {
        self.over || self.bytes >= limits::SHIPMENT_BYTES_HELD_MAX || self.count >= limits::SHIPMENTS_HELD_MAX
    }

    fn take(&mut self, gate: &Gate, batch: Vec<Result<LogShipment, Status>>) -> Result<(), Status> {
        for shipment in batch {
            let shipment = shipment?;
            let tenant = check_shipment(gate, &shipment)?;
            self.bytes += shipment.data.len();
            self.count += 1;
            self.tenants.entry(tenant).or_default().1.push_back(shipment);
        }
        Ok(())
    }

    /// What of a tenant is to be appended next, where nothing is under way.
    fn next(&mut self) -> Option<(String, Vec<LogShipment>)> {
        let ready =
            |(_, (busy, waiting)): &(&String, &mut (bool, VecDeque<_>))| !*busy && !waiting.is_empty();
        let (tenant, (busy, waiting)) = self.tenants.iter_mut().find(ready)?;
        *busy = true;
        let (mut group, mut bytes) = (Vec::new(), 0);
        while bytes < limits::SHIPMENT_BYTES_PER_APPEND
            && group.len() < limits::SHIPMENTS_PER_APPEND
            && let Some(shipment) = waiting.pop_front()
        {
            bytes += shipment.data.len();
            group.push(shipment);
        }
        self.bytes -= bytes;
        self.count -= group.len();
        Some((tenant.clone(), group))
    }

    /// Its append is over.
    fn idle(&mut self, tenant: &str) {
        if let Some((busy, waiting)) = self.tenants.get_mut(tenant) {
            *busy = false;
            if waiting.is_empty() {
                self.tenants.remove(tenant);
            }
        }
    }
}

fn append(
    gate: &Arc<Gate>,
    tenant: String,
    group: Vec<LogShipment>,
) -> BoxFuture<'static, (String, Receipts)> {
    let gate = Arc::clone(gate);
    Box::pin(async move {
        let taken = append_group(&gate, &tenant, group).await;
        (tenant, taken)
    })
}

async fn append_group(gate: &Gate, tenant: &str, group: Vec<LogShipment>) -> Receipts {
    let due = group.len();
    let jobs: BTreeSet<u64> =
        group.iter().filter_map(|shipment| Some(shipment.attempt.as_ref()?.job_number)).collect();
    let deadline = time::ms(limits::HANDLER_DEADLINE_MS);
    let taken = time::timeout(deadline, gate.logs.append(tenant, group))
        .await
        .map_err(|_| problem::unavailable("deadline", "the logs could not be written in time"))?;
    if taken.len() < due {
        // A disk that failed: the agent keeps its bytes and comes again.
        return Err(problem::unavailable("logs", "the logs could not be made durable").into());
    }
    // Looked at behind it: what an agent brought late is not to lie there for ever.
    for number in jobs {
        let state: Option<JobStateRow> = rows::get(&*gate.store, keys::state(tenant, number)).await?;
        if state.is_some_and(|state| state.expired_ms > 0) {
            world::mark!("gateway.shipments.of_what_expired");
            let removed = gate.logs.remove(tenant, number).await;
            removed.map_err(|_| problem::unavailable("logs", "a log could not be removed"))?;
        }
    }
    // Synced, but perhaps where the next server has looked already.
    gate.must_reign().await?;
    Ok(taken)
}

/// The tenant whose it is.
fn check_shipment(gate: &Gate, shipment: &LogShipment) -> Result<String, Problem> {
    gate.current(&shipment.node, shipment.session)?;
    let attempt = shipment.attempt.as_ref().ok_or_else(no_attempt)?;
    // It becomes a part of a path.
    TenantName::parse(&attempt.tenant)?;
    if shipment.offset.checked_add(shipment.data.len() as u64).is_none() {
        return Err(Problem::new("spec.offset", "offset", shipment.offset, "is absurd", "correct it"));
    }
    Ok(attempt.tenant.clone())
}
