//! Processes of a few words: `true`, `hold TEXT` (writes it and runs until it
//! is ended), `cat A B TO`, `scribble A` (takes the seal off and writes into it).

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use world::disk::{Disk, OpenMode, read_all};
use world::processes::{Command, Exit, Launch, Processes, Record, Report, Unreachable};
use world::sync::mpsc;

#[derive(Debug)]
pub struct FakeProcesses {
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
    told: mpsc::UnboundedSender<Report>,
    reports: world::sync::Mutex<mpsc::UnboundedReceiver<Report>>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<String, Record>,
    running_max: usize,
    forgotten: usize,
}

impl FakeProcesses {
    pub fn new(disk: Arc<dyn Disk>) -> Arc<Self> {
        let (told, reports) = mpsc::unbounded_channel();
        Arc::new(Self { disk, state: Mutex::default(), told, reports: world::sync::Mutex::new(reports) })
    }

    pub fn running_max(&self) -> usize {
        self.state.lock().unwrap().running_max
    }

    pub fn forgotten(&self) -> usize {
        self.state.lock().unwrap().forgotten
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.disk.absolute("")).unwrap().to_str().unwrap().to_owned()
    }

    fn write(&self, path: &str, data: &[u8]) {
        let file = self.disk.open(path, OpenMode::CreateOrWrite).unwrap();
        file.set_len(0).unwrap();
        file.write_at(0, data).unwrap();
    }

    /// Runs a launch as far as it goes; its end, if it has one.
    fn run(&self, launch: &Launch) -> Option<Exit> {
        let cwd = self.relative(&launch.cwd);
        let words: Vec<&str> = launch.argv.iter().map(String::as_str).collect();
        let mut said = String::new();
        match words[..] {
            ["cat", first, second, to] => {
                let mut data = Vec::new();
                for from in [first, second] {
                    data.extend(read_all(&*self.disk, &format!("{cwd}/{from}"), 1 << 20).unwrap());
                }
                self.write(&format!("{cwd}/{to}"), &data);
                said = format!("wrote {to}\n");
            }
            ["scribble", path] => {
                let path = format!("{cwd}/{path}");
                self.disk.set_mode(&path, 0o644).unwrap();
                self.disk.open(&path, OpenMode::Write).unwrap().write_at(0, b"XXXX").unwrap();
            }
            ["hold", text] => said = text.to_owned(),
            _ => {}
        }
        self.write(&self.relative(&launch.stdout), said.as_bytes());
        self.write(&self.relative(&launch.stderr), b"");
        let exit = Exit { stdout_bytes: said.len() as u64, ..Exit::default() };
        (words[0] != "hold").then_some(exit)
    }
}

#[async_trait]
impl Processes for FakeProcesses {
    async fn list(&self) -> Result<Vec<Record>, Unreachable> {
        Ok(self.state.lock().unwrap().records.values().cloned().collect())
    }

    async fn send(&self, commands: Vec<Command>) -> Result<(), Unreachable> {
        let mut state = self.state.lock().unwrap();
        for command in commands {
            match command {
                Command::Launch(launch) => {
                    let exit = self.run(&launch);
                    let Launch { key, context, .. } = *launch;
                    let record = Record { key: key.clone(), context, pid: 1, exit: None };
                    assert!(state.records.insert(key.clone(), record).is_none(), "{key} was launched twice");
                    let running = state.records.values().filter(|record| record.exit.is_none()).count();
                    state.running_max = state.running_max.max(running);
                    self.told.send(Report::Started { key: key.clone(), pid: 1 }).unwrap();
                    if let Some(exit) = exit {
                        state.records.get_mut(&key).unwrap().exit = Some(exit);
                        self.told.send(Report::Exited { key, exit }).unwrap();
                    }
                }
                Command::Signal { key, .. } => {
                    let Some(record) = state.records.get_mut(&key).filter(|record| record.exit.is_none())
                    else {
                        continue;
                    };
                    let file = agent::core::key::Key::from_process_key(&key).unwrap().file_stem();
                    let stdout_bytes = self.disk.entry(&format!("spool/{file}.out")).unwrap().len;
                    let exit = Exit { signal: 15, stdout_bytes, ..Exit::default() };
                    record.exit = Some(exit);
                    self.told.send(Report::Exited { key, exit }).unwrap();
                }
                Command::Forget { key } => {
                    state.forgotten += usize::from(state.records.remove(&key).is_some());
                }
                Command::Nudge { .. } | Command::KeepAlive { .. } | Command::Retire => {}
            }
        }
        Ok(())
    }

    async fn next(&self) -> Vec<Report> {
        let mut reports = self.reports.lock().await;
        let mut told = vec![reports.recv().await.unwrap()];
        while let Ok(more) = reports.try_recv() {
            told.push(more);
        }
        told
    }
}
