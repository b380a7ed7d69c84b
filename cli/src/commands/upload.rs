//! `drumline upload`: files and directories sent ahead, for jobs to name by digest.

use super::{Outcome, done};
use crate::{
    args::{Connection, Format, UploadArgs},
    client::Client,
    failure::Failure,
    output::{self, Table},
    upload::{self, Given},
};
use proto::units;
use serde_json::{Value, json};

pub(super) async fn run(connection: Connection, args: UploadArgs) -> Outcome {
    // What is not there is told before anything is sent.
    let mut all = Vec::with_capacity(args.paths.len());
    for path in &args.paths {
        all.push(upload::digest("path", path).await?);
    }
    let client = Client::connect(&connection).await?;
    let mut sent = Vec::with_capacity(all.len());
    for (given, path) in all.iter().zip(&args.paths) {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        sent.push(upload::send(&client, given, "path", &name).await?);
    }
    print(&all, &sent, &args)?;
    done()
}

fn print(all: &[Given], sent: &[bool], args: &UploadArgs) -> Result<(), Failure> {
    let paths = args.paths.iter().map(|path| path.display().to_string());
    let rows = paths.zip(all).zip(sent).map(|((path, given), sent)| (path, given, *sent));
    match args.format.format {
        Format::Json => {
            let one = |(path, given, sent): (String, &Given, bool)| {
                json!({
                    "path": path, "digest": given.digest(), "size_bytes": given.size_bytes(),
                    "tree": given.is_tree(), "sent": sent,
                })
            };
            output::json(&Value::Array(rows.map(one).collect()))
        }
        Format::Name => {
            let names: Vec<String> = rows.map(|(_, given, _)| format!("{}\n", given.digest())).collect();
            output::text(&names.concat())
        }
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["SHA-256", "SIZE", "FILE", ""]);
            for (path, given, sent) in rows {
                let note = if sent { "" } else { "was there" };
                let size = units::brief_memory_bytes(given.size_bytes());
                table.row(vec![given.digest().to_owned(), size, path, note.to_owned()]);
            }
            table.print("")
        }
    }
}
