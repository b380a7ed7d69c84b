//! All that the checkers of a run saw: enough to judge it once more.

use crate::checkers::{self, Checker, Committed, Moved, Outcome};
use crate::cluster::{Cluster, Machine};
use crate::faults::Planned;
use crate::history::History;
use crate::mirror::Mirror;
use gateway::PreemptionConfig;
use proto::checkpoints;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use world::disk::Disk;
use world::sim::{LaunchAsked, ProcessSpan, SimBucket};

/// The most a task may be retried where its step does not say.
const OWN_RETRIES: u32 = 3;
const PLATFORM_RETRIES: u32 = 3;

/// See the module.
#[derive(Clone)]
pub struct Recording {
    pub commits: Vec<Arc<Committed>>,
    pub history: History,
    pub spans: Vec<ProcessSpan>,
    pub launches: Vec<LaunchAsked>,
    pub drained: Result<(), String>,
    /// Faults that were alone in a cluster with room, each with the time until all was
    /// well.
    pub recovered: Vec<(&'static str, u64)>,
    pub objects: BTreeSet<(String, String)>,
    pub transfers: Vec<Moved>,
    /// What nodes keep of logs for a server that cannot take them; 0: all.
    pub log_spool_bytes: u64,
    /// Pools in which work gives way to work of higher priority.
    pub preemption: BTreeMap<String, PreemptionConfig>,
    /// How many there are.
    pub licenses: BTreeMap<String, u32>,
    /// Those that are manifests of directories, by digest.
    pub manifests: BTreeMap<String, String>,
    /// The plan of the run.
    pub faults: Vec<Planned>,
}

/// Who complained, of which invariant, in what words.
pub type Complaint = (&'static str, u8, String);

impl Recording {
    /// What there is at the end of a run; its commits come from the witness.
    pub fn of(
        cluster: &Cluster,
        history: History,
        drained: Result<(), String>,
        recovered: Vec<(&'static str, u64)>,
        faults: Vec<Planned>,
    ) -> Self {
        let files = match &cluster.bucket {
            Some(bucket) => in_bucket(bucket),
            None => on_disk(&*cluster.data_disk().handle()),
        };
        let (objects, manifests) = held(files);
        let processes = cluster.processes();
        let mut transfers: Vec<Moved> = cluster.agents.iter().filter_map(moved).collect();
        if let Some(elastic) = &cluster.elastic {
            elastic.each(|machine| transfers.extend(moved(machine)));
        }
        Self {
            commits: Vec::new(),
            history,
            spans: processes.iter().flat_map(|processes| processes.history()).collect(),
            launches: processes.iter().flat_map(|processes| processes.launches()).collect(),
            drained,
            recovered,
            objects,
            manifests,
            log_spool_bytes: cluster.log_spool_bytes,
            preemption: cluster.preemption.clone(),
            licenses: cluster.licenses.clone(),
            transfers,
            faults,
        }
    }

    fn outcome<'a>(&'a self, mirror: &'a Mirror) -> Outcome<'a> {
        Outcome {
            mirror,
            history: &self.history,
            spans: &self.spans,
            launches: &self.launches,
            drained: self.drained.clone(),
            recovered: &self.recovered,
            objects: &self.objects,
            transfers: &self.transfers,
            log_spool_bytes: self.log_spool_bytes,
            preemption: &self.preemption,
            licenses: &self.licenses,
            manifests: &self.manifests,
            faults: &self.faults,
            max_own_retries: OWN_RETRIES,
            max_platform_retries: PLATFORM_RETRIES,
        }
    }

    /// Shows the end to checkers that saw all commits; the first complaint.
    pub fn judge(&self, mirror: &Mirror, checkers: &mut [Box<dyn Checker>]) -> Option<(u8, String)> {
        let outcome = self.outcome(mirror);
        checkers.iter_mut().find_map(|checker| {
            let what = checker.end(&outcome).err()?;
            Some((checker.invariant(), format!("{}: {what}", checker.name())))
        })
    }

    /// Shows all to fresh checkers of such names, as the witness does; returns the
    /// complaints about the first moment there are any of.
    pub fn complaints(&self, of: impl Fn(&str) -> bool) -> Vec<Complaint> {
        let (mut mirror, mut checkers) = (Mirror::default(), checkers::all());
        checkers.retain(|checker| of(checker.name()));
        for commit in &self.commits {
            let mut found = ask(&mut checkers, |checker| checker.commit(&mirror, commit));
            for row in &commit.rows {
                mirror.apply(row.clone());
            }
            found.extend(ask(&mut checkers, |checker| checker.after(&mirror, commit)));
            if !found.is_empty() {
                return found;
            }
        }
        let outcome = self.outcome(&mirror);
        ask(&mut checkers, |checker| checker.end(&outcome))
    }
}

fn ask(
    checkers: &mut [Box<dyn Checker>],
    mut one: impl FnMut(&mut dyn Checker) -> Result<(), String>,
) -> Vec<Complaint> {
    let complaint = |checker: &mut Box<dyn Checker>| {
        let what = one(&mut **checker).err()?;
        Some((checker.name(), checker.invariant(), what))
    };
    checkers.iter_mut().filter_map(complaint).collect()
}

fn moved(agent: &Machine) -> Option<Moved> {
    let counts = agent.transfer.as_ref()?.counts();
    Some(Moved { node: agent.host.clone(), bytes_per_s: agent.staging_bytes_per_s, counts })
}

/// One that a reader of the object place would get.
struct Held {
    space: String,
    name: String,
    bytes: Vec<u8>,
}

fn on_disk(disk: &dyn Disk) -> Vec<Held> {
    let mut held = Vec::new();
    let list = |path: &str| disk.list(path).unwrap_or_default();
    for tenant in list("objects") {
        for shelf in list(&format!("objects/{}", tenant.name)) {
            for file in list(&format!("objects/{}/{}", tenant.name, shelf.name)) {
                let path = format!("objects/{}/{}/{}", tenant.name, shelf.name, file.name);
                let Ok(bytes) = world::disk::read_all(disk, &path, 1 << 30) else { continue };
                held.push(Held { space: tenant.name.clone(), name: file.name, bytes });
            }
        }
    }
    held
}

fn in_bucket(bucket: &SimBucket) -> Vec<Held> {
    let held = bucket.objects().into_iter().filter_map(|(key, data)| {
        let mut parts = key.split('/');
        let (family, tenant, name) = (parts.next()?, parts.next()?, parts.next()?);
        let space = match family {
            "checkpoints" => checkpoints::space(tenant),
            "objects" => tenant.to_owned(),
            // Segments of logs: whoever reads those sees what is in them.
            _ => return None,
        };
        Some(Held { space, name: name.to_owned(), bytes: data.to_vec() })
    });
    held.collect()
}

/// The digests of the bytes, where these are their names, and which are manifests.
fn held(files: Vec<Held>) -> (BTreeSet<(String, String)>, BTreeMap<String, String>) {
    let (mut held, mut manifests) = (BTreeSet::new(), BTreeMap::new());
    for Held { space, name, bytes } in files {
        let digest = proto::keys::hex_of(&Sha256::digest(&bytes));
        if digest != name {
            continue;
        }
        if bytes.starts_with(b"drumline tree ") {
            manifests.insert(digest.clone(), String::from_utf8_lossy(&bytes).into_owned());
        }
        held.insert((space, digest));
    }
    (held, manifests)
}
