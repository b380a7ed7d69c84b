//! Slips in grants, nodes and limits.

use super::{At, Class, change};
use crate::recording::Recording;
use crate::rows::Row;
use proto::v1::{GrantRow, NodeRow, Resources, State};
use rand::rngs::SmallRng;
use std::sync::Arc;

pub const CLASSES: &[Class] = &[
    Class { name: "begun-without-a-grant", by: &["fencing"], spoil: grant_lost },
    Class { name: "grant-never-released", by: &["liveness", "capacity"], spoil: never_released },
    Class { name: "begun-under-a-lost-job's-grant", by: &["fencing"], spoil: lost_job },
    Class { name: "grant-given-again", by: &["fencing"], spoil: again },
    Class { name: "grant-that-grows", by: &["fencing"], spoil: grows },
    Class { name: "grant-beyond-its-node", by: &["capacity"], spoil: beyond },
    Class { name: "half-a-gang", by: &["gangs-whole"], spoil: half_a_gang },
    Class { name: "gang-a-rank-short", by: &["gangs-whole"], spoil: rank_short },
    Class { name: "gang-taken-for-none", by: &["gangs-whole"], spoil: no_gang },
    Class { name: "node-twice-in-a-grant", by: &["gangs-whole"], spoil: node_twice },
    Class { name: "node-shrinks-below-what-it-holds", by: &["capacity"], spoil: node_shrinks },
    Class { name: "session-back", by: &["fencing"], spoil: session_back },
    Class { name: "held-past-the-limit", by: &["capacity", "limits"], spoil: past_the_limit },
    Class { name: "let-in-past-the-limit", by: &["limits"], spoil: let_in },
    Class { name: "more-licenses-held-than-there-are", by: &["licenses"], spoil: licenses_beyond },
    Class { name: "licenses-not-held", by: &["licenses"], spoil: licenses_not_held },
    Class { name: "another-beside-one-alone", by: &["alone"], spoil: beside },
    Class { name: "whole-nodes-taken-for-parts", by: &["alone"], spoil: taken_for_parts },
    Class { name: "less-than-whole-nodes-held", by: &["alone"], spoil: less_than_whole },
];

fn any_grant(rec: &Recording, rng: &mut SmallRng, is: impl Fn(At, &GrantRow) -> bool) -> Option<At> {
    rec.draw(rng, |at, row| matches!(row, Row::Grant { row: Some(row), .. } if is(at, row)))
}

fn grant(rec: &mut Recording, at: At, by: impl FnOnce(&mut GrantRow)) -> Option<()> {
    match rec.row(at) {
        Row::Grant { row, .. } => change(row, by),
        _ => None,
    }
}

fn released(row: &Row, tenant: &str, epoch: u64) -> bool {
    matches!(row, Row::Grant { tenant: of, epoch: e, row: None } if of == tenant && *e == epoch)
}

/// Of a grant under which something began in a commit that was seen by itself.
fn grant_lost(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |at, grant| {
        rec.commits[at.commit + 1..].iter().filter(|commit| commit.since_ms == commit.at_ms).any(|commit| {
            commit.rows.iter().any(|row| match row {
                Row::Events { tenant, row: Some(row), .. } => {
                    let begins = |event: &proto::v1::Event| {
                        event.epoch == grant.epoch && event.to() == State::Staging && !event.tasks.is_empty()
                    };
                    *tenant == grant.tenant && row.events.iter().any(begins)
                }
                _ => false,
            })
        })
    })?;
    rec.remove(at)
}

/// Of a grant that was seen: one that came and went between two looks is nobody's.
fn never_released(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = rec.draw(rng, |at, row| match row {
        Row::Grant { tenant, epoch, row: None } => {
            let seen = |row: &Row| {
                matches!(row, Row::Grant { tenant: of, epoch: e, row: Some(_) } if of == tenant && e == epoch)
            };
            rec.before(at, |row| seen(row).then_some(())).is_some()
        }
        _ => false,
    })?;
    rec.remove(at)
}

fn again(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |at, grant| {
        rec.after(at, |row| released(row, &grant.tenant, grant.epoch).then_some(())).is_some()
    })?;
    let row = rec.row_at(at).clone();
    rec.append(row);
    Some(())
}

/// While it is held.
fn grows(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |at, grant| {
        let next = rec.commits.get(at.commit + 1);
        next.is_some_and(|next| !next.rows.iter().any(|row| released(row, &grant.tenant, grant.epoch)))
    })?;
    let mut row = rec.row_at(at).clone();
    if let Row::Grant { row, .. } = &mut row {
        change(row, |row| row.nodes.iter_mut().for_each(|part| part.slots += 1))?;
    }
    rec.commit(at.commit + 1).rows.push(row);
    Some(())
}

fn beyond(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |_, grant| !grant.nodes.is_empty())?;
    grant(rec, at, |row| row.nodes[0].slots = 1_000)
}

