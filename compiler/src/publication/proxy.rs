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

/// What proxies have bound, all together: which listeners every ready proxy has.
///
/// Most proxies have the same set of listeners, so that sets are counted and not proxies: one more proxy with a set that is
/// there already changes nothing for any listener.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    /// The proxies that are counted in.
    counted: BTreeMap<Arc<str>, ConnectedProxy>,
    /// The different sets of listeners of ready proxies, and how many proxies have each.
    sets: AHashMap<ListenerSet, usize>,
    having: AHashMap<ListenerId, ListenerCount>,
    /// Listeners that some proxy cannot have: which proxies, and why.
    failed: BTreeMap<ListenerId, BTreeMap<Arc<str>, Arc<str>>>,
}

#[derive(Debug, Default)]
struct ListenerCount {
    /// Sets that it is in.
    sets: usize,
    /// Every ready proxy has it.
    everywhere: bool,
}

impl Bound {
    /// Whether some proxy takes new work.
    pub(crate) fn anyone_ready(&self) -> bool {
        !self.sets.is_empty()
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
    /// done grows with the number of proxies, and with that of listeners for each set that appears or disappears.
    pub(crate) fn update(&mut self, proxies: &[ConnectedProxy]) -> BTreeSet<ListenerId> {
        let mut news = BTreeSet::new();
        let mut changed_sets = false;
        let mut before = std::mem::take(&mut self.counted);
        for proxy in proxies {
            let old = before.remove(&proxy.id);
            if old.as_ref() != Some(proxy) {
                changed_sets |= self.count(old.as_ref(), Some(proxy));
                self.note_failures(old.as_ref(), Some(proxy), &mut news);
            }
            self.counted.insert(proxy.id.clone(), old.filter(|old| old == proxy).unwrap_or_else(|| proxy.clone()));
        }
        for gone in before.values() {
            changed_sets |= self.count(Some(gone), None);
            self.note_failures(Some(gone), None, &mut news);
        }
        if changed_sets {
            let sets = self.sets.len();
            self.having.retain(|id, having| {
                let everywhere = having.sets > 0 && having.sets == sets;
                if std::mem::replace(&mut having.everywhere, everywhere) != everywhere {
                    news.insert(id.clone());
                }
                having.sets > 0
            });
        }
        news
    }

    /// Counts the set of a proxy that was `old` and is `new`. Returns whether a set appeared or disappeared.
    fn count(&mut self, old: Option<&ConnectedProxy>, new: Option<&ConnectedProxy>) -> bool {
        let of =
            |proxy: Option<&ConnectedProxy>| proxy.filter(|proxy| proxy.ready).map(|proxy| proxy.listening.clone());
        let (had, has) = (of(old), of(new));
        if had == has {
            return false;
        }
        let before = self.sets.len();
        let appeared = has.filter(|set| self.join(set)).unwrap_or_default();
        let disappeared = had.filter(|set| self.leave(set)).unwrap_or_default();
        for id in appeared.without(&disappeared) {
            self.having.entry(id.clone()).or_default().sets += 1;
        }
        for id in disappeared.without(&appeared) {
            if let Some(having) = self.having.get_mut(id) {
                having.sets -= 1;
            }
        }
        // Not by their length: a proxy without listeners has a set, too.
        before != self.sets.len() || appeared != disappeared
    }

    /// One more proxy has this set. Returns whether it is the first.
    fn join(&mut self, set: &ListenerSet) -> bool {
        let proxies = self.sets.entry(set.clone()).or_default();
        *proxies += 1;
        *proxies == 1
    }

    /// One proxy less has this set. Returns whether it was the last.
    fn leave(&mut self, set: &ListenerSet) -> bool {
        let Some(proxies) = self.sets.get_mut(set) else { return false };
        *proxies -= 1;
        let is_last = *proxies == 0;
        if is_last {
            self.sets.remove(set);
        }
        is_last
    }

    /// Notes what a proxy that was `old` and is `new` cannot bind.
    fn note_failures(
        &mut self,
        old: Option<&ConnectedProxy>,
        new: Option<&ConnectedProxy>,
        news: &mut BTreeSet<ListenerId>,
    ) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTENERS: u8 = 5;

    fn id(number: u8) -> ListenerId {
        ListenerId(format!("shared/{number}/tcp").into())
    }

    /// Proxies by number: whether they are ready, and what they listen on.
    type Drawn = Vec<(u8, bool, Vec<u8>)>;

    fn proxies(drawn: &Drawn) -> Vec<ConnectedProxy> {
        let proxy = |(number, ready, listening): &(u8, bool, Vec<u8>)| ConnectedProxy {
            id: format!("proxy-{number}").into(),
            node: None,
            addresses: Vec::new(),
            ready: *ready,
            listening: listening.iter().copied().map(id).collect(),
            failed: Arc::default(),
        };
        let mut proxies: Vec<_> = drawn.iter().map(proxy).collect();
        proxies.sort_by(|a, b| a.id.cmp(&b.id));
        proxies.dedup_by(|a, b| a.id == b.id);
        proxies
    }

    fn everywhere(proxies: &[ConnectedProxy], id: &ListenerId) -> bool {
        let mut ready = proxies.iter().filter(|proxy| proxy.ready).peekable();
        ready.peek().is_some() && ready.all(|proxy| proxy.listening.contains(id))
    }

    proptest! {
        /// After any changes, what holds is what all proxies together say, and the listeners named are those that changed.
        #[test]
        fn counting_sets_finds_what_every_proxy_has(
            steps in prop::collection::vec(
                prop::collection::vec((0..4_u8, any::<bool>(), prop::collection::vec(0..LISTENERS, 0..4)), 0..4), 1..8)
        ) {
            let (mut bound, mut before) = (Bound::default(), Vec::new());
            for step in steps {
                let now = proxies(&step);
                let news = bound.update(&now);
                prop_assert_eq!(bound.anyone_ready(), now.iter().any(|proxy| proxy.ready));
                for id in (0..LISTENERS).map(id) {
                    let holds = everywhere(&now, &id);
                    prop_assert_eq!(bound.everywhere(&id), holds);
                    prop_assert_eq!(news.contains(&id), holds != everywhere(&before, &id));
                }
                before = now;
            }
        }
    }
}
