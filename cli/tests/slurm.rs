//! Batch scripts through the links that people type: sbatch, squeue, scancel and
//! sinfo, against a server and agents that are processes of their own.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use support::{Cluster, Done, Running, run, until_true};

/// A cluster, and a directory of somebody's with scripts in it.
struct Site {
    cluster: Cluster,
    work: PathBuf,
    links: PathBuf,
}

impl Site {
    fn new(name: &str, agents: usize) -> Self {
        Self::around(Cluster::new(name, agents, "2"))
    }

    fn around(cluster: Cluster) -> Self {
        let (work, links) = (cluster.dir.join("work"), cluster.dir.join("links"));
        fs::create_dir(&work).unwrap();
        fs::create_dir(&links).unwrap();
        for link in ["sbatch", "squeue", "scancel", "sinfo"] {
            symlink(env!("CARGO_BIN_EXE_drumline"), links.join(link)).unwrap();
        }
        Self { cluster, work, links }
    }

    /// A command by its link, as the user `ada` in the work directory.
    fn command(&self, link: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.links.join(link));
        command.env_clear().args(args).current_dir(&self.work).stdin(std::process::Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("USER", "ada").env("HOME", &self.work);
        command.env("DRUMLINE_SERVER", &self.cluster.server.address);
        command.env("DRUMLINE_TOKEN", &self.cluster.server.token);
        command
    }

    fn call(&self, link: &str, args: &[&str]) -> Done {
        run(&mut self.command(link, args))
    }

    /// Submits a script; its number.
    #[track_caller]
    fn sbatch(&self, args: &[&str], script: &str) -> String {
        fs::write(self.work.join("job.sh"), script).unwrap();
        let words: Vec<&str> = [&["--parsable"], args, &["job.sh"]].concat();
        let done = self.call("sbatch", &words).ok();
        assert_eq!(done.stderr, "", "{done:#?}");
        done.stdout.trim().to_owned()
    }

    fn until_state(&self, number: &str, state: &str) {
        self.cluster.until_state(&format!("default-{number}"), state);
    }

