//! The object place on a hostile disk: what is answered for is there, whole,
//! also after the power failed; what is not leaves nothing behind.

use super::*;
use bytes::Bytes;
use prost::Message;
use proto::v1::{Quota, TenantRow};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sha2::{Digest, Sha256};
use store::{Commit, RedbStore, Store};
use world::sim::{DiskFaults, HostileDisk, SkewedClock};

mod bucket;
mod resumed;

const NOW_MS: u64 = 1_700_000_000_000;

fn digest(data: &[u8]) -> String {
    crate::hex(&Sha256::digest(data))
}

async fn place(disk: &HostileDisk) -> Arc<Objects> {
    let (clock, _) = SkewedClock::pair(NOW_MS);
    Objects::open(disk.handle(), None, clock, Signer::new(b"key"), no_meter().await, 60_000, None)
        .await
        .unwrap()
}

/// Nodes' transfers pass uncounted: here it is never asked.
async fn no_meter() -> Arc<Meter> {
    let (clock, _) = SkewedClock::pair(NOW_MS);
    let clock = clock as Arc<dyn NodeClock>;
    let store = RedbStore::open(HostileDisk::new(0).handle(), "store", Arc::clone(&clock)).await.unwrap();
    Meter::new(store, clock).0
}

/// A URL for a node.
fn signed(objects: &Objects, method: Method, tenant: &str, digest: &str, size_bytes: u64) -> String {
    objects.signed(method, Mover::Node, tenant, digest, size_bytes)
}

async fn put(objects: &Arc<Objects>, target: &str, data: &[u8]) -> Result<(), TransferError> {
    let mut sink = Door(Arc::clone(objects)).begin_put(target, None).await?;
    for piece in data.chunks(70_000) {
        sink.write(Bytes::copy_from_slice(piece)).await?;
    }
    assert_eq!(sink.finish().await?, Arrived::Whole);
    Ok(())
}

async fn fetch(objects: &Arc<Objects>, target: &str) -> Result<Vec<u8>, TransferError> {
    let mut source = Door(Arc::clone(objects)).open(target).await?;
    let len = source.len();
    let data = read(&mut *source, 0..len).await?;
    assert_eq!(data.len() as u64, len);
    Ok(data)
}

async fn read(source: &mut dyn ObjectSource, span: std::ops::Range<u64>) -> Result<Vec<u8>, TransferError> {
    source.begin(span).await?;
    let mut data = Vec::new();
    while let Some(piece) = source.read().await? {
        data.extend_from_slice(&piece);
    }
    Ok(data)
}

fn files_in(disk: &HostileDisk, dir: &str) -> usize {
    disk.handle().list(dir).unwrap().iter().filter(|entry| !entry.is_dir).count()
}

#[tokio::test]
async fn what_was_put_is_got_back_by_its_own_tenant() {
    let disk = HostileDisk::new(1);
    let objects = place(&disk).await;
    // More than two blocks, and nothing at all.
    for data in [vec![7_u8; 2 * limits::OBJECT_BLOCK_BYTES + 17], Vec::new()] {
        let (digest, len) = (digest(&data), data.len() as u64);
        assert!(!objects.has("lab", &digest, len).await);
        put(&objects, &signed(&objects, Method::Put, "lab", &digest, len), &data).await.unwrap();
        assert!(objects.has("lab", &digest, len).await);
        assert!(!objects.has("lab", &digest, len + 1).await);
        assert!(!objects.has("other", &digest, len).await, "a namespace for each tenant");
        assert_eq!(fetch(&objects, &signed(&objects, Method::Get, "lab", &digest, len)).await.unwrap(), data);
    }
    assert_eq!(files_in(&disk, INCOMING), 0);
}

