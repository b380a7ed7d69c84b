//! `drumline upload`: files sent ahead, for jobs to name by digest.

use super::{Outcome, done};
use crate::{
    args::{Connection, Format, UploadArgs},
    client::Client,
    failure::Failure,
    files::Digested,
    output::{self, Table},
    upload::{self, Local},
};
use proto::units;
use serde_json::{Value, json};

pub(super) async fn run(connection: Connection, args: UploadArgs) -> Outcome {
    // A file that is not there is told before anything is sent.
    let mut files = Vec::with_capacity(args.paths.len());
    for path in &args.paths {
        files.push(upload::digest("path", path).await?);
    }
    let client = Client::connect(&connection).await?;
    let mut sent = Vec::with_capacity(files.len());
    for file in &files {
        let what = file.file.path.rsplit('/').next().unwrap_or_default();
        sent.push(upload::send(&client, file, "path", what).await?);
    }
    print(&files, &sent, &args)?;
    done()
}

fn print(files: &[Local], sent: &[bool], args: &UploadArgs) -> Result<(), Failure> {
    let paths = args.paths.iter().map(|path| path.display().to_string());
    let rows = paths.zip(files).zip(sent).map(|((path, file), sent)| (path, &file.digested, *sent));
    match args.format.format {
        Format::Json => {
            let one = |(path, file, sent): (String, &Digested, bool)| json!({ "path": path, "digest": file.digest, "size_bytes": file.size_bytes, "sent": sent });
            output::json(&Value::Array(rows.map(one).collect()))
        }
        Format::Name => {
            let names: Vec<String> = rows.map(|(_, file, _)| format!("{}\n", file.digest)).collect();
            output::text(&names.concat())
        }
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["SHA-256", "SIZE", "FILE", ""]);
            for (path, file, sent) in rows {
                let note = if sent { "" } else { "was there" };
                let size = units::brief_memory_bytes(file.size_bytes);
                table.row(vec![file.digest.clone(), size, path, note.to_owned()]);
            }
            table.print("")
        }
    }
}
