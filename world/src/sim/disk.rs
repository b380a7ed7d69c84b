//! A disk that keeps only what it must: in memory, for simulation and tests.
//!
//! While its node runs, reads see all that was written. At a power loss each
//! write that no sync covered is kept, lost or torn for itself, and of each
//! directory a prefix of its unsynced changes survives, as journalled metadata
//! would. Then a new incarnation begins: handles of the old one (files and the
//! disk's own) fail from then on, so that no destructor of a killed node
//! writes to the disk of the next.
//!
//! Other machines may see the same disk over the network ([`mount`]). Each has lives
//! of its own: what it has open fails once it was killed, and what it had written and
//! not synced is lost with its own power. Names are the disk's own matter at once. While
//! the disk's machine is down all fails, and after a power loss there what was open.
//!
//! Deterministic: all chance comes from the seed and the generator given to
//! [`HostileDisk::crash`].

mod content;
mod findings;
mod image;
mod mount;
mod tree;

pub use mount::Mount;

use super::faults::{DiskCounts, DiskFaults, below, strikes};
use crate::disk::{DirEntry, Disk, DiskFile, OpenMode, Shared, Stamp};
use crate::sync::Notify;
use rand::{RngCore, SeedableRng, rngs::SmallRng};
use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};
use tree::{Ino, Inode, Kind, Tree};

/// Where paths of a simulated disk seem to lie; see [`Disk::absolute`].
pub const SIM_ROOT: &str = "/sim";

/// Which path of the disk an absolute one names.
pub(super) fn relative(absolute: &Path) -> Option<&str> {
    absolute.to_str()?.strip_prefix(SIM_ROOT)?.strip_prefix('/')
}
/// Where bits rot: what lies there has a digest for its name.
const OBJECTS: &str = "objects/";

/// A machine that sees the disk, by its place in [`State::lives`].
type Client = usize;
/// The disk's own machine.
const OWN: Client = 0;

#[derive(Debug)]
struct State {
    tree: Tree,
    /// The incarnation of each machine that sees it; the first is its own.
    lives: Vec<u64>,
    /// What each of them has open, and how often.
    open: Vec<BTreeMap<Ino, u32>>,
    /// How often the power failed.
    powers: u64,
    /// Its machine is down.
    away: bool,
    /// Numbers open files, so that each knows its own claim.
    next_file: u64,
    /// By whose file a file is claimed.
    claims: BTreeMap<Ino, (Client, u64)>,
    faults: DiskFaults,
    counts: DiskCounts,
    rng: SmallRng,
    /// See [`HostileDisk::die_at_creation`].
    dies: Option<Dies>,
}

/// The end of an incarnation that is to come with the making of a file.
#[derive(Debug)]
struct Dies {
    files_before: u32,
    told: Arc<Notify>,
}

