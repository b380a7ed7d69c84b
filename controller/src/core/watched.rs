//! An ordered map that remembers which of its values may have changed, so that
//! a check after a step need look only at those.
//!
//! What must hold: whoever can change a value has named its key to
//! [`Watched::get_mut`] and the like; there is no other way in. Where cores are not
//! checked after each step ([`world::CHECKED`]) nothing is remembered.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

#[derive(Debug)]
pub(super) struct Watched<K, V> {
    map: BTreeMap<K, V>,
    changed: BTreeSet<K>,
}

impl<K, V> Default for Watched<K, V> {
    fn default() -> Self {
        Self { map: BTreeMap::new(), changed: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, V> Watched<K, V> {
    fn note<Q: Ord + ?Sized + ToOwned<Owned = K>>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if world::CHECKED && !self.changed.contains(key) {
            self.changed.insert(key.to_owned());
        }
    }

    pub(super) fn get_mut<Q: Ord + ?Sized + ToOwned<Owned = K>>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.note(key);
        self.map.get_mut(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.note(&key);
        self.map.insert(key, value)
    }

    pub(super) fn remove<Q: Ord + ?Sized + ToOwned<Owned = K>>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.note(key);
        self.map.remove(key)
    }

    pub(super) fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        self.note(&key);
        self.map.entry(key).or_insert_with(make)
    }

    /// All of them, to be changed: a walk over everything, for rare occasions.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        if world::CHECKED {
            self.changed.extend(self.map.keys().cloned());
        }
        self.map.iter_mut()
    }

    /// What may have changed since this was last asked; the keys of what was
    /// removed are among them.
    pub(super) fn take_changed(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.changed)
    }

    /// To be looked at once more.
    pub(super) fn look_again(&mut self, keys: BTreeSet<K>) {
        self.changed.extend(keys);
    }
}

impl<K, V> Deref for Watched<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.map
    }
}
