//! Pipes through which the kernel moves bytes from one socket to another without a copy.
//!
//! They belong to the thread, as two file descriptors and room in the kernel are not to be had for every stream. A
//! direction takes one while bytes are in it and returns it empty; where none is to be had, it copies.

use std::{
    cell::{Cell, RefCell},
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::{
    io,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

/// Room asked for. The kernel counts in pages, and one page of a pipe can refer to several of a socket, so more than
/// this fits; a user without privileges may have 64 MiB in all pipes together by default.
const ROOM: usize = 256 * 1024;

/// Most that one call may move.
const MOST: usize = 1024 * 1024;

/// So many may be lent by one thread; see [`limit`].
static MOST_LENT: AtomicUsize = AtomicUsize::new(128);

/// So many are kept for the next use.
const KEPT: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
    static LENT: Cell<usize> = const { Cell::new(0) };
}

/// Lets each thread lend so many at once: what the process's limit of open files has room for.
pub(super) fn limit(pipes: usize) {
    MOST_LENT.store(pipes, Ordering::Relaxed);
}

/// Both ends of a pipe.
struct Ends {
    out: OwnedFd,
    into: OwnedFd,
}

/// Bytes that were taken from a socket and not given to the other one yet.
pub(super) struct Pipe {
    ends: Option<Ends>,
    waiting: usize,
}

impl Pipe {
    /// An empty one; `None` where the thread has lent many or the system refuses.
    pub(super) fn acquire() -> Option<Self> {
        let lent = LENT.get();
        if lent >= MOST_LENT.load(Ordering::Relaxed) {
            return None;
        }
        let ends = match FREE.with_borrow_mut(Vec::pop) {
            Some(ends) => ends,
            None => Ends::open()?,
        };
        LENT.set(lent + 1);
        Some(Self { ends: Some(ends), waiting: 0 })
    }

    /// How many bytes wait in it.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Fills it, which must be empty, from `socket`; 0 is the socket's end.
    ///
    /// # Errors
    /// The socket's; [`io::Errno::AGAIN`] when it has nothing to read.
    pub(super) fn fill(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Err(io::Errno::BADF) };
        let moved = splice(socket, None, &ends.into, None, MOST, flags())?;
        self.waiting += moved;
        Ok(moved)
    }

    /// Empties it into `socket`, as far as that takes it.
    ///
    /// # Errors
    /// The socket's; [`io::Errno::AGAIN`] when it takes nothing.
    pub(super) fn empty(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Err(io::Errno::BADF) };
        let moved = splice(&ends.out, None, socket, None, self.waiting, flags())?;
        self.waiting = self.waiting.saturating_sub(moved);
        Ok(moved)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // A thread that is ending has no pool any more.
        let _ = LENT.try_with(|lent| lent.set(lent.get().saturating_sub(1)));
        // What still waits in it belongs to a stream that is gone, and must not come out in another one.
        if self.waiting == 0
            && let Some(ends) = self.ends.take()
        {
            let _ = FREE.try_with(|free| {
                let mut free = free.borrow_mut();
                if free.len() < KEPT {
                    free.push(ends);
                }
            });
        }
    }
}

impl Ends {
    fn open() -> Option<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // A smaller one than asked for works as well; past the user's limit the kernel grants a page or two, which
        // is worse than copying.
        match fcntl_setpipe_size(&into, ROOM) {
            Ok(_) => Some(Self { out, into }),
            Err(_) => None,
        }
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}
