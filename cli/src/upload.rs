//! Inputs on their way in: digested here, sent where the server says, named by
//! digest in the spec. Bytes that are there already are not sent again, also where they
//! are not all there yet.

use crate::{
    client::Client,
    failure::Failure,
    files::{self, Digested, Found, LocalFile},
    limits, output,
    trees::{self, LocalTree},
};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use proto::{
    problem::Problem,
    units,
    v1::{CreateUploadRequest, JobSpec},
};
use std::{
    future::{Future, ready},
    io::Stderr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tui::progress::{Look, ProgressLine, TransferProgress, render_transfer, terminal_width};
use world::{
    disk::{DiskFile, InMemory, OpenMode},
    real::{HttpTransfer, TransferLimits},
    select, task,
    time::{self, Instant},
    transfer::{QUOTA_STATUS, TransferError},
};

/// One object: bytes with their name among objects.
#[derive(Debug)]
pub struct Local {
    bytes: Bytes,
    /// What it holds.
    pub digested: Digested,
}

/// Where bytes are.
#[derive(Debug)]
enum Bytes {
    File(LocalFile),
    Manifest(Arc<InMemory>),
}

impl Local {
    /// A file.
    pub fn on_disk(file: LocalFile, digested: Digested) -> Self {
        Self { bytes: Bytes::File(file), digested }
    }

    /// What a person calls it.
    fn shown(&self) -> String {
        match &self.bytes {
            Bytes::File(file) => file.disk.absolute(&file.path).display().to_string(),
            Bytes::Manifest(_) => "the list of its files".to_owned(),
        }
    }

    async fn open(&self) -> Result<Arc<dyn DiskFile>, TransferError> {
        match &self.bytes {
            Bytes::Manifest(manifest) => Ok(Arc::clone(manifest) as Arc<dyn DiskFile>),
            Bytes::File(file) => {
                let file = file.clone();
                let opened = task::blocking(move || file.disk.open(&file.path, OpenMode::Read)).await;
                opened.map_err(|error| TransferError::Disk(error.to_string()))
            }
        }
    }

    fn request(&self, client: &Client, beside_bytes: u64) -> CreateUploadRequest {
        CreateUploadRequest {
            tenant: client.tenant.clone(),
            digest: self.digested.digest.clone(),
            size_bytes: self.digested.size_bytes,
            beside_bytes,
        }
    }
}

/// What a path gives as an input.
#[derive(Debug)]
pub enum Given {
    /// A file.
    File(Local),
    /// A directory.
    Tree(LocalTree),
}

impl Given {
    /// By what a job names it.
    pub fn digest(&self) -> &str {
        match self {
            Self::File(local) => &local.digested.digest,
            Self::Tree(tree) => &tree.named.digest,
        }
    }

    /// Of a directory all its files'.
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::File(local) => local.digested.size_bytes,
            Self::Tree(tree) => tree.total_bytes,
        }
    }

    /// It is a directory.
    pub fn is_tree(&self) -> bool {
        matches!(self, Self::Tree(_))
    }
}

/// Finds and digests one file, or all of a directory. `field` is what it was given as.
pub async fn digest(field: &str, path: &Path) -> Result<Given, Failure> {
    let file = match files::find_any(field, path)? {
        Found::File(file) => file,
        Found::Directory(root) => {
            let (field, path) = (field.to_owned(), path.to_owned());
            return task::blocking(move || trees::read(&field, &path, &root)).await.map(Given::Tree);
        }
    };
    let found = file.clone();
    let digested = task::blocking(move || files::digest(&found))
        .await
        .map_err(|error| Failure::broken(field, path.display(), error.to_string(), "make it readable"))?;
    if digested.size_bytes > proto::limits::INPUT_BYTES_MAX {
        return Err(Failure::Refused(Problem::new(
            "spec.size",
            field,
            units::brief_memory_bytes(digested.size_bytes),
            "is too large an input",
            format!("give at most {}", units::format_memory_bytes(proto::limits::INPUT_BYTES_MAX)),
        )));
    }
    Ok(Given::File(Local::on_disk(file, digested)))
}

