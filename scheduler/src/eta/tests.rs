//! Starts told by hand, and against a replay that goes millisecond by
//! millisecond and unit by unit.

use super::*;
use proptest::prelude::*;

const MANY: u64 = 1_000_000;

fn cores(cores: u64) -> Amount {
    Amount { millicores: cores * 1000, ..Amount::default() }
}

fn step(job_number: u64) -> DemandKey {
    DemandKey { tenant: "lab".into(), job_number, step: 0 }
}

fn node(capacity: u64, held: &[(u64, u64, Option<u64>)]) -> NodeNow {
    let holder = |&(job, amount, ends_in_ms): &(u64, u64, Option<u64>)| Holder {
        step: step(job),
        amount: cores(amount),
        ends_in_ms,
        ..Holder::default()
    };
    NodeNow { capacity: cores(capacity), open: true, holders: held.iter().map(holder).collect() }
}

fn queued(job: u64, unit: u64, count: u64, runtime_ms: Option<u64>, hosts: &[usize]) -> Queued {
    let hosts = hosts.into();
    Queued { step: step(job), unit: cores(unit), gang_nodes: 0, alone: false, count, runtime_ms, hosts }
}

fn ask(unit: u64, nodes: usize) -> Ask {
    Ask { unit: cores(unit), nodes, alone: false }
}

#[test]
fn room_is_told_at_once_and_else_when_it_comes() {
    let nodes = vec![node(4, &[(1, 4, Some(500))]), node(4, &[(2, 3, Some(900))])];
    let profile = Profile { nodes, ..Profile::default() };
    let start = |unit, nodes| when(&profile, ask(unit, nodes), MANY).start_in_ms;
    assert_eq!(
        (start(1, 1), start(2, 1), start(1, 2), start(4, 2)),
        (Some(0), Some(500), Some(500), Some(900))
    );
    let told = when(&profile, ask(1, 1), MANY).assumption;
    assert!(told.starts_with("nothing is queued before it; work ends after its expected runtime"), "{told}");
}

#[test]
fn what_is_queued_goes_first() {
    let nodes = vec![node(4, &[(1, 4, Some(500))])];
    let queue = vec![queued(2, 2, 5, Some(100), &[0])];
    let profile = Profile { nodes, queue, ..Profile::default() };
    let told = when(&profile, ask(4, 1), MANY);
    assert_eq!(told.start_in_ms, Some(800), "{}", told.assumption);
    assert!(
        told.assumption.starts_with("in the order of the queue, 1 step before it"),
        "{}",
        told.assumption
    );
    assert_eq!(when(&profile, ask(2, 1), MANY).start_in_ms, Some(700), "beside the last of them");
}

#[test]
fn what_never_fits_and_what_has_no_known_end_is_named() {
    let nodes = vec![node(4, &[(7, 4, None)]), NodeNow { open: false, ..node(8, &[]) }];
    let mut profile = Profile { nodes, ..Profile::default() };
    let why = |profile: &Profile, unit, nodes| {
        let told = when(profile, ask(unit, nodes), MANY);
        assert_eq!(told.start_in_ms, None);
        told.assumption
    };
    let text = why(&profile, 9, 1);
    assert!(text.starts_with("0 of 1 nodes are large enough, even when idle, for 9 cores"), "{text}");
    let text = why(&profile, 8, 1);
    assert!(text.starts_with("0 of 1 nodes that could hold it are in service"), "{text}");
    let text = why(&profile, 1, 1);
    assert!(text.starts_with("it waits for work whose end is not known (lab-7)"), "{text}");
    profile.queue = vec![queued(9, 2, 1, Some(5), &[0])];
    let text = why(&profile, 1, 1);
    assert!(text.starts_with("lab-9, which is queued before it, waits"), "{text}");
    // One that no node in service could hold keeps nobody.
    profile.queue = vec![queued(9, 2, 1, Some(5), &[])];
    profile.nodes[0].holders.clear();
    assert_eq!(when(&profile, ask(1, 1), MANY).start_in_ms, Some(0));
}

