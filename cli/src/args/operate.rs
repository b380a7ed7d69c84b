//! Commands for operators, and those about the program itself.

use super::FormatArg;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  drumline nodes\n  drumline nodes -o wide")]
pub struct NodesArgs {
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Args, Debug)]
#[command(after_help = "\
START is when a request that is made now would start, after all that is queued: one task of one core,
or what the flags ask for. With flags or -o wide it is told what that rests on, or why it is not known.
AUTOSCALE tells of pools that grow by need their least and most nodes, how many were asked for and are
not there yet or are leaving, and what is wrong: drumline alerts says more, docs/autoscaling.md how.
PREEMPTION tells where work gives way to work whose priority is so much higher, after how long a wait, and
how long a last checkpoint is waited for; docs/preemption.md says more.

Examples:
  drumline pools
  drumline pools --cores 4 --memory 8GiB --nodes 2
  drumline pools --nodes 2 --exclusive
  drumline pools -o json")]
pub struct PoolsArgs {
    /// Cores of each task: 1, 0.5
    #[arg(long, value_name = "CORES")]
    pub cores: Option<String>,
    /// Memory of each task: 64MiB, 4GiB
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// GPUs of each task
    #[arg(long, value_name = "N")]
    pub gpus: Option<u32>,
    /// Nodes needed at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes: Option<u32>,
    /// Tasks on each node
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tasks_per_node: Option<u32>,
    /// Whole nodes, on which nothing runs
    #[arg(long)]
    pub exclusive: bool,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Args, Debug)]
#[command(after_help = "\
USED is what grants hold: a grant to tasks of an array holds as many as all its slots need until it is
given back, within seconds of their end. docs/cluster.md says how a server is told what there is.

Examples:
  drumline licenses
  drumline licenses -o json
  drumline submit --licenses matlab:1 -- ./fit")]
pub struct LicensesArgs {
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Args, Debug)]
#[command(after_help = "\
What an operator should look at: nodes lost or flapping, pools without room, queues that stand, budgets,
storms of retries, logs given up. A tenant sees those of its own budget and queue. docs/alerts.md has
the codes, and what to do about each.

Examples:
  drumline alerts
  drumline alerts --cleared -o wide
  drumline alerts -o json
  drumline alerts -o name | grep -q '^budget.100' && echo 'out of money'")]
pub struct AlertsArgs {
    /// Those that were cleared lately too
    #[arg(long)]
    pub cleared: bool,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Nothing begins on a reserved node that may run into the reservation: what has no time limit (--time,
or expected_runtime) waits for its end. What runs there goes on.

Examples:
  drumline reserve
  drumline reserve set fans --nodes n1,n2 --from 2026-12-01T08:00:00Z --until 2026-12-01T12:00:00Z
  drumline reserve set demo --pool gpu --from 30m --for 2h --tenants lab
  drumline reserve rm fans")]
pub struct ReserveArgs {
    #[command(subcommand)]
    pub action: Option<ReserveAction>,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, Subcommand)]
pub enum ReserveAction {
    /// List reservations that are not over
    #[command(after_help = "Examples:\n  drumline reserve ls -o json")]
    Ls {
        #[command(flatten)]
        format: FormatArg,
    },
    /// Reserve nodes, or change which and when
    #[command(
        after_help = "Examples:\n  drumline reserve set fans --nodes n1,n2 --from 2h --for 4h --reason 'new fans'"
    )]
    Set(ReserveSetArgs),
    /// End a reservation now
    #[command(after_help = "Examples:\n  drumline reserve rm fans")]
    Rm {
        /// Which
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("where").required(true).multiple(true).args(["nodes", "pool"]))]
#[command(group = ArgGroup::new("end").required(true).args(["until", "lasts"]))]
pub struct ReserveSetArgs {
    /// A name for it; one that is there already is replaced
    #[arg(value_name = "NAME")]
    pub name: String,
    /// These nodes
    #[arg(long, value_name = "NODE,…", value_delimiter = ',')]
    pub nodes: Vec<String>,
    /// The nodes that are in this pool now
    #[arg(long, value_name = "POOL", default_value = "", hide_default_value = true)]
    pub pool: String,
    /// From when on: an instant, or so long from now; without it from now on
    #[arg(long, value_name = "WHEN")]
    pub from: Option<String>,
    /// Until when: an instant, or so long from now
    #[arg(long, value_name = "WHEN")]
    pub until: Option<String>,
    /// For how long
    #[arg(long = "for", id = "lasts", value_name = "TIME")]
    pub lasts: Option<String>,
    /// Whose work may run there all the same
    #[arg(long, value_name = "TENANT,…", value_delimiter = ',')]
    pub tenants: Vec<String>,
    /// Kept with it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
}

