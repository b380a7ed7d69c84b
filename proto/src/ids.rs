//! Names and ids, and what they must look like.
//!
//! Names end up in keys, paths and on screens, so their alphabet is small. A
//! name that got past [`TenantName::parse`] and its kin may be used as a part
//! of a key without further thought.

use crate::{limits::NAME_BYTES_MAX, problem::Problem};
use std::fmt;

/// Shards of tenants; each is written by one controller at a time.
pub const SHARDS: u16 = 16;

/// The shard that writes a tenant's jobs: fnv1a64(name) % [`SHARDS`].
#[must_use]
pub fn shard_of(tenant: &str) -> u16 {
    u16::try_from(fnv1a64(tenant.as_bytes()) % u64::from(SHARDS)).expect("a remainder of 16 fits")
}

/// Fowler, Noll and Vo's hash (1a, 64 bits): the same on every machine.
#[must_use]
pub fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Which alphabet a name is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// `[a-z0-9][a-z0-9-]{0,62}`
    Tenant,
    /// `[a-z0-9][a-z0-9.-]{0,62}`: host names fit.
    Node,
    /// As a tenant's.
    Pool,
    /// As a tenant's.
    Reservation,
    /// `[A-Za-z0-9_][A-Za-z0-9._-]{0,62}`: it becomes a directory.
    Step,
    /// As a step's: it becomes a file below `inputs/`.
    Input,
    /// As a step's, and `@`: `matlab@campus`.
    License,
}

/// Whether `name` is one of its kind; the problem's field is `field`.
pub fn check_name(kind: NameKind, field: &str, name: &str) -> Result<(), Problem> {
    let (start, rest, alphabet): (ByteTest, ByteTest, &str) = match kind {
        NameKind::Tenant | NameKind::Pool | NameKind::Reservation => (
            is_lower,
            |b| is_lower(b) || b == b'-',
            "lower-case letters, digits and -, beginning with a letter or digit",
        ),
        NameKind::Node => (
            is_lower,
            |b| is_lower(b) || b == b'-' || b == b'.',
            "lower-case letters, digits, - and ., beginning with a letter or digit",
        ),
        NameKind::Step | NameKind::Input => (
            |b| b.is_ascii_alphanumeric() || b == b'_',
            |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'),
            "letters, digits, _, - and ., beginning with a letter, digit or _",
        ),
        NameKind::License => (
            |b| b.is_ascii_alphanumeric() || b == b'_',
            |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@'),
            "letters, digits, _, -, . and @, beginning with a letter, digit or _",
        ),
    };
    let bytes = name.as_bytes();
    let fits = !bytes.is_empty()
        && bytes.len() <= NAME_BYTES_MAX
        && start(bytes[0])
        && bytes.iter().all(|b| rest(*b));
    if fits {
        return Ok(());
    }
    let code = match kind {
        NameKind::Tenant => "spec.tenant_name",
        NameKind::Node => "spec.node_name",
        NameKind::Pool => "spec.pool_name",
        NameKind::Reservation => "spec.reservation_name",
        NameKind::Step => "spec.step_name",
        NameKind::Input => "spec.input_name",
        NameKind::License => "spec.license_name",
    };
    let reason = if name.is_empty() { "a name is needed" } else { "is not a name" };
    Err(Problem::new(code, field, name, reason, format!("use 1 to {NAME_BYTES_MAX} {alphabet}")))
}

