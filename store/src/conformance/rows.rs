//! Commits, guards, pages and limits.

use super::{Subject, key_of};
use crate::limits::{
    COMMIT_BYTES_MAX, COMMIT_OPERATIONS_MAX, KEY_BYTES_MAX, RANGE_BYTES_MAX, RANGE_ROWS_MAX,
};
use crate::{Commit, CommitError, Key, Page, RangeRequest, ReadError, prefix_end, scan};
use futures_util::future::join_all;
use std::collections::BTreeSet;

fn conflict(key: &str, found: u64) -> CommitError {
    CommitError::Conflict { key: key_of(key), found }
}

pub(super) async fn guards_of_all_kinds(subject: &Subject) {
    let first = subject.done(Commit::new().guard_absent("a").put("a", "1")).await;
    let again = subject.commit(Commit::new().guard_absent("a").put("a", "2")).await;
    assert_eq!(again, Err(conflict("a", first)));
    assert_eq!(subject.value("a").await.as_deref(), Some("1"));

    let second = subject.done(Commit::new().guard_version("a", first).put("a", "2")).await;
    assert!(second > first);
    let stale = subject.commit(Commit::new().guard_version("a", first).put("a", "3")).await;
    assert_eq!(stale, Err(conflict("a", second)));
    let none = subject.commit(Commit::new().guard_version("b", first).put("b", "3")).await;
    assert_eq!(none, Err(conflict("b", 0)));

    let third = subject.done(Commit::new().guard_value("a", "2").put("a", "3")).await;
    assert_eq!(
        subject.commit(Commit::new().guard_value("a", "2").delete("a")).await,
        Err(conflict("a", third))
    );
    assert_eq!(subject.commit(Commit::new().guard_value("b", "").put("b", "1")).await, Err(conflict("b", 0)));
    // An empty value is a row all the same.
    subject.done(Commit::new().guard_version("b", 0).put("b", "")).await;
    subject.done(Commit::new().guard_value("b", "").delete("b")).await;
    assert_eq!(subject.get("b").await, None);

    // The first guard that fails is the one named; guards look at the state
    // before the commit's own writes.
    let mixed = Commit::new().guard_value("a", "3").guard_absent("a").guard_absent("x").put("x", "1");
    assert_eq!(subject.commit(mixed).await, Err(conflict("a", third)));
    subject.done(Commit::new().guard_absent("x").put("x", "1")).await;
    // Guards alone are a question.
    let asked = subject.done(Commit::new().guard_value("a", "3")).await;
    assert!(asked >= third);
    assert_eq!(subject.commit(Commit::new().guard_absent("a")).await, Err(conflict("a", third)));
}

pub(super) async fn a_commit_happens_as_a_whole_or_not_at_all(subject: &Subject) {
    subject.done(Commit::new().put("keep", "old").put("gone", "old")).await;
    let refused = Commit::new().guard_absent("keep").put("keep", "new").put("fresh", "new").delete("gone");
    assert!(matches!(subject.commit(refused).await, Err(CommitError::Conflict { .. })));
    assert_eq!(subject.value("keep").await.as_deref(), Some("old"));
    assert_eq!(subject.value("gone").await.as_deref(), Some("old"));
    assert_eq!(subject.value("fresh").await, None);

    let done = Commit::new().guard_value("keep", "old").put("keep", "new").put("fresh", "new").delete("gone");
    let revision = subject.done(done).await;
    for key in ["keep", "fresh"] {
        let row = subject.get(key).await.expect("it was written");
        assert_eq!((row.version, row.value.as_ref()), (revision, b"new".as_slice()), "{key}");
    }
    assert_eq!(subject.value("gone").await, None);
    // A lease that never was fails all of it.
    let leased = Commit::new().put("other", "1").put_leased("row", "1", revision + 1000);
    assert_eq!(subject.commit(leased).await, Err(CommitError::LeaseGone(revision + 1000)));
    assert_eq!(subject.value("other").await, None);
}

