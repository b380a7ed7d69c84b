//! A pool with its nodes, its work and its driver, none of which can be trusted.

use super::*;
use proptest::prelude::*;

const RULES: Rules = Rules {
    min: 1,
    max: 4,
    paid_max: 4,
    queued_ms: 2_000,
    idle_ms: 10_000,
    cooldown_ms: 5_000,
    arrive_ms: 60_000,
};

/// A row of a node, with its work.
#[derive(Clone, Debug)]
struct Row {
    state: NodeState,
    drained: bool,
    drainer: Drainer,
    work: u32,
}

/// What becomes of an ask.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Of so many of its nodes, and told.
    Done(usize),
    /// Of so many, and nobody is told.
    Lost(usize),
    /// Nothing, and that is told.
    Refused,
    /// Nothing, and it is told as done.
    Lie,
    /// All, and it is told as nothing.
    Denied,
    /// The answer is about something else.
    Odd,
}

#[derive(Clone, Debug)]
enum Op {
    /// Time passes, and a look; after so many of its actions the server dies.
    Look(u64, Option<usize>),
    Answer(Deed),
    /// An ask of a server that died is carried out at last.
    Orphan,
    /// Machines register.
    Arrive,
    Submit(u32),
    /// Machines of which nothing was heard yet never will be.
    Hang,
    /// Of the node at this place.
    Finish(usize),
    Lose(usize),
    Hear(usize),
    Operator(usize, bool),
    Restart,
}

struct Cluster {
    now: Now,
    rules: Rules,
    kept: ScaleRow,
    pool: Pool,
    rows: BTreeMap<String, Row>,
    /// What the driver has running.
    machines: BTreeSet<String>,
    /// Of these, those that hang where they start.
    hung: BTreeSet<String>,
    asked: Option<Ask>,
    orphans: Vec<Ask>,
    waiting: u32,
    /// Drained by an operator.
    theirs: BTreeSet<String>,
}

impl Cluster {
    fn new(rules: Rules) -> Self {
        Self {
            now: Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 },
            pool: Pool::new("p", rules.clone(), ScaleRow::default()),
            rules,
            kept: ScaleRow::default(),
            rows: BTreeMap::new(),
            machines: BTreeSet::new(),
            hung: BTreeSet::new(),
            asked: None,
            orphans: Vec::new(),
            waiting: 0,
            theirs: BTreeSet::new(),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
    }

    fn place(&mut self) {
        for row in self.rows.values_mut() {
            if !row.drained && row.state == NodeState::Ready && row.work == 0 && self.waiting > 0 {
                row.work = 1;
                self.waiting -= 1;
            }
        }
    }

    fn facts(&self) -> Facts {
        let node = |(name, row): (&String, &Row)| NodeFact {
            name: name.clone(),
            state: row.state,
            drained: row.drained,
            drainer: row.drainer,
            idle: row.work == 0,
        };
        Facts { nodes: self.rows.iter().map(node).collect(), further: self.waiting.into() }
    }

    fn working(&self) -> usize {
        self.rows.values().filter(|row| !row.drained && row.state != NodeState::Lost).count()
    }

    /// What it did, in words; what the server was to do after its death is not done.
    fn look(&mut self, dies_after: Option<usize>) -> Vec<String> {
        self.place();
        let facts = self.facts();
        let actions = self.pool.step(self.now, Event::Look(facts));
        self.carry_out(actions, dies_after)
    }

    fn carry_out(&mut self, actions: Vec<Action>, dies_after: Option<usize>) -> Vec<String> {
        let mut told = Vec::new();
        for (at, action) in actions.into_iter().enumerate() {
            if dies_after == Some(at) {
                self.restart();
                return told;
            }
            told.extend(self.act(action));
        }
        told
    }