    fn read(&self, name: &str) -> String {
        let path = self.work.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// What stands in the log of a job, as `drumline logs` tells it.
    fn log(&self, number: &str) -> String {
        let done = self.cluster.call(&["logs", number, "--raw"]).ok();
        done.stdout + &done.stderr
    }

    fn exists(&self, name: &str) -> bool {
        self.work.join(name).exists()
    }
}

#[test]
fn an_array_writes_its_files_and_each_task_knows_itself() {
    let site = Site::new("slurm-array", 1);
    let script = "#!/bin/bash
#SBATCH --job-name=sweep
#SBATCH --array=1-5:2%2
#SBATCH --cpus-per-task=1 --mem=100M
#SBATCH --time=5
#SBATCH --mail-type=ALL
#SBATCH -o %x-%A_%2a.out -e %x.%a.err
set -u
echo $SLURM_JOB_ID $SLURM_ARRAY_JOB_ID $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT
echo $SLURM_ARRAY_TASK_MIN $SLURM_ARRAY_TASK_MAX $SLURM_CPUS_PER_TASK $SLURM_MEM_PER_NODE
echo $SLURM_JOB_NAME $SLURM_JOB_NODELIST $SLURM_NNODES $SLURM_PROCID $SLURM_RESTART_COUNT \"${SLURM_NTASKS:-unset}\"
echo \"$1|$2\" $GREETING; pwd; echo $SLURM_SUBMIT_DIR
echo trouble >&2
";
    fs::write(site.work.join("sweep.sh"), script).unwrap();
    let mut command = site.command("sbatch", &["sweep.sh", "one two", "*"]);
    let done = run(command.env("GREETING", "good day").env("DRUMLINE_UNSEEN", "x")).ok();
    assert_eq!(done.stdout, "Submitted batch job 1\n");
    assert!(
        done.stderr
            .starts_with("sbatch: warning: line 6: --mail-type is not covered: Drumline sends no mail"),
        "{done:#?}"
    );
    site.until_state("1", "COMPLETED");
    let work = site.work.display();
    for index in [1, 3, 5] {
        assert_eq!(
            site.read(&format!("sweep-1_0{index}.out")),
            format!(
                "1_{index} 1 {index} of 3\n1 5 1 100\nsweep n1 1 0 0 unset\none two|* good day\n{work}\n{work}\n"
            )
        );
        assert_eq!(site.read(&format!("sweep.{index}.err")), "trouble\n");
    }
    let log = site.log("1");
    assert_eq!((log.matches("trouble\n").count(), log.matches("of 3\n").count()), (3, 3), "{log}");
    assert!(!format!("{}", site.cluster.show("default-1")).contains("DRUMLINE_UNSEEN"));
}

/// Nodes are missed sooner than by default.
const BRISK: &str = "
[controller]
heartbeat_ms = 1000
lease_ttl_ms = 12000
lease_margin_ms = 500
suspect_after_ms = 1500
lost_after_ms = 3000
platform_backoff_ms = 300
";

#[test]
fn what_a_script_asks_for_reaches_its_task_and_a_lost_node_means_once_more() {
    let mut cluster = Cluster::with_config("slurm-asks", BRISK);
    for name in ["n1", "n2"] {
        cluster.add_node(name, &["--cores", "2", "--memory", "1GiB", "--gpus", "2"]);
    }
    cluster.until_ready(2);
    let mut site = Site::around(cluster);
    fs::create_dir(site.work.join("place")).unwrap();
    let script = "#!/bin/sh
#SBATCH -J asks -p default -D place -N 1 --ntasks=2 --ntasks-per-node=2 --cpus-per-task=1
#SBATCH --mem-per-cpu=64M --gres=gpu:2 --export=SHADE,GREETING=hello
#SBATCH --requeue -o %x.%j.out -e %x.%j.err
echo $SLURM_JOB_PARTITION $SLURM_NTASKS $SLURM_NTASKS_PER_NODE $SLURM_CPUS_ON_NODE
echo $SLURM_MEM_PER_CPU $SLURM_GPUS_ON_NODE $SHADE $GREETING \"${UNSEEN:-unset}\"
pwd
echo trouble >&2
";
    fs::write(site.work.join("asks.sh"), script).unwrap();
    let mut command = site.command("sbatch", &["--wait", "-o", "line.out", "asks.sh"]);
    let done = run(command.env("SHADE", "blue").env("UNSEEN", "x")).ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("Submitted batch job 1\n", ""));
    let place = site.work.join("place").display().to_string();
    // The command line names another file than the script does.
    assert_eq!(site.read("place/line.out"), format!("default 2 2 2\n64 2 blue hello unset\n{place}\n"));
    assert_eq!(site.read("place/asks.1.err"), "trouble\n");
    assert!(!site.exists("place/asks.1.out"));
    let step = &site.cluster.show("default-1")["steps"][0]["per_task"];
    assert_eq!((&step["cores"], &step["gpus"]), (&2.0.into(), &2.into()), "{step}");

    let number = site.sbatch(
        &["--requeue", "--open-mode=append", "-o", "again.out"],
        "#!/bin/sh\necho run $SLURM_RESTART_COUNT on $SLURMD_NODENAME\n\
         if [ $SLURM_RESTART_COUNT -eq 0 ]; then sleep 600; fi\n",
    );
    until_true("it runs", || site.exists("again.out") && site.read("again.out").ends_with('\n'));
    let first = site.read("again.out").trim().to_owned();
    let lost = site.cluster.nodes.iter_mut().find(|node| first == format!("run 0 on {}", node.name));
    let lost = lost.unwrap_or_else(|| panic!("{first}"));
    lost.kill_all();
    site.until_state(&number, "COMPLETED");
    let other = if first.ends_with("n1") { "n2" } else { "n1" };
    assert_eq!(site.read("again.out"), format!("{first}\nrun 1 on {other}\n"));
}

