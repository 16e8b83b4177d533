//! Bounds the connections of a port that anybody can reach.
//!
//! A new connection is always accepted. Where there are too many already, another one is closed for it: one of the same
//! source while that has as many as one source may have, else one of the source that has the most. Of these the oldest
//! silent one is closed, or the oldest if none is silent. So a peer that opens many connections closes its own, and a
//! probe, which opens one and speaks at once, is answered whatever else is connected. Who accepts connections waits until
//! those that make room are closed ([`ConnectionTable::room`]), so that there is never more than one above the limit.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all.
    pub all: usize,
    /// From one source: an IPv4 address, or the first 64 bits of an IPv6 address.
    pub per_source: usize,
}

/// The connections of one port. Clones share them.
#[derive(Clone, Debug)]
pub struct ConnectionTable {
    limits: ConnectionLimits,
    table: Arc<Mutex<Table>>,
    closed: Arc<AtomicU64>,
    open: Arc<Open>,
}

/// Connections that are not closed yet, those included that are told to close.
#[derive(Debug, Default)]
struct Open {
    count: AtomicUsize,
    one_less: Notify,
}

/// A connection in a [`ConnectionTable`]; dropping it takes it out.
#[derive(Debug)]
pub struct ConnectionSlot {
    table: Arc<Mutex<Table>>,
    source: IpAddr,
    id: u64,
    close: CancellationToken,
    open: Arc<Open>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    all: usize,
    sources: HashMap<IpAddr, BTreeMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// It has not sent a whole request yet.
    silent: bool,
    close: CancellationToken,
}

impl ConnectionTable {
    /// An empty table. Limits of zero count as one.
    pub fn new(limits: ConnectionLimits) -> Self {
        let limits = ConnectionLimits { all: limits.all.max(1), per_source: limits.per_source.max(1) };
        Self { limits, table: Arc::default(), closed: Arc::default(), open: Arc::default() }
    }

    /// Adds a connection from `peer`, and closes another one where there is no room.
    pub fn add(&self, peer: IpAddr) -> ConnectionSlot {
        let source = source(peer);
        let mut table = self.table.lock();
        let of_source = table.sources.get(&source).map_or(0, BTreeMap::len);
        let crowded = if of_source >= self.limits.per_source {
            Some(source)
        } else if table.all >= self.limits.all {
            table.largest_source()
        } else {
            None
        };
        if let Some(crowded) = crowded {
            table.close_one_of(crowded);
            self.closed.fetch_add(1, Ordering::Relaxed);
        }
        let (id, close) = (table.next, CancellationToken::new());
        table.next += 1;
        table.all += 1;
        table.sources.entry(source).or_default().insert(id, Entry { silent: true, close: close.clone() });
        self.open.count.fetch_add(1, Ordering::Relaxed);
        ConnectionSlot { table: self.table.clone(), source, id, close, open: self.open.clone() }
    }

    /// Waits until no more connections are open than there may be: those that were told to close hold their files until
    /// they do.
    pub async fn room(&self) {
        loop {
            let mut one_less = std::pin::pin!(self.open.one_less.notified());
            one_less.as_mut().enable();
            if self.open.count.load(Ordering::Relaxed) <= self.limits.all {
                return;
            }
            one_less.await;
        }
    }

    /// Connections that were closed to make room.
    pub fn closed(&self) -> u64 {
        self.closed.load(Ordering::Relaxed)
    }
}

impl ConnectionSlot {
    /// Its first request is complete: silent connections are closed before it.
    pub fn speaks(&self) {
        let mut table = self.table.lock();
        if let Some(entry) = table.sources.get_mut(&self.source).and_then(|of_source| of_source.get_mut(&self.id)) {
            entry.silent = false;
        }
    }

    /// Cancelled when this connection is to be closed to make room for another one.
    pub fn close(&self) -> &CancellationToken {
        &self.close
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.table.lock().remove(self.source, self.id);
        self.open.count.fetch_sub(1, Ordering::Relaxed);
        self.open.one_less.notify_waiters();
    }
}

impl Table {
    fn largest_source(&self) -> Option<IpAddr> {
        self.sources.iter().max_by_key(|(_, connections)| connections.len()).map(|(source, _)| *source)
    }

    fn close_one_of(&mut self, source: IpAddr) {
        let Some(connections) = self.sources.get(&source) else { return };
        let silent = connections.iter().find(|(_, entry)| entry.silent);
        let Some((&id, _)) = silent.or_else(|| connections.first_key_value()) else { return };
        if let Some(entry) = self.remove(source, id) {
            entry.close.cancel();
        }
    }

    fn remove(&mut self, source: IpAddr, id: u64) -> Option<Entry> {
        let connections = self.sources.get_mut(&source)?;
        let entry = connections.remove(&id)?;
        self.all -= 1;
        if connections.is_empty() {
            self.sources.remove(&source);
        }
        Some(entry)
    }
}

/// Whom an address is counted for: one who has a network of IPv6 can use all of its addresses.
fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits { all: 4, per_source: 3 };

    fn closed(slots: &[ConnectionSlot]) -> Vec<usize> {
        (0..slots.len()).filter(|at| slots[*at].close().is_cancelled()).collect()
    }

    #[test]
    fn who_makes_room() {
        for (case, sources, speaking, want) in [
            ("there is room", &["10.0.0.1", "10.0.0.1", "10.0.0.1"][..], &[][..], &[][..]),
            ("the oldest of the same source", &["10.0.0.1"; 5], &[], &[0, 1]),
            ("silent ones first", &["10.0.0.1"; 4], &[0, 1], &[2]),
            ("the oldest where none is silent", &["10.0.0.1"; 4], &[0, 1, 2], &[0]),
            ("of the source with the most", &["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.0.4"], &[], &[1]),
            ("IPv6 by network", &["fd00::1", "fd00::2", "fd00::3", "fd00::4"], &[], &[0]),
            ("IPv4 in IPv6", &["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1", "::ffff:10.0.0.1"], &[], &[0]),
        ] {
            let table = ConnectionTable::new(LIMITS);
            let mut slots = Vec::new();
            for (at, source) in sources.iter().enumerate() {
                slots.push(table.add(source.parse().unwrap()));
                if speaking.contains(&at) {
                    slots[at].speaks();
                }
            }
            assert_eq!(closed(&slots), want, "{case}");
            assert_eq!(table.closed(), want.len() as u64, "{case}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_there_once_a_connection_has_closed() {
        let table = ConnectionTable::new(LIMITS);
        let mut slots: Vec<_> = (1..=4).map(|last| table.add(IpAddr::from([10, 0, 0, last]))).collect();
        table.room().await;
        slots.push(table.add(IpAddr::from([10, 0, 0, 5])));
        let waits = tokio::time::timeout(std::time::Duration::from_secs(60), table.room()).await;
        assert!(waits.is_err(), "it was told to close and has not yet");
        let told = closed(&slots)[0];
        let closes = async {
            tokio::task::yield_now().await;
            drop(slots.remove(told));
        };
        tokio::join!(table.room(), closes);
    }

    #[test]
    fn what_ends_leaves_room() {
        let table = ConnectionTable::new(LIMITS);
        let peer = IpAddr::from([10, 0, 0, 1]);
        for _ in 0..10 {
            let slots: Vec<_> = (0..3).map(|_| table.add(peer)).collect();
            assert_eq!(closed(&slots), [0; 0]);
        }
        assert!(table.table.lock().sources.is_empty());
        assert_eq!(table.table.lock().all, 0);
    }
}
