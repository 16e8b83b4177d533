//! An allocator of which every call takes the same few instructions. Those of a real one depend on what was allocated before,
//! on the clock, and on its version.
#![allow(unsafe_code, reason = "an allocator is nothing else")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ptr::null_mut,
};

/// The smallest block is of 2^4 bytes.
const SMALLEST: u32 = 4;
/// Sizes: the largest block is of 2^15 bytes. What is larger comes from the system.
const SIZES: usize = 12;
/// Bytes that are taken from the system at once.
const CHUNK: usize = 1 << 20;

/// Lists of free blocks, by size, of each thread.
pub(crate) struct Lists;

/// What one thread has.
struct Owned {
    free: [Cell<*mut u8>; SIZES],
    /// The part of a chunk that was never given to anybody.
    fresh: Cell<*mut u8>,
    left: Cell<usize>,
    allocations: Cell<u64>,
}

thread_local! {
    static OWNED: Owned = const {
        Owned {
            free: [const { Cell::new(null_mut()) }; SIZES],
            fresh: Cell::new(null_mut()),
            left: Cell::new(0),
            allocations: Cell::new(0),
        }
    };
}

/// How often this thread has asked for memory.
pub(crate) fn allocations() -> u64 {
    OWNED.with(|owned| owned.allocations.get())
}

/// The place of the list for `layout`; none where the system is asked. Blocks are aligned to their own size.
fn place(layout: Layout) -> Option<usize> {
    let size = layout.size().max(layout.align()).max(1 << SMALLEST);
    let place = (usize::BITS - (size - 1).leading_zeros() - SMALLEST) as usize;
    (place < SIZES).then_some(place)
}

impl Owned {
    /// A block that nobody had before.
    #[cold]
    fn cut(&self, place: usize) -> *mut u8 {
        let size = 1 << (place as u32 + SMALLEST);
        // Chunks begin at a multiple of the largest size, so what is left ends at one of every smaller size.
        let skipped = self.left.get() % size;
        if self.left.get() < size + skipped {
            // SAFETY: the size is not zero and the alignment a power of two.
            let chunk = unsafe { System.alloc(Layout::from_size_align_unchecked(CHUNK, 1 << 15)) };
            if chunk.is_null() {
                return chunk;
            }
            self.fresh.set(chunk);
            self.left.set(CHUNK);
            return self.cut(place);
        }
        let block = self.fresh.get().wrapping_add(skipped);
        self.fresh.set(block.wrapping_add(size));
        self.left.set(self.left.get() - skipped - size);
        block
    }
}

// SAFETY: a block is on one list or with one owner, has at least the size and the alignment that its place stands for, and goes
// back to the place it came from, because that depends on nothing but its layout.
unsafe impl GlobalAlloc for Lists {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(place) = place(layout) else {
            OWNED.with(|owned| owned.allocations.set(owned.allocations.get() + 1));
            // SAFETY: as the caller promises.
            return unsafe { System.alloc(layout) };
        };
        OWNED.with(|owned| {
            owned.allocations.set(owned.allocations.get() + 1);
            let first = owned.free[place].get();
            if first.is_null() {
                return owned.cut(place);
            }
            // SAFETY: a free block holds the address of the next one.
            owned.free[place].set(unsafe { first.cast::<*mut u8>().read() });
            first
        })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(place) = place(layout) else {
            // SAFETY: it came from there.
            return unsafe { System.dealloc(block, layout) };
        };
        OWNED.with(|owned| {
            // SAFETY: nobody uses it any more, and it has room for an address.
            unsafe { block.cast::<*mut u8>().write(owned.free[place].get()) };
            owned.free[place].set(block);
        });
    }
}
