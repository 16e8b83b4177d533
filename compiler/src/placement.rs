//! Where a Service is listened for: its address, its listening ports, and what it has left and still serves.

pub(crate) mod address;
pub(crate) mod listener;
pub(crate) mod places;

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use ahash::AHashMap;
use maesh_config::{
    ServiceName,
    model::{ListenerId, Protocol},
};

use self::{
    address::{Addressing, SharedPorts},
    listener::{Listeners, OwnListener},
    places::{Listen, OwnAddressPlace, OwnAddresses, Served},
};
use crate::{
    diagnostic::{Diagnostic, Reason},
    facts::{Fact, View},
    own_address,
    plan::{
        Plans,
        service::{Age, Plan, Port},
    },
    publication::former::FormerPort,
    step::Step,
};

/// Where one Service is listened for.
#[derive(Debug, Default)]
pub(crate) struct ServicePlacement {
    /// Its own address in a cluster, with all of its ports.
    pub(crate) standing: Option<OwnAddressPlace>,
    /// Listeners of the shared address that it left within the drain window.
    left: Vec<(OwnListener, Instant)>,
    /// Listeners without which its name must not resolve to them.
    pub(crate) needs: Vec<ListenerId>,
    /// Listening ports, in the order of the plan's ports.
    pub(crate) listens: Vec<Option<u16>>,
}

/// Where all Services are listened for.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    placed: AHashMap<ServiceName, ServicePlacement>,
    /// Services that need an own address, oldest first.
    owning: BTreeSet<Age>,
    /// Services whose name resolves to the one address that is the same for everybody.
    together: BTreeSet<ServiceName>,
    /// Own addresses in a range.
    own: AHashMap<ServiceName, IpAddr>,
    /// They need more ports than the proxies have for them.
    pool_exhausted: bool,
    /// Own addresses of a cluster.
    places: OwnAddresses,
    shared: SharedPorts,
    pub(crate) listeners: Listeners,
}

impl Placement {
    pub(crate) fn get(&self, name: &ServiceName) -> Option<&ServicePlacement> {
        self.placed.get(name)
    }

    /// The own address of a Service in a range.
    pub(crate) fn own_address(&self, name: &ServiceName, view: &View<'_>) -> Option<IpAddr> {
        view.note(Fact::OwnAddress(name.clone()));
        self.own.get(name).copied()
    }

    /// The addresses on which a Service stands, whether or not callers can be sent there.
    pub(crate) fn addresses(&self, standing: &OwnAddressPlace) -> &[IpAddr] {
        self.places.addresses(standing)
    }

    /// Where a Service stands on an own address of a cluster, with all of its ports.
    fn standing(&self, plan: &Plan, view: &View<'_>) -> Option<OwnAddressPlace> {
        view.note(Fact::Placement(places::owner(plan)?));
        self.places.standing(plan)
    }

    /// Whether callers can be sent to the own address of a Service.
    pub(crate) fn served(&self, plan: &Plan, step: &Step<'_>) -> Served {
        if let Some(owner) = places::owner(plan) {
            step.view.note(Fact::Placement(owner));
        }
        let standing = self.placed.get(plan.name()).and_then(|placed| placed.standing.as_ref());
        match (standing, self.own_address(plan.name(), &step.view)) {
            (Some(standing), _) => self.places.served(standing, step.config.own_settle, step.now),
            (None, Some(address)) => Served::At(vec![address], None),
            (None, None) => Served::NotBefore(None),
        }
    }

    /// Learns what is known of an own address of a cluster.
    pub(crate) fn learn(&mut self, number: u32, step: &mut Step<'_>) {
        let name = ServiceName::new(step.config.mesh_namespace.clone(), own_address::name(number));
        let service = step.view.service(&name).map(|service| &**service);
        let mut changed = self.places.given(number, service);
        changed.extend(self.places.sliced(number, step.view.slices_of(&name).map(|slice| &**slice), step.now));
        changed.into_iter().for_each(|service| step.changed(Fact::Placement(service)));
    }

