//! Commands that run parts of Drumline.

use clap::Args;
use std::{net::SocketAddr, path::PathBuf};

#[derive(Args, Debug)]
#[command(after_help = "\
Without --server an embedded cluster (a server and three nodes) runs for as long as the job.
Ctrl-c cancels the job; a second one leaves at once.

Examples:
  drumline run examples/wordcount.toml
  drumline run job.toml --outputs results --data /var/tmp/cluster
  drumline run job.toml --server host:7420 --token dl_…")]
pub struct RunArgs {
    /// The job file (TOML); - reads standard input
    #[arg(value_name = "JOB.toml")]
    pub file: PathBuf,
    /// Where the outputs are laid
    #[arg(long, value_name = "DIR", default_value = "outputs")]
    pub outputs: PathBuf,
    /// Keep the embedded cluster's data here rather than in a directory that is removed
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Nodes of the embedded cluster
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub agents: u32,
    /// Cores that each of these nodes offers [default: this machine's, at least 2]
    #[arg(long, value_name = "CORES")]
    pub agent_cores: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
The first start makes an admin token and keeps it, with the address, in DIR/client.env.

Examples:
  drumline up
  drumline up --data ~/.drumline --listen 127.0.0.1:7420
  . ~/.drumline/client.env && drumline submit -- hostname")]
pub struct UpArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub capacity: CapacityArgs,
}

/// Where a server is.
#[derive(Args, Debug)]
pub struct PlaceArgs {
    /// Where everything is kept [default: ./drumline-data for `up`, else what the file says]
    #[arg(long, value_name = "DIR", env = "DRUMLINE_DATA")]
    pub data: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:7420]; port 0 finds a free one
    #[arg(long, value_name = "ADDR", env = "DRUMLINE_LISTEN")]
    pub listen: Option<SocketAddr>,
}

