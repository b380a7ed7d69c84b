//! The environment of a batch script: what `--export` hands on, and the
//! `SLURM_…` variables, those known at submission and those known where the
//! task runs.

use super::{pattern::Names, script::some, shape::Shape};
use crate::{
    array,
    limits::{ENV_MAX, ENV_VALUE_BYTES_MAX, LABEL_VALUE_BYTES_MAX},
    problem::Problem,
    v1::ArraySpec,
};
use std::collections::BTreeMap;

type Variables = BTreeMap<String, String>;

/// What of the submitter's environment goes along. Names of `DRUMLINE_` stay
/// here, since one of them is the token; those of `SLURM_` are set anew.
pub fn exported(
    field: &str,
    wanted: Option<&str>,
    own: &Variables,
    warnings: &mut Vec<String>,
) -> Result<Variables, Problem> {
    let mut variables = Variables::new();
    let wanted = wanted.unwrap_or("ALL");
    let items = split(wanted);
    let mut absent = Vec::new();
    for item in &items {
        match item.split_once('=') {
            Some((name, value)) => {
                variables.insert(name.to_owned(), value.to_owned());
            }
            None if item.eq_ignore_ascii_case("all") => {
                for (name, value) in own {
                    variables.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
            None if item.eq_ignore_ascii_case("none") || item.eq_ignore_ascii_case("nil") => {}
            None => match own.get(item) {
                Some(value) => _ = variables.insert(item.clone(), value.clone()),
                None => absent.push(item.clone()),
            },
        }
    }
    if !absent.is_empty() {
        warnings.push(format!("{field}: {} is not set here, nor in the task", some(&absent)));
    }
    // Without these hardly any program finds its way; Slurm has them by a login.
    for name in ["HOME", "USER", "LOGNAME", "SHELL"] {
        if let Some(value) = own.get(name) {
            variables.entry(name.to_owned()).or_insert_with(|| value.clone());
        }
    }
    let mut left_out = Vec::new();
    variables.retain(|name, value| {
        let ours = ["DRUMLINE_", "SLURM_", "SLURMD_"].iter().any(|prefix| name.starts_with(prefix));
        // What the shell keeps of itself, and would be wrong there.
        let of_the_shell = matches!(name.as_str(), "_" | "PWD" | "OLDPWD" | "SHLVL");
        if ours || of_the_shell {
            return false;
        }
        let fits = is_name(name) && value.len() <= ENV_VALUE_BYTES_MAX && !value.contains('\0');
        if !fits {
            left_out.push(name.clone());
        }
        fits
    });
    if !left_out.is_empty() {
        warnings.push(format!("{field}: {} cannot be handed on", some(&left_out)));
    }
    let most = ENV_MAX - SLURM_VARIABLES_MAX;
    if variables.len() > most {
        let reason = format!("hands {} variables on; at most {most} are taken", variables.len());
        return Err(super::refuse(field, wanted, &reason, "name those it needs: --export=PATH,HOME,…"));
    }
    Ok(variables)
}

/// Room kept for the variables of [`told`].
const SLURM_VARIABLES_MAX: usize = 40;

fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|b| !b.is_ascii_digit())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
        && bytes.len() <= LABEL_VALUE_BYTES_MAX
}

/// Parts at commas that stand in no quotes; the quotes go.
fn split(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut quote = None;
    for c in text.chars() {
        match (c, quote) {
            (',', None) => items.push(String::new()),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, _) => items.last_mut().expect("there is one from the start").push(c),
        }
    }
    items.retain(|item| !item.is_empty() && !item.starts_with('='));
    items
}

/// What is known when the job is submitted.
#[derive(Debug)]
pub struct Told<'a> {
    /// The job's name.
    pub name: &'a str,
    /// Where it was submitted.
    pub directory: &'a str,
    /// On which machine.
    pub host: &'a str,
    /// By whom.
    pub user: &'a str,
    /// Empty: any pool.
    pub pool: &'a str,
    /// Its size.
    pub shape: &'a Shape,
    /// Its indexes.
    pub array: Option<&'a ArraySpec>,
}

