//! The supervisor's own limits, lowered while tasks with limits are spawned.
//!
//! A child takes over the limits of its parent, and the parent's are those of
//! the whole process. What must hold: launches with different limits are never
//! under way at the same time (with equal ones they are); the limits are back
//! as they were when none is; and the supervisor itself can always go on: its
//! memory limit is never set near what it holds. A child whose limit is below
//! that gets its own an instant after its start.

use super::limits::OWN_MEMORY_MARGIN_BYTES;
use super::machine;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Soft and hard.
type Pair = (u64, u64);

/// What a task is limited to; nothing: as the supervisor itself is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub memory_bytes: Option<u64>,
    pub open_files: Option<u64>,
}

#[derive(Debug)]
struct State {
    /// Launches under way, all with these limits.
    under_way: usize,
    wanted: Wanted,
    /// What the memory limit is set to.
    memory_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Gate {
    data: Pair,
    files: Pair,
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    pub fn new() -> io::Result<Self> {
        let data = getrlimit(Resource::RLIMIT_DATA)?;
        let state = State { under_way: 0, wanted: Wanted::default(), memory_bytes: data.0 };
        Ok(Self {
            data,
            files: getrlimit(Resource::RLIMIT_NOFILE)?,
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits a launch asks for (0: none), as far as the supervisor may
    /// set them.
    pub fn wanted(&self, memory_bytes: u64, open_files: u64) -> Wanted {
        Wanted {
            memory_bytes: (memory_bytes > 0).then(|| memory_bytes.min(self.data.1)),
            open_files: (open_files > 0).then(|| open_files.min(self.files.1)),
        }
    }

    /// Spawns under these limits.
    pub fn under<T>(&self, wanted: Wanted, spawn: impl FnOnce() -> T) -> T {
        self.enter(wanted);
        let result = spawn();
        self.leave();
        result
    }

    fn enter(&self, wanted: Wanted) {
        let mut state = self.state();
        while state.under_way > 0 && state.wanted != wanted {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.under_way == 0
            && let Some(files) = wanted.open_files
        {
            set(Resource::RLIMIT_NOFILE, files, self.files);
        }
        if let Some(memory_bytes) = wanted.memory_bytes {
            // The supervisor may have grown since the last one entered.
            let spared = memory_bytes.max(machine::own_data_bytes() + OWN_MEMORY_MARGIN_BYTES);
            if state.under_way == 0 || spared > state.memory_bytes {
                set(Resource::RLIMIT_DATA, spared, self.data);
                state.memory_bytes = spared;
            }
        }
        state.wanted = wanted;
        state.under_way += 1;
    }

    fn leave(&self) {
        let mut state = self.state();
        state.under_way -= 1;
        if state.under_way > 0 {
            return;
        }
        if state.wanted.memory_bytes.is_some() {
            set(Resource::RLIMIT_DATA, self.data.0, self.data);
            state.memory_bytes = self.data.0;
        }
        if state.wanted.open_files.is_some() {
            set(Resource::RLIMIT_NOFILE, self.files.0, self.files);
        }
        self.changed.notify_all();
    }
}

/// Within the hard limit this is never refused.
fn set(resource: Resource, soft: u64, own: Pair) {
    let _ = setrlimit(resource, soft.min(own.1), own.1);
}
