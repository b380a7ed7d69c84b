//! Takes away what no row names: outputs of attempts that came to nothing or were undone,
//! outputs and inputs of jobs that expired, and uploads that no job named for long.
//!
//! What must hold: nothing goes that a row names, or will name. A row names an object only
//! after somebody was told that it is there. So what seems to be named by nobody is first
//! condemned: from then on nobody is told that it is there, and who needs it uploads it
//! anew, which pardons it. Then all who were told before are waited for, until what they
//! made of it is with the controller, and until all that is with the controller is durable.
//! What no row names after that, none will. No clock is asked: a server that stood still in
//! the midst of it goes on as if nothing had been, since it is the only one.
//!
//! Looking comes before condemning, so that what is needed is not sent anew for nothing; and
//! what is found unnamed for the first time is left alone until the next look, since those
//! who upload name it in a moment.

use super::naming::{ArtifactName, BlockNames, CheckpointNames, JobNames, ManifestNames};
use super::{Objects, ROOT, bucket, is_object, path};
use crate::gate::Gate;
use crate::{limits, rows};
use controller::Upload;
use proto::checkpoints::{self, is_space};
use proto::keys::{self, Parsed};
use proto::problem::{self, Problem};
use proto::tree::Tree;
use proto::v1::{JobStateRow, UploadRow};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Weak};
use store::{RangeRequest, Row};
use world::Disk;
use world::task::blocking;
use world::time;

/// An object's digest, as bytes: many are held at once.
type Digest = [u8; 32];

/// By object space, what the last look found to be named by no row.
type Unnamed = BTreeMap<String, BTreeSet<Digest>>;

/// Looks every so often, until the server ends.
pub(crate) async fn collect(gate: Weak<Gate>, every_ms: u64, uploads_kept_ms: u64) {
    let mut last = Unnamed::new();
    loop {
        time::sleep(time::ms(every_ms)).await;
        let Some(gate) = gate.upgrade() else { return };
        let look = Look { gate: &gate, uploads_kept_ms };
        if let Err(problem) = look.at_all(&mut last).await {
            tracing::warn!(%problem, "the object place cannot be looked through");
        }
    }
}

/// What rows name in a space.
struct Named {
    /// With uploads that are to be kept still.
    all: BTreeSet<Digest>,
    /// Uploads that are kept no longer for their own sake; a job may name them.
    old: BTreeMap<Digest, Upload>,
}

struct Look<'a> {
    gate: &'a Arc<Gate>,
    uploads_kept_ms: u64,
}