#[derive(Args, Debug)]
pub struct NodeArgs {
    #[command(subcommand)]
    pub action: NodeAction,
}

#[derive(Debug, Subcommand)]
pub enum NodeAction {
    /// Place nothing new on a node; what runs there goes on
    #[command(after_help = "Examples:\n  drumline node drain n1 --reason 'broken fan'")]
    Drain {
        /// Which node
        #[arg(value_name = "NODE")]
        node: String,
        /// Kept with the node
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Take a drained node into use again
    #[command(after_help = "Examples:\n  drumline node resume n1")]
    Resume {
        /// Which node
        #[arg(value_name = "NODE")]
        node: String,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "\
Needs a terminal. All tenants that the token sees are shown, or the one that --tenant names.
Keys: 1 2 3 or Tab for overview, jobs and nodes; arrows or j k to move; Enter opens a job;
/ filters; l log, w why, c cancel (asks before); ? tells them all; q quits.
NO_COLOR is honoured. Ended by a signal n, the exit code is 128 + n.

Examples:
  drumline top
  drumline top --tenant lab
  NO_COLOR=1 drumline top")]
pub struct TopArgs {}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  drumline completions bash > /etc/bash_completion.d/drumline
  drumline completions zsh > ~/.zfunc/_drumline")]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  drumline man | man -l -
  drumline man submit | man -l -
  drumline man --dir /usr/share/man/man1")]
pub struct ManArgs {
    /// The page of one command
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub command: Option<String>,
    /// Write all pages into a directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct SupervisorArgs {
    /// Where to listen
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Without an agent for so long, everything is killed; 0: never
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub linger_ms: u64,
}

#[derive(Args, Debug)]
#[command(after_help = "\
The log is in the Standard Workload Format, as the Parallel Workloads Archive has them, plain or gzipped.
Left out are jobs larger than the machine and those without a span, a size or an estimate; a run is cut at
its estimate. A job's bounded slowdown is (wait + run) / max(run, 10 s), 1 at least. FAIRNESS is Jain's
index over the users' mean bounded slowdowns: 1 where all fare alike.

One run's gain of a few percent is chance: --copies works off as many copies of the log, each submission
moved by 0 to --shake seconds, and tells the means. A copy is the same on every machine.

Policies:
  fcfs          first come, first served
  easy          the first that waits has a reservation, and who does not delay it may overtake
  easy-sjbf     the same, shortest estimate first among those that may overtake
  conservative  all that wait have reservations, which never move back
  default       who suffers most comes first: ln(expected slowdown) + wait / mean run so far; the first that
                waits has a reservation

Examples:
  drumline replay KTH-SP2-1996-2.swf.gz
  drumline replay log.swf --policy easy,default --shake 59 --copies 12
  drumline replay log.swf --policy easy,default --plot
  drumline replay log.swf --svg > replay.svg
  drumline replay log.swf --processors 512 -o json")]
pub struct ReplayArgs {
    /// The log
    #[arg(value_name = "LOG.swf")]
    pub log: PathBuf,
    /// Policies to compare; all of them without it
    #[arg(long, value_enum, value_delimiter = ',', value_name = "POLICY")]
    pub policy: Vec<PolicyArg>,
    /// Processors of the machine, where the log does not tell them or tells others
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub processors: Option<u64>,
    /// Seconds by which a copy's submissions are moved at most
    #[arg(long, value_name = "SECONDS", default_value_t = 59, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub shake: u64,
    /// Shaken copies instead of the log itself
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub copies: Option<u64>,
    /// Draw queue, utilisation and slowdown over time as well
    #[arg(long, conflicts_with_all = ["copies", "svg"])]
    pub plot: bool,
    /// Draw them as an SVG picture, instead of the table
    #[arg(long, conflicts_with = "copies")]
    pub svg: bool,
    #[command(flatten)]
    pub format: FormatArg,
}

/// A policy of `drumline replay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyArg {
    Fcfs,
    Easy,
    EasySjbf,
    Conservative,
    Default,
}
