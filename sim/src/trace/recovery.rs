//! How long after a fault has healed the cluster is well again.
//!
//! *Well* is judged after every commit, from its rows: no node is suspect or lost,
//! every machine that was taken down has registered anew (of the server a commit
//! is proof enough), and no task whose attempt the platform lost waits to be tried
//! again. A cluster that is well when a fault heals took no time. Where several
//! faults overlap each waits for the work of all: the figures are what an operator
//! would see, not what one fault alone would cost.

use super::decisions::is_platform;
use super::lines;
use crate::checkers::Committed;
use crate::faults::Fault;
use crate::rows::Row;
use proto::v1::{Event, NodeState, State};
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Debug, Default)]
pub struct Recovery {
    sessions: BTreeMap<String, u64>,
    /// Nodes that the rows call suspect or lost.
    judged: BTreeSet<String>,
    /// Machines that were taken down and not heard since.
    away: BTreeSet<String>,
    /// Tasks that the platform owes another try: tenant, job, step, task.
    owed: BTreeSet<(String, u64, u32, u64)>,
    /// Faults healed since the cluster was last well, and when.
    waiting: Vec<(&'static str, u64)>,
    took_ms: BTreeMap<&'static str, Vec<Option<u64>>>,
}

impl Recovery {
    pub fn struck(&mut self, fault: &Fault) {
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
    }

    pub fn lost_power(&mut self, machine: usize) {
        self.away.insert(lines::machine(machine));
    }

    pub fn healed(&mut self, kind: &'static str, at_ms: u64) {
        if self.is_well() {
            self.took_ms.entry(kind).or_default().push(Some(0));
        } else {
            self.waiting.push((kind, at_ms));
        }
    }

    fn is_well(&self) -> bool {
        self.judged.is_empty() && self.away.is_empty() && self.owed.is_empty()
    }

    pub fn committed(&mut self, commit: &Committed) {
        for row in &commit.rows {
            match row {
                Row::Node(name, Some(row)) => {
                    if self.sessions.insert(name.clone(), row.session) != Some(row.session) {
                        self.away.remove(name);
                    }
                    if row.state() == NodeState::Ready {
                        self.judged.remove(name);
                    } else {
                        self.judged.insert(name.clone());
                    }
                }
                Row::Node(name, None) => {
                    self.judged.remove(name);
                    self.away.remove(name);
                }
                Row::Events { tenant, row: Some(row), .. } => {
                    row.events.iter().for_each(|event| self.event(tenant, event));
                }
                _ => {}
            }
        }
        self.away.remove("server");
        if self.is_well() {
            for (kind, healed_ms) in self.waiting.drain(..) {
                let took_ms = commit.at_ms.saturating_sub(healed_ms);
                self.took_ms.entry(kind).or_default().push(Some(took_ms));
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

    /// What each kind took, in the order of recovery; `None` where it never came.
    #[must_use]
    pub fn times(&self) -> BTreeMap<&'static str, Vec<Option<u64>>> {
        let mut times = self.took_ms.clone();
        for (kind, _) in &self.waiting {
            times.entry(kind).or_default().push(None);
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Cause, CauseKind, EventBatchRow, NodeRow, Span};
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

    #[test]
    fn a_machine_is_well_once_it_registers_and_its_work_runs_again() {
        let mut recovery = Recovery::default();
        recovery.committed(&commit(0, vec![node(1, NodeState::Ready)]));
        recovery.struck(&Fault::MachinePowerLoss { agent: 0, down_ms: 1_000 });
        recovery.committed(&commit(900, vec![node(1, NodeState::Lost)]));
        recovery.healed("machine_power_loss", 1_000);
        // What ended by the work's own fault is no debt of the platform.
        let lost = event(3, State::Running, State::Pending, CauseKind::NodeLost);
        let own = event(9, State::Running, State::Pending, CauseKind::Exit);
        recovery.committed(&commit(2_000, vec![lost, own]));
        recovery.committed(&commit(3_000, vec![node(2, NodeState::Ready)]));
        assert_eq!(recovery.times(), BTreeMap::from([("machine_power_loss", vec![None])]));
        let again = event(3, State::Pending, State::Staging, CauseKind::Granted);
        recovery.committed(&commit(8_500, vec![again]));
        assert_eq!(recovery.times(), BTreeMap::from([("machine_power_loss", vec![Some(7_500)])]));
    }

    #[test]
    fn a_server_is_well_with_its_first_commit() {
        let mut recovery = Recovery::default();
        recovery.struck(&Fault::ServerKilled { down_ms: 100 });
        recovery.healed("server_killed", 100);
        recovery.committed(&commit(350, vec![]));
        recovery.healed("slow_links", 400);
        let expected = BTreeMap::from([("server_killed", vec![Some(250)]), ("slow_links", vec![Some(0)])]);
        assert_eq!(recovery.times(), expected);
    }

    #[test]
    fn a_job_that_ends_is_owed_nothing() {
        let mut recovery = Recovery::default();
        recovery
            .committed(&commit(1, vec![event(3, State::Running, State::Pending, CauseKind::LeaseExpired)]));
        recovery.healed("partition", 2);
        let event = Event { job_number: 7, to: State::Cancelled.into(), ..Event::default() };
        let row = Some(Arc::new(EventBatchRow { events: vec![event] }));
        recovery.committed(&commit(9, vec![Row::Events { tenant: "lab".into(), first_seq: 2, row }]));
        assert_eq!(recovery.times(), BTreeMap::from([("partition", vec![Some(7)])]));
    }
}
