//! The trace of a run: one line for everything that matters, and its hash.
//!
//! Two runs of one seed must agree byte for byte. Every durable commit with
//! the digest of its rows, every fault, every answer to a client and every
//! process goes in, each with its virtual time.
//!
//! Who asks for more gets it beside the lines, and the lines stay what they are:
//! decisions read from the rows, for the story of a run and its trace file.

mod decisions;
pub mod lines;
mod recovery;
mod show;
mod story;

pub use show::{TraceArguments, command};
pub use story::{Entry, of_job, of_node, timeline};

use crate::checkers::Committed;
use crate::faults::Fault;
use crate::mirror::Mirror;
use proto::trace::{Kind, Record, Writer};
use recovery::Recovery;
pub use recovery::Took;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use story::Weight;

/// A trace file under way, wherever it goes.
pub type TraceFile = Writer<Box<dyn io::Write + Send>>;

/// What a caller wants of a trace beside its hash.
#[derive(Debug, Default)]
pub struct Wanted {
    /// All lines, to read them afterwards.
    pub lines: bool,
    /// What a person reads.
    pub story: bool,
    pub file: Option<TraceFile>,
}

/// See the module. Clones share one trace.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    hash: Sha256,
    lines: u64,
    kept: Option<Vec<String>>,
    story: Option<Vec<Entry>>,
    file: Option<Box<TraceFile>>,
    /// Why the file is not written any further.
    file_failed: Option<io::Error>,
    recovery: Recovery,
}

impl Trace {
    #[must_use]
    pub fn new(wanted: Wanted) -> Self {
        let inner = Inner {
            kept: wanted.lines.then(Vec::new),
            story: wanted.story.then(Vec::new),
            file: wanted.file.map(Box::new),
            ..Inner::default()
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// Adds a line at the current virtual time.
    pub fn line(&self, text: &str) {
        self.inner().line(text, None, Weight::Detail);
    }

    /// Adds a line that also belongs to the story.
    pub fn tell(&self, text: &str) {
        self.inner().line(text, None, Weight::Told);
    }

    /// A fault strikes.
    pub fn struck(&self, fault: &Fault) {
        let mut inner = self.inner();
        inner.recovery.struck(fault);
        inner.line(&format!("fault {fault:?}"), Some(lines::node_of(fault)), Weight::Told);
    }

    /// It is over.
    pub fn healed(&self, fault: &Fault) {
        let mut inner = self.inner();
        inner.recovery.healed(fault, now_us() / 1_000);
        inner.line(&format!("healed {}", fault.kind()), Some(lines::node_of(fault)), Weight::Told);
    }

    /// Rows became durable; `before` has not yet taken them.
    pub fn committed(&self, before: &Mirror, commit: &Committed) {
        let mut inner = self.inner();
        inner.recovery.committed(commit);
        if inner.story.is_none() && inner.file.is_none() {
            return;
        }
        for entry in decisions::of(now_us(), before, commit) {
            inner.keep(entry);
        }
    }

    /// Ends the trace file, where there is one, with what the run came to.
    pub fn finish(&self, at_us: u64, verdict: &str) -> io::Result<()> {
        let mut inner = self.inner();
        let text = format!("{verdict} trace={}", inner.hex());
        inner.write(&lines::record(at_us, Kind::Verdict, "", "", text));
        if let Some(error) = inner.file_failed.take() {
            return Err(error);
        }
        match inner.file.take() {
            Some(file) => file.finish().map(|_| ()),
            None => Ok(()),
        }
    }

    /// The hash so far, as hexadecimal, and the number of lines.
    #[must_use]
    pub fn hash(&self) -> (String, u64) {
        let inner = self.inner();
        (inner.hex(), inner.lines)
    }

    /// All that there is to tell of the run, where it was asked for.
    #[must_use]
    pub fn story(&self) -> Vec<Entry> {
        self.inner().story.clone().unwrap_or_default()
    }

    /// All lines, where they were kept.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.inner().kept.clone().unwrap_or_default()
    }

    /// For each kind of fault, how long after each heal the cluster was well again.
    #[must_use]
    pub fn recovery(&self) -> BTreeMap<&'static str, Vec<Took>> {
        self.inner().recovery.times()
    }

