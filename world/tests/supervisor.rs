//! The supervisor and its client, with real processes.
//!
//! The test program is its own supervisor: started with `supervisor_entry` as
//! the one test to run and the supervisor's arguments after `--`, which the
//! test harness takes for further names of tests.
#![cfg(not(madsim))]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the machine itself is under test")]

#[path = "supervisor/harness.rs"]
mod harness;

use harness::{Node, code, launch, sh, shared, signal};
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command as Program;
use std::time::Instant;
use world::processes::{Command, Limits, Processes as _, Report, Signal};
use world::real::{NodeOptions, NodeProcesses};
use world::time::{ms, timeout};

/// Not a test: the supervisor of the other tests.
#[test]
fn supervisor_entry() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).map(|at| args[at + 1].clone());
    let Some(socket) = value("--socket") else { return };
    let linger_ms = value("--linger-ms").unwrap().parse().unwrap();
    let options = world::real::supervisor::SupervisorOptions { socket: socket.into(), linger_ms };
    if let Err(error) = world::real::supervisor::run(options) {
        eprintln!("supervisor: {error}");
        std::process::exit(1);
    }
    // The harness would wait for its other threads.
    std::process::exit(0);
}

#[tokio::test]
async fn a_program_runs_and_its_end_is_told() {
    let _turn = shared().await;
    let node = Node::start("runs").await;
    let script =
        "echo out; echo err >&2; pwd; echo $NAME; echo ${HOME-unset}; read line || echo no input; exit 3";
    let mut task = node.task("a", &sh(script));
    task.env.push(("NAME".into(), "a value".into()));
    node.send(vec![launch(task)]).await;
    let exit = node.exit("a").await;
    assert_eq!((exit.code, exit.signal, exit.fenced), (3, 0, false));
    let expected = format!("out\n{}\na value\nunset\nno input\n", node.dir.display());
    assert_eq!(node.stdout("a"), expected);
    assert_eq!(node.stderr("a"), "err\n");
    assert_eq!((exit.stdout_bytes, exit.stderr_bytes), (expected.len() as u64, 4));
    // Less than the supervisor itself holds cannot be told from that.
    assert_eq!(exit.max_rss_bytes, 0);
    let hungry = "x=$(head -c 60000000 /dev/zero | tr '\\0' a)";
    node.send(vec![launch(node.task("b", &sh(hungry)))]).await;
    let exit = node.exit("b").await;
    assert!(exit.max_rss_bytes >= 60_000_000 && exit.cpu_ms > 0, "{exit:?}");
}

#[tokio::test]
async fn signals_reach_the_group_and_are_told_as_such() {
    let _turn = shared().await;
    let node = Node::start("signals").await;
    let polite = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 60 & wait $!; done";
    let deaf = "trap '' TERM; echo ready; while :; do sleep 60; done";
    node.send(vec![launch(node.task("polite", &sh(polite))), launch(node.task("deaf", &sh(deaf)))]).await;
    node.wrote("polite", "ready\n").await;
    node.wrote("deaf", "ready\n").await;
    let term = |key: &str| Command::Signal { key: key.into(), signal: Signal::Term };
    node.send(vec![term("polite"), term("deaf"), term("nobody")]).await;
    assert_eq!(code(node.exit("polite").await), 7);
    assert_eq!(node.stdout("polite"), "ready\nbye\n");
    node.send(vec![Command::Signal { key: "deaf".into(), signal: Signal::Kill }]).await;
    assert_eq!(signal(node.exit("deaf").await), 9);
}

#[tokio::test]
async fn a_task_begins_without_the_supervisors_signals() {
    let _turn = shared().await;
    let node = Node::start("mask").await;
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls -l /proc/self/fd | wc -l";
    node.send(vec![launch(node.task("a", &sh(script)))]).await;
    assert_eq!(code(node.exit("a").await), 0);
    let text = node.stdout("a");
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[..2] {
        // Signals from 32 up are the C library's own.
        let mask = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        assert_eq!(mask & 0x7fff_ffff, 0, "{line}");
    }
    // 0, 1, 2, the directory that ls reads, and the line of the total.
    assert_eq!(lines[2], "5");
}

