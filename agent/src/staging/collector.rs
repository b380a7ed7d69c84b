//! Finds what a task gives, digests it and brings it to the server.
//!
//! What must hold: each pattern of the step's outputs matches a file, or the
//! attempt fails by its own fault; what is reported are the digests of the
//! bytes as they lay there after the task's end; nothing is reported given
//! before it is uploaded or was there already.

use super::digest;
use super::glob::{GlobError, expand};
use super::upload::Uploader;
use crate::config::AgentConfig;
use crate::core::cause::Fault;
use crate::core::{CollectOrder, Event};
use crate::limits;
use crate::shell::{Inbound, tell};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use proto::v1::{Artifact, CauseKind};
use std::collections::VecDeque;
use std::sync::Arc;
use world::disk::Disk;
use world::sync::mpsc;
use world::task::blocking;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    disk: Arc<dyn Disk>,
    config: Arc<AgentConfig>,
    uploader: Uploader,
}

impl Collector {
    pub(crate) fn new(disk: &Arc<dyn Disk>, config: &Arc<AgentConfig>, uploader: &Uploader) -> Self {
        Self { disk: Arc::clone(disk), config: Arc::clone(config), uploader: uploader.clone() }
    }

    /// Collects until nobody is left to ask.
    pub(crate) async fn work(self, mut due: mpsc::Receiver<Vec<CollectOrder>>, inbox: mpsc::Sender<Inbound>) {
        // Bounded by the attempts the core holds.
        let mut waiting = VecDeque::new();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < limits::COLLECTIONS_AT_ONCE
                && let Some(order) = waiting.pop_front()
            {
                running.push(self.collect(order));
            }
            world::select! {
                biased;
                Some(event) = running.next(), if !running.is_empty() => tell(&inbox, vec![event]).await,
                orders = due.recv() => match orders {
                    Some(orders) => waiting.extend(orders),
                    None => return,
                },
            }
        }
    }

    async fn collect(&self, order: CollectOrder) -> Event {
        let result = self.outputs(&order).await;
        Event::Collected { key: order.key, result }
    }

    async fn outputs(&self, order: &CollectOrder) -> Result<Vec<Artifact>, Fault> {
        let root = format!("{}/{}", self.config.directories.work, order.directory);
        let (disk, patterns, below) = (Arc::clone(&self.disk), Arc::clone(&order.work), root.clone());
        let artifacts = blocking(move || find(&*disk, &below, &patterns.step.outputs)).await?;
        let uploaded = self.uploader.all(&order.key, &root, &artifacts, false).await;
        uploaded.map_err(|error| failed(format!("output {error}")))?;
        Ok(artifacts)
    }
}

/// Matches and digests outputs. Blocks.
pub(crate) fn find(disk: &dyn Disk, root: &str, patterns: &[String]) -> Result<Vec<Artifact>, Fault> {
    let matches = expand(disk, root, patterns).map_err(|error| match error {
        GlobError::Disk(error) => failed(format!("outputs could not be looked for: {error}")),
        GlobError::Pattern(pattern) => missing(format!("output `{pattern}` is no path below the task")),
        GlobError::TooMany => too_many(),
    })?;
    if let Some(pattern) = matches.unmatched.first() {
        return Err(missing(format!("output `{pattern}` matched no file")));
    }
    // As the controller counts them: a path, a digest and their wrapping.
    let bytes: usize = matches.files.keys().map(|path| path.len() + 64 + 16).sum();
    if bytes > limits::OUTPUT_LIST_BYTES_MAX {
        return Err(too_many());
    }
    let mut artifacts = Vec::with_capacity(matches.files.len());
    for (path, entry) in matches.files {
        let (size_bytes, digest) = digest(disk, &format!("{root}/{path}"))
            .map_err(|error| missing(format!("output `{path}` could not be read: {error}")))?;
        artifacts.push(Artifact { path, size_bytes, digest, mode: entry.mode & 0o777 });
    }
    Ok(artifacts)
}

fn too_many() -> Fault {
    let most = limits::OUTPUT_FILES_MAX;
    missing(format!("outputs match too much: at most {most} files are taken; pack them into one"))
}

fn missing(text: String) -> Fault {
    Fault::new(CauseKind::OutputMissing, text)
}

fn failed(text: String) -> Fault {
    Fault::new(CauseKind::UploadFailed, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::disk_with;

    #[test]
    fn outputs_are_named_and_digested() {
        // Each file's bytes are its own path.
        let disk = disk_with(&["work/t/words", "work/t/out/b"]);
        let patterns = ["words".to_owned(), "out/*".to_owned()];
        let found = find(&*disk, "work/t", &patterns).unwrap();
        let named: Vec<_> =
            found.iter().map(|artifact| (artifact.path.as_str(), artifact.size_bytes)).collect();
        assert_eq!(named, [("out/b", 12), ("words", 12)]);
        assert_eq!(found[1].digest, "5427f21d726058f448be5d5f4145de575a9bd57f0d191c52a790409040adde5b");
        assert!(super::super::cache::is_digest(&found[0].digest));
    }

    #[test]
    fn a_pattern_without_a_file_fails_by_name() {
        let disk = disk_with(&["work/t/a"]);
        let fault = find(&*disk, "work/t", &["a".to_owned(), "words".to_owned()]).unwrap_err();
        assert_eq!(fault, Fault::new(CauseKind::OutputMissing, "output `words` matched no file"));
    }
}
