//! `sinfo`: pools as partitions, and the nodes in them.
//!
//! Nodes that agree in every field shown are one line, as Slurm has it; the
//! fields that count or list nodes are told of all of a line together.

use super::{columns::Columns, hosts};
use crate::{
    args::SinfoArgs,
    client::Client,
    commands::{Outcome, done},
    failure::Failure,
    output,
};
use proto::v1::{NodeState, NodeView, NodesRequest};
use std::collections::BTreeMap;

const FORMAT: &str = "%9P %.5a %.10l %.6D %.6t %N";
const FORMAT_LONG: &str = "%9P %.5a %.10l %.6D %.11T %.4c %.8m %.8G %N";
const FORMAT_NODES: &str = "%N %.6D %.9P %6t";
const FORMAT_NODES_LONG: &str = "%N %.6D %.9P %.11T %.4c %.8m %.8G %E";
const FORMAT_SUMMARY: &str = "%9P %.5a %.10l %.16F %N";
const CODES: &str = "PRalDNntTcmGfECFA";
/// Fields of a line's nodes together.
const OF_ALL: &str = "DNCFA";

/// States: in full and short, and the short ones that stand for them in -t.
const STATES: [(&str, &str); 6] = [
    ("idle", "idle"),
    ("mixed", "mix"),
    ("allocated", "alloc"),
    ("drained", "drain"),
    ("draining", "drng"),
    ("down", "down"),
];

pub async fn run(client: Client, args: SinfoArgs) -> Outcome {
    let format = match (&args.format, args.node, args.long, args.summarize) {
        (Some(format), ..) => format.as_str(),
        (None, _, _, true) => FORMAT_SUMMARY,
        (None, true, true, _) => FORMAT_NODES_LONG,
        (None, true, false, _) => FORMAT_NODES,
        (None, false, true, _) => FORMAT_LONG,
        (None, false, false, _) => FORMAT,
    };
    let columns = Columns::read(format, CODES)?;
    let states = states(&args.states)?;
    let mut nodes = client.nodes(NodesRequest {}).await?.nodes;
    nodes.retain(|node| {
        let row = node.row.clone().unwrap_or_default();
        (args.partition.is_empty() || args.partition.contains(&row.pool))
            && (args.nodes.is_empty() || args.nodes.contains(&row.name))
            && (states.is_empty() || states.contains(&state(node).0))
    });
    output::text(&list(&columns, &nodes, args.node, !args.noheader))?;
    done()
}

fn states(texts: &[String]) -> Result<Vec<&'static str>, Failure> {
    let one = |text: &String| {
        let lower = text.trim().to_ascii_lowercase();
        let found = STATES.iter().find(|(full, short)| *full == lower || *short == lower);
        found.map(|(full, _)| *full).ok_or_else(|| {
            let known: Vec<&str> = STATES.iter().map(|(_, short)| *short).collect();
            Failure::wrong_use(
                "--states",
                text,
                "is no state of a node",
                &format!("use {}", known.join(", ")),
            )
        })
    };
    texts.iter().map(one).collect()
}

/// A node's state in full, in short, and whether it has not been heard of.
fn state(node: &NodeView) -> (&'static str, &'static str, bool) {
    let row = node.row.clone().unwrap_or_default();
    let (capacity, used) = (row.capacity.unwrap_or_default(), node.used.unwrap_or_default());
    let busy = node.grants > 0 || used.millicores > 0;
    let full = match (row.state(), row.drained, busy) {
        (NodeState::Lost, ..) => "down",
        (_, true, true) => "draining",
        (_, true, false) => "drained",
        (_, false, false) => "idle",
        _ if used.millicores >= capacity.millicores => "allocated",
        _ => "mixed",
    };
    let short = STATES.iter().find(|(name, _)| *name == full).map_or(full, |(_, short)| short);
    (full, short, row.state() == NodeState::Suspect)
}

fn list(columns: &Columns, nodes: &[NodeView], by_node: bool, with_header: bool) -> String {
    let mut groups: BTreeMap<(Vec<String>, String), Vec<&NodeView>> = BTreeMap::new();
    let codes: Vec<char> = columns.codes().collect();
    for node in nodes {
        let row = node.row.clone().unwrap_or_default();
        let mut key: Vec<String> = Vec::new();
        // By pool first, whatever the order of the columns.
        if codes.contains(&'P') || codes.contains(&'R') {
            key.push(row.pool.clone());
        }
        key.extend(codes.iter().filter(|code| !OF_ALL.contains(**code)).map(|code| of_one(*code, node)));
        let name = if by_node { row.name.clone() } else { String::new() };
        groups.entry((key, name)).or_default().push(node);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    if by_node {
        groups.sort_by(|((_, a), _), ((_, b), _)| a.cmp(b));
    }
    // Slurm makes the list of nodes as wide as its longest where it comes first.
    let width = groups.iter().map(|(_, nodes)| of_all('N', nodes).len()).max().unwrap_or(0).max(8);
    let first = codes.first() == Some(&'N');
    let padded = |code: char, text: String| match code {
        'N' if first => format!("{text:<width$}"),
        _ => text,
    };
    let mut text = String::new();
    if with_header {
        text.push_str(&columns.line(|code| padded(code, header(code).to_owned())));
        text.push('\n');
    }
    for (_, nodes) in &groups {
        text.push_str(&columns.line(|code| {
            let value = match OF_ALL.contains(code) {
                true => of_all(code, nodes),
                false => nodes.first().map(|node| of_one(code, node)).unwrap_or_default(),
            };
            padded(code, value)
        }));
        text.push('\n');
    }
    text
}

fn of_one(code: char, node: &NodeView) -> String {
    let row = node.row.clone().unwrap_or_default();
    let capacity = row.capacity.unwrap_or_default();
    let silent = if state(node).2 { "*" } else { "" };
    match code {
        // The star marks where a job goes that names none.
        'P' if row.pool == "default" => format!("{}*", row.pool),
        'P' | 'R' => row.pool,
        'a' => "up".to_owned(),
        'l' => "infinite".to_owned(),
        'n' => row.name,
        't' => format!("{}{silent}", state(node).1),
        'T' => format!("{}{silent}", state(node).0),
        'c' => (capacity.millicores / 1000).to_string(),
        'm' => (capacity.memory_bytes >> 20).to_string(),
        'G' if capacity.gpus == 0 => "(null)".to_owned(),
        'G' => format!("gpu:{}", capacity.gpus),
        'f' if row.labels.is_empty() => "(null)".to_owned(),
        'f' => row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","),
        'E' if row.drain_reason.is_empty() => "none".to_owned(),
        _ => row.drain_reason,
    }
}

