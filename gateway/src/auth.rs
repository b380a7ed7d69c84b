//! Who calls, and what they may do.
//!
//! A token is `dl_…`; the store keeps only its SHA-256, as the key of its row.
//! So looking it up by hash takes the same time however close a guess is. The
//! handlers check, below every layer of the transport: simulated transports
//! have no layers. A tenant is never told of what belongs to another: it is
//! "missing", not "denied".

use crate::gate::Gate;
use crate::{limits, rows};
use proto::ids::{JobId, TenantName};
use proto::keys;
use proto::problem::{self, Problem};
use proto::v1::{JobRequest, Role, TokenRow};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use store::{Notice, Store};
use world::NodeClock;
use world::grpc::tonic::metadata::MetadataMap;
use world::sync::watch;
use world::time;

/// Who stands behind a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's name: who is written into rows as having asked.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whose jobs it means where it names no tenant; may be empty except for
    /// [`Role::Tenant`].
    pub tenant: String,
    /// The token's hash: what limits are counted by.
    pub(crate) token: Arc<str>,
}

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Submit jobs and upload their inputs.
    Submit,
    /// See jobs, their logs, events and outputs.
    ReadJobs,
    /// Cancel and retry.
    ChangeJobs,
    /// See nodes and pools.
    ReadCluster,
    /// Drain nodes and let them work again.
    DrainNodes,
    /// See tenants with their quota; a tenant sees itself.
    ReadTenants,
    /// Make and change tenants.
    ChangeTenants,
    /// Make tokens.
    MakeTokens,
    /// Run tasks: register nodes, report, ship logs, move objects.
    RunTasks,
    /// Schedule: follow demand, see nodes and tenants, make grants.
    Schedule,
}

/// The one table of who may do what.
const RIGHTS: &[(Right, &[Role])] = &[
    (Right::Submit, &[Role::Admin, Role::Operator, Role::Tenant]),
    (Right::ReadJobs, &[Role::Admin, Role::Operator, Role::Tenant]),
    (Right::ChangeJobs, &[Role::Admin, Role::Operator, Role::Tenant]),
    (Right::ReadCluster, &[Role::Admin, Role::Operator, Role::Tenant]),
    (Right::DrainNodes, &[Role::Admin, Role::Operator]),
    (Right::ReadTenants, &[Role::Admin, Role::Operator, Role::Tenant]),
    (Right::ChangeTenants, &[Role::Admin]),
    (Right::MakeTokens, &[Role::Admin]),
    (Right::RunTasks, &[Role::Admin, Role::Operator, Role::Agent]),
    (Right::Schedule, &[Role::Admin, Role::Scheduler]),
];

/// Whether a role has a right.
#[must_use]
pub fn allows(role: Role, right: Right) -> bool {
    RIGHTS.iter().any(|(listed, roles)| *listed == right && roles.contains(&role))
}

impl Caller {
    /// Refuses where the role lacks the right.
    pub fn must(&self, right: Right) -> Result<(), Problem> {
        if allows(self.role, right) {
            return Ok(());
        }
        let role = role_name(self.role);
        Err(problem::denied("role", role, &format!("a token of role {role} may not do this")))
    }

    /// True for those who see every tenant.
    #[must_use]
    pub fn sees_all(&self) -> bool {
        matches!(self.role, Role::Admin | Role::Operator)
    }

    /// The tenant meant by `asked`: its own where that is empty.
    ///
    /// # Errors
    /// `spec.tenant` where nothing tells it, `missing.tenant` where it is not
    /// the caller's to name.
    pub fn tenant(&self, asked: &str) -> Result<String, Problem> {
        let name = if asked.is_empty() { &self.tenant } else { asked };
        if name.is_empty() {
            return Err(Problem::new(
                "spec.tenant",
                "tenant",
                "",
                "this token belongs to no tenant, so one must be named",
                "name the tenant, in ids as TENANT-NUMBER",
            ));
        }
        let name = TenantName::parse(name)?;
        if !self.sees_all() && name.as_str() != self.tenant {
            return Err(problem::missing("tenant", name));
        }
        Ok(name.into_string())
    }

    /// The job meant; another tenant's is as missing as one that never was.
    pub fn job(&self, asked: Option<&JobRequest>) -> Result<JobId, Problem> {
        let asked = asked.cloned().unwrap_or_default();
        let shown = JobId::new(asked.tenant.as_str(), asked.number);
        if asked.number == 0 {
            return Err(Problem::new(
                "spec.job_id",
                "job",
                "",
                "no job is named",
                "write TENANT-NUMBER, or NUMBER for your own tenant",
            ));
        }
        match self.tenant(&asked.tenant) {
            Ok(tenant) => Ok(JobId::new(tenant, asked.number)),
            Err(problem) if problem.family() == "missing" => Err(problem::missing("job", shown)),
            Err(problem) => Err(problem),
        }
    }
}

