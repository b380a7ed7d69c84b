//! How long after a fault has healed the cluster is well again.
//!
//! *Well* is judged after every commit, from its rows: no node is suspect or lost,
//! every machine that was taken down has registered anew (of the server a commit
//! is proof enough), and no task whose attempt the platform lost waits to be tried
//! again. A cluster that is well when a fault heals took no time. A machine that is
//! lost for good need not come back: it is given up, and its work runs elsewhere.
//!
//! Where several faults overlap each waits for the work of all: so it is told as well
//! which of them were *alone*, with no other from their strike until all was well.
//! What these took is what the fault alone costs.

use super::decisions::is_platform;
use super::lines;
use crate::checkers::Committed;
use crate::faults::Fault;
use crate::rows::Row;
use proto::v1::{Event, NodeState, State};
use std::collections::{BTreeMap, BTreeSet};

/// One heal, and when the cluster was well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// `None`: it never was.
    pub ms: Option<u64>,
    /// No other fault had a part in it.
    pub alone: bool,
}

/// A fault that holds, or healed and is waited for.
#[derive(Clone, Debug)]
struct Felt {
    fault: Fault,
    healed_ms: u64,
    alone: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Recovery {
    sessions: BTreeMap<String, u64>,
    /// Nodes that the rows call something else than ready.
    judged: BTreeMap<String, NodeState>,
    /// Machines that were taken down and not heard since.
    away: BTreeSet<String>,
    /// Machines that never come back; of these it is awaited that they are judged lost,
    /// and that nothing is held there any more.
    given_up: BTreeSet<String>,
    /// Nodes of each grant: tenant, epoch.
    grants: BTreeMap<(String, u64), Vec<String>>,
    /// Tasks that the platform owes another try: tenant, job, step, task.
    owed: BTreeSet<(String, u64, u32, u64)>,
    holding: Vec<Felt>,
    /// Faults healed since the cluster was last well.
    waiting: Vec<Felt>,
    took: BTreeMap<&'static str, Vec<Took>>,
}

impl Recovery {
    pub fn struck(&mut self, fault: &Fault) {
        let alone = self.holding.is_empty() && self.is_well();
        if !alone {
            self.holding.iter_mut().chain(&mut self.waiting).for_each(|other| other.alone = false);
        }
        self.holding.push(Felt { fault: fault.clone(), healed_ms: 0, alone });
        let takes_down = matches!(
            fault,
            Fault::ServerKilled { .. }
                | Fault::ServerPowerLoss { .. }
                | Fault::ServerPaused { .. }
                | Fault::AgentKilled { .. }
                | Fault::MachinePowerLoss { .. }
                | Fault::CrashInRecovery { .. }
        );
        if takes_down {
            self.lost_power(fault.machine());
        }
        if fault.takes_for_good().is_some() {
            let node = lines::machine(fault.machine());
            self.away.remove(&node);
            if self.sessions.contains_key(&node) && self.judged.get(&node) != Some(&NodeState::Lost) {
                self.away.insert(node.clone());
            }
            self.given_up.insert(node);
        }
    }

    pub fn lost_power(&mut self, machine: usize) {
        let node = lines::machine(machine);
        if !self.given_up.contains(&node) {
            self.away.insert(node);
        }
    }

    pub fn healed(&mut self, fault: &Fault, at_ms: u64) {
        let Some(at) = self.holding.iter().position(|felt| felt.fault == *fault) else { return };
        let felt = Felt { healed_ms: at_ms, ..self.holding.remove(at) };
        if self.is_well() {
            self.over(&felt, Some(0));
        } else {
            self.waiting.push(felt);
        }
    }

    fn over(&mut self, felt: &Felt, ms: Option<u64>) {
        self.took.entry(felt.fault.kind()).or_default().push(Took { ms, alone: felt.alone });
    }

    fn is_well(&self) -> bool {
        let judged = self.judged.keys().any(|node| !self.given_up.contains(node));
        let lost = |node: &String| self.given_up.contains(node);
        let held = || self.grants.values().flatten().any(lost);
        !judged && self.away.is_empty() && self.owed.is_empty() && (self.given_up.is_empty() || !held())
    }