/// Finds and digests every input that is a path, so that a missing file is told
/// before anything is sent.
pub async fn digest_inputs(spec: &mut JobSpec) -> Result<Vec<(usize, Given)>, Failure> {
    let mut all = Vec::new();
    for (at, input) in spec.inputs.iter_mut().enumerate() {
        if input.path.is_empty() {
            continue;
        }
        let given = digest(&format!("input[{at}].path"), Path::new(&input.path)).await?;
        if input.tree.is_some_and(|told| told != given.is_tree()) {
            let (reason, remedy) = match given.is_tree() {
                true => ("is a directory, and the input says tree = false", "take that out"),
                false => ("is a file, and the input says tree = true", "name a directory, or take that out"),
            };
            return Err(Failure::wrong_use(&format!("input[{at}].path"), &input.path, reason, remedy));
        }
        input.digest = given.digest().to_owned();
        input.size_bytes = given.size_bytes();
        input.tree = Some(given.is_tree());
        input.path.clear();
        all.push((at, given));
    }
    Ok(all)
}

/// Sends what [`digest_inputs`] found.
pub async fn send_inputs(client: &Client, spec: &JobSpec, all: Vec<(usize, Given)>) -> Result<(), Failure> {
    for (at, given) in all {
        let name = &spec.inputs[at].name;
        send(client, &given, &format!("input {name}"), name).await?;
    }
    Ok(())
}

/// Sends a file, or a directory, from where an earlier try broke off, this command's or
/// another's; a person who watches sees how it gets on. False where all of it was there.
pub async fn send(client: &Client, given: &Given, field: &str, title: &str) -> Result<bool, Failure> {
    match given {
        Given::File(local) => {
            let (transfer, away) = (HttpTransfer::new(TransferLimits::default()), Arc::default());
            let mut bar = Bar::new(title, local.digested.size_bytes);
            send_one(client, &transfer, (local, &away), field, Some(&mut bar)).await
        }
        Given::Tree(tree) => send_tree(client, tree, field, title).await,
    }
}

/// Sends one object. False where it was there.
async fn send_one(
    client: &Client,
    transfer: &HttpTransfer,
    (local, away): (&Local, &Arc<AtomicU64>),
    field: &str,
    mut bar: Option<&mut Bar>,
) -> Result<bool, Failure> {
    let mut tries = 0;
    loop {
        let url = client.create_upload(local.request(client, 0)).await?.url;
        if url.is_empty() {
            return Ok(tries > 0);
        }
        tries += 1;
        let put = async { transfer.put_open(&url, &local.open().await?, away).await };
        let sent = match &mut bar {
            Some(bar) => bar.watch(put, || away.load(Ordering::Relaxed)).await,
            None => put.await,
        };
        match sent {
            Ok(()) => return Ok(true),
            Err(error) if tries < limits::TRANSFER_TRIES && is_worth_a_try(&error) => {
                time::sleep(limits::RECONNECT_PAUSE * tries).await;
            }
            Err(error) => return Err(transfer_failure(field, &local.shown(), &error)),
        }
    }
}

/// Sends what is missing of a directory, several files at once, and last its manifest: so
/// where that is there all of it is.
async fn send_tree(client: &Client, tree: &LocalTree, field: &str, title: &str) -> Result<bool, Failure> {
    let manifest = Local { bytes: Bytes::Manifest(Arc::clone(&tree.manifest)), digested: tree.named.clone() };
    let asks = stream::iter(tree.files.iter().chain([&manifest])).map(|local| async move {
        let there = client.create_upload(local.request(client, 0)).await?.url.is_empty();
        Ok::<_, Failure>((!there).then_some(local))
    });
    let missing: Vec<&Local> =
        asks.buffered(limits::ASKS_MAX).try_filter_map(|ask| ready(Ok(ask))).try_collect().await?;
    let Some((first, rest)) = missing.split_first() else { return Ok(false) };
    // All of it has room, or nothing is sent.
    let beside_bytes = rest.iter().map(|local| local.digested.size_bytes).sum();
    client.create_upload(first.request(client, beside_bytes)).await?;

    let transfer = HttpTransfer::new(TransferLimits::default());
    let files: Vec<(&Local, Arc<AtomicU64>)> = missing
        .into_iter()
        .filter(|local| local.digested.digest != manifest.digested.digest)
        .map(|local| (local, Arc::default()))
        .collect();
    let mut bar = Bar::new(title, files.iter().map(|(local, _)| local.digested.size_bytes).sum());
    let sends = stream::iter(&files)
        .map(|(local, away)| send_one(client, &transfer, (*local, away), field, None))
        .buffer_unordered(limits::UPLOADS_MAX)
        .try_for_each(|_| ready(Ok(())));
    bar.watch(sends, || files.iter().map(|(_, away)| away.load(Ordering::Relaxed)).sum()).await?;
    send_one(client, &transfer, (&manifest, &Arc::default()), field, None).await?;
    Ok(true)
}

