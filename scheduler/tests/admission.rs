//! The rules at the door, as a table, and what no pool could ever hold.

use proto::month;
use proto::v1::{
    ArrayItem, ArraySpec, Budget, Constraint, Input, JobSpec, LedgerRow, NodeRow, Quota, Resources, Step,
    TenantRow, WhenFull,
};
use scheduler::Amount;
use scheduler::admission::{Ask, Verdict, decide};
use scheduler::feasible::feasible;

const GIB: u64 = 1 << 30;
/// 2026-02-15 12:00 UTC.
const NOW_MS: u64 = 1_771_156_800_000;
const MARCH_MS: u64 = 1_772_323_200_000;

fn step(millicores: u32, memory_bytes: u64, gpus: u32) -> Step {
    Step {
        name: "main".into(),
        argv: vec!["true".into()],
        nodes: 1,
        tasks_per_node: 1,
        per_task: Some(Resources { millicores, memory_bytes, gpus }),
        ..Step::default()
    }
}

fn array(last: u64) -> Option<ArraySpec> {
    Some(ArraySpec { items: vec![ArrayItem { first: 0, last, stride: 1 }], max_running: 0 })
}

fn job(steps: Vec<Step>) -> JobSpec {
    JobSpec { name: "job".into(), expected_runtime_ms: 3_600_000, steps, ..JobSpec::default() }
}

fn tenant(quota: Quota) -> TenantRow {
    TenantRow { name: "lab".into(), quota: Some(quota), ..TenantRow::default() }
}

fn cores(limit: u64) -> Quota {
    Quota { millicores: Some(limit * 1000), ..Quota::default() }
}

fn held(cores: u64) -> Amount {
    Amount { millicores: cores * 1000, ..Amount::default() }
}

/// One line a verdict.
fn said(tenant: &TenantRow, ledger: &LedgerRow, held: Amount, spec: &JobSpec) -> String {
    match decide(&Ask { tenant, ledger, held, groups: &[], spec, now_ms: NOW_MS }) {
        Verdict::Admit { price_micros: 0, waiting_for: None } => "admitted".to_owned(),
        Verdict::Admit { price_micros, waiting_for: None } => format!("admitted for {price_micros}"),
        Verdict::Admit { waiting_for: Some(waiting_for), .. } => format!("waits for {waiting_for}"),
        Verdict::Refuse(problem) => format!("{}: {}", problem.code, problem.reason),
    }
}

#[test]
fn what_runs_at_once_counts_the_least_a_job_needs() {
    let two_steps = job(vec![step(2000, 0, 0), step(3000, 0, 0)]);
    let thousand = job(vec![Step { array: array(999), ..step(1000, 0, 0) }]);
    let gang = job(vec![Step { nodes: 2, tasks_per_node: 4, ..step(1000, 0, 0) }]);
    let full = "quota.exceeded: tenant lab uses 8 of 10 cores and new jobs are refused from 90 % on";
    for (held_cores, spec, expected) in [
        (0, &job(vec![step(1000, 0, 0)]), "admitted"),
        (7, &job(vec![step(1000, 0, 0)]), "admitted"),
        (8, &job(vec![step(1000, 0, 0)]), full),
        (5, &two_steps, "admitted"),
        (
            6,
            &two_steps,
            "quota.exceeded: tenant lab uses 6 of 10 cores and new jobs are refused from 90 % on",
        ),
        (7, &thousand, "admitted"),
        (0, &gang, "admitted"),
        (1, &gang, "quota.exceeded: tenant lab uses 1 of 10 cores and new jobs are refused from 90 % on"),
        (
            0,
            &job(vec![step(9000, 0, 0)]),
            "quota.exceeded: the job needs 9 of the 10 cores at once that tenant lab may have, and jobs are refused from 90 % on",
        ),
        (
            0,
            &job(vec![step(11_000, 0, 0)]),
            "quota.exceeded: the job needs 11 cores at once and tenant lab may have 10",
        ),
    ] {
        assert_eq!(said(&tenant(cores(10)), &LedgerRow::default(), held(held_cores), spec), expected);
    }
}

