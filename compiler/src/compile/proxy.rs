//! The node proxies, from what the discovery server sees of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use maesh_config::{
    NodeName,
    model::{ListenerId, Proxy},
};

use crate::diagnostic::{Diagnostic, ObjectRef, Reason};

/// A proxy with an open stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectedProxy {
    /// Its name: the pod's, in a cluster.
    pub id: Arc<str>,
    /// Node it runs on, where it is known.
    pub node: Option<NodeName>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// It says that it takes new work.
    pub ready: bool,
    /// Listeners that it acknowledged.
    pub listening: Vec<ListenerId>,
    /// Listeners that it could not bind, with the reason.
    pub failed: Vec<(ListenerId, Arc<str>)>,
}

impl ConnectedProxy {
    /// Its resource; `ready` when callers may be sent there.
    pub(super) fn resource(&self, ready: bool) -> Proxy {
        let mut listening: Vec<u16> = self.listening.iter().filter_map(shared_port).collect();
        listening.sort_unstable();
        listening.dedup();
        let shared = |(id, why): &(ListenerId, Arc<str>)| Some((shared_port(id)?, why.clone()));
        let mut failed: Vec<_> = self.failed.iter().filter_map(shared).collect();
        failed.sort_unstable();
        let mut addresses = self.addresses.clone();
        addresses.sort_unstable();
        Proxy {
            id: self.id.clone(),
            // Without a node it is nobody's nearest, and still one of all.
            node: self.node.clone().unwrap_or_else(|| NodeName::from("")),
            addresses,
            ready,
            listening,
            failed,
        }
    }
}

impl ConnectedProxy {
    /// What it cannot do for everybody.
    pub(super) fn check(&self) -> Vec<Diagnostic> {
        let shared = |(id, why): &(ListenerId, Arc<str>)| Some((shared_port(id)?, why.clone()));
        let say = |(port, why): (u16, Arc<str>)| {
            let text = format!("{why}. Until then, names with port {port} are answered without this proxy.");
            let object = ObjectRef::new("Proxy", "", &self.id);
            Diagnostic::warning(Reason::ListenFailed, object, text).value(port.to_string()).using("other proxies")
        };
        self.failed.iter().filter_map(shared).map(say).collect()
    }
}

/// What proxies have bound, all together.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// Some proxy takes new work.
    pub(super) anyone_ready: bool,
    /// Listeners that every ready proxy has.
    pub(super) everywhere: BTreeSet<ListenerId>,
    /// Listeners that some proxy cannot have: which proxy, and why.
    pub(super) failed: BTreeMap<ListenerId, Vec<ProxyAndWhy>>,
}

type ProxyAndWhy = (Arc<str>, Arc<str>);

impl Bound {
    pub(super) fn of(proxies: &[ConnectedProxy], takes_work: impl Fn(&ConnectedProxy) -> bool) -> Self {
        let mut ready = proxies.iter().filter(|proxy| takes_work(proxy));
        let first = ready.next();
        let mut this = Self { anyone_ready: first.is_some(), ..Self::default() };
        this.everywhere.extend(first.into_iter().flat_map(|proxy| &proxy.listening).cloned());
        for proxy in ready {
            let has: BTreeSet<_> = proxy.listening.iter().collect();
            this.everywhere.retain(|id| has.contains(id));
        }
        for proxy in proxies {
            for (id, why) in &proxy.failed {
                this.failed.entry(id.clone()).or_default().push((proxy.id.clone(), why.clone()));
            }
        }
        this
    }

    /// Listeners of which `other` says something else.
    pub(super) fn differences<'a>(&'a self, other: &'a Self) -> BTreeSet<&'a ListenerId> {
        let mut ids: BTreeSet<_> = self.everywhere.symmetric_difference(&other.everywhere).collect();
        let failed = self.failed.keys().chain(other.failed.keys());
        ids.extend(failed.filter(|id| self.failed.get(*id) != other.failed.get(*id)));
        ids
    }
}

/// The port of a shared TCP listener.
fn shared_port(id: &ListenerId) -> Option<u16> {
    id.0.strip_prefix("shared/")?.strip_suffix("/tcp")?.parse().ok()
}
