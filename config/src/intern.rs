//! Shares values that many objects repeat: names of namespaces, nodes, zones and ports, and policies.

use std::{hash::Hash, sync::Arc};

use ahash::AHashSet;
use parking_lot::Mutex;

/// A table of values in use. Values that nobody holds any longer leave it when it grows.
#[derive(Debug)]
pub struct Interner<T: ?Sized>(Mutex<InternTable<T>>);

#[derive(Debug)]
struct InternTable<T: ?Sized> {
    values: AHashSet<Arc<T>>,
    clean_at: usize,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self(Mutex::new(InternTable { values: AHashSet::new(), clean_at: 0 }))
    }
}

/// The table is not cleaned below this size.
const SMALL: usize = 4096;
/// Longer texts do not repeat, and are not worth a place in the table: it would hold them until it is cleaned.
const LONGEST: usize = 256;

impl<T: ?Sized + Eq + Hash> Interner<T> {
    /// The shared copy of `value`: the first one that was equal to it, while anybody holds that.
    pub fn share(&self, value: Arc<T>) -> Arc<T> {
        let mut table = self.0.lock();
        if let Some(shared) = table.values.get(&value) {
            return shared.clone();
        }
        table.insert(value)
    }
}

impl Interner<str> {
    /// The shared copy of `text`.
    pub fn get(&self, text: &str) -> Arc<str> {
        if text.len() > LONGEST {
            return text.into();
        }
        let mut table = self.0.lock();
        if let Some(shared) = table.values.get(text) {
            return shared.clone();
        }
        table.insert(text.into())
    }
}

impl<T: ?Sized + Eq + Hash> InternTable<T> {
    fn insert(&mut self, value: Arc<T>) -> Arc<T> {
        if self.values.len() >= self.clean_at.max(SMALL) {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.clean_at = self.values.len() * 2;
        }
        self.values.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_takes_little() {
        let interner = Interner::<str>::default();
        for i in 0..20_000 {
            let length = if i % 2 == 0 { 1 << 16 } else { 200 };
            interner.get(&format!("{i}{}", "x".repeat(length)));
        }
        let bytes: usize = interner.0.lock().values.iter().map(|string| string.len()).sum();
        assert!(bytes <= SMALL * LONGEST, "{bytes} bytes are held for nobody");
    }

    #[test]
    fn equal_strings_are_one_and_unused_ones_leave() {
        let interner = Interner::<str>::default();
        let held = interner.get("shop");
        assert!(Arc::ptr_eq(&held, &interner.get("shop")));
        for i in 0..3 * SMALL {
            interner.get(&format!("n{i}"));
        }
        assert!(interner.0.lock().values.len() <= SMALL);
        assert!(Arc::ptr_eq(&held, &interner.get("shop")));
    }

    #[test]
    fn an_equal_value_is_given_up_for_the_shared_one() {
        let interner = Interner::default();
        let first = interner.share(Arc::new([1, 2]));
        assert!(Arc::ptr_eq(&first, &interner.share(Arc::new([1, 2]))));
        assert!(!Arc::ptr_eq(&first, &interner.share(Arc::new([2, 1]))));
    }
}
