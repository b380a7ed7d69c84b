//! Trace files: all that happened in a rehearsal, for programs to open later.
//!
//! `docs/trace.md` has the format for those who write another reader. It lies
//! here, and not with the rehearsals that write it, so that whoever shows a trace
//! need not know the simulator. Bytes go to and come from what the caller opened.
//!
//! What must hold: one run has one file, byte for byte (nothing of the machine or
//! its clock goes in); a reader finds an instant without reading what lies before
//! it; a file that is cut or altered is refused where that shows, never a panic.

mod bytes;
mod read;
mod write;

pub use read::Reader;
pub use write::Writer;

/// What a file begins with.
pub const MAGIC: &[u8; 8] = b"DRUMTRC\n";
/// What a whole file ends with.
pub const END: &[u8; 8] = b"CRTMURD\n";
/// The language of these files; another number is another language.
pub const VERSION: u32 = 1;
/// A chunk is closed when it has so many records ...
pub const CHUNK_RECORDS_MAX: usize = 512;
/// ... or so many bytes.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;
/// The longest text of a record; what is longer is cut.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// Whose trace it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub seed: u64,
    pub scenario: String,
    /// Of the sources, with `+changes` where they had more; `unknown` without git.
    pub commit: String,
    /// SHA-256 of `Cargo.lock`, in hexadecimal.
    pub lock_sha256: String,
    /// As `rustc --version` has it.
    pub toolchain: String,
    /// The command that makes this trace again.
    pub again: String,
}

/// What a record is about. A reader shows those it does not know like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Anything else.
    Note,
    /// Rows that became durable together, with their digest.
    Commit,
    Fault,
    Healed,
    /// What a client was told.
    Answer,
    /// A server or an agent started or ended.
    Process,
    /// What rows say was decided for a job or a node. Not a line of the trace.
    Decision,
    /// An invariant broke.
    Broken,
    /// The end of the run: what it came to, and the hash of its lines.
    Verdict,
    Other(u8),
}

/// Number and word of each kind.
const KINDS: [(Kind, u8, &str); 9] = [
    (Kind::Note, 0, "note"),
    (Kind::Commit, 1, "commit"),
    (Kind::Fault, 2, "fault"),
    (Kind::Healed, 3, "healed"),
    (Kind::Answer, 4, "answer"),
    (Kind::Process, 5, "process"),
    (Kind::Decision, 6, "decision"),
    (Kind::Broken, 7, "broken"),
    (Kind::Verdict, 8, "verdict"),
];

impl Kind {
    /// As a file has it.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Other(number) => number,
            known => KINDS.iter().find(|(kind, ..)| *kind == known).map_or(0, |(_, number, _)| *number),
        }
    }

    /// From a file.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        KINDS.iter().find(|(_, known, _)| *known == number).map_or(Self::Other(number), |(kind, ..)| *kind)
    }

    /// One word; `other` for those of a later version.
    #[must_use]
    pub fn word(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("other", |(.., word)| *word)
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Virtual time, in microseconds from the beginning; never goes back.
    pub at_us: u64,
    pub kind: Kind,
    /// The machine it is about; empty where there is none.
    pub node: String,
    /// The job it is about, such as `lab-17`; empty where there is none.
    pub job: String,
    pub text: String,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("this is no trace file")]
    NotATrace,
    #[error("a trace file of version {0}; this reader knows {VERSION}")]
    Version(u32),
    #[error("the file is cut off: its end is missing")]
    Truncated,
    #[error("the file is damaged: {0}")]
    Corrupt(&'static str),
}
