//! How many connections are open, in all and of each caller.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::config::Limits;

/// Counts open connections against the limits.
#[derive(Clone)]
pub(crate) struct Occupancy(Arc<Inner>);

struct Inner {
    most: usize,
    most_per_caller: usize,
    total: AtomicUsize,
    by_caller: Mutex<HashMap<IpAddr, usize, ahash::RandomState>>,
}

/// One open connection; free again when dropped.
pub(crate) struct Place {
    of: Occupancy,
    caller: IpAddr,
}

impl Occupancy {
    /// Nobody is here.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Inner {
            most: limits.connections,
            most_per_caller: limits.connections_per_caller,
            total: AtomicUsize::new(0),
            by_caller: Mutex::default(),
        }))
    }

    /// Open connections in all.
    pub(crate) fn total(&self) -> usize {
        self.0.total.load(Ordering::Relaxed)
    }

    /// A place for a connection of `caller`; `None` when a limit is reached.
    pub(crate) fn enter(&self, caller: IpAddr) -> Option<Place> {
        if self.0.total.fetch_add(1, Ordering::Relaxed) >= self.0.most {
            self.0.total.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let mut by_caller = self.0.by_caller.lock();
        let count = by_caller.entry(caller).or_insert(0);
        if *count >= self.0.most_per_caller {
            self.0.total.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        *count += 1;
        Some(Place { of: self.clone(), caller })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.0.total.fetch_sub(1, Ordering::Relaxed);
        let mut by_caller = self.of.0.by_caller.lock();
        if let Some(count) = by_caller.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                by_caller.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_places_are_given_back() {
        let limits = Limits { connections: 3, connections_per_caller: 2, ..Limits::default() };
        let here = Occupancy::new(&limits);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = here.enter(a);
        let second = here.enter(a);
        assert!(first.is_some() && second.is_some());
        assert!(here.enter(a).is_none(), "one caller has two");
        let third = here.enter(b);
        assert!(third.is_some());
        assert!(here.enter(b).is_none(), "three in all");
        drop(second);
        assert!(here.enter(b).is_some());
        drop((first, third));
        assert_eq!(here.total(), 0);
    }
}