#[tokio::test]
async fn nothing_of_a_group_outlives_its_leader() {
    let _turn = shared().await;
    let node = Node::start("group").await;
    // Two generations in the background, one deaf to TERM, writing on.
    let script = "(trap '' TERM HUP; sh -c 'echo $$ >&2; while :; do echo x; done') & while [ ! -s a.err ]; do :; done; echo $! >&2; exit 0";
    node.send(vec![launch(node.task("a", &sh(script)))]).await;
    let exit = node.exit("a").await;
    assert_eq!((exit.code, exit.signal), (0, 0));
    // The lengths told are final, since nobody is left to write.
    assert_eq!(exit.stdout_bytes, std::fs::metadata(node.dir.join("a.out")).unwrap().len());
    let pids: Vec<i32> = node.stderr("a").lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    for pid in pids {
        assert!(!harness::lives(pid), "process {pid} outlived its group's leader");
    }
}

#[tokio::test]
async fn who_leaves_the_group_is_killed_once_no_task_is_left() {
    let _turn = shared().await;
    let node = Node::start("strays").await;
    let script = "setsid sh -c 'echo $$; exec sleep 600' & while [ ! -s a.out ]; do sleep 0.01; done";
    node.send(vec![launch(node.task("a", &sh(script)))]).await;
    assert_eq!(code(node.exit("a").await), 0);
    let pid = node.stdout("a").trim().parse().unwrap();
    harness::until("the stray is gone", || !harness::lives(pid)).await;
    harness::until("it is no zombie", || node.children().is_empty()).await;
}

#[tokio::test]
async fn a_killed_agent_finds_its_processes_again() {
    let _turn = shared().await;
    let mut node = Node::start("again").await;
    let wait = "while [ ! -e go ]; do sleep 0.01; done; exit 5";
    let mut task = node.task("k/1", &sh(wait));
    task.context = b"what the agent knew".to_vec();
    node.send(vec![launch(task), launch(node.task("k/2", &sh("exit 6")))]).await;
    let pid = node.started("k/1").await;
    assert_eq!(code(node.exit("k/2").await), 6);
    // As the kernel does for an agent killed with -9: its socket is closed.
    node.reconnect().await;
    std::fs::write(node.dir.join("go"), "").unwrap();
    let records = node.processes().list().await.unwrap();
    let keys: Vec<&str> = records.iter().map(|record| record.key.as_str()).collect();
    assert_eq!(keys, ["k/1", "k/2"]);
    assert_eq!(records[0].context, b"what the agent knew");
    assert_eq!(records[0].pid, pid);
    assert_eq!(records[1].exit.unwrap().code, 6);
    assert_eq!(code(node.exit("k/1").await), 5, "an end after the reconnect");
    assert_eq!(code(node.exit("k/2").await), 6, "an end told again");
    node.send(vec![Command::Forget { key: "k/1".into() }, Command::Forget { key: "k/2".into() }]).await;
    assert_eq!(node.processes().list().await.unwrap(), []);
    // A forgotten key is free.
    node.send(vec![launch(node.task("k/2", &sh("exit 8")))]).await;
    assert_eq!(code(node.exit("k/2").await), 8);
}

#[tokio::test]
async fn commands_of_an_agent_that_dies_at_once_are_done() {
    let _turn = shared().await;
    let mut node = Node::start("farewell").await;
    let tasks = (0..100).map(|n| launch(node.task(&format!("{n:03}"), &sh("exit 0"))));
    node.send(tasks.collect()).await;
    node.reconnect().await;
    assert_eq!(node.processes().list().await.unwrap().len(), 100);
    for n in 0..100 {
        assert_eq!(code(node.exit(&format!("{n:03}")).await), 0);
    }
}

