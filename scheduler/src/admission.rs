//! Whether a job is taken in: quota guard and budget, at the door.
//!
//! Two kinds of limits. Those on what runs at once (cores, memory, GPUs) count
//! what is held plus what the job needs at least: one task of an array, a whole
//! gang, the largest step of a DAG. They clear by themselves as work ends, so a
//! tenant with `when_full = "queue"` may have its job wait for them; the
//! scheduler then grants up to the whole limit, never above. Those that add up
//! (queued tasks, storage, ingress, egress, money) count the whole job, and no
//! waiting inside Drumline clears them: past them a job is always refused.

use crate::amount::Amount;
use proto::v1::{JobSpec, LedgerRow, Problem, QuotaDetail, TenantRow, WhenFull};
use proto::{estimate, month, units};
use std::fmt;

/// At so many percent of a limit the door closes.
pub const GUARD_PERCENT: u64 = 90;

/// A job at the door.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Limits, prices and what to do when full.
    pub tenant: &'a TenantRow,
    /// What the tenant has used.
    pub ledger: &'a LedgerRow,
    /// What its grants hold now.
    pub held: Amount,
    /// The groups that it is in, from it up, with what is held in each.
    pub groups: &'a [(&'a TenantRow, Amount)],
    /// The job, normalized.
    pub spec: &'a JobSpec,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

/// What is decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Taken in.
    Admit {
        /// To be reserved, millionths of the operator's currency.
        price_micros: u64,
        /// Set where it waits for a limit of its tenant.
        waiting_for: Option<String>,
    },
    /// Not taken in.
    Refuse(Problem),
}

/// How amounts of a dimension are written for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Millicores,
    Bytes,
    Count,
}

/// One limit and what is asked of it.
#[derive(Clone, Copy, Debug)]
struct Measure<'a> {
    whose: Whose<'a>,
    dimension: &'static str,
    unit: Unit,
    used: u64,
    asked: u64,
    limit: Option<u64>,
    clears: Clears,
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug)]
enum Whose<'a> {
    Tenant(&'a str),
    Group(&'a str),
}

impl Whose<'_> {
    fn kind(self) -> &'static str {
        match self {
            Whose::Tenant(_) => "tenant",
            Whose::Group(_) => "group",
        }
    }
}

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Whose::Tenant(name) | Whose::Group(name)) = self;
        write!(f, "{} {name}", self.kind())
    }
}

/// When what is used of a limit is free again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clears {
    /// As work ends.
    WithWork,
    /// Now and then, by nothing that is known here.
    Unknown,
    /// With the month, which ends then.
    At(u64),
}

impl Measure<'_> {
    /// The 90 % guard. A job that asks nothing of a dimension is not held
    /// against it.
    fn is_guarded(&self) -> bool {
        let sum = u128::from(self.used) + u128::from(self.asked);
        let over = |limit: u64| sum * 100 >= u128::from(limit) * u128::from(GUARD_PERCENT);
        self.asked > 0 && self.limit.is_some_and(over)
    }

    /// More than all of it.
    fn never_fits(&self) -> bool {
        self.limit.is_some_and(|limit| self.asked > limit)
    }

    /// When it may fit; 0: not known.
    fn fits_at_ms(&self) -> u64 {
        match self.clears {
            Clears::At(at_ms) if !(Self { used: 0, ..*self }).is_guarded() => at_ms,
            _ => 0,
        }
    }

    fn show(&self, amount: u64) -> String {
        match self.unit {
            Unit::Millicores => units::format_millicores(amount),
            Unit::Bytes => units::brief_memory_bytes(amount),
            Unit::Count => amount.to_string(),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "shown to people")]
    fn detail(&self) -> QuotaDetail {
        let scale = if self.unit == Unit::Millicores { 1000.0 } else { 1.0 };
        let limit = self.limit.unwrap_or(0) as f64 / scale;
        QuotaDetail {
            dimension: self.dimension.to_owned(),
            used: self.used as f64 / scale,
            asked: self.asked as f64 / scale,
            limit,
            threshold: limit * GUARD_PERCENT as f64 / 100.0,
            fits_at_ms: self.fits_at_ms(),
        }
    }

    fn refusal(&self) -> Problem {
        let limit = self.limit.unwrap_or(0);
        let (asked, used, dimension) = (self.show(self.asked), self.show(self.used), self.dimension);
        let (at_once, this_month) = match self.clears {
            Clears::WithWork => (" at once", ""),
            Clears::Unknown => ("", ""),
            Clears::At(_) => ("", " this month"),
        };
        let (limit, whose) = (self.show(limit), self.whose);
        let raise = format!("have the {}'s quota raised", whose.kind());
        let (reason, remedy) = if self.never_fits() {
            (
                format!("the job needs {asked} {dimension}{at_once} and {whose} may have {limit}"),
                format!("ask for less, or {raise}"),
            )
        } else if (Self { used: 0, ..*self }).is_guarded() {
            (
                format!(
                    "the job needs {asked} of the {limit} {dimension}{at_once} that {whose} may have, and jobs are refused from {GUARD_PERCENT} % on"
                ),
                format!("ask for less, or {raise}"),
            )
        } else {
            (
                format!(
                    "{whose} uses {used} of {limit} {dimension}{this_month} and new jobs are refused from {GUARD_PERCENT} % on"
                ),
                if this_month.is_empty() {
                    format!("wait for earlier work to end, ask for less, or {raise}")
                } else {
                    format!("wait for the next month, ask for less, or {raise}")
                },
            )
        };
        let mut problem =
            Problem::new("quota.exceeded", self.dimension, self.show(self.asked), reason, remedy);
        problem.quota = Some(self.detail());
        problem
    }

    fn waiting_for(&self) -> String {
        let of_group = match self.whose {
            Whose::Tenant(_) => String::new(),
            Whose::Group(name) => format!(" of group {name}"),
        };
        format!(
            "{}{of_group}: {} in use, {} more needed, {} allowed",
            self.dimension,
            self.show(self.used),
            self.show(self.asked),
            self.show(self.limit.unwrap_or(0))
        )
    }
}

