//! `drumline submit`: a file or a command, checked here, then handed over.

use super::{Outcome, logs};
use crate::{
    args::{Connection, Format, SubmitArgs},
    client::Client,
    commands::show,
    failure::{EXIT_OK, Failure},
    files, follow,
    output::{self, json, words},
    upload,
};
use proto::{
    after, array, jobfile,
    problem::Problem,
    units,
    v1::{Dependency, Input, JobRequest, JobSpec, LogsRequest, Step, SubmitReply, SubmitRequest},
    validate,
};
use std::{collections::BTreeMap, path::Path};
use tui::lines::Prefixer;

pub(super) async fn run(connection: Connection, args: SubmitArgs) -> Outcome {
    // All that can be known without the server is refused without it.
    let tenant = connection.tenant.clone().unwrap_or_default();
    let mut spec = read(&args, &tenant)?;
    let inputs = upload::digest_inputs(&mut spec).await?;
    let client = Client::connect(&connection).await?;
    if !args.dry_run {
        upload::send_inputs(&client, &spec, inputs).await?;
    }
    let request = SubmitRequest {
        tenant: client.tenant.clone(),
        spec: Some(spec.clone()),
        idempotency_key: args.idempotency_key.clone(),
        dry_run: args.dry_run,
    };
    let reply = client.submit(request).await?;
    print(&reply, &args)?;
    if args.dry_run || !(args.wait || args.follow) {
        return Ok(EXIT_OK);
    }
    let job = JobRequest { tenant: reply.tenant, number: reply.number };
    if args.follow {
        let request = LogsRequest { job: Some(job.clone()), follow: true, ..LogsRequest::default() };
        logs::print(follow::logs(&client, request), Prefixer::new(&spec, false)).await?;
    }
    let view = follow::wait_for_end(&client, job.clone()).await?;
    for line in show::failures(&client, &job, &view).await? {
        output::note(&line);
    }
    show::note_end(&view);
    Ok(follow::exit_code(&view))
}

fn print(reply: &SubmitReply, args: &SubmitArgs) -> Result<(), Failure> {
    let tasks = words::count(reply.tasks, "task");
    if args.format.format == Format::Json {
        return output::json(&json::submitted(reply, args.dry_run));
    }
    if args.dry_run {
        let waits = if reply.waiting_for.is_empty() {
            String::new()
        } else {
            format!(", would wait: {}", reply.waiting_for)
        };
        return output::line(&format!(
            "would be taken: {tasks}, expected price {}{waits}",
            words::money(reply.price_micros)
        ));
    }
    let id = words::job_id(&reply.tenant, reply.number);
    if args.format.format == Format::Name {
        return output::line(&id);
    }
    let mut line = format!("submitted {id} ({tasks})");
    if reply.existing {
        line = format!("{id} was submitted before with this key");
    }
    if !reply.waiting_for.is_empty() {
        line.push_str(&format!("; it waits: {}", reply.waiting_for));
    }
    output::line(&line)
}

/// The spec that file, command and flags make.
fn read(args: &SubmitArgs, tenant: &str) -> Result<JobSpec, Failure> {
    let mut spec = match &args.file {
        Some(path) => read_file(path)?,
        None => jobfile::command(args.command.clone()),
    };
    job_flags(&mut spec, args, tenant)?;
    step_flags(&mut spec, args)?;
    validate::normalize(&mut spec);
    validate::draft(&spec)?;
    validate::idempotency_key(&args.idempotency_key)?;
    Ok(spec)
}

/// Reads and checks a job file.
pub(crate) fn read_file(path: &Path) -> Result<JobSpec, Failure> {
    let text = files::read_text("job file", path, proto::limits::JOB_FILE_BYTES_MAX as u64)?;
    let base = if path == Path::new("-") { Path::new("") } else { path.parent().unwrap_or(Path::new("")) };
    Ok(jobfile::parse(&text, base)?)
}

