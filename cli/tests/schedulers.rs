//! Schedulers in processes of their own, beside the server's.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Cluster, Running, drumline, history, run, until_true};

fn token(cluster: &Cluster, role: &str) -> String {
    let made = cluster.call(&["tokens", "create", role, "--role", role, "-o", "json"]).ok().json();
    made["token"].as_str().unwrap().to_owned()
}

fn start(cluster: &Cluster, token: &str, name: &str) -> Running {
    let scheduler = Running::start(drumline().args(["scheduler", "--name", name]).args([
        "--server",
        &cluster.server.address,
        "--token",
        token,
    ]));
    until_true("the scheduler follows", || scheduler.stdout().contains("works for"));
    scheduler
}

fn metric(cluster: &Cluster, name: &str) -> u64 {
    let page = cluster.server.get("/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{page}"));
    line.trim().parse().unwrap()
}

#[test]
fn schedulers_share_the_work_and_may_die_in_the_midst_of_it() {
    let mut cluster = Cluster::new("schedulers", 3, "2");
    let bearer = token(&cluster, "scheduler");
    let (one, two) = (start(&cluster, &bearer, "one"), start(&cluster, &bearer, "two"));
    until_true("both follow", || metric(&cluster, "drumline_schedulers_following") == 2);

    let submit = |cluster: &Cluster, step: &str| {
        cluster.submit(&["--array", "1-40", "--cores", "1", "--", "sh", "-c", &format!("sleep 0.0{step}")])
    };
    let mut jobs: Vec<String> = (1..6).map(|step| submit(&cluster, &step.to_string())).collect();
    kill(Pid::from_raw(one.pid()), Signal::SIGKILL).unwrap();
    jobs.extend((1..6).map(|step| submit(&cluster, &step.to_string())));
    // What the server had told is nothing to the next one, which tells anew.
    cluster.server.kill();
    cluster.server.restart();
    jobs.extend((1..6).map(|step| submit(&cluster, &step.to_string())));
    for job in &jobs {
        cluster.until_state(job, "COMPLETED");
    }
    until_true("the other one found the server again", || {
        metric(&cluster, "drumline_schedulers_following") == 1
    });
    let events = cluster.all_events();
    history::check_gapless(&events);
    // It decides as the server's own does; who is first is a race.
    let proposed = || {
        ["committed", "conflict"]
            .map(|outcome| {
                format!(r#"drumline_scheduler_proposals_total{{scheduler="elsewhere",outcome="{outcome}"}}"#)
            })
            .map(|name| metric(&cluster, &name))
            .iter()
            .sum::<u64>()
    };
    until_true("the other one proposes", || {
        let job = submit(&cluster, "1");
        cluster.until_state(&job, "COMPLETED");
        proposed() > 0
    });

    kill(Pid::from_raw(two.pid()), Signal::SIGTERM).unwrap();
    assert!(two.wait().ok().stderr.contains(" were taken, "));
    until_true("nobody follows", || metric(&cluster, "drumline_schedulers_following") == 0);
}

#[test]
fn what_is_wrong_is_said_at_once() {
    let cluster = Cluster::bare("schedulers-refused");
    let with = |server: &str, token: &str| {
        run(drumline().args(["scheduler", "--name", "s", "--server", server, "--token", token]))
    };
    let agents = token(&cluster, "agent");
    with(&cluster.server.address, &agents).says(3, &["role", "agent", "denied.role"]);
    with(&cluster.server.address, "dl_00").says(3, &["not known"]);
    with("127.0.0.1:1", &agents).says(4, &["127.0.0.1:1"]);
    let config = cluster.dir.file("scheduler.toml", "nmae = \"s\"\n");
    run(drumline().args(["scheduler", "--config", &config])).says(2, &["nmae"]);

    // Its token is good for nothing else.
    let bearer = token(&cluster, "scheduler");
    let (server, bearer) = (cluster.server.address.as_str(), bearer.as_str());
    let flags = ["--server", server, "--token", bearer];
    run(drumline().args(["submit"]).args(flags).args(["--", "true"])).says(3, &["denied.role"]);
    run(drumline().args(["ls"]).args(flags)).says(3, &["denied.role"]);
}
