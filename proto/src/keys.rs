//! Keys of the store: every row's name is built and read here, nowhere else.
//!
//! Parts are joined by `/`; numbers are hexadecimal of a fixed width, so that
//! the order of keys is the order of numbers. No part but the last (an
//! idempotency key) can hold a `/`: names are checked at the doors.

use bytes::Bytes;

/// All tenants.
pub const TENANTS: &str = "tenant/";
/// All tokens.
pub const TOKENS: &str = "token/";
/// All jobs' specs.
pub const JOBS: &str = "job/";
/// All jobs' states.
pub const STATES: &str = "state/";
/// All blocks of tasks.
pub const BLOCKS: &str = "block/";
/// All grants.
pub const GRANTS: &str = "grant/";
/// What guards the capacity of nodes and tenants.
pub const ALLOCS: &str = "alloc/";
/// All events.
pub const EVENTS: &str = "event/";
/// All ledgers.
pub const LEDGERS: &str = "ledger/";
/// All idempotency keys.
pub const IDEMS: &str = "idem/";
/// All manifests.
pub const MANIFESTS: &str = "manifest/";
/// All checkpoints.
pub const CHECKPOINTS: &str = "checkpoint/";
/// All uploads that are kept.
pub const UPLOADS: &str = "upload/";
/// All nodes.
pub const NODES: &str = "node/";
/// What is known of pools that grow and shrink.
pub const SCALES: &str = "scale/";
/// All shards.
pub const SHARDS: &str = "shard/";

/// What a key names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the parts of the keys")]
pub enum Parsed {
    Format,
    Tenant { tenant: String },
    Token { sha256: String },
    Job { tenant: String, number: u64 },
    State { tenant: String, number: u64 },
    Block { tenant: String, number: u64, step: u32, block: u64 },
    Grant { tenant: String, epoch: u64 },
    AllocNode { node: String },
    AllocTenant { tenant: String },
    AllocLicense { license: String },
    Event { tenant: String, first_seq: u64 },
    Ledger { tenant: String },
    Idem { tenant: String, key: String },
    Manifest { tenant: String, number: u64, step: u32, task: u64, rank: u32 },
    Checkpoint { tenant: String, number: u64, step: u32, task: u64, rank: u32 },
    Upload { tenant: String, digest: String },
    Node { node: String },
    Scale { pool: String },
    Shard { shard: u16 },
}

/// `meta/format`
#[must_use]
pub fn format() -> Bytes {
    Bytes::from_static(b"meta/format")
}
/// `tenant/<tenant>`
#[must_use]
pub fn tenant(tenant: &str) -> Bytes {
    joined("tenant", [Name(tenant)])
}
/// `token/<hex sha256 of the token>`
#[must_use]
pub fn token(sha256: &str) -> Bytes {
    joined("token", [Name(sha256)])
}
/// `job/<tenant>/<number>`
#[must_use]
pub fn job(tenant: &str, number: u64) -> Bytes {
    joined("job", [Name(tenant), Hex(number, 16)])
}
/// `state/<tenant>/<number>`
#[must_use]
pub fn state(tenant: &str, number: u64) -> Bytes {
    joined("state", [Name(tenant), Hex(number, 16)])
}
/// `block/<tenant>/<number>/<step>/<block>`
#[must_use]
pub fn block(tenant: &str, number: u64, step: u32, block: u64) -> Bytes {
    joined("block", [Name(tenant), Hex(number, 16), Hex(step.into(), 4), Hex(block, 16)])
}
/// `grant/<tenant>/<epoch>`
#[must_use]
pub fn grant(tenant: &str, epoch: u64) -> Bytes {
    joined("grant", [Name(tenant), Hex(epoch, 16)])
}
/// `alloc/node/<node>`
#[must_use]
pub fn alloc_node(node: &str) -> Bytes {
    joined("alloc", [Name("node"), Name(node)])
}
/// `alloc/tenant/<tenant>`
#[must_use]
pub fn alloc_tenant(tenant: &str) -> Bytes {
    joined("alloc", [Name("tenant"), Name(tenant)])
}
/// `alloc/license/<license>`
#[must_use]
pub fn alloc_license(license: &str) -> Bytes {
    joined("alloc", [Name("license"), Name(license)])
}
/// `event/<tenant>/<first seq>`
#[must_use]
pub fn event(tenant: &str, first_seq: u64) -> Bytes {
    joined("event", [Name(tenant), Hex(first_seq, 16)])
}
/// `ledger/<tenant>`
#[must_use]
pub fn ledger(tenant: &str) -> Bytes {
    joined("ledger", [Name(tenant)])
}
/// `idem/<tenant>/<key>`
#[must_use]
pub fn idem(tenant: &str, key: &str) -> Bytes {
    joined("idem", [Name(tenant), Name(key)])
}
/// `manifest/<tenant>/<number>/<step>/<task>/<rank>`
#[must_use]
pub fn manifest(tenant: &str, number: u64, step: u32, task: u64, rank: u32) -> Bytes {
    of_rank("manifest", tenant, number, step, task, rank)
}
/// `checkpoint/<tenant>/<number>/<step>/<task>/<rank>`
#[must_use]
pub fn checkpoint(tenant: &str, number: u64, step: u32, task: u64, rank: u32) -> Bytes {
    of_rank("checkpoint", tenant, number, step, task, rank)
}
/// `upload/<tenant>/<digest>`
#[must_use]
pub fn upload(tenant: &str, digest: &str) -> Bytes {
    joined("upload", [Name(tenant), Name(digest)])
}
/// `node/<node>`
#[must_use]
pub fn node(node: &str) -> Bytes {
    joined("node", [Name(node)])
}
/// `scale/<pool>`
#[must_use]
pub fn scale(pool: &str) -> Bytes {
    joined("scale", [Name(pool)])
}
/// `shard/<shard>`
#[must_use]
pub fn shard(shard: u16) -> Bytes {
    joined("shard", [Hex(shard.into(), 4)])
}

