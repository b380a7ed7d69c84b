//! The store as a map, with checkers on every commit: sizes, ownership, events
//! without holes and only along the machine's edges, one manifest per task.

use bytes::Bytes;
use controller::{Core, EndedJob, Loaded, LoadedJob, Txn};
use prost::Message;
use proto::keys::{self, Parsed};
use proto::v1::{
    BlockRow, CauseKind, CheckpointRow, Event, EventBatchRow, GrantRow, JobRow, JobSpec, JobStateRow,
    LedgerRow, ManifestRow, NodeRow, State, TenantRow,
};
use std::collections::{BTreeMap, BTreeSet};

/// Job, step (`None`: the job), task (`None`: the step or job).
type Subject = (String, u64, Option<u32>, Option<u64>);

#[derive(Default)]
pub struct Rows {
    pub rows: BTreeMap<Bytes, Bytes>,
    /// Where every job, step and task is by its events.
    states: BTreeMap<Subject, State>,
    next_seq: BTreeMap<String, u64>,
    manifests: BTreeMap<Bytes, ManifestRow>,
    /// Bytes that manifests and checkpoints of a job have named and name.
    stored: BTreeMap<(String, u64), u64>,
    /// How often tasks took which edge for which reason.
    pub marks: BTreeMap<String, u64>,
    pub commits: u64,
    pub bytes: u64,
    /// Events are too many to follow task by task.
    pub large: bool,
}

impl Rows {
    pub fn put<T: Message>(&mut self, key: Bytes, row: &T) {
        self.rows.insert(key, row.encode_to_vec().into());
    }

    pub fn get<T: Message + Default>(&self, key: &Bytes) -> Option<T> {
        self.rows.get(key).map(|value| T::decode(value.clone()).unwrap())
    }

