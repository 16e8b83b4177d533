//! The flows of one listener.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::flow::Flow;
use crate::state::Endpoint;

/// Most flows whose endpoint could not be reached that are remembered.
const REFUSED: usize = 1024;

/// Most endpoints that one flow avoids.
const AVOIDED: usize = 8;

/// What makes datagrams one flow. The addresses are as the listener's socket has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    pub(super) caller: SocketAddr,
    /// Where they are sent to; `None` where the socket has only one address.
    pub(super) to: Option<IpAddr>,
}

/// Endpoints that could not be reached.
pub(super) type Avoided = SmallVec<[Arc<Endpoint>; 2]>;

/// What is known of a flow.
enum Entry {
    Open(Arc<Flow>),
    /// It ended because its endpoint could not be reached. The next one goes to another endpoint.
    Refused(Avoided),
}

#[derive(Default)]
struct Entries {
    flows: HashMap<FlowKey, Entry, ahash::RandomState>,
    open: usize,
    /// Those that were refused, oldest first; some were opened again since.
    refused: VecDeque<FlowKey>,
}

/// The flows of one listener.
#[derive(Default)]
pub(super) struct FlowTable {
    entries: Mutex<Entries>,
    empty: Notify,
}

/// What is found for a datagram.
pub(super) enum Found {
    /// Its flow.
    Open(Arc<Flow>),
    /// There is none. A new one had better not use these endpoints.
    New(Avoided),
}

impl FlowTable {
    pub(super) fn find(&self, key: &FlowKey) -> Found {
        match self.entries.lock().flows.get(key) {
            Some(Entry::Open(flow)) => Found::Open(flow.clone()),
            Some(Entry::Refused(avoided)) => Found::New(avoided.clone()),
            None => Found::New(Avoided::new()),
        }
    }

    pub(super) fn insert(&self, key: FlowKey, flow: Arc<Flow>) {
        let mut entries = self.entries.lock();
        if !matches!(entries.flows.insert(key, Entry::Open(flow)), Some(Entry::Open(_))) {
            entries.open += 1;
        }
    }

    /// The flow has ended.
    pub(super) fn remove(&self, key: &FlowKey, flow: &Arc<Flow>) {
        let mut entries = self.entries.lock();
        if entries.has(key, flow) {
            entries.flows.remove(key);
            self.closed(&mut entries);
        }
    }

    /// The flow has ended, because its endpoint cannot be reached: remembers that for the next one.
    pub(super) fn refuse(&self, key: &FlowKey, flow: &Arc<Flow>) {
        let mut entries = self.entries.lock();
        if !entries.has(key, flow) {
            return;
        }
        let mut avoided = flow.avoided();
        if avoided.len() >= AVOIDED {
            avoided.clear();
        }
        avoided.push(flow.endpoint().clone());
        entries.flows.insert(*key, Entry::Refused(avoided));
        entries.refused.push_back(*key);
        if entries.refused.len() > REFUSED
            && let Some(oldest) = entries.refused.pop_front()
            && let Some(Entry::Refused(_)) = entries.flows.get(&oldest)
        {
            entries.flows.remove(&oldest);
        }
        self.closed(&mut entries);
    }

    fn closed(&self, entries: &mut Entries) {
        entries.open -= 1;
        if entries.open == 0 {
            self.empty.notify_waiters();
        }
    }

    /// Has every flow look at what changed for it.
    pub(super) fn wake_all(&self) {
        for entry in self.entries.lock().flows.values() {
            if let Entry::Open(flow) = entry {
                flow.wake();
            }
        }
    }

    /// Until there is no flow.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.empty.notified();
            if self.entries.lock().open == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Entries {
    fn has(&self, key: &FlowKey, flow: &Arc<Flow>) -> bool {
        matches!(self.flows.get(key), Some(Entry::Open(there)) if Arc::ptr_eq(there, flow))
    }
}
