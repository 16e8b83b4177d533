//! Bytes of an upgraded exchange, both ways.
//!
//! A reset of one side becomes a reset of the other, an end an end. Each direction is independent: one whose receiver
//! is slow holds a buffer and stops reading, and the other one goes on. The idle time and a drain also hold while a
//! direction is blocked. A drain ends a WebSocket as WebSocket does: each side gets close code 1001. It is sent between
//! two frames, so a frame that has begun is carried to its end first.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep},
};
use tokio_util::io::poll_read_buf;

use super::{
    frames::{Boundary, GOING_AWAY, GOING_AWAY_MASKED},
    sides::CallerSide,
};
use crate::{http::exchange::Exchange, reason::Reason, socket::DisconnectWatch, upstream::Upgraded};

/// Bytes read at once from either side, and held at most for each direction.
const BUFFER: usize = 16 * 1024;

/// Looks at an idle tunnel come this often in its idle time.
const LOOKS: u32 = 8;

/// A direction lets others have their turn after so many bytes.
const TURN: usize = 1024 * 1024;

/// The endpoint's side of an exchange that leaves HTTP, and how it is to be carried.
pub(crate) struct Tunnel {
    endpoint: Upgraded,
    websocket: bool,
    idle: Option<Duration>,
}

impl Tunnel {
    pub(super) fn new(endpoint: Upgraded, websocket: bool, idle: Option<Duration>) -> Self {
        Self { endpoint, websocket, idle }
    }

    /// Carries bytes until both sides are done, one of them breaks, both are silent for too long, or a drain has ended
    /// a WebSocket. `exchange` ends with it.
    pub(crate) async fn carry(self, mut caller: CallerSide, mut exchange: Box<Exchange>) {
        let mut endpoint = self.endpoint;
        let (mut up, mut down) = if self.websocket {
            (TunnelDirection::websocket(&GOING_AWAY_MASKED), TunnelDirection::websocket(&GOING_AWAY))
        } else {
            (TunnelDirection::opaque(), TunnelDirection::opaque())
        };
        let revoked = exchange.admitted.take().map(|admitted| Box::pin(admitted.revoked()) as Pin<Box<_>>);
        let end = carry(&mut caller, &mut endpoint, (&mut up, &mut down), self.idle, &exchange, revoked).await;
        match end {
            TunnelEnd::Closed | TunnelEnd::Idle => {}
            TunnelEnd::CallerReset => endpoint.reset(),
            TunnelEnd::EndpointReset => caller.reset(),
            TunnelEnd::Denied => {
                exchange.reason = Some(Reason::Denied);
                endpoint.reset();
                caller.reset();
            }
        }
        exchange.received = up.carried;
        exchange.sent = down.carried;
        tracing::trace!(caller = %exchange.caller.address, ?end, "upgraded stream ended");
    }
}

/// How an upgraded stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TunnelEnd {
    /// Both sides said that they are done, or a drain did.
    Closed,
    CallerReset,
    EndpointReset,
    /// Both directions were silent for the idle time.
    Idle,
    /// The caller is admitted no more.
    Denied,
}

/// Which side of a direction is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Source,
    Target,
}

