//! `drumline outputs`: what a job gave, listed or fetched.

use super::{Outcome, done};
use crate::{
    args::{Format, OutputsAction, OutputsArgs},
    client::Client,
    failure::Failure,
    fetch,
    output::{self, Table, json, words},
};
use proto::{units, v1::OutputsReply};

pub(super) async fn run(client: Client, args: OutputsArgs) -> Outcome {
    let job = client.job(&args.job)?;
    match args.action {
        None => print(&client.outputs(job).await?, args.format.format)?,
        Some(OutputsAction::Get { dir }) => {
            let fetched = fetch::outputs(&client, &job, &dir).await?;
            output::note(&format!(
                "{}, {} in {}",
                words::count(fetched.files, "file"),
                units::brief_memory_bytes(fetched.bytes),
                dir.display()
            ));
        }
    }
    done()
}

fn print(reply: &OutputsReply, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return output::json(&json::outputs(reply));
    }
    let mut table = Table::new(&["FILE", "SIZE", "SHA-256"]);
    let mut names = String::new();
    for step in &reply.steps {
        for task in &step.tasks {
            for link in &task.artifacts {
                let artifact = link.artifact.clone().unwrap_or_default();
                let path = fetch::place(&step.step, step.indexed, task.index, &artifact.path);
                names.push_str(&path);
                names.push('\n');
                let digest = match format {
                    Format::Wide => artifact.digest,
                    _ => artifact.digest.chars().take(12).collect(),
                };
                table.row(vec![path, units::brief_memory_bytes(artifact.size_bytes), digest]);
            }
        }
    }
    match format {
        Format::Name => output::text(&names),
        _ => table.print("no outputs yet"),
    }
}
