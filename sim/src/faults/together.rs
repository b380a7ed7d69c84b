//! Misfortunes of several faults that aim at one another. What takes two or three of
//! them at once, on one machine and in one order, chance alone hardly ever draws: a
//! lease that passes while its tasks do not heed TERM, a server that dies in the wake
//! of a node.
//!
//! Drawn from a stream of its own, so that the faults beside them stay what they are.

use super::{Fault, Planned};
use crate::scenario::Scenario;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

/// Kinds that are drawn here alone.
pub const ALONE: &[&str] =
    &["supervisor_dies_launching", "gang_burst", "server_outlived", "logs_watched", "retries_pressed"];

/// In each span of such a length.
const SPAN_MS: u64 = 120_000;
/// Always.
const SURELY_PPM: u32 = 1_000_000;

/// None, or up to three in each two minutes; with several servers often one more, of theirs.
#[must_use]
pub fn draw(seed: u64, scenario: &Scenario, until_ms: u64) -> Vec<Planned> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x746f_6765_7468_6572);
    let mut plan = Vec::new();
    if scenario.agents == 0 {
        return plan;
    }
    for span in 0..until_ms.div_ceil(SPAN_MS) {
        for _ in 0..rng.random_range(0..4) {
            let begins_ms = span * SPAN_MS + rng.random_range(2_000..SPAN_MS * 3 / 4);
            let misfortune = MISFORTUNES.choose(&mut rng).expect("not empty");
            let faults = misfortune(&mut rng, scenario);
            plan.extend(
                faults.into_iter().map(|(after_ms, fault)| Planned { at_ms: begins_ms + after_ms, fault }),
            );
        }
    }
    plan.extend(at_times(seed ^ 0x0077_6f72_6473, 0.4, until_ms, |rng| {
        if rng.random_bool(0.5) { told_again(rng, scenario) } else { words_of_the_dead(rng, scenario) }
    }));
    if scenario.servers > 1 {
        plan.extend(at_times(seed ^ 0x6f75_746c_6976_6564, 0.8, until_ms, outlived));
    }
    plan
}

/// One more in as many of the spans, of a stream of its own.
fn at_times(
    seed: u64,
    chance: f64,
    until_ms: u64,
    misfortune: impl Fn(&mut SmallRng) -> Vec<After>,
) -> Vec<Planned> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut plan = Vec::new();
    for span in 0..until_ms.div_ceil(SPAN_MS) {
        if rng.random_bool(chance) {
            let begins_ms = span * SPAN_MS + rng.random_range(8_000..SPAN_MS / 2);
            let faults = misfortune(&mut rng).into_iter();
            plan.extend(faults.map(|(after_ms, fault)| Planned { at_ms: begins_ms + after_ms, fault }));
        }
    }
    plan
}

/// When it strikes, from the misfortune's begin.
type After = (u64, Fault);

const MISFORTUNES: [fn(&mut SmallRng, &Scenario) -> Vec<After>; 8] = [
    cut_off_with_work,
    answered_late,
    most_cut_off,
    launches_lost,
    server_next,
    cancels_forgotten,
    late_words,
    syncs_forgotten,
];

/// A node is cut off for longer than its lease, while its tasks would run on, and
/// often do not heed TERM. Now and then the server's date is set right again and again
/// in the meantime.
fn cut_off_with_work(rng: &mut SmallRng, scenario: &Scenario) -> Vec<After> {
    let agent = rng.random_range(0..scenario.agents);
    let mut faults = vec![(0, Fault::TasksHang { agent, ppm: SURELY_PPM, for_ms: 90_000 })];
    if rng.random_bool(0.5) {
        faults.push((0, Fault::TasksDeaf { agent, ppm: SURELY_PPM, for_ms: 90_000 }));
    }
    let cut_ms = rng.random_range(10_000..25_000);
    faults.push((cut_ms, Fault::Partition { agent, for_ms: rng.random_range(40_000..60_000) }));
    if rng.random_bool(0.4) {
        let steps = rng.random_range(2..8);
        faults.extend((0..steps).map(|step| {
            let by_ms = rng.random_range(1_500..3_800);
            (cut_ms + 1_000 + step * 1_700, Fault::ClockForward { machine: 0, by_ms, for_ms: 60_000 })
        }));
    }
    faults
}

/// The last answers to a node come late, and then it is heard no more: what it believes
/// of its lease must not hang on when they came.
fn answered_late(rng: &mut SmallRng, scenario: &Scenario) -> Vec<After> {
    let agent = rng.random_range(0..scenario.agents);
    // Longer than the margins between the two sides, too short for the stream to be
    // given up.
    let lag_ms = rng.random_range(5_000..7_500);
    vec![
        (0, Fault::TasksHang { agent, ppm: SURELY_PPM, for_ms: 140_000 }),
        (0, Fault::TasksDeaf { agent, ppm: SURELY_PPM, for_ms: 140_000 }),
        (10_000, Fault::SlowLink { agent, lag_ms, for_ms: 110_000 }),
        (rng.random_range(12_000..22_000), Fault::RequestsLost { agent, for_ms: 100_000 }),
    ]
}

