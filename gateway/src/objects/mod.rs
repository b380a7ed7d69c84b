//! The object place: bytes named by their digest, a namespace for each tenant.
//!
//! `objects/<tenant>/<first two digits>/<digest>`. A file of such a name holds
//! exactly the bytes of that digest, whole and durable: uploads go to
//! `objects/.incoming/` (no tenant can have that name), are verified, synced,
//! renamed, and the directories synced, before anybody is told that they are
//! there. An upload that breaks off stays in `.incoming` for a while, and another
//! request goes on with it ([`parts`]); of what a crash leaves there a start keeps what is
//! surely durable ([`part`]).
//!
//! Whole objects may be in a bucket instead: `objects/<tenant>/<digest>` there. What
//! arrives is verified on the disk all the same and put there before anybody is told;
//! a bucket could not tell what it was given, and uploads that break off are gone on with.
//!
//! Servers that share the place have each reign's uploads in a directory of its own
//! there. One that was deposed and does not know it does no harm: what it names has the
//! bytes of its name. But it may name at any time, so no directory is ever taken for
//! durable as a whole. And it may still write into the files of its reign, so the next
//! one goes on with none of them: what had broken off begins anew.

mod bucket;
pub(crate) mod collector;
mod download;
mod look;
mod naming;
mod part;
mod parts;
mod upload;

