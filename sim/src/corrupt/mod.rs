//! `cargo chaos corrupt`: the checkers are themselves checked.
//!
//! Runs are recorded as their checkers saw them, and must be accepted. Then they
//! are corrupted at random, one slip each, of many classes: an event number given
//! twice, half a gang granted, a manifest by a zombie … Each must be rejected, by
//! a checker of the invariant that its class breaks. What would be harmless is not
//! made: each class says in its code what it leaves alone, and why.

mod checkpoints;
mod gives_way;
mod grants;
mod history;
mod jobs;
mod money;
mod order;
mod outcome;
mod readers;
mod reigns;
mod tries;

use crate::checkers::Committed;
use crate::plan::Plan;
use crate::recording::Recording;
use crate::rows::{JobName, Row};
use crate::scenario;
use clap::Args;
use proto::v1::ShardRow;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

/// Arguments of the subcommand.
#[derive(Args)]
pub struct CorruptArguments {
    /// Decides which histories are recorded, and what is done to them
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many corruptions at least, over all classes
    #[arg(long, default_value_t = 1_500)]
    ways: u64,
    /// Only this class
    #[arg(long)]
    class: Option<String>,
}

/// Which runs are recorded, with how many jobs.
const RECORDED: &[(&str, u32)] = &[
    ("calm", 50),
    ("chaos", 50),
    ("chaos", 70),
    ("narrow", 40),
    ("narrow", 40),
    ("chaos", 70),
    ("chaos", 70),
];
/// A class that finds nothing to corrupt in a history this often finds nothing.
const MISSES_MAX: u64 = 200;

/// One kind of slip.
pub struct Class {
    pub name: &'static str,
    /// Checkers, one of which must reject it.
    pub by: &'static [&'static str],
    /// Corrupts; `None` where this history has no place for it.
    pub spoil: fn(&mut Recording, &mut SmallRng) -> Option<()>,
}

/// A row's place.
#[derive(Clone, Copy)]
struct At {
    commit: usize,
    row: usize,
}

