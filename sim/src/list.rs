//! `cargo chaos list`.

use crate::{bounds, built, checkers, faults, marks, scenario};
use std::process::ExitCode;

pub fn command() -> ExitCode {
    println!("scenarios");
    for scenario in scenario::ALL {
        println!("  {:<22} {}", scenario.name, scenario.about);
    }
    println!("faults");
    for (name, about) in faults::KINDS {
        println!("  {name:<22} {about}");
    }
    println!("invariants");
    for checker in checkers::all() {
        println!("  {:<22} invariant {}", checker.name(), checker.invariant());
    }
    println!("  {:<22} invariant 10 (two processes, one trace hash)", "determinism");
    println!("bounds of liveness: until a cluster is well again");
    bounds::lines().for_each(|line| println!("  {line}"));
    println!("marks, and the scenario whose sweep of {} seeds must reach each", marks::SEEDS_JUDGED);
    for (name, by, about) in marks::ALL {
        println!("  {name:<44} {:<7} {about}", by.scenario());
    }
    println!("built of");
    println!("  {:<22} {}", "commit", built::COMMIT);
    println!("  {:<22} {}", "Cargo.lock", built::lock_sha256());
    println!("  {:<22} {}", "toolchain", built::TOOLCHAIN);
    ExitCode::SUCCESS
}
