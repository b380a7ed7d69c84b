//! `drumline replay` over real workload logs. They are no part of the project: where they are
//! not beside it, the tests that need them say so and end.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn replay(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_drumline")).arg("replay").args(words).output().unwrap()
}

fn json(words: &[&str]) -> Value {
    let output = replay(&[words, &["-o", "json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A log of the Parallel Workloads Archive, where it is.
fn log(name: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces").join(name);
    if path.exists() {
        return Some(path.to_str().unwrap().to_owned());
    }
    eprintln!("skipped: {name} is not in shared/traces beside the project");
    None
}

fn own(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Mean bounded slowdown and mean wait of the whole log, as published campaigns and a
/// reference checked against them have it.
#[test]
fn the_classic_policies_give_the_published_figures() {
    let Some(log) = log("KTH-SP2-1996-2.swf.gz") else { return };
    let told = json(&[&log]);
    assert_eq!((&told["jobs"], &told["processors"]), (&28_481.into(), &100.into()));
    for (policy, slowdown, wait) in [
        ("fcfs", "6815.0", "353776"),
        ("easy", "92.7", "6835"),
        ("easy-sjbf", "69.4", "5904"),
        ("conservative", "89.0", "7316"),
    ] {
        let of = &told["policies"][policy];
        let number = |name: &str| of[name].as_f64().unwrap();
        assert_eq!(format!("{:.1}", number("mean_bounded_slowdown")), slowdown, "{policy}");
        assert_eq!(format!("{:.0}", number("mean_wait_s")), wait, "{policy}");
    }
}

/// Over shaken copies: a better mean, and nobody pays for it in the tail.
#[test]
fn the_default_policy_is_better_and_starves_nobody() {
    let Some(log) = log("KTH-SP2-1996-2.swf.gz") else { return };
    let told = json(&[&log, "--policy", "easy,easy-sjbf,default", "--copies", "12"]);
    let of = |policy: &str, name: &str| told["policies"][policy][name].as_f64().unwrap();
    let slowdown = "mean_bounded_slowdown";
    assert!(of("default", slowdown) <= 0.85 * of("easy-sjbf", slowdown), "{told}");
    for tail in ["p99_wait_s", "max_bounded_slowdown"] {
        assert!(of("default", tail) <= of("easy", tail), "{tail}: {told}");
    }
}

#[test]
fn one_policy_is_told_without_its_name_around_it() {
    let log = own("one.swf", "; MaxProcs: 4\n1 0 -1 10 4 -1 -1 4 20 -1 1 1 1 -1 1 -1 -1 -1\n");
    let told = json(&[&log, "--policy", "easy"]);
    assert_eq!((&told["policy"], &told["mean_wait_s"]), (&"easy".into(), &0.0.into()));
    assert_eq!(told["utilisation"], 1.0);
    let table = replay(&[&log]);
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(text.contains("POLICY") && text.contains("conservative") && text.contains("100.0 %"), "{text}");
}

#[test]
fn what_is_no_log_is_refused_with_the_reason() {
    let table = [
        (own("words.swf", "; MaxProcs: 4\nthis is no log\n"), "line 2: column 1 is \"this\""),
        (own("short.swf", "; MaxProcs: 4\n1 2 3\n"), "3 columns, where a job has 18"),
        (own("machine.swf", "1 0 -1 10 4 -1 -1 4 20 -1 1 1 1 -1 1 -1 -1 -1\n"), "give --processors"),
        (own("empty.swf", "; MaxProcs: 4\n"), "no job"),
        (own("broken.swf.gz", "\u{1f}\u{8b}"), "no job"),
        ("/nowhere/log.swf".to_owned(), "correct the path"),
    ];
    for (log, words) in &table[..4] {
        refused(log, words);
    }
    refused(&table[5].0, table[5].1);
    // Two bytes that promise a packed file, and then none.
    std::fs::write(&table[4].0, [0x1f, 0x8b]).unwrap();
    refused(&table[4].0, "cannot be unpacked");
}

fn refused(log: &str, words: &str) {
    let output = replay(&[log]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(words), "{log}: {told}");
}

/// Two jobs that want the whole machine, the second for the second half of the time.
const TWO: &str = "; MaxProcs: 4
1 0 -1 100 4 -1 -1 4 100 -1 1 1 1 -1 1 -1 -1 -1
2 0 -1 100 4 -1 -1 4 100 -1 1 1 1 -1 1 -1 -1 -1
";

#[test]
fn the_course_is_drawn_on_a_terminal() {
    let log = own("course.swf", TWO);
    let drawn = replay(&[&log, "--policy", "easy", "--plot"]);
    let text = String::from_utf8(drawn.stdout).unwrap();
    let plot = text.split_once("\n\n").unwrap().1;
    // 80 columns where there is no terminal: one waits for half of the time.
    let half = |bar: &str| format!("{}{}", bar.repeat(28), " ".repeat(28));
    let line = |bars: String, most: &str| format!("easy         {bars} {most:>9}\n");
    let expected = [
        "over time, a column is 3.5s:\n\njobs waiting (logarithmic)\n".to_owned(),
        line(half("█"), "1"),
        "\nutilisation\n".to_owned(),
        line("█".repeat(56), "100 %"),
        "\nmean bounded slowdown of those submitted then (logarithmic)\n".to_owned(),
        line(format!("█{}", " ".repeat(55)), "2"),
    ];
    assert_eq!(plot, expected.concat());
}

#[test]
fn the_course_is_a_picture() {
    let log = own("picture.swf", TWO);
    let drawn = replay(&[&log, "--policy", "fcfs,easy", "--svg"]);
    let text = String::from_utf8(drawn.stdout).unwrap();
    assert!(text.starts_with("<svg xmlns=") && text.ends_with("</svg>\n"), "{text}");
    // Of each of three panels a line for each of two policies, of 240 points.
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("stroke-width")).collect();
    assert_eq!(lines.len(), 6);
    assert!(lines.iter().all(|line| line.matches(['M', 'L']).count() == 240), "{}", lines[0]);
    assert!(text.contains(">fcfs</text>") && text.contains(">easy</text>"));
    let copies = replay(&[&log, "--svg", "--copies", "2"]);
    assert_eq!(copies.status.code(), Some(2), "a picture of a mean is of nothing");
}
