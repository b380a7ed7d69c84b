//! Log lines on their way from a task to who follows.
//!
//! Tasks write lines at a steady pace, each in a write of its own and with the time at
//! which it was written; a client follows their job over gRPC and looks at the clock
//! for each line that has come whole. All on one machine, so by one clock.

use super::{Bench, Failure, job, now_ns};
use proto::v1::{JobRequest, LogsRequest};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Tasks that write at once.
const TASKS: u64 = 8;
/// Lines a second of all of them.
const LINES_PER_S: u64 = 50_000;
/// For so long.
const SECONDS: u64 = 30;
/// Bytes of a line with its end.
const LINE_BYTES: usize = 100;
/// Whoever writes looks this often what is due.
const TICK: Duration = Duration::from_millis(2);

/// What a task of this figure does: so many lines, so many a second.
pub fn emit(lines: &str, lines_per_s: &str) -> Result<(), Failure> {
    let (lines, lines_per_s): (u64, f64) = (lines.parse()?, lines_per_s.parse()?);
    let mut out = std::io::stdout().lock();
    let (begun, mut text) = (Instant::now(), String::new());
    for number in 0..lines {
        while begun.elapsed().as_secs_f64() * lines_per_s < super::count(number) {
            std::thread::sleep(TICK);
        }
        text.clear();
        write!(text, "{number} {} ", now_ns())?;
        while text.len() < LINE_BYTES - 1 {
            text.push('.');
        }
        text.push('\n');
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// What a follower got.
#[derive(Default)]
struct Followed {
    /// Of each task: what it was told of a line that is not whole yet, and the number
    /// of the line that is due.
    tasks: BTreeMap<u64, (Vec<u8>, u64)>,
    latencies_ms: Vec<f64>,
    lost: u64,
    repeated: u64,
}

impl Followed {
    fn take(&mut self, task: u64, data: &[u8]) -> Result<(), Failure> {
        let now = now_ns();
        let (rest, due) = self.tasks.entry(task).or_default();
        rest.extend_from_slice(data);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in rest[..whole].split_inclusive(|byte| *byte == b'\n') {
            let mut words = std::str::from_utf8(line)?.split(' ');
            let mut word = || words.next().ok_or("a line that nobody wrote");
            let (number, at): (u64, u128) = (word()?.parse()?, word()?.parse()?);
            self.lost += number.saturating_sub(*due);
            self.repeated += u64::from(number < *due);
            *due = (*due).max(number + 1);
            self.latencies_ms.push(super::millis(now.saturating_sub(at)));
        }
        rest.drain(..whole);
        Ok(())
    }
}

/// Follows a job's log to its end.
async fn follow(bench: &Bench, number: u64) -> Result<Followed, Failure> {
    let job = Some(JobRequest { tenant: String::new(), number });
    let request = bench.request(LogsRequest { job, follow: true, ..LogsRequest::default() });
    let mut client = bench.client.clone();
    let mut replies = client.logs(request).await?.into_inner();
    let mut followed = Followed::default();
    while let Some(reply) = replies.message().await? {
        for chunk in reply.chunks {
            followed.take(chunk.task, &chunk.data)?;
        }
        if reply.end {
            return Ok(followed);
        }
    }
    Err("the log broke off".into())
}

pub async fn logs() -> Result<(), Failure> {
    println!(
        "{LINES_PER_S} lines/s of {LINE_BYTES} bytes for {SECONDS} s by {TASKS} tasks of one job: from each write to a follower over gRPC"
    );
    let mut bench = Bench::start(&std::env::temp_dir(), u32::try_from(TASKS)?).await?;
    let exe = std::env::current_exe()?;
    let exe = exe.to_str().ok_or("a path that is not text")?;
    let each_per_s = LINES_PER_S / TASKS;
    let (lines, pace) = (each_per_s * SECONDS, each_per_s.to_string());
    let number = bench.submit(job(&[exe, "emit", &lines.to_string(), &pace], TASKS)).await?;
    let begun = Instant::now();
    let followed = tokio::time::timeout(super::DEADLINE, follow(&bench, number)).await??;
    let span = begun.elapsed().as_secs_f64();
    let sync = super::sync_time(&bench.dir)?;
    bench.stop().await?;
    let missing: u64 = lines * TASKS - followed.tasks.values().map(|(_, due)| due).sum::<u64>();
    let mut spans = followed.latencies_ms;
    spans.sort_by(f64::total_cmp);
    let last = spans.len().checked_sub(1).ok_or("no line came")?;
    println!(
        "  {} lines in {span:.1} s: p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms; lost {}, repeated {}; one sync {:.2} ms (target p99 200 ms, always 5000 ms)",
        spans.len(),
        spans[last / 2],
        spans[last * 99 / 100],
        spans[last],
        followed.lost + missing,
        followed.repeated,
        sync.as_secs_f64() * 1e3,
    );
    Ok(())
}