fn job_flags(spec: &mut JobSpec, args: &SubmitArgs, tenant: &str) -> Result<(), Failure> {
    if let Some(name) = &args.name {
        spec.name.clone_from(name);
    }
    if let Some(priority) = args.priority {
        spec.priority = priority;
    }
    if let Some(text) = &args.expected_runtime {
        spec.expected_runtime_ms = span_ms("--expected-runtime", text)?;
    }
    if let Some(text) = &args.keep {
        spec.keep_ms = span_ms("--keep", text)?;
    }
    for text in &args.inputs {
        let (name, source) = pair("--input", text, "NAME=PATH")?;
        let mut input = Input { name: name.to_owned(), ..Input::default() };
        if source.contains("://") {
            let (url, digest) = source.split_once("#sha256=").unwrap_or((source, ""));
            (input.url, input.digest) = (url.to_owned(), digest.to_owned());
        } else if let Some(digest) = source.strip_prefix("sha256:") {
            if digest.is_empty() {
                let remedy = "write it like NAME=sha256:DIGEST, as `drumline upload` prints it";
                return Err(Failure::wrong_use("--input", text, "names no digest", remedy));
            }
            digest.clone_into(&mut input.digest);
        } else {
            source.clone_into(&mut input.path);
        }
        spec.inputs.push(input);
    }
    for text in &args.after {
        spec.after.push(dependency(text, tenant)?);
    }
    spec.labels.extend(labels(&args.labels)?);
    Ok(())
}

fn step_flags(spec: &mut JobSpec, args: &SubmitArgs) -> Result<(), Failure> {
    let given = given_step_flags(args);
    let [step] = spec.steps.as_mut_slice() else {
        let Some(flag) = given.first() else { return Ok(()) };
        return Err(Failure::wrong_use(
            flag,
            "",
            "says nothing about which of the file's steps is meant",
            "write it into the job file",
        ));
    };
    apply(step, args)?;
    Ok(())
}

/// The flags that describe a step, of those given.
fn given_step_flags(args: &SubmitArgs) -> Vec<&'static str> {
    let all = [
        ("--array", args.array.is_some()),
        ("--nodes", args.nodes.is_some()),
        ("--tasks-per-node", args.tasks_per_node.is_some()),
        ("--cores", args.cores.is_some()),
        ("--memory", args.memory.is_some()),
        ("--gpus", args.gpus.is_some()),
        ("--runtime", args.runtime.is_some()),
        ("--output", !args.outputs.is_empty()),
        ("--time", args.time.is_some()),
        ("--retries", args.retries.is_some()),
        ("--env", !args.env.is_empty()),
        ("--pool", args.pool.is_some()),
        ("--constraint", !args.constraints.is_empty()),
        ("--exclusive", args.exclusive),
        ("--licenses", !args.licenses.is_empty()),
    ];
    all.into_iter().filter_map(|(flag, given)| given.then_some(flag)).collect()
}

fn apply(step: &mut Step, args: &SubmitArgs) -> Result<(), Failure> {
    if let Some(text) = &args.array {
        step.array = Some(array::parse(text)?);
    }
    for (flag, value, field) in [
        ("--nodes", args.nodes, &mut step.nodes),
        ("--tasks-per-node", args.tasks_per_node, &mut step.tasks_per_node),
    ] {
        if let Some(value) = value {
            above_zero(flag, u64::from(value))?;
            *field = value;
        }
    }
    let mut per_task = step.per_task.unwrap_or_default();
    if let Some(text) = &args.cores {
        per_task.millicores = units::parse_millicores(text).map_err(|error| error.at("--cores"))?;
        above_zero("--cores", u64::from(per_task.millicores))?;
    }
    if let Some(text) = &args.memory {
        per_task.memory_bytes = units::parse_memory_bytes(text).map_err(|error| error.at("--memory"))?;
        above_zero("--memory", per_task.memory_bytes)?;
    }
    if let Some(gpus) = args.gpus {
        per_task.gpus = gpus;
    }
    step.per_task = Some(per_task);
    if let Some(runtime) = &args.runtime {
        step.runtime.clone_from(runtime);
    }
    step.outputs.extend(args.outputs.iter().cloned());
    if let Some(text) = &args.time {
        step.timeout_ms = span_ms("--time", text)?;
    }
    if args.retries.is_some() {
        step.retries = args.retries;
    }
    for text in &args.env {
        let (name, value) = pair("--env", text, "NAME=VALUE")?;
        step.env.insert(name.to_owned(), value.to_owned());
    }
    if let Some(pool) = &args.pool {
        step.pool.clone_from(pool);
    }
    for text in &args.constraints {
        step.constraints.push(jobfile::parse_constraint("--constraint", text)?);
    }
    step.exclusive |= args.exclusive;
    for text in &args.licenses {
        step.licenses.extend(jobfile::parse_licenses("--licenses", text)?);
    }
    Ok(())
}

