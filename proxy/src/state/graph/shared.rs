//! Values that many resources repeat, held once.
//!
//! Each resource is decoded by itself, so the node of ten thousand endpoints and the policy of five thousand Services
//! would be there as often. A proxy has to be small on every node.

use std::sync::Arc;

use maesh_config::{
    NodeName,
    intern::Interner,
    model::{Account, BackendPolicy, CalledPolicy, Endpoint, EndpointHints, Endpoints, Service},
};

/// Names of nodes and zones, ServiceAccounts and policies.
#[derive(Debug, Default)]
pub(super) struct SharedValues {
    names: Interner<str>,
    accounts: Interner<Account>,
    called: Interner<CalledPolicy>,
    backend: Interner<BackendPolicy>,
}

impl SharedValues {
    /// `service`, with policies that it shares with others.
    pub(super) fn service(&self, service: &Service) -> Service {
        let mut service = service.clone();
        for port in &mut service.ports {
            port.called = self.called.share(port.called.clone());
            port.backend = self.backend.share(port.backend.clone());
        }
        service
    }

    /// `endpoints`, with names of nodes and zones that it shares with others.
    pub(super) fn endpoints(&self, endpoints: &Endpoints) -> Endpoints {
        let mut endpoints = endpoints.clone();
        for port in &mut endpoints.ports {
            port.endpoints.iter_mut().for_each(|endpoint| self.endpoint(endpoint));
            let sources =
                port.access.iter_mut().flat_map(|access| &mut access.grants).flat_map(|grant| &mut grant.sources);
            sources.for_each(|account| *account = self.accounts.share(account.clone()));
        }
        endpoints
    }

    fn endpoint(&self, endpoint: &mut Endpoint) {
        let node = |node: NodeName| NodeName(self.names.share(node.0));
        endpoint.node = endpoint.node.take().map(node);
        endpoint.hints = endpoint.hints.take().and_then(|hints| {
            let EndpointHints { zones, nodes } = *hints;
            let zones = zones.into_iter().map(|zone: Arc<str>| self.names.share(zone)).collect();
            EndpointHints::new(zones, nodes.into_iter().map(node).collect())
        });
    }
}
