//! `drumline batch`: what a job of sbatch's runs on its node; and `srun` as its
//! script finds it.

use crate::{
    args::{BatchArgs, OpenMode, SignalTo, SrunArgs},
    commands::Outcome,
    failure::Failure,
};
use proto::sbatch::{self, Names};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};
use world::{
    NodeClock as _,
    real::{
        SystemClock,
        batch::{self, Batch, BatchError, Hold, HoldError, Warning},
    },
    time::ms,
};

/// Where `srun` registers, told by this variable.
const STEPS: &str = "DRUMLINE_STEPS";
/// The program of this node, told by every agent to its tasks.
const EXE: &str = "DRUMLINE_EXE";

/// What is no UTF-8 in it is passed on all the same, but not looked at.
fn environment() -> BTreeMap<String, String> {
    let text = |text: OsString| text.into_string().ok();
    std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

/// Runs the script, or holds the node while it runs on the job's first one.
pub async fn run(args: BatchArgs) -> Outcome {
    let own = environment();
    let number = |name: &str| own.get(name).and_then(|text| text.parse::<u32>().ok());
    let (world_size, rank) =
        (number("DRUMLINE_WORLD_SIZE").unwrap_or(1), number("DRUMLINE_RANK").unwrap_or(0));
    if world_size <= 1 {
        return script(args, &own).await;
    }
    let text = |name: &str| own.get(name).cloned().unwrap_or_default();
    let port = number("DRUMLINE_MASTER_PORT").and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
    let hold = Hold {
        host: text("DRUMLINE_MASTER_ADDR"),
        port,
        job: format!("{} {}", text("DRUMLINE_JOB_ID"), text("DRUMLINE_ATTEMPT")),
        rank,
    };
    if rank > 0 {
        return held(&hold).await;
    }
    let gathering = batch::gather(port, &hold.job, world_size - 1).await.map_err(|error| {
        Failure::broken("port", port, error.to_string(), "is it in use? set gang_port_first of the server")
    })?;
    gathering.during(script(args, &own)).await
}

async fn held(hold: &Hold) -> Outcome {
    let first = format!("{}:{}", hold.host, hold.port);
    match batch::wait_for_end(hold).await {
        Ok(()) => Ok(0),
        Err(HoldError::Unreachable(error)) => Err(Failure::broken(
            "first node",
            first,
            error.to_string(),
            "let the nodes reach each other by their addresses",
        )),
        Err(HoldError::Orphaned) => {
            Err(Failure::broken("first node", first, "its process is gone", "look at its part of the log"))
        }
    }
}

async fn script(args: BatchArgs, own: &BTreeMap<String, String>) -> Outcome {
    let (names, known) = sbatch::on_node(own);
    let place = std::env::current_dir().map_err(|error| unusable(&error))?;
    let mut env: Vec<(String, String)> = known.into_iter().collect();
    let started = SystemClock::new().wall_ms() / 1000;
    env.push(("SLURM_JOB_START_TIME".to_owned(), started.to_string()));
    let steps = place.join(".slurm/steps");
    batch::make_steps(&steps).map_err(|error| unusable(&error))?;
    env.push((STEPS.to_owned(), steps.display().to_string()));
    if let Some(path) = path_with_srun(own, &place).map_err(|error| unusable(&error))? {
        env.push(("PATH".to_owned(), path));
    }
    let mut words = args.script.into_iter();
    let job = Batch {
        script: words.next().unwrap_or_default(),
        script_path: place.join("slurm_script"),
        args: words.collect(),
        env,
        directory: args.chdir,
        input: args.input.map(|pattern| filled(&pattern, &names)),
        output: filled(&args.output, &names),
        error: args.error.map(|pattern| filled(&pattern, &names)),
        append: args.open_mode == OpenMode::Append,
        warning: args.signal.map(|signal| Warning {
            signal,
            after: ms(args.signal_after_ms.unwrap_or_default()),
            steps: (args.signal_to == SignalTo::Steps).then_some(steps),
        }),
    };
    batch::run(job).await.map_err(cannot)
}

fn filled(pattern: &str, names: &Names) -> PathBuf {
    PathBuf::from(sbatch::fill(pattern, names))
}

/// PATH with ours in front of it, where the node has no srun of its own.
fn path_with_srun(own: &BTreeMap<String, String>, place: &Path) -> io::Result<Option<String>> {
    let (Some(path), Some(exe)) = (own.get("PATH"), own.get(EXE)) else { return Ok(None) };
    if std::env::split_paths(path).any(|directory| directory.join("srun").is_file()) {
        return Ok(None);
    }
    let links = place.join(".slurm/bin");
    batch::link(Path::new(exe), &links, "srun")?;
    Ok(Some(format!("{}:{path}", links.display())))
}

fn unusable(error: &io::Error) -> Failure {
    Failure::broken("task directory", "", error.to_string(), "look at the node's disk")
}

fn cannot(BatchError { what, error }: BatchError) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "paths of a batch job must be there on the node: use a shared file system",
        io::ErrorKind::PermissionDenied => {
            "the task runs as its node's agent does: let it read and write there"
        }
        _ => "look at the node",
    };
    Failure::broken("batch script", what, error.to_string(), remedy)
}

/// Puts the command in this process's place.
pub fn srun(args: &SrunArgs) -> Outcome {
    let own = environment();
    let start = sbatch::srun(&args.words, &own)?;
    if let Some(steps) = own.get(STEPS) {
        batch::register(Path::new(steps)).map_err(|error| unusable(&error))?;
    }
    let BatchError { what, error } =
        batch::replace(&start.argv, &start.env, start.directory.as_deref().map(Path::new));
    Err(Failure::wrong_use("srun", what, &error.to_string(), "correct the command"))
}
