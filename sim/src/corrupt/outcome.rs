//! Slips in manifests, bytes and processes, and in how it all ended.
//!
//! That an acknowledged cancel left a job alive is not made here: in a run that
//! drained every job has ended, so there is none it could be said of.

use super::{At, Class, change};
use crate::bounds;
use crate::checkers::{Moved, attempt_of, must_have_ended_ms};
use crate::recording::Recording;
use crate::rows::{JobName, Row};
use proto::v1::{Cause, CauseKind, ManifestRow, RankEnd, State};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use world::sim::{LaunchAsked, ProcessSpan};

pub const CLASSES: &[Class] = &[
    Class { name: "completed-without-its-manifest", by: &["artifacts", "stored"], spoil: manifest_lost },
    Class {
        name: "manifest-of-another-epoch",
        by: &["fencing", "artifacts"],
        spoil: |rec, rng| manifest(rec, rng, |row| row.epoch += 1),
    },
    Class {
        name: "manifest-of-another-attempt",
        by: &["fencing", "artifacts"],
        spoil: |rec, rng| manifest(rec, rng, |row| row.attempt += 1),
    },
    Class { name: "bytes-of-an-input-gone", by: &["kept"], spoil: input_gone },
    Class { name: "bytes-of-an-upload-gone", by: &["kept"], spoil: upload_gone },
    Class { name: "upload-counts-and-has-no-row", by: &["ledger"], spoil: upload_not_written },
    Class { name: "zombie-commits-late", by: &["fencing", "one-manifest"], spoil: zombie },
    Class {
        name: "digest-of-other-bytes",
        by: &["artifacts"],
        spoil: |rec, rng| manifest(rec, rng, |row| row.artifacts[0].digest = "0".repeat(64)),
    },
    Class {
        name: "artifact-of-another-name",
        by: &["artifacts"],
        spoil: |rec, rng| manifest(rec, rng, |row| row.artifacts[0].path.push('~')),
    },
    Class { name: "bytes-gone", by: &["artifacts"], spoil: bytes_gone },
    Class { name: "foreign-byte-in-an-output", by: &["artifacts"], spoil: foreign_byte },
    Class { name: "begun-among-files-of-others", by: &["artifacts"], spoil: foreign_file },
    Class {
        name: "input-of-other-bytes",
        by: &["inputs"],
        spoil: |rec, rng| input(rec, rng, |inputs| inputs[0].1 = Some("0".repeat(64))),
    },
    Class {
        name: "input-not-laid",
        by: &["inputs"],
        spoil: |rec, rng| input(rec, rng, |inputs| drop(inputs.remove(0))),
    },
    Class {
        name: "input-of-another-job",
        by: &["inputs"],
        spoil: |rec, rng| input(rec, rng, |inputs| inputs.push(("stranger".to_owned(), None))),
    },
    Class {
        name: "moved-more-than-it-may",
        by: &["paced"],
        spoil: |rec, rng| moved(rec, rng, |moved| moved.counts.most_in_a_second = moved.bytes_per_s + 1),
    },
    Class {
        name: "took-a-forged-url",
        by: &["unforged"],
        spoil: |rec, _| {
            rec.transfers.first_mut()?.counts.forged_taken += 1;
            Some(())
        },
    },
    Class {
        name: "stormed-a-broken-source",
        by: &["no-storm"],
        spoil: |rec, rng| moved(rec, rng, |moved| moved.counts.most_in_vain_a_minute += 100),
    },
    Class { name: "stranger-in-a-directory", by: &["inputs"], spoil: stranger_in_a_tree },
    Class { name: "link-of-a-directory-leads-elsewhere", by: &["inputs"], spoil: link_elsewhere },
    Class { name: "completed-and-never-ran", by: &["ends-true"], spoil: never_ran },
    Class { name: "a-rank-did-not-end", by: &["ends-true"], spoil: rank_missing },
    Class { name: "a-rank-launched-alone", by: &["gangs-start"], spoil: alone },
    Class { name: "a-rank-outlives-its-gang", by: &["gangs-end"], spoil: outlives },
    Class { name: "a-process-outlives-its-attempt", by: &["while-bound"], spoil: outlives_its_attempt },
    Class { name: "a-process-starts-too-soon", by: &["while-bound"], spoil: starts_too_soon },
    Class { name: "a-process-that-nobody-bound", by: &["while-bound"], spoil: bound_by_nobody },
    Class { name: "two-epochs-side-by-side", by: &["epochs-apart"], spoil: side_by_side },
    Class { name: "never-ends", by: &["liveness"], spoil: never_ends },
    Class { name: "well-again-too-late", by: &["liveness"], spoil: well_late },
    Class { name: "nothing-goes-on", by: &["liveness"], spoil: quiet },
    Class { name: "held-by-nobody", by: &["liveness", "fencing"], spoil: held },
];

