//! Slips in what readers of logs got.

use super::Class;
use super::outcome::completed;
use crate::checkers::{attempt_of, may_lack};
use crate::history::LogRead;
use crate::recording::Recording;
use proto::v1::{LogChunk, Stream};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
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
];

fn read(
    rec: &mut Recording,
    rng: &mut SmallRng,
    is: impl Fn(&LogRead) -> bool,
    by: impl FnOnce(&mut LogRead, &mut SmallRng) -> Option<()>,
) -> Option<()> {
    let reads = 0..rec.history.logs.len();
    let such: Vec<usize> = reads.filter(|at| is(&rec.history.logs[*at])).collect();
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
    let keys: Vec<(crate::rows::JobName, bool)> = rec
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
