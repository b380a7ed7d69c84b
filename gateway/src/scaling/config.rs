//! What an operator says of a pool whose nodes come and go, and what is wrong with it.

use controller::limits::SCALE_NODES_MAX;
use controller::scaling::Rules;
use proto::ids::{NameKind, check_name};
use proto::problem::Problem;
use proto::v1::{NodeRow, NodeState, Resources};
use proto::{units, validate, words};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Room for `-auto-` and a number behind the name of a pool.
const POOL_BYTES_MAX: usize = proto::limits::NAME_BYTES_MAX - 6 - 10;
/// The longest that a driver may take.
const COMMAND_MS_MAX: u64 = 600_000;

/// `[pools.NAME.autoscale]`; see `docs/autoscaling.md`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoscaleConfig {
    /// The driver: a program and its arguments.
    pub command: Vec<String>,
    /// How long it may take for an answer.
    #[serde(default = "command_ms")]
    pub command_ms: u64,
    /// Nodes that are there even without work.
    #[serde(default)]
    pub min: u32,
    /// All there may be.
    pub max: u32,
    /// Work has no room for so long before nodes are asked for.
    #[serde(default = "queued_ms")]
    pub queued_ms: u64,
    /// A node is without work for so long before it goes.
    #[serde(default = "idle_ms")]
    pub idle_ms: u64,
    /// Between two asks.
    #[serde(default = "cooldown_ms")]
    pub cooldown_ms: u64,
    /// How long a node may take to register.
    #[serde(default = "arrive_ms")]
    pub arrive_ms: u64,
    /// What one costs; empty: not told.
    #[serde(default)]
    pub price_per_node_hour: String,
    /// What all may cost together; empty: no limit.
    #[serde(default)]
    pub cost_per_hour_max: String,
    /// What a node will have; absent: what those have that are there.
    pub node: Option<NodeShape>,
}

/// `[pools.NAME.autoscale.node]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeShape {
    /// `4`, `"0.5"`
    pub cores: String,
    /// `"16GiB"`
    pub memory: String,
    /// Whole ones.
    #[serde(default)]
    pub gpus: u32,
    /// What constraints look at.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn command_ms() -> u64 {
    60_000
}
fn queued_ms() -> u64 {
    10_000
}
fn idle_ms() -> u64 {
    300_000
}
fn cooldown_ms() -> u64 {
    30_000
}
fn arrive_ms() -> u64 {
    600_000
}

/// What holds, once it was checked.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Of the pool's core.
    pub rules: Rules,
    /// What each further node is, where that was told.
    pub node: Option<NodeRow>,
    /// Millionths for a node and hour; 0: not told.
    pub price_micros: u64,
}

impl AutoscaleConfig {
    /// Refuses what cannot be meant, by field.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn checked(&self, pool: &str) -> Result<Checked, Problem> {
        let at = |field: &str| format!("pools.{pool}.autoscale.{field}");
        let wrong = |field: &str, value: &dyn std::fmt::Display, reason: &str, remedy: &str| {
            Err(Problem::new("spec.autoscale", at(field), value, reason, remedy))
        };
        check_name(NameKind::Pool, "pools", pool)?;
        if pool.len() > POOL_BYTES_MAX {
            let remedy = format!("use {POOL_BYTES_MAX} letters at most: its nodes are called after it");
            return Err(Problem::new("spec.autoscale", "pools", pool, "is too long", remedy));
        }
        if self.command.first().is_none_or(String::is_empty) {
            return wrong(
                "command",
                &"",
                "names no program",
                "write it like [\"/opt/driver\", \"--zone=b\"]",
            );
        }
        if self.max == 0 || self.max > SCALE_NODES_MAX {
            return wrong("max", &self.max, "is no size of a pool", &format!("use 1 to {SCALE_NODES_MAX}"));
        }
        if self.min > self.max {
            return wrong("min", &self.min, "is more than max", "lower it, or raise max");
        }
        if self.command_ms == 0 || self.command_ms > COMMAND_MS_MAX {
            let remedy = format!("use 1 to {COMMAND_MS_MAX}");
            return wrong("command_ms", &self.command_ms, "is no time to answer in", &remedy);
        }
        if self.arrive_ms == 0 {
            return wrong(
                "arrive_ms",
                &0,
                "is no time to start in",
                "say how long a node may take to register",
            );
        }
        if self.min == 0 && self.node.is_none() {
            let remedy = format!("add [pools.{pool}.autoscale.node] with cores and memory, or raise min");
            return wrong("min", &0, "needs to know what a node will have while there is none", &remedy);
        }
        let price_micros = self.money(&at("price_per_node_hour"), &self.price_per_node_hour)?.unwrap_or(0);
        let paid_max = match self.money(&at("cost_per_hour_max"), &self.cost_per_hour_max)? {
            None => self.max,
            Some(_) if price_micros == 0 => {
                let remedy = "say what a node costs: price_per_node_hour = \"0.25\"";
                return wrong(
                    "price_per_node_hour",
                    &self.price_per_node_hour,
                    "is needed for a cap on cost",
                    remedy,
                );
            }
            Some(most) => u32::try_from(most / price_micros).unwrap_or(u32::MAX).min(self.max),
        };
        if paid_max < self.min {
            let reason = format!("pays for {paid_max} nodes, and min is {}", self.min);
            return wrong("cost_per_hour_max", &self.cost_per_hour_max, &reason, "raise it, or lower min");
        }
        let rules = Rules {
            min: self.min,
            max: self.max,
            paid_max,
            queued_ms: self.queued_ms,
            idle_ms: self.idle_ms,
            cooldown_ms: self.cooldown_ms,
            arrive_ms: self.arrive_ms,
        };
        let node = self.node.as_ref().map(|node| node.row(pool, &at)).transpose()?;
        Ok(Checked { rules, node, price_micros })
    }

    fn money(&self, field: &str, text: &str) -> Result<Option<u64>, Problem> {
        if text.is_empty() { Ok(None) } else { words::parse_money(field, text).map(Some) }
    }
}

