//! The node proxies, from what the discovery server sees of them.

use std::sync::Arc;

use maesh_config::{
    NodeName,
    model::{ListenerId, Proxy},
    update::Identity,
};

/// A proxy with an open stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectedProxy {
    /// Who it is.
    pub identity: Identity,
    /// It takes new work.
    pub ready: bool,
    /// Listeners that it acknowledged.
    pub listening: Vec<ListenerId>,
    /// Listeners that it could not bind, with the reason.
    pub failed: Vec<(ListenerId, Arc<str>)>,
}

impl ConnectedProxy {
    /// Its resource.
    pub(super) fn resource(&self) -> Proxy {
        let mut listening: Vec<u16> = self.listening.iter().filter_map(shared_port).collect();
        listening.sort_unstable();
        listening.dedup();
        let shared = |(id, why): &(ListenerId, Arc<str>)| Some((shared_port(id)?, why.clone()));
        let mut failed: Vec<_> = self.failed.iter().filter_map(shared).collect();
        failed.sort_unstable();
        let mut addresses = self.identity.addresses.clone();
        addresses.sort_unstable();
        Proxy {
            id: self.identity.id.clone(),
            // Without a node it is nobody's nearest, and still one of all.
            node: self.identity.node.clone().unwrap_or_else(|| NodeName::from("")),
            addresses,
            ready: self.ready,
            listening,
            failed,
        }
    }
}

/// The port of a shared TCP listener.
fn shared_port(id: &ListenerId) -> Option<u16> {
    id.0.strip_prefix("shared/")?.strip_suffix("/tcp")?.parse().ok()
}
