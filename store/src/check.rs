//! The limits, applied at every door: a store that checks here first can only
//! be handed what every other implementation takes too. Each refusal names the
//! limit and what was found.

use crate::limits::{
    COMMIT_BYTES_MAX, COMMIT_OPERATIONS_MAX, KEY_BYTES_MAX, LEASE_OWNER_BYTES_MAX, LEASE_TTL_MS_MAX,
    RANGE_ROWS_MAX,
};
use crate::{Commit, Expect, RangeRequest};

/// Bytes of keys and values, as [`COMMIT_BYTES_MAX`] counts them.
pub(crate) fn commit_bytes(commit: &Commit) -> usize {
    let guards = commit.guards.iter().map(|guard| match &guard.expect {
        Expect::Value(value) => guard.key.len() + value.len(),
        Expect::Absent | Expect::Version(_) => guard.key.len(),
    });
    let writes = commit
        .writes
        .iter()
        .map(|write| write.key.len() + write.value.as_ref().map_or(0, |value| value.len()));
    guards.chain(writes).sum()
}

/// Whether a commit is within the limits, and its bytes.
pub(crate) fn commit(commit: &Commit) -> Result<usize, String> {
    let operations = commit.guards.len() + commit.writes.len();
    if operations > COMMIT_OPERATIONS_MAX {
        return Err(format!(
            "{operations} guards and writes; at most {COMMIT_OPERATIONS_MAX} fit in one commit"
        ));
    }
    let bytes = commit_bytes(commit);
    if bytes > COMMIT_BYTES_MAX {
        return Err(format!(
            "{bytes} bytes of keys and values; at most {COMMIT_BYTES_MAX} fit in one commit"
        ));
    }
    for key in
        commit.guards.iter().map(|guard| &guard.key).chain(commit.writes.iter().map(|write| &write.key))
    {
        row_key(key)?;
    }
    let mut keys: Vec<&[u8]> = commit.writes.iter().map(|write| write.key.as_ref()).collect();
    keys.sort_unstable();
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!(
            "key {} is written twice; a commit writes each key once",
            String::from_utf8_lossy(pair[0])
        ));
    }
    Ok(bytes)
}

/// Whether a key can name a row.
pub(crate) fn row_key(key: &[u8]) -> Result<(), String> {
    if key.is_empty() {
        return Err("an empty key; a key has at least 1 byte".to_owned());
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(format!("a key of {} bytes; at most {KEY_BYTES_MAX} are taken", key.len()));
    }
    Ok(())
}

/// Whether a page can be asked for.
pub(crate) fn range(request: &RangeRequest) -> Result<(), String> {
    if request.limit == 0 || request.limit > RANGE_ROWS_MAX {
        return Err(format!("a page of {} rows; 1 to {RANGE_ROWS_MAX} can be asked for", request.limit));
    }
    // One byte more than a key: the bound after the last of all keys.
    for bound in [&request.from, &request.to] {
        if bound.len() > KEY_BYTES_MAX + 1 {
            return Err(format!("a bound of {} bytes; at most {} are taken", bound.len(), KEY_BYTES_MAX + 1));
        }
    }
    if request.from > request.to {
        return Err(format!(
            "the range starts at {} after its end {}",
            String::from_utf8_lossy(&request.from),
            String::from_utf8_lossy(&request.to)
        ));
    }
    Ok(())
}

/// Whether a prefix can be watched.
pub(crate) fn prefix(prefix: &[u8]) -> Result<(), String> {
    if prefix.len() > KEY_BYTES_MAX {
        return Err(format!("a prefix of {} bytes; at most {KEY_BYTES_MAX} are taken", prefix.len()));
    }
    Ok(())
}

/// Whether a lease can be had.
pub(crate) fn lease(owner: &str, ttl_ms: u64) -> Result<(), String> {
    if owner.is_empty() || owner.len() > LEASE_OWNER_BYTES_MAX {
        return Err(format!(
            "a lease owner of {} bytes; 1 to {LEASE_OWNER_BYTES_MAX} are taken",
            owner.len()
        ));
    }
    if ttl_ms == 0 || ttl_ms > LEASE_TTL_MS_MAX {
        return Err(format!("a lease of {ttl_ms} ms; 1 to {LEASE_TTL_MS_MAX} are taken"));
    }
    Ok(())
}
