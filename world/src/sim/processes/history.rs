//! What processes there were, for who judges a run.

use crate::processes::ProcessKey;
use std::sync::Arc;

/// When a process ran, in true milliseconds since the base instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSpan {
    /// Which process.
    pub key: ProcessKey,
    /// Its start.
    pub started_ms: u64,
    /// Its end; `None`: it still runs.
    pub ended_ms: Option<u64>,
    /// It ended by itself, with exit code 0.
    pub succeeded: bool,
    /// What lay in its working directory when it started.
    pub found: Vec<String>,
    /// What lay at `inputs/` when it started, by its path below: of a file the digest of what
    /// it read there, and ` x` where it may be run (`None`: the disk failed it); a directory,
    /// whose path ends with a slash, with nothing; a link with `-> ` and what it says.
    pub inputs: Vec<(String, Option<String>)>,
    /// The label of the checkpoint that it was to go on from.
    pub from: Option<String>,
    /// The files that lay in its checkpoint directory when it started, as `inputs`.
    pub resumed: Vec<(String, Option<String>)>,
    /// Checkpoints that it kept.
    pub kept: Vec<Kept>,
    /// Its outputs that reached the disk, with their digests.
    pub wrote: Vec<(String, String)>,
    /// Where it ran.
    pub node: String,
    /// How long it took, as its end told; `None`: nobody saw its end.
    pub wall_ms: Option<u64>,
    /// What it wrote to its standard output and its standard error and came to be in
    /// their files, in order.
    pub streams: [Arc<Vec<u8>>; 2],
    /// Its machine lost power since it began: of what it wrote and nobody had
    /// read yet, pieces may be gone.
    pub torn: bool,
    /// Reads of its machine's disk failed at some time.
    pub unread: bool,
}

/// A checkpoint of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What the process calls it.
    pub label: String,
    /// Of its bytes.
    pub digest: String,
    /// Of its bytes below the line that names who kept them.
    pub stored_digest: String,
}

/// A launch that a node's agent asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchAsked {
    /// Of which process.
    pub key: ProcessKey,
    /// Where.
    pub node: String,
    /// When, in true milliseconds since the base instant.
    pub at_ms: u64,
}
