//! What several schedulers on one cluster cost: how often one comes too late, and what is
//! granted for nothing.
//!
//! Four tenants' worth of short jobs, more than there is room for, so that each end is a
//! chance for all schedulers at once. The server's own is one of them; the others follow
//! it over gRPC, as `drumline scheduler` does.

use super::{Bench, DEADLINE, Failure, count, job, rate};
use proto::v1::{
    CreateTokenRequest, ListJobsRequest, PutTenantRequest, Role, State, SubmitRequest, TenantRow,
};
use scheduler::core::Config;
use scheduler::follow::{self, FollowParts};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use world::real::SystemClock;

const TENANTS: usize = 4;
/// Jobs of one task each.
const JOBS: u64 = 2_000;
const SLOTS: u32 = 8;

/// What the server counted.
struct Counted {
    committed: u64,
    conflicts: u64,
    surplus: u64,
}

pub async fn schedulers() -> Result<(), Failure> {
    println!("{JOBS} jobs of /bin/true of {TENANTS} tenants on {SLOTS} slots, by several schedulers at once");
    let mut alone = None;
    for others in [0, 1, 3, 7] {
        let (taken, counted) = tokio::time::timeout(DEADLINE, measured(others)).await??;
        let Counted { committed, conflicts, surplus } = counted;
        let proposed = (committed + conflicts).max(1);
        let speed = rate(JOBS, taken);
        println!(
            "  {} schedulers: {proposed} proposals, {:.1} % came too late; {:.1} % of the grants were given back unused; {:.2} of the speed of one",
            others + 1,
            100.0 * count(conflicts) / count(proposed),
            100.0 * count(surplus) / count(committed.max(1)),
            speed / *alone.get_or_insert(speed),
        );
    }
    Ok(())
}

async fn measured(others: u32) -> Result<(Duration, Counted), Failure> {
    let mut bench = Bench::start(&std::env::temp_dir(), SLOTS).await?;
    let tenants: Vec<String> = (1..=TENANTS).map(|number| format!("t{number}")).collect();
    for name in &tenants {
        let row = TenantRow { name: name.clone(), ..TenantRow::default() };
        let request = bench.request(PutTenantRequest { tenant: Some(row), was: None });
        bench.client.put_tenant(request).await?;
    }
    let request = bench.request(CreateTokenRequest {
        name: "others".to_owned(),
        role: Role::Scheduler.into(),
        ..CreateTokenRequest::default()
    });
    let token = bench.client.create_token(request).await?.into_inner().token;
    let mut following = Vec::new();
    for number in 1..=others {
        let parts = FollowParts {
            server: bench.server.address.clone(),
            token: token.clone(),
            name: format!("other-{number}"),
            clock: Arc::new(SystemClock::new()),
            config: Config { seed: number.into(), ..Config::default() },
        };
        following.push(follow::start(parts).await.map_err(|error| format!("{error:?}"))?);
    }
    let begun = Instant::now();
    for number in 0..JOBS {
        let tenant = tenants[usize::try_from(number)? % TENANTS].clone();
        let spec = Some(job(&["/bin/true"], 1));
        let request = bench.request(SubmitRequest { tenant, spec, ..SubmitRequest::default() });
        bench.client.submit(request).await?;
    }
    for tenant in &tenants {
        while has_open(&mut bench, tenant).await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let (taken, counted) = (begun.elapsed(), counted(&bench)?);
    for other in &following {
        other.stop();
    }
    bench.stop().await?;
    Ok((taken, counted))
}

/// Whether a job of the tenant has not ended.
async fn has_open(bench: &mut Bench, tenant: &str) -> Result<bool, Failure> {
    let states = [State::Pending, State::Staging, State::Running].map(i32::from).into();
    let request =
        ListJobsRequest { tenant: tenant.to_owned(), states, limit: 1, ..ListJobsRequest::default() };
    let request = bench.request(request);
    Ok(!bench.client.list_jobs(request).await?.into_inner().jobs.is_empty())
}

/// From `/metrics`, as any operator sees it.
fn counted(bench: &Bench) -> Result<Counted, Failure> {
    let mut stream = TcpStream::connect(bench.server.listening)?;
    let token = &bench.server.token;
    write!(stream, "GET /metrics HTTP/1.0\r\nauthorization: Bearer {token}\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let sum = |name: &str, label: &str| -> u64 {
        let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    let proposals = "drumline_scheduler_proposals_total{";
    Ok(Counted {
        committed: sum(proposals, "outcome=\"committed\""),
        conflicts: sum(proposals, "outcome=\"conflict\""),
        surplus: sum("drumline_grants_surplus_total ", ""),
    })
}
