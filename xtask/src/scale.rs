//! What a decision of the scheduler costs as its cluster grows, counted in
//! instructions: times are noise on machines that others use too.
//!
//! The debug build is counted, which the tests have made anyway. It takes seven times
//! as many instructions as a release build, at every size alike.

use super::{Tool, output, run, tools};
use std::path::Path;

const COUNTED_WITH: &[Tool] = &[("valgrind", "--version", "valgrind")];
/// Instructions of the debug build for each end and each submission that is decided on, at
/// most: a fourth more than it took when this was written.
const EACH_MAX: f64 = 4_000_000.0;
/// What chance and the shape of the cluster may add to the growth of a logarithm.
const SLACK: f64 = 1.1;
const PASSES: &str = "20";

/// Counts on clusters of these sizes, and fails where it became dear or grows too fast.
pub(crate) fn guard(sizes: &[u32]) -> Result<(), String> {
    tools(COUNTED_WITH)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--package", "scheduler", "--example", "scale"];
    run("what is counted", &cargo, &build)?;
    let mut first: Option<(u32, f64)> = None;
    for &nodes in sizes {
        let each = count(nodes)?;
        println!("{nodes} nodes: {each:.0} instructions for a decision, at most {EACH_MAX:.0}");
        if each > EACH_MAX {
            return Err(format!(
                "a decision on {nodes} nodes takes {each:.0} instructions, not {EACH_MAX:.0}"
            ));
        }
        let (small, few) = *first.get_or_insert((nodes, each));
        let (grew, may) = (each / few, f64::from(nodes).ln() / f64::from(small).ln() * SLACK);
        if grew > may {
            return Err(format!("from {small} to {nodes} nodes it grew {grew:.2} times, not {may:.2}"));
        }
    }
    Ok(())
}

/// Instructions for each decision.
fn count(nodes: u32) -> Result<f64, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), Into::into);
    let program = target.join("debug/examples/scale");
    let log = target.join("scale.callgrind");
    let (program, log) = (program.to_string_lossy(), log.to_string_lossy());
    let nodes = nodes.to_string();
    let said = output(
        "valgrind",
        &[
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--toggle-collect=*Bench*steady*",
            &format!("--log-file={log}"),
            &program,
            "count",
            &nodes,
            PASSES,
        ],
    );
    let said = said.ok_or_else(|| format!("valgrind could not run {program}"))?;
    let counted = output("cat", &[&log]).unwrap_or_default();
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number > 0.0);
    let decisions = said.strip_prefix("decisions=").and_then(number);
    let collected = counted.lines().find_map(|line| line.split_once("Collected :"));
    match (decisions, collected.and_then(|(_, text)| number(text))) {
        (Some(decisions), Some(instructions)) => Ok(instructions / decisions),
        _ => Err(format!("nothing was counted: {said}\n{counted}")),
    }
}