#[test]
fn a_tenant_may_choose_to_wait_for_what_clears_by_itself() {
    let mut patient = tenant(Quota { gpus: Some(4), memory_bytes: Some(64 * GIB), ..cores(10) });
    patient.when_full = WhenFull::Queue.into();
    let busy = Amount { millicores: 9000, memory_bytes: 8 * GIB, gpus: 4 };
    let ledger = LedgerRow::default();
    let small = job(vec![step(1000, GIB, 0)]);
    assert_eq!(said(&patient, &ledger, busy, &small), "waits for cores: 9 in use, 1 more needed, 10 allowed");
    let with_gpu = job(vec![step(1000, GIB, 1)]);
    assert_eq!(
        said(&patient, &ledger, busy, &with_gpu),
        "waits for cores: 9 in use, 1 more needed, 10 allowed; gpus: 4 in use, 1 more needed, 4 allowed"
    );
    // What could never start is refused even so.
    assert_eq!(
        said(&patient, &ledger, Amount::default(), &job(vec![step(1000, GIB, 5)])),
        "quota.exceeded: the job needs 5 gpus at once and tenant lab may have 4"
    );
    // Up to the whole limit may wait: the scheduler grants all of it.
    assert_eq!(
        said(&patient, &ledger, Amount::default(), &job(vec![step(10_000, GIB, 0)])),
        "waits for cores: 0 in use, 10 more needed, 10 allowed"
    );
}

#[test]
fn a_dimension_the_job_does_not_touch_is_not_held_against_it() {
    let no_gpus = tenant(Quota { gpus: Some(0), storage_bytes: Some(0), ..Quota::default() });
    assert_eq!(said(&no_gpus, &LedgerRow::default(), held(0), &job(vec![step(1000, 0, 0)])), "admitted");
    assert_eq!(
        said(&no_gpus, &LedgerRow::default(), held(0), &job(vec![step(1000, 0, 1)])),
        "quota.exceeded: the job needs 1 gpus at once and tenant lab may have 0"
    );
}

#[test]
fn what_adds_up_counts_the_whole_job_and_waiting_does_not_help() {
    let quota = Quota {
        queued_tasks: Some(1000),
        storage_bytes: Some(100 * GIB),
        ingress_bytes: Some(200 * GIB),
        egress_bytes: Some(100 * GIB),
        ..Quota::default()
    };
    let mut patient = tenant(quota);
    patient.when_full = WhenFull::Queue.into();
    let ledger = LedgerRow {
        queued_tasks: 100,
        storage_bytes: 50 * GIB,
        ingress_bytes: 50 * GIB,
        egress_bytes: 89 * GIB,
        month: month::of(NOW_MS),
        ..LedgerRow::default()
    };
    let tasks = |count: u64| job(vec![Step { array: array(count - 1), ..step(1000, 0, 0) }]);
    let bringing = |gib: u64| JobSpec {
        inputs: vec![Input { name: "in".into(), size_bytes: gib * GIB, ..Input::default() }],
        ..job(vec![step(1000, 0, 0)])
    };
    // Uploaded, they were counted on their way in; from elsewhere they are still to come.
    let fetching = |gib: u64| {
        let mut spec = bringing(gib);
        spec.inputs[0].url = "http://host/in".into();
        spec
    };
    let without_storage = |mut row: TenantRow| {
        row.quota.as_mut().unwrap().storage_bytes = None;
        row
    };
    let roomy = without_storage(patient.clone());
    for (spec, expected) in [
        (bringing(500), "admitted"),
        (fetching(129), "admitted"),
        (
            fetching(130),
            "quota.exceeded: tenant lab uses 50GiB of 200GiB ingress this month and new jobs are refused from 90 % on",
        ),
        (fetching(201), "quota.exceeded: the job needs 201GiB ingress and tenant lab may have 200GiB"),
        (fetching(0), "spec.size: tenant lab has a limit on ingress, and this URL's size is not told"),
    ] {
        assert_eq!(said(&roomy, &ledger, held(0), &spec), expected);
    }
    // With the month the count begins anew, and the refusal says when.
    let last_month = LedgerRow { month: month::of(NOW_MS) - 1, ..ledger };
    assert_eq!(said(&roomy, &last_month, held(0), &fetching(130)), "admitted");
    let when = |gib: u64| {
        let spec = fetching(gib);
        let ask =
            Ask { tenant: &roomy, ledger: &ledger, held: held(0), groups: &[], spec: &spec, now_ms: NOW_MS };
        let Verdict::Refuse(problem) = decide(&ask) else { panic!("refused above") };
        problem.quota.unwrap().fits_at_ms
    };
    assert_eq!((when(130), when(180)), (MARCH_MS, 0));
    let giving = job(vec![Step { outputs: vec!["*".into()], ..step(1000, 0, 0) }]);
    let past_egress = LedgerRow { egress_bytes: 90 * GIB, ..ledger };
    let past_storage = LedgerRow { storage_bytes: 90 * GIB, ..ledger };
    for (ledger, spec, expected) in [
        (&ledger, tasks(799), "admitted"),
        (
            &ledger,
            tasks(800),
            "quota.exceeded: tenant lab uses 100 of 1000 queued_tasks and new jobs are refused from 90 % on",
        ),
        // What it brings is kept already; what it gives is to be kept.
        (&past_storage, bringing(500), "admitted"),
        (
            &past_storage,
            giving.clone(),
            "quota.exceeded: tenant lab uses 90GiB of 100GiB storage and new jobs are refused from 90 % on",
        ),
        (&ledger, giving.clone(), "admitted"),
        (
            &past_egress,
            giving,
            "quota.exceeded: tenant lab uses 90GiB of 100GiB egress this month and new jobs are refused from 90 % on",
        ),
        (&past_egress, tasks(1), "admitted"),
    ] {
        assert_eq!(said(&patient, ledger, held(0), &spec), expected);
    }
}