/// While it is held.
fn beside(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |at, grant| {
        let next = rec.commits.get(at.commit + 1);
        let held = |rows: &[Row]| !rows.iter().any(|row| released(row, &grant.tenant, grant.epoch));
        !grant.whole.is_empty() && next.is_some_and(|next| held(&next.rows))
    })?;
    let mut row = rec.row_at(at).clone();
    if let Row::Grant { epoch, row, .. } = &mut row {
        *epoch += 1_000_000;
        change(row, |row| (row.epoch, row.whole) = (row.epoch + 1_000_000, Vec::new()))?;
    }
    rec.commit(at.commit + 1).rows.push(row);
    Some(())
}

fn licenses_beyond(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |_, grant| !grant.licenses.is_empty())?;
    grant(rec, at, |row| row.licenses.values_mut().for_each(|held| *held += 10))
}

/// Of a grant under which something began.
fn licenses_not_held(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |_, grant| !grant.licenses.is_empty() && is_used(rec, grant))?;
    grant(rec, at, |row| row.licenses.clear())
}

/// Of a grant under which something began.
fn taken_for_parts(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |_, grant| !grant.whole.is_empty() && is_used(rec, grant))?;
    grant(rec, at, |row| row.whole.clear())
}

fn less_than_whole(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |_, grant| !grant.whole.is_empty())?;
    grant(rec, at, |row| row.whole[0].millicores /= 2)
}

fn lost_job(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |_, grant| is_used(rec, grant))?;
    grant(rec, at, |row| row.submitted_ms += 1)
}

fn is_used(rec: &Recording, grant: &GrantRow) -> bool {
    let mut events = rec.commits.iter().flat_map(|commit| &commit.rows).filter_map(|row| match row {
        Row::Events { tenant, row: Some(row), .. } if *tenant == grant.tenant => Some(&row.events),
        _ => None,
    });
    events.any(|events| events.iter().any(|event| event.epoch == grant.epoch))
}

fn half_a_gang(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |_, grant| grant.gang && grant.nodes.len() > 1)?;
    grant(rec, at, |row| _ = row.nodes.pop())
}

fn rank_short(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |_, grant| grant.gang && grant.nodes.iter().any(|part| part.slots > 1))?;
    grant(rec, at, |row| row.nodes.iter_mut().for_each(|part| part.slots -= u32::from(part.slots > 1)))
}

fn no_gang(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |_, _| true)?;
    grant(rec, at, |row| row.gang = !row.gang)
}

fn node_twice(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |_, grant| !grant.nodes.is_empty())?;
    grant(rec, at, |row| row.nodes.push(row.nodes[0].clone()))
}

fn node_row(rec: &Recording, at: At, name: &str) -> Option<NodeRow> {
    rec.before(at, |row| match row {
        Row::Node(of, Some(row)) if of == name => Some(row.clone()),
        _ => None,
    })
}

/// In the very commit that grants something on it.
fn node_shrinks(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = any_grant(rec, rng, |at, grant| {
        grant.nodes.first().is_some_and(|part| node_row(rec, at, &part.node).is_some())
    })?;
    let Row::Grant { row: Some(row), .. } = rec.row_at(at) else { return None };
    let name = row.nodes[0].node.clone();
    let mut row = node_row(rec, at, &name)?;
    row.capacity = Some(Resources { millicores: 1, ..Resources::default() });
    rec.commit(at.commit).rows.push(Row::Node(name, Some(row)));
    Some(())
}

fn session_back(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = rec.draw(rng, |_, row| matches!(row, Row::Node(_, Some(row)) if row.session > 0))?;
    let Row::Node(name, Some(row)) = rec.row_at(at) else { return None };
    let row = NodeRow { session: row.session - 1, ..row.clone() };
    let name = name.clone();
    rec.append(Row::Node(name, Some(row)));
    Some(())
}

/// The tenant never had more than a thousandth of a core.
fn past_the_limit(rec: &mut Recording, _: &mut SmallRng) -> Option<()> {
    let granted = |row: &Row| matches!(row, Row::Grant { tenant, row: Some(_), .. } if tenant == "lab");
    rec.commits.iter().flat_map(|commit| &commit.rows).find(|row| granted(row))?;
    for at in 0..rec.commits.len() {
        for row in &mut Arc::make_mut(&mut rec.commits[at]).rows {
            if let Row::Tenant(name, Some(row)) = row
                && name == "lab"
            {
                row.quota.get_or_insert_default().millicores = Some(1);
            }
        }
    }
    Some(())
}

/// While every limit the tenant ever had was one.
fn let_in(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let unlimited = rec.commits.iter().position(|commit| {
        let limit = |row: &Row| match row {
            Row::Tenant(name, Some(row)) if name == "lab" => {
                row.quota.unwrap_or_default().millicores.is_none()
            }
            _ => false,
        };
        commit.rows.iter().any(limit)
    });
    let until = unlimited.unwrap_or(usize::MAX);
    let at = rec.draw(rng, |at, row| {
        matches!(row, Row::Job(job, Some(row)) if job.tenant == "lab" && row.spec.as_ref().is_some_and(|spec| !spec.steps.is_empty()))
            && at.commit < until
    })?;
    match rec.row(at) {
        Row::Job(_, row) => change(row, |row| {
            let step = row.spec.as_mut().and_then(|spec| spec.steps.first_mut());
            if let Some(step) = step {
                step.per_task.get_or_insert_default().millicores = 10_000_000;
            }
        }),
        _ => None,
    }
}