/// The variables that are the same for every task.
pub fn told(told: &Told<'_>) -> Variables {
    let shape = told.shape;
    let mut variables = Variables::new();
    let mut set = |name: &str, value: String| {
        if !value.is_empty() {
            variables.insert(format!("SLURM_{name}"), value);
        }
    };
    let each = |count: u32| match shape.nodes {
        1 => count.to_string(),
        nodes => format!("{count}(x{nodes})"),
    };
    set("CLUSTER_NAME", "drumline".to_owned());
    set("JOB_NAME", told.name.to_owned());
    set("JOB_USER", told.user.to_owned());
    set("JOB_PARTITION", told.pool.to_owned());
    set("SUBMIT_DIR", told.directory.to_owned());
    set("SUBMIT_HOST", told.host.to_owned());
    set("JOB_NUM_NODES", shape.nodes.to_string());
    set("NNODES", shape.nodes.to_string());
    set("TASKS_PER_NODE", shape.tasks_per_node());
    set("JOB_CPUS_PER_NODE", each(shape.cores_per_node));
    set("CPUS_ON_NODE", shape.cores_per_node.to_string());
    // As in Slurm these are only there where the script asked: scripts test it.
    if shape.tasks_told {
        set("NTASKS", shape.tasks.to_string());
        set("NPROCS", shape.tasks.to_string());
    }
    if let Some(count) = shape.tasks_per_node_told {
        set("NTASKS_PER_NODE", count.to_string());
    }
    if let Some(count) = shape.cores_per_task_told {
        set("CPUS_PER_TASK", count.to_string());
    }
    match shape.memory_per_core_bytes {
        Some(bytes) => set("MEM_PER_CPU", (bytes >> 20).to_string()),
        None if shape.memory_bytes > 0 => set("MEM_PER_NODE", (shape.memory_bytes >> 20).to_string()),
        None => {}
    }
    if shape.gpus > 0 {
        set("GPUS_ON_NODE", shape.gpus.to_string());
    }
    if let Some(array) = told.array {
        let firsts = array.items.iter().map(|item| item.first).min().unwrap_or(0);
        let lasts = array.items.iter().map(|item| item.last).max().unwrap_or(0);
        let stride = if let [only] = array.items.as_slice() { only.stride.max(1) } else { 1 };
        set("ARRAY_TASK_COUNT", array::count(array).to_string());
        set("ARRAY_TASK_MIN", firsts.to_string());
        set("ARRAY_TASK_MAX", lasts.to_string());
        set("ARRAY_TASK_STEP", stride.to_string());
    }
    variables
}

