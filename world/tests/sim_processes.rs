//! Simulated processes behave as the supervisor's do.

use std::{future::Future, sync::Arc};
use world::disk::{OpenMode, read_all};
use world::processes::{Command, Exit, Launch, Limits, Processes, Report, Signal};
use world::sim::{ClockHandle, HostileDisk, ProcessFaults, SimProcesses, SkewedClock};
use world::time::{Instant, ms, timeout};

#[cfg(not(madsim))]
fn run<F: Future>(story: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(story)
}

#[cfg(madsim)]
fn run<F: Future>(story: F) -> F::Output {
    madsim::runtime::Runtime::new().block_on(story)
}

const ALWAYS: u32 = 1_000_000;

struct Node {
    disk: Arc<HostileDisk>,
    clock: ClockHandle,
    processes: Arc<SimProcesses>,
    agent: Arc<dyn Processes>,
}

impl Node {
    fn new() -> Self {
        let disk = Arc::new(HostileDisk::new(1));
        disk.handle().create_dir_all("work").unwrap();
        let (clock, handle) = SkewedClock::pair(1_767_225_600_000);
        let processes = Arc::new(SimProcesses::new("n", Arc::clone(&disk), clock, 7, Instant::now()));
        world::task::spawn(Arc::clone(&processes).drive());
        let agent = processes.agent_handle();
        Self { disk, clock: handle, processes, agent }
    }

    fn faulty(faults: ProcessFaults) -> Self {
        let node = Self::new();
        node.processes.set_faults(faults);
        node
    }

    async fn launch(&self, key: &str, words: &str) {
        self.launch_as(key, words, 1).await;
    }

    async fn launch_as(&self, key: &str, words: &str, attempt: u32) {
        let disk = self.disk.handle();
        let launch = Launch {
            key: key.into(),
            argv: words.split(' ').map(str::to_owned).collect(),
            env: vec![("DRUMLINE_ATTEMPT".into(), attempt.to_string())],
            cwd: disk.absolute("work"),
            stdout: disk.absolute(&format!("{key}.out")),
            stderr: disk.absolute(&format!("{key}.err")),
            limits: Limits { memory_bytes: 1 << 30, open_files: 0 },
            context: key.as_bytes().to_vec(),
        };
        self.agent.send(vec![Command::Launch(Box::new(launch))]).await.unwrap();
    }

    /// All reports up to the first that `wanted` accepts.
    async fn until(&self, wanted: impl Fn(&Report) -> bool) -> Vec<Report> {
        let mut seen = Vec::new();
        let waiting = async {
            while !seen.iter().any(&wanted) {
                seen.extend(self.agent.next().await);
            }
        };
        assert!(timeout(ms(20_000), waiting).await.is_ok(), "it was never told");
        seen
    }

    async fn exit(&self, wanted: &str) -> Exit {
        let is = |report: &Report| matches!(report, Report::Exited { key, .. } if key == wanted);
        match self.until(is).await.into_iter().find(is) {
            Some(Report::Exited { exit, .. }) => exit,
            _ => unreachable!("it was just seen"),
        }
    }

    async fn failure(&self, wanted: &str) -> String {
        let is = |report: &Report| matches!(report, Report::LaunchFailed { key, .. } if key == wanted);
        match self.until(is).await.into_iter().find(is) {
            Some(Report::LaunchFailed { error, .. }) => error,
            _ => unreachable!("it was just seen"),
        }
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8(read_all(&*self.disk.handle(), path, 1 << 20).unwrap()).unwrap()
    }
}

#[test]
fn a_script_is_played() {
    run(async {
        let node = Node::new();
        node.launch("a", "sim ms=30 log=3 out=result:100").await;
        let exit = node.exit("a").await;
        assert_eq!((exit.code, exit.signal, exit.wall_ms), (0, 0, 30));
        assert_eq!(node.text("a.out"), "line 0 of a\nline 1 of a\nline 2 of a\n");
        assert_eq!(exit.stdout_bytes, 36);
        assert_eq!(node.disk.handle().entry("work/result").unwrap().len, 100);
        node.launch("b", "sim ms=1 code=3").await;
        assert_eq!(node.exit("b").await.code, 3);
        node.launch("c", "sim ms=1 signal=11").await;
        assert_eq!(node.exit("c").await.signal, 11);
        for (attempt, code) in [(1, 1), (2, 1), (3, 0)] {
            let key = format!("d{attempt}");
            node.launch_as(&key, "sim ms=1 fail_first=2", attempt).await;
            assert_eq!(node.exit(&key).await.code, code);
        }
        node.launch("e", "python3 train.py").await;
        assert!(node.failure("e").await.contains("not found"));
        node.launch("b", "sim ms=1").await;
        assert!(node.failure("b").await.contains("known already"));
    });
}