#[test]
fn jobs_chain_by_their_ends_and_wait_tells_their_code() {
    let site = Site::new("slurm-chain", 1);
    let first = site.sbatch(&[], "#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.05; done; echo one >> order\n");
    let good = site.sbatch(&["-d", &format!("afterok:{first}")], "#!/bin/sh\necho two >> order\n");
    let bad = site.sbatch(&["-d", &format!("afternotok:{first}")], "#!/bin/sh\necho never >> order\n");
    let last =
        site.sbatch(&["-d", &format!("afterok:{good},afterany:{bad}")], "#!/bin/sh\necho three >> order\n");
    let waiting = site.call("squeue", &["-h", "-t", "PD", "-o", "%i %r"]).ok().stdout;
    assert_eq!(waiting.lines().count(), 3, "{waiting}");
    assert!(waiting.lines().all(|line| line.ends_with(" Dependency")), "{waiting}");
    fs::write(site.work.join("go"), "").unwrap();
    site.until_state(&last, "COMPLETED");
    assert_eq!(site.read("order"), "one\ntwo\nthree\n");
    site.until_state(&bad, "CANCELLED");

    // The code is the script's own, its first line names who reads it, and no
    // failure of its own is tried again.
    site.call("sbatch", &["--wait", "-o", "out", "--open-mode=append", "--wrap", "echo try; exit 7"]).exit(7);
    assert_eq!(site.read("out"), "try\n");
    site.call("sbatch", &["--wait", "-Q", "-o", "out", "--open-mode=append", "--wrap", "kill -9 $$"])
        .exit(137);
    fs::write(site.work.join("cat.sh"), "#!/bin/cat\n#SBATCH -o cat.%j\n").unwrap();
    let done = site.call("sbatch", &["-W", "cat.sh"]).ok();
    let number = done.stdout.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(site.read(&format!("cat.{number}")), "#!/bin/cat\n#SBATCH -o cat.%j\n");

    // Standard input is a script too; --test-only makes no job.
    fs::write(site.work.join("in.sh"), "#!/bin/sh\n#SBATCH -i in.sh -o in.out\ncat\n").unwrap();
    let mut command = site.command("sbatch", &["--wait"]);
    run(command.stdin(fs::File::open(site.work.join("in.sh")).unwrap())).ok();
    assert_eq!(site.read("in.out"), site.read("in.sh"));
    let jobs = site.cluster.job_ids().len();
    site.call("sbatch", &["--test-only", "in.sh"]).ok();
    assert_eq!(site.cluster.job_ids().len(), jobs);
}

