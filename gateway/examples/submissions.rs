//! Measures separate submissions on one connection, each acknowledged after
//! its sync: `cargo run --release -p gateway --example submissions [COUNT]`.

use futures_util::{StreamExt, stream};
use gateway::server::{ServerConfig, ServerParts, start};
use proto::v1::drumline_client::DrumlineClient;
use proto::v1::submit_outcome::Outcome;
use proto::v1::{JobSpec, Step, SubmitRequest};
use std::sync::Arc;
use world::grpc::tonic::Request;
use world::real::{FsDisk, SystemClock};
use world::time::{self, Instant};

fn submission(n: u64) -> SubmitRequest {
    let step = Step { name: "main".into(), argv: vec!["/bin/true".into()], ..Step::default() };
    let spec = JobSpec { name: format!("job-{n}"), steps: vec![step], ..JobSpec::default() };
    SubmitRequest { spec: Some(spec), ..SubmitRequest::default() }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(10_000), |text| text.parse())?;
    let dir = std::env::temp_dir().join(format!("drumline-submissions-{:016x}", world::rand::u64()));
    let server = start(ServerParts {
        disk: FsDisk::open(dir.clone())?,
        clock: Arc::new(SystemClock::new()),
        listen: "127.0.0.1:0".parse()?,
        config: ServerConfig::default(),
        shared: None,
    })
    .await?;
    let channel = world::grpc::connect(&server.address, time::ms(5_000)).await?;
    let mut client = DrumlineClient::new(channel);
    for round in 0..3 {
        let mut request = Request::new(stream::iter((0..count).map(submission)));
        request.metadata_mut().insert("authorization", format!("Bearer {}", server.token).parse()?);
        let began = Instant::now();
        let mut outcomes = client.submit_many(request).await?.into_inner();
        let mut accepted = 0;
        while let Some(outcome) = outcomes.next().await {
            match outcome?.outcome {
                Some(Outcome::Accepted(_)) => accepted += 1,
                other => return Err(format!("not accepted: {other:?}").into()),
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let rate = f64::from(u32::try_from(accepted)?) / seconds;
        println!("round={round} submissions={accepted} seconds={seconds:.3} per_second={rate:.0}");
    }
    server.stop().await;
    #[allow(clippy::disallowed_methods, reason = "a measurement tidies up behind the world")]
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
