//! What has arrived of one object: a file in the incoming directory, named
//! `<tenant>.<digest>.<number>.<bytes>`.
//!
//! What must hold: so many bytes as the name ends with were synced before the file got
//! that name. So whoever finds it after a crash knows what of it is surely there; what
//! is behind it may be anything. Whether it is of the object at all only the digest of
//! the whole says.

use crate::limits;
use crate::urls::is_digest;
use proto::checkpoints::is_space;
use sha2::{Digest, Sha256};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use world::Disk;
use world::disk::{DiskFile, OpenMode};
use world::task::blocking;

/// Read at once of what was written before.
const READ_BYTES: usize = 1 << 20;

/// An object that is on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub tenant: String,
    pub digest: String,
}

/// A part whose file is closed.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Its path but for the last part of the name.
    stem: String,
    /// As its name says.
    durable: u64,
    pub len: u64,
    hash: Sha256,
    /// Bytes that `hash` has seen.
    hashed: u64,
}

impl Kept {
    pub fn path(&self) -> String {
        format!("{}.{:016x}", self.stem, self.durable)
    }
}

/// A part that grows. All of it blocks.
#[derive(Debug)]
pub(super) struct Part {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    kept: Kept,
    /// Where bytes of an earlier process are being hashed.
    behind: Option<Following>,
}

/// Hashes what an earlier process wrote, and what comes meanwhile, until no byte is
/// missing; from then on whoever writes hashes.
#[derive(Debug)]
struct Behind {
    hash: Sha256,
    hashed: u64,
    len: u64,
    /// It has come to the end, or cannot, or nobody needs it.
    over: bool,
}

/// Ends it when dropped.
#[derive(Debug)]
struct Following(Arc<Mutex<Behind>>);

impl Drop for Following {
    fn drop(&mut self) {
        locked(&self.0).over = true;
    }
}

fn locked(behind: &Mutex<Behind>) -> MutexGuard<'_, Behind> {
    behind.lock().expect("no holder of this lock panics")
}

/// Stretch by stretch: each is read and hashed apart from what is there, and counts when
/// it is done.
async fn follow(behind: Arc<Mutex<Behind>>, file: Arc<dyn DiskFile>) {
    loop {
        let (hash, span) = {
            let mut behind = locked(&behind);
            if behind.hashed == behind.len {
                behind.over = true;
            }
            if behind.over {
                return;
            }
            let to = behind.len.min(behind.hashed + limits::BEHIND_BYTES);
            (behind.hash.clone(), behind.hashed..to)
        };
        let (from, to) = (Arc::clone(&file), span.end);
        let hashed = blocking(move || hash_span(&*from, hash, span)).await;
        let mut behind = locked(&behind);
        match hashed {
            Ok(hash) => (behind.hash, behind.hashed) = (hash, to),
            // Who verifies meets it again, and tells.
            Err(_) => behind.over = true,
        }
    }
}

fn hash_span(file: &dyn DiskFile, mut hash: Sha256, mut span: Range<u64>) -> io::Result<Sha256> {
    let mut buffer = Vec::new();
    while span.start < span.end {
        let due = usize::try_from(span.end - span.start).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        buffer.resize(due, 0);
        match file.read_at(span.start, &mut buffer)? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "an upload became shorter")),
            read => {
                hash.update(&buffer[..read]);
                span.start += read as u64;
            }
        }
    }
    Ok(hash)
}

impl Part {
    /// An empty one in this directory. `number` tells it from others of the same key.
    pub fn create(disk: Arc<dyn Disk>, dir: &str, key: &Key, number: u64) -> io::Result<Self> {
        let stem = format!("{dir}/{}.{}.{number:016x}", key.tenant, key.digest);
        let kept = Kept { stem, durable: 0, len: 0, hash: Sha256::new(), hashed: 0 };
        let file = disk.open(&kept.path(), OpenMode::CreateNew)?;
        Ok(Self { disk, file, kept, behind: None })
    }

    /// Goes on with one that was closed; `file` is its own.
    pub fn resume(disk: Arc<dyn Disk>, file: Arc<dyn DiskFile>, kept: Kept) -> Self {
        let Kept { hashed, len, .. } = kept;
        let behind = || Behind { hash: kept.hash.clone(), hashed, len, over: false };
        let behind = (hashed < len).then(|| Following(Arc::new(Mutex::new(behind()))));
        Self { disk, file, kept, behind }
    }

