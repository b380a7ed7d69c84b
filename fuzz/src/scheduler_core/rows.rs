//! The store that the schedulers race over: the truth.

use super::{LIMITS, TENANTS, World};
use bytes::Bytes;
use prost::Message;
use proto::keys;
use proto::v1::{AllocRow, GrantRow};
use scheduler::Amount;
use std::collections::{BTreeMap, BTreeSet};
use store::{Commit, Expect};

pub(super) type Changes = Vec<(Bytes, Option<Bytes>)>;

/// The store: rows with versions, and all changes in order.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) rows: BTreeMap<Bytes, (Bytes, u64)>,
    revision: u64,
    pub(super) log: Vec<(u64, Changes)>,
}

impl Rows {
    pub(super) fn commit(&mut self, commit: &Commit) -> Result<u64, (Bytes, u64)> {
        for guard in &commit.guards {
            let row = self.rows.get(&guard.key);
            let found = row.map_or(0, |row| row.1);
            let holds = match &guard.expect {
                Expect::Absent => found == 0,
                Expect::Version(version) => found == *version,
                Expect::Value(value) => row.is_some_and(|row| row.0 == *value),
            };
            if !holds {
                return Err((guard.key.clone(), found));
            }
        }
        Ok(self.write(commit.writes.iter().map(|w| (w.key.clone(), w.value.clone())).collect()))
    }

    pub(super) fn write(&mut self, changes: Changes) -> u64 {
        self.revision += 1;
        for (key, value) in &changes {
            match value {
                Some(value) => drop(self.rows.insert(key.clone(), (value.clone(), self.revision))),
                None => drop(self.rows.remove(key)),
            }
        }
        self.log.push((self.revision, changes));
        self.revision
    }

    pub(super) fn put<M: Message>(&mut self, key: Bytes, row: &M) {
        self.write(vec![(key, Some(row.encode_to_vec().into()))]);
    }

    pub(super) fn below<M: Message + Default>(&self, prefix: &str) -> Vec<(Bytes, M, u64)> {
        let rows = self.rows.iter().filter(|(key, _)| key.starts_with(prefix.as_bytes()));
        rows.map(|(key, (value, version))| (key.clone(), decoded(value), *version)).collect()
    }

    pub(super) fn epoch_of(&self, tenant: &str) -> u64 {
        self.rows.get(&keys::alloc_tenant(tenant)).map_or(0, |(value, _)| decoded::<AllocRow>(value).epoch)
    }
}

pub(super) fn decoded<M: Message + Default>(value: &Bytes) -> M {
    M::decode(value.clone()).expect("what was written is a row")
}

impl World {
    /// What must hold of the rows.
    pub(super) fn check_truth(&self) {
        let mut used: BTreeMap<String, Amount> = BTreeMap::new();
        let mut held: BTreeMap<String, Amount> = BTreeMap::new();
        for (_, grant, _) in self.rows.below::<GrantRow>(keys::GRANTS) {
            let per_slot = Amount::of(grant.per_slot.as_ref());
            for node in &grant.nodes {
                let amount = per_slot.times(u64::from(node.slots));
                let sum = used.entry(node.node.clone()).or_default();
                *sum = sum.plus(amount);
                let sum = held.entry(grant.tenant.clone()).or_default();
                *sum = sum.plus(amount);
            }
            let (nodes, tasks) = self.shapes[&grant.job_number].gang;
            let distinct: BTreeSet<&str> = grant.nodes.iter().map(|node| node.node.as_str()).collect();
            assert_eq!(distinct.len(), grant.nodes.len(), "a node stands once in a grant");
            if grant.gang {
                assert_eq!(grant.nodes.len(), nodes as usize, "a gang is whole");
                assert!(grant.nodes.iter().all(|node| node.slots == tasks), "and on each node");
            }
            assert!(grant.epoch <= self.rows.epoch_of(&grant.tenant), "epochs only grow");
        }
        for (index, (capacity, _)) in self.nodes.iter().enumerate() {
            let sum = used.get(&format!("n{index}")).copied().unwrap_or_default();
            let room = Amount::of(Some(capacity));
            assert!(sum.fits_in(room), "node n{index} is over-committed: {sum} of {room}");
        }
        for (index, (cores, gpus)) in LIMITS.iter().enumerate() {
            let sum = held.get(TENANTS[index]).copied().unwrap_or_default();
            assert!(cores.is_none_or(|cores| sum.millicores <= cores * 1_000), "t{index} holds {sum}");
            assert!(gpus.is_none_or(|gpus| sum.gpus <= gpus), "t{index} holds {sum}");
        }
    }
}
