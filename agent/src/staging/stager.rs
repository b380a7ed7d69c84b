//! Makes work directories and lays in them what a task was promised:
//! `inputs/<name>`, and `from/<step>/…` of the steps before it.
//!
//! What must hold: a directory is told ready only with all of it in place; a
//! task gets copies, so that what it does to them reaches nobody else.
//! Directories of tasks without inputs are made many in one blocking hop.

use super::cache::{Cache, Pinned};
use super::copy;
use super::shelf::Shelf;
use super::signer::Signer;
use crate::config::AgentConfig;
use crate::core::cause::{Fault, StageFault};
use crate::core::key::Key;
use crate::core::work::{Work, checkpoint_directory};
use crate::core::{Event, StageOrder};
use crate::limits;
use crate::shell::{Inbound, tell};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use proto::v1::{CauseKind, RankCheckpoint, TransferNeed};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use world::Transfer;
use world::disk::Disk;
use world::sync::{Semaphore, mpsc};
use world::task::blocking;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Stager {
    disk: Arc<dyn Disk>,
    transfer: Arc<dyn Transfer>,
    config: Arc<AgentConfig>,
    signer: Signer,
    cache: Arc<Cache>,
    shelf: Arc<Shelf>,
    fetches: Arc<Semaphore>,
}

/// A file to be laid at a path of the work directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Placement {
    path: String,
    digest: String,
    mode: u32,
}

/// A file to be had first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Source {
    size_bytes: u64,
    /// Where a person said it is; else the server signs one.
    url: String,
}

/// Why something could not be fetched.
#[derive(Debug)]
struct Unfetched {
    fault: Fault,
    /// The digest of bytes that the server does not have any more.
    lost: Option<String>,
}
impl From<Fault> for Unfetched {
    fn from(fault: Fault) -> Self {
        Self { fault, lost: None }
    }
}

impl Unfetched {
    /// As it is told: a checkpoint that is lost must not be tried again.
    fn of(self, resume: Option<&RankCheckpoint>) -> StageFault {
        let names = |from: &&RankCheckpoint| {
            from.artifacts.iter().any(|artifact| Some(&artifact.digest) == self.lost.as_ref())
        };
        let lost_checkpoint = resume.filter(names).and_then(|from| from.id);
        if lost_checkpoint.is_some() {
            world::mark!("agent.checkpoint.lost");
        }
        StageFault { fault: self.fault, lost_checkpoint }
    }
}

impl Stager {
    pub(crate) async fn open(
        disk: &Arc<dyn Disk>,
        transfer: &Arc<dyn Transfer>,
        config: &Arc<AgentConfig>,
        signer: &Signer,
        shelf: &Arc<Shelf>,
    ) -> io::Result<Self> {
        let (opened, settings) = (Arc::clone(disk), Arc::clone(config));
        let cache =
            blocking(move || Cache::open(&*opened, &settings.directories.cache, settings.cache_bytes_max))
                .await?;
        Ok(Self {
            disk: Arc::clone(disk),
            transfer: Arc::clone(transfer),
            config: Arc::clone(config),
            signer: signer.clone(),
            cache,
            shelf: Arc::clone(shelf),
            fetches: Arc::new(Semaphore::new(limits::FETCHES_AT_ONCE)),
        })
    }