fn of_all(code: char, nodes: &[&NodeView]) -> String {
    let count = |wanted: &[&str]| nodes.iter().filter(|node| wanted.contains(&state(node).0)).count();
    let (idle, busy) = (count(&["idle"]), count(&["allocated", "mixed", "draining"]));
    match code {
        'D' => nodes.len().to_string(),
        'A' => format!("{busy}/{idle}"),
        'F' => format!("{busy}/{idle}/{}/{}", nodes.len() - busy - idle, nodes.len()),
        'C' => cores(nodes),
        _ => {
            let names: Vec<String> =
                nodes.iter().map(|node| node.row.clone().unwrap_or_default().name).collect();
            hosts::list(names.iter().map(String::as_str))
        }
    }
}

/// Allocated/idle/other/total.
fn cores(nodes: &[&NodeView]) -> String {
    let (mut used, mut idle, mut other, mut all) = (0_u64, 0_u64, 0_u64, 0_u64);
    for node in nodes {
        let capacity = node.row.as_ref().and_then(|row| row.capacity).unwrap_or_default();
        let cores = u64::from(capacity.millicores / 1000);
        let busy = u64::from(node.used.unwrap_or_default().millicores).div_ceil(1000).min(cores);
        all += cores;
        used += busy;
        match state(node).0 {
            "down" | "drained" | "draining" => other += cores - busy,
            _ => idle += cores - busy,
        }
    }
    format!("{used}/{idle}/{other}/{all}")
}

fn header(code: char) -> &'static str {
    match code {
        'P' | 'R' => "PARTITION",
        'a' => "AVAIL",
        'l' => "TIMELIMIT",
        'D' => "NODES",
        'n' => "HOSTNAMES",
        't' | 'T' => "STATE",
        'c' => "CPUS",
        'm' => "MEMORY",
        'G' => "GRES",
        'f' => "AVAIL_FEATURES",
        'E' => "REASON",
        'C' => "CPUS(A/I/O/T)",
        'F' => "NODES(A/I/O/T)",
        'A' => "NODES(A/I)",
        _ => "NODELIST",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{NodeRow, Resources};

    fn node(name: &str, pool: &str, used: u32, drained: bool) -> NodeView {
        let of = |cores: u32| Resources { millicores: cores * 1000, memory_bytes: 2 << 30, gpus: 0 };
        let row = NodeRow {
            name: name.to_owned(),
            pool: pool.to_owned(),
            state: NodeState::Ready.into(),
            capacity: Some(of(4)),
            drained,
            ..NodeRow::default()
        };
        NodeView { row: Some(row), used: Some(of(used)), grants: u32::from(used > 0), ..NodeView::default() }
    }

    fn shown(format: &str, by_node: bool) -> String {
        let nodes = [
            node("n1", "default", 0, false),
            node("n2", "default", 0, false),
            node("n3", "default", 2, false),
            node("g1", "gpu", 4, false),
            node("g2", "gpu", 0, true),
        ];
        list(&Columns::read(format, CODES).unwrap(), &nodes, by_node, true)
    }

    #[test]
    fn like_nodes_are_one_line() {
        assert_eq!(
            shown(FORMAT, false),
            "PARTITION AVAIL  TIMELIMIT  NODES  STATE NODELIST\n\
             default*     up   infinite      2   idle n[1-2]\n\
             default*     up   infinite      1    mix n3\n\
             gpu          up   infinite      1  alloc g1\n\
             gpu          up   infinite      1  drain g2\n"
        );
        assert_eq!(
            shown(FORMAT_SUMMARY, false),
            "PARTITION AVAIL  TIMELIMIT   NODES(A/I/O/T) NODELIST\n\
             default*     up   infinite          1/2/0/3 n[1-3]\n\
             gpu          up   infinite          1/0/1/2 g[1-2]\n"
        );
        assert_eq!(shown("%P %C", false), "PARTITION CPUS(A/I/O/T)\ndefault* 2/10/0/12\ngpu 4/0/4/8\n");
        assert_eq!(
            shown(FORMAT_NODES, true).lines().take(2).collect::<Vec<_>>(),
            ["NODELIST  NODES PARTITION STATE", "g1            1       gpu alloc"]
        );
    }
}