    pub fn committed(&mut self, commit: &Committed) {
        for row in &commit.rows {
            match row {
                Row::Node(name, Some(row)) => {
                    let anew = self.sessions.insert(name.clone(), row.session) != Some(row.session);
                    let given_up = self.given_up.contains(name);
                    if if given_up { row.state() == NodeState::Lost } else { anew } {
                        self.away.remove(name);
                    }
                    if row.state() == NodeState::Ready {
                        self.judged.remove(name);
                    } else {
                        self.judged.insert(name.clone(), row.state());
                    }
                }
                Row::Node(name, None) => {
                    self.judged.remove(name);
                    self.away.remove(name);
                }
                Row::Grant { tenant, epoch, row: Some(row) } => {
                    let nodes = row.nodes.iter().map(|node| node.node.clone());
                    self.grants.insert((tenant.clone(), *epoch), nodes.collect());
                }
                Row::Grant { tenant, epoch, row: None } => {
                    self.grants.remove(&(tenant.clone(), *epoch));
                }
                Row::Events { tenant, row: Some(row), .. } => {
                    row.events.iter().for_each(|event| self.event(tenant, event));
                }
                _ => {}
            }
        }
        // One of them serves, so its store is there as well.
        self.away.retain(|machine| !machine.starts_with("server") && machine != "storage");
        if !self.waiting.is_empty() && self.is_well() {
            for felt in std::mem::take(&mut self.waiting) {
                self.over(&felt, Some(commit.at_ms.saturating_sub(felt.healed_ms)));
            }
        }
    }

    fn event(&mut self, tenant: &str, event: &Event) {
        let name = |step, task| (tenant.to_owned(), event.job_number, step, task);
        let again = event.to() == State::Pending && event.cause.as_ref().is_some_and(is_platform);
        if let (true, Some(step)) = (again, event.step) {
            let tasks = event.tasks.iter().flat_map(|span| span.first..=span.last);
            self.owed.extend(tasks.map(|task| name(step, task)));
        } else if !self.owed.is_empty() && event.to() != State::Pending {
            // A job or a step that ends leaves nothing owed; one that begins names no task.
            let ends = matches!(event.to(), State::Completed | State::Failed | State::Cancelled);
            let of_all = event.tasks.is_empty() && ends;
            let (from, to) = event.step.map_or((0, u32::MAX), |step| (step, step));
            let settled: Vec<_> = self
                .owed
                .range(name(from, 0)..=name(to, u64::MAX))
                .filter(|(.., task)| {
                    of_all || event.tasks.iter().any(|span| (span.first..=span.last).contains(task))
                })
                .cloned()
                .collect();
            settled.iter().for_each(|task| _ = self.owed.remove(task));
        }
    }

    /// What each kind took, in the order of recovery.
    #[must_use]
    pub fn times(&self) -> BTreeMap<&'static str, Vec<Took>> {
        let mut times = self.took.clone();
        for felt in &self.waiting {
            times.entry(felt.fault.kind()).or_default().push(Took { ms: None, alone: felt.alone });
        }
        times
    }

