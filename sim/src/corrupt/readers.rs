//! Slips in what readers of logs and outputs got.
//!
//! Where a task gives the same bytes in two tries nobody can tell which of them was
//! told; so what a retry undid is told only where it differs.

use super::Class;
use super::outcome::completed;
use crate::checkers::{attempt_of, may_lack};
use crate::history::{LogRead, OutputsRead};
use crate::recording::Recording;
use crate::rows::{JobName, Row};
use proto::estimate;
use proto::v1::{JobSpec, LogChunk, State, Step, StepOutputs, Stream, TaskOutputs};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedMutRandom, IndexedRandom};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const CLASSES: &[Class] = &[
    Class { name: "log-byte-wrong", by: &["logs"], spoil: byte_wrong },
    Class { name: "log-bytes-twice", by: &["logs"], spoil: twice },
    Class { name: "log-bytes-between-lost", by: &["logs"], spoil: between_lost },
    Class { name: "log-out-of-order", by: &["logs"], spoil: out_of_order },
    Class { name: "log-of-another-attempt", by: &["logs"], spoil: another_attempt },
    Class { name: "log-of-the-other-stream", by: &["logs"], spoil: other_stream },
    Class { name: "log-cut-short", by: &["logs"], spoil: cut_short },
    Class { name: "log-without-its-end", by: &["logs"], spoil: without_end },
    Class { name: "log-with-bytes-given-up", by: &["logs"], spoil: given_up },
    Class { name: "outputs-of-half-a-gang", by: &["outputs"], spoil: half_a_gang },
    Class { name: "outputs-undone-by-a-retry", by: &["outputs"], spoil: undone },
    Class { name: "outputs-left-out", by: &["outputs"], spoil: left_out },
    Class { name: "outputs-twice", by: &["outputs"], spoil: told_twice },
    Class { name: "outputs-of-nobody", by: &["outputs"], spoil: of_nobody },
];

fn read(
    rec: &mut Recording,
    rng: &mut SmallRng,
    is: impl Fn(&LogRead) -> bool,
    by: impl FnOnce(&mut LogRead, &mut SmallRng) -> Option<()>,
) -> Option<()> {
    let (logs, expired) = (&rec.history.logs, rec.expired());
    let is = |read: &LogRead| !expired.contains(&read.job) && is(read);
    let such: Vec<usize> = (0..logs.len()).filter(|at| is(&logs[*at])).collect();
    let at = such.choose(rng).copied()?;
    by(Arc::make_mut(&mut rec.history.logs[at]), rng)
}

fn any_chunk(
    rec: &mut Recording,
    rng: &mut SmallRng,
    by: impl FnOnce(&mut Vec<LogChunk>, usize, &mut SmallRng),
) -> Option<()> {
    read(
        rec,
        rng,
        |read| !read.chunks.is_empty(),
        |read, rng| {
            let at = rng.random_range(0..read.chunks.len());
            by(&mut read.chunks, at, rng);
            Some(())
        },
    )
}

fn byte_wrong(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    any_chunk(rec, rng, |chunks, at, rng| {
        let mut data = chunks[at].data.to_vec();
        let byte = rng.random_range(0..data.len());
        data[byte] ^= 1;
        chunks[at].data = data.into();
    })
}

fn twice(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    any_chunk(rec, rng, |chunks, at, _| chunks.insert(at + 1, chunks[at].clone()))
}

fn another_attempt(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    any_chunk(rec, rng, |chunks, at, _| chunks[at].attempt += 50)
}

/// Their lines begin with other words; of bytes that a power loss took nobody knows.
fn other_stream(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let whole = |chunk: &LogChunk| !chunk.data.contains(&0);
    read(
        rec,
        rng,
        |read| read.chunks.iter().any(whole),
        |read, rng| {
            let such: Vec<usize> = (0..read.chunks.len()).filter(|at| whole(&read.chunks[*at])).collect();
            let chunk = &mut read.chunks[*such.choose(rng)?];
            let other = if chunk.stream() == Stream::Stdout { Stream::Stderr } else { Stream::Stdout };
            chunk.set_stream(other);
            Some(())
        },
    )
}

