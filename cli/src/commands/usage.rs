//! `drumline usage`: what jobs ran for and cost, as it was metered: those that run, until now.

use super::{Outcome, done};
use crate::{
    args::{UsageArgs, UsageFormat},
    client::Client,
    failure::Failure,
    limits,
    output::{self, Table, json, words},
};
use proto::{
    estimate, month, units,
    v1::{JobSummary, ListJobsRequest, ListTenantsRequest, Metered},
};
use serde_json::{Value, json as value};
use std::collections::BTreeMap;
use world::{NodeClock as _, real::SystemClock};

/// What one job came to, or all together.
#[derive(Default)]
struct Used {
    id: String,
    name: String,
    state: &'static str,
    tasks: u64,
    /// Of all its attempts together.
    ran: Metered,
    micros: u64,
    /// What it is summed up by: nothing, where it has no such label.
    group: Option<String>,
    /// Jobs of which it is the sum.
    jobs: u64,
}

/// By what jobs are summed up.
enum By {
    Tenant,
    User,
    Label(String),
}

impl By {
    fn parse(text: &str) -> Result<Self, Failure> {
        match (text, text.split_once('=')) {
            ("tenant", _) => Ok(Self::Tenant),
            ("user", _) => Ok(Self::User),
            (_, Some(("label", key))) if !key.is_empty() => Ok(Self::Label(key.to_owned())),
            _ => {
                let remedy = "write `tenant`, `user` or `label=KEY`";
                Err(Failure::wrong_use("by", text, "is nothing to sum up by", remedy))
            }
        }
    }

    /// What it is called.
    fn name(&self) -> &str {
        match self {
            Self::Tenant => "tenant",
            Self::User => "user",
            Self::Label(key) => key,
        }
    }

    fn of(&self, job: &JobSummary) -> Option<String> {
        match self {
            Self::Tenant => Some(job.tenant.clone()),
            Self::User => Some(job.submitted_by.clone()),
            Self::Label(key) => job.labels.get(key).cloned(),
        }
    }
}

pub(super) async fn run(client: Client, args: UsageArgs) -> Outcome {
    let wanted = match &args.month {
        Some(text) => parse_month(text)?,
        None => month::of(SystemClock::new().wall_ms()),
    };
    let by = args.by.as_deref().map(By::parse).transpose()?;
    let mut jobs = Vec::new();
    if args.all_tenants {
        for view in client.list_tenants(ListTenantsRequest {}).await?.tenants {
            jobs.extend(jobs_of(&client, &view.tenant.unwrap_or_default().name, wanted, by.as_ref()).await?);
        }
    } else {
        jobs = jobs_of(&client, &client.tenant, wanted, by.as_ref()).await?;
    }
    let all = jobs.iter().fold(Used::default(), Used::plus);
    if let Some(by) = by {
        return print_sums(&by, &sums(&jobs), &all, wanted, args.format);
    }
    match args.format {
        UsageFormat::Json => {
            let mut document = value!({ "month": format_month(wanted) });
            for (name, amount) in all.amounts() {
                document[name] = amount;
            }
            document["jobs"] = jobs.iter().map(Used::as_json).collect();
            output::json(&document)?;
        }
        UsageFormat::Csv => {
            let first = |job: &Used| vec![quoted(&job.id), quoted(&job.name), job.state.to_owned()];
            output::text(&csv("id,name,state", &jobs, first))?;
        }
        UsageFormat::Name => {
            output::text(&jobs.iter().map(|job| format!("{}\n", job.id)).collect::<String>())?;
        }
        UsageFormat::Table | UsageFormat::Wide => {
            let headers = ["ID", "NAME", "STATE", "TASKS", "RAN", "CORE-SECONDS", "GPU-SECONDS", "COST"];
            let mut table = Table::new(&headers);
            for job in &jobs {
                table.row(job.cells());
            }
            if jobs.len() > 1 {
                table.row(Used { id: "all".to_owned(), ..all }.cells());
            }
            table.print("no jobs in this month")?;
        }
    }
    done()
}

/// One for each group, in their order; what has no such label is the first.
fn sums(jobs: &[Used]) -> Vec<Used> {
    let mut sums = BTreeMap::<Option<&str>, Used>::new();
    for job in jobs {
        let sum = sums.entry(job.group.as_deref()).or_default();
        *sum = std::mem::take(sum).plus(job);
    }
    sums.into_iter().map(|(group, sum)| Used { group: group.map(str::to_owned), ..sum }).collect()
}

fn print_sums(by: &By, sums: &[Used], all: &Used, month: u32, format: UsageFormat) -> Outcome {
    match format {
        UsageFormat::Json => {
            let mut document = value!({ "month": format_month(month), "by": by.name(), "jobs": all.jobs });
            for (name, amount) in all.amounts() {
                document[name] = amount;
            }
            let of_group = |sum: &Used| {
                let mut group = value!({ "name": sum.group, "jobs": sum.jobs });
                for (name, amount) in sum.amounts() {
                    group[name] = amount;
                }
                group
            };
            document["groups"] = sums.iter().map(of_group).collect();
            output::json(&document)?;
        }
        UsageFormat::Csv => {
            let first =
                |sum: &Used| vec![quoted(sum.group.as_deref().unwrap_or_default()), sum.jobs.to_string()];
            output::text(&csv(&format!("{},jobs", quoted(by.name())), sums, first))?;
        }
        UsageFormat::Name => {
            let name = |sum: &Used| sum.group.as_ref().map(|group| format!("{group}\n"));
            output::text(&sums.iter().filter_map(name).collect::<String>())?;
        }
        UsageFormat::Table | UsageFormat::Wide => {
            let name = by.name().to_uppercase();
            let mut table =
                Table::new(&[&name, "JOBS", "TASKS", "RAN", "CORE-SECONDS", "GPU-SECONDS", "COST"]);
            let mut row = |name: &str, sum: &Used| {
                let amounts = sum.cells().split_off(3);
                table.row(
                    [name.to_owned(), sum.jobs.to_string()].into_iter().chain(amounts).collect::<Vec<_>>(),
                );
            };
            for sum in sums {
                row(sum.group.as_deref().unwrap_or("-"), sum);
            }
            if sums.len() > 1 {
                row("all", all);
            }
            table.print("no jobs in this month")?;
        }
    }
    done()
}

