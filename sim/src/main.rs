//! `cargo chaos`: whole clusters under seeded chaos, each run reproducible
//! from one number.

mod bounds;
mod built;
mod checkers;
mod clients;
mod cluster;
mod corrupt;
mod elastic;
mod faults;
mod heap;
mod history;
mod injector;
mod list;
mod load;
mod marks;
mod mirror;
mod networked_store;
mod plan;
mod power;
mod readers;
mod recording;
mod rollback;
mod rows;
mod run;
mod scenario;
mod shape;
mod shrink;
mod sweep;
mod trace;
mod uploads;
mod witness;
mod workload;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: heap::Heap = heap::Heap;

#[derive(Parser)]
#[command(name = "cargo chaos", about = "Rehearse Drumline under seeded chaos", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "EXAMPLES:
  cargo chaos run --seed 42                      one run with its story
  cargo chaos run --seed 42 --scenario calm      without faults
  cargo chaos run --seed 42 --job lab-3          all that was decided for one job
  cargo chaos run --seed 42 --trace-out T        and a trace file of it
  cargo chaos trace T --from 30 --node node-2    a part of a trace file
  cargo chaos sweep --seeds 500                  500 seeds, a process each
  cargo chaos sweep --minutes 30                 as many as fit
  cargo chaos shrink --seed 42                   the least that still breaks, as a plan
  cargo chaos replay sim/plans/zombie.jsonl      a plan, on the code of today
  cargo chaos corrupt                            the checkers, on histories that are wrong
  cargo chaos list                               scenarios, faults, invariants, marks

Exit 0: all held. 1: an invariant broke. 2: wrong use.";

#[derive(Subcommand)]
enum Command {
    /// One run; prints its story and, last, its verdict and trace hash
    Run(run::RunArguments),
    /// Many runs, one process each; failures first
    Sweep(sweep::SweepArguments),
    /// From a seed that breaks an invariant to the least that still does
    Shrink(shrink::ShrinkArguments),
    /// One run of a plan that was written out
    Replay(run::ReplayArguments),
    /// Prints a trace file, or a part of it
    Trace(trace::TraceArguments),
    /// Corrupts recorded histories at random: a checker must reject each
    Corrupt(corrupt::CorruptArguments),
    /// Scenarios, faults, invariants, marks
    List,
}

fn main() -> ExitCode {
    heap::keep();
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Run(arguments) => run::command(&arguments),
        Command::Sweep(arguments) => sweep::command(&arguments),
        Command::Shrink(arguments) => shrink::command(&arguments),
        Command::Replay(arguments) => run::replay(&arguments),
        Command::Trace(arguments) => trace::command(&arguments),
        Command::Corrupt(arguments) => corrupt::command(&arguments),
        Command::List => list::command(),
    }
}