async fn carry(
    caller: &mut CallerSide,
    endpoint: &mut Upgraded,
    (up, down): (&mut TunnelDirection, &mut TunnelDirection),
    idle: Option<Duration>,
    exchange: &Exchange,
    mut revoked: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
) -> TunnelEnd {
    let mut closing = exchange.caller.worker.closing();
    let mut draining = pin!(async {
        // An error means that the proxy is ending.
        let _ = closing.wait_for(|closing| *closing).await;
    });
    let mut is_draining = false;
    let mut caller_broken = pin!(wait(caller.broken()));
    let mut endpoint_broken = pin!(wait(endpoint.broken()));
    let step = idle.map(|idle| idle / LOOKS);
    let mut look = pin!(sleep(step.unwrap_or(Duration::from_secs(3600))));
    let (mut seen, mut quiet) = (0, 0);
    poll_fn(|cx| {
        if !is_draining && draining.as_mut().poll(cx).is_ready() {
            is_draining = true;
            up.end_soon();
            down.end_soon();
        }
        if revoked.as_mut().is_some_and(|revoked| revoked.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(TunnelEnd::Denied);
        }
        let upwards = up.poll(cx, Pin::new(&mut *caller), Pin::new(&mut *endpoint));
        let downwards = down.poll(cx, Pin::new(&mut *endpoint), Pin::new(&mut *caller));
        match (upwards, downwards) {
            (Poll::Ready(Err(Side::Source)), _) | (_, Poll::Ready(Err(Side::Target))) => {
                return Poll::Ready(TunnelEnd::CallerReset);
            }
            (Poll::Ready(Err(Side::Target)), _) | (_, Poll::Ready(Err(Side::Source))) => {
                return Poll::Ready(TunnelEnd::EndpointReset);
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(TunnelEnd::Closed),
            _ => {}
        }
        // A direction that reads sees a reset after all bytes that came before it. For one that does not read, the
        // state of the socket is checked.
        let caller_gone = !up.reads() && caller_broken.as_mut().poll(cx).is_ready();
        if caller_gone || caller.poll_gone(cx).is_ready() {
            return Poll::Ready(TunnelEnd::CallerReset);
        }
        let endpoint_gone = !down.reads() && endpoint_broken.as_mut().poll(cx).is_ready();
        if endpoint_gone || endpoint.poll_gone(cx).is_ready() {
            return Poll::Ready(TunnelEnd::EndpointReset);
        }
        while look.as_mut().poll(cx).is_ready() {
            let carried = up.carried + down.carried;
            quiet = if carried == seen { quiet + 1 } else { 0 };
            seen = carried;
            if step.is_some() && quiet >= LOOKS {
                return Poll::Ready(TunnelEnd::Idle);
            }
            look.as_mut().reset(Instant::now() + step.unwrap_or(Duration::from_secs(3600)));
        }
        Poll::Pending
    })
    .await
}

/// Until a connection is broken; for ever where there is none.
async fn wait(connection: Option<DisconnectWatch>) {
    match connection {
        Some(connection) => connection.wait().await,
        None => std::future::pending().await,
    }
}

/// Carries bytes one way.
struct TunnelDirection {
    buffer: BytesMut,
    carried: u64,
    state: DirectionState,
    /// Where frames end in what was written, and what ends them early.
    frames: Option<(Boundary, &'static [u8])>,
    /// The target is to get no more than the frame that it is in.
    ends_soon: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DirectionState {
    Open,
    /// The source has ended; what is in the buffer is still to be written.
    Ending,
    /// The target knows that nothing more comes.
    Ended,
}

impl TunnelDirection {
    fn opaque() -> Self {
        Self { buffer: BytesMut::new(), carried: 0, state: DirectionState::Open, frames: None, ends_soon: false }
    }

    /// A direction that can be ended between two frames, by writing `end`.
    fn websocket(end: &'static [u8]) -> Self {
        Self { frames: Some((Boundary::default(), end)), ..Self::opaque() }
    }

    /// Ends at the next place where it can be ended.
    fn end_soon(&mut self) {
        self.ends_soon = self.frames.is_some();
    }

    /// Whether it waits for its source; else for its target, or for nothing any more.
    fn reads(&self) -> bool {
        self.state == DirectionState::Open && self.buffer.is_empty()
    }

    /// Moves what can be moved. Ready once the target was told the end and has everything.
    fn poll<S: AsyncRead + ?Sized, T: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        mut source: Pin<&mut S>,
        mut target: Pin<&mut T>,
    ) -> Poll<Result<(), Side>> {
        let mut turn = 0;
        loop {
            self.end_here();
            turn += ready!(self.write(cx, target.as_mut())).map_err(|_| Side::Target)?;
            match self.state {
                DirectionState::Open => {}
                DirectionState::Ending => {
                    ready!(target.as_mut().poll_shutdown(cx)).map_err(|_| Side::Target)?;
                    self.state = DirectionState::Ended;
                }
                DirectionState::Ended if self.ends_soon => {
                    // What the source still sends is read and dropped: unread bytes would turn the close into a reset.
                    self.buffer.clear();
                    let read = ready!(self.read(cx, source.as_mut())).map_err(|_| Side::Source)?;
                    if read == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    continue;
                }
                DirectionState::Ended => return Poll::Ready(Ok(())),
            }
            if self.state == DirectionState::Ended {
                continue;
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if ready!(self.read(cx, source.as_mut())).map_err(|_| Side::Source)? == 0 {
                self.state = DirectionState::Ending;
            }
        }
    }

    /// Puts the closing frame in place of what would follow, where a frame has just ended.
    fn end_here(&mut self) {
        if self.ends_soon
            && self.state != DirectionState::Ended
            && let Some((boundary, end)) = &self.frames
            && boundary.is_between()
        {
            self.buffer.clear();
            self.buffer.extend_from_slice(end);
            self.frames = None;
            self.state = DirectionState::Ending;
        }
    }

    /// Writes all that is held; returns how much that was.
    fn write<T: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        mut target: Pin<&mut T>,
    ) -> Poll<io::Result<usize>> {
        let mut written = 0;
        while !self.buffer.is_empty() {
            // No further than the end of a frame, where it matters.
            let mut offered = self.buffer.len();
            if self.ends_soon
                && let Some((boundary, _)) = &self.frames
            {
                offered = boundary.to_end(&self.buffer);
            }
            let count = ready!(target.as_mut().poll_write(cx, &self.buffer[..offered]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if let Some((boundary, _)) = &mut self.frames {
                boundary.pass(&self.buffer[..count]);
            }
            self.buffer.advance(count);
            self.carried += count as u64;
            written += count;
            self.end_here();
        }
        // Asked each time, also when nothing new was written: the outbox, which has taken the last bytes, may not have been able
        // to send them all, and wakes this task for it.
        if self.carried > 0 {
            ready!(target.poll_flush(cx))?;
        }
        Poll::Ready(Ok(written))
    }

    /// Reads something; returns how much, 0 at the end.
    fn read<S: AsyncRead + ?Sized>(&mut self, cx: &mut Context<'_>, source: Pin<&mut S>) -> Poll<io::Result<usize>> {
        self.buffer.reserve(BUFFER);
        let read = poll_read_buf(source, cx, &mut self.buffer);
        if !matches!(read, Poll::Ready(Ok(1..))) {
            // A tunnel that is silent holds no buffer.
            self.buffer = BytesMut::new();
        }
        read
    }
}
