//! Files that break off on their way and go on from there: what moved once does not
//! move again, what arrives is what was sent, and each byte is paid once.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

#[path = "../../tui/tests/support/pty.rs"]
mod pty;
mod support;

use pty::InTerminal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::Write as _;
use std::time::Duration;
use support::chance::number;
use support::cut::{Way, cluster};
use support::{Cluster, Running, digest, processes, until, until_true};

/// A file of so many bytes that no two pieces of are alike.
fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What the tenant is charged: ingress, storage, egress.
fn charged(cluster: &Cluster) -> [u64; 3] {
    let tenants: Value = cluster.call(&["tenants", "-o", "json"]).ok().json();
    ["ingress_bytes", "storage_bytes", "egress_bytes"].map(|name| tenants[0][name].as_u64().unwrap())
}

const MIB: u64 = 1 << 20;

#[test]
fn a_download_goes_on_after_a_cut_and_after_another_command() {
    let (cluster, wire) = cluster("resumed-download", 1);
    let data = bytes(12 << 20);
    let size = data.len() as u64;
    fs::write(cluster.dir.join("data"), &data).unwrap();
    let copy = ["--output", "copy", "--output", "small", "--wait", "--"];
    let run = ["sh", "-c", "cp inputs/data copy; echo small > small"];
    cluster.call(&[&["submit", "--input", "data=data"], &copy[..], &run[..]].concat()).ok();
    let got = cluster.dir.join("got");
    let fetch = || cluster.call(&["outputs", "1", "get", "got"]);
    let (target, mut before) = (got.join("main/copy"), wire.moved(Way::Down));

    // The first command breaks off for good after 5 MiB.
    wire.break_after(Way::Down, 5 * MIB);
    fetch().says(4, &["main/copy", "the transfer broke"]);
    assert!(!target.exists(), "nothing half is seen under its name");
    let part = || {
        let mut parts = fs::read_dir(got.join("main")).unwrap().map(|entry| entry.unwrap().path());
        parts.find(|path| path.extension().is_some_and(|kind| kind == "part"))
    };
    let there = fs::metadata(part().unwrap()).unwrap().len();
    assert!((5 * MIB - 70_000..5 * MIB).contains(&there), "{there}");
    // The second has the small file, and asks for the rest of the other.
    wire.mend();
    wire.said(Way::Up);
    let done = fetch().ok();
    assert!(done.stderr.contains("2 files, 12MiB in got"), "{done:#?}");
    assert!(fs::read(&target).unwrap() == data && part().is_none());
    let asked = wire.said(Way::Up);
    assert!(asked.iter().any(|head| head.contains(&format!("range: bytes={there}-"))), "{asked:?}");
    let moved = wire.moved(Way::Down) - before;
    assert!((size..size + 70_000).contains(&moved), "{moved} of {size}");
    // What lay in buffers when it was cut was paid and never came; all else is paid once.
    until_true("it is booked", || charged(&cluster)[2] >= size + 6);
    let paid = charged(&cluster)[2];
    assert!(paid < size + 8 * MIB, "{paid}");

    // What is there already is not fetched again, and what was altered is.
    before = wire.moved(Way::Down);
    fetch().ok();
    assert_eq!(wire.moved(Way::Down), before);
    fs::write(got.join("main/small"), "other\n").unwrap();
    fetch().ok();
    assert_eq!(fs::read_to_string(got.join("main/small")).unwrap(), "small\n");

    // A wire that breaks in the midst of one command is nothing to its user.
    fs::remove_file(&target).unwrap();
    wire.break_after(Way::Down, 3 * MIB);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until_true("it breaks", || wire.is_broken());
            wire.mend();
        });
        fetch().ok();
    });
    assert!(fs::read(&target).unwrap() == data);
}

/// What waits in the server's place for uploads to be gone on with: durable bytes of
/// each, as their names tell.
fn waiting(cluster: &Cluster) -> Vec<u64> {
    let names = fs::read_dir(cluster.server.data.join("objects/.incoming")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| u64::from_str_radix(name.rsplit('.').next().unwrap(), 16).unwrap()).collect()
}

