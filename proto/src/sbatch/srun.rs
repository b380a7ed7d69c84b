//! `srun` inside a batch script: what it starts.
//!
//! Slurm's starts tasks on all nodes of the job and ties them together for MPI.
//! Here there is only the first node's half of the simplest case: one task,
//! which is the command itself. All else is refused, since programs that start
//! several times side by side without knowing of each other would each do the
//! whole work.

use super::refuse;
use crate::problem::Problem;
use std::collections::BTreeMap;

/// What is to take srun's place.
#[derive(Debug, PartialEq, Eq)]
pub struct Start {
    /// The command.
    pub argv: Vec<String>,
    /// Set for it.
    pub env: Vec<(String, String)>,
    /// To run in, where told.
    pub directory: Option<String>,
}

/// Options with a value that say nothing about one task on one node.
const WITH_VALUE: [&str; 32] = [
    "account",
    "constraint",
    "cores-per-socket",
    "cpu-bind",
    "cpu-freq",
    "cpus-per-gpu",
    "cpus-per-task",
    "distribution",
    "export",
    "gpu-bind",
    "gpus",
    "gpus-per-node",
    "gpus-per-task",
    "gres",
    "gres-flags",
    "hint",
    "job-name",
    "jobid",
    "mem",
    "mem-bind",
    "mem-per-cpu",
    "mem-per-gpu",
    "mpi",
    "nodelist",
    "ntasks-per-core",
    "ntasks-per-node",
    "partition",
    "qos",
    "time",
    "threads-per-core",
    "tres-per-task",
    "wait",
];
/// Their letters.
const LETTERS_WITH_VALUE: &str = "ACcGJmpqtwW";
/// Options without a value that say nothing either.
const FLAGS: [&str; 9] = [
    "exact",
    "exclusive",
    "kill-on-bad-exit",
    "label",
    "overcommit",
    "overlap",
    "quiet",
    "unbuffered",
    "verbose",
];
/// Their letters.
const FLAG_LETTERS: &str = "KlOQsuv";

/// What `srun WORDS` starts in this environment.
pub fn srun(words: &[String], own: &BTreeMap<String, String>) -> Result<Start, Problem> {
    let mut start = Start { argv: Vec::new(), env: Vec::new(), directory: None };
    let (mut tasks, mut nodes) = (None, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            start.argv = words.cloned().collect();
            break;
        }
        if !word.starts_with('-') {
            start.argv = std::iter::once(word).chain(words).cloned().collect();
            break;
        }
        let (name, attached) = named(word);
        let mut value = || {
            let value = attached.clone().or_else(|| words.next().cloned());
            value.ok_or_else(|| refuse(word, "", "needs a value", "give one"))
        };
        match name.as_str() {
            "ntasks" | "n" => tasks = Some(value()?),
            "nodes" | "N" => nodes = Some(value()?),
            "chdir" | "D" => start.directory = Some(value()?),
            "output" | "error" | "input" | "o" | "e" | "i" => {
                return Err(refuse(word, "", "is not covered by srun here", "redirect with >, 2> or <"));
            }
            long if WITH_VALUE.contains(&long) => _ = value()?,
            letter if letter.len() == 1 && LETTERS_WITH_VALUE.contains(letter) => _ = value()?,
            long if FLAGS.contains(&long) => {}
            letter if letter.len() == 1 && FLAG_LETTERS.contains(letter) => {}
            _ => {
                return Err(refuse(
                    word,
                    "",
                    "is not covered by srun here",
                    "start the command without srun",
                ));
            }
        }
    }
    if start.argv.is_empty() {
        return Err(refuse("srun", "", "is given no command", "name one behind its options"));
    }
    // With nodes told and tasks not, Slurm starts one on each.
    let variable = |name: &str| own.get(name).cloned();
    let tasks =
        tasks.or(nodes).or_else(|| variable("SLURM_NTASKS")).or_else(|| variable("SLURM_JOB_NUM_NODES"));
    if let Some(tasks) = tasks.filter(|tasks| tasks != "1") {
        let reason = format!("would start {tasks} tasks; srun here starts one, on this node");
        return Err(refuse("srun", &start.argv.join(" "), &reason, "use mpirun or ssh, or give srun -n 1"));
    }
    for name in ["SLURM_NTASKS", "SLURM_NPROCS", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"] {
        start.env.push((name.to_owned(), "1".to_owned()));
    }
    for name in ["SLURM_STEP_ID", "SLURM_STEPID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"] {
        start.env.push((name.to_owned(), "0".to_owned()));
    }
    Ok(start)
}

/// The name of an option, and its value where that is attached.
fn named(word: &str) -> (String, Option<String>) {
    let Some(long) = word.strip_prefix("--") else {
        let letters = word.trim_start_matches('-');
        let split = letters.chars().next().map_or(0, char::len_utf8);
        let (letter, rest) = letters.split_at(split);
        // Grouped flags are not taken apart: the first decides.
        let rest = Some(rest.trim_start_matches('=')).filter(|rest| !rest.is_empty());
        return (letter.to_owned(), rest.map(str::to_owned));
    };
    match long.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (long.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, variables: &[(&str, &str)]) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let own = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match srun(&words, &own) {
            Ok(start) => format!("{} in {}", start.argv.join(" "), start.directory.unwrap_or_default()),
            Err(problem) => problem.to_string(),
        }
    }

    #[test]
    fn one_task_is_its_command_and_more_are_refused() {
        for (line, said) in [
            ("hostname -f", "hostname -f in "),
            ("-n1 -c 4 --mem=2G --exclusive -u -D /x -- -odd a", "-odd a in /x"),
            ("--ntasks 1 --cpu-bind=cores --mpi none ./app -n 4", "./app -n 4 in "),
            ("-N 1 ./app", "./app in "),
            (
                "-n 4 ./app in",
                "srun = ./app in: would start 4 tasks; srun here starts one, on this node; use mpirun or ssh, or give srun -n 1",
            ),
            (
                "--multi-prog x.conf",
                "--multi-prog: is not covered by srun here; start the command without srun",
            ),
            ("-o out ./app", "-o: is not covered by srun here; redirect with >, 2> or <"),
            ("-n", "-n: needs a value; give one"),
            ("", "srun: is given no command; name one behind its options"),
        ] {
            assert_eq!(shown(line, &[]), said, "{line}");
        }
        let wide = [("SLURM_NTASKS", "2"), ("SLURM_JOB_NUM_NODES", "2")];
        assert!(shown("./app", &wide).contains("would start 2 tasks"));
        assert_eq!(shown("-N 2 -n 1 ./app", &wide), "./app in ");
        assert!(shown("./app", &wide[1..]).contains("would start 2 tasks"));
    }
}
