//! The chain of commits: merges transactions, fences them by the shard rows,
//! sends them ahead, and hands back their effects in order.

use super::limits;
use crate::core::{Effect, Txn};
use bytes::Bytes;
use futures_util::FutureExt;
use prost::Message;
use proto::v1::ShardRow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use store::{Commit, CommitError, Expect, Guard, Key, LeaseId, Revision, Store, Write};

type Outcome = Result<Revision, CommitError>;

/// A commit on its way, with what is to be done once it is durable.
struct InFlight {
    /// `None`: there was nothing to write.
    outcome: Option<Pin<Box<dyn Future<Output = Outcome> + Send>>>,
    arrived: Option<Outcome>,
    effects: Vec<Effect>,
}

/// A commit that failed, with the effects that must not happen.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) error: CommitError,
    pub(super) effects: Vec<Effect>,
}

/// See the module.
pub(super) struct Chain {
    store: Arc<dyn Store>,
    lease: LeaseId,
    shards: BTreeMap<u16, ShardRow>,
    /// What has nothing to write asks whether the shards are still ours.
    asks: bool,
    in_flight: VecDeque<InFlight>,
}

/// Transactions merged while they fit into one commit.
#[derive(Default)]
struct Merged {
    writes: BTreeMap<Key, Option<Bytes>>,
    /// Rows among them that must not be there yet.
    absent: Vec<Key>,
    bytes: usize,
    shards: BTreeSet<u16>,
    effects: Vec<Effect>,
}

impl Chain {
    pub(super) fn new(
        store: Arc<dyn Store>,
        lease: LeaseId,
        shards: BTreeMap<u16, ShardRow>,
        asks: bool,
    ) -> Self {
        Self { store, lease, shards, asks, in_flight: VecDeque::new() }
    }

    /// No more commits should be sent before some have arrived.
    pub(super) fn full(&self) -> bool {
        let most = if self.asks { limits::COMMITS_IN_FLIGHT_SHARED } else { limits::COMMITS_IN_FLIGHT };
        self.in_flight.len() >= most
    }

    pub(super) fn idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Sends transactions off, in order, in as few commits as they fit into.
    pub(super) fn push(&mut self, transactions: Vec<Txn>) {
        let mut merged = Merged::default();
        for txn in transactions {
            if txn.writes.is_empty() && txn.effects.is_empty() {
                continue;
            }
            let shards = shards_of(&txn);
            if !merged.fits(&txn, &shards) {
                self.send(std::mem::take(&mut merged));
            }
            merged.take(txn, shards);
        }
        self.send(merged);
    }

    fn send(&mut self, merged: Merged) {
        if merged.writes.is_empty() {
            if self.asks && !merged.effects.is_empty() {
                let guards = vec![self.stands()];
                return self.push_commit(Commit { guards, writes: Vec::new() }, merged.effects);
            }
            if !merged.effects.is_empty() {
                self.in_flight.push_back(InFlight {
                    outcome: None,
                    arrived: Some(Ok(0)),
                    effects: merged.effects,
                });
            }
            return;
        }
        if self.in_flight.iter().any(|sent| sent.outcome.is_some()) {
            world::mark!("controller.chain.sent_ahead");
        }
        let mut commit = Commit::default();
        for shard in merged.shards {
            let key = proto::keys::shard(shard);
            let row = self.shards.get_mut(&shard).expect("all shards are taken before the first commit");
            let before = row.encode_to_vec().into();
            row.seq += 1;
            let after = row.encode_to_vec().into();
            commit.guards.push(Guard { key: key.clone(), expect: Expect::Value(before) });
            commit.writes.push(Write { key, value: Some(after), lease: self.lease });
        }
        commit.guards.extend(merged.absent.into_iter().map(|key| Guard { key, expect: Expect::Absent }));
        commit.writes.extend(merged.writes.into_iter().map(|(key, value)| Write { key, value, lease: 0 }));
        self.push_commit(commit, merged.effects);
    }

    /// Holds as long as all commits before it have: a shard's row as they leave it.
    fn stands(&self) -> Guard {
        let (shard, row) = self.shards.first_key_value().expect("all shards are taken");
        Guard { key: proto::keys::shard(*shard), expect: Expect::Value(row.encode_to_vec().into()) }
    }

    fn push_commit(&mut self, commit: Commit, effects: Vec<Effect>) {
        let store = Arc::clone(&self.store);
        let mut outcome: Pin<Box<dyn Future<Output = Outcome> + Send>> =
            Box::pin(async move { store.commit(commit).await });
        // The store promises order by first poll: poll before the next is made.
        let arrived = outcome.as_mut().now_or_never();
        let outcome = arrived.is_none().then_some(outcome);
        self.in_flight.push_back(InFlight { outcome, arrived, effects });
    }

    /// Waits for the oldest commit; its effects may be performed then. Waits
    /// for ever while none is in flight. Cancel-safe.
    pub(super) async fn arrived(&mut self) -> Result<Vec<Effect>, Lost> {
        let Some(first) = self.in_flight.front_mut() else { return std::future::pending().await };
        if let Some(outcome) = &mut first.outcome {
            let outcome = outcome.await;
            first.outcome = None;
            first.arrived = Some(outcome);
        }
        let first = self.in_flight.pop_front().expect("seen above");
        match first.arrived {
            Some(Ok(_)) => Ok(first.effects),
            Some(Err(error)) => Err(Lost { error, effects: first.effects }),
            None => unreachable!("it was awaited above"),
        }
    }
}

impl Merged {
    fn fits(&self, txn: &Txn, shards: &BTreeSet<u16>) -> bool {
        let fences = self.shards.union(shards).count() * 2;
        let writes = self.writes.len() + txn.writes.len() + self.absent.len() + txn.absent.len();
        self.writes.is_empty()
            || (writes + fences <= store::limits::COMMIT_OPERATIONS_MAX
                && self.bytes + size(txn) <= store::limits::COMMIT_BYTES_MAX - 64 * 1024)
    }

    fn take(&mut self, txn: Txn, shards: BTreeSet<u16>) {
        if !self.writes.is_empty() && !txn.writes.is_empty() {
            world::mark!("controller.chain.merged");
        }
        self.bytes += size(&txn);
        if !txn.writes.is_empty() {
            self.shards.extend(shards);
        }
        self.absent.extend(txn.absent);
        // A later write of one row replaces the earlier: rows are written whole.
        self.writes.extend(txn.writes);
        self.effects.extend(txn.effects);
    }
}

fn size(txn: &Txn) -> usize {
    txn.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len) + 32).sum()
}

/// What belongs to no tenant (node rows) hangs on shard 0.
fn shards_of(txn: &Txn) -> BTreeSet<u16> {
    let mut shards: BTreeSet<u16> = txn.tenants.iter().map(|tenant| proto::ids::shard_of(tenant)).collect();
    if shards.is_empty() && !txn.writes.is_empty() {
        shards.insert(0);
    }
    shards
}
