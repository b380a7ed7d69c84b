//! Invariant 7: what a reader of a log got of each stream of each attempt is, byte
//! by byte and in order, what its process wrote, from the first byte on. And whoever
//! reads when all is over gets all of it and is told that it is the end, unless it expired.
//!
//! What a node gave up since it had no room is no exception: there is a line in its place
//! that says how many bytes that were, to the letter, and only where nodes keep less than
//! was written.
//!
//! What may be missing at the end: the rest of attempts whose ends were not told,
//! as of a node that is lost; what lay on a machine that lost power, of which pieces
//! may be gone and read as zeros, or on one that never comes back; what an agent gave
//! up since its disk could not be read. What befalls the server's disk excuses nothing:
//! agents keep what the server has not made durable.

use super::agreement::events;
use super::ends::{AttemptName, attempt_of};
use super::retries::is_own;
use super::{Checker, Committed, Outcome};
use crate::faults::Planned;
use crate::history::LogRead;
use crate::mirror::Mirror;
use crate::rows::JobName;
use proto::estimate::step_ranks;
use proto::gap;
use proto::v1::{Cause, CauseKind, LogChunk, State, Stream};
use std::collections::{BTreeMap, BTreeSet};
use world::sim::ProcessSpan;

#[derive(Default)]
pub struct LogsTrue {
    /// Attempts that completed, and those that failed by themselves.
    told: BTreeSet<(AttemptName, bool)>,
}

/// Step, task, rank, attempt: what a chunk says of whose it is. Attempts after a
/// user's retry have the numbers of those before it, and other epochs.
type Name = (u32, u64, u32, u32);

/// The processes of one job, by name and epoch. Of one epoch there are two where
/// the first was lost before anybody heard that it had begun.
type Written<'a> = BTreeMap<Name, BTreeMap<u64, Vec<&'a ProcessSpan>>>;

fn written<'a>(spans: &'a [ProcessSpan]) -> BTreeMap<JobName, Written<'a>> {
    let mut jobs: BTreeMap<JobName, Written<'a>> = BTreeMap::new();
    for span in spans {
        let Some(((job, step, task, attempt, epoch), rank)) = attempt_of(&span.key) else { continue };
        let names = jobs.entry(job).or_default();
        names.entry((step, task, rank, attempt)).or_default().entry(epoch).or_default().push(span);
    }
    jobs
}

fn name(chunk: &LogChunk) -> Name {
    (chunk.step, chunk.task, chunk.rank, chunk.attempt)
}

/// Standard output and standard error, in the order in which a process has them.
fn place(stream: Stream) -> Option<usize> {
    match stream {
        Stream::Stdout => Some(0),
        Stream::Stderr => Some(1),
        _ => None,
    }
}

/// Whether a process wrote this there.
fn wrote(span: &ProcessSpan, stream: usize, offset: u64, data: &[u8]) -> bool {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let Some(there) = span.streams[stream].get(from..from.saturating_add(data.len())) else { return false };
    there == data || span.torn && there.iter().zip(data).all(|(there, got)| there == got || *got == 0)
}

/// Whether it has written what was given up there.
fn gave_up(span: &ProcessSpan, stream: usize, chunk: &LogChunk, within_line: bool) -> bool {
    let until = chunk.offset.saturating_add(chunk.dropped_bytes);
    until <= span.streams[stream].len() as u64
        && *chunk.data == *gap::told(chunk.dropped_bytes, within_line).as_bytes()
}

/// How far a reader has come with each stream of a job, and whether he is within a line.
type Places = BTreeMap<(Name, u64, usize), (u64, bool)>;

/// Follows a reader; the places it came to.
fn follow(read: &LogRead, written: &Written<'_>, may_give_up: bool) -> Result<Places, String> {
    let mut places = Places::new();
    for chunk in &read.chunks {
        let name = name(chunk);
        let place = place(chunk.stream());
        let epochs = if place.is_some() { written.get(&name) } else { None };
        let stream = place.unwrap_or_default();
        let due = |epoch: &u64| places.get(&(name, *epoch, stream)).copied().unwrap_or_default();
        let follows = epochs.into_iter().flatten().find(|(epoch, spans)| {
            let (offset, within_line) = due(epoch);
            let mut spans = spans.iter();
            offset == chunk.offset
                && match chunk.dropped_bytes {
                    0 => spans.any(|span| wrote(span, stream, chunk.offset, &chunk.data)),
                    _ => may_give_up && spans.any(|span| gave_up(span, stream, chunk, within_line)),
                }
        });
        let Some((epoch, _)) = follows else {
            let dues: Vec<u64> = epochs.into_iter().flatten().map(|(epoch, _)| due(epoch).0).collect();
            let text: String = String::from_utf8_lossy(&chunk.data).chars().take(60).collect();
            return Err(format!(
                "a reader of {} got {} bytes at {} of {name:?} {:?}, where {dues:?} was due, or other bytes: {text:?}",
                read.job,
                chunk.data.len(),
                chunk.offset,
                chunk.stream()
            ));
        };
        let bytes = if chunk.dropped_bytes > 0 { chunk.dropped_bytes } else { chunk.data.len() as u64 };
        let within_line = chunk.data.last() != Some(&b'\n');
        places.insert((name, *epoch, stream), (chunk.offset + bytes, within_line));
    }
    Ok(places)
}

