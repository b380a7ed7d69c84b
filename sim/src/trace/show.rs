//! `cargo chaos trace`: prints a trace file, or a part of it.

use clap::Args;
use proto::trace::{Kind, Reader, Record, TraceError};
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of the subcommand.
#[derive(Args)]
pub struct TraceArguments {
    /// As `cargo chaos run --trace-out` writes it
    file: PathBuf,
    /// From this second of virtual time on
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    from: f64,
    /// Up to this second
    #[arg(long, value_name = "S")]
    to: Option<f64>,
    /// Only what is about this job, such as lab-17
    #[arg(long)]
    job: Option<String>,
    /// Only what is about this node: node-3, server
    #[arg(long)]
    node: Option<String>,
    /// Compare the hash of the whole file first
    #[arg(long)]
    verify: bool,
}

pub fn command(arguments: &TraceArguments) -> ExitCode {
    let path = arguments.file.display();
    match show(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read what we print has seen enough.
        Err(TraceError::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {path}: {why}");
            ExitCode::from(2)
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a tool around simulations reads a real file")]
fn show(arguments: &TraceArguments) -> Result<(), TraceError> {
    let open = || File::open(&arguments.file).map(BufReader::new);
    let mut reader = match Reader::open(open()?) {
        Err(TraceError::Truncated) => {
            eprintln!("warning: the file is cut off: only what was written whole is shown");
            Reader::recover(open()?)?
        }
        opened => opened?,
    };
    if arguments.verify {
        reader.verify()?;
    }
    print(&mut reader, arguments, &mut std::io::stdout().lock())
}

fn print<R: Read + Seek>(
    reader: &mut Reader<R>,
    arguments: &TraceArguments,
    out: &mut impl Write,
) -> Result<(), TraceError> {
    let head = reader.head();
    writeln!(
        out,
        "seed={} scenario={} commit={} lock={} toolchain={:?} records={} sim_s={:.1}",
        head.seed,
        head.scenario,
        head.commit,
        &head.lock_sha256.get(..12).unwrap_or_default(),
        head.toolchain,
        reader.records(),
        reader.last_us() as f64 / 1e6,
    )?;
    writeln!(out, "again: {}", head.again)?;
    reader.seek(micros(arguments.from))?;
    let to_us = arguments.to.map_or(u64::MAX, micros);
    let wanted = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|name| name == found);
    while let Some(record) = reader.next_record()?.filter(|record| record.at_us <= to_us) {
        if wanted(&arguments.job, &record.job) && wanted(&arguments.node, &record.node) {
            writeln!(out, "{}", line(&record))?;
        }
    }
    Ok(())
}

fn line(record: &Record) -> String {
    let kind = match record.kind {
        Kind::Other(number) => format!("kind-{number}"),
        kind => kind.word().to_owned(),
    };
    let name = |name: &str| if name.is_empty() { "-" } else { name }.to_owned();
    format!(
        "{:>8}.{:06}  {kind:<8}  {:<8} {:<12} {}",
        record.at_us / 1_000_000,
        record.at_us % 1_000_000,
        name(&record.node),
        name(&record.job),
        record.text
    )
}

/// Seconds as people write them; what is no time is the beginning.
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::trace::{Head, Writer};
    use std::io::Cursor;

    #[test]
    fn a_part_is_printed_by_time_job_and_node() {
        let mut writer = Writer::begin(Vec::new(), &Head::default()).unwrap();
        for (at_us, node, job) in
            [(1, "", ""), (2_000_000, "node-1", "lab-1"), (3_500_000, "node-1", "lab-2")]
        {
            let (node, job) = (node.to_owned(), job.to_owned());
            writer
                .record(&Record { at_us, kind: Kind::Decision, node, job, text: "so be it".into() })
                .unwrap();
        }
        let bytes = writer.finish().unwrap();
        let shown = |from, to, job: Option<&str>, node: Option<&str>| {
            let (job, node) = (job.map(str::to_owned), node.map(str::to_owned));
            let arguments = TraceArguments { file: PathBuf::new(), from, to, job, node, verify: false };
            let mut out = Vec::new();
            print(&mut Reader::open(Cursor::new(&bytes)).unwrap(), &arguments, &mut out).unwrap();
            String::from_utf8(out).unwrap().lines().skip(2).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(shown(0.0, None, None, None).len(), 3);
        assert_eq!(
            shown(2.0, Some(3.0), None, None),
            ["       2.000000  decision  node-1   lab-1        so be it"]
        );
        assert_eq!(shown(0.0, None, Some("lab-2"), None).len(), 1);
        assert_eq!(shown(0.0, None, None, Some("node-1")).len(), 2);
        assert_eq!(shown(9.0, None, None, None).len(), 0);
    }
}
