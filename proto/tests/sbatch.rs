//! Batch scripts as people write them, each with the job it becomes.
//!
//! `sbatch/NN-name.sh` may begin with lines `#: sbatch …` (how it is called)
//! and `#: NAME=value` (what is set). The snapshot shows the job, and what was
//! warned of or why it was refused.
#![allow(clippy::disallowed_methods, reason = "tests read their own files")]

use jiff::{Timestamp, Unit, tz::TimeZone};
use proptest::prelude::*;
use proto::{
    array,
    sbatch::{self, CommandLine, Cover, KNOWN, ScriptFrom, Surroundings, Takes},
    units,
    v1::{DependencyKind, JobSpec},
    validate,
};
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

struct Case {
    words: Vec<String>,
    around: Surroundings,
    text: String,
}

/// Words as a shell would part them, with double quotes alone.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('"').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn case(path: &Path) -> Case {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut words = vec![name];
    let mut environment = BTreeMap::from([("USER".to_owned(), "ada".to_owned())]);
    for line in text.lines().filter_map(|line| line.strip_prefix("#: ")) {
        if let Some(called) = line.strip_prefix("sbatch ") {
            words = split(called);
        } else {
            let (name, value) = line.split_once('=').unwrap();
            environment.insert(name.to_owned(), value.to_owned());
        }
    }
    let around = Surroundings {
        environment,
        directory: "/home/ada/work".to_owned(),
        host: "login".to_owned(),
        tenant: "lab".to_owned(),
        // Friday morning, where clocks change at the end of the month.
        now: jiff::civil::date(2026, 3, 6)
            .at(10, 30, 0, 0)
            .to_zoned(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap())
            .unwrap(),
    };
    Case { words, around, text }
}

fn shown(case: &Case) -> String {
    let made = CommandLine::read(&case.words).and_then(|line| {
        let text = match &line.script {
            ScriptFrom::Wrap(command) => sbatch::wrapped(command),
            ScriptFrom::File(_) | ScriptFrom::Input => case.text.clone(),
        };
        sbatch::submission(&line, &text, &case.around).map(|submission| (text, submission))
    });
    let (text, submission) = match made {
        Ok(made) => made,
        Err(problem) => return format!("refused [{}]: {problem}\n", problem.code),
    };
    let mut out = job(&submission.spec, &text);
    let now = &case.around.now;
    for (flag, set) in [
        ("singleton", submission.singleton),
        ("wait", submission.wait),
        ("parsable", submission.parsable),
        ("quiet", submission.quiet),
        ("test only", submission.test_only),
    ] {
        if set {
            writeln!(out, "{flag}").unwrap();
        }
    }
    if submission.spec.begin_ms > 0 {
        let at = Timestamp::from_millisecond(submission.spec.begin_ms.cast_signed()).unwrap();
        let in_ms = (at - now.timestamp()).total(Unit::Millisecond).unwrap() as u64;
        let at = at.to_zoned(now.time_zone().clone());
        writeln!(out, "begins {} in {}", at.strftime("%F %R %:z"), units::format_duration_ms(in_ms)).unwrap();
    }
    for warning in submission.warnings {
        writeln!(out, "warning: {warning}").unwrap();
    }
    out
}

fn job(spec: &JobSpec, script: &str) -> String {
    let mut out = String::new();
    let [step] = spec.steps.as_slice() else { panic!("one step: {spec:?}") };
    let each = step.per_task.unwrap();
    writeln!(out, "job {:?}, step {}, retries {:?}", spec.name, step.name, step.retries).unwrap();
    writeln!(
        out,
        "{} x {} of {} cores, {} MiB, {} gpus; at most {}, expected {}",
        step.nodes,
        step.tasks_per_node,
        units::format_millicores(u64::from(each.millicores)),
        each.memory_bytes >> 20,
        each.gpus,
        units::format_duration_ms(step.timeout_ms),
        units::format_duration_ms(spec.expected_runtime_ms),
    )
    .unwrap();
    if let Some(spec) = &step.array {
        writeln!(out, "array {}", array::format(spec)).unwrap();
    }
    if !step.pool.is_empty() {
        writeln!(out, "pool {}", step.pool).unwrap();
    }
    for (name, count) in &step.licenses {
        writeln!(out, "license {name} x {count}").unwrap();
    }
    if step.exclusive {
        writeln!(out, "exclusive").unwrap();
    }
    for after in &spec.after {
        let how = match after.kind() {
            DependencyKind::Ok => "ok",
            DependencyKind::NotOk => "not ok",
            DependencyKind::Any | DependencyKind::Unspecified => "any",
            DependencyKind::Each => "each",
        };
        let task = after.index.map_or_else(String::new, |index| format!(" task {index}"));
        writeln!(out, "after {}{task} {how}", after.job_number).unwrap();
    }
    for (key, value) in &spec.labels {
        writeln!(out, "label {key}={value}").unwrap();
    }
    let at = step.argv.iter().position(|word| word == script).expect("the script is a word");
    writeln!(out, "{} SCRIPT {}", step.argv[4..at].join(" "), step.argv[at + 1..].join(" ")).unwrap();
    for (name, value) in &step.env {
        writeln!(out, "  {name}={value}").unwrap();
    }
    out
}