impl NodeShape {
    fn row(&self, pool: &str, at: &dyn Fn(&str) -> String) -> Result<NodeRow, Problem> {
        let capacity = Resources {
            millicores: units::parse_millicores(&self.cores).map_err(|error| error.at(&at("node.cores")))?,
            memory_bytes: units::parse_memory_bytes(&self.memory)
                .map_err(|error| error.at(&at("node.memory")))?,
            gpus: self.gpus,
        };
        validate::labels(&at("node.labels"), &self.labels)?;
        Ok(NodeRow {
            name: format!("{pool}-auto"),
            pool: pool.to_owned(),
            labels: self.labels.clone().into_iter().collect(),
            capacity: Some(capacity),
            state: NodeState::Ready.into(),
            ..NodeRow::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<Checked, String> {
        let config: AutoscaleConfig = toml::from_str(text).unwrap();
        config.checked("gpu").map_err(|problem| problem.to_string())
    }

    #[test]
    fn what_is_told_holds_and_the_rest_has_defaults() {
        let told = checked(
            "command = [\"d\"]\nmax = 9\nprice_per_node_hour = \"0.30\"\ncost_per_hour_max = \"1\"\n\
             node = { cores = \"4\", memory = \"16GiB\", gpus = 1, labels = { zone = \"b\" } }\n",
        )
        .unwrap();
        let defaults = (10_000, 300_000, 30_000, 600_000);
        let rules = told.rules;
        assert_eq!((rules.queued_ms, rules.idle_ms, rules.cooldown_ms, rules.arrive_ms), defaults);
        assert_eq!((rules.min, rules.max, rules.paid_max, told.price_micros), (0, 9, 3, 300_000));
        let node = told.node.unwrap();
        assert_eq!((node.pool.as_str(), node.capacity.unwrap().gpus), ("gpu", 1));
        assert_eq!(checked("command = [\"d\"]\nmin = 1\nmax = 9\n").unwrap().rules.paid_max, 9);
    }

    #[test]
    fn the_documented_pool_has_every_field_and_its_default() {
        let page = include_str!("../../../docs/autoscaling.md");
        let block = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let told: crate::ServerConfig = toml::from_str(block).unwrap();
        let told = told.pools["gpu"].autoscale.clone().unwrap();
        let least = "command = [\"/opt/drumline/driver\", \"--zone=b\"]\nmax = 8\nprice_per_node_hour = \"2.50\"\n\
                     cost_per_hour_max = \"15\"\n\
                     node = { cores = \"8\", memory = \"64GiB\", gpus = 1, labels = { zone = \"b\" } }\n";
        let least: AutoscaleConfig = toml::from_str(least).unwrap();
        assert_eq!(format!("{told:?}"), format!("{least:?}"));
        assert_eq!(told.checked("gpu").unwrap().rules.paid_max, 6);
        let tables: toml::Table = toml::from_str(block).unwrap();
        let named = tables["pools"]["gpu"]["autoscale"].as_table().unwrap();
        for field in format!("{told:#?}").lines().filter_map(|line| line.strip_prefix("    ")) {
            let field = field.split(':').next().unwrap_or_default();
            let is_field = field.starts_with(|c: char| c.is_ascii_lowercase());
            assert!(!is_field || named.contains_key(field), "{field} is not documented");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_field_with_a_remedy() {
        for (more, told) in [
            ("command = []\nmin = 1\nmax = 1", "pools.gpu.autoscale.command: names no program"),
            (
                "command = [\"d\"]\nmin = 1\nmax = 0",
                "pools.gpu.autoscale.max = 0: is no size of a pool; use 1 to 1024",
            ),
            ("command = [\"d\"]\nmin = 3\nmax = 2", "pools.gpu.autoscale.min = 3: is more than max"),
            (
                "command = [\"d\"]\nmax = 2",
                "pools.gpu.autoscale.min = 0: needs to know what a node will have",
            ),
            (
                "command = [\"d\"]\nmin = 1\nmax = 2\ncommand_ms = 0",
                "pools.gpu.autoscale.command_ms = 0: is no time",
            ),
            (
                "command = [\"d\"]\nmin = 1\nmax = 2\ncost_per_hour_max = \"1\"",
                "pools.gpu.autoscale.price_per_node_hour: is needed",
            ),
            (
                "command = [\"d\"]\nmin = 2\nmax = 2\nprice_per_node_hour = \"1\"\ncost_per_hour_max = \"1.5\"",
                "pools.gpu.autoscale.cost_per_hour_max = 1.5: pays for 1 nodes, and min is 2",
            ),
            (
                "command = [\"d\"]\nmin = 1\nmax = 2\nprice_per_node_hour = \"much\"",
                "pools.gpu.autoscale.price_per_node_hour = much",
            ),
            (
                "command = [\"d\"]\nmax = 2\nnode = { cores = \"x\", memory = \"1GiB\" }",
                "pools.gpu.autoscale.node.cores = x",
            ),
        ] {
            let text = checked(more).unwrap_err();
            assert!(text.starts_with(told), "{text}");
        }
        let config: AutoscaleConfig = toml::from_str("command = [\"d\"]\nmin = 1\nmax = 2").unwrap();
        assert!(config.checked(&"p".repeat(60)).is_err());
        assert!(config.checked("Upper").is_err());
    }
}
