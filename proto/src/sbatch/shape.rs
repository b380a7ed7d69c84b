//! How large the job is: nodes, tasks, cores, memory, GPUs.
//!
//! Slurm runs a batch script once, on the first of the nodes it reserved for
//! all tasks. So the unit here is what one *node* gives to the job: a job on
//! one node is one process of Drumline's with the cores of all its tasks, one
//! on several is a gang of one process a node.

use super::{
    chosen::Chosen,
    refuse,
    values::{self, Gpus},
};
use crate::{
    limits::MILLICORES_MAX,
    problem::Problem,
    v1::{Resources, Step},
};

/// What a job asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    /// At least 1.
    pub nodes: u32,
    /// Of all nodes together.
    pub tasks: u32,
    /// Whether the script told how many.
    pub tasks_told: bool,
    /// `--ntasks-per-node`, where told.
    pub tasks_per_node_told: Option<u32>,
    /// `-c`, where told.
    pub cores_per_task_told: Option<u32>,
    /// Whole cores on each node.
    pub cores_per_node: u32,
    /// Memory on each node, in bytes; 0: not told.
    pub memory_bytes: u64,
    /// `--mem-per-cpu` in bytes, where that is what told the memory.
    pub memory_per_core_bytes: Option<u64>,
    /// On each node.
    pub gpus: u32,
}

impl Shape {
    /// As the options say. What they say and cannot be had is named.
    pub fn of(chosen: &Chosen, warnings: &mut Vec<String>) -> Result<Self, Problem> {
        let tasks_told = chosen.read("ntasks", values::count)?;
        let per_node = chosen.read("ntasks-per-node", values::count)?;
        let nodes_told = chosen.read("nodes", values::nodes)?;
        let cores_told = chosen.read("cpus-per-task", values::count)?;
        if let (Some((least, most)), Some(given)) = (nodes_told, chosen.get("nodes"))
            && least != most
        {
            warnings.push(format!("{} takes the least of a range: {least}", given.field()));
        }
        let mut nodes = match (nodes_told, tasks_told, per_node) {
            (Some((least, _)), _, _) => least,
            (None, Some(tasks), Some(per_node)) => tasks.div_ceil(per_node),
            (None, _, _) => 1,
        };
        if let (Some(tasks), Some(given)) = (tasks_told, chosen.get("nodes"))
            && tasks < nodes
        {
            warnings.push(format!("{}: {tasks} tasks need no more than {tasks} nodes", given.field()));
            nodes = tasks;
        }
        let tasks = match (tasks_told, per_node) {
            (Some(tasks), _) => tasks,
            (None, Some(per_node)) => {
                nodes.checked_mul(per_node).ok_or_else(|| too_large(chosen, "ntasks-per-node"))?
            }
            (None, None) => nodes,
        };
        let on_one = tasks.div_ceil(nodes);
        if let (Some(per_node), Some(given)) = (per_node, chosen.get("ntasks-per-node"))
            && on_one > per_node
        {
            let reason = format!("leaves no room for {tasks} tasks on {nodes} nodes");
            return Err(refuse(&given.field(), &given.value, &reason, "give more nodes, or fewer tasks"));
        }
        // With --ntasks-per-node alone a node is meant to have that many.
        let on_one = if tasks_told.is_none() { per_node.unwrap_or(on_one) } else { on_one };
        let cores_per_node = on_one
            .checked_mul(cores_told.unwrap_or(1))
            .filter(|cores| *cores <= MILLICORES_MAX / 1000)
            .ok_or_else(|| too_large(chosen, "cpus-per-task"))?;
        let (memory_bytes, memory_per_core_bytes) = memory(chosen, cores_per_node, warnings)?;
        Ok(Self {
            nodes,
            tasks,
            tasks_told: tasks_told.is_some() || per_node.is_some(),
            tasks_per_node_told: per_node,
            cores_per_task_told: cores_told,
            cores_per_node,
            memory_bytes,
            memory_per_core_bytes,
            gpus: gpus(chosen, nodes, on_one, warnings)?,
        })
    }

    /// Puts it into a step.
    pub fn apply(&self, step: &mut Step) {
        step.nodes = self.nodes;
        step.tasks_per_node = 1;
        step.per_task = Some(Resources {
            // Bounded by MILLICORES_MAX above.
            millicores: self.cores_per_node * 1000,
            memory_bytes: self.memory_bytes,
            gpus: self.gpus,
        });
    }

    /// Slurm's form of a count for each node: `4`, `4(x3)`, `4,3(x2)`.
    pub fn tasks_per_node(&self) -> String {
        let (each, more) = (self.tasks / self.nodes, self.tasks % self.nodes);
        let some = |count: u32, on: u32| match on {
            0 => None,
            1 => Some(count.to_string()),
            _ => Some(format!("{count}(x{on})")),
        };
        let parts = [some(each + 1, more), some(each, self.nodes - more)];
        parts.into_iter().flatten().collect::<Vec<_>>().join(",")
    }
}

fn too_large(chosen: &Chosen, long: &str) -> Problem {
    // What was left out is 1, so one of those that were given is at fault.
    let given = [long, "ntasks-per-node", "ntasks", "nodes"].into_iter().find_map(|long| chosen.get(long));
    let (field, value) = given.map_or((String::new(), ""), |given| (given.field(), given.value.as_str()));
    refuse(&field, value, "asks more cores of one node than any machine has", "ask for less")
}

