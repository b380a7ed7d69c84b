//! What is there of the inputs of attempts that are being staged, for whoever asks how
//! that gets on.
//!
//! What must hold: an attempt is listed while its inputs are had, and no longer; a look
//! costs no disk, and waits for nobody.

use super::cache::Pinned;
use super::sources::Broken;
use crate::core::Coming;
use crate::core::key::Key;
use proto::limits::{PROGRESS_TASKS_MAX, STAGING_TEXT_BYTES_MAX};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use world::time::Instant;

/// What one file waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The server is to sign where it is.
    Server,
    /// Others are fetched first.
    Turn,
    /// Another task fetches the same.
    Another,
    /// Its source does not work.
    Source(Broken),
}

impl Wait {
    fn text(&self, now: Instant) -> String {
        match self {
            Self::Source(broken) => broken.text(now),
            Self::Server => "the server says where its inputs are".to_owned(),
            Self::Turn => "its turn: this node fetches other files first".to_owned(),
            Self::Another => "another task's fetch of the same input".to_owned(),
        }
    }
}

/// All that are listed, by directory.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    list: Mutex<BTreeMap<String, Arc<Arrival>>>,
}

/// One attempt's.
#[derive(Debug)]
pub(crate) struct Arrival {
    key: Key,
    /// By digest; with the length that is told, 0 where none is.
    inputs: BTreeMap<String, (u64, Pinned)>,
    waits: Mutex<BTreeMap<String, Wait>>,
    /// What was there at the last look.
    seen: Mutex<(u64, Instant)>,
}

/// Takes an attempt off the list.
#[derive(Debug)]
pub(crate) struct Listed {
    arrivals: Arc<Arrivals>,
    directory: String,
    arrival: Arc<Arrival>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.arrivals.lock().remove(&self.directory);
    }
}

impl std::ops::Deref for Listed {
    type Target = Arrival;
    fn deref(&self) -> &Arrival {
        &self.arrival
    }
}

impl Arrivals {
    /// Lists an attempt until the answer is dropped.
    pub(crate) fn list(
        self: &Arc<Self>,
        key: &Key,
        directory: &str,
        inputs: BTreeMap<String, (u64, Pinned)>,
    ) -> Listed {
        let seen = Mutex::new((0, Instant::now()));
        let arrival = Arrival { key: key.clone(), inputs, waits: Mutex::default(), seen };
        let (there, _) = arrival.bytes();
        arrival.seen.lock().expect("no holder of this lock panics").0 = there;
        let arrival = Arc::new(arrival);
        self.lock().insert(directory.to_owned(), Arc::clone(&arrival));
        Listed { arrivals: Arc::clone(self), directory: directory.to_owned(), arrival }
    }

    /// How they all get on, as many as are told at once.
    pub(crate) fn look(&self, now: Instant) -> Vec<Coming> {
        let list = self.lock();
        let some = list.iter().take(PROGRESS_TASKS_MAX);
        some.map(|(directory, arrival)| arrival.look(directory, now)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Arrival>>> {
        self.list.lock().expect("no holder of this lock panics")
    }
}

impl Arrival {
    /// The file of this digest waits until the answer is dropped.
    pub(crate) fn waits(&self, digest: &str, wait: Wait) -> Waiting<'_> {
        self.book().insert(digest.to_owned(), wait);
        Waiting { arrival: self, digest: digest.to_owned() }
    }

    fn book(&self) -> MutexGuard<'_, BTreeMap<String, Wait>> {
        self.waits.lock().expect("no holder of this lock panics")
    }

    /// What is there, and of how much.
    fn bytes(&self) -> (u64, Option<u64>) {
        self.inputs.values().fold((0, Some(0)), |(there, total), (told, pin)| {
            let (came, all) = pin.come();
            let all = all.or((*told > 0).then_some(*told));
            (there + came, total.zip(all).map(|(total, all)| total + all))
        })
    }

    fn look(&self, directory: &str, now: Instant) -> Coming {
        let (bytes, total) = self.bytes();
        let mut seen = self.seen.lock().expect("no holder of this lock panics");
        let (before, since) = std::mem::replace(&mut *seen, (bytes, now));
        let span_us = u64::try_from((now - since).as_micros()).unwrap_or(u64::MAX).max(1);
        // Less than before: it came to nothing and begins anew.
        let came = u128::from(bytes.saturating_sub(before));
        let bytes_per_s = u64::try_from(came * 1_000_000 / u128::from(span_us)).unwrap_or(u64::MAX);
        Coming {
            key: self.key.clone(),
            directory: directory.to_owned(),
            bytes,
            total_bytes: total.unwrap_or(0),
            bytes_per_s,
            waits_for: self.waits_for(now),
        }
    }

    /// Where every file that is not there waits: what the first one waits for.
    fn waits_for(&self, now: Instant) -> String {
        let waits = self.book();
        let missing = || self.inputs.iter().filter(|(_, (_, pin))| !pin.is_present());
        if missing().any(|(digest, _)| !waits.contains_key(digest)) {
            return String::new();
        }
        let mut text = missing().next().map(|(digest, _)| waits[digest].text(now)).unwrap_or_default();
        text.truncate(text.floor_char_boundary(STAGING_TEXT_BYTES_MAX));
        text
    }
}

/// See [`Arrival::waits`].
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    arrival: &'a Arrival,
    digest: String,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.arrival.book().remove(&self.digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::staging::cache::Cache;
    use crate::testing::disk_with;
    use proto::v1::AttemptRef;
    use world::time::ms;
    use world::transfer::Fetching;

    #[test]
    fn what_has_come_is_told_with_its_rate_and_what_is_waited_for() {
        let disk = disk_with(&["cache/t/half"]);
        let cache = Cache::open(&*disk, "cache", 1 << 30).unwrap();
        let [book, map] = ["a", "b"].map(|letter| letter.repeat(64));
        let pin = |digest: &str| cache.pin("t", digest).unwrap();
        let arrivals = Arc::new(Arrivals::default());
        let key = Key::of(&AttemptRef::default(), 0);
        let inputs = BTreeMap::from([(book.clone(), (1_000, pin(&book))), (map.clone(), (0, pin(&map)))]);
        let listed = arrivals.list(&key, "d", inputs);
        let begun = listed.seen.lock().unwrap().1;
        let look = |at_ms| {
            let Coming { bytes, total_bytes, bytes_per_s, waits_for, .. } =
                arrivals.look(begun + ms(at_ms)).remove(0);
            (bytes, total_bytes, bytes_per_s, waits_for)
        };
        assert_eq!(look(2_000), (0, 0, 0, String::new()), "the map has not told its length");

        let fetching = Arc::new(Fetching::new(Arc::clone(&disk), "x", &map));
        fetching.told_total(3_000);
        pin(&map).comes(Some(&fetching));
        fetching.arrived(2_000);
        let one = listed.waits(&book, Wait::Turn);
        assert_eq!(look(4_000), (2_000, 4_000, 1_000, String::new()), "one of them gets on");
        let other = listed.waits(&map, Wait::Another);
        assert_eq!(look(6_000), (2_000, 4_000, 0, Wait::Turn.text(begun)));
        drop(one);
        assert_eq!(look(7_000).3, "");
        drop(other);
        // It broke and begins anew.
        fetching.arrived(500);
        assert_eq!(look(8_000), (500, 4_000, 0, String::new()));
        pin(&map).comes(None);
        assert_eq!((look(9_000).0, look(9_000).1), (0, 0));
        drop(listed);
        assert_eq!(arrivals.look(begun), []);
    }
}
