//! `drumline local-driver`: a driver of autoscaling that starts and ends agents on this
//! machine. It reads one question and answers it; see docs/autoscaling.md.
//!
//! What must hold: it keeps nothing. Whether an agent runs is seen in the table of processes,
//! by its data directory: so asked twice it does a thing once, and wherever it is killed, the
//! next one sees what there is. One works at a time.

use super::{Outcome, done};
use crate::{
    args::{Connection, LocalDriverArgs},
    failure::Failure,
    files, limits, output,
};
use proto::ids::{NameKind, check_name};
use serde::Deserialize;
use serde_json::json;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use world::{
    Disk as _,
    real::{DiskLock, FsDisk, detached},
    time,
};

/// What it is asked.
#[derive(Deserialize)]
struct Question {
    version: u32,
    action: Action,
    pool: String,
    nodes: Vec<String>,
    server: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Add,
    Remove,
}

pub(super) async fn run(connection: Connection, args: LocalDriverArgs) -> Outcome {
    let text = files::read_text("stdin", Path::new("-"), limits::QUESTION_BYTES_MAX)?;
    let question: Question = serde_json::from_str(&text).map_err(|error| {
        let remedy = "it is what the server writes to a driver: see docs/autoscaling.md";
        Failure::wrong_use("stdin", text.trim(), &format!("is no question: {error}"), remedy)
    })?;
    if question.version != 1 {
        let version = question.version.to_string();
        return Err(Failure::wrong_use(
            "version",
            &version,
            "is newer than this driver",
            "use that of the server",
        ));
    }
    check_name(NameKind::Pool, "pool", &question.pool).map_err(Failure::WrongUse)?;
    for node in &question.nodes {
        check_name(NameKind::Node, "nodes", node).map_err(Failure::WrongUse)?;
    }
    let disk = files::directory("--data", &args.data)?;
    let _lock = alone(&disk).await?;
    let nodes: Vec<Node> = question.nodes.iter().map(|name| Node::new(&disk, name)).collect();
    let answer = match question.action {
        Action::Add => add(&connection, &args, &question, nodes).await?,
        Action::Remove => remove(&disk, nodes).await?,
    };
    output::line(&answer.to_string())?;
    done()
}

/// One node of this machine.
#[derive(Clone)]
struct Node {
    name: String,
    data: PathBuf,
    log: PathBuf,
}

impl Node {
    fn new(disk: &FsDisk, name: &str) -> Self {
        Self { name: name.to_owned(), data: disk.absolute(name), log: disk.absolute(&format!("{name}.log")) }
    }

    fn agents(&self) -> Vec<i32> {
        detached::with_words(&["agent", &self.data.display().to_string()])
    }

    fn supervisors(&self) -> Vec<i32> {
        detached::with_words(&["supervisor", &self.data.join("supervisor.sock").display().to_string()])
    }
}

/// Waits until no other driver works on the same nodes.
async fn alone(disk: &FsDisk) -> Result<DiskLock, Failure> {
    let until = time::Instant::now() + limits::DRIVER_LOCK_DEADLINE;
    loop {
        match disk.lock("driver.lock") {
            Ok(lock) => return Ok(lock),
            Err(error) if time::Instant::now() < until && error.kind() == ErrorKind::WouldBlock => {
                time::sleep(limits::DRIVER_LOOK).await;
            }
            Err(error) => {
                let remedy = "end the driver that hangs, or give another --data";
                return Err(Failure::broken(
                    "--data",
                    disk.absolute("").display(),
                    error.to_string(),
                    remedy,
                ));
            }
        }
    }
}

async fn add(
    connection: &Connection,
    args: &LocalDriverArgs,
    question: &Question,
    nodes: Vec<Node>,
) -> Result<serde_json::Value, Failure> {
    let token = connection.token.clone().map_or_else(|| token_of(args.env_file.as_deref()), Ok)?;
    let server = connection.server.as_ref().unwrap_or(&question.server);
    let env = [("DRUMLINE_SERVER".to_owned(), server.clone()), ("DRUMLINE_TOKEN".to_owned(), token)];
    let program = std::env::current_exe()
        .map_err(|error| Failure::broken("program", "", error.to_string(), "is it still there?"))?;
    for node in nodes.iter().filter(|node| node.agents().is_empty()) {
        let data = node.data.display().to_string();
        let words = ["agent", "--data", &data, "--node", &node.name, "--pool", &question.pool];
        let mut words: Vec<String> = words.map(str::to_owned).to_vec();
        words.extend(args.agent.iter().cloned());
        detached::start(&program, &words, &env, &node.log)
            .map_err(|error| Failure::broken("agent", &node.name, error.to_string(), "look at --data"))?;
    }
    // One that cannot work, with a token that is none say, ends at once.
    time::sleep(limits::DRIVER_AGENT_STAYS).await;
    let (up, gone): (Vec<Node>, Vec<Node>) = nodes.into_iter().partition(|node| !node.agents().is_empty());
    if let (true, Some(first)) = (up.is_empty(), gone.first()) {
        return Ok(json!({ "error": format!("agents end at once: see {}", first.log.display()) }));
    }
    Ok(json!({ "nodes": up.into_iter().map(|node| node.name).collect::<Vec<_>>() }))
}

/// Nothing runs on them any more: the server has seen to that.
async fn remove(disk: &FsDisk, nodes: Vec<Node>) -> Result<serde_json::Value, Failure> {
    let names = || nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>();
    let all = |of: fn(&Node) -> Vec<i32>| nodes.iter().flat_map(of).collect::<Vec<_>>();
    let ended = async {
        detached::end(|| all(Node::agents), limits::DRIVER_GRACE).await?;
        detached::end(|| all(Node::supervisors), limits::DRIVER_GRACE).await?;
        for name in names() {
            for gone in [disk.remove_dir_all(name), disk.remove(&format!("{name}.log"))] {
                match gone {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    };
    match ended.await {
        Ok(()) => Ok(json!({ "nodes": names() })),
        Err(error) => {
            Err(Failure::broken("nodes", names().join(" "), error.to_string(), "it is tried again"))
        }
    }
}

/// The token of a server's `client.env`.
fn token_of(env_file: Option<&Path>) -> Result<String, Failure> {
    let remedy = "give --token, or --env-file with the client.env of a server";
    let Some(path) = env_file else {
        return Err(Failure::wrong_use("token", "", "is not told", remedy));
    };
    let text = files::read_text("--env-file", path, limits::CONFIG_BYTES_MAX)?;
    let token = text.lines().find_map(|line| line.trim().strip_prefix("export DRUMLINE_TOKEN="));
    let token = token.map(|token| token.trim_matches(['"', '\'']).to_owned());
    token.ok_or_else(|| Failure::wrong_use("--env-file", path.display(), "names no token", remedy))
}
