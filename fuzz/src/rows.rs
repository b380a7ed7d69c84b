//! Rows and messages: damaged ones are refused, never a panic; whole ones
//! survive a round trip; a key that can be read is spelt in one way.

use bytes::Bytes;
use prost::Message;
use proto::keys::{self, Parsed};
use proto::spans::Spans;
use proto::v1::{
    AgentFrame, AllocRow, BlockRow, DemandUpdate, EventBatchRow, FormatRow, GrantRow, IdempotencyRow, JobRow,
    JobStateRow, LedgerRow, LogShipment, ManifestRow, NodeRow, ScaleRow, ServerFrame, ShardRow, Span,
    SubmitRequest, TenantRow, TokenRow,
};
use std::fmt::Debug;

/// The first byte says what the others are.
pub fn rows(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 21 {
        0 => key(bytes),
        1 => round_trip::<FormatRow>(bytes),
        2 => round_trip::<TenantRow>(bytes),
        3 => round_trip::<TokenRow>(bytes),
        4 => round_trip::<JobRow>(bytes),
        5 => round_trip::<JobStateRow>(bytes),
        6 => block(bytes),
        7 => round_trip::<GrantRow>(bytes),
        8 => round_trip::<AllocRow>(bytes),
        9 => round_trip::<EventBatchRow>(bytes),
        10 => round_trip::<LedgerRow>(bytes),
        11 => round_trip::<IdempotencyRow>(bytes),
        12 => round_trip::<ManifestRow>(bytes),
        13 => round_trip::<NodeRow>(bytes),
        14 => round_trip::<ShardRow>(bytes),
        15 => round_trip::<AgentFrame>(bytes),
        16 => round_trip::<ServerFrame>(bytes),
        17 => round_trip::<LogShipment>(bytes),
        18 => round_trip::<DemandUpdate>(bytes),
        19 => round_trip::<SubmitRequest>(bytes),
        _ => round_trip::<ScaleRow>(bytes),
    }
}

fn round_trip<T: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(row) = T::decode(bytes) {
        let written = row.encode_to_vec();
        assert_eq!(written.len(), row.encoded_len());
        assert!(T::decode(&written[..]).is_ok_and(|again| again == row), "{row:?} reads back otherwise");
    }
}

/// A block's runs come in any order, overlapping or not, and are a set.
fn block(bytes: &[u8]) {
    round_trip::<BlockRow>(bytes);
    let Ok(row) = BlockRow::decode(bytes) else { return };
    let sets = [&row.completed, &row.failed, &row.cancelled].map(|runs| Spans::from_proto(runs));
    for (set, runs) in sets.iter().zip([&row.completed, &row.failed, &row.cancelled]) {
        span_set(set, runs);
    }
    let [a, b, _] = &sets;
    let (mut both, shared) = (a.clone(), a.intersection(b));
    both.insert_all(b);
    if both.count() < u64::MAX {
        assert_eq!(both.count(), a.count() + b.count() - shared.count());
    }
    both.remove_all(a);
    both.insert_all(&shared);
    assert_eq!(both, *b, "what is taken out and put back");
}

fn span_set(set: &Spans, runs: &[Span]) {
    assert_eq!(Spans::from_proto(&set.to_proto()), *set);
    let ranges: Vec<(u64, u64)> = set.ranges().collect();
    assert!(ranges.iter().all(|(first, last)| first <= last));
    assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "runs touch: {ranges:?}");
    for run in runs.iter().filter(|run| run.first <= run.last) {
        assert!(set.contains(run.first) && set.contains(run.last));
        assert_eq!(set.count_within(run.first, run.last), (run.last - run.first).saturating_add(1));
    }
}

fn key(bytes: &[u8]) {
    if let Some(parsed) = keys::parse(bytes) {
        assert_eq!(spelt(&parsed), bytes, "{parsed:?} is spelt in two ways");
    }
    assert!(keys::after(bytes) > Bytes::copy_from_slice(bytes));
}

fn spelt(parsed: &Parsed) -> Bytes {
    match parsed {
        Parsed::Format => keys::format(),
        Parsed::Tenant { tenant } => keys::tenant(tenant),
        Parsed::Token { sha256 } => keys::token(sha256),
        Parsed::Job { tenant, number } => keys::job(tenant, *number),
        Parsed::State { tenant, number } => keys::state(tenant, *number),
        Parsed::Block { tenant, number, step, block } => keys::block(tenant, *number, *step, *block),
        Parsed::Grant { tenant, epoch } => keys::grant(tenant, *epoch),
        Parsed::AllocNode { node } => keys::alloc_node(node),
        Parsed::AllocTenant { tenant } => keys::alloc_tenant(tenant),
        Parsed::AllocLicense { license } => keys::alloc_license(license),
        Parsed::Event { tenant, first_seq } => keys::event(tenant, *first_seq),
        Parsed::Ledger { tenant } => keys::ledger(tenant),
        Parsed::Idem { tenant, key } => keys::idem(tenant, key),
        Parsed::Manifest { tenant, number, step, task, rank } => {
            keys::manifest(tenant, *number, *step, *task, *rank)
        }
        Parsed::Checkpoint { tenant, number, step, task, rank } => {
            keys::checkpoint(tenant, *number, *step, *task, *rank)
        }
        Parsed::Upload { tenant, digest } => keys::upload(tenant, digest),
        Parsed::Node { node } => keys::node(node),
        Parsed::Scale { pool } => keys::scale(pool),
        Parsed::Shard { shard } => keys::shard(*shard),
    }
}