type ByteTest = fn(u8) -> bool;

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:expr, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $type(String);
        impl $type {
            /// Takes only what follows the rule.
            pub fn parse(name: &str) -> Result<Self, Problem> {
                check_name($kind, $field, name)?;
                Ok(Self(name.to_owned()))
            }
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// The text, owned.
            #[must_use]
            pub fn into_string(self) -> String {
                self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::str::FromStr for $type {
            type Err = Problem;
            fn from_str(name: &str) -> Result<Self, Problem> {
                Self::parse(name)
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}
name!(
    /// Who submits and pays.
    TenantName,
    NameKind::Tenant,
    "tenant"
);
name!(
    /// A machine that runs an agent.
    NodeName,
    NameKind::Node,
    "node"
);
name!(
    /// A named set of like nodes.
    PoolName,
    NameKind::Pool,
    "pool"
);
name!(
    /// Nodes that are kept for a while.
    ReservationName,
    NameKind::Reservation,
    "reservation"
);

/// A job, as people write it: `lab-17`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId {
    /// Whose it is.
    pub tenant: String,
    /// Counted per tenant, from 1.
    pub number: u64,
}

impl JobId {
    /// Puts the two together.
    #[must_use]
    pub fn new(tenant: impl Into<String>, number: u64) -> Self {
        Self { tenant: tenant.into(), number }
    }

    /// Reads `lab-17`, or `17` as a job of `default_tenant` (which may be empty:
    /// the token tells it then).
    pub fn parse(text: &str, default_tenant: &str) -> Result<Self, Problem> {
        let refuse = |reason: &str| {
            Problem::new(
                "spec.job_id",
                "job",
                text,
                reason,
                "write TENANT-NUMBER, or NUMBER for your own tenant",
            )
        };
        let (tenant, digits) = text.rsplit_once('-').unwrap_or((default_tenant, text));
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refuse("is not a job id"));
        }
        let number: u64 = digits.parse().map_err(|_| refuse("the number is too large"))?;
        if number == 0 {
            return Err(refuse("jobs are numbered from 1"));
        }
        if !(tenant.is_empty() && digits.len() == text.len()) {
            check_name(NameKind::Tenant, "job", tenant).map_err(|_| refuse("is not a job id"))?;
        }
        Ok(Self::new(tenant, number))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tenant.is_empty() {
            return write!(f, "{}", self.number);
        }
        write!(f, "{}-{}", self.tenant, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_follow_their_rules() {
        for good in ["a", "0", "lab", "lab-17", "a-", &"x".repeat(63)] {
            TenantName::parse(good).unwrap();
            PoolName::parse(good).unwrap();
        }
        for bad in ["", "-a", "A", "a_b", "a.b", "a/b", "ü", " a", &"x".repeat(64)] {
            assert!(TenantName::parse(bad).is_err(), "{bad}");
        }
        NodeName::parse("n1.rack2.example").unwrap();
        assert!(NodeName::parse(".n1").is_err());
        check_name(NameKind::Step, "step[0].name", "Count_2.a").unwrap();
        assert!(check_name(NameKind::Step, "step[0].name", "..").is_err());
        assert!(check_name(NameKind::Input, "input[0].name", "a/b").is_err());
        let problem = TenantName::parse("Lab").unwrap_err();
        assert_eq!((problem.code.as_str(), problem.value.as_str()), ("spec.tenant_name", "Lab"));
    }

    #[test]
    fn job_ids_read_both_ways() {
        assert_eq!(JobId::parse("17", "default").unwrap(), JobId::new("default", 17));
        assert_eq!(JobId::parse("lab-17", "default").unwrap(), JobId::new("lab", 17));
        assert_eq!(JobId::parse("lab-17-3", "default").unwrap(), JobId::new("lab-17", 3));
        assert_eq!(JobId::parse("17", "").unwrap(), JobId::new("", 17));
        assert_eq!(JobId::new("lab", 17).to_string(), "lab-17");
        for bad in
            ["", "-", "-17", "lab", "lab-", "lab-0", "0", "lab-1x", "Lab-1", "+1", "lab-99999999999999999999"]
        {
            assert!(JobId::parse(bad, "default").is_err(), "{bad}");
        }
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_f739_67e8);
        assert!(shard_of("default") < SHARDS);
    }

    proptest! {
        #[test]
        fn an_id_survives_its_text(tenant in "[a-z0-9][a-z0-9-]{0,62}", number in 1..=u64::MAX) {
            let id = JobId::new(tenant, number);
            prop_assert_eq!(JobId::parse(&id.to_string(), "other").unwrap(), id);
        }
    }
}
