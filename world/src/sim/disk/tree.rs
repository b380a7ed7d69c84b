//! The names of the simulated disk: directories, files, and the journal of
//! changes of names that are not durable yet.
//!
//! Like the bytes of a file, the tree is kept as it looks now with a journal
//! to undo. What must hold: of each directory a *prefix* of its unsynced
//! changes survives a power loss; a renaming between two directories survives
//! in both or in neither; an operation that became durable has all before it
//! in its directories durable as well.

use super::image::Image;
use crate::{
    disk::{Parts, parts},
    sim::faults::{DiskCounts, below},
};
use rand::RngCore;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

pub(super) type Ino = u64;
pub(super) const ROOT: Ino = 0;
/// Unsynced changes of names; past it the oldest half is durable, as a kernel
/// commits its journal sooner or later.
const JOURNAL_MAX: usize = 4096;

#[derive(Debug)]
pub(super) enum Kind {
    File(Image),
    Dir(BTreeMap<String, Ino>),
    /// With what it says. It is followed by nobody here: what is to be read lies behind it
    /// under a name of its own.
    Link(String),
}

#[derive(Debug)]
pub(super) struct Inode {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    /// How often its bytes were changed, or made durable.
    pub(super) changes: u64,
    /// Of its bytes, where it was asked for since they changed.
    pub(super) digest: Option<String>,
    /// Names it has.
    links: u32,
    /// Journal entries that may give it back a name.
    pins: u32,
}

/// One name changing its meaning.
#[derive(Debug)]
struct Edge {
    dir: Ino,
    name: String,
    before: Option<Ino>,
    after: Option<Ino>,
}

#[derive(Debug)]
pub(super) struct Tree {
    inodes: BTreeMap<Ino, Inode>,
    next: Ino,
    journal: Vec<Vec<Edge>>,
    handles: BTreeMap<Ino, u32>,
    dirty: BTreeSet<Ino>,
    used_bytes: u64,
}

