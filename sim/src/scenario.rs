//! Named shapes of runs.

use crate::workload::Load;
use std::time::Duration;

/// What a run looks like before its seed decides the rest.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub agents: usize,
    pub jobs: u32,
    /// Submissions and faults happen within this span.
    pub trouble: Duration,
    /// Every job must have ended so long after the last heal.
    pub drain: Duration,
    pub faults: bool,
    /// Breaks an invariant on purpose: the run must fail.
    pub canary: bool,
    /// Not a cluster: the store's conformance suite over the network.
    pub store_only: bool,
}

/// All scenarios; the first is the default.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "chaos",
        about: "8 agents, 200 jobs, faults of kinds and rates drawn by the seed",
        agents: 8,
        jobs: 200,
        trouble: Duration::from_secs(120),
        drain: Duration::from_secs(1800),
        faults: true,
        canary: false,
        store_only: false,
    },
    Scenario {
        name: "calm",
        about: "8 agents, 200 jobs, nothing breaks",
        agents: 8,
        jobs: 200,
        trouble: Duration::from_secs(120),
        drain: Duration::from_secs(1800),
        faults: false,
        canary: false,
        store_only: false,
    },
    Scenario {
        name: "narrow",
        about: "2 agents, 60 jobs: what is tried again comes back to the node it was on; faults drawn by the seed",
        agents: 2,
        jobs: 60,
        trouble: Duration::from_secs(120),
        drain: Duration::from_secs(1800),
        faults: true,
        canary: false,
        store_only: false,
    },
    Scenario {
        name: "wide",
        about: "64 agents and the work of `chaos`: 200 jobs, faults drawn by the seed",
        agents: 64,
        jobs: 200,
        trouble: Duration::from_secs(120),
        drain: Duration::from_secs(1800),
        faults: true,
        canary: false,
        store_only: false,
    },
    Scenario {
        name: "large",
        about: "64 agents, 600 jobs, faults drawn by the seed",
        agents: 64,
        jobs: 600,
        trouble: Duration::from_secs(120),
        drain: Duration::from_secs(1800),
        faults: true,
        canary: false,
        store_only: false,
    },
    Scenario {
        name: "canary",
        about: "a job's row is deleted behind the controller's back: this run must fail",
        agents: 2,
        jobs: 20,
        trouble: Duration::from_secs(30),
        drain: Duration::from_secs(600),
        faults: false,
        canary: true,
        store_only: false,
    },
    Scenario {
        name: "store",
        about: "the store's conformance suite against a store on another node",
        agents: 0,
        jobs: 0,
        trouble: Duration::ZERO,
        drain: Duration::ZERO,
        faults: false,
        canary: false,
        store_only: true,
    },
];

/// The scenario of that name.
#[must_use]
pub fn named(name: &str) -> Option<Scenario> {
    ALL.iter().copied().find(|scenario| scenario.name == name)
}

impl Scenario {
    /// The work's size.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            jobs: self.jobs,
            over_ms: u64::try_from(self.trouble.as_millis()).expect("a scenario is shorter than that"),
            nodes: u32::try_from(self.agents).expect("a scenario has fewer agents"),
        }
    }
}
