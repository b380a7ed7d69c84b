//! The DAG of a job's steps: every name in `after` is known, and none waits for
//! itself, over however many others.

use crate::{problem::Problem, v1::Step};
use std::collections::BTreeMap;

/// Names are unique already.
pub(super) fn check(steps: &[Step]) -> Result<(), Problem> {
    let index: BTreeMap<&str, usize> =
        steps.iter().enumerate().map(|(at, step)| (step.name.as_str(), at)).collect();
    let mut after: Vec<Vec<usize>> = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        let mut earlier = Vec::with_capacity(step.after.len());
        for name in &step.after {
            let Some(found) = index.get(name.as_str()) else {
                let known: Vec<&str> = index.keys().copied().filter(|known| *known != step.name).collect();
                return Err(Problem::new(
                    "spec.unknown_step",
                    format!("step[{at}].after"),
                    name,
                    "there is no such step",
                    match known.as_slice() {
                        [] => "take it out of `after`: there is no other step".to_owned(),
                        known => format!("name one of: {}", known.join(", ")),
                    },
                ));
            };
            earlier.push(*found);
        }
        after.push(earlier);
    }
    match find_cycle(&after) {
        None => Ok(()),
        Some(cycle) => {
            let names: Vec<&str> = cycle.iter().map(|at| steps[*at].name.as_str()).collect();
            Err(Problem::new(
                "spec.cycle",
                format!("step[{}].after", cycle[0]),
                names.join(" -> "),
                "these steps wait for each other",
                "take one of them out of `after`",
            ))
        }
    }
}

/// A cycle as a walk that ends where it began, or `None`. Depth first, with a
/// stack of our own: a chain may be as long as a job has steps.
fn find_cycle(after: &[Vec<usize>]) -> Option<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        OnPath,
        Done,
    }
    let mut marks = vec![Mark::New; after.len()];
    for start in 0..after.len() {
        if marks[start] != Mark::New {
            continue;
        }
        // Each entry: the step, and how many of its edges were followed.
        let mut path = vec![(start, 0)];
        marks[start] = Mark::OnPath;
        while let Some((at, followed)) = path.last_mut() {
            let Some(next) = after[*at].get(*followed).copied() else {
                marks[*at] = Mark::Done;
                path.pop();
                continue;
            };
            *followed += 1;
            match marks[next] {
                Mark::Done => {}
                Mark::New => {
                    marks[next] = Mark::OnPath;
                    path.push((next, 0));
                }
                Mark::OnPath => {
                    let from = path.iter().position(|(step, _)| *step == next).expect("it is on the path");
                    let walk = path[from..].iter().map(|(step, _)| *step);
                    return Some(walk.chain(std::iter::once(next)).collect());
                }
            }
        }
    }
    None
}
