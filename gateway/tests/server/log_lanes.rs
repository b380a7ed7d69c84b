//! A tenant whose logs the disk does not take holds up no other's, though they come
//! from one agent by one stream.

use crate::agents::Agent;
use crate::support::{Client, TestDir};
use futures_util::stream;
use gateway::server::{ServerConfig, ServerParts, start};
use proto::v1::{AttemptRef, LogReceipt, LogShipment};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use world::disk::{DirEntry, Disk, DiskFile, OpenMode};
use world::grpc::tonic::Streaming;
use world::real::SystemClock;
use world::sync::mpsc;
use world::time;

/// Syncs of the logs of tenant `flood` wait until this is opened.
#[derive(Debug, Default)]
struct Gate {
    /// Also those of opening a log.
    opening: bool,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

/// Opens it however the test ends: no thread of the server waits for ever.
struct OpenedInTheEnd(Arc<Gate>);

impl Drop for OpenedInTheEnd {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[derive(Debug)]
struct Gated {
    disk: Arc<dyn Disk>,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn DiskFile>,
    /// Of a file that waits, and whether it does yet.
    gate: Option<(Arc<Gate>, Mutex<bool>)>,
}

impl Disk for Gated {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let gate = path.contains("/flood/").then(|| (Arc::clone(&self.gate), Mutex::new(self.gate.opening)));
        Ok(Arc::new(GatedFile { file: self.disk.open(path, mode)?, gate }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }
    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        self.disk.list(path)
    }
    fn entry(&self, path: &str) -> io::Result<DirEntry> {
        self.disk.entry(path)
    }
    fn is_vacant(&self, path: &str) -> io::Result<bool> {
        self.disk.is_vacant(path)
    }
    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        self.disk.set_mode(path, mode)
    }
    fn absolute(&self, path: &str) -> PathBuf {
        self.disk.absolute(path)
    }
}

impl DiskFile for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some((_, written)) = &self.gate {
            *written.lock().unwrap() = true;
        }
        self.file.write_at(offset, data)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        if let Some((gate, written)) = &self.gate
            && *written.lock().unwrap()
        {
            gate.pass();
        }
        self.file.sync()
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}

fn of(agent: &Agent, tenant: &str, offset: u64) -> LogShipment {
    let attempt = AttemptRef { tenant: tenant.into(), job_number: 1, attempt: 1, ..AttemptRef::default() };
    LogShipment { offset, end: false, ..agent.shipment(&attempt, b"line\n") }
}

/// The tenant and the offset of the next receipt.
async fn receipt(receipts: &mut Streaming<LogReceipt>) -> (String, u64) {
    let next = time::timeout(time::ms(10_000), receipts.message()).await;
    let receipt = next.expect("a receipt comes").unwrap().unwrap();
    (receipt.attempt.unwrap().tenant, receipt.offset)
}

#[tokio::test]
async fn a_tenant_whose_logs_hang_holds_up_no_other() {
    flood_hangs(false).await;
}

#[tokio::test]
async fn a_log_that_takes_long_to_open_holds_up_no_other() {
    flood_hangs(true).await;
}

async fn flood_hangs(opening: bool) {
    let (dir, gate) = (TestDir::new(), Arc::new(Gate { opening, ..Gate::default() }));
    let _opened = OpenedInTheEnd(Arc::clone(&gate));
    let server = start(ServerParts {
        disk: Arc::new(Gated { disk: dir.disk(), gate: Arc::clone(&gate) }),
        clock: Arc::new(SystemClock::new()),
        listen: "127.0.0.1:0".parse().unwrap(),
        config: ServerConfig { stop_grace_ms: 100, ..ServerConfig::default() },
        shared: None,
    })
    .await
    .unwrap();
    let admin = Client::new(&server, &server.token).await;
    let mut agent = Agent::join(&admin).await;
    let (say, said) = mpsc::channel(16);
    say.send(of(&agent, "flood", 0)).await.unwrap();
    say.send(of(&agent, "quiet", 0)).await.unwrap();
    let said = stream::unfold(said, |mut said| async move { said.recv().await.map(|next| (next, said)) });
    let request = agent.client.request(said);
    let mut receipts = agent.grpc.ship_logs(request).await.unwrap().into_inner();
    let quiet = |offset| ("quiet".to_owned(), offset);
    assert_eq!(receipt(&mut receipts).await, quiet(5));
    // Behind what came with it, and behind what comes later.
    for offset in [5, 10, 15] {
        say.send(of(&agent, "flood", offset)).await.unwrap();
        say.send(of(&agent, "quiet", offset)).await.unwrap();
        assert_eq!(receipt(&mut receipts).await, quiet(offset + 5));
    }
    gate.open();
    for offset in [5, 10, 15, 20] {
        assert_eq!(receipt(&mut receipts).await, ("flood".to_owned(), offset), "each once, in order");
    }
    drop((receipts, agent));
    server.stop().await;
}