/// Memory of a node, and of a core where that was told.
fn memory(
    chosen: &Chosen,
    cores_per_node: u32,
    warnings: &mut Vec<String>,
) -> Result<(u64, Option<u64>), Problem> {
    if let Some(bytes) = chosen.read("mem", values::memory_bytes)? {
        if let (0, Some(given)) = (bytes, chosen.get("mem")) {
            let field = given.field();
            warnings.push(format!(
                "{field}: all of a node's memory is not reserved; none is, and none is limited"
            ));
        }
        return Ok((bytes, None));
    }
    let Some(each) = chosen.read("mem-per-cpu", values::memory_bytes)? else { return Ok((0, None)) };
    let bytes = each.checked_mul(u64::from(cores_per_node)).ok_or_else(|| {
        let value = chosen.text("mem-per-cpu").unwrap_or_default();
        refuse("--mem-per-cpu", value, "is too much memory", "ask for less")
    })?;
    Ok((bytes, Some(each)))
}

/// GPUs of a node, by whichever option told them.
fn gpus(chosen: &Chosen, nodes: u32, tasks: u32, warnings: &mut Vec<String>) -> Result<u32, Problem> {
    let mut told = None;
    for (long, reader) in [
        ("gres", values::gres as fn(&str) -> Result<Gpus, values::Slip>),
        ("gpus-per-node", values::gpus),
        ("gpus", values::gpus),
        ("gpus-per-task", values::gpus),
    ] {
        let (Some(found), Some(given)) = (chosen.read(long, reader)?, chosen.get(long)) else { continue };
        if !found.types.is_empty() {
            let types = found.types.join(", ");
            warnings.push(format!("{}: GPUs have no types here, {types} is not looked at", given.field()));
        }
        if !found.others.is_empty() {
            warnings.push(format!(
                "{}: {} is not covered: only gpu is",
                given.field(),
                found.others.join(",")
            ));
            if found.count == 0 {
                continue;
            }
        }
        let count = match long {
            "gpus" => Some(found.count.div_ceil(nodes)),
            "gpus-per-task" => found.count.checked_mul(tasks),
            _ => Some(found.count),
        };
        let count =
            count.ok_or_else(|| refuse(&given.field(), &given.value, "is too many", "ask for less"))?;
        told.get_or_insert(count);
    }
    Ok(told.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sbatch::options::{self, Source};

    fn shown(line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let chosen = Chosen::of(options::read(&words, Source::CommandLine).unwrap().given).unwrap();
        let mut warnings = Vec::new();
        match Shape::of(&chosen, &mut warnings) {
            Ok(shape) => format!(
                "{} nodes, {} tasks ({}), each node {} cores {} MiB {} gpus; {} warnings",
                shape.nodes,
                shape.tasks,
                shape.tasks_per_node(),
                shape.cores_per_node,
                shape.memory_bytes >> 20,
                shape.gpus,
                warnings.len()
            ),
            Err(problem) => problem.to_string(),
        }
    }

    #[test]
    fn sizes_follow_from_what_was_told() {
        for (line, said) in [
            ("", "1 nodes, 1 tasks (1), each node 1 cores 0 MiB 0 gpus; 0 warnings"),
            (
                "-n 4 -c 2 --mem-per-cpu=100",
                "1 nodes, 4 tasks (4), each node 8 cores 800 MiB 0 gpus; 0 warnings",
            ),
            ("-N 2 -c 8 --mem=4G", "2 nodes, 2 tasks (1(x2)), each node 8 cores 4096 MiB 0 gpus; 0 warnings"),
            ("-N 3 -n 7", "3 nodes, 7 tasks (3,2(x2)), each node 3 cores 0 MiB 0 gpus; 0 warnings"),
            (
                "-N 2 --ntasks-per-node=4",
                "2 nodes, 8 tasks (4(x2)), each node 4 cores 0 MiB 0 gpus; 0 warnings",
            ),
            (
                "-n 8 --ntasks-per-node=4",
                "2 nodes, 8 tasks (4(x2)), each node 4 cores 0 MiB 0 gpus; 0 warnings",
            ),
            ("-N 2-4 -n 2", "2 nodes, 2 tasks (1(x2)), each node 1 cores 0 MiB 0 gpus; 1 warnings"),
            ("-N 4 -n 2", "2 nodes, 2 tasks (1(x2)), each node 1 cores 0 MiB 0 gpus; 1 warnings"),
            ("-N 2 --gpus=8", "2 nodes, 2 tasks (1(x2)), each node 1 cores 0 MiB 4 gpus; 0 warnings"),
            ("-n 2 --gpus-per-task=2", "1 nodes, 2 tasks (2), each node 2 cores 0 MiB 4 gpus; 0 warnings"),
            ("--gres=gpu:a100:2,shard:1", "1 nodes, 1 tasks (1), each node 1 cores 0 MiB 2 gpus; 2 warnings"),
            ("--mem=0", "1 nodes, 1 tasks (1), each node 1 cores 0 MiB 0 gpus; 1 warnings"),
            (
                "-N 2 -n 9 --ntasks-per-node=4",
                "--ntasks-per-node = 4: leaves no room for 9 tasks on 2 nodes; give more nodes, or fewer tasks",
            ),
            (
                "-n 9999 -c 9999",
                "--cpus-per-task = 9999: asks more cores of one node than any machine has; ask for less",
            ),
            (
                "-N 99999 --ntasks-per-node=99999",
                "--ntasks-per-node = 99999: asks more cores of one node than any machine has; ask for less",
            ),
            ("-n 0", "--ntasks = 0: must be above 0; write a whole number above 0"),
        ] {
            assert_eq!(shown(line), said, "{line}");
        }
    }
}
