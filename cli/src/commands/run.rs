//! `drumline run`: one job from its file to its outputs.
//!
//! With a server named it is a client like any other. Without, a cluster of one
//! server and a few nodes lives in this process for as long as the job.

use super::{Outcome, logs, show, submit};
use crate::{
    args::{Connection, RunArgs},
    client::Client,
    cluster::{Embedded, Told},
    failure::Failure,
    fetch,
    follow::{self, EventNews, LogNews},
    limits,
    output::{self, words},
    upload::{self, Given},
};
use proto::{
    units,
    v1::{
        CancelRequest, Event, EventsRequest, JobRequest, JobSpec, JobView, LogsRequest, State, SubmitRequest,
    },
};
use std::io::Stderr;
use tui::{
    lines::Prefixer,
    progress::{JobProgress, Look, ProgressLine, render, terminal_width},
};
use world::{
    select,
    sync::mpsc,
    task,
    time::{Instant, sleep_until},
};

/// What the shell sees after a second ctrl-c, or one before there was a job: 128 + SIGINT.
const EXIT_LEFT: u8 = 130;

pub(super) async fn run(connection: Connection, args: RunArgs) -> Outcome {
    // Nothing is started for a job that cannot run.
    let mut spec = submit::read_file(&args.file)?;
    let inputs = upload::digest_inputs(&mut spec).await?;
    let mut told = Told::listen()?;
    if connection.server.is_some() {
        let client = Client::connect(&connection).await?;
        return drive(&client, spec, inputs, &args, &mut told).await;
    }
    let cluster = Embedded::start(&args).await?;
    let outcome = match cluster.client(&connection).await {
        Ok(client) => drive(&client, spec, inputs, &args, &mut told).await,
        Err(failure) => Err(failure),
    };
    cluster.stop().await;
    outcome
}

async fn drive(
    client: &Client,
    spec: JobSpec,
    inputs: Vec<(usize, Given)>,
    args: &RunArgs,
    told: &mut Told,
) -> Outcome {
    select! { biased;
        // There is no job yet; what has arrived of its inputs stays for the next try.
        () = told.told() => return Ok(EXIT_LEFT),
        sent = upload::send_inputs(client, &spec, inputs) => sent?,
    }
    let request =
        SubmitRequest { tenant: client.tenant.clone(), spec: Some(spec.clone()), ..SubmitRequest::default() };
    let reply = client.submit(request).await?;
    let job = JobRequest { tenant: reply.tenant, number: reply.number };
    let mut watch = Watch::new(client.clone(), job.clone(), spec);
    let Some(view) = watch.show_to_the_end(told).await? else { return Ok(EXIT_LEFT) };
    watch.screen.close()?;
    for line in show::failures(client, &job, &view).await? {
        output::note(&line);
    }
    summary(&watch, &view);
    let code = follow::exit_code(&view);
    match fetch::outputs(client, &job, &args.outputs).await {
        Ok(fetched) if fetched.files > 0 => {
            let size = units::brief_memory_bytes(fetched.bytes);
            let files = words::count(fetched.files, "file");
            output::note(&format!("{files} ({size}) in {}", args.outputs.display()));
        }
        Ok(_) => {}
        // The job's own end says more than what could not be fetched of it.
        Err(failure) if code != 0 => failure.print(),
        Err(failure) => return Err(failure),
    }
    Ok(code)
}

fn summary(watch: &Watch, view: &JobView) {
    let state = view.state.clone().unwrap_or_default();
    let progress = watch.progress(view);
    let (done, total) = progress.done_of();
    output::note(&format!(
        "{} {} {done}/{total} in {}",
        progress.title,
        words::state(state.state()),
        units::brief_duration_ms(progress.elapsed_ms)
    ));
}

/// A job as it runs: its log, its history, its state.
struct Watch {
    client: Client,
    job: JobRequest,
    id: String,
    spec: JobSpec,
    since: Instant,
    screen: Screen,
    view: Option<JobView>,
    asked_to_cancel: bool,
}

impl Watch {
    fn new(client: Client, job: JobRequest, spec: JobSpec) -> Self {
        let id = words::job_id(&job.tenant, job.number);
        let screen = Screen::new(&spec);
        Self { client, job, id, spec, since: Instant::now(), screen, view: None, asked_to_cancel: false }
    }

    fn progress(&self, view: &JobView) -> JobProgress {
        let elapsed_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        JobProgress::new(&self.id, &self.spec, &view.state.clone().unwrap_or_default(), elapsed_ms)
    }

