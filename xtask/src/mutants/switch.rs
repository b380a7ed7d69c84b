//! Which of the mutants is awake. This file stands in a scratch copy alone.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Nobody has asked yet.
const UNREAD: u32 = u32::MAX;
/// All sleep, and who is asked for is noted.
const WATCHING: u32 = u32::MAX - 1;
/// Where it is noted.
const FILE: &str = "DRUMLINE_MUTANTS_REACHED";

static AWAKE: AtomicU32 = AtomicU32::new(UNREAD);
static NOTED: [AtomicBool; 1 << 16] = [const { AtomicBool::new(false) }; 1 << 16];

/// Whether the mutant of this number is the one that `DRUMLINE_MUTANT` names.
#[inline]
#[must_use]
pub fn mutant(number: u32) -> bool {
    let awake = AWAKE.load(Relaxed);
    awake == number || (awake >= WATCHING && unusual(number))
}

#[cold]
fn unusual(number: u32) -> bool {
    if AWAKE.load(Relaxed) == UNREAD {
        let named = std::env::var("DRUMLINE_MUTANT").ok().and_then(|text| text.parse().ok());
        let watching = std::env::var_os(FILE).map(|_| WATCHING);
        AWAKE.store(watching.or(named).unwrap_or(0), Relaxed);
    }
    let awake = AWAKE.load(Relaxed);
    if awake == WATCHING && !NOTED[number as usize].swap(true, Relaxed) {
        let file = std::env::var_os(FILE).unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
        file.write_all(format!("{number}\n").as_bytes()).unwrap();
    }
    awake == number
}