/// Manifests that stay: one that is written once more is made good by that.
fn any_manifest(rec: &Recording, rng: &mut SmallRng) -> Option<At> {
    rec.draw(rng, |at, row| match row {
        Row::Manifest { job, step, task, rank, row: Some(row) } => {
            let again = rec.after(at, |other| match other {
                Row::Manifest { job: j, step: s, task: t, rank: r, .. } => {
                    ((j, s, t, r) == (job, step, task, rank)).then_some(())
                }
                _ => None,
            });
            !row.artifacts.is_empty() && again.is_none()
        }
        _ => false,
    })
}

fn manifest(rec: &mut Recording, rng: &mut SmallRng, by: impl FnOnce(&mut ManifestRow)) -> Option<()> {
    let at = any_manifest(rec, rng)?;
    match rec.row(at) {
        Row::Manifest { row, .. } => change(row, by),
        _ => None,
    }
}

/// How the transfers of a node went that has a limit.
fn moved(rec: &mut Recording, rng: &mut SmallRng, spoil: fn(&mut Moved)) -> Option<()> {
    let limited = (0..rec.transfers.len()).filter(|at| rec.transfers[*at].bytes_per_s > 0);
    let at = *limited.collect::<Vec<_>>().choose(rng)?;
    spoil(&mut rec.transfers[at]);
    Some(())
}

/// Of an attempt that completed: a gang that was cancelled while it committed
/// may leave one that nobody reads.
fn manifest_lost(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_manifest(rec, rng)?;
    let Row::Manifest { job, step, task, row: Some(row), .. } = rec.row_at(at) else { return None };
    completed(rec).contains(&(job.clone(), *step, *task, row.attempt, row.epoch)).then_some(())?;
    rec.remove(at)
}

fn zombie(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_manifest(rec, rng)?;
    let mut row = rec.row_at(at).clone();
    if let Row::Manifest { row, .. } = &mut row {
        change(row, |row| row.attempt += 1)?;
    }
    rec.append(row);
    Some(())
}

fn input_gone(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let rows = rec.commits.iter().flat_map(|commit| &commit.rows);
    let inputs = rows.filter_map(|row| match row {
        Row::Job(job, Some(row)) => Some((&job.tenant, &row.spec.as_ref()?.inputs)),
        _ => None,
    });
    let uploaded = inputs.flat_map(|(tenant, inputs)| {
        let uploaded = inputs.iter().filter(|input| input.url.is_empty());
        uploaded.map(|input| (tenant.clone(), input.digest.clone()))
    });
    let object = uploaded.collect::<Vec<_>>().choose(rng)?.clone();
    rec.objects.remove(&object).then_some(())
}

/// One that still counts at the end.
fn upload_gone(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let mut kept = BTreeSet::new();
    for row in rec.commits.iter().flat_map(|commit| &commit.rows) {
        let Row::Upload { tenant, digest, row } = row else { continue };
        let object = (tenant.clone(), digest.clone());
        _ = if row.is_some() { kept.insert(object) } else { kept.remove(&object) };
    }
    let object = kept.into_iter().collect::<Vec<_>>().choose(rng)?.clone();
    rec.objects.remove(&object).then_some(())
}

fn upload_not_written(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at =
        rec.draw(rng, |_, row| matches!(row, Row::Upload { row: Some(row), .. } if row.size_bytes > 0))?;
    rec.remove(at)
}

fn bytes_gone(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_manifest(rec, rng)?;
    let Row::Manifest { job, row: Some(row), .. } = rec.row_at(at) else { return None };
    let object = (job.tenant.clone(), row.artifacts[0].digest.clone());
    rec.objects.remove(&object).then_some(())
}

type Attempt = (JobName, u32, u64, u32, u64);

