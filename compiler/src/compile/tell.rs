//! What is said of each Service, once it is known where it stands and who listens for it.

use std::time::Instant;

use ahash::AHashSet;
use maesh_config::{
    ServiceName,
    model::{Answer, Name, NamePort, Resource, Transport},
};

use super::{Addressing, Compiler, ConnectedProxy, TableEntry, places::Served};
use crate::{
    diagnostic::{Diagnostic, Reason},
    plan::service::{self, Plan},
};

impl Compiler {
    /// Says which proxies there are, and finds the names for which that is news.
    pub(super) fn tell_proxies(&mut self, names: &mut AHashSet<ServiceName>) {
        let takes_work = |proxy: &ConnectedProxy| ConnectedProxy { ready: self.takes_work(proxy), ..proxy.clone() };
        let proxies: Vec<_> = self.proxies.iter().map(takes_work).collect();
        for id in self.bound.update(&proxies) {
            names.extend(self.listeners.needed_by(&id).cloned());
        }
        // Of a proxy that is as it was said to be, nothing is to be said.
        let told = |proxy: &ConnectedProxy| {
            let news = self.said_proxies.get(&proxy.id) != Some(proxy) && (self.settled || self.is_sure(proxy));
            (proxy.id.clone(), news.then(|| proxy.resource(proxy.ready)))
        };
        let told: Vec<_> = proxies.iter().map(told).collect();
        let there: AHashSet<_> = proxies.iter().map(|proxy| &proxy.id).collect();
        self.said_proxies.retain(|id, _| there.contains(id));
        for (proxy, _) in proxies.iter().zip(&told).filter(|(_, (_, news))| news.is_some()) {
            self.said_proxies.insert(proxy.id.clone(), proxy.clone());
        }
        self.out.replace_proxies(told);
        if !self.settled {
            return;
        }
        names.extend(std::mem::take(&mut self.unsure));
        self.out.diagnose("proxies", self.proxies.iter().flat_map(ConnectedProxy::check).collect());
    }

    /// Whether what is known of a proxy replaces what dns knew of it before this process started: it takes no new work,
    /// or it has said of every listener whether it could open it.
    fn is_sure(&self, proxy: &ConnectedProxy) -> bool {
        !self.takes_work(proxy)
            || self.listeners.all_tried(|id| proxy.listening.contains(id) || proxy.failed.contains_key(id))
    }

    pub(super) fn tell_listeners(&mut self) {
        for (id, listener, services) in self.listeners.changes() {
            let changed = self.out.set(maesh_config::Kind::Listener, &id.0, listener.map(Resource::Listener));
            if changed {
                self.out.touch(services);
            }
        }
    }

    pub(super) fn tell_name(&mut self, name: &ServiceName, now: Instant) {
        let key = name.to_string();
        let Some(compiled) = self.services.get(name) else {
            self.out.set(maesh_config::Kind::Name, &key, None);
            self.out.untable(name);
            self.out.diagnose(&format!("bind/{name}"), Vec::new());
            return;
        };
        let plan = &compiled.plan;
        let served = compiled.listens.iter().all(Option::is_some) && !plan.ports.is_empty();
        let acknowledged = served && self.acknowledged(name);
        let place = match (&compiled.standing, compiled.own) {
            (Some(standing), _) => self.places.served(standing, self.config.own_settle, now),
            (None, Some(address)) => Served::At(vec![address], None),
            (None, None) => Served::NotBefore(None),
        };
        if let Served::At(_, Some(at)) | Served::NotBefore(Some(at)) = &place {
            self.timers.insert((*at, name.clone()));
        }
        let fixed = plan.own || plan.one_address;
        let answer = match (plan.bypass || !served, fixed, place) {
            (true, ..) if plan.bypass => Answer::Plain,
            (true, ..) => Answer::Unserved,
            (false, false, _) => Answer::Node,
            (false, true, Served::At(addresses, _)) if acknowledged => Answer::Fixed(addresses),
            (false, true, _) => Answer::Unserved,
        };
        let port = |(port, listen): (&service::Port, &Option<u16>)| NamePort {
            number: port.number,
            protocol: port.protocol,
            name: port.name.clone(),
            listen: listen.unwrap_or(port.number),
        };
        let listens = plan.ports.iter().zip(&compiled.listens);
        let listen_of =
            |number| listens.clone().find(|(port, _)| port.number == number).and_then(|(_, listen)| *listen);
        let former = compiled.former.iter().map(|it| port((&it.port, &listen_of(it.port.number))));
        let headless = self.answers_endpoints(plan);
        let mut resource = Name {
            service: name.clone(),
            answer,
            plain: if headless { compiled.ready.clone() } else { plan.cluster_ips.clone() },
            headless,
            ports: plan.ports.iter().zip(&compiled.listens).map(port).collect(),
        };
        let bypass = plan.bypass || self.config.bypass;
        let failed = self.failed(name);
        let unserved = !served || !failed.is_empty();
        let address = match (&self.config.addressing, bypass || unserved, fixed) {
            (_, true, _) => resource.plain.first().copied(),
            (Addressing::Range(range), false, false) => Some(range.shared()),
            (Addressing::Range(_), false, true) => compiled.own,
            (Addressing::Cluster, false, false) => None,
            (Addressing::Cluster, false, true) => match &resource.answer {
                Answer::Fixed(addresses) => addresses.first().copied(),
                Answer::Node | Answer::Plain | Answer::Unserved => resource.plain.first().copied(),
            },
        };
        let settled = acknowledged || unserved || compiled.needs.is_empty();
        self.out.table(TableEntry::of(&resource, address, bypass, settled));
        resource.ports.extend(former);
        resource.ports.sort_unstable();
        // The proxies that listened on its own address before this process started may be on their way back.
        let may_come_back = fixed && served && resource.answer == Answer::Unserved;
        let serves = acknowledged && !matches!(resource.answer, Answer::Plain | Answer::Unserved);
        if may_come_back && !self.settled {
            self.unsure.insert(name.clone());
        } else if let Some(until) = self.unheard_until(name, serves || plan.bypass).filter(|until| *until > now) {
            self.timers.insert((until, name.clone()));
        } else {
            self.out.set(maesh_config::Kind::Name, &key, Some(Resource::Name(resource)));
        }
        self.out.diagnose(&format!("bind/{name}"), failed);
    }

