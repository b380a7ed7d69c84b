//! What is to be run: the part of an Assign that all its tasks share, the
//! launch made of it, and the context by which a later agent knows it again.

use super::key::Key;
use crate::config::AgentConfig;
use prost::Message as _;
use proto::v1::{Assign, Checkpoint, Gang, Input, RankCheckpoint, Resources, Step, Upstream};
use std::collections::BTreeMap;
use std::path::Path;
use world::processes::{Launch, Limits};

/// What the tasks of one Assign share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// For DRUMLINE_JOB_ID.
    pub job_id: String,
    /// How many of its grant may run at once; at least 1.
    pub slots: u32,
    /// What to run. Of a task taken over after a restart: only what is needed
    /// after the launch.
    pub step: Step,
    /// To be laid at inputs/.
    pub inputs: Vec<Input>,
    /// To be laid at from/.
    pub upstreams: Vec<Upstream>,
    /// The other ranks.
    pub gang: Option<Gang>,
}

/// What the supervisor keeps for the next agent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Context {
    #[prost(string, tag = "1")]
    pub(super) job_id: String,
    #[prost(uint32, tag = "2")]
    pub(super) slots: u32,
    #[prost(string, repeated, tag = "3")]
    pub(super) outputs: Vec<String>,
    #[prost(uint64, tag = "4")]
    pub(super) timeout_ms: u64,
    #[prost(uint64, tag = "5")]
    pub(super) memory_bytes: u64,
    #[prost(bool, tag = "6")]
    pub(super) gang: bool,
    /// A node's wall clock may jump: a timeout after a restart is only as
    /// good as that.
    #[prost(uint64, tag = "7")]
    pub(super) launched_wall_ms: u64,
    #[prost(string, tag = "8")]
    pub(super) directory: String,
    #[prost(uint64, tag = "9")]
    pub(super) index: u64,
    #[prost(string, tag = "10")]
    pub(super) program: String,
    #[prost(message, optional, tag = "11")]
    pub(super) checkpoint: Option<Checkpoint>,
}

impl Work {
    /// Reads an Assign; the error says why it cannot be run.
    pub fn of(assign: &Assign) -> Result<Self, String> {
        let step = assign.step.clone().ok_or("the assignment names no step")?;
        if step.argv.is_empty() && step.run.is_empty() {
            return Err(format!("step `{}` has neither argv nor run", step.name));
        }
        if assign.gang.as_ref().is_some_and(|gang| gang.local_ranks == 0) {
            return Err("the gang has no rank on this node".to_owned());
        }
        Ok(Self {
            job_id: assign.job_id.clone(),
            slots: assign.slots.max(1),
            step,
            inputs: assign.inputs.clone(),
            upstreams: assign.upstreams.clone(),
            gang: assign.gang.clone(),
        })
    }

    /// What a context still tells of it.
    #[must_use]
    pub fn adopted(context: &Context) -> Self {
        let per_task = Resources { memory_bytes: context.memory_bytes, ..Resources::default() };
        Self {
            job_id: context.job_id.clone(),
            slots: context.slots.max(1),
            step: Step {
                outputs: context.outputs.clone(),
                timeout_ms: context.timeout_ms,
                per_task: Some(per_task),
                argv: vec![context.program.clone()],
                checkpoint: context.checkpoint.clone(),
                ..Step::default()
            },
            gang: context.gang.then(Gang::default),
            ..Self::default()
        }
    }

    /// A fresh directory is all its tasks need.
    #[must_use]
    pub fn is_light(&self) -> bool {
        self.inputs.is_empty() && self.upstreams.is_empty()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.step.per_task.map_or(0, |resources| resources.memory_bytes)
    }

    /// What is launched, for causes.
    pub(super) fn program(&self) -> &str {
        self.step.argv.first().map_or("sh", String::as_str)
    }

    fn argv(&self) -> Vec<String> {
        if self.step.argv.is_empty() {
            vec!["sh".to_owned(), "-c".to_owned(), self.step.run.clone()]
        } else {
            self.step.argv.clone()
        }
    }
}

