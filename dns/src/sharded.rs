//! A map that a snapshot can share with the one task that changes it.
//!
//! Snapshots are immutable and published often, the tables are large (a hundred thousand pods), and a change touches
//! one entry. So the map is cut into shards behind `Arc`s: a clone is one pointer, and a write after it copies the one
//! shard it lands in, never the world.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, sync::Arc};

use ahash::RandomState;

/// Number of shards; of 100,000 entries a write copies about 400.
const SHARDS: usize = 256;

/// One part of the map.
type Shard<K, V> = Arc<HashMap<K, V, RandomState>>;

/// A hash map that is cheap to clone and cheap to change afterwards.
#[derive(Debug)]
pub(crate) struct Sharded<K, V> {
    shards: Arc<Vec<Shard<K, V>>>,
    hasher: RandomState,
    len: usize,
}

impl<K, V> Clone for Sharded<K, V> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone(), hasher: self.hasher.clone(), len: self.len }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Default for Sharded<K, V> {
    fn default() -> Self {
        let hasher = RandomState::new();
        let empty: Shard<K, V> = Arc::new(HashMap::with_hasher(hasher.clone()));
        Self { shards: Arc::new(vec![empty; SHARDS]), hasher, len: 0 }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Sharded<K, V> {
    /// The value of `key`.
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.shards.get(self.shard_of(key))?.get(key)
    }

    /// Sets the value of `key`; returns the one it had.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.shard_of(&key);
        let shards = Arc::make_mut(&mut self.shards);
        let old = Arc::make_mut(&mut shards[at]).insert(key, value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes `key` out; returns the value it had.
    pub(crate) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let at = self.shard_of(key);
        self.shards[at].get(key)?;
        let shards = Arc::make_mut(&mut self.shards);
        let old = Arc::make_mut(&mut shards[at]).remove(key);
        self.len -= usize::from(old.is_some());
        old
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Middle bits of the hash: the map within the shard uses the lowest and the highest ones.
    fn shard_of<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        (self.hasher.hash_one(key) >> 40) as usize % SHARDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_saw() {
        let mut map = Sharded::<u32, u32>::default();
        for n in 0..10_000 {
            map.insert(n, n);
        }
        let before = map.clone();
        map.insert(7, 70);
        map.remove(&8);
        assert_eq!((before.get(&7), before.get(&8), before.len()), (Some(&7), Some(&8), 10_000));
        assert_eq!((map.get(&7), map.get(&8), map.len()), (Some(&70), None, 9_999));
    }

    #[test]
    fn a_write_copies_one_shard() {
        let mut map = Sharded::<u32, u32>::default();
        for n in 0..10_000 {
            map.insert(n, n);
        }
        let before = map.clone();
        map.insert(7, 70);
        let copied = before.shards.iter().zip(map.shards.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!(copied, 1);
    }
}
