//! Files of a task on their way to the server.

use super::signer::{Moving, Signer};
use crate::core::key::Key;
use crate::limits;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use proto::v1::{Artifact, TransferNeed};
use std::collections::BTreeMap;
use std::sync::Arc;
use world::Transfer;
use world::disk::Disk;
use world::pace::Line;

/// What it takes to upload.
#[derive(Clone, Debug)]
pub(crate) struct Uploader {
    disk: Arc<dyn Disk>,
    transfer: Arc<dyn Transfer>,
    signer: Signer,
    line: Option<Arc<Line>>,
}

impl Uploader {
    pub(crate) fn new(
        disk: &Arc<dyn Disk>,
        transfer: &Arc<dyn Transfer>,
        signer: &Signer,
        line: Option<&Arc<Line>>,
    ) -> Self {
        let (disk, transfer) = (Arc::clone(disk), Arc::clone(transfer));
        Self { disk, transfer, signer: signer.clone(), line: line.cloned() }
    }

    /// Brings what an attempt names to the server, the same bytes once; they lie below
    /// `root`, and are outputs, or of a checkpoint. The error is one line, which names the file where it is about one.
    pub(crate) async fn all(
        &self,
        key: &Key,
        root: &str,
        artifacts: &[Artifact],
        checkpoint: bool,
    ) -> Result<(), String> {
        let mut uploads: BTreeMap<&str, &Artifact> = BTreeMap::new();
        for artifact in artifacts {
            uploads.entry(&artifact.digest).or_insert(artifact);
        }
        let uploads: Vec<&Artifact> = uploads.into_values().collect();
        let needs: Vec<TransferNeed> = uploads.iter().map(|artifact| need(artifact, checkpoint)).collect();
        let urls = self.signer.sign(key, &needs).await?;
        let mut wanted = uploads.into_iter().zip(needs).zip(urls);
        let mut puts = FuturesUnordered::new();
        loop {
            while puts.len() < limits::FETCHES_AT_ONCE
                && let Some(((artifact, need), url)) = wanted.next()
            {
                puts.push(self.one(key, need, url, format!("{root}/{}", artifact.path), &artifact.path));
            }
            match puts.next().await {
                Some(put) => put?,
                None => return Ok(()),
            }
        }
    }

    async fn one(
        &self,
        key: &Key,
        need: TransferNeed,
        url: String,
        path: String,
        name: &str,
    ) -> Result<(), String> {
        let pace = super::pace(self.line.as_ref(), &key.tenant);
        let put = |url: String| {
            let (disk, transfer) = (Arc::clone(&self.disk), Arc::clone(&self.transfer));
            let (path, pace) = (path.clone(), pace.clone());
            async move { transfer.send(&url, disk, &path, &pace).await }
        };
        let moving = Moving { key, need: &need, given: false, pace: &pace, arrival: None };
        let moved = self.signer.transfer(&moving, url, || 0, put).await;
        moved.map_err(|failure| format!("`{name}` could not be uploaded: {}", failure.text))
    }
}

fn need(artifact: &Artifact, checkpoint: bool) -> TransferNeed {
    let (digest, size_bytes) = (artifact.digest.clone(), artifact.size_bytes);
    TransferNeed { put: true, digest, size_bytes, checkpoint }
}
