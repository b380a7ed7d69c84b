//! Leases, by the store's own clock. The spans are long, so that the time the
//! calls themselves take decides nothing.

use super::{Subject, key_of};
use crate::limits::{LEASE_OWNER_BYTES_MAX, LEASE_TTL_MS_MAX};
use crate::{Commit, CommitError, LeaseId, Notice};

const HOUR_MS: u64 = 3_600_000;

async fn lease(subject: &Subject, owner: &str) -> LeaseId {
    let lease = subject.store.lease(owner, HOUR_MS).await.expect("a lease can be had");
    assert_ne!(lease, 0, "0 is no lease");
    lease
}

pub(super) async fn rows_vanish_with_their_lease(subject: &Subject) {
    let (short, long) = (lease(subject, "short").await, lease(subject, "long").await);
    assert_ne!(short, long);
    let commit = Commit::new().put_leased("l/a", "1", short).put_leased("l/b", "1", long).put("l/c", "1");
    subject.done(commit).await;
    subject.done(Commit::new().put_leased("l/d", "1", short)).await;
    assert_eq!(subject.get("l/a").await.map(|row| row.lease), Some(short));
    let mut watch = subject.store.watch(key_of("l/")).await.expect("a watch can start");

    subject.let_pass(HOUR_MS * 2 / 3).await;
    subject.store.keep(long).await.expect("it has not ended yet");
    subject.let_pass(HOUR_MS * 2 / 3).await;
    assert_eq!(subject.get("l/a").await, None);
    assert_eq!(subject.get("l/d").await, None);
    assert_eq!(subject.value("l/b").await.as_deref(), Some("1"));
    assert_eq!(subject.value("l/c").await.as_deref(), Some("1"));
    let told = watch.notices.recv().await;
    let Some(Notice::Changed { revision, changes }) = told else { panic!("{told:?}") };
    assert!(revision > watch.revision);
    assert_eq!(changes, vec![(key_of("l/a"), None), (key_of("l/d"), None)], "one lease ends in one commit");

    assert_eq!(subject.store.keep(short).await, Err(CommitError::LeaseGone(short)));
    assert_eq!(subject.store.revoke(short).await, Err(CommitError::LeaseGone(short)));
    let late = Commit::new().put_leased("l/a", "2", short);
    assert_eq!(subject.commit(late).await, Err(CommitError::LeaseGone(short)));
    assert_eq!(subject.get("l/a").await, None);

    subject.store.revoke(long).await.expect("it lives");
    assert_eq!(subject.get("l/b").await, None, "a revoked lease ends at once");
    assert_eq!(subject.store.keep(long).await, Err(CommitError::LeaseGone(long)));
}

pub(super) async fn a_kept_lease_lives(subject: &Subject) {
    let kept = lease(subject, "kept").await;
    subject.done(Commit::new().put_leased("k", "1", kept)).await;
    for _ in 0..6 {
        subject.let_pass(HOUR_MS / 2).await;
        subject.store.keep(kept).await.expect("it was kept in time");
    }
    assert_eq!(subject.value("k").await.as_deref(), Some("1"));
    // Writing its row does not keep a lease.
    for _ in 0..3 {
        subject.let_pass(HOUR_MS * 2 / 5).await;
        let _ = subject.commit(Commit::new().put_leased("k", "2", kept)).await;
    }
    assert_eq!(subject.get("k").await, None);
}

pub(super) async fn a_row_hangs_on_its_last_lease_only(subject: &Subject) {
    let (one, two) = (lease(subject, "one").await, lease(subject, "two").await);
    let both =
        Commit::new().put_leased("free", "1", one).put_leased("moved", "1", one).put_leased("anew", "1", one);
    subject.done(both).await;
    subject.done(Commit::new().put("free", "2").put_leased("moved", "2", two).delete("anew")).await;
    subject.done(Commit::new().put("anew", "2")).await;
    subject.store.revoke(one).await.expect("it lives");
    assert_eq!(subject.get("free").await.map(|row| row.lease), Some(0));
    assert_eq!(subject.get("moved").await.map(|row| row.lease), Some(two));
    assert_eq!(subject.value("anew").await.as_deref(), Some("2"));
    // A lease named by a delete hangs nothing on it.
    let three = lease(subject, "three").await;
    let mut deleted = Commit::new().delete("moved");
    deleted.writes[0].lease = three;
    subject.done(deleted).await;
    subject.done(Commit::new().put("moved", "3")).await;
    subject.store.revoke(two).await.expect("it lives");
    subject.store.revoke(three).await.expect("it lives");
    assert_eq!(subject.value("moved").await.as_deref(), Some("3"));
}

pub(super) async fn limits_of_leases(subject: &Subject) {
    let long = "o".repeat(LEASE_OWNER_BYTES_MAX + 1);
    for (owner, ttl_ms) in [("", 1000), (long.as_str(), 1000), ("owner", 0), ("owner", LEASE_TTL_MS_MAX + 1)]
    {
        let refused = subject.store.lease(owner, ttl_ms).await;
        assert!(matches!(refused, Err(CommitError::Refused(_))), "{owner:?} {ttl_ms}: {refused:?}");
    }
    subject.store.lease(&long[1..], LEASE_TTL_MS_MAX).await.expect("just within the limits");
    assert_eq!(subject.store.keep(987_654_321).await, Err(CommitError::LeaseGone(987_654_321)));
}
