//! Invariants 3, 5 and 8, for the files that nodes move: a node that is told how much of its
//! network it may use never moves more over any second; whoever alters the URL it was given
//! gets nothing by it, and can leave nothing; and a source that is plainly broken is not
//! stormed by those that try again.

use super::{Checker, Outcome};

/// Tries a node makes within a minute of a source of which so many failed before that it is
/// plain ([`world::sim::PLAIN_FAILURES`]), at most. Alone they come at 1, 3, 7 and 15 s and
/// then every 8 to 15 s; news of the server bring some forward, and some had begun before.
const TRIES_A_MINUTE_MAX: u64 = 30;

pub struct Paced;

impl Checker for Paced {
    fn name(&self) -> &'static str {
        "paced"
    }
    fn invariant(&self) -> u8 {
        3
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        for moved in outcome.transfers.iter().filter(|moved| moved.bytes_per_s > 0) {
            let most = moved.counts.most_in_a_second;
            if most > moved.bytes_per_s {
                let limit = moved.bytes_per_s;
                return Err(format!("{} moved {most} bytes within a second, and may {limit}", moved.node));
            }
        }
        Ok(())
    }
}

pub struct Unforged;

impl Checker for Unforged {
    fn name(&self) -> &'static str {
        "unforged"
    }
    fn invariant(&self) -> u8 {
        5
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        for moved in outcome.transfers {
            let (taken, forged) = (moved.counts.forged_taken, moved.counts.forged);
            if taken > 0 {
                return Err(format!("{taken} of {forged} URLs that {} had altered were good", moved.node));
            }
        }
        Ok(())
    }
}

pub struct NoStorm;

impl Checker for NoStorm {
    fn name(&self) -> &'static str {
        "no-storm"
    }
    fn invariant(&self) -> u8 {
        8
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        for moved in outcome.transfers {
            let tries = moved.counts.most_in_vain_a_minute;
            if tries > TRIES_A_MINUTE_MAX {
                return Err(format!("{} asked a broken source {tries} times within a minute", moved.node));
            }
        }
        Ok(())
    }
}
