//! The store's file: made atomically, opened, its tables.
//!
//! A file of this name is always a whole store: it is made under another name,
//! filled, synced, renamed, and the directory synced. What a crash leaves under
//! the other name is thrown away. Whoever made it may have died before its name
//! was durable, so every opening syncs the names. After a failed sync (see
//! [`Mark`]) the file is copied whole before it is believed. Everything here
//! blocks.

use super::backend::{Backend, Faults, Mark};
use super::{OpenError, OpenOptions};
use crate::{LeaseId, Revision};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError,
};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{io, sync::Arc};
use world::disk::OpenMode;
use world::{Disk, DiskFile};

/// key → version, lease, value; and under [`REVISION`] the last revision.
pub(crate) const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
/// lease → time to live in ms, owner.
pub(crate) const LEASES: TableDefinition<u64, &[u8]> = TableDefinition::new("leases");
/// lease, key → nothing: which rows hang on which lease.
pub(crate) const HUNG: TableDefinition<&[u8], ()> = TableDefinition::new("hung");
/// No row has an empty key, so this is free for the revision of the last durable
/// commit, as the version of a row without a value. In a table of its own every
/// commit would have one more tree to write.
pub(crate) const REVISION: &[u8] = &[];
/// Where the revision was before.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Its name there.
const META_REVISION: &str = "revision";
/// Bytes before the value in a row: its version, its lease.
pub(crate) const ROW_HEAD_BYTES: usize = 16;

/// A row's parts as they lie in the table; nothing where it is too short to be
/// one.
pub(crate) fn split_row(stored: &[u8]) -> Option<(Revision, LeaseId, &[u8])> {
    let (version, rest) = stored.split_first_chunk::<8>()?;
    let (lease, value) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*version), u64::from_be_bytes(*lease), value))
}

/// What [`REVISION`] holds.
pub(crate) fn revision_row(revision: Revision) -> [u8; ROW_HEAD_BYTES] {
    let mut stored = [0; ROW_HEAD_BYTES];
    stored[..8].copy_from_slice(&revision.to_be_bytes());
    stored
}

/// The last durable revision, `None` where this is no store.
pub(crate) fn revision(
    rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Option<Revision>, redb::Error> {
    Ok(rows.get(REVISION)?.and_then(|stored| split_row(stored.value()).map(|(revision, ..)| revision)))
}

/// The key of [`HUNG`].
pub(crate) fn hung_key(lease: LeaseId, key: &[u8]) -> Vec<u8> {
    let mut hung = Vec::with_capacity(8 + key.len());
    hung.extend_from_slice(&lease.to_be_bytes());
    hung.extend_from_slice(key);
    hung
}

/// An open database with what the disk did to it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub database: Database,
    pub faults: Arc<Faults>,
    /// The file that a copy replaced. Its lock is held on, for whoever opened it
    /// by its name before and asks for the lock later.
    _replaced: Option<Arc<dyn DiskFile>>,
}

/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// What the writer keeps in memory beside the tables.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub revision: Revision,
    /// Time to live of each lease, and the keys of the rows hung on it.
    pub leases: BTreeMap<LeaseId, (u64, Vec<Vec<u8>>)>,
}

/// Opens the store at `path`, made first where there is none.
pub(crate) fn open(disk: &Arc<dyn Disk>, path: &str, options: &OpenOptions) -> Result<Opened, OpenError> {
    let fresh = format!("{path}.new");
    let mark = Mark { disk: Arc::clone(disk), path: format!("{path}.unsynced") };
    let disk = disk.as_ref();
    if !exists(disk, path)? {
        world::mark!("store.open.made");
        create(disk, path, &fresh, options, &mark)?;
    }
    let mut file = locked(disk, path)?;
    if exists(disk, &fresh)? {
        world::mark!("store.open.half_made_before");
    }
    remove(disk, &fresh)?;
    let mut replaced = None;
    if exists(disk, &mark.path)? {
        copy(disk, file.as_ref(), &fresh)?;
        disk.rename(&fresh, path)?;
        replaced = Some(std::mem::replace(&mut file, locked(disk, path)?));
    }
    sync_names(disk, path)?;
    remove(disk, &mark.path)?;
    if file.is_empty()? {
        return Err(OpenError::Damaged("the file is empty".to_owned()));
    }
    let faults = Arc::new(Faults::default());
    let database = database(Backend { file, faults: Arc::clone(&faults), mark }, options, options.verify)?;
    take_over(&database).map_err(damage)?;
    Ok(Opened { database, faults, _replaced: replaced })
}

fn locked(disk: &dyn Disk, path: &str) -> Result<Arc<dyn DiskFile>, OpenError> {
    let file = disk.open(path, OpenMode::Write)?;
    if file.try_lock()? { Ok(file) } else { Err(OpenError::Locked) }
}

fn remove(disk: &dyn Disk, path: &str) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// All that is read of the file, written anew and synced.
fn copy(disk: &dyn Disk, file: &dyn DiskFile, to: &str) -> io::Result<()> {
    let copy = disk.open(to, OpenMode::CreateNew)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    loop {
        let read = file.read_at(at, &mut buffer)?;
        if read == 0 {
            return copy.sync();
        }
        copy.write_at(at, &buffer[..read])?;
        at += read as u64;
    }
}

/// Makes the name durable, then the names of the directories it lies in.
fn sync_names(disk: &dyn Disk, path: &str) -> io::Result<()> {
    let mut path = path;
    while let Some((directory, _)) = path.rsplit_once('/') {
        disk.sync_dir(directory)?;
        path = directory;
    }
    disk.sync_dir("")
}

