//! Staging of one large file, beside `curl` from nginx to the same disk.
//!
//! A round is a job of one task with that file as its input, on a node that has never
//! seen it: from the submission to the end of `/bin/true` behind it, so with all that
//! Drumline does besides. It is fetched from the nginx that `curl` asks, and once
//! more from Drumline's own server, where a client had uploaded it.

use super::{Bench, DEADLINE, Failure, job};
use proto::v1::{CreateUploadRequest, Input, State};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use world::Transfer as _;
use world::real::{FsDisk, HttpTransfer, TransferLimits};

/// Bytes of the file.
const BYTES: u64 = 1 << 30;
/// Of which as many are made at once.
const BLOCK: usize = 1 << 20;
/// Rounds, each with one run of everything in turn.
const ROUNDS: usize = 5;

/// nginx as it comes, on loopback, with one directory; ended with this.
struct Nginx {
    process: Child,
    url: String,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // If it has ended already there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A directory, gone with this.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn nginx(dir: &Path) -> Result<Nginx, Failure> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let place = dir.display();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {place}/nginx-temp; "))
        .collect();
    let config = format!(
        "daemon off; master_process off; pid {place}/nginx.pid; error_log {place}/nginx.err;\n\
         events {{}}\n\
         http {{ sendfile on; access_log off; {temp}\n\
         server {{ listen 127.0.0.1:{port}; root {place}/www; }} }}\n"
    );
    fs::write(dir.join("nginx.conf"), config)?;
    let start = |program: &str| {
        let mut command = Command::new(program);
        command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    let missing = "nginx is not here: apt-get install -y --no-install-recommends nginx-light";
    let process = start("nginx").or_else(|_| start("/usr/sbin/nginx")).map_err(|_| missing)?;
    let nginx = Nginx { process, url: format!("http://127.0.0.1:{port}/file") };
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if begun.elapsed() > Duration::from_secs(10) {
            let why = fs::read_to_string(dir.join("nginx.err")).unwrap_or_default();
            return Err(format!("nginx does not listen: {why}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(nginx)
}

/// A file that no disk and no network can make smaller; its digest.
fn make(path: &Path) -> Result<String, Failure> {
    let (mut file, mut digest) = (fs::File::create(path)?, Sha256::new());
    let mut block = vec![0; BLOCK];
    for _ in 0..BYTES / BLOCK as u64 {
        block.chunks_mut(8).for_each(|word| word.copy_from_slice(&world::rand::u64().to_le_bytes()));
        digest.update(&block);
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(world::transfer::hex_digest(&digest.finalize()))
}

/// What earlier runs left to be written is written: each begins alike.
fn settle() -> Result<(), Failure> {
    let done = Command::new("sync").status()?;
    if done.success() { Ok(()) } else { Err("sync failed".into()) }
}

fn by_curl(dir: &Path, url: &str) -> Result<f64, Failure> {
    let target = dir.join("curled");
    settle()?;
    let begun = Instant::now();
    let missing = "curl is not here: apt-get install -y --no-install-recommends curl";
    let done = Command::new("curl").args(["-s", "-f", "-o"]).arg(&target).arg(url).status();
    let span = begun.elapsed();
    if !done.map_err(|_| missing)?.success() || fs::metadata(&target)?.len() != BYTES {
        return Err("curl did not fetch the file".into());
    }
    fs::remove_file(target)?;
    Ok(span.as_secs_f64())
}

/// One job with this input on a fresh cluster. Without a URL the file is uploaded first.
async fn by_job(dir: &Path, url: &str, digest: &str) -> Result<f64, Failure> {
    let mut bench = Bench::start(dir, 2).await?;
    if url.is_empty() {
        let ask = CreateUploadRequest { digest: digest.into(), size_bytes: BYTES, ..Default::default() };
        let ask = bench.request(ask);
        let signed = bench.client.create_upload(ask).await?.into_inner().url;
        let disk = FsDisk::open(dir.join("www"))?;
        HttpTransfer::new(TransferLimits::default()).put(&signed, disk, "file").await?;
    }
    let mut spec = job(&["/bin/true"], 1);
    let (name, url, digest) = ("file".into(), url.into(), digest.into());
    spec.inputs = vec![Input { name, url, digest, size_bytes: BYTES, ..Input::default() }];
    settle()?;
    let begun = Instant::now();
    let number = bench.submit(spec).await?;
    let end = tokio::time::timeout(DEADLINE, bench.ended(number)).await??;
    let span = begun.elapsed();
    bench.stop().await?;
    if end != State::Completed {
        return Err(format!("the job ended as {end:?}").into());
    }
    Ok(span.as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub async fn staging() -> Result<(), Failure> {
    println!(
        "staging one file of 1 GiB, digest verified, one job from submission to end; beside curl from nginx"
    );
    let scratch = Scratch(std::env::temp_dir().join(format!("drumline-staging-{:016x}", world::rand::u64())));
    let dir = scratch.0.as_path();
    fs::create_dir_all(dir.join("www"))?;
    let digest = make(&dir.join("www/file"))?;
    let nginx = nginx(dir)?;
    // Once for the page cache.
    by_curl(dir, &nginx.url)?;
    let (mut curl, mut by_url, mut by_server) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        curl.push(by_curl(dir, &nginx.url)?);
        by_url.push(by_job(dir, &nginx.url, &digest).await?);
        by_server.push(by_job(dir, "", &digest).await?);
        let [curl, url, server] = [&curl, &by_url, &by_server].map(|spans| spans[round - 1]);
        println!(
            "  round {round}: curl {curl:.2} s; from nginx {url:.2} s, ratio {:.2}; from our server {server:.2} s, ratio {:.2}",
            curl / url,
            curl / server
        );
    }
    let (curl, url, server) = (median(curl), median(by_url), median(by_server));
    println!(
        "  medians: curl {curl:.2} s; from nginx {:.2} of its speed (target 0.90), from our server {:.2}",
        curl / url,
        curl / server
    );
    Ok(())
}
