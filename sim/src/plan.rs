//! A run written out: what is submitted, which limits change, what breaks, and
//! when. A seed means whatever the code of its day draws from it; a plan means
//! the same for good, so the plans of bugs that were found are kept and played
//! again (`sim/plans`).
//!
//! One JSON object a line: first the head, then one thing that happens.

use crate::faults::{self, Fault, Planned};
use crate::scenario::{self, Scenario};
use crate::shape;
use crate::workload::inputs::Given;
use crate::workload::{self, Change, Deed, Follows, Retry};
use proto::v1::{
    Budget, Checkpoint, Constraint, Dependency, DependencyKind, JobSpec, Quota, Step, TenantRow, WhenFull,
};
use proto::{array, jobfile, units, validate};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

/// What the lines of a plan mean; another number is another language.
const LANGUAGE: u32 = 1;
const TENANTS: &[&str] = &["default", "lab"];

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides all that is not written: delays, losses, tears.
    pub seed: u64,
    pub scenario: Scenario,
    pub acts: Vec<Act>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    Break(Planned),
    Submit(Box<Deed>),
    Limit(Change),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    plan: u32,
    scenario: String,
    seed: u64,
    /// Where these are not written the scenario has a fixed number, and one scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agents: Option<usize>,
    #[serde(default)]
    schedulers: usize,
    /// Where this is not written there is one, with its own store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    servers: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    at_ms: u64,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Fault(Fault),
    Submit(Submission),
    Limits(Limits),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Submission {
    tenant: String,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cancel_after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    retry: bool,
    /// With `retry`: from this step.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    retry_from: String,
    /// With `retry`: by so many clients, where that is not one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_clients: Option<u32>,
    #[serde(default, skip_serializing_if = "is_false")]
    again: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    follows: Vec<Following>,
    /// Uploaded first, or named by URL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Given>,
    /// Nothing of it begins before; no job file says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begin_ms: Option<u64>,
    /// As in a job file.
    job: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Following {
    key: String,
    kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    step: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
}

/// Older plans have at most one, by itself.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Following>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Many(Vec<Following>),
        One(Following),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::Many(many) => many,
        Written::One(one) => vec![one],
    })
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    tenant: String,
    when_full: String,
    core_hour_micros: u64,
    month_micros: Option<u64>,
    millicores: Option<u64>,
    memory_bytes: Option<u64>,
    gpus: Option<u64>,
    queued_tasks: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retention_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    parent: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    group: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl Plan {
    /// What a seed means today.
    #[must_use]
    pub fn draw(seed: u64, scenario: Scenario) -> Self {
        let scenario = scenario.drawn(seed);
        if scenario.store_only {
            return Self { seed, scenario, acts: Vec::new() };
        }
        let load = scenario.load();
        let machines = shape::draw(seed, scenario.agents);
        let mut deeds = workload::draw(seed, load, TENANTS, &machines);
        let mut faults =
            if scenario.faults { faults::draw(seed, &scenario, load.over_ms) } else { Vec::new() };
        if scenario.faults && !scenario.apart {
            faults::leave_a_core(seed, &mut faults, scenario.agents, load.over_ms);
        }
        let steps: Vec<&Step> = deeds.iter().flat_map(|deed| &deed.spec.steps).collect();
        faults::spare_enough(&mut faults, &machines, &steps);
        // By a clock that is an hour behind for good they would begin too late for
        // the bound on every job's end.
        if faults::server_is_behind(&faults) {
            deeds.iter_mut().for_each(|deed| deed.spec.begin_ms = 0);
        }
        let deeds = deeds.into_iter().map(|mut deed| {
            validate::normalize(&mut deed.spec);
            Act::Submit(Box::new(deed))
        });
        let changes = workload::draw_changes(seed, load).into_iter().map(Act::Limit);
        let acts = faults.into_iter().map(Act::Break).chain(deeds).chain(changes).collect();
        Self { seed, scenario, acts }
    }

    #[must_use]
    pub fn faults(&self) -> Vec<Planned> {
        let faults = self.acts.iter().filter_map(|act| match act {
            Act::Break(planned) => Some(planned.clone()),
            Act::Submit(_) | Act::Limit(_) => None,
        });
        faults.collect()
    }

    #[must_use]
    pub fn deeds(&self) -> Vec<Deed> {
        let deeds = self.acts.iter().filter_map(|act| match act {
            Act::Submit(deed) => Some((**deed).clone()),
            Act::Break(_) | Act::Limit(_) => None,
        });
        deeds.collect()
    }

    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let changes = self.acts.iter().filter_map(|act| match act {
            Act::Limit(change) => Some(change.clone()),
            Act::Break(_) | Act::Submit(_) => None,
        });
        changes.collect()
    }

    /// Written out; [`Plan::read`] reads the same back.
    #[must_use]
    pub fn text(&self) -> String {
        let head = Head {
            plan: LANGUAGE,
            scenario: self.scenario.name.to_owned(),
            seed: self.seed,
            agents: Some(self.scenario.agents),
            schedulers: self.scenario.schedulers,
            servers: Some(self.scenario.servers).filter(|servers| *servers > 1),
        };
        let mut text = line(&head);
        for act in &self.acts {
            let (at_ms, what) = match act {
                Act::Break(planned) => (planned.at_ms, What::Fault(planned.fault.clone())),
                Act::Submit(deed) => (deed.at_ms, What::Submit(Submission::of(deed))),
                Act::Limit(change) => (change.at_ms, What::Limits(Limits::of(&change.row))),
            };
            text.push_str(&line(&Line { at_ms, what }));
        }
        text
    }

    /// Reads a plan; the error names the line.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let at = |number: usize, why: &dyn std::fmt::Display| format!("line {}: {why}", number + 1);
        let (number, head) = lines.next().ok_or("the plan is empty; its first line is its head")?;
        let head: Head = serde_json::from_str(head).map_err(|why| at(number, &why))?;
        if head.plan != LANGUAGE {
            return Err(at(number, &format!("plan = {}: this version reads {LANGUAGE}", head.plan)));
        }
        let scenario = scenario::named(&head.scenario).ok_or_else(|| {
            at(
                number,
                &format!("scenario = {}: there is none of that name; see `cargo chaos list`", head.scenario),
            )
        })?;
        let agents = head.agents.unwrap_or(scenario.agents);
        let servers = head.servers.unwrap_or(1);
        let scenario =
            Scenario { agents_min: agents, agents, schedulers: head.schedulers, servers, ..scenario };
        let machines = agents + head.schedulers;
        let is_known = |machine: usize| machine <= machines || faults::is_further(machine, servers);
        let mut acts = Vec::new();
        for (number, text) in lines {
            let Line { at_ms, what } = serde_json::from_str(text).map_err(|why| at(number, &why))?;
            acts.push(match what {
                What::Fault(fault) if !is_known(fault.machine()) => {
                    return Err(at(number, &format!("there are {machines} machines beside the server")));
                }
                What::Fault(fault) => Act::Break(Planned { at_ms, fault }),
                What::Submit(submission) => {
                    Act::Submit(Box::new(submission.deed(at_ms).map_err(|why| at(number, &why))?))
                }
                What::Limits(limits) => {
                    Act::Limit(Change { at_ms, row: limits.row().map_err(|why| at(number, &why))? })
                }
            });
        }
        Ok(Self { seed: head.seed, scenario, acts })
    }
}

