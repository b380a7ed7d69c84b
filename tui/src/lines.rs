//! Log chunks to lines that tell where they are from.
//!
//! A chunk may end anywhere in a line; each stream's beginning of a line is held
//! until its end comes, so that lines of many tasks never mix.

use crate::limits::{LINE_BYTES_MAX, LINES_HELD_MAX};
use proto::{
    array, estimate,
    v1::{JobSpec, LogChunk, Stream},
};
use std::collections::BTreeMap;

/// Which stream of which attempt a chunk belongs to.
type Source = (u32, u64, u32, u32, i32);

/// Whole lines for one of our own two streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    /// For standard error, else for standard output.
    pub error: bool,
    /// Ready to be written.
    pub bytes: Vec<u8>,
}

/// Puts `step[index] |` before each line.
#[derive(Clone, Debug, Default)]
pub struct Prefixer {
    /// Name, and whether its tasks have indexes, of each step.
    steps: Vec<Named>,
    /// Only bytes, no names.
    raw: bool,
    held: BTreeMap<Source, Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Named {
    name: String,
    array: Option<proto::v1::ArraySpec>,
    gang: bool,
}

impl Prefixer {
    /// For the steps of a job.
    #[must_use]
    pub fn new(spec: &JobSpec, raw: bool) -> Self {
        let steps = spec
            .steps
            .iter()
            .map(|step| Named {
                name: step.name.clone(),
                array: step.array.clone(),
                gang: estimate::is_gang(step),
            })
            .collect();
        Self { steps, raw, held: BTreeMap::new() }
    }

    /// What can be printed now that this chunk has come.
    pub fn push(&mut self, chunk: &LogChunk) -> Option<Lines> {
        let error = chunk.stream() == Stream::Stderr;
        if self.raw {
            return (!chunk.data.is_empty()).then(|| Lines { error, bytes: chunk.data.to_vec() });
        }
        let prefix = self.prefix(chunk.step, chunk.task, chunk.rank);
        let source = (chunk.step, chunk.task, chunk.rank, chunk.attempt, chunk.stream);
        let held = self.held.entry(source).or_default();
        held.extend_from_slice(&chunk.data);
        let mut bytes = Vec::new();
        let mut from = 0;
        while let Some(end) = held[from..].iter().position(|byte| *byte == b'\n') {
            push_line(&mut bytes, &prefix, &held[from..from + end]);
            from += end + 1;
        }
        held.drain(..from);
        if held.len() >= LINE_BYTES_MAX {
            push_line(&mut bytes, &prefix, held);
            held.clear();
        }
        if held.is_empty() {
            self.held.remove(&source);
        } else if self.held.len() > LINES_HELD_MAX {
            // Tasks by the thousand whose last line never ends.
            let rest = self.held.remove(&source).unwrap_or_default();
            push_line(&mut bytes, &prefix, &rest);
        }
        (!bytes.is_empty()).then_some(Lines { error, bytes })
    }

    /// Lines that never ended, once nothing more comes.
    pub fn finish(&mut self) -> Vec<Lines> {
        let held = std::mem::take(&mut self.held);
        held.into_iter()
            .map(|((step, task, rank, _, stream), rest)| {
                let mut bytes = Vec::new();
                push_line(&mut bytes, &self.prefix(step, task, rank), &rest);
                Lines { error: stream == i32::from(Stream::Stderr), bytes }
            })
            .collect()
    }

    fn prefix(&self, step: u32, task: u64, rank: u32) -> String {
        let Some(named) = usize::try_from(step).ok().and_then(|at| self.steps.get(at)) else {
            return format!("step {step} | ");
        };
        match (&named.array, named.gang) {
            (Some(array), _) => {
                format!("{}[{}] | ", named.name, array::index_of(array, task).unwrap_or(task))
            }
            (None, true) => format!("{}[{rank}] | ", named.name),
            (None, false) => format!("{} | ", named.name),
        }
    }
}

fn push_line(bytes: &mut Vec<u8>, prefix: &str, line: &[u8]) {
    bytes.extend_from_slice(prefix.as_bytes());
    bytes.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::Step;

    fn spec() -> JobSpec {
        let step = |name: &str| Step { name: name.to_owned(), ..Step::default() };
        JobSpec {
            steps: vec![
                step("split"),
                Step { array: Some(array::parse("10-20:5").unwrap()), ..step("count") },
                Step { nodes: 2, tasks_per_node: 2, ..step("gang") },
            ],
            ..JobSpec::default()
        }
    }

    fn chunk(step: u32, task: u64, rank: u32, text: &str) -> LogChunk {
        LogChunk {
            step,
            task,
            rank,
            attempt: 1,
            stream: Stream::Stdout.into(),
            data: text.as_bytes().to_vec().into(),
            ..LogChunk::default()
        }
    }

    fn text(lines: Option<Lines>) -> String {
        lines.map(|lines| String::from_utf8(lines.bytes).unwrap()).unwrap_or_default()
    }

    #[test]
    fn lines_of_many_tasks_never_mix() {
        let mut prefixer = Prefixer::new(&spec(), false);
        assert_eq!(text(prefixer.push(&chunk(1, 0, 0, "one\ntw"))), "count[10] | one\n");
        assert_eq!(text(prefixer.push(&chunk(1, 2, 0, "three\r\n"))), "count[20] | three\n");
        assert_eq!(text(prefixer.push(&chunk(1, 0, 0, "o\n\n"))), "count[10] | two\ncount[10] | \n");
        assert_eq!(text(prefixer.push(&chunk(2, 0, 3, "rank\n"))), "gang[3] | rank\n");
        assert_eq!(text(prefixer.push(&chunk(0, 0, 0, "no end"))), "");
        assert_eq!(
            text(prefixer.push(&LogChunk { stream: Stream::Stderr.into(), ..chunk(0, 0, 0, "x\n") })),
            "split | x\n"
        );
        let rest = prefixer.finish();
        assert_eq!(rest, [Lines { error: false, bytes: b"split | no end\n".to_vec() }]);
        assert!(prefixer.finish().is_empty());
    }

    #[test]
    fn a_line_without_end_is_not_held_for_ever() {
        let mut prefixer = Prefixer::new(&spec(), false);
        let long = "x".repeat(LINE_BYTES_MAX);
        assert_eq!(text(prefixer.push(&chunk(0, 0, 0, &long))).len(), LINE_BYTES_MAX + "split | \n".len());
    }

    #[test]
    fn beginnings_of_many_tasks_are_not_all_held() {
        let mut prefixer = Prefixer::new(&spec(), false);
        let printed = (0..2 * LINES_HELD_MAX as u64)
            .filter(|task| prefixer.push(&chunk(1, *task, 0, "no end")).is_some())
            .count();
        assert_eq!((printed, prefixer.held.len()), (LINES_HELD_MAX, LINES_HELD_MAX));
    }

    #[test]
    fn raw_is_the_bytes_alone() {
        let mut prefixer = Prefixer::new(&spec(), true);
        assert_eq!(text(prefixer.push(&chunk(1, 0, 0, "a\nb"))), "a\nb");
        assert!(prefixer.push(&chunk(1, 0, 0, "")).is_none());
    }
}
