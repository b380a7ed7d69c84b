//! What uploaded bytes are: a file, or a directory by its manifest. Of a directory all
//! files must be there before a job is taken that names it.
//!
//! What was found once is known until objects are taken away.

use crate::limits;
use crate::objects::Objects;
use proto::limits::TREE_MANIFEST_BYTES_MAX;
use proto::problem::{self, Problem};
use proto::tree::{HEAD, Tree};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use world::task::blocking;

/// See the module.
#[derive(Debug)]
pub(crate) struct Trees {
    objects: Arc<Objects>,
    /// By tenant and digest; `None`: a file.
    known: Mutex<BTreeMap<String, Option<Sum>>>,
}

/// What is in a directory that is there as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub entries: usize,
    pub total_bytes: u64,
}

impl Trees {
    pub fn new(objects: &Arc<Objects>) -> Self {
        Self { objects: Arc::clone(objects), known: Mutex::default() }
    }

    /// What an object is that is there with so many bytes; `None`: a file. `told`: what its
    /// user takes it for. A refusal is about the object.
    pub async fn look(
        &self,
        tenant: &str,
        (digest, size_bytes): (&str, u64),
        told: Option<bool>,
    ) -> Result<Option<Sum>, Problem> {
        let least = HEAD.len() as u64;
        if told == Some(false) || told.is_none() && !(least..=TREE_MANIFEST_BYTES_MAX).contains(&size_bytes) {
            return Ok(None);
        }
        let key = format!("{tenant}/{digest}");
        let known = self.known().get(&key).copied();
        if let Some(found) = known.filter(|found| found.is_some() || told.is_none()) {
            return Ok(found);
        }
        let found = self.find(tenant, (digest, size_bytes), told).await?;
        let mut known = self.known();
        if known.len() >= limits::TREES_REMEMBERED {
            known.clear();
        }
        known.insert(key, found);
        Ok(found)
    }

    async fn find(
        &self,
        tenant: &str,
        (digest, size_bytes): (&str, u64),
        told: Option<bool>,
    ) -> Result<Option<Sum>, Problem> {
        if told.is_none() {
            let head = self.objects.read(tenant, digest, size_bytes.min(HEAD.len() as u64)).await;
            if head.map_err(unreadable)? != HEAD.as_bytes() {
                return Ok(None);
            }
        }
        let manifest = self.objects.read(tenant, digest, size_bytes.min(TREE_MANIFEST_BYTES_MAX + 1)).await;
        let manifest = manifest.map_err(unreadable)?;
        let due = digest.to_owned();
        let parsed = blocking(move || {
            let whole = manifest.len() as u64 <= TREE_MANIFEST_BYTES_MAX;
            if whole && proto::keys::hex_of(&Sha256::digest(&manifest)) != due {
                return Err(unreadable("it holds other bytes"));
            }
            Ok(Tree::parse(&manifest))
        });
        match parsed.await? {
            Ok(tree) => self.whole(tenant, tree).await.map(Some),
            // It begins as one and is none: nobody but its name said that it is.
            Err(_) if told.is_none() => Ok(None),
            Err(flaw) => Err(flaw),
        }
    }

    /// Refuses where a file is missing.
    async fn whole(&self, tenant: &str, tree: Tree) -> Result<Sum, Problem> {
        let objects: Vec<_> =
            tree.objects().map(|(path, digest, bytes)| (path.to_owned(), digest.to_owned(), bytes)).collect();
        let digests = objects.iter().map(|(_, digest, _)| digest.clone()).collect();
        let sizes = self.objects.sizes(tenant, digests).await?;
        for ((path, digest, due), there) in objects.into_iter().zip(sizes) {
            let reason = match there {
                Some(bytes) if bytes == due => continue,
                Some(bytes) => format!("is told to have {due} bytes, and {digest} has {bytes}"),
                None => format!("was not uploaded for tenant {tenant}: {digest}"),
            };
            let remedy = "upload the directory with `drumline upload DIR`, or this file with CreateUpload";
            return Err(Problem::new("missing.input", "tree", path, reason, remedy));
        }
        Ok(Sum { entries: tree.len(), total_bytes: tree.total_bytes() })
    }

    /// Objects are about to go: what was found must be looked for anew.
    pub fn forget(&self) {
        self.known().clear();
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Option<Sum>>> {
        self.known.lock().expect("no holder of this lock panics")
    }
}

fn unreadable(reason: impl std::fmt::Display) -> Problem {
    problem::unavailable("objects", format!("the object cannot be read: {reason}"))
}
