//! Inputs on their way in: digested here, sent where the server says, named by
//! digest in the spec. Bytes that are there already are not sent again, also where they
//! are not all there yet.

use crate::{
    client::Client,
    failure::Failure,
    files::{self, Digested, LocalFile},
    limits, output,
};
use proto::{
    problem::Problem,
    units,
    v1::{CreateUploadRequest, JobSpec},
};
use std::{
    future::Future,
    io::Stderr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tui::progress::{Look, ProgressLine, TransferProgress, render_transfer, terminal_width};
use world::{
    real::{HttpTransfer, TransferLimits},
    select, task,
    time::{self, Instant},
    transfer::{QUOTA_STATUS, TransferError},
};

/// A file with its name among objects.
#[derive(Clone, Debug)]
pub struct Local {
    /// Where it is.
    pub file: LocalFile,
    /// What it holds.
    pub digested: Digested,
}

/// Finds and digests one file. `field` is what it was given as.
pub async fn digest(field: &str, path: &Path) -> Result<Local, Failure> {
    let file = files::find(field, path)?;
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
    Ok(Local { file, digested })
}

/// Finds and digests every input that is a path, so that a missing file is told
/// before anything is sent.
pub async fn digest_inputs(spec: &mut JobSpec) -> Result<Vec<(usize, Local)>, Failure> {
    let mut files = Vec::new();
    for (at, input) in spec.inputs.iter_mut().enumerate() {
        if input.path.is_empty() {
            continue;
        }
        let local = digest(&format!("input[{at}].path"), Path::new(&input.path)).await?;
        input.digest.clone_from(&local.digested.digest);
        input.size_bytes = local.digested.size_bytes;
        input.path.clear();
        files.push((at, local));
    }
    Ok(files)
}

/// Sends what [`digest_inputs`] found.
pub async fn send_inputs(client: &Client, spec: &JobSpec, files: Vec<(usize, Local)>) -> Result<(), Failure> {
    for (at, local) in files {
        let name = &spec.inputs[at].name;
        send(client, &local, &format!("input {name}"), name).await?;
    }
    Ok(())
}

/// Sends one file, from where an earlier try broke off, this command's or another's; a
/// person who watches sees how it gets on. False where it was there already.
pub async fn send(client: &Client, local: &Local, field: &str, title: &str) -> Result<bool, Failure> {
    let Local { file, digested } = local;
    let transfer = HttpTransfer::new(TransferLimits::default());
    let (away, mut bar) = (Arc::default(), Bar::new(title, digested.size_bytes));
    let mut tries = 0;
    loop {
        let request = CreateUploadRequest {
            tenant: client.tenant.clone(),
            digest: digested.digest.clone(),
            size_bytes: digested.size_bytes,
        };
        let url = client.create_upload(request).await?.url;
        if url.is_empty() {
            return Ok(tries > 0);
        }
        tries += 1;
        let put = transfer.put_watched(&url, file.disk.clone(), &file.path, &away);
        match bar.watch(put, &away).await {
            Ok(()) => return Ok(true),
            Err(error) if tries < limits::TRANSFER_TRIES && is_worth_a_try(&error) => {
                time::sleep(limits::RECONNECT_PAUSE * tries).await;
            }
            Err(error) => {
                drop(bar);
                return Err(transfer_failure(field, &file.path, &error));
            }
        }
    }
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
    async fn watch<T>(&mut self, upload: impl Future<Output = T>, away: &AtomicU64) -> T {
        if self.line.is_none() {
            return upload.await;
        }
        let mut upload = std::pin::pin!(upload);
        loop {
            select! { biased;
                ended = &mut upload => return ended,
                () = time::sleep(limits::FRAME) => self.draw(away.load(Ordering::Relaxed)),
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
