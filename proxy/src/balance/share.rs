//! What one caller may hold of a backend's concurrency.
//!
//! `concurrency` protects a backend, whoever calls it. Without a second bound one caller that reads slowly, or not at all,
//! could hold all of it, and everybody else would be refused. So one caller address holds at most three quarters of it
//! (rounded up); at 1,024 that leaves 256 to others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::Mutex;

/// Requests in flight of each caller, on one backend port.
#[derive(Default)]
pub(crate) struct Shares(Mutex<HashMap<IpAddr, Arc<AtomicU32>, ahash::RandomState>>);

/// One request in flight of a caller; over when dropped.
pub(crate) struct Share(Arc<AtomicU32>);

/// Where a connection's last request was counted: the next one mostly goes to the same backend, and then does not touch
/// the table that all workers share.
#[derive(Default)]
pub(crate) struct LastShare(Mutex<Option<(Arc<Shares>, Arc<AtomicU32>)>>);

impl LastShare {
    /// Counts a request of `caller` in at a backend, unless it holds its part of `limit` already.
    pub(crate) fn enter(&self, shares: &Arc<Shares>, caller: IpAddr, limit: u32) -> Option<Share> {
        let held = {
            let mut last = self.0.lock();
            match &*last {
                Some((of, held)) if Arc::ptr_eq(of, shares) => held.clone(),
                _ => last.insert((shares.clone(), shares.of(caller))).1.clone(),
            }
        };
        if held.fetch_add(1, Ordering::Relaxed) >= part_of(limit) {
            held.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Share(held))
    }
}

impl Shares {
    fn of(&self, caller: IpAddr) -> Arc<AtomicU32> {
        let mut all = self.0.lock();
        if let Some(held) = all.get(&caller) {
            return held.clone();
        }
        // Callers that hold nothing are forgotten when the table would grow; so it is no larger than twice what is in use.
        if all.len() == all.capacity() {
            all.retain(|_, held| Arc::strong_count(held) > 1);
        }
        all.entry(caller).or_default().clone()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Three quarters, rounded up.
fn part_of(limit: u32) -> u32 {
    limit - limit / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_leaves_a_quarter_to_others() {
        for (limit, most) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (8, 6), (1024, 768)] {
            let (shares, caller) = (Arc::<Shares>::default(), IpAddr::from([10, 0, 0, 1]));
            // Two connections of one caller.
            let connections = [LastShare::default(), LastShare::default()];
            let enter = |at: u32| connections[at as usize % 2].enter(&shares, caller, limit);
            let held: Vec<_> = (0..limit).map_while(enter).collect();
            assert_eq!(held.len(), most, "of {limit}");
            let other = LastShare::default().enter(&shares, IpAddr::from([10, 0, 0, 2]), limit);
            assert_eq!(other.is_some(), limit > 0, "another caller, of {limit}");
            let elsewhere = connections[0].enter(&Arc::default(), caller, limit);
            assert_eq!(elsewhere.is_some(), limit > 0, "another backend, of {limit}");
            drop(held);
            assert_eq!(enter(0).is_some(), limit > 0, "given back, of {limit}");
        }
    }

    #[test]
    fn callers_that_left_are_forgotten() {
        let shares = Arc::<Shares>::default();
        for last in 0..100_000_u32 {
            drop(LastShare::default().enter(&shares, IpAddr::from(last.to_be_bytes()), 4));
        }
        assert!(shares.0.lock().len() < 100, "{}", shares.0.lock().len());
    }
}
