//! `drumline submit`.

use super::FormatArg;
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(after_help = "\
Bytes that are there already are not sent again. After a break, or ctrl-c, the same command goes on
where it broke off, within a day. A job names what was uploaded by its digest; -o name prints digests
alone. Of a directory each file is sent, and then a list of them, whose digest is that of the directory.

Examples:
  drumline upload big.csv
  drumline submit --input data=sha256:$(drumline upload -o name big.csv) -- wc -l inputs/data
  drumline submit --input set=sha256:$(drumline upload -o name images/) -- ls -R inputs/set
  drumline upload -o json *.csv")]
pub struct UploadArgs {
    /// The files and directories
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Flags that describe a step (--array, --cores, …) go with a command, or with a file of one step.

Examples:
  drumline submit job.toml --wait
  drumline submit --array 1-100%5 --cores 1 -- sh -c 'echo task $DRUMLINE_TASK'
  drumline submit --nodes 2 --tasks-per-node 2 --time 10m --follow -- ./solve
  drumline submit --exclusive --time 10m -- ./measure
  drumline submit --licenses matlab:1 --array 1-100 -- ./fit
  drumline submit --after ok:default-17 --input data=big.csv --output 'out/*' -- ./crunch inputs/data
  drumline submit --input data=sha256:$(drumline upload -o name big.csv) -- ./crunch inputs/data
  drumline submit --input set=images/ -- ./train inputs/set
  drumline submit --idempotency-key nightly-1 -o json job.toml")]
pub struct SubmitArgs {
    /// The job file (TOML); - reads standard input
    #[arg(value_name = "FILE", conflicts_with = "command", required_unless_present = "command")]
    pub file: Option<PathBuf>,
    /// The command to run, after --
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,

    /// The job's name
    #[arg(long, value_name = "NAME", help_heading = "Job")]
    pub name: Option<String>,
    /// Higher goes first, -1000 to 1000
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Job")]
    pub priority: Option<i32>,
    /// How long a task is expected to run: 2m, 1h30m
    #[arg(long, value_name = "TIME", help_heading = "Job")]
    pub expected_runtime: Option<String>,
    /// Keep outputs and logs no longer than this after the end: 7d, 12h [default: as the tenant does]
    #[arg(long, value_name = "TIME", help_heading = "Job")]
    pub keep: Option<String>,
    /// A file or directory, sha256:DIGEST of what was uploaded, or a URL that ends in
    /// #sha256=DIGEST, given to every task as inputs/N (repeatable)
    #[arg(long = "input", value_name = "N=PATH", help_heading = "Job")]
    pub inputs: Vec<String>,
    /// Start only after another job ended: ok:ID, notok:ID or any:ID; after one task of its array:
    /// ok:ID[4], ok:ID/STEP[4]; each task after its like: each:ID, each:ID/STEP (repeatable)
    #[arg(long = "after", value_name = "HOW:ID", help_heading = "Job")]
    pub after: Vec<String>,
    /// A label (repeatable)
    #[arg(long = "label", value_name = "K=V", help_heading = "Job")]
    pub labels: Vec<String>,

    /// Run many tasks: 0-15, 1,3,5-9:2, 1-100%5 (5 at a time)
    #[arg(long, value_name = "INDEXES", help_heading = "Step")]
    pub array: Option<String>,
    /// Nodes of a gang: all ranks run at once or none
    #[arg(long, value_name = "N", help_heading = "Step")]
    pub nodes: Option<u32>,
    /// Ranks of a gang on each node
    #[arg(long, value_name = "N", help_heading = "Step")]
    pub tasks_per_node: Option<u32>,
    /// Cores of each task or rank: 1, 0.5
    #[arg(long, value_name = "CORES", help_heading = "Step")]
    pub cores: Option<String>,
    /// Memory of each task or rank: 64MiB, 4GiB
    #[arg(long, value_name = "SIZE", help_heading = "Step")]
    pub memory: Option<String>,
    /// GPUs of each task or rank
    #[arg(long, value_name = "N", help_heading = "Step")]
    pub gpus: Option<u32>,
    /// What runs the command: process
    #[arg(long, value_name = "NAME", help_heading = "Step")]
    pub runtime: Option<String>,
    /// Keep the files that match (repeatable)
    #[arg(long = "output", value_name = "GLOB", help_heading = "Step")]
    pub outputs: Vec<String>,
    /// End a task that runs longer
    #[arg(long, value_name = "TIME", help_heading = "Step")]
    pub time: Option<String>,
    /// Tries after the first that a failed task gets
    #[arg(long, value_name = "N", help_heading = "Step")]
    pub retries: Option<u32>,
    /// A variable of the environment (repeatable)
    #[arg(long = "env", value_name = "K=V", help_heading = "Step")]
    pub env: Vec<String>,
    /// Only nodes of this pool
    #[arg(long, value_name = "NAME", help_heading = "Step")]
    pub pool: Option<String>,
    /// Only nodes with this label: disk=ssd, zone!=b (repeatable)
    #[arg(long = "constraint", value_name = "K=V", help_heading = "Step")]
    pub constraints: Vec<String>,
    /// Each task takes whole nodes: nothing else runs there while it does
    #[arg(long, help_heading = "Step")]
    pub exclusive: bool,
    /// What each task holds of licenses, a gang as a whole: matlab:1,ansys (repeatable)
    #[arg(short = 'L', long = "licenses", value_name = "NAME:N", help_heading = "Step")]
    pub licenses: Vec<String>,

    /// The same key never makes a second job
    #[arg(long, value_name = "K", default_value = "", hide_default_value = true)]
    pub idempotency_key: String,
    /// Check everything and tell the price, but submit nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Wait for the end; exit with the job's code
    #[arg(long)]
    pub wait: bool,
    /// Print the logs as they come, then as --wait
    #[arg(long)]
    pub follow: bool,
    #[command(flatten)]
    pub format: FormatArg,
}