#[test]
fn processes_outlive_their_agent_and_not_their_machine() {
    run(async {
        let mut node = Node::new();
        node.launch("ended", "sim ms=1 code=5").await;
        node.launch("runs", "sim ms=60 log=2").await;
        node.exit("ended").await;
        // kill -9 of the agent: its disk handles are stale, its door is shut.
        let old = Arc::clone(&node.agent);
        node.disk.fence();
        node.agent = node.processes.agent_handle();
        assert!(old.list().await.is_err());
        let records = node.agent.list().await.unwrap();
        let known: Vec<_> =
            records.iter().map(|r| (&*r.key, &*r.context, r.exit.map(|exit| exit.code))).collect();
        assert_eq!(known, [("ended", &b"ended"[..], Some(5)), ("runs", &b"runs"[..], None)]);
        assert_eq!(node.exit("ended").await.code, 5, "an end told again");
        assert_eq!(node.exit("runs").await.code, 0);
        assert_eq!(node.text("runs.out"), "line 0 of runs\nline 1 of runs\n");
        node.agent.send(vec![Command::Forget { key: "runs".into() }]).await.unwrap();
        assert_eq!(node.agent.list().await.unwrap().len(), 1);

        node.launch("victim", "sim hang").await;
        node.until(|report| matches!(report, Report::Started { .. })).await;
        node.processes.crash();
        node.agent = node.processes.agent_handle();
        assert_eq!(node.agent.list().await.unwrap(), []);
        let history = node.processes.history();
        assert_eq!(history.iter().map(|span| &*span.key).collect::<Vec<_>>(), ["ended", "runs", "victim"]);
        assert!(history.iter().all(|span| span.ended_ms.is_some()));
    });
}

#[test]
fn signals_end_what_heeds_them() {
    run(async {
        let node = Node::new();
        let signal = |signal| async move { vec![Command::Signal { key: "a".into(), signal }] };
        node.launch("a", "sim hang").await;
        node.agent.send(signal(Signal::Term).await).await.unwrap();
        assert_eq!(node.exit("a").await.signal, 15);

        let node = Node::faulty(ProcessFaults { deaf_ppm: ALWAYS, ..ProcessFaults::default() });
        node.launch("a", "sim hang").await;
        node.agent.send(signal(Signal::Term).await).await.unwrap();
        node.agent.send(signal(Signal::Kill).await).await.unwrap();
        assert_eq!(node.exit("a").await.signal, 9);
        assert_eq!(node.processes.counts().deaf, 1);
    });
}

#[test]
fn the_dead_mans_switch_goes_by_the_nodes_clock() {
    run(async {
        let node = Node::new();
        let begun = Instant::now();
        node.agent.send(vec![Command::KeepAlive { for_ms: 100_000 }]).await.unwrap();
        node.launch("a", "sim hang").await;
        node.until(|report| matches!(report, Report::Started { .. })).await;
        // The machine slept.
        node.clock.jump_monotonic_ms(99_900);
        let exit = node.exit("a").await;
        assert_eq!((exit.signal, exit.fenced), (9, true));
        assert!(begun.elapsed() >= ms(100) && begun.elapsed() < ms(10_000));
        // Struck until wound again: nothing is launched.
        node.launch("b", "sim hang").await;
        assert!(node.exit("b").await.fenced);
        node.agent.send(vec![Command::KeepAlive { for_ms: 100_000 }]).await.unwrap();
        node.launch("c", "sim ms=1").await;
        assert!(!node.exit("c").await.fenced);
        assert!(!node.processes.history().iter().any(|span| span.key == "b"));
        assert_eq!(node.processes.counts().fenced, 1);
    });
}

#[test]
fn each_fault_fires_and_is_counted() {
    run(async {
        let none = ProcessFaults::default();
        let node = Node::faulty(ProcessFaults { launch_ppm: ALWAYS, ..none });
        node.launch("a", "sim ms=1").await;
        node.failure("a").await;
        assert_eq!(node.processes.counts().launch_failures, 1);

        let node = Node::faulty(ProcessFaults { kill_ppm: ALWAYS, ..none });
        node.launch("a", "sim ms=10").await;
        assert_eq!(node.exit("a").await.signal, 9);
        assert_eq!(node.processes.counts().killed, 1);

        let node = Node::faulty(ProcessFaults { oom_ppm: ALWAYS, ..none });
        node.launch("a", "sim ms=10").await;
        let exit = node.exit("a").await;
        assert_eq!((exit.signal, exit.max_rss_bytes), (9, 1 << 30));

        let node = Node::faulty(ProcessFaults { code_ppm: ALWAYS, ..none });
        node.launch("a", "sim ms=1").await;
        assert_eq!(node.exit("a").await.code, 70);

        let node = Node::faulty(ProcessFaults { no_output_ppm: ALWAYS, ..none });
        node.launch("a", "sim ms=1 out=result:5").await;
        assert_eq!(node.exit("a").await.code, 0);
        assert!(node.disk.handle().open("work/result", OpenMode::Read).is_err());

        let node = Node::faulty(ProcessFaults { hang_ppm: ALWAYS, ..none });
        node.launch("a", "sim ms=1").await;
        node.agent.send(vec![Command::Signal { key: "a".into(), signal: Signal::Kill }]).await.unwrap();
        assert_eq!(node.exit("a").await.signal, 9);
        assert_eq!(node.processes.counts().hung, 1);

        let node = Node::faulty(ProcessFaults { slow_ppm: ALWAYS, slow_ms: 50, ..none });
        node.launch("a", "sim ms=5").await;
        node.agent.send(vec![Command::Signal { key: "a".into(), signal: Signal::Kill }]).await.unwrap();
        let reports = node.until(|report| matches!(report, Report::Exited { .. })).await;
        assert!(matches!(reports[0], Report::Started { .. }), "it starts before it ends");
        assert_eq!(node.processes.counts().slow, 1);
    });
}

#[test]
fn a_lost_supervisor_takes_all_along() {
    run(async {
        let node = Node::new();
        node.launch("a", "sim hang").await;
        node.until(|report| matches!(report, Report::Started { .. })).await;
        node.processes.lose_supervisor();
        node.until(|report| *report == Report::SupervisorLost).await;
        assert_eq!(node.agent.list().await.unwrap(), []);
        node.launch("a", "sim ms=1").await;
        assert_eq!(node.exit("a").await.code, 0);
    });
}
