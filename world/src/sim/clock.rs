//! A node's clock that drifts and jumps.
//!
//! True time is the runtime's (virtual under madsim). `monotonic_ms` runs
//! faster or slower than it by a drift but never goes back; `wall_ms` is off by
//! a skew that may jump either way.
#![cfg_attr(
    madsim,
    expect(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "under madsim the runtime's instant is the standard one, made virtual"
    )
)]

use crate::clock::NodeClock;
use crate::time::{Instant, now};
use std::sync::{Arc, Mutex};

/// The drift of a clock that stands.
const STILL_PPM: i32 = -1_000_000;

#[derive(Debug)]
struct State {
    /// When the drift was last set, and what the clock said then, in microseconds.
    since: Instant,
    base_us: u64,
    drift_ppm: i32,
    /// Difference between the wall and the monotonic reading, in milliseconds.
    wall_offset_ms: i64,
}

impl State {
    fn now_us(&self, now: Instant) -> u64 {
        let true_us =
            i128::try_from(now.saturating_duration_since(self.since).as_micros()).unwrap_or(i128::MAX / 2);
        let passed = true_us + true_us * i128::from(self.drift_ppm) / 1_000_000;
        self.base_us
            + u64::try_from(passed).expect("time never runs back: the drift is -1,000,000 ppm at least")
    }

    fn rebase(&mut self) {
        let now = now();
        self.base_us = self.now_us(now);
        self.since = now;
    }
}

/// One node's clock; see [`SkewedClock::pair`].
#[derive(Debug)]
pub struct SkewedClock {
    state: Arc<Mutex<State>>,
}

/// Sets a [`SkewedClock`] wrong, or right again, while it runs.
#[derive(Clone, Debug)]
pub struct ClockHandle {
    state: Arc<Mutex<State>>,
}

impl SkewedClock {
    /// A clock that is right for now, and its handle. `wall_ms` is the date
    /// at this instant, in milliseconds since 1970.
    #[must_use]
    pub fn pair(wall_ms: u64) -> (Arc<Self>, ClockHandle) {
        let state = Arc::new(Mutex::new(State {
            since: now(),
            base_us: 0,
            drift_ppm: 0,
            wall_offset_ms: i64::try_from(wall_ms).expect("a date within 200 million years"),
        }));
        (Arc::new(Self { state: state.clone() }), ClockHandle { state })
    }
}

impl ClockHandle {
    /// From now on the clock runs faster (or slower) by so many parts per
    /// million; at most 500,000 either way.
    pub fn set_drift_ppm(&self, drift_ppm: i32) {
        assert!(drift_ppm.abs() <= 500_000, "a clock off by half is no clock");
        let mut state = self.state.lock().expect("nothing panics while holding it");
        state.rebase();
        state.drift_ppm = drift_ppm;
    }

    /// The clock stands, as that of a machine that is stopped whole and later
    /// believes that no time has passed; setting a drift lets it go on.
    pub fn stand_still(&self) {
        let mut state = self.state.lock().expect("nothing panics while holding it");
        state.rebase();
        state.drift_ppm = STILL_PPM;
    }

    /// The wall clock jumps, forward or back.
    pub fn jump_wall_ms(&self, by_ms: i64) {
        let mut state = self.state.lock().expect("nothing panics while holding it");
        state.wall_offset_ms = state.wall_offset_ms.saturating_add(by_ms);
    }

    /// The monotonic clock jumps forward, as after a machine's sleep (and the
    /// wall clock with it).
    pub fn jump_monotonic_ms(&self, by_ms: u64) {
        let mut state = self.state.lock().expect("nothing panics while holding it");
        state.rebase();
        state.base_us += by_ms * 1000;
    }
}

impl NodeClock for SkewedClock {
    fn monotonic_ms(&self) -> u64 {
        self.state.lock().expect("nothing panics while holding it").now_us(now()) / 1000
    }

    fn wall_ms(&self) -> u64 {
        self.now().wall_ms
    }

    fn now(&self) -> crate::clock::Now {
        let state = self.state.lock().expect("nothing panics while holding it");
        let mono_ms = state.now_us(now()) / 1000;
        let wall = i128::from(mono_ms) + i128::from(state.wall_offset_ms);
        crate::clock::Now { mono_ms, wall_ms: u64::try_from(wall.max(0)).unwrap_or(u64::MAX) }
    }
}
