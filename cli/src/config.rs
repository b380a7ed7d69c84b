//! Settings of servers and agents: a flag wins over the environment (clap sees
//! to both), and that over the TOML file. Unknown keys are errors.

use crate::{
    args::{AgentArgs, Connection, SchedulerArgs, ServerArgs},
    failure::Failure,
    files, limits,
};
use gateway::{ServerConfig, server::SharedStore};
use proto::{
    ids::{NameKind, check_name},
    problem::Problem,
    units,
    v1::Resources,
    validate,
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};
use world::pace::RATE_BYTES_MIN;

/// Where servers listen unless told.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7420);

/// The part of a node's network that its inputs and outputs may use.
const STAGING_SHARE_DEFAULT: f64 = 0.7;

/// The least that a node keeps of logs.
const LOG_SPOOL_BYTES_MIN: u64 = 16 << 20;

/// What a server is started with.
#[derive(Debug)]
pub struct ServerSettings {
    /// Where everything is kept.
    pub data: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The store that it shares with others.
    pub shared: Option<SharedStore>,
    /// Its numbers.
    pub config: ServerConfig,
}

/// What an agent is started with.
#[derive(Debug)]
pub struct AgentSettings {
    /// Where the server listens.
    pub server: String,
    /// A token of role agent.
    pub token: String,
    /// Where the node's files are kept.
    pub data: PathBuf,
    /// Its name.
    pub node: String,
    /// Its pool.
    pub pool: String,
    /// Where other nodes reach it.
    pub address: String,
    /// What it offers.
    pub capacity: Resources,
    /// What constraints look at.
    pub labels: BTreeMap<String, String>,
    /// Bytes a second of inputs and outputs together; 0: no limit.
    pub staging_bytes_per_s: u64,
    /// Bytes of logs that are kept for a server that cannot take them; 0: as by default.
    pub log_spool_bytes: u64,
}

