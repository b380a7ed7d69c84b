//! Makes work directories and lays in them what a task was promised:
//! `inputs/<name>`, a file or a directory, and `from/<step>/…` of the steps before it.
//!
//! What must hold: a directory is told ready only with all of it in place.
//! Directories of tasks without inputs are made many in one blocking hop.
//!
//! What is laid is read-only and not written again for each task: the disk clones it,
//! or links it, and copies only what it can do neither with (another mode than the
//! cached file's, another file system). A clone and a copy are the task's own, so what
//! it does to them reaches nobody else. A link is one file under several names, and
//! tasks run as the agent's own user; of links this holds:
//! - a task that removes or replaces its input does so for itself alone;
//! - one that writes into it must first take the seal off (`chmod`), unless it runs as
//!   root, whom no mode binds. A mode alone changes no byte and raises no doubt: the
//!   next laying puts the seal on again;
//! - whatever it wrote before another task's input is laid is found out by the file's
//!   stamp, after the laying: the bytes are looked at again, and if they are not those
//!   of the digest, the file is dropped, fetched anew and laid anew. So nobody is
//!   handed what another has changed;
//! - what is not held off: a task writing while another that has the same file by a
//!   link is running, or later through what it still has open or mapped; and one that
//!   sets the file's time back to the nanosecond. Only tasks of the same tenant share a
//!   file, and none of them needs a link to do harm: the cache is theirs to reach.

use super::arrivals::{Arrival, Arrivals, Listed, Wait};
use super::cache::{Cache, Pinned};
use super::places::Places;
use super::shelf::Shelf;
use super::signer::{Moving, Signer};
use super::trees::{self, Frame, Read};
use crate::config::AgentConfig;
use crate::core::cause::{Fault, StageFault};
use crate::core::key::Key;
use crate::core::work::{Work, checkpoint_directory};
use crate::core::{Coming, Event, StageOrder};
use crate::limits;
use crate::shell::{Inbound, tell};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use proto::limits::PROGRESS_TASKS_MAX;
use proto::tree::Tree;
use proto::v1::{CauseKind, Input, RankCheckpoint, TransferNeed};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use world::Transfer;
use world::disk::{Disk, SEALED_MODE, Stamp};
use world::pace::Line;
use world::sync::mpsc;
use world::task::blocking;
use world::time::{Alarm, Instant, ms};
use world::transfer::Fetching;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Stager {
    disk: Arc<dyn Disk>,
    transfer: Arc<dyn Transfer>,
    config: Arc<AgentConfig>,
    signer: Signer,
    cache: Arc<Cache>,
    shelf: Arc<Shelf>,
    fetches: Arc<Places>,
    arrivals: Arc<Arrivals>,
    line: Option<Arc<Line>>,
}

/// A file to be laid at a path of the work directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub path: String,
    pub digest: String,
    pub mode: u32,
    /// It is the task's own, which may write it: its checkpoint.
    pub own: bool,
}

/// All that one attempt is to find in its directory.
#[derive(Debug)]
struct Wanted {
    placements: Vec<Placement>,
    frame: Frame,
    /// By digest, as the pins.
    sources: BTreeMap<String, Source>,
    pins: BTreeMap<String, Pinned>,
}