pub(super) fn above_zero(flag: &str, value: u64) -> Result<(), Problem> {
    if value > 0 {
        return Ok(());
    }
    Err(Problem::new("spec.size", flag, value, "must be above 0", "leave it out for the default"))
}

fn span_ms(flag: &str, text: &str) -> Result<u64, Problem> {
    let span = units::parse_duration_ms(text).map_err(|error| error.at(flag))?;
    above_zero(flag, span)?;
    Ok(span)
}

fn pair<'a>(flag: &str, text: &'a str, form: &str) -> Result<(&'a str, &'a str), Failure> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name, value)),
        _ => Err(Failure::wrong_use(flag, text, "is no pair", &format!("write it like {form}"))),
    }
}

/// Reads `--label K=V` flags.
pub(crate) fn labels(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    texts
        .iter()
        .map(|text| pair("--label", text, "KEY=VALUE").map(|(k, v)| (k.to_owned(), v.to_owned())))
        .collect()
}

/// Reads what `--after` says.
fn dependency(text: &str, tenant: &str) -> Result<Dependency, Failure> {
    let wrong = |reason: &str| Failure::wrong_use("--after", text, reason, after::REMEDY);
    let (of, read) = after::parse(text, tenant).map_err(|reason| wrong(&reason))?;
    if !tenant.is_empty() && !of.is_empty() && of != tenant {
        return Err(wrong("is another tenant's job"));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;

    fn read_line(line: &str) -> Result<JobSpec, Failure> {
        let words = ["drumline", "submit"].into_iter().chain(line.split(' '));
        let Command::Submit(args) = Cli::try_parse_from(words).unwrap().command else { panic!("{line}") };
        read(&args, "lab")
    }

    fn refusal(line: &str) -> String {
        let failure = read_line(line).unwrap_err();
        format!("{} {}", failure.exit_code(), failure.problem().unwrap())
    }

    #[test]
    fn flags_make_a_job_of_one_step() {
        let digest = "a".repeat(64);
        let spec = read_line(&format!(
            "--array 1-100%5 --cores 0.5 --memory 1GiB --gpus 1 --time 1h --retries 0 --priority -5 \
             --label k=v --after ok:lab-3 --after any:4[7] --after each:lab-5/fit --output out/* \
             --env A=b=c --constraint disk!=hdd --input book=./book.txt \
             --input web=http://host/x#sha256={digest} --input there=sha256:{digest} \
             --input odd=./sha256:x --expected-runtime 90s -- sh -c ls",
        ))
        .unwrap();
        let step = &spec.steps[0];
        assert_eq!((spec.name.as_str(), spec.priority, spec.expected_runtime_ms), ("sh", -5, 90_000));
        assert_eq!(array::format(step.array.as_ref().unwrap()), "1-100%5");
        let each = step.per_task.unwrap();
        assert_eq!((each.millicores, each.memory_bytes, each.gpus), (500, 1 << 30, 1));
        assert_eq!((step.timeout_ms, step.retries, step.env["A"].as_str()), (3_600_000, Some(0), "b=c"));
        assert_eq!(
            (spec.inputs[0].path.as_str(), spec.inputs[1].url.as_str(), &spec.inputs[1].digest),
            ("./book.txt", "http://host/x", &digest)
        );
        assert_eq!((&spec.inputs[2].digest, spec.inputs[2].path.as_str()), (&digest, ""));
        assert_eq!(spec.inputs[3].path, "./sha256:x");
        let after: Vec<_> = spec.after.iter().map(|on| after::format(on, "lab")).collect();
        assert_eq!(after, ["ok:lab-3", "any:lab-4[7]", "each:lab-5/fit"]);
        assert!(step.constraints[0].negated);
    }

    #[test]
    fn a_gang_is_asked_for_by_its_shape() {
        let spec = read_line("--nodes 2 --tasks-per-node 3 -- ./solve").unwrap();
        assert_eq!((spec.steps[0].nodes, spec.steps[0].tasks_per_node), (2, 3));
    }

    #[test]
    fn slips_are_told_before_any_server_is_asked() {
        assert_eq!(refusal("--cores 0 -- x"), "3 --cores = 0: must be above 0; leave it out for the default");
        assert!(refusal("--array 9-5 -- x").starts_with("3 array = 9-5: `9-5` runs backwards; "));
        assert!(
            refusal("--array 1-5 --nodes 2 -- x")
                .starts_with("3 step[0].array = 1-5: a step is an array or a gang")
        );
        assert!(refusal("--memory lots -- x").starts_with("3 --memory = lots: has a unit"));
        assert!(refusal("--time 0 -- x").starts_with("3 --time = 0: must be above 0"));
        assert!(refusal("--retries 1000 -- x").starts_with("3 step[0].retries = 1000: is too many"));
        assert!(refusal("--after 3 -- x").starts_with("2 --after = 3: does not say how"));
        assert!(
            refusal("--after ok:other-3 -- x").starts_with("2 --after = ok:other-3: is another tenant's job")
        );
        assert!(refusal("--after ok:x -- x").starts_with("2 --after = ok:x: is not a job id"));
        assert!(refusal("--after ok:3/a -- x").starts_with("2 --after = ok:3/a: names a step, but no task"));
        assert!(refusal("--after each:3 -- x").starts_with("3 after[0] = each:3: this job has no array"));
        assert!(refusal("--input book -- x").starts_with("2 --input = book: is no pair"));
        assert!(refusal("--input book=https://h/x -- x").starts_with("3 input[0].digest: is not told"));
        assert!(refusal("--input book=http://h/x -- x").starts_with("3 input[0].digest: is not told"));
        assert!(
            refusal("--input book=sha256: -- x").starts_with("2 --input = book=sha256:: names no digest")
        );
        assert!(
            refusal("--input book=sha256:ABC -- x")
                .starts_with("3 input[0].digest = ABC: is not a SHA-256; use 64 lower-case")
        );
        assert!(refusal("--env A -- x").starts_with("2 --env = A: is no pair"));
        assert!(
            refusal("--output /etc/passwd -- x")
                .starts_with("3 step[0].outputs[0] = /etc/passwd: is absolute")
        );
        assert!(refusal("no-such-file.toml").starts_with("2 job file = no-such-file.toml: No such file"));
        assert!(
            refusal("--runtime ray -- x").starts_with("3 step[0].runtime = ray: this runtime is not known")
        );
    }

    #[test]
    fn step_flags_need_one_step() {
        let two = jobfile::parse(
            "[[step]]\nname=\"a\"\nrun=\"x\"\n[[step]]\nname=\"b\"\nrun=\"x\"\n",
            Path::new(""),
        )
        .unwrap();
        let Command::Submit(args) =
            Cli::try_parse_from(["drumline", "submit", "--cores", "2", "job.toml"]).unwrap().command
        else {
            panic!("it is submit")
        };
        let failure = step_flags(&mut two.clone(), &args).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        let mut one = jobfile::parse("[[step]]\nrun=\"x\"\n", Path::new("")).unwrap();
        step_flags(&mut one, &args).unwrap();
        assert_eq!(one.steps[0].per_task.unwrap().millicores, 2000);
    }
}
