//! Whose bytes pass next, and when: pure, so that it can be tried without a clock.
//!
//! The line passes bytes in slices, each of which takes its time; what was not used is
//! lost, so nobody saves up for a burst, but for what a timer that wakes late costs. Among
//! the tenants that ask, the one passes next whose bytes so far are worth the least
//! (start-time fair queueing, Goyal et al. 1996): so those that ask share evenly, and
//! whoever asks alone has all of it.
//!
//! What must hold: over any second no more passes than the rate, whatever is asked for;
//! while somebody asks the line is not idle.

use std::collections::{BTreeMap, VecDeque};

/// A slice is this part of a second's bytes, within [`SLICE_BYTES`].
const SLICES_PER_SECOND: u64 = 50;
/// The smallest slice, and the largest: one is read or written at once.
const SLICE_BYTES: (u64, u64) = (2 << 10, 256 << 10);
/// So late a timer may wake, and the line is as fast as it was to be.
const SLACK_US: u64 = 5_000;
/// The slowest line: below it a slice takes so long that connections time out.
pub const RATE_BYTES_MIN: u64 = 64 << 10;

/// A slice that was asked for.
pub(super) type Ticket = u64;

/// When a slice may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Now. It was taken off the line.
    Now,
    /// Not before this instant, if none is asked for that goes first.
    At(u64),
    /// Another goes first.
    Later,
}

#[derive(Debug)]
struct Asked {
    ticket: Ticket,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Tenant {
    asked: VecDeque<Asked>,
    /// What its bytes so far are worth, of the line's account.
    account: u64,
}

/// See the module. Instants are microseconds of one clock.
#[derive(Debug)]
pub(super) struct Shares {
    rate: u64,
    slice: u64,
    free_at_us: u64,
    /// Of microseconds the part that a slice took beyond whole ones.
    rest: u64,
    /// The account of whoever passed last.
    account: u64,
    tenants: BTreeMap<String, Tenant>,
    tickets: Ticket,
    /// What passed lately, by tenant.
    lately: BTreeMap<String, Lately>,
}

/// Of one tenant: in this second of the clock, and in the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Lately {
    second: u64,
    bytes: u64,
    before: u64,
}

impl Shares {
    pub(super) fn new(bytes_per_s: u64) -> Self {
        let limit = bytes_per_s.max(RATE_BYTES_MIN);
        let slice = (limit / SLICES_PER_SECOND).clamp(SLICE_BYTES.0, SLICE_BYTES.1);
        // The slices that begin within a second are one more than fit between, and those of
        // the slack.
        let rate = (u128::from(limit - slice) * 1_000_000) / u128::from(1_000_000 + SLACK_US);
        let rate = u64::try_from(rate).expect("it is less than the limit");
        let (tenants, lately) = (BTreeMap::new(), BTreeMap::new());
        Self { rate, slice, free_at_us: 0, rest: 0, account: 0, tenants, tickets: 0, lately }
    }

    /// The most that passes at once.
    pub(super) fn slice_bytes(&self) -> u64 {
        self.slice
    }

    pub(super) fn ask(&mut self, tenant: &str, bytes: u64) -> Ticket {
        assert!(bytes > 0 && bytes <= self.slice, "{bytes} of a slice of {}", self.slice);
        self.tickets += 1;
        let tenant = self.tenants.entry(tenant.to_owned()).or_default();
        if tenant.asked.is_empty() {
            // It has no claim to what it did not ask for.
            tenant.account = tenant.account.max(self.account);
        }
        tenant.asked.push_back(Asked { ticket: self.tickets, bytes });
        self.tickets
    }