    /// As the controller and the store do it.
    fn act(&mut self, action: Action) -> Option<String> {
        match action {
            Action::Drain(name, _) => {
                let row = self.rows.get_mut(&name).filter(|row| !row.drained)?;
                (row.drained, row.drainer) = (true, Drainer::Autoscaler);
                Some(format!("drain {name}"))
            }
            Action::Resume(name) => {
                let row = self.rows.get_mut(&name).filter(|row| row.drainer == Drainer::Autoscaler)?;
                (row.drained, row.drainer) = (false, Drainer::Unspecified);
                Some(format!("resume {name}"))
            }
            Action::Retire(name, _) => {
                let working = self.working();
                match self.rows.get_mut(&name) {
                    Some(row) if row.drainer != Drainer::Autoscaler || row.work > 0 => return None,
                    Some(row) => {
                        row.drainer = Drainer::Removal;
                        let lost = row.state == NodeState::Lost;
                        assert!(lost || working >= self.rules.min as usize, "{name} is needed");
                    }
                    None => {
                        let row =
                            Row { state: NodeState::Lost, drained: true, drainer: Drainer::Removal, work: 0 };
                        self.rows.insert(name.clone(), row);
                    }
                }
                Some(format!("retire {name}"))
            }
            Action::Forget(name) => {
                if self.rows.get(&name).is_some_and(|row| row.drainer == Drainer::Removal) {
                    self.rows.remove(&name);
                }
                Some(format!("forget {name}"))
            }
            Action::Keep(row) => {
                let grows = row.last_number > self.kept.last_number;
                self.kept = row;
                if grows {
                    self.check_bounds();
                }
                None
            }
            Action::Ask(ask) => {
                self.check_ask(&ask);
                let told = format!("{:?} {}", ask.verb, ask.nodes.join(" ")).to_lowercase();
                assert!(self.asked.replace(ask).is_none(), "one at a time");
                Some(told)
            }
        }
    }

    /// Of nodes that may be there, when further ones were given a name.
    fn check_bounds(&self) {
        let asked = self.kept.asked.iter().map(|node| self.pool.node_name(node.number));
        let ours = self.rows.keys().filter(|name| name.starts_with("p-auto-")).cloned();
        let paid = asked.chain(ours).collect::<BTreeSet<_>>().len();
        let live =
            |(name, row): &(&String, &Row)| !name.starts_with("p-auto-") && row.state != NodeState::Lost;
        let others = self.rows.iter().filter(live).count();
        assert!(paid <= self.rules.paid_max as usize, "{paid} nodes are paid");
        assert!(paid + others <= self.rules.max as usize, "{paid} and {others} are more than max");
    }

    fn check_ask(&self, ask: &Ask) {
        let asked: BTreeSet<String> =
            self.kept.asked.iter().map(|node| self.pool.node_name(node.number)).collect();
        match ask.verb {
            Verb::Add => {
                assert!(ask.nodes.iter().all(|name| asked.contains(name)), "{ask:?} is not in the row");
            }
            Verb::Remove => {
                for name in &ask.nodes {
                    let row = &self.rows[name];
                    assert!(row.drainer == Drainer::Removal && row.work == 0, "{name} is {row:?}");
                }
            }
        }
    }

    /// The driver does it for the first so many.
    fn deed(&mut self, ask: &Ask, of: usize) -> Vec<String> {
        let done: Vec<String> = ask.nodes.iter().take(of).cloned().collect();
        for name in &done {
            match ask.verb {
                Verb::Add => {
                    self.machines.insert(name.clone());
                    // One that comes although nobody asks for it any more is known if it is heard.
                    if !self.kept.asked.iter().any(|node| self.pool.node_name(node.number) == *name) {
                        self.hung.remove(name);
                    }
                }
                Verb::Remove => {
                    assert!(self.rows.get(name).is_none_or(|row| row.work == 0), "{name} has work");
                    self.machines.remove(name);
                }
            }
        }
        done
    }

    fn answer(&mut self, deed: Deed) -> Vec<String> {
        let Some(ask) = self.asked.take() else { return Vec::new() };
        let answer = match deed {
            Deed::Done(of) => Answer::Done(self.deed(&ask, of)),
            Deed::Lost(of) => {
                self.deed(&ask, of);
                Answer::Unknown("silence".into())
            }
            Deed::Refused => Answer::Refused("no quota".into()),
            Deed::Lie => {
                // Nor of one that is said to be gone.
                self.hung.retain(|name| !ask.nodes.contains(name));
                Answer::Done(ask.nodes)
            }
            Deed::Denied => {
                self.deed(&ask, usize::MAX);
                self.hung.retain(|name| !ask.nodes.contains(name));
                Answer::Refused("no quota".into())
            }
            Deed::Odd => Answer::Done(vec!["n7".into()]),
        };
        let actions = self.pool.step(self.now, Event::Answered(answer));
        self.carry_out(actions, None)
    }

    /// Machines whose nodes nobody knows, or takes for lost, are heard.
    fn arrive(&mut self) {
        for name in self.machines.difference(&self.hung) {
            let fresh =
                Row { state: NodeState::Ready, drained: false, drainer: Drainer::Unspecified, work: 0 };
            self.rows.entry(name.clone()).or_insert(fresh).state = NodeState::Ready;
        }
    }