/// Prefix of a tenant's job specs.
#[must_use]
pub fn jobs_of(tenant: &str) -> Bytes {
    joined("job", [Name(tenant), Name("")])
}
/// Prefix of a tenant's job states.
#[must_use]
pub fn states_of(tenant: &str) -> Bytes {
    joined("state", [Name(tenant), Name("")])
}
/// Prefix of a job's blocks.
#[must_use]
pub fn blocks_of_job(tenant: &str, number: u64) -> Bytes {
    joined("block", [Name(tenant), Hex(number, 16), Name("")])
}
/// Prefix of a step's blocks.
#[must_use]
pub fn blocks_of_step(tenant: &str, number: u64, step: u32) -> Bytes {
    joined("block", [Name(tenant), Hex(number, 16), Hex(step.into(), 4), Name("")])
}
/// Prefix of a tenant's grants.
#[must_use]
pub fn grants_of(tenant: &str) -> Bytes {
    joined("grant", [Name(tenant), Name("")])
}
/// Prefix of a tenant's events.
#[must_use]
pub fn events_of(tenant: &str) -> Bytes {
    joined("event", [Name(tenant), Name("")])
}
/// Prefix of a tenant's idempotency keys.
#[must_use]
pub fn idems_of(tenant: &str) -> Bytes {
    joined("idem", [Name(tenant), Name("")])
}
/// Prefix of a job's manifests.
#[must_use]
pub fn manifests_of_job(tenant: &str, number: u64) -> Bytes {
    joined("manifest", [Name(tenant), Hex(number, 16), Name("")])
}
/// Prefix of a job's checkpoints.
#[must_use]
pub fn checkpoints_of_job(tenant: &str, number: u64) -> Bytes {
    joined("checkpoint", [Name(tenant), Hex(number, 16), Name("")])
}
/// Prefix of a step's manifests.
#[must_use]
pub fn manifests_of_step(tenant: &str, number: u64, step: u32) -> Bytes {
    joined("manifest", [Name(tenant), Hex(number, 16), Hex(step.into(), 4), Name("")])
}
/// Prefix of a task's manifests, one a rank.
#[must_use]
pub fn manifests_of_task(tenant: &str, number: u64, step: u32, task: u64) -> Bytes {
    joined("manifest", [Name(tenant), Hex(number, 16), Hex(step.into(), 4), Hex(task, 16), Name("")])
}

/// The first key after all keys that begin with `prefix`.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return end.into();
        }
        end.pop();
    }
    // Only 0xff bytes, or none: no key follows; ours are all ASCII.
    Bytes::from_static(&[u8::MAX])
}

/// The first key after `key` itself.
#[must_use]
pub fn after(key: &[u8]) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

