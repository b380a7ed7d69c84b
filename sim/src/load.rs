//! Clients without manners: bursts, storms, races, the same thing said twice at
//! once, streams that are broken off. What they are told must hold like any
//! other word to a client.

mod maintenance;
mod races;

pub use maintenance::maintain;

use crate::clients::{self, Door};
use crate::faults::Fault;
use crate::history::Ack;
use crate::readers::{self, FOLLOW_AGAIN_MS, FOLLOW_MS, client};
use crate::rows::JobName;
use crate::workload::Deed;
use proto::v1::drumline_client::DrumlineClient;
use proto::v1::{ArrayItem, ArraySpec, EventsRequest, JobSpec, Resources, Step};
use proto::validate;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use world::sim::universe::{self, NodeId};
use world::task::JoinHandle;
use world::time;

/// What one of a storm waits for an answer, and then before it asks again.
const STORM_CALL_MS: u64 = 150;
const STORM_AGAIN_MS: u64 = 40;

/// So many jobs are submitted to a server as soon as it serves in another's place.
const OUTLIVED_JOBS: u32 = 4;

/// Sets clients to it; their tasks end by themselves.
pub fn press(node: NodeId, door: &Door, fault: &Fault, seed: u64) -> Vec<JoinHandle<()>> {
    let begun = now_ms();
    let mut rng = SmallRng::seed_from_u64(seed ^ begun);
    let mut tasks = Vec::new();
    let mut start = |task| tasks.push(universe::spawn_on(node, task));
    let key = |number: u32| format!("{}-{begun}-{number}", fault.kind());
    match *fault {
        Fault::SubmissionBurst { jobs } => {
            for number in 0..jobs {
                let deed = deed("default", key(number), task(rng.random_range(5..800), 250));
                start(boxed(submit_or_believe(door.own(), deed)));
            }
        }
        Fault::GangBurst { jobs } => {
            for number in 0..jobs {
                let mut spec = task(rng.random_range(100..3_000), 250);
                spec.steps[0].nodes = rng.random_range(1..3);
                spec.steps[0].tasks_per_node = 2;
                start(boxed(submit(door.own(), deed("default", key(number), spec))));
            }
        }
        Fault::RetryStorm { clients, for_ms } => {
            let deed = deed("default", key(0), task(500, 250));
            for _ in 0..clients {
                start(boxed(storm(door.own(), deed.clone(), begun + for_ms)));
            }
        }
        Fault::QuotaBreach { clients } => {
            for number in 0..clients {
                // Each alone fits the limit, two do not.
                let mut spec = task(rng.random_range(500..4_000), 2_000);
                spec.steps[0].array = Some(array(4));
                start(boxed(submit(door.own(), deed("lab", key(number), spec))));
            }
        }
        Fault::CancelRace { jobs } => {
            for number in 0..jobs {
                let ms = rng.random_range(50..1_500);
                let pauses_ms = [rng.random_range(0..2 * ms), rng.random_range(0..2 * ms)];
                let mut spec = task(ms, 500);
                // Ranks end one by one, and a cancel may come between them too.
                if rng.random_bool(0.4) {
                    spec.steps[0].nodes = rng.random_range(1..3);
                    spec.steps[0].tasks_per_node = 2;
                }
                let deed = deed("default", key(number), spec);
                start(boxed(race(node, door.own(), deed, pauses_ms)));
            }
        }
        Fault::RetryRace { .. } | Fault::RetriesPressed { .. } | Fault::ServerOutlived { .. } => {
            let (jobs, cancels) = match *fault {
                Fault::RetryRace { jobs } => (jobs, true),
                Fault::RetriesPressed { jobs } => (jobs, false),
                _ => (OUTLIVED_JOBS, true),
            };
            for number in 0..jobs {
                let mut spec = task(rng.random_range(5..400), 250);
                spec.steps[0].argv.push("code=3".to_owned());
                spec.steps[0].retries = Some(0);
                let seeds: [u64; 3] = rng.random();
                start(boxed(races::retry(door.clone(), deed("default", key(number), spec), seeds, cancels)));
            }
        }
        Fault::NodeDrained { agent, for_ms } => {
            start(boxed(races::drained(door.own(), format!("node-{agent}"), for_ms)));
        }
        Fault::RequestsTwice { jobs } => {
            for number in 0..jobs {
                let deed = deed("default", key(number), task(300, 250));
                start(boxed(submit(door.own(), deed.clone())));
                start(boxed(submit(door.own(), deed)));
            }
        }
        Fault::LogFlood { lines } => {
            let mut spec = task(4_000, 250);
            spec.steps[0].argv.extend([format!("log={lines}"), format!("err={}", lines / 10)]);
            spec.steps[0].array = Some(array(3));
            start(boxed(submit(door.own(), deed("lab", key(0), spec))));
        }
        Fault::LogsWatched { jobs, for_ms } => {
            for number in 0..jobs {
                let mut spec = task(rng.random_range(500..for_ms / 2), 250);
                spec.steps[0]
                    .argv
                    .extend([format!("log={}", rng.random_range(20..400)), "err=20".to_owned()]);
                spec.steps[0].array = Some(array(6));
                let deed = deed("default", key(number), spec);
                start(boxed(races::watched(door.own(), deed, rng.random(), begun + for_ms)));
            }
        }
        Fault::FollowersLeave { clients, for_ms } => {
            for number in 0..clients {
                let rng = SmallRng::seed_from_u64(rng.random());
                if number % 2 == 0 {
                    start(boxed(follow_events(door.own(), rng, begun + for_ms)));
                } else {
                    start(boxed(readers::follow(door.own(), rng, begun + for_ms)));
                }
            }
        }
        _ => {}
    }
    tasks
}

