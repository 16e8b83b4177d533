//! Bounds the connections of a port that anybody can reach.
//!
//! A new connection is always accepted. If there are too many already, another one is closed for it: one of the same
//! source if that has as many as one source may have, else one of the source that has the most. Of that source's
//! connections the oldest silent one is closed, or the oldest if none is silent. If several sources have the most, the
//! oldest silent connection of all of them is closed. So a peer that opens many connections closes its own, and a probe,
//! which opens one and sends its request at once, is answered whatever else is connected.
//!
//! Whoever accepts connections waits until those that make room are closed ([`ConnectionTable::room`]), so that there is
//! never more than one above the limit.
//!
//! Sources are kept in the order in which they lose connections: no operation looks at all of them.

use std::{
    cmp::Reverse,
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
    table: Arc<Mutex<TableInner>>,
    closed: Arc<AtomicU64>,
    open: Arc<OpenCount>,
}

/// Connections that are not closed yet, those included that are told to close.
#[derive(Debug, Default)]
struct OpenCount {
    count: AtomicUsize,
    one_less: Notify,
}

/// A connection in a [`ConnectionTable`]; dropping it takes it out.
#[derive(Debug)]
pub struct ConnectionSlot {
    table: Arc<Mutex<TableInner>>,
    source: IpAddr,
    id: u64,
    close: CancellationToken,
    open: Arc<OpenCount>,
}

/// In which order connections are closed: silent ones, which have not sent a whole request yet, before others; of these
/// the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    speaks: bool,
    id: u64,
}

/// In which order sources lose a connection: the one with the most first; of these the one whose next is first.
type Rank = (Reverse<usize>, Order);

/// The connections of a source, the next to be closed first.
type Connections = BTreeMap<Order, CancellationToken>;

#[derive(Debug, Default)]
struct TableInner {
    next: u64,
    all: usize,
    sources: HashMap<IpAddr, Connections>,
    /// Every source once.
    ranking: BTreeMap<Rank, IpAddr>,
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
            table.ranking.first_key_value().map(|(_, source)| *source)
        } else {
            None
        };
        if let Some(close) = crowded.and_then(|crowded| table.remove_next(crowded)) {
            close.cancel();
            self.closed.fetch_add(1, Ordering::Relaxed);
        }
        let (id, close) = (table.next, CancellationToken::new());
        table.next += 1;
        table.change(source, |connections| connections.insert(Order { speaks: false, id }, close.clone()));
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
    pub fn mark_active(&self) {
        let mut table = self.table.lock();
        let [silent, speaks] = self.keys();
        if !table.sources.get(&self.source).is_some_and(|connections| connections.contains_key(&silent)) {
            return;
        }
        table.change(self.source, |connections| {
            connections.remove(&silent).and_then(|close| connections.insert(speaks, close))
        });
    }

    /// Cancelled when this connection is to be closed to make room for another one.
    pub fn close(&self) -> &CancellationToken {
        &self.close
    }

    /// Where it may be in the table: as a silent one, and as one that speaks.
    fn keys(&self) -> [Order; 2] {
        [false, true].map(|speaks| Order { speaks, id: self.id })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let [silent, speaks] = self.keys();
        self.table.lock().change(self.source, |connections| {
            connections.remove(&silent).or_else(|| connections.remove(&speaks));
        });
        self.open.count.fetch_sub(1, Ordering::Relaxed);
        self.open.one_less.notify_waiters();
    }
}

impl TableInner {
    /// Takes out the connection of `source` that is to be closed first.
    fn remove_next(&mut self, source: IpAddr) -> Option<CancellationToken> {
        self.change(source, |connections| connections.pop_first().map(|(_, close)| close))
    }

    /// Changes the connections of `source`, and with them its rank.
    fn change<T>(&mut self, source: IpAddr, change: impl FnOnce(&mut Connections) -> T) -> T {
        let connections = self.sources.entry(source).or_default();
        if let Some(rank) = rank(connections) {
            self.ranking.remove(&rank);
        }
        self.all -= connections.len();
        let changed = change(connections);
        self.all += connections.len();
        match rank(connections) {
            Some(rank) => drop(self.ranking.insert(rank, source)),
            None => drop(self.sources.remove(&source)),
        }
        changed
    }
}