/// Reads a plan from a file.
#[allow(clippy::disallowed_methods, reason = "read before the simulation begins, from the real disk")]
pub fn load(path: &Path) -> Result<Plan, String> {
    Plan::read(&std::fs::read_to_string(path).map_err(|error| error.to_string())?)
}

fn line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).expect("a plan has only texts and numbers");
    text.push('\n');
    text
}

impl Submission {
    fn of(deed: &Deed) -> Self {
        let following = |follows: &Follows| Following {
            key: follows.key.clone(),
            kind: follows.on.kind().as_str_name().to_owned(),
            step: follows.on.step.clone(),
            index: follows.on.index,
        };
        let retry = deed.retry.as_ref();
        Self {
            tenant: deed.tenant.clone(),
            key: deed.key.clone(),
            cancel_after_ms: deed.cancel_after_ms,
            retry: retry.is_some(),
            retry_from: retry.map(|retry| retry.from_step.clone()).unwrap_or_default(),
            retry_clients: retry.map(|retry| retry.clients).filter(|clients| *clients != 1),
            again: deed.again,
            follows: deed.follows.iter().map(following).collect(),
            inputs: deed.inputs.clone(),
            begin_ms: Some(deed.spec.begin_ms).filter(|begin_ms| *begin_ms > 0),
            job: job(&deed.spec),
        }
    }