#[tokio::test]
async fn a_part_is_read_and_reserved_as_that_part() {
    let disk = HostileDisk::new(12);
    let (clock, _) = SkewedClock::pair(NOW_MS);
    let clock = clock as Arc<dyn NodeClock>;
    let store = RedbStore::open(disk.handle(), "store", Arc::clone(&clock)).await.unwrap();
    let quota = Quota { egress_bytes: Some(10), ..Quota::default() };
    let row = TenantRow { name: "lab".into(), quota: Some(quota), ..TenantRow::default() };
    store.commit(Commit::new().put(proto::keys::tenant("lab"), row.encode_to_vec())).await.unwrap();
    let (meter, _due) = Meter::new(store as Arc<dyn Store>, Arc::clone(&clock));
    let objects =
        Objects::open(disk.handle(), None, clock, Signer::new(b"key"), meter, 60_000, None).await.unwrap();
    let data: Vec<u8> = (0..3 * limits::OBJECT_BLOCK_BYTES + 5).map(|at| (at / 7 % 251) as u8).collect();
    let (digest, len) = (digest(&data), data.len() as u64);
    put(&objects, &signed(&objects, Method::Put, "lab", &digest, len), &data).await.unwrap();
    let block = limits::OBJECT_BLOCK_BYTES as u64;
    let mut source =
        Door(Arc::clone(&objects)).open(&signed(&objects, Method::Get, "lab", &digest, len)).await.unwrap();
    assert_eq!((source.len(), source.digest()), (len, digest.as_str()));
    assert!(source.read().await.unwrap().is_none(), "nothing was begun");
    for span in [0..1, block - 1..block + 1, 5..2 * block + 5, len - 3..len, 7..7, len..len] {
        let at = usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap();
        assert!(read(&mut *source, span.clone()).await.unwrap() == data[at], "{span:?}");
    }
    // A client's part counts by its own length: ten bytes of three million pass.
    let url = objects.signed(Method::Get, Mover::Client, "lab", &digest, len);
    let mut source = Door(Arc::clone(&objects)).open(&url).await.unwrap();
    assert_eq!(read(&mut *source, 100..106).await.unwrap(), data[100..106]);
    assert!(matches!(source.begin(0..5).await, Err(TransferError::Refused { status: 429, .. })));
    assert_eq!(read(&mut *source, 0..4).await.unwrap(), data[0..4]);
}

#[tokio::test]
async fn a_url_works_for_what_it_was_signed_for() {
    let disk = HostileDisk::new(2);
    let objects = place(&disk).await;
    let digest = digest(b"data");
    let get = signed(&objects, Method::Get, "lab", &digest, 4);
    assert!(matches!(put(&objects, &get, b"data").await, Err(TransferError::Refused { status: 403, .. })));
    assert!(matches!(fetch(&objects, &get).await, Err(TransferError::Refused { status: 404, .. })));
    let (clock, _) = SkewedClock::pair(NOW_MS + 120_000);
    let signer = Signer::new(b"key");
    let later =
        Objects::open(disk.handle(), None, clock, signer, no_meter().await, 60_000, None).await.unwrap();
    let put_url = signed(&objects, Method::Put, "lab", &digest, 4);
    assert!(matches!(put(&later, &put_url, b"data").await, Err(TransferError::Refused { status: 403, .. })));
    put(&objects, &put_url, b"data").await.unwrap();
}

#[tokio::test]
async fn other_bytes_than_announced_leave_nothing() {
    let disk = HostileDisk::new(3);
    let objects = place(&disk).await;
    let digest = digest(b"data");
    let target = signed(&objects, Method::Put, "lab", &digest, 4);
    assert!(matches!(put(&objects, &target, b"dato").await, Err(TransferError::Digest { .. })));
    assert!(matches!(put(&objects, &target, b"dat").await, Err(TransferError::Refused { status: 400, .. })));
    assert!(matches!(
        put(&objects, &target, b"data!").await,
        Err(TransferError::Refused { status: 413, .. })
    ));
    assert!(!objects.has("lab", &digest, 4).await);
    objects.put_away().await;
    assert_eq!(files_in(&disk, INCOMING), 0);
}