impl Look<'_> {
    /// What cannot be told of one space keeps no other waiting.
    async fn at_all(&self, last: &mut Unnamed) -> Result<(), Problem> {
        let spaces = self.gate.objects.spaces().await?;
        last.retain(|space, _| spaces.contains(space));
        for space in spaces {
            if let Err(problem) = self.at_space(&space, last).await {
                tracing::warn!(space, %problem, "objects that no row names stay until the next look");
            }
        }
        Ok(())
    }

    async fn at_space(&self, space: &str, last: &mut Unnamed) -> Result<(), Problem> {
        let objects = &self.gate.objects;
        let mut unnamed = objects.held(space).await?;
        let Named { all: named, mut old } = self.named(space).await?;
        // The object went, and the server with it before it could say so.
        old.retain(|digest, _| !unnamed.contains(digest) && !named.contains(digest));
        self.forget(space, old.into_values().collect()).await?;
        unnamed.retain(|digest| !named.contains(digest));
        let due: Vec<Digest> = match last.get(space) {
            Some(before) => unnamed.intersection(before).copied().collect(),
            None => Vec::new(),
        };
        last.insert(space.to_owned(), unnamed);
        for part in due.chunks(limits::CONDEMNED_MAX) {
            let digests: Vec<String> = part.iter().map(|digest| crate::hex(digest)).collect();
            objects.condemn(space, &digests);
            let taken = self.take_away(space, &digests).await;
            objects.pardon(space, &digests);
            taken?;
        }
        Ok(())
    }

    /// What was condemned.
    async fn take_away(&self, space: &str, digests: &[String]) -> Result<(), Problem> {
        self.gate.objects.unused().await?;
        // What was found of directories before; who was told of it meanwhile is waited for.
        self.gate.trees.forget();
        self.gate.objects.unused().await?;
        self.gate.controller.settled().await?;
        let Named { all: named, old } = self.named(space).await?;
        let is_named = |digest: &String| digest_of(digest).is_none_or(|digest| named.contains(&digest));
        let (pardoned, mut gone): (Vec<String>, Vec<String>) = digests.iter().cloned().partition(is_named);
        if !pardoned.is_empty() {
            world::mark!("gateway.collect.named_meanwhile");
        }
        // First the account: for what goes afterwards nobody pays.
        let uploads = gone.iter().filter_map(|digest| old.get(&digest_of(digest)?));
        self.forget(space, uploads.cloned().collect()).await?;
        gone.sort_unstable();
        self.gate.objects.take_away(space, gone).await;
        Ok(())
    }

    async fn forget(&self, tenant: &str, uploads: Vec<Upload>) -> Result<(), Problem> {
        if !uploads.is_empty() {
            self.gate.controller.forget_uploads(tenant, uploads).await?;
            self.gate.meter.forget(tenant);
        }
        Ok(())
    }

    async fn named(&self, space: &str) -> Result<Named, Problem> {
        let (mut named, mut old) = (BTreeSet::new(), BTreeMap::new());
        let name = |named: &mut BTreeSet<Digest>, artifacts: &[ArtifactName]| {
            named.extend(artifacts.iter().filter_map(|artifact| digest_of(&artifact.digest)));
        };
        if let Some(tenant) = checkpoints::tenant_of(space) {
            let of = |family: &str| format!("{family}{tenant}/");
            self.each(&of(keys::CHECKPOINTS), |row| {
                let row: CheckpointNames = rows::decode(row)?;
                row.entries.iter().for_each(|entry| name(&mut named, &entry.artifacts));
                Ok(())
            })
            .await?;
            return Ok(Named { all: named, old });
        }
        let of = |family: &str| format!("{family}{space}/");
        let mut trees = BTreeMap::new();
        // What has expired is never tried again. Looked at before the specs: what expires
        // meanwhile still has its inputs.
        let mut expired = BTreeSet::new();
        self.each(&of(keys::STATES), |row| {
            if let Some(Parsed::State { number, .. }) = keys::parse(&row.key)
                && rows::decode::<JobStateRow>(row)?.expired_ms > 0
            {
                expired.insert(number);
            }
            Ok(())
        })
        .await?;
        self.each(&of(keys::JOBS), |row| {
            if matches!(keys::parse(&row.key), Some(Parsed::Job { number, .. }) if expired.contains(&number))
            {
                return Ok(());
            }
            let row: JobNames = rows::decode(row)?;
            let inputs = row.spec.unwrap_or_default().inputs;
            named.extend(inputs.iter().filter_map(|input| digest_of(&input.digest)));
            let directories = inputs.into_iter().filter(|input| input.tree());
            trees.extend(directories.map(|input| (input.digest, input.manifest_bytes)));
            Ok(())
        })
        .await?;
        for (digest, bytes) in trees {
            let manifest = self.gate.objects.read(space, &digest, bytes).await;
            let manifest = manifest.map_err(|error| unreadable(&error))?;
            let tree =
                Tree::parse(&manifest).map_err(|flaw| unreadable(&io::Error::other(flaw.to_string())))?;
            named.extend(tree.objects().filter_map(|(_, digest, _)| digest_of(digest)));
        }
        // What ranks of a gang gave before the last of them has ended; then it is in
        // manifests, so those are looked at after these.
        self.each(&of(keys::BLOCKS), |row| {
            let row: BlockNames = rows::decode(row)?;
            row.ranks.iter().for_each(|rank| name(&mut named, &rank.artifacts));
            Ok(())
        })
        .await?;
        self.each(&of(keys::MANIFESTS), |row| {
            let row: ManifestNames = rows::decode(row)?;
            name(&mut named, &row.artifacts);
            Ok(())
        })
        .await?;
        let kept_since_ms = self.gate.clock.wall_ms().saturating_sub(self.uploads_kept_ms);
        // Before their rows are looked at: what is booked meanwhile is in one of the two.
        let unbooked = self.gate.meter.unbooked(space);
        named.extend(unbooked.iter().filter_map(|digest| digest_of(digest)));
        self.each(&of(keys::UPLOADS), |row| {
            let UploadRow { size_bytes, at_ms } = rows::decode(row)?;
            let Some(Parsed::Upload { digest, .. }) = keys::parse(&row.key) else { return Ok(()) };
            let Some(name) = digest_of(&digest) else { return Ok(()) };
            if at_ms > kept_since_ms {
                named.insert(name);
            } else {
                old.insert(name, Upload { digest, size_bytes });
            }
            Ok(())
        })
        .await?;
        Ok(Named { all: named, old })
    }

    /// Every row below a prefix, some at a time.
    async fn each(
        &self,
        prefix: &str,
        mut row: impl FnMut(&Row) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let mut from = bytes::Bytes::copy_from_slice(prefix.as_bytes());
        let to = keys::prefix_end(&from);
        loop {
            let limit = limits::ROWS_PER_READ;
            let request = RangeRequest { from, to: to.clone(), limit, backwards: false };
            let page = rows::range(&*self.gate.store, request).await?;
            page.rows.iter().try_for_each(&mut row)?;
            match page.rows.last() {
                Some(last) if page.more => from = keys::after(&last.key),
                _ => return Ok(()),
            }
        }
    }
}

