//! Signed URLs: whoever holds one may move one object one way, for a while.
//!
//! `/v1/objects/<tenant>/<digest>?size=…&by=…&expires=…&signature=…`, where the
//! signature is HMAC-SHA256, with the cluster's key, over the method and all
//! the rest. Whatever is altered, the signature no longer fits.

use hmac::{Hmac, Mac};
use proto::checkpoints::is_space;
use sha2::Sha256;
use std::fmt;
use world::transfer::TransferError;

/// What precedes tenant and digest.
pub(crate) const PATH: &str = "/v1/objects/";

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// To the server.
    Put,
    /// From the server.
    Get,
}

/// Who moves them. What clients move counts as their tenant's traffic; what
/// nodes move is staging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover {
    /// A tenant's client.
    Client,
    /// An agent.
    Node,
}

impl Mover {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Node => "node",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Client, Self::Node].into_iter().find(|mover| mover.name() == name)
    }
}

/// What one URL allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// Whose namespace.
    pub tenant: String,
    /// Lower-case hexadecimal SHA-256 of the bytes.
    pub digest: String,
    /// Of the object.
    pub size_bytes: u64,
    /// For whom it was signed.
    pub mover: Mover,
    /// Milliseconds since 1970.
    pub expires_ms: u64,
}

/// Signs and checks.
#[derive(Clone)]
pub struct Signer {
    key: Vec<u8>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is a secret.
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

/// True for 64 lower-case hexadecimal digits.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

impl Signer {
    /// Signs with this key.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self { key: key.to_vec() }
    }

    /// The path and query that grant this.
    #[must_use]
    pub fn target(&self, method: Method, leave: &Leave) -> String {
        let Leave { tenant, digest, size_bytes, mover, expires_ms } = leave;
        let by = mover.name();
        let signature = crate::hex(&self.mac(method, leave).finalize().into_bytes());
        format!(
            "{PATH}{tenant}/{digest}?size={size_bytes}&by={by}&expires={expires_ms}&signature={signature}"
        )
    }

    /// What a path and query grant at this instant.
    pub fn check(&self, method: Method, target: &str, now_ms: u64) -> Result<Leave, TransferError> {
        let refuse = |reason: &str| TransferError::Refused { status: 403, reason: reason.to_owned() };
        let (leave, signature) = read(target).ok_or_else(|| refuse("this is no signed object URL"))?;
        // In constant time.
        if self.mac(method, &leave).verify_slice(&signature).is_err() {
            return Err(refuse(
                "the signature does not fit: altered, for another method, or of another cluster",
            ));
        }
        if now_ms >= leave.expires_ms {
            return Err(refuse("the URL has expired; ask for a new one"));
        }
        Ok(leave)
    }

    fn mac(&self, method: Method, leave: &Leave) -> Hmac<Sha256> {
        let Leave { tenant, digest, size_bytes, mover, expires_ms } = leave;
        let by = mover.name();
        let method = match method {
            Method::Put => "PUT",
            Method::Get => "GET",
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(format!("{method}\n{tenant}\n{digest}\n{size_bytes}\n{by}\n{expires_ms}").as_bytes());
        mac
    }
}

/// Reads the one form that [`Signer::target`] writes.
fn read(target: &str) -> Option<(Leave, Vec<u8>)> {
    let (path, query) = target.strip_prefix(PATH)?.split_once('?')?;
    let (tenant, digest) = path.split_once('/')?;
    if !is_space(tenant) || !is_digest(digest) {
        return None;
    }
    let mut parts = query.split('&');
    let mut part = |name: &str| parts.next()?.strip_prefix(name)?.strip_prefix('=');
    let size_bytes = number(part("size")?)?;
    let mover = Mover::parse(part("by")?)?;
    let expires_ms = number(part("expires")?)?;
    let signature = unhex(part("signature")?)?;
    if parts.next().is_some() {
        return None;
    }
    let leave = Leave { tenant: tenant.to_owned(), digest: digest.to_owned(), size_bytes, mover, expires_ms };
    Some((leave, signature))
}

fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !is_digest(text) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leave() -> Leave {
        Leave {
            tenant: "lab".into(),
            digest: "0f".repeat(32),
            size_bytes: 12,
            mover: Mover::Client,
            expires_ms: 1_000,
        }
    }

    fn reason(result: Result<Leave, TransferError>) -> String {
        match result {
            Err(TransferError::Refused { status: 403, reason }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_signed_url_grants_what_was_signed() {
        let signer = Signer::new(b"key");
        let target = signer.target(Method::Put, &leave());
        assert_eq!(signer.check(Method::Put, &target, 999).unwrap(), leave());
    }

    #[test]
    fn an_expired_one_grants_nothing() {
        let signer = Signer::new(b"key");
        let target = signer.target(Method::Put, &leave());
        assert!(reason(signer.check(Method::Put, &target, 1_000)).contains("expired"));
    }

    #[test]
    fn no_part_of_it_can_be_altered() {
        let signer = Signer::new(b"key");
        let target = signer.target(Method::Get, &leave());
        assert!(reason(signer.check(Method::Put, &target, 0)).contains("does not fit"));
        for (from, to) in [
            ("/lab/", "/law/"),
            ("/0f0f", "/0e0f"),
            ("size=12", "size=13"),
            ("by=client", "by=node"),
            ("by=client", "by=nobody"),
            ("expires=1000", "expires=9000"),
            ("signature=", "signature=0"),
            ("?size", "?extra=1&size"),
            ("/lab/", "/../"),
            ("v1", "v2"),
        ] {
            let altered = target.replacen(from, to, 1);
            assert_ne!(altered, target);
            reason(signer.check(Method::Get, &altered, 0));
        }
        // Every digit of the signature counts.
        let at = target.find("signature=").unwrap() + "signature=".len();
        for digit in at..target.len() {
            let mut altered = target.clone().into_bytes();
            altered[digit] = if altered[digit] == b'0' { b'1' } else { b'0' };
            reason(signer.check(Method::Get, std::str::from_utf8(&altered).unwrap(), 0));
        }
        for nonsense in ["", "/", "/v1/objects/", "/v1/objects/lab/x?size=1", "?", "/v1/objects/a/b/c"] {
            assert!(reason(signer.check(Method::Get, nonsense, 0)).contains("no signed"));
        }
    }

    #[test]
    fn another_cluster_s_is_refused() {
        let target = Signer::new(b"theirs").target(Method::Get, &leave());
        assert!(reason(Signer::new(b"ours").check(Method::Get, &target, 0)).contains("does not fit"));
    }
}