    /// The work of hashing what is there and was not hashed yet; it ends by itself.
    pub fn behind(&self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let behind = self.behind.as_ref()?;
        Some(follow(Arc::clone(&behind.0), Arc::clone(&self.file)))
    }

    /// As far as it has come; the rest is for the caller.
    fn take_over(&mut self) {
        if let Some(behind) = self.behind.take() {
            let behind = locked(&behind.0);
            self.kept.hash = behind.hash.clone();
            self.kept.hashed = behind.hashed;
        }
    }

    pub fn len(&self) -> u64 {
        self.kept.len
    }

    pub fn path(&self) -> String {
        self.kept.path()
    }

    pub fn into_kept(mut self) -> Kept {
        self.take_over();
        self.kept
    }

    /// Writes behind what is there.
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_at(self.kept.len, data)?;
        let follows = self.behind.as_ref().is_some_and(|behind| {
            let mut behind = locked(&behind.0);
            behind.len += data.len() as u64;
            !behind.over
        });
        if !follows {
            self.take_over();
        }
        if self.kept.hashed == self.kept.len {
            self.kept.hash.update(data);
            self.kept.hashed += data.len() as u64;
        }
        self.kept.len += data.len() as u64;
        Ok(())
    }

    /// Makes what is there durable, and says so in its name, where it has grown by so
    /// much since.
    pub fn mark(&mut self, dir: &str, grown_bytes: u64) -> io::Result<()> {
        if self.kept.len - self.kept.durable < grown_bytes.max(1) {
            return Ok(());
        }
        self.file.sync()?;
        let marked = Kept { durable: self.kept.len, ..self.kept.clone() };
        self.disk.rename(&self.path(), &marked.path())?;
        self.kept = marked;
        self.disk.sync_dir(dir)
    }

    /// Hashes what was written by an earlier process.
    pub fn catch_up(&mut self) -> io::Result<()> {
        self.take_over();
        let span = self.kept.hashed..self.kept.len;
        self.kept.hash = hash_span(&*self.file, self.kept.hash.clone(), span)?;
        self.kept.hashed = self.kept.len;
        Ok(())
    }

    /// The digest of all that is there; all of it was hashed.
    pub fn digest(&self) -> String {
        assert_eq!(self.kept.hashed, self.kept.len, "bytes that nobody hashed");
        crate::hex(&self.kept.hash.clone().finalize())
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    /// Takes the file away; what cannot be removed is in nobody's way, and the next start
    /// tries again.
    pub fn remove(self) {
        let Self { disk, file, kept, behind } = self;
        drop((file, behind));
        let _ = disk.remove(&kept.path());
    }
}

/// What an earlier process left here: parts cut to what is surely there. All else is
/// removed. Blocks.
pub(super) fn found(disk: &dyn Disk, dir: &str) -> Vec<(Key, Kept)> {
    let mut parts = Vec::new();
    for entry in disk.list(dir).unwrap_or_default() {
        let path = format!("{dir}/{}", entry.name);
        if entry.is_dir {
            let _ = disk.remove_dir_all(&path);
            continue;
        }
        let part = read(dir, &entry.name).filter(|(_, kept)| kept.durable > 0 && kept.durable <= entry.len);
        match part {
            Some((key, kept)) if cut(disk, &path, kept.len).is_ok() => parts.push((key, kept)),
            _ => _ = disk.remove(&path),
        }
    }
    parts
}

fn cut(disk: &dyn Disk, path: &str, len: u64) -> io::Result<()> {
    disk.open(path, OpenMode::Write)?.set_len(len)
}

/// Reads the one form that names have.
fn read(dir: &str, name: &str) -> Option<(Key, Kept)> {
    let mut parts = name.split('.');
    let (tenant, digest, number, durable) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let known = is_space(tenant) && is_digest(digest) && parts.next().is_none();
    let (_, durable) = (hex(number)?, hex(durable)?);
    let key = Key { tenant: tenant.to_owned(), digest: digest.to_owned() };
    let stem = format!("{dir}/{tenant}.{digest}.{number}");
    known.then(|| (key, Kept { stem, durable, len: durable, hash: Sha256::new(), hashed: 0 }))
}

