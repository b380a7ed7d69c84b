//! Watches.

use super::{Subject, key_of};
use crate::limits::WATCH_QUEUE;
use crate::{Commit, Key, Notice, Revision, Watch};
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::BTreeMap;

/// The next notice, which must be there or come.
async fn next(watch: &mut Watch) -> Notice {
    watch.notices.recv().await.expect("the watch goes on")
}

fn changes(list: &[(&str, Option<&str>)]) -> Vec<(Key, Option<Bytes>)> {
    let bytes = |value: &str| Bytes::copy_from_slice(value.as_bytes());
    list.iter().map(|(key, value)| (key_of(key), value.map(bytes))).collect()
}

pub(super) async fn a_watch_tells_all_changes_below_its_prefix(subject: &Subject) {
    let before = subject.done(Commit::new().put("w/a", "0").put("v/a", "0")).await;
    let mut watch = subject.store.watch(key_of("w/")).await.expect("a watch can start");
    assert!(watch.revision >= before, "it starts behind what was acknowledged");
    let mut all = subject.store.watch(Key::new()).await.expect("a watch can start");

    let first = subject.done(Commit::new().put("w/b", "1").put("v/b", "1").delete("w/a")).await;
    // Neither of these changes anything below the prefix.
    subject.done(Commit::new().put("v/c", "1").delete("w/none")).await;
    let refused = subject.commit(Commit::new().guard_absent("w/b").put("w/c", "1")).await;
    assert!(refused.is_err());
    let second = subject.done(Commit::new().put("w/b", "2")).await;

    let told = next(&mut watch).await;
    let Notice::Changed { revision, changes: mut rows } = told else { panic!("{told:?}") };
    rows.sort();
    assert_eq!((revision, rows), (first, changes(&[("w/a", None), ("w/b", Some("1"))])));
    let told = next(&mut watch).await;
    assert_eq!(told, Notice::Changed { revision: second, changes: changes(&[("w/b", Some("2"))]) });

    let Notice::Changed { revision, changes: rows } = next(&mut all).await else {
        panic!("it lags behind nothing")
    };
    assert_eq!((revision, rows.len()), (first, 3));
    let Notice::Changed { changes: rows, .. } = next(&mut all).await else {
        panic!("it lags behind nothing")
    };
    assert_eq!(rows, changes(&[("v/c", Some("1"))]));
    // A watch that starts now knows nothing of all that.
    let mut late = subject.store.watch(key_of("w/")).await.expect("a watch can start");
    assert!(late.revision >= second);
    let third = subject.done(Commit::new().put("w/d", "3")).await;
    assert_eq!(
        next(&mut late).await,
        Notice::Changed { revision: third, changes: changes(&[("w/d", Some("3"))]) }
    );
}

/// Many watches start amid many commits; each must lead from its own start to
/// the same end.
pub(super) async fn a_watch_misses_nothing_while_others_write(subject: &Subject) {
    let write = async |from: usize| {
        let mut last = 0;
        for at in from..from + 40 {
            let key = format!("m/{}", at % 7);
            last = subject.done(Commit::new().put(key, at.to_string()).put("n/x", "")).await;
        }
        last
    };
    let follow = async |starts: usize| {
        for at in 0..starts {
            subject.done(Commit::new().put(format!("o/{starts}"), at.to_string())).await;
        }
        let watch = subject.store.watch(key_of("m/")).await.expect("a watch can start");
        // Read only behind the start, so that nothing can fall between.
        let page =
            subject.store.range(crate::RangeRequest::below(b"m/", 100)).await.expect("a page can be read");
        assert!(page.revision >= watch.revision);
        (watch, page)
    };
    let (lasts, followers) =
        futures_util::future::join(join_all((0..4).map(|at| write(at * 100))), join_all((0..10).map(follow)))
            .await;
    let last: Revision = lasts.into_iter().max().expect("four wrote");
    let rows =
        subject.store.range(crate::RangeRequest::below(b"m/", 100)).await.expect("a page can be read").rows;
    let end: BTreeMap<Key, Bytes> = rows.into_iter().map(|row| (row.key, row.value)).collect();
    for (mut watch, page) in followers {
        let mut mirror: BTreeMap<Key, Bytes> =
            page.rows.into_iter().map(|row| (row.key, row.value)).collect();
        let mut told = watch.revision;
        while told < last {
            let Notice::Changed { revision, changes } = next(&mut watch).await else {
                panic!("it is never far behind")
            };
            assert!(revision > told, "once and in order, and none from before the start");
            told = revision;
            // What the page already shows is told again; it changes nothing.
            if revision > page.revision {
                apply(&mut mirror, changes);
            }
        }
        assert_eq!(mirror, end);
    }
}

pub(super) fn apply(mirror: &mut BTreeMap<Key, Bytes>, changes: Vec<(Key, Option<Bytes>)>) {
    for (key, value) in changes {
        match value {
            Some(value) => mirror.insert(key, value),
            None => mirror.remove(&key),
        };
    }
}

pub(super) async fn a_slow_watch_is_cut_off_and_never_lies(subject: &Subject) {
    let mut slow = subject.store.watch(key_of("s/")).await.expect("a watch can start");
    let count = WATCH_QUEUE + 500;
    for start in (0..count).step_by(500) {
        let batch = (start..(start + 500).min(count)).map(|at| Commit::new().put("s/x", at.to_string()));
        for outcome in join_all(batch.map(|commit| subject.commit(commit))).await {
            outcome.expect("a slow watcher never holds up the writer");
        }
    }
    let mut expected = 0;
    while expected < count {
        match next(&mut slow).await {
            Notice::Changed { changes: rows, .. } => {
                assert_eq!(rows, changes(&[("s/x", Some(&expected.to_string()))]))
            }
            // Cut off: nothing may come behind.
            Notice::Lagged => {
                assert!(slow.notices.recv().await.is_none());
                break;
            }
        }
        expected += 1;
    }
    assert!(expected >= WATCH_QUEUE, "{expected} notices came; the queue holds {WATCH_QUEUE}");
}