use crate::limits;
use crate::meter::{Meter, Passage, Way};
use crate::urls::{Leave, Method, Mover, Signer, is_digest};
use async_trait::async_trait;
use controller::shell::ObjectIndex;
use part::{Kept, Key};
use parts::Parts;
use proto::checkpoints::{self, is_of_checkpoints};
use proto::problem::{self, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use world::disk::DirEntry;
use world::sync::Semaphore;
use world::task::{blocking, spawn};
use world::transfer::{Arrived, ObjectDoor, ObjectSink, ObjectSource, Piece, QUOTA_STATUS, TransferError};
use world::{Bucket, Disk, NodeClock};

const ROOT: &str = "objects";
const INCOMING: &str = "objects/.incoming";

/// Everything objects: index, door, URLs.
#[derive(Debug)]
pub struct Objects {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn NodeClock>,
    signer: Signer,
    meter: Arc<Meter>,
    url_ttl_ms: u64,
    uploads: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    names: Mutex<Names>,
    parts: Parts,
    /// Where uploads are until they are whole.
    incoming: String,
    /// Other servers name objects here too.
    shared: bool,
    /// Where whole objects are, if not on the disk.
    bucket: Option<Arc<dyn Bucket>>,
}

/// What is known of names on the disk.
#[derive(Debug, Default)]
struct Names {
    /// Directories that are durable, with what earlier processes named in them.
    durable: BTreeSet<String>,
    /// Objects that can be seen but are not surely durable.
    doubtful: BTreeSet<String>,
    /// No row names them, it seems: nobody is told that they are there.
    condemned: BTreeSet<String>,
    /// Of those, what is being taken away at this moment.
    going: BTreeSet<String>,
    /// Held by whoever was told that something is there, until it is with the controller.
    using: Arc<()>,
    /// Uploads to the bucket that are not surely at their end.
    doubts: BTreeMap<String, bucket::Doubt>,
    /// Bytes of objects that are in the bucket. Only this server takes any away while it
    /// serves.
    in_bucket: BTreeMap<String, u64>,
}

impl Names {
    /// An upload gives the object its name anew. An error: it is just being taken away.
    fn pardon(&mut self, path: &str) -> io::Result<()> {
        if self.going.contains(path) {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the object is being taken away"));
        }
        self.condemned.remove(path);
        Ok(())
    }
}

impl Objects {
    /// Opens the place on a disk, with what is durable of unfinished uploads. With the
    /// number of a reign the place is shared with other servers, and theirs are thrown
    /// away.
    pub async fn open(
        disk: Arc<dyn Disk>,
        bucket: Option<Arc<dyn Bucket>>,
        clock: Arc<dyn NodeClock>,
        signer: Signer,
        meter: Arc<Meter>,
        url_ttl_ms: u64,
        reign: Option<u64>,
    ) -> io::Result<Arc<Self>> {
        let place = Arc::clone(&disk);
        let incoming = reign.map_or(INCOMING.to_owned(), |reign| format!("{INCOMING}/{reign:016x}"));
        let (made, shared) = (incoming.clone(), reign.is_some());
        let now_ms = clock.monotonic_ms();
        let (parts, dues) = blocking(move || -> io::Result<_> {
            let found = if shared {
                remove_earlier(&*place, &made);
                Vec::new()
            } else {
                part::found(&*place, INCOMING)
            };
            place.create_dir_all(&made)?;
            place.sync_dir(ROOT)?;
            place.sync_dir("")?;
            let (parts, gone, dues) = Parts::new(found, now_ms);
            remove(&*place, &gone);
            Ok((parts, dues))
        })
        .await?;
        let objects = Arc::new(Self {
            disk,
            clock,
            signer,
            meter,
            url_ttl_ms,
            uploads: Arc::new(Semaphore::new(limits::UPLOADS_MAX)),
            downloads: Arc::new(Semaphore::new(limits::DOWNLOADS_MAX)),
            names: Mutex::default(),
            parts,
            incoming,
            shared,
            bucket,
        });
        spawn(parts::keep_house(Arc::downgrade(&objects), dues));
        Ok(objects)
    }

    /// Path and query under which the object may be moved for a while.
    #[must_use]
    pub fn signed(
        &self,
        method: Method,
        mover: Mover,
        tenant: &str,
        digest: &str,
        size_bytes: u64,
    ) -> String {
        let leave = Leave {
            tenant: tenant.to_owned(),
            digest: digest.to_owned(),
            size_bytes,
            mover,
            expires_ms: self.clock.wall_ms().saturating_add(self.url_ttl_ms),
        };
        self.signer.target(method, &leave)
    }

    /// A URL of the bucket by which a node reads an object, where objects are in one: none
    /// of the bytes come by here then.
    pub async fn signed_elsewhere(&self, tenant: &str, digest: &str) -> Result<Option<String>, Problem> {
        let Some(bucket) = &self.bucket else { return Ok(None) };
        let ttl = world::time::ms(self.url_ttl_ms);
        let signed = bucket.signed(&bucket::key(tenant, digest), ttl).await;
        signed.map(Some).map_err(|error| {
            problem::unavailable("objects", format!("a URL of the object store cannot be made: {error}"))
        })
    }

    /// The size of the object, where it is there and will stay.
    pub async fn size(self: &Arc<Self>, tenant: &str, digest: &str) -> Option<u64> {
        self.find(tenant, digest).await.ok().flatten()
    }

    /// The same, where that can be told: who takes a doubt for a loss would give up what
    /// is there.
    pub async fn find(self: &Arc<Self>, tenant: &str, digest: &str) -> Result<Option<u64>, Problem> {
        if !is_object(tenant, digest) || self.names().condemned.contains(&path(tenant, digest)) {
            return Ok(None);
        }
        let settled = match &self.bucket {
            Some(bucket) => bucket::size(self, &**bucket, (tenant, digest)).await,
            None => {
                let place = Arc::clone(self);
                let (tenant, digest) = (tenant.to_owned(), digest.to_owned());
                blocking(move || place.settled(&tenant, &digest)).await
            }
        };
        settled.map_err(|error| {
            problem::unavailable("objects", format!("whether the object is there cannot be told: {error}"))
        })
    }

    /// Takes objects of a checkpoint away that no row names any more. What cannot be
    /// removed stays in nobody's way.
    pub async fn release(self: &Arc<Self>, space: &str, digests: Vec<String>) {
        if let Some(bucket) = &self.bucket {
            return bucket::release(self, &**bucket, space, &digests).await;
        }
        let (place, space) = (Arc::clone(self), space.to_owned());
        blocking(move || {
            for digest in digests.iter().filter(|digest| is_object(&space, digest)) {
                match place.disk.remove(&path(&space, digest)) {
                    Ok(()) => world::mark!("gateway.objects.released"),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => tracing::warn!(space, digest, %error, "an object could not be removed"),
                }
            }
        })
        .await;
    }

    /// How many bytes of an object that is not there clients have sent already.
    pub(crate) fn arrived_bytes(&self, tenant: &str, digest: &str) -> u64 {
        self.parts.arrived(&Key { tenant: tenant.to_owned(), digest: digest.to_owned() })
    }

    /// Takes every object of a checkpoint away that is not among `named`, by space and
    /// digest: to be called while nobody uploads. What cannot be removed stays.
    pub async fn keep_checkpoints(self: &Arc<Self>, named: BTreeSet<(String, String)>) {
        let unnamed = match &self.bucket {
            Some(bucket) => bucket::unnamed(&**bucket, &named).await,
            None => {
                let disk = Arc::clone(&self.disk);
                blocking(move || unnamed(&*disk, &named)).await
            }
        };
        for (space, digests) in unnamed {
            self.release(&space, digests).await;
        }
    }

    fn leave(&self, method: Method, target: &str) -> Result<Leave, TransferError> {
        self.signer.check(method, target, self.clock.wall_ms())
    }

    /// A client's right to move so many bytes; nodes need none.
    async fn passage(&self, leave: &Leave, way: Way, bytes: u64) -> Result<Option<Passage>, TransferError> {
        match leave.mover {
            Mover::Node => Ok(None),
            Mover::Client => self.meter.begin(&leave.tenant, way, bytes).await.map(Some).map_err(refused),
        }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().expect("no holder of this lock panics")
    }

    /// Blocks. A name that is seen need not be durable: its upload may still be
    /// at that, or have failed, or been killed with the process before this one.
    fn settled(&self, tenant: &str, digest: &str) -> io::Result<Option<u64>> {
        let path = path(tenant, digest);
        let entry = match self.disk.entry(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entry => entry?,
        };
        if entry.is_dir {
            return Ok(None);
        }
        if self.names().doubtful.contains(&path) {
            return Err(io::Error::other("its upload is not at its end"));
        }
        let dir = dir(tenant, digest);
        let sure = !self.shared && self.names().durable.contains(&dir);
        if !sure {
            self.settle(tenant, dir)?;
        }
        Ok(Some(entry.len))
    }

    /// Makes a directory, its names and its own name durable. Blocks.
    fn settle(&self, tenant: &str, dir: String) -> io::Result<()> {
        self.disk.sync_dir(&dir)?;
        self.disk.sync_dir(&format!("{ROOT}/{tenant}"))?;
        self.disk.sync_dir(ROOT)?;
        let mut names = self.names();
        if names.durable.len() >= limits::DIRECTORIES_REMEMBERED {
            names.durable.clear();
        }
        names.durable.insert(dir);
        Ok(())
    }

    /// Gives a finished upload its name. Blocks. After an error the name may be
    /// there; it stays doubtful until another upload of it succeeds. True for one
    /// upload of those bytes: the one before which they were surely not there.
    fn publish(&self, temporary: &str, leave: &Leave) -> io::Result<bool> {
        let path = path(&leave.tenant, &leave.digest);
        let dir = dir(&leave.tenant, &leave.digest);
        let (known, was_there) = {
            let mut names = self.names();
            names.pardon(&path)?;
            let known = names.durable.contains(&dir);
            // Another upload of the same bytes came first and may have been
            // told so: its name must not become doubtful again.
            let there = |entry: DirEntry| !entry.is_dir && entry.len == leave.size_bytes;
            let was_there = !names.doubtful.contains(&path) && self.disk.entry(&path).is_ok_and(there);
            if known && was_there && !self.shared {
                return Ok(false);
            }
            names.doubtful.insert(path.clone());
            (known, was_there)
        };
        if !known {
            self.disk.create_dir_all(&dir)?;
        }
        self.disk.rename(temporary, &path)?;
        if known {
            self.disk.sync_dir(&dir)?;
        } else {
            // Another upload may have made the directory and not got this far:
            // whoever does not know for sure syncs all the way up.
            self.settle(&leave.tenant, dir)?;
        }
        // Of several uploads at once one takes the doubt away.
        Ok(self.names().doubtful.remove(&path) && !was_there)
    }
}

/// Removes unfinished uploads of earlier reigns; what cannot be is only in the way of
/// nobody.
fn remove_earlier(disk: &dyn Disk, incoming: &str) {
    for entry in disk.list(INCOMING).unwrap_or_default() {
        let path = format!("{INCOMING}/{}", entry.name);
        // Of one length, so in order. A file is of a server that had the place alone.
        if entry.is_dir && path.as_str() < incoming {
            let _ = disk.remove_dir_all(&path);
        } else if !entry.is_dir {
            let _ = disk.remove(&path);
        }
    }
}

/// Objects of checkpoints that are not among these. Of a place that cannot be read
/// none is known. Blocks.
fn unnamed(disk: &dyn Disk, named: &BTreeSet<(String, String)>) -> Vec<(String, Vec<String>)> {
    let list = |path: &str| disk.list(path).unwrap_or_default();
    let mut found = Vec::new();
    for space in list(ROOT).into_iter().map(|entry| entry.name).filter(|name| is_of_checkpoints(name)) {
        let mut digests = Vec::new();
        for dir in list(&format!("{ROOT}/{space}")) {
            let files = list(&format!("{ROOT}/{space}/{}", dir.name)).into_iter().map(|file| file.name);
            digests.extend(files.filter(|digest| !named.contains(&(space.clone(), digest.clone()))));
        }
        found.push((space, digests));
    }
    found
}

/// Removes parts; those that cannot be are found at the next start. Blocks.
fn remove(disk: &dyn Disk, gone: &[Kept]) {
    for kept in gone {
        let _ = disk.remove(&kept.path());
    }
}

/// Whether that can be the name of one: of a tenant's, or of its checkpoints'.
fn is_object(space: &str, digest: &str) -> bool {
    is_digest(digest) && checkpoints::is_space(space)
}

fn dir(tenant: &str, digest: &str) -> String {
    format!("{ROOT}/{tenant}/{}", &digest[..2])
}

fn path(tenant: &str, digest: &str) -> String {
    format!("{ROOT}/{tenant}/{}/{digest}", &digest[..2])
}

/// The server's disk failed.
pub(crate) fn disk_failed(error: &io::Error) -> TransferError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => TransferError::Server {
            status: 507,
            reason: "the server's disk is full; free some space and try again".to_owned(),
        },
        io::ErrorKind::ResourceBusy => {
            TransferError::Server { status: 503, reason: format!("{error}; try again in a moment") }
        }
        _ => TransferError::Server { status: 500, reason: format!("the server's disk failed: {error}") },
    }
}

