//! Empty directories and spool files of ended tasks, kept for the next ones.
//!
//! A file system that makes and removes files by the thousand slows down: ext4
//! keeps away from inodes that were freed in the last minutes, and searches past
//! all of them. A short task costs most of its time there. So what a task
//! left empty is given another name instead of being removed and made again.
//!
//! What must hold: nothing of one task is found by another. A directory is kept
//! only with nothing in it, with the mode it was made with, and only for tasks
//! of the same job, since a process that got away from its task may still have
//! it as its working directory. A spool file is kept only if nothing was ever
//! written to it and nobody has it open, and it serves again only once its
//! attempt's name is durably gone: else a power loss could bring that name back,
//! with what another task wrote under its own, and that would be shipped as the
//! first one's log.
//!
//! Nothing else here is durable. After a restart the agent finds names that belong
//! to nothing, and removes them.

use crate::config::AgentConfig;
use crate::core::key::Key;
use crate::limits::{SHELF_DIRECTORIES_MAX, SHELF_SPOOLS_MAX, SHELF_SPOOLS_PER_SYNC};
use crate::logs::book::Side;
use crate::logs::floors;
use crate::shell::spool_path;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use world::disk::{Disk, OpenMode};

/// See the module. Its calls block.
#[derive(Debug)]
pub(crate) struct Shelf {
    disk: Arc<dyn Disk>,
    config: Arc<AgentConfig>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By name, the oldest first.
    directories: VecDeque<String>,
    /// By number, the oldest first.
    spools: VecDeque<u64>,
    /// Those whose names may not be durable yet.
    unsynced: Vec<u64>,
    /// How many spools have been numbered.
    numbered: u64,
    /// The mode of a directory just made.
    mode: Option<u32>,
}

impl Shelf {
    pub(crate) fn new(disk: &Arc<dyn Disk>, config: &Arc<AgentConfig>) -> Arc<Self> {
        let kept = Mutex::default();
        Arc::new(Self { disk: Arc::clone(disk), config: Arc::clone(config), kept })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nothing panics while it is held")
    }

    fn work_path(&self, name: &str) -> String {
        format!("{}/{name}", self.config.directories.work)
    }

    /// A fresh work directory of this name.
    pub(crate) fn make_directory(&self, name: &str) -> io::Result<()> {
        let path = self.work_path(name);
        let again = {
            let mut kept = self.kept();
            let same = kept.directories.iter().rposition(|held| job_of(held) == job_of(name));
            same.and_then(|at| kept.directories.remove(at))
        };
        if let Some(again) = again
            && self.disk.rename(&self.work_path(&again), &path).is_ok()
        {
            return Ok(());
        }
        self.disk.create_dir_all(&path)?;
        if self.kept().mode.is_none() {
            let mode = self.disk.entry(&path)?.mode;
            self.kept().mode = Some(mode);
        }
        Ok(())
    }

    /// A work directory is done with.
    pub(crate) fn discard_directory(&self, name: &str) -> io::Result<()> {
        let path = self.work_path(name);
        if !self.is_as_made(&path) {
            return self.disk.remove_dir_all(&path);
        }
        let mut kept = self.kept();
        kept.directories.push_back(name.to_owned());
        let oldest =
            if kept.directories.len() > SHELF_DIRECTORIES_MAX { kept.directories.pop_front() } else { None };
        drop(kept);
        oldest.map_or(Ok(()), |oldest| self.disk.remove_dir_all(&self.work_path(&oldest)))
    }

    fn is_as_made(&self, path: &str) -> bool {
        let mode = self.kept().mode;
        mode.is_some()
            && self.disk.entry(path).is_ok_and(|entry| entry.is_dir && Some(entry.mode) == mode)
            && self.disk.is_vacant(path).unwrap_or(false)
    }

    fn shelf_path(&self, number: u64, side: Side) -> String {
        format!("{}/shelf-{number}.{}", self.config.directories.spool, side.suffix())
    }

    /// Puts empty spool files in place for a launch, where there are some. The
    /// launch makes what is missing.
    pub(crate) fn prepare_spool(&self, key: &Key) {
        let Some(again) = self.kept().spools.pop_back() else { return };
        for side in Side::ALL {
            let (from, to) = (self.shelf_path(again, side), spool_path(&self.config, key, side));
            if self.disk.rename(&from, &to).is_err() {
                // Then it lies there until the next start of an agent.
                tracing::debug!(from, to, "a spool file could not be used again");
            }
        }
    }