/// As people write a role.
#[must_use]
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Unspecified => "none",
        Role::Tenant => "tenant",
        Role::Operator => "operator",
        Role::Admin => "admin",
        Role::Agent => "agent",
        Role::Scheduler => "scheduler",
    }
}

/// Lower-case hexadecimal SHA-256 of a token: the key of its row.
#[must_use]
pub fn hash(token: &str) -> String {
    crate::hex(&Sha256::digest(token.as_bytes()))
}

/// Knows tokens, from the store through a short memory.
#[derive(Debug)]
pub(crate) struct Auth {
    store: Arc<dyn Store>,
    clock: Arc<dyn NodeClock>,
    seen: Mutex<Seen>,
    /// Tells open streams that some token may be another than it was.
    changed: watch::Sender<()>,
}

/// What was read of tokens, and until when it holds.
#[derive(Debug, Default)]
struct Seen {
    tokens: BTreeMap<String, (u64, Caller)>,
    /// How often something was forgotten: what was read before that is not
    /// remembered after it.
    forgotten: u64,
}

impl Auth {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn NodeClock>) -> Self {
        Self { store, clock, seen: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Who calls, if they may do this.
    pub(crate) async fn caller(&self, metadata: &MetadataMap, right: Right) -> Result<Caller, Problem> {
        let caller = self.known(bearer(metadata)?).await?;
        caller.must(right)?;
        Ok(caller)
    }

    async fn known(&self, token: &str) -> Result<Caller, Problem> {
        self.bearer_of(hash(token)).await
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder of this lock panics")
    }

    /// Tokens were changed or revoked: they are no longer taken as unchanged.
    pub(crate) fn forget<'a>(&self, hashes: impl Iterator<Item = &'a str>) {
        let mut seen = self.seen();
        seen.forgotten += 1;
        for hash in hashes {
            seen.tokens.remove(hash);
        }
        drop(seen);
        self.changed.send_replace(());
    }

    fn forget_all(&self) {
        let mut seen = self.seen();
        seen.forgotten += 1;
        seen.tokens.clear();
        drop(seen);
        self.changed.send_replace(());
    }

    /// Returns once this token is revoked, within [`limits::SEEN_MS`] of it, what
    /// is to be told then. A store that cannot be read for a while revokes nothing.
    pub(crate) async fn revoked(&self, hash: &str) -> Problem {
        let mut changed = self.changed.subscribe();
        loop {
            match self.bearer_of(hash.to_owned()).await {
                // Its sender is ours, so it does not end.
                Ok(_) => _ = changed.changed().await,
                Err(problem) if problem.family() == "auth" => return problem,
                Err(_) => time::sleep(time::ms(limits::SEEN_MS / 2)).await,
            }
        }
    }

    async fn bearer_of(&self, hash: String) -> Result<Caller, Problem> {
        let now_ms = self.clock.monotonic_ms();
        let forgotten = {
            let seen = self.seen();
            if let Some((until_ms, caller)) = seen.tokens.get(&hash)
                && now_ms < *until_ms
            {
                return Ok(caller.clone());
            }
            seen.forgotten
        };
        let Some(row) = rows::get::<TokenRow>(&*self.store, keys::token(&hash)).await? else {
            return Err(problem::auth("this token is not known here"));
        };
        let token = Arc::from(hash.as_str());
        let caller = Caller { role: row.role(), name: row.name, tenant: row.tenant, token };
        // Only tokens that exist get in, so guesses cannot fill it.
        let mut seen = self.seen();
        if seen.forgotten == forgotten {
            crate::remember(&mut seen.tokens, hash, (now_ms + limits::SEEN_MS, caller.clone()));
        }
        drop(seen);
        Ok(caller)
    }
}

/// Hears from the store which tokens change, until the server is gone. While the
/// store cannot be watched all are looked up again, twice in [`limits::SEEN_MS`].
pub(crate) async fn hear_changes(gate: Weak<Gate>) {
    loop {
        let Some(store) = gate.upgrade().map(|gate| Arc::clone(&gate.store)) else { return };
        let watching = store.watch(keys::TOKENS.into()).await;
        drop(store);
        let Some(now) = gate.upgrade() else { return };
        // What changed before, or unheard.
        now.auth.forget_all();
        drop(now);
        if let Ok(mut watching) = watching {
            while let Some(Notice::Changed { changes, .. }) = watching.notices.recv().await {
                let Some(gate) = gate.upgrade() else { return };
                let names = changes.iter().filter_map(|(key, _)| std::str::from_utf8(key).ok());
                gate.auth.forget(names.filter_map(|name| name.strip_prefix(keys::TOKENS)));
            }
        }
        time::sleep(time::ms(limits::SEEN_MS / 2)).await;
    }
}

