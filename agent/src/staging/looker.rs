//! Takes checkpoints: looks whether a task has one ready, copies it and brings it to
//! the server.
//!
//! The handshake is a file. Once all that a checkpoint consists of lies in its
//! directory, the task makes a file of the name [`READY`] there, with the checkpoint's
//! label in it, and leaves the directory alone while that file is there. The agent
//! copies the directory and removes the file. What it will not take it says in a file of
//! the name [`REFUSED`], which goes with the next one that it takes.
//!
//! What must hold: a checkpoint is of one moment, the one at which the task said that it
//! is ready; it is told of only once all of its bytes are with the server. What it cannot
//! take whole (a pipe, a link to a directory, what may not be read) it does not take at all.

use super::upload::Uploader;
use super::{copy_under, parent};
use crate::config::AgentConfig;
use crate::core::work::checkpoint_directory;
use crate::core::{Event, LookOrder, Snapshot};
use crate::limits;
use crate::shell::{Inbound, tell};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use proto::checkpoints::head;
use proto::limits::{CHECKPOINT_FILES_MAX, CHECKPOINT_LABEL_BYTES_MAX, CHECKPOINT_LIST_BYTES_MAX};
use proto::v1::Artifact;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use world::disk::{Disk, OpenMode, read_all};
use world::sync::mpsc;
use world::task::blocking;

/// The task says by it that its checkpoint is whole.
pub const READY: &str = ".drumline-ready";
/// The agent says by it why it will not have one.
pub const REFUSED: &str = ".drumline-refused";

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Looker {
    disk: Arc<dyn Disk>,
    config: Arc<AgentConfig>,
    uploader: Uploader,
}

/// Why a checkpoint that was ready was not taken.
#[derive(Debug)]
enum Untaken {
    /// For a reason that will be one the next time: the task is told.
    Refused(String),
    /// The task changed it under the agent's hands, or the disk failed.
    Failed(io::Error),
}
impl From<io::Error> for Untaken {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Looker {
    pub(crate) fn new(disk: &Arc<dyn Disk>, config: &Arc<AgentConfig>, uploader: &Uploader) -> Self {
        Self { disk: Arc::clone(disk), config: Arc::clone(config), uploader: uploader.clone() }
    }

    /// Looks until nobody is left to ask.
    pub(crate) async fn work(self, mut due: mpsc::Receiver<Vec<LookOrder>>, inbox: mpsc::Sender<Inbound>) {
        // Bounded by the attempts the core holds.
        let mut waiting = VecDeque::new();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < limits::LOOKS_AT_ONCE
                && let Some(order) = waiting.pop_front()
            {
                running.push(self.look(order));
            }
            world::select! {
                biased;
                Some(event) = running.next(), if !running.is_empty() => tell(&inbox, vec![event]).await,
                orders = due.recv() => match orders {
                    // An end waits for a last look.
                    Some(orders) => orders.into_iter().for_each(|order| match order.last {
                        true => waiting.push_front(order),
                        false => waiting.push_back(order),
                    }),
                    None => return,
                },
            }
        }
    }

    async fn look(&self, order: LookOrder) -> Event {
        let work = format!("{}/{}", self.config.directories.work, order.directory);
        let root = format!("{work}/{}", checkpoint_directory(&order.work));
        // Beside the work directory: at the agent's start it belongs to nothing.
        let copy = format!("{work}.checkpoint");
        let (disk, from, to) = (Arc::clone(&self.disk), root.clone(), copy.clone());
        let (head, gang) = (head(&order.key.process_key()), order.work.gang.is_some());
        let mut found =
            blocking(move || take(&*disk, &from, &to, &head, gang)).await.unwrap_or_else(|error| {
                tracing::warn!(root, %error, "a checkpoint could not be taken");
                None
            });
        if let Some(snapshot) = &found {
            if let Err(error) = self.uploader.all(&order.key, &copy, &snapshot.artifacts, true).await {
                tracing::warn!(root, error, "a checkpoint was taken and is lost");
                found = None;
            }
            let (disk, copy) = (Arc::clone(&self.disk), copy.clone());
            if let Err(error) = blocking(move || disk.remove_dir_all(&copy)).await {
                tracing::warn!(%error, "the copy of a checkpoint could not be removed");
            }
        }
        Event::Looked { key: order.key, directory: order.directory, found }
    }
}