    /// Faults that were alone, each with the time until the cluster was well again, or
    /// until now.
    #[must_use]
    pub fn recovered(&self) -> Vec<(&'static str, u64)> {
        self.inner().recovery.alone(now_us() / 1_000)
    }
}

impl Inner {
    fn line(&mut self, text: &str, node: Option<String>, weight: Weight) {
        let at = world::sim::universe::elapsed();
        let mut line = String::with_capacity(text.len() + 16);
        // Writing to a String cannot fail.
        let _ = write!(line, "{}.{:06} {text}", at.as_secs(), at.subsec_micros());
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        self.lines += 1;
        if let Some(machine) = lines::power_lost(text) {
            self.recovery.lost_power(machine);
        }
        if self.story.is_some() || self.file.is_some() {
            let (kind, told_of, job) = lines::about(text);
            let node = node.unwrap_or(told_of);
            self.keep(Entry { record: lines::record(now_us(), kind, &node, &job, text.to_owned()), weight });
        }
        if let Some(kept) = &mut self.kept {
            kept.push(line);
        }
    }

    fn keep(&mut self, entry: Entry) {
        self.write(&entry.record);
        // Commits say nothing to a person; what they decided does.
        if let Some(story) = self.story.as_mut().filter(|_| entry.record.kind != Kind::Commit) {
            story.push(entry);
        }
    }

    fn write(&mut self, record: &Record) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.record(record)
        {
            self.file = None;
            self.file_failed = Some(error);
        }
    }

    fn hex(&self) -> String {
        let hash = self.hash.clone().finalize();
        hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Virtual time.
fn now_us() -> u64 {
    u64::try_from(world::sim::universe::elapsed().as_micros()).expect("a run is shorter")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::trace::{Head, Reader};
    use std::io::Cursor;
    use std::time::Duration;
    use world::sim::universe;
    use world::time;

    /// Keeps what is written when the writer is gone.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A few lines over a few seconds; `None` where this build cannot simulate.
    fn play(trace: &Trace) -> Option<String> {
        let told = trace.clone();
        let fault = Fault::AgentKilled { agent: 2, down_ms: 700 };
        let story = move || async move {
            told.line("commit 1 00ff");
            time::sleep(time::ms(1_250)).await;
            told.struck(&fault);
            time::sleep(time::ms(700)).await;
            told.healed(&fault);
            told.line("ack submit lab-3 key");
            told.tell("the end");
        };
        universe::run(7, Duration::from_secs(60), story).ok()?;
        Some(trace.hash().0)
    }

    #[test]
    fn a_file_has_the_lines_that_the_hash_is_of() {
        let Some(alone) = play(&Trace::default()) else { return };
        let sink = Sink::default();
        let file = Writer::begin(Box::new(sink.clone()) as _, &Head::default()).unwrap();
        let trace = Trace::new(Wanted { lines: true, story: true, file: Some(file) });
        let hash = play(&trace).unwrap();
        assert_eq!(hash, alone, "to write it down changes nothing");
        trace.finish(9_000_000, "ok").unwrap();
        let bytes = sink.0.lock().unwrap().clone();
        let mut reader = Reader::open(Cursor::new(bytes)).unwrap();
        let (mut lines, mut verdict) = (Vec::new(), String::new());
        while let Some(record) = reader.next_record().unwrap() {
            match record.kind {
                Kind::Verdict => verdict = record.text,
                Kind::Decision => {}
                _ => lines.push(format!(
                    "{}.{:06} {}",
                    record.at_us / 1_000_000,
                    record.at_us % 1_000_000,
                    record.text
                )),
            }
        }
        assert_eq!(lines, trace.lines());
        let rehashed = Sha256::digest(format!("{}\n", lines.join("\n")));
        let rehashed: String = rehashed.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((verdict, rehashed), (format!("ok trace={alone}"), alone));
        assert_eq!(timeline(&trace.story()).len(), 3);
        assert_eq!(of_node(&trace.story(), "node-2").len(), 2);
    }
}
