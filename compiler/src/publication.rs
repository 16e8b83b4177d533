//! What is published, and when: resources, the table of Services, and the gates before which a name is withheld.

pub(crate) mod former;
pub(crate) mod name;
pub(crate) mod output;
pub(crate) mod proxy;

use std::{net::IpAddr, sync::Arc, time::Instant};

use ahash::{AHashMap, AHashSet};
use maesh_config::{
    Kind, ServiceName,
    model::{ListenerId, Resource},
};

pub(crate) use self::output::Outbox;
pub use self::output::{Output, TableEntry, TablePort};
use self::{
    former::FormerPort,
    proxy::{Bound, ConnectedProxy},
};
use crate::{
    facts::{Fact, View},
    index::Id,
    placement::listener::Listeners,
    plan::{Plans, access, endpoints, service::Plan},
    step::Step,
};

/// What is kept of a Service for its publication.
#[derive(Debug)]
struct Published {
    /// Since when it is in the mesh.
    since: Instant,
    /// Ports that carried another protocol within the drain window.
    former: Vec<FormerPort>,
    /// Addresses of ready endpoints, kept for Services without a ClusterIP.
    ready: Vec<IpAddr>,
}

/// What is published of Services and proxies.
#[derive(Debug, Default)]
pub(crate) struct Publication {
    services: AHashMap<ServiceName, Published>,
    proxies: Vec<ConnectedProxy>,
    bound: Bound,
    /// The proxies as they were last published.
    published_proxies: AHashMap<Arc<str>, ConnectedProxy>,
    /// Proxies that were there before this process started had the time to come back.
    settled: bool,
}

impl Publication {
    /// Takes in which proxies there are. Returns whether that is news.
    pub(crate) fn set_proxies(&mut self, mut proxies: Vec<ConnectedProxy>) -> bool {
        proxies.sort_by(|a, b| a.id.cmp(&b.id));
        proxies.dedup_by(|b, a| a.id == b.id);
        let news = self.proxies != proxies;
        self.proxies = proxies;
        news
    }

    /// The connected proxies, by name.
    pub(crate) fn proxies(&self) -> &[ConnectedProxy] {
        &self.proxies
    }

    /// The list of proxies is complete: from now on, a proxy that is not connected counts as gone.
    pub(crate) fn complete_proxies(&mut self) {
        self.settled = true;
    }

    /// Whether the list of proxies is complete.
    pub(crate) fn has_complete_proxies(&self, view: &View<'_>) -> bool {
        view.note(Fact::Settled);
        self.settled
    }

    fn anyone_ready(&self, view: &View<'_>) -> bool {
        view.note(Fact::AnyoneReady);
        self.bound.anyone_ready()
    }

    fn since(&self, name: &ServiceName) -> Option<Instant> {
        self.services.get(name).map(|published| published.since)
    }

    /// Ports of a Service that carried another protocol until not long ago.
    pub(crate) fn former(&self, name: &ServiceName) -> &[FormerPort] {
        self.services.get(name).map_or(&[], |published| &published.former)
    }

    /// The ready endpoints of a Service without a ClusterIP.
    pub(crate) fn ready_addresses(&self, name: &ServiceName) -> &[IpAddr] {
        self.services.get(name).map_or(&[], |published| &published.ready)
    }

    /// Publishes another plan of a Service.
    pub(crate) fn replan(&mut self, name: &ServiceName, old: Option<&Plan>, new: Option<&Plan>, step: &mut Step<'_>) {
        let Some(new) = new else {
            self.services.remove(name);
            step.out.set(Kind::Service, &name.to_string(), None);
            return;
        };
        let fresh = || Published { since: step.now, former: Vec::new(), ready: Vec::new() };
        let published = self.services.entry(name.clone()).or_insert_with(fresh);
        if let Some(old) = old.filter(|_| !step.config.horizon.is_zero()) {
            let until = step.now + step.config.horizon;
            published.former = former::former(old, &published.former, new, until);
            published.former.retain(|former| former.until > step.now);
            published.former.iter().for_each(|former| step.timers.set(former.until, name));
        }
        let resource = new.resource(published.former.iter().map(|former| &former.port));
        step.out.set(Kind::Service, &name.to_string(), Some(Resource::Service(resource)));
    }