/// A pipeline in two arrays: each sample is scored once it is aligned.
#[test]
fn tasks_of_an_array_follow_their_like_in_another() {
    let site = Site::new("slurm-corr", 2);
    fs::write(site.work.join("samples.txt"), "ash\nbirch\ncedar\n").unwrap();
    let align = site.sbatch(
        &[],
        "#!/bin/bash\n#SBATCH --job-name=align\n#SBATCH --array=1-3\n#SBATCH --output=align_%a.log\n\n\
         set -euo pipefail\n\
         sample=$(sed -n \"${SLURM_ARRAY_TASK_ID}p\" samples.txt)\n\
         if [ \"$sample\" = birch ]; then echo 'no reads' >&2; exit 9; fi\n\
         while [ \"$sample\" = cedar ] && [ ! -e go ]; do sleep 0.05; done\n\
         echo \"$sample aligned\" > \"$sample.bam\"\n",
    );
    let dependency = format!("--dependency=aftercorr:{align}");
    let score = site.sbatch(
        &[&dependency],
        "#!/bin/bash\n#SBATCH --job-name=score\n#SBATCH --array=1-4%2\n#SBATCH --output=score_%a.log\n\n\
         set -euo pipefail\n\
         sample=$(sed -n \"${SLURM_ARRAY_TASK_ID}p\" samples.txt)\n\
         sed s/aligned/scored/ \"$sample.bam\" > \"$sample.tsv\"\n",
    );
    let first = site.sbatch(&["-d", &format!("afterok:{align}_1")], "#!/bin/sh\ncat ash.bam > first\n");
    let second =
        site.sbatch(&["-d", &format!("afternotok:{align}_2")], "#!/bin/sh\necho birch is lost > second\n");
    let third = site.sbatch(&["-d", &format!("afterok:{align}_2")], "#!/bin/sh\necho never > third\n");
    // While the third sample is still at it, all that does not look at it goes on.
    site.until_state(&first, "COMPLETED");
    site.until_state(&second, "COMPLETED");
    site.until_state(&third, "CANCELLED");
    until_true("the first sample is scored", || site.work.join("ash.tsv").exists());
    assert_eq!(site.read("first") + &site.read("second"), "ash aligned\nbirch is lost\n");
    assert!(!site.work.join("cedar.tsv").exists());
    let id = format!("default-{score}");
    let shown = site.cluster.show(&id);
    assert_eq!(shown["after"], serde_json::json!([format!("each:default-{align}")]));
    assert_eq!((&shown["steps"][0]["pending"], &shown["steps"][0]["cancelled"]), (&1.into(), &2.into()));
    let why = site.cluster.call(&["why", &id]).ok().stdout;
    let said = format!(
        "step batch: each task waits for the task of default-{align} step batch with its index to complete; \
         1 of 3 have, task 3 is RUNNING there"
    );
    assert!(why.contains(&said), "{why}");
    fs::write(site.work.join("go"), "").unwrap();
    site.until_state(&score, "CANCELLED");
    assert_eq!(site.read("ash.tsv") + &site.read("cedar.tsv"), "ash scored\ncedar scored\n");
    let (done, events) = (site.cluster.show(&id), site.cluster.call(&["events", &id]).ok().stdout);
    assert_eq!((&done["steps"][0]["completed"], &done["exit_code"]), (&2.into(), &1.into()));
    assert_eq!(done["cause"]["kind"], "DEPENDENCY_FAILED", "{done:#}");
    for why in ["step batch has no task with its index", "step batch with its index did not complete"] {
        assert!(events.contains(why), "{why}: {events}");
    }
}

#[test]
fn one_of_a_name_runs_at_a_time() {
    let site = Site::new("slurm-singleton", 1);
    let script =
        "#!/bin/sh\necho begun >> order\nwhile [ ! -e go ]; do sleep 0.05; done\necho ended >> order\n";
    let words = ["-J", "nightly", "--dependency=singleton"];
    let numbers: Vec<String> = (0..3).map(|_| site.sbatch(&words, script)).collect();
    let other = site.sbatch(&["-J", "other", "--dependency=singleton"], "#!/bin/sh\n:\n");
    site.until_state(&other, "COMPLETED");
    fs::write(site.work.join("go"), "").unwrap();
    for number in numbers {
        site.until_state(&number, "COMPLETED");
    }
    assert_eq!(site.read("order"), "begun\nended\n".repeat(3));
}

#[test]
fn a_job_begins_no_sooner_than_it_is_to() {
    let site = Site::new("slurm-begin", 1);
    let number = site.sbatch(&["--begin=now+2"], "#!/bin/sh\n:\n");
    until_true("it waits for its time", || {
        site.call("squeue", &["-h", "-o", "%t %r"]).ok().stdout == "PD BeginTime\n"
    });
    site.until_state(&number, "COMPLETED");
    let job = site.cluster.show(&format!("default-{number}"));
    let at = |name: &str| job[name].as_u64().unwrap();
    assert!(at("begin_ms") - at("submitted_ms") > 1_500, "{job}");
    assert!(at("started_ms") >= at("begin_ms"), "{job}");
}