#[test]
fn the_month_has_a_budget() {
    let budget = Budget { month_micros: Some(10_000_000), core_hour_micros: 1_000_000, gpu_hour_micros: 0 };
    let mut lab = tenant(Quota::default());
    lab.budget = Some(budget);
    let month = month::of(NOW_MS);
    let ledger =
        LedgerRow { month, reserved_micros: 3_000_000, settled_micros: 4_000_000, ..LedgerRow::default() };
    let hours = |count: u64| job(vec![Step { array: array(count - 1), ..step(1000, 0, 0) }]);
    assert_eq!(said(&lab, &ledger, held(0), &hours(3)), "admitted for 3000000");
    assert_eq!(
        said(&lab, &ledger, held(0), &hours(4)),
        "budget.exceeded: the job is estimated at 4.00; tenant lab has 3.00 of 10.00 left this month"
    );
    // What was settled last month is last month's.
    let last_month = LedgerRow { month: month - 1, ..ledger };
    assert_eq!(said(&lab, &last_month, held(0), &hours(7)), "admitted for 7000000");
    let Verdict::Refuse(problem) = decide(&Ask {
        tenant: &lab,
        ledger: &ledger,
        held: held(0),
        groups: &[],
        spec: &hours(4),
        now_ms: NOW_MS,
    }) else {
        panic!("it was refused above");
    };
    let quota = problem.quota.unwrap();
    assert_eq!((quota.dimension.as_str(), quota.fits_at_ms), ("budget", MARCH_MS));
    assert!((quota.used - 7.0).abs() < 1e-9 && (quota.asked - 4.0).abs() < 1e-9);
    // A job dearer than a whole month fits in none.
    let Verdict::Refuse(problem) = decide(&Ask {
        tenant: &lab,
        ledger: &ledger,
        held: held(0),
        groups: &[],
        spec: &hours(11),
        now_ms: NOW_MS,
    }) else {
        panic!("more than the budget is refused");
    };
    assert_eq!(problem.quota.unwrap().fits_at_ms, 0);
}

