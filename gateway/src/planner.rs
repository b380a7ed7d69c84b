//! The scheduler, as this server's handlers and its controller ask it.

use crate::limits;
use controller::core::{Admission, AdmissionAsk, AdmissionVerdict, Resources64};
use prost::Message;
use proto::problem::Problem;
use proto::v1::{DemandKey, JobSpec, LicenseView, NodeRow, PoolsReply, Step, TenantRow, WhyReply};
use scheduler::Amount;
use scheduler::admission::{Ask, Verdict};
use scheduler::core::Growing;
use scheduler::eta::Profile;
use scheduler::shell::{Handle, Proposals};
use scheduler::signs::{BudgetSign, HeadSign, NodeSign, PoolSign};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use world::NodeClock;

/// The scheduler of this process.
///
/// Asking it locks its core, which may be in the middle of a pass. So the path
/// of many submissions remembers for a moment which shapes of steps were
/// feasible; what was not is asked every time.
pub(crate) struct Planner {
    scheduler: Handle,
    clock: Arc<dyn NodeClock>,
    feasible: Mutex<BTreeMap<Vec<u8>, u64>>,
    /// Nodes that are not there and may come, where pools grow by need.
    may_come: Mutex<Vec<NodeRow>>,
    /// How many there are.
    licenses: BTreeMap<String, u32>,
}

impl Planner {
    pub fn new(scheduler: Handle, clock: Arc<dyn NodeClock>, licenses: BTreeMap<String, u32>) -> Self {
        Self { scheduler, clock, feasible: Mutex::default(), may_come: Mutex::default(), licenses }
    }

    pub fn explain(&self, key: &DemandKey) -> WhyReply {
        self.scheduler.explain(key)
    }

    /// Steps that wait, of each tenant so many.
    pub fn waiting(&self, of_each: usize) -> Vec<DemandKey> {
        self.scheduler.waiting(of_each)
    }

    pub fn pools(&self) -> PoolsReply {
        self.scheduler.pools()
    }

    pub fn node_signs(&self) -> Vec<NodeSign> {
        self.scheduler.node_signs()
    }

    pub fn pool_signs(&self) -> Vec<PoolSign> {
        self.scheduler.pool_signs()
    }

    pub fn head_signs(&self) -> Vec<HeadSign> {
        self.scheduler.head_signs()
    }

    pub fn budget_signs(&self) -> Vec<BudgetSign> {
        self.scheduler.budget_signs()
    }

    pub fn node_use(&self) -> BTreeMap<String, (Amount, u32)> {
        self.scheduler.node_use()
    }

    /// See [`scheduler::core::Core::growth`].
    pub fn growth(&self, pools: &[Growing]) -> Vec<u64> {
        self.scheduler.growth(pools)
    }

    /// What fits one of these is feasible too.
    pub fn may_come(&self, nodes: Vec<NodeRow>) {
        *self.may_come.lock().expect("no holder of this lock panics") = nodes;
    }

    pub fn proposals(&self) -> Proposals {
        self.scheduler.proposals()
    }

    pub fn profiles(&self) -> BTreeMap<String, Profile> {
        self.scheduler.profiles()
    }

    /// All licenses there are, and how many of each are held.
    pub fn licenses(&self) -> Vec<LicenseView> {
        let mut views: BTreeMap<String, LicenseView> = BTreeMap::new();
        for (name, &total) in &self.licenses {
            let view = LicenseView { name: name.clone(), total: u64::from(total), used: 0 };
            views.insert(name.clone(), view);
        }
        // Of one that is named no more some may still be held.
        views.extend(self.scheduler.licenses().into_iter().map(|view| (view.name.clone(), view)));
        views.into_values().collect()
    }

    /// Refuses what no node or pool could ever hold, licenses that there are not, and whole nodes that its tenant may
    /// never have.
    pub fn feasible(&self, tenant: &str, spec: &JobSpec) -> Result<(), Problem> {
        licensed(&self.licenses, spec)?;
        self.could_hold(spec)?;
        if spec.steps.iter().all(|step| !step.exclusive) {
            return Ok(());
        }
        let may_come = self.may_come.lock().expect("no holder of this lock panics").clone();
        self.scheduler.whole_nodes(tenant, spec, &may_come)
    }