#[test]
fn times_and_dates_are_those_of_whoever_submits() {
    const DAY_MS: u64 = 86_400_000;
    let site = Site::new("slurm-dates", 1);
    let script = "#!/bin/sh\n#SBATCH --begin=tomorrow\n:\n";
    fs::write(site.work.join("job.sh"), script).unwrap();
    // Midnight of a zone is that of UTC some hours off.
    for (zone, begin, of_day_ms) in [
        ("UTC", "--begin=tomorrow", 0),
        ("EST5", "--begin=tomorrow", 5 * 3_600_000),
        ("XYZ-5:30", "--begin=tomorrow", DAY_MS - 19_800_000),
        ("UTC", "--begin=16:00", 16 * 3_600_000),
        ("UTC", "-b7:30pm", 70_200_000),
    ] {
        let mut command = site.command("sbatch", &["--parsable", begin, "job.sh"]);
        let done = run(command.env("TZ", zone)).ok();
        let job = site.cluster.show(&format!("default-{}", done.stdout.trim()));
        let (begin_ms, now_ms) = (job["begin_ms"].as_u64().unwrap(), job["submitted_ms"].as_u64().unwrap());
        assert_eq!(begin_ms % DAY_MS, of_day_ms, "{zone} {begin}: {job}");
        // A time of the day may be up while this is submitted.
        assert!(begin_ms + 60_000 > now_ms && begin_ms <= now_ms + 2 * DAY_MS, "{zone} {begin}: {job}");
    }
    let done = site.call("sbatch", &["--begin=2020-01-01T08:00", "--wait", "job.sh"]).ok();
    assert!(done.stderr.contains("--begin: 2020-01-01T08:00 is past"), "{done:#?}");
    site.call("sbatch", &["--begin=someday", "job.sh"]).says(3, &["--begin = someday", "16:00"]);
}

#[test]
fn queue_nodes_and_cancel_are_as_slurm_shows_them() {
    let site = Site::new("slurm-lists", 2);
    let wait = "#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.05; done\n";
    assert_eq!(
        site.call("sinfo", &[]).ok().stdout,
        "PARTITION AVAIL  TIMELIMIT  NODES  STATE NODELIST\ndefault*     up   infinite      2   idle n[1-2]\n"
    );
    let array = site.sbatch(&["-J", "wide", "-a", "0-9%3", "-c", "1", "-t", "1:00:00"], wait);
    until_true("three tasks run", || {
        site.call("squeue", &["-h", "-t", "R", "-o", "%i"]).ok().stdout.lines().count() == 3
    });
    let big = site.sbatch(&["-J", "big", "-n", "2", "-N", "2", "--ntasks-per-node=1", "-c", "2"], wait);
    until_true("the scheduler has looked at it", || {
        site.call("squeue", &["-h", "-n", "big", "-o", "%r"]).ok().stdout == "Resources\n"
    });
    let queue = site.call("squeue", &["-o", "%i %P %j %u %t %l %D %C %r"]).ok().stdout;
    let mut lines: Vec<&str> = queue.lines().collect();
    assert_eq!(lines.remove(0), "JOBID PARTITION NAME USER ST TIME_LIMIT NODES CPUS REASON");
    assert_eq!(lines.remove(0), format!("{big} any big ada PD UNLIMITED 2 4 Resources"));
    assert_eq!(lines.remove(0), format!("{array}_[3-9%3] any wide ada PD 1:00:00 1 1 JobArrayTaskLimit"));
    let running: Vec<String> =
        (0..3).map(|index| format!("{array}_{index} any wide ada R 1:00:00 1 1 None")).collect();
    assert_eq!(lines, running);
    let layout = site.call("squeue", &["--me", "-n", "big"]).ok().stdout;
    let layout: Vec<&str> = layout.lines().collect();
    assert_eq!(
        layout[0],
        "             JOBID PARTITION     NAME     USER ST       TIME  NODES NODELIST(REASON)"
    );
    assert_eq!(layout[1], format!("{big:>18}       any      big      ada PD       0:00      2 (Resources)"));
    assert_eq!(site.call("squeue", &["-h", "-u", "nobody"]).ok().stdout, "");

    let nodes = site.call("sinfo", &["-N", "-h", "-o", "%n %t %C"]).ok().stdout;
    let mut states: Vec<&str> = nodes.lines().map(|line| &line[3..]).collect();
    states.sort_unstable();
    assert_eq!(states, ["alloc 2/0/0/2", "mix 1/1/0/2"]);

    // By name, then by id; what has ended is said, what never was is refused.
    site.call("scancel", &["-n", "wide", "-t", "PD"]).ok();
    site.until_state(&array, "RUNNING");
    site.call("scancel", &["-n", "wide"]).ok();
    site.until_state(&array, "CANCELLED");
    site.call("scancel", &[&big, &format!("default-{array}")]).ok();
    site.until_state(&big, "CANCELLED");
    site.call("scancel", &[&format!("{array}_3")]).says(2, &["only whole jobs"]);
    site.call("scancel", &["999"]).says(3, &["999"]);
    site.call("squeue", &["-j", "999"]).says(3, &["999"]);
    assert_eq!(site.call("squeue", &["-h"]).ok().stdout, "");
    let ended = site.call("squeue", &["-h", "-t", "all", "-o", "%A %T", "-j", &big]).ok().stdout;
    assert_eq!(ended, format!("{big} CANCELLED\n"));
    site.call("squeue", &["-o", "%z"]).says(2, &["%z is not covered"]);
    site.call("squeue", &["-t", "XX"]).says(2, &["is no state"]);
}

