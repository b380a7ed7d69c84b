//! `drumline sbatch`: a batch script with `#SBATCH` lines becomes a job.

use super::{LIVE, jobs_in, short_id, user_of};
use crate::{
    args::{Cli, Connection, SbatchArgs},
    client::Client,
    commands::{Outcome, done, show},
    config,
    failure::Failure,
    files, follow, output,
};
use clap::CommandFactory as _;
use jiff::{Timestamp, Zoned, tz::TimeZone};
use proto::{
    problem::Problem,
    sbatch::{self, CommandLine, ScriptFrom, Submission, Surroundings},
    v1::{Dependency, DependencyKind, JobRequest, JobSpec, SubmitRequest},
    validate,
};
use std::path::Path;
use world::{NodeClock as _, real::SystemClock};

/// Does what `sbatch WORDS` asks.
pub async fn run(connection: Connection, args: SbatchArgs) -> Outcome {
    let line = CommandLine::read(&args.words)?;
    if line.asks_for("help") || line.asks_for("usage") {
        return help();
    }
    if line.asks_for("version") {
        output::line(concat!("drumline ", env!("CARGO_PKG_VERSION")))?;
        return done();
    }
    let text = script(&line)?;
    let around = surroundings(connection.tenant.clone().unwrap_or_default())?;
    let mut submission = sbatch::submission(&line, &text, &around)?;
    if !submission.quiet {
        for warning in &submission.warnings {
            output::note(&format!("sbatch: warning: {warning}"));
        }
    }
    let client = Client::connect(&connection).await?;
    if submission.singleton {
        after_its_like(&client, &mut submission.spec).await?;
    }
    submit(&client, submission).await
}

async fn submit(client: &Client, submission: Submission) -> Outcome {
    let request = SubmitRequest {
        tenant: client.tenant.clone(),
        spec: Some(submission.spec),
        idempotency_key: String::new(),
        dry_run: submission.test_only,
    };
    let reply = client.submit(request).await?;
    if submission.test_only {
        output::note("sbatch: the job would be taken");
        return done();
    }
    let id = short_id(client, &reply.tenant, reply.number);
    if submission.parsable {
        output::line(&id)?;
    } else if !submission.quiet {
        output::line(&format!("Submitted batch job {id}"))?;
    }
    if !submission.wait {
        return done();
    }
    let job = JobRequest { tenant: reply.tenant, number: reply.number };
    let view = follow::wait_for_end(client, job).await?;
    show::note_end(&view);
    Ok(follow::exit_code(&view))
}

fn help() -> Outcome {
    let mut root = Cli::command();
    root.build();
    let command = root.find_subcommand_mut("sbatch").expect("it is a command");
    output::text(&command.render_help().to_string())?;
    done()
}

fn script(line: &CommandLine) -> Result<String, Failure> {
    let most = proto::limits::WORD_BYTES_MAX as u64;
    match &line.script {
        ScriptFrom::File(path) => files::read_text("script", Path::new(path), most),
        ScriptFrom::Input => files::read_text("script", Path::new("-"), most),
        ScriptFrom::Wrap(command) => Ok(sbatch::wrapped(command)),
    }
}

/// Whence this job comes. What is no UTF-8 in the environment cannot be handed
/// on and is left out here.
fn surroundings(tenant: String) -> Result<Surroundings, Failure> {
    let text = |text: std::ffi::OsString| text.into_string().ok();
    let environment = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
    let unusable = |reason: &str| {
        Failure::wrong_use("working directory", "", reason, "change into one that is there, and is UTF-8")
    };
    let directory = std::env::current_dir().map_err(|error| unusable(&error.to_string()))?;
    let directory = directory.into_os_string().into_string().map_err(|_| unusable("is no UTF-8 text"))?;
    Ok(Surroundings {
        environment: environment.collect(),
        directory,
        host: config::host_name().unwrap_or_default(),
        tenant,
        now: now(),
    })
}

/// In the zone of `TZ`, else of this machine; where neither tells one, UTC.
fn now() -> Zoned {
    let wall_ms = SystemClock::new().wall_ms().cast_signed();
    Timestamp::from_millisecond(wall_ms).unwrap_or_default().to_zoned(TimeZone::system())
}

/// Waits for every live job of the same name and user: singleton. One that is
/// submitted elsewhere at this very moment is not seen.
async fn after_its_like(client: &Client, spec: &mut JobSpec) -> Result<(), Failure> {
    let user = spec.labels.get(sbatch::USER_LABEL).map(String::as_str);
    for job in jobs_in(client, &LIVE).await? {
        let like = job.name == spec.name && user.is_none_or(|user| user_of(&job) == user);
        let whole = |on: &&Dependency| !proto::after::by_task(on);
        let known = spec.after.iter().filter(whole).any(|on| on.job_number == job.number);
        if like && !known {
            let (job_number, kind) = (job.number, DependencyKind::Any.into());
            spec.after.push(Dependency { job_number, kind, ..Dependency::default() });
        }
    }
    validate::draft(spec).map_err(|problem| {
        let remedy = "wait for some of them, or make the work one array".to_owned();
        Failure::from(Problem { field: "--dependency=singleton".to_owned(), remedy, ..problem })
    })
}
