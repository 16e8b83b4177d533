//! The node proxies, from what the discovery server sees of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ahash::AHashMap;
use maesh_config::{
    NodeName,
    model::{ListenerId, ListenerSet, Proxy},
};

use crate::{
    diagnostic::{Diagnostic, ObjectRef, Reason},
    kinds::Pod,
};

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
    pub listening: ListenerSet,
    /// Listeners that it could not bind, with the reason.
    pub failed: Arc<BTreeMap<ListenerId, Arc<str>>>,
}

impl ConnectedProxy {
    /// Whether callers may be sent to it: it says so on its stream, and the kubelet does not say otherwise of its pod. A
    /// proxy that hangs says nothing, and the kubelet notices within seconds.
    pub(crate) fn takes_work(&self, pod: Option<&Pod>) -> bool {
        self.ready && pod.is_none_or(|pod| pod.ready && !pod.ended)
    }

    /// Its resource; `ready` when callers may be sent there.
    pub(crate) fn resource(&self, ready: bool) -> Proxy {
        let mut listening: Vec<u16> = self.listening.iter().filter_map(shared_port).collect();
        listening.sort_unstable();
        listening.dedup();
        let shared = |(id, why): (&ListenerId, &Arc<str>)| Some((shared_port(id)?, why.clone()));
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
    pub(crate) fn check(&self) -> Vec<Diagnostic> {
        let shared = |(id, why): (&ListenerId, &Arc<str>)| Some((shared_port(id)?, why.clone()));
        let say = |(port, why): (u16, Arc<str>)| {
            let text = format!("{why}. Until then, names with port {port} are answered without this proxy.");
            let object = ObjectRef::new("Proxy", "", &self.id);
            Diagnostic::warning(Reason::ListenFailed, object, text).value(port.to_string()).using("other proxies")
        };
        self.failed.iter().filter_map(shared).map(say).collect()
    }
}

/// What proxies have bound, all together: of each listener how many ready proxies have it.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    /// The proxies that are counted in.
    counted: BTreeMap<Arc<str>, ConnectedProxy>,
    /// How many of them take new work.
    ready: usize,
    having: AHashMap<ListenerId, Having>,
    /// Listeners that some proxy cannot have: which proxies, and why.
    failed: BTreeMap<ListenerId, BTreeMap<Arc<str>, Arc<str>>>,
}

#[derive(Debug, Default)]
struct Having {
    /// Ready proxies that have it.
    proxies: usize,
    /// Every ready proxy has it.
    everywhere: bool,
}

impl Bound {
    /// Whether some proxy takes new work.
    pub(crate) fn anyone_ready(&self) -> bool {
        self.ready > 0
    }

    /// Whether every ready proxy has this listener, and there is one.
    pub(crate) fn everywhere(&self, id: &ListenerId) -> bool {
        self.having.get(id).is_some_and(|having| having.everywhere)
    }

    /// The proxies that cannot have a listener, and why.
    pub(crate) fn failed(&self, id: &ListenerId) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<str>)> {
        static NONE: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
        self.failed.get(id).unwrap_or(&NONE).iter()
    }

    /// Takes in which proxies there are now. Returns the listeners of which something else holds than before. What is
    /// done grows with the proxies that changed, and with the number of listeners, not with their product.
    pub(crate) fn update(&mut self, proxies: &[ConnectedProxy]) -> BTreeSet<ListenerId> {
        let mut news = BTreeSet::new();
        let mut before = std::mem::take(&mut self.counted);
        for proxy in proxies {
            let old = before.remove(&proxy.id);
            if old.as_ref() != Some(proxy) {
                self.change(old.as_ref(), Some(proxy), &mut news);
            }
            self.counted.insert(proxy.id.clone(), old.filter(|old| old == proxy).unwrap_or_else(|| proxy.clone()));
        }
        for gone in before.values() {
            self.change(Some(gone), None, &mut news);
        }
        let ready = self.ready;
        self.having.retain(|id, having| {
            let everywhere = ready > 0 && having.proxies == ready;
            if std::mem::replace(&mut having.everywhere, everywhere) != everywhere {
                news.insert(id.clone());
            }
            having.proxies > 0
        });
        news
    }

    fn change(&mut self, old: Option<&ConnectedProxy>, new: Option<&ConnectedProxy>, news: &mut BTreeSet<ListenerId>) {
        let nothing = ListenerSet::default();
        let of =
            |proxy: Option<&ConnectedProxy>| proxy.filter(|proxy| proxy.ready).map(|proxy| proxy.listening.clone());
        let (had, has) = (of(old), of(new));
        self.ready = self.ready + usize::from(has.is_some()) - usize::from(had.is_some());
        let (had, has) = (had.unwrap_or_else(|| nothing.clone()), has.unwrap_or(nothing));
        for id in had.without(&has) {
            if let Some(having) = self.having.get_mut(id) {
                having.proxies -= 1;
            }
        }
        for id in has.without(&had) {
            match self.having.get_mut(id) {
                Some(having) => having.proxies += 1,
                None => {
                    self.having.insert(id.clone(), Having { proxies: 1, everywhere: false });
                }
            }
        }
        let failed = |proxy: Option<&ConnectedProxy>| proxy.map(|proxy| proxy.failed.clone()).unwrap_or_default();
        let (before, now) = (failed(old), failed(new));
        if before == now {
            return;
        }
        let Some(proxy) = old.or(new).map(|proxy| proxy.id.clone()) else { return };
        for (id, _) in before.iter().filter(|(id, why)| now.get(*id) != Some(*why)) {
            if let Some(all) = self.failed.get_mut(id) {
                all.remove(&proxy);
                if all.is_empty() {
                    self.failed.remove(id);
                }
            }
            news.insert(id.clone());
        }
        for (id, why) in now.iter().filter(|(id, why)| before.get(*id) != Some(*why)) {
            self.failed.entry(id.clone()).or_default().insert(proxy.clone(), why.clone());
            news.insert(id.clone());
        }
    }
}

/// The port of a shared TCP listener.
fn shared_port(id: &ListenerId) -> Option<u16> {
    id.0.strip_prefix("shared/")?.strip_suffix("/tcp")?.parse().ok()
}