/// What a scheduler beside the server's own is started with.
#[derive(Debug)]
pub struct SchedulerSettings {
    /// Where the server listens.
    pub server: String,
    /// A token of role scheduler.
    pub token: String,
    /// Its name.
    pub name: String,
    /// Of its core.
    pub numbers: ::scheduler::core::Config,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SchedulerFile {
    server: Option<String>,
    token: Option<String>,
    name: Option<String>,
    #[serde(deserialize_with = "gateway::scheduler_numbers")]
    scheduler: ::scheduler::core::Config,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AgentFile {
    server: Option<String>,
    token: Option<String>,
    data: Option<PathBuf>,
    node: Option<String>,
    pool: Option<String>,
    address: Option<String>,
    cores: Option<toml::Value>,
    memory: Option<toml::Value>,
    gpus: Option<u32>,
    nic: Option<String>,
    staging_share: Option<f64>,
    log_spool: Option<String>,
    labels: BTreeMap<String, String>,
}

/// What of a server's file is the process's own; the rest is the server's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OwnSettings {
    data: Option<String>,
    listen: Option<String>,
    store: Option<String>,
    store_token: Option<String>,
}

/// Takes them out of the text: what is left is in its old place, so that what is
/// said of it names the right line.
fn own_settings(text: &str) -> Result<(OwnSettings, String), toml::de::Error> {
    let own: OwnSettings = toml::from_str(text)?;
    let mut rest = text.as_bytes().to_vec();
    for (key, value) in toml::de::DeTable::parse(text)?.get_ref() {
        if matches!(key.get_ref().as_ref(), "data" | "listen" | "store" | "store_token") {
            for byte in &mut rest[key.span().start..value.span().end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
    }
    Ok((own, String::from_utf8(rest).expect("whole values were blanked")))
}

/// Settings of `drumline server`.
pub fn server(args: &ServerArgs) -> Result<ServerSettings, Failure> {
    let (file, path) = match &args.config {
        Some(path) => (files::read_text("--config", path, limits::CONFIG_BYTES_MAX)?, path.as_path()),
        None => (String::new(), Path::new("")),
    };
    let (own, rest) = own_settings(&file).map_err(|error| refuse(path, &error))?;
    let OwnSettings { data, listen, store, store_token } = own;
    let mut config: ServerConfig = toml::from_str(&rest).map_err(|error| refuse(path, &error))?;
    validate::licenses_there("licenses", &config.licenses).map_err(Failure::WrongUse)?;
    if let Some(url) = &args.public_url {
        config.public_url.clone_from(url);
    }
    let listen = match (args.place.listen, listen) {
        (Some(address), _) => address,
        (None, Some(text)) => text.parse().map_err(|_| {
            Failure::wrong_use("listen", &text, "is no address to listen on", "write it like 0.0.0.0:7420")
        })?,
        (None, None) => LISTEN_DEFAULT,
    };
    let data = args.place.data.clone().or(data.map(PathBuf::from)).ok_or_else(|| {
        Failure::wrong_use(
            "data",
            "",
            "where to keep everything is not told",
            "give --data DIR, or `data` in the file",
        )
    })?;
    let shared = match args.store.clone().or(store) {
        Some(address) => {
            let token = needed(
                "store-token",
                args.store_token.clone().or(store_token),
                "give --store-token; it is in the store.env of `drumline store`",
            )?;
            Some(SharedStore { address, token })
        }
        None => None,
    };
    Ok(ServerSettings { data, listen, shared, config })
}

/// Settings of `drumline agent`.
pub fn agent(connection: &Connection, args: &AgentArgs) -> Result<AgentSettings, Failure> {
    let file: AgentFile = match &args.config {
        Some(path) => {
            let text = files::read_text("--config", path, limits::CONFIG_BYTES_MAX)?;
            toml::from_str(&text).map_err(|error| refuse(path, &error))?
        }
        None => AgentFile::default(),
    };
    let node = args.node.clone().or(file.node).or_else(host_name);
    let node = needed("node", node, "give --node NAME")?;
    let pool = args.pool.clone().or(file.pool).unwrap_or_else(|| "default".to_owned());
    let mut labels = file.labels;
    labels.extend(crate::commands::labels(&args.labels)?);
    (|| {
        check_name(NameKind::Node, "node", &node)?;
        check_name(NameKind::Pool, "pool", &pool)?;
        validate::labels("labels", &labels)
    })()
    .map_err(Failure::WrongUse)?;
    let offered = &args.capacity;
    let cores = offered.cores.clone().or(file.cores.as_ref().map(scalar));
    let memory = offered.memory.clone().or(file.memory.as_ref().map(scalar));
    Ok(AgentSettings {
        server: needed("server", connection.server.clone().or(file.server), "give --server HOST:PORT")?,
        token: needed(
            "token",
            connection.token.clone().or(file.token),
            "give --token; `drumline tokens create N --role agent` makes one",
        )?,
        data: args.data.clone().or(file.data).ok_or_else(|| {
            Failure::wrong_use(
                "data",
                "",
                "where to keep the node's files is not told",
                "give --data DIR, or `data` in the file",
            )
        })?,
        address: args.address.clone().or(file.address).unwrap_or_else(|| "127.0.0.1".to_owned()),
        capacity: capacity(cores.as_deref(), memory.as_deref(), offered.gpus.or(file.gpus))
            .map_err(Failure::WrongUse)?,
        staging_bytes_per_s: staging_rate(
            args.nic.as_deref().or(file.nic.as_deref()),
            args.staging_share.or(file.staging_share),
        )
        .map_err(Failure::WrongUse)?,
        log_spool_bytes: log_spool(args.log_spool.as_deref().or(file.log_spool.as_deref()))
            .map_err(Failure::WrongUse)?,
        node,
        pool,
        labels,
    })
}

/// Bytes of logs a node keeps for a server that cannot take them; 0 where that is not told.
fn log_spool(text: Option<&str>) -> Result<u64, Problem> {
    let Some(text) = text else { return Ok(0) };
    let bytes = units::parse_memory_bytes(text).map_err(|error| error.at("log_spool"))?;
    if bytes < LOG_SPOOL_BYTES_MIN {
        let reason = "is less than what is on its way to a server that is well";
        return Err(Problem::new("spec.size", "log_spool", text, reason, "give 16MiB or more"));
    }
    Ok(bytes)
}

/// How much of a node's network its inputs and outputs may use; 0 where that is not told.
fn staging_rate(nic: Option<&str>, share: Option<f64>) -> Result<u64, Problem> {
    let wrong = |field: &str, value: String, reason: &str, remedy: &str| {
        Problem::new("spec.size", field, value, reason, remedy)
    };
    let share = share.unwrap_or(STAGING_SHARE_DEFAULT);
    if !(share > 0.0 && share <= 1.0) {
        return Err(wrong(
            "staging_share",
            share.to_string(),
            "is no part of the whole",
            "give a number above 0 and up to 1, as 0.7",
        ));
    }
    let Some(text) = nic else { return Ok(0) };
    let rate = (units::parse_rate_bytes(text).map_err(|error| error.at("nic"))? as f64 * share) as u64;
    if rate < RATE_BYTES_MIN {
        let least = format!("give {:.2}Mbit or more", (RATE_BYTES_MIN * 8) as f64 / share / 1e6 + 0.005);
        return Err(wrong("nic", text.to_owned(), "is too slow to stage files by", &least));
    }
    Ok(rate)
}

/// Settings of `drumline scheduler`.
pub fn scheduler(connection: &Connection, args: &SchedulerArgs) -> Result<SchedulerSettings, Failure> {
    let file: SchedulerFile = match &args.config {
        Some(path) => {
            let text = files::read_text("--config", path, limits::CONFIG_BYTES_MAX)?;
            toml::from_str(&text).map_err(|error| refuse(path, &error))?
        }
        None => SchedulerFile::default(),
    };
    let mut numbers = file.scheduler;
    if numbers.seed == 0 {
        // Two schedulers should not jitter alike.
        numbers.seed = world::rand::u64();
    }
    Ok(SchedulerSettings {
        server: needed("server", connection.server.clone().or(file.server), "give --server HOST:PORT")?,
        token: needed(
            "token",
            connection.token.clone().or(file.token),
            "give --token; `drumline tokens create N --role scheduler` makes one",
        )?,
        name: needed("name", args.name.clone().or(file.name).or_else(host_name), "give --name NAME")?,
        numbers,
    })
}

fn needed(field: &str, value: Option<String>, remedy: &str) -> Result<String, Failure> {
    value
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Failure::wrong_use(field, "", "is not told", remedy))
}

/// What a node offers: as told, else what this machine has.
pub fn capacity(cores: Option<&str>, memory: Option<&str>, gpus: Option<u32>) -> Result<Resources, Problem> {
    let above_zero = |field: &str, value: u64| match value {
        0 => Err(Problem::new(
            "spec.size",
            field,
            0,
            "must be above 0",
            "leave it out for what the machine has",
        )),
        _ => Ok(()),
    };
    let millicores = match cores {
        Some(text) => units::parse_millicores(text).map_err(|error| error.at("cores"))?,
        None => machine_millicores(),
    };
    above_zero("cores", u64::from(millicores))?;
    let memory_bytes = match memory {
        Some(text) => units::parse_memory_bytes(text).map_err(|error| error.at("memory"))?,
        None => machine_memory_bytes(),
    };
    above_zero("memory", memory_bytes)?;
    Ok(Resources { millicores, memory_bytes, gpus: gpus.unwrap_or(0) })
}

/// All cores that this process may use.
pub fn machine_millicores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores).unwrap_or(1).saturating_mul(1000)
}