#[test]
fn an_upload_goes_on_after_a_cut_and_after_the_server_was_killed() {
    let (mut cluster, wire) = cluster("resumed-upload", 0);
    let data = bytes(12 << 20);
    let size = data.len() as u64;
    fs::write(cluster.dir.join("data"), &data).unwrap();
    let submit = |cluster: &Cluster| cluster.call(&["submit", "--input", "data=data", "--", "true"]);

    // The first command breaks off for good after 5 MiB, and then the server dies.
    wire.break_after(Way::Up, 5 * MIB);
    submit(&cluster).says(4, &["input data", "the transfer broke"]);
    until_true("what came is durable", || waiting(&cluster).iter().any(|bytes| *bytes > 4 * MIB));
    let [there] = waiting(&cluster)[..] else { panic!("one was sent: {:?}", waiting(&cluster)) };
    assert!((5 * MIB - 5_000..5 * MIB).contains(&there), "{there}");
    until_true("it is booked", || charged(&cluster) == [there, 0, 0]);
    cluster.server.kill();
    cluster.server.restart();
    // The next one is cut once more on its way, which its user does not see.
    wire.mend();
    wire.said(Way::Up);
    wire.break_after(Way::Up, 2 * MIB);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until_true("it breaks", || wire.is_broken());
            wire.mend();
        });
        submit(&cluster).ok();
    });
    let heads = wire.said(Way::Up);
    let asked = format!("content-range: bytes */{size}");
    assert!(heads.iter().any(|head| head.contains(&asked)), "{heads:?}");
    let rest = format!("content-range: bytes {there}-{}/{size}", size - 1);
    assert!(heads.iter().any(|head| head.contains(&rest)), "{rest}: {heads:?}");
    // Each byte moved once and is paid once; what lies there is what was sent.
    let moved = wire.moved(Way::Up);
    assert!((size..size + 20_000).contains(&moved), "{moved} of {size}");
    until_true("it is booked", || charged(&cluster) == [size, size, 0]);
    assert!(waiting(&cluster).is_empty());
    cluster.add_node("n1", &["--cores", "2", "--memory", "1GiB"]);
    cluster.until_ready(1);
    cluster.call(&["wait", "1"]).ok();
    let copy = ["--output", "copy", "--wait", "--", "cp", "inputs/data", "copy"];
    cluster.call(&[&["submit", "--input", "data=data"], &copy[..]].concat()).ok();
    let again = wire.moved(Way::Up) - moved;
    assert!(again < 10_000, "what is there is not sent, but for what the node asks by: {again}");
    cluster.call(&["outputs", "2", "get", "got"]).ok();
    assert!(fs::read(cluster.dir.join("got/main/copy")).unwrap() == data);
    until_true("the copy is kept too", || charged(&cluster) == [size, 2 * size, size]);
}

/// Lower-case hexadecimal SHA-256.
#[test]
fn files_are_uploaded_ahead_and_named_by_digest() {
    let (cluster, wire) = cluster("upload", 1);
    let (data, none) = (bytes(3 << 20), Vec::new());
    fs::write(cluster.dir.join("data"), &data).unwrap();
    fs::write(cluster.dir.join("none"), &none).unwrap();
    let done = cluster.call(&["upload", "data", "none", "./data", "-o", "json"]).ok();
    let one = |path: &str, bytes: &[u8], sent: bool| json!({ "path": path, "digest": digest(bytes), "size_bytes": bytes.len(), "tree": false, "sent": sent });
    assert_eq!(
        done.json(),
        json!([one("data", &data, true), one("none", &none, true), one("./data", &data, false)])
    );
    assert_eq!(done.stderr, "", "no bar where nobody watches");
    let moved = wire.moved(Way::Up);
    let done = cluster.call(&["upload", "data"]).ok();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "SHA-256                                                           SIZE  FILE",
            &format!("{}  3MiB  data  was there", digest(&data))
        ]
    );
    let done = cluster.call(&["upload", "data", "none", "-o", "name"]).ok();
    assert_eq!(done.stdout, format!("{}\n{}\n", digest(&data), digest(&none)));
    assert_eq!(wire.moved(Way::Up), moved, "what is there is not sent");
    until_true("it is booked", || charged(&cluster) == [3 * MIB, 3 * MIB, 0]);

    // A job names it by its digest alone, on the line and in a file.
    let input = format!("data=sha256:{}", digest(&data));
    let check =
        ["--wait", "--", "sh", "-c", "test $(wc -c < inputs/data) = 3145728 && ! test -s inputs/none"];
    let empty = format!("none=sha256:{}", digest(&none));
    cluster.call(&[&["submit", "--input", &input, "--input", &empty], &check[..]].concat()).ok();
    let file = format!(
        "[[input]]\nname = 'data'\ndigest = '{}'\n[[step]]\nrun = 'test -s inputs/data'\n",
        digest(&data)
    );
    cluster.call(&["submit", "--wait", &cluster.dir.file("job.toml", &file)]).ok();
    assert_eq!(cluster.show("1")["inputs"][0]["size_bytes"], json!(3 * MIB));

    // What is not there, or no digest, is told with what to do.
    let unknown = "ab".repeat(32);
    let submit = |input: &str| cluster.call(&["submit", "--input", input, "--", "true"]);
    submit(&format!("x=sha256:{unknown}"))
        .says(3, &["input[0].digest", &unknown, "not uploaded", "drumline upload"]);
    submit("x=sha256:AB").says(3, &["input[0].digest = AB", "64 lower-case"]);
    submit("x=sha256:").says(2, &["--input = x=sha256:", "drumline upload"]);
    let sized =
        format!("[[input]]\nname = 'data'\nsize = 5\ndigest = '{}'\n[[step]]\nrun = 'true'\n", digest(&data));
    let sized = cluster.dir.file("sized.toml", &sized);
    cluster.call(&["submit", &sized]).says(3, &["input[0].digest", "names 3145728 bytes, and 5 are told"]);
    cluster.call(&["upload", "gone"]).says(2, &["path = gone", "correct the path"]);
}

