//! Rows that version 1 wrote are read for ever.
//!
//! `testdata/rows-v1.hex` holds one row a line: its key, and its bytes as that
//! version encoded them. The file is never regenerated; a field may be added
//! to a message, but these bytes must go on meaning the same.

#![allow(clippy::needless_update, reason = "rows grow fields that version 1 did not have")]

use prost::Message;
use proto::{
    array,
    keys::{self, Parsed},
    v1::*,
};
use std::collections::BTreeMap;

const ROWS: &str = include_str!("../testdata/rows-v1.hex");

fn resources() -> Resources {
    Resources { millicores: 1500, memory_bytes: 64 << 20, gpus: 1 }
}

fn cause(kind: CauseKind) -> Cause {
    Cause { kind: kind.into(), text: "exit code 3".into(), exit_code: 3, signal: 0, node: "n1".into() }
}

fn checkpoints() -> CheckpointRow {
    let entry = CheckpointEntry {
        label: "1200".into(),
        artifacts: vec![artifact()],
        id: Some(CheckpointId { attempt: 2, epoch: 77, session: 5, number: 9 }),
        at_ms: 1_700_000_000_006,
        generation: 1,
    };
    CheckpointRow { entries: vec![entry] }
}

fn artifact() -> Artifact {
    Artifact { path: "words".into(), size_bytes: 7, digest: "ab".repeat(32), mode: 0o644 }
}

fn spec() -> JobSpec {
    JobSpec {
        name: "words".into(),
        priority: -5,
        expected_runtime_ms: 120_000,
        inputs: vec![Input {
            name: "book".into(),
            digest: "cd".repeat(32),
            size_bytes: 9,
            ..Input::default()
        }],
        steps: vec![Step {
            name: "count".into(),
            argv: vec!["wc".into(), "-w".into()],
            after: vec!["split".into()],
            array: Some(array::parse("0-15%4").unwrap()),
            nodes: 1,
            tasks_per_node: 1,
            per_task: Some(resources()),
            outputs: vec!["words".into()],
            checkpoint: Some(Checkpoint { path: "ckpt".into(), every_ms: 60_000, ..Checkpoint::default() }),
            retries: Some(0),
            timeout_ms: 3_600_000,
            env: BTreeMap::from([("MODE".into(), "fast".into())]),
            pool: "big".into(),
            constraints: vec![Constraint { label: "disk".into(), value: "ssd".into(), negated: true }],
            ..Step::default()
        }],
        labels: BTreeMap::from([("team".into(), "blue".into())]),
        after: vec![Dependency { job_number: 16, kind: DependencyKind::Ok.into(), ..Dependency::default() }],
        ..JobSpec::default()
    }
}

fn job_state() -> JobStateRow {
    JobStateRow {
        state: State::Running.into(),
        steps: vec![StepState {
            state: State::Running.into(),
            pending: 4,
            active: 2,
            completed: 9,
            failed: 1,
            cancelled: 0,
            started_ms: 1_700_000_000_001,
            ended_ms: 0,
            cause: Some(cause(CauseKind::Started)),
            exit_code: 3,
            attempts_ended: 12,
            busy_ms: 3400,
            retries_spent: 2,
            rest: State::Pending.into(),
            generation: 1,
            reset_generation: 1,
            ..StepState::default()
        }],
        started_ms: 1_700_000_000_001,
        cancel_requested: true,
        reserved_micros: 500,
        settled_micros: 20,
        queued_tasks_reserved: 6,
        exit_code: 3,
        generation: 1,
        storage_bytes: 63,
        log_bytes: 41,
        ..JobStateRow::default()
    }
}

fn block() -> BlockRow {
    BlockRow {
        completed: vec![Span { first: 0, last: 8 }],
        failed: vec![Span { first: 9, last: 9 }],
        cancelled: vec![],
        active: vec![AttemptRun {
            tasks: Some(Span { first: 10, last: 11 }),
            attempt: 2,
            epoch: 77,
            state: State::Staging.into(),
            since_ms: 1_700_000_000_002,
            node: 1,
            ..AttemptRun::default()
        }],
        notes: vec![TaskNote {
            task: 9,
            attempts: 4,
            own_failures: 3,
            platform_failures: 1,
            not_before_ms: 1_700_000_000_003,
            avoid: vec!["n1".into()],
            last: Some(cause(CauseKind::Exit)),
            ..TaskNote::default()
        }],
        generation: 1,
        ranks: vec![RankEnd { rank: 1, cause: Some(cause(CauseKind::Exit)), artifacts: vec![artifact()] }],
        ..BlockRow::default()
    }
}

fn grant() -> GrantRow {
    GrantRow {
        tenant: "lab".into(),
        job_number: 17,
        step: 2,
        epoch: 77,
        nodes: vec![GrantNode { node: "n1".into(), slots: 2 }],
        per_slot: Some(resources()),
        granted_ms: 1_700_000_000_000,
        gang: true,
        feed_until_ms: 1_700_000_002_000,
        ..GrantRow::default()
    }
}