pub(super) async fn versions_tell_who_wrote(subject: &Subject) {
    let made = subject.done(Commit::new().put("a", "1").put("b", "1")).await;
    let changed = subject.done(Commit::new().put("a", "2")).await;
    // Deleting what is not there is no error.
    subject.done(Commit::new().delete("nothing")).await;
    assert_eq!(subject.get("a").await.map(|row| row.version), Some(changed));
    assert_eq!(subject.get("b").await.map(|row| row.version), Some(made));
    subject.done(Commit::new().delete("a")).await;
    let anew = subject.done(Commit::new().guard_absent("a").put("a", "2")).await;
    assert!(anew > changed, "a row made anew has a version of its own");
    let page = subject.store.range(RangeRequest::below(b"", 10)).await.expect("a page can be read");
    assert!(page.revision >= anew);
}

/// Not awaited in between, each guarding the bytes of the one before.
fn chain(from: usize, to: usize) -> Vec<Commit> {
    let link = |at: usize| {
        let commit = Commit::new().put("chain", at.to_string()).put(format!("link/{at:04}"), at.to_string());
        if at == 0 { commit.guard_absent("chain") } else { commit.guard_value("chain", (at - 1).to_string()) }
    };
    (from..to).map(link).collect()
}

pub(super) async fn calls_take_effect_in_their_order(subject: &Subject) {
    let outcomes = join_all(chain(0, 200).into_iter().map(|commit| subject.commit(commit))).await;
    let mut last = 0;
    for (at, outcome) in outcomes.into_iter().enumerate() {
        let revision = outcome.unwrap_or_else(|error| panic!("link {at}: {error}"));
        assert!(revision > last, "revisions grow with the order of the calls");
        last = revision;
    }
    assert_eq!(subject.value("chain").await.as_deref(), Some("199"));
    assert_eq!(scan(subject.store.as_ref(), b"link/", 64).await.expect("rows can be read").len(), 200);
}

pub(super) async fn a_broken_chain_breaks_all_behind(subject: &Subject) {
    let mut commits = chain(0, 20);
    commits.extend(chain(21, 60));
    let outcomes = join_all(commits.into_iter().map(|commit| subject.commit(commit))).await;
    let (good, bad) = outcomes.split_at(20);
    assert!(good.iter().all(Result::is_ok));
    assert!(bad.iter().all(|outcome| matches!(outcome, Err(CommitError::Conflict { .. }))));
    assert_eq!(subject.value("chain").await.as_deref(), Some("19"));
}

pub(super) async fn of_many_writers_each_wins_once(subject: &Subject) {
    subject.done(Commit::new().put("counter", "0")).await;
    let writer = async |name: usize| {
        let mut wins = 0;
        while wins < 10 {
            let row = subject.get("counter").await.expect("it was made");
            let count: u64 = String::from_utf8_lossy(&row.value).parse().expect("a number was written");
            let next = Commit::new()
                .guard_version("counter", row.version)
                .put("counter", (count + 1).to_string())
                .put(format!("won/{count:04}"), name.to_string());
            match subject.commit(next).await {
                Ok(_) => wins += 1,
                Err(CommitError::Conflict { found, .. }) => assert!(found > row.version),
                Err(error) => panic!("writer {name}: {error}"),
            }
        }
    };
    join_all((0..6).map(writer)).await;
    assert_eq!(subject.value("counter").await.as_deref(), Some("60"));
    assert_eq!(scan(subject.store.as_ref(), b"won/", 7).await.expect("rows can be read").len(), 60);
}

pub(super) async fn pages_are_ordered_and_whole(subject: &Subject) {
    for at in (0..25).rev() {
        subject
            .done(Commit::new().put(format!("p/{at:02}"), at.to_string()).put(format!("q/{at:02}"), ""))
            .await;
    }
    let names = |range: std::ops::Range<usize>| range.map(|at| format!("p/{at:02}")).collect::<Vec<_>>();
    let reversed =
        |range: std::ops::Range<usize>| range.rev().map(|at| format!("p/{at:02}")).collect::<Vec<_>>();
    let below = |limit| RangeRequest::below(b"p/", limit);
    assert_eq!(subject.keys(below(10)).await, (names(0..10), true));
    assert_eq!(subject.keys(below(25)).await, (names(0..25), false));
    assert_eq!(subject.keys(below(26)).await, (names(0..25), false));
    assert_eq!(subject.keys(below(3).from_the_end()).await, (reversed(22..25), true));
    assert_eq!(subject.keys(below(100).from_the_end()).await, (reversed(0..25), false));
    // The first key belongs to the range, the last does not, also backwards.
    let some = RangeRequest { from: key_of("p/05"), to: key_of("p/08"), limit: 10, backwards: false };
    assert_eq!(subject.keys(some.clone()).await, (names(5..8), false));
    assert_eq!(subject.keys(some.clone().from_the_end()).await, (reversed(5..8), false));
    let empty = RangeRequest { to: some.from.clone(), ..some };
    assert_eq!(subject.keys(empty).await, (Vec::new(), false));
    let rows = scan(subject.store.as_ref(), b"", 4).await.expect("rows can be read");
    assert_eq!(rows.len(), 50);
    assert!(rows.windows(2).all(|pair| pair[0].key < pair[1].key));
}