#[test]
fn limits_that_are_met_are_told() {
    let queue = vec![queued(2, 4, 1000, Some(10), &[0])];
    let mut profile = Profile { nodes: vec![node(4, &[])], queue, ..Profile::default() };
    assert_eq!(when(&profile, ask(1, 1), MANY).start_in_ms, Some(10_000));
    let told = when(&profile, ask(1, 1), 100);
    assert!(
        told.start_in_ms.is_none() && told.assumption.contains("too long to plan"),
        "{}",
        told.assumption
    );
    (profile.queue_unseen, profile.at_limit, profile.holders_unseen) = (3, 4, 5);
    let told = when(&profile, ask(1, 1), MANY).assumption;
    for part in ["the first 1 steps of the queue were looked at, not 3 more", "4 steps queued", "ends of 5"] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn an_end_is_the_expected_one_else_the_limit() {
    let end = |now_ms, expected_ms, limit_ms| {
        let mut holder = Holder { granted_ms: 1_000, feed_until_ms: 3_000, ..Holder::default() };
        holder.set_end(now_ms, expected_ms, limit_ms);
        holder.ends_in_ms
    };
    assert_eq!(end(1_500, 60_000, 0), Some(59_500));
    assert_eq!(end(1_500, 60_000, 10_000), Some(9_500), "it is ended at its limit");
    assert_eq!(end(1_500, 0, 10_000), Some(9_500));
    assert_eq!(end(1_500, 0, 0), None);
    assert_eq!(end(1_500, 100, 0), Some(1_600), "short tasks follow one another");
    assert_eq!(end(7_000, 5_000, 10_000), Some(4_000), "it runs longer than expected");
    assert_eq!(end(7_000, 5_000, 0), None);
    assert_eq!(end(20_000, 5_000, 10_000), None);
}

/// Unit, alone, nodes at once, how often, how long, where.
type InLine = (Amount, bool, usize, u64, Option<u64>, Vec<usize>);

/// The same question, answered by brute force.
fn replayed(profile: &Profile, ask: Ask) -> Option<u64> {
    let hosts = |unit: Amount| {
        let fits = move |node: &NodeNow| node.open && unit.fits_in(node.capacity);
        (0..profile.nodes.len()).filter(move |&at| fits(&profile.nodes[at])).collect::<Vec<_>>()
    };
    let mut line: Vec<InLine> = profile
        .queue
        .iter()
        .filter(|queued| queued.hosts.len() >= queued.gang_nodes.max(1))
        .map(|q| (q.unit, q.alone, q.gang_nodes.max(1), q.count, q.runtime_ms, q.hosts.to_vec()))
        .collect();
    // The request is the last.
    line.push((ask.unit, ask.alone, ask.nodes, 1, None, hosts(ask.unit)));
    let mut held: Vec<(usize, Amount, Option<u64>)> = Vec::new();
    for (at, node) in profile.nodes.iter().enumerate() {
        held.extend(node.holders.iter().map(|holder| (at, holder.amount, holder.ends_in_ms)));
    }
    for now_ms in 0..1_000 {
        held.retain(|(_, _, end_ms)| *end_ms != Some(now_ms));
        while let Some((unit, alone, nodes, count, runtime_ms, hosts)) = line.first_mut() {
            let mut chosen: Vec<usize> = Vec::new();
            while chosen.len() < *nodes {
                let free = |at: usize| {
                    let of = held.iter().filter(|(on, _, _)| *on == at);
                    of.fold(profile.nodes[at].capacity, |free, (_, amount, _)| free.minus(*amount))
                };
                let idle = |at: usize| free(at) == profile.nodes[at].capacity;
                let right = |at: usize| unit.fits_in(free(at)) && (!*alone || idle(at));
                let open = hosts.iter().copied().filter(|&at| !chosen.contains(&at) && right(at));
                let best = open.min_by_key(|&at| {
                    let free = free(at);
                    (free.gpus, free.millicores, free.memory_bytes, at)
                });
                match best {
                    Some(at) => chosen.push(at),
                    None => break,
                }
            }
            if chosen.len() < *nodes {
                break;
            }
            held.extend(chosen.into_iter().map(|at| {
                let amount = if *alone { profile.nodes[at].capacity } else { *unit };
                (at, amount, runtime_ms.map(|span_ms| now_ms + span_ms))
            }));
            *count -= 1;
            if *count == 0 {
                line.remove(0);
            }
        }
        if line.is_empty() {
            return Some(now_ms);
        }
    }
    None
}

fn amount() -> impl Strategy<Value = Amount> {
    (1..4_u64, 0..4_u64, 0..2_u64).prop_map(|(cores, memory_bytes, gpus)| Amount {
        millicores: cores * 1000,
        memory_bytes,
        gpus,
    })
}

fn span_ms() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![9 => (1..20_u64).prop_map(Some), 1 => Just(None)]
}

fn some_node() -> impl Strategy<Value = NodeNow> {
    let capacity = (1..7_u64, 0..7_u64, 0..3_u64);
    let held = prop::collection::vec((amount(), span_ms()), 0..4);
    (capacity, held, prop::bool::weighted(0.9)).prop_map(|((cores, memory_bytes, gpus), held, open)| {
        let capacity = Amount { millicores: cores * 1000, memory_bytes, gpus };
        let mut free = capacity;
        let mut holders = Vec::new();
        for (amount, ends_in_ms) in held {
            if amount.fits_in(free) {
                free = free.minus(amount);
                holders.push(Holder { step: step(1), amount, ends_in_ms, ..Holder::default() });
            }
        }
        NodeNow { capacity, open, holders }
    })
}

/// Unit, nodes of a gang and whether these are whole ones, slots, runtime, which nodes are
/// right for it.
type Wish = (Amount, (usize, bool), u64, Option<u64>, [bool; 4]);

fn profile_of(nodes: Vec<NodeNow>, wishes: Vec<Wish>) -> Profile {
    let queue = wishes
        .into_iter()
        .zip(10..)
        .map(|((unit, (gang_nodes, alone), slots, runtime_ms, right), job)| {
            let may = |at: &usize| right[*at] && nodes[*at].open && unit.fits_in(nodes[*at].capacity);
            let hosts = (0..nodes.len()).filter(may).collect();
            let count = if gang_nodes > 0 { 1 } else { slots };
            Queued { step: step(job), unit, gang_nodes, alone, count, runtime_ms, hosts }
        })
        .collect();
    Profile { nodes, queue, ..Profile::default() }
}

proptest! {
    #[test]
    fn it_starts_when_a_replay_would_start_it(
        nodes in prop::collection::vec(some_node(), 1..4),
        wishes in prop::collection::vec(
            (
                amount(),
                (0..3_usize, prop::bool::weighted(0.3)),
                1..6_u64,
                span_ms(),
                prop::array::uniform4(prop::bool::weighted(0.8)),
            ),
            0..5,
        ),
        unit in amount(),
        wanted in 1..3_usize,
        alone in prop::bool::weighted(0.3),
    ) {
        let profile = profile_of(nodes, wishes);
        let ask = Ask { unit, nodes: wanted, alone };
        let told = when(&profile, ask, MANY);
        prop_assert_eq!(told.start_in_ms, replayed(&profile, ask), "{}", told.assumption);
    }
}
