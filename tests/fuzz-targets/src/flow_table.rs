//! The flows of one listener: the table has what a plain map has, remembers endpoints that could not be reached for a bounded
//! number of flows, and knows when it is empty.
//!
//! Three bytes for each step.

mod flow {
    //! In place of a flow: what the table asks of one.

    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::table::Avoided;
    use crate::state::Endpoint;

    #[derive(Debug)]
    pub(super) struct Flow {
        endpoint: Arc<Endpoint>,
        avoided: Avoided,
        woken: AtomicUsize,
    }

    impl Flow {
        pub(super) fn new(endpoint: u8, avoided: Avoided) -> Arc<Self> {
            Arc::new(Self { endpoint: Arc::new(Endpoint(endpoint)), avoided, woken: AtomicUsize::new(0) })
        }

        pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
            &self.endpoint
        }

        pub(super) fn avoided(&self) -> Avoided {
            self.avoided.clone()
        }

        pub(super) fn wake(&self) {
            self.woken.fetch_add(1, Ordering::Relaxed);
        }

        pub(super) fn take_woken(&self) -> usize {
            self.woken.swap(0, Ordering::Relaxed)
        }
    }
}
#[path = "../../../proxy/src/udp/table.rs"]
mod table;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
};

use self::{
    flow::Flow,
    table::{Avoided, FlowKey, FlowTable, Found},
};
use crate::state::Endpoint;

/// Flows that are remembered because their endpoint could not be reached, and endpoints that one avoids.
const REFUSED: usize = 1024;
const AVOIDED: usize = 8;

pub(crate) fn run(steps: &[u8]) {
    let table = FlowTable::default();
    let mut run = Run::new(&table);
    for &[step, key, endpoint] in steps.as_chunks().0 {
        match step % 8 {
            0..=2 => run.datagram(key.into(), endpoint),
            3 => run.end(key.into(), false),
            4 => run.end(key.into(), true),
            5 => run.end_late(key.into(), endpoint & 1 == 0),
            6 => run.wake(),
            // Many callers at once whose endpoint is away.
            _ => (0..64).for_each(|number| {
                let key = 256 + u16::from(key) * 64 + number;
                run.datagram(key, endpoint);
                run.end(key, true);
            }),
        }
        run.check_emptied();
    }
}

fn key(number: u16) -> FlowKey {
    let [high, low] = number.to_be_bytes();
    // Two of them differ in the address of ours only.
    let to = (low & 1 == 1).then(|| [10, 9, 0, 1].into());
    FlowKey { caller: ([10, 0, high, low >> 1], 5_000).into(), to }
}

struct Run<'a> {
    table: &'a FlowTable,
    open: HashMap<u16, Arc<Flow>>,
    /// Endpoints that the next flow avoids, of keys whose last flow was refused.
    refused: HashMap<u16, Vec<u8>>,
    refusals: usize,
    /// Flows that have another one in their place.
    gone: Vec<(u16, Arc<Flow>)>,
    /// Somebody who waits until there is no flow.
    waiting: Pin<Box<dyn Future<Output = ()> + 'a>>,
}

impl<'a> Run<'a> {
    fn new(table: &'a FlowTable) -> Self {
        let waiting = Box::pin(table.emptied());
        Self { table, open: HashMap::new(), refused: HashMap::new(), refusals: 0, gone: Vec::new(), waiting }
    }

    /// What the table knows is what the model knows; without a flow, the endpoints to avoid.
    fn find(&mut self, number: u16) -> Option<Arc<Flow>> {
        match (self.table.find(&key(number)), self.open.get(&number)) {
            (Found::Open(found), Some(open)) => {
                assert!(Arc::ptr_eq(&found, open), "another one's flow");
                Some(found)
            }
            (Found::New(avoided), None) => {
                let avoided: Vec<u8> = avoided.iter().map(|endpoint| endpoint.0).collect();
                let known = self.refused.get(&number).cloned().unwrap_or_default();
                // Those of long ago may be forgotten.
                assert!(avoided == known || (avoided.is_empty() && self.refusals > REFUSED), "{avoided:?}: {known:?}");
                self.refused.insert(number, avoided);
                None
            }
            (found, open) => panic!("{}, and {}", matches!(found, Found::Open(_)), open.is_some()),
        }
    }

    /// A datagram: opens a flow where there is none. One of eight moves to another flow.
    fn datagram(&mut self, number: u16, endpoint: u8) {
        let avoided = match self.find(number) {
            Some(_) if endpoint & 7 != 7 => return,
            Some(found) => {
                self.gone.push((number, found));
                Avoided::new()
            }
            None => {
                self.refused.remove(&number).unwrap_or_default().into_iter().map(|it| Arc::new(Endpoint(it))).collect()
            }
        };
        let flow = Flow::new(endpoint, avoided);
        self.table.insert(key(number), flow.clone());
        self.open.insert(number, flow);
    }

    /// A flow ends by itself, or because its endpoint cannot be reached.
    fn end(&mut self, number: u16, refused: bool) {
        let Some(flow) = self.open.remove(&number) else { return };
        if refused {
            self.table.refuse(&key(number), &flow);
            let mut avoided: Vec<u8> = flow.avoided().iter().map(|endpoint| endpoint.0).collect();
            if avoided.len() >= AVOIDED {
                avoided.clear();
            }
            avoided.push(flow.endpoint().0);
            assert!(avoided.len() <= AVOIDED);
            self.refused.insert(number, avoided);
            self.refusals += 1;
        } else {
            self.table.remove(&key(number), &flow);
        }
        self.find(number);
    }

    /// One that was moved ends: that changes nothing.
    fn end_late(&mut self, at: usize, refused: bool) {
        if self.gone.is_empty() {
            return;
        }
        let (number, flow) = self.gone.swap_remove(at % self.gone.len());
        if refused {
            self.table.refuse(&key(number), &flow);
        } else {
            self.table.remove(&key(number), &flow);
        }
        self.find(number);
    }

    fn wake(&mut self) {
        self.table.wake_all();
        assert!(self.open.values().all(|flow| flow.take_woken() == 1), "each of them once");
        assert!(self.gone.iter().all(|(_, flow)| flow.take_woken() == 0), "and no other");
    }

    /// Who waits for the table to be empty is told when it is, and not before.
    fn check_emptied(&mut self) {
        let is_told = self.waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert_eq!(is_told, self.open.is_empty());
        if is_told {
            self.waiting = Box::pin(self.table.emptied());
        }
    }
}