/// Reads a key; `None` where it is none of ours (a newer version's, say).
#[must_use]
pub fn parse(key: &[u8]) -> Option<Parsed> {
    let key = std::str::from_utf8(key).ok()?;
    let (family, rest) = key.split_once('/')?;
    if family == "idem" {
        let (tenant, key) = rest.split_once('/')?;
        return Some(Parsed::Idem { tenant: name(tenant)?, key: key.to_owned() });
    }
    let parts: Vec<&str> = rest.split('/').collect();
    Some(match (family, parts.as_slice()) {
        ("meta", ["format"]) => Parsed::Format,
        ("tenant", [tenant]) => Parsed::Tenant { tenant: name(tenant)? },
        ("token", [sha256]) => Parsed::Token { sha256: name(sha256)? },
        ("job", [tenant, number]) => Parsed::Job { tenant: name(tenant)?, number: hex(number, 16)? },
        ("state", [tenant, number]) => Parsed::State { tenant: name(tenant)?, number: hex(number, 16)? },
        ("block", [tenant, number, step, block]) => Parsed::Block {
            tenant: name(tenant)?,
            number: hex(number, 16)?,
            step: u32::try_from(hex(step, 4)?).ok()?,
            block: hex(block, 16)?,
        },
        ("grant", [tenant, epoch]) => Parsed::Grant { tenant: name(tenant)?, epoch: hex(epoch, 16)? },
        ("alloc", ["node", node]) => Parsed::AllocNode { node: name(node)? },
        ("alloc", ["tenant", tenant]) => Parsed::AllocTenant { tenant: name(tenant)? },
        ("alloc", ["license", license]) => Parsed::AllocLicense { license: name(license)? },
        ("event", [tenant, seq]) => Parsed::Event { tenant: name(tenant)?, first_seq: hex(seq, 16)? },
        ("ledger", [tenant]) => Parsed::Ledger { tenant: name(tenant)? },
        ("manifest" | "checkpoint", [tenant, number, step, task, rank]) => {
            let (tenant, number) = (name(tenant)?, hex(number, 16)?);
            let (step, task) = (u32::try_from(hex(step, 4)?).ok()?, hex(task, 16)?);
            let rank = u32::try_from(hex(rank, 8)?).ok()?;
            match family {
                "manifest" => Parsed::Manifest { tenant, number, step, task, rank },
                _ => Parsed::Checkpoint { tenant, number, step, task, rank },
            }
        }
        ("upload", [tenant, digest]) => Parsed::Upload { tenant: name(tenant)?, digest: name(digest)? },
        ("node", [node]) => Parsed::Node { node: name(node)? },
        ("scale", [pool]) => Parsed::Scale { pool: name(pool)? },
        ("shard", [shard]) => Parsed::Shard { shard: u16::try_from(hex(shard, 4)?).ok()? },
        _ => return None,
    })
}

/// A part of a key.
enum Part<'a> {
    Name(&'a str),
    /// A number, of so many digits at least.
    Hex(u64, usize),
}
use Part::{Hex, Name};

impl Part<'_> {
    fn len(&self) -> usize {
        match *self {
            Name(name) => name.len(),
            Hex(number, digits) => digits.max(number.checked_ilog2().map_or(1, |bits| bits as usize / 4 + 1)),
        }
    }

    fn push(&self, key: &mut Vec<u8>) {
        match *self {
            Name(name) => key.extend_from_slice(name.as_bytes()),
            Hex(number, _) => key.extend((0..self.len()).rev().map(|digit| digit_of(number >> (4 * digit)))),
        }
    }
}