/// The disk itself, as the simulator holds it. Nodes get a [`handle`].
///
/// [`handle`]: HostileDisk::handle
#[derive(Clone, Debug)]
pub struct HostileDisk {
    state: Arc<Mutex<State>>,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic elsewhere (a failed check) leaves the state as it was between
    // two calls; those that report it may still look.
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl HostileDisk {
    /// An empty disk. The seed decides when its faults strike.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                tree: Tree::new(),
                lives: vec![1],
                open: vec![BTreeMap::new()],
                powers: 0,
                away: false,
                next_file: 0,
                claims: BTreeMap::new(),
                faults: DiskFaults::default(),
                counts: DiskCounts::default(),
                rng: SmallRng::seed_from_u64(seed),
                dies: None,
            })),
        }
    }

    /// The disk for the current incarnation of its node.
    #[must_use]
    pub fn handle(&self) -> Arc<dyn Disk> {
        let incarnation = self.incarnation();
        Arc::new(Handle { state: self.state.clone(), client: OWN, incarnation })
    }

    /// The same disk, as one more machine sees it.
    #[must_use]
    pub fn mount(&self) -> Mount {
        let mut state = locked(&self.state);
        state.lives.push(1);
        state.open.push(BTreeMap::new());
        Mount::new(Arc::clone(&self.state), state.lives.len() - 1)
    }

    /// Its machine is down, or up again: for those who see it over the network.
    pub fn set_away(&self, away: bool) {
        locked(&self.state).away = away;
    }

    /// The power fails: unsynced writes and names are kept, lost or torn; a
    /// new incarnation begins. Costs as much as there was unsynced.
    pub fn crash(&self, rng: &mut impl RngCore) {
        let mut state = locked(&self.state);
        let state = &mut *state;
        state.lives[OWN] += 1;
        state.powers += 1;
        state.claims.clear();
        state.open.iter_mut().for_each(BTreeMap::clear);
        state.counts.power_losses += 1;
        state.tree.power_loss(rng, &mut state.counts);
    }

    /// The node's processes end but its machine runs on (`kill -9`): nothing is
    /// lost, nothing becomes durable, a new incarnation begins.
    pub fn fence(&self) {
        locked(&self.state).end_life(OWN);
    }

    /// Grows by one with every crash and fence.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        locked(&self.state).lives[OWN]
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: DiskFaults) {
        locked(&self.state).faults = faults;
    }

    /// What goes wrong now.
    #[must_use]
    pub fn faults(&self) -> DiskFaults {
        locked(&self.state).faults
    }

    /// How often it did.
    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        locked(&self.state).counts
    }

    /// Some files are made yet; with the next one this incarnation ends, and
    /// whoever listens is told: the file has its name, and nothing was written.
    pub fn die_at_creation(&self, files_before: u32, told: Arc<Notify>) {
        locked(&self.state).dies = Some(Dies { files_before, told });
    }

    /// True until that has come to pass.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        locked(&self.state).dies.is_some()
    }

    /// Takes it back.
    pub fn spare(&self) {
        locked(&self.state).dies = None;
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        locked(&self.state).tree.used_bytes()
    }
}

fn stale() -> io::Error {
    io::Error::new(
        io::ErrorKind::StaleNetworkFileHandle,
        "this handle belongs to an earlier life of its node",
    )
}

fn injected(what: &str) -> io::Error {
    io::Error::other(format!("input/output error ({what})"))
}

fn size(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no file is so long"))
}

fn unreachable() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the machine of this disk does not answer")
}

#[derive(Debug)]
struct Handle {
    state: Arc<Mutex<State>>,
    client: Client,
    incarnation: u64,
}

impl Handle {
    fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = locked(&self.state);
        state.must_live(self.client, self.incarnation)?;
        Ok(state)
    }

    /// For a change of names: they take no space here, but fail as writes do.
    fn changing(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.live()?;
        let ppm = state.faults.write_error_ppm;
        if strikes(&mut state.rng, ppm) {
            state.counts.write_errors += 1;
            return Err(injected("names"));
        }
        Ok(state)
    }
}

fn described(name: &str, inode: &Inode) -> DirEntry {
    let (is_dir, len) = match &inode.kind {
        Kind::Dir(_) => (true, 0),
        Kind::File(image) => (false, image.len() as u64),
        Kind::Link(_) => (false, 0),
    };
    DirEntry { name: name.to_owned(), is_dir, len, mode: inode.mode }
}