/// Whether some node was told more than it keeps.
fn may_give_up(outcome: &Outcome<'_>) -> bool {
    let bytes = |span: &ProcessSpan| span.streams.iter().map(|stream| stream.len() as u64).sum::<u64>();
    outcome.log_spool_bytes > 0 && outcome.spans.iter().map(bytes).sum::<u64>() > outcome.log_spool_bytes
}

/// Whether pieces of what it wrote may be missing at the end.
pub fn may_lack(faults: &[Planned], span: &ProcessSpan) -> bool {
    let lost = |planned: &Planned| {
        planned.fault.takes_for_good().is_some_and(|agent| span.node == format!("node-{agent}"))
    };
    span.torn || span.unread || faults.iter().any(lost)
}

impl LogsTrue {
    /// Whether its end was told, so that all it wrote is to be had.
    fn is_told(&self, outcome: &Outcome<'_>, attempt: &AttemptName) -> bool {
        let spec = outcome.mirror.jobs.get(&attempt.0).and_then(|row| row.spec.as_ref());
        let alone = spec
            .and_then(|spec| spec.steps.get(attempt.1 as usize))
            .is_some_and(|step| step_ranks(step) == 1);
        // Which rank of a gang failed it, events do not tell.
        self.told.contains(&(attempt.clone(), true)) || alone && self.told.contains(&(attempt.clone(), false))
    }

    fn is_whole(
        &self,
        outcome: &Outcome<'_>,
        read: &LogRead,
        written: &Written<'_>,
        places: &Places,
    ) -> Result<(), String> {
        let job = &read.job;
        let mut excused = false;
        for (name, epochs) in written {
            let (step, task, rank, attempt) = *name;
            for (epoch, spans) in epochs {
                let [span] = spans[..] else {
                    excused = true;
                    continue;
                };
                let lacks = may_lack(outcome.faults, span);
                excused |= lacks;
                if lacks || !self.is_told(outcome, &(job.clone(), step, task, attempt, *epoch)) {
                    continue;
                }
                for (stream, wrote) in span.streams.iter().enumerate() {
                    let (got, _) = places.get(&(*name, *epoch, stream)).copied().unwrap_or_default();
                    if got != wrote.len() as u64 {
                        return Err(format!(
                            "the log of {} has {got} bytes of stream {stream} at the end, of {} that rank {rank} wrote",
                            span.key,
                            wrote.len()
                        ));
                    }
                }
            }
        }
        match read.end {
            None => Err(format!("the log of {job} did not come to its end")),
            Some(missing) if missing > 0 && !excused => {
                Err(format!("the log of {job} ended with {missing} bytes missing, and none may be"))
            }
            Some(_) => Ok(()),
        }
    }
}

impl Checker for LogsTrue {
    fn name(&self) -> &'static str {
        "logs"
    }
    fn invariant(&self) -> u8 {
        7
    }

    fn commit(&mut self, _: &Mirror, commit: &Committed) -> Result<(), String> {
        for (tenant, event) in events(commit) {
            let Some(step) = event.step else { continue };
            let kind = event.cause.as_ref().map_or(CauseKind::Unspecified, Cause::kind);
            let completed = event.to() == State::Completed;
            let failed = matches!(event.to(), State::Pending | State::Failed) && is_own(kind);
            if !completed && !failed {
                continue;
            }
            let job = JobName { tenant: tenant.to_owned(), number: event.job_number };
            for task in event.tasks.iter().flat_map(|span| span.first..=span.last) {
                self.told.insert(((job.clone(), step, task, event.attempt, event.epoch), completed));
            }
        }
        Ok(())
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        let jobs = written(outcome.spans);
        let nothing = Written::new();
        for read in &outcome.history.logs {
            let written = jobs.get(&read.job).unwrap_or(&nothing);
            let places = follow(read, written, may_give_up(outcome))?;
            if read.whole && !outcome.mirror.has_expired(&read.job) {
                self.is_whole(outcome, read, written, &places)?;
            }
        }
        Ok(())
    }
}
