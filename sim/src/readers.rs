//! Readers of logs and outputs. What they got is kept as they got it, and judged at the
//! end of the run, when all is known that was written.

use crate::clients::Door;
use crate::history::{Ack, LogRead, OutputsRead};
use crate::rows::JobName;
use proto::v1::drumline_client::DrumlineClient;
use proto::v1::{JobRequest, JobStateRow, LogsRequest, StepOutputs};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeSet;
use std::sync::Arc;
use world::grpc::Channel;
use world::grpc::tonic::{Code, Status};
use world::sim::universe;
use world::time;

/// A follower waits no longer for the next message.
pub const FOLLOW_MS: u64 = 3_000;
/// Between two streams of one follower.
pub const FOLLOW_AGAIN_MS: u64 = 200;
/// Whoever reads a log to its end waits so long for the next message: longer than
/// the server waits for bytes that may never come.
const WHOLE_MS: u64 = 45_000;
/// So many streams are tried for that, in all. Nothing is broken any more.
const WHOLE_TRIES: u32 = 5;
/// Logs that are read to their ends at the same time.
const WHOLE_AT_ONCE: usize = 64;
/// Pauses of one who looks for a job's outputs as soon as there may be any.
const LOOKS_MS: [u64; 6] = [0, 400, 1_000, 2_000, 4_000, 8_000];

pub async fn client(door: &Door) -> Option<DrumlineClient<Channel>> {
    Some(DrumlineClient::new(door.connect(time::ms(FOLLOW_MS)).await?))
}

/// Follows one job's logs, a few messages of each stream, and goes on where it
/// left.
pub async fn follow(door: Door, mut rng: SmallRng, until_ms: u64) {
    let known: Vec<JobName> = {
        let history = door.history.lock().expect("no holder panics");
        let of = |ack: &Ack| match ack {
            Ack::Submitted { job, .. } => Some(job.clone()),
            Ack::Cancelled { .. } => None,
        };
        history.acks.iter().filter_map(of).collect()
    };
    let Some(job) = known.get(rng.random_range(0..known.len().max(1))).cloned() else { return };
    let left = follow_job(&door, job, &mut rng, until_ms).await;
    door.history.lock().expect("no holder panics").broken_off += left;
}

/// The same of a job that is named; how often it left.
pub async fn follow_job(door: &Door, job: JobName, rng: &mut SmallRng, until_ms: u64) -> u64 {
    let mut left = 0;
    let mut read = LogRead::of(job, false);
    while now_ms() < until_ms && read.end.is_none() {
        let most = rng.random_range(1..4);
        if let Some(client) = client(door).await
            && some(door, client, &mut read, most, FOLLOW_MS).await
        {
            left += 1;
        }
        time::sleep(time::ms(FOLLOW_AGAIN_MS)).await;
    }
    door.history.lock().expect("no holder panics").logs.push(Arc::new(read));
    left
}

/// Reads on, so many messages at most; true where all of them came and the log
/// goes on.
async fn some(
    door: &Door,
    mut client: DrumlineClient<Channel>,
    read: &mut LogRead,
    most: u32,
    wait_ms: u64,
) -> bool {
    let name = JobRequest { tenant: read.job.tenant.clone(), number: read.job.number };
    let request =
        LogsRequest { job: Some(name), follow: true, cursor: read.cursor, ..LogsRequest::default() };
    let asked = door.asked();
    let opened = time::timeout(time::ms(wait_ms), client.logs(door.request(request))).await;
    let opened = match opened {
        Ok(Ok(opened)) => opened,
        other => {
            if other.is_err() || other.is_ok_and(|answer| answer.is_err_and(|why| serves_not(&why))) {
                door.turn(&asked);
            }
            return false;
        }
    };
    let mut stream = opened.into_inner();
    for _ in 0..most {
        let Ok(Ok(Some(reply))) = time::timeout(time::ms(wait_ms), stream.message()).await else {
            return false;
        };
        read.chunks.extend(reply.chunks);
        read.cursor = reply.cursor.max(read.cursor);
        if reply.end {
            read.end = Some(reply.missing_bytes);
            return false;
        }
    }
    true
}

/// Looks at a job's outputs now and then.
pub async fn look(door: Door, job: JobName) {
    for pause_ms in LOOKS_MS {
        time::sleep(time::ms(pause_ms)).await;
        look_once(&door, &job).await;
    }
}

/// Asks once: between two looks at the job, so that it is known what it was tried
/// again for. True where there was an answer.
pub async fn look_once(door: &Door, job: &JobName) -> bool {
    let Some(client) = client(door).await else { return false };
    let asked = door.asked();
    let (before, steps, after) = match time::timeout(time::ms(FOLLOW_MS), three(door, client, job)).await {
        Ok(Ok(Some(told))) => told,
        Ok(Ok(None)) => return false,
        Ok(Err(why)) if !serves_not(&why) => return false,
        _ => {
            door.turn(&asked);
            return false;
        }
    };
    let generations = |state: &JobStateRow| {
        (state.generation, state.steps.iter().map(|step| step.generation).collect::<Vec<_>>())
    };
    if generations(&before) == generations(&after) {
        let read = OutputsRead { job: job.clone(), state: before, steps };
        door.history.lock().expect("no holder panics").outputs.push(Arc::new(read));
    }
    true
}

/// The job, its outputs, and the job again.
async fn three(
    door: &Door,
    mut client: DrumlineClient<Channel>,
    job: &JobName,
) -> Result<Option<(JobStateRow, Vec<StepOutputs>, JobStateRow)>, Status> {
    let name = || JobRequest { tenant: job.tenant.clone(), number: job.number };
    let before = client.get_job(door.request(name())).await?.into_inner().state;
    let outputs = client.outputs(door.request(name())).await?.into_inner().steps;
    let after = client.get_job(door.request(name())).await?.into_inner().state;
    Ok(before.zip(after).map(|(before, after)| (before, outputs, after)))
}

/// Another server may answer. One that refuses (what expired is not there) has answered.
fn serves_not(why: &Status) -> bool {
    !matches!(why.code(), Code::FailedPrecondition | Code::NotFound)
}

/// Reads the logs of jobs that have ended from their beginnings to their ends, as
/// `drumline logs --follow` does, and looks at their outputs.
pub async fn read_all(door: Door, jobs: BTreeSet<JobName>) {
    let mut jobs = jobs.into_iter();
    loop {
        let reading: Vec<_> = jobs
            .by_ref()
            .take(WHOLE_AT_ONCE)
            .map(|job| world::task::spawn(read_whole(door.clone(), job)))
            .collect();
        if reading.is_empty() {
            return;
        }
        for reading in reading {
            let read = reading.await.expect("the clients' node is never killed");
            door.history.lock().expect("no holder panics").logs.push(Arc::new(read));
        }
    }
}

async fn read_whole(door: Door, job: JobName) -> LogRead {
    let mut read = LogRead::of(job, true);
    for _ in 0..WHOLE_TRIES {
        if let Some(client) = client(&door).await {
            some(&door, client, &mut read, u32::MAX, WHOLE_MS).await;
        }
        if read.end.is_some() {
            break;
        }
        time::sleep(time::ms(FOLLOW_AGAIN_MS)).await;
    }
    look_once(&door, &read.job).await;
    read
}

fn now_ms() -> u64 {
    u64::try_from(universe::elapsed().as_millis()).expect("a run is shorter")
}
