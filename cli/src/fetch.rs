//! Output files on their way out: `DIR/<step>/…`, or `DIR/<step>/<index>/…` where
//! a step had many tasks. Each file appears whole and verified, or not at all. What
//! arrived of one that broke off stays beside its place under another name, and the
//! next try goes on from there, also that of another command. What is there already is
//! not fetched again.

use crate::{
    client::Client,
    failure::Failure,
    files::{self, LocalFile},
    limits,
    upload::{is_past_quota, is_worth_a_try, transfer_failure},
};
use proto::{
    keys::hex_of,
    v1::{Artifact, JobRequest, OutputsReply},
};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeSet, path::Path, sync::Arc};
use world::{
    Disk,
    real::{HttpTransfer, TransferLimits, Wanted},
    sync::Semaphore,
    task, time,
    transfer::TransferError,
};

/// What is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// How many.
    pub files: u64,
    /// In all.
    pub bytes: u64,
}

/// One file to fetch.
#[derive(Clone, Debug)]
struct Want {
    url: String,
    artifact: Artifact,
    /// Below the target directory.
    path: String,
}

/// Fetches all outputs of a job below `dir`.
pub async fn outputs(client: &Client, job: &JobRequest, dir: &Path) -> Result<Fetched, Failure> {
    let mut wants = wants(&client.outputs(job.clone()).await?)?;
    if wants.is_empty() {
        return Ok(Fetched::default());
    }
    let disk: Arc<dyn Disk> = files::directory("outputs", dir)?;
    let parents: BTreeSet<&str> =
        wants.iter().filter_map(|want| Some(want.path.rsplit_once('/')?.0)).collect();
    for parent in parents {
        disk.create_dir_all(parent).map_err(|error| {
            Failure::broken(
                "outputs",
                dir.join(parent).display(),
                error.to_string(),
                "choose another directory",
            )
        })?;
    }
    let mut done = Fetched::default();
    let mut tries = 0;
    loop {
        let (fetched, failed) = fetch_all(wants, disk.clone()).await;
        done.files += fetched.files;
        done.bytes += fetched.bytes;
        // A quota used up is the reason why, whatever else broke on its account.
        let worst = failed.iter().find(|(_, error)| is_past_quota(error)).or(failed.first());
        let Some((want, error)) = worst else { return Ok(done) };
        tries += 1;
        // A link may have expired meanwhile: fresh ones are made for each try.
        let refused = matches!(error, TransferError::Refused { .. }) && !is_past_quota(error);
        if tries >= limits::TRANSFER_TRIES || !(refused || is_worth_a_try(error)) {
            return Err(transfer_failure("output", &want.path, error));
        }
        time::sleep(limits::RECONNECT_PAUSE * tries).await;
        let missing: BTreeSet<&str> = failed.iter().map(|(want, _)| want.path.as_str()).collect();
        let fresh = self::wants(&client.outputs(job.clone()).await?)?;
        wants = fresh.into_iter().filter(|want| missing.contains(want.path.as_str())).collect();
    }
}

