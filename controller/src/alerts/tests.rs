use super::*;
use proptest::prelude::*;
use proto::v1::NodeState;

fn at(ms: u64) -> Now {
    Now { mono_ms: ms, wall_ms: 1_000_000 + ms }
}

fn node(name: &str, state: NodeState, session: u64) -> NodeFact {
    NodeFact { name: name.into(), state, drained: false, session }
}

fn nodes(nodes: Vec<NodeFact>) -> Facts {
    Facts { nodes: Some(nodes), ..Facts::default() }
}

fn n1(state: NodeState, session: u64) -> Facts {
    nodes(vec![node("n1", state, session)])
}

fn full(pools: &[&str]) -> Facts {
    let pools = pools.iter().map(|name| PoolFact { name: (*name).into(), queued_slots: 4 });
    Facts { full_pools: Some(pools.collect()), ..Facts::default() }
}

fn spend(settled_micros: u64) -> Facts {
    let spend =
        SpendFact { tenant: "lab".into(), month_micros: 100_000_000, settled_micros, reserved_micros: 0 };
    Facts { spending: Some(vec![spend]), ..Facts::default() }
}

/// `+code subject` of what was raised, `-code subject` of what was cleared.
fn said(changes: &Changes) -> Vec<String> {
    let line = |sign, alert: &Alert| format!("{sign}{} {}", alert.code.name(), alert.subject);
    let raised = changes.raised.iter().map(|alert| line('+', alert));
    raised.chain(changes.cleared.iter().map(|alert| line('-', alert))).collect()
}

#[test]
fn codes_have_names_of_their_own_and_all_are_listed() {
    let names: std::collections::BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(names.len(), Code::ALL.len());
    assert!(Code::ALL.is_sorted(), "in the order in which they get room");
}

#[test]
fn a_lost_node_is_told_once_and_cleared_once_it_is_back_for_a_while() {
    let mut alerts = Alerts::new(Config::default());
    assert_eq!(said(&alerts.step(at(0), &n1(NodeState::Ready, 1))), [""; 0]);
    assert_eq!(said(&alerts.step(at(2_000), &n1(NodeState::Suspect, 1))), [""; 0]);
    let changes = alerts.step(at(4_000), &n1(NodeState::Lost, 1));
    assert_eq!(said(&changes), ["+node.lost n1"]);
    assert_eq!((changes.raised[0].since_ms, changes.raised[0].cleared_ms), (1_004_000, 0));
    assert_eq!(said(&alerts.step(at(6_000), &n1(NodeState::Lost, 1))), [""; 0]);
    // It comes and goes: the alert stays.
    assert_eq!(said(&alerts.step(at(8_000), &n1(NodeState::Ready, 2))), [""; 0]);
    assert_eq!(said(&alerts.step(at(60_000), &n1(NodeState::Lost, 2))), [""; 0]);
    assert_eq!(said(&alerts.step(at(62_000), &n1(NodeState::Ready, 3))), [""; 0]);
    assert_eq!(said(&alerts.step(at(121_999), &n1(NodeState::Ready, 3))), [""; 0]);
    let changes = alerts.step(at(122_000), &n1(NodeState::Ready, 3));
    assert_eq!(said(&changes), ["-node.lost n1"]);
    assert_eq!(changes.cleared[0].cleared_ms, 1_122_000);
    assert_eq!((alerts.on().count(), alerts.cleared().count()), (0, 1));
    assert_eq!((alerts.raised_total(Code::NodeLost), alerts.raised_total(Code::Budget80)), (1, 0));
}

#[test]
fn a_driver_that_fails_is_told_at_once_and_a_pool_that_may_not_grow_after_a_while() {
    let mut alerts = Alerts::new(Config { pool_exhausted_ms: 60_000, ..Config::default() });
    let scaling = |failing: &str, capped: &str| Facts {
        scaling: Some(vec![ScaleFact { pool: "gpu".into(), failing: failing.into(), capped: capped.into() }]),
        ..Facts::default()
    };
    let bad = scaling("3 times in a row: no quota", "5 more would have work, and max is 4");
    assert_eq!(said(&alerts.step(at(0), &bad)), ["+scale.failed gpu"]);
    assert_eq!(alerts.on().next().unwrap().text, "pool gpu: driver fails: 3 times in a row: no quota");
    assert_eq!(said(&alerts.step(at(60_000), &bad)), ["+scale.capped gpu"]);
    alerts.step(at(70_000), &scaling("", ""));
    assert_eq!(said(&alerts.step(at(130_000), &scaling("", ""))), ["-scale.failed gpu", "-scale.capped gpu"]);
}