    fn deed(self, at_ms: u64) -> Result<Deed, String> {
        let mut spec = jobfile::from_value(self.job, Path::new("")).map_err(|problem| problem.to_string())?;
        spec.begin_ms = self.begin_ms.unwrap_or(0);
        let (from_step, clients) = (self.retry_from, self.retry_clients.unwrap_or(1));
        Ok(Deed {
            at_ms,
            tenant: self.tenant,
            spec,
            key: self.key,
            cancel_after_ms: self.cancel_after_ms,
            retry: self.retry.then_some(Retry { from_step, clients }),
            again: self.again,
            follows: self.follows.into_iter().map(Following::read).collect::<Result<_, _>>()?,
            inputs: self.inputs,
        })
    }
}

impl Following {
    fn read(self) -> Result<Follows, String> {
        let kind = DependencyKind::from_str_name(&self.kind)
            .ok_or_else(|| format!("follows.kind = {}: is none", self.kind))?;
        let on =
            Dependency { kind: kind.into(), step: self.step, index: self.index, ..Dependency::default() };
        Ok(Follows { key: self.key, on })
    }
}

impl Limits {
    fn of(row: &TenantRow) -> Self {
        let (quota, budget) = (row.quota.unwrap_or_default(), row.budget.unwrap_or_default());
        Self {
            tenant: row.name.clone(),
            when_full: row.when_full().as_str_name().to_owned(),
            core_hour_micros: budget.core_hour_micros,
            month_micros: budget.month_micros,
            millicores: quota.millicores,
            memory_bytes: quota.memory_bytes,
            gpus: quota.gpus,
            queued_tasks: quota.queued_tasks,
            retention_ms: row.retention_ms,
            weight: (row.weight > 0).then_some(row.weight),
            parent: row.parent.clone(),
            group: row.group,
        }
    }

    fn row(self) -> Result<TenantRow, String> {
        let when_full = WhenFull::from_str_name(&self.when_full)
            .ok_or_else(|| format!("when_full = {}: is none", self.when_full))?;
        let quota = Quota {
            millicores: self.millicores,
            memory_bytes: self.memory_bytes,
            gpus: self.gpus,
            queued_tasks: self.queued_tasks,
            ..Quota::default()
        };
        let budget = Budget {
            core_hour_micros: self.core_hour_micros,
            month_micros: self.month_micros,
            ..Budget::default()
        };
        Ok(TenantRow {
            name: self.tenant,
            quota: Some(quota),
            budget: Some(budget),
            when_full: when_full.into(),
            retention_ms: self.retention_ms,
            weight: self.weight.unwrap_or(0),
            parent: self.parent,
            group: self.group,
            ..TenantRow::default()
        })
    }
}

/// As a job file has it; only what the workload draws.
fn job(spec: &JobSpec) -> Value {
    let steps: Vec<Value> = spec.steps.iter().map(step).collect();
    let mut job = Map::from_iter([("name".to_owned(), json!(spec.name)), ("step".to_owned(), json!(steps))]);
    if spec.priority != 0 {
        job.insert("priority".to_owned(), json!(spec.priority));
    }
    if spec.expected_runtime_ms > 0 {
        let span = units::format_duration_ms(spec.expected_runtime_ms);
        job.insert("expected_runtime".to_owned(), json!(span));
    }
    if spec.keep_ms > 0 {
        job.insert("keep".to_owned(), json!(units::format_duration_ms(spec.keep_ms)));
    }
    if !spec.labels.is_empty() {
        job.insert("labels".to_owned(), json!(spec.labels));
    }
    Value::Object(job)
}

