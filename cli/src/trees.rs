//! A directory of this machine as a tree: each of its files an object, and a manifest that
//! names them.

use crate::{
    failure::Failure,
    files::{self, Digested, LocalFile},
    upload::Local,
};
use proto::{
    keys::hex_of,
    problem::Problem,
    tree::{Entry, Tree, is_within},
};
use sha2::{Digest as _, Sha256};
use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use world::{Disk, disk::InMemory, real::walk};

/// A directory, digested.
#[derive(Debug)]
pub struct LocalTree {
    /// What is to be sent, those of equal bytes once.
    pub files: Vec<Local>,
    /// What is sent when they are there.
    pub manifest: Arc<InMemory>,
    /// Its digest names the tree.
    pub named: Digested,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// Reads all of a directory. `field` and `shown` are as it was given. Blocks.
pub fn read(field: &str, shown: &Path, root: &LocalFile) -> Result<LocalTree, Failure> {
    let mut reading = Reading {
        field,
        shown,
        root: root.disk.absolute(&root.path),
        disk: &root.disk,
        tree: Tree::default(),
        files: Vec::new(),
        seen: std::collections::BTreeSet::new(),
    };
    let top = reading.root.clone();
    walk::walk(&top, &mut |path: &Path, found| reading.take(path, found))?;
    let Reading { tree, files, .. } = reading;
    let manifest = tree.manifest().into_bytes();
    let named = Digested { digest: hex_of(&Sha256::digest(&manifest)), size_bytes: manifest.len() as u64 };
    let total_bytes = tree.total_bytes();
    Ok(LocalTree { files, manifest: Arc::new(InMemory(manifest.into())), named, total_bytes })
}

struct Reading<'a> {
    field: &'a str,
    shown: &'a Path,
    root: PathBuf,
    disk: &'a Arc<dyn Disk>,
    tree: Tree,
    files: Vec<Local>,
    /// Digests of `files`.
    seen: std::collections::BTreeSet<String>,
}

impl Reading<'_> {
    fn take(&mut self, path: &Path, found: io::Result<walk::Found>) -> Result<(), Failure> {
        let shown = self.shown.join(path);
        let refuse = |reason: &str, remedy: &str| {
            Err(Failure::Refused(Problem::new("spec.tree", self.field, shown.display(), reason, remedy)))
        };
        let Some(name) = path.to_str() else {
            return refuse("has a name that is no UTF-8 text", "rename it");
        };
        let entry = match found {
            Err(error) => return refuse(&error.to_string(), "make it readable, or move it elsewhere"),
            Ok(walk::Found::Other) => {
                return refuse(
                    "is no file, directory or link",
                    "move it elsewhere: its bytes cannot be sent",
                );
            }
            Ok(walk::Found::Directory) => Entry::Directory,
            Ok(walk::Found::Link(target)) => {
                let Some(target) = self.straight(name, &target) else {
                    let reason = format!("is a link that leads out of the directory: {}", target.display());
                    return refuse(&reason, "put in its place what it leads to");
                };
                Entry::Link { target }
            }
            Ok(walk::Found::File { executable }) => {
                let file = self.file(name);
                let digested = match files::digest(&file) {
                    Ok(digested) => digested,
                    Err(error) => {
                        return refuse(&error.to_string(), "make it readable, or move it elsewhere");
                    }
                };
                let Digested { digest, size_bytes } = digested.clone();
                if self.seen.insert(digest.clone()) {
                    self.files.push(Local::on_disk(file, digested));
                }
                Entry::File { digest, size_bytes, executable }
            }
        };
        self.tree
            .add(name, entry)
            .map_err(|flaw| Failure::Refused(flaw.of_field(self.field).of_value(shown.display().to_string())))
    }

    fn file(&self, name: &str) -> LocalFile {
        let full = self.root.join(name);
        let path = full.to_str().unwrap_or_default().trim_start_matches('/').to_owned();
        LocalFile { disk: Arc::clone(self.disk), path }
    }

    /// What a link is to say that stays in the tree: what it says, or, where that takes a
    /// detour (`a/../b`, an absolute path), the way to the same place. `None`: it leads out.
    fn straight(&self, name: &str, target: &Path) -> Option<String> {
        let plain: PathBuf = target.components().filter(|part| *part != Component::CurDir).collect();
        let plain = if plain.as_os_str().is_empty() { PathBuf::from(".") } else { plain };
        if let Some(plain) = plain.to_str().filter(|plain| is_within(name, plain)) {
            return Some(plain.to_owned());
        }
        let place = self.root.join(name);
        let leads = place.canonicalize().ok()?;
        let leads = leads.strip_prefix(self.root.canonicalize().ok()?).ok()?.to_str()?.to_owned();
        let (here, leads): (Vec<&str>, Vec<&str>) =
            (name.split('/').collect(), leads.split('/').filter(|name| !name.is_empty()).collect());
        let here = &here[..here.len() - 1];
        let common = here.iter().zip(&leads).take_while(|(a, b)| a == b).count();
        let way: Vec<&str> =
            here[common..].iter().map(|_| "..").chain(leads[common..].iter().copied()).collect();
        Some(if way.is_empty() { ".".to_owned() } else { way.join("/") })
    }
}