#[test]
fn scripts_become_jobs() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sbatch");
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sh"));
    paths.sort();
    assert!(paths.len() >= 40, "{} scripts", paths.len());
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "sbatch", omit_expression => true }, {
            insta::assert_snapshot!(name, shown(&case(&path)));
        });
    }
}

/// The text of the script goes along as it was, whatever the directives made
/// of it, and nothing of the submitter's secrets does.
#[test]
fn the_script_and_nothing_else_is_handed_on() {
    let text = "#!/bin/sh\n#SBATCH -t 5\necho \"a  b\"\n";
    let mut around = Surroundings { directory: "/w".to_owned(), ..Surroundings::default() };
    around.environment.insert("DRUMLINE_TOKEN".to_owned(), "dl_secret".to_owned());
    let line = CommandLine::read(&["job.sh".to_owned(), "x y".to_owned()]).unwrap();
    let made = sbatch::submission(&line, text, &around).unwrap();
    let step = &made.spec.steps[0];
    assert_eq!(step.argv[step.argv.len() - 2..], [text.to_owned(), "x y".to_owned()]);
    assert!(!format!("{:?}", made.spec).contains("dl_secret"));
    assert!(made.spec.labels.is_empty());
}

/// The table for people names every option, and says of each what the table for
/// the parser says.
#[test]
fn the_documentation_names_every_option() {
    let text = include_str!("../../docs/slurm.md");
    let (covered, rest) = text.split_once("Not covered, and named in a warning:").unwrap();
    let (uncovered, _) = rest.split_once("## What differs").unwrap();
    for option in KNOWN {
        let name = match option.short {
            Some(short) => format!("`-{short} --{}`", option.long),
            None => format!("`--{}`", option.long),
        };
        let (here, there) = match option.cover {
            Cover::Warned(_) => (uncovered, covered),
            Cover::Used | Cover::Refused(..) => (covered, uncovered),
        };
        assert!(here.contains(&name), "{name} is not where it belongs");
        assert!(!there.contains(&name), "{name} is where it does not belong");
    }
}

/// Values that some option takes, and some that none does.
const VALUES: [&str; 28] = [
    "",
    "0",
    "1",
    "7",
    "4096",
    "99999999999",
    "1-3",
    "2-0",
    "1:30",
    "0-9%2",
    "1,1",
    "gpu:2",
    "a100:1",
    "512M",
    "4G",
    "now",
    "now+1hour",
    "16:00",
    "tomorrow",
    "12/24 8:00pm",
    "afterok:3",
    "afterok:3_1,aftercorr:4",
    "singleton",
    "B:USR1@5",
    "NONE",
    "A=1,B",
    "%j",
    "x y",
];

fn an_option() -> impl Strategy<Value = String> {
    (0..KNOWN.len(), 0..VALUES.len(), any::<bool>()).prop_map(|(option, value, short)| {
        let option = &KNOWN[option];
        match (option.short, option.takes) {
            (Some(short_name), Takes::Value) if short => format!("-{short_name} '{}'", VALUES[value]),
            (_, Takes::Nothing) => format!("--{}", option.long),
            _ => format!("--{}='{}'", option.long, VALUES[value]),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is asked is refused with a remedy, or a job that every door takes.
    #[test]
    fn what_is_taken_is_valid(options in prop::collection::vec(an_option(), 0..6), noise in "\\PC{0,12}") {
        let lines: String = options.iter().map(|option| format!("#SBATCH {option}\n")).collect();
        let text = format!("#!/bin/sh\n{lines}#SBATCH -J '{}'\n", noise.replace('\'', ""));
        let around = Surroundings { directory: "/w".to_owned(), ..Surroundings::default() };
        let line = CommandLine::read(&["job.sh".to_owned()]).unwrap();
        match sbatch::submission(&line, &text, &around) {
            Ok(made) => prop_assert!(validate::spec(&made.spec).is_ok(), "{text}"),
            Err(problem) => prop_assert!(!problem.remedy.is_empty() && !problem.reason.is_empty(), "{problem}"),
        }
    }
}