type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn boxed(task: impl Future<Output = ()> + Send + 'static) -> Task {
    Box::pin(task)
}

fn now_ms() -> u64 {
    u64::try_from(universe::elapsed().as_millis()).expect("a run is shorter")
}

fn task(ms: u64, millicores: u32) -> JobSpec {
    let step = Step {
        name: "main".to_owned(),
        argv: vec!["sim".to_owned(), format!("ms={ms}")],
        per_task: Some(Resources { millicores, ..Resources::default() }),
        ..Step::default()
    };
    JobSpec { name: "pressed".to_owned(), steps: vec![step], ..JobSpec::default() }
}

fn array(last: u64) -> ArraySpec {
    ArraySpec { items: vec![ArrayItem { first: 1, last, stride: 1 }], max_running: 0 }
}

fn deed(tenant: &str, key: String, mut spec: JobSpec) -> Deed {
    validate::normalize(&mut spec);
    Deed {
        at_ms: now_ms(),
        tenant: tenant.to_owned(),
        spec,
        key,
        cancel_after_ms: None,
        retry: None,
        again: false,
        follows: Vec::new(),
        inputs: Vec::new(),
    }
}

async fn submit(door: Door, deed: Deed) {
    clients::submit(&door, &deed).await;
}

/// Of a burst many give up when they hear that nothing was taken.
async fn submit_or_believe(door: Door, deed: Deed) {
    clients::submit_or_believe(&door, &deed).await;
}

/// One that asks again and again, hardly waiting for an answer.
async fn storm(door: Door, deed: Deed, until_ms: u64) {
    while now_ms() < until_ms {
        let tried = async {
            let channel = door.connect(time::ms(STORM_CALL_MS)).await?;
            let asked = door.asked();
            let told = clients::submit_once(DrumlineClient::new(channel), door.clone(), &deed).await;
            told.inspect_err(|_| door.turn(&asked)).ok()
        };
        if let Ok(Some(reply)) = time::timeout(time::ms(STORM_CALL_MS), tried).await {
            let job = JobName { tenant: reply.tenant, number: reply.number };
            let known = |ack: &Ack| matches!(ack, Ack::Submitted { job: other, key, .. } if *other == job && *key == deed.key);
            let mut history = door.history.lock().expect("no holder panics");
            if !history.acks.iter().any(known) {
                history.acks.push(Ack::Submitted { job, key: deed.key.clone(), at_ms: now_ms() });
            }
        }
        time::sleep(time::ms(STORM_AGAIN_MS)).await;
    }
    submit(door, deed).await;
}

/// Two clients cancel a job about when it ends.
async fn race(node: NodeId, door: Door, deed: Deed, pauses_ms: [u64; 2]) {
    let Some(job) = clients::submit(&door, &deed).await else { return };
    let cancelling = pauses_ms.map(|pause_ms| {
        let (door, job) = (door.own(), job.clone());
        universe::spawn_on(node, async move {
            time::sleep(time::ms(pause_ms)).await;
            clients::cancel(&door, &job).await;
        })
    });
    for cancel in cancelling {
        cancel.await.expect("the clients' node is never killed");
    }
}

/// Reads a tenant's events, a few of each stream, and goes on where it left: no
/// number may be missing, none come twice.
async fn follow_events(door: Door, mut rng: SmallRng, until_ms: u64) {
    let mut next: Option<u64> = None;
    while now_ms() < until_ms {
        let most = rng.random_range(1..6);
        let read = async {
            let mut client = client(&door).await?;
            let request = EventsRequest {
                tenant: "default".to_owned(),
                from_seq: next.unwrap_or(0),
                follow: true,
                job_number: 0,
            };
            let mut stream = client.events(door.request(request)).await.ok()?.into_inner();
            for _ in 0..most {
                let reply = time::timeout(time::ms(FOLLOW_MS), stream.message()).await.ok()?.ok()??;
                for event in &reply.events {
                    let due = next.unwrap_or(event.seq);
                    if event.seq != due {
                        door.broke(7, format!("a follower was told event {} where {due} was due", event.seq));
                    }
                    next = Some(event.seq + 1);
                }
            }
            Some(())
        };
        if read.await.is_some() {
            door.history.lock().expect("no holder panics").broken_off += 1;
        }
        time::sleep(time::ms(FOLLOW_AGAIN_MS)).await;
    }
}