fn bearer(metadata: &MetadataMap) -> Result<&str, Problem> {
    let Some(value) = metadata.get("authorization") else {
        return Err(problem::auth("no token was given"));
    };
    let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).map(str::trim);
    match token {
        Some(token) if token.starts_with("dl_") && token.len() <= limits::TOKEN_BYTES_MAX => Ok(token),
        _ => Err(problem::auth("what was given is no token: a token begins with dl_")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: Role, tenant: &str) -> Caller {
        Caller { name: "n".into(), role, tenant: tenant.into(), token: "t".into() }
    }

    fn named(tenant: &str, number: u64) -> JobRequest {
        JobRequest { tenant: tenant.into(), number }
    }

    #[test]
    fn every_right_has_one_row_and_admins_have_all() {
        for (at, (right, roles)) in RIGHTS.iter().enumerate() {
            assert_eq!(at, *right as usize, "one row for each right, in order");
            assert!(roles.contains(&Role::Admin), "{right:?}");
            assert!(!roles.contains(&Role::Unspecified), "{right:?}");
        }
        assert_eq!(RIGHTS.len(), Right::Schedule as usize + 1);
    }

    #[test]
    fn the_table_reads_as_meant() {
        use Right::{ChangeTenants, DrainNodes, MakeTokens, ReadJobs, RunTasks, Schedule, Submit};
        for (role, may, may_not) in [
            (Role::Tenant, vec![Submit, ReadJobs], vec![DrainNodes, ChangeTenants, MakeTokens, RunTasks]),
            (Role::Operator, vec![Submit, DrainNodes, RunTasks], vec![ChangeTenants, MakeTokens, Schedule]),
            (Role::Agent, vec![RunTasks], vec![Submit, ReadJobs, MakeTokens, Schedule]),
            (Role::Scheduler, vec![Schedule], vec![Submit, ReadJobs, MakeTokens, RunTasks, DrainNodes]),
            (Role::Unspecified, vec![], vec![Submit, ReadJobs, RunTasks]),
        ] {
            for right in may {
                caller(role, "lab").must(right).unwrap();
            }
            for right in may_not {
                let problem = caller(role, "lab").must(right).unwrap_err();
                assert_eq!(problem.code, "denied.role", "{role:?} {right:?}");
            }
        }
    }

    #[test]
    fn a_tenant_sees_only_its_own() {
        let lab = caller(Role::Tenant, "lab");
        assert_eq!(lab.tenant("").unwrap(), "lab");
        assert_eq!(lab.tenant("lab").unwrap(), "lab");
        assert_eq!(lab.tenant("other").unwrap_err().code, "missing.tenant");
        assert_eq!(lab.job(Some(&named("", 3))).unwrap(), JobId::new("lab", 3));
        let problem = lab.job(Some(&named("other", 3))).unwrap_err();
        assert_eq!((problem.code.as_str(), problem.value.as_str()), ("missing.job", "other-3"));
        assert_eq!(lab.job(None).unwrap_err().code, "spec.job_id");
        assert_eq!(lab.job(Some(&named("", 0))).unwrap_err().code, "spec.job_id");
    }

    #[test]
    fn those_who_see_all_must_name_a_tenant_or_have_one() {
        assert_eq!(caller(Role::Admin, "").tenant("").unwrap_err().code, "spec.tenant");
        assert_eq!(caller(Role::Admin, "default").tenant("").unwrap(), "default");
        assert_eq!(caller(Role::Operator, "default").job(Some(&named("lab", 1))).unwrap().tenant, "lab");
        // What is no name never becomes part of a key.
        assert_eq!(caller(Role::Admin, "").tenant("a/b").unwrap_err().code, "spec.tenant_name");
    }

    #[test]
    fn only_a_bearer_token_is_one() {
        let with = |value: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", value.parse().unwrap());
            bearer(&metadata).map(str::to_owned).map_err(|problem| problem.code)
        };
        assert_eq!(with("Bearer dl_00ff").unwrap(), "dl_00ff");
        for bad in ["", "dl_00ff", "Basic dl_00ff", "Bearer 00ff", "bearer dl_00ff"] {
            assert_eq!(with(bad).unwrap_err(), "auth.token", "{bad}");
        }
        assert!(with(&format!("Bearer dl_{}", "0".repeat(limits::TOKEN_BYTES_MAX))).is_err());
        assert_eq!(bearer(&MetadataMap::new()).unwrap_err().reason, "no token was given");
    }
}
