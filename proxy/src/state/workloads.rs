//! What is known of callers' addresses.
//!
//! A caller's workload is asked for at its first connection, so that it is here when something depends on it: a `Host` of
//! one label, a Service whose traffic stays on the caller's node. What depends on it waits, for a bounded time. The number
//! of addresses asked for is bounded, and those unused for long are let go of.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use maesh_config::model::{Workload, WorkloadKind};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::shard::Sharded;
use crate::clock::Clock;

/// Most addresses asked for. The pods of a node are some hundreds; callers of other nodes come here while their own proxy
/// is away.
const MOST: usize = 16_384;

/// Addresses up to which one is asked for that only sent a datagram: its source may be forged, and must not take the place of callers
/// that open connections.
const MOST_FOR_DATAGRAMS: usize = MOST / 2;

/// Who calls again after this long may be another pod with the same address.
const PAUSE: Duration = Duration::from_secs(5);

/// Beyond so many, addresses are let go of earlier: those of pods after [`SHORT`], those at which nobody is after [`PAUSE`]. Forged
/// sources of datagrams are among the latter.
const MANY: usize = MOST / 8;
const SHORT: Duration = Duration::from_secs(30);

/// Workloads by address.
#[derive(Default)]
pub(crate) struct Workloads {
    by_address: Sharded<IpAddr, Arc<Workload>>,
    /// Addresses asked for.
    asked: Mutex<HashMap<IpAddr, Asked, ahash::RandomState>>,
    arrived: Notify,
}

/// An address that was asked for.
struct Asked {
    /// Coarse time of the question, and of the last use.
    at: u32,
    used: u32,
    /// Since when nothing is known to be there, as far as its caller is concerned: who comes back after a pause may be another
    /// one.
    unknown_since: u32,
    /// The controller has answered, be it that there is nothing.
    answered: bool,
}

impl Workloads {
    /// The pod, or node, at this address.
    pub(crate) fn at(&self, address: IpAddr) -> Option<Arc<Workload>> {
        self.by_address.get(&address)
    }

    /// Whether the controller has said what is at `address`, be it that there is nothing.
    pub(super) fn is_answered(&self, address: IpAddr) -> bool {
        self.asked.lock().get(&address).is_some_and(|asked| asked.answered)
    }

    /// Notes that `address` calls at `now`; whether it is to be asked for.
    pub(super) fn note_use(&self, address: IpAddr, now: u32) -> bool {
        let mut asked = self.asked.lock();
        if let Some(known) = asked.get_mut(&address) {
            if u64::from(now.wrapping_sub(known.used)) > PAUSE.as_millis() as u64 {
                known.unknown_since = now;
            }
            known.used = now;
            return false;
        }
        let room = asked.len() < MOST;
        if room {
            asked.insert(address, Asked { at: now, used: now, unknown_since: now, answered: false });
        }
        room
    }

    /// Whether `address`, which sent a datagram, is asked for already or may be.
    pub(crate) fn has_room_for_sender(&self, address: IpAddr) -> bool {
        let asked = self.asked.lock();
        asked.len() < MOST_FOR_DATAGRAMS || asked.contains_key(&address)
    }

    /// Notes that a request of `address` went on at `now`, after it was held.
    pub(super) fn note_end_of_hold(&self, address: IpAddr, now: u32) {
        if let Some(asked) = self.asked.lock().get_mut(&address) {
            asked.used = now;
        }
    }

    /// Waits until the controller has said what is at `address`, or until `longest` has passed since it was asked.
    /// Returns at once for an address that was not asked for.
    pub(super) async fn settled(&self, address: IpAddr, clock: &Clock, longest: Duration) {
        let Some(left) = self.left(address, clock, longest) else { return };
        let answered = async {
            loop {
                let arrived = self.arrived.notified();
                if self.left(address, clock, longest).is_none() {
                    return;
                }
                arrived.await;
            }
        };
        let _ = tokio::time::timeout(left, answered).await;
    }

    /// Waits until it is known who has `address`. An answer is waited for as in [`Self::settled`]; that nobody has the address
    /// is believed after `hold`.
    pub(super) async fn identified(&self, address: IpAddr, clock: &Clock, longest: Duration, hold: Duration) {
        loop {
            let arrived = self.arrived.notified();
            let left = self.awaited(address, clock, longest, hold);
            let Some(left) = left.filter(|_| self.at(address).is_none()) else { return };
            let _ = tokio::time::timeout(left, arrived).await;
        }
    }