    /// Stages until nobody is left to ask.
    pub(crate) async fn work(self, mut due: mpsc::Receiver<Vec<StageOrder>>, inbox: mpsc::Sender<Inbound>) {
        // Bounded by the attempts the core holds.
        let mut heavy = VecDeque::new();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < limits::STAGINGS_AT_ONCE
                && let Some(order) = heavy.pop_front()
            {
                running.push(self.stage(order));
            }
            world::select! {
                biased;
                Some(event) = running.next(), if !running.is_empty() => tell(&inbox, vec![event]).await,
                orders = due.recv() => {
                    let Some(orders) = orders else { return };
                    let (light, rest): (Vec<_>, Vec<_>) =
                        orders.into_iter().partition(StageOrder::is_light);
                    heavy.extend(rest);
                    if !light.is_empty() {
                        tell(&inbox, self.make_directories(light).await).await;
                    }
                }
            }
        }
    }

    async fn make_directories(&self, orders: Vec<StageOrder>) -> Vec<Event> {
        let (disk, config, shelf) =
            (Arc::clone(&self.disk), Arc::clone(&self.config), Arc::clone(&self.shelf));
        blocking(move || {
            let made = orders.into_iter().map(|order| {
                let result =
                    make_directory(&*disk, &config, &shelf, &order).map_err(|error| disk_fault(error).into());
                Event::Staged { key: order.key, directory: order.directory, result }
            });
            made.collect()
        })
        .await
    }

    async fn stage(&self, order: StageOrder) -> Event {
        let result = self.lay(&order).await;
        Event::Staged { key: order.key, directory: order.directory, result }
    }

    async fn lay(&self, order: &StageOrder) -> Result<(), StageFault> {
        let (placements, sources) = plan(&order.work, order.resume.as_deref())?;
        let mut pins = BTreeMap::new();
        for digest in sources.keys() {
            let pin = self.cache.pin(&order.key.tenant, digest);
            let pin = pin.ok_or_else(|| fault(format!("`{digest}` is no SHA-256 digest")))?;
            pins.insert(digest.clone(), pin);
        }
        for (digest, pin) in pins.iter().filter(|(_, pin)| pin.is_inherited()) {
            self.look_at(digest, pin).await?;
        }
        self.fetch(&order.key, &sources, &pins).await.map_err(|lost| lost.of(order.resume.as_deref()))?;
        let (disk, config, order) = (Arc::clone(&self.disk), Arc::clone(&self.config), order.clone());
        let shelf = Arc::clone(&self.shelf);
        blocking(move || {
            make_directory(&*disk, &config, &shelf, &order).map_err(disk_fault)?;
            for (digest, source) in &sources {
                as_large_as_told(&*disk, pins[digest].path(), source)?;
            }
            let root = format!("{}/{}", config.directories.work, order.directory);
            for Placement { path, digest, mode } in placements {
                let target = format!("{root}/{path}");
                copy(&*disk, pins[&digest].path(), &target, mode)
                    .map_err(|error| fault(format!("`{path}` could not be laid: {error}")))?;
            }
            Ok(())
        })
        .await
        .map_err(|fault: Fault| fault.into())
    }

    /// Looks whether what an earlier agent fetched is still what its name says.
    async fn look_at(&self, digest: &str, pin: &Pinned) -> Result<(), Fault> {
        let fetching = pin.fetching();
        let _alone = fetching.lock().await;
        if !pin.is_inherited() {
            return Ok(());
        }
        let (disk, path) = (Arc::clone(&self.disk), pin.path().to_owned());
        let found = blocking(move || super::digest(&*disk, &path)).await;
        let sound = found.map_err(disk_fault)?.1 == digest;
        if !sound {
            tracing::warn!(
                path = pin.path(),
                "a cached input does not hold what it is to hold; it is fetched anew"
            );
        }
        pin.looked_at(sound);
        Ok(())
    }

    /// Brings what is not cached yet.
    async fn fetch(
        &self,
        key: &Key,
        sources: &BTreeMap<String, Source>,
        pins: &BTreeMap<String, Pinned>,
    ) -> Result<(), Unfetched> {
        let missing = sources.iter().filter(|(digest, _)| !pins[*digest].is_present());
        let (given, signed): (Vec<_>, Vec<_>) = missing.partition(|(_, source)| !source.url.is_empty());
        let needs: Vec<TransferNeed> =
            signed.into_iter().map(|(digest, source)| need(digest, source)).collect();
        let urls = match needs.is_empty() {
            true => Vec::new(),
            false => self.signer.sign(key, &needs).await.map_err(fault)?,
        };
        let given =
            given.into_iter().map(|(digest, source)| (need(digest, source), source.url.clone(), true));
        let mut fetches = FuturesUnordered::new();
        let signed = needs.into_iter().zip(urls).map(|(need, url)| (need, url, false));
        for (need, url, given) in signed.chain(given) {
            // How many go on at once is for the permits to say.
            let pin = &pins[&need.digest];
            fetches.push(self.fetch_one(key, need, (url, given), pin));
        }
        while let Some(fetched) = fetches.next().await {
            fetched?;
        }
        Ok(())
    }

    async fn fetch_one(
        &self,
        key: &Key,
        need: TransferNeed,
        from: (String, bool),
        pin: &Pinned,
    ) -> Result<(), Unfetched> {
        let fetching = pin.fetching();
        let _alone = fetching.lock().await;
        if pin.is_present() {
            return Ok(());
        }
        let _permit = self.fetches.acquire().await.expect("this semaphore is never closed");
        let (disk, path) = (Arc::clone(&self.disk), pin.path().to_owned());
        blocking(move || disk.create_dir_all(super::parent(&path))).await.map_err(disk_fault)?;
        let get = |url: String| {
            let (disk, transfer) = (Arc::clone(&self.disk), Arc::clone(&self.transfer));
            let (path, digest) = (pin.path().to_owned(), need.digest.clone());
            async move { transfer.get(&url, disk, &path, &digest).await.map(|_| ()) }
        };
        let moved = self.signer.transfer(key, &need, from.0, from.1, get).await;
        moved.map_err(|failure| Unfetched {
            fault: fault(format!("input {}: {}", &need.digest[..12], failure.text)),
            lost: failure.lost.then(|| need.digest.clone()),
        })?;
        let (disk, path) = (Arc::clone(&self.disk), pin.path().to_owned());
        let found = blocking(move || disk.entry(&path)).await.map_err(disk_fault)?;
        // Making room removes a few files at most.
        pin.fetched(&*self.disk, found.len);
        Ok(())
    }
}

