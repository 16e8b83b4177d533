//! HTTP/2 from callers.
//!
//! A connection's window is as large as those of all its streams together, so an upload that nobody reads takes nothing
//! from another stream. What is held for a caller is counted ([`buffers`](crate::buffers)), and a stream that holds
//! too much is reset. A connection whose caller sends too many frames that do no work is closed
//! ([`FrameBudget`](crate::http2::FrameBudget)). No PING is sent: a caller that is gone is found by TCP keepalive.

mod leave;
mod stream;
mod upload;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use maesh_http2::{Config, Error, Initiator, Reason as Code, Session};
use parking_lot::Mutex;

use self::leave::time_to_leave;
pub(crate) use self::upload::{Received, StreamEntry};
use super::{CallerIo, linger::linger};
use crate::{
    buffers::{CallerBytes, Charge, STREAM_WINDOW},
    http::caller::Caller,
    http2::{Driver, DriverProgress},
    reason::Reason,
};

/// After so many bytes from a caller it is looked at how many are held for it.
const LOOK: usize = 16 * 1024;

/// A stream that is reset within this time, before its response has begun, was opened for nothing.
const AT_ONCE: Duration = Duration::from_millis(100);

/// What the streams of one connection share.
pub(super) struct Http2Session {
    pub(super) caller: Arc<Caller>,
    pub(super) held: Arc<CallerBytes>,
    /// Bytes of uploads that are held.
    uploads: Mutex<Charge>,
    /// Bytes that wait to be written to the caller.
    unwritten: Mutex<Charge>,
    /// Streams that are open.
    slots: Mutex<Vec<Arc<StreamEntry>>>,
    /// The task of the connection.
    waker: AtomicWaker,
}

type Server = Driver<CallerIo>;

/// Serves a connection until it ends.
pub(super) async fn serve(io: CallerIo, caller: &Arc<Caller>) {
    let limits = &caller.shared.config.limits;
    let session = Session::server(Config {
        stream_window: STREAM_WINDOW,
        connection_window: STREAM_WINDOW.saturating_mul(limits.streams).min(i32::MAX as u32),
        streams: limits.streams,
        // Heads a little above the limit are let in, so that they can be answered with a reason.
        head: u32::try_from(limits.head.saturating_mul(2)).unwrap_or(u32::MAX),
    });
    let held = caller.shared.buffers.of(caller.address);
    let connection = Http2Session {
        caller: caller.clone(),
        uploads: Mutex::new(held.charge()),
        unwritten: Mutex::new(held.charge()),
        held,
        slots: Mutex::default(),
        waker: AtomicWaker::new(),
    };
    let mut server = Driver::new(io, session);
    match run(&mut server, &Arc::new(connection)).await {
        Ok(Ended::InOrder) => linger(server.into_io()).await,
        Ok(Ended::AtOnce) => {}
        Err(error) => ended_by(error, caller),
    }
}

/// Takes note of why a connection ended.
fn ended_by(error: Error, caller: &Caller) {
    tracing::trace!(caller = %caller.address, %error, "connection ended");
    // Some floods are found by the protocol itself.
    if error == Error::GoAway(Code::ENHANCE_YOUR_CALM, Initiator::Protocol) {
        caller.shared.telemetry.refused(Reason::Overloaded);
    }
}

/// How a connection ended without an error.
enum Ended {
    /// Everything was answered, and one of the sides wanted no more.
    InOrder,
    /// It was to end at once.
    AtOnce,
}

async fn run(server: &mut Server, connection: &Arc<Http2Session>) -> Result<Ended, Error> {
    let caller = connection.caller.clone();
    let mut leaves = pin!(time_to_leave(&caller));
    let mut is_leaving = false;
    let mut shedding = pin!(connection.held.shedding());
    poll_fn(|cx| {
        connection.waker.register(cx.waker());
        if shedding.as_mut().poll(cx).is_ready() {
            shedding.set(connection.held.shedding());
            // Polled at once, so that it is registered for the next notification.
            let _ = shedding.as_mut().poll(cx);
            connection.shed();
        }
        let ended = accept(server, connection, cx);
        if ended.is_pending() && !is_leaving && leaves.as_mut().poll(cx).is_ready() {
            is_leaving = true;
            server.session().leave();
            // Sends it.
            return accept(server, connection, cx);
        }
        ended
    })
    .await
}

/// Takes what has come from the caller; ready when the connection has ended.
fn accept(server: &mut Server, connection: &Arc<Http2Session>, cx: &mut Context<'_>) -> Poll<Result<Ended, Error>> {
    loop {
        if connection.caller.is_ended() {
            return Poll::Ready(Ok(Ended::AtOnce));
        }
        let progress = server.poll(cx);
        connection.unwritten.lock().set(server.session().unwritten());
        if connection.caller.has_received(LOOK) {
            connection.look();
        }
        if connection.caller.frames.is_exhausted() {
            tracing::debug!(caller = %connection.caller.address, "too many HTTP/2 frames that do no work");
            connection.caller.shared.telemetry.refused(Reason::Overloaded);
            return close(server, cx);
        }
        match progress {
            Poll::Ready(DriverProgress::Received) => {
                while let Some((head, recv, send)) = server.session().accept() {
                    stream::start(connection, head, recv, send);
                }
            }
            Poll::Ready(DriverProgress::Ended(ended)) => return Poll::Ready(ended.map(|()| Ended::InOrder)),
            // No stream can give up what waits in the connection itself.
            Poll::Pending if server.session().is_stuck() && connection.held.excess() > 0 => return close(server, cx),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Closes a connection whose caller makes too much work, or does not read.
fn close(server: &mut Server, cx: &mut Context<'_>) -> Poll<Result<Ended, Error>> {
    server.session().abort(Code::ENHANCE_YOUR_CALM);
    // A caller that does not read is not waited for.
    let _ = server.write(cx);
    Poll::Ready(Ok(Ended::AtOnce))
}

impl Http2Session {
    /// A stream was reset before its response had begun, so long after it was opened.
    fn was_abandoned(&self, age: Duration) {
        if age < AT_ONCE {
            self.caller.frames.abandoned(self.caller.shared.clock.coarse());
            if self.caller.frames.is_exhausted() {
                self.waker.wake();
            }
        }
    }

    /// Counts what is held of uploads, and gives up streams until the caller is within its bound.
    fn look(&self) {
        let mut slots: Vec<(usize, Arc<StreamEntry>)> = {
            let slots = self.slots.lock();
            slots.iter().map(|slot| (slot.held(), slot.clone())).filter(|(held, _)| *held > 0).collect()
        };
        self.uploads.lock().set(slots.iter().map(|(held, _)| held).sum());
        let mut excess = self.held.excess();
        if excess > 0 {
            // First those that were given up already and still hold what they held.
            slots.sort_unstable_by_key(|(held, slot)| (slot.is_given_up(), *held));
        }
        while excess > 0
            && let Some((held, slot)) = slots.pop()
        {
            slot.give_up();
            excess = excess.saturating_sub(held);
        }
        self.held.check_total();
    }

    /// Gives up every stream that holds something.
    fn shed(&self) {
        for slot in self.slots.lock().iter().filter(|slot| slot.held() > 0 || slot.is_stuck()) {
            slot.give_up();
        }
    }

    /// Bytes of an upload are held no longer.
    fn was_given_on(&self, bytes: usize) {
        self.uploads.lock().sub(bytes);
    }
}