/// Copies the checkpoint at `root` to `copy` if there is one ready. Blocks.
fn take(disk: &dyn Disk, root: &str, copy: &str, head: &str, gang: bool) -> io::Result<Option<Snapshot>> {
    let ready = format!("{root}/{READY}");
    let Some(label) = read_label(disk, &ready)? else { return Ok(None) };
    let taken = label.ok_or_else(|| Untaken::Refused("its label is no short line of text".to_owned()));
    let taken = taken.and_then(|label| match gang && label.is_empty() {
        true => Err(Untaken::Refused("the ranks of a gang give their checkpoints a label".to_owned())),
        false => copy_all(disk, root, copy, head).map(|artifacts| Snapshot { label, artifacts }),
    });
    match taken {
        Ok(snapshot) if read_label(disk, &ready)? == Some(Some(snapshot.label.clone())) => {
            remove_if_there(disk, &format!("{root}/{REFUSED}"))?;
            disk.remove(&ready)?;
            Ok(Some(snapshot))
        }
        Ok(_) => {
            disk.remove_dir_all(copy)?;
            Err(io::Error::other("it was changed while it was copied"))
        }
        Err(Untaken::Refused(reason)) => {
            disk.remove_dir_all(copy)?;
            refuse(disk, root, &reason)?;
            Err(io::Error::other(reason))
        }
        Err(Untaken::Failed(error)) => {
            disk.remove_dir_all(copy)?;
            Err(error)
        }
    }
}

/// What is in the file by which a task says that it is ready; `Some(None)` where that
/// can be no label.
fn read_label(disk: &dyn Disk, ready: &str) -> io::Result<Option<Option<String>>> {
    let bytes = match read_all(disk, ready, CHECKPOINT_LABEL_BYTES_MAX as u64 + 2) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Ok(Some(None)),
        Err(error) => return Err(error),
    };
    let label = String::from_utf8(bytes).ok().map(|text| text.trim().to_owned());
    Ok(Some(
        label.filter(|label| {
            label.len() <= CHECKPOINT_LABEL_BYTES_MAX && !label.chars().any(char::is_control)
        }),
    ))
}

fn refuse(disk: &dyn Disk, root: &str, reason: &str) -> io::Result<()> {
    let file = disk.open(&format!("{root}/{REFUSED}"), OpenMode::CreateOrWrite)?;
    file.set_len(0)?;
    file.write_at(0, format!("{reason}\n").as_bytes())?;
    disk.remove(&format!("{root}/{READY}"))
}

fn copy_all(disk: &dyn Disk, root: &str, copy: &str, head: &str) -> Result<Vec<Artifact>, Untaken> {
    // An earlier look may not have come to its end.
    disk.remove_dir_all(copy)?;
    let mut paths = Vec::new();
    list(disk, root, "", &mut paths)?;
    let bytes: usize = paths.iter().map(|(path, _)| path.len() + 64 + 16).sum();
    if paths.len() > CHECKPOINT_FILES_MAX || bytes > CHECKPOINT_LIST_BYTES_MAX {
        let most = format!("it has more than {CHECKPOINT_FILES_MAX} files, or too long names of them");
        return Err(Untaken::Refused(format!("{most}; pack them into one")));
    }
    let mut artifacts = Vec::with_capacity(paths.len());
    for (path, mode) in paths {
        let to = format!("{copy}/{path}");
        disk.create_dir_all(parent(&to))?;
        let copied = copy_under(head, disk, &format!("{root}/{path}"), &to);
        let (size_bytes, digest) = copied.map_err(|error| unreadable(&path, error))?;
        artifacts.push(Artifact { path, size_bytes, digest, mode: mode & 0o777 });
    }
    Ok(artifacts)
}

/// The files below a directory in order, with their modes.
fn list(disk: &dyn Disk, root: &str, below: &str, paths: &mut Vec<(String, u32)>) -> Result<(), Untaken> {
    let directory = if below.is_empty() { root.to_owned() } else { format!("{root}/{below}") };
    for entry in disk.list(&directory)? {
        let path = if below.is_empty() { entry.name.clone() } else { format!("{below}/{}", entry.name) };
        if below.is_empty() && (entry.name == READY || entry.name == REFUSED) {
            continue;
        }
        if paths.len() > CHECKPOINT_FILES_MAX {
            return Ok(());
        }
        if entry.is_dir {
            if path.split('/').count() > limits::OUTPUT_DEPTH_MAX {
                let depth = limits::OUTPUT_DEPTH_MAX;
                return Err(Untaken::Refused(format!("it has directories deeper than {depth}")));
            }
            list(disk, root, &path, paths)?;
        } else {
            paths.push((path, entry.mode));
        }
    }
    Ok(())
}

