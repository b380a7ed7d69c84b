//! The transaction being built: which rows changed, and what follows.
//!
//! Rows are named while the work is done and encoded once at the end, so a row
//! changed by a hundred reports is written once.

use super::events::Drafts;
use super::model::Tenant;
use super::types::{Effect, Txn};
use super::{Core, StepKey, blocks};
use crate::limits;
use bytes::Bytes;
use prost::Message;
use proto::keys;
use proto::v1::{JobRow, ServerFrame, server_frame};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(super) struct Outbox {
    touched: BTreeMap<String, Touched>,
    nodes: BTreeSet<String>,
    /// Rows written as they are.
    direct: BTreeMap<store::Key, Option<Bytes>>,
    absent: Vec<store::Key>,
    pub effects: Vec<Effect>,
    /// Steps whose demand may have changed.
    pub demand: BTreeSet<StepKey>,
    rows: usize,
    bytes: usize,
}

/// Rows of one tenant.
#[derive(Default)]
struct Touched {
    jobs: BTreeSet<u64>,
    states: BTreeSet<u64>,
    blocks: BTreeSet<(u64, u32, u64)>,
    ledger: bool,
    drafts: Drafts,
}

impl Outbox {
    /// Enough for one commit: the rest is for the next step.
    pub(super) fn full(&self) -> bool {
        self.rows >= limits::TXN_WRITES_SOFT || self.bytes >= limits::TXN_BYTES_SOFT
    }

    fn tenant(&mut self, tenant: &str) -> &mut Touched {
        if !self.touched.contains_key(tenant) {
            // Its ledger and its events will most likely come along.
            self.rows += 2;
            self.touched.insert(tenant.to_owned(), Touched::default());
        }
        self.touched.get_mut(tenant).expect("inserted above")
    }

    pub(super) fn job(&mut self, tenant: &str, number: u64) {
        if self.tenant(tenant).jobs.insert(number) {
            self.rows += 1;
        }
    }

    pub(super) fn state(&mut self, tenant: &str, number: u64) {
        if self.tenant(tenant).states.insert(number) {
            self.rows += 1;
            self.bytes += 256;
        }
    }

    /// `bytes` is about what the block's row takes.
    pub(super) fn block(&mut self, tenant: &str, at: (u64, u32, u64), bytes: usize) {
        if self.tenant(tenant).blocks.insert(at) {
            self.rows += 1;
            self.bytes += bytes;
        }
    }

    pub(super) fn ledger(&mut self, tenant: &str) {
        self.tenant(tenant).ledger = true;
    }

    pub(super) fn node(&mut self, node: &str) {
        if self.nodes.insert(node.to_owned()) {
            self.rows += 1;
        }
    }

    pub(super) fn events(&mut self, tenant: &str) -> &mut Drafts {
        let touched = self.tenant(tenant);
        touched.ledger = true;
        &mut touched.drafts
    }

    /// Counts what the events' own text takes.
    pub(super) fn weigh(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// A row of `tenant` written as it is (`None`: deleted).
    pub(super) fn direct(&mut self, tenant: &str, key: store::Key, value: Option<Bytes>) {
        self.tenant(tenant);
        self.rows += 1;
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.direct.insert(key, value);
    }

    /// The same for a row that must not be there yet.
    pub(super) fn create(&mut self, tenant: &str, key: store::Key, value: Bytes) {
        self.absent.push(key.clone());
        self.direct(tenant, key, Some(value));
    }

    pub(super) fn send(&mut self, node: &str, session: u64, frame: server_frame::Frame) {
        self.effects.push(Effect::Send {
            node: node.to_owned(),
            session,
            frame: ServerFrame { frame: Some(frame) },
        });
    }

    pub(super) fn wants(&mut self, tenant: &str, number: u64, step: u32) {
        self.demand.insert((tenant.to_owned(), number, step));
    }
}

impl Core {
    /// Ends the transaction: tells demand, numbers the events, encodes the rows,
    /// forgets the jobs that ended.
    pub(super) fn close(&mut self) -> Txn {
        let demand = self.tell_demand();
        let mut out = std::mem::take(&mut self.out);
        let mut txn = Txn { effects: std::mem::take(&mut out.effects), demand, ..Txn::default() };
        for (name, touched) in std::mem::take(&mut out.touched) {
            if let Some(tenant) = self.tenants.get_mut(&name) {
                let ended = write_tenant(&name, tenant, touched, &mut txn);
                self.live_jobs -= ended;
            }
            txn.tenants.insert(name);
        }
        for name in &out.nodes {
            if let Some(node) = self.nodes.get(name) {
                txn.writes.push((keys::node(name), Some(node.row.encode_to_vec().into())));
            } else {
                world::mark!("controller.node.forgotten");
                // A grant that is made there nevertheless goes back unused.
                txn.writes.extend([(keys::node(name), None), (keys::alloc_node(name), None)]);
            }
        }
        txn.writes.extend(std::mem::take(&mut out.direct));
        txn.absent = std::mem::take(&mut out.absent);
        assert!(
            !world::CHECKED || txn.writes.len() <= limits::TXN_WRITES_MAX,
            "a transaction of {} rows",
            txn.writes.len()
        );
        txn
    }
}

/// Returns how many jobs ended.
fn write_tenant(name: &str, tenant: &mut Tenant, mut touched: Touched, txn: &mut Txn) -> usize {
    let events = std::mem::take(&mut touched.drafts).number(&mut tenant.ledger.next_event_seq);
    if let Some(first) = events.events.first().map(|event| event.seq) {
        txn.writes.push((keys::event(name, first), Some(events.encode_to_vec().into())));
    }
    if touched.ledger {
        txn.writes.push((keys::ledger(name), Some(tenant.ledger.encode_to_vec().into())));
    }
    for number in touched.jobs {
        if let Some(job) = tenant.jobs.get(&number) {
            txn.writes.push((keys::job(name, number), Some(JobRow::encode_to_vec(&job.row).into())));
        }
    }
    for (number, step, block) in touched.blocks {
        let Some(job) = tenant.jobs.get_mut(&number) else { continue };
        let generation = job.state.steps.get(step as usize).map_or(0, |state| state.generation);
        let run = job.steps.get_mut(step as usize);
        let Some(held) = run.and_then(|run| run.blocks.get_mut(&block)) else { continue };
        txn.writes.push((keys::block(name, number, step, block), Some(blocks::encode(held, generation))));
    }
    let mut ended = 0;
    for number in touched.states {
        let Some(job) = tenant.jobs.get(&number) else { continue };
        txn.writes.push((keys::state(name, number), Some(job.state.encode_to_vec().into())));
        if job.over() {
            tenant.jobs.remove(&number);
            ended += 1;
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_takes_the_room_of_its_ledger_and_its_events() {
        let mut out = Outbox::default();
        let mut tenants = 0..limits::TXN_WRITES_SOFT;
        let fit = tenants.by_ref().take_while(|tenant| {
            out.ledger(&format!("tenant-{tenant}"));
            !out.full()
        });
        assert_eq!(fit.count() + 1, limits::TXN_WRITES_SOFT / 2);
    }
}