    /// Whoever asked wants it no more.
    pub(super) fn leave(&mut self, tenant: &str, ticket: Ticket) {
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.asked.retain(|asked| asked.ticket != ticket);
        }
        self.tidy();
    }

    /// The slice that passes next.
    pub(super) fn next(&self) -> Option<Ticket> {
        self.first().map(|(_, ticket)| ticket)
    }

    fn first(&self) -> Option<(&str, Ticket)> {
        let asking =
            self.tenants.iter().filter_map(|(name, tenant)| Some((name, tenant, tenant.asked.front()?)));
        let first = asking.min_by_key(|(_, tenant, asked)| (tenant.account, asked.ticket));
        first.map(|(name, _, asked)| (name.as_str(), asked.ticket))
    }

    pub(super) fn turn(&mut self, now_us: u64, ticket: Ticket) -> Turn {
        let Some((name, _)) = self.first().filter(|(_, first)| *first == ticket) else { return Turn::Later };
        if now_us < self.free_at_us {
            return Turn::At(self.free_at_us);
        }
        let name = name.to_owned();
        let tenant = self.tenants.get_mut(&name).expect("it was just found");
        let Asked { bytes, .. } = tenant.asked.pop_front().expect("it was just found");
        self.account = tenant.account;
        tenant.account += bytes;
        let due = bytes * 1_000_000 + self.rest;
        self.free_at_us = self.free_at_us.max(now_us.saturating_sub(SLACK_US)) + due / self.rate;
        self.rest = due % self.rate;
        self.note(name, bytes, now_us);
        self.tidy();
        Turn::Now
    }

    fn note(&mut self, tenant: String, bytes: u64, now_us: u64) {
        let second = now_us / 1_000_000;
        self.lately.retain(|_, lately| lately.second + 1 >= second);
        let lately = self.lately.entry(tenant).or_default();
        if lately.second < second {
            *lately = Lately { second, bytes: 0, before: lately.bytes };
        }
        lately.bytes += bytes;
    }

    /// Bytes of a tenant that passed within one second, not long ago.
    pub(super) fn lately(&self, tenant: &str, now_us: u64) -> u64 {
        let second = now_us / 1_000_000;
        let lately = self.lately.get(tenant).filter(|lately| lately.second + 1 >= second);
        lately.map_or(0, |lately| lately.bytes.max(lately.before))
    }

    /// Forgets who asks for nothing and owes nothing to those that ask; all, where nobody
    /// asks.
    fn tidy(&mut self) {
        let is_idle = self.tenants.values().all(|tenant| tenant.asked.is_empty());
        let account = if is_idle { u64::MAX } else { self.account };
        self.tenants.retain(|_, tenant| !tenant.asked.is_empty() || tenant.account > account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Passes all that is asked for over some time by lanes that each ask again at once;
    /// what passed when, and whose.
    fn run(
        shares: &mut Shares,
        lanes: &[(&'static str, u64)],
        span_us: std::ops::Range<u64>,
    ) -> Vec<(u64, u64, &'static str)> {
        let ask = |shares: &mut Shares, (tenant, bytes)| (shares.ask(tenant, bytes), tenant, bytes);
        let mut open: Vec<_> = lanes.iter().map(|lane| ask(shares, *lane)).collect();
        let (mut now_us, mut passed) = (span_us.start, Vec::new());
        while now_us < span_us.end {
            let next = shares.next().unwrap();
            let at = open.iter().position(|(ticket, ..)| *ticket == next).unwrap();
            let (ticket, tenant, bytes) = open[at];
            match shares.turn(now_us, ticket) {
                Turn::Now => {
                    passed.push((now_us, bytes, tenant));
                    assert!(passed.len() < 1_000_000, "nobody has to wait: there is no limit");
                    open[at] = ask(shares, (tenant, bytes));
                }
                Turn::At(at_us) => now_us = at_us,
                Turn::Later => panic!("it is the next"),
            }
        }
        open.into_iter().for_each(|(ticket, tenant, _)| shares.leave(tenant, ticket));
        passed
    }

    fn most_in_a_second(passed: &[(u64, u64, &str)]) -> u64 {
        let from = |at: usize| {
            let within = passed[at..].iter().take_while(|(us, ..)| *us < passed[at].0 + 1_000_000);
            within.map(|(_, bytes, _)| bytes).sum::<u64>()
        };
        (0..passed.len()).map(from).max().unwrap_or(0)
    }

    fn of(passed: &[(u64, u64, &str)], tenant: &str) -> u64 {
        passed.iter().filter(|(_, _, whose)| *whose == tenant).map(|(_, bytes, _)| bytes).sum()
    }

    #[test]
    fn the_limit_is_reached_and_never_passed() {
        for limit in [RATE_BYTES_MIN, 1_000_000, 87_500_000, 875_000_000] {
            let mut shares = Shares::new(limit);
            let slice = shares.slice_bytes();
            let lanes = [("a", slice), ("b", slice), ("b", slice / 3)];
            let passed = run(&mut shares, &lanes, 0..5_000_000);
            let most = most_in_a_second(&passed);
            let all: u64 = passed.iter().map(|(_, bytes, _)| bytes).sum();
            assert!(most <= limit, "{most} in a second of {limit}");
            assert!(all / 5 >= limit * 9 / 10, "{} a second of {limit}", all / 5);
        }
    }

    #[test]
    fn those_that_ask_share_and_one_alone_has_all() {
        let mut shares = Shares::new(1_000_000);
        // However many connections each has.
        let lanes: Vec<_> = [("a", 20_000); 9].into_iter().chain([("b", 20_000)]).collect();
        let passed = run(&mut shares, &lanes, 0..4_000_000);
        assert!(of(&passed, "a").abs_diff(of(&passed, "b")) <= 20_000);
        let mut shares = Shares::new(1_000_000);
        let passed = run(&mut shares, &[("a", 20_000)], 0..4_000_000);
        assert!(of(&passed, "a") >= 3_600_000);
    }

    #[test]
    fn who_had_all_of_it_owes_nothing_and_who_comes_late_has_no_claim() {
        let mut shares = Shares::new(1_000_000);
        run(&mut shares, &[("a", 20_000)], 0..60_000_000);
        let passed = run(&mut shares, &[("a", 20_000), ("b", 20_000)], 61_000_000..63_000_000);
        assert!(of(&passed, "a").abs_diff(of(&passed, "b")) <= 20_000);
    }

    #[test]
    fn who_leaves_is_passed_over_and_forgotten() {
        let mut shares = Shares::new(1_000_000);
        let (first, second) = (shares.ask("a", 10), shares.ask("b", 10));
        assert_eq!(shares.turn(5, second), Turn::Later);
        shares.leave("a", first);
        assert_eq!(shares.turn(5, second), Turn::Now);
        let third = shares.ask("a", 10);
        let Turn::At(at_us) = shares.turn(5, third) else { panic!("the line is not free yet") };
        assert_eq!(shares.turn(at_us, third), Turn::Now);
        assert!(shares.tenants.is_empty(), "{shares:?}");
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_the_limit_holds(
            limit in 1_u64..50_000_000,
            lanes in prop::collection::vec((0_usize..3, 1_u64..=100), 1..12),
        ) {
            let mut shares = Shares::new(limit);
            let slice = shares.slice_bytes();
            let lanes: Vec<_> = lanes
                .into_iter()
                .map(|(tenant, hundredths)| (["a", "b", "c"][tenant], (slice * hundredths / 100).max(1)))
                .collect();
            let lanes: Vec<_> = lanes.into_iter().filter(|(_, bytes)| *bytes > slice / 20).collect();
            prop_assume!(!lanes.is_empty());
            let passed = run(&mut shares, &lanes, 0..3_000_000);
            prop_assert!(most_in_a_second(&passed) <= limit.max(RATE_BYTES_MIN));
            // Those that always ask have as much as one another, to a slice.
            let tenants: Vec<u64> =
                ["a", "b", "c"].iter().map(|tenant| of(&passed, tenant)).filter(|all| *all > 0).collect();
            let (most, least) = (tenants.iter().max().unwrap(), tenants.iter().min().unwrap());
            prop_assert!(most - least <= 2 * slice, "{} {}", most, least);
        }
    }
}
