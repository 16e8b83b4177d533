//! What the proxy holds of requests and responses that do not move on: counted, and bounded.
//!
//! A request holds little: parts of its head, of its upload and of its response. But a caller can have many, and there can
//! be many callers. So the bytes are counted, of each caller address and in all. A caller above its bound gives something
//! up; when all together are above theirs, the caller that holds the most does.
//!
//! HTTP/2 gives up streams: above a caller's bound the one that holds the most, above the bound of all those that stand
//! still. Such a stream is reset with `ENHANCE_YOUR_CALM`. HTTP/1.1, and what is no request yet, gives up connections, the
//! one that holds the most first.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

/// Bytes of one upload that a caller may send before its endpoint has taken some.
pub(crate) const STREAM_WINDOW: u32 = 64 * 1024;

/// All that is held, by caller.
pub(crate) struct Buffers {
    most: usize,
    most_per_caller: usize,
    total: Gauge<u64, AtomicU64>,
    by_caller: Mutex<HashMap<IpAddr, Arc<CallerBytes>, ahash::RandomState>>,
    /// Told when some caller has to give up connections.
    over: Notify,
}

/// What is held for one caller address.
pub(crate) struct CallerBytes {
    all: Arc<Buffers>,
    caller: IpAddr,
    bytes: AtomicUsize,
    /// Told when this caller has to give up what stands still.
    shed: Notify,
}

/// A number of bytes held for a caller; given back when dropped.
pub(crate) struct Charge {
    of: Arc<CallerBytes>,
    bytes: usize,
}

/// Bytes on their way to a caller, counted until they are written or given up.
pub(crate) struct Charged<C> {
    bytes: Bytes,
    _charge: C,
}

impl<C> Charged<C> {
    /// `bytes`, which `charge` counts.
    pub(crate) fn new(bytes: Bytes, charge: C) -> Self {
        Self { bytes, _charge: charge }
    }
}

impl Buffers {
    /// Nothing is held yet. At most `most` bytes in all will be, as `total` says, and `most_per_caller` for one address.
    pub(crate) fn new(most: usize, most_per_caller: usize, total: Gauge<u64, AtomicU64>) -> Arc<Self> {
        Arc::new(Self { most, most_per_caller, total, by_caller: Mutex::default(), over: Notify::new() })
    }

    /// Bytes held in all.
    pub(crate) fn total(&self) -> usize {
        usize::try_from(self.total.get()).unwrap_or(usize::MAX)
    }

    /// What is held for `caller`, for one more connection of it.
    pub(crate) fn of(self: &Arc<Self>, caller: IpAddr) -> Arc<CallerBytes> {
        let mut all = self.by_caller.lock();
        if let Some(held) = all.get(&caller) {
            return held.clone();
        }
        // Callers without a connection are forgotten when the table would grow.
        if all.len() == all.capacity() {
            all.retain(|_, held| Arc::strong_count(held) > 1);
        }
        let held = CallerBytes { all: self.clone(), caller, bytes: AtomicUsize::new(0), shed: Notify::new() };
        let held = Arc::new(held);
        all.insert(caller, held.clone());
        held
    }

    /// Waits until some caller has to give up connections.
    pub(crate) async fn over(&self) {
        self.over.notified().await;
    }

    /// The callers that have to give up connections: those above their bound, and the one that holds the most while all
    /// together are above theirs.
    pub(crate) fn callers_over(&self) -> Vec<IpAddr> {
        let all = self.by_caller.lock();
        let mut callers: Vec<IpAddr> = all.values().filter(|held| held.excess() > 0).map(|held| held.caller).collect();
        if self.total() > self.most {
            let largest = all.values().max_by_key(|held| held.bytes.load(Ordering::Relaxed));
            callers.extend(largest.map(|held| held.caller));
        }
        callers
    }

    /// How many bytes `caller` has to give up.
    pub(crate) fn excess_of(&self, caller: IpAddr) -> usize {
        let held = self.by_caller.lock().get(&caller).cloned();
        let of_caller = held.map_or(0, |held| held.excess());
        of_caller.max(self.total().saturating_sub(self.most))
    }