#[test]
fn a_drained_node_may_go_and_draining_it_is_what_clears() {
    let mut alerts = Alerts::new(Config { quiet_ms: 0, ..Config::default() });
    assert_eq!(said(&alerts.step(at(0), &n1(NodeState::Lost, 1))), ["+node.lost n1"]);
    let drained = nodes(vec![NodeFact { drained: true, ..node("n1", NodeState::Lost, 1) }]);
    assert_eq!(said(&alerts.step(at(1), &drained)), ["-node.lost n1"]);
}

#[test]
fn a_node_flaps_that_falls_silent_or_comes_anew_too_often() {
    let config = Config { flaps_min: 3, flaps_window_ms: 60_000, quiet_ms: 0, ..Config::default() };
    let mut alerts = Alerts::new(config);
    alerts.step(at(0), &n1(NodeState::Ready, 1));
    // Silent, lost, back: one.
    alerts.step(at(10_000), &n1(NodeState::Suspect, 1));
    alerts.step(at(12_000), &n1(NodeState::Lost, 1));
    alerts.step(at(14_000), &n1(NodeState::Ready, 2));
    // A new agent that nobody missed: two.
    assert_eq!(said(&alerts.step(at(20_000), &n1(NodeState::Ready, 3))), [""; 0]);
    assert_eq!(said(&alerts.step(at(30_000), &n1(NodeState::Suspect, 3))), ["+node.flapping n1"]);
    assert!(alerts.on().next().unwrap().text.contains("3 times within 1m00s"));
    assert_eq!(said(&alerts.step(at(40_000), &n1(NodeState::Ready, 3))), [""; 0]);
    // The first was at 10 s.
    assert_eq!(said(&alerts.step(at(70_000), &n1(NodeState::Ready, 3))), [""; 0]);
    assert_eq!(said(&alerts.step(at(70_001), &n1(NodeState::Ready, 3))), ["-node.flapping n1"]);
}

#[test]
fn a_pool_is_exhausted_only_after_a_while_without_a_break() {
    let mut alerts = Alerts::new(Config { pool_exhausted_ms: 60_000, ..Config::default() });
    alerts.step(at(0), &full(&["gpu"]));
    alerts.step(at(50_000), &full(&[]));
    alerts.step(at(51_000), &full(&["gpu"]));
    assert_eq!(said(&alerts.step(at(110_999), &full(&["gpu"]))), [""; 0]);
    // What is not known neither counts nor breaks.
    assert_eq!(said(&alerts.step(at(111_000), &Facts::default())), [""; 0]);
    assert_eq!(said(&alerts.step(at(111_001), &full(&["gpu"]))), ["+pool.exhausted gpu"]);
}

#[test]
fn what_is_not_known_clears_nothing() {
    let mut alerts = Alerts::new(Config { quiet_ms: 10, ..Config::default() });
    alerts.step(at(0), &n1(NodeState::Lost, 1));
    for ms in [100, 200, 300] {
        assert_eq!(said(&alerts.step(at(ms), &full(&[]))), [""; 0]);
    }
    alerts.step(at(400), &n1(NodeState::Ready, 2));
    assert_eq!(said(&alerts.step(at(410), &n1(NodeState::Ready, 2))), ["-node.lost n1"]);
}

