//! The command line: one definition, from which help, completions and man
//! pages follow too.

mod accounts;
mod cluster;
mod operate;
mod query;
mod slurm;
mod submit;

pub use accounts::{
    QuotaAction, QuotaArgs, TenantAction, TenantLimits, TenantsArgs, TokenAction, TokenRole, TokensArgs,
    UsageArgs, UsageFormat, WhenFullArg,
};
pub use cluster::{AgentArgs, LocalDriverArgs, RunArgs, SchedulerArgs, ServerArgs, StoreArgs, UpArgs};
pub use operate::{
    AlertsArgs, CompletionsArgs, LicensesArgs, ManArgs, NodeAction, NodeArgs, NodesArgs, PolicyArg,
    PoolsArgs, ReplayArgs, ReserveAction, ReserveArgs, ReserveSetArgs, SupervisorArgs, TopArgs,
};
pub use query::{
    CancelArgs, EventsArgs, LogsArgs, LsArgs, OutputsAction, OutputsArgs, RetryArgs, ShowArgs, StreamArg,
    WaitArgs, WhyArgs,
};
pub use slurm::{
    BatchArgs, OpenMode, SbatchArgs, ScancelArgs, SignalTo, SinfoArgs, SqueueArgs, SrunArgs, called_as,
};
pub use submit::{SubmitArgs, UploadArgs};

use clap::{Args, Parser, Subcommand, ValueEnum};

const AFTER_HELP: &str = "\
Exit codes:
  0  done; where a job is waited for (run, wait, --wait, --follow): it completed
  1  this machine or Drumline failed
  2  wrong use: flags, arguments, files that are not there
  3  refused: the reason, what to do, and a stable [code] are in the one line on stderr
  4  the server is out of reach
  N  where a job is waited for: its own exit code, the highest of its tasks;
     128 + n where signal n ended one; 127 where its program was not found,
     126 where it could not be run; 1 where it failed without a code

Examples:
  drumline run examples/wordcount.toml
  drumline up --data ~/.drumline & . ~/.drumline/client.env
  drumline submit --array 1-100%5 --cores 1 -- sh -c 'echo $DRUMLINE_TASK'
  drumline ls";

/// Runs batch work on many machines.
#[derive(Debug, Parser)]
#[command(name = "drumline", version, after_help = AFTER_HELP, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: Command,
}

/// Which server, and as whom.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Where the server listens; of several that stand in for one another all, with commas between
    #[arg(long, global = true, env = "DRUMLINE_SERVER", value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// API token (dl_…)
    #[arg(long, global = true, env = "DRUMLINE_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Tenant, where the token does not tell it
    #[arg(long, global = true, env = "DRUMLINE_TENANT", value_name = "NAME")]
    pub tenant: Option<String>,
}

/// How results are written.
#[derive(Args, Clone, Copy, Debug)]
pub struct FormatArg {
    /// How to write the result
    #[arg(short = 'o', long = "format", value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub format: Format,
}

