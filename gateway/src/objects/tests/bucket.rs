//! Whole objects in a bucket whose answers are lost.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};
use world::sim::{BucketFaults, SimBucket};

/// Loses the answers to puts that it takes.
#[derive(Debug)]
struct Deaf(Arc<SimBucket>, AtomicBool);

#[async_trait]
impl Bucket for Deaf {
    async fn size(&self, key: &str) -> io::Result<Option<u64>> {
        self.0.size(key).await
    }
    async fn put(&self, key: &str, disk: Arc<dyn Disk>, path: &str, digest: &str) -> io::Result<()> {
        self.0.put(key, disk, path, digest).await?;
        if self.1.load(Ordering::Relaxed) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
    async fn read(&self, key: &str, span: std::ops::Range<u64>) -> io::Result<Bytes> {
        self.0.read(key, span).await
    }
    async fn remove(&self, key: &str) -> io::Result<()> {
        self.0.remove(key).await
    }
    async fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        self.0.list(prefix).await
    }
    async fn signed(&self, key: &str, ttl: world::time::Duration) -> io::Result<String> {
        self.0.signed(key, ttl).await
    }
}

/// A place with a bucket, for one tenant, and what it counts.
async fn in_bucket(disk: &HostileDisk, bucket: Arc<dyn Bucket>) -> (Arc<Objects>, Arc<Meter>) {
    let (clock, _) = SkewedClock::pair(NOW_MS);
    let clock = clock as Arc<dyn NodeClock>;
    let rows = RedbStore::open(disk.handle(), "store", Arc::clone(&clock)).await.unwrap();
    let row = TenantRow { name: "lab".into(), ..TenantRow::default() };
    rows.commit(Commit::new().put(proto::keys::tenant("lab"), row.encode_to_vec())).await.unwrap();
    let (meter, _) = Meter::new(rows as Arc<dyn Store>, Arc::clone(&clock));
    let (signer, counted) = (Signer::new(b"key"), Arc::clone(&meter));
    let objects =
        Objects::open(disk.handle(), Some(bucket), clock, signer, counted, 60_000, None).await.unwrap();
    (objects, meter)
}

fn empty() -> Arc<SimBucket> {
    SimBucket::new("far:1", 1, BucketFaults::default())
}

#[tokio::test]
async fn what_a_put_left_whose_answer_was_lost_is_booked_by_the_one_that_finds_it() {
    let (disk, bucket) = (HostileDisk::new(31), empty());
    let deaf = Arc::new(Deaf(Arc::clone(&bucket), AtomicBool::new(true)));
    let (objects, meter) = in_bucket(&disk, Arc::clone(&deaf) as Arc<dyn Bucket>).await;
    let digest = digest(b"some");
    let url = objects.signed(Method::Put, Mover::Client, "lab", &digest, 4);
    let failed = put(&objects, &url, b"some").await;
    assert!(matches!(failed, Err(TransferError::Server { status: 503, .. })), "{failed:?}");
    assert_eq!(bucket.objects().len(), 1, "it was taken all the same");
    assert!(objects.find("lab", &digest).await.is_err(), "nobody is told so, nor that it is not there");
    assert!(meter.unbooked("lab").is_empty());
    deaf.1.store(false, Ordering::Relaxed);
    put(&objects, &url, b"some").await.unwrap();
    assert_eq!(objects.find("lab", &digest).await.unwrap(), Some(4));
    assert_eq!(meter.unbooked("lab"), std::slice::from_ref(&digest));
    put(&objects, &url, b"some").await.unwrap();
    assert_eq!(meter.unbooked("lab").len(), 1, "once for the same bytes");
    let url = signed(&objects, Method::Get, "lab", &digest, 4);
    assert_eq!(fetch(&objects, &url).await.unwrap(), b"some");
}

#[tokio::test]
async fn what_the_disk_gives_otherwise_than_it_was_given_does_not_go_into_the_bucket() {
    let (disk, bucket) = (HostileDisk::new(32), empty());
    let (objects, _) = in_bucket(&disk, Arc::clone(&bucket) as Arc<dyn Bucket>).await;
    let url = signed(&objects, Method::Put, "lab", &digest(b"some"), 4);
    disk.set_faults(DiskFaults { rot_ppm: 1_000_000, ..DiskFaults::default() });
    let failed = put(&objects, &url, b"some").await;
    assert!(matches!(failed, Err(TransferError::Server { status: 500, .. })), "{failed:?}");
    assert!(bucket.objects().is_empty());
    disk.set_faults(DiskFaults::default());
    put(&objects, &url, b"some").await.unwrap();
    assert_eq!(bucket.objects()[0].1, "some");
}