#[test]
fn a_budget_is_told_at_each_level_and_let_go_a_little_below() {
    let mut alerts = Alerts::new(Config { quiet_ms: 0, ..Config::default() });
    assert_eq!(said(&alerts.step(at(0), &spend(79_999_999))), [""; 0]);
    assert_eq!(said(&alerts.step(at(1), &spend(80_000_000))), ["+budget.80 lab"]);
    assert_eq!(said(&alerts.step(at(2), &spend(78_000_000))), [""; 0]);
    assert_eq!(said(&alerts.step(at(3), &spend(100_000_000))), ["+budget.100 lab", "+budget.90 lab"]);
    let on: Vec<&str> = alerts.on().map(|alert| alert.text.as_str()).collect();
    assert_eq!(on, ["tenant lab has 100.00 of its month's 100.00 spent and 0.00 reserved"; 3]);
    assert!(alerts.on().all(|alert| alert.tenant == "lab"));
    // A new month.
    let cleared = ["-budget.100 lab", "-budget.90 lab", "-budget.80 lab"];
    assert_eq!(said(&alerts.step(at(4), &spend(0))), cleared);
    let none = SpendFact { tenant: "lab".into(), month_micros: 0, settled_micros: 0, reserved_micros: 0 };
    let none = Facts { spending: Some(vec![none]), ..Facts::default() };
    assert_eq!(said(&alerts.step(at(5), &none)), [""; 0]);
}

#[test]
fn who_stands_first_for_too_long_starves_whoever_it_is() {
    let starved = |job_number, blocked_ms| Facts {
        starved: Some(vec![StarvedFact {
            tenant: "lab".into(),
            job_number,
            blocked_ms,
            why: "no node has room for it now".into(),
        }]),
        ..Facts::default()
    };
    let mut alerts = Alerts::new(Config { starvation_ms: 60_000, quiet_ms: 0, ..Config::default() });
    assert_eq!(said(&alerts.step(at(0), &starved(7, 59_999))), [""; 0]);
    assert_eq!(said(&alerts.step(at(1), &starved(7, 60_000))), ["+starvation lab"]);
    let alert = alerts.on().next().unwrap();
    assert!(alert.text.contains("lab-7") && alert.text.contains("no node has room"), "{}", alert.text);
    assert_eq!(said(&alerts.step(at(2), &starved(8, 1))), ["-starvation lab"]);
}

#[test]
fn storms_are_of_tenants_and_of_all() {
    let mut alerts = Alerts::new(Config::default());
    let facts = Facts { storms: Some(vec![String::new(), "lab".into()]), ..Facts::default() };
    assert_eq!(said(&alerts.step(at(0), &facts)), ["+retry.storm *", "+retry.storm lab"]);
    // Whose retries fail says something of others' work: operators alone see it.
    assert!(alerts.on().all(|alert| alert.tenant.is_empty()));
}

#[test]
fn logs_given_up_are_told_when_more_are_and_cleared_when_no_more_are_for_long() {
    let dropped = |bytes| Facts { dropped: Some([("n1".to_owned(), bytes)].into()), ..Facts::default() };
    let mut alerts = Alerts::new(Config { quiet_ms: 1_000, ..Config::default() });
    assert_eq!(said(&alerts.step(at(0), &dropped(0))), [""; 0]);
    assert_eq!(said(&alerts.step(at(1), &dropped(5))), ["+logs.given_up n1"]);
    assert_eq!(said(&alerts.step(at(2), &dropped(5))), [""; 0]);
    assert_eq!(said(&alerts.step(at(9_000), &dropped(6))), [""; 0]);
    alerts.step(at(9_001), &dropped(6));
    assert_eq!(said(&alerts.step(at(19_000), &dropped(6))), [""; 0]);
    assert_eq!(said(&alerts.step(at(19_001), &dropped(6))), ["-logs.given_up n1"]);
}

#[test]
fn alerts_are_bounded_and_the_oldest_cleared_go_first() {
    let config = Config { quiet_ms: 0, ..Config::default() };
    let mut alerts = Alerts::new(config);
    let lost = |range: std::ops::Range<usize>| {
        nodes(range.map(|i| node(&format!("n{i:04}"), NodeState::Lost, 1)).collect())
    };
    alerts.step(at(0), &lost(0..3));
    alerts.step(at(1), &lost(2..3));
    assert_eq!(alerts.cleared().count(), 2);
    // One place is left beside those that are on: the newest that was cleared keeps it.
    alerts.step(at(2), &lost(2..ALERTS_KEPT_MAX + 1));
    let cleared: Vec<&str> = alerts.cleared().map(|alert| alert.subject.as_str()).collect();
    assert_eq!(cleared, ["n0001"]);
    // More than there is room for wait for it, and are raised then.
    let changes = alerts.step(at(3), &lost(2..ALERTS_KEPT_MAX + 9));
    assert_eq!((changes.raised.len(), alerts.on().count()), (1, ALERTS_KEPT_MAX));
    let changes = alerts.step(at(4), &lost(4..ALERTS_KEPT_MAX + 9));
    assert_eq!((changes.raised.len(), changes.cleared.len()), (2, 2));
}