impl Disk for Handle {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let (create, fresh) = match mode {
            OpenMode::Read | OpenMode::Write => (false, false),
            OpenMode::CreateNew => (true, true),
            OpenMode::CreateOrWrite => (true, false),
        };
        let mut state = if create { self.changing()? } else { self.live()? };
        let made = create && state.dies.is_some() && state.tree.find(path).is_err();
        let ino = state.tree.open(path, create, fresh)?;
        if made && state.dies() {
            return Err(stale());
        }
        state.hold(self.client, ino);
        state.next_file += 1;
        Ok(Arc::new(File {
            number: state.next_file,
            state: self.state.clone(),
            client: self.client,
            incarnation: self.incarnation,
            powers: state.powers,
            ino,
            writes: mode != OpenMode::Read,
            rots: path.starts_with(OBJECTS),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.changing()?.tree.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.changing()?.tree.remove(path)
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        self.changing()?.tree.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        self.changing()?.tree.create_dir_all(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        let state = self.live()?;
        Ok(state.tree.names(path)?.map(|(name, inode)| described(name, inode)).collect())
    }

    fn entry(&self, path: &str) -> io::Result<DirEntry> {
        let state = self.live()?;
        let ino = state.tree.find(path)?;
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        Ok(described(name, state.tree.inode(ino)))
    }

    fn is_vacant(&self, path: &str) -> io::Result<bool> {
        Ok(self.live()?.tree.names(path)?.next().is_none())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.live()?;
        let state = &mut *state;
        if strikes(&mut state.rng, state.faults.sync_error_ppm) {
            state.tree.sync_dir(path, Some(&mut state.rng))?;
            state.counts.sync_errors += 1;
            return Err(injected("sync of names"));
        }
        if strikes(&mut state.rng, state.faults.lying_sync_ppm) {
            state.tree.find(path)?;
            state.counts.lying_syncs += 1;
            return Ok(());
        }
        state.tree.sync_dir(path, None)
    }

    fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        let mut state = self.live()?;
        let ino = state.tree.find(path)?;
        state.tree.inode_mut(ino).mode = mode & 0o7777;
        Ok(())
    }

    /// By a link, as on file systems without clones: of the two ways the one by
    /// which more can go wrong.
    fn share(&self, from: &str, to: &str, mode: u32) -> io::Result<Shared> {
        let mut state = self.changing()?;
        let ino = state.tree.find(from)?;
        let inode = state.tree.inode(ino);
        if !matches!(inode.kind, Kind::File(_)) || inode.mode != mode {
            return Ok(Shared::Not);
        }
        state.tree.link(ino, to)?;
        Ok(Shared::Linked)
    }

    fn symlink(&self, target: &str, path: &str) -> io::Result<()> {
        self.changing()?.tree.symlink(target, path)
    }

    fn read_link(&self, path: &str) -> io::Result<String> {
        let state = self.live()?;
        match &state.tree.inode(state.tree.find(path)?).kind {
            Kind::Link(target) => Ok(target.clone()),
            Kind::File(_) | Kind::Dir(_) => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path}: is no link")))
            }
        }
    }

    fn stamp(&self, path: &str) -> io::Result<Stamp> {
        let state = self.live()?;
        let file = state.tree.find(path)?;
        let inode = state.tree.inode(file);
        let len = described("", inode).len;
        Ok(Stamp { file, len, changed: inode.changes.into() })
    }

    fn absolute(&self, path: &str) -> PathBuf {
        let root = PathBuf::from(SIM_ROOT);
        if path.is_empty() { root } else { root.join(path) }
    }
}

#[derive(Debug)]
struct File {
    state: Arc<Mutex<State>>,
    client: Client,
    incarnation: u64,
    powers: u64,
    number: u64,
    ino: Ino,
    writes: bool,
    rots: bool,
}

impl File {
    fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = locked(&self.state);
        state.must_live(self.client, self.incarnation)?;
        if state.powers == self.powers { Ok(state) } else { Err(stale()) }
    }

    fn writing(&self) -> io::Result<MutexGuard<'_, State>> {
        if !self.writes {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading"));
        }
        self.live()
    }
}

impl State {
    fn must_live(&self, client: Client, incarnation: u64) -> io::Result<()> {
        if self.lives[client] != incarnation {
            return Err(stale());
        }
        if self.away && client != OWN { Err(unreachable()) } else { Ok(()) }
    }

    fn hold(&mut self, client: Client, ino: Ino) {
        self.tree.hold(ino);
        *self.open[client].entry(ino).or_default() += 1;
    }

    fn release(&mut self, client: Client, ino: Ino) {
        let count = self.open[client].get_mut(&ino).expect("released once for each time held");
        *count -= 1;
        if *count == 0 {
            self.open[client].remove(&ino);
        }
        self.tree.release(ino);
    }