fn event() -> Event {
    Event {
        seq: 41,
        at_ms: 1_700_000_000_004,
        job_number: 17,
        step: Some(0),
        tasks: vec![Span { first: 3, last: 5 }],
        from: State::Staging.into(),
        to: State::Running.into(),
        cause: Some(cause(CauseKind::Started)),
        attempt: 1,
        epoch: 77,
        node: "n1".into(),
        ..Event::default()
    }
}

fn node() -> NodeRow {
    NodeRow {
        name: "n1".into(),
        pool: "big".into(),
        labels: BTreeMap::from([("disk".into(), "ssd".into())]),
        capacity: Some(resources()),
        state: NodeState::Ready.into(),
        registered_ms: 1_700_000_000_000,
        session: 5,
        version: "0.1.0".into(),
        address: "10.0.0.1".into(),
        drained: true,
        drain_reason: "broken fan".into(),
        ..NodeRow::default()
    }
}

fn tenant() -> TenantRow {
    TenantRow {
        name: "lab".into(),
        quota: Some(Quota { millicores: Some(64_000), queued_tasks: Some(0), ..Quota::default() }),
        budget: Some(Budget {
            month_micros: Some(9_000_000),
            core_hour_micros: 40_000,
            gpu_hour_micros: 900_000,
        }),
        when_full: WhenFull::Queue.into(),
        created_ms: 1_700_000_000_000,
        ..TenantRow::default()
    }
}

fn ledger() -> LedgerRow {
    LedgerRow {
        next_job_number: 18,
        next_event_seq: 42,
        month: 2023 * 12 + 10,
        reserved_micros: 500,
        settled_micros: 20,
        queued_tasks: 6,
        storage_bytes: 63,
        ingress_bytes: 9,
        egress_bytes: 1,
        live_jobs: 2,
        ..LedgerRow::default()
    }
}

/// Every kind of row, as the code of today builds it.
fn rows() -> Vec<(bytes::Bytes, Vec<u8>)> {
    vec![
        (
            keys::format(),
            FormatRow {
                version: 1,
                created_ms: 1_700_000_000_000,
                signing_key: vec![1, 2, 3].into(),
                cluster_id: "c1".into(),
            }
            .encode_to_vec(),
        ),
        (keys::tenant("lab"), tenant().encode_to_vec()),
        (
            keys::token(&"ef".repeat(32)),
            TokenRow {
                name: "ci".into(),
                role: Role::Operator.into(),
                tenant: "lab".into(),
                created_ms: 1_700_000_000_000,
            }
            .encode_to_vec(),
        ),
        (
            keys::job("lab", 17),
            JobRow {
                tenant: "lab".into(),
                number: 17,
                spec: Some(spec()),
                submitted_ms: 1_700_000_000_000,
                submitted_by: "ci".into(),
                idempotency_key: "k-1".into(),
            }
            .encode_to_vec(),
        ),
        (keys::state("lab", 17), job_state().encode_to_vec()),
        (keys::block("lab", 17, 0, 0), block().encode_to_vec()),
        (keys::grant("lab", 77), grant().encode_to_vec()),
        (keys::alloc_node("n1"), AllocRow { epoch: 77 }.encode_to_vec()),
        (keys::alloc_tenant("lab"), AllocRow { epoch: 77 }.encode_to_vec()),
        (keys::event("lab", 41), EventBatchRow { events: vec![event()] }.encode_to_vec()),
        (keys::ledger("lab"), ledger().encode_to_vec()),
        (
            keys::idem("lab", "k-1"),
            IdempotencyRow { job_number: 17, spec_digest: "01".repeat(32), at_ms: 1_700_000_000_000 }
                .encode_to_vec(),
        ),
        (
            keys::manifest("lab", 17, 0, 3, 0),
            ManifestRow {
                task: 3,
                rank: 1,
                attempt: 2,
                epoch: 77,
                artifacts: vec![artifact()],
                committed_ms: 1_700_000_000_005,
                ..ManifestRow::default()
            }
            .encode_to_vec(),
        ),
        (keys::node("n1"), node().encode_to_vec()),
        (keys::shard(11), ShardRow { owner: "s1".into(), epoch: 3, seq: 900 }.encode_to_vec()),
        (keys::checkpoint("lab", 17, 0, 3, 1), checkpoints().encode_to_vec()),
        (keys::upload("lab", &"ab".repeat(32)), UploadRow { size_bytes: 812, at_ms: 1_700 }.encode_to_vec()),
        (keys::scale("big"), scale().encode_to_vec()),
        (keys::node("big-auto-6"), leaving().encode_to_vec()),
    ]
}

fn scale() -> ScaleRow {
    ScaleRow {
        last_number: 7,
        asked: vec![AskedNode { number: 7, asked_ms: 1_700_000_000_000, coming: true }],
        add_after_ms: 1_700_000_030_000,
        remove_after_ms: 1_700_000_040_000,
        add_failures: 1,
        remove_failures: 2,
        failed: "no quota".into(),
    }
}