/// `None` without connections.
fn rank(connections: &Connections) -> Option<Rank> {
    connections.first_key_value().map(|(next, _)| (Reverse(connections.len()), *next))
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
    use proptest::prelude::*;

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
            (
                "the oldest of all on a tie",
                &["10.0.0.4", "10.0.0.3", "10.0.0.2", "10.0.0.1", "10.0.0.5", "10.0.0.6"],
                &[],
                &[0, 1],
            ),
            (
                "the oldest silent one of all on a tie",
                &["10.0.0.4", "10.0.0.3", "10.0.0.2", "10.0.0.1", "10.0.0.5"],
                &[0, 1],
                &[2],
            ),
            (
                "the oldest of all on a tie where none is silent",
                &["10.0.0.4", "10.0.0.3", "10.0.0.2", "10.0.0.1", "10.0.0.5"],
                &[0, 1, 2, 3],
                &[0],
            ),
            ("of the source with the most", &["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.0.4"], &[], &[1]),
            ("IPv6 by network", &["fd00::1", "fd00::2", "fd00::3", "fd00::4"], &[], &[0]),
            ("IPv4 in IPv6", &["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1", "::ffff:10.0.0.1"], &[], &[0]),
        ] {
            let table = ConnectionTable::new(LIMITS);
            let mut slots = Vec::new();
            for (at, source) in sources.iter().enumerate() {
                slots.push(table.add(source.parse().unwrap()));
                if speaking.contains(&at) {
                    slots[at].mark_active();
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
        let table = table.table.lock();
        assert!(table.sources.is_empty() && table.ranking.is_empty());
        assert_eq!(table.all, 0);
    }

    /// Which of `open` (source, whether it speaks, number) is closed for one more of `source`, found by looking at all.
    fn closed_for(open: &[(u8, bool, usize)], source: u8) -> Option<usize> {
        let count = |source: u8| open.iter().filter(|it| it.0 == source).count();
        let most = open.iter().map(|it| count(it.0)).max().unwrap_or(0);
        let of_source = count(source) >= LIMITS.per_source;
        if !of_source && open.len() < LIMITS.all {
            return None;
        }
        let may_close = |it: &&(u8, bool, usize)| if of_source { it.0 == source } else { count(it.0) == most };
        open.iter().filter(may_close).min_by_key(|it| (it.1, it.2)).map(|it| it.2)
    }

    proptest! {
        /// However connections come, speak and end: the one that is closed is the one that the rule says.
        #[test]
        fn the_one_that_is_closed_is_the_one_of_the_rule(steps in prop::collection::vec((0_u8..4, 0_u8..6, any::<prop::sample::Index>()), 0..200)) {
            let table = ConnectionTable::new(LIMITS);
            let mut open: Vec<(u8, bool, usize)> = Vec::new();
            let mut slots: Vec<Option<ConnectionSlot>> = Vec::new();
            for (what, source, which) in steps {
                match what {
                    0 if !open.is_empty() => {
                        let (_, _, number) = open.remove(which.index(open.len()));
                        slots[number] = None;
                    }
                    1 if !open.is_empty() => {
                        let it = which.get_mut(&mut open);
                        it.1 = true;
                        slots[it.2].iter().for_each(ConnectionSlot::mark_active);
                    }
                    _ => {
                        let want = closed_for(&open, source);
                        open.retain(|it| Some(it.2) != want);
                        open.push((source, false, slots.len()));
                        slots.push(Some(table.add(IpAddr::from([10, 0, 0, source]))));
                    }
                }
                for (number, slot) in slots.iter().enumerate() {
                    let is_open = slot.as_ref().is_some_and(|slot| !slot.close().is_cancelled());
                    prop_assert_eq!(is_open, open.iter().any(|it| it.2 == number), "{}: {:?}", number, &open);
                }
                prop_assert_eq!(table.table.lock().all, open.len());
            }
        }
    }
}