/// What is no plain file, or may not be read, will be neither the next time.
fn unreadable(path: &str, error: io::Error) -> Untaken {
    use io::ErrorKind::{InvalidInput, IsADirectory, NotFound, PermissionDenied};
    match error.kind() {
        InvalidInput | IsADirectory | NotFound | PermissionDenied => {
            Untaken::Refused(format!("`{path}` is no plain file that can be read"))
        }
        _ => Untaken::Failed(error),
    }
}

fn remove_if_there(disk: &dyn Disk, path: &str) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::disk_with;

    const HEAD: &str = "drumline checkpoint lab/1\n";

    fn write(disk: &dyn Disk, path: &str, text: &str) {
        let file = disk.open(path, OpenMode::CreateOrWrite).unwrap();
        file.set_len(0).unwrap();
        file.write_at(0, text.as_bytes()).unwrap();
    }

    #[test]
    fn what_is_ready_is_copied_as_it_lay_and_the_task_sees_it() {
        let disk = disk_with(&["work/t/ckpt/a", "work/t/ckpt/deep/b", "work/t/other"]);
        let root = "work/t/ckpt";
        assert_eq!(take(&*disk, root, "work/t.checkpoint", HEAD, false).unwrap(), None, "nothing is ready");
        write(&*disk, "work/t/ckpt/.drumline-ready", "step 12\n");
        let taken = take(&*disk, root, "work/t.checkpoint", HEAD, false).unwrap().unwrap();
        assert_eq!(taken.label, "step 12");
        let paths: Vec<&str> = taken.artifacts.iter().map(|artifact| artifact.path.as_str()).collect();
        assert_eq!(paths, ["a", "deep/b"]);
        for artifact in &taken.artifacts {
            let copy = super::super::digest(&*disk, &format!("work/t.checkpoint/{}", artifact.path)).unwrap();
            assert_eq!(copy, (artifact.size_bytes, artifact.digest.clone()));
            // Laid for the next attempt it is as it was.
            let (from, to) =
                (format!("work/t.checkpoint/{}", artifact.path), format!("next/{}", artifact.path));
            super::super::lay_own(&*disk, &from, &to, artifact.mode).unwrap();
            let was = read_all(&*disk, &format!("work/t/ckpt/{}", artifact.path), 100).unwrap();
            assert_eq!(read_all(&*disk, &to, 100).unwrap(), was);
        }
        assert!(disk.entry("work/t/ckpt/.drumline-ready").is_err());
        assert_eq!(take(&*disk, root, "work/t.checkpoint", HEAD, false).unwrap(), None, "it is taken once");
    }

    #[test]
    fn what_cannot_be_taken_is_refused_where_the_task_can_read_it() {
        let refusal = |label: &str, gang, files: usize| {
            let names: Vec<String> = (0..files).map(|number| format!("work/t/ckpt/{number:03}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let disk = disk_with(&names);
            disk.create_dir_all("work/t/ckpt").unwrap();
            write(&*disk, "work/t/ckpt/.drumline-ready", label);
            take(&*disk, "work/t/ckpt", "work/t.checkpoint", HEAD, gang).unwrap_err();
            assert!(disk.entry("work/t/ckpt/.drumline-ready").is_err(), "it is answered");
            assert!(disk.entry("work/t.checkpoint").is_err(), "nothing is left of it");
            let told = read_all(&*disk, "work/t/ckpt/.drumline-refused", 1_000).unwrap();
            // The next one that is taken takes the answer away.
            if files == 1 {
                write(&*disk, "work/t/ckpt/.drumline-ready", "7");
                take(&*disk, "work/t/ckpt", "work/t.checkpoint", HEAD, gang).unwrap().unwrap();
                assert!(disk.entry("work/t/ckpt/.drumline-refused").is_err());
            }
            String::from_utf8(told).unwrap()
        };
        assert_eq!(refusal("", true, 1), "the ranks of a gang give their checkpoints a label\n");
        assert_eq!(refusal(&"x".repeat(65), false, 1), "its label is no short line of text\n");
        assert_eq!(refusal("a\u{7}b", false, 1), "its label is no short line of text\n");
        let many = refusal("1", false, CHECKPOINT_FILES_MAX + 1);
        assert!(many.starts_with("it has more than 128 files"), "{many}");
    }
}