impl Used {
    fn of(job: &JobSummary, by: Option<&By>) -> Self {
        let state = job.state.clone().unwrap_or_default();
        Self {
            id: words::job_id(&job.tenant, job.number),
            name: job.name.clone(),
            state: words::state(state.state()),
            tasks: job.tasks,
            ran: job.metered.unwrap_or_default(),
            micros: state.settled_micros.saturating_add(job.running_micros),
            group: by.and_then(|by| by.of(job)),
            jobs: 1,
        }
    }

    fn plus(self, other: &Self) -> Self {
        Self {
            tasks: self.tasks.saturating_add(other.tasks),
            ran: estimate::together(self.ran, other.ran),
            micros: self.micros.saturating_add(other.micros),
            jobs: self.jobs + other.jobs,
            ..self
        }
    }

    /// What adds up, in the words of `ls -o json`.
    fn amounts(&self) -> [(&'static str, Value); 5] {
        [
            ("tasks", value!(self.tasks)),
            ("busy_ms", value!(self.ran.busy_ms)),
            ("core_seconds", json::seconds(self.ran.core_ms)),
            ("gpu_seconds", json::seconds(self.ran.gpu_ms)),
            ("cost", value!(words::money(self.micros))),
        ]
    }

    fn as_json(&self) -> Value {
        let mut job = value!({ "id": self.id, "name": self.name, "state": self.state });
        for (name, amount) in self.amounts() {
            job[name] = amount;
        }
        job
    }

    fn cells(&self) -> Vec<String> {
        let seconds = |ms: u64| json::seconds(ms).to_string();
        vec![
            self.id.clone(),
            self.name.clone(),
            self.state.to_owned(),
            self.tasks.to_string(),
            units::brief_duration_ms(self.ran.busy_ms),
            seconds(self.ran.core_ms),
            seconds(self.ran.gpu_ms),
            words::money(self.micros),
        ]
    }
}

/// RFC 4180, with a header.
fn csv(header: &str, rows: &[Used], first: impl Fn(&Used) -> Vec<String>) -> String {
    let mut text = format!("{header},tasks,busy_ms,core_seconds,gpu_seconds,cost\n");
    for job in rows {
        let mut fields = first(job);
        // Money is text, but of digits alone.
        let plain = |amount: Value| amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
        fields.extend(job.amounts().map(|(_, amount)| plain(amount)));
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}

/// Jobs submitted in a month, newest first. Numbers follow the time of
/// submission, so the first one before it is the last to be looked at.
async fn jobs_of(client: &Client, tenant: &str, wanted: u32, by: Option<&By>) -> Result<Vec<Used>, Failure> {
    let mut jobs = Vec::new();
    let mut before = 0;
    loop {
        let request = ListJobsRequest {
            tenant: tenant.to_owned(),
            limit: limits::JOBS_PAGE,
            before,
            ..ListJobsRequest::default()
        };
        let reply = client.list_jobs(request).await?;
        for job in &reply.jobs {
            let submitted = month::of(job.submitted_ms);
            if submitted < wanted {
                return Ok(jobs);
            }
            if submitted == wanted {
                jobs.push(Used::of(job, by));
            }
        }
        before = reply.next_before;
        if before == 0 {
            return Ok(jobs);
        }
    }
}

/// `2026-02` as year * 12 + month0.
fn parse_month(text: &str) -> Result<u32, Failure> {
    let wrong = || Failure::wrong_use("month", text, "is no month", "write it like 2026-02");
    let (year, month) = text.split_once('-').ok_or_else(wrong)?;
    let digits = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(year, 4) || !digits(month, 2) {
        return Err(wrong());
    }
    let (year, month): (u32, u32) = (year.parse().map_err(|_| wrong())?, month.parse().map_err(|_| wrong())?);
    if !(1..=12).contains(&month) {
        return Err(wrong());
    }
    Ok(year * 12 + month - 1)
}

fn format_month(month: u32) -> String {
    format!("{:04}-{:02}", month / 12, month % 12 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_commas_is_one_field() {
        let ran = Metered { busy_ms: 1500, core_ms: 750, gpu_ms: 0 };
        let job = |name: &str| Used {
            id: "lab-1".into(),
            name: name.into(),
            ran,
            micros: 40_000,
            ..Used::default()
        };
        let first = |job: &Used| vec![quoted(&job.id), quoted(&job.name), job.state.to_owned()];
        let text = csv("id,name,state", &[job("a, \"b\""), job("c")], first);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], r#"lab-1,"a, ""b""",,0,1500,0.75,0.0,0.04"#);
        assert_eq!(lines[2], "lab-1,c,,0,1500,0.75,0.0,0.04");
        assert_eq!(lines[0].split(',').count(), lines[2].split(',').count());
    }

    #[test]
    fn months_read_as_they_are_written() {
        for text in ["1970-01", "2026-02", "2025-12"] {
            assert_eq!(format_month(parse_month(text).unwrap()), text);
        }
        assert_eq!(parse_month("2026-02").unwrap(), month::of(1_771_156_800_000));
        for wrong in ["", "2026", "2026-13", "2026-00", "26-02", "2026-2", "x-02", "+026-02"] {
            assert_eq!(parse_month(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