/// Where a task's things lie on this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'a> {
    /// The directory of all work directories.
    pub work: &'a Path,
    /// The directory of the spool files.
    pub spool: &'a Path,
    /// The task's own directory within `work`.
    pub directory: &'a str,
}

/// The launch of one rank.
pub(super) fn launch(
    config: &AgentConfig,
    key: &Key,
    index: u64,
    (work, resume): (&Work, Option<&RankCheckpoint>),
    places: Places<'_>,
    wall_ms: u64,
) -> Launch {
    let cwd = places.work.join(places.directory);
    let stem = key.file_stem();
    let context = Context {
        job_id: work.job_id.clone(),
        slots: work.slots,
        outputs: work.step.outputs.clone(),
        timeout_ms: work.step.timeout_ms,
        memory_bytes: work.memory_bytes(),
        gang: work.gang.is_some(),
        launched_wall_ms: wall_ms,
        directory: places.directory.to_owned(),
        index,
        program: work.program().to_owned(),
        checkpoint: work.step.checkpoint.clone(),
    };
    let mut env = environment(config, key, index, work, &cwd);
    if let Some(resume) = resume {
        env.insert("DRUMLINE_CHECKPOINT".to_owned(), resume.label.clone());
    }
    Launch {
        key: key.process_key(),
        argv: work.argv(),
        env: env.into_iter().collect(),
        stdout: places.spool.join(format!("{stem}.out")),
        stderr: places.spool.join(format!("{stem}.err")),
        limits: Limits { memory_bytes: work.memory_bytes(), open_files: config.task_open_files },
        context: context.encode_to_vec(),
        cwd,
    }
}

/// What a task knows of itself. Without a gang it is the only rank: its node
/// list is this node, its master this machine, at port 0 ("any").
fn environment(
    config: &AgentConfig,
    key: &Key,
    index: u64,
    work: &Work,
    cwd: &Path,
) -> BTreeMap<String, String> {
    let mut env = config.base_env.clone();
    env.extend(work.step.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    let mut set = |name: &str, value: String| _ = env.insert(["DRUMLINE_", name].concat(), value);
    set("JOB_ID", work.job_id.clone());
    set("STEP", work.step.name.clone());
    set("TASK", index.to_string());
    set("ATTEMPT", key.attempt.to_string());
    set("RANK", key.rank.to_string());
    let checkpoint = cwd.join(checkpoint_directory(work));
    set("CHECKPOINT_DIR", checkpoint.to_string_lossy().into_owned());
    set("PROGRESS", cwd.join(PROGRESS_FILE).to_string_lossy().into_owned());
    if let Some(gang) = &work.gang {
        let nodes: Vec<&str> = gang.nodes.iter().map(|node| node.node.as_str()).collect();
        set("WORLD_SIZE", gang.world_size.to_string());
        set("LOCAL_RANK", key.rank.saturating_sub(gang.first_rank).to_string());
        set("NODELIST", nodes.join(","));
        set("MASTER_ADDR", gang.master_address.clone());
        set("MASTER_PORT", gang.master_port.to_string());
    } else {
        set("WORLD_SIZE", "1".to_owned());
        set("LOCAL_RANK", "0".to_owned());
        set("NODELIST", config.node.clone());
        set("MASTER_ADDR", "127.0.0.1".to_owned());
        set("MASTER_PORT", "0".to_owned());
    }
    env
}

/// Where a task says how far it has come, below its directory; it makes the file.
pub(crate) const PROGRESS_FILE: &str = ".drumline-progress";

/// Where a task keeps its checkpoints, below its directory; made at staging where
/// the step asks for them.
pub(crate) fn checkpoint_directory(work: &Work) -> String {
    let told = work.step.checkpoint.as_ref().map_or("", |checkpoint| &checkpoint.path);
    let parts: Vec<&str> = told.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() { "checkpoint".to_owned() } else { parts.join("/") }
}
