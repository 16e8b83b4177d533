//! Opaque streams: bytes carried between a caller and an endpoint, unread.
//!
//! Picking the endpoint, dialling it and counting are done by the listener; here is only the carrying, because it is
//! what a bulk stream pays for. It must never invent an end: a half-close on one side is a half-close on the other, a
//! reset a reset.
//!
//! One task carries both directions. A stream that is silent holds no buffer and no pipe: those belong to the thread
//! and are lent while bytes wait in them ([`buffer`], [`pipe`]). Small reads are copied through a buffer; once a
//! direction has shown that it is a bulk transfer, the kernel moves its bytes from socket to socket.

mod buffer;
mod dial;
mod direction;
mod pipe;
#[cfg(test)]
mod tests;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
pub(crate) use dial::dial;
use direction::{BrokenSide, Direction};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep},
};

/// Looks at an idle stream come this often in its idle time; it is cut at most a part of this later than it could be.
/// In return nothing has to read the clock when bytes move.
const LOOKS: u32 = 8;

/// How a relayed stream went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes carried from the caller to the endpoint.
    pub to_endpoint: u64,
    /// Bytes carried from the endpoint to the caller.
    pub to_caller: u64,
    /// Why it ended.
    pub end: RelayEnd,
}

/// Why a relayed stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayEnd {
    /// Both sides said that they are done.
    Closed,
    /// The caller reset the connection; so was the endpoint's.
    CallerReset,
    /// The endpoint reset the connection; so was the caller's.
    EndpointReset,
    /// Both directions were silent for the idle time.
    Idle,
    /// It may not go on: both connections were reset.
    Cut,
}

/// Lets each thread lend so many pipes at once. Holds for the process.
pub(crate) fn limit_pipes(per_thread: usize) {
    pipe::limit(per_thread);
}

/// Carries bytes both ways until both sides are done, one of them resets, or both are silent for `idle`.
///
/// `first_bytes` were already read from the caller and go to the endpoint first. Dropping the future closes both
/// sockets.
pub async fn relay(caller: TcpStream, first_bytes: Bytes, endpoint: TcpStream, idle: Option<Duration>) -> Relayed {
    let mut up = Direction::new(first_bytes);
    let mut down = Direction::new(Bytes::new());
    let end = carry(&caller, &endpoint, &mut up, &mut down, idle).await;
    close(end, &caller, &endpoint);
    Relayed { to_endpoint: up.carried(), to_caller: down.carried(), end }
}

/// The same, until `cut` is over at the latest.
pub(crate) async fn relay_until(
    caller: TcpStream,
    first_bytes: Bytes,
    endpoint: TcpStream,
    idle: Option<Duration>,
    cut: impl Future<Output = ()>,
) -> Relayed {
    let mut up = Direction::new(first_bytes);
    let mut down = Direction::new(Bytes::new());
    let end = tokio::select! {
        biased;
        end = carry(&caller, &endpoint, &mut up, &mut down, idle) => end,
        () = cut => RelayEnd::Cut,
    };
    close(end, &caller, &endpoint);
    Relayed { to_endpoint: up.carried(), to_caller: down.carried(), end }
}

/// Has each socket end as the stream did. Without lingering, closing is a reset. Where that cannot be set, the socket is gone
/// already.
fn close(end: RelayEnd, caller: &TcpStream, endpoint: &TcpStream) {
    if matches!(end, RelayEnd::CallerReset | RelayEnd::Cut) {
        drop(endpoint.set_zero_linger());
    }
    if matches!(end, RelayEnd::EndpointReset | RelayEnd::Cut) {
        drop(caller.set_zero_linger());
    }
}

async fn carry(
    caller: &TcpStream,
    endpoint: &TcpStream,
    up: &mut Direction,
    down: &mut Direction,
    idle: Option<Duration>,
) -> RelayEnd {
    let mut caller_error = pin!(caller.ready(Interest::ERROR));
    let mut endpoint_error = pin!(endpoint.ready(Interest::ERROR));
    let mut silence = IdleCount::default();
    let step = idle.map(|idle| idle / LOOKS);
    let mut look = pin!(sleep(step.unwrap_or(Duration::MAX)));
    poll_fn(|cx| {
        if let Some(end) = both(cx, caller, endpoint, up, down) {
            return Poll::Ready(end);
        }
        // A direction that reads sees a reset after all bytes that came before it. One that does not read, because its
        // target takes nothing or its source has ended, would not see it. For that one, the state of the socket is
        // checked.
        if !up.reads() && caller_error.as_mut().poll(cx).is_ready() {
            return Poll::Ready(RelayEnd::CallerReset);
        }
        if !down.reads() && endpoint_error.as_mut().poll(cx).is_ready() {
            return Poll::Ready(RelayEnd::EndpointReset);
        }
        let Some(step) = step else { return Poll::Pending };
        while look.as_mut().poll(cx).is_ready() {
            if silence.lasts(up.carried() + down.carried()) {
                return Poll::Ready(RelayEnd::Idle);
            }
            look.as_mut().reset(Instant::now() + step);
        }
        Poll::Pending
    })
    .await
}

/// Moves both directions as far as they go, and passes on an end; says how it all ended if it did.
fn both(
    cx: &mut Context<'_>,
    caller: &TcpStream,
    endpoint: &TcpStream,
    up: &mut Direction,
    down: &mut Direction,
) -> Option<RelayEnd> {
    let upwards = up.poll(cx, caller, endpoint);
    let downwards = down.poll(cx, endpoint, caller);
    match (upwards, downwards) {
        (Poll::Ready(Err(BrokenSide::Source)), _) => Some(RelayEnd::CallerReset),
        (_, Poll::Ready(Err(BrokenSide::Source))) => Some(RelayEnd::EndpointReset),
        // The reset was seen by a write. Bytes that came before it were moved by the polls above.
        (_, Poll::Ready(Err(BrokenSide::Target))) => Some(RelayEnd::CallerReset),
        (Poll::Ready(Err(BrokenSide::Target)), _) => Some(RelayEnd::EndpointReset),
        // Closing the sockets ends both sides. A shutdown of each would only be two more system calls.
        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Some(RelayEnd::Closed),
        (Poll::Ready(Ok(())), Poll::Pending) => up.pass_end(endpoint).err().map(|_| RelayEnd::EndpointReset),
        (Poll::Pending, Poll::Ready(Ok(()))) => down.pass_end(caller).err().map(|_| RelayEnd::CallerReset),
        (Poll::Pending, Poll::Pending) => None,
    }
}

/// How long nothing has been carried, in looks.
#[derive(Default)]
struct IdleCount {
    seen: u64,
    looks: u32,
}

impl IdleCount {
    /// Takes a look at the sum of what was `carried`; says whether it has been the same for [`LOOKS`] of them.
    fn lasts(&mut self, carried: u64) -> bool {
        if carried == self.seen {
            self.looks += 1;
        } else {
            *self = Self { seen: carried, looks: 0 };
        }
        self.looks >= LOOKS
    }
}