/// A chunk and the one that goes on where it ends.
fn neighbours(read: &LogRead) -> Vec<(usize, usize)> {
    let of = |chunk: &LogChunk| (chunk.step, chunk.task, chunk.rank, chunk.attempt, chunk.stream);
    let mut pairs = Vec::new();
    for (at, chunk) in read.chunks.iter().enumerate() {
        let end = chunk.offset + chunk.data.len() as u64;
        let goes_on = |next: &LogChunk| of(next) == of(chunk) && next.offset == end;
        let next = (at + 1..read.chunks.len()).find(|next| goes_on(&read.chunks[*next]));
        pairs.extend(next.map(|next| (at, next)));
    }
    pairs
}

fn between_lost(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    read(
        rec,
        rng,
        |read| !neighbours(read).is_empty(),
        |read, rng| {
            let (at, _) = *neighbours(read).choose(rng)?;
            read.chunks.remove(at);
            Some(())
        },
    )
}

fn out_of_order(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    read(
        rec,
        rng,
        |read| !neighbours(read).is_empty(),
        |read, rng| {
            let (at, next) = *neighbours(read).choose(rng)?;
            read.chunks.swap(at, next);
            Some(())
        },
    )
}

/// Of an attempt that completed, and lay on a machine that lost nothing.
fn cut_short(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let completed = completed(rec);
    let whole = |span: &&world::sim::ProcessSpan| {
        let once = rec.spans.iter().filter(|other| other.key == span.key).count() == 1;
        once && span.streams.iter().any(|stream| !stream.is_empty())
            && !may_lack(&rec.faults, span)
            && attempt_of(&span.key).is_some_and(|(attempt, _)| completed.contains(&attempt))
    };
    let spans: Vec<_> = rec.spans.iter().filter(whole).collect();
    let ((job, step, task, attempt, _), rank) = attempt_of(&spans.choose(rng)?.key)?;
    read(
        rec,
        rng,
        |read| read.whole && read.job == job,
        |read, _| {
            let is = |chunk: &LogChunk| {
                (chunk.step, chunk.task, chunk.rank, chunk.attempt) == (step, task, rank, attempt)
            };
            let last = read.chunks.iter().rposition(is)?;
            let cut = read.chunks[last].offset;
            read.chunks.retain(|chunk| !is(chunk) || chunk.offset < cut);
            Some(())
        },
    )
}

fn without_end(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    read(
        rec,
        rng,
        |read| read.whole,
        |read, _| {
            read.end = None;
            Some(())
        },
    )
}

/// Where nothing that the job wrote lay on a machine that lost anything.
fn given_up(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let keys: Vec<(JobName, bool)> = rec
        .spans
        .iter()
        .filter_map(|span| {
            let again = rec.spans.iter().filter(|other| other.key == span.key).count() > 1;
            Some((attempt_of(&span.key)?.0.0, may_lack(&rec.faults, span) || again))
        })
        .collect();
    let sound = |read: &LogRead| keys.iter().all(|(job, excused)| *job != read.job || !excused);
    read(
        rec,
        rng,
        |read| read.whole && sound(read),
        |read, _| {
            read.end = Some(5);
            Some(())
        },
    )
}

/// A step of which a reader was told the outputs: which read, and which of its steps.
fn told(
    rec: &Recording,
    rng: &mut SmallRng,
    is: impl Fn(&OutputsRead, &StepOutputs) -> bool,
) -> Option<(usize, usize)> {
    let mut such = Vec::new();
    for (at, read) in rec.history.outputs.iter().enumerate() {
        such.extend((0..read.steps.len()).filter(|step| is(read, &read.steps[*step])).map(|step| (at, step)));
    }
    such.choose(rng).copied()
}

fn told_step(rec: &mut Recording, (read, step): (usize, usize)) -> &mut StepOutputs {
    &mut Arc::make_mut(&mut rec.history.outputs[read]).steps[step]
}