pub fn command(arguments: &CorruptArguments) -> ExitCode {
    match corrupt(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

fn corrupt(arguments: &CorruptArguments) -> Result<bool, String> {
    let classes: Vec<&Class> = [
        checkpoints::CLASSES,
        gives_way::CLASSES,
        history::CLASSES,
        jobs::CLASSES,
        order::CLASSES,
        tries::CLASSES,
        grants::CLASSES,
        reigns::CLASSES,
        money::CLASSES,
        outcome::CLASSES,
        readers::CLASSES,
    ]
    .into_iter()
    .flatten()
    .filter(|class| arguments.class.as_ref().is_none_or(|wanted| class.name == wanted))
    .collect();
    if classes.is_empty() {
        return Err(format!("class = {}: there is none", arguments.class.as_deref().unwrap_or_default()));
    }
    let mut recordings = Vec::new();
    for (number, (name, jobs)) in (0..).zip(RECORDED) {
        let mut scenario = scenario::named(name).ok_or("a scenario was renamed")?;
        scenario.jobs = *jobs;
        let seed = arguments.seed.wrapping_mul(1_000) + number;
        let of = |why: String| format!("{name} with seed {seed}: {why}");
        let recording = crate::run::record(Plan::draw(seed, scenario)).map_err(of)?;
        if let Some((checker, invariant, what)) = recording.complaints(|_| true).into_iter().next() {
            return Err(of(format!("it is rejected as it is, by {checker} (invariant {invariant}): {what}")));
        }
        println!("recorded {name} of {jobs} jobs: {} commits, accepted", recording.commits.len());
        recordings.push(recording);
    }
    let each = arguments.ways.div_ceil(classes.len() as u64);
    let mut rng = SmallRng::seed_from_u64(arguments.seed ^ 0x0063_6f72_7275_7074);
    let (mut made, mut holes) = (0, Vec::new());
    for class in &classes {
        let (count, found) = spoil(class, each, &recordings, &mut rng);
        made += count;
        if count == 0 {
            holes.push(format!("{}: no history has a place for it", class.name));
        }
        if let Some(hole) = found {
            holes.push(format!("{}: {hole}", class.name));
        }
    }
    for hole in &holes {
        println!("HOLE {hole}");
    }
    println!("corrupted={made} classes={} holes={}", classes.len(), holes.len());
    Ok(holes.is_empty())
}

/// Corrupts so often; returns how often it could, and the first that nobody
/// rejected as it should have been.
fn spoil(class: &Class, ways: u64, recordings: &[Recording], rng: &mut SmallRng) -> (u64, Option<String>) {
    let (mut made, mut misses) = (0, 0);
    while made < ways && misses < MISSES_MAX {
        let mut recording = recordings.choose(rng).expect("some were recorded").clone();
        if (class.spoil)(&mut recording, rng).is_none() {
            misses += 1;
            continue;
        }
        made += 1;
        // Those that are to reject it see it by themselves: another that rejects it earlier,
        // for what a slip did to it by the way, does not speak for them.
        if recording.complaints(|checker| class.by.contains(&checker)).is_empty() {
            let heard = match recording.complaints(|_| true).first() {
                None => "was accepted".to_owned(),
                Some((checker, _, what)) => format!("was rejected by {checker} alone: {what}"),
            };
            return (made, Some(format!("{heard}; expected of {:?}", class.by)));
        }
    }
    (made, None)
}

impl Recording {
    /// Jobs that expired: what became of what they gave no checker can tell any more.
    fn expired(&self) -> BTreeSet<JobName> {
        let rows = self.commits.iter().flat_map(|commit| &commit.rows);
        let expired = rows.filter_map(|row| match row {
            Row::State(job, Some(state)) if state.expired_ms > 0 => Some(job.clone()),
            _ => None,
        });
        expired.collect()
    }

    /// A place whose row is such, drawn from all of them.
    fn draw(&self, rng: &mut SmallRng, is: impl Fn(At, &Row) -> bool) -> Option<At> {
        let mut places = Vec::new();
        for (commit, committed) in self.commits.iter().enumerate() {
            for (row, here) in committed.rows.iter().enumerate() {
                let at = At { commit, row };
                if is(at, here) {
                    places.push(at);
                }
            }
        }
        places.choose(rng).copied()
    }

    fn commit(&mut self, at: usize) -> &mut Committed {
        Arc::make_mut(&mut self.commits[at])
    }

    fn row(&mut self, at: At) -> &mut Row {
        &mut self.commit(at.commit).rows[at.row]
    }

    fn row_at(&self, at: At) -> &Row {
        &self.commits[at.commit].rows[at.row]
    }

    fn remove(&mut self, at: At) -> Option<()> {
        self.commit(at.commit).rows.remove(at.row);
        Some(())
    }

    /// Seen as it was made, not with others after a restart.
    fn is_whole(&self, at: At) -> bool {
        let commit = &self.commits[at.commit];
        commit.since_ms == commit.at_ms
    }

    /// The last of the rows before a place of which `pick` makes something.
    fn before<T>(&self, at: At, mut pick: impl FnMut(&Row) -> Option<T>) -> Option<T> {
        self.commits[..at.commit].iter().rev().find_map(|commit| commit.rows.iter().find_map(&mut pick))
    }

    /// Like [`Recording::before`], but the first of those after it.
    fn after<T>(&self, at: At, mut pick: impl FnMut(&Row) -> Option<T>) -> Option<T> {
        self.commits[at.commit + 1..].iter().find_map(|commit| commit.rows.iter().find_map(&mut pick))
    }

    /// A commit of one row, at the end.
    /// As a controller writes: with the row of a shard, which goes on from where it was.
    fn append(&mut self, row: Row) {
        let at_ms = self.commits.last().map_or(0, |commit| commit.at_ms);
        let last = self.commits.iter().rev().flat_map(|commit| &commit.rows).find_map(|row| match row {
            Row::Shard(shard, row) => Some((*shard, row.clone())),
            _ => None,
        });
        let next = last.and_then(|(shard, row)| row.map(|row| (shard, ShardRow { seq: row.seq + 1, ..row })));
        let fence = next.map(|(shard, row)| Row::Shard(shard, Some(row)));
        let rows = std::iter::once(row).chain(fence).collect();
        self.commits.push(Arc::new(Committed { rows, at_ms, since_ms: at_ms }));
    }
}

/// Changes a row that is shared.
fn change<T: Clone>(row: &mut Option<Arc<T>>, by: impl FnOnce(&mut T)) -> Option<()> {
    by(Arc::make_mut(row.as_mut()?));
    Some(())
}

fn state_of(row: &Row, job: &JobName) -> Option<Arc<proto::v1::JobStateRow>> {
    match row {
        Row::State(name, Some(row)) if name == job => Some(Arc::clone(row)),
        _ => None,
    }
}
