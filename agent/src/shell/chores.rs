//! Small work on the disk that nobody waits for: removals, in batches, when
//! there is time; and the measuring of spool files.

use super::{Inbound, tell};
use crate::config::AgentConfig;
use crate::core::Event;
use crate::core::key::Key;
use crate::limits;
use crate::logs::book::Side;
use crate::staging::shelf::Shelf;
use std::sync::Arc;
use world::disk::Disk;
use world::sync::mpsc;
use world::task::blocking;
use world::time::{ms, sleep, timeout};

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
    shelf: Arc<Shelf>,
    mut due: mpsc::Receiver<Vec<Chore>>,
    inbox: mpsc::Sender<Inbound>,
) {
    let mut again: Vec<Chore> = Vec::new();
    while let Some(mut chores) = next(&mut due, &shelf).await {
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
            let (disk, config, shelf) = (Arc::clone(&disk), Arc::clone(&config), Arc::clone(&shelf));
            let batch = std::mem::replace(&mut chores, rest);
            let (failed, measured) = blocking(move || perform(&*disk, &config, &shelf, batch)).await;
            again.extend(failed);
            tell(&inbox, measured).await;
        }
        if !retried.is_empty() {
            // A killed task's last writes may have come between: once more, and
            // then not before the next start of an agent.
            let (disk, config, shelf) = (Arc::clone(&disk), Arc::clone(&config), Arc::clone(&shelf));
            let (failed, _) = blocking(move || perform(&*disk, &config, &shelf, retried)).await;
            if !failed.is_empty() {
                tracing::warn!(count = failed.len(), "files of ended tasks could not be removed");
            }
        }
    }
}

/// The next chores. Once there have been none for a while, the shelf is cleared.
async fn next(due: &mut mpsc::Receiver<Vec<Chore>>, shelf: &Arc<Shelf>) -> Option<Vec<Chore>> {
    while !shelf.is_empty() {
        if let Ok(chores) = timeout(ms(limits::SHELF_IDLE_MS), due.recv()).await {
            return chores;
        }
        let shelf = Arc::clone(shelf);
        if let Err(error) = blocking(move || shelf.clear()).await {
            tracing::warn!(%error, "empty files could not be removed");
        }
    }
    due.recv().await
}

/// Does a batch; what could not be removed, and what was measured.
fn perform(
    disk: &dyn Disk,
    config: &AgentConfig,
    shelf: &Shelf,
    chores: Vec<Chore>,
) -> (Vec<Chore>, Vec<Event>) {
    let mut failed = Vec::new();
    let mut measured = Vec::new();
    for chore in chores {
        let done = match &chore {
            Chore::RemoveWork(name) => shelf.discard_directory(name),
            Chore::RemoveSpool(key) => shelf.discard_spool(key),
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

/// Where a stream of an attempt is spooled.
pub(crate) fn spool_path(config: &AgentConfig, key: &Key, side: Side) -> String {
    [config.directories.spool.as_str(), "/", &key.file_stem(), ".", side.suffix()].concat()
}