fn exists(disk: &dyn Disk, path: &str) -> io::Result<bool> {
    match disk.entry(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn create(
    disk: &dyn Disk,
    path: &str,
    fresh: &str,
    options: &OpenOptions,
    mark: &Mark,
) -> Result<(), OpenError> {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    if !directory.is_empty() {
        disk.create_dir_all(directory)?;
    }
    let file = disk.open(fresh, OpenMode::CreateOrWrite)?;
    // Another process may be making the same store; it may even have renamed
    // this very file between the open and the lock.
    if !file.try_lock()? || exists(disk, path)? {
        return Err(OpenError::Locked);
    }
    file.set_len(0)?;
    let backend = Backend { file: Arc::clone(&file), faults: Arc::default(), mark: mark.clone() };
    let made = database(backend, options, false)?;
    make_tables(&made).map_err(damage)?;
    made.close().map_err(opening)?;
    file.sync()?;
    disk.rename(fresh, path)?;
    Ok(())
}

fn database(backend: Backend, options: &OpenOptions, verify: bool) -> Result<Database, OpenError> {
    let cache_bytes = options.cache_bytes;
    // redb returns an error for most damage and promises nothing for the rest.
    let opened = catch_unwind(AssertUnwindSafe(move || {
        redb::Builder::new()
            .set_cache_size(cache_bytes)
            .set_check_integrity_on_open(verify)
            .create_with_backend(backend)
    }));
    match opened {
        Ok(result) => result.map_err(opening),
        Err(_) => Err(OpenError::Damaged("its pages contradict each other".to_owned())),
    }
}

fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    txn.open_table(ROWS)?.insert(REVISION, revision_row(0).as_slice())?;
    txn.open_table(LEASES)?;
    txn.open_table(HUNG)?;
    txn.commit()?;
    Ok(())
}

/// Moves the revision of a file that an earlier version wrote to where it is
/// now. That version then finds no store here, rather than an old revision.
fn take_over(database: &Database) -> Result<(), redb::Error> {
    let earlier = match database.begin_read()?.open_table(META) {
        Ok(meta) => meta.get(META_REVISION)?.map(|revision| revision.value()),
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let txn = database.begin_write()?;
    if let Some(revision) = earlier {
        txn.open_table(ROWS)?.insert(REVISION, revision_row(revision).as_slice())?;
    }
    txn.delete_table(META)?;
    txn.commit()?;
    Ok(())
}

/// Reads what the writer keeps in memory.
pub(crate) fn contents(database: &Database) -> Result<Contents, OpenError> {
    let read = || -> Result<Option<Contents>, redb::Error> {
        let txn = database.begin_read()?;
        let Some(revision) = revision(&txn.open_table(ROWS)?)? else { return Ok(None) };
        let mut contents = Contents { revision, leases: BTreeMap::new() };
        for lease in txn.open_table(LEASES)?.iter()? {
            let (lease, stored) = lease?;
            let Some((ttl_ms, _owner)) = stored.value().split_first_chunk::<8>() else { return Ok(None) };
            contents.leases.insert(lease.value(), (u64::from_be_bytes(*ttl_ms), Vec::new()));
        }
        for hung in txn.open_table(HUNG)?.iter()? {
            let (hung, _nothing) = hung?;
            let Some((lease, key)) = hung.value().split_first_chunk::<8>() else { return Ok(None) };
            let Some((_, keys)) = contents.leases.get_mut(&u64::from_be_bytes(*lease)) else {
                return Ok(None);
            };
            keys.push(key.to_vec());
        }
        Ok(Some(contents))
    };
    read().map_err(damage)?.ok_or_else(|| OpenError::Damaged("its tables are not a store's".to_owned()))
}

fn opening(error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => OpenError::Locked,
        DatabaseError::Storage(StorageError::Io(error)) => io_or_damage(error),
        error => OpenError::Damaged(error.to_string()),
    }
}

fn damage(error: redb::Error) -> OpenError {
    match error {
        redb::Error::Io(error) => io_or_damage(error),
        error => OpenError::Damaged(error.to_string()),
    }
}

fn io_or_damage(error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => OpenError::Damaged(error.to_string()),
        _ => OpenError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use world::sim::HostileDisk;

    #[test]
    fn a_file_of_the_time_with_a_table_for_the_revision_is_taken_over() {
        let disk = HostileDisk::new(1).handle();
        let options = OpenOptions::default();
        let file = disk.open("store.redb", OpenMode::CreateNew).unwrap();
        let mark = Mark { disk: Arc::clone(&disk), path: "store.redb.unsynced".to_owned() };
        let earlier = database(Backend { file, faults: Arc::default(), mark }, &options, false).unwrap();
        let txn = earlier.begin_write().unwrap();
        txn.open_table(ROWS)
            .unwrap()
            .insert(b"a".as_slice(), [revision_row(41).as_slice(), b"1"].concat().as_slice())
            .unwrap();
        txn.open_table(LEASES).unwrap();
        txn.open_table(HUNG).unwrap();
        txn.open_table(META).unwrap().insert(META_REVISION, 42).unwrap();
        txn.commit().unwrap();
        earlier.close().unwrap();
        for _ in 0..2 {
            let opened = open(&disk, "store.redb", &options).unwrap();
            assert_eq!(contents(&opened.database).unwrap().revision, 42);
            let read = opened.database.begin_read().unwrap();
            assert!(read.open_table(META).is_err(), "an earlier version must not find an old revision");
            opened.database.close().unwrap();
        }
    }
}