/// How an upload gets on, for a person who watches; it leaves nothing behind.
struct Bar {
    line: Option<ProgressLine<Stderr>>,
    look: Look,
    shown: TransferProgress,
    /// When the first bytes of this command were seen.
    since: Option<Instant>,
}

impl Bar {
    fn new(title: &str, total_bytes: u64) -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        Self {
            line: output::is_watched().then(|| ProgressLine::new(std::io::stderr())),
            look: Look::from_environment(variable("NO_COLOR").as_deref(), variable("TERM").as_deref()),
            shown: TransferProgress { title: title.to_owned(), total_bytes, ..TransferProgress::default() },
            since: None,
        }
    }

    /// Draws now and then until the upload is over.
    async fn watch<T>(&mut self, upload: impl Future<Output = T>, away: impl Fn() -> u64) -> T {
        if self.line.is_none() {
            return upload.await;
        }
        let mut upload = std::pin::pin!(upload);
        loop {
            select! { biased;
                ended = &mut upload => return ended,
                () = time::sleep(limits::FRAME) => self.draw(away()),
            }
        }
    }

    fn draw(&mut self, done_bytes: u64) {
        let since = *self.since.get_or_insert_with(|| {
            self.shown.begun_bytes = done_bytes;
            Instant::now()
        });
        self.shown.done_bytes = done_bytes;
        self.shown.elapsed_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(line) = &mut self.line {
            // The last column stays free: some terminals wrap there. Nobody is left to be
            // told where this fails.
            let width = terminal_width().saturating_sub(1);
            let _ = line.draw(render_transfer(&self.shown, width, self.look));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(line) = &mut self.line {
            let _ = line.clear();
        }
    }
}

/// Whether the same transfer may go well a moment later.
pub fn is_worth_a_try(error: &TransferError) -> bool {
    // 408: the server cut off what had brought nothing for a while.
    matches!(
        error,
        TransferError::Network(_)
            | TransferError::Server { .. }
            | TransferError::Busy { .. }
            | TransferError::Refused { status: 408, .. }
    )
}

/// True where the tenant's quota is used up.
pub fn is_past_quota(error: &TransferError) -> bool {
    matches!(error, TransferError::Refused { status: QUOTA_STATUS, .. })
}

/// What a transfer's end means to the shell.
pub fn transfer_failure(field: &str, value: &str, error: &TransferError) -> Failure {
    let problem = |code: &str, remedy: &str| Problem::new(code, field, value, error.to_string(), remedy);
    match error {
        TransferError::Network(_) => {
            Failure::Unreachable(problem("unavailable.transfer", "try again in a moment"))
        }
        TransferError::Server { .. } | TransferError::Busy { .. } => {
            Failure::Unreachable(problem("unavailable.objects", "look at the server's disk"))
        }
        TransferError::Refused { reason, .. } if is_past_quota(error) => {
            // The server tells the dimension first; the words behind name it too.
            let reason = reason.split_once(": ").map_or(reason.as_str(), |(_, reason)| reason);
            let (reason, remedy) = reason.split_once("; ").unwrap_or((reason, "look at `drumline quota`"));
            Failure::Refused(Problem::new("quota.exceeded", field, value, reason, remedy))
        }
        TransferError::Refused { .. } => {
            Failure::Refused(problem("denied.transfer", "try again; if it stays, see the server's log"))
        }
        TransferError::Digest { .. } => {
            Failure::Broken(problem("local.digest", "did the file change meanwhile? try again"))
        }
        TransferError::Disk(_) => {
            Failure::Broken(problem("local.disk", "look at the disk's space and rights"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_by_a_path_that_leads_to_it() {
        let file = files::find("path", Path::new("Cargo.toml")).unwrap();
        let digested = Digested { digest: String::new(), size_bytes: 0 };
        let shown = Local::on_disk(file, digested).shown();
        assert!(Path::new(&shown).is_absolute() && shown.ends_with("/Cargo.toml"), "{shown}");
    }
}