#[test]
fn a_job_on_two_nodes_runs_its_script_once() {
    let site = Site::new("slurm-wide", 2);
    let script = "#!/bin/sh
#SBATCH -N 2 --ntasks-per-node=2 -o wide.out
echo $SLURM_NNODES $SLURM_NTASKS $SLURM_TASKS_PER_NODE $SLURM_NODEID
echo $SLURM_JOB_NODELIST | tr , '\\n' | sort | tr '\\n' ' '
srun -n 1 sh -c 'echo step $SLURM_NTASKS'
srun hostname 2>&1 | grep -o 'would start 4 tasks'
echo once >> count
exit $1
";
    fs::write(site.work.join("wide.sh"), script).unwrap();
    let done = site.call("sbatch", &["--wait", "wide.sh", "0"]).ok();
    assert!(done.stderr.starts_with("sbatch: warning: the script calls srun: "), "{done:#?}");
    assert_eq!(site.read("wide.out"), "2 4 2(x2) 0\nn1 n2 step 1\nwould start 4 tasks\n");
    // A failure is the script's, not that of the nodes held beside it.
    site.call("sbatch", &["--wait", "wide.sh", "9"]).exit(9);
    assert_eq!(site.read("count"), "once\nonce\n");
    until_true("both nodes are free", || site.call("sinfo", &["-h", "-o", "%t"]).ok().stdout == "idle\n");
}

#[test]
fn a_signal_comes_before_the_limit_to_whom_it_is_meant_for() {
    let site = Site::new("slurm-signal", 1);
    let own = "#!/bin/sh\n#SBATCH -t 0:30 --signal=B:USR1@29 -o own.out\n\
               trap 'echo caught; exit 3' USR1\nwhile :; do sleep 0.05; done\n";
    fs::write(site.work.join("own.sh"), own).unwrap();
    site.call("sbatch", &["--wait", "own.sh"]).exit(3);
    assert_eq!(site.read("own.out"), "caught\n");
    // Without B: what srun started gets it, and the script lives.
    let steps = "#!/bin/sh\n#SBATCH -t 0:30 --signal=USR1@29 -o steps.out\n\
                 srun sh -c 'trap \"echo step; exit 4\" USR1; while :; do sleep 0.05; done'\necho script $?\n";
    fs::write(site.work.join("steps.sh"), steps).unwrap();
    site.call("sbatch", &["--wait", "steps.sh"]).ok();
    assert_eq!(site.read("steps.out"), "step\nscript 4\n");
    // The limit itself.
    site.call("sbatch", &["--wait", "-t", "0:01", "-o", "limit.out", "--wrap", "echo begun; sleep 60"])
        .exit(143);
    assert_eq!(site.read("limit.out"), "begun\n");
}