    fn restart(&mut self) {
        self.pool = Pool::new("p", self.rules.clone(), self.kept.clone());
        self.orphans.extend(self.asked.take());
        self.pass(3_000);
    }

    fn at(&mut self, place: usize) -> Option<(&String, &mut Row)> {
        let count = self.rows.len().max(1);
        self.rows.iter_mut().nth(place % count)
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Look(ms, dies_after) => {
                self.pass(ms);
                self.look(dies_after);
            }
            Op::Answer(deed) => _ = self.answer(deed),
            Op::Orphan => {
                if let Some(ask) = self.orphans.pop() {
                    self.deed(&ask, usize::MAX);
                }
            }
            Op::Arrive => self.arrive(),
            Op::Hang => {
                // Of one that nobody asked for any more nobody can know.
                let asked = self.kept.asked.iter().map(|node| self.pool.node_name(node.number));
                let unheard = |name: &String| self.machines.contains(name) && !self.rows.contains_key(name);
                self.hung.extend(asked.filter(unheard).collect::<Vec<_>>());
            }
            Op::Submit(work) => self.waiting += work,
            Op::Finish(place) => _ = self.at(place).map(|(_, row)| row.work = 0),
            Op::Lose(place) => {
                let Some((name, row)) = self.at(place) else { return };
                row.state = NodeState::Lost;
                let (name, work) = (name.clone(), std::mem::take(&mut row.work));
                self.waiting += work;
                self.machines.remove(&name);
            }
            Op::Hear(place) => {
                let machines = self.machines.clone();
                if let Some((name, row)) = self.at(place)
                    && machines.contains(name)
                {
                    row.state = NodeState::Suspect;
                }
            }
            Op::Operator(place, drained) => {
                let Some((name, row)) = self.at(place).filter(|(_, row)| row.drainer != Drainer::Removal)
                else {
                    return;
                };
                (row.drained, row.drainer) = (drained, Drainer::Unspecified);
                let name = name.clone();
                if drained {
                    self.theirs.insert(name)
                } else {
                    self.theirs.remove(&name)
                };
            }
            Op::Restart => self.restart(),
        }
        self.theirs.retain(|name| self.rows.contains_key(name));
        for name in &self.theirs {
            let row = &self.rows[name];
            assert!(row.drained && row.drainer == Drainer::Unspecified, "{name} is an operator's: {row:?}");
        }
    }

    /// All is well from now on, and there is no more work: how it ends.
    fn calm_down(&mut self) {
        for name in std::mem::take(&mut self.theirs) {
            self.rows.get_mut(&name).unwrap().drained = false;
        }
        // A name is not given twice, so one that is removed late is gone already: but where it
        // was said to be gone and was not, it may have work again.
        self.orphans.retain(|ask| ask.verb == Verb::Add);
        while let Some(ask) = self.orphans.pop() {
            self.deed(&ask, usize::MAX);
        }
        for _ in 0..600 {
            self.pass(5_000);
            self.arrive();
            self.place();
            for row in self.rows.values_mut() {
                row.work = 0;
            }
            self.look(None);
            self.answer(Deed::Done(usize::MAX));
        }
    }
}