/// A file to be had first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    pub size_bytes: u64,
    /// It lies among the checkpoints.
    pub checkpoint: bool,
    /// Where a person said it is; else the server signs one.
    pub url: String,
    /// Where it lies in a directory, if it does.
    pub within: String,
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
    /// The same, with the path of a directory's file.
    fn named(mut self, path: &str) -> Self {
        if !path.is_empty() {
            self.fault.text = format!("{path}: {}", self.fault.text);
        }
        self
    }

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
        (shelf, line): (&Arc<Shelf>, Option<&Arc<Line>>),
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
            fetches: Places::new(limits::FETCHES_AT_ONCE, line),
            arrivals: Arc::default(),
            line: line.cloned(),
        })
    }

    /// Stages until nobody is left to ask.
    pub(crate) async fn work(self, mut due: mpsc::Receiver<Vec<StageOrder>>, inbox: mpsc::Sender<Inbound>) {
        // Bounded by the attempts the core holds.
        let mut heavy = VecDeque::new();
        let mut running = FuturesUnordered::new();
        let (mut alarm, mut told_at) = (Alarm::default(), Instant::now());
        loop {
            if running.is_empty() {
                told_at = Instant::now();
            }
            while running.len() < limits::STAGINGS_AT_ONCE
                && let Some(order) = heavy.pop_front()
            {
                running.push(self.stage(order));
            }
            world::select! {
                biased;
                Some(event) = running.next(), if !running.is_empty() => tell(&inbox, vec![event]).await,
                () = alarm.at(told_at + ms(limits::STAGING_TOLD_EVERY_MS)), if !running.is_empty() => {
                    told_at = Instant::now();
                    let mut seen = self.arrivals.look(told_at);
                    seen.extend(heavy.iter().zip(running.len()..).take(PROGRESS_TASKS_MAX).map(in_line));
                    tell(&inbox, vec![Event::StagingSeen(seen)]).await;
                }
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
        let (mut placements, mut sources) = plan(&order.work, order.resume.as_deref())?;
        let mut frame = Frame::default();
        for input in order.work.inputs.iter().filter(|input| input.tree()) {
            let tree = self.tree(order, input).await?;
            frame.add((&input.name, &tree), &mut placements, &mut sources).map_err(fault)?;
        }
        let pins = self.pins(&order.key, &sources)?;
        let arrival = self.listed(order, &sources);
        let wanted = Arc::new(Wanted { placements, frame, sources, pins });
        for round in 0..limits::LAYINGS_MAX {
            for (digest, pin) in wanted.pins.iter().filter(|(_, pin)| pin.is_doubted()) {
                self.look_at(digest, pin).await?;
            }
            let fetched = self.fetch(&order.key, &wanted, &arrival).await;
            fetched.map_err(|lost| lost.of(order.resume.as_deref()))?;
            let (disk, config, order) = (Arc::clone(&self.disk), Arc::clone(&self.config), order.clone());
            let (shelf, wanted) = (Arc::clone(&self.shelf), Arc::clone(&wanted));
            let untouched = blocking(move || {
                if round == 0 {
                    make_directory(&*disk, &config, &shelf, &order).map_err(disk_fault)?;
                }
                wanted.lay(&*disk, &format!("{}/{}", config.directories.work, order.directory))
            });
            if untouched.await? {
                return Ok(());
            }
        }
        Err(fault("cached inputs were changed or removed as often as they were laid").into())
    }

    /// The cached files, there or not, for as long as they are held here.
    fn pins(&self, key: &Key, sources: &BTreeMap<String, Source>) -> Result<BTreeMap<String, Pinned>, Fault> {
        let pin = |digest: &String| {
            let pin = self.cache.pin(&key.tenant, digest);
            pin.map(|pin| (digest.clone(), pin))
                .ok_or_else(|| fault(format!("`{digest}` is no SHA-256 digest")))
        };
        sources.keys().map(pin).collect()
    }

    /// Whoever asks how the staging of an attempt gets on is told of these.
    fn listed(&self, order: &StageOrder, sources: &BTreeMap<String, Source>) -> Listed {
        let inputs = sources.iter().filter_map(|(digest, source)| {
            let pin = self.cache.pin(&order.key.tenant, digest)?;
            Some((digest.clone(), (source.size_bytes, pin)))
        });
        self.arrivals.list(&order.key, &order.directory, inputs.collect())
    }

    /// What a directory is made of.
    async fn tree(&self, order: &StageOrder, input: &Input) -> Result<Tree, Fault> {
        let source = Source { size_bytes: input.manifest_bytes, ..Source::default() };
        let sources = BTreeMap::from([(input.digest.clone(), source)]);
        let arrival = self.listed(order, &sources);
        let pins = self.pins(&order.key, &sources)?;
        let wanted = Wanted { placements: Vec::new(), frame: Frame::default(), sources, pins };
        let pin = &wanted.pins[&input.digest];
        for _ in 0..limits::LAYINGS_MAX {
            if pin.is_doubted() {
                self.look_at(&input.digest, pin).await?;
            }
            self.fetch(&order.key, &wanted, &arrival).await.map_err(|unfetched| {
                fault(format!("input `{}`: its manifest: {}", input.name, unfetched.fault.text))
            })?;
            let (disk, path, input) = (Arc::clone(&self.disk), pin.path().to_owned(), input.clone());
            match blocking(move || trees::read(&*disk, &path, &input)).await.map_err(disk_fault)? {
                Read::Tree(tree) => {
                    world::mark!("agent.stage.tree");
                    return Ok(tree);
                }
                Read::Flaw(text) => return Err(fault(text)),
                Read::Changed => pin.doubt(),
            }
        }
        Err(fault(format!("the manifest of input `{}` was changed as often as it was read", input.name)))
    }

    /// Looks whether a cached file that may hold anything is what its name says.
    async fn look_at(&self, digest: &str, pin: &Pinned) -> Result<(), Fault> {
        let fetching = pin.fetching();
        let _alone = fetching.lock().await;
        if !pin.is_doubted() {
            return Ok(());
        }
        let (disk, path, due) = (Arc::clone(&self.disk), pin.path().to_owned(), digest.to_owned());
        match blocking(move || look(&*disk, &path, &due)).await.map_err(disk_fault)? {
            Look::Sound(sealed) => pin.looked_at(Some(sealed)),
            Look::Gone => {
                tracing::warn!(
                    path = pin.path(),
                    "a cached input does not hold what it is to hold; it is fetched anew"
                );
                pin.looked_at(None);
            }
            Look::Restless => tracing::warn!(
                path = pin.path(),
                "a cached input is touched without end; another file is fetched in its place"
            ),
        }
        Ok(())
    }

    /// Brings what is not cached yet.
    async fn fetch(&self, key: &Key, wanted: &Wanted, arrival: &Arrival) -> Result<(), Unfetched> {
        let pins = &wanted.pins;
        let missing = wanted.sources.iter().filter(|(digest, _)| !pins[*digest].is_present());
        let (given, signed): (Vec<_>, Vec<_>) = missing.partition(|(_, source)| !source.url.is_empty());
        let needs: Vec<TransferNeed> =
            signed.into_iter().map(|(digest, source)| need(digest, source)).collect();
        let urls = match needs.is_empty() {
            true => Vec::new(),
            false => {
                let _waits: Vec<_> =
                    needs.iter().map(|need| arrival.waits(&need.digest, Wait::Server)).collect();
                self.signer.sign(key, &needs).await.map_err(fault)?
            }
        };
        let given =
            given.into_iter().map(|(digest, source)| (need(digest, source), source.url.clone(), true));
        let mut fetches = FuturesUnordered::new();
        let signed = needs.into_iter().zip(urls).map(|(need, url)| (need, url, false));
        for (need, url, given) in signed.chain(given) {
            // How many go on at once is for the places to say.
            let of = (&pins[&need.digest], arrival);
            let within = &wanted.sources[&need.digest].within;
            fetches.push(async move {
                let fetched = self.fetch_one(key, need, (url, given), of).await;
                fetched.map_err(|unfetched| unfetched.named(within))
            });
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
        (url, given): (String, bool),
        (pin, arrival): (&Pinned, &Arrival),
    ) -> Result<(), Unfetched> {
        let fetching = pin.fetching();
        let waits = arrival.waits(&need.digest, Wait::Another);
        let _alone = fetching.lock().await;
        drop(waits);
        if pin.is_present() {
            return Ok(());
        }
        let waits = arrival.waits(&need.digest, Wait::Turn);
        let _place = self.fetches.take(&key.tenant).await;
        drop(waits);
        let (disk, path) = (Arc::clone(&self.disk), pin.path().to_owned());
        blocking(move || disk.create_dir_all(super::parent(&path))).await.map_err(disk_fault)?;
        let pace = super::pace(self.line.as_ref(), &key.tenant);
        let fetching = Fetching::new(Arc::clone(&self.disk), pin.path(), &need.digest).at(pace.clone());
        let fetching = Arc::new(fetching);
        pin.comes(Some(&fetching));
        let bring = |url: String| {
            let (transfer, fetching) = (Arc::clone(&self.transfer), Arc::clone(&fetching));
            async move { transfer.bring(&url, &fetching).await.map(|_| ()) }
        };
        let brought = || fetching.brought_bytes();
        let moving = Moving { key, need: &need, given, pace: &pace, arrival: Some(arrival) };
        let moved = self.signer.transfer(&moving, url, brought, bring).await;
        pin.comes(None);
        if moved.is_err()
            && let Err(error) = blocking(move || fetching.give_up()).await
        {
            // The next start of an agent removes it.
            tracing::warn!(path = pin.path(), %error, "half a file could not be removed");
        }
        moved.map_err(|failure| Unfetched {
            fault: fault(format!("input {}: {}", &need.digest[..12], failure.text)),
            lost: failure.lost.then(|| need.digest.clone()),
        })?;
        let (disk, path) = (Arc::clone(&self.disk), pin.path().to_owned());
        let found = blocking(move || Ok((disk.entry(&path)?.len, disk.seal(&path)?))).await;
        let (len, sealed) = found.map_err(disk_fault)?;
        // Making room removes a few files at most.
        pin.fetched(&*self.disk, len, sealed);
        Ok(())
    }
}

impl Wanted {
    /// Lays all of it; false where a cached file was changed or removed before that was
    /// done, so that what was laid may be anything, or nothing. Blocks.
    fn lay(&self, disk: &dyn Disk, root: &str) -> Result<bool, Fault> {
        let laid = self.lay_all(disk, root);
        // All are asked, so that all of them are looked at. Also where it failed: a cache
        // that somebody emptied is filled again.
        let touched = self.pins.values().filter(|pin| !pin.is_untouched(disk)).count();
        if touched == 0 {
            return laid.map(|()| true);
        }
        if let Err(fault) = laid {
            tracing::warn!(fault.text, "inputs could not be laid, and some are not as they were fetched");
        }
        for Placement { path, .. } in &self.placements {
            match disk.remove(&format!("{root}/{path}")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk_fault(error)),
                _ => {}
            }
        }
        Ok(false)
    }

    fn lay_all(&self, disk: &dyn Disk, root: &str) -> Result<(), Fault> {
        self.pins.values().for_each(|pin| seal_again(disk, pin.path()));
        for (digest, source) in &self.sources {
            as_large_as_told(disk, self.pins[digest].path(), source)?;
        }
        self.frame.lay(disk, root).map_err(|error| fault(format!("a tree could not be laid: {error}")))?;
        for Placement { path, digest, mode, own } in &self.placements {
            let (from, target) = (self.pins[digest].path(), format!("{root}/{path}"));
            let lay = if *own { super::lay_own } else { super::lay };
            lay(disk, from, &target, *mode)
                .map_err(|error| fault(format!("`{path}` could not be laid: {error}")))?;
        }
        Ok(())
    }
}

/// How it gets on with an attempt that so many are staged before.
fn in_line((order, before): (&StageOrder, usize)) -> Coming {
    Coming {
        key: order.key.clone(),
        directory: order.directory.clone(),
        bytes: 0,
        total_bytes: 0,
        bytes_per_s: 0,
        waits_for: format!("its turn: {before} tasks are staged before it"),
    }
}

/// What a look at a doubted file finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// It holds what it is to hold, and is sealed with this stamp.
    Sound(Stamp),
    /// It is not there, or held something else and was removed.
    Gone,
    /// Each time its bytes were those that are due, and each time its stamp moved
    /// while they were read. A task touches it: that is no reason to remove it.
    Restless,
}

