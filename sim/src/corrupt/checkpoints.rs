//! Slips in what attempts go on from.
//!
//! What an attempt is to go on from is known where the commit that bound it was seen by
//! itself: after a restart several are seen as one. So only such attempts are spoilt.

use super::Class;
use crate::checkers::attempt_of;
use crate::recording::Recording;
use crate::rows::Row;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use std::sync::Arc;
use world::sim::ProcessSpan;

pub const CLASSES: &[Class] = &[
    Class { name: "a-checkpoint-that-nobody-kept", by: &["checkpoints"], spoil: kept_by_nobody },
    Class { name: "goes-on-from-other-bytes", by: &["checkpoints"], spoil: other_bytes },
    Class { name: "goes-on-from-another-place", by: &["checkpoints"], spoil: another_place },
    Class { name: "begins-anew-although-it-need-not", by: &["checkpoints"], spoil: anew },
];

fn kept_by_nobody(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = rec.draw(rng, |_, row| matches!(row, Row::Checkpoint { row: Some(_), .. }))?;
    let Row::Checkpoint { row: Some(row), .. } = rec.row(at) else { return None };
    let artifact = Arc::make_mut(row).entries.last_mut()?.artifacts.first_mut()?;
    artifact.digest = "0".repeat(64);
    Some(())
}

/// One that went on, and of which it is known from what.
fn went_on(rec: &Recording, rng: &mut SmallRng) -> Option<usize> {
    let known = |at: &usize| rec.spans[*at].from.is_some() && bound_alone(rec, &rec.spans[*at]);
    let such: Vec<usize> = (0..rec.spans.len()).filter(known).collect();
    such.choose(rng).copied()
}

/// Whether the commit that bound this attempt was seen by itself.
fn bound_alone(rec: &Recording, span: &ProcessSpan) -> bool {
    let Some(((job, step, task, attempt, epoch), _)) = attempt_of(&span.key) else { return false };
    let binds = |row: &Row| match row {
        Row::Block { job: of, step: at, row: Some(row), .. } if *of == job && *at == step => {
            row.active.iter().any(|run| {
                let tasks = run.tasks.unwrap_or_default();
                (run.attempt, run.epoch) == (attempt, epoch) && (tasks.first..=tasks.last).contains(&task)
            })
        }
        _ => false,
    };
    let first = rec.commits.iter().find(|commit| commit.rows.iter().any(binds));
    first.is_some_and(|commit| commit.since_ms == commit.at_ms)
}

/// Where it could read them: of others nothing is known.
fn other_bytes(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = went_on(rec, rng)?;
    let (_, read) = rec.spans[at].resumed.iter_mut().find(|(name, _)| name == "state")?;
    *read.as_mut()? = "0".repeat(64);
    Some(())
}

fn another_place(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = went_on(rec, rng)?;
    rec.spans[at].from = Some("elsewhere".to_owned());
    Some(())
}

fn anew(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = went_on(rec, rng)?;
    rec.spans[at].from = None;
    rec.spans[at].resumed.clear();
    Some(())
}