/// What a random history may tell at a step: which nodes are lost, which pools are full,
/// whose retries storm; or nothing of a topic.
fn history() -> impl Strategy<Value = Vec<(u64, Facts)>> {
    let lost = proptest::option::of(proptest::collection::vec(any::<bool>(), 3));
    let pools = proptest::option::of(proptest::sample::subsequence(vec!["p1", "p2"], 0..=2));
    let storms = proptest::option::of(proptest::sample::subsequence(vec!["", "lab"], 0..=2));
    let step = (1_u64..40, lost, pools, storms).prop_map(|(pause_ms, lost, pools, storms)| {
        let state = |lost| if lost { NodeState::Lost } else { NodeState::Ready };
        let node = |(i, lost)| node(&format!("n{i}"), state(lost), 1);
        let facts = Facts {
            nodes: lost.map(|lost| lost.into_iter().enumerate().map(node).collect()),
            full_pools: pools.and_then(|pools| full(&pools).full_pools),
            storms: storms.map(|storms| storms.into_iter().map(str::to_owned).collect()),
            ..Facts::default()
        };
        (pause_ms, facts)
    });
    proptest::collection::vec(step, 1..120)
}

/// What is a cause of the three codes, straight from the facts; `None`: not known.
fn cause(facts: &Facts, code: Code, subject: &str) -> Option<bool> {
    match code {
        Code::NodeLost => {
            let nodes = facts.nodes.as_ref()?;
            Some(nodes.iter().any(|node| node.name == subject && node.state == NodeState::Lost))
        }
        Code::PoolExhausted => Some(facts.full_pools.as_ref()?.iter().any(|pool| pool.name == subject)),
        _ => Some(facts.storms.as_ref()?.iter().any(|of| of == subject.trim_start_matches('*'))),
    }
}

/// Whether an alert is on; since when its cause is there, or gone, without a break.
#[derive(Default)]
struct Model {
    on: bool,
    there: Option<u64>,
    gone: Option<u64>,
}

proptest! {
    #[test]
    fn an_alert_is_raised_once_while_its_cause_lasts_and_cleared_after(history in history()) {
        let config = Config { quiet_ms: 50, pool_exhausted_ms: 60, flaps_min: 1_000, ..Config::default() };
        let subjects = [
            (Code::NodeLost, "n0"), (Code::NodeLost, "n1"), (Code::NodeLost, "n2"),
            (Code::PoolExhausted, "p1"), (Code::PoolExhausted, "p2"),
            (Code::RetryStorm, "*"), (Code::RetryStorm, "lab"),
        ];
        let mut alerts = Alerts::new(config.clone());
        let mut model: BTreeMap<(Code, &str), Model> = BTreeMap::new();
        let mut ms = 0;
        for (pause_ms, facts) in history {
            ms += pause_ms;
            let changes = alerts.step(at(ms), &facts);
            for (code, subject) in subjects {
                let Model { on, there, gone } = model.entry((code, subject)).or_default();
                let of = |alert: &&Alert| alert.code == code && alert.subject == subject;
                let raised = changes.raised.iter().filter(of).count();
                let cleared = changes.cleared.iter().filter(of).count();
                match cause(&facts, code, subject) {
                    None => prop_assert_eq!((raised, cleared), (0, 0)),
                    Some(true) => {
                        *gone = None;
                        let since = *there.get_or_insert(ms);
                        let due = !*on && ms - since >= config.holds_for(code);
                        prop_assert_eq!((raised, cleared), (usize::from(due), 0));
                        *on |= due;
                    }
                    Some(false) => {
                        *there = None;
                        let since = *gone.get_or_insert(ms);
                        let due = *on && ms - since >= config.quiet_for(code);
                        prop_assert_eq!((raised, cleared), (0, usize::from(due)));
                        *on &= !due;
                    }
                }
                prop_assert_eq!(alerts.on().filter(of).count(), usize::from(*on));
            }
            prop_assert!(alerts.on().count() + alerts.cleared().count() <= ALERTS_KEPT_MAX);
        }
    }
}
