//! `drumline completions`, from the one definition of the command line.

use super::{Outcome, done};
use crate::{
    args::{Cli, CompletionsArgs},
    output,
};
use clap::CommandFactory as _;

pub(super) fn run(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "drumline", &mut script);
    output::bytes(&script)?;
    done()
}
