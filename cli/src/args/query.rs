//! Commands about jobs that are there.

use super::FormatArg;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  drumline ls
  drumline ls --state running --label team=blue
  drumline ls --limit 1000 -o json")]
pub struct LsArgs {
    /// Only jobs in this state (repeatable): pending, running, completed, failed, cancelled
    #[arg(long = "state", value_name = "STATE")]
    pub states: Vec<String>,
    /// Only jobs with this label (repeatable)
    #[arg(long = "label", value_name = "K=V")]
    pub labels: Vec<String>,
    /// At most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub limit: u32,
    /// Jobs of all tenants (for operators)
    #[arg(long)]
    pub all_tenants: bool,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  drumline show default-17
  drumline show 17 --tasks count
  drumline show 17 -o json")]
pub struct ShowArgs {
    /// TENANT-NUMBER, or NUMBER for your own tenant
    #[arg(value_name = "JOB")]
    pub job: String,
    /// List the tasks of this step
    #[arg(long, value_name = "STEP")]
    pub tasks: Option<String>,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  drumline why default-17
  drumline why 17 -o json
  drumline why 17 --at 10m")]
pub struct WhyArgs {
    /// TENANT-NUMBER, or NUMBER for your own tenant
    #[arg(value_name = "JOB")]
    pub job: String,
    /// What it waited for then: 10m ago, an instant (RFC 3339), or milliseconds since 1970
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Each line begins with its step, and its index where the step has many tasks, unless one stream
alone is asked for.

Examples:
  drumline logs default-17
  drumline logs -f 17
  drumline logs 17 --step count --task 3 --stream stderr
  drumline logs -f 17 --tail 10s
  drumline logs 17 --since 2026-03-01T08:15:00Z")]
pub struct LogsArgs {
    /// TENANT-NUMBER, or NUMBER for your own tenant
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Go on until the log ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only this step
    #[arg(long, value_name = "STEP")]
    pub step: Option<String>,
    /// Only the task with this index (needs --step)
    #[arg(long, value_name = "INDEX", requires = "step")]
    pub task: Option<u64>,
    /// Only this rank of a gang (needs --step)
    #[arg(long, value_name = "RANK", requires = "step")]
    pub rank: Option<u32>,
    /// Only this attempt
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
    /// Only this stream
    #[arg(long, value_enum, value_name = "STREAM")]
    pub stream: Option<StreamArg>,
    /// Only what was written in the last so much time
    #[arg(long, value_name = "TIME")]
    pub tail: Option<String>,
    /// Only what was written since then: 10m back from now, an instant (RFC 3339), or milliseconds since 1970
    #[arg(long, value_name = "WHEN", conflicts_with = "tail")]
    pub since: Option<String>,
    /// Only the bytes, without the names of steps
    #[arg(long)]
    pub raw: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StreamArg {
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  drumline events
  drumline events -f default-17
  drumline events --from 1200 -o json")]
pub struct EventsArgs {
    /// Only events of this job
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    /// Go on as events happen (with a job: to its end)
    #[arg(short, long)]
    pub follow: bool,
    /// The first event wanted
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    pub from: u64,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Exits with the job's own code; of many jobs, with the highest.

Examples:
  drumline wait default-17
  drumline wait 17 18 19 --timeout 1h")]
pub struct WaitArgs {
    /// TENANT-NUMBER, or NUMBER for your own tenant
    #[arg(value_name = "JOB", required = true)]
    pub jobs: Vec<String>,
    /// Give up after so long (exit 1)
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  drumline cancel default-17
  drumline cancel 17 18 --reason 'wrong input'")]
pub struct CancelArgs {
    /// TENANT-NUMBER, or NUMBER for your own tenant
    #[arg(value_name = "JOB", required = true)]
    pub jobs: Vec<String>,
    /// Kept in the history
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  drumline retry default-17
  drumline retry 17 --from-step merge")]
pub struct RetryArgs {
    /// TENANT-NUMBER, or NUMBER for your own tenant
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Run this step and all after it again, whatever became of them
    #[arg(long, value_name = "STEP", default_value = "", hide_default_value = true)]
    pub from_step: String,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  drumline outputs default-17
  drumline outputs 17 get results
  drumline outputs 17 -o json")]
pub struct OutputsArgs {
    /// TENANT-NUMBER, or NUMBER for your own tenant
    #[arg(value_name = "JOB")]
    pub job: String,
    #[command(subcommand)]
    pub action: Option<OutputsAction>,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, Subcommand)]
pub enum OutputsAction {
    /// Fetch all files, as DIR/<step>/… or DIR/<step>/<index>/…
    #[command(after_help = "\
What is there already is not fetched again. After a break the same command goes on where it broke off.

Examples:
  drumline outputs default-17 get results")]
    Get {
        /// Where to lay them
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}