    /// Whether [`Self::identified`] would wait.
    pub(super) fn is_awaited(&self, address: IpAddr, clock: &Clock, longest: Duration, hold: Duration) -> bool {
        self.awaited(address, clock, longest, hold).is_some()
    }

    fn awaited(&self, address: IpAddr, clock: &Clock, longest: Duration, hold: Duration) -> Option<Duration> {
        self.left(address, clock, longest).or_else(|| self.held(address, clock, hold))
    }

    /// How long it is not yet believed that nobody has `address`; `None` if it is, or nobody asked or answered.
    fn held(&self, address: IpAddr, clock: &Clock, hold: Duration) -> Option<Duration> {
        let asked = self.asked.lock();
        let asked = asked.get(&address).filter(|asked| asked.answered)?;
        Some(hold.saturating_sub(clock.since(asked.unknown_since))).filter(|left| !left.is_zero())
    }

    /// How long an answer about `address` may still be waited for; `None` if it is here or cannot come.
    fn left(&self, address: IpAddr, clock: &Clock, longest: Duration) -> Option<Duration> {
        let asked = self.asked.lock();
        let asked = asked.get(&address).filter(|asked| !asked.answered)?;
        Some(longest.saturating_sub(clock.since(asked.at))).filter(|left| !left.is_zero())
    }

    /// Applies a batch: new workloads, and names of those that are gone. Ranges say nothing of a caller here. What was kept
    /// over a restart counts as asked for, at `now`.
    pub(super) fn apply(&self, upserts: &[Arc<Workload>], removed: &[Arc<str>], now: u32) {
        let gone = removed.iter().filter_map(|name| name.parse().ok()).map(|address: IpAddr| (address, None));
        let new = upserts
            .iter()
            .filter(|workload| workload.kind != WorkloadKind::PodRange)
            .map(|workload| (workload.address.addr().to_canonical(), Some(workload.clone())));
        let changes: Vec<_> = gone.chain(new).collect();
        let addresses: Vec<_> = changes.iter().map(|(address, _)| *address).collect();
        self.by_address.apply(changes);
        // In steps: new connections of callers take this lock.
        for step in addresses.chunks(64) {
            let mut asked = self.asked.lock();
            for address in step {
                let new = Asked { at: now, used: now, unknown_since: now, answered: false };
                let asked = asked.entry(*address).or_insert(new);
                if asked.answered {
                    // A pod that is gone may be followed by another one with its address.
                    asked.unknown_since = now;
                }
                asked.answered = true;
            }
        }
        self.arrived.notify_waiters();
    }

    /// Lets go of addresses unused for `idle`, and returns them. What `is_used` counts as used now.
    pub(super) fn expire(&self, clock: &Clock, idle: Duration, is_used: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
        let mut asked = self.asked.lock();
        let is_crowded = asked.len() > MANY;
        let is_over = |address: &IpAddr, asked: &mut Asked| {
            let idle = match is_crowded {
                false => idle,
                true if asked.answered && self.at(*address).is_none() => idle.min(PAUSE),
                true => idle.min(SHORT),
            };
            let is_old = clock.since(asked.used) > idle;
            if is_old && is_used(*address) {
                asked.used = clock.coarse();
                return false;
            }
            is_old
        };
        let unused: Vec<_> = asked.extract_if(is_over).map(|(address, _)| address).collect();
        drop(asked);
        self.by_address.apply(unused.iter().map(|address| (*address, None)));
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_asked_for_are_bounded() {
        let workloads = Workloads::default();
        let address = |last: usize| IpAddr::from(u32::try_from(last).expect("small").to_be_bytes());
        let ask = |last| workloads.has_room_for_sender(address(last)) && workloads.note_use(address(last), 0);
        assert_eq!((0..MOST).filter(|last| ask(*last)).count(), MOST / 2, "forged sources leave room for others");
        assert!(workloads.has_room_for_sender(address(0)), "asked for already");
        assert!((MOST / 2..MOST).all(|last| workloads.note_use(address(last), 0)));
        assert!(!workloads.note_use(address(MOST), 0), "there is no room");
        assert!(!workloads.note_use(address(0), 0), "asked for already");
    }
}
