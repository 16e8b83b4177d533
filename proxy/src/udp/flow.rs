//! One flow: its socket towards the endpoint, and the task that brings back what the endpoint replies.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::net::{SendFlags, send};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

use super::{
    serve::DatagramPort,
    table::{Avoided, FlowKey},
    with_batch,
};
use crate::{
    admission::FlowPermit,
    balance::FAILURE,
    loops::OwnEnd,
    reason::Reason,
    state::{AdmittedStream, BackendPort, Endpoint, InFlight, ServiceEntry},
    telemetry::{FlowEnd, FlowTelemetry},
};

/// Replies taken at once at most.
const REPLIES: usize = 8;

/// Longest time until a flow looks how long it may be silent: that may have changed.
const LOOK: Duration = Duration::from_secs(10);

/// Silence after which a flow ends once the proxy is ending.
const QUIET: Duration = Duration::from_secs(1);

/// What a flow is made of.
pub(super) struct FlowParts {
    pub(super) key: FlowKey,
    pub(super) upstream: AsyncFd<OwnedFd>,
    pub(super) called: Arc<ServiceEntry>,
    pub(super) number: u16,
    pub(super) backend: Arc<BackendPort>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) avoided: Avoided,
    pub(super) permit: FlowPermit,
    pub(super) counts: Arc<FlowTelemetry>,
    /// What it was admitted with, where access control is on.
    pub(super) admitted: Option<AdmittedStream>,
    /// What is counted for as long as it lives.
    pub(super) _held: (InFlight, [Option<OwnEnd>; 2]),
}

/// The datagrams between one address of a caller and one endpoint.
pub(super) struct Flow {
    parts: FlowParts,
    opened: Instant,
    answered: AtomicBool,
    /// Whether it has to end; see [`MOVED`] and [`REFUSED`].
    over: AtomicU8,
    /// The version of grants and identities by which it was admitted last.
    admitted_by: AtomicU64,
}

/// Its endpoint is none of the Service any more, or the listener serves another one.
const MOVED: u8 = 1;
/// Its endpoint cannot be reached, and that was counted.
const REFUSED: u8 = 2;

/// Why a datagram was not sent to the endpoint.
pub(super) enum SendError {
    /// The endpoint cannot be reached.
    Refused,
    /// There is no room for it at the moment.
    Full,
    /// It is larger than a datagram to the endpoint can be.
    TooLarge,
}

/// What became of a look at the endpoint's replies.
enum Received {
    /// There may be more.
    Some,
    /// There are no more at the moment.
    All,
    /// The endpoint cannot be reached.
    Refused,
    /// There is nobody to pass them on to.
    NoListener,
    /// The caller is admitted no more.
    Denied,
}

impl Flow {
    pub(super) fn new(parts: FlowParts) -> Self {
        let version = parts.admitted.as_ref().map_or(0, |admitted| admitted.shared.access_version());
        Self {
            parts,
            opened: Instant::now(),
            answered: AtomicBool::new(false),
            over: AtomicU8::new(0),
            admitted_by: AtomicU64::new(version),
        }
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.parts.endpoint
    }

    /// The endpoints that the next flow in its place avoids, besides its own.
    pub(super) fn avoided(&self) -> Avoided {
        if self.answered.load(Ordering::Relaxed) { Avoided::new() } else { self.parts.avoided.clone() }
    }

    /// Whether datagrams to this port of `called` belong to it: it is open, and its endpoint is still one.
    pub(super) fn serves(&self, called: &Arc<ServiceEntry>, number: u16) -> bool {
        Arc::ptr_eq(&self.parts.called, called)
            && self.parts.number == number
            && !self.parts.endpoint.is_gone()
            && self.over.load(Ordering::Acquire) == 0
            && !self.parts.permit.is_shed()
            && self.is_admitted()
    }

    /// Whether its caller is still admitted to its endpoint. Asked for each datagram, and looked up when something changed.
    fn is_admitted(&self) -> bool {
        let Some(admitted) = &self.parts.admitted else { return true };
        let version = admitted.shared.access_version();
        if self.admitted_by.load(Ordering::Relaxed) == version {
            return true;
        }
        let holds = admitted.holds();
        if holds {
            self.admitted_by.store(version, Ordering::Relaxed);
        }
        holds
    }

    /// Counts a datagram that was dropped.
    pub(super) fn dropped(&self, reason: Reason) {
        self.parts.counts.dropped(reason);
    }

    /// Has its task look at what changed for it.
    pub(super) fn wake(&self) {
        self.parts.permit.wake();
    }

    /// Ends it, because another flow takes its place.
    pub(super) fn end_moved(&self) {
        self.over.fetch_max(MOVED, Ordering::AcqRel);
        self.wake();
    }