/// A transfer past the tenant's limit, or whose rows cannot be read.
fn refused(problem: Problem) -> TransferError {
    let (reason, remedy) = (problem.reason, problem.remedy);
    match problem.code.split_once('.') {
        Some(("quota", _)) => {
            // Clients tell the dimension by the first word.
            let reason = format!("{}: {reason}; {remedy}", problem.field);
            TransferError::Refused { status: QUOTA_STATUS, reason }
        }
        Some(("unavailable", _)) => TransferError::Server { status: 503, reason },
        _ => TransferError::Refused { status: 403, reason },
    }
}

fn busy(what: &str) -> TransferError {
    TransferError::Server { status: 503, reason: format!("too many {what} at once; try again in a moment") }
}

impl Objects {
    /// True where the tenant's namespace holds these bytes, whole and durable.
    pub async fn has(self: &Arc<Self>, tenant: &str, digest: &str, size_bytes: u64) -> bool {
        self.size(tenant, digest).await == Some(size_bytes)
    }
}

/// An object place as others see it: the index that commits rest on, and the
/// door of transfers.
#[derive(Clone, Debug)]
pub struct Door(pub Arc<Objects>);

#[async_trait]
impl ObjectIndex for Door {
    fn using(&self) -> Arc<()> {
        self.0.using()
    }