fn leaving() -> NodeRow {
    NodeRow {
        name: "big-auto-6".into(),
        drained: true,
        drainer: Drainer::Removal.into(),
        ..NodeRow::default()
    }
}

fn kept() -> Vec<(String, Vec<u8>)> {
    ROWS.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (key, hex) = line.split_once(' ').expect("a key and its bytes");
            let bytes = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect();
            (key.to_owned(), bytes)
        })
        .collect()
}

fn kept_row<M: Message + Default>(family: &str) -> M {
    let rows = kept();
    let (_, bytes) = rows.iter().find(|(key, _)| key.starts_with(family)).expect(family);
    M::decode(bytes.as_slice()).expect(family)
}

/// Decodes the row that a key names; tells whether it encodes to the same again.
fn reencode(parsed: &Parsed, bytes: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
    fn through<M: Message + Default>(bytes: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
        Ok(M::decode(bytes)?.encode_to_vec())
    }
    match parsed {
        Parsed::Format => through::<FormatRow>(bytes),
        Parsed::Tenant { .. } => through::<TenantRow>(bytes),
        Parsed::Token { .. } => through::<TokenRow>(bytes),
        Parsed::Job { .. } => through::<JobRow>(bytes),
        Parsed::State { .. } => through::<JobStateRow>(bytes),
        Parsed::Block { .. } => through::<BlockRow>(bytes),
        Parsed::Grant { .. } => through::<GrantRow>(bytes),
        Parsed::AllocNode { .. } | Parsed::AllocTenant { .. } | Parsed::AllocLicense { .. } => {
            through::<AllocRow>(bytes)
        }
        Parsed::Event { .. } => through::<EventBatchRow>(bytes),
        Parsed::Ledger { .. } => through::<LedgerRow>(bytes),
        Parsed::Idem { .. } => through::<IdempotencyRow>(bytes),
        Parsed::Manifest { .. } => through::<ManifestRow>(bytes),
        Parsed::Checkpoint { .. } => through::<CheckpointRow>(bytes),
        Parsed::Upload { .. } => through::<UploadRow>(bytes),
        Parsed::Node { .. } => through::<NodeRow>(bytes),
        Parsed::Scale { .. } => through::<ScaleRow>(bytes),
        Parsed::Shard { .. } => through::<ShardRow>(bytes),
    }
}

#[test]
fn the_rows_kept_are_those_of_this_version() {
    let today: Vec<String> = rows()
        .iter()
        .map(|(key, bytes)| format!("{} {}", String::from_utf8_lossy(key), keys::hex_of(bytes)))
        .collect();
    let kept: Vec<&str> = ROWS.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(kept, today, "the meaning of a field changed, or a row is new: add a line, never change one");
}

#[test]
fn every_kept_row_means_what_it_meant() {
    assert_eq!(kept_row::<TenantRow>("tenant/"), tenant());
    assert_eq!(kept_row::<JobRow>("job/").spec, Some(spec()));
    assert_eq!(kept_row::<JobStateRow>("state/"), job_state());
    assert_eq!(kept_row::<BlockRow>("block/"), block());
    assert_eq!(kept_row::<GrantRow>("grant/"), grant());
    assert_eq!(kept_row::<EventBatchRow>("event/").events, [event()]);
    assert_eq!(kept_row::<LedgerRow>("ledger/"), ledger());
    assert_eq!(kept_row::<ManifestRow>("manifest/").artifacts, [artifact()]);
    assert_eq!(kept_row::<CheckpointRow>("checkpoint/"), checkpoints());
    assert_eq!(kept_row::<UploadRow>("upload/"), UploadRow { size_bytes: 812, at_ms: 1_700 });
    assert_eq!(kept_row::<NodeRow>("node/"), node());
    assert_eq!(kept_row::<NodeRow>("node/big-auto-6"), leaving());
    assert_eq!(kept_row::<ScaleRow>("scale/"), scale());
    assert_eq!(kept_row::<AllocRow>("alloc/node/").epoch, 77);
    assert_eq!(kept_row::<ShardRow>("shard/").seq, 900);
    assert_eq!(kept_row::<FormatRow>("meta/").version, 1);
}

#[test]
fn fields_of_a_newer_version_are_passed_over() {
    // Field 200, a varint; field 201, bytes: no row has them.
    let newer = [0xc0, 0x0c, 0x2a, 0xca, 0x0c, 0x03, b'n', b'e', b'w'];
    for (key, bytes) in kept() {
        let parsed = keys::parse(key.as_bytes()).expect("a key of ours");
        let mut grown = bytes.clone();
        grown.extend_from_slice(&newer);
        assert_eq!(reencode(&parsed, &grown).expect("it still decodes"), bytes, "{key}");
    }
}

#[test]
fn a_damaged_row_is_an_error_and_no_panic() {
    for (key, bytes) in kept() {
        let parsed = keys::parse(key.as_bytes()).expect("a key of ours");
        for end in 0..bytes.len() {
            let _ = reencode(&parsed, &bytes[..end]);
        }
    }
    assert!(reencode(&Parsed::Format, &[0xff]).is_err());
}
