//! `drumline events`: the history, in order and without holes.

use super::{Outcome, done, show::spec_of};
use crate::{
    args::{EventsArgs, Format},
    client::Client,
    failure::Failure,
    follow::{self, EventNews},
    output::{self, json, words},
};
use proto::v1::{Event, EventsRequest, JobRequest, JobSpec};
use std::collections::BTreeMap;

pub(super) async fn run(client: Client, args: EventsArgs) -> Outcome {
    let job = match &args.job {
        Some(text) => Some(client.named_job(text).await?),
        None => None,
    };
    let tenant = job.as_ref().map_or_else(|| client.tenant.clone(), |job| job.tenant.clone());
    let request = EventsRequest {
        tenant: tenant.clone(),
        from_seq: args.from,
        follow: args.follow,
        job_number: job.map_or(0, |job| job.number),
    };
    let mut news = follow::events(&client, request);
    let mut specs = Specs { client, tenant, known: BTreeMap::new() };
    while let Some(news) = news.recv().await {
        match news {
            EventNews::Events(events) => {
                specs.learn_tenant(&events).await;
                for event in &events {
                    specs.print(event, args.format.format).await?;
                }
            }
            EventNews::End => break,
            EventNews::Failed(failure) => return Err(failure),
        }
    }
    done()
}

/// Jobs whose names were looked up; a long history has many.
const SPECS_MAX: usize = 256;

/// Looks up what steps are called.
struct Specs {
    client: Client,
    tenant: String,
    known: BTreeMap<u64, Option<JobSpec>>,
}

impl Specs {
    async fn print(&mut self, event: &Event, format: Format) -> Result<(), Failure> {
        if format == Format::Json {
            // One object a line: a history may have no end.
            return output::line(&json::event(event, &self.tenant).to_string());
        }
        let id = words::job_id(&self.tenant, event.job_number);
        if format == Format::Name {
            return output::line(&event.seq.to_string());
        }
        let spec = if event.step.is_some() { self.spec(event.job_number).await } else { None };
        let subject = words::event_subject(event, &id, spec);
        let mut line = format!(
            "{:>6}  {}  {subject}  {}",
            event.seq,
            words::utc(event.at_ms),
            words::event_change(event)
        );
        if format == Format::Wide {
            line.push_str(&format!("  attempt {} epoch {}", event.attempt, event.epoch));
        }
        output::line(&line)
    }

    /// Whose history it is, where only the token tells.
    async fn learn_tenant(&mut self, events: &[Event]) {
        let Some(first) = events.first().filter(|_| self.tenant.is_empty()) else { return };
        if let Ok(job) = self.client.named_job(&first.job_number.to_string()).await {
            self.tenant = job.tenant;
        }
    }

    async fn spec(&mut self, number: u64) -> Option<&JobSpec> {
        if !self.known.contains_key(&number) {
            if self.known.len() >= SPECS_MAX {
                self.known.clear();
            }
            let request = JobRequest { tenant: self.tenant.clone(), number };
            // Names are a comfort: without them the numbers are shown.
            let spec = self.client.get_job(request).await.ok().map(|view| spec_of(&view));
            self.known.insert(number, spec);
        }
        self.known.get(&number).and_then(Option::as_ref)
    }
}