#[tokio::test]
async fn a_broken_connection_to_a_living_supervisor_loses_no_end() {
    const COUNT: usize = 200;
    let _turn = shared().await;
    let mut node = Node::start("broken").await;
    // Between the two stands one that cuts, and loses what it has in hand.
    let mut middle = harness::Middle::start(node.dir.join("middle.sock"), node.options.socket.clone());
    node.options.socket.clone_from(&middle.path);
    node.reconnect().await;
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let (mut sent, mut failed, mut seen) = (0, 0, 0);
    while seen < COUNT {
        while sent < COUNT && sent - seen < 10 {
            node.send(vec![launch(node.task(&format!("{sent:03}"), &sh("exit 3")))]).await;
            sent += 1;
            if sent % 20 == 0 {
                middle.cut();
            }
        }
        for report in timeout(ms(30_000), node.processes().next()).await.expect("each launch has an end") {
            let key = match report {
                Report::Exited { key, exit } => {
                    assert_eq!(code(exit), 3);
                    key
                }
                Report::LaunchFailed { key, error } => {
                    assert!(error.contains("lost with the connection"), "{error}");
                    failed += 1;
                    key
                }
                Report::Started { .. } => continue,
                Report::SupervisorLost => panic!("it lives"),
            };
            let count = ends.entry(key).or_default();
            *count += 1;
            seen += usize::from(*count == 1);
        }
    }
    println!("{failed} of {COUNT} launches were lost in the middle; {} connections", middle.connections());
    assert!(middle.connections() > 2, "it was cut");
    let records = node.processes().list().await.unwrap();
    assert_eq!(records.len() + failed, COUNT, "what was told to have failed never ran, all else did");
    // For the end of the test.
    node.options.socket.clone_from(&middle.target);
}

#[tokio::test]
async fn a_second_agent_takes_the_place_of_the_first() {
    let _turn = shared().await;
    let mut node = Node::start("second").await;
    node.send(vec![launch(node.task("a", &sh("exit 4")))]).await;
    let first = node.second().await;
    let lost = async { while !first.next().await.contains(&Report::SupervisorLost) {} };
    timeout(ms(10_000), lost).await.unwrap();
    let error = first.send(vec![Command::KeepAlive { for_ms: 1 }]).await.unwrap_err();
    assert!(error.0.contains("another agent"), "{error}");
    assert!(first.list().await.is_err());
    assert_eq!(code(node.exit("a").await), 4);
}

#[tokio::test]
async fn forgetting_a_running_process_kills_it() {
    let _turn = shared().await;
    let node = Node::start("forget").await;
    node.send(vec![launch(node.task("a", &sh("sleep 600")))]).await;
    let pid = node.started("a").await;
    node.send(vec![Command::Forget { key: "a".into() }]).await;
    harness::until("it is gone", || !harness::lives(pid.try_into().unwrap())).await;
    // Listed as long as it died, then no more.
    let gone = async { while !node.processes().list().await.unwrap().is_empty() {} };
    timeout(ms(10_000), gone).await.unwrap();
}

#[tokio::test]
async fn memory_and_descriptors_are_limited() {
    let _turn = shared().await;
    let node = Node::start("limits").await;
    let hungry = "x=$(head -c 300000000 /dev/zero | tr '\\0' a); echo ${#x}";
    let modest = "x=$(head -c 3000000 /dev/zero | tr '\\0' a); echo ${#x}; ulimit -d; ulimit -n";
    let limits = Limits { memory_bytes: 64 << 20, open_files: 100 };
    let mut tasks = vec![node.task("hungry", &sh(hungry)), node.task("modest", &sh(modest))];
    tasks.iter_mut().for_each(|task| task.limits = limits);
    tasks.push(node.task("free", &sh("ulimit -d")));
    node.send(tasks.into_iter().map(launch).collect()).await;
    let exit = node.exit("hungry").await;
    assert!(exit.code != 0 || exit.signal != 0, "{exit:?}");
    assert_eq!(node.stdout("hungry"), "");
    assert_eq!(code(node.exit("modest").await), 0, "{}", node.stderr("modest"));
    assert_eq!(node.stdout("modest"), "3000000\n65536\n100\n");
    assert_eq!(code(node.exit("free").await), 0);
    assert_eq!(node.stdout("free"), "unlimited\n", "the supervisor's own limit is as it was");
}

#[tokio::test]
async fn a_limit_below_the_supervisors_own_memory_does_it_no_harm() {
    let _turn = shared().await;
    let node = Node::start("tiny").await;
    let mut commands = Vec::new();
    for n in 0..40 {
        let mut task = node.task(&format!("{n:02}"), &sh("until [ $(ulimit -d) = 4096 ]; do :; done"));
        task.context = vec![7; 1 << 20];
        task.limits.memory_bytes = 4 << 20;
        commands.push(launch(task));
    }
    node.send(commands).await;
    for n in 0..40 {
        let key = format!("{n:02}");
        assert_eq!(code(node.exit(&key).await), 0, "{}", node.stderr(&key));
    }
    let records = node.processes().list().await.unwrap();
    assert!(records.iter().all(|record| record.context == vec![7; 1 << 20]), "long listings come whole");
    assert_eq!(records.len(), 40);
}