#[test]
fn what_cannot_run_says_why() {
    let site = Site::new("slurm-slips", 1);
    for (args, script, words) in [
        (&["job.sh"][..], "#!/bin/sh\n#SBATCH -t 2h\n", &["line 2: --time = 2h", "is not a time"][..]),
        (&["--dependency=aftercorr:1", "job.sh"], "#!/bin/sh\n", &["aftercorr", "--array"]),
        (&["-a", "1-3", "--dependency=aftercorr:99", "job.sh"], "#!/bin/sh\n", &["99"]),
        (&["-d", "afterok:99_4", "job.sh"], "#!/bin/sh\n", &["99"]),
        (&["--nosuch", "job.sh"], "#!/bin/sh\n", &["--nosuch", "no such option"]),
        (&["job.sh"], "echo hi\n", &["does not begin with #!"]),
        (&["job.sh"], "#!/bin/sh\r\n", &["line ends of DOS"]),
        (&["-p", "nowhere", "job.sh"], "#!/bin/sh\n", &["nowhere"]),
        (&["-n", "999", "job.sh"], "#!/bin/sh\n", &["cores"]),
        (&["-d", "afterok:99", "job.sh"], "#!/bin/sh\n", &["99"]),
    ] {
        fs::write(site.work.join("job.sh"), script).unwrap();
        site.call("sbatch", args).says(3, words);
    }
    site.call("sbatch", &["absent.sh"]).says(2, &["absent.sh"]);
    assert_eq!(site.cluster.job_ids(), Vec::<String>::new());

    // Where the node lacks what the job needs, the job's log says so.
    for (args, words) in [
        (&["-D", "/no/such/place"][..], "/no/such/place"),
        (&["-o", "no-such-directory/%j.out"], "no-such-directory/"),
        (&["-i", "no-such-input"], "no-such-input"),
    ] {
        let words_of = [&["--wait", "--parsable", "--wrap", "touch ran"], args].concat();
        let done = site.call("sbatch", &words_of).exit(1);
        let log = site.log(done.stdout.trim());
        assert!(log.starts_with("error: ") && log.contains(words), "{log}");
    }
    // A disk that is full: the log still has all, and the job is not well.
    let done =
        site.call("sbatch", &["--wait", "--parsable", "-o", "/dev/full", "--wrap", "echo shown"]).exit(1);
    let log = site.log(done.stdout.trim());
    assert!(log.starts_with("shown\n") && log.contains("/dev/full lacks a part of the output"), "{log}");
    let number = site.sbatch(&[], "#!/no/such/interpreter -x\n");
    site.until_state(&number, "FAILED");
    assert!(site.log(&number).contains("interpreter `/no/such/interpreter -x`"));
    assert!(!site.exists("ran"));
}

#[test]
fn neither_a_straggler_nor_a_large_output_holds_a_script_up() {
    let site = Site::new("slurm-output", 1);
    // The straggler keeps the pipe open past the script's end.
    let script = "#!/bin/sh\n#SBATCH -o big.out\nsleep 600 &\nseq 1 200000\necho last\n";
    let number = site.sbatch(&["--wait"], script);
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).chain(["last\n".to_owned()]).collect();
    assert!(site.read("big.out") == expected, "the file differs");
    assert!(site.log(&number) == expected, "the log differs");
    // Cancelled, a script ends with what it wrote in its file.
    let number = site.sbatch(
        &["-o", "cut.out"],
        "#!/bin/sh\ntrap 'echo told; exit 1' TERM\necho begun\nwhile :; do sleep 0.05; done\n",
    );
    until_true("it has begun", || site.exists("cut.out") && site.read("cut.out") == "begun\n");
    site.call("scancel", &[&number]).ok();
    site.until_state(&number, "CANCELLED");
    until_true("its last words are there", || site.read("cut.out").ends_with("told\n"));
}

#[test]
fn help_is_sbatchs_own() {
    let site = Cluster::bare("slurm-help");
    for words in [&["sbatch", "--help"][..], &["sbatch", "-n", "2", "--help"]] {
        let done = site.call(words).ok();
        assert!(done.stdout.contains("--cpus-per-task") && done.stdout.contains("Examples:"), "{done:#?}");
    }
    let waiting = Running::start(&mut site.command(&["squeue", "--help"]));
    assert!(waiting.wait().ok().stdout.contains("--noheader"));
}
