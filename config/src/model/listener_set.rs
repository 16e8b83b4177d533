//! Sets of listeners that many proxies have in common.
//!
//! A thousand proxies listen on the same ten thousand listeners. Each of their sets is a pointer to one that all of them
//! share, so that they cost the memory of one, and that nothing needs to be compared to know that two are equal.

use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
    sync::Arc,
};

use xxhash_rust::xxh3::xxh3_64;

use super::ListenerId;

/// Listeners that a proxy has in force. Cloning it copies a pointer.
#[derive(Clone, Debug, Default)]
pub struct ListenerSet {
    ids: Arc<BTreeSet<ListenerId>>,
    /// Of all ids together, in no order: equal sets have the same, and others hardly ever.
    fingerprint: u64,
}

impl ListenerSet {
    /// Adds one. Returns whether it was not there.
    pub fn insert(&mut self, id: ListenerId) -> bool {
        let new = !self.ids.contains(&id);
        if new {
            self.fingerprint ^= xxh3_64(id.0.as_bytes());
            Arc::make_mut(&mut self.ids).insert(id);
        }
        new
    }

    /// Takes one out. Returns whether it was there.
    pub fn remove(&mut self, id: &ListenerId) -> bool {
        let there = self.ids.contains(id);
        if there {
            self.fingerprint ^= xxh3_64(id.0.as_bytes());
            Arc::make_mut(&mut self.ids).remove(id);
        }
        there
    }

    /// Whether `id` is in it.
    pub fn contains(&self, id: &ListenerId) -> bool {
        self.ids.contains(id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// All of them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &ListenerId> {
        self.ids.iter()
    }

    /// Those that are in this set and not in `other`.
    pub fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a ListenerId> {
        let differ = !self.is_shared_with(other);
        differ.then(|| self.ids.difference(&other.ids)).into_iter().flatten()
    }

    /// Keeps the memory of `other` in place of its own where the two are equal. Returns whether it does so now.
    pub fn share(&mut self, other: &Self) -> bool {
        let shares = self == other;
        if shares {
            self.ids = other.ids.clone();
        }
        shares
    }

    fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ids, &other.ids)
    }
}

impl PartialEq for ListenerSet {
    fn eq(&self, other: &Self) -> bool {
        self.is_shared_with(other) || (self.fingerprint == other.fingerprint && self.ids == other.ids)
    }
}

impl Eq for ListenerSet {}

impl Hash for ListenerSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.fingerprint);
    }
}

impl Extend<ListenerId> for ListenerSet {
    fn extend<T: IntoIterator<Item = ListenerId>>(&mut self, ids: T) {
        for id in ids {
            self.insert(id);
        }
    }
}

impl FromIterator<ListenerId> for ListenerSet {
    fn from_iter<T: IntoIterator<Item = ListenerId>>(ids: T) -> Self {
        let mut this = Self::default();
        this.extend(ids);
        this
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> ListenerId {
        ListenerId(format!("shared/{n}/tcp").into())
    }

    proptest! {
        /// Whatever is added and taken out in which order, two sets are equal if and only if their ids are, and equal ones
        /// can share their memory.
        #[test]
        fn equal_sets_are_equal(steps in prop::collection::vec((0..8_u8, any::<bool>(), any::<bool>()), 0..40)) {
            let mut sets = [ListenerSet::default(), ListenerSet::default()];
            for (n, first, add) in steps {
                let set = &mut sets[usize::from(first)];
                if add { set.insert(id(n)); } else { set.remove(&id(n)); }
            }
            let [mut a, b] = sets;
            let ids = |set: &ListenerSet| set.iter().cloned().collect::<Vec<_>>();
            prop_assert_eq!(a == b, ids(&a) == ids(&b));
            prop_assert_eq!(a.without(&b).count() + b.without(&a).count() == 0, a == b);
            let equal = a == b;
            prop_assert_eq!(a.share(&b), equal);
            prop_assert_eq!(Arc::ptr_eq(&a.ids, &b.ids), equal);
        }
    }
}
