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

use maesh_config::{ServiceName, model::BackendPolicy};

use super::{BackendPort, graph::BackendId};
use crate::policy::CalledRuntime;

/// Run-time state of all ports.
#[derive(Default)]
pub(super) struct Runtime {
    backends: HashMap<BackendId, Arc<BackendPort>>,
    called: HashMap<ServiceName, HashMap<u16, Arc<CalledRuntime>>>,
}

impl Runtime {
    /// The state of a backend port; made, with this policy, if there is none.
    pub(super) fn of(&mut self, id: &BackendId, policy: &BackendPolicy) -> Arc<BackendPort> {
        match self.backends.entry(id.clone()) {
            Entry::Occupied(there) => there.get().clone(),
            Entry::Vacant(new) => new.insert(Arc::new(BackendPort::new(id.service.clone(), policy.clone()))).clone(),
        }
    }

    /// The state of a backend port, if there is one.
    pub(super) fn get(&self, id: &BackendId) -> Option<Arc<BackendPort>> {
        self.backends.get(id).cloned()
    }

    /// Ends the state of a backend port. Requests in flight on it go on.
    pub(super) fn remove(&mut self, id: &BackendId) {
        if let Some(backend) = self.backends.remove(id) {
            backend.retire();
        }
    }

    /// The state of a port that is called; made if there is none.
    pub(super) fn of_called(&mut self, service: &ServiceName, port: u16) -> Arc<CalledRuntime> {
        self.called.entry(service.clone()).or_default().entry(port).or_default().clone()
    }

    /// Ends the state of the ports of a called Service that `stays` does not name.
    pub(super) fn retain_called(&mut self, service: &ServiceName, stays: impl Fn(u16) -> bool) {
        if let Entry::Occupied(mut ports) = self.called.entry(service.clone()) {
            ports.get_mut().retain(|port, _| stays(*port));
            if ports.get().is_empty() {
                ports.remove();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.backends.len()
    }
}