fn ops() -> impl Strategy<Value = Op> {
    let deed = prop_oneof![
        4 => (0..5_usize).prop_map(Deed::Done),
        2 => (0..5_usize).prop_map(Deed::Lost),
        1 => Just(Deed::Refused),
        1 => Just(Deed::Lie),
        1 => Just(Deed::Odd),
    ];
    let death = prop_oneof![6 => Just(None), 1 => (0..6_usize).prop_map(Some)];
    prop_oneof![
        12 => (100..40_000_u64, death).prop_map(|(ms, death)| Op::Look(ms, death)),
        6 => deed.prop_map(Op::Answer),
        5 => Just(Op::Arrive),
        1 => Just(Op::Hang),
        3 => (1..5_u32).prop_map(Op::Submit),
        4 => any::<usize>().prop_map(Op::Finish),
        1 => any::<usize>().prop_map(Op::Lose),
        1 => any::<usize>().prop_map(Op::Hear),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(place, drained)| Op::Operator(place, drained)),
        1 => Just(Op::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold_and_it_ends_at_the_least(
        script in prop::collection::vec(ops(), 1..120),
        (min, max, paid_max) in (0..3_u32, 3..6_u32, 3..6_u32),
    ) {
        let mut cluster = Cluster::new(Rules { min, max, paid_max, ..RULES });
        for op in script {
            cluster.apply(op);
        }
        cluster.calm_down();
        let working: Vec<&String> = cluster.rows.keys().collect();
        prop_assert_eq!(working.len(), min as usize, "{:?}", cluster.rows);
        prop_assert_eq!(working, cluster.machines.iter().collect::<Vec<_>>());
        prop_assert!(cluster.kept.asked.is_empty() && cluster.kept.failed.is_empty(), "{:?}", cluster.kept);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Asks of servers that died are carried out late, and what was done is denied: then
    /// there may be more machines than were wanted, but none stays.
    #[test]
    fn what_comes_although_nobody_waits_for_it_goes_again(
        script in prop::collection::vec(
            prop_oneof![8 => ops(), 1 => Just(Op::Orphan), 1 => Just(Op::Answer(Deed::Denied))],
            1..120,
        ),
    ) {
        // Only what may be asked for is bounded here, and that is bounded above.
        let rules = Rules { max: 100, paid_max: 100, ..RULES };
        let mut cluster = Cluster::new(rules);
        for op in script {
            // See `calm_down`.
            cluster.orphans.retain(|ask| ask.verb == Verb::Add);
            cluster.apply(op);
        }
        cluster.calm_down();
        prop_assert_eq!(cluster.rows.len(), 1, "{:?}", cluster.rows);
        prop_assert_eq!(cluster.rows.keys().collect::<Vec<_>>(), cluster.machines.iter().collect::<Vec<_>>());
    }
}

/// With its one node there.
fn settled(rules: Rules) -> Cluster {
    let mut cluster = Cluster::new(rules);
    assert_eq!(cluster.look(None), ["add p-auto-1"]);
    cluster.answer(Deed::Done(1));
    cluster.arrive();
    cluster.pass(6_000);
    assert_eq!(cluster.look(None), [] as [&str; 0]);
    cluster
}

#[test]
fn it_grows_with_its_queue_to_the_most_there_may_be_and_goes_back_to_the_least() {
    let mut cluster = settled(RULES);
    cluster.waiting = 9;
    assert_eq!(cluster.look(None), [] as [&str; 0], "it may be over in a moment");
    cluster.pass(2_000);
    assert_eq!(cluster.look(None), ["add p-auto-2 p-auto-3 p-auto-4"]);
    assert_eq!((cluster.pool.shown().asked, cluster.pool.shown().paid), (3, 4));
    cluster.pass(9_000);
    assert_eq!(cluster.look(None), [] as [&str; 0], "one ask at a time");
    cluster.answer(Deed::Done(3));
    cluster.arrive();
    cluster.pass(30_000);
    assert_eq!(cluster.look(None), [] as [&str; 0]);
    assert_eq!(cluster.pool.shown().capped, "5 more would have work, and max is 4");
    cluster.waiting = 0;
    cluster.rows.values_mut().for_each(|row| row.work = 0);
    assert_eq!(cluster.look(None), [] as [&str; 0]);
    assert_eq!(cluster.pool.shown().capped, "");
    cluster.pass(10_000);
    assert_eq!(cluster.look(None), ["drain p-auto-4", "drain p-auto-3", "drain p-auto-2"]);
    assert_eq!(cluster.look(None), ["retire p-auto-2", "retire p-auto-3", "retire p-auto-4"]);
    assert_eq!(cluster.look(None), ["remove p-auto-2 p-auto-3 p-auto-4"]);
    assert_eq!(cluster.answer(Deed::Done(2)), ["forget p-auto-2", "forget p-auto-3"]);
    cluster.pass(5_000);
    assert_eq!(cluster.look(None), ["remove p-auto-4"], "what was not done is asked for again");
    assert_eq!(cluster.answer(Deed::Done(1)), ["forget p-auto-4"]);
}

#[test]
fn what_drains_is_taken_back_before_another_is_asked_for() {
    let mut cluster = settled(RULES);
    cluster.waiting = 2;
    cluster.look(None);
    cluster.pass(2_000);
    assert_eq!(cluster.look(None), ["add p-auto-2"]);
    cluster.answer(Deed::Done(1));
    cluster.arrive();
    cluster.rows.values_mut().for_each(|row| row.work = 0);
    cluster.waiting = 0;
    cluster.look(None);
    cluster.pass(10_000);
    assert_eq!(cluster.look(None), ["drain p-auto-2"]);
    cluster.waiting = 2;
    assert_eq!(cluster.look(None), ["resume p-auto-2"]);
    // What an operator drained is not, and another comes in its place.
    cluster.apply(Op::Operator(1, true));
    cluster.pass(2_000);
    assert_eq!(cluster.look(None), ["add p-auto-3"]);
}

#[test]
fn a_driver_that_fails_is_asked_less_and_less_often_and_the_failure_is_told() {
    let mut cluster = Cluster::new(RULES);
    let mut pauses = Vec::new();
    let mut waited = 0;
    while pauses.len() < 9 {
        cluster.pass(1_000);
        waited += 1;
        if !cluster.look(None).is_empty() {
            pauses.push(std::mem::take(&mut waited));
            cluster.answer(Deed::Refused);
        }
    }
    assert_eq!(pauses, [1, 5, 10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(cluster.pool.failing(), Some((9, "no quota")));
    cluster.pass(300_000);
    assert_eq!(cluster.look(None), ["add p-auto-10"], "nothing was made under the names before");
    cluster.answer(Deed::Lost(1));
    assert_eq!(cluster.pool.failing(), Some((10, "silence")));
    cluster.pass(300_000);
    assert_eq!(cluster.look(None), ["add p-auto-10"], "it may be there");
    cluster.arrive();
    cluster.look(None);
    assert_eq!(cluster.pool.failing(), None, "it came");
}

#[test]
fn cost_bounds_it_as_the_number_of_nodes_does() {
    let mut cluster = settled(Rules { paid_max: 2, ..RULES });
    cluster.waiting = 9;
    cluster.look(None);
    cluster.pass(2_000);
    assert_eq!(cluster.look(None), ["add p-auto-2"]);
    cluster.answer(Deed::Done(1));
    cluster.arrive();
    cluster.look(None);
    assert_eq!(cluster.pool.shown().capped, "7 more would have work, and cost_per_hour_max allows 2");
}

#[test]
fn a_node_that_does_not_register_is_removed_and_another_asked_for() {
    let mut cluster = Cluster::new(RULES);
    assert_eq!(cluster.look(None), ["add p-auto-1"]);
    cluster.answer(Deed::Lie);
    cluster.pass(59_000);
    assert_eq!(cluster.look(None), [] as [&str; 0]);
    cluster.pass(1_000);
    assert_eq!(cluster.look(None), ["retire p-auto-1"]);
    assert_eq!(cluster.look(None), ["remove p-auto-1"]);
    assert_eq!(cluster.kept.failed, "node p-auto-1 did not register within 1m00s");
    cluster.answer(Deed::Done(1));
    cluster.pass(5_000);
    assert_eq!(cluster.look(None), ["add p-auto-2"]);
}

#[test]
fn one_that_is_lost_makes_room_for_another_even_while_work_waits() {
    let mut cluster = settled(Rules { max: 1, paid_max: 1, ..RULES });
    cluster.waiting = 5;
    cluster.apply(Op::Lose(0));
    cluster.look(None);
    cluster.pass(10_000);
    assert_eq!(cluster.look(None), ["drain p-auto-1"]);
    assert_eq!(cluster.look(None), ["retire p-auto-1"]);
    assert_eq!(cluster.look(None), ["remove p-auto-1"]);
    cluster.answer(Deed::Done(1));
    cluster.pass(5_000);
    assert_eq!(cluster.look(None), ["add p-auto-2"]);
}

#[test]
fn a_server_that_begins_anew_asks_again_for_what_was_asked() {
    let mut cluster = Cluster::new(RULES);
    assert_eq!(cluster.look(None), ["add p-auto-1"]);
    cluster.restart();
    assert_eq!(cluster.look(None), ["add p-auto-1"]);
    // Where it died before that was kept, nothing was asked.
    let mut cluster = Cluster::new(RULES);
    assert_eq!(cluster.look(Some(0)), [] as [&str; 0]);
    assert_eq!(cluster.look(None), ["add p-auto-1"]);
}

#[test]
fn names_of_an_earlier_life_are_passed_over_and_taken_in() {
    let mut cluster = Cluster::new(Rules { min: 2, ..RULES });
    cluster.machines.extend(["p-auto-1".to_owned()]);
    cluster.arrive();
    assert_eq!(cluster.look(None), ["add p-auto-2"]);
    assert!(cluster.pool.is_ours("p-auto-1"));
    for odd in ["p-auto-0", "p-auto-01", "p-auto-3", "p-auto-", "p-auto-x", "q-auto-1", "p-1", "p-auto--1"] {
        assert!(!cluster.pool.is_ours(odd), "{odd}");
    }
}
