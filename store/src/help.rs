//! Small helps for callers: commits built by name, the end of a prefix, all
//! rows below one page by page.

use crate::limits::{KEY_BYTES_MAX, RANGE_ROWS_MAX};
use crate::{Commit, Expect, Guard, Key, LeaseId, RangeRequest, ReadError, Revision, Row, Store, Write};
use bytes::Bytes;

/// The first key behind all keys that start with `prefix`. The empty prefix
/// (or one of 0xff bytes alone) has none below the longest key, so the bound
/// behind every key is returned.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Key {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    vec![u8::MAX; KEY_BYTES_MAX + 1].into()
}

/// The first key behind this one.
#[must_use]
pub fn key_after(key: &[u8]) -> Key {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// All rows below `prefix`, in order, read in pages of `page` rows (at most
/// [`RANGE_ROWS_MAX`]). Each page is of one moment, the whole need not be: who
/// needs that watches first and applies the notices behind.
pub async fn scan(store: &dyn Store, prefix: &[u8], page: usize) -> Result<Vec<Row>, ReadError> {
    let limit = page.clamp(1, RANGE_ROWS_MAX);
    let to = prefix_end(prefix);
    let mut from = Key::copy_from_slice(prefix);
    let mut rows = Vec::new();
    loop {
        let request = RangeRequest { from, to: to.clone(), limit, backwards: false };
        let mut answer = store.range(request).await?;
        let next = answer.rows.last().map(|row| key_after(&row.key));
        rows.append(&mut answer.rows);
        match next {
            Some(next) if answer.more => from = next,
            _ => return Ok(rows),
        }
    }
}

impl RangeRequest {
    /// The rows below a prefix, the first `limit` of them.
    #[must_use]
    pub fn below(prefix: &[u8], limit: usize) -> Self {
        Self { from: Key::copy_from_slice(prefix), to: prefix_end(prefix), limit, backwards: false }
    }

    /// The same rows from the end towards the start.
    #[must_use]
    pub fn from_the_end(self) -> Self {
        Self { backwards: true, ..self }
    }
}

impl Commit {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if there is no such row.
    #[must_use]
    pub fn guard_absent(self, key: impl Into<Key>) -> Self {
        self.guard(key, Expect::Absent)
    }

    /// Only if the row was last written at `version`.
    #[must_use]
    pub fn guard_version(self, key: impl Into<Key>, version: Revision) -> Self {
        self.guard(key, Expect::Version(version))
    }

    /// Only if the row has these bytes.
    #[must_use]
    pub fn guard_value(self, key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        self.guard(key, Expect::Value(value.into()))
    }

    /// Only if this holds.
    #[must_use]
    pub fn guard(mut self, key: impl Into<Key>, expect: Expect) -> Self {
        self.guards.push(Guard { key: key.into(), expect });
        self
    }

    /// Writes a row.
    #[must_use]
    pub fn put(self, key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        self.put_leased(key, value, 0)
    }

    /// Writes a row and hangs it on a lease.
    #[must_use]
    pub fn put_leased(mut self, key: impl Into<Key>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.writes.push(Write { key: key.into(), value: Some(value.into()), lease });
        self
    }

    /// Deletes a row; no error where there is none.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Key>) -> Self {
        self.writes.push(Write { key: key.into(), value: None, lease: 0 });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys_and_no_others() {
        assert_eq!(prefix_end(b"job/"), Key::from_static(b"job0"));
        assert_eq!(prefix_end(b"a\xff\xff"), Key::from_static(b"b"));
        let all = prefix_end(b"");
        assert!(all.as_ref() > vec![0xff; KEY_BYTES_MAX].as_slice());
        assert_eq!(prefix_end(b"\xff"), all);
    }
}
