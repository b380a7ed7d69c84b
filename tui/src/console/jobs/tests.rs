//! The list under any order of reads, events, filters and moves.

use super::*;
use proptest::prelude::*;

const STATES: [State; 4] = [State::Pending, State::Running, State::Completed, State::Failed];

fn job(number: u64, state: State) -> Job {
    Job {
        tenant: 0,
        number,
        name: format!("job {}", number % 7),
        state,
        submitted_ms: number * 10,
        started_ms: 0,
        ended_ms: 0,
        priority: 0,
        tasks: 1,
        over: 0,
        failed: 0,
        stale: false,
    }
}

fn jobs(numbers: impl IntoIterator<Item = u64>, height: usize) -> Jobs {
    let mut jobs = Jobs::default();
    jobs.tenant("lab");
    jobs.set_height(height);
    jobs.put(numbers.into_iter().map(|number| job(number, State::Pending)).collect());
    jobs
}

fn shown(jobs: &Jobs) -> Vec<u64> {
    jobs.visible().map(|job| job.number).collect()
}

#[test]
fn newest_are_first_and_pages_come_in_any_order() {
    let mut list = jobs(50..60, 4);
    list.put((20..30).map(|number| job(number, State::Completed)).collect());
    list.put((70..72).map(|number| job(number, State::Running)).collect());
    list.put((30..50).map(|number| job(number, State::Pending)).collect());
    list.check();
    assert_eq!((list.len(), list.count(State::Pending), list.count(State::Running)), (42, 30, 2));
    list.go(Move::Home);
    assert_eq!(shown(&list), [71, 70, 59, 58]);
    list.go(Move::End);
    assert_eq!(shown(&list), [23, 22, 21, 20]);
}

#[test]
fn the_cursor_stays_with_its_job() {
    let mut list = jobs(1..=100, 10);
    for _ in 0..30 {
        list.go(Move::Down);
    }
    assert_eq!(list.selected().unwrap().number, 70);
    let before = shown(&list);
    list.put((101..=150).map(|number| job(number, State::Pending)).collect());
    assert_eq!((list.selected().unwrap().number, shown(&list)), (70, before));
    // Filtered out, it leaves the cursor where it was; back, it has it again.
    list.set_filter(Filter { text: "JOB 3".into(), state: None });
    assert_eq!(list.selected().unwrap().number, 66);
    list.set_filter(Filter::default());
    assert_eq!(list.selected().unwrap().number, 70);
    list.check();
}

#[test]
fn a_state_filter_follows_what_happens() {
    let mut list = jobs(1..=5, 10);
    list.set_filter(Filter { state: Some(State::Running), ..Filter::default() });
    assert_eq!(list.rows(), 0);
    let changed = list.happened((0, 3), Some((State::Pending, State::Running)), 500).unwrap();
    assert_eq!((changed, shown(&list)), (Changed { rows: true, counts: true }, vec![3]));
    list.happened((0, 3), Some((State::Running, State::Failed)), 600).unwrap();
    assert_eq!((list.rows(), list.count(State::Failed)), (0, 1));
    let job = list.get((0, 3)).unwrap();
    assert_eq!((job.started_ms, job.ended_ms), (500, 600));
    list.check();
}

#[test]
fn edges_that_were_already_read_pass_by() {
    let mut list = jobs([], 10);
    list.put(vec![job(1, State::Running)]);
    // The job was read in its second life; its first is told only now.
    for edge in [
        (State::Pending, State::Running),
        (State::Running, State::Failed),
        (State::Failed, State::Pending),
        (State::Pending, State::Running),
    ] {
        list.happened((0, 1), Some(edge), 7).unwrap();
    }
    assert_eq!(list.get((0, 1)).unwrap().state, State::Running);
    assert_eq!(list.happened((0, 9), None, 7), None);
}

#[test]
fn a_read_that_was_overtaken_brings_its_counts_only() {
    let mut list = jobs([1], 10);
    list.happened((0, 1), Some((State::Pending, State::Running)), 7);
    assert_eq!(list.take_stale(), [JobId::new("lab", 1)]);
    assert!(list.take_stale().is_empty());
    list.happened((0, 1), Some((State::Running, State::Completed)), 8);
    let changed = list.put(vec![Job { over: 1, tasks: 2, ..job(1, State::Running) }]);
    let known = list.get((0, 1)).unwrap();
    assert_eq!((known.state, known.over, known.stale, changed.rows), (State::Completed, 1, true, true));
    // Asked again, nothing in between: all of it counts, and nothing is new.
    assert_eq!(list.take_stale().len(), 1);
    let same = list.get((0, 1)).unwrap().clone();
    assert_eq!(list.put(vec![same]), Changed::default());
}

#[test]
fn what_is_outside_the_window_changes_no_row() {
    let mut list = jobs(1..=100, 10);
    let changed = list.happened((0, 5), Some((State::Pending, State::Running)), 7).unwrap();
    assert_eq!(changed, Changed { rows: false, counts: true });
    let changed = list.happened((0, 95), Some((State::Pending, State::Running)), 7).unwrap();
    assert!(changed.rows);
    // A task's change is no change of the row until it is read again.
    assert_eq!(list.happened((0, 95), None, 8), Some(Changed::default()));
}

#[test]
fn of_too_many_the_newest_are_held() {
    let most = JOBS_HELD_MAX as u64;
    let mut list = jobs(1..=most, 10);
    list.set_filter(Filter { text: "job 1".into(), state: None });
    list.go(Move::End);
    list.put((most + 1..most + 10).map(|number| job(number, State::Pending)).collect());
    assert_eq!((list.len(), list.get((0, 9)), list.get((0, 10)).is_some()), (JOBS_HELD_MAX, None, true));
    list.check();
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<(u64, usize)>),
    Happened(u64, usize, usize),
    Filter(String, Option<usize>),
    Height(usize),
    Go(Move),
    Stale,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        prop::collection::vec((1_u64..60, 0_usize..4), 0..20).prop_map(Step::Put),
        (1_u64..60, 0_usize..4, 0_usize..4).prop_map(|(number, from, to)| Step::Happened(number, from, to)),
        ("(|job 1|lab-1|3)", prop::option::of(0_usize..4))
            .prop_map(|(text, state)| Step::Filter(text, state)),
        (0_usize..20).prop_map(Step::Height),
        prop::sample::select(vec![Move::Up, Move::Down, Move::PageUp, Move::PageDown, Move::Home, Move::End])
            .prop_map(Step::Go),
        Just(Step::Stale),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_list_is_whole(steps in prop::collection::vec(step(), 1..60)) {
        let mut list = jobs([], 5);
        for step in steps {
            match step {
                Step::Put(read) => {
                    list.put(read.into_iter().map(|(number, state)| job(number, STATES[state])).collect());
                }
                Step::Happened(number, from, to) => {
                    list.happened((0, number), Some((STATES[from], STATES[to])), 9);
                }
                Step::Filter(text, state) => {
                    list.set_filter(Filter { text, state: state.map(|state| STATES[state]) });
                }
                Step::Height(height) => list.set_height(height),
                Step::Go(to) => list.go(to),
                Step::Stale => { list.take_stale(); }
            }
            list.check();
        }
    }
}