    /// The spool files of an attempt are done with.
    pub(crate) fn discard_spool(&self, key: &Key) -> io::Result<()> {
        let number = {
            let mut kept = self.kept();
            kept.numbered += 1;
            let full = kept.spools.len() + kept.unsynced.len() >= SHELF_SPOOLS_MAX;
            (!full).then_some(kept.numbered)
        };
        let number = number.filter(|_| Side::ALL.into_iter().all(|side| self.is_untouched(key, side)));
        let Some(number) = number else { return self.remove_spool(key) };
        for side in Side::ALL {
            self.disk.rename(&spool_path(&self.config, key, side), &self.shelf_path(number, side))?;
        }
        let due = {
            let mut kept = self.kept();
            kept.unsynced.push(number);
            kept.unsynced.len() >= SHELF_SPOOLS_PER_SYNC
        };
        if due { self.sync() } else { Ok(()) }
    }

    /// Makes the names of what came to the shelf durable, and so serve again.
    fn sync(&self) -> io::Result<()> {
        let unsynced = std::mem::take(&mut self.kept().unsynced);
        if self.disk.sync_dir(&self.config.directories.spool).is_ok() {
            self.kept().spools.extend(unsynced);
            return Ok(());
        }
        // Whether they are durable nobody knows.
        unsynced.into_iter().map(|number| self.remove_shelved(number)).fold(Ok(()), Result::and)
    }

    fn is_untouched(&self, key: &Key, side: Side) -> bool {
        let file = self.disk.open(&spool_path(&self.config, key, side), OpenMode::Write);
        file.is_ok_and(|file| file.is_empty().unwrap_or(false) && file.is_sole())
    }

    fn remove_spool(&self, key: &Key) -> io::Result<()> {
        self.remove_both(|side| spool_path(&self.config, key, side))?;
        self.remove_both(|side| floors::path(&self.config, key, side))
    }

    fn remove_shelved(&self, number: u64) -> io::Result<()> {
        self.remove_both(|side| self.shelf_path(number, side))
    }

    fn remove_both(&self, path: impl Fn(Side) -> String) -> io::Result<()> {
        let removed = Side::ALL.map(|side| match self.disk.remove(&path(side)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        });
        removed.into_iter().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        let kept = self.kept();
        kept.directories.is_empty() && kept.spools.is_empty() && kept.unsynced.is_empty()
    }

    /// Removes all that is kept.
    pub(crate) fn clear(&self) -> io::Result<()> {
        let (directories, spools, unsynced) = {
            let mut kept = self.kept();
            let Kept { directories, spools, unsynced, .. } = &mut *kept;
            (std::mem::take(directories), std::mem::take(spools), std::mem::take(unsynced))
        };
        let directories = directories.iter().map(|name| self.disk.remove_dir_all(&self.work_path(name)));
        let spools = spools.into_iter().chain(unsynced).map(|number| self.remove_shelved(number));
        directories.chain(spools).fold(Ok(()), Result::and)
    }
}

