//! The sockets of one thread that have something to send, and the task that sends it.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
};

use super::SocketInner;

/// So many sockets wait for each other at most.
const MOST: usize = 64;

thread_local! {
    static LISTED: RefCell<Vec<Arc<SocketInner>>> = const { RefCell::new(Vec::new()) };
    static SENDER: RefCell<Option<Waker>> = const { RefCell::new(None) };
    static OPEN: Cell<bool> = const { Cell::new(false) };
}

/// Sends what is put aside on this thread, for as long as it runs. One of it on the event loop of each worker.
pub(crate) async fn run() {
    let _closes = Closes;
    poll_fn::<(), _>(|cx| {
        let known = SENDER.with_borrow(|waker| waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())));
        if !known {
            SENDER.set(Some(cx.waker().clone()));
        }
        OPEN.set(true);
        send();
        Poll::Pending
    })
    .await;
}

/// Whether somebody sends what is put aside here.
pub(super) fn is_open() -> bool {
    OPEN.get()
}

/// Puts a socket on the list.
pub(super) fn list(socket: &Arc<SocketInner>) {
    let count = LISTED.with_borrow_mut(|listed| {
        listed.push(socket.clone());
        listed.len()
    });
    if count == 1 {
        SENDER.with_borrow(|sender| sender.as_ref().map(Waker::wake_by_ref));
    } else if count >= MOST {
        send();
    }
}

/// Sends everything that waits on this thread.
pub(super) fn send() {
    let mut listed = LISTED.take();
    for socket in listed.drain(..) {
        socket.send_waiting();
    }
    // The room is kept for the next time.
    LISTED.with_borrow_mut(|now| {
        if now.is_empty() {
            *now = listed;
        }
    });
}

struct Closes;

impl Drop for Closes {
    fn drop(&mut self) {
        // Where the thread is ending, there is no outbox any more either.
        let _ = OPEN.try_with(|open| open.set(false));
        let _ = SENDER.try_with(|sender| sender.take());
        let _ = LISTED.try_with(|listed| drop(listed.take()));
    }
}
