//! Buffers that belong to the thread and are lent while bytes wait in them.
//!
//! Nearly always what was read is written at once, so one buffer serves all streams of a thread and stays in its
//! cache. Only where a receiver is slow does a stream keep one; when many do, they get small ones.

use std::cell::{Cell, RefCell};

/// Size of a buffer as long as few are lent. Large reads are what makes copying affordable.
const LARGE: usize = 64 * 1024;

/// Size of a buffer while [`PLENTY`] or more are lent.
const SMALL: usize = 8 * 1024;

/// So many large buffers may be lent by one thread: 16 MiB.
const PLENTY: usize = 256;

/// So many are kept for the next use.
const KEPT: usize = 8;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static LENT: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that were read and are not written yet.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// An empty one.
    pub(super) fn acquire() -> Self {
        let lent = LENT.get();
        LENT.set(lent + 1);
        let size = if lent < PLENTY { LARGE } else { SMALL };
        let kept = if size == LARGE { FREE.with_borrow_mut(Vec::pop) } else { None };
        let bytes = kept.unwrap_or_else(|| vec![0; size].into_boxed_slice());
        Self { bytes, start: 0, end: 0 }
    }

    /// The whole room, to read into; what was in it is forgotten.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The first `length` bytes of the room now wait.
    pub(super) fn fill(&mut self, length: usize) {
        (self.start, self.end) = (0, length.min(self.bytes.len()));
    }

    /// What waits.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The first `length` of those that wait are written.
    pub(super) fn advance(&mut self, length: usize) {
        self.start = self.end.min(self.start + length);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A thread that is ending has no pool any more.
        let _ = LENT.try_with(|lent| lent.set(lent.get().saturating_sub(1)));
        if self.bytes.len() == LARGE {
            let bytes = std::mem::take(&mut self.bytes);
            let _ = FREE.try_with(|free| {
                let mut free = free.borrow_mut();
                if free.len() < KEPT {
                    free.push(bytes);
                }
            });
        }
    }
}