#[tokio::test]
async fn an_answered_upload_survives_the_power() {
    for seed in 0..20 {
        let disk = HostileDisk::new(seed);
        let objects = place(&disk).await;
        let mut digests = Vec::new();
        for n in 0..5_u8 {
            let data = vec![n; 5_000];
            let digest = digest(&data);
            put(&objects, &signed(&objects, Method::Put, "lab", &digest, 5_000), &data).await.unwrap();
            digests.push(digest);
        }
        let unfinished = signed(&objects, Method::Put, "lab", &digest(b"x"), 1);
        let sink = Door(Arc::clone(&objects)).begin_put(&unfinished, None).await.unwrap();
        disk.crash(&mut SmallRng::seed_from_u64(seed));
        drop((sink, objects));
        let objects = place(&disk).await;
        assert_eq!(files_in(&disk, INCOMING), 0, "seed {seed}: leftovers are removed");
        for (n, digest) in digests.iter().enumerate() {
            let got = fetch(&objects, &signed(&objects, Method::Get, "lab", digest, 5_000)).await.unwrap();
            assert_eq!(got, vec![u8::try_from(n).unwrap(); 5_000], "seed {seed}");
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_507_and_says_so() {
    let disk = HostileDisk::new(5);
    let objects = place(&disk).await;
    disk.set_faults(DiskFaults { capacity_bytes: disk.used_bytes() + 10_000, ..DiskFaults::default() });
    let data = vec![1_u8; 50_000];
    let digest = digest(&data);
    let result = put(&objects, &signed(&objects, Method::Put, "lab", &digest, 50_000), &data).await;
    let Err(TransferError::Server { status: 507, reason }) = result else { panic!("{result:?}") };
    assert!(reason.contains("disk is full"), "{reason}");
    assert!(!objects.has("lab", &digest, 50_000).await);
    // Room again: the same upload works.
    disk.set_faults(DiskFaults::default());
    put(&objects, &signed(&objects, Method::Put, "lab", &digest, 50_000), &data).await.unwrap();
}

#[tokio::test]
async fn an_object_whose_name_may_be_lost_is_not_there_yet() {
    let disk = HostileDisk::new(6);
    let objects = place(&disk).await;
    let digest = digest(b"data");
    let target = signed(&objects, Method::Put, "lab", &digest, 4);
    let mut failed = 0;
    disk.set_faults(DiskFaults { sync_error_ppm: 500_000, ..DiskFaults::default() });
    while put(&objects, &target, b"data").await.is_err() {
        failed += 1;
        assert!(!objects.has("lab", &digest, 4).await, "after {failed} failures");
    }
    disk.set_faults(DiskFaults::default());
    assert!(objects.has("lab", &digest, 4).await);
    disk.crash(&mut SmallRng::seed_from_u64(6));
    assert!(place(&disk).await.has("lab", &digest, 4).await);
}

/// Once one of many uploads of the same bytes was acknowledged, the object is
/// there for good, whatever the others are at.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_of_the_same_bytes_do_not_put_each_other_in_doubt() {
    let disk = HostileDisk::new(9);
    let objects = place(&disk).await;
    for round in 0_u32..200 {
        let data = round.to_le_bytes();
        let digest = digest(&data);
        let url = signed(&objects, Method::Put, "lab", &digest, 4);
        let uploads: Vec<_> = (0..6)
            .map(|_| {
                let (objects, url, digest) = (Arc::clone(&objects), url.clone(), digest.clone());
                tokio::spawn(async move {
                    put(&objects, &url, &data).await.unwrap();
                    assert!(objects.has("lab", &digest, 4).await, "acknowledged, and in doubt");
                })
            })
            .collect();
        for upload in uploads {
            upload.await.unwrap();
        }
    }
}

/// Rows of a tenant that may take in so much.
async fn set_limit(store: &dyn Store, ingress_bytes: u64) {
    let quota = Quota { ingress_bytes: Some(ingress_bytes), ..Quota::default() };
    let row = TenantRow { name: "lab".into(), quota: Some(quota), ..TenantRow::default() };
    let commit = Commit::new().put(proto::keys::tenant("lab"), row.encode_to_vec());
    store.commit(commit).await.unwrap();
}

#[tokio::test]
async fn a_limit_lowered_under_way_ends_the_transfer_and_what_it_held_is_free_again() {
    let disk = HostileDisk::new(10);
    let (clock, _) = SkewedClock::pair(NOW_MS);
    let clock = clock as Arc<dyn NodeClock>;
    let store = RedbStore::open(disk.handle(), "store", Arc::clone(&clock)).await.unwrap();
    set_limit(&*store, 10_000).await;
    let (meter, mut due) = Meter::new(Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&clock));
    let signer = Signer::new(b"key");
    let objects =
        Objects::open(disk.handle(), None, clock, signer, Arc::clone(&meter), 60_000, None).await.unwrap();
    let data = vec![3_u8; 8_000];
    let url = objects.signed(Method::Put, Mover::Client, "lab", &digest(&data), 8_000);
    let door = Door(Arc::clone(&objects));
    let mut sink = door.begin_put(&url, None).await.unwrap();
    sink.write(Bytes::copy_from_slice(&data[..3_000])).await.unwrap();
    assert!(due.try_recv().is_ok(), "there is something to book");
    // It has reserved all it announced: another does not fit beside it.
    let small = objects.signed(Method::Put, Mover::Client, "lab", &digest(b"x"), 2_001);
    assert!(matches!(door.begin_put(&small, None).await, Err(TransferError::Refused { status: 429, .. })));
    set_limit(&*store, 5_000).await;
    meter.forget("lab");
    let refused = sink.write(Bytes::copy_from_slice(&data[3_000..])).await.unwrap_err();
    let TransferError::Refused { status: 429, reason } = refused else { panic!("{refused:?}") };
    assert!(reason.starts_with("ingress: tenant lab has used"), "{reason}");
    drop(sink);
    assert!(!objects.has("lab", &digest(&data), 8_000).await);
    // What came as far as it came is counted; the rest is free.
    let rest = objects.signed(Method::Put, Mover::Client, "lab", &digest(b"y"), 2_000);
    drop(door.begin_put(&rest, None).await.unwrap());
    assert!(matches!(door.begin_put(&small, None).await, Err(TransferError::Refused { status: 429, .. })));
    // Nodes are not asked.
    let node = objects.signed(Method::Put, Mover::Node, "lab", &digest(&data), 8_000);
    put(&objects, &node, &data).await.unwrap();
}

#[tokio::test]
async fn the_same_bytes_uploaded_at_once_are_kept_once() {
    let disk = HostileDisk::new(11);
    let (clock, _) = SkewedClock::pair(NOW_MS);
    let clock = clock as Arc<dyn NodeClock>;
    let store = RedbStore::open(disk.handle(), "store", Arc::clone(&clock)).await.unwrap();
    let quota = Quota { storage_bytes: Some(10_000), ..Quota::default() };
    let row = TenantRow { name: "lab".into(), quota: Some(quota), ..TenantRow::default() };
    store.commit(Commit::new().put(proto::keys::tenant("lab"), row.encode_to_vec())).await.unwrap();
    let (meter, _due) = Meter::new(store as Arc<dyn Store>, Arc::clone(&clock));
    let open = async || {
        let (clock, meter) = (Arc::clone(&clock), Arc::clone(&meter));
        Objects::open(disk.handle(), None, clock, Signer::new(b"key"), meter, 60_000, None).await.unwrap()
    };
    let objects = open().await;
    let data = vec![3_u8; 4_000];
    let url = objects.signed(Method::Put, Mover::Client, "lab", &digest(&data), 4_000);
    let (one, other) = tokio::join!(put(&objects, &url, &data), put(&objects, &url, &data));
    one.unwrap();
    other.unwrap();
    // Once more, and to the next process, which finds it there.
    put(&objects, &url, &data).await.unwrap();
    put(&open().await, &url, &data).await.unwrap();
    let fits = async |bytes| {
        let url = objects.signed(Method::Put, Mover::Client, "lab", &digest(b"x"), bytes);
        Door(Arc::clone(&objects)).begin_put(&url, None).await.is_ok()
    };
    assert!(fits(6_000).await && !fits(6_001).await);
}

#[tokio::test]
async fn of_checkpoints_what_no_row_names_is_taken_away_and_nothing_else() {
    let disk = HostileDisk::new(1);
    let objects = place(&disk).await;
    let space = checkpoints::space("lab");
    let (kept, gone, output) = (digest(b"kept"), digest(b"gone"), digest(b"out"));
    for (space, data) in [(space.as_str(), &b"kept"[..]), (&space, b"gone"), ("lab", b"out")] {
        let name = digest(data);
        let target = signed(&objects, Method::Put, space, &name, data.len() as u64);
        put(&objects, &target, data).await.unwrap();
    }
    objects.keep_checkpoints(BTreeSet::from([(space.clone(), kept.clone())])).await;
    assert_eq!(objects.find(&space, &kept).await.unwrap(), Some(4));
    assert_eq!(objects.find(&space, &gone).await.unwrap(), None);
    assert_eq!(objects.find("lab", &output).await.unwrap(), Some(3));
    objects.release(&space, vec![kept.clone(), gone, "no digest".to_owned()]).await;
    assert_eq!(objects.find(&space, &kept).await.unwrap(), None);
}
