//! Limits on flows of datagrams.
//!
//! A flow is opened by a datagram that nobody has to answer for: there is no handshake, and where a network allows it the
//! source may be forged. So flows are never refused for being many. A new one takes the place of an old one, and fairly: a
//! caller that has its share gives up one of its own, the one that was silent for longest. When all flows of the proxy are
//! in use, the caller with the most gives one up.
//!
//! Each flow has a descriptor, which is charged to its caller together with those of its connections.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use tokio::sync::Notify;

use super::Admission;

/// Most flows that were given up and have not closed their sockets yet.
const CLOSING: usize = 64;

/// All flows of the proxy.
#[derive(Default)]
pub(super) struct Flows {
    by_caller: HashMap<IpAddr, OfCaller, ahash::RandomState>,
    /// How many each caller has, to find the one with the most.
    by_count: BTreeSet<(usize, IpAddr)>,
    open: usize,
    /// Given up, but not closed.
    closing: usize,
}

/// Flows of one caller.
#[derive(Default)]
struct OfCaller {
    open: usize,
    /// About in the order of their last use: each with the time of use that decided its place. Some are closed already.
    queue: VecDeque<(Arc<FlowState>, u32)>,
}

/// What the limits know of a flow, and say to it.
#[derive(Debug)]
pub(crate) struct FlowState {
    caller: IpAddr,
    /// Coarse time of its last datagram.
    used: AtomicU32,
    /// It was given up.
    shed: AtomicBool,
    /// It is closed.
    closed: AtomicBool,
    /// Its descriptor is charged to its caller.
    charged: AtomicBool,
    news: Notify,
}

impl FlowState {
    /// Coarse time of its last datagram.
    pub(crate) fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// A datagram passed at `now`.
    pub(crate) fn touch(&self, now: u32) {
        if self.used() != now {
            self.used.store(now, Ordering::Relaxed);
        }
    }

    /// Whether it was given up, and has to close.
    pub(crate) fn is_shed(&self) -> bool {
        self.shed.load(Ordering::Acquire)
    }

    /// Has the flow look at what changed for it.
    pub(crate) fn wake(&self) {
        self.news.notify_one();
    }

    /// Until the flow has to look.
    pub(crate) async fn woken(&self) {
        self.news.notified().await;
    }

    fn is_open(&self) -> bool {
        !self.is_shed() && !self.closed.load(Ordering::Acquire)
    }
}

/// One open flow; over when dropped.
pub(crate) struct FlowPermit {
    of: Admission,
    state: Arc<FlowState>,
}

impl std::ops::Deref for FlowPermit {
    type Target = FlowState;

    fn deref(&self) -> &FlowState {
        &self.state
    }
}

impl Admission {
    /// Admits a flow of `caller` at `now`, in the place of another one where it has to be; `None` when there is none that
    /// may be given up. Also how many flows were given up for it.
    pub(crate) fn flow(&self, caller: IpAddr, now: u32) -> Option<(FlowPermit, usize)> {
        let inner = &*self.0;
        let (most, share) = (inner.budget.flows(), inner.budget.flows_per_caller());
        let mut flows = inner.flows.lock();
        if flows.closing >= CLOSING {
            return None;
        }
        let charged = flows.count(caller) < share && self.charge(caller, 1);
        let mut shed = 0;
        if !charged {
            // It takes over the charge.
            flows.shed_oldest(caller)?.charged.store(false, Ordering::Release);
            shed = 1;
        } else if flows.open >= most {
            let Some(_) = flows.to_give_up(caller).and_then(|from| flows.shed_oldest(from)) else {
                drop(flows);
                self.refund(caller, 1);
                return None;
            };
            shed = 1;
        }
        let state = flows.add(caller, now);
        Some((FlowPermit { of: self.clone(), state }, shed))
    }

    /// Flows that are open.
    #[cfg(test)]
    pub(crate) fn flows(&self) -> usize {
        self.0.flows.lock().open
    }
}

impl Drop for FlowPermit {
    fn drop(&mut self) {
        self.of.0.flows.lock().close(&self.state);
        if self.state.charged.load(Ordering::Acquire) {
            self.of.refund(self.state.caller, 1);
        }
    }
}

impl Flows {
    /// Whether this caller has a flow.
    pub(super) fn has(&self, caller: IpAddr) -> bool {
        self.by_caller.get(&caller).is_some_and(|of| of.open > 0)
    }

    fn count(&self, caller: IpAddr) -> usize {
        self.by_caller.get(&caller).map_or(0, |of| of.open)
    }

    /// Whose flow goes when all are in use and `caller` needs one: that of the caller with the most, if it has still no
    /// fewer than `caller` afterwards, else one of its own.
    fn to_give_up(&self, caller: IpAddr) -> Option<IpAddr> {
        let own = self.count(caller);
        let (count, most) = self.by_count.last().copied()?;
        if count >= own + 2 { Some(most) } else { (own > 0).then_some(caller) }
    }

    fn add(&mut self, caller: IpAddr, now: u32) -> Arc<FlowState> {
        let state = Arc::new(FlowState {
            caller,
            used: AtomicU32::new(now),
            shed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            charged: AtomicBool::new(true),
            news: Notify::new(),
        });
        self.open += 1;
        self.recount(caller, 1);
        let of = self.by_caller.entry(caller).or_default();
        of.queue.push_back((state.clone(), now));
        // What is closed is dropped before it outweighs what is open.
        if of.queue.len() > 2 * of.open + 8 {
            of.queue.retain(|(state, _)| state.is_open());
        }
        state
    }

    /// Gives up the flow of `caller` that was silent for longest, as far as the queue knows: one that was used since it
    /// got its place gets a new place instead.
    fn shed_oldest(&mut self, caller: IpAddr) -> Option<Arc<FlowState>> {
        let of = self.by_caller.get_mut(&caller)?;
        let mut turns = of.queue.len();
        loop {
            let (state, seen) = of.queue.pop_front()?;
            let used = state.used();
            if !state.is_open() {
                continue;
            }
            if used != seen && turns > 0 {
                turns -= 1;
                of.queue.push_back((state, used));
                continue;
            }
            state.shed.store(true, Ordering::Release);
            state.wake();
            self.open -= 1;
            self.closing += 1;
            self.recount(caller, -1);
            return Some(state);
        }
    }

    fn close(&mut self, state: &FlowState) {
        state.closed.store(true, Ordering::Release);
        if state.is_shed() {
            self.closing -= 1;
        } else {
            self.open -= 1;
            self.recount(state.caller, -1);
        }
    }

    fn recount(&mut self, caller: IpAddr, change: isize) {
        let of = self.by_caller.entry(caller).or_default();
        self.by_count.remove(&(of.open, caller));
        of.open = of.open.saturating_add_signed(change);
        if of.open > 0 {
            self.by_count.insert((of.open, caller));
        } else {
            self.by_caller.remove(&caller);
        }
    }
}

#[cfg(test)]
mod tests;
