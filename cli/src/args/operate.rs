//! Commands for operators, and those about the program itself.

use super::FormatArg;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  drumline nodes\n  drumline nodes -o wide")]
pub struct NodesArgs {
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  drumline pools\n  drumline pools -o json")]
pub struct PoolsArgs {
    #[command(flatten)]
    pub format: FormatArg,
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
#[command(after_help = "Examples:\n  drumline tenants\n  drumline tenants create lab --cores 64")]
pub struct TenantsArgs {
    #[command(subcommand)]
    pub action: Option<TenantAction>,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, Subcommand)]
pub enum TenantAction {
    /// List tenants with what they use
    #[command(after_help = "Examples:\n  drumline tenants ls -o json")]
    Ls {
        #[command(flatten)]
        format: FormatArg,
    },
    /// Make a tenant, or set its limits anew
    #[command(after_help = "\
A limit that is not given is no limit. Money is in the operator's currency.

Examples:
  drumline tenants create lab
  drumline tenants create lab --cores 64 --memory 256GiB --gpus 4 --when-full queue
  drumline tenants create lab --budget 500 --core-hour 0.04 --gpu-hour 1.2")]
    Create(Box<TenantCreate>),
}

#[derive(Args, Debug)]
pub struct TenantCreate {
    /// Its name
    #[arg(value_name = "TENANT")]
    pub name: String,
    /// Cores at once
    #[arg(long, value_name = "CORES")]
    pub cores: Option<String>,
    /// Memory at once
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// GPUs at once
    #[arg(long, value_name = "N")]
    pub gpus: Option<u64>,
    /// Bytes of outputs and inputs kept
    #[arg(long, value_name = "SIZE")]
    pub storage: Option<String>,
    /// Bytes a month of inputs uploaded, or fetched from URLs
    #[arg(long, value_name = "SIZE")]
    pub ingress: Option<String>,
    /// Bytes a month of outputs downloaded
    #[arg(long, value_name = "SIZE")]
    pub egress: Option<String>,
    /// Tasks that wait or run
    #[arg(long, value_name = "N")]
    pub queued_tasks: Option<u64>,
    /// Money a month
    #[arg(long, value_name = "MONEY")]
    pub budget: Option<String>,
    /// Price of a core for an hour
    #[arg(long, value_name = "MONEY")]
    pub core_hour: Option<String>,
    /// Price of a GPU for an hour
    #[arg(long, value_name = "MONEY")]
    pub gpu_hour: Option<String>,
    /// What happens to a job past a limit
    #[arg(long, value_enum, default_value_t = WhenFullArg::Reject)]
    pub when_full: WhenFullArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhenFullArg {
    /// It is refused
    Reject,
    /// It waits
    Queue,
}

#[derive(Args, Debug)]
pub struct TokensArgs {
    #[command(subcommand)]
    pub action: TokenAction,
}

#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// Make a token; it is shown once
    #[command(after_help = "\
Examples:
  drumline tokens create ci --role tenant --for lab
  drumline tokens create rack2 --role agent")]
    Create {
        /// A name for people
        #[arg(value_name = "NAME")]
        name: String,
        /// What its bearer may do
        #[arg(long, value_enum, default_value_t = TokenRole::Tenant)]
        role: TokenRole,
        /// The tenant a tenant's token is for [default: --tenant]
        #[arg(long = "for", value_name = "TENANT")]
        for_tenant: Option<String>,
        #[command(flatten)]
        format: FormatArg,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// Jobs of one tenant
    Tenant,
    /// All jobs, and nodes
    Operator,
    /// Everything
    Admin,
    /// Only what an agent does
    Agent,
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
