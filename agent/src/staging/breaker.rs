//! Whether a source of files is asked at all: pure, so that it can be tried without a clock.
//!
//! Closed, everybody asks. After so many failures in a row, or once the source says that
//! it has too much to do, it is open: nobody asks for a while. Then one asks, on trial: it
//! closes where that goes well, and else opens for longer, up to a bound.
//!
//! What must hold: open, at most one asks at a time, and not before its while is over; no
//! answer to one that asked earlier opens or prolongs it; any that went well closes it.

use crate::limits::{BREAKER_FAILURES, BREAKER_PAUSE_MS, BREAKER_PAUSE_MS_MAX, BREAKER_RETRY_AFTER_MS_MAX};

/// May one ask?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// As everybody.
    Go,
    /// Alone: all others wait for what comes of it.
    Trial,
    /// Not now.
    Wait {
        /// Not before this instant; `None`: one is on trial.
        until_ms: Option<u64>,
    },
}

/// How one that asked failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failed {
    /// It was on trial.
    pub(crate) trial: bool,
    /// The source said that it has too much to do.
    pub(crate) saturated: bool,
    /// And for how long it does not want to be asked.
    pub(crate) after_ms: Option<u64>,
    /// By chance, so that many nodes do not come back at once.
    pub(crate) jitter: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open {
        until_ms: u64,
    },
    Trial,
}

/// See the module. Instants are of one clock. That of a source that works is a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Breaker {
    state: State,
    in_a_row: u32,
    /// In a row, without having closed.
    opened: u32,
}

impl Breaker {
    pub(crate) fn ask(&mut self, now_ms: u64) -> Leave {
        match self.state {
            State::Closed => Leave::Go,
            State::Open { until_ms } if now_ms < until_ms => Leave::Wait { until_ms: Some(until_ms) },
            State::Open { .. } => {
                self.state = State::Trial;
                Leave::Trial
            }
            State::Trial => Leave::Wait { until_ms: None },
        }
    }