    /// Whether its plain addresses are those of its endpoints. Of a Service that has no ClusterIP although it is not
    /// headless, as in manifests that no cluster has seen, only where it is bypassed on purpose: its endpoints need not
    /// listen on its port.
    pub(super) fn answers_endpoints(&self, plan: &Plan) -> bool {
        plan.headless || (plan.cluster_ips.is_empty() && (plan.bypass || self.config.bypass))
    }

    /// Until when nobody is to hear of a new name that no proxy `serves`: it would be answered with the plain address, which
    /// kube-proxy on the callers' nodes does not serve yet either. Who asks too early is better told that there is none.
    fn unheard_until(&self, name: &ServiceName, serves: bool) -> Option<Instant> {
        let compiled = self.services.get(name)?;
        let in_cluster = self.config.addressing == Addressing::Cluster && self.settled && self.bound.anyone_ready();
        let new = in_cluster && !serves && !self.out.has(maesh_config::Kind::Name, &name.to_string());
        new.then(|| compiled.since + self.config.own_settle)
    }

    /// Whether every ready proxy listens on all that this Service needs, and there is one.
    pub(super) fn acknowledged(&self, name: &ServiceName) -> bool {
        let needs = self.services.get(name).map(|compiled| &compiled.needs[..]).unwrap_or_default();
        !needs.is_empty() && needs.iter().all(|id| self.bound.everywhere(id))
    }

    /// What proxies could not bind of this Service's own listeners.
    fn failed(&self, name: &ServiceName) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        let Some(service) = self.index.services.get(name) else { return found };
        for listener in self.listeners.of(name) {
            let Some((_, number)) = &listener.owner else { continue };
            let mut failed = self.bound.failed(&listener.id);
            // One stands for all: what one proxy lacks, five hundred do, and mostly for the same reason.
            let Some((proxy, why)) = failed.next() else { continue };
            let others = match failed.len() {
                0 => String::new(),
                others => format!(" (as do {others} others)"),
            };
            let (reason, text) = match listener.transport {
                Transport::Udp => (
                    Reason::UnsupportedProtocol,
                    format!(
                        "port {number} is UDP, which this version does not carry; the Service's name answers its plain \
                         address. Give the ports that are not UDP a Service of their own, and they are carried."
                    ),
                ),
                Transport::Tcp => {
                    let plain = "Until then, the Service's name answers its plain address.";
                    (Reason::ListenFailed, format!("port {number}: proxy {proxy}{others} {why}. {plain}"))
                }
            };
            let bad = Diagnostic::of(reason, "Service", &service.meta, "spec.ports", text);
            found.push(bad.value(number.to_string()).using("its plain address"));
        }
        found
    }
}