#[test]
fn ctrl_c_and_the_same_command_again_go_on() {
    let (cluster, wire) = cluster("upload-ctrl-c", 0);
    let data = bytes(32 << 20);
    let size = data.len() as u64;
    fs::write(cluster.dir.join("data"), &data).unwrap();
    let job = "[[input]]\nname = 'data'\npath = 'data'\n[[step]]\nrun = 'true'\n";
    cluster.dir.file("job.toml", job);
    // Once while it uploads, once while a job's inputs are on their way.
    let mut came = 0;
    for command in [["upload", "data"], ["run", "job.toml"]] {
        wire.hold_after(Way::Up, 3 * MIB);
        let running = Running::start(&mut processes::interruptible(&cluster.command(&command)));
        until_true("so much has gone", || wire.is_holding());
        processes::signal("INT", &[running.pid()]);
        running.wait().exit(130);
        // What lay in buffers arrives, too.
        wire.mend();
        until_true("what came is durable and booked", || {
            let (there, paid) = (waiting(&cluster), charged(&cluster));
            there.len() == 1 && there[0] > came + 2 * MIB && paid == [there[0], 0, 0]
        });
        came = waiting(&cluster)[0];
    }
    assert!(came < size, "{came}");
    let done = cluster.call(&["upload", "data", "-o", "json"]).ok();
    assert_eq!(done.json()[0]["digest"], json!(digest(&data)));
    let moved = wire.moved(Way::Up);
    assert!((size..size + 100_000).contains(&moved), "{moved}");
    until_true("it is paid once", || charged(&cluster) == [size, size, 0]);
}

#[test]
fn who_watches_sees_how_an_upload_gets_on() {
    let (cluster, wire) = cluster("upload-bar", 0);
    let data = bytes(8 << 20);
    for (name, no_color) in [("one", ""), ("other", "1")] {
        let data = [data.as_slice(), name.as_bytes()].concat();
        fs::write(cluster.dir.join(name), &data).unwrap();
        wire.hold_after(Way::Up, 3 * MIB);
        let mut command = cluster.command(&["upload", name]);
        let watched = InTerminal::start(command.env("TERM", "xterm-256color").env("NO_COLOR", no_color));
        watched.until_written("MiB/8MiB");
        wire.mend();
        let left = watched.wait();
        assert_eq!(left.status.code(), Some(0), "{:?}", left.written);
        assert_eq!(left.written.contains("\x1b[32m"), no_color.is_empty(), "{:?}", left.written);
        // The bar is gone, and the result is what is left.
        let last = left.written.rsplit("\x1b[K").next().unwrap();
        assert!(last.contains(&digest(&data)) && !last.contains('█'), "{:?}", left.written);
    }
}

#[test]
fn a_limit_is_asked_for_what_is_missing_alone() {
    let (cluster, wire) = cluster("upload-limit", 0);
    let data = bytes(8 << 20);
    fs::write(cluster.dir.join("data"), &data).unwrap();
    let submit = || cluster.call(&["submit", "--input", "data=data", "--", "true"]);
    wire.break_after(Way::Up, 6 * MIB);
    submit().says(4, &["the transfer broke"]);
    wire.mend();
    until_true("it is booked", || charged(&cluster)[0] > 5 * MIB && waiting(&cluster).len() == 1);
    // With all of it once more the limit would be passed, with the rest it is not.
    cluster.call(&["quota", "set", "default", "--ingress", "9MiB"]).ok();
    submit().ok();
    until_true("it is paid once", || charged(&cluster) == [8 * MIB, 8 * MIB, 0]);
}