fn hex(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    if digits { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use world::sim::HostileDisk;

    fn key() -> Key {
        Key { tenant: "lab".into(), digest: "0f".repeat(32) }
    }

    #[test]
    fn what_a_crash_leaves_is_what_its_name_says() {
        for seed in 0..30 {
            let hostile = HostileDisk::new(seed);
            let disk = hostile.handle();
            disk.create_dir_all("in").unwrap();
            disk.sync_dir("").unwrap();
            let mut part = Part::create(disk.clone(), "in", &key(), 7).unwrap();
            part.write(&[1; 5_000]).unwrap();
            part.mark("in", 5_001).unwrap();
            assert!(part.path().ends_with(".0000000000000000"), "not enough for a sync");
            part.mark("in", 5_000).unwrap();
            part.write(&[2; 5_000]).unwrap();
            drop(part);
            hostile.crash(&mut SmallRng::seed_from_u64(seed));
            let disk = hostile.handle();
            let mut parts = found(&*disk, "in");
            let (of, kept) = parts.pop().expect("it was durable");
            assert_eq!((of, kept.len, parts.len()), (key(), 5_000, 0));
            let file = disk.open(&kept.path(), OpenMode::Write).unwrap();
            let mut part = Part::resume(disk.clone(), file, kept);
            part.write(&[3; 10]).unwrap();
            part.catch_up().unwrap();
            let whole = [vec![1; 5_000], vec![3; 10]].concat();
            assert_eq!(part.digest(), crate::hex(&Sha256::digest(&whole)), "seed {seed}");
            part.remove();
            assert!(disk.list("in").unwrap().is_empty());
        }
    }

    /// A part of an earlier process, and the handle that goes on with it.
    fn taken_up(disk: &Arc<dyn Disk>, bytes: usize) -> Part {
        disk.create_dir_all("in").unwrap();
        let mut part = Part::create(Arc::clone(disk), "in", &key(), 7).unwrap();
        part.write(&vec![1; bytes]).unwrap();
        part.mark("in", 0).unwrap();
        drop(part);
        let (_, kept) = found(&**disk, "in").pop().unwrap();
        let file = disk.open(&kept.path(), OpenMode::Write).unwrap();
        Part::resume(Arc::clone(disk), file, kept)
    }

    #[tokio::test]
    async fn what_an_earlier_process_wrote_is_hashed_while_more_comes() {
        let len = usize::try_from(limits::BEHIND_BYTES).unwrap() + 10;
        let disk = HostileDisk::new(1).handle();
        let mut part = taken_up(&disk, len);
        let behind = part.behind().unwrap();
        part.write(&[2; 1_000]).unwrap();
        assert_eq!(part.kept.hashed, 0, "more came before it began");
        behind.await;
        part.write(&[3; 1_000]).unwrap();
        assert_eq!(part.kept.hashed, part.kept.len, "nothing is left to be read again");
        let whole = [vec![1; len], vec![2; 1_000], vec![3; 1_000]].concat();
        assert_eq!(part.digest(), crate::hex(&Sha256::digest(&whole)));
    }

    #[tokio::test]
    async fn what_is_not_hashed_in_time_is_hashed_at_the_end() {
        let disk = HostileDisk::new(2).handle();
        for goes_on in [true, false] {
            let mut part = taken_up(&disk, 5_000);
            let behind = part.behind().unwrap();
            part.write(&[2; 10]).unwrap();
            let expected = crate::hex(&Sha256::digest([vec![1; 5_000], vec![2; 10]].concat()));
            if goes_on {
                part.catch_up().unwrap();
                assert_eq!(part.digest(), expected);
                part.remove();
            } else {
                let kept = part.into_kept();
                assert_eq!((kept.hashed, kept.len), (0, 5_010));
                disk.remove(&kept.path()).unwrap();
            }
            // It ends, though nobody has it any more.
            behind.await;
        }
    }

    #[test]
    fn what_is_no_part_is_removed() {
        let hostile = HostileDisk::new(1);
        let disk = hostile.handle();
        disk.create_dir_all("in/0000000000000001").unwrap();
        let digest = key().digest;
        for name in [
            "0f0f0f0f".to_owned(),
            format!("lab.{digest}.0000000000000001.0000000000000000"),
            format!("lab.{digest}.0000000000000001.0000000000000009"),
            format!("lab.{digest}.0000000000000001"),
            format!("lab.{digest}.1.4"),
            format!("LAB.{digest}.0000000000000001.0000000000000004"),
            format!("lab.{digest}.0000000000000001.0000000000000004.x"),
            "lab.0f.0000000000000001.0000000000000004".to_owned(),
        ] {
            disk.open(&format!("in/{name}"), OpenMode::CreateNew).unwrap().write_at(0, &[1; 8]).unwrap();
        }
        assert!(found(&*disk, "in").is_empty());
        assert!(disk.list("in").unwrap().is_empty());
        assert!(found(&*disk, "nowhere").is_empty());
    }
}
