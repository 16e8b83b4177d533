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

use maesh_config::model::BackendPolicy;

use super::{BackendPort, graph::BackendId};

/// Run-time state of all backend ports.
#[derive(Default)]
pub(super) struct Runtime(HashMap<BackendId, Arc<BackendPort>>);

impl Runtime {
    /// The state of a backend port; made, with this policy, if there is none.
    pub(super) fn of(&mut self, id: &BackendId, policy: &BackendPolicy) -> Arc<BackendPort> {
        match self.0.entry(id.clone()) {
            Entry::Occupied(there) => there.get().clone(),
            Entry::Vacant(new) => new.insert(Arc::new(BackendPort::new(id.service.clone(), policy.clone()))).clone(),
        }
    }

    /// The state of a backend port, if there is one.
    pub(super) fn get(&self, id: &BackendId) -> Option<Arc<BackendPort>> {
        self.0.get(id).cloned()
    }

    /// Ends the state of a backend port. Requests in flight on it go on.
    pub(super) fn remove(&mut self, id: &BackendId) {
        if let Some(backend) = self.0.remove(id) {
            backend.retire();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
