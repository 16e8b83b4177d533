//! The streams of a connection.

use std::collections::{HashMap, VecDeque};

use slab::Slab;

use crate::stream::Stream;

/// Streams whose memory is kept.
const KEPT: usize = 4;

/// Streams that this side has reset and whose frames may still come: some times as many as are open at once, because a
/// stream that was reset makes room for another one at once.
const REMEMBERED: usize = 1024;

/// Names a stream for as long as somebody holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: usize,
    id: u32,
}

/// The streams that are open, or that somebody holds.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    all: Slab<Stream>,
    by_id: HashMap<u32, usize, ahash::RandomState>,
    /// The last ones that this side has reset.
    reset: VecDeque<u32>,
}

impl Streams {
    pub(crate) fn insert(&mut self, stream: Stream) -> Key {
        let id = stream.id;
        let index = self.all.insert(stream);
        self.by_id.insert(id, index);
        Key { index, id }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Stream> {
        self.all.get(key.index).filter(|stream| stream.id == key.id)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Stream> {
        self.all.get_mut(key.index).filter(|stream| stream.id == key.id)
    }

    pub(crate) fn find(&self, id: u32) -> Option<Key> {
        self.by_id.get(&id).map(|index| Key { index: *index, id })
    }

    pub(crate) fn remove(&mut self, key: Key) {
        if self.get(key).is_some() {
            self.all.remove(key.index);
            self.by_id.remove(&key.id);
        }
    }

    /// Gives back the memory of many streams, once there are none. That of a few is kept for the next ones.
    pub(crate) fn release(&mut self) {
        if self.all.is_empty() && self.all.capacity() > KEPT {
            self.all = Slab::new();
            self.by_id.shrink_to(8);
        }
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.all.iter().map(|(index, stream)| Key { index, id: stream.id }).collect()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.all.iter_mut().map(|(_, stream)| stream)
    }

    /// This side has reset the stream: what its peer sent before it knew is dropped.
    pub(crate) fn remember_reset(&mut self, id: u32) {
        if self.reset.len() == REMEMBERED {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    /// This side has reset the stream a short while ago.
    pub(crate) fn was_reset(&self, id: u32) -> bool {
        self.reset.contains(&id)
    }
}
