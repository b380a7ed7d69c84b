//! `drumline man`: pages from the one definition of the command line.

use super::{Outcome, done};
use crate::{
    args::{Cli, ManArgs},
    failure::Failure,
    files, output,
};
use clap::{Command, CommandFactory as _};
use world::disk::replace;

pub(super) fn run(args: &ManArgs) -> Outcome {
    let mut root = Cli::command();
    root.build();
    if let Some(dir) = &args.dir {
        let disk = files::directory("--dir", dir)?;
        for (name, command) in pages(&root) {
            replace(&*disk, &format!("{name}.1"), &page(&name, command)).map_err(|error| {
                Failure::broken(
                    "--dir",
                    dir.display(),
                    error.to_string(),
                    "choose a directory you may write to",
                )
            })?;
        }
        return done();
    }
    let wanted = match &args.command {
        None => "drumline".to_owned(),
        Some(name) => format!("drumline-{name}"),
    };
    let pages = pages(&root);
    let Some((name, command)) = pages.into_iter().find(|(name, _)| *name == wanted) else {
        let value = args.command.as_deref().unwrap_or_default();
        return Err(Failure::wrong_use("COMMAND", value, "is no command", "see `drumline help`"));
    };
    output::bytes(&page(&name, command))?;
    done()
}

/// Every command that people see, by the name of its page.
fn pages(root: &Command) -> Vec<(String, &Command)> {
    fn walk<'a>(command: &'a Command, name: String, pages: &mut Vec<(String, &'a Command)>) {
        for sub in command.get_subcommands() {
            if !sub.is_hide_set() && sub.get_name() != "help" {
                walk(sub, format!("{name}-{}", sub.get_name()), pages);
            }
        }
        pages.push((name, command));
    }
    let mut pages = Vec::new();
    walk(root, "drumline".to_owned(), &mut pages);
    pages
}

fn page(name: &str, command: &Command) -> Vec<u8> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name).render(&mut page).expect("a Vec takes all");
    page
}
