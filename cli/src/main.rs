//! The `drumline` binary: reads the command line and hands over.

mod args;
mod client;
mod cluster;
mod commands;
mod config;
mod console;
mod failure;
mod fetch;
mod files;
mod follow;
mod limits;
mod output;
mod trees;
mod upload;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::Cli::parse_from(args::called_as(std::env::args_os().collect()));
    match commands::run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit_code())
        }
    }
}