/// Attempts that completed their tasks.
pub(super) fn completed(rec: &Recording) -> BTreeSet<Attempt> {
    let mut completed = BTreeSet::new();
    for row in rec.commits.iter().flat_map(|commit| &commit.rows) {
        let Row::Events { tenant, row: Some(row), .. } = row else { continue };
        for event in row.events.iter().filter(|event| event.to() == State::Completed) {
            let (Some(step), job) =
                (event.step, JobName { tenant: tenant.clone(), number: event.job_number })
            else {
                continue;
            };
            for task in event.tasks.iter().flat_map(|span| span.first..=span.last) {
                completed.insert((job.clone(), step, task, event.attempt, event.epoch));
            }
        }
    }
    completed
}

/// A process of an attempt that completed.
fn span(
    rec: &mut Recording,
    rng: &mut SmallRng,
    is: impl Fn(&ProcessSpan, u32) -> bool,
    by: impl FnOnce(&mut ProcessSpan),
) -> Option<()> {
    let (completed, expired) = (completed(rec), rec.expired());
    let such = |span: &&mut ProcessSpan| {
        let Some((name, rank)) = attempt_of(&span.key) else { return false };
        span.succeeded && completed.contains(&name) && !expired.contains(&name.0) && is(span, rank)
    };
    let mut spans: Vec<&mut ProcessSpan> = rec.spans.iter_mut().filter(such).collect();
    let index = (0..spans.len()).collect::<Vec<_>>().choose(rng).copied()?;
    by(spans[index]);
    Some(())
}

/// Of the last attempt to complete its task: what an earlier one gave, before a user's
/// retry, nobody reads any more. Of a file that changed while it was collected any
/// digest is true: all are spoiled.
fn foreign_byte(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let mut last = BTreeMap::new();
    for (job, step, task, _, epoch) in completed(rec) {
        let newest = last.entry((job, step, task)).or_insert(epoch);
        *newest = epoch.max(*newest);
    }
    let is_last = |span: &ProcessSpan| {
        let ((job, step, task, _, epoch), _) = attempt_of(&span.key)?;
        (*last.get(&(job, step, task))? == epoch).then_some(())
    };
    let is = |span: &ProcessSpan, _| !span.wrote.is_empty() && is_last(span).is_some();
    let spoil = |span: &mut ProcessSpan| {
        span.wrote.iter_mut().for_each(|(_, digest)| *digest = "f".repeat(64));
    };
    span(rec, rng, is, spoil)
}

fn input(rec: &mut Recording, rng: &mut SmallRng, by: fn(&mut Vec<(String, Option<String>)>)) -> Option<()> {
    span(rec, rng, |span, _| !span.inputs.is_empty(), |span| by(&mut span.inputs))
}

fn stranger_in_a_tree(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let tree = |span: &ProcessSpan| span.inputs.iter().position(|(path, _)| path.ends_with('/'));
    span(
        rec,
        rng,
        |span, _| tree(span).is_some(),
        |span| {
            let at = tree(span).expect("it has one");
            let stranger = format!("{}stranger", span.inputs[at].0);
            span.inputs.push((stranger, None));
        },
    )
}

fn link_elsewhere(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let is_link =
        |(_, word): &(String, Option<String>)| word.as_ref().is_some_and(|word| word.starts_with("->"));
    span(
        rec,
        rng,
        |span, _| span.inputs.iter().any(is_link),
        |span| {
            let link = span.inputs.iter_mut().find(|entry| is_link(entry)).expect("it has one");
            link.1 = Some("-> ../elsewhere".to_owned());
        },
    )
}

fn foreign_file(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    span(rec, rng, |_, _| true, |span| span.found.push("stranger".to_owned()))
}

fn never_ran(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    span(rec, rng, |_, _| true, |span| span.succeeded = false)
}

fn rank_missing(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    span(rec, rng, |_, rank| rank > 0, |span| span.succeeded = false)
}

/// Of ranks that a node launched together, one a moment later.
fn alone(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let places = |launch: &LaunchAsked| {
        let (attempt, rank) = attempt_of(&launch.key)?;
        Some((attempt, rank, launch.node.clone(), launch.at_ms))
    };
    let all: Vec<_> = rec.launches.iter().map(places).collect();
    let together: BTreeSet<_> = all.iter().flatten().cloned().collect();
    let beside = |at: &usize| {
        let Some((attempt, rank, node, at_ms)) = &all[*at] else { return false };
        rank.checked_sub(1)
            .is_some_and(|other| together.contains(&(attempt.clone(), other, node.clone(), *at_ms)))
    };
    let such: Vec<usize> = (0..all.len()).filter(beside).collect();
    let at = such.choose(rng).copied()?;
    rec.launches[at].at_ms += 1;
    Some(())
}

