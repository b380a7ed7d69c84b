//! Words for states, causes, times and amounts, the same in every command and
//! on every screen.

use proto::{
    array, estimate, units,
    v1::{Event, JobSpec, Resources, Span, State},
};

pub use proto::words::{cause, is_ended, job_id, node_state, state};

/// `1.5 cores, 64MiB, 1 gpu`.
#[must_use]
pub fn resources(resources: &Resources) -> String {
    let cores = units::format_millicores(u64::from(resources.millicores));
    let mut text = if cores == "1" { "1 core".to_owned() } else { format!("{cores} cores") };
    if resources.memory_bytes > 0 {
        text.push_str(&format!(", {}", units::brief_memory_bytes(resources.memory_bytes)));
    }
    if resources.gpus > 0 {
        text.push_str(&format!(", {}", count(u64::from(resources.gpus), "gpu")));
    }
    text
}

/// `1 file`, `2 files`.
#[must_use]
pub fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// How long ago, or `-` where it never was.
#[must_use]
pub fn age(at_ms: u64, now_ms: u64) -> String {
    if at_ms == 0 {
        return "-".to_owned();
    }
    units::brief_duration_ms(now_ms.saturating_sub(at_ms))
}

/// From start to end, or to now where it still runs.
#[must_use]
pub fn ran(started_ms: u64, ended_ms: u64, now_ms: u64) -> String {
    if started_ms == 0 {
        return "-".to_owned();
    }
    let end = if ended_ms == 0 { now_ms } else { ended_ms };
    units::brief_duration_ms(end.saturating_sub(started_ms))
}

/// `2024-02-29T12:00:00.000Z`: the civil calendar by Howard Hinnant's
/// days-to-date algorithm.
#[must_use]
pub fn utc(at_ms: u64) -> String {
    let (days, ms) = (at_ms / 86_400_000, at_ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (seconds, millis) = (ms / 1000, ms % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds % 3600 / 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// What an event is about: `default-17`, `default-17 count[3-5]`. The spec tells
/// names and indexes, where it is known.
#[must_use]
pub fn event_subject(event: &Event, job: &str, spec: Option<&JobSpec>) -> String {
    let Some(at) = event.step else { return job.to_owned() };
    let step = spec.and_then(|spec| spec.steps.get(usize::try_from(at).ok()?));
    let name = step.map_or_else(|| format!("step {at}"), |step| step.name.clone());
    let array = step.and_then(|step| step.array.as_ref());
    if event.tasks.is_empty() || step.is_some_and(|step| !estimate::is_indexed(step) || step.array.is_none())
    {
        return format!("{job} {name}");
    }
    let index = |ordinal: u64| array.and_then(|array| array::index_of(array, ordinal)).unwrap_or(ordinal);
    let spans: Vec<String> = event
        .tasks
        .iter()
        .map(|span: &Span| match span.first == span.last {
            true => index(span.first).to_string(),
            false => format!("{}-{}", index(span.first), index(span.last)),
        })
        .collect();
    format!("{job} {name}[{}]", spans.join(","))
}

/// `PENDING -> RUNNING  exit code 3 on n1`.
#[must_use]
pub fn event_change(event: &Event) -> String {
    let mut text = if event.from == event.to || event.from() == State::Unspecified {
        state(event.to()).to_owned()
    } else {
        format!("{} -> {}", state(event.from()), state(event.to()))
    };
    let why = cause(event.cause.as_ref());
    if !why.is_empty() {
        text.push_str(&format!("  {why}"));
    }
    if !event.node.is_empty() && !why.contains(&event.node) {
        text.push_str(&format!(" (on {})", event.node));
    }
    text
}

/// `43.75%`; nothing where it is not told.
#[must_use]
pub fn percent(percent: Option<f64>) -> String {
    percent.map(|percent| format!("{percent}%")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Cause, CauseKind, Step};

    #[test]
    fn times_are_written_plainly() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(1_709_208_000_123), "2024-02-29T12:00:00.123Z");
        assert_eq!(utc(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
        assert_eq!((age(0, 5), age(1000, 4000)), ("-".into(), "3.0s".into()));
        assert_eq!(
            (ran(0, 0, 9), ran(1000, 0, 4000), ran(1000, 2000, 9000)),
            ("-".into(), "3.0s".into(), "1.0s".into())
        );
    }

    #[test]
    fn events_tell_the_users_own_indexes() {
        let spec = JobSpec {
            steps: vec![
                Step {
                    name: "count".into(),
                    array: Some(array::parse("10-20:5").unwrap()),
                    ..Step::default()
                },
                Step { name: "sum".into(), ..Step::default() },
            ],
            ..JobSpec::default()
        };
        let event = Event {
            step: Some(0),
            tasks: vec![Span { first: 0, last: 1 }],
            from: State::Running.into(),
            to: State::Pending.into(),
            cause: Some(Cause { kind: CauseKind::Exit.into(), exit_code: 3, ..Cause::default() }),
            node: "n1".into(),
            ..Event::default()
        };
        assert_eq!(event_subject(&event, "t-1", Some(&spec)), "t-1 count[10-15]");
        assert_eq!(event_subject(&event, "t-1", None), "t-1 step 0[0-1]");
        assert_eq!(event_subject(&Event { step: Some(1), ..event.clone() }, "t-1", Some(&spec)), "t-1 sum");
        assert_eq!(event_subject(&Event::default(), "t-1", None), "t-1");
        assert_eq!(event_change(&event), "RUNNING -> PENDING  exit code 3 (on n1)");
    }
}