/// The jobs' specs as they were stored.
struct Specs(BTreeMap<JobName, JobSpec>);

impl Specs {
    fn of(rec: &Recording) -> Self {
        let rows = rec.commits.iter().flat_map(|commit| &commit.rows);
        let specs = rows.filter_map(|row| match row {
            Row::Job(job, Some(row)) => Some((job.clone(), row.spec.clone()?)),
            _ => None,
        });
        Self(specs.collect())
    }

    /// The step's number, and itself.
    fn step(&self, job: &JobName, name: &str) -> Option<(usize, &Step)> {
        self.0.get(job)?.steps.iter().enumerate().find(|(_, step)| step.name == name)
    }

    fn is_gang(&self, read: &OutputsRead, told: &StepOutputs) -> bool {
        self.step(&read.job, &told.step).is_some_and(|(_, step)| estimate::is_gang(step))
    }
}

fn half_a_gang(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let specs = Specs::of(rec);
    let at = told(rec, rng, |read, told| told.tasks.len() > 1 && specs.is_gang(read, told))?;
    let tasks = &mut told_step(rec, at).tasks;
    let gone = rng.random_range(0..tasks.len());
    tasks.remove(gone);
    Some(())
}

/// To a reader that came after the step began anew.
fn undone(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let (outputs, specs) = (&rec.history.outputs, Specs::of(rec));
    let state = |read: &OutputsRead, told: &StepOutputs| {
        let (number, _) = specs.step(&read.job, &told.step)?;
        read.state.steps.get(number).cloned()
    };
    // What the step gave again, too late for that reader, nobody could tell from it.
    let gave_again = |job: &JobName, told: &StepOutputs, since: u32| {
        let number = specs.step(job, &told.step).map(|(number, _)| number as u32);
        rec.commits.iter().flat_map(|commit| &commit.rows).any(|row| match row {
            Row::Manifest { job: of, step, row: Some(manifest), .. } => {
                let same = |task: &TaskOutputs| {
                    let artifacts = task.artifacts.iter().filter_map(|link| link.artifact.as_ref());
                    artifacts.eq(&manifest.artifacts)
                };
                of == job
                    && Some(*step) == number
                    && manifest.generation.is_some_and(|is| is >= since)
                    && told.tasks.iter().any(same)
            }
            _ => false,
        })
    };
    let mut such = Vec::new();
    for read in outputs {
        for told in &read.steps {
            let Some(was) = state(read, told) else { continue };
            for (later, after) in outputs.iter().enumerate() {
                let begun_anew = after.job == read.job
                    && state(after, told).is_some_and(|now| {
                        now.reset_generation > was.generation
                            && !gave_again(&read.job, told, now.reset_generation)
                    });
                if begun_anew {
                    such.push((later, told.clone()));
                }
            }
        }
    }
    let (later, told) = such.choose(rng)?.clone();
    Arc::make_mut(&mut rec.history.outputs[later]).steps.push(told);
    Some(())
}

/// Of a job that was over: nothing more completes there.
fn left_out(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let specs = Specs::of(rec);
    let at = told(rec, rng, |read, told| {
        let over = matches!(read.state.state(), State::Completed | State::Failed | State::Cancelled);
        over && !specs.is_gang(read, told)
    })?;
    let tasks = &mut told_step(rec, at).tasks;
    let gone = rng.random_range(0..tasks.len());
    tasks.remove(gone);
    Some(())
}

fn told_twice(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = told(rec, rng, |_, _| true)?;
    let tasks = &mut told_step(rec, at).tasks;
    tasks.push(tasks.choose(rng)?.clone());
    Some(())
}

fn of_nobody(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = told(rec, rng, |_, _| true)?;
    let link = told_step(rec, at).tasks.choose_mut(rng)?.artifacts.choose_mut(rng)?;
    link.artifact.as_mut()?.digest = "0".repeat(64);
    Some(())
}
