//! Limits on connections and listeners, counted in file descriptors of the process.
//!
//! A process that has no descriptor left cannot accept, dial, answer a probe or reach the controller. So the number
//! that the system allows is divided once at the start ([`Budget`]), and what callers open is charged to them: a
//! connection costs two, its own and the one towards an endpoint; each further exchange that needs a connection of its
//! own costs one more. One caller holds a fifth of what is left at most. Idle connections to endpoints and the admin
//! port cannot be charged to a caller, so descriptors are reserved for them. [`Admission::has_descriptors`] keeps the
//! reserve free: the system always gives out the lowest number that is free, so a high number says how many are in use.

mod flows;
mod lingering;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

pub(crate) use self::flows::FlowPermit;
use self::{flows::Flows, lingering::Lingering};
use crate::config::Limits;

/// Descriptors of a connection: its own, and one towards an endpoint.
const CONNECTION: usize = 2;

/// One caller may hold this fraction of the descriptors for callers: one fifth.
const SHARES: usize = 5;

/// Flows of datagrams may have this fraction of the descriptors for callers: one quarter. Their callers need no handshake.
const FLOWS: usize = 4;

/// Reserved for the process itself: standard streams, logs, the discovery stream, the state file, resolvers.
const PROCESS: usize = 48;

/// Reserved for each worker thread: its event loop.
const WORKER: usize = 4;

/// Most connections that were refused and stay open for a moment.
const LINGERING: usize = 256;

/// Most pipes of one worker; each has two descriptors.
const PIPES: usize = 128;

/// With room for fewer connections of callers than this, the proxy does not start.
const FEWEST: usize = 32;

/// How the process's descriptors are divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// All that the process may have.
    pub(crate) open_files: usize,
    /// For the process, what else runs in it, the event loops, and connections that were refused.
    reserved: usize,
    /// Refused connections that stay open for a moment.
    lingering: usize,
    /// Pipes that each worker may lend.
    pub(crate) pipes_per_worker: usize,
    /// For connections to endpoints that nobody uses at the moment.
    idle: usize,
    /// For listeners and callers.
    rest: usize,
    /// Connections in all, by the settings.
    connections: usize,
    /// Connections of one caller, by the settings.
    connections_per_caller: usize,
    /// Flows of datagrams, by the settings.
    flows: usize,
}

/// The process may not open enough files to serve anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the process may open {open_files} files, and a proxy with {workers} threads needs {needed}: raise the limit of open \
     files (`ulimit -n`), or use fewer threads"
)]
pub struct TooFewFiles {
    open_files: usize,
    workers: usize,
    needed: usize,
}

impl Budget {
    /// Divides `open_files` descriptors for a proxy with so many `workers`; `limits` can only lower what results.
    pub(crate) fn new(open_files: usize, workers: usize, limits: &Limits) -> Result<Self, TooFewFiles> {
        let lingering = (open_files / 32).min(LINGERING);
        let reserved = PROCESS + limits.other_files + lingering + WORKER * workers;
        let pipes_per_worker = (open_files / (16 * workers)).min(2 * PIPES) / 2;
        let left = open_files.saturating_sub(reserved + 2 * pipes_per_worker * workers);
        let idle = left / 8;
        let budget = Self {
            open_files,
            reserved,
            lingering,
            pipes_per_worker,
            idle,
            rest: left - idle,
            connections: limits.connections,
            connections_per_caller: limits.connections_per_caller,
            flows: limits.flows,
        };
        if budget.rest < FEWEST * CONNECTION {
            let needed = (reserved + FEWEST * CONNECTION) * 3 / 2;
            return Err(TooFewFiles { open_files, workers, needed });
        }
        Ok(budget)
    }

    /// Most listeners.
    fn listeners(&self) -> usize {
        self.rest / 2
    }

    /// Most connections of callers while there are so many listeners.
    pub(crate) fn connections(&self, listeners: usize) -> usize {
        (self.rest.saturating_sub(listeners) / CONNECTION).min(self.connections)
    }

    /// Most flows of datagrams.
    pub(crate) fn flows(&self) -> usize {
        (self.rest / FLOWS).min(self.flows)
    }

    /// Most flows of one caller.
    pub(crate) fn flows_per_caller(&self) -> usize {
        (self.flows() / SHARES).max(1)
    }

    /// Most descriptors of one caller while there are so many listeners.
    fn per_caller(&self, listeners: usize) -> usize {
        let fair = self.rest.saturating_sub(listeners) / SHARES;
        fair.min(self.connections_per_caller.saturating_mul(CONNECTION)).max(CONNECTION)
    }

    /// Most connections of one caller while there are so many listeners.
    pub(crate) fn connections_per_caller(&self, listeners: usize) -> usize {
        self.per_caller(listeners) / CONNECTION
    }
}

/// Counts what is open against the budget.
#[derive(Clone)]
pub(crate) struct Admission(Arc<AdmissionInner>);