    /// Sends a datagram of the caller to the endpoint.
    pub(super) fn send(&self, bytes: &[u8], now: u32) -> Result<(), SendError> {
        let send = || Ok(send(&self.parts.upstream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?);
        // The system may speak of an earlier one, and that the path takes only smaller ones: it cuts them from then on.
        let sent = send().or_else(|error| if is_too_large(&error) { send() } else { Err(error) });
        match sent {
            Ok(_) => {
                self.parts.permit.touch(now);
                self.parts.counts.received.inc();
                self.parts.counts.received_bytes.inc_by(bytes.len() as u64);
                Ok(())
            }
            Err(error) => Err(match error {
                error if is_full(&error) => SendError::Full,
                error if is_too_large(&error) => SendError::TooLarge,
                _ => SendError::Refused,
            }),
        }
    }

    /// Ends it, because the endpoint cannot be reached.
    pub(super) fn end_refused(self: &Arc<Self>, port: &DatagramPort) {
        if self.over.swap(REFUSED, Ordering::AcqRel) != REFUSED {
            port.count_failure(&self.parts.backend, &self.parts.endpoint);
            port.flows.refuse(&self.parts.key, self);
            self.wake();
        }
    }

    /// Passes replies on from `listener` until the flow ends.
    pub(super) async fn run(self: Arc<Self>, port: Arc<DatagramPort>, listener: Weak<OwnedFd>) {
        port.worker.shared.telemetry.udp.open.inc();
        let end = self.carry(&port, &listener).await;
        if end == FlowEnd::Refused {
            self.end_refused(&port);
        } else {
            port.flows.remove(&self.parts.key, &self);
        }
        let telemetry = &port.worker.shared.telemetry.udp;
        telemetry.ended(end);
        telemetry.open.dec();
    }

    async fn carry(&self, port: &DatagramPort, listener: &Weak<OwnedFd>) -> FlowEnd {
        let (mut look, mut woken) = (pin!(sleep(self.next_look(port))), pin!(self.parts.permit.woken()));
        loop {
            tokio::select! {
                biased;
                () = &mut woken => woken.set(self.parts.permit.woken()),
                ready = self.parts.upstream.ready(Interest::READABLE | Interest::ERROR) => {
                    // An error means that the event loop is ending.
                    let Ok(mut ready) = ready else { return FlowEnd::Closed };
                    match self.receive(port, listener) {
                        Received::Some => tokio::task::yield_now().await,
                        Received::All => ready.clear_ready(),
                        Received::Refused => return FlowEnd::Refused,
                        Received::Denied => return FlowEnd::Moved,
                        Received::NoListener => return FlowEnd::Closed,
                    }
                    continue;
                }
                () = &mut look => {}
            }
            if let Some(end) = self.is_over(port) {
                return end;
            }
            look.set(sleep(self.next_look(port)));
        }
    }

    /// Whether it has to end, and why.
    fn is_over(&self, port: &DatagramPort) -> Option<FlowEnd> {
        if self.parts.permit.is_shed() {
            return Some(FlowEnd::Shed);
        }
        match self.over.load(Ordering::Acquire) {
            MOVED => Some(FlowEnd::Moved),
            REFUSED => Some(FlowEnd::Refused),
            _ if port.is_closed() => Some(FlowEnd::Closed),
            _ => self.silence_left(port).is_some_and(|left| left.is_zero()).then_some(FlowEnd::Idle),
        }
    }

    fn next_look(&self, port: &DatagramPort) -> Duration {
        self.silence_left(port).unwrap_or(LOOK).min(LOOK)
    }

    /// For how much longer it may be silent; `None` for ever.
    fn silence_left(&self, port: &DatagramPort) -> Option<Duration> {
        let idle = self.parts.backend.upstreams.load().policy.idle_timeout;
        let idle = if port.is_ending() { Some(idle.map_or(QUIET, |idle| idle.min(QUIET))) } else { idle };
        idle.map(|idle| idle.saturating_sub(port.worker.shared.clock.since(self.parts.permit.used())))
    }

    fn receive(&self, port: &DatagramPort, listener: &Weak<OwnedFd>) -> Received {
        if !self.is_admitted() {
            return Received::Denied;
        }
        with_batch(|batch| match batch.receive(self.parts.upstream.as_fd(), REPLIES) {
            Ok(count) => {
                let Some(listener) = listener.upgrade() else { return Received::NoListener };
                let FlowKey { caller, to } = self.parts.key;
                let (sent, bytes) = batch.pass_on(count, &listener, caller, to);
                self.note_replies(port, sent, bytes);
                (sent..count).for_each(|_| self.dropped(Reason::Overloaded));
                if count < REPLIES { Received::All } else { Received::Some }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::All,
            // The path takes only smaller ones from now on: the kernel cuts them by itself.
            Err(error) if is_full(&error) || is_too_large(&error) => Received::Some,
            Err(_) => Received::Refused,
        })
    }

    fn note_replies(&self, port: &DatagramPort, sent: usize, bytes: usize) {
        let FlowParts { endpoint, permit, counts, .. } = &self.parts;
        let now = port.worker.shared.clock.coarse();
        permit.touch(now);
        // A Service is in use also while only its endpoints send.
        self.parts.called.touch(&port.worker.shared);
        counts.sent.inc_by(sent as u64);
        counts.sent_bytes.inc_by(bytes as u64);
        endpoint.ejection.succeeded(now);
        if !self.answered.swap(true, Ordering::Relaxed) {
            // What comes late may be no answer to the first datagram.
            endpoint.latency.record(now, self.opened.elapsed().min(FAILURE));
        }
    }
}

/// The system has no room for a datagram at the moment.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR))
}

fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}