/// A switch is gone, and with it most nodes at once.
fn most_cut_off(rng: &mut SmallRng, scenario: &Scenario) -> Vec<After> {
    let for_ms = *[4_000, 15_000, 25_000, 50_000, 95_000].choose(rng).expect("not empty");
    let mut agents: Vec<usize> = (0..scenario.agents).collect();
    agents.shuffle(rng);
    agents.truncate(rng.random_range(scenario.agents / 2 + 1..=scenario.agents));
    agents.into_iter().map(|agent| (0, Fault::Partition { agent, for_ms })).collect()
}

/// A supervisor dies under launches, which start late at the next one.
fn launches_lost(rng: &mut SmallRng, scenario: &Scenario) -> Vec<After> {
    let agent = rng.random_range(0..scenario.agents);
    let mut faults = vec![(0, Fault::SubmissionBurst { jobs: rng.random_range(10..40) })];
    if rng.random_bool(0.7) {
        faults.push((0, Fault::SlowStarts { agent, ppm: SURELY_PPM, for_ms: 30_000 }));
    }
    let times = rng.random_range(1..4);
    faults.extend((0..times).map(|time| {
        let launches_before = rng.random_range(0..4);
        (time * 6_000, Fault::SupervisorDiesLaunching { agent, launches_before, for_ms: 30_000 })
    }));
    faults
}

/// A node is gone, and before anything was made of that so is the server.
fn server_next(rng: &mut SmallRng, scenario: &Scenario) -> Vec<After> {
    let agent = rng.random_range(0..scenario.agents);
    let node = match rng.random_range(0..3) {
        0 => Fault::MachinePowerLoss { agent, down_ms: 45_000 },
        1 => Fault::Partition { agent, for_ms: 70_000 },
        _ => Fault::MachineGone { agent },
    };
    vec![(0, node), (rng.random_range(100..40_000), server_dies(rng))]
}

/// Jobs are cancelled, and the server that took the cancels is gone.
fn cancels_forgotten(rng: &mut SmallRng, scenario: &Scenario) -> Vec<After> {
    let agent = rng.random_range(0..scenario.agents);
    let mut faults = vec![
        (0, Fault::CancelRace { jobs: rng.random_range(5..25) }),
        (rng.random_range(50..2_500), server_dies(rng)),
    ];
    if rng.random_bool(0.5) {
        faults.push((0, Fault::TasksDeaf { agent, ppm: SURELY_PPM, for_ms: 20_000 }));
    }
    faults
}

/// An agent's session ends, and it is back, while what was said is still under way: ends
/// are told once more, to who has heard of them.
fn late_words(rng: &mut SmallRng, scenario: &Scenario) -> Vec<After> {
    let agent = rng.random_range(0..scenario.agents);
    let lag_ms = *[300, 900, 2_500].choose(rng).expect("not empty");
    let mut faults = vec![
        (0, Fault::SlowLink { agent, lag_ms, for_ms: 22_000 }),
        (200, Fault::SubmissionBurst { jobs: rng.random_range(10..60) }),
    ];
    for _ in 0..rng.random_range(1..4) {
        let down_ms = *[100, 300, 1_500].choose(rng).expect("not empty");
        let ended = if rng.random_bool(0.5) {
            Fault::HalfOpen { agent }
        } else {
            Fault::AgentKilled { agent, down_ms }
        };
        faults.push((rng.random_range(600..7_000), ended));
    }
    // What ended under way lives again, under another epoch, when the word comes.
    if rng.random_bool(0.6) {
        faults.push((500, Fault::RetryRace { jobs: rng.random_range(5..20) }));
    }
    // Of what could not be launched a new agent knows nothing.
    if rng.random_bool(0.5) {
        faults.push((0, Fault::LaunchesFail { agent, ppm: 500_000, for_ms: 8_000 }));
    }
    // Ranks that have ended are of gangs that live on with others.
    if rng.random_bool(0.6) {
        faults.push((500, Fault::GangBurst { jobs: rng.random_range(5..20) }));
        faults.extend(
            (0..scenario.agents.min(16))
                .map(|agent| (0, Fault::TasksHang { agent, ppm: 400_000, for_ms: 20_000 })),
        );
    }
    faults
}

