//! The dynamic table of a decoder (RFC 7541 section 2.3.2).

use std::collections::VecDeque;

use super::{
    DEFAULT_TABLE_SIZE,
    field::{Field, Name},
    well_known,
};

/// A field with its size as tables count it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) field: Field,
    pub(super) size: usize,
    /// The name of a malformed field.
    pub(super) malformed: Option<Box<Name>>,
}

impl Entry {
    pub(super) fn name(&self) -> Name {
        self.malformed.as_ref().map_or_else(|| Name::of(&self.field), |name| Name::clone(name))
    }
}

/// Entries whose sizes sum up to [`Table::max_size`] at most.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    max_size: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0, max_size: DEFAULT_TABLE_SIZE }
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    pub(super) fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.make_room(0);
    }

    /// Adds an entry in front. One that is larger than the table leaves it empty, which is not an error.
    pub(super) fn insert(&mut self, mut entry: Entry) {
        self.make_room(entry.size);
        if let Field::Header(_, value) = &mut entry.field
            && let Some(known) = well_known::value(value.as_bytes())
        {
            *value = known;
        }
        if entry.size <= self.max_size {
            self.size += entry.size;
            self.entries.push_front(entry);
        }
    }

    fn make_room(&mut self, wanted: usize) {
        while self.size + wanted > self.max_size {
            let Some(evicted) = self.entries.pop_back() else { return };
            self.size -= evicted.size;
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        assert_eq!(self.size, self.entries.iter().map(|entry| entry.size).sum::<usize>());
        (self.size, self.entries.len(), self.max_size)
    }
}