    /// Notes what another plan of a Service means for those that share addresses and ports with it.
    pub(crate) fn replan(&mut self, name: &ServiceName, old: Option<&Plan>, new: Option<&Plan>, step: &mut Step<'_>) {
        let age = |plan: Option<&Plan>| plan.filter(|plan| plan.own).map(|plan| plan.age.clone());
        let wants = |plan: &Plan| (plan.own || plan.one_address).then(|| (plan.own, places::want(plan)));
        match new.is_some_and(|plan| plan.one_address) {
            true => self.together.insert(name.clone()),
            false => self.together.remove(name),
        };
        let (owned, owns) = (age(old), age(new));
        if owned != owns || old.and_then(wants) != new.and_then(wants) {
            owned.map(|age| self.owning.remove(&age));
            owns.map(|age| self.owning.insert(age));
            step.changed(Fact::Owning);
        }
        if new.is_none_or(|plan| !plan.own) {
            self.own.remove(name);
        }
        let ports = |plan: &Plan| (plan.age.clone(), plan.ports.iter().map(|port| port.number).collect::<Vec<_>>());
        let (shared, shares) = (old.filter(|plan| !plan.own), new.filter(|plan| !plan.own));
        if shared.map(ports) != shares.map(ports) {
            shared.into_iter().for_each(|plan| self.shared.remove(plan));
            shares.into_iter().for_each(|plan| self.shared.add(plan));
            step.changed(Fact::Sharing);
        }
    }

    /// Gives out own addresses: of a range by itself, in a cluster by saying what is needed.
    pub(crate) fn give_own_addresses(&mut self, plans: &Plans, step: &mut Step<'_>) {
        match &step.config.addressing {
            Addressing::Range(range) => {
                let mut given = address::own_addresses(range, self.owning.iter());
                for age in &self.owning {
                    let now = given.remove(&age.name);
                    let before = match now {
                        Some(address) => self.own.insert(age.name.clone(), address),
                        None => self.own.remove(&age.name),
                    };
                    if before != now {
                        step.changed(Fact::OwnAddress(age.name.clone()));
                    }
                }
            }
            Addressing::Cluster => {
                let own = self.owning.iter().filter_map(|age| plans.get(&age.name));
                let own: Vec<_> = own.map(places::want).collect();
                let exhausted = own.iter().map(|want| want.ports.len()).sum::<usize>() > own_address::POOL.len();
                if std::mem::replace(&mut self.pool_exhausted, exhausted) != exhausted {
                    step.changed(Fact::PoolExhausted);
                }
                let together = self.together.iter().filter_map(|name| plans.get(name)).flat_map(|plan| &plan.ports);
                let shared = together.map(|port| port.number).collect();
                step.out.want(own_address::AddressRequests { own, shared });
            }
        }
    }

    /// Decides where the port numbers of the shared address listen.
    pub(crate) fn move_ports(&mut self, step: &mut Step<'_>) {
        for number in self.shared.assign_ports(step.config.first_bindable_port) {
            step.changed(Fact::MovedPort(number));
        }
    }

    /// Decides which listeners a Service needs. `former` are ports that carried another protocol until not long ago.
    pub(crate) fn listen(
        &mut self,
        name: &ServiceName,
        plan: Option<&Plan>,
        former: &[FormerPort],
        step: &mut Step<'_>,
    ) {
        let before = self.placed.remove(name).unwrap_or_default();
        let mut found = Vec::new();
        let mut wanted = Vec::new();
        if let Some(plan) = plan {
            let (now, listeners) = self.place(plan, former, before.left, step);
            found = self.check(plan, &now, step);
            self.placed.insert(name.clone(), now);
            wanted = listeners;
        }
        for id in self.listeners.set(name, wanted) {
            step.changed(Fact::Listener(id));
        }
        step.out.diagnose(&format!("place/{name}"), found);
        step.changed(Fact::Listens(name.clone()));
    }