/// An agent is heard and hears nothing while its tasks end, and then it is killed. Its
/// successor tells those ends once more: the tasks are tried again meanwhile, as users
/// wished, and attempts have the same numbers as before. On the same node, since no
/// other takes work.
fn told_again(rng: &mut SmallRng, scenario: &Scenario) -> Vec<After> {
    let agent = rng.random_range(0..scenario.agents);
    let others = (0..scenario.agents.min(8)).filter(|other| *other != agent);
    let mut faults: Vec<After> =
        others.map(|agent| (0, Fault::NodeDrained { agent, for_ms: 16_000 })).collect();
    for time in 0..3 {
        let begins_ms = 500 + time * 5_000;
        let deaf_ms = begins_ms + rng.random_range(120..350);
        faults.push((begins_ms, Fault::RetriesPressed { jobs: rng.random_range(6..16) }));
        faults.push((deaf_ms, Fault::RepliesLost { agent, for_ms: rng.random_range(1_200..2_500) }));
        let killed_ms = deaf_ms + rng.random_range(400..1_100);
        faults.push((killed_ms, Fault::AgentKilled { agent, down_ms: 100 }));
    }
    faults
}

/// Launches fail on an agent that is not heard for a while, and then it is killed. Its
/// successor, for whom they succeed, is heard before the words that were held back.
fn words_of_the_dead(rng: &mut SmallRng, scenario: &Scenario) -> Vec<After> {
    let agent = rng.random_range(0..scenario.agents);
    // What is held back is tried again at growing intervals, the last of them about as
    // long as all before it: so there is time for another connection.
    let unheard_ms = rng.random_range(2_150..3_000);
    vec![
        (0, Fault::RequestsLost { agent, for_ms: unheard_ms }),
        (0, Fault::LaunchesFail { agent, ppm: SURELY_PPM, for_ms: 1_500 }),
        (0, Fault::TasksHang { agent, ppm: SURELY_PPM, for_ms: 9_000 }),
        (20, Fault::SubmissionBurst { jobs: rng.random_range(10..30) }),
        (1_600, Fault::AgentKilled { agent, down_ms: unheard_ms - 1_500 }),
    ]
}

/// Syncs of the server's disk fail and forget what they were to make durable. What was
/// read of it since then must not hang on that when the power goes, soon after the
/// server is back.
fn syncs_forgotten(rng: &mut SmallRng, _: &Scenario) -> Vec<After> {
    let forgets = rng.random_bool(0.8);
    vec![
        (0, Fault::SubmissionBurst { jobs: rng.random_range(20..80) }),
        (rng.random_range(20..400), Fault::SyncErrors { machine: 0, ppm: SURELY_PPM, forgets, for_ms: 300 }),
        (rng.random_range(1_900..6_000), Fault::ServerPowerLoss { machine: 0, down_ms: 1_500 }),
    ]
}

/// A server wakes when another has its place, and does not know it: it hears what was
/// said to it meanwhile, by clients and by agents that had not yet gone elsewhere. Work
/// that writes is under way, and is looked at through both.
fn outlived(rng: &mut SmallRng) -> Vec<After> {
    let lag_ms = *[50, 150, 400, 1_000].choose(rng).expect("not empty");
    let after_ms = *[0, 200, 600, 1_500, 5_000].choose(rng).expect("not empty");
    let jobs = rng.random_range(2..6);
    let mut faults = vec![
        (0, Fault::LogsWatched { jobs, for_ms: 30_000 }),
        (1_000, Fault::ServerOutlived { lag_ms, after_ms, for_ms: 30_000 }),
    ];
    for _ in 0..4 {
        let jobs = rng.random_range(3..8);
        let race = if rng.random_bool(0.5) { Fault::RetryRace { jobs } } else { Fault::CancelRace { jobs } };
        faults.push((rng.random_range(7_000..16_000), race));
    }
    faults
}

fn server_dies(rng: &mut SmallRng) -> Fault {
    let down_ms = *[300, 1_500, 6_000].choose(rng).expect("not empty");
    if rng.random_bool(0.5) {
        Fault::ServerKilled { machine: 0, down_ms }
    } else {
        Fault::ServerPowerLoss { machine: 0, down_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_misfortune_is_drawn_for_machines_that_there_are() {
        let chaos = crate::scenario::named("chaos").unwrap();
        let one = Scenario { agents: 1, agents_min: 1, ..chaos };
        for (scenario, until_ms) in [(chaos, 120_000), (one, 120_000), (chaos, 3_600_000)] {
            let plan: Vec<Planned> = (1..60).flat_map(|seed| draw(seed, &scenario, until_ms)).collect();
            for planned in &plan {
                assert!(planned.fault.machine() <= scenario.agents, "{planned:?}");
            }
            for kind in ALONE {
                assert!(plan.iter().any(|planned| planned.fault.kind() == *kind));
            }
        }
    }
}