    /// Drops the ports of a Service that carried another protocol, once no client can have cached that.
    pub(crate) fn expire(&mut self, name: &ServiceName, plan: Option<&Plan>, step: &mut Step<'_>) {
        let (Some(plan), Some(published)) = (plan, self.services.get_mut(name)) else { return };
        let before = published.former.len();
        published.former.retain(|former| former.until > step.now);
        if published.former.len() != before {
            let resource = plan.resource(published.former.iter().map(|former| &former.port));
            step.out.set(Kind::Service, &name.to_string(), Some(Resource::Service(resource)));
        }
    }

    /// Publishes the endpoints of a Service.
    pub(crate) fn endpoints(&mut self, name: &ServiceName, plans: &Plans, step: &mut Step<'_>) {
        let key = name.to_string();
        let (Some(plan), Some(published)) = (plans.get(name), self.services.get_mut(name)) else {
            step.out.set(Kind::Endpoints, &key, None);
            step.out.diagnose(&format!("access/{name}"), Vec::new());
            return;
        };
        let mut endpoints = endpoints::of(plan, &plans.forbidden, &step.view);
        if step.config.access_control.is_asked() {
            let found = access::apply(&mut endpoints, &step.view);
            step.out.diagnose(&format!("access/{name}"), Vec::from_iter(found));
        }
        if plan.cluster_ips.is_empty() {
            let ready = match plan.ports.is_empty() {
                true => endpoints::ready_of_all(plan, &step.view),
                false => endpoints::ready_addresses(&endpoints),
            };
            if published.ready != ready {
                published.ready = ready;
                step.changed(Fact::Ready(name.clone()));
            }
        }
        step.out.set(Kind::Endpoints, &key, Some(Resource::Endpoints(endpoints)));
    }

    /// Publishes which proxies there are.
    pub(crate) fn publish_proxies(&mut self, listeners: &Listeners, step: &mut Step<'_>) {
        let takes_work = |proxy: &ConnectedProxy| {
            let pod = step.view.pod(Id::new(step.config.mesh_namespace.clone(), proxy.id.clone()));
            ConnectedProxy { ready: proxy.takes_work(pod), ..proxy.clone() }
        };
        let proxies: Vec<_> = self.proxies.iter().map(takes_work).collect();
        let anyone_ready = self.bound.anyone_ready();
        for id in self.bound.update(&proxies) {
            step.changed(Fact::Bound(id));
        }
        if anyone_ready != self.bound.anyone_ready() {
            step.changed(Fact::AnyoneReady);
        }
        let settled = self.has_complete_proxies(&step.view);
        // A proxy that is as it was last published is left out.
        let changed = |proxy: &ConnectedProxy| {
            let news = self.published_proxies.get(&proxy.id) != Some(proxy) && (settled || is_known(proxy, listeners));
            (proxy.id.clone(), news.then(|| proxy.resource(proxy.ready)))
        };
        let changed: Vec<_> = proxies.iter().map(changed).collect();
        let there: AHashSet<_> = proxies.iter().map(|proxy| &proxy.id).collect();
        self.published_proxies.retain(|id, _| there.contains(id));
        for (proxy, _) in proxies.iter().zip(&changed).filter(|(_, (_, news))| news.is_some()) {
            self.published_proxies.insert(proxy.id.clone(), proxy.clone());
        }
        step.out.replace_proxies(changed);
        if settled {
            step.out.diagnose("proxies", self.proxies.iter().flat_map(ConnectedProxy::check).collect());
        }
    }
}

/// Whether what is known of a proxy replaces what dns knew of it before this process started: it takes no new work, or it
/// has said of every listener whether it could open it.
fn is_known(proxy: &ConnectedProxy, listeners: &Listeners) -> bool {
    let tried = |id: &ListenerId| proxy.listening.contains(id) || proxy.failed.contains_key(id);
    !proxy.ready || listeners.all_tried(tried)
}
