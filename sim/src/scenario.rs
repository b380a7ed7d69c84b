//! Named shapes of runs.

use crate::workload::Load;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// What a run looks like before its seed decides the rest.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    /// At least so many, and at most `agents`, as the seed draws it.
    pub agents_min: usize,
    pub agents: usize,
    /// Beside the server's own; none up to so many.
    pub schedulers: usize,
    /// At most so many share a store on another machine; one has its own.
    pub servers: usize,
    /// So many of its seeds have several, where it may have them.
    pub several: f64,
    pub jobs: u32,
    /// Submissions and faults happen within this span.
    pub trouble: Duration,
    /// Every job must have ended so long after the last heal.
    pub drain: Duration,
    pub faults: bool,
    /// Each fault strikes long after the one before it, so that one sees what it
    /// costs alone.
    pub apart: bool,
    /// Machines come and go by need.
    pub elastic: bool,
    /// Breaks an invariant on purpose: the run must fail.
    pub canary: bool,
    /// Not a cluster: the store's conformance suite over the network.
    pub store_only: bool,
}

/// Where the number of agents is drawn, at most so many jobs for each: as in `narrow`.
const JOBS_PER_AGENT: u32 = 30;

/// What most of them have.
const BASE: Scenario = Scenario {
    name: "",
    about: "",
    agents_min: 8,
    agents: 8,
    schedulers: 0,
    servers: 1,
    several: 0.3,
    jobs: 200,
    trouble: Duration::from_secs(120),
    drain: Duration::from_secs(1800),
    faults: true,
    apart: false,
    elastic: false,
    canary: false,
    store_only: false,
};

/// All scenarios; the first is the default.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "chaos",
        about: "8 agents, 1 to 3 schedulers and servers, 200 jobs, kinds and rates of faults drawn by the seed",
        schedulers: 2,
        servers: 3,
        ..BASE
    },
    Scenario { name: "calm", about: "8 agents, 200 jobs, nothing breaks", faults: false, ..BASE },
    Scenario {
        name: "narrow",
        about: "2 agents, 1 or 2 schedulers, 1 to 3 servers, 60 jobs: what is tried again comes back to the node it was on; faults drawn by the seed",
        agents_min: 2,
        agents: 2,
        schedulers: 1,
        servers: 3,
        several: 0.6,
        jobs: 60,
        ..BASE
    },
    Scenario {
        name: "swarm",
        about: "1 to 64 agents, 1 to 3 schedulers and servers, as the seed draws it; 30 to 200 jobs, faults drawn by the seed",
        agents_min: 1,
        agents: 64,
        schedulers: 2,
        servers: 3,
        ..BASE
    },
    Scenario {
        name: "elastic",
        about: "2 agents and up to 4 more by need, whose driver fails, is late or lies; 1 or 2 schedulers, 1 to 3 servers, 60 jobs, faults drawn by the seed",
        agents_min: 2,
        agents: 2,
        schedulers: 1,
        servers: 3,
        jobs: 60,
        elastic: true,
        ..BASE
    },
    Scenario {
        name: "wide",
        about: "64 agents and the work of `chaos`: 200 jobs, faults drawn by the seed",
        agents_min: 64,
        agents: 64,
        ..BASE
    },
    Scenario {
        name: "large",
        about: "64 agents, 600 jobs, faults drawn by the seed",
        agents_min: 64,
        agents: 64,
        jobs: 600,
        ..BASE
    },
    Scenario {
        name: "long",
        about: "64 agents for an hour and 600 jobs, as a cluster has them that is not in a rush; faults all the time",
        agents_min: 64,
        agents: 64,
        jobs: 600,
        trouble: Duration::from_secs(3600),
        ..BASE
    },
    Scenario {
        name: "apart",
        about: "8 agents for an hour and 1200 jobs; faults of all kinds one at a time, to see what each costs",
        schedulers: 2,
        jobs: 1200,
        trouble: Duration::from_secs(3600),
        apart: true,
        ..BASE
    },
    Scenario {
        name: "vast",
        about: "512 agents, 600 jobs, faults drawn by the seed",
        agents_min: 512,
        agents: 512,
        jobs: 600,
        ..BASE
    },
    Scenario {
        name: "canary",
        about: "a job's row is deleted behind the controller's back: this run must fail",
        agents_min: 2,
        agents: 2,
        jobs: 20,
        trouble: Duration::from_secs(30),
        drain: Duration::from_secs(600),
        faults: false,
        canary: true,
        ..BASE
    },
    Scenario {
        name: "store",
        about: "the store's conformance suite against a store on another node",
        agents_min: 0,
        agents: 0,
        jobs: 0,
        trouble: Duration::ZERO,
        drain: Duration::ZERO,
        faults: false,
        store_only: true,
        ..BASE
    },
];

/// The scenario of that name.
#[must_use]
pub fn named(name: &str) -> Option<Scenario> {
    ALL.iter().copied().find(|scenario| scenario.name == name)
}

impl Scenario {
    /// With the topology that a seed draws. As many small clusters as large ones:
    /// what goes wrong with three nodes goes wrong with sixty.
    #[must_use]
    pub fn drawn(mut self, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x746f_706f_6c6f_6779);
        if self.agents_min < self.agents {
            let doublings = (self.agents / self.agents_min).ilog2();
            let most = self.agents_min << rng.random_range(0..=doublings);
            self.agents = rng.random_range(most.div_ceil(2).max(self.agents_min)..=most);
            self.agents_min = self.agents;
            // The bound on a job's end is of the platform, not of a queue that one
            // node alone has to work off.
            let nodes = u32::try_from(self.agents).expect("a scenario has fewer agents");
            self.jobs = self.jobs.min(nodes * JOBS_PER_AGENT);
        }
        self.schedulers = rng.random_range(0..=self.schedulers);
        // A stream of its own: seeds with one server keep all they had before there
        // were several.
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x0073_6572_7665_7273);
        let several = self.servers > 1 && rng.random_bool(self.several);
        self.servers = if several { rng.random_range(2..=self.servers) } else { 1 };
        self
    }

    /// Until when a bucket may fail; where each fault is to be seen alone none does.
    #[must_use]
    pub fn bucket_trouble_ms(&self) -> u64 {
        if self.faults && !self.apart { self.load().over_ms / 4 * 3 } else { 0 }
    }

    /// Objects that nobody names are looked for a dozen times while there is trouble.
    #[must_use]
    pub fn collect_every_ms(&self) -> u64 {
        (self.load().over_ms / 12).max(10_000)
    }

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