fn step(step: &Step) -> Value {
    let each = step.per_task.unwrap_or_default();
    let constraint =
        |on: &Constraint| format!("{}{}{}", on.label, if on.negated { "!=" } else { "=" }, on.value);
    let constraints: Vec<String> = step.constraints.iter().map(constraint).collect();
    let written = [
        ("name", Some(json!(step.name))),
        ("argv", Some(json!(step.argv))),
        ("after", (!step.after.is_empty()).then(|| json!(step.after))),
        ("array", step.array.as_ref().map(|array| json!(array::format(array)))),
        ("nodes", (step.nodes != 1).then(|| json!(step.nodes))),
        ("tasks_per_node", (step.tasks_per_node != 1).then(|| json!(step.tasks_per_node))),
        ("cores", Some(json!(units::format_millicores(each.millicores.into())))),
        ("memory", (each.memory_bytes > 0).then(|| json!(units::format_memory_bytes(each.memory_bytes)))),
        ("gpus", (each.gpus > 0).then(|| json!(each.gpus))),
        ("outputs", (!step.outputs.is_empty()).then(|| json!(step.outputs))),
        ("retries", step.retries.map(|retries| json!(retries))),
        ("env", (!step.env.is_empty()).then(|| json!(step.env))),
        ("pool", (!step.pool.is_empty()).then(|| json!(step.pool))),
        ("constraints", (!constraints.is_empty()).then(|| json!(constraints))),
        ("exclusive", step.exclusive.then_some(json!(true))),
        ("licenses", (!step.licenses.is_empty()).then(|| json!(step.licenses))),
        ("checkpoint", step.checkpoint.as_ref().map(checkpoint)),
        ("timeout", (step.timeout_ms > 0).then(|| json!(units::format_duration_ms(step.timeout_ms)))),
    ];
    let present = written.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(present.collect())
}

fn checkpoint(checkpoint: &Checkpoint) -> Value {
    let mut told =
        json!({ "path": checkpoint.path, "every": units::format_duration_ms(checkpoint.every_ms) });
    if !checkpoint.signal.is_empty() {
        told["signal"] = json!(checkpoint.signal);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for scenario in scenario::ALL {
            for seed in 0..12 {
                let plan = Plan::draw(seed, *scenario);
                let read = Plan::read(&plan.text()).unwrap();
                assert_eq!((read.seed, read.scenario.name), (seed, scenario.name));
                assert_eq!(read.acts.len(), plan.acts.len());
                for (read, drawn) in read.acts.iter().zip(&plan.acts) {
                    assert_eq!(read, drawn, "of seed {seed} of {}", scenario.name);
                }
            }
        }
    }

    #[test]
    fn plans_in_which_one_follows_one_are_still_read() {
        let head = r#"{"plan":1,"scenario":"narrow","seed":7}"#;
        let job = r#""job":{"name":"j","step":[{"name":"main","argv":["sim","ms=1"]}]}"#;
        let follows = r#"{"key":"deed-1","kind":"DEPENDENCY_KIND_OK"}"#;
        let [one, many] = [follows.to_owned(), format!("[{follows}]")].map(|follows| {
            let submit = format!(r#""tenant":"lab","key":"k","retry":true,"follows":{follows},{job}"#);
            Plan::read(&format!("{head}\n{{\"at_ms\":1,\"submit\":{{{submit}}}}}")).unwrap().deeds()
        });
        assert_eq!(one, many);
        assert_eq!(one[0].follows.len(), 1);
        assert_eq!(one[0].retry, Some(Retry { from_step: String::new(), clients: 1 }));
    }

    #[test]
    fn a_plan_that_is_none_is_refused_by_line() {
        let head = r#"{"plan":1,"scenario":"narrow","seed":7}"#;
        for (text, expected) in [
            ("", "the plan is empty"),
            ("{}", "line 1: missing field `plan`"),
            (r#"{"plan":2,"scenario":"narrow","seed":7}"#, "plan = 2"),
            (r#"{"plan":1,"scenario":"none","seed":7}"#, "scenario = none"),
            (
                &format!(
                    "{head}\n{{\"at_ms\":1,\"fault\":{{\"agent_killed\":{{\"agent\":9,\"down_ms\":1}}}}}}"
                ),
                "line 2: there are 2 machines beside the server",
            ),
            (
                &format!("{head}\n{{\"at_ms\":1,\"fault\":{{\"meteor\":{{}}}}}}"),
                "line 2: unknown variant `meteor`",
            ),
        ] {
            let error = Plan::read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