/// Memory of the machine, or of the container where that is less.
pub fn machine_memory_bytes() -> u64 {
    let machine = system_text("/proc/meminfo")
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        })
        .map_or(1 << 30, |kib| kib << 10);
    let container = system_text("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse::<u64>().ok());
    container.map_or(machine, |limit| machine.min(limit))
}

/// This machine's name, in the alphabet of node names.
pub fn host_name() -> Option<String> {
    let name = system_text("/proc/sys/kernel/hostname")?.trim().to_ascii_lowercase();
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' })
        .take(proto::limits::NAME_BYTES_MAX)
        .collect();
    let name = name.trim_matches(['-', '.']).to_owned();
    (!name.is_empty()).then_some(name)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the kernel's own files have no length, so a Disk reads none of them"
)]
fn system_text(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn scalar(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn refuse(path: &Path, error: &toml::de::Error) -> Failure {
    // The parser draws the line and points at it; one line has to do.
    let message = error.message().replace('\n', ", ");
    let place = error.to_string();
    let place = place
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("TOML parse error at "))
        .map_or_else(|| message.clone(), |place| format!("{place}: {message}"));
    Failure::wrong_use("--config", path.display(), &place, "correct the file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;
    use world::disk::replace;

    fn agent_of(line: &str) -> Result<AgentSettings, Failure> {
        let cli = Cli::try_parse_from(format!("drumline agent {line}").split_whitespace()).unwrap();
        let Command::Agent(args) = cli.command else { panic!("it is agent") };
        super::agent(&cli.connection, &args)
    }

    fn server_of(line: &str) -> Result<ServerSettings, Failure> {
        let cli = Cli::try_parse_from(format!("drumline server {line}").split_whitespace()).unwrap();
        let Command::Server(args) = cli.command else { panic!("it is server") };
        super::server(&args)
    }

    /// A file for one test, gone with this value.
    struct File {
        directory: PathBuf,
        name: &'static str,
    }

    impl File {
        fn new(name: &'static str, text: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("drumline-config-{:x}", world::rand::u64()));
            let disk = files::directory("test", &directory).unwrap();
            replace(&*disk, name, text.as_bytes()).unwrap();
            Self { directory, name }
        }
    }

    impl std::fmt::Display for File {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}", self.directory.join(self.name).display())
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            #[allow(clippy::disallowed_methods, reason = "a test tidies up behind the world")]
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let path = File::new(
            "agent.toml",
            "server = \"a:1\"\ntoken = \"dl_x\"\ndata = \"/d\"\nnode = \"n1\"\ncores = 4\nmemory = \"1GiB\"\n\
             [labels]\ndisk = \"ssd\"\n",
        );
        let settings =
            agent_of(&format!("--config {path} --node n2 --cores 0.5 --label zone=b --server b:2")).unwrap();
        assert_eq!(
            (settings.node.as_str(), settings.server.as_str(), settings.pool.as_str()),
            ("n2", "b:2", "default")
        );
        assert_eq!(settings.capacity, Resources { millicores: 500, memory_bytes: 1 << 30, gpus: 0 });
        assert_eq!(settings.labels.len(), 2);
        let settings = agent_of(&format!("--config {path}")).unwrap();
        assert_eq!((settings.node.as_str(), settings.capacity.millicores), ("n1", 4000));
    }

    #[test]
    fn what_logs_may_take_of_a_disk() {
        let plain = "--server a:1 --token t --data /d --node n";
        let bytes =
            |more: &str| agent_of(&format!("{plain} {more}")).map(|settings| settings.log_spool_bytes);
        assert_eq!(bytes("").unwrap(), 0);
        assert_eq!(bytes("--log-spool 2GiB").unwrap(), 2 << 30);
        for (more, told) in [
            ("--log-spool much", "log_spool = much: "),
            ("--log-spool 1MiB", "log_spool = 1MiB: is less than what is on its way"),
        ] {
            let text = bytes(more).unwrap_err().problem().unwrap().to_string();
            assert!(text.starts_with(told), "{text}");
        }
    }

    #[test]
    fn a_part_of_the_network_is_for_staging() {
        let path = File::new(
            "nic.toml",
            "server = \"a:1\"\ntoken = \"t\"\ndata = \"/d\"\nnode = \"n\"\nnic = \"10Gbit\"\n",
        );
        let rate = |line: &str| agent_of(line).unwrap().staging_bytes_per_s;
        assert_eq!(rate(&format!("--config {path}")), 875_000_000);
        assert_eq!(rate(&format!("--config {path} --staging-share 0.2 --nic 1Gbit")), 25_000_000);
        let plain = "--server a:1 --token t --data /d --node n";
        assert_eq!(rate(plain), 0, "nobody told how fast it is");
        for (more, told) in [
            ("--nic fast", "nic = fast: has a unit that is none of"),
            ("--nic 0.1Mbit", "nic = 0.1Mbit: is too slow to stage files by; give 0.75Mbit or more"),
            ("--nic 1Gbit --staging-share 1.5", "staging_share = 1.5: is no part of the whole"),
            ("--nic 1Gbit --staging-share NaN", "staging_share = NaN: is no part of the whole"),
        ] {
            let text = agent_of(&format!("{plain} {more}")).unwrap_err().problem().unwrap().to_string();
            assert!(text.starts_with(told), "{text}");
        }
    }

    #[test]
    fn a_servers_file_holds_its_numbers_too() {
        let path = File::new(
            "server.toml",
            "data = \"/d\"\nlisten = \"0.0.0.0:1\"\nurl_ttl_ms = 5\n[controller]\nretries = 7\n",
        );
        let settings = server_of(&format!("--config {path} --public-url http://x:1")).unwrap();
        assert_eq!((settings.config.url_ttl_ms, settings.config.controller.retries), (5, 7));
        assert_eq!((settings.listen.port(), settings.config.public_url.as_str()), (1, "http://x:1"));
        assert_eq!(server_of("--data /d").unwrap().listen, LISTEN_DEFAULT);
    }

    #[test]
    fn slips_are_wrong_use_with_place_and_remedy() {
        let wrong = |failure: Failure| {
            assert_eq!(failure.exit_code(), 2);
            failure.problem().unwrap().to_string()
        };
        let path = File::new("bad.toml", "data = \"/d\"\nlisen = \"x\"\n");
        assert!(wrong(server_of(&format!("--config {path}")).unwrap_err()).contains("lisen"));
        let path = File::new("worse.toml", "data = \n");
        assert!(wrong(server_of(&format!("--config {path}")).unwrap_err()).contains("line 1, column 8"));
        let path = File::new("nodes.toml", "nodes = 1\n");
        assert!(
            wrong(agent_of(&format!("--config {path}")).unwrap_err())
                .contains("line 1, column 1: unknown field")
        );
        // In a table, and below values of our own that take several lines.
        let path = File::new("table.toml", "data = \"\"\"\n/d\"\"\"\n[controller]\nretries = \"x\"\n");
        let text = wrong(server_of(&format!("--config {path}")).unwrap_err());
        assert!(text.contains("line 4, column 11: invalid type: string \"x\""), "{text}");
        let path = File::new("key.toml", "listen = 7\n[controller]\nretry = 1\n");
        let text = wrong(server_of(&format!("--config {path}")).unwrap_err());
        assert!(text.contains("line 1, column 10: invalid type: integer `7`"), "{text}");
        let path = File::new("key2.toml", "data = '/dä'  # ours\n[controller]\nretry = 1\n");
        let text = wrong(server_of(&format!("--config {path}")).unwrap_err());
        assert!(text.contains("line 3, column 1: unknown field `retry`"), "{text}");
        let path = File::new("label.toml", "server = \"a:1\"\n[labels]\ndisk = 1\n");
        let text = wrong(agent_of(&format!("--config {path}")).unwrap_err());
        assert!(text.contains("line 3, column 8: invalid type: integer `1`"), "{text}");
        assert!(wrong(server_of("").unwrap_err()).starts_with("data: where to keep"));
        assert!(wrong(agent_of("--server a:1 --data /d").unwrap_err()).starts_with("token: is not told"));
        assert!(
            wrong(agent_of("--server a:1 --token t --data /d --node A").unwrap_err()).starts_with("node = A")
        );
        assert!(
            wrong(agent_of("--server a:1 --token t --data /d --cores 0").unwrap_err())
                .starts_with("cores = 0")
        );
        assert!(
            wrong(server_of("--config /no/such").unwrap_err())
                .starts_with("--config = /no/such: No such file")
        );
    }

    #[test]
    fn the_machine_offers_something() {
        assert!(machine_millicores() >= 1000);
        assert!(machine_memory_bytes() > 1 << 20);
        assert!(host_name().is_none_or(|name| check_name(NameKind::Node, "node", &name).is_ok()));
    }
}