/// Looks at the bytes of a cached file, and seals it. Blocks.
fn look(disk: &dyn Disk, path: &str, due: &str) -> io::Result<Look> {
    let once = || -> io::Result<_> {
        let sealed = disk.seal(path)?;
        let found = super::digest(disk, path)?.1;
        Ok((sealed, found, disk.stamp(path)?))
    };
    for _ in 0..limits::LOOKINGS_MAX {
        match once() {
            Ok((sealed, found, stamp)) if found == due => {
                if stamp == sealed {
                    return Ok(Look::Sound(sealed));
                }
            }
            Ok(_) => {
                disk.remove(path)?;
                return Ok(Look::Gone);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Look::Gone),
            Err(error) => return Err(error),
        }
    }
    Ok(Look::Restless)
}

/// Puts the seal on again where a task took it off and wrote nothing: the time of the
/// bytes stays, so nobody doubts them. Blocks.
fn seal_again(disk: &dyn Disk, path: &str) {
    if disk.entry(path).is_ok_and(|entry| entry.mode != SEALED_MODE)
        && let Err(error) = disk.set_mode(path, SEALED_MODE)
    {
        // Then it is copied instead of linked.
        tracing::debug!(path, %error, "a cached input could not be sealed again");
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
        if input.tree() {
            // Its files come once its manifest is there.
            continue;
        }
        let source = Source { size_bytes: input.size_bytes, url: input.url.clone(), ..Source::default() };
        sources.insert(input.digest.clone(), source);
        let path = format!("inputs/{}", input.name);
        placements.push(Placement { path, digest: input.digest.clone(), mode: 0, own: false });
    }
    for upstream in &work.upstreams {
        for task in &upstream.tasks {
            for artifact in &task.artifacts {
                let path = if upstream.indexed {
                    format!("from/{}/{}/{}", upstream.step, task.index, artifact.path)
                } else {
                    format!("from/{}/{}", upstream.step, artifact.path)
                };
                let source = Source { size_bytes: artifact.size_bytes, ..Source::default() };
                sources.entry(artifact.digest.clone()).or_insert(source);
                placements.push(Placement {
                    path,
                    digest: artifact.digest.clone(),
                    mode: artifact.mode,
                    own: false,
                });
            }
        }
    }
    for artifact in resume.into_iter().flat_map(|from| &from.artifacts) {
        let source = Source { size_bytes: artifact.size_bytes, checkpoint: true, ..Source::default() };
        sources.entry(artifact.digest.clone()).or_insert(source);
        let path = format!("{}/{}", checkpoint_directory(work), artifact.path);
        placements.push(Placement { path, digest: artifact.digest.clone(), mode: artifact.mode, own: true });
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
    let Source { size_bytes, checkpoint, .. } = *source;
    TransferNeed { put: false, digest: digest.to_owned(), size_bytes, checkpoint }
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
    use sha2::{Digest as _, Sha256};
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};
    use world::disk::{DirEntry, DiskFile, OpenMode, Shared, read_all};

    const BYTES: &[u8] = b"what it is to hold";

    /// The place of these bytes in a cache, with them.
    fn cached(disk: &dyn Disk) -> (String, String) {
        let digest = proto::keys::hex_of(&Sha256::digest(BYTES));
        let path = format!("cache/t/{digest}");
        disk.create_dir_all("cache/t").unwrap();
        disk.open(&path, OpenMode::CreateNew).unwrap().write_at(0, BYTES).unwrap();
        (path, digest)
    }

    /// A disk on which somebody writes the same bytes again so often just before a
    /// file's stamp is asked for: as `touch` does.
    #[derive(Debug)]
    struct Touched(Arc<dyn Disk>, AtomicU32);

    impl Disk for Touched {
        fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
            self.0.open(path, mode)
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, path: &str) -> io::Result<()> {
            self.0.remove(path)
        }
        fn remove_dir_all(&self, path: &str) -> io::Result<()> {
            self.0.remove_dir_all(path)
        }
        fn create_dir_all(&self, path: &str) -> io::Result<()> {
            self.0.create_dir_all(path)
        }
        fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
            self.0.list(path)
        }
        fn entry(&self, path: &str) -> io::Result<DirEntry> {
            self.0.entry(path)
        }
        fn is_vacant(&self, path: &str) -> io::Result<bool> {
            self.0.is_vacant(path)
        }
        fn sync_dir(&self, path: &str) -> io::Result<()> {
            self.0.sync_dir(path)
        }
        fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
            self.0.set_mode(path, mode)
        }
        fn share(&self, from: &str, to: &str, mode: u32) -> io::Result<Shared> {
            self.0.share(from, to, mode)
        }
        fn seal(&self, path: &str) -> io::Result<Stamp> {
            self.0.seal(path)
        }
        fn stamp(&self, path: &str) -> io::Result<Stamp> {
            let left = self.1.load(Ordering::Relaxed);
            if left > 0 {
                self.1.store(left - 1, Ordering::Relaxed);
                let first = read_all(&*self.0, path, 1 << 20)?;
                self.0.open(path, OpenMode::Write)?.write_at(0, &first)?;
            }
            self.0.stamp(path)
        }
        fn absolute(&self, path: &str) -> PathBuf {
            self.0.absolute(path)
        }
    }

    #[test]
    fn who_touches_a_file_while_it_is_looked_at_does_not_make_it_go() {
        for (touches, sound) in [(0, true), (limits::LOOKINGS_MAX - 1, true), (u32::MAX, false)] {
            let disk = Touched(world::sim::HostileDisk::new(1).handle(), AtomicU32::new(touches));
            let (path, digest) = cached(&disk);
            let looked = look(&disk, &path, &digest).unwrap();
            assert_eq!(matches!(looked, Look::Sound(_)), sound, "{touches}: {looked:?}");
            assert_eq!(looked == Look::Restless, !sound);
            assert_eq!(read_all(&disk, &path, 99).unwrap(), BYTES);
        }
        let disk = world::sim::HostileDisk::new(1).handle();
        let (path, digest) = cached(&*disk);
        assert_eq!(look(&*disk, &path, &"0".repeat(64)).unwrap(), Look::Gone);
        assert_eq!(disk.entry(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(look(&*disk, &path, &digest).unwrap(), Look::Gone);
    }

    /// Two inputs of the same bytes, in the cache and sealed; `url`: where they are from.
    fn wanted(disk: &dyn Disk, url: &str) -> Wanted {
        let (_, digest) = cached(disk);
        let cache = Cache::open(disk, "cache", 1 << 20).unwrap();
        let pin = cache.pin("t", &digest).unwrap();
        pin.looked_at(Some(disk.seal(pin.path()).unwrap()));
        let inputs = ["book", "copy"].map(|name| Input {
            name: name.to_owned(),
            digest: digest.clone(),
            url: url.to_owned(),
            size_bytes: BYTES.len() as u64,
            ..Input::default()
        });
        let work = Work { inputs: inputs.to_vec(), ..Work::default() };
        let (placements, sources) = plan(&work, None).unwrap();
        Wanted { placements, frame: Frame::default(), sources, pins: BTreeMap::from([(digest, pin)]) }
    }

    #[test]
    fn a_cached_file_that_vanished_is_had_again() {
        for url in ["", "http://h/book"] {
            let disk = world::sim::HostileDisk::new(1).handle();
            let wanted = wanted(&*disk, url);
            let pin = wanted.pins.values().next().unwrap();
            // Somebody empties the cache.
            disk.remove_dir_all("cache/t").unwrap();
            assert!(!wanted.lay(&*disk, "work/1").unwrap());
            assert!(pin.is_doubted() && !pin.is_present());
            let looked = look(&*disk, pin.path(), wanted.sources.keys().next().unwrap()).unwrap();
            assert_eq!(looked, Look::Gone);
            pin.looked_at(None);
            // As it is fetched anew.
            cached(&*disk);
            pin.fetched(&*disk, BYTES.len() as u64, disk.seal(pin.path()).unwrap());
            assert!(wanted.lay(&*disk, "work/1").unwrap());
            assert_eq!(read_all(&*disk, "work/1/inputs/copy", 99).unwrap(), BYTES);
        }
    }

    #[test]
    fn what_fails_with_all_files_as_they_were_fetched_is_told() {
        let disk = world::sim::HostileDisk::new(1).handle();
        let wanted = wanted(&*disk, "");
        disk.create_dir_all("work/1/inputs").unwrap();
        disk.open("work/1/inputs/copy", OpenMode::CreateNew).unwrap();
        let fault = wanted.lay(&*disk, "work/1").unwrap_err();
        assert!(fault.text.starts_with("`inputs/copy` could not be laid"), "{}", fault.text);
        assert!(wanted.pins.values().all(Pinned::is_present));
    }

    #[test]
    fn a_mode_that_a_task_changed_costs_no_look_and_the_seal_is_put_on_again() {
        let disk = world::sim::HostileDisk::new(1).handle();
        let wanted = wanted(&*disk, "");
        let pin = wanted.pins.values().next().unwrap();
        let sealed = disk.stamp(pin.path()).unwrap();
        assert!(wanted.lay(&*disk, "work/1").unwrap());
        disk.set_mode("work/1/inputs/book", 0o644).unwrap();
        assert!(wanted.lay(&*disk, "work/2").unwrap());
        assert!(pin.is_present() && !pin.is_doubted());
        assert_eq!(disk.entry("work/2/inputs/book").unwrap().mode, SEALED_MODE);
        assert_eq!(disk.stamp("work/2/inputs/book").unwrap(), sealed, "it is one more link");
    }

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
        let source = |size_bytes, url: &str| Source { size_bytes, url: url.to_owned(), ..Source::default() };
        for good in [source(4, "http://h/x"), source(0, "http://h/x"), source(9, "")] {
            as_large_as_told(&*disk, "x", &good).unwrap();
        }
        let refused = as_large_as_told(&*disk, "x", &source(3, "http://h/x")).unwrap_err();
        assert_eq!(refused.text, "http://h/x holds 4 bytes where the job says 3");
    }
}
