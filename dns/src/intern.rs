//! Small numbers for things that are named over and over: nodes, sets of ports.
//!
//! A pod's place is then four bytes, and what is known of a node is found by index. Numbers are counted references: one
//! that nobody holds is given out again, so a cluster whose nodes come and go does not fill the table.

use std::{collections::HashMap, hash::Hash};

use ahash::RandomState;

/// Gives each distinct value a number, from zero, reusing those let go.
#[derive(Debug)]
pub(crate) struct Interner<K> {
    numbers: HashMap<K, u32, RandomState>,
    slots: Vec<Option<(K, u32)>>,
    free: Vec<u32>,
}

impl<K> Default for Interner<K> {
    fn default() -> Self {
        Self { numbers: HashMap::default(), slots: Vec::new(), free: Vec::new() }
    }
}

impl<K: Clone + Eq + Hash> Interner<K> {
    /// The number of `key`, held once more until [`Interner::release`].
    pub(crate) fn acquire(&mut self, key: &K) -> u32 {
        if let Some(&number) = self.numbers.get(key) {
            if let Some((_, holders)) = &mut self.slots[number as usize] {
                *holders += 1;
            }
            return number;
        }
        let number = self.free.pop().unwrap_or(self.slots.len() as u32);
        let slot = Some((key.clone(), 1));
        match self.slots.get_mut(number as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        self.numbers.insert(key.clone(), number);
        number
    }

    /// Holds `number`, which somebody holds already, once more until [`Interner::release`].
    pub(crate) fn hold(&mut self, number: u32) {
        if let Some(Some((_, holders))) = self.slots.get_mut(number as usize) {
            *holders += 1;
        }
    }

    /// Whether `key` has a number.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.numbers.contains_key(key)
    }

    /// Lets go of `number` once.
    pub(crate) fn release(&mut self, number: u32) {
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        let Some((_, holders)) = slot else { return };
        *holders -= 1;
        if *holders == 0 {
            if let Some((key, _)) = slot.take() {
                self.numbers.remove(&key);
            }
            self.free.push(number);
        }
    }

    /// Every value with its number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &K)> {
        self.slots.iter().zip(0..).filter_map(|(slot, number)| slot.as_ref().map(|(key, _)| (number, key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shared_and_reused() {
        let mut interner = Interner::<&str>::default();
        let a = interner.acquire(&"a");
        let b = interner.acquire(&"b");
        assert_eq!((a, b, interner.acquire(&"a")), (0, 1, 0));
        interner.release(a);
        assert_eq!(interner.acquire(&"c"), 2, "a is still held once");
        interner.release(a);
        assert!(!interner.contains(&"a"));
        interner.hold(b);
        interner.release(b);
        assert_eq!(interner.acquire(&"d"), 0);
        assert_eq!(interner.iter().collect::<Vec<_>>(), [(0, &"d"), (1, &"b"), (2, &"c")]);
    }
}
