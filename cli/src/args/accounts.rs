//! Commands about tenants: what they may use, what they used, who acts for them.

use super::{Format, FormatArg};
use clap::{Args, Subcommand, ValueEnum};

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
    /// Show one tenant: its limits, and what it uses of them
    #[command(after_help = "Examples:\n  drumline tenants show lab")]
    Show {
        /// Which
        #[arg(value_name = "TENANT")]
        name: String,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Make a tenant, or set its limits anew
    #[command(after_help = "\
A limit that is not given is no limit. Money is in the operator's currency.

Examples:
  drumline tenants create lab
  drumline tenants create lab --cores 64 --memory 256GiB --gpus 4 --when-full queue
  drumline tenants create lab --weight 300     # thrice the part of one with 100
  drumline tenants create org --group --cores 512
  drumline tenants create lab --parent org
  drumline tenants create lab --budget 500 --core-hour 0.04 --gpu-hour 1.2")]
    Create(Box<TenantLimits>),
    /// Change limits of a tenant; the others stay
    #[command(after_help = "\
What is changed counts within five seconds. `none` lifts a limit.

Examples:
  drumline tenants set lab --cores 128
  drumline tenants set lab --budget none --when-full queue
  drumline tenants set lab --parent org        # or none
  drumline tenants set lab --retention 30d     # what jobs gave, from their end")]
    Set(Box<TenantLimits>),
}

#[derive(Args, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
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
    pub gpus: Option<String>,
    /// Bytes kept: inputs uploaded, and outputs
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
    pub queued_tasks: Option<String>,
    /// Money a month
    #[arg(long, value_name = "MONEY")]
    pub budget: Option<String>,
    /// Price of a core for an hour
    #[arg(long, value_name = "MONEY")]
    pub core_hour: Option<String>,
    /// Price of a GPU for an hour
    #[arg(long, value_name = "MONEY")]
    pub gpu_hour: Option<String>,
    /// What happens to a job past a limit [default: reject]
    #[arg(long, value_enum)]
    pub when_full: Option<WhenFullArg>,
    /// How long outputs and logs of ended jobs are kept: 30d, 12h [default: for ever]
    #[arg(long, value_name = "TIME")]
    pub retention: Option<String>,
    /// Its part of the cluster while others wait, beside theirs [default: 100]
    #[arg(long, value_name = "N")]
    pub weight: Option<String>,
    /// The group that it is in; what the group may have at once is for all in it
    #[arg(long, value_name = "GROUP")]
    pub parent: Option<String>,
    /// It is a group: of tenants, or of groups; it has no jobs itself
    #[arg(long)]
    pub group: bool,
}

impl TenantLimits {
    /// Nothing is told but whose they are.
    pub fn is_empty(&self) -> bool {
        *self == Self { name: self.name.clone(), ..Self::default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhenFullArg {
    /// It is refused
    Reject,
    /// It waits
    Queue,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Jobs are refused from 90 % of a limit on. Without a name it is the token's own tenant, or --tenant.

Examples:
  drumline quota
  drumline quota show lab -o json
  drumline quota set lab --egress 100GiB")]
pub struct QuotaArgs {
    #[command(subcommand)]
    pub action: Option<QuotaAction>,
    #[command(flatten)]
    pub format: FormatArg,
}

#[derive(Debug, Subcommand)]
pub enum QuotaAction {
    /// Each limit with what is used of it
    #[command(after_help = "Examples:\n  drumline quota show lab")]
    Show {
        /// Which tenant's
        #[arg(value_name = "TENANT")]
        name: Option<String>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Change limits, as `tenants set` does
    #[command(after_help = "Examples:\n  drumline quota set lab --cores 128 --budget none")]
    Set(Box<TenantLimits>),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Metered from what really ran, retries too: core seconds are the time that processes ran, times the
cores they held. Jobs are listed in the month they were submitted in; what a tenant pays in a month
(`quota`) is what ended in it.

Examples:
  drumline usage
  drumline usage --month 2026-02 -o json
  drumline --tenant lab usage
  drumline usage --all-tenants --month 2026-02 -o csv > february.csv")]
pub struct UsageArgs {
    /// Jobs of this month, UTC [default: the present one]
    #[arg(long, value_name = "YYYY-MM")]
    pub month: Option<String>,
    /// Jobs of all tenants (for operators)
    #[arg(long)]
    pub all_tenants: bool,
    /// Sums in place of jobs: by `tenant`, by `user` (the token that submitted), or by `label=KEY`
    #[arg(long, value_name = "WHAT")]
    pub by: Option<String>,
    /// How to write the result
    #[arg(short = 'o', long = "format", value_enum, default_value_t = UsageFormat::Table, value_name = "FORMAT")]
    pub format: UsageFormat,
}

/// The ways to write what was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UsageFormat {
    /// For people
    Table,
    /// For people with wide terminals
    Wide,
    /// For programs
    Json,
    /// For spreadsheets
    Csv,
    /// Only names, one a line
    Name,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  drumline tokens\n  drumline tokens create ci --role tenant --for lab")]
pub struct TokensArgs {
    #[command(subcommand)]
    pub action: Option<TokenAction>,
    #[command(flatten)]
    pub format: FormatArg,
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
    /// List tokens: who has them and what they may do
    #[command(after_help = "Examples:\n  drumline tokens ls -o json")]
    Ls {
        #[command(flatten)]
        format: FormatArg,
    },
    /// End tokens; it counts within five seconds
    #[command(after_help = "\
The last token of role admin stays. Who is locked out restarts the server: it keeps an admin's token
in client.env, a new one where that one was revoked.

Examples:
  drumline tokens revoke ci
  drumline tokens revoke 3f9a00c1d2e4")]
    Revoke {
        /// Names, or ids as `tokens ls` shows them
        #[arg(value_name = "TOKEN", required = true)]
        tokens: Vec<String>,
    },
}

impl TokensArgs {
    /// How a list is to be written: without a word it is a list.
    pub fn listed(&self) -> Option<Format> {
        match &self.action {
            None => Some(self.format.format),
            Some(TokenAction::Ls { format }) => Some(format.format),
            Some(_) => None,
        }
    }
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
    /// Only what a scheduler does
    Scheduler,
}