/// What is laid where, and what has to be had for it.
fn plan(
    work: &Work,
    resume: Option<&RankCheckpoint>,
) -> Result<(Vec<Placement>, BTreeMap<String, Source>), Fault> {
    let mut placements = Vec::new();
    let mut sources: BTreeMap<String, Source> = BTreeMap::new();
    for input in &work.inputs {
        if input.digest.is_empty() {
            let from = if input.url.is_empty() { "path" } else { "url" };
            return Err(fault(format!("input `{}` was given by {from} but without a digest", input.name)));
        }
        let source = Source { size_bytes: input.size_bytes, url: input.url.clone() };
        sources.insert(input.digest.clone(), source);
        let path = format!("inputs/{}", input.name);
        placements.push(Placement { path, digest: input.digest.clone(), mode: 0 });
    }
    for upstream in &work.upstreams {
        for task in &upstream.tasks {
            for artifact in &task.artifacts {
                let path = if upstream.indexed {
                    format!("from/{}/{}/{}", upstream.step, task.index, artifact.path)
                } else {
                    format!("from/{}/{}", upstream.step, artifact.path)
                };
                let source = Source { size_bytes: artifact.size_bytes, url: String::new() };
                sources.entry(artifact.digest.clone()).or_insert(source);
                placements.push(Placement { path, digest: artifact.digest.clone(), mode: artifact.mode });
            }
        }
    }
    for artifact in resume.into_iter().flat_map(|from| &from.artifacts) {
        let source = Source { size_bytes: artifact.size_bytes, url: String::new() };
        sources.entry(artifact.digest.clone()).or_insert(source);
        let path = format!("{}/{}", checkpoint_directory(work), artifact.path);
        placements.push(Placement { path, digest: artifact.digest.clone(), mode: artifact.mode });
    }
    Ok((placements, sources))
}