async fn fetch_all(wants: Vec<Want>, disk: Arc<dyn Disk>) -> (Fetched, Vec<(Want, TransferError)>) {
    let transfer = HttpTransfer::new(TransferLimits::default());
    let places = Arc::new(Semaphore::new(limits::DOWNLOADS_MAX));
    let mut running = Vec::with_capacity(wants.len());
    for want in wants {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (transfer, disk) = (transfer.clone(), disk.clone());
        running.push(task::spawn(async move {
            let result = fetch_one(&transfer, disk, &want).await;
            drop(place);
            (want, result)
        }));
    }
    let mut fetched = Fetched::default();
    let mut failed = Vec::new();
    for one in running {
        match one.await {
            Ok((_, Ok(bytes))) => {
                fetched.files += 1;
                fetched.bytes += bytes;
            }
            Ok((want, Err(error))) => failed.push((want, error)),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    (fetched, failed)
}

async fn fetch_one(transfer: &HttpTransfer, disk: Arc<dyn Disk>, want: &Want) -> Result<u64, TransferError> {
    let Artifact { digest, size_bytes, .. } = &want.artifact;
    let bytes = if is_there(&disk, want).await {
        *size_bytes
    } else {
        let part = part(&want.path, digest);
        let (url, path, size_bytes) = (want.url.as_str(), want.path.as_str(), *size_bytes);
        transfer.resume(disk.clone(), &Wanted { url, path, part: &part, digest, size_bytes }).await?
    };
    let mode = want.artifact.mode & 0o777;
    if mode != 0 {
        disk.set_mode(&want.path, mode | 0o600).map_err(|error| TransferError::Disk(error.to_string()))?;
    }
    Ok(bytes)
}

/// Whether an earlier command brought these bytes here.
async fn is_there(disk: &Arc<dyn Disk>, want: &Want) -> bool {
    let size_bytes = want.artifact.size_bytes;
    if !disk.entry(&want.path).is_ok_and(|entry| !entry.is_dir && entry.len == size_bytes) {
        return false;
    }
    let file = LocalFile { disk: disk.clone(), path: want.path.clone() };
    let digested = task::blocking(move || files::digest(&file)).await;
    digested.is_ok_and(|found| found.digest == want.artifact.digest)
}

/// Where a file is until it is whole: beside its place, hidden, and a name of its own
/// for each place and digest, however long the place's name is.
fn part(path: &str, digest: &str) -> String {
    let (dir, name) = path.rsplit_once('/').map_or(("", path), |(dir, name)| (dir, name));
    let name = hex_of(&Sha256::digest(format!("{name}\n{digest}")));
    let name = format!(".drumline-{}.part", &name[..32]);
    if dir.is_empty() { name } else { format!("{dir}/{name}") }
}

/// Where each artifact goes. A server that names a path outside is refused.
fn wants(reply: &OutputsReply) -> Result<Vec<Want>, Failure> {
    let mut wants = Vec::new();
    for step in &reply.steps {
        for task in &step.tasks {
            for link in &task.artifacts {
                let artifact = link.artifact.clone().unwrap_or_default();
                let path = place(&step.step, step.indexed, task.index, &artifact.path);
                proto::validate::check_relative("output", &path)?;
                wants.push(Want { url: link.url.clone(), artifact, path });
            }
        }
    }
    Ok(wants)
}

/// The tree that `from/` shows to later steps, too.
#[must_use]
pub fn place(step: &str, indexed: bool, index: u64, path: &str) -> String {
    if indexed { format!("{step}/{index}/{path}") } else { format!("{step}/{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{ArtifactLink, StepOutputs, TaskOutputs};

    fn reply(path: &str) -> OutputsReply {
        let artifact = Artifact { path: path.to_owned(), ..Artifact::default() };
        let task = TaskOutputs {
            index: 7,
            artifacts: vec![ArtifactLink { artifact: Some(artifact), url: "u".into() }],
        };
        OutputsReply {
            steps: vec![
                StepOutputs { step: "split".into(), indexed: false, tasks: vec![task.clone()] },
                StepOutputs { step: "count".into(), indexed: true, tasks: vec![task] },
            ],
        }
    }

    #[test]
    fn what_is_not_whole_has_a_name_of_its_own_beside_its_place() {
        let parts = [part("a/words", "d"), part("a/words", "e"), part("a/other", "d"), part("words", "d")];
        assert!(parts[..3].iter().all(|part| part.starts_with("a/.drumline-") && part.ends_with(".part")));
        assert_eq!(parts.iter().collect::<BTreeSet<_>>().len(), parts.len());
        assert!(!parts[3].contains('/') && part(&"x".repeat(255), "d").len() < 64);
    }

    #[test]
    fn outputs_lie_by_step_and_index() {
        let paths: Vec<String> =
            wants(&reply("a/words")).unwrap().into_iter().map(|want| want.path).collect();
        assert_eq!(paths, ["split/a/words", "count/7/a/words"]);
        assert!(wants(&reply("../../etc/x")).is_err());
    }
}