/// The job a work directory was made for: its tenant and number.
fn job_of(name: &str) -> Option<(&str, &str)> {
    let mut parts = name.split('.');
    Some((parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use world::sim::HostileDisk;

    fn shelf() -> (Arc<dyn Disk>, Arc<Shelf>) {
        shelf_on(HostileDisk::new(1).handle())
    }

    fn shelf_on(disk: Arc<dyn Disk>) -> (Arc<dyn Disk>, Arc<Shelf>) {
        let config = Arc::new(AgentConfig::new("h:1", "dl_x", "n1", Default::default()));
        for directory in [&config.directories.work, &config.directories.spool] {
            disk.create_dir_all(directory).unwrap();
        }
        (Arc::clone(&disk), Shelf::new(&disk, &config))
    }

    fn names(disk: &Arc<dyn Disk>, path: &str) -> Vec<String> {
        disk.list(path).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    fn key(task: u64) -> Key {
        Key { tenant: "t".into(), job: 1, step: 0, task, attempt: 1, epoch: 1, rank: 0 }
    }

    #[test]
    fn an_empty_directory_serves_its_job_again_and_no_other() {
        let (disk, shelf) = shelf();
        let work = shelf.config.directories.work.clone();
        shelf.make_directory("t.1.0.0").unwrap();
        shelf.discard_directory("t.1.0.0").unwrap();
        shelf.make_directory("u.1.0.0").unwrap();
        assert_eq!(names(&disk, &work), ["t.1.0.0", "u.1.0.0"], "another tenant's is made anew");
        shelf.make_directory("t.1.0.1").unwrap();
        assert_eq!(names(&disk, &work), ["t.1.0.1", "u.1.0.0"]);
    }

    #[test]
    fn what_a_task_left_its_mark_on_is_removed() {
        let (disk, shelf) = shelf();
        let work = shelf.config.directories.work.clone();
        shelf.make_directory("t.1.0.0").unwrap();
        shelf.make_directory("t.1.0.1").unwrap();
        disk.create_dir_all(&format!("{work}/t.1.0.0/left")).unwrap();
        disk.set_mode(&format!("{work}/t.1.0.1"), 0o777).unwrap();
        shelf.discard_directory("t.1.0.0").unwrap();
        shelf.discard_directory("t.1.0.1").unwrap();
        assert_eq!(names(&disk, &work), [""; 0]);
        assert!(shelf.is_empty());
    }

    /// Makes the spool files of a task; its standard output is left open.
    fn spool(disk: &Arc<dyn Disk>, shelf: &Shelf, task: u64, text: &[u8]) -> Arc<dyn world::disk::DiskFile> {
        let open = |side| disk.open(&spool_path(&shelf.config, &key(task), side), OpenMode::CreateOrWrite);
        open(Side::Err).unwrap();
        let file = open(Side::Out).unwrap();
        file.write_at(0, text).unwrap();
        file
    }

    #[test]
    fn spool_files_are_used_again_only_untouched_and_alone() {
        let (disk, shelf) = shelf();
        drop(spool(&disk, &shelf, 1, b"said"));
        let held = spool(&disk, &shelf, 2, b"");
        for task in 1..=2 {
            shelf.discard_spool(&key(task)).unwrap();
        }
        assert_eq!(names(&disk, &shelf.config.directories.spool), [""; 0], "neither is kept");
        let tasks = 3..3 + SHELF_SPOOLS_PER_SYNC as u64;
        for task in tasks {
            drop(spool(&disk, &shelf, task, b""));
            shelf.prepare_spool(&key(1_000));
            assert!(disk.entry(&spool_path(&shelf.config, &key(1_000), Side::Out)).is_err(), "too soon");
            shelf.discard_spool(&key(task)).unwrap();
        }
        shelf.prepare_spool(&key(1_000));
        assert!(disk.entry(&spool_path(&shelf.config, &key(1_000), Side::Out)).is_ok());
        assert!(disk.entry(&spool_path(&shelf.config, &key(1_000), Side::Err)).is_ok());
        drop(held);
    }

    #[test]
    fn a_power_loss_gives_no_task_what_another_wrote() {
        let mut rng = SmallRng::seed_from_u64(1);
        for _ in 0..200 {
            let hostile = HostileDisk::new(1);
            let (disk, shelf) = shelf_on(hostile.handle());
            // The first ones' names are durable.
            disk.sync_dir("").unwrap();
            for task in 0..SHELF_SPOOLS_PER_SYNC as u64 {
                drop(spool(&disk, &shelf, task, b""));
            }
            disk.sync_dir(&shelf.config.directories.spool).unwrap();
            for task in 0..SHELF_SPOOLS_PER_SYNC as u64 {
                shelf.discard_spool(&key(task)).unwrap();
            }
            for task in 1_000..1_010 {
                shelf.prepare_spool(&key(task));
                spool(&disk, &shelf, task, format!("said by {task}").as_bytes()).sync().unwrap();
            }
            hostile.crash(&mut rng);
            let disk = hostile.handle();
            for entry in disk.list(&shelf.config.directories.spool).unwrap() {
                let Some(of) = Key::from_file_stem(entry.name.rsplit_once('.').unwrap().0) else {
                    assert!(entry.name.starts_with("shelf-"), "{}", entry.name);
                    continue;
                };
                let path = format!("{}/{}", shelf.config.directories.spool, entry.name);
                let text = world::disk::read_all(&*disk, &path, 100).unwrap();
                assert!(text.is_empty() || text == format!("said by {}", of.task).as_bytes(), "{of:?}");
            }
        }
    }

    #[test]
    fn the_shelf_is_bounded_and_can_be_cleared() {
        let (disk, shelf) = shelf();
        let work = shelf.config.directories.work.clone();
        let many = SHELF_DIRECTORIES_MAX + 10;
        for number in 0..many {
            shelf.make_directory(&format!("t.1.0.{number}")).unwrap();
        }
        for number in 0..many {
            shelf.discard_directory(&format!("t.1.0.{number}")).unwrap();
        }
        assert_eq!(names(&disk, &work).len(), SHELF_DIRECTORIES_MAX);
        shelf.clear().unwrap();
        assert_eq!(names(&disk, &work), [""; 0]);
    }
}