/// What comes from elsewhere counts as its tenant's ingress by the size that was
/// told, so it must be that.
fn as_large_as_told(disk: &dyn Disk, path: &str, source: &Source) -> Result<(), Fault> {
    if source.url.is_empty() || source.size_bytes == 0 {
        return Ok(());
    }
    let found = disk.entry(path).map_err(disk_fault)?.len;
    if found == source.size_bytes {
        return Ok(());
    }
    Err(fault(format!("{} holds {found} bytes where the job says {}", source.url, source.size_bytes)))
}

fn need(digest: &str, source: &Source) -> TransferNeed {
    TransferNeed { put: false, digest: digest.to_owned(), size_bytes: source.size_bytes }
}

/// The work directory, and spool files where some are at hand.
fn make_directory(
    disk: &dyn Disk,
    config: &AgentConfig,
    shelf: &Shelf,
    order: &StageOrder,
) -> io::Result<()> {
    shelf.prepare_spool(&order.key);
    shelf.make_directory(&order.directory)?;
    let root = format!("{}/{}", config.directories.work, order.directory);
    if order.work.step.checkpoint.is_some() {
        disk.create_dir_all(&format!("{root}/{}", checkpoint_directory(&order.work)))?;
    }
    Ok(())
}

fn fault(text: impl Into<String>) -> Fault {
    Fault::new(CauseKind::StagingFailed, text)
}

fn disk_fault(error: io::Error) -> Fault {
    fault(format!("this node's disk failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Artifact, Input, Upstream, UpstreamTask};

    #[test]
    fn inputs_and_outputs_of_earlier_steps_have_their_places() {
        let artifact = |path: &str, digest: &str| Artifact {
            path: path.to_owned(),
            size_bytes: 1,
            digest: digest.to_owned(),
            mode: 0o755,
        };
        let input = Input { name: "book".to_owned(), digest: "d1".to_owned(), ..Input::default() };
        let plain = Upstream {
            step: "split".to_owned(),
            indexed: false,
            tasks: vec![UpstreamTask { index: 0, artifacts: vec![artifact("part.00", "d2")] }],
        };
        let indexed = Upstream {
            step: "count".to_owned(),
            indexed: true,
            tasks: vec![UpstreamTask { index: 7, artifacts: vec![artifact("deep/words", "d2")] }],
        };
        let work = Work { inputs: vec![input], upstreams: vec![plain, indexed], ..Work::default() };
        let (placements, sources) = plan(&work, None).unwrap();
        let paths: Vec<_> = placements.iter().map(|placed| (placed.path.as_str(), placed.mode)).collect();
        assert_eq!(
            paths,
            [("inputs/book", 0), ("from/split/part.00", 0o755), ("from/count/7/deep/words", 0o755)]
        );
        assert_eq!(sources.len(), 2, "one digest is fetched once");
    }

    #[test]
    fn an_input_without_a_digest_is_refused_by_name() {
        let input = Input { name: "x".to_owned(), url: "http://h/x".to_owned(), ..Input::default() };
        let refused = plan(&Work { inputs: vec![input], ..Work::default() }, None).unwrap_err();
        assert_eq!(refused.text, "input `x` was given by url but without a digest");
    }

    #[test]
    fn what_comes_from_elsewhere_is_as_large_as_was_told() {
        let disk = world::sim::HostileDisk::new(1).handle();
        disk.open("x", world::disk::OpenMode::CreateNew).unwrap().write_at(0, b"four").unwrap();
        let source = |size_bytes, url: &str| Source { size_bytes, url: url.to_owned() };
        for good in [source(4, "http://h/x"), source(0, "http://h/x"), source(9, "")] {
            as_large_as_told(&*disk, "x", &good).unwrap();
        }
        let refused = as_large_as_told(&*disk, "x", &source(3, "http://h/x")).unwrap_err();
        assert_eq!(refused.text, "http://h/x holds 4 bytes where the job says 3");
    }
}
