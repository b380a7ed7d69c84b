//! `drumline top`: the operator's console.

use super::Outcome;
use crate::{
    args::{Connection, TopArgs},
    client::Client,
    console,
    failure::Failure,
};
use std::io::{self, IsTerminal as _};
use tui::{console::Settings, progress::Look};

pub(super) async fn run(connection: Connection, _args: TopArgs) -> Outcome {
    let (term, no_color) = (std::env::var("TERM").ok(), std::env::var("NO_COLOR").ok());
    must_be_terminal(term.as_deref())?;
    // A wrong address is told before the screen is taken; once it runs, a
    // server that goes away is waited for.
    let client = Client::connect(&connection).await?;
    let server = connection.server.unwrap_or_default();
    let settings = Settings {
        server: server.trim_start_matches("http://").trim_end_matches('/').to_owned(),
        tenant: connection.tenant.unwrap_or_default(),
        color: Look::from_environment(no_color.as_deref(), term.as_deref()).color,
    };
    console::run(client, settings).await
}

/// A console needs a terminal that can place a cursor, at both ends.
fn must_be_terminal(term: Option<&str>) -> Result<(), Failure> {
    let remedy = "run it in a terminal; `drumline ls`, `events -f` and `nodes` suit pipes and scripts";
    if !io::stdout().is_terminal() {
        return Err(Failure::wrong_use("output", "", "standard output is no terminal", remedy));
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::wrong_use("input", "", "standard input is no terminal", remedy));
    }
    match term {
        Some("dumb") | Some("") | None => Err(Failure::wrong_use(
            "TERM",
            term.unwrap_or_default(),
            "a terminal of this kind cannot show a console",
            "set TERM to what the terminal is, like xterm-256color; `drumline ls` works anywhere",
        )),
        Some(_) => Ok(()),
    }
}
