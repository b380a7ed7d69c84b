//! A wire between clients and a server that breaks after so many bytes, or lets none
//! through for a while.

use super::{Cluster, Dir, Server};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What went one way, and how much more may.
#[derive(Debug)]
struct Lane {
    moved: u64,
    /// At 0 the wire breaks.
    left: u64,
    /// What was said first of each connection: its requests' heads, where they are short.
    said: Vec<String>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    Up,
    /// From it.
    Down,
}

#[derive(Debug, Default)]
struct State {
    server: Option<SocketAddr>,
    lanes: [Lane; 2],
    /// Where a lane has nothing left it holds its bytes, and does not break.
    holds: bool,
    closed: bool,
}

impl Default for Lane {
    fn default() -> Self {
        Self { moved: 0, left: u64::MAX, said: Vec::new() }
    }
}

impl State {
    fn is_broken(&self) -> bool {
        !self.holds && self.lanes.iter().any(|lane| lane.left == 0)
    }

    /// How many of these bytes may go, and whether the wire breaks behind them.
    fn let_through(&mut self, way: Way, bytes: &[u8]) -> (usize, bool) {
        let lane = &mut self.lanes[way as usize];
        let due = usize::try_from(lane.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        lane.moved += due as u64;
        lane.left -= if lane.left == u64::MAX { 0 } else { due as u64 };
        let head = String::from_utf8_lossy(&bytes[..due.min(1024)]).to_lowercase();
        if head.contains("http/1.1") {
            lane.said.push(head);
        }
        (due, self.is_broken())
    }
}

/// A cluster whose objects are reached by a wire, all else directly.
pub fn cluster(name: &str, nodes: usize) -> (Cluster, Wire) {
    let (dir, wire) = (Dir::new(name), Wire::new());
    let server = Server::start(&dir, &["--public-url", &wire.url()]);
    wire.lead_to(&server.address);
    let mut cluster = Cluster { nodes: Vec::new(), server, dir };
    for number in 1..=nodes {
        cluster.add_node(&format!("n{number}"), &["--cores", "2", "--memory", "1GiB"]);
    }
    cluster.until_ready(nodes);
    (cluster, wire)
}

/// See the module. Its threads end with it.
#[derive(Debug)]
pub struct Wire {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    listening: Option<std::thread::JoinHandle<()>>,
}

impl Wire {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let listening = std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let server = {
                    let state = shared.lock().unwrap();
                    if state.closed {
                        return;
                    }
                    state.server.filter(|_| !state.is_broken())
                };
                // Whoever comes to a broken wire is cut off at once.
                if let Some(server) = server.and_then(|server| TcpStream::connect(server).ok()) {
                    join(&shared, &client, &server);
                }
            }
        });
        Self { address, state, listening: Some(listening) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it leads.
    pub fn lead_to(&self, server: &str) {
        let server = server.trim_start_matches("http://").parse().unwrap();
        self.state.lock().unwrap().server = Some(server);
    }

    /// Breaks all connections once so many bytes more have gone this way, and takes no
    /// other until it is mended.
    pub fn break_after(&self, way: Way, bytes: u64) {
        self.state.lock().unwrap().lanes[way as usize].left = bytes;
    }

    /// Lets so many bytes more go this way, and then none until it is mended.
    pub fn hold_after(&self, way: Way, bytes: u64) {
        let mut state = self.state.lock().unwrap();
        (state.holds, state.lanes[way as usize].left) = (true, bytes);
    }

    /// Whether something may wait at this moment.
    pub fn is_holding(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.holds && state.lanes.iter().any(|lane| lane.left == 0)
    }

    pub fn mend(&self) {
        let mut state = self.state.lock().unwrap();
        state.holds = false;
        state.lanes.iter_mut().for_each(|lane| lane.left = u64::MAX);
    }

    pub fn is_broken(&self) -> bool {
        self.state.lock().unwrap().is_broken()
    }

    /// Bytes that went this way so far.
    pub fn moved(&self, way: Way) -> u64 {
        self.state.lock().unwrap().lanes[way as usize].moved
    }

    /// What went this way since the last look, by its pieces' beginnings, in lower case.
    pub fn said(&self, way: Way) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().lanes[way as usize].said)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock() {
            state.closed = true;
        }
        drop(TcpStream::connect(self.address));
        let ended = self.listening.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the wire's listener broke");
    }
}

/// Two threads carry what is said between the two.
fn join(state: &Arc<Mutex<State>>, client: &TcpStream, server: &TcpStream) {
    for (way, from, to) in [(Way::Up, client, server), (Way::Down, server, client)] {
        let (state, from, to) = (Arc::clone(state), from.try_clone().unwrap(), to.try_clone().unwrap());
        std::thread::spawn(move || carry(&state, way, from, to));
    }
}

/// Waits while this lane is held.
fn await_mending(state: &Mutex<State>, way: Way) {
    let held = || {
        let state = state.lock().unwrap();
        state.holds && state.lanes[way as usize].left == 0 && !state.closed
    };
    super::until_true("the wire is mended", || !held());
}

fn carry(state: &Mutex<State>, way: Way, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 16 << 10];
    'open: while let Ok(read @ 1..) = from.read(&mut buffer) {
        let mut at = 0;
        while at < read {
            await_mending(state, way);
            let (due, broken) = state.lock().unwrap().let_through(way, &buffer[at..read]);
            if to.write_all(&buffer[at..at + due]).is_err() || broken {
                break 'open;
            }
            at += due;
        }
    }
    // Both ends, both ways: nobody waits for the other.
    for end in [from, to] {
        let _gone = end.shutdown(Shutdown::Both);
    }
}