/// A row tells that a gang lost its first rank, and another, on a node that was
/// well, ran on for long.
fn outlives(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let others = |span: &ProcessSpan| {
        let (attempt, rank) = attempt_of(&span.key)?;
        (rank > 0).then_some((attempt, (span.node.clone(), span.ended_ms?)))
    };
    let others: Vec<_> = rec.spans.iter().filter_map(others).collect();
    let at = rec.draw(rng, |at, row| {
        let Row::Block { job, step, row: Some(block), .. } = row else { return false };
        let [run] = &block.active[..] else { return false };
        let Some(task) = run.tasks.filter(|_| block.ranks.is_empty()) else { return false };
        let attempt = (job.clone(), *step, task.first, run.attempt, run.epoch);
        let lost_ms = rec.commits[at.commit].at_ms;
        others.iter().filter(|(name, _)| *name == attempt).any(|(_, (node, ended_ms))| {
            must_have_ended_ms(&rec.faults, node, lost_ms).is_some_and(|due_ms| *ended_ms > due_ms)
        })
    })?;
    let why = Cause { kind: CauseKind::Exit.into(), ..Cause::default() };
    match rec.row(at) {
        Row::Block { row, .. } => {
            change(row, |row| row.ranks.push(RankEnd { cause: Some(why), ..RankEnd::default() }))
        }
        _ => None,
    }
}

/// In a run that drained every attempt is over.
fn outlives_its_attempt(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let last_ms = rec.commits.last()?.at_ms;
    span(rec, rng, |_, _| true, |span| span.ended_ms = Some(last_ms + 1))
}

/// Before anything was durable. Not one that a restart found: it may have been bound
/// at any time since the commit before.
fn starts_too_soon(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    span(rec, rng, |_, _| true, |span| span.started_ms = 0)
}

fn bound_by_nobody(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let mut other = rec.spans.choose(rng)?.clone();
    let (rest, epoch) = other.key.rsplit_once('/')?;
    other.key = format!("{rest}/{}", epoch.parse::<u64>().ok()? + 1_000_000);
    // Longer than any restart.
    other.ended_ms = None;
    rec.spans.push(other);
    Some(())
}

/// Of one that took time: where it did not, nothing can be beside it.
fn side_by_side(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let took = |span: &&ProcessSpan| span.ended_ms.is_some_and(|ended_ms| ended_ms > span.started_ms + 1);
    let spans: Vec<&ProcessSpan> = rec.spans.iter().filter(took).collect();
    let mut other = (*spans.choose(rng)?).clone();
    let (rest, epoch) = other.key.rsplit_once('/')?;
    let epoch: u64 = epoch.parse().ok()?;
    other.key = format!("{rest}/{}", epoch + 1);
    other.started_ms += 1;
    rec.spans.push(other);
    Some(())
}

fn never_ends(rec: &mut Recording, _: &mut SmallRng) -> Option<()> {
    rec.drained = Err("a job is still there".to_owned());
    Some(())
}

/// A later epoch than any, of a step that a job has.
fn held(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = rec.draw(rng, |_, row| matches!(row, Row::Grant { row: Some(_), .. }))?;
    let Row::Grant { tenant, row: Some(row), .. } = rec.row_at(at).clone() else { return None };
    let mut row = (*row).clone();
    row.epoch += 1_000_000;
    rec.append(Row::Grant { tenant, epoch: row.epoch, row: Some(Arc::new(row)) });
    Some(())
}

/// A fault that was alone, felt past its bound.
fn well_late(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let kind = rec.faults.choose(rng)?.fault.kind();
    rec.recovered.push((kind, bounds::felt_ms(kind) + 1));
    Some(())
}

/// All was well, a job lived, and then there was a long silence: all that came after
/// came later.
fn quiet(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let well_ms = bounds::well_ms(&rec.faults);
    let last = rec.draw(rng, |at, row| match row {
        Row::State(job, Some(row)) => {
            let ends = matches!(row.state(), State::Completed | State::Failed | State::Cancelled);
            let lived = |other: &Row| super::state_of(other, job);
            ends && rec.commits[at.commit].at_ms > well_ms
                && rec.before(at, lived).is_some_and(|was| was.state() == State::Running)
        }
        _ => false,
    })?;
    for commit in &mut rec.commits[last.commit..] {
        let commit = Arc::make_mut(commit);
        commit.at_ms += well_ms + 2 * bounds::QUIET_MS;
        commit.since_ms += well_ms + 2 * bounds::QUIET_MS;
    }
    Some(())
}
