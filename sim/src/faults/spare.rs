//! What a plan of faults must leave, so that all work can still come to its end.

use super::{Fault, Planned, is_of_servers};
use crate::shape::{self, Kind};
use proto::v1::Step;

/// With fewer machines left a retry could avoid none, and races press gangs of two.
const MACHINES_LEFT_MIN: usize = 3;

/// Keeps of the machines that never come back only so many that every step still
/// has the machines it needs.
pub fn spare_enough(plan: &mut Vec<Planned>, machines: &[Kind], steps: &[&Step]) {
    let mut gone = vec![false; machines.len()];
    plan.retain(|planned| {
        let Some(agent) = planned.fault.takes_for_good() else { return true };
        let was = std::mem::replace(&mut gone[agent], true);
        let left = || machines.iter().zip(&gone).filter(|(_, gone)| !**gone).map(|(kind, _)| kind);
        let enough =
            left().count() >= MACHINES_LEFT_MIN && steps.iter().all(|step| shape::could_run(left(), step));
        if !enough {
            gone[agent] = was;
        }
        // Once is enough for each.
        enough && !was
    });
}

/// Whether a server's clock falls behind for good.
#[must_use]
pub fn server_is_behind(plan: &[Planned]) -> bool {
    let behind = |planned: &Planned| {
        matches!(planned.fault, Fault::ClockSkew { machine, offset_ms, .. }
            if is_of_servers(machine) && offset_ms < 0)
    };
    plan.iter().any(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_machines_stay_as_the_work_needs() {
        let gone = |agent| Planned { at_ms: 1, fault: Fault::MachineGone { agent } };
        let machines = vec![Kind::default(); 6];
        let wide = Step { nodes: 4, ..Step::default() };
        let mut plan: Vec<Planned> = [0, 0, 1, 2, 3].map(gone).to_vec();
        spare_enough(&mut plan, &machines, &[&wide]);
        assert_eq!(plan, [gone(0), gone(1)]);
        let mut plan: Vec<Planned> = [0, 1, 2, 3].map(gone).to_vec();
        spare_enough(&mut plan, &machines, &[]);
        assert_eq!(plan, [gone(0), gone(1), gone(2)]);
        // One of a pool of its own stays where something asks for it.
        let mut machines = machines;
        machines[5].pool = "second".to_owned();
        let placed = Step { pool: "second".to_owned(), ..Step::default() };
        let mut plan: Vec<Planned> = [5, 1].map(gone).to_vec();
        spare_enough(&mut plan, &machines, &[&placed]);
        assert_eq!(plan, [gone(1)]);
    }
}