#[test]
fn a_part_is_paid_as_that_part_and_what_did_not_change_costs_nothing() {
    let (cluster, wire) = cluster("ranges", 1);
    let submit = ["submit", "--output", "out", "--wait", "--", "sh", "-c", "printf 0123456789 > out"];
    cluster.call(&submit).ok();
    let bearer = format!("Bearer {}", cluster.server.token);
    let auth = ("authorization", bearer.as_str());
    let (status, head) = head(&cluster, "/v1/jobs/1/outputs/main/out", &[auth]);
    assert_eq!(status, 307, "{head}");
    let place = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
    let place = place.strip_prefix(&wire.url()).unwrap().to_owned();
    let http = |method: &str, header: (&str, &str)| cluster.server.http(method, &place, &[header], "");
    assert_eq!(http("GET", ("range", "bytes=2-4")), (206, "234".into()));
    assert_eq!(http("GET", ("range", "bytes=-1")), (206, "9".into()));
    assert_eq!(http("GET", ("range", "bytes=10-")).0, 416);
    let tag = format!("\"{}\"", place.split(['/', '?']).nth(4).unwrap());
    assert_eq!(http("GET", ("if-none-match", &tag)), (304, String::new()));
    assert_eq!(http("HEAD", ("accept", "*/*")), (200, String::new()));
    until_true("four bytes are booked", || charged(&cluster) == [0, 10, 4]);
    assert_eq!(http("GET", ("accept", "*/*")), (200, "0123456789".into()));
    until_true("and ten more", || charged(&cluster) == [0, 10, 14]);
    let (status, body) = cluster.server.http("GET", "/v1/jobs/1/outputs/main/none", &[auth], "");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["code"]), (404, &json!("missing.output")));
}

/// Status and lower-case head of an answer without a body.
fn head(cluster: &Cluster, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let (head, _) = cluster.server.exchange("GET", path, headers, "");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase())
}

/// `DRUMLINE_TEST_INPUT_MIB` (64) says how long the input is.
#[test]
fn an_input_of_many_tasks_comes_once_to_each_node() {
    let (cluster, wire) = cluster("input-once", 2);
    let size = number("DRUMLINE_TEST_INPUT_MIB").unwrap_or(64) * MIB;
    let path = cluster.dir.join("data");
    let piece = bytes(1 << 20);
    let mut file = fs::File::create(&path).unwrap();
    let mut digest = Sha256::new();
    for number in 0..size / MIB {
        let piece = [&number.to_le_bytes()[..], &piece[8..]].concat();
        digest.update(&piece);
        file.write_all(&piece).unwrap();
    }
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let input = format!("data={}", path.display());
    // Each has all of it; one of sixteen reads it as well.
    let look = format!(
        "stat -c %s inputs/data > size; pwd | grep -o /n[12]/ > node; \
         [ $((DRUMLINE_TASK % 16)) -gt 0 ] || echo '{digest}  inputs/data' | sha256sum -c --quiet"
    );
    let array = ["--array", "0-63", "--output", "size", "--output", "node", "--", "sh", "-c", &look];
    let before = wire.moved(Way::Down);
    let mut submitting = cluster.command(&["submit", "-o", "json", "--input", &input, "--memory", "16MiB"]);
    let submitted = submitting.args(array).output().unwrap();
    assert!(submitted.status.success(), "{}", String::from_utf8_lossy(&submitted.stderr));
    // However slowly a build without optimizations digests.
    let deadline = support::DEADLINE + Duration::from_millis(200) * u32::try_from(size / MIB).unwrap();
    until(deadline, "the job has ended", || (cluster.state("default-1") == "COMPLETED").then_some(()));
    let moved = wire.moved(Way::Down) - before;
    let nodes = cluster.dir.join("got");
    cluster.call(&["outputs", "1", "get", &nodes.display().to_string()]).ok();
    let read = |task: u64, name: &str| fs::read_to_string(nodes.join(format!("main/{task}/{name}"))).unwrap();
    let mut used = std::collections::BTreeSet::new();
    for task in 0..64 {
        assert_eq!(read(task, "size"), format!("{size}\n"));
        used.insert(read(task, "node"));
    }
    let times = used.len() as u64;
    println!("{} MiB came {} times to {times} nodes for 64 tasks", size / MIB, moved / size);
    assert_eq!(moved / size, times, "{moved} bytes of {size}");
    assert!(moved % size < size / 50, "and little else: {moved} of {size}");
}
