//! A table that is read without locks and changed a little at a time.
//!
//! One snapshot of 10,000 entries would have to be copied for every change; a lock would be shared by all workers. So
//! the entries are spread over shards, each a snapshot of its own: a change copies one of them, a few dozen entries.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, sync::Arc};

use ahash::RandomState;
use arc_swap::ArcSwap;

/// Shards of every table. A power of two.
const SHARDS: usize = 256;

type Shard<K, V> = ArcSwap<HashMap<K, V, RandomState>>;

/// A table in shards.
pub(crate) struct Sharded<K, V> {
    hasher: RandomState,
    shards: Box<[Shard<K, V>]>,
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        let hasher = RandomState::new();
        let shards = (0..SHARDS).map(|_| ArcSwap::from_pointee(HashMap::with_hasher(hasher.clone()))).collect();
        Self { hasher, shards }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Sharded<K, V> {
    /// The value of `key`.
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.shards[self.index(key)].load().get(key).cloned()
    }

    /// Sets (`Some`) and removes (`None`) entries; each shard is copied at most once. One writer at a time.
    pub(crate) fn apply(&self, changes: impl IntoIterator<Item = (K, Option<V>)>) {
        let mut by_shard: HashMap<usize, Vec<(K, Option<V>)>> = HashMap::new();
        for (key, value) in changes {
            by_shard.entry(self.index(&key)).or_default().push((key, value));
        }
        for (index, changes) in by_shard {
            let mut shard = HashMap::clone(&self.shards[index].load());
            for (key, value) in changes {
                match value {
                    Some(value) => shard.insert(key, value),
                    None => shard.remove(&key),
                };
            }
            self.shards[index].store(Arc::new(shard));
        }
    }

    #[allow(clippy::cast_possible_truncation)]
    fn index<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        // The low bits pick the bucket within the shard.
        (self.hasher.hash_one(key) >> 48) as usize % SHARDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_entries_come_and_go() {
        let table: Sharded<Box<str>, u32> = Sharded::default();
        table.apply((0..10_000).map(|i| (i.to_string().into_boxed_str(), Some(i))));
        table.apply((0..10_000).filter(|i| i % 3 == 0).map(|i| (i.to_string().into_boxed_str(), None)));
        for i in 0..10_000_u32 {
            assert_eq!(table.get(i.to_string().as_str()), (i % 3 != 0).then_some(i));
        }
    }
}
