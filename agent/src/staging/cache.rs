//! Inputs by tenant and digest: fetched once, laid for each task that asks.
//!
//! What must hold: one digest is fetched by one fetch at a time, whoever else
//! asks waits for it; a file in use is not dropped; the bytes kept stay under
//! the bound as far as those in use allow, the longest unused going first.
//! A file that was laid by a link and is dropped here keeps its bytes until the
//! last task that has it is gone: those are no longer counted, and so a task that an
//! agent took over from the one before it needs no pin.
//!
//! A file is of use only while it is known to be what its name says. It is doubted,
//! and its bytes are looked at anew, in two cases. An earlier agent fetched it: since
//! then the machine may have lost power. Or its stamp is not the one it was sealed
//! with: a task that had it by a link has changed it (see the stager).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use world::disk::{Disk, Stamp};
use world::transfer::Fetching;

/// What is cached, and who uses it.
#[derive(Debug)]
pub struct Cache {
    directory: String,
    bytes_max: u64,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    entries: BTreeMap<String, Entry>,
    /// Those that are there and that nobody uses, by their last use: a directory may have
    /// tens of thousands, and they must not all be looked through for each that goes.
    idle: BTreeSet<(u64, String)>,
    uses: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Entry {
    /// It is there.
    bytes: Option<u64>,
    /// It is known to be what its name says for as long as it has this stamp.
    sealed: Option<Stamp>,
    users: u32,
    used: u64,
    /// Held while it is fetched.
    fetching: Arc<world::sync::Mutex<()>>,
    /// By whoever holds it.
    coming: Option<Arc<Fetching>>,
}

/// One cached file in use: while this lives the file stays.
#[derive(Debug)]
pub struct Pinned {
    cache: Arc<Cache>,
    path: String,
}

impl Cache {
    /// Finds what earlier agents fetched. Blocks.
    pub fn open(disk: &dyn Disk, directory: &str, bytes_max: u64) -> io::Result<Arc<Self>> {
        let mut book = Book::default();
        for tenant in disk.list(directory)?.into_iter().filter(|entry| entry.is_dir) {
            let below = format!("{directory}/{}", tenant.name);
            for file in disk.list(&below)? {
                let path = format!("{below}/{}", file.name);
                if file.is_dir || !is_digest(&file.name) {
                    // A fetch that an earlier agent did not end.
                    if let Err(error) = disk.remove(&path) {
                        tracing::warn!(path, %error, "an unfinished fetch could not be removed");
                    }
                    continue;
                }
                book.bytes += file.len;
                book.idle.insert((0, path.clone()));
                book.entries.insert(path, Entry { bytes: Some(file.len), ..Entry::default() });
            }
        }
        Ok(Arc::new(Self { directory: directory.to_owned(), bytes_max, book: Mutex::new(book) }))
    }

    /// Names a file for use; it need not be there yet. `None`: no digest.
    #[must_use]
    pub fn pin(self: &Arc<Self>, tenant: &str, digest: &str) -> Option<Pinned> {
        if !is_digest(digest) {
            return None;
        }
        let path = format!("{}/{tenant}/{digest}", self.directory);
        let mut book = self.lock();
        let book = &mut *book;
        book.uses += 1;
        let entry = book.entries.entry(path.clone()).or_default();
        if entry.users == 0 {
            book.idle.remove(&(entry.used, path.clone()));
        }
        entry.users += 1;
        entry.used = book.uses;
        Some(Pinned { cache: Arc::clone(self), path })
    }

    /// Files to remove so that the rest fits the bound. Their names are free
    /// for another fetch only after the caller removed them: call and remove
    /// in one blocking piece.
    fn evict(&self) -> Vec<String> {
        let mut book = self.lock();
        let mut gone = Vec::new();
        while book.bytes > self.bytes_max {
            let Some((_, path)) = book.idle.pop_first() else { break };
            if let Some(entry) = book.entries.remove(&path) {
                book.bytes -= entry.bytes.unwrap_or_default();
            }
            gone.push(path);
        }
        gone
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no holder of this lock panics")
    }
}

impl Pinned {
    /// Where it lies (or will).
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is there, and known to be what its name says.
    #[must_use]
    pub fn is_present(&self) -> bool {
        let book = self.cache.lock();
        book.entries.get(&self.path).is_some_and(|entry| entry.bytes.is_some() && entry.sealed.is_some())
    }

    /// Whether it is there and may hold anything: then somebody must look at its bytes
    /// and tell of them by [`Pinned::looked_at`].
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        let book = self.cache.lock();
        book.entries.get(&self.path).is_some_and(|entry| entry.bytes.is_some() && entry.sealed.is_none())
    }

    /// Whether it still is as it was sealed; from then on it is doubted if it is not.
    /// Blocks.
    pub fn is_untouched(&self, disk: &dyn Disk) -> bool {
        let found = disk.stamp(&self.path).ok();
        let mut book = self.cache.lock();
        let Some(entry) = book.entries.get_mut(&self.path) else { return false };
        if found.is_none() || entry.sealed != found {
            entry.sealed = None;
        }
        entry.sealed.is_some()
    }

    /// It does not hold what it is to hold: somebody must look.
    pub fn doubt(&self) {
        if let Some(entry) = self.cache.lock().entries.get_mut(&self.path) {
            entry.sealed = None;
        }
    }