    /// A machine's processes end: what they had open is closed.
    fn end_life(&mut self, client: Client) {
        self.lives[client] += 1;
        self.claims.retain(|_, (claimant, _)| *claimant != client);
        for (ino, times) in std::mem::take(&mut self.open[client]) {
            (0..times).for_each(|_| self.tree.release(ino));
        }
    }

    /// Space left for a file to grow, or nothing where there is no limit.
    fn room(&self) -> u64 {
        match self.faults.capacity_bytes {
            0 => u64::MAX,
            capacity => capacity.saturating_sub(self.tree.used_bytes()),
        }
    }

    /// A file was made; true where this was its node's last deed.
    fn dies(&mut self) -> bool {
        let Some(dies) = &mut self.dies else { return false };
        if dies.files_before > 0 {
            dies.files_before -= 1;
            return false;
        }
        dies.told.notify_one();
        self.dies = None;
        self.lives[OWN] += 1;
        self.claims.retain(|_, (claimant, _)| *claimant != OWN);
        self.away = true;
        true
    }

    fn full(&mut self) -> io::Error {
        self.counts.no_space += 1;
        io::Error::new(io::ErrorKind::StorageFull, "no space left on device")
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.live()?.tree.image(self.ino).len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.live()?;
        let state = &mut *state;
        if strikes(&mut state.rng, state.faults.read_error_ppm) {
            state.counts.read_errors += 1;
            return Err(injected("read"));
        }
        let read = state.tree.image(self.ino).read(size(offset)?, buffer);
        if self.rots && read > 0 && strikes(&mut state.rng, state.faults.rot_ppm) {
            state.counts.rotten_reads += 1;
            buffer[read / 2] ^= 0x04;
        }
        Ok(read)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.writing()?;
        let state = &mut *state;
        let offset = size(offset)?;
        let end = offset
            .checked_add(data.len())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file is so long"))?;
        if strikes(&mut state.rng, state.faults.write_error_ppm) {
            state.counts.write_errors += 1;
            let len = state.tree.image(self.ino).len();
            let kept =
                usize::try_from(below(&mut state.rng, data.len() as u64 + 1)).expect("at most the data");
            if offset + kept <= len {
                state.tree.change_image(self.ino, |image| image.write(offset, &data[..kept]));
            }
            return Err(injected("write"));
        }
        let grows = end.saturating_sub(state.tree.image(self.ino).len()) as u64;
        if grows > state.room() {
            return Err(state.full());
        }
        state.tree.change_image(self.ino, |image| image.write(offset, data));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.writing()?;
        let len = size(len)?;
        let grows = len.saturating_sub(state.tree.image(self.ino).len()) as u64;
        if grows > state.room() {
            return Err(state.full());
        }
        state.tree.change_image(self.ino, |image| image.resize(len));
        Ok(())
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let mut state = self.writing()?;
        let (from, to) = (size(range.start)?, size(range.end)?.min(state.tree.image(self.ino).len()));
        if from < to {
            state.tree.change_image(self.ino, |image| image.write(from, &vec![0; to - from]));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.live()?;
        let state = &mut *state;
        if strikes(&mut state.rng, state.faults.sync_error_ppm) {
            state.counts.sync_errors += 1;
            let (rng, forgets) = (&mut state.rng, state.faults.sync_error_forgets);
            state.tree.change_image(self.ino, |image| image.sync_failed(rng, forgets));
            return Err(injected("sync"));
        }
        if strikes(&mut state.rng, state.faults.lying_sync_ppm) {
            state.counts.lying_syncs += 1;
            return Ok(());
        }
        state.tree.change_image(self.ino, |image| image.sync());
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        let ours = (self.client, self.number);
        Ok(*self.live()?.claims.entry(self.ino).or_insert(ours) == ours)
    }

    fn is_sole(&self) -> bool {
        self.live().is_ok_and(|state| state.tree.holders(self.ino) == 1)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        if state.lives[self.client] == self.incarnation && state.powers == self.powers {
            if state.claims.get(&self.ino) == Some(&(self.client, self.number)) {
                state.claims.remove(&self.ino);
            }
            state.release(self.client, self.ino);
        }
    }
}
