//! Small work on the disk that nobody waits for: removals, in batches, when
//! there is time; and the measuring of spool files.

use super::{Inbound, tell};
use crate::config::AgentConfig;
use crate::core::Event;
use crate::core::key::Key;
use crate::limits;
use crate::logs::book::Side;
use std::io;
use std::sync::Arc;
use world::disk::Disk;
use world::sync::mpsc;
use world::task::blocking;
use world::time::{ms, sleep};

/// One piece of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    /// A work directory with all in it.
    RemoveWork(String),
    /// Both spool files of an attempt.
    RemoveSpool(Key),
    /// Answered by [`Event::Measured`].
    Measure(Key),
}

/// Works until nobody is left to ask.
pub(super) async fn work(
    disk: Arc<dyn Disk>,
    config: Arc<AgentConfig>,
    mut due: mpsc::Receiver<Vec<Chore>>,
    inbox: mpsc::Sender<Inbound>,
) {
    let mut again: Vec<Chore> = Vec::new();
    while let Some(mut chores) = due.recv().await {
        if !chores.iter().any(|chore| matches!(chore, Chore::Measure(_))) {
            // Removals are in nobody's way: let some gather.
            sleep(ms(limits::REMOVAL_WAIT_MS)).await;
        }
        while let Ok(more) = due.try_recv() {
            chores.extend(more);
        }
        let retried = std::mem::take(&mut again);
        while !chores.is_empty() {
            let rest = chores.split_off(chores.len().min(limits::REMOVALS_PER_HOP));
            let (disk, config) = (Arc::clone(&disk), Arc::clone(&config));
            let batch = std::mem::replace(&mut chores, rest);
            let (failed, measured) = blocking(move || perform(&*disk, &config, batch)).await;
            again.extend(failed);
            tell(&inbox, measured).await;
        }
        if !retried.is_empty() {
            // A killed task's last writes may have come between: once more, and
            // then not before the next start of an agent.
            let (disk, config) = (Arc::clone(&disk), Arc::clone(&config));
            let (failed, _) = blocking(move || perform(&*disk, &config, retried)).await;
            if !failed.is_empty() {
                tracing::warn!(count = failed.len(), "files of ended tasks could not be removed");
            }
        }
    }
}

/// Does a batch; what could not be removed, and what was measured.
fn perform(disk: &dyn Disk, config: &AgentConfig, chores: Vec<Chore>) -> (Vec<Chore>, Vec<Event>) {
    let mut failed = Vec::new();
    let mut measured = Vec::new();
    for chore in chores {
        let done = match &chore {
            Chore::RemoveWork(name) => disk.remove_dir_all(&format!("{}/{name}", config.directories.work)),
            Chore::RemoveSpool(key) => Side::ALL
                .into_iter()
                .map(|side| remove_file(disk, &spool_path(config, key, side)))
                .fold(Ok(()), Result::and),
            Chore::Measure(key) => {
                let length = |side| disk.entry(&spool_path(config, key, side)).map_or(0, |entry| entry.len);
                let (stdout_bytes, stderr_bytes) = (length(Side::Out), length(Side::Err));
                measured.push(Event::Measured { key: key.clone(), stdout_bytes, stderr_bytes });
                Ok(())
            }
        };
        if done.is_err() {
            failed.push(chore);
        }
    }
    (failed, measured)
}

fn remove_file(disk: &dyn Disk, path: &str) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Where a stream of an attempt is spooled.
pub(crate) fn spool_path(config: &AgentConfig, key: &Key, side: Side) -> String {
    format!("{}/{}.{}", config.directories.spool, key.file_stem(), side.suffix())
}
