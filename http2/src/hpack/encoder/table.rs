//! The dynamic table as the encoder needs it: found by content, and with a memory of what was seen once.

use std::collections::VecDeque;

use super::super::{DEFAULT_TABLE_SIZE, OVERHEAD};

/// Slots are in pairs: two fields with the same place do not drive each other out.
const PAIRS: usize = 64;

/// A larger part of the table than this is not given to a single field.
const LARGEST_SHARE: usize = 4;

#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    max_size: usize,
    /// How many entries there ever were, as far as 16 bits tell.
    inserted: u16,
    slots: [[Slot; 2]; PAIRS],
}

/// Name and value are behind one another: an entry holds no more than them, whatever they were a part of.
#[derive(Debug)]
struct Entry {
    name_length: usize,
    bytes: Box<[u8]>,
}

impl Entry {
    fn size(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }

    #[inline]
    fn is(&self, name: &[u8], value: &[u8]) -> bool {
        self.name_length == name.len()
            && self.bytes.len() == name.len() + value.len()
            && self.bytes[..name.len()] == *name
            && self.bytes[name.len()..] == *value
    }
}

/// A field that was seen, and maybe inserted; or whatever was before, as there are fewer slots than fields.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Some bits of the field's hash.
    tag: u32,
    /// [`Table::inserted`] at the time of insertion.
    inserted: u16,
    was_inserted: bool,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max_size: DEFAULT_TABLE_SIZE,
            inserted: 0,
            slots: [[Slot::default(); 2]; PAIRS],
        }
    }

    pub(super) fn max_size(&self) -> usize {
        self.max_size
    }

    pub(super) fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.make_room(0);
    }

    /// The index of a field's entry, the newest being 1.
    #[inline]
    pub(super) fn find(&self, hash: u64, name: &[u8], value: &[u8]) -> Option<usize> {
        for slot in &self.slots[pair(hash)] {
            if slot.tag == tag(hash)
                && let Some(age) = self.age(*slot)
                && self.entries[age].is(name, value)
            {
                return Some(age + 1);
            }
        }
        None
    }

    /// Takes note of a field that [`Self::find`] does not find, and says whether it is now in the table: it is if it
    /// was seen before.
    pub(super) fn remember(&mut self, hash: u64, name: &[u8], value: &[u8]) -> bool {
        let size = name.len() + value.len() + OVERHEAD;
        if size > self.max_size / LARGEST_SHARE {
            return false;
        }
        let pair = pair(hash);
        let free = |slot: &usize| self.age(self.slots[pair][*slot]).is_none();
        let seen = (0..2).find(|&slot| self.slots[pair][slot].tag == tag(hash));
        let (slot, seen) = match seen {
            // The slot of another field with the same bits stays that one's as long as it is in the table.
            Some(slot) if !free(&slot) => return false,
            Some(slot) => (slot, true),
            None => match (0..2).find(free) {
                Some(slot) => (slot, false),
                None => return false,
            },
        };
        self.slots[pair][slot] = Slot { tag: tag(hash), inserted: self.inserted, was_inserted: seen };
        if seen {
            self.insert(name, value, size);
        }
        seen
    }

    fn insert(&mut self, name: &[u8], value: &[u8], size: usize) {
        self.make_room(size);
        self.size += size;
        self.inserted = self.inserted.wrapping_add(1);
        self.entries.push_front(Entry { name_length: name.len(), bytes: [name, value].concat().into_boxed_slice() });
    }

    fn make_room(&mut self, wanted: usize) {
        while self.size + wanted > self.max_size {
            let Some(evicted) = self.entries.pop_back() else { return };
            self.size -= evicted.size();
        }
    }

    /// How many entries are newer than the slot's, if that is still there.
    #[inline]
    fn age(&self, slot: Slot) -> Option<usize> {
        // After 65536 insertions the slot may mean another entry: who asks compares.
        let age = usize::from(self.inserted.wrapping_sub(slot.inserted).wrapping_sub(1));
        (slot.was_inserted && age < self.entries.len()).then_some(age)
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        assert_eq!(self.size, self.entries.iter().map(Entry::size).sum::<usize>());
        (self.size, self.max_size)
    }
}

fn pair(hash: u64) -> usize {
    (hash >> 32) as usize % PAIRS
}

fn tag(hash: u64) -> u32 {
    hash as u32
}
