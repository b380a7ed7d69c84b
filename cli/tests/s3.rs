//! Whole objects in a bucket of S3: a real S3 server, signed URLs that nodes read it by,
//! and what becomes of work while it is away.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use support::cut::{Way, Wire};
use support::{Cluster, DEADLINE, Dir, Done, Running, Server, digest, drumline, run, until, until_true};

const KEY: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "drummer"), ("AWS_SECRET_ACCESS_KEY", "a secret"), ("AWS_REGION", "us-east-1")];

/// The published s3s-fs on a directory, behind a wire.
struct S3 {
    wire: Wire,
    root: PathBuf,
    port: u16,
    child: Option<Child>,
}

/// Where it is, built by the project's own script.
fn s3s_fs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = PathBuf::from(env!("CARGO_BIN_EXE_drumline"));
    let target = target.parent().and_then(Path::parent).unwrap();
    let install = Command::new(root.join("scripts/s3/install.sh")).env("CARGO_TARGET_DIR", target).output();
    let install = install.unwrap();
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
    target.join("tools/bin/s3s-fs")
}

impl S3 {
    fn start(dir: &Dir) -> Self {
        let root = dir.join("s3");
        fs::create_dir_all(root.join("drum")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut s3 = Self { wire: Wire::new(), root, port, child: None };
        s3.wire.lead_to(&format!("127.0.0.1:{port}"));
        s3.begin();
        s3
    }

    fn begin(&mut self) {
        let mut command = Command::new(s3s_fs());
        command.args(["--host", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--access-key", KEY[0].1, "--secret-key", KEY[1].1]).arg(&self.root);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        until_true("the S3 server listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What is in the bucket below this prefix, by the last part of the key.
    fn holds(&self, prefix: &str) -> Vec<String> {
        let Ok(dir) = fs::read_dir(self.root.join("drum").join(prefix)) else { return Vec::new() };
        let names = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    fn config(&self, dir: &Dir) -> String {
        let text = format!(
            "[objects]\nurl = \"s3://drum/here\"\nendpoint = \"{}\"\n[controller]\nplatform_backoff_ms = 500\n\
             [logs]\npack_every_ms = 100\npack_after_ms = 100\nfile_bytes = 300000\n",
            self.wire.url()
        );
        dir.file("server.toml", &text)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.end();
    }
}

fn cluster(name: &str, nodes: usize) -> (Cluster, S3) {
    let dir = Dir::new(name);
    let s3 = S3::start(&dir);
    let config = s3.config(&dir);
    let server = Server::start_with_env(&dir, &["--config", &config], &KEY);
    let mut cluster = Cluster { nodes: Vec::new(), server, dir };
    for number in 1..=nodes {
        cluster.add_node(&format!("n{number}"), &["--cores", "2", "--memory", "1GiB"]);
    }
    cluster.until_ready(nodes);
    (cluster, s3)
}

/// Files of the server's own object place.
fn on_disk(cluster: &Cluster) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![cluster.server.data.join("objects")]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() { open.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

#[test]
fn a_job_s_files_are_in_the_bucket_and_nodes_read_them_there() {
    let (cluster, s3) = cluster("s3-job", 2);
    // More than one part of an upload to S3.
    let data: Vec<u8> = (0..20_u32 << 18).flat_map(u32::to_le_bytes).collect();
    fs::write(cluster.dir.join("data"), &data).unwrap();
    let input = format!("data={}", cluster.dir.join("data").display());
    let look = "sha256sum < inputs/data > sum; echo $DRUMLINE_TASK > own";
    let array = ["--array", "0-7", "--output", "sum", "--output", "own", "--wait", "--", "sh", "-c", look];
    cluster.call(&[&["submit", "--input", &input], &array[..]].concat()).ok();
    let (data_digest, sum) = (digest(&data), format!("{}  -\n", digest(&data)));
    let held = s3.holds("here/objects/default");
    let mut expected: Vec<String> = (0..8).map(|task| digest(format!("{task}\n").as_bytes())).collect();
    expected.extend([data_digest.clone(), digest(sum.as_bytes())]);
    expected.sort();
    assert_eq!(held, expected);
    assert!(on_disk(&cluster).is_empty(), "the server keeps none");
    // Nodes have no credentials: they came with a URL that lets them read this one object.
    let said = s3.wire.said(Way::Up);
    let path = format!("get /drum/here/objects/default/{data_digest}?x-amz-");
    assert!(said.iter().any(|head| head.starts_with(&path)), "{said:#?}");
    let got = cluster.dir.join("got");
    cluster.call(&["outputs", "1", "get", &got.display().to_string()]).ok();
    for task in 0..8 {
        assert_eq!(fs::read_to_string(got.join(format!("main/{task}/own"))).unwrap(), format!("{task}\n"));
        assert_eq!(fs::read_to_string(got.join(format!("main/{task}/sum"))).unwrap(), sum);
    }
    // By ranges too, and what is there is neither sent nor charged again.
    let bearer = format!("Bearer {}", cluster.server.token);
    let headers = [("authorization", bearer.as_str())];
    let (head, _) = cluster.server.exchange("GET", "/v1/jobs/1/outputs/main/0/sum", &headers, "");
    let place = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
    let place = place.strip_prefix(&cluster.server.address).unwrap_or(place);
    let part = cluster.server.http("GET", place, &[("range", "bytes=3-7")], "");
    assert_eq!(part, (206, sum[3..8].to_owned()));
    let stored = || cluster.call(&["tenants", "-o", "json"]).ok().json()[0]["storage_bytes"].clone();
    let before = stored();
    cluster.call(&["upload", &cluster.dir.join("data").display().to_string()]).ok();
    assert_eq!(stored(), before);
}

#[test]
fn a_directory_in_the_bucket_is_found_whole_or_told_by_what_is_missing() {
    let (mut cluster, s3) = cluster("s3-tree", 1);
    fs::create_dir_all(cluster.dir.join("set/deep")).unwrap();
    for (path, text) in [("words", "one\n"), ("deep/more", "two\n")] {
        fs::write(cluster.dir.join("set").join(path), text).unwrap();
    }
    let tree = cluster.call(&["upload", "set", "-o", "name"]).ok().stdout;
    assert_eq!(s3.holds("here/objects/default").len(), 3);
    // It has seen none of them itself.
    cluster.server.kill();
    cluster.server.restart();
    let input = format!("set=sha256:{}", tree.trim());
    let look = "cat inputs/set/words inputs/set/deep/more";
    let done = cluster.call(&["submit", "--input", &input, "--follow", "--", "sh", "-c", look]).ok();
    assert!(done.stdout.ends_with("main | one\nmain | two\n"), "{done:#?}");
    cluster.server.kill();
    fs::remove_file(s3.root.join("drum/here/objects/default").join(digest(b"two\n"))).unwrap();
    cluster.server.restart();
    let refused = cluster.call(&["submit", "--input", &input, "--", "true"]);
    refused.says(3, &["input[0].tree = deep/more", "was not uploaded"]);
}

#[test]
fn what_was_put_there_is_found_after_a_crash_and_checkpoints_go() {
    let (mut cluster, s3) = cluster("s3-crash", 1);
    let keep = "echo $DRUMLINE_ATTEMPT > $DRUMLINE_CHECKPOINT_DIR/at; echo one > next; \
                mv next $DRUMLINE_CHECKPOINT_DIR/.drumline-ready; \
                while [ -e $DRUMLINE_CHECKPOINT_DIR/.drumline-ready ]; do sleep 0.05; done; \
                until [ -e ../../../../go ]; do sleep 0.05; done; echo done > end";
    let toml = format!(
        "[[step]]\nname = \"a\"\noutputs = [\"end\"]\ncheckpoint = {{ path = \"ckpt\", every = \"1s\" }}\n\
         run = '''{}'''\n[[step]]\nname = \"b\"\nafter = [\"a\"]\nrun = \"grep done from/a/end\"\n",
        keep.replace("../../../../go", &cluster.dir.join("go").display().to_string())
    );
    let id = cluster.submit(&[&cluster.dir.file("job.toml", &toml)]);
    until_true("a checkpoint is kept", || !s3.holds("here/checkpoints/default").is_empty());
    cluster.server.kill();
    cluster.server.restart();
    fs::write(cluster.dir.join("go"), "").unwrap();
    cluster.until_state(&id, "COMPLETED");
    until_true("its checkpoints are gone", || s3.holds("here/checkpoints/default").is_empty());
    assert_eq!(s3.holds("here/objects/default"), [digest(b"done\n")]);
}

#[test]
fn while_the_bucket_is_away_nothing_is_lost() {
    let (cluster, mut s3) = cluster("s3-away", 1);
    s3.end();
    let book = cluster.dir.file("book", "a book\n");
    let refused: Done = cluster.call(&["upload", &book]);
    refused.says(4, &["the object store failed"]);
    // What a task gave waits on its node.
    let id = cluster.submit(&["--output", "out", "--retries", "0", "--", "sh", "-c", "echo $$ > out"]);
    cluster.until_state(&id, "RUNNING");
    s3.begin();
    cluster.until_state(&id, "COMPLETED");
    cluster.call(&["upload", &book]).ok();
    let held = s3.holds("here/objects/default");
    assert!(held.contains(&digest(b"a book\n")) && held.len() == 2, "{held:?}");
}

#[test]
fn a_log_goes_there_while_its_job_runs_and_is_read_from_there() {
    let (mut cluster, mut s3) = cluster("s3-logs", 1);
    let go = cluster.dir.join("go");
    let lines = "seq -f 'line %07g' 1 80000; until test -e GO; do sleep 0.05; done; seq 80001 90000";
    let id = cluster.submit(&["--", "sh", "-c", &lines.replace("GO", &go.display().to_string())]);
    let segments = format!("here/logs/default/{:016x}", 1);
    until_true("what is full of it is in the bucket", || !s3.holds(&segments).is_empty());
    let expected: Vec<String> = (1..=80_000).map(|line| format!("main | line {line:07}")).collect();
    let read = |cluster: &Cluster| -> Vec<String> {
        let done = cluster.call(&["logs", &id]).ok();
        done.stdout.lines().map(str::to_owned).collect()
    };
    until_true("all of it that was written is read", || read(&cluster) == expected);
    cluster.server.kill();
    cluster.server.restart();
    assert!(read(&cluster) == expected, "a server reads it that did not put it there");
    // Who reads while the bucket is away asks until it is back.
    s3.end();
    let reader = Running::start(&mut cluster.command(&["logs", &id]));
    s3.begin();
    let lines: Vec<String> = reader.wait().ok().stdout.lines().map(str::to_owned).collect();
    assert!(lines == expected);
    fs::write(go, "").unwrap();
    cluster.until_state(&id, "COMPLETED");
    let logs = cluster.server.data.join("logs/default");
    let files = |dir: &Path| -> Vec<PathBuf> {
        fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    };
    until_true("nothing is left here but what tells where it is", || {
        let all = [files(&logs), files(&logs.join(format!("{:016x}", 1)))].concat();
        all.iter().filter(|path| path.is_file()).all(|path| path.extension().is_some_and(|is| is == "idx"))
    });
    assert_eq!(read(&cluster).len(), 90_000);
}

#[test]
fn a_bucket_that_cannot_be_used_is_told_before_anybody_is_served() {
    let dir = Dir::new("s3-wrong");
    let s3 = S3::start(&dir);
    let start = |objects: &str, key: &[(&str, &str)]| {
        let config = dir.file("wrong.toml", &format!("[objects]\n{objects}"));
        let data = dir.join("server").display().to_string();
        let mut command = drumline();
        command.args(["server", "--data", &data, "--listen", "127.0.0.1:0", "--config", &config]);
        run(command.envs(key.iter().copied()))
    };
    let endpoint = format!("endpoint = \"{}\"\n", s3.wire.url());
    let there = format!("url = \"s3://drum\"\n{endpoint}");
    start(&format!("url = \"s3://nowhere\"\n{endpoint}"), &KEY)
        .says(1, &["objects.url = s3://nowhere", "NoSuchBucket"]);
    let wrong = [KEY[0], ("AWS_SECRET_ACCESS_KEY", "another"), KEY[2]];
    start(&there, &wrong).says(1, &["objects.url = s3://drum", "AWS_SECRET_ACCESS_KEY"]);
    start("url = \"drum\"\n", &KEY).says(1, &["objects.url = drum", "s3://BUCKET"]);
    start("region = \"here\"\n", &KEY).says(1, &["objects.region = here", "names none"]);
    start("url = \"s3://drum\"\nendpoint = \"localhost\"\n", &KEY)
        .says(1, &["objects.endpoint = localhost", "http://"]);
    let port = until(DEADLINE, "a port", || TcpListener::bind("127.0.0.1:0").ok());
    let nobody = format!("url = \"s3://drum\"\nendpoint = \"http://{}\"\n", port.local_addr().unwrap());
    drop(port);
    start(&nobody, &KEY).says(1, &["objects.url = s3://drum", "cannot be used"]);
}