fn error(kind: io::ErrorKind, path: &str, what: &str) -> io::Error {
    io::Error::new(kind, format!("{path}: {what}"))
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Inode {
            kind: Kind::Dir(BTreeMap::new()),
            mode: 0o755,
            changes: 0,
            digest: None,
            links: 1,
            pins: 0,
        };
        Self {
            inodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            journal: Vec::new(),
            handles: BTreeMap::new(),
            dirty: BTreeSet::new(),
            used_bytes: 0,
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(super) fn inode(&self, ino: Ino) -> &Inode {
        self.inodes.get(&ino).expect("names and handles keep their inode")
    }

    pub(super) fn inode_mut(&mut self, ino: Ino) -> &mut Inode {
        self.inodes.get_mut(&ino).expect("names and handles keep their inode")
    }

    fn dir(&self, ino: Ino) -> Option<&BTreeMap<String, Ino>> {
        match &self.inode(ino).kind {
            Kind::Dir(names) => Some(names),
            Kind::File(_) | Kind::Link(_) => None,
        }
    }

    pub(super) fn image(&self, ino: Ino) -> &Image {
        match &self.inode(ino).kind {
            Kind::File(image) => image,
            Kind::Dir(_) | Kind::Link(_) => unreachable!("only files are opened"),
        }
    }

    /// Changes bytes and keeps the books about them.
    pub(super) fn change_image<T>(&mut self, ino: Ino, change: impl FnOnce(&mut Image) -> T) -> T {
        let inode = self.inode_mut(ino);
        inode.changes += 1;
        inode.digest = None;
        let Kind::File(image) = &mut inode.kind else { unreachable!("only files are opened") };
        let (len_before, was_dirty) = (image.len(), image.is_dirty());
        let value = change(image);
        let (len, is_dirty) = (image.len(), image.is_dirty());
        self.used_bytes = self.used_bytes + len as u64 - len_before as u64;
        match (was_dirty, is_dirty) {
            (false, true) => _ = self.dirty.insert(ino),
            (true, false) => _ = self.dirty.remove(&ino),
            _ => {}
        }
        value
    }

    pub(super) fn find(&self, path: &str) -> io::Result<Ino> {
        self.walk(parts(path)?, path)
    }

    /// Where the parts of a path, or the first of them, lead.
    fn walk(&self, parts: Parts<'_>, path: &str) -> io::Result<Ino> {
        let mut at = ROOT;
        for part in parts {
            let names =
                self.dir(at).ok_or_else(|| error(io::ErrorKind::NotADirectory, path, "not a directory"))?;
            at = *names
                .get(part)
                .ok_or_else(|| error(io::ErrorKind::NotFound, path, "no such file or directory"))?;
        }
        Ok(at)
    }

    /// The directory that holds (or would hold) the last part, and that part.
    fn parent<'a>(&self, path: &'a str) -> io::Result<(Ino, &'a str)> {
        let mut parts = parts(path)?;
        let name = parts
            .next_back()
            .ok_or_else(|| error(io::ErrorKind::InvalidInput, path, "the root has no name"))?;
        let dir = self.walk(parts, path)?;
        if self.dir(dir).is_none() {
            return Err(error(io::ErrorKind::NotADirectory, path, "not a directory"));
        }
        Ok((dir, name))
    }

    fn lookup(&self, dir: Ino, name: &str) -> Option<Ino> {
        self.dir(dir).and_then(|names| names.get(name)).copied()
    }

    fn make(&mut self, dir: Ino, name: &str, kind: Kind) -> Ino {
        let mode = if matches!(kind, Kind::Dir(_)) { 0o755 } else { 0o644 };
        let ino = self.next;
        self.next += 1;
        self.inodes.insert(ino, Inode { kind, mode, changes: 0, digest: None, links: 0, pins: 0 });
        self.record(vec![Edge { dir, name: name.to_owned(), before: None, after: Some(ino) }]);
        ino
    }

    /// Opens a file: `(inode, made now)`. `create`: may make it; `fresh`: must.
    pub(super) fn open(&mut self, path: &str, create: bool, fresh: bool) -> io::Result<Ino> {
        let (dir, name) = self.parent(path)?;
        match self.lookup(dir, name) {
            Some(_) if fresh => Err(error(io::ErrorKind::AlreadyExists, path, "exists already")),
            Some(ino) if self.dir(ino).is_some() => {
                Err(error(io::ErrorKind::IsADirectory, path, "is a directory"))
            }
            Some(ino) if matches!(self.inode(ino).kind, Kind::Link(_)) => {
                Err(error(io::ErrorKind::InvalidInput, path, "is a link"))
            }
            Some(ino) => Ok(ino),
            None if create => Ok(self.make(dir, name, Kind::File(Image::default()))),
            None => Err(error(io::ErrorKind::NotFound, path, "no such file")),
        }
    }

    pub(super) fn create_dir_all(&mut self, path: &str) -> io::Result<()> {
        let mut at = ROOT;
        for part in parts(path)? {
            at = match self.lookup(at, part) {
                Some(ino) => ino,
                None => self.make(at, part, Kind::Dir(BTreeMap::new())),
            };
            if self.dir(at).is_none() {
                return Err(error(io::ErrorKind::NotADirectory, path, "a part of it is a file"));
            }
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let moved = self
            .lookup(from_dir, from_name)
            .ok_or_else(|| error(io::ErrorKind::NotFound, from, "no such file or directory"))?;
        if to.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
            return Err(error(io::ErrorKind::InvalidInput, to, "lies below what is moved"));
        }
        let (to_dir, to_name) = self.parent(to)?;
        let target = self.lookup(to_dir, to_name);
        if target == Some(moved) {
            return Ok(());
        }
        if let Some(target) = target {
            match (self.dir(moved), self.dir(target)) {
                (None, None) => {}
                (Some(_), Some(names)) if names.is_empty() => {}
                (Some(_), Some(_)) => {
                    return Err(error(io::ErrorKind::DirectoryNotEmpty, to, "is not empty"));
                }
                (Some(_), None) => return Err(error(io::ErrorKind::NotADirectory, to, "is a file")),
                (None, Some(_)) => return Err(error(io::ErrorKind::IsADirectory, to, "is a directory")),
            }
        }
        self.record(vec![
            Edge { dir: from_dir, name: from_name.to_owned(), before: Some(moved), after: None },
            Edge { dir: to_dir, name: to_name.to_owned(), before: target, after: Some(moved) },
        ]);
        Ok(())
    }

    /// One more name for a file. As any change of names it is durable only with its
    /// directory; the bytes are the file's, whatever becomes of the name.
    pub(super) fn link(&mut self, ino: Ino, to: &str) -> io::Result<()> {
        let (dir, name) = self.parent(to)?;
        if self.lookup(dir, name).is_some() {
            return Err(error(io::ErrorKind::AlreadyExists, to, "exists already"));
        }
        self.record(vec![Edge { dir, name: name.to_owned(), before: None, after: Some(ino) }]);
        Ok(())
    }

    /// A symbolic link at a fresh name.
    pub(super) fn symlink(&mut self, target: &str, path: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        if self.lookup(dir, name).is_some() {
            return Err(error(io::ErrorKind::AlreadyExists, path, "exists already"));
        }
        self.make(dir, name, Kind::Link(target.to_owned()));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let ino =
            self.lookup(dir, name).ok_or_else(|| error(io::ErrorKind::NotFound, path, "no such file"))?;
        if self.dir(ino).is_some() {
            return Err(error(io::ErrorKind::IsADirectory, path, "is a directory"));
        }
        self.record(vec![Edge { dir, name: name.to_owned(), before: Some(ino), after: None }]);
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &str) -> io::Result<()> {
        let (dir, name) = match self.parent(path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let Some(ino) = self.lookup(dir, name) else { return Ok(()) };
        if self.dir(ino).is_none() {
            return Err(error(io::ErrorKind::NotADirectory, path, "is a file"));
        }
        self.clear(ino);
        self.record(vec![Edge { dir, name: name.to_owned(), before: Some(ino), after: None }]);
        Ok(())
    }

    /// Removes all below a directory, one name after another: a power loss can
    /// leave it half done. The depth is bounded by that of paths.
    fn clear(&mut self, dir: Ino) {
        let names: Vec<(String, Ino)> = match self.dir(dir) {
            Some(names) => names.iter().map(|(name, ino)| (name.clone(), *ino)).collect(),
            None => return,
        };
        for (name, ino) in names {
            self.clear(ino);
            self.record(vec![Edge { dir, name, before: Some(ino), after: None }]);
        }
    }

    pub(super) fn names(&self, path: &str) -> io::Result<impl Iterator<Item = (&str, &Inode)>> {
        let ino = self.find(path)?;
        let names =
            self.dir(ino).ok_or_else(|| error(io::ErrorKind::NotADirectory, path, "not a directory"))?;
        Ok(names.iter().map(|(name, ino)| (name.as_str(), self.inode(*ino))))
    }

    // ---- what is open ----

    pub(super) fn hold(&mut self, ino: Ino) {
        *self.handles.entry(ino).or_insert(0) += 1;
    }

    /// How often it is open.
    pub(super) fn holders(&self, ino: Ino) -> u32 {
        self.handles.get(&ino).copied().unwrap_or_default()
    }

    pub(super) fn release(&mut self, ino: Ino) {
        let count = self.handles.get_mut(&ino).expect("released once for each time held");
        *count -= 1;
        if *count == 0 {
            self.handles.remove(&ino);
            self.free_unused(ino);
        }
    }

    fn free_unused(&mut self, ino: Ino) {
        let Some(inode) = self.inodes.get(&ino) else { return };
        if ino == ROOT || inode.links > 0 || inode.pins > 0 || self.handles.contains_key(&ino) {
            return;
        }
        self.dirty.remove(&ino);
        match self.inodes.remove(&ino).expect("seen above").kind {
            Kind::File(image) => self.used_bytes -= image.len() as u64,
            Kind::Link(_) => {}
            // Only a directory whose making was lost still has names in it.
            Kind::Dir(names) => {
                for child in names.into_values() {
                    self.inode_mut(child).links -= 1;
                    self.free_unused(child);
                }
            }
        }
    }

    // ---- the journal ----

    fn set(&mut self, dir: Ino, name: &str, value: Option<Ino>) {
        let Kind::Dir(names) = &mut self.inode_mut(dir).kind else {
            unreachable!("names stand in directories")
        };
        let old = match value {
            Some(ino) => names.insert(name.to_owned(), ino),
            None => names.remove(name),
        };
        if let Some(old) = old {
            self.inode_mut(old).links -= 1;
        }
        if let Some(new) = value {
            self.inode_mut(new).links += 1;
        }
    }

    fn record(&mut self, op: Vec<Edge>) {
        for edge in &op {
            self.set(edge.dir, &edge.name, edge.after);
            for ino in pinned(edge) {
                self.inode_mut(ino).pins += 1;
            }
        }
        self.journal.push(op);
        if self.journal.len() > JOURNAL_MAX {
            let oldest: Vec<_> = self.journal.drain(..JOURNAL_MAX / 2).collect();
            self.retire(oldest);
        }
    }

    fn retire(&mut self, ops: Vec<Vec<Edge>>) {
        for edge in ops.iter().flatten() {
            for ino in pinned(edge) {
                self.inode_mut(ino).pins -= 1;
                // Freed below once no later edge of these pins it.
            }
        }
        for edge in ops.iter().flatten() {
            for ino in pinned(edge) {
                self.free_unused(ino);
            }
        }
    }

    /// Makes the names of a directory durable, with whatever that implies for
    /// others. `partial`: only a prefix (a sync that failed).
    pub(super) fn sync_dir(&mut self, path: &str, partial: Option<&mut dyn RngCore>) -> io::Result<()> {
        let ino = self.find(path)?;
        if self.dir(ino).is_none() {
            return Err(error(io::ErrorKind::NotADirectory, path, "not a directory"));
        }
        let all = self.journal.len();
        let upto = match partial {
            Some(mut rng) => {
                usize::try_from(below(&mut rng, all as u64 + 1)).expect("at most what a usize held")
            }
            None => all,
        };
        // Backwards: an operation that becomes durable takes with it all that
        // came before it in each of its directories.
        let mut limits = BTreeMap::from([(ino, upto)]);
        let mut durable = Vec::new();
        let mut waiting = Vec::new();
        for (index, op) in std::mem::take(&mut self.journal).into_iter().enumerate().rev() {
            if op.iter().any(|edge| limits.get(&edge.dir).is_some_and(|limit| index < *limit)) {
                for edge in &op {
                    let limit = limits.entry(edge.dir).or_insert(0);
                    *limit = (*limit).max(index + 1);
                }
                durable.push(op);
            } else {
                waiting.push(op);
            }
        }
        waiting.reverse();
        self.journal = waiting;
        self.retire(durable);
        Ok(())
    }

    /// The power fails. All handles are gone.
    pub(super) fn power_loss(&mut self, rng: &mut impl RngCore, counts: &mut DiskCounts) {
        let handles = std::mem::take(&mut self.handles);
        for ino in std::mem::take(&mut self.dirty) {
            self.change_image(ino, |image| image.power_loss(rng, counts));
        }
        let journal = std::mem::take(&mut self.journal);
        for edge in journal.iter().rev().flat_map(|op| op.iter().rev()) {
            self.set(edge.dir, &edge.name, edge.before);
        }
        let mut quotas: BTreeMap<Ino, u64> = BTreeMap::new();
        for dir in journal.iter().flat_map(|op| dirs(op)) {
            *quotas.entry(dir).or_insert(0) += 1;
        }
        for quota in quotas.values_mut() {
            *quota = below(rng, *quota + 1);
        }
        for op in &journal {
            if dirs(op).all(|dir| quotas[&dir] > 0) {
                counts.names_kept += 1;
                dirs(op).for_each(|dir| *quotas.get_mut(&dir).expect("counted above") -= 1);
                for edge in op {
                    self.set(edge.dir, &edge.name, edge.after);
                }
            } else {
                counts.names_lost += 1;
                dirs(op).for_each(|dir| _ = quotas.insert(dir, 0));
            }
        }
        self.retire(journal);
        handles.into_keys().for_each(|ino| self.free_unused(ino));
    }
}

fn pinned(edge: &Edge) -> impl Iterator<Item = Ino> + use<> {
    [Some(edge.dir), edge.before, edge.after].into_iter().flatten()
}

/// The directories of an operation, each once.
fn dirs(op: &[Edge]) -> impl Iterator<Item = Ino> + '_ {
    let first = op[0].dir;
    op.iter()
        .enumerate()
        .filter(move |(index, edge)| *index == 0 || edge.dir != first)
        .map(|(_, edge)| edge.dir)
}