    pub(crate) fn failed(&mut self, now_ms: u64, failed: Failed) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        let opens = match self.state {
            State::Closed => failed.saturated || self.in_a_row >= BREAKER_FAILURES,
            State::Trial => failed.trial,
            State::Open { .. } => false,
        };
        if opens {
            let most_ms = (BREAKER_PAUSE_MS << self.opened.min(16)).min(BREAKER_PAUSE_MS_MAX);
            let pause_ms = most_ms / 2 + failed.jitter % (most_ms / 2);
            let asked_ms = failed.after_ms.unwrap_or(0).min(BREAKER_RETRY_AFTER_MS_MAX);
            let asked_ms = if asked_ms > 0 { asked_ms + failed.jitter % BREAKER_PAUSE_MS } else { 0 };
            self.state = State::Open { until_ms: now_ms.saturating_add(pause_ms.max(asked_ms)) };
            self.opened = self.opened.saturating_add(1);
        }
    }

    /// Whoever was on trial gave up: another may be.
    pub(crate) fn given_up(&mut self, now_ms: u64) {
        if self.state == State::Trial {
            self.state = State::Open { until_ms: now_ms };
        }
    }

    /// There is reason to believe that it works again: one may be on trial at once.
    pub(crate) fn expected(&mut self, now_ms: u64) {
        if let State::Open { until_ms } = &mut self.state {
            *until_ms = now_ms.min(*until_ms);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// How many failed since one went well.
    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Failed = Failed { trial: false, saturated: false, after_ms: None, jitter: 0 };
    const TRIAL: Failed = Failed { trial: true, ..PLAIN };

    /// Open since instant 0.
    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        (0..BREAKER_FAILURES).for_each(|_| breaker.failed(0, PLAIN));
        breaker
    }

    fn until(breaker: &mut Breaker, now_ms: u64) -> u64 {
        match breaker.ask(now_ms) {
            Leave::Wait { until_ms: Some(until_ms) } => until_ms,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_that_goes_well_begins_the_row_anew() {
        let mut breaker = Breaker::default();
        for _ in 1..BREAKER_FAILURES {
            breaker.failed(0, PLAIN);
            assert_eq!(breaker.ask(0), Leave::Go);
        }
        breaker = Breaker::default();
        for _ in 1..BREAKER_FAILURES {
            breaker.failed(0, PLAIN);
        }
        assert_eq!((breaker.ask(0), breaker.in_a_row()), (Leave::Go, BREAKER_FAILURES - 1));
        breaker.failed(0, PLAIN);
        assert_eq!(until(&mut breaker, 0), BREAKER_PAUSE_MS / 2);
    }

    #[test]
    fn one_is_on_trial_and_the_pauses_grow_to_a_bound() {
        let (mut breaker, mut now_ms, mut pauses) = (open(), 0, Vec::new());
        for _ in 0..6 {
            let until_ms = until(&mut breaker, now_ms);
            pauses.push(until_ms - now_ms);
            now_ms = until_ms;
            assert_eq!(breaker.ask(now_ms), Leave::Trial);
            assert_eq!(breaker.ask(now_ms), Leave::Wait { until_ms: None });
            // Answers to earlier ones say nothing of now.
            breaker.failed(now_ms, PLAIN);
            assert_eq!(breaker.ask(now_ms), Leave::Wait { until_ms: None });
            breaker.failed(now_ms, TRIAL);
        }
        assert_eq!(pauses, [1_000, 2_000, 4_000, 7_500, 7_500, 7_500]);
        now_ms = until(&mut breaker, now_ms);
        assert_eq!(breaker.ask(now_ms), Leave::Trial);
        breaker = Breaker::default();
        assert_eq!((breaker.ask(now_ms), breaker.in_a_row()), (Leave::Go, 0));
    }

    #[test]
    fn a_source_that_has_too_much_to_do_is_left_alone_for_as_long_as_it_says() {
        let mut breaker = Breaker::default();
        let told = |after_ms| Failed { saturated: true, after_ms, ..PLAIN };
        breaker.failed(0, told(Some(9_000)));
        assert_eq!(until(&mut breaker, 0), 9_000);
        let mut breaker = Breaker::default();
        breaker.failed(0, told(None));
        assert_eq!(until(&mut breaker, 0), BREAKER_PAUSE_MS / 2);
        let mut breaker = Breaker::default();
        breaker.failed(0, told(Some(u64::MAX)));
        assert_eq!(until(&mut breaker, 0), BREAKER_RETRY_AFTER_MS_MAX);
    }

    #[test]
    fn who_gives_up_on_trial_leaves_it_to_another_and_good_news_bring_it_forward() {
        let mut breaker = open();
        assert_eq!(breaker.ask(5_000), Leave::Trial);
        breaker.given_up(5_000);
        assert_eq!(breaker.ask(5_000), Leave::Trial);
        let mut breaker = open();
        breaker.expected(10);
        assert_eq!(breaker.ask(10), Leave::Trial);
        assert!(!breaker.is_closed());
    }

    #[derive(Clone, Debug)]
    enum Move {
        Ask,
        Later(u64),
        /// Of those that asked, the one at this place.
        Works(usize),
        Fails(usize, bool, u64),
        GivesUp(usize),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            4 => Just(Move::Ask),
            2 => (0_u64..20_000).prop_map(Move::Later),
            1 => (0_usize..9).prop_map(Move::Works),
            4 => (0_usize..9, prop::bool::weighted(0.1), 0_u64..60_000)
                .prop_map(|(at, saturated, after)| Move::Fails(at, saturated, after)),
            1 => (0_usize..9).prop_map(Move::GivesUp),
        ];
        prop::collection::vec(one, 0..300)
    }

    proptest! {
        #[test]
        fn it_lets_one_try_at_a_time_while_the_source_is_broken(moves in moves()) {
            let (mut breaker, mut now_ms, mut asked) = (Breaker::default(), 0, Vec::new());
            let (mut in_a_row, mut trials, mut last_trial_ms) = (0, 0, None);
            for step in moves {
                match step {
                    Move::Later(ms) => now_ms += ms,
                    Move::Ask => match breaker.ask(now_ms) {
                        Leave::Go => {
                            prop_assert!(in_a_row < BREAKER_FAILURES, "{} failed in a row", in_a_row);
                            asked.push(false);
                        }
                        Leave::Trial => {
                            prop_assert_eq!(trials, 0, "two on trial");
                            if let Some(last_ms) = last_trial_ms.replace(now_ms) {
                                prop_assert!(now_ms >= last_ms + BREAKER_PAUSE_MS / 2, "too soon");
                            }
                            trials += 1;
                            asked.push(true);
                        }
                        Leave::Wait { until_ms: None } => prop_assert_eq!(trials, 1, "nobody is on trial"),
                        Leave::Wait { until_ms: Some(until_ms) } => prop_assert!(until_ms > now_ms),
                    },
                    Move::Works(at) if at < asked.len() => {
                        asked.remove(at);
                        breaker = Breaker::default();
                        (in_a_row, last_trial_ms) = (0, None);
                        prop_assert!(breaker.is_closed());
                        // Who is on trial still is one that asked earlier now.
                        asked.iter_mut().for_each(|trial| *trial = false);
                        trials = 0;
                    }
                    Move::Fails(at, saturated, after_ms) if at < asked.len() => {
                        let trial = asked.remove(at);
                        trials -= u32::from(trial);
                        in_a_row += 1;
                        let failed = Failed { trial, saturated, after_ms: Some(after_ms), jitter: after_ms };
                        breaker.failed(now_ms, failed);
                    }
                    Move::GivesUp(at) if at < asked.len() => {
                        let trial = asked.remove(at);
                        trials -= u32::from(trial);
                        if trial {
                            breaker.given_up(now_ms);
                            last_trial_ms = None;
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(breaker.in_a_row(), in_a_row);
            }
        }
    }
}
