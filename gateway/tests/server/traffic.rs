//! What clients upload and download is counted, booked, and ends at the limit.

use crate::http::Http;
use crate::support::{Client, TestDir, job, serve};
use gateway::server::RunningServer;
use prost::Message;
use proto::problem::Problem;
use proto::v1::{
    Artifact, BlockRow, CancelRequest, CreateUploadRequest, Input, JobRequest, JobSpec, LedgerRow,
    ListTenantsRequest, ManifestRow, PutTenantRequest, Quota, Span, SubmitRequest, TenantRow,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use store::Commit;
use world::disk::OpenMode;
use world::real::{HttpTransfer, TransferLimits};
use world::transfer::{QUOTA_STATUS, TransferError};
use world::{Disk, Transfer, time};

const SIZE: u64 = 60_000;

/// An admin's client of a server, with a place for files.
struct Door {
    server: RunningServer,
    client: Client,
    transfer: Arc<HttpTransfer>,
    local: TestDir,
    disk: Arc<dyn Disk>,
}

impl Door {
    async fn open(dir: &TestDir) -> Self {
        let server = serve(dir).await.unwrap();
        let client = Client::new(&server, &server.token).await;
        let local = TestDir::new();
        let disk = local.disk();
        Self { server, client, transfer: HttpTransfer::new(TransferLimits::default()), local, disk }
    }

    async fn limit(&mut self, quota: Quota) {
        let tenant = TenantRow { name: "lab".into(), quota: Some(quota), ..TenantRow::default() };
        let request = self.client.request(PutTenantRequest { tenant: Some(tenant), was: None });
        self.client.grpc.put_tenant(request).await.unwrap();
    }

    /// A file of one byte over and over, and its digest.
    fn file(&self, byte: u8) -> String {
        let data = vec![byte; SIZE as usize];
        let file = self.disk.open(&format!("file-{byte}"), OpenMode::CreateOrWrite).unwrap();
        file.write_at(0, &data).unwrap();
        Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    async fn leave(&mut self, digest: &str, size_bytes: u64) -> Result<String, Problem> {
        let ask =
            CreateUploadRequest { tenant: "lab".into(), digest: digest.into(), size_bytes, beside_bytes: 0 };
        let request = self.client.request(ask);
        Ok(self.client.grpc.create_upload(request).await?.into_inner().url)
    }

    async fn put(&self, url: &str, byte: u8) -> Result<(), TransferError> {
        self.transfer.put(url, Arc::clone(&self.disk), &format!("file-{byte}")).await
    }

    /// Job 1 of the tenant, as if a node had run it and the user had cancelled what was
    /// left. It gave file 1; its digest.
    async fn with_an_output(&mut self, path: &str) -> String {
        let digest = self.file(1);
        let url = self.leave(&digest, SIZE).await.unwrap();
        self.put(&url, 1).await.unwrap();
        let mut spec = job("giver");
        spec.steps[0].outputs = vec![path.to_owned()];
        let request = SubmitRequest { tenant: "lab".into(), spec: Some(spec), ..SubmitRequest::default() };
        let request = self.client.request(request);
        self.client.grpc.submit(request).await.unwrap();
        let named = JobRequest { tenant: "lab".into(), number: 1 };
        let request = self.client.request(CancelRequest { job: Some(named), ..CancelRequest::default() });
        self.client.grpc.cancel(request).await.unwrap();
        let artifact = Artifact { path: path.into(), size_bytes: SIZE, digest: digest.clone(), mode: 0o644 };
        let manifest =
            ManifestRow { attempt: 1, epoch: 1, artifacts: vec![artifact], ..ManifestRow::default() };
        let key = proto::keys::manifest("lab", 1, 0, 0, 0);
        let block = BlockRow { completed: vec![Span { first: 0, last: 0 }], ..BlockRow::default() };
        let commit = Commit::new().put(key, manifest.encode_to_vec());
        let commit = commit.put(proto::keys::block("lab", 1, 0, 0), block.encode_to_vec());
        self.server.store().unwrap().commit(commit).await.unwrap();
        digest
    }

    async fn ledger(&mut self) -> LedgerRow {
        let request = self.client.request(ListTenantsRequest {});
        let tenants = self.client.grpc.list_tenants(request).await.unwrap().into_inner().tenants;
        let lab = tenants.into_iter().find(|view| view.tenant.as_ref().unwrap().name == "lab");
        lab.unwrap().ledger.unwrap()
    }

    /// Waits until the ledger says so.
    async fn until_booked(&mut self, ingress_bytes: u64, egress_bytes: u64) {
        let mut looks = 0;
        loop {
            let ledger = self.ledger().await;
            if (ledger.ingress_bytes, ledger.egress_bytes) == (ingress_bytes, egress_bytes) {
                return;
            }
            looks += 1;
            assert!(looks < 300, "{ledger:?}");
            time::sleep(time::ms(50)).await;
        }
    }
}

/// It was refused on account of the quota, in these words.
fn past_quota<T: std::fmt::Debug>(moved: Result<T, TransferError>, words: &str) {
    match moved {
        Err(TransferError::Refused { status: QUOTA_STATUS, reason }) => {
            assert!(reason.contains(words), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn uploads_are_counted_and_end_at_the_limit() {
    let dir = TestDir::new();
    let mut door = Door::open(&dir).await;
    door.limit(Quota { ingress_bytes: Some(100_000), ..Quota::default() }).await;
    let (first, second) = (door.file(1), door.file(2));
    // The guard stands at 90 %.
    let problem = door.leave(&first, 90_000).await.unwrap_err();
    assert_eq!((problem.code.as_str(), problem.field.as_str()), ("quota.exceeded", "ingress"));
    let figures = problem.quota.unwrap();
    let named = [figures.used, figures.asked, figures.limit, figures.threshold];
    assert!(named.iter().zip([0.0, 90_000.0, 100_000.0, 90_000.0]).all(|(a, b)| (a - b).abs() < 0.5));
    // Leave was given for both; only one fits.
    let urls = [door.leave(&first, SIZE).await.unwrap(), door.leave(&second, SIZE).await.unwrap()];
    door.put(&urls[0], 1).await.unwrap();
    past_quota(door.put(&urls[1], 2).await, "of its 97.6KiB of ingress this month");
    assert_eq!(door.leave(&second, SIZE).await.unwrap_err().code, "quota.exceeded");
    door.until_booked(SIZE, 0).await;
    // What is there already moves nothing.
    assert_eq!(door.leave(&first, SIZE).await.unwrap(), "");
    // A limit that was raised counts at once.
    door.limit(Quota { ingress_bytes: Some(200_000), ..Quota::default() }).await;
    door.put(&urls[1], 2).await.unwrap();
    door.until_booked(2 * SIZE, 0).await;
    // Two at once that fit one by one, but not together.
    let digests = [door.file(3), door.file(4)];
    door.limit(Quota { ingress_bytes: Some(10 * SIZE), ..Quota::default() }).await;
    let urls = [door.leave(&digests[0], SIZE).await.unwrap(), door.leave(&digests[1], SIZE).await.unwrap()];
    door.limit(Quota { ingress_bytes: Some(4 * SIZE - 1), ..Quota::default() }).await;
    let (one, other) = tokio::join!(door.put(&urls[0], 3), door.put(&urls[1], 4));
    let went = [&one, &other].iter().filter(|moved| moved.is_ok()).count();
    assert_eq!(went, 1, "{one:?} {other:?}");
    door.until_booked(3 * SIZE, 0).await;
    door.server.stop().await;
}

#[tokio::test]
async fn what_is_uploaded_is_kept_once_and_counts_as_storage() {
    let dir = TestDir::new();
    let mut door = Door::open(&dir).await;
    let quota = |bytes| Quota { storage_bytes: Some(bytes), ..Quota::default() };
    door.limit(quota(100_000)).await;
    let (first, second) = (door.file(1), door.file(2));
    let problem = door.leave(&first, 90_000).await.unwrap_err();
    assert_eq!((problem.code.as_str(), problem.field.as_str()), ("quota.exceeded", "storage"));
    assert_eq!(problem.quota.unwrap().fits_at_ms, 0, "no time clears it");
    // Leave for the same bytes twice, and for others.
    let urls = [door.leave(&first, SIZE).await.unwrap(), door.leave(&first, SIZE).await.unwrap()];
    let other = door.leave(&second, SIZE).await.unwrap();
    door.put(&urls[0], 1).await.unwrap();
    past_quota(
        door.put(&other, 2).await,
        "storage: tenant lab keeps 58.5KiB of its 97.6KiB of storage, 58.5KiB",
    );
    // They move twice and are kept once.
    door.limit(quota(1_000_000)).await;
    let (again, more) = tokio::join!(door.put(&urls[1], 1), door.put(&other, 2));
    again.unwrap();
    more.unwrap();
    door.until_booked(3 * SIZE, 0).await;
    let ledger = door.ledger().await;
    assert_eq!((ledger.storage_bytes, ledger.uploaded_bytes), (2 * SIZE, 2 * SIZE));
    // A job that reads them keeps no more; one that gives something is refused near the limit.
    door.limit(quota(2 * SIZE + 10)).await;
    let mut spec = job("reader");
    spec.inputs = vec![Input { name: "in".into(), digest: first, size_bytes: SIZE, ..Input::default() }];
    let submit = async |spec: JobSpec| {
        let request = SubmitRequest { tenant: "lab".into(), spec: Some(spec), ..SubmitRequest::default() };
        door.client.grpc.clone().submit(door.client.request(request)).await
    };
    submit(spec.clone()).await.unwrap();
    spec.steps[0].outputs = vec!["out".into()];
    let problem = Problem::from(submit(spec).await.unwrap_err());
    assert_eq!((problem.code.as_str(), problem.field.as_str()), ("quota.exceeded", "storage"));
    // The next server knows what was there, also where leave for it was given before.
    let Door { server, local, .. } = door;
    server.stop().await;
    let mut door = Door::open(&dir).await;
    let disk_file = door.file(1);
    door.limit(quota(10 * SIZE)).await;
    assert_eq!(door.leave(&disk_file, SIZE).await.unwrap(), "", "it is there");
    assert_eq!(door.ledger().await.storage_bytes, 2 * SIZE);
    drop(local);
    door.server.stop().await;
}

#[tokio::test]
async fn downloads_are_counted_and_what_was_booked_outlives_the_server() {
    let dir = TestDir::new();
    let mut door = Door::open(&dir).await;
    door.limit(Quota { egress_bytes: Some(100_000), ..Quota::default() }).await;
    let digest = door.with_an_output("out").await;
    let outputs = async |door: &mut Door| {
        let request = door.client.request(JobRequest { tenant: "lab".into(), number: 1 });
        let reply = door.client.grpc.outputs(request).await.unwrap().into_inner();
        reply.steps[0].tasks[0].artifacts[0].url.clone()
    };
    let url = outputs(&mut door).await;
    door.transfer.get(&url, Arc::clone(&door.disk), "copy", &digest).await.unwrap();
    let again = door.transfer.get(&url, Arc::clone(&door.disk), "copy", &digest).await;
    past_quota(again, "58.5KiB of its 97.6KiB of egress this month, 58.5KiB more are asked for");
    // A server that ends books what moved in its last second, the next knows it.
    let Door { server, local, .. } = door;
    server.stop().await;
    let mut door = Door::open(&dir).await;
    assert_eq!((door.ledger().await.ingress_bytes, door.ledger().await.egress_bytes), (SIZE, SIZE));
    let url = outputs(&mut door).await;
    past_quota(door.transfer.get(&url, Arc::clone(&door.disk), "copy", &digest).await, "egress");
    door.limit(Quota { egress_bytes: Some(2 * SIZE), ..Quota::default() }).await;
    door.transfer.get(&url, Arc::clone(&door.disk), "copy", &digest).await.unwrap();
    door.until_booked(SIZE, 2 * SIZE).await;
    drop((local, door.local));
    door.server.stop().await;
}

#[tokio::test]
async fn an_output_is_found_by_its_path_and_a_part_of_it_counts_as_that_part() {
    let dir = TestDir::new();
    let mut door = Door::open(&dir).await;
    door.limit(Quota { egress_bytes: Some(SIZE + 1_000), ..Quota::default() }).await;
    let digest = door.with_an_output("a b/out").await;
    let http = Http::new(&door.server, &door.server.token).await;
    let answer = http.get("/v1/jobs/lab-1/outputs/main/a%20b/out").await;
    assert_eq!((answer.status, answer.text.as_str()), (307, ""));
    let link = answer.header("location").to_owned();
    assert!(link.starts_with(&format!("/v1/objects/lab/{digest}?")), "{link}");
    for (path, code) in [
        ("lab-1/outputs/main/a%20b/other", "missing.output"),
        ("lab-1/outputs/main", "missing.output"),
        ("lab-1/outputs/other/a%20b/out", "missing.output"),
        ("lab-1/outputs/%2e%2e/out", "missing.output"),
        ("lab-2/outputs/main/a%20b/out", "missing.job"),
    ] {
        let refusal = http.get(&format!("/v1/jobs/{path}")).await.refusal();
        assert_eq!((refusal.0, refusal.1.as_str()), (404, code), "{path}");
    }
    // The link is the right to read; what is read of it is paid, and no more.
    let nobody = http.with("");
    let tag = format!("\"{digest}\"");
    let ask = async |method: &str, header: &str, value: &str| {
        nobody.raw_bytes(nobody.request(method, &link).header(header, value)).await
    };
    assert_eq!(ask("GET", "range", "bytes=10-1009").await, (206, vec![1; 1_000]));
    assert_eq!(ask("GET", "range", "bytes=60000-").await.0, 416);
    assert_eq!(ask("GET", "if-none-match", &tag).await, (304, Vec::new()));
    assert_eq!(ask("HEAD", "accept", "*/*").await, (200, Vec::new()));
    door.until_booked(SIZE, 1_000).await;
    assert_eq!(ask("GET", "accept", "*/*").await, (200, vec![1; SIZE as usize]));
    door.until_booked(SIZE, SIZE + 1_000).await;
    // At the limit not one byte more moves; that it is still the same costs nothing.
    let (status, reason) = ask("GET", "range", "bytes=0-0").await;
    assert_eq!(status, QUOTA_STATUS);
    assert!(String::from_utf8(reason).unwrap().starts_with("egress: tenant lab has used"));
    assert_eq!(ask("GET", "if-none-match", &tag).await.0, 304);
    door.server.stop().await;
}