/// Decides on a job.
#[must_use]
pub fn decide(ask: &Ask<'_>) -> Verdict {
    let at_once = at_once(ask);
    if let Some(measure) = at_once.iter().find(|m| m.never_fits()) {
        return Verdict::Refuse(measure.refusal());
    }
    if let Some(problem) = unsized_url(ask) {
        return Verdict::Refuse(problem);
    }
    if let Some(measure) = adding_up(ask).iter().find(|m| m.is_guarded()) {
        return Verdict::Refuse(measure.refusal());
    }
    let price_micros = match price(ask) {
        Ok(price_micros) => price_micros,
        Err(problem) => return Verdict::Refuse(problem),
    };
    let full: Vec<&Measure<'_>> = at_once.iter().filter(|m| m.is_guarded()).collect();
    match full.first() {
        None => Verdict::Admit { price_micros, waiting_for: None },
        Some(_) if ask.tenant.when_full() == WhenFull::Queue => {
            let texts: Vec<String> = full.iter().map(|m| m.waiting_for()).collect();
            Verdict::Admit { price_micros, waiting_for: Some(texts.join("; ")) }
        }
        Some(measure) => Verdict::Refuse(measure.refusal()),
    }
}

/// Refuses what no limit on what runs at once would ever let in: of a tenant, and of the
/// groups that it is in, with what each holds.
pub fn ever_within(
    tenant: (&TenantRow, Amount),
    groups: &[(&TenantRow, Amount)],
    need: Amount,
) -> Result<(), Problem> {
    let Amount { millicores, memory_bytes, gpus } = need;
    let measures = measures(tenant, groups, estimate::Need { millicores, memory_bytes, gpus });
    measures.iter().find(|m| m.never_fits()).map_or(Ok(()), |measure| Err(measure.refusal()))
}

fn at_once<'a>(ask: &Ask<'a>) -> Vec<Measure<'a>> {
    measures((ask.tenant, ask.held), ask.groups, estimate::minimum_need(ask.spec))
}

