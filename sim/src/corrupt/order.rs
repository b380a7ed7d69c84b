//! Slips in what comes before what: jobs after jobs, nothing on a drained node, no
//! verdict while most nodes are silent.

use super::{At, Class, change};
use crate::recording::Recording;
use crate::rows::{JobName, Row};
use proto::v1::{Dependency, DependencyKind, Event, NodeRow, NodeState, State};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use std::collections::BTreeMap;

pub const CLASSES: &[Class] = &[
    Class { name: "begun-before-another-ended", by: &["after-jobs"], spoil: before_its_end },
    Class { name: "begun-on-a-drained-node", by: &["drained"], spoil: on_drained },
    Class { name: "granted-on-a-drained-node", by: &["drained"], spoil: granted_on_drained },
    Class { name: "judged-while-most-are-silent", by: &["brake"], spoil: judged_at_once },
];

fn is_begin(event: &Event) -> bool {
    event.to() == State::Staging && !event.tasks.is_empty()
}

fn begins(row: &Row, job: &JobName) -> bool {
    matches!(row, Row::Events { tenant, row: Some(row), .. } if *tenant == job.tenant
        && row.events.iter().any(|event| event.job_number == job.number && is_begin(event)))
}

fn ends(row: &Row, job: &JobName) -> bool {
    let over = |state: State| matches!(state, State::Completed | State::Failed | State::Cancelled);
    matches!(row, Row::State(of, Some(row)) if of == job && over(row.state()))
}

/// The first commit with such a row.
fn first(rec: &Recording, is: impl Fn(&Row) -> bool) -> Option<usize> {
    rec.commits.iter().position(|commit| commit.rows.iter().any(&is))
}

/// A job that waited for nobody is to have waited for one that lived on.
fn before_its_end(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = rec.draw(rng, |_, row| match row {
        Row::Job(_, Some(row)) => row.spec.as_ref().is_some_and(|spec| spec.after.is_empty()),
        _ => false,
    })?;
    let Row::Job(job, _) = rec.row_at(at) else { return None };
    let job = job.clone();
    let begun = first(rec, |row| begins(row, &job))?;
    // Of first tries alone: who tries it again says that what has ended does not matter.
    if first(rec, |row| ends(row, &job)).is_some_and(|ended| ended < begun) {
        return None;
    }
    let other = rec.draw(rng, |known, row| match row {
        Row::Job(other, Some(_)) => {
            let earlier = known.commit < at.commit && other.tenant == job.tenant;
            earlier && first(rec, |row| ends(row, other)).is_some_and(|ended| ended > begun)
        }
        _ => false,
    })?;
    let Row::Job(other, _) = rec.row_at(other) else { return None };
    let on =
        Dependency { job_number: other.number, kind: DependencyKind::Any.into(), ..Dependency::default() };
    match rec.row(at) {
        Row::Job(_, row) => change(row, |row| row.spec.get_or_insert_default().after.push(on)),
        _ => None,
    }
}

/// Puts a node's row that says it is drained into an earlier commit.
fn drain_before(rec: &mut Recording, at: At, name: &str, commits: usize) -> Option<()> {
    let known: NodeRow = rec.before(at, |row| match row {
        Row::Node(of, Some(row)) if of == name => Some(row.clone()),
        _ => None,
    })?;
    let row = Row::Node(name.to_owned(), Some(NodeRow { drained: true, ..known }));
    let into = at.commit.checked_sub(commits)?;
    // A controller's: elsewhere it would be refused for standing there at all.
    rec.commits[into].rows.iter().find(|row| matches!(row, Row::Shard(..)))?;
    rec.commit(into).rows.push(row);
    Some(())
}

fn on_drained(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = rec.draw(rng, |at, row| {
        rec.is_whole(at)
            && matches!(row, Row::Events { row: Some(row), .. } if row.events.iter().any(is_begin))
    })?;
    let Row::Events { row: Some(row), .. } = rec.row_at(at) else { return None };
    let name = row.events.iter().find(|event| is_begin(event))?.node.clone();
    drain_before(rec, at, &name, 1)
}

/// Long after: the node's row was not written in between, nor anything begun there.
fn granted_on_drained(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    const COMMITS: usize = 40;
    const WITHIN_MS: u64 = 10_000;
    let at = rec.draw(rng, |at, row| {
        let Row::Grant { row: Some(grant), .. } = row else { return false };
        let Some(part) = grant.nodes.first() else { return false };
        let Some(from) = at.commit.checked_sub(COMMITS) else { return false };
        let touches = |row: &Row| match row {
            Row::Node(name, _) => *name == part.node,
            Row::Events { row: Some(row), .. } => {
                row.events.iter().any(|event| is_begin(event) && event.node == part.node)
            }
            _ => false,
        };
        let between = &rec.commits[from..at.commit];
        rec.is_whole(at)
            && rec.commits[at.commit].at_ms - between[0].at_ms > WITHIN_MS
            && !between.iter().flat_map(|commit| &commit.rows).any(touches)
    })?;
    let Row::Grant { row: Some(grant), .. } = rec.row_at(at) else { return None };
    let name = grant.nodes.first()?.node.clone();
    drain_before(rec, at, &name, COMMITS)
}

/// All nodes fall silent at the end, and the first is lost at once.
fn judged_at_once(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let mut known: BTreeMap<String, NodeRow> = BTreeMap::new();
    for row in rec.commits.iter().flat_map(|commit| &commit.rows) {
        if let Row::Node(name, Some(row)) = row {
            known.insert(name.clone(), row.clone());
        }
    }
    let names: Vec<String> = known.keys().cloned().collect();
    let judged = names.choose(rng)?;
    for (name, row) in &mut known {
        for state in [NodeState::Ready, NodeState::Suspect] {
            row.set_state(state);
            rec.append(Row::Node(name.clone(), Some(row.clone())));
        }
    }
    let row = known.get_mut(judged)?;
    row.set_state(NodeState::Lost);
    rec.append(Row::Node(judged.clone(), Some(row.clone())));
    Some(())
}