/// What a node offers.
#[derive(Args, Debug)]
pub struct CapacityArgs {
    /// Cores that the node offers [default: this machine's]
    #[arg(long, value_name = "CORES", env = "DRUMLINE_CORES")]
    pub cores: Option<String>,
    /// Memory that the node offers [default: this machine's]
    #[arg(long, value_name = "SIZE", env = "DRUMLINE_MEMORY")]
    pub memory: Option<String>,
    /// GPUs that the node offers [default: 0]
    #[arg(long, value_name = "N", env = "DRUMLINE_GPUS")]
    pub gpus: Option<u32>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
A flag wins over the environment, and that over the file. Keys of the file: data, listen, store,
store_token, public_url, url_ttl_ms, store_cache_bytes, store_verify, stop_grace_ms, and the tables controller
and scheduler (docs/cluster.md has them all).

Examples:
  drumline server --data /var/lib/drumline --listen 0.0.0.0:7420
  drumline server --config /etc/drumline/server.toml

Several servers, of which one serves and another takes over when it dies: each of them with the
same store (see `drumline store`) and the same directory, on a file system that all have mounted:
  drumline server --store host:7421 --store-token dl_… --data /mnt/drumline --listen 0.0.0.0:7420")]
pub struct ServerArgs {
    /// Settings from a TOML file
    #[arg(long, value_name = "FILE", env = "DRUMLINE_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Share this store with other servers, and with it the data directory
    #[arg(long, value_name = "HOST:PORT", env = "DRUMLINE_STORE")]
    pub store: Option<String>,
    /// The token of the store's store.env
    #[arg(long, value_name = "TOKEN", env = "DRUMLINE_STORE_TOKEN", hide_env_values = true)]
    pub store_token: Option<String>,
    /// Where clients and agents reach it, put into links [default: the address they came by]
    #[arg(long, value_name = "URL", env = "DRUMLINE_PUBLIC_URL")]
    pub public_url: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Only needed where several servers are to stand in for one another; one server alone keeps its rows
itself. The first start makes a token for the servers and keeps it, with the address, in
DIR/store.env.

Examples:
  drumline store --data /var/lib/drumline-store --listen 0.0.0.0:7421
  . /var/lib/drumline-store/store.env && drumline server --data /mnt/drumline")]
pub struct StoreArgs {
    /// Where the rows are kept
    #[arg(long, value_name = "DIR", env = "DRUMLINE_DATA")]
    pub data: PathBuf,
    /// Where to listen; port 0 finds a free one
    #[arg(long, value_name = "ADDR", env = "DRUMLINE_LISTEN", default_value = "127.0.0.1:7421")]
    pub listen: SocketAddr,
}

#[derive(Args, Debug)]
#[command(after_help = "\
A flag wins over the environment, and that over the file. Keys of the file: server, token, data,
node, pool, address, cores, memory, gpus, nic, staging_share, log_spool, labels (a table). The server and the token
come from --server and --token too. The token needs the role agent.

Examples:
  drumline agent --server host:7420 --token dl_… --data /var/lib/drumline-agent
  drumline agent --config /etc/drumline/agent.toml --pool gpu --label disk=ssd
  drumline agent --config /etc/drumline/agent.toml --nic 10Gbit --staging-share 0.5
  drumline agent --config /etc/drumline/agent.toml --log-spool 2GiB
  drumline agent --server a:7420,b:7420 --token dl_… --data /var/lib/drumline-agent")]
pub struct AgentArgs {
    /// Settings from a TOML file
    #[arg(long, value_name = "FILE", env = "DRUMLINE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where the node's files are kept
    #[arg(long, value_name = "DIR", env = "DRUMLINE_DATA")]
    pub data: Option<PathBuf>,
    /// The node's name [default: this machine's]
    #[arg(long, value_name = "NAME", env = "DRUMLINE_NODE")]
    pub node: Option<String>,
    /// The pool it belongs to [default: default]
    #[arg(long, value_name = "NAME", env = "DRUMLINE_POOL")]
    pub pool: Option<String>,
    /// Where ranks of gangs on other nodes reach this one [default: 127.0.0.1]
    #[arg(long, value_name = "HOST", env = "DRUMLINE_ADDRESS")]
    pub address: Option<String>,
    #[command(flatten)]
    pub capacity: CapacityArgs,
    /// How fast its network is, as 10Gbit; inputs and outputs use a part of it [default: no limit]
    #[arg(long, value_name = "RATE", env = "DRUMLINE_NIC")]
    pub nic: Option<String>,
    /// That part [default: 0.7]
    #[arg(long, value_name = "PART", env = "DRUMLINE_STAGING_SHARE")]
    pub staging_share: Option<f64>,
    /// Logs kept on its disk while the server cannot take them; above that the oldest are
    /// given up, and the log says so in their place [default: 8GiB]
    #[arg(long, value_name = "SIZE", env = "DRUMLINE_LOG_SPOOL")]
    pub log_spool: Option<String>,
    /// A label that constraints look at (repeatable)
    #[arg(long = "label", value_name = "K=V")]
    pub labels: Vec<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Every server schedules by itself. Further schedulers share its work and lose nothing when they die:
they keep nothing of their own. A flag wins over the environment, and that over the file. Keys of
the file: server, token, name, and the table scheduler (as in a server's file). The token needs the
role scheduler.

Examples:
  drumline tokens create --role scheduler planner
  drumline scheduler --server host:7420 --token dl_…
  drumline scheduler --config /etc/drumline/scheduler.toml")]
pub struct SchedulerArgs {
    /// Settings from a TOML file
    #[arg(long, value_name = "FILE", env = "DRUMLINE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Its name in the server's log [default: this machine's]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
A server starts it where its file says so, and writes one question to its standard input: which nodes to
add or remove. Each node is an agent of this machine, with a directory of its own below --data. Asked for
a node that runs already it does nothing, so it may be asked again. docs/autoscaling.md has the words.

Examples:
  drumline server --config server.toml    # with these lines in server.toml:
    [pools.default.autoscale]
    command = [\"drumline\", \"local-driver\", \"--data\", \"/var/lib/nodes\", \"--env-file\", \"/var/lib/drumline/client.env\"]
    min = 1
    max = 4
  echo '{\"version\":1,\"action\":\"remove\",\"pool\":\"default\",\"nodes\":[\"default-auto-1\"],\"server\":\"\"}' |
    drumline local-driver --data /var/lib/nodes")]
pub struct LocalDriverArgs {
    /// Where the files of the nodes are kept
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// The client.env of a server, where --token does not tell the agents' token
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Further flags of each `drumline agent`
    #[arg(last = true, value_name = "AGENT FLAGS", allow_hyphen_values = true)]
    pub agent: Vec<String>,
}