/// Every commit names its rows: so this takes one allocation, and no formatter. A last
/// part that is empty makes the beginning of all keys below.
fn joined<const N: usize>(kind: &str, parts: [Part<'_>; N]) -> Bytes {
    let mut key = Vec::with_capacity(kind.len() + parts.iter().map(|part| 1 + part.len()).sum::<usize>());
    key.extend_from_slice(kind.as_bytes());
    for part in parts {
        key.push(b'/');
        part.push(&mut key);
    }
    key.into()
}

fn of_rank(kind: &str, tenant: &str, number: u64, step: u32, task: u64, rank: u32) -> Bytes {
    joined(kind, [Name(tenant), Hex(number, 16), Hex(step.into(), 4), Hex(task, 16), Hex(rank.into(), 8)])
}

/// The lowest four bits.
fn digit_of(number: u64) -> u8 {
    b"0123456789abcdef"[(number & 0xf) as usize]
}

fn name(part: &str) -> Option<String> {
    (!part.is_empty()).then(|| part.to_owned())
}

/// Exactly `digits` lower-case hexadecimal digits.
fn hex(part: &str, digits: usize) -> Option<u64> {
    let fits = part.len() == digits && part.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    if fits { u64::from_str_radix(part, 16).ok() } else { None }
}

/// Bytes as lower-case hexadecimal text.
#[must_use]
pub fn hex_of(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(digit_of(half.into()));
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(t: &str, n: u64, step: u16, rank: u32) -> Vec<(Bytes, Parsed)> {
        let (tenant, step32) = (t.to_owned(), u32::from(step));
        vec![
            (format(), Parsed::Format),
            (super::tenant(t), Parsed::Tenant { tenant: tenant.clone() }),
            (token("00ff"), Parsed::Token { sha256: "00ff".into() }),
            (job(t, n), Parsed::Job { tenant: tenant.clone(), number: n }),
            (state(t, n), Parsed::State { tenant: tenant.clone(), number: n }),
            (
                block(t, n, step32, n),
                Parsed::Block { tenant: tenant.clone(), number: n, step: step32, block: n },
            ),
            (grant(t, n), Parsed::Grant { tenant: tenant.clone(), epoch: n }),
            (alloc_node(t), Parsed::AllocNode { node: tenant.clone() }),
            (alloc_tenant(t), Parsed::AllocTenant { tenant: tenant.clone() }),
            (alloc_license(t), Parsed::AllocLicense { license: tenant.clone() }),
            (event(t, n), Parsed::Event { tenant: tenant.clone(), first_seq: n }),
            (ledger(t), Parsed::Ledger { tenant: tenant.clone() }),
            (idem(t, "a/b c"), Parsed::Idem { tenant: tenant.clone(), key: "a/b c".into() }),
            (
                manifest(t, n, step32, n, rank),
                Parsed::Manifest { tenant: tenant.clone(), number: n, step: step32, task: n, rank },
            ),
            (
                checkpoint(t, n, step32, n, rank),
                Parsed::Checkpoint { tenant: tenant.clone(), number: n, step: step32, task: n, rank },
            ),
            (upload(t, "00ff"), Parsed::Upload { tenant: tenant.clone(), digest: "00ff".into() }),
            (node(t), Parsed::Node { node: tenant.clone() }),
            (scale(t), Parsed::Scale { pool: tenant }),
            (shard(step), Parsed::Shard { shard: step }),
        ]
    }

    #[test]
    fn keys_look_as_the_operators_guide_says() {
        assert_eq!(job("lab", 17), "job/lab/0000000000000011");
        assert_eq!(block("lab", 17, 2, 3), "block/lab/0000000000000011/0002/0000000000000003");
        assert_eq!(
            manifest("lab", 17, 2, 3, 4),
            "manifest/lab/0000000000000011/0002/0000000000000003/00000004"
        );
        assert_eq!(shard(11), "shard/000b");
    }

    #[test]
    fn strange_keys_are_nobodys() {
        for key in [
            "",
            "job",
            "job/",
            "job/lab",
            "job/lab/11",
            "job/lab/000000000000001G",
            "job/lab/000000000000001A",
            "job/lab/0000000000000011/x",
            "alloc/pool/x",
            "tenant/",
            "later/lab",
        ] {
            assert_eq!(parse(key.as_bytes()), None, "{key}");
        }
        assert_eq!(parse(&[0xff, b'/']), None);
    }

    #[test]
    fn a_prefix_ends_where_the_next_begins() {
        assert_eq!(prefix_end(b"job/"), "job0");
        assert_eq!(prefix_end(&[1, 0xff]).as_ref(), &[2]);
        assert!(jobs_of("lab") < job("lab", u64::MAX) && job("lab", u64::MAX) < prefix_end(&jobs_of("lab")));
        // A tenant whose name begins with another's is not below its prefix.
        assert!(!job("lab-2", 1).starts_with(&jobs_of("lab")));
        assert!(after(b"a").as_ref() > b"a".as_slice() && after(b"a").as_ref() < b"aa".as_slice());
    }

    proptest! {
        #[test]
        fn every_key_reads_back(t in "[a-z0-9][a-z0-9-]{0,62}", n: u64, step: u16, rank: u32) {
            for (key, parsed) in all(&t, n, step, rank) {
                prop_assert_eq!(parse(&key), Some(parsed));
            }
        }

        #[test]
        fn the_order_of_keys_is_the_order_of_numbers(a: u64, b: u64, s: u16, r: u16) {
            prop_assert_eq!(job("t", a).cmp(&job("t", b)), a.cmp(&b));
            prop_assert_eq!(event("t", a).cmp(&event("t", b)), a.cmp(&b));
            let (s, r) = (u32::from(s), u32::from(r));
            prop_assert_eq!(block("t", a, s, b).cmp(&block("t", a, r, b)), s.cmp(&r));
            prop_assert_eq!(manifest("t", 1, 1, a, s).cmp(&manifest("t", 1, 1, b, r)), (a, s).cmp(&(b, r)));
        }
    }
}
