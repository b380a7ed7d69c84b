//! `drumline replay`: what policies would have done with a workload log.

mod plot;
mod svg;

use super::{Outcome, done};
use crate::{
    args::{Format, PolicyArg, ReplayArgs},
    failure::Failure,
    files, limits,
    output::{self, Table},
};
use ::scheduler::replay::{self, Course, Log, Measures, Name, swf};
use flate2::read::MultiGzDecoder;
use proto::units;
use serde_json::{Map, Value, json};
use std::io::{Cursor, Read};
use std::path::Path;
use tui::progress::terminal_width;
use world::disk::read_all;

/// The narrowest and the widest plot on a terminal.
const PLOT_COLUMNS: (usize, usize) = (60, 160);
/// Of a picture.
const SVG_COLUMNS: usize = 240;

pub(super) fn run(args: &ReplayArgs) -> Outcome {
    let text = read(&args.log)?;
    let log = swf::read(&text, args.processors).map_err(|error| {
        let remedy = "give a log in the Standard Workload Format";
        Failure::wrong_use("log", args.log.display(), &error.to_string(), remedy)
    })?;
    let names: Vec<Name> = if args.policy.is_empty() {
        Name::ALL.to_vec()
    } else {
        args.policy.iter().map(|arg| name(*arg)).collect()
    };
    let logs: Vec<Log> = match args.copies {
        Some(copies) => (0..copies).map(|copy| replay::shaken(&log, args.shake, copy)).collect(),
        None => vec![log.clone()],
    };
    if args.svg {
        output::text(&svg::draw(&courses(&names, &log, SVG_COLUMNS)))?;
        return done();
    }
    let measured: Vec<(Name, Measures)> = names.iter().map(|&name| (name, measure(name, &logs))).collect();
    match args.format.format {
        Format::Json => output::json(&json(&log, args, &measured))?,
        Format::Name => {
            output::text(&measured.iter().map(|(name, _)| format!("{name}\n")).collect::<String>())?
        }
        Format::Table | Format::Wide => {
            output::note(&headline(&log, args));
            table(&measured).print("no policies")?;
            if args.plot {
                let columns = terminal_width().clamp(PLOT_COLUMNS.0, PLOT_COLUMNS.1);
                output::text(&plot::draw(&courses(&names, &log, columns - plot::MARGIN)))?;
            }
        }
    }
    done()
}

fn name(arg: PolicyArg) -> Name {
    match arg {
        PolicyArg::Fcfs => Name::Fcfs,
        PolicyArg::Easy => Name::Easy,
        PolicyArg::EasySjbf => Name::EasySjbf,
        PolicyArg::Conservative => Name::Conservative,
        PolicyArg::Default => Name::Default,
    }
}

/// The log's text, unpacked if need be.
fn read(path: &Path) -> Result<String, Failure> {
    let bad = |reason: &str, remedy: &str| Failure::wrong_use("log", path.display(), reason, remedy);
    let file = files::find("log", path)?;
    let packed = read_all(&*file.disk, &file.path, limits::LOG_BYTES_MAX)
        .map_err(|error| bad(&error.to_string(), "look at the file"))?;
    let packed: Box<dyn Read> = if packed.starts_with(&[0x1f, 0x8b]) {
        Box::new(MultiGzDecoder::new(Cursor::new(packed)))
    } else {
        Box::new(Cursor::new(packed))
    };
    let mut bytes = Vec::new();
    packed.take(limits::LOG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| {
        bad(&format!("cannot be unpacked: {error}"), "fetch it again, or unpack it with gunzip")
    })?;
    if bytes.len() as u64 > limits::LOG_BYTES_MAX {
        let most = units::format_memory_bytes(limits::LOG_BYTES_MAX);
        return Err(bad(&format!("is longer than {most}"), "cut it into shorter logs"));
    }
    // Comments may be in any encoding; what counts is plain.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn measure(name: Name, logs: &[Log]) -> Measures {
    let each: Vec<Measures> =
        logs.iter().map(|log| replay::measure(log, &replay::work_off(log, &mut *name.policy(log)))).collect();
    Measures::mean(&each)
}

/// How the log went under each policy, on one axis of time.
fn courses(names: &[Name], log: &Log, columns: usize) -> Vec<(Name, Course)> {
    let work_off = |name: &Name| (*name, replay::work_off(log, &mut *name.policy(log)));
    let worked: Vec<(Name, Vec<u64>)> = names.iter().map(work_off).collect();
    let end = worked.iter().map(|(_, starts)| replay::last_end(log, starts)).max().unwrap_or_default();
    worked.into_iter().map(|(name, starts)| (name, replay::course(log, &starts, end, columns))).collect()
}

fn headline(log: &Log, args: &ReplayArgs) -> String {
    let copies = args
        .copies
        .map(|copies| format!("; means over {copies} copies shaken by 0 to {} s", args.shake))
        .unwrap_or_default();
    let (jobs, dropped, processors) = (log.jobs.len(), log.dropped, log.processors);
    format!("{jobs} jobs on {processors} processors, {dropped} left out{copies}")
}

fn table(measured: &[(Name, Measures)]) -> Table {
    let mut table = Table::new(&[
        "POLICY",
        "MEAN SLOWDOWN",
        "MAX SLOWDOWN",
        "MEAN WAIT S",
        "P99 WAIT S",
        "MAX WAIT S",
        "UTILISATION",
        "FAIRNESS",
    ]);
    for (name, measures) in measured {
        table.row(vec![
            name.to_string(),
            format!("{:.2}", measures.mean_bounded_slowdown),
            format!("{:.0}", measures.max_bounded_slowdown),
            format!("{:.0}", measures.mean_wait_s),
            format!("{:.0}", measures.p99_wait_s),
            format!("{:.0}", measures.max_wait_s),
            format!("{:.1} %", measures.utilisation * 100.0),
            format!("{:.3}", measures.fairness),
        ]);
    }
    table
}

/// One policy: its measures; several: a member for each.
fn json(log: &Log, args: &ReplayArgs, measured: &[(Name, Measures)]) -> Value {
    let of = |measures: &Measures| {
        json!({
            "mean_bounded_slowdown": measures.mean_bounded_slowdown,
            "max_bounded_slowdown": measures.max_bounded_slowdown,
            "mean_wait_s": measures.mean_wait_s,
            "p99_wait_s": measures.p99_wait_s,
            "max_wait_s": measures.max_wait_s,
            "utilisation": measures.utilisation,
            "fairness": measures.fairness,
        })
    };
    let mut value = match measured {
        [(name, measures)] => {
            let mut value = of(measures);
            value["policy"] = name.as_str().into();
            value
        }
        several => {
            let policies: Map<String, Value> =
                several.iter().map(|(name, measures)| (name.to_string(), of(measures))).collect();
            json!({ "policies": policies })
        }
    };
    value["jobs"] = log.jobs.len().into();
    value["dropped"] = log.dropped.into();
    value["processors"] = log.processors.into();
    value["copies"] = args.copies.into();
    value
}
