//! Whether any pool could ever hold a job: a request too large for every node
//! is refused at once, naming the largest that could be held, rather than
//! waiting for ever.
//!
//! What counts is what nodes have, not what is free, and nodes that are lost
//! or drained count too: they may come back. With no node known everything is
//! possible.

use crate::amount::Amount;
use crate::core::Need;
use crate::limits::GANG_NODES_MAX;
use proto::units;
use proto::v1::{JobSpec, NodeRow, Problem, Step};
use std::collections::BTreeSet;

/// Refuses what no pool could ever hold.
pub fn feasible(nodes: &[NodeRow], spec: &JobSpec) -> Result<(), Problem> {
    feasible_among(nodes.iter(), spec)
}

/// Likewise, over the rows where they are.
pub fn feasible_among<'a>(nodes: impl Iterator<Item = &'a NodeRow>, spec: &JobSpec) -> Result<(), Problem> {
    let nodes: Vec<&NodeRow> = nodes.collect();
    for (index, step) in spec.steps.iter().enumerate() {
        if step.nodes as usize > GANG_NODES_MAX {
            return Err(too_large(
                index,
                "nodes",
                step.nodes,
                format!("a gang has at most {GANG_NODES_MAX} nodes"),
            ));
        }
        // One commit touches all of them.
        if step.nodes as usize + step.licenses.len() > GANG_NODES_MAX && step.nodes > 1 {
            let most = GANG_NODES_MAX - step.licenses.len();
            let reason = format!("a gang that holds so many licenses has at most {most} nodes");
            return Err(too_large(index, "nodes", step.nodes, reason));
        }
        if !nodes.is_empty() {
            step_feasible(&nodes, step).map_err(|problem| problem.within(&format!("step[{index}]")))?;
        }
    }
    Ok(())
}

/// What a step that takes whole nodes holds at least, in each dimension, whichever of these
/// it gets; absent where they are too few.
pub(crate) fn least_whole<'a>(nodes: impl Iterator<Item = &'a NodeRow>, step: &Step) -> Option<Amount> {
    let needs: Vec<Need> = step.constraints.iter().map(Need::from).collect();
    let unit = Amount::of(step.per_task.as_ref()).times(u64::from(step.tasks_per_node.max(1)));
    let right = |row: &&NodeRow| {
        (step.pool.is_empty() || row.pool == step.pool) && needs.iter().all(|need| need.met_by(row))
    };
    let whole = nodes.filter(right).map(|row| Amount::of(row.capacity.as_ref()).of_one_node());
    let whole: Vec<Amount> = whole.filter(|whole| unit.fits_in(*whole)).collect();
    let wanted = step.nodes.max(1) as usize;
    let least = |part: fn(&Amount) -> u64| {
        let mut parts: Vec<u64> = whole.iter().map(part).collect();
        parts.sort_unstable();
        parts.into_iter().take(wanted).fold(0, u64::saturating_add)
    };
    (whole.len() >= wanted).then(|| Amount {
        millicores: least(|a| a.millicores),
        memory_bytes: least(|a| a.memory_bytes),
        gpus: least(|a| a.gpus),
    })
}

fn too_large(index: usize, field: &str, value: impl std::fmt::Display, reason: String) -> Problem {
    size_problem(field, value, reason).within(&format!("step[{index}]"))
}

fn size_problem(field: &str, value: impl std::fmt::Display, reason: String) -> Problem {
    Problem::new("spec.infeasible", field, value, reason, "ask for no more than that, or add larger nodes")
}

fn step_feasible(nodes: &[&NodeRow], step: &Step) -> Result<(), Problem> {
    let in_pool: Vec<&NodeRow> =
        nodes.iter().copied().filter(|row| step.pool.is_empty() || row.pool == step.pool).collect();
    if in_pool.is_empty() {
        let pools: BTreeSet<&str> = nodes.iter().map(|row| row.pool.as_str()).collect();
        return Err(Problem::new(
            "spec.pool",
            "pool",
            &step.pool,
            "there is no node in this pool",
            format!("choose one of: {}", pools.into_iter().collect::<Vec<_>>().join(", ")),
        ));
    }
    let needs: Vec<Need> = step.constraints.iter().map(Need::from).collect();
    let fitting: Vec<&NodeRow> =
        in_pool.iter().copied().filter(|row| needs.iter().all(|need| need.met_by(row))).collect();
    if fitting.is_empty() {
        let shown: Vec<String> = needs.iter().map(ToString::to_string).collect();
        return Err(Problem::new(
            "spec.constraints",
            "constraints",
            shown.join(", "),
            "no node carries labels that meet them",
            "see `drumline nodes -o wide` for the labels there are",
        ));
    }
    size_feasible(&fitting, step)
}

/// All nodes given are in the pool and carry the labels.
fn size_feasible(nodes: &[&NodeRow], step: &Step) -> Result<(), Problem> {
    let per_task = Amount::of(step.per_task.as_ref());
    let tasks = u64::from(step.tasks_per_node.max(1));
    let unit = per_task.times(tasks);
    let capacity = |row: &NodeRow| Amount::of(row.capacity.as_ref());
    let holding = nodes.iter().filter(|row| unit.fits_in(capacity(row))).count();
    let wanted = step.nodes.max(1) as usize;
    if holding >= wanted {
        return Ok(());
    }
    if holding > 0 {
        let nodes = if holding == 1 { "node" } else { "nodes" };
        return Err(size_problem(
            "nodes",
            step.nodes,
            format!("only {holding} {nodes} could hold {unit} each"),
        ));
    }
    let largest_by = |part: fn(&Amount) -> u64| {
        nodes.iter().copied().max_by_key(|row| (part(&capacity(row)), capacity(row)))
    };
    type Dimension = (&'static str, fn(&Amount) -> u64, fn(u64) -> String);
    let dimensions: [Dimension; 3] = [
        ("cores", |a| a.millicores, units::format_millicores),
        ("memory", |a| a.memory_bytes, units::brief_memory_bytes),
        ("gpus", |a| a.gpus, |n| n.to_string()),
    ];
    for (field, part, show) in dimensions {
        let Some(largest) = largest_by(part) else { continue };
        let most = part(&capacity(largest));
        if part(&unit) > most {
            // Of a gang the ranks of one node may be too many rather than too large.
            let one_fits = part(&per_task) <= most;
            let field = if one_fits { "tasks_per_node" } else { field };
            let value = if one_fits { tasks.to_string() } else { show(part(&per_task)) };
            let need = show(part(&unit));
            let reason = format!(
                "{need} needed on one node; the largest, {} of pool {}, has {}",
                largest.name,
                largest.pool,
                capacity(largest)
            );
            return Err(size_problem(field, value, reason));
        }
    }
    let largest = largest_by(|a| a.millicores).expect("there is a node");
    let reason = format!(
        "no node has {unit} together; the one with the most cores, {} of pool {}, has {}",
        largest.name,
        largest.pool,
        capacity(largest)
    );
    Err(size_problem("cores", units::format_millicores(per_task.millicores), reason))
}
