//! Inputs on their way: clients upload theirs as `drumline submit` does, and whatever a
//! job names by URL lies elsewhere, on a machine that nobody of the cluster runs.

use crate::clients::{Door, Refusal};
use crate::workload::inputs::{self, Given};
use async_trait::async_trait;
use proto::v1::{CreateUploadRequest, Input};
use sha2::Digest as _;
use std::ops::Range;
use std::sync::Arc;
use world::disk::OpenMode;
use world::sim::{DoorGuard, HostileDisk, SimObjects, SimTransfer, TransferFaults};
use world::time;
use world::transfer::{Arrived, ObjectDoor, ObjectSink, ObjectSource, Piece, Transfer, TransferError};

/// The clients' own machine, and how they move files.
pub struct Uploads {
    disk: HostileDisk,
    transfer: Arc<SimTransfer>,
    _elsewhere: DoorGuard,
}

/// One upload is tried so often; longer than any fault lasts.
const TRIES: u32 = 200;
const AGAIN_MS: u64 = 1_000;

/// Clients come from afar, by lines that break whatever else befalls the cluster: so
/// uploads are gone on with, and some of them from bytes that were altered on their way.
const LINES: TransferFaults = TransferFaults {
    break_ppm: 200_000,
    lost_reply_ppm: 20_000,
    truncate_ppm: 50_000,
    corrupt_ppm: 30_000,
    slow_ppm: 0,
    slow_ms: 0,
    latency_ms_min: 1,
    latency_ms_max: 5,
};

impl Uploads {
    /// From `address`, by these ways.
    #[must_use]
    pub fn new(objects: &Arc<SimObjects>, address: &str, seed: u64) -> Arc<Self> {
        let transfer = SimTransfer::new(Arc::clone(objects), address, seed);
        transfer.set_faults(LINES);
        Arc::new(Self {
            disk: HostileDisk::new(seed),
            transfer,
            _elsewhere: objects.register(inputs::ELSEWHERE, Arc::new(Elsewhere)),
        })
    }

    /// Brings all of a job's inputs where nodes find them; `None` where the server
    /// does not take them.
    pub async fn supply(&self, door: &Door, tenant: &str, given: &[Given]) -> Option<Vec<Input>> {
        let mut ready = Vec::with_capacity(given.len());
        for one in given {
            let input = one.input();
            if !one.by_url && !self.upload(door, tenant, one, &input).await {
                return None;
            }
            ready.push(input);
        }
        Some(ready)
    }

    async fn upload(&self, door: &Door, tenant: &str, given: &Given, input: &Input) -> bool {
        let Some((tree, files)) = given.planted() else {
            let bytes = inputs::bytes(given.salt, given.len);
            return self.send(door, tenant, &input.digest, &bytes).await;
        };
        for (salt, len) in files {
            let bytes = inputs::bytes(salt, len);
            let digest = proto::keys::hex_of(&sha2::Sha256::digest(&bytes));
            if !self.send(door, tenant, &digest, &bytes).await {
                return false;
            }
        }
        self.send(door, tenant, &input.digest, tree.manifest().as_bytes()).await
    }

    async fn send(&self, door: &Door, tenant: &str, digest: &str, bytes: &[u8]) -> bool {
        let path = digest;
        let disk = self.disk.handle();
        let written = disk.open(path, OpenMode::CreateOrWrite).and_then(|file| file.write_at(0, bytes));
        written.expect("nothing befalls the clients' disk");
        for _ in 0..TRIES {
            let asked = door
                .call(|mut client, door| {
                    let request = CreateUploadRequest {
                        tenant: tenant.to_owned(),
                        digest: digest.to_owned(),
                        size_bytes: bytes.len() as u64,
                        beside_bytes: 0,
                    };
                    async move { Ok(client.create_upload(door.request(request)).await?.into_inner().url) }
                })
                .await;
            let url = match asked {
                Ok(url) if url.is_empty() => return true,
                Ok(url) => url,
                Err(Refusal::Problem(problem)) => {
                    door.trace.line(&format!("refused upload {tenant} {} {}", digest, problem.code));
                    let mut history = door.history.lock().expect("no holder panics");
                    *history.refused.entry(problem.code).or_default() += 1;
                    return false;
                }
                Err(Refusal::GaveUp) => return false,
            };
            match self.transfer.put(&url, Arc::clone(&disk), path).await {
                Ok(()) => return true,
                // Its URL ran out, by a clock that was set forward meanwhile: ask again.
                Err(error) => door.trace.line(&format!("upload {tenant} {}: {error}", digest)),
            }
            time::sleep(time::ms(AGAIN_MS)).await;
        }
        false
    }
}

fn nothing_is_taken() -> TransferError {
    TransferError::Refused { status: 405, reason: "nothing is taken here".to_owned() }
}

/// Serves whatever is asked for.
struct Elsewhere;

#[async_trait]
impl ObjectDoor for Elsewhere {
    async fn begin_put(&self, _: &str, _: Option<Piece>) -> Result<Box<dyn ObjectSink>, TransferError> {
        Err(nothing_is_taken())
    }

    async fn arrived(&self, _: &str, _: u64) -> Result<Arrived, TransferError> {
        Err(nothing_is_taken())
    }

    async fn open(&self, target: &str) -> Result<Box<dyn ObjectSource>, TransferError> {
        match inputs::of_target(target) {
            Some(bytes) => Ok(Box::new(Served::new(bytes))),
            None => Err(TransferError::Refused { status: 404, reason: "there is no such file".to_owned() }),
        }
    }
}

struct Served {
    digest: String,
    all: bytes::Bytes,
    rest: bytes::Bytes,
}

impl Served {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = proto::keys::hex_of(&sha2::Sha256::digest(&bytes));
        Self { digest, all: bytes.into(), rest: bytes::Bytes::new() }
    }
}

/// As much is read at once.
const PIECE_BYTES: usize = 64 << 10;

#[async_trait]
impl ObjectSource for Served {
    fn len(&self) -> u64 {
        self.all.len() as u64
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    async fn begin(&mut self, span: Range<u64>) -> Result<(), TransferError> {
        let at = |byte| usize::try_from(byte).expect("an input is small");
        self.rest = self.all.slice(at(span.start)..at(span.end));
        Ok(())
    }

    async fn read(&mut self) -> Result<Option<bytes::Bytes>, TransferError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let piece = self.rest.len().min(PIECE_BYTES);
        Ok(Some(self.rest.split_to(piece)))
    }
}