    /// Tells the caller that holds the most to give up what stands still.
    #[cold]
    fn shed(&self) {
        let largest = {
            let all = self.by_caller.lock();
            all.values().max_by_key(|held| held.bytes.load(Ordering::Relaxed)).cloned()
        };
        if let Some(largest) = largest {
            tracing::debug!(caller = %largest.caller, held = self.total(), most = self.most, "stalled streams are reset");
            largest.shed.notify_waiters();
            self.over.notify_one();
        }
    }
}

impl CallerBytes {
    /// Whether so much is held for this caller, or in all, that what can be done without should not be held: half of a bound.
    pub(crate) fn is_tight(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.all.most_per_caller / 2 || self.all.total() > self.all.most / 2
    }

    /// Nothing yet, to be changed.
    pub(crate) fn charge(self: &Arc<Self>) -> Charge {
        Charge { of: self.clone(), bytes: 0 }
    }

    /// By how many bytes this caller is above its bound.
    pub(crate) fn excess(&self) -> usize {
        self.bytes.load(Ordering::Relaxed).saturating_sub(self.all.most_per_caller)
    }

    /// Tells somebody to give up something if all callers together are above their bound.
    pub(crate) fn check_total(&self) {
        if self.all.total() > self.all.most {
            self.all.shed();
        }
    }

    /// Tells somebody to give up connections if this caller, or all together, are above their bound.
    pub(crate) fn check(&self) {
        if self.excess() > 0 {
            self.all.over.notify_one();
        }
        self.check_total();
    }

    /// To be told when this caller has to give up what stands still.
    pub(crate) fn shedding(&self) -> tokio::sync::futures::Notified<'_> {
        self.shed.notified()
    }
}

impl Charge {
    /// So many bytes are held now.
    pub(crate) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes >= before {
            self.of.bytes.fetch_add(bytes - before, Ordering::Relaxed);
            self.of.all.total.inc_by((bytes - before) as u64);
        } else {
            self.of.bytes.fetch_sub(before - bytes, Ordering::Relaxed);
            self.of.all.total.dec_by((before - bytes) as u64);
        }
    }

    /// Bytes that are held now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// So many bytes were given on.
    pub(crate) fn sub(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_sub(bytes));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl<C> Buf for Charged<C> {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_until_they_are_dropped() {
        let all = Buffers::new(100, 30, Gauge::default());
        let (a, b) = (all.of(IpAddr::from([10, 0, 0, 1])), all.of(IpAddr::from([10, 0, 0, 2])));
        let mut upload = a.charge();
        upload.set(25);
        let mut charge = a.charge();
        charge.set(10);
        let piece = Charged::new(Bytes::from_static(b"0123456789"), charge);
        assert_eq!((all.total(), a.excess(), b.excess()), (35, 5, 0));
        upload.sub(5);
        assert_eq!((all.total(), a.excess()), (30, 0));
        drop(piece);
        assert_eq!(all.total(), 20);
        let again = all.of(IpAddr::from([10, 0, 0, 1]));
        let mut more = again.charge();
        more.set(11);
        assert_eq!(a.excess(), 1, "two connections of one address");
        drop((upload, more));
        assert_eq!(all.total(), 0);
    }

    #[tokio::test]
    async fn the_largest_holder_gives_up_first() {
        let all = Buffers::new(100, 90, Gauge::default());
        let (a, b) = (all.of(IpAddr::from([10, 0, 0, 1])), all.of(IpAddr::from([10, 0, 0, 2])));
        let (mut of_a, mut of_b) = (a.charge(), b.charge());
        let (told_a, told_b) = (a.shedding(), b.shedding());
        tokio::pin!(told_a, told_b);
        told_a.as_mut().enable();
        told_b.as_mut().enable();
        of_a.set(60);
        of_b.set(40);
        b.check_total();
        assert!(futures_util::poll!(told_a.as_mut()).is_pending(), "at the bound");
        of_b.set(41);
        b.check_total();
        assert!(futures_util::poll!(told_a.as_mut()).is_ready());
        assert!(futures_util::poll!(told_b.as_mut()).is_pending(), "it holds less");
    }
}