    fn could_hold(&self, spec: &JobSpec) -> Result<(), Problem> {
        let shape = shape(spec);
        let now_ms = self.clock.monotonic_ms();
        if self.remembered().get(&shape).is_some_and(|until_ms| now_ms < *until_ms) {
            return Ok(());
        }
        self.scheduler.feasible(spec, &self.may_come.lock().expect("no holder of this lock panics"))?;
        let mut remembered = self.remembered();
        if remembered.len() >= limits::SHAPES_MAX {
            remembered.clear();
        }
        remembered.insert(shape, now_ms + limits::FEASIBLE_MS);
        Ok(())
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, BTreeMap<Vec<u8>, u64>> {
        self.feasible.lock().expect("no holder of this lock panics")
    }
}

/// Refuses what asks for more licenses than there are.
fn licensed(licenses: &BTreeMap<String, u32>, spec: &JobSpec) -> Result<(), Problem> {
    for (at, step) in spec.steps.iter().enumerate() {
        for (name, &count) in &step.licenses {
            let field = format!("step[{at}].licenses.{name}");
            match licenses.get(name) {
                Some(&total) if count <= total => {}
                Some(total) => {
                    let reason = format!("there are {total} of this license");
                    let remedy = "ask for no more than that";
                    return Err(Problem::new("spec.infeasible", field, count, reason, remedy));
                }
                None => {
                    let known: Vec<&str> = licenses.keys().map(String::as_str).collect();
                    let remedy = match known.is_empty() {
                        true => "leave it out, or have the server's file name it under [licenses]".to_owned(),
                        false => format!("use one of: {}", known.join(", ")),
                    };
                    let reason = "there is no such license";
                    return Err(Problem::new("spec.license", field, count, reason, remedy));
                }
            }
        }
    }
    Ok(())
}

/// All of a spec that feasibility may depend on.
fn shape(spec: &JobSpec) -> Vec<u8> {
    let mut shape = Vec::new();
    for step in &spec.steps {
        let only = Step {
            per_task: step.per_task,
            nodes: step.nodes,
            tasks_per_node: step.tasks_per_node,
            pool: step.pool.clone(),
            constraints: step.constraints.clone(),
            ..Step::default()
        };
        only.encode_length_delimited(&mut shape).expect("a Vec grows");
    }
    shape
}

/// The scheduler's policy of admission, in the controller's words.
pub(crate) struct Policy;

impl Admission for Policy {
    fn decide(&self, ask: &AdmissionAsk<'_>) -> AdmissionVerdict {
        let amount = |held: Resources64| Amount {
            millicores: held.millicores,
            memory_bytes: held.memory_bytes,
            gpus: held.gpus,
        };
        let groups: Vec<(&TenantRow, Amount)> =
            ask.groups.iter().map(|&(row, held)| (row, amount(held))).collect();
        let ask = Ask {
            tenant: ask.tenant,
            ledger: ask.ledger,
            held: amount(ask.held),
            groups: &groups,
            spec: ask.spec,
            now_ms: ask.now_ms,
        };
        match scheduler::admission::decide(&ask) {
            Verdict::Admit { price_micros, waiting_for } => {
                AdmissionVerdict::Admit { price_micros, waiting_for }
            }
            Verdict::Refuse(problem) => AdmissionVerdict::Refuse(problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::Resources;

    #[test]
    fn licenses_that_there_are_not_are_refused_by_name() {
        let licenses = BTreeMap::from([("matlab".to_owned(), 2), ("solver".to_owned(), 1)]);
        let asks = |licenses: &BTreeMap<String, u32>, name: &str, count| {
            let step = Step { licenses: [(name.to_owned(), count)].into(), ..Step::default() };
            let spec = JobSpec { steps: vec![Step::default(), step], ..JobSpec::default() };
            licensed(licenses, &spec).map_err(|problem| problem.to_string())
        };
        assert_eq!(asks(&licenses, "matlab", 2), Ok(()));
        let refused = |licenses, name, count| asks(licenses, name, count).unwrap_err();
        let told = "step[1].licenses.matlab = 3: there are 2 of this license; ask for no more than that";
        assert_eq!(refused(&licenses, "matlab", 3), told);
        let told = "step[1].licenses.idl = 1: there is no such license; use one of: matlab, solver";
        assert_eq!(refused(&licenses, "idl", 1), told);
        assert!(refused(&BTreeMap::new(), "idl", 1).contains("under [licenses]"));
    }

    #[test]
    fn a_shape_is_what_placement_looks_at() {
        let spec = |run: &str, millicores| JobSpec {
            name: run.into(),
            steps: vec![Step {
                run: run.into(),
                per_task: Some(Resources { millicores, ..Resources::default() }),
                ..Step::default()
            }],
            ..JobSpec::default()
        };
        assert_eq!(shape(&spec("a", 1000)), shape(&spec("b", 1000)));
        assert_ne!(shape(&spec("a", 1000)), shape(&spec("a", 2000)));
        let two =
            JobSpec { steps: [spec("a", 1000).steps, spec("a", 1000).steps].concat(), ..JobSpec::default() };
        assert_ne!(shape(&two), shape(&spec("a", 1000)));
    }
}