    /// Where a Service is listened for, and the listeners for that. `left` is what it had left before.
    fn place(
        &self,
        plan: &Plan,
        former: &[FormerPort],
        mut left: Vec<(OwnListener, Instant)>,
        step: &mut Step<'_>,
    ) -> (ServicePlacement, Vec<OwnListener>) {
        let name = plan.name();
        let in_cluster = step.config.addressing == Addressing::Cluster;
        let first_bindable = step.config.first_bindable_port;
        let standing = self.standing(plan, &step.view);
        let listens = match plan.own {
            // Its address has its own port numbers, whatever the proxies' behind them are.
            true if in_cluster => plan.ports.iter().map(|port| Some(port.number)).collect(),
            true => address::own_listens(plan, first_bindable),
            false => self.shared.listens(plan, first_bindable, &step.view),
        };
        let listened = plan.ports.iter().zip(&listens).filter_map(|(port, listen)| Some((port, (*listen)?)));
        let own = || self.own_address(name, &step.view);
        let mut wanted: Vec<_> = match plan.own.then(own) {
            Some(None) => Vec::new(),
            Some(Some(address)) => {
                listened.map(|(port, listen)| OwnListener::own(address, listen, name, port)).collect()
            }
            None => listened.map(|(port, listen)| OwnListener::shared(listen, port, &plan.age)).collect(),
        };
        let mut needs: Vec<_> = wanted.iter().map(|listener| listener.id.clone()).collect();
        step.view.note(Fact::Placement(name.clone()));
        for of in self.places.listens(name) {
            let listener = OwnListener::pooled(of, name, carries_http(plan, former, of), asks_server_names(plan, of));
            if plan.own && standing.as_ref().is_some_and(|standing| standing.has(of)) {
                needs.push(listener.id.clone());
            }
            wanted.push(listener);
        }
        let until = step.now + step.config.horizon;
        let is_wanted = |old: &OwnListener| wanted.iter().any(|now| now.is_like(old));
        let leaves = |old: &&OwnListener| old.is_shared() && !is_wanted(old);
        let known = |old: &OwnListener| left.iter().any(|(left, _)| left.is_like(old));
        let of_before = self.listeners.of(name).filter(leaves).filter(|old| !known(old));
        let leaving: Vec<_> = of_before.map(|old| (old.without_claims(), until)).collect();
        left.retain(|(left, until)| *until > step.now && !is_wanted(left));
        if !step.config.horizon.is_zero() {
            leaving.iter().for_each(|(_, until)| step.timers.set(*until, name));
            left.extend(leaving);
        }
        wanted.extend(left.iter().map(|(left, _)| left.clone()));
        (ServicePlacement { standing, left, needs, listens }, wanted)
    }

    /// What is wrong with where a Service is listened for.
    fn check(&self, plan: &Plan, placed: &ServicePlacement, step: &Step<'_>) -> Vec<Diagnostic> {
        let (mut found, unserved) = (Vec::new(), step.config.unserved());
        let mut say = |reason, value: &str, text: String| {
            if let Some(service) = step.view.service(plan.name()) {
                let bad = Diagnostic::of(reason, "Service", &service.meta, "spec.ports", text).using(unserved);
                found.push(if value.is_empty() { bad } else { bad.value(value) });
            }
        };
        let in_cluster = step.config.addressing == Addressing::Cluster;
        if in_cluster && plan.own && placed.standing.is_none() && self.is_pool_exhausted(&step.view) {
            let text = format!(
                "Services need more ports on own addresses than the proxies have for them (33000-49999), and this one has none; \
                 its name answers {unserved}. Bypass Services that need no mesh, or set traffic-type to http where it is HTTP."
            );
            say(Reason::AddressRangeExhausted, "", text);
        }
        if !in_cluster && plan.own && self.own_address(plan.name(), &step.view).is_none() {
            let text = format!(
                "no own address is left in the range; its name answers {unserved}. Choose a wider --address-range."
            );
            say(Reason::AddressRangeExhausted, "", text);
        }
        for (port, _) in plan.ports.iter().zip(&placed.listens).filter(|(_, listen)| listen.is_none()) {
            let number = port.number;
            let text = format!(
                "port {number} cannot be bound here and no port is free in its place; its name answers {unserved}. \
                 Lower net.ipv4.ip_unprivileged_port_start, or change the port."
            );
            say(Reason::ListenPortExhausted, &number.to_string(), text);
        }
        found
    }

    fn is_pool_exhausted(&self, view: &View<'_>) -> bool {
        view.note(Fact::PoolExhausted);
        self.pool_exhausted
    }
}

/// Whether the routes of the port that a port of the proxies leads to ask for server names of TLS.
fn asks_server_names(plan: &Plan, of: Listen) -> bool {
    let is_it = |port: &&Port| port.number == of.number && port.protocol.transport() == of.transport;
    plan.ports.iter().find(is_it).is_some_and(Port::asks_server_names)
}

/// Whether a port of the proxies that leads to a Service alone carries HTTP: as it did, where that is not long ago.
fn carries_http(plan: &Plan, former: &[FormerPort], of: Listen) -> bool {
    let is_it = |port: &&Port| port.number == of.number && port.protocol.transport() == of.transport;
    let now = plan.ports.iter().find(is_it);
    let was = former.iter().map(|former| &former.port).find(is_it).filter(|_| !plan.own);
    was.or(now).is_some_and(|port| port.protocol == Protocol::Http)
}