struct AdmissionInner {
    budget: Budget,
    /// Connections of callers.
    connections: AtomicUsize,
    /// Descriptors charged to callers.
    charged: AtomicUsize,
    listeners: AtomicUsize,
    flows: Mutex<Flows>,
    lingering: Lingering,
    /// Descriptors charged to each caller.
    by_caller: Mutex<HashMap<IpAddr, usize, ahash::RandomState>>,
}

impl Admission {
    /// Nothing is open.
    pub(crate) fn new(budget: Budget) -> Self {
        Self(Arc::new(AdmissionInner {
            lingering: Lingering::new(budget.lingering),
            budget,
            connections: AtomicUsize::new(0),
            charged: AtomicUsize::new(0),
            listeners: AtomicUsize::new(0),
            flows: Mutex::default(),
            by_caller: Mutex::default(),
        }))
    }

    /// How the descriptors are divided.
    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Connections of callers that are open.
    pub(crate) fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// Admits a connection of `caller`; `None` when a limit is reached.
    pub(crate) fn connection(&self, caller: IpAddr) -> Option<ConnectionPermit> {
        let inner = &*self.0;
        let most = inner.budget.connections(inner.listeners.load(Ordering::Relaxed));
        if inner.connections.fetch_add(1, Ordering::Relaxed) >= most || !self.charge(caller, CONNECTION) {
            inner.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(ConnectionPermit(Arc::new(Permit {
            of: self.clone(),
            caller,
            exchanges: Mutex::new(Exchanges { charged: CONNECTION, running: 0 }),
        })))
    }

    /// Whether this caller has a connection or flow open.
    pub(crate) fn is_calling(&self, caller: IpAddr) -> bool {
        self.0.by_caller.lock().contains_key(&caller) || self.0.flows.lock().has(caller)
    }

    /// Connections that were refused.
    pub(crate) fn lingering(&self) -> &Lingering {
        &self.0.lingering
    }

    /// Admits so many listeners more; says how many there may be when that is too many.
    pub(crate) fn listeners(&self, more: usize) -> Result<(), usize> {
        let most = self.0.budget.listeners();
        if self.0.listeners.fetch_add(more, Ordering::Relaxed) + more > most {
            self.0.listeners.fetch_sub(more, Ordering::Relaxed);
            return Err(most);
        }
        Ok(())
    }

    /// So many listeners were closed.
    pub(crate) fn listeners_closed(&self, count: usize) {
        self.0.listeners.fetch_sub(count, Ordering::Relaxed);
    }

    /// Whether a connection that the system gave this descriptor leaves the reserves alone: as it gives the lowest one
    /// that is free, at least so many are in use.
    pub(crate) fn has_descriptors(&self, descriptor: i32) -> bool {
        let budget = &self.0.budget;
        usize::try_from(descriptor).is_ok_and(|used| used + budget.reserved < budget.open_files)
    }

    fn charge(&self, caller: IpAddr, descriptors: usize) -> bool {
        let inner = &*self.0;
        let listeners = inner.listeners.load(Ordering::Relaxed);
        let left = inner.budget.rest.saturating_sub(listeners);
        if inner.charged.fetch_add(descriptors, Ordering::Relaxed) + descriptors > left {
            inner.charged.fetch_sub(descriptors, Ordering::Relaxed);
            return false;
        }
        let mut by_caller = inner.by_caller.lock();
        let charged = by_caller.entry(caller).or_insert(0);
        if *charged + descriptors > inner.budget.per_caller(listeners) {
            if *charged == 0 {
                by_caller.remove(&caller);
            }
            inner.charged.fetch_sub(descriptors, Ordering::Relaxed);
            return false;
        }
        *charged += descriptors;
        true
    }

    fn refund(&self, caller: IpAddr, descriptors: usize) {
        self.0.charged.fetch_sub(descriptors, Ordering::Relaxed);
        let mut by_caller = self.0.by_caller.lock();
        if let Some(charged) = by_caller.get_mut(&caller) {
            *charged -= descriptors;
            if *charged == 0 {
                by_caller.remove(&caller);
            }
        }
    }
}

/// One open connection of a caller; free again when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct ConnectionPermit(Arc<Permit>);

struct Permit {
    of: Admission,
    caller: IpAddr,
    exchanges: Mutex<Exchanges>,
}

/// Exchanges of one connection that each need a connection to an endpoint.
struct Exchanges {
    /// Descriptors charged for all of it. Grows and shrinks in steps, so that the table of all callers is seldom touched.
    charged: usize,
    running: usize,
}

/// One exchange that needs a connection to an endpoint for itself; over when dropped.
pub(crate) struct ExchangePermit(ConnectionPermit);

impl ConnectionPermit {
    /// Admits an exchange that needs a connection to an endpoint for itself; `None` when the caller holds too much. The
    /// first one is paid for with the connection.
    pub(crate) fn exchange(&self) -> Option<ExchangePermit> {
        let permit = &*self.0;
        let mut exchanges = permit.exchanges.lock();
        let needed = exchanges.running + CONNECTION;
        if needed > exchanges.charged {
            let step = exchanges.charged;
            let more = if permit.of.charge(permit.caller, step) {
                step
            } else if permit.of.charge(permit.caller, needed - exchanges.charged) {
                needed - exchanges.charged
            } else {
                return None;
            };
            exchanges.charged += more;
        }
        exchanges.running += 1;
        Some(ExchangePermit(self.clone()))
    }
}

impl Drop for ExchangePermit {
    fn drop(&mut self) {
        let permit = &*self.0.0;
        let mut exchanges = permit.exchanges.lock();
        exchanges.running -= 1;
        let enough = (exchanges.running + CONNECTION) * 4;
        if exchanges.charged > enough {
            let back = exchanges.charged - enough / 2;
            exchanges.charged -= back;
            permit.of.refund(permit.caller, back);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.of.refund(self.caller, self.exchanges.get_mut().charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn admission(open_files: usize, limits: &Limits) -> Admission {
        Admission::new(Budget::new(open_files, 1, limits).expect("enough"))
    }

    /// As many connections as are admitted.
    fn all_of(admission: &Admission, caller: IpAddr) -> Vec<ConnectionPermit> {
        std::iter::from_fn(|| admission.connection(caller)).take(100_000).collect()
    }

    #[test]
    fn a_budget_adds_up_and_flags_only_lower_it() {
        for (case, open_files, workers, limits) in [
            ("a small limit", 300, 1, Limits::default()),
            ("what container runtimes used to give", 1_024, 2, Limits::default()),
            ("twenty thousand", 20_000, 4, Limits::default()),
            ("a million", 1_048_576, 4, Limits::default()),
            ("fewer by a flag", 20_000, 4, Limits { connections: 100, connections_per_caller: 7, ..Limits::default() }),
        ] {
            let budget = Budget::new(open_files, workers, &limits).expect(case);
            let divided = budget.reserved + 2 * budget.pipes_per_worker * workers + budget.idle + budget.rest;
            assert_eq!(divided, open_files, "{case}");
            assert!(budget.connections(0) * CONNECTION <= budget.rest, "{case}");
            assert!(budget.per_caller(0) * SHARES <= budget.rest, "{case}");
            assert!(budget.connections(0) <= limits.connections, "{case}");
            assert!(budget.connections_per_caller(0) <= limits.connections_per_caller, "{case}");
        }
        let error = Budget::new(150, 2, &Limits::default()).expect_err("too few").to_string();
        assert!(error.contains("150 files") && error.contains("2 threads"), "{error}");
    }

    #[test]
    fn two_callers_leave_room_for_a_third() {
        let admission = admission(1_024, &Limits::default());
        let (of_a, of_b) = (all_of(&admission, A), all_of(&admission, B));
        assert!(of_a.len() >= 50, "{}", of_a.len());
        assert_eq!(of_a.len(), of_b.len());
        let others: Vec<_> = (3..=5).map(|last| all_of(&admission, IpAddr::from([10, 0, 0, last])).len()).collect();
        assert_eq!(others, [of_a.len(); 3], "five have a fifth each");
        drop((of_a, of_b));
        assert_eq!(admission.connections(), 0);
        assert!(admission.0.by_caller.lock().is_empty());
        assert_eq!(admission.0.charged.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn listeners_take_from_what_is_left_for_callers() {
        let admission = admission(1_024, &Limits::default());
        let before = all_of(&admission, A).len();
        let most = admission.listeners(10_000).expect_err("too many");
        admission.listeners(most).expect("as many as there may be");
        assert_eq!(admission.listeners(1), Err(most));
        let during = all_of(&admission, A).len();
        assert!(during > 0 && during < before, "{during} of {before}");
        admission.listeners_closed(most);
        assert_eq!(all_of(&admission, A).len(), before);
    }

    #[test]
    fn exchanges_over_one_connection_are_charged_to_its_caller() {
        let admission = admission(1_024, &Limits::default());
        let connection = admission.connection(A).expect("the first one");
        let exchanges: Vec<_> = std::iter::from_fn(|| connection.exchange()).take(100_000).collect();
        // The connection itself, and each exchange.
        assert_eq!(exchanges.len() + 1, admission.budget().per_caller(0));
        assert!(admission.connection(A).is_none(), "it holds its fifth");
        assert!(admission.connection(B).is_some());
        drop(exchanges);
        assert!(admission.connection(A).is_some(), "given back while the connection stays");
        drop(connection);
        assert_eq!(admission.0.charged.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_high_descriptor_says_that_the_reserve_begins() {
        let admission = admission(1_024, &Limits::default());
        let reserved = i32::try_from(admission.budget().reserved).expect("small");
        assert!(admission.has_descriptors(3));
        assert!(admission.has_descriptors(1_023 - reserved));
        assert!(!admission.has_descriptors(1_024 - reserved));
    }
}