    pub fn below<T: Message + Default>(
        &self,
        prefix: &str,
    ) -> impl Iterator<Item = (Parsed, T)> + use<'_, T> {
        let from = Bytes::copy_from_slice(prefix.as_bytes());
        let to = keys::prefix_end(&from);
        self.rows
            .range(from..to)
            .map(|(key, value)| (keys::parse(key).unwrap(), T::decode(value.clone()).unwrap()))
    }

    pub fn grants(&self) -> impl Iterator<Item = GrantRow> {
        self.below::<GrantRow>(keys::GRANTS).map(|(_, row)| row)
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeRow> {
        self.below::<NodeRow>(keys::NODES).map(|(_, row)| row)
    }

    pub fn state(&self, tenant: &str, number: u64) -> Option<JobStateRow> {
        self.get(&keys::state(tenant, number))
    }

    pub fn apply(&mut self, txn: &Txn) {
        assert!(txn.writes.len() <= controller::limits::TXN_WRITES_MAX, "{} writes", txn.writes.len());
        let bytes: usize =
            txn.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        assert!(bytes < store::limits::COMMIT_BYTES_MAX - 65_536, "{bytes} bytes in one transaction");
        let keys: BTreeSet<&Bytes> = txn.writes.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), txn.writes.len(), "a key twice");
        for key in &txn.absent {
            assert!(!self.rows.contains_key(key), "{key:?} is there already");
        }
        self.commits += u64::from(!txn.writes.is_empty());
        self.bytes += bytes as u64;
        for (key, value) in &txn.writes {
            let parsed = keys::parse(key).unwrap_or_else(|| panic!("key {key:?}"));
            if let Some(tenant) = tenant_of(&parsed) {
                assert!(txn.tenants.contains(tenant), "{key:?} is of a tenant not named");
            }
            if let Parsed::Checkpoint { tenant, number, .. } = &parsed {
                let before = self.get::<CheckpointRow>(key).map_or(0, |row| named(&row));
                let after = value.clone().map_or(0, |value| named(&CheckpointRow::decode(value).unwrap()));
                let stored = self.stored.entry((tenant.clone(), *number)).or_default();
                *stored = *stored + after - before;
            }
            match value {
                Some(value) => drop(self.rows.insert(key.clone(), value.clone())),
                None => drop(self.rows.remove(key)),
            }
        }
        for (key, value) in &txn.writes {
            match (keys::parse(key).unwrap(), value) {
                (Parsed::Event { tenant, first_seq }, Some(value)) => {
                    let batch = EventBatchRow::decode(value.clone()).unwrap();
                    assert_eq!(batch.events.first().map(|event| event.seq), Some(first_seq));
                    for event in &batch.events {
                        self.follow(&tenant, event);
                    }
                }
                (Parsed::Manifest { tenant, number, .. }, Some(value)) => {
                    let row = ManifestRow::decode(value.clone()).unwrap();
                    if !self.manifests.contains_key(key) {
                        let bytes: u64 = row.artifacts.iter().map(|artifact| artifact.size_bytes).sum();
                        *self.stored.entry((tenant, number)).or_default() += bytes;
                    }
                    if let Some(earlier) = self.manifests.insert(key.clone(), row.clone()) {
                        let same = ManifestRow { committed_ms: row.committed_ms, ..earlier };
                        assert_eq!(same, row, "two manifests for {key:?}");
                    }
                }
                _ => {}
            }
        }
    }

    fn follow(&mut self, tenant: &str, event: &Event) {
        let next = self.next_seq.entry(tenant.to_owned()).or_insert(1);
        assert_eq!(event.seq, *next, "a hole in the events of {tenant}");
        *next += 1;
        let cause = event.cause.clone().unwrap_or_default();
        assert_ne!(cause.kind(), CauseKind::Unspecified, "an event without a cause: {event:?}");
        let mark = format!("{}>{} {}", short(event.from()), short(event.to()), cause.kind().as_str_name());
        *self.marks.entry(mark).or_default() += 1;
        if self.large {
            return;
        }
        if event.tasks.is_empty() {
            let subject = (tenant.to_owned(), event.job_number, event.step, None);
            self.walk(subject, event, cause.kind());
        }
        for span in &event.tasks {
            for task in span.first..=span.last {
                let subject = (tenant.to_owned(), event.job_number, event.step, Some(task));
                self.walk(subject, event, cause.kind());
            }
        }
        if cause.kind() == CauseKind::RetriedByUser {
            let prefix = keys::manifests_of_job(tenant, event.job_number);
            self.manifests.retain(|key, _| !key.starts_with(&prefix));
        }
    }

    fn walk(&mut self, subject: Subject, event: &Event, cause: CauseKind) {
        let first = if subject.2.is_none() { State::Unspecified } else { State::Pending };
        let state = self.states.entry(subject.clone()).or_insert(first);
        assert_eq!(*state, event.from(), "{subject:?} was elsewhere: {event:?}");
        let (from, to) = (event.from(), event.to());
        use State::{Cancelled, Completed, Failed, Pending, Running, Staging, Unspecified};
        let legal = match (from, to) {
            (Unspecified, Pending) => cause == CauseKind::Submitted,
            (Pending, Staging | Cancelled) | (Staging, Running | Pending) => true,
            (Running, Completed | Failed | Cancelled | Pending) => true,
            (Completed | Failed | Cancelled, Pending) => cause == CauseKind::RetriedByUser,
            _ => false,
        };
        assert!(legal, "{subject:?} took no edge of the machine: {event:?}");
        *state = to;
    }

    /// What must hold when all is over: rows and history tell the same.
    pub fn check_end(&self, cancelled: &BTreeSet<(String, u64)>) {
        for (tenant, number) in cancelled {
            assert_eq!(self.state(tenant, *number).unwrap().state(), State::Cancelled, "{tenant}-{number}");
        }
        for (parsed, row) in self.below::<JobStateRow>(keys::STATES) {
            let Parsed::State { tenant, number } = parsed else { panic!("{parsed:?}") };
            assert_eq!(row.reserved_micros, 0);
            let expired = row.expired_ms > 0;
            let stored = self.stored.get(&(tenant.clone(), number)).copied().filter(|_| !expired);
            let stored = stored.unwrap_or(0);
            assert_eq!(row.storage_bytes, stored, "{tenant}-{number} counts other bytes than its rows name");
            assert_eq!(self.states[&(tenant.clone(), number, None, None)], row.state());
            for (index, step) in row.steps.iter().enumerate() {
                let at = (tenant.clone(), number, Some(index as u32), None);
                assert_eq!(self.states.get(&at).copied().unwrap_or(State::Pending), step.state(), "{at:?}");
                let ended = self.states.iter().filter(|((t, n, s, task), state)| {
                    (t, *n, *s) == (&tenant, number, Some(index as u32))
                        && task.is_some()
                        && **state == State::Completed
                });
                assert_eq!(ended.count() as u64, step.completed, "{tenant}-{number} step {index}");
            }
        }
        for (_, row) in self.below::<LedgerRow>(keys::LEDGERS) {
            assert_eq!((row.reserved_micros, row.queued_tasks, row.live_jobs), (0, 0, 0), "{row:?}");
        }
        for (parsed, _) in self.below::<CheckpointRow>(keys::CHECKPOINTS) {
            let Parsed::Checkpoint { tenant, number, step, task, .. } = parsed else { panic!("{parsed:?}") };
            let state = self.states.get(&(tenant.clone(), number, Some(step), Some(task)));
            assert_ne!(state, Some(&State::Completed), "{tenant}-{number}: a checkpoint of what completed");
        }
        for (parsed, row) in self.below::<ManifestRow>(keys::MANIFESTS) {
            let Parsed::Manifest { tenant, number, step, task, .. } = parsed else { panic!("{parsed:?}") };
            assert_eq!(row.task, task);
            let _ = (tenant, number, step);
        }
    }

    /// Every manifest of a completed task that a reader would find.
    pub fn manifests(&self) -> usize {
        self.below::<ManifestRow>(keys::MANIFESTS).count()
    }

    pub fn load_into(&self, core: &mut Core) {
        for (_, row) in self.below::<TenantRow>(keys::TENANTS) {
            core.load(Loaded::Tenant(row));
        }
        for (parsed, row) in self.below::<LedgerRow>(keys::LEDGERS) {
            let Parsed::Ledger { tenant } = parsed else { panic!("{parsed:?}") };
            core.load(Loaded::Ledger(tenant, row));
        }
        for node in self.nodes() {
            core.load(Loaded::Node(node));
        }
        for (parsed, state) in self.below::<JobStateRow>(keys::STATES) {
            let Parsed::State { tenant, number } = parsed else { panic!("{parsed:?}") };
            if !matches!(state.state(), State::Completed | State::Failed | State::Cancelled) {
                let loaded = self.job(&tenant, number);
                core.load(Loaded::Job(loaded.job, loaded.state));
                for (step, block, row) in loaded.blocks {
                    core.load(Loaded::Block { tenant: tenant.clone(), number, step, block, row });
                }
                for (step, row) in loaded.manifests {
                    core.load(Loaded::Manifest { tenant: tenant.clone(), number, step, row });
                }
                for (at, row) in loaded.checkpoints {
                    core.load(Loaded::Checkpoint { tenant: tenant.clone(), number, at, row });
                }
            } else if let Some(job) = EndedJob::of(number, &state) {
                core.load(Loaded::Ended(tenant, job));
            }
        }
        for grant in self.grants() {
            core.load(Loaded::Grant(grant));
        }
        for (tenant, number) in core.ends_wanted() {
            let state = self.state(&tenant, number).unwrap().state();
            core.load(Loaded::End(tenant, number, state));
        }
        for (tenant, number) in core.rows_wanted() {
            let rows =
                LoadedJob { manifests: Vec::new(), checkpoints: Vec::new(), ..self.job(&tenant, number) };
            core.load(Loaded::Followed(Box::new(rows)));
        }
    }

    /// The ended jobs whose tasks a spec looks at.
    pub fn followed(&self, tenant: &str, spec: &JobSpec) -> Vec<LoadedJob> {
        let looked: BTreeSet<u64> =
            spec.after.iter().filter(|on| proto::after::by_task(on)).map(|on| on.job_number).collect();
        let over = |state: State| matches!(state, State::Completed | State::Failed | State::Cancelled);
        let ended = |on: &u64| self.state(tenant, *on).is_some_and(|row| over(row.state()));
        looked.into_iter().filter(ended).map(|on| self.job(tenant, on)).collect()
    }

    pub fn job(&self, tenant: &str, number: u64) -> LoadedJob {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let blocks = self.below::<BlockRow>(&text(keys::blocks_of_job(tenant, number)));
        let manifests = self.below::<ManifestRow>(&text(keys::manifests_of_job(tenant, number)));
        let checkpoints = self.below::<CheckpointRow>(&text(keys::checkpoints_of_job(tenant, number)));
        LoadedJob {
            job: self.get::<JobRow>(&keys::job(tenant, number)).unwrap(),
            state: self.state(tenant, number).unwrap(),
            blocks: blocks
                .map(|(parsed, row)| match parsed {
                    Parsed::Block { step, block, .. } => (step, block, row),
                    other => panic!("{other:?}"),
                })
                .collect(),
            manifests: manifests
                .map(|(parsed, row)| match parsed {
                    Parsed::Manifest { step, .. } => (step, row),
                    other => panic!("{other:?}"),
                })
                .collect(),
            checkpoints: checkpoints
                .map(|(parsed, row)| match parsed {
                    Parsed::Checkpoint { step, task, rank, .. } => ((step, task, rank), row),
                    other => panic!("{other:?}"),
                })
                .collect(),
        }
    }
}

/// Bytes that a row of checkpoints names.
fn named(row: &CheckpointRow) -> u64 {
    row.entries.iter().flat_map(|entry| &entry.artifacts).map(|artifact| artifact.size_bytes).sum()
}

fn tenant_of(parsed: &Parsed) -> Option<&String> {
    match parsed {
        Parsed::Job { tenant, .. }
        | Parsed::State { tenant, .. }
        | Parsed::Block { tenant, .. }
        | Parsed::Grant { tenant, .. }
        | Parsed::Event { tenant, .. }
        | Parsed::Ledger { tenant }
        | Parsed::Idem { tenant, .. }
        | Parsed::Manifest { tenant, .. }
        | Parsed::Checkpoint { tenant, .. } => Some(tenant),
        _ => None,
    }
}

fn short(state: State) -> &'static str {
    state.as_str_name().trim_start_matches("STATE_")
}
