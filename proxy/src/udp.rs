//! Datagrams: carried between a caller and an endpoint, unread, and replies from the address that the caller sent to.
//!
//! A datagram says nothing of others. What belongs together is a flow: the datagrams of one address and port of a caller to
//! one address of ours. Each flow has a socket of its own that is connected to its endpoint, so a reply belongs to its
//! flow by the port at which it arrives, nobody but the endpoint can reply, and the kernel tells the flow when the
//! endpoint cannot be reached.
//!
//! [`serve`] receives what callers send, [`flow`] what endpoints reply; [`table`] has the flows of one listener. All of a
//! listener is on one worker. How many flows there may be, and which one goes for a new one, is decided in `admission`.

mod batch;
mod flow;
mod serve;
mod table;

use std::cell::RefCell;

use self::batch::Batch;
pub(crate) use self::{
    batch::listen,
    serve::{DatagramSocket, start},
};

thread_local! {
    /// What a worker receives into. Nothing is kept there: every datagram is passed on before the next ones are received.
    static RECEIVED: RefCell<Batch> = RefCell::new(Batch::new());
}

/// Does something with the buffers of this thread.
fn with_batch<T>(work: impl FnOnce(&mut Batch) -> T) -> T {
    RECEIVED.with(|batch| work(&mut batch.borrow_mut()))
}
