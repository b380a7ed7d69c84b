//! `drumline logs`: a job's output, whole or as it comes.

use super::{
    Outcome, done,
    show::{spec_of, step_index},
};
use crate::{
    args::{LogsArgs, StreamArg},
    client::Client,
    failure::Failure,
    follow::{self, LogNews},
    output,
};
use proto::{
    array, problem,
    units::{self, Since, UnitError},
    v1::{JobRequest, JobSpec, LogsRequest, Stream},
};
use std::io::Write as _;
use tui::lines::{Lines, Prefixer};
use world::sync::mpsc;

pub(super) async fn run(client: Client, args: LogsArgs) -> Outcome {
    let job = client.job(&args.job)?;
    let spec = spec_of(&client.get_job(job.clone()).await?);
    let request = request(&args, job, &spec)?;
    // One stream of one process needs no names before its lines.
    let single = request.step.is_some() && (request.task.is_some() || request.rank.is_some());
    let prefixer = Prefixer::new(&spec, args.raw || (single && request.stream != 0));
    print(follow::logs(&client, request), prefixer).await?;
    done()
}

fn request(args: &LogsArgs, job: JobRequest, spec: &JobSpec) -> Result<LogsRequest, Failure> {
    let step = args.step.as_deref().map(|name| step_index(spec, name)).transpose()?;
    let task = match (args.task, step.and_then(|at| spec.steps.get(usize::try_from(at).ok()?))) {
        (Some(index), Some(step)) => {
            let ordinal = match &step.array {
                Some(array) => array::ordinal_of(array, index),
                None => (index == 0).then_some(0),
            };
            Some(ordinal.ok_or_else(|| Failure::Refused(problem::missing("task", index)))?)
        }
        _ => None,
    };
    let wrong = |error: UnitError, field| Failure::WrongUse(error.at(field));
    let since = args.since.as_deref().map(units::parse_since).transpose();
    let since = since.map_err(|error| wrong(error, "--since"))?;
    let tail_ms = match (&args.tail, since) {
        (Some(text), _) => units::parse_duration_ms(text).map_err(|error| wrong(error, "--tail"))?,
        (None, Some(Since::Ago(ago_ms))) => ago_ms,
        (None, _) => 0,
    };
    let stream = match args.stream {
        None => Stream::Unspecified,
        Some(StreamArg::Stdout) => Stream::Stdout,
        Some(StreamArg::Stderr) => Stream::Stderr,
    };
    Ok(LogsRequest {
        job: Some(job),
        step,
        task,
        rank: args.rank,
        attempt: args.attempt,
        stream: stream.into(),
        follow: args.follow,
        tail_ms,
        since_ms: match since {
            Some(Since::At(at_ms)) => at_ms,
            _ => 0,
        },
        ..LogsRequest::default()
    })
}

/// Prints a log to its end.
pub(crate) async fn print(mut news: mpsc::Receiver<LogNews>, mut prefixer: Prefixer) -> Result<(), Failure> {
    while let Some(news) = news.recv().await {
        match news {
            LogNews::Chunks(chunks) => {
                for chunk in &chunks {
                    if let Some(lines) = prefixer.push(chunk) {
                        write(&lines)?;
                    }
                }
            }
            LogNews::End { missing_bytes } => {
                for lines in prefixer.finish() {
                    write(&lines)?;
                }
                note_missing(missing_bytes);
                return Ok(());
            }
            LogNews::Failed(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// Standard output's lines to ours, standard error's likewise.
pub(crate) fn write(lines: &Lines) -> Result<(), Failure> {
    if lines.error {
        std::io::stderr().lock().write_all(&lines.bytes)?;
        return Ok(());
    }
    output::bytes(&lines.bytes)
}

/// Tells of output that can never come.
pub(crate) fn note_missing(missing_bytes: u64) {
    if missing_bytes > 0 {
        output::note(&format!("note: {missing_bytes} bytes of this log were lost with their node"));
    }
}