#[tokio::test]
async fn a_launch_that_fails_says_why_in_a_line() {
    let _turn = shared().await;
    let node = Node::start("fails").await;
    std::fs::write(node.dir.join("plain"), "no program").unwrap();
    let case =
        |key: &str, argv: &[&str]| node.task(key, &argv.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
    let mut cases = vec![
        (case("1", &["no-such-program"]), "program `no-such-program` not found in /usr/bin:/bin"),
        (case("2", &["/no/such/program"]), "program `/no/such/program` not found"),
        (case("3", &["./plain"]), "may not be executed"),
        (case("4", &[]), "there is no program to run"),
        (case("5", &["true"]), "its working directory /no/such/place is missing"),
        (case("6", &["true"]), "cannot be opened: its directory is missing"),
        (case("7", &["true", &"x".repeat(1 << 20)]), "are too long"),
    ];
    cases[4].0.cwd = "/no/such/place".into();
    cases[5].0.stdout = "/no/such/place/out".into();
    node.send(cases.iter().map(|(task, _)| launch(task.clone())).collect()).await;
    for (task, expected) in cases {
        let error = node.failure(&task.key).await;
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    assert_eq!(node.processes().list().await.unwrap(), [], "what never ran leaves no record");
    node.send(vec![launch(node.task("twice", &sh("exit 0"))), launch(node.task("twice", &sh("exit 0")))])
        .await;
    assert!(node.failure("twice").await.contains("known already"));
}

#[tokio::test]
async fn programs_are_looked_up_in_the_tasks_path() {
    let _turn = shared().await;
    let node = Node::start("path").await;
    harness::script(&node.dir.join("bin/hello"), "#!/bin/sh\necho \"hello from $0\"\n");
    let mut by_path = node.task("1", &["hello".to_owned()]);
    by_path.env = vec![("PATH".into(), format!("/nowhere:{}/bin", node.dir.display()))];
    let mut by_default = node.task("2", &["sh".into(), "-c".into(), "echo $0".into()]);
    by_default.env = Vec::new();
    let relative = node.task("3", &["bin/hello".to_owned()]);
    node.send(vec![launch(by_path), launch(by_default), launch(relative)]).await;
    for key in ["1", "2", "3"] {
        assert_eq!(code(node.exit(key).await), 0, "{}", node.stderr(key));
    }
    assert_eq!(node.stdout("1"), format!("hello from {}/bin/hello\n", node.dir.display()));
    assert_eq!(node.stdout("2"), "sh\n");
}

#[tokio::test]
async fn the_dead_mans_switch_strikes_unless_wound() {
    let _turn = shared().await;
    let node = Node::start("switch").await;
    let sleeper = |key: &str| launch(node.task(key, &sh("trap '' TERM; sleep 600 & wait")));
    let begun = Instant::now();
    node.send(vec![Command::KeepAlive { for_ms: 60_000 }, sleeper("a"), sleeper("b")]).await;
    node.started("a").await;
    node.send(vec![Command::KeepAlive { for_ms: 400 }]).await;
    for key in ["a", "b"] {
        let exit = node.exit(key).await;
        assert_eq!((exit.signal, exit.fenced), (9, true));
    }
    assert!(begun.elapsed() >= ms(400));
    // Until it is wound again, a launch counts as struck.
    node.send(vec![sleeper("c")]).await;
    let exit = node.exit("c").await;
    assert_eq!((exit.signal, exit.fenced, exit.wall_ms), (9, true, 0));
    node.send(vec![Command::KeepAlive { for_ms: 60_000 }, launch(node.task("d", &sh("exit 2")))]).await;
    let exit = node.exit("d").await;
    assert_eq!((exit.code, exit.fenced), (2, false));
}

#[tokio::test]
async fn the_switch_strikes_without_an_agent() {
    let _turn = shared().await;
    let mut node = Node::start("alone").await;
    node.send(vec![launch(node.task("a", &sh("sleep 600"))), Command::KeepAlive { for_ms: 300 }]).await;
    let pid = node.started("a").await;
    node.disconnect();
    harness::until("it is killed", || !harness::lives(pid.try_into().unwrap())).await;
    node.reconnect().await;
    let exit = node.exit("a").await;
    assert_eq!((exit.signal, exit.fenced), (9, true));
}

#[tokio::test]
async fn told_to_end_it_takes_all_along() {
    let _turn = shared().await;
    let node = Node::start("term").await;
    node.send(vec![launch(node.task("a", &sh("trap '' TERM; sleep 600 & echo $!; wait")))]).await;
    let pid: i32 = node.started("a").await.try_into().unwrap();
    node.wrote("a", "\n").await;
    let child: i32 = node.stdout("a").trim().parse().unwrap();
    harness::kill(node.supervisor(), "TERM");
    node.lost().await;
    assert!(!harness::lives(pid) && !harness::lives(child));
    // Another stands in its place by itself, and the node goes on.
    harness::until_async("another supervisor", || async { node.processes().list().await.is_ok() }).await;
    node.send(vec![launch(node.task("b", &sh("exit 1")))]).await;
    assert_eq!(code(node.exit("b").await), 1);
}

#[tokio::test]
async fn what_a_killed_supervisor_leaves_is_killed() {
    let _turn = shared().await;
    let node = Node::start("murder").await;
    node.send(vec![launch(node.task("a", &sh("sleep 600")))]).await;
    let pid: i32 = node.started("a").await.try_into().unwrap();
    harness::kill(node.supervisor(), "KILL");
    node.lost().await;
    harness::until("it is killed", || !harness::lives(pid)).await;
    harness::until_async("another supervisor", || async { node.processes().list().await.is_ok() }).await;
    node.send(vec![launch(node.task("a", &sh("exit 1")))]).await;
    assert_eq!(code(node.exit("a").await), 1);
}

#[tokio::test]
async fn it_lingers_as_long_as_told() {
    let _turn = shared().await;
    let mut node = Node::lingering("lingers", 300).await;
    node.send(vec![launch(node.task("a", &sh("sleep 600")))]).await;
    let pid: i32 = node.started("a").await.try_into().unwrap();
    let supervisor = node.supervisor();
    node.disconnect();
    harness::until("both are gone", || !harness::lives(pid) && !harness::lives(supervisor)).await;
    assert!(!node.options.socket.exists());
}

#[tokio::test]
async fn let_go_it_ends_once_it_holds_nothing() {
    let _turn = shared().await;
    let mut node = Node::start("retires").await;
    let supervisor = node.supervisor();
    node.send(vec![launch(node.task("a", &sh("sleep 600"))), Command::Retire]).await;
    let pid: i32 = node.started("a").await.try_into().unwrap();
    // Its client is there, then gone with a task left: either way it stays.
    node.disconnect();
    node.reconnect().await;
    assert_eq!(node.supervisor(), supervisor);
    // The next agent's hello took it back: with nothing held, it waits for another.
    node.send(vec![Command::Forget { key: "a".into() }]).await;
    harness::until("it is killed", || !harness::lives(pid)).await;
    node.disconnect();
    node.reconnect().await;
    assert_eq!(node.supervisor(), supervisor);
    // Let go with a task that is on its way out.
    node.send(vec![launch(node.task("b", &sh("sleep 600")))]).await;
    let pid: i32 = node.started("b").await.try_into().unwrap();
    node.send(vec![Command::Forget { key: "b".into() }, Command::Retire]).await;
    node.disconnect();
    harness::until("both are gone", || !harness::lives(pid) && !harness::lives(supervisor)).await;
    assert!(!node.options.socket.exists());
}

#[tokio::test]
async fn interrupts_and_hangups_pass_it_by() {
    let _turn = shared().await;
    let node = Node::start("ctrl-c").await;
    for name in ["INT", "HUP", "INT"] {
        harness::kill(node.supervisor(), name);
    }
    node.send(vec![launch(node.task("a", &sh("exit 9")))]).await;
    assert_eq!(code(node.exit("a").await), 9);
    let session = std::fs::read_to_string(format!("/proc/{}/stat", node.supervisor())).unwrap();
    let session = session.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(session, node.supervisor().to_string(), "it leads a session of its own");
}

#[tokio::test]
async fn a_stale_socket_and_a_long_path_are_no_obstacles() {
    let _turn = shared().await;
    let root = harness::fresh_dir("stale");
    let dir = root.join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&dir).unwrap();
    let socket = dir.join("supervisor.sock");
    std::fs::write(&socket, "left by another").unwrap();
    let node = Node::at(dir, socket, 60_000).await;
    node.send(vec![launch(node.task("a", &sh("exit 1")))]).await;
    assert_eq!(code(node.exit("a").await), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&node.options.socket).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    drop(node);
    std::fs::remove_dir_all(root).unwrap();
}

#[tokio::test]
async fn a_supervisor_that_cannot_be_started_is_said_so() {
    let dir = harness::fresh_dir("unreachable");
    let socket = dir.join("supervisor.sock");
    let absent =
        NodeOptions { socket: socket.clone(), exe: "/no/such/program".into(), args: vec![], linger_ms: 0 };
    let error = NodeProcesses::start(absent).await.unwrap_err();
    assert!(error.0.contains("/no/such/program cannot be started"), "{error}");
    let long = dir.join("n".repeat(90)).join("s".repeat(90));
    let long = NodeOptions { socket: long, exe: PathBuf::from("/bin/true"), args: vec![], linger_ms: 0 };
    let error = NodeProcesses::start(long).await.unwrap_err();
    assert!(error.0.contains("longer than 64 bytes"), "{error}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn garbage_on_the_socket_disturbs_nobody() {
    use std::io::{Read as _, Write as _};
    let _turn = shared().await;
    let node = Node::start("garbage").await;
    for garbage in [&b"\xff\xff\xff\xff"[..], b"\x05\0\0\0hello", b"GET / HTTP/1.1\r\n\r\n", b""] {
        let mut stream = UnixStream::connect(&node.options.socket).unwrap();
        stream.set_read_timeout(Some(ms(10_000))).unwrap();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"");
    }
    node.send(vec![launch(node.task("a", &sh("exit 1")))]).await;
    assert_eq!(code(node.exit("a").await), 1);
}

/// Prints what the launching costs; asserts only that nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn thousands_of_launches() {
    const COUNT: usize = 2_000;
    let _turn = harness::alone().await;
    let node = Node::start("thousands").await;
    let task = |n: usize| launch(node.task(&format!("{n:05}"), &["/bin/true".to_owned()]));

    let mut best: BTreeMap<&str, f64> = BTreeMap::new();
    for round in 0..2 {
        let plain = harness::plain_rate(COUNT);
        for (name, window) in [("all at once", COUNT), ("8 at a time", 8), ("2 at a time", 2)] {
            let begun = Instant::now();
            let first = (0..window).map(task).collect();
            node.send(first).await;
            let (mut sent, mut ended) = (window, 0);
            while ended < COUNT {
                let reports = timeout(ms(60_000), node.processes().next()).await.expect("all arrive");
                let mut commands = Vec::new();
                for report in reports {
                    match report {
                        Report::Exited { key, exit } => {
                            assert_eq!((exit.code, exit.signal), (0, 0));
                            commands.push(Command::Forget { key });
                            ended += 1;
                            if sent < COUNT {
                                commands.push(task(sent));
                                sent += 1;
                            }
                        }
                        Report::Started { .. } => {}
                        other => panic!("{other:?}"),
                    }
                }
                if !commands.is_empty() {
                    node.send(commands).await;
                }
            }
            let rate = COUNT as f64 / begun.elapsed().as_secs_f64();
            println!(
                "round {round}, {name}: {rate:.0}/s, {:.2} of a plain 2-way loop ({plain:.0}/s)",
                rate / plain
            );
            let ratio = best.entry(name).or_default();
            *ratio = ratio.max(rate / plain);
        }
    }
    println!("best ratios: {best:.2?}");
    assert_eq!(node.processes().list().await.unwrap(), []);
}

#[test]
fn the_harness_can_kill() {
    let mut child = Program::new("sleep").arg("600").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    assert!(harness::lives(pid));
    harness::kill(pid, "KILL");
    child.wait().unwrap();
    assert!(!harness::lives(pid));
}