pub(super) async fn large_pages_are_cut(subject: &Subject) {
    let half = vec![7_u8; COMMIT_BYTES_MAX / 2];
    let count = RANGE_BYTES_MAX / half.len() + 3;
    for at in 0..count {
        subject.done(Commit::new().put(format!("large/{at}"), half.clone())).await;
    }
    let Page { rows, more, .. } =
        subject.store.range(RangeRequest::below(b"large/", 100)).await.expect("a page can be read");
    assert!(more && !rows.is_empty() && rows.len() < count);
    let all = scan(subject.store.as_ref(), b"large/", 100).await.expect("rows can be read");
    let distinct: BTreeSet<&Key> = all.iter().map(|row| &row.key).collect();
    assert_eq!((all.len(), distinct.len()), (count, count));
    assert!(all.iter().all(|row| row.value.as_ref() == half.as_slice()));
}

pub(super) async fn limits_are_kept_and_named(subject: &Subject) {
    let puts =
        |count: usize| (0..count).fold(Commit::new(), |commit, at| commit.put(format!("many/{at}"), "x"));
    subject.done(puts(COMMIT_OPERATIONS_MAX)).await;
    refused(subject, puts(COMMIT_OPERATIONS_MAX + 1), COMMIT_OPERATIONS_MAX).await;
    refused(subject, puts(COMMIT_OPERATIONS_MAX).guard_absent("one/more"), COMMIT_OPERATIONS_MAX).await;

    let large = |bytes: usize| Commit::new().put("k", vec![1_u8; bytes - 1]);
    subject.done(large(COMMIT_BYTES_MAX)).await;
    refused(subject, large(COMMIT_BYTES_MAX + 1), COMMIT_BYTES_MAX).await;

    let long = |bytes: usize| Commit::new().put(vec![b'k'; bytes], "");
    subject.done(long(KEY_BYTES_MAX)).await;
    refused(subject, long(KEY_BYTES_MAX + 1), KEY_BYTES_MAX).await;
    refused(subject, long(0), 1).await;
    refused(subject, Commit::new().guard_absent(""), 1).await;
    refused(subject, Commit::new().put("twice", "1").delete("twice"), 1).await;
    assert_eq!(subject.value("twice").await, None);

    for limit in [0, RANGE_ROWS_MAX + 1] {
        let request = RangeRequest { from: Key::new(), to: prefix_end(b""), limit, backwards: false };
        let Err(ReadError::Refused(why)) = subject.store.range(request).await else { panic!("{limit} rows") };
        assert!(why.contains(&RANGE_ROWS_MAX.to_string()), "{why}");
    }
    let inverted = RangeRequest { from: key_of("b"), to: key_of("a"), limit: 1, backwards: false };
    assert!(matches!(subject.store.range(inverted).await, Err(ReadError::Refused(_))));
    assert!(matches!(subject.store.get(Key::new()).await, Err(ReadError::Refused(_))));
    let long = Key::from(vec![b'p'; KEY_BYTES_MAX + 1]);
    assert!(matches!(subject.store.watch(long).await, Err(ReadError::Refused(_))));
}

async fn refused(subject: &Subject, commit: Commit, limit: usize) {
    match subject.commit(commit).await {
        Err(CommitError::Refused(why)) => {
            assert!(limit == 1 || why.contains(&limit.to_string()), "the refusal names the limit: {why}");
        }
        other => panic!("not refused: {other:?}"),
    }
}
