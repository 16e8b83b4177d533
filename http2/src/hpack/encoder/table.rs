//! The dynamic table as the encoder needs it: found by content, and with a memory of what was seen once.

use std::collections::VecDeque;

use super::super::{DEFAULT_TABLE_SIZE, OVERHEAD};

/// Slots are in sets, and a field may be in any of its set. A full table, which may have a hundred entries, leaves room
/// for new ones in nearly all sets.
const SETS: usize = 64;
const WAYS: usize = 4;

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
    slots: [[Slot; WAYS]; SETS],
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
    /// Some bits of the field's hash, and in the lowest one whether it was inserted.
    tag: u16,
    /// [`Table::inserted`] at the time of insertion.
    inserted: u16,
}

const WAS_INSERTED: u16 = 1;

impl Table {
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max_size: DEFAULT_TABLE_SIZE,
            inserted: 0,
            slots: [[Slot::default(); WAYS]; SETS],
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
        let slots = &self.slots[set(hash)];
        let found = self.index(slots[first_way(hash)], hash, name, value);
        // Only where fields meet in a set, it is another slot of it.
        found.or_else(|| slots.iter().find_map(|slot| self.index(*slot, hash, name, value)))
    }

    /// The index of a field's entry if it is what the slot means.
    #[inline]
    fn index(&self, slot: Slot, hash: u64, name: &[u8], value: &[u8]) -> Option<usize> {
        if slot.tag != tag(hash) | WAS_INSERTED {
            return None;
        }
        let age = self.age(slot)?;
        self.entries[age].is(name, value).then_some(age + 1)
    }

    /// Takes note of a field that [`Self::find`] does not find, and says whether it is now in the table: it is if it
    /// was seen before.
    pub(super) fn remember(&mut self, hash: u64, name: &[u8], value: &[u8]) -> bool {
        let size = name.len() + value.len() + OVERHEAD;
        if size > self.max_size / LARGEST_SHARE {
            return false;
        }
        let slots = self.slots[set(hash)];
        let free = |way: &usize| self.age(slots[*way]).is_none();
        let seen = ways(hash).find(|&way| slots[way].tag & !WAS_INSERTED == tag(hash));
        let way = match seen {
            // The slot of another field with the same bits stays that one's as long as it is in the table.
            Some(way) => Some(way).filter(free),
            None => ways(hash).find(free),
        };
        let Some(way) = way else { return false };
        let seen = seen.is_some();
        self.slots[set(hash)][way] = Slot { tag: tag(hash) | u16::from(seen), inserted: self.inserted };
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
        (slot.tag & WAS_INSERTED != 0 && age < self.entries.len()).then_some(age)
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

// The three parts of a hash.

fn tag(hash: u64) -> u16 {
    hash as u16 & !WAS_INSERTED
}

fn set(hash: u64) -> usize {
    (hash >> 16) as usize % SETS
}

/// Where in its set a field usually is.
fn first_way(hash: u64) -> usize {
    (hash >> 32) as usize % WAYS
}

/// All ways of a set. Fields begin with different ones, so that those that come once do not drive each other out while
/// there is room.
fn ways(hash: u64) -> impl Iterator<Item = usize> {
    (0..WAYS).map(move |way| (first_way(hash) + way) % WAYS)
}