#[test]
fn a_refusal_names_all_figures() {
    let lab = tenant(cores(10));
    let spec = job(vec![step(1500, 0, 0)]);
    let ledger = LedgerRow::default();
    let ask = Ask { tenant: &lab, ledger: &ledger, held: held(8), groups: &[], spec: &spec, now_ms: NOW_MS };
    let Verdict::Refuse(problem) = decide(&ask) else { panic!("8 + 1.5 cores are above 9") };
    assert_eq!((problem.code.as_str(), problem.value.as_str()), ("quota.exceeded", "1.5"));
    let quota = problem.quota.unwrap();
    assert_eq!(quota.dimension, "cores");
    let figures = [quota.used, quota.asked, quota.limit, quota.threshold];
    assert!(figures.iter().zip([8.0, 1.5, 10.0, 9.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{figures:?}");
}

#[test]
fn groups_are_asked_like_the_tenant() {
    let (lab, ledger) = (tenant(cores(10)), LedgerRow::default());
    let patient = TenantRow { when_full: WhenFull::Queue.into(), ..lab.clone() };
    let group = |name: &str, limit| TenantRow { name: name.into(), group: true, ..tenant(cores(limit)) };
    let (team, org) = (group("team", 20), group("org", 30));
    let said = |tenant: &TenantRow, in_team, in_org, needed| {
        let (groups, spec) = ([(&team, held(in_team)), (&org, held(in_org))], job(vec![step(needed, 0, 0)]));
        match decide(&Ask {
            tenant,
            ledger: &ledger,
            held: held(1),
            groups: &groups,
            spec: &spec,
            now_ms: NOW_MS,
        }) {
            Verdict::Admit { waiting_for, .. } => waiting_for.unwrap_or_else(|| "admitted".to_owned()),
            Verdict::Refuse(problem) => format!("{}; {}", problem.reason, problem.remedy),
        }
    };
    assert_eq!(said(&lab, 15, 24, 2000), "admitted");
    let full = "group org uses 26 of 30 cores and new jobs are refused from 90 % on; \
                wait for earlier work to end, ask for less, or have the group's quota raised";
    assert_eq!(said(&lab, 15, 26, 2000), full);
    assert_eq!(said(&patient, 15, 26, 2000), "cores of group org: 26 in use, 2 more needed, 30 allowed");
    let wide = TenantRow { quota: None, ..lab };
    assert!(
        said(&wide, 0, 0, 21_000).starts_with("the job needs 21 cores at once and group team may have 20")
    );
}

fn node(name: &str, pool: &str, millicores: u32, gib: u64, gpus: u32) -> NodeRow {
    NodeRow {
        name: name.into(),
        pool: pool.into(),
        capacity: Some(Resources { millicores, memory_bytes: gib * GIB, gpus }),
        ..NodeRow::default()
    }
}

#[test]
fn what_no_pool_could_hold_is_refused_with_the_largest_that_could() {
    let mut nodes =
        vec![node("n1", "main", 4000, 8, 0), node("n2", "main", 8000, 4, 0), node("n3", "gpu", 4000, 8, 2)];
    nodes[0].labels.insert("disk".into(), "ssd".into());
    let label = |value: &str| Constraint { label: "disk".into(), value: value.into(), negated: false };
    let main = |step: Step| Step { pool: "main".into(), ..step };
    for (asked, expected) in [
        (step(8000, 4 * GIB, 0), ""),
        (
            step(9000, 0, 0),
            "spec.infeasible step[1].cores = 9: 9 needed on one node; the largest, n2 of pool main, has 8 cores, 4GiB",
        ),
        (
            step(1000, 9 * GIB, 0),
            "spec.infeasible step[1].memory = 9GiB: 9GiB needed on one node; the largest, n3 of pool gpu, has 4 cores, 8GiB, 2 GPUs",
        ),
        (
            main(step(1000, 0, 1)),
            "spec.infeasible step[1].gpus = 1: 1 needed on one node; the largest, n2 of pool main, has 8 cores, 4GiB",
        ),
        (
            step(8000, 8 * GIB, 0),
            "spec.infeasible step[1].cores = 8: no node has 8 cores, 8GiB together; the one with the most cores, n2 of pool main, has 8 cores, 4GiB",
        ),
        (Step { nodes: 3, ..step(4000, 4 * GIB, 0) }, ""),
        (
            Step { nodes: 4, ..step(4000, 4 * GIB, 0) },
            "spec.infeasible step[1].nodes = 4: only 3 nodes could hold 4 cores, 4GiB each",
        ),
        (
            Step { tasks_per_node: 9, ..step(1000, 0, 0) },
            "spec.infeasible step[1].tasks_per_node = 9: 9 needed on one node; the largest, n2 of pool main, has 8 cores, 4GiB",
        ),
        (
            Step { nodes: 63, ..step(1, 0, 0) },
            "spec.infeasible step[1].nodes = 63: a gang has at most 62 nodes",
        ),
        (
            Step { pool: "none".into(), ..step(1, 0, 0) },
            "spec.pool step[1].pool = none: there is no node in this pool",
        ),
        (Step { constraints: vec![label("ssd")], ..step(1, 0, 0) }, ""),
        (
            Step { constraints: vec![label("hdd")], ..step(1, 0, 0) },
            "spec.constraints step[1].constraints = disk=hdd: no node carries labels that meet them",
        ),
    ] {
        let found = feasible(&nodes, &job(vec![step(1, 0, 0), asked]));
        let said = found
            .err()
            .map_or(String::new(), |p| format!("{} {} = {}: {}", p.code, p.field, p.value, p.reason));
        assert_eq!(said, expected);
    }
    // Before any node is known everything is possible, but for the longest gang.
    assert_eq!(feasible(&[], &job(vec![step(9_000_000, 0, 0)])), Ok(()));
}