/// What is known where the task runs, from what a task of Drumline's knows of
/// itself: the names for file patterns, and the variables.
pub fn on_node(own: &Variables) -> (Names, Variables) {
    let text = |name: &str| own.get(name).map_or("", String::as_str);
    let id = text("DRUMLINE_JOB_ID");
    let nodes = text("DRUMLINE_NODELIST");
    let rank: usize = text("DRUMLINE_RANK").parse().unwrap_or(0);
    let node = nodes.split(',').nth(rank).unwrap_or(nodes);
    let index =
        own.contains_key("SLURM_ARRAY_TASK_COUNT").then(|| text("DRUMLINE_TASK").parse().unwrap_or(0));
    let names = Names {
        job: id.rsplit('-').next().unwrap_or(id).to_owned(),
        index,
        name: text("SLURM_JOB_NAME").to_owned(),
        user: text("SLURM_JOB_USER").to_owned(),
        node: node.split('.').next().unwrap_or(node).to_owned(),
    };
    let attempt: u64 = text("DRUMLINE_ATTEMPT").parse().unwrap_or(1);
    let mut variables = Variables::new();
    let mut set = |name: &str, value: String| _ = variables.insert(name.to_owned(), value);
    set("SLURM_JOB_ID", names.job_id());
    set("SLURM_JOBID", names.job_id());
    set("SLURM_JOB_NODELIST", nodes.to_owned());
    set("SLURM_NODELIST", nodes.to_owned());
    set("SLURMD_NODENAME", node.to_owned());
    set("SLURM_RESTART_COUNT", attempt.saturating_sub(1).to_string());
    for name in ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_GTIDS"] {
        set(name, "0".to_owned());
    }
    set("ENVIRONMENT", "BATCH".to_owned());
    if let Some(index) = index {
        set("SLURM_ARRAY_JOB_ID", names.job.clone());
        set("SLURM_ARRAY_TASK_ID", index.to_string());
    }
    (names, variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn shown(wanted: Option<&str>) -> (String, Vec<String>) {
        let own = variables(&[
            ("PATH", "/bin"),
            ("HOME", "/home/ada"),
            ("DRUMLINE_TOKEN", "dl_secret"),
            ("SLURM_JOB_ID", "9"),
            ("BASH_FUNC_ml%%", "() { :; }"),
            ("PWD", "/tmp"),
        ]);
        let mut warnings = Vec::new();
        let exported = exported("--export", wanted, &own, &mut warnings).unwrap();
        (
            exported.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "),
            warnings,
        )
    }

    #[test]
    fn the_environment_goes_along_as_wanted_and_the_token_never() {
        let functions = vec!["--export: BASH_FUNC_ml%% cannot be handed on".to_owned()];
        assert_eq!(shown(None), ("HOME=/home/ada PATH=/bin".to_owned(), functions.clone()));
        assert_eq!(shown(Some("ALL,A=1,PATH=/x")), ("A=1 HOME=/home/ada PATH=/x".to_owned(), functions));
        assert_eq!(shown(Some("NONE")), ("HOME=/home/ada".to_owned(), vec![]));
        assert_eq!(shown(Some("DRUMLINE_TOKEN")), ("HOME=/home/ada".to_owned(), vec![]));
        assert_eq!(
            shown(Some("A='x,y',PATH,GONE")),
            (
                "A=x,y HOME=/home/ada PATH=/bin".to_owned(),
                vec!["--export: GONE is not set here, nor in the task".to_owned()]
            )
        );
    }

    #[test]
    fn too_many_variables_are_refused() {
        let own: Variables = (0..300).map(|n| (format!("V{n}"), String::new())).collect();
        let problem = exported("--export", None, &own, &mut Vec::new()).unwrap_err();
        assert_eq!(problem.reason, "hands 300 variables on; at most 216 are taken");
    }

    #[test]
    fn a_task_knows_itself() {
        let own = variables(&[
            ("DRUMLINE_JOB_ID", "lab-b-17"),
            ("DRUMLINE_NODELIST", "n1.x,n2.x"),
            ("DRUMLINE_RANK", "1"),
            ("DRUMLINE_TASK", "3"),
            ("DRUMLINE_ATTEMPT", "2"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
            ("SLURM_JOB_NAME", "fit"),
        ]);
        let (names, set) = on_node(&own);
        assert_eq!(
            (names.job_id().as_str(), names.node.as_str(), names.name.as_str()),
            ("17_3", "n2", "fit")
        );
        let text = |name: &str| set.get(name).map_or("-", String::as_str);
        assert_eq!(
            [text("SLURM_JOB_ID"), text("SLURM_ARRAY_JOB_ID"), text("SLURM_ARRAY_TASK_ID")],
            ["17_3", "17", "3"]
        );
        assert_eq!([text("SLURM_RESTART_COUNT"), text("SLURMD_NODENAME")], ["1", "n2.x"]);
        let (names, set) = on_node(&variables(&[("DRUMLINE_JOB_ID", "default-5"), ("DRUMLINE_TASK", "0")]));
        assert_eq!((names.job_id().as_str(), set.contains_key("SLURM_ARRAY_JOB_ID")), ("5", false));
    }
}
