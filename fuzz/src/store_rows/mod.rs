//! A store on a disk that may fail it, beside a plain map that does the same.
//!
//! What must hold: every answer is the one the map gives; what was answered is
//! there after a power failure, what was told "nothing changed" is not, and of
//! what nobody was sure about either all or nothing is; a page is of one moment;
//! a watcher hears every change once and in order, or that it missed some; the
//! same words over the network mean the same.

mod life;
mod model;
mod place;
#[path = "../../../store/tests/support/mod.rs"]
#[allow(unreachable_pub, reason = "it is written for the tests of its own crate")]
mod support;
mod wire;

use crate::draw::Draw;
use life::Life;
use world::sim::DiskFaults;

/// What comes behind is cut off.
const MOVES_MAX: usize = 150;

/// What goes wrong in one life of a store.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    /// The power fails after so many operations of the disk; 0: never.
    fuse: u64,
    disk: DiskFaults,
    /// Bytes the disk has beyond what the fresh store needs; `None`: any.
    room_bytes: Option<u64>,
}

impl Trouble {
    fn is_any(self) -> bool {
        self.fuse > 0 || self.disk != DiskFaults::default() || self.room_bytes.is_some()
    }
}

/// The first byte says what goes wrong.
pub fn store_rows(data: &[u8]) {
    let mut draw = Draw::new(data);
    let some = DiskFaults { write_error_ppm: 5_000, sync_error_ppm: 30_000, ..DiskFaults::default() };
    let trouble = match draw.byte() % 7 {
        0 | 1 => Trouble::default(),
        2 => Trouble { fuse: 1 + draw.word() % 1_000, ..Trouble::default() },
        3 => Trouble { disk: some, ..Trouble::default() },
        4 => Trouble { disk: DiskFaults { read_error_ppm: 5_000, ..some }, ..Trouble::default() },
        5 => Trouble { disk: DiskFaults { sync_error_forgets: true, ..some }, ..Trouble::default() },
        _ => Trouble { room_bytes: Some(u64::from(draw.byte()) * 2_000), ..Trouble::default() },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build();
    runtime.expect("a runtime of one thread can be made").block_on(async {
        let mut life = Life::begin(trouble, &mut draw).await;
        for _ in 0..MOVES_MAX {
            if draw.is_over() {
                break;
            }
            life.act(&mut draw).await;
        }
        life.end().await;
    });
}
