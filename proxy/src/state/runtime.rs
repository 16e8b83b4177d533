//! Run-time state: what the proxy has learnt and what is under way, by Service and port.
//!
//! It is apart from the configuration, so that a new snapshot of that does not lose it: requests in flight on a backend
//! port and of each caller, and per endpoint requests in flight, latencies and connections. It is no larger than the
//! configuration in force: it goes when the Service or port goes, or nothing sends there any more, and that of an endpoint
//! goes with the endpoint. A policy that counts (a limiter, a budget, a breaker) keeps its state here too.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use maesh_config::{
    ServiceName,
    model::{BackendPolicy, Transport},
};
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{BackendPort, graph::BackendId};
use crate::policy::CalledRuntime;

/// State of the ports of a Service by number; most have one.
type CalledPorts = SmallVec<[(u16, Arc<CalledRuntime>); 1]>;

/// Run-time state of all ports. One task changes it; metrics are read from it.
#[derive(Default)]
pub(crate) struct Runtime {
    backends: Mutex<HashMap<BackendId, Arc<BackendPort>>>,
    called: Mutex<HashMap<ServiceName, CalledPorts>>,
}

impl Runtime {
    /// The state of a backend port; made, with this policy, if there is none.
    pub(super) fn of(&self, id: &BackendId, policy: &Arc<BackendPolicy>) -> Arc<BackendPort> {
        match self.backends.lock().entry(id.clone()) {
            Entry::Occupied(there) => there.get().clone(),
            Entry::Vacant(new) => new.insert(Arc::new(BackendPort::new(id.service.clone(), policy.clone()))).clone(),
        }
    }

    /// The state of a backend port, if there is one.
    pub(super) fn get(&self, id: &BackendId) -> Option<Arc<BackendPort>> {
        self.backends.lock().get(id).cloned()
    }

    /// Ends the state of a backend port. Requests in flight on it go on.
    pub(super) fn remove(&self, id: &BackendId) {
        let removed = self.backends.lock().remove(id);
        if let Some(backend) = removed {
            backend.retire();
        }
    }

    /// The state of a port that is called; made if there is none.
    pub(super) fn of_called(&self, service: &ServiceName, port: u16) -> Arc<CalledRuntime> {
        let mut called = self.called.lock();
        let ports = called.entry(service.clone()).or_default();
        if let Some((_, there)) = ports.iter().find(|(number, _)| *number == port) {
            return there.clone();
        }
        let made = Arc::<CalledRuntime>::default();
        ports.push((port, made.clone()));
        made
    }

    /// Ends the state of the ports of a called Service that `stays` does not name.
    pub(super) fn retain_called(&self, service: &ServiceName, stays: impl Fn(u16) -> bool) {
        if let Entry::Occupied(mut ports) = self.called.lock().entry(service.clone()) {
            ports.get_mut().retain(|(port, _)| stays(*port));
            if ports.get().is_empty() {
                ports.remove();
            }
        }
    }

    /// All backend ports, in the order of their names.
    pub(crate) fn backends(&self) -> Vec<(ServiceName, (u16, Transport), Arc<BackendPort>)> {
        let seen = |(id, backend): (&BackendId, &Arc<BackendPort>)| {
            (id.service.clone(), (id.port, id.transport), backend.clone())
        };
        let mut all: Vec<_> = self.backends.lock().iter().map(seen).collect();
        all.sort_unstable_by(|(a, of_a, _), (b, of_b, _)| (a, of_a).cmp(&(b, of_b)));
        all
    }

    /// All ports that are called, in the order of their names. Nothing is learnt there of datagrams.
    pub(crate) fn called(&self) -> Vec<(ServiceName, (u16, Transport), Arc<CalledRuntime>)> {
        let mut all = Vec::new();
        for (service, ports) in self.called.lock().iter() {
            all.extend(ports.iter().map(|(port, runtime)| (service.clone(), (*port, Transport::Tcp), runtime.clone())));
        }
        all.sort_unstable_by(|(a, of_a, _), (b, of_b, _)| (a, of_a).cmp(&(b, of_b)));
        all
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.backends.lock().len()
    }
}