fn digest_of(text: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

fn unreadable(error: &io::Error) -> Problem {
    problem::unavailable("objects", format!("the object place cannot be read: {error}"))
}

impl Objects {
    /// Who holds it may make rows of what it was told is there.
    pub(crate) fn using(&self) -> Arc<()> {
        Arc::clone(&self.names().using)
    }

    /// Waits until all who were told that something is there, before this, have made of it
    /// what they will.
    async fn unused(&self) -> Result<(), Problem> {
        let before = std::mem::take(&mut self.names().using);
        let mut waited_ms = 0;
        while Arc::strong_count(&before) > 1 {
            if waited_ms >= limits::UNUSED_WAIT_MS {
                return Err(problem::unavailable("objects", "somebody takes long to say what it needs"));
            }
            time::sleep(time::ms(limits::UNUSED_LOOK_MS)).await;
            waited_ms += limits::UNUSED_LOOK_MS;
        }
        Ok(())
    }

    fn condemn(&self, space: &str, digests: &[String]) {
        let mut names = self.names();
        names.condemned.extend(digests.iter().map(|digest| path(space, digest)));
    }

    fn pardon(&self, space: &str, digests: &[String]) {
        let mut names = self.names();
        digests.iter().for_each(|digest| _ = names.condemned.remove(&path(space, digest)));
    }

    /// Those that are condemned still: of the others somebody uploaded the bytes anew.
    async fn take_away(self: &Arc<Self>, space: &str, mut digests: Vec<String>) {
        {
            let mut names = self.names();
            digests.retain(|digest| {
                let path = path(space, digest);
                let is_doubted = names.doubtful.contains(&path) || names.doubts.contains_key(&path);
                names.condemned.contains(&path) && !is_doubted
            });
            names.going.extend(digests.iter().map(|digest| path(space, digest)));
        }
        if !digests.is_empty() {
            world::mark!("gateway.collect.taken");
        }
        self.release(space, digests.clone()).await;
        let mut names = self.names();
        digests.iter().for_each(|digest| _ = names.going.remove(&path(space, digest)));
    }

    /// The object spaces that there are.
    async fn spaces(self: &Arc<Self>) -> Result<Vec<String>, Problem> {
        let mut spaces = match &self.bucket {
            Some(bucket) => bucket::spaces(&**bucket).await,
            None => {
                let disk = Arc::clone(&self.disk);
                let listed = blocking(move || disk.list(ROOT)).await;
                listed.map(|entries| entries.into_iter().map(|entry| entry.name).collect())
            }
        }
        .map_err(|error| unreadable(&error))?;
        spaces.retain(|space| is_space(space));
        Ok(spaces)
    }

    /// The objects of a space that can be seen.
    async fn held(self: &Arc<Self>, space: &str) -> Result<BTreeSet<Digest>, Problem> {
        let held = match &self.bucket {
            Some(bucket) => bucket::held(&**bucket, space).await,
            None => {
                let (disk, space) = (Arc::clone(&self.disk), space.to_owned());
                blocking(move || on_disk(&*disk, &space)).await
            }
        }
        .map_err(|error| unreadable(&error))?;
        let objects = held.iter().filter(|digest| is_object(space, digest));
        Ok(objects.filter_map(|digest| digest_of(digest)).collect())
    }
}

/// Blocks.
fn on_disk(disk: &dyn Disk, space: &str) -> io::Result<Vec<String>> {
    let mut held = Vec::new();
    for shelf in disk.list(&format!("{ROOT}/{space}"))? {
        held.extend(disk.list(&format!("{ROOT}/{space}/{}", shelf.name))?.into_iter().map(|file| file.name));
    }
    Ok(held)
}