    /// Those that were alone, each with the time that it took, or has taken so far.
    #[must_use]
    pub fn alone(&self, now_ms: u64) -> Vec<(&'static str, u64)> {
        let over = self.took.iter().flat_map(|(kind, all)| {
            all.iter().filter(|took| took.alone).filter_map(|took| Some((*kind, took.ms?)))
        });
        let waiting = self.waiting.iter().filter(|felt| felt.alone);
        over.chain(waiting.map(|felt| (felt.fault.kind(), now_ms.saturating_sub(felt.healed_ms)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Cause, CauseKind, EventBatchRow, GrantNode, GrantRow, NodeRow, Span};
    use std::sync::Arc;

    fn commit(at_ms: u64, rows: Vec<Row>) -> Committed {
        Committed { rows, at_ms, since_ms: at_ms }
    }

    fn node(session: u64, state: NodeState) -> Row {
        let row = NodeRow { name: "node-0".into(), session, state: state.into(), ..NodeRow::default() };
        Row::Node("node-0".into(), Some(row))
    }

    fn event(task: u64, from: State, to: State, kind: CauseKind) -> Row {
        let event = Event {
            job_number: 7,
            step: Some(0),
            tasks: vec![Span { first: task, last: task + 1 }],
            from: from.into(),
            to: to.into(),
            cause: Some(Cause { kind: kind.into(), ..Cause::default() }),
            ..Event::default()
        };
        let row = Some(Arc::new(EventBatchRow { events: vec![event] }));
        Row::Events { tenant: "lab".into(), first_seq: 1, row }
    }

    fn took(kind: &'static str, ms: Option<u64>, alone: bool) -> (&'static str, Vec<Took>) {
        (kind, vec![Took { ms, alone }])
    }

    /// Strikes and heals at once.
    fn over_at_once(recovery: &mut Recovery, fault: &Fault, at_ms: u64) {
        recovery.struck(fault);
        recovery.healed(fault, at_ms);
    }

    #[test]
    fn a_machine_is_well_once_it_registers_and_its_work_runs_again() {
        let mut recovery = Recovery::default();
        recovery.committed(&commit(0, vec![node(1, NodeState::Ready)]));
        let fault = Fault::MachinePowerLoss { agent: 0, down_ms: 1_000 };
        recovery.struck(&fault);
        recovery.committed(&commit(900, vec![node(1, NodeState::Lost)]));
        recovery.healed(&fault, 1_000);
        // What ended by the work's own fault is no debt of the platform.
        let lost = event(3, State::Running, State::Pending, CauseKind::NodeLost);
        let own = event(9, State::Running, State::Pending, CauseKind::Exit);
        recovery.committed(&commit(2_000, vec![lost, own]));
        recovery.committed(&commit(3_000, vec![node(2, NodeState::Ready)]));
        assert_eq!(recovery.times(), BTreeMap::from([took("machine_power_loss", None, true)]));
        let again = event(3, State::Pending, State::Staging, CauseKind::Granted);
        recovery.committed(&commit(8_500, vec![again]));
        assert_eq!(recovery.times(), BTreeMap::from([took("machine_power_loss", Some(7_500), true)]));
    }

    #[test]
    fn a_server_is_well_with_its_first_commit() {
        let mut recovery = Recovery::default();
        let fault = Fault::ServerKilled { machine: 0, down_ms: 100 };
        recovery.struck(&fault);
        recovery.healed(&fault, 100);
        recovery.committed(&commit(350, vec![]));
        over_at_once(&mut recovery, &Fault::SubmissionBurst { jobs: 3 }, 400);
        let expected =
            BTreeMap::from([took("server_killed", Some(250), true), took("submission_burst", Some(0), true)]);
        assert_eq!(recovery.times(), expected);
    }

    #[test]
    fn whoever_strikes_before_all_is_well_is_not_alone_nor_leaves_another_alone() {
        let mut recovery = Recovery::default();
        recovery.committed(&commit(0, vec![node(1, NodeState::Ready)]));
        let slow = Fault::SlowLinks { latency_ms: 90, for_ms: 900 };
        recovery.struck(&slow);
        recovery.committed(&commit(1, vec![node(1, NodeState::Lost)]));
        recovery.healed(&slow, 2);
        over_at_once(&mut recovery, &Fault::SubmissionBurst { jobs: 3 }, 3);
        recovery.committed(&commit(4, vec![node(1, NodeState::Ready)]));
        over_at_once(&mut recovery, &Fault::RequestsTwice { jobs: 3 }, 5);
        let expected = BTreeMap::from([
            took("slow_links", Some(2), false),
            took("submission_burst", Some(1), false),
            took("requests_twice", Some(0), true),
        ]);
        assert_eq!(recovery.times(), expected);
    }

    #[test]
    fn a_machine_lost_for_good_is_over_once_it_is_given_up_and_its_work_runs() {
        let mut recovery = Recovery::default();
        let row =
            GrantRow { nodes: vec![GrantNode { node: "node-0".into(), slots: 1 }], ..GrantRow::default() };
        let grant = |row| Row::Grant { tenant: "lab".into(), epoch: 9, row };
        recovery.committed(&commit(0, vec![node(1, NodeState::Ready), grant(Some(Arc::new(row)))]));
        over_at_once(&mut recovery, &Fault::MachineGone { agent: 0 }, 1_000);
        recovery.committed(&commit(8_000, vec![node(1, NodeState::Suspect)]));
        recovery.committed(&commit(13_000, vec![node(1, NodeState::Lost)]));
        let lost = event(3, State::Running, State::Pending, CauseKind::LeaseExpired);
        recovery.committed(&commit(32_000, vec![grant(None), lost]));
        recovery
            .committed(&commit(40_000, vec![event(3, State::Pending, State::Staging, CauseKind::Granted)]));
        // Whatever else befalls it, nobody waits for it any more.
        over_at_once(&mut recovery, &Fault::AgentKilled { agent: 0, down_ms: 100 }, 41_000);
        let expected =
            BTreeMap::from([took("agent_killed", Some(0), true), took("machine_gone", Some(39_000), true)]);
        assert_eq!(recovery.times(), expected);
    }

    #[test]
    fn a_job_that_ends_is_owed_nothing() {
        let mut recovery = Recovery::default();
        recovery
            .committed(&commit(1, vec![event(3, State::Running, State::Pending, CauseKind::LeaseExpired)]));
        over_at_once(&mut recovery, &Fault::HalfOpen { agent: 0 }, 2);
        let event = Event { job_number: 7, to: State::Cancelled.into(), ..Event::default() };
        let row = Some(Arc::new(EventBatchRow { events: vec![event] }));
        recovery.committed(&commit(9, vec![Row::Events { tenant: "lab".into(), first_seq: 2, row }]));
        assert_eq!(recovery.times(), BTreeMap::from([took("half_open", Some(7), false)]));
    }
}