    /// The stamp it was sealed with, where its bytes are those of its name; where they
    /// are not, it is not there. Where neither can be told, this is not to be called: it
    /// stays in doubt, and is fetched over what is there. To be called while [`Pinned::fetching`] is held.
    pub fn looked_at(&self, sound: Option<Stamp>) {
        let mut book = self.cache.lock();
        let Some(entry) = book.entries.get_mut(&self.path) else { return };
        entry.sealed = sound;
        if sound.is_none() {
            let bytes = entry.bytes.take().unwrap_or_default();
            book.bytes -= bytes;
        }
    }

    /// To be held while fetching; then look again whether it is present.
    #[must_use]
    pub fn fetching(&self) -> Arc<world::sync::Mutex<()>> {
        let mut book = self.cache.lock();
        Arc::clone(&book.entries.entry(self.path.clone()).or_default().fetching)
    }

    /// It comes by this, or by nothing any more. To be called while [`Pinned::fetching`] is held.
    pub fn comes(&self, by: Option<&Arc<Fetching>>) {
        if let Some(entry) = self.cache.lock().entries.get_mut(&self.path) {
            entry.coming = by.cloned();
        }
    }

    /// Bytes of it that are there, whoever fetches it, and of how many, where that is known.
    #[must_use]
    pub fn come(&self) -> (u64, Option<u64>) {
        let book = self.cache.lock();
        let Some(entry) = book.entries.get(&self.path) else { return (0, None) };
        match (entry.bytes, &entry.coming) {
            (Some(bytes), _) => (bytes, Some(bytes)),
            (None, Some(coming)) => (coming.arrived_bytes(), coming.total_bytes()),
            (None, None) => (0, None),
        }
    }

    /// It was fetched, verified and sealed. Blocks: makes room where the bound was passed.
    pub fn fetched(&self, disk: &dyn Disk, bytes: u64, sealed: Stamp) {
        let mut book = self.cache.lock();
        if let Some(entry) = book.entries.get_mut(&self.path) {
            entry.sealed = Some(sealed);
            let before = entry.bytes.replace(bytes).unwrap_or_default();
            book.bytes = book.bytes + bytes - before;
        }
        drop(book);
        for path in self.cache.evict() {
            if let Err(error) = disk.remove(&path) {
                tracing::warn!(path, %error, "a cached input could not be removed");
            }
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut book = self.cache.lock();
        let book = &mut *book;
        let Some(entry) = book.entries.get_mut(&self.path) else { return };
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        if entry.bytes.is_some() {
            book.idle.insert((entry.used, self.path.clone()));
        } else {
            book.entries.remove(&self.path);
        }
    }
}

/// Lower-case hexadecimal SHA-256: what may be a file's name in the cache.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::disk_with;
    use world::disk::OpenMode;

    #[test]
    fn the_longest_unused_goes_first_and_what_is_used_stays() {
        let digests: Vec<String> = ["a", "b", "c"].map(|letter| letter.repeat(64)).to_vec();
        let files: Vec<String> = digests.iter().map(|digest| format!("cache/t/{digest}")).collect();
        let mut names: Vec<&str> = files.iter().map(String::as_str).collect();
        names.push("cache/t/half-fetched");
        let disk = disk_with(&names);
        let cache = Cache::open(&*disk, "cache", 12).unwrap();
        assert!(disk.entry("cache/t/half-fetched").is_err(), "leftovers go at the start");

        let first = cache.pin("t", &digests[0]).unwrap();
        assert!(first.is_doubted() && !first.is_present());
        let stamp = disk.seal(first.path()).unwrap();
        first.looked_at(Some(stamp));
        assert!(first.is_present());
        drop(cache.pin("t", &digests[1]));
        drop(cache.pin("t", &digests[2]));
        // Each of these test files has as many bytes as its name; far too many.
        first.fetched(&*disk, 10, stamp);
        assert!(first.is_present());
        assert!(disk.entry(&files[0]).is_ok());
        assert!(disk.entry(&files[1]).is_err());
        assert!(cache.pin("t", "../../etc/passwd").is_none());
    }

    #[test]
    fn what_an_earlier_agent_left_is_there_only_if_it_is_sound() {
        let digest = "a".repeat(64);
        let disk = disk_with(&[&format!("cache/t/{digest}")]);
        let cache = Cache::open(&*disk, "cache", 1_000).unwrap();
        let pin = cache.pin("t", &digest).unwrap();
        pin.looked_at(None);
        assert!(!pin.is_present() && !pin.is_doubted());
        assert_eq!(cache.lock().bytes, 0);
        pin.fetched(&*disk, 10, disk.seal(pin.path()).unwrap());
        assert!(pin.is_present());
        assert_eq!(cache.lock().bytes, 10);
    }

    #[test]
    fn what_was_changed_is_doubted_and_what_was_removed_is_not_there() {
        let digest = "a".repeat(64);
        let disk = disk_with(&[&format!("cache/t/{digest}")]);
        let cache = Cache::open(&*disk, "cache", 1_000).unwrap();
        let pin = cache.pin("t", &digest).unwrap();
        let seal = || pin.looked_at(Some(disk.seal(pin.path()).unwrap()));
        seal();
        assert!(pin.is_untouched(&*disk) && pin.is_present());
        disk.set_mode(pin.path(), 0o644).unwrap();
        assert!(pin.is_untouched(&*disk) && pin.is_present(), "no byte of it was changed");
        disk.open(pin.path(), OpenMode::Write).unwrap().write_at(0, b"x").unwrap();
        assert!(!pin.is_untouched(&*disk) && pin.is_doubted());
        seal();
        disk.remove(pin.path()).unwrap();
        assert!(!pin.is_untouched(&*disk) && !pin.is_present());
    }
}