/// The ways to write a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For people with wide terminals
    Wide,
    /// For programs
    Json,
    /// Only names, one a line
    Name,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a job file to its end: logs and progress here, outputs in ./outputs
    Run(RunArgs),
    /// Run a server and one agent on this machine until ctrl-c
    Up(UpArgs),
    /// Run a server
    Server(ServerArgs),
    /// Run a store that several servers share
    Store(StoreArgs),
    /// Run the agent of one node
    Agent(AgentArgs),
    /// Run a scheduler beside the server's own
    Scheduler(SchedulerArgs),
    /// Start and end agents on this machine: a driver for pools that grow by need
    LocalDriver(LocalDriverArgs),
    /// Submit a job file or a command
    Submit(Box<SubmitArgs>),
    /// Send files ahead, for jobs to name by digest
    Upload(UploadArgs),
    /// Submit a batch script written for Slurm
    Sbatch(SbatchArgs),
    /// List jobs as Slurm does
    Squeue(SqueueArgs),
    /// Cancel jobs as Slurm does
    Scancel(ScancelArgs),
    /// List pools and nodes as Slurm does
    Sinfo(SinfoArgs),
    /// List jobs, newest first
    Ls(LsArgs),
    /// Show one job and its steps
    Show(ShowArgs),
    /// Tell why a job waits, or what became of it
    Why(WhyArgs),
    /// Print a job's output, from the start or as it comes
    Logs(LogsArgs),
    /// Print the history: every change of state, numbered
    Events(EventsArgs),
    /// Wait for jobs to end
    Wait(WaitArgs),
    /// Cancel jobs
    Cancel(CancelArgs),
    /// Try failed and cancelled tasks of a job again
    Retry(RetryArgs),
    /// List or fetch a job's output files
    Outputs(OutputsArgs),
    /// List nodes
    Nodes(NodesArgs),
    /// Drain or resume a node
    Node(NodeArgs),
    /// Keep nodes free for a while, for maintenance or for some tenants
    Reserve(ReserveArgs),
    /// List pools: capacity, what is free, what queues
    Pools(PoolsArgs),
    /// List licenses: how many there are, and how many are held
    Licenses(LicensesArgs),
    /// List what somebody should look at
    Alerts(AlertsArgs),
    /// List, make or change tenants
    Tenants(TenantsArgs),
    /// Show or change what a tenant may use
    Quota(QuotaArgs),
    /// Show what jobs ran for and cost
    Usage(UsageArgs),
    /// List, make or revoke API tokens
    Tokens(TokensArgs),
    /// Tell what scheduling policies would have done with a workload log
    Replay(ReplayArgs),
    /// Watch the cluster in a terminal: jobs, nodes, logs; cancel jobs
    Top(TopArgs),
    /// Write shell completions
    Completions(CompletionsArgs),
    /// Write the man page
    Man(ManArgs),
    /// The process that holds a node's tasks (started by agents)
    #[command(hide = true)]
    Supervisor(SupervisorArgs),
    /// What a job of sbatch's runs on its node
    #[command(hide = true)]
    Batch(BatchArgs),
    /// What the script of such a job finds as srun
    #[command(hide = true)]
    Srun(SrunArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_line_and_examples() {
        fn check(command: &clap::Command, path: &str) {
            if command.is_hide_set() || command.get_name() == "help" {
                return;
            }
            let about = command.get_about().unwrap_or_else(|| panic!("{path} has no line")).to_string();
            assert!(!about.contains('\n') && about.len() < 80, "{path}: {about}");
            // Where there are subcommands, these have them.
            if command.get_subcommands().next().is_none() || path == "drumline" {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:\n  drumline"), "{path} has no examples");
            }
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        check(&Cli::command(), "drumline");
    }

    #[test]
    fn the_contracts_lines_are_taken() {
        for line in [
            "run JOB.toml",
            "run JOB.toml --data d --outputs o",
            "up --data d --listen 127.0.0.1:0",
            "server --config s.toml",
            "server --store h:1 --store-token dl_0 --data d",
            "store --data d --listen 127.0.0.1:0",
            "agent --config a.toml --server h:1",
            "local-driver --data d --env-file e -- --cores 1",
            "submit job.toml --dry-run",
            "submit --array 1-100%5 --cores 0.5 --memory 1GiB -- sh -c ls",
            "submit --nodes 2 --tasks-per-node 2 --gpus 1 --runtime process --input a=b --output *.x -- x",
            "submit --time 1h --retries 0 --priority -5 --after ok:default-3 --after any:4 -- x",
            "submit --label k=v --idempotency-key K --wait --follow -o json -- x",
            "submit --input a=sha256:0f -- x",
            "upload a b -o json",
            "sbatch -n 4 -t 10 job.sh -a",
            "squeue -h -o %i --me",
            "scancel -n x",
            "sinfo -N",
            "ls -o json",
            "show default-1 -o wide",
            "why 1",
            "logs -f 1",
            "logs 1 --step a --task 3 --tail 10s",
            "events -f",
            "events 1",
            "wait 1 2",
            "cancel 1 --reason x",
            "retry 1 --from-step a",
            "outputs 1",
            "outputs 1 get DIR",
            "nodes -o name",
            "node drain n1 --reason fan",
            "node resume n1",
            "reserve",
            "reserve ls -o json",
            "reserve set fans --nodes n1,n2 --from 2h --for 4h",
            "reserve set demo --pool gpu --until 2h --tenants lab --reason x",
            "reserve rm fans",
            "pools",
            "pools --cores 4 --memory 8GiB --gpus 1 --nodes 2 --tasks-per-node 2",
            "tenants",
            "tenants ls -o json",
            "tenants create lab --cores 8 --budget 100",
            "tenants show lab -o json",
            "tenants set lab --cores 8 --budget none",
            "quota",
            "quota show lab -o json",
            "quota set lab --egress 1GiB",
            "usage",
            "usage --month 2026-02",
            "usage --all-tenants -o csv",
            "tokens",
            "tokens create ci --role tenant --for lab",
            "tokens ls -o name",
            "tokens revoke ci 00ff00ff00ff",
            "top",
            "top --tenant lab",
            "completions bash",
            "man",
        ] {
            let words = std::iter::once("drumline").chain(line.split(' '));
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in ["", "upload", "submit job.toml -- ls", "ls -o yaml", "show", "scancel", "nosuch"] {
            let words = std::iter::once("drumline").chain(line.split(' ').filter(|word| !word.is_empty()));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