/// Of the tenant, and of each group that it is in.
fn measures<'a>(
    (tenant, held): (&'a TenantRow, Amount),
    groups: &[(&'a TenantRow, Amount)],
    need: estimate::Need,
) -> Vec<Measure<'a>> {
    let of = |whose, row: &TenantRow, held: Amount| {
        let quota = row.quota.unwrap_or_default();
        let measure = |dimension, unit, used, asked, limit| Measure {
            whose,
            dimension,
            unit,
            used,
            asked,
            limit,
            clears: Clears::WithWork,
        };
        [
            measure("cores", Unit::Millicores, held.millicores, need.millicores, quota.millicores),
            measure("memory", Unit::Bytes, held.memory_bytes, need.memory_bytes, quota.memory_bytes),
            measure("gpus", Unit::Count, held.gpus, need.gpus, quota.gpus),
        ]
    };
    let groups = groups.iter().flat_map(|&(row, held)| of(Whose::Group(&row.name), row, held));
    of(Whose::Tenant(&tenant.name), tenant, held).into_iter().chain(groups).collect()
}

/// Uploads were counted, as ingress and as storage, when they were made; of a
/// job's inputs only what nodes fetch from elsewhere is still to come in, and that
/// is not kept. What it will give, and what of that will be taken out, is not known
/// before, so storage and egress refuse what has outputs once their limit is near, and
/// storage what keeps checkpoints.
fn adding_up<'a>(ask: &Ask<'a>) -> [Measure<'a>; 4] {
    let quota = ask.tenant.quota.unwrap_or_default();
    let ledger = month::turned(ask.ledger, ask.now_ms);
    let outputs = u64::from(ask.spec.steps.iter().any(|step| !step.outputs.is_empty()));
    let stores = outputs | u64::from(ask.spec.steps.iter().any(|step| step.checkpoint.is_some()));
    let kept = |dimension, unit, used, asked, limit| Measure {
        whose: Whose::Tenant(&ask.tenant.name),
        dimension,
        unit,
        used,
        asked,
        limit,
        clears: Clears::Unknown,
    };
    let traffic = |dimension, used, asked, limit| Measure {
        clears: Clears::At(month::next_ms(ask.now_ms)),
        ..kept(dimension, Unit::Bytes, used, asked, limit)
    };
    [
        kept("queued_tasks", Unit::Count, ledger.queued_tasks, estimate::tasks(ask.spec), quota.queued_tasks),
        kept("storage", Unit::Bytes, ledger.storage_bytes, stores, quota.storage_bytes),
        traffic("ingress", ledger.ingress_bytes, estimate::fetched_bytes(ask.spec), quota.ingress_bytes),
        traffic("egress", ledger.egress_bytes, outputs, quota.egress_bytes),
    ]
}

/// A tenant whose ingress is limited tells how much its URLs hold: it cannot be
/// counted otherwise. The node that fetches one holds it to that.
fn unsized_url(ask: &Ask<'_>) -> Option<Problem> {
    ask.tenant.quota.unwrap_or_default().ingress_bytes?;
    let at = ask.spec.inputs.iter().position(|input| !input.url.is_empty() && input.size_bytes == 0)?;
    let reason =
        format!("tenant {} has a limit on ingress, and this URL's size is not told", ask.tenant.name);
    let field = format!("input[{at}].size");
    Some(Problem::new(
        "spec.size",
        field,
        &ask.spec.inputs[at].url,
        reason,
        "tell it in the job file: `size` beside `url`",
    ))
}

/// The job's price, if the month's budget still has it.
fn price(ask: &Ask<'_>) -> Result<u64, Problem> {
    let Some(budget) = &ask.tenant.budget else { return Ok(0) };
    let price_micros = estimate::price_micros(ask.spec, budget);
    let Some(month_micros) = budget.month_micros else { return Ok(price_micros) };
    // A ledger of an earlier month has only its reservations left to count.
    let ledger = month::turned(ask.ledger, ask.now_ms);
    let used = ledger.reserved_micros.saturating_add(ledger.settled_micros);
    if used.saturating_add(price_micros) <= month_micros {
        return Ok(price_micros);
    }
    let alone = price_micros > month_micros;
    let reason = format!(
        "the job is estimated at {}; tenant {} has {} of {} left this month",
        money(price_micros),
        ask.tenant.name,
        money(month_micros.saturating_sub(used)),
        money(month_micros)
    );
    let remedy = if alone {
        "ask for less, tell expected_runtime, or have the tenant's budget raised"
    } else {
        "wait for the next month, tell expected_runtime, or have the tenant's budget raised"
    };
    let mut problem = Problem::new("budget.exceeded", "budget", money(price_micros), reason, remedy);
    #[allow(clippy::cast_precision_loss, reason = "shown to people")]
    let in_units = |micros: u64| micros as f64 / 1e6;
    problem.quota = Some(QuotaDetail {
        dimension: "budget".to_owned(),
        used: in_units(used),
        asked: in_units(price_micros),
        limit: in_units(month_micros),
        threshold: in_units(month_micros),
        fits_at_ms: if alone { 0 } else { month::next_ms(ask.now_ms) },
    });
    Err(problem)
}

/// Money in units with two decimals, rounded up where it is finer.
fn money(micros: u64) -> String {
    let cents = micros.div_ceil(10_000);
    format!("{}.{:02}", cents / 100, cents % 100)
}
