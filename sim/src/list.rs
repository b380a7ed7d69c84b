//! `cargo chaos list`.

use crate::{checkers, faults, scenario};
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
    ExitCode::SUCCESS
}