    async fn has(&self, tenant: &str, digest: &str, size_bytes: u64) -> bool {
        self.0.has(tenant, digest, size_bytes).await
    }

    async fn release(&self, space: &str, digests: Vec<String>) {
        self.0.release(space, digests).await;
    }
}

#[async_trait]
impl ObjectDoor for Door {
    async fn begin_put(
        &self,
        target: &str,
        piece: Option<Piece>,
    ) -> Result<Box<dyn ObjectSink>, TransferError> {
        let leave = self.0.leave(Method::Put, target)?;
        Ok(Box::new(upload::begin(Arc::clone(&self.0), leave, piece).await?))
    }

    async fn arrived(&self, target: &str, total: u64) -> Result<Arrived, TransferError> {
        let leave = self.0.leave(Method::Put, target)?;
        let size_bytes = leave.size_bytes;
        if total != size_bytes {
            let reason = format!("the URL is for {size_bytes} bytes");
            return Err(TransferError::Refused { status: 400, reason });
        }
        if self.0.has(&leave.tenant, &leave.digest, size_bytes).await {
            return Ok(Arrived::Whole);
        }
        let key = Key { tenant: leave.tenant.clone(), digest: leave.digest.clone() };
        match self.0.look_at_parts(&key).await {
            // However long that takes: it goes on, and whoever asks again learns the end.
            Err(_) if self.0.parts.is_verifying(&key) => return Ok(Arrived::Verifying),
            looked => looked?,
        }
        // Another request may have come to its end meanwhile.
        if self.0.has(&leave.tenant, &leave.digest, size_bytes).await {
            return Ok(Arrived::Whole);
        }
        let there = self.0.parts.waiting(&key).map_or(0, |kept| kept.len);
        if there != size_bytes {
            // More than there should be is of a mistake.
            return Ok(Arrived::Part(if there > size_bytes { 0 } else { there }));
        }
        // All had come, but whoever sent it was gone before it was verified.
        let rest = Piece { from: size_bytes, to: size_bytes, total: size_bytes };
        let upload = upload::begin(Arc::clone(&self.0), leave, Some(rest)).await?;
        Box::new(upload).finish_within(limits::NAMING_ASKED_MS).await
    }

    async fn open(&self, target: &str) -> Result<Box<dyn ObjectSource>, TransferError> {
        let leave = self.0.leave(Method::Get, target)?;
        let Ok(place) = Arc::clone(&self.0.downloads).try_acquire_owned() else {
            return Err(busy("downloads"));
        };
        Ok(Box::new(download::open(Arc::clone(&self.0), leave, place).await?))
    }
}

#[cfg(test)]
mod tests;
