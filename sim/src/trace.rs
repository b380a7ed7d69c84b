//! The trace of a run: one line for everything that matters, and its hash.
//!
//! Two runs of one seed must agree byte for byte. Every durable commit with
//! the digest of its rows, every fault, every answer to a client and every
//! process goes in, each with its virtual time.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

/// See the module. Clones share one trace.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    hash: Sha256,
    lines: u64,
    /// Kept only where the caller wants to read them.
    kept: Option<Vec<String>>,
    /// The part of a run a person wants to read.
    story: Vec<String>,
}

impl Trace {
    /// A trace; with `keep` all its lines can be read afterwards.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        let inner = Inner { kept: keep.then(Vec::new), ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Adds a line at the current virtual time.
    pub fn line(&self, text: &str) {
        let at = world::sim::universe::elapsed();
        let mut line = String::with_capacity(text.len() + 16);
        // Writing to a String cannot fail.
        let _ = write!(line, "{}.{:06} {text}", at.as_secs(), at.subsec_micros());
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        inner.hash.update(line.as_bytes());
        inner.hash.update(b"\n");
        inner.lines += 1;
        if let Some(kept) = &mut inner.kept {
            kept.push(line);
        }
    }

    /// Adds a line that also belongs to the story.
    pub fn tell(&self, text: &str) {
        self.line(text);
        let at = world::sim::universe::elapsed();
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        let line = format!("{:>8}.{:03}  {text}", at.as_secs(), at.subsec_millis());
        inner.story.push(line);
    }

    /// The hash so far, as hexadecimal, and the number of lines.
    #[must_use]
    pub fn hash(&self) -> (String, u64) {
        let inner = self.inner.lock().expect("no holder of this lock panics");
        let hash = inner.hash.clone().finalize();
        (proto::keys::hex_of(&hash[..16]), inner.lines)
    }

    /// What a person reads.
    #[must_use]
    pub fn story(&self) -> Vec<String> {
        self.inner.lock().expect("no holder of this lock panics").story.clone()
    }

    /// All lines, where they were kept.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.inner.lock().expect("no holder of this lock panics").kept.clone().unwrap_or_default()
    }
}