    /// Shows everything until the job has ended and its log and history are
    /// whole. `None`: the user left before.
    async fn show_to_the_end(&mut self, told: &mut Told) -> Result<Option<JobView>, Failure> {
        let request = LogsRequest { job: Some(self.job.clone()), follow: true, ..LogsRequest::default() };
        let mut log = Some(follow::logs(&self.client, request));
        let request = EventsRequest {
            tenant: self.job.tenant.clone(),
            job_number: self.job.number,
            follow: true,
            ..EventsRequest::default()
        };
        let mut history = Some(follow::events(&self.client, request));
        let mut looks = Some(follow::watch_job(&self.client, self.job.clone()));
        let mut frame = Instant::now();
        let mut last_call: Option<Instant> = None;
        while looks.is_some() || log.is_some() || history.is_some() {
            if last_call.is_some_and(|at| Instant::now() >= at) {
                self.screen.note("note: the rest of the log did not come in time; see `drumline logs`")?;
                break;
            }
            select! { biased;
                () = told.told() => {
                    if self.asked_to_cancel {
                        self.screen.close()?;
                        return Ok(None);
                    }
                    self.cancel()?;
                }
                () = sleep_until(frame) => {
                    frame = Instant::now() + limits::FRAME;
                    self.draw()?;
                }
                look = next(&mut looks) => match look {
                    Some(look) => self.view = Some(look?),
                    None => {
                        looks = None;
                        last_call = Some(Instant::now() + limits::LOG_END_DEADLINE);
                    }
                },
                news = next(&mut history) => match news {
                    Some(EventNews::Events(events)) => self.tell(&events)?,
                    Some(EventNews::End) | None => history = None,
                    Some(EventNews::Failed(failure)) => return Err(failure),
                },
                news = next(&mut log) => match news {
                    Some(LogNews::Chunks(chunks)) => self.screen.log(&chunks)?,
                    Some(LogNews::End { missing_bytes }) => {
                        self.screen.end_of_log(missing_bytes)?;
                        log = None;
                    }
                    None => log = None,
                    Some(LogNews::Failed(failure)) => return Err(failure),
                },
            }
        }
        Ok(self.view.clone())
    }

    fn draw(&mut self) -> Result<(), Failure> {
        let Some(view) = &self.view else { return Ok(()) };
        let progress = self.progress(view);
        self.screen.draw(&progress)
    }

    /// On a terminal only what the progress line cannot show: attempts that
    /// failed. Else every change of state.
    fn tell(&mut self, events: &[Event]) -> Result<(), Failure> {
        for event in events {
            let subject = words::event_subject(event, &self.id, Some(&self.spec));
            let went_back =
                event.to() == State::Pending && matches!(event.from(), State::Staging | State::Running);
            if went_back {
                let why = words::cause(event.cause.as_ref());
                self.screen.note(&format!(
                    "{subject} attempt {} ended: {why}; it will be tried again",
                    event.attempt
                ))?;
            } else if !self.screen.is_watched() && !self.says_the_same_of_its_step(event) {
                self.screen.note(&format!("{subject} {}", words::event_change(event)))?;
            }
        }
        Ok(())
    }

    /// Where a step has one task, each change comes twice: of the task, and of
    /// the step as a whole.
    fn says_the_same_of_its_step(&self, event: &Event) -> bool {
        let step = event.step.and_then(|at| self.spec.steps.get(usize::try_from(at).ok()?));
        !event.tasks.is_empty() && step.is_some_and(|step| step.array.is_none())
    }

    fn cancel(&mut self) -> Result<(), Failure> {
        self.asked_to_cancel = true;
        self.screen.note("cancelling the job; ctrl-c again leaves at once")?;
        let client = self.client.clone();
        let request = CancelRequest { job: Some(self.job.clone()), reason: "ctrl-c".to_owned() };
        task::spawn(async move {
            if let Err(failure) = client.cancel(request).await {
                failure.print();
            }
        });
        Ok(())
    }
}

/// The next of a channel that may be over.
async fn next<T>(channel: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}

/// The terminal, or what stands in for one: log lines on both streams, notes
/// and the progress line on standard error.
struct Screen {
    prefixer: Prefixer,
    /// Only where a person watches.
    line: Option<ProgressLine<Stderr>>,
    look: Look,
}

impl Screen {
    fn new(spec: &JobSpec) -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        Self {
            prefixer: Prefixer::new(spec, false),
            line: output::is_watched().then(|| ProgressLine::new(std::io::stderr())),
            look: Look::from_environment(variable("NO_COLOR").as_deref(), variable("TERM").as_deref()),
        }
    }

    fn is_watched(&self) -> bool {
        self.line.is_some()
    }

    fn draw(&mut self, progress: &JobProgress) -> Result<(), Failure> {
        if let Some(line) = &mut self.line {
            // The last column stays free: some terminals wrap there.
            line.draw(render(progress, terminal_width().saturating_sub(1), self.look))?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Failure> {
        if let Some(line) = &mut self.line {
            line.clear()?;
        }
        Ok(())
    }

    fn note(&mut self, text: &str) -> Result<(), Failure> {
        self.close()?;
        output::note(text);
        Ok(())
    }

    fn log(&mut self, chunks: &[proto::v1::LogChunk]) -> Result<(), Failure> {
        for chunk in chunks {
            if let Some(lines) = self.prefixer.push(chunk) {
                self.close()?;
                logs::write(&lines)?;
            }
        }
        Ok(())
    }

    fn end_of_log(&mut self, missing_bytes: u64) -> Result<(), Failure> {
        self.close()?;
        for lines in self.prefixer.finish() {
            logs::write(&lines)?;
        }
        logs::note_missing(missing_bytes);
        Ok(())
    }
}
