//! Access control: who may reach the endpoints of a Service, by the TrafficTargets of SMI.
//!
//! An endpoint belongs to the ServiceAccount of the pod that has its address, ready or not; what no pod has belongs to nobody,
//! and is not used. A caller is admitted by one grant alone: sources of one TrafficTarget never
//! count with the rules of another one. What cannot be read grants nothing.
//!
//! What the targets of a Service say has a bound ([`Room`]), because each change of an endpoint sends all of it to proxies. The
//! oldest targets are taken, as long as they fit; the others grant nothing there, so that a new target never takes away what an
//! older one grants.

mod room;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use maesh_config::model::{Account, AccountAccess, Endpoints, Grant, PortEndpoints, Protocol};

use self::room::{Full, Room};
use super::workload;
use crate::{
    diagnostic::{Diagnostic, Reason},
    facts::View,
    index::{Id, MOST_TARGETS},
    kinds::{HttpRouteMatch, PortRoute, RuleKind, TargetRule, TrafficTarget},
    step::Step,
};

/// Endpoints of one ServiceAccount on one port of a Service.
struct OwnedPort {
    /// Place of the port.
    port: usize,
    /// Place of the ServiceAccount on it.
    account: usize,
    /// Where they listen.
    targets: BTreeSet<u16>,
}

/// A grant, and the places of port and ServiceAccount that it belongs to.
struct PlacedGrant {
    port: usize,
    account: usize,
    grant: Grant,
}

/// Says of each endpoint whose it is, and who may reach it. Returns what is wrong with that: targets for which there is no room.
pub(crate) fn apply(endpoints: &mut Endpoints, view: &View<'_>) -> Option<Diagnostic> {
    let owned = note_owners(endpoints, view);
    let mut targets: Vec<_> = owned.keys().flat_map(|account| view.targets_of(account)).collect();
    targets.sort_by_key(|target| (target.meta.created, &target.destination, &target.meta.name));
    let mut room = Room::default();
    for (place, target) in targets.iter().enumerate() {
        let Some(ports) = owned.get(&*target.destination) else { continue };
        match grants(target, ports, endpoints, view, &mut room) {
            Ok(granted) => {
                for PlacedGrant { port, account, grant } in granted {
                    endpoints.ports[port].access[account].grants.push(grant);
                }
            }
            Err(full) => return Some(left_out(target, targets.len() - place - 1, &full, endpoints)),
        }
    }
    None
}

/// Notes whose each endpoint is; the ports on which a ServiceAccount has some.
fn note_owners(endpoints: &mut Endpoints, view: &View<'_>) -> BTreeMap<Arc<Account>, Vec<OwnedPort>> {
    let mut owned: BTreeMap<Arc<Account>, Vec<OwnedPort>> = BTreeMap::new();
    for (number, port) in endpoints.ports.iter_mut().enumerate() {
        let owners: Vec<Option<Account>> = port.endpoints.iter().map(|it| owner(view, it.address.ip())).collect();
        let accounts: Vec<Account> = owners.iter().flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let mut target_ports = vec![BTreeSet::new(); accounts.len()];
        for (endpoint, owner) in port.endpoints.iter_mut().zip(&owners) {
            let place = owner.as_ref().and_then(|owner| accounts.binary_search(owner).ok());
            endpoint.account = place.and_then(|place| u16::try_from(place).ok());
            if let Some(place) = endpoint.account {
                target_ports[usize::from(place)].insert(endpoint.address.port());
            }
        }
        let accounts: Vec<_> = accounts.into_iter().map(Arc::new).collect();
        for (place, (account, targets)) in accounts.iter().zip(target_ports).enumerate() {
            owned.entry(account.clone()).or_default().push(OwnedPort { port: number, account: place, targets });
        }
        let access = accounts.into_iter().map(|account| AccountAccess { account, grants: Vec::new() });
        port.access = access.collect();
        port.open = false;
    }
    owned
}

/// The ServiceAccount of the pod that has an address.
fn owner(view: &View<'_>, address: IpAddr) -> Option<Account> {
    let workload = workload::of_address(view, address.to_canonical())?;
    Some(Account { namespace: workload.namespace?, name: workload.service_account? })
}

/// What `target` grants on the ports on which its ServiceAccount has endpoints; all of it, or nothing.
fn grants(
    target: &TrafficTarget,
    owned: &[OwnedPort],
    endpoints: &Endpoints,
    view: &View<'_>,
    room: &mut Room,
) -> Result<Vec<PlacedGrant>, Full> {
    if target.sources.is_empty() {
        return Ok(Vec::new());
    }
    let admits = Admits::of(target, view, room)?;
    let mut grants = Vec::new();
    for of in owned {
        let port = &endpoints.ports[of.port];
        if let Some(matches) = admits.on(port, &of.targets, target) {
            room.take_grant(target, &matches)?;
            let rules = matches.iter().filter_map(|one| one.rule.clone()).collect();
            let grant = Grant { target: target.meta.name.clone(), sources: target.sources.to_vec(), rules };
            grants.push(PlacedGrant { port: of.port, account: of.account, grant });
        }
    }
    Ok(grants)
}

/// What a target admits, with what it names looked up.
struct Admits<'v> {
    /// The ports of its TCPRoutes; `None` if it names none.
    tcp: Option<RoutePorts>,
    udp: Option<RoutePorts>,
    /// The requests; `None` if it names no group.
    requests: Option<Requests<'v>>,
}

/// Ports that routes are about.
enum RoutePorts {
    All,
    These(BTreeSet<u16>),
}

/// What a request has to be.
enum Requests<'v> {
    Any,
    /// One of these.
    These(Vec<&'v HttpRouteMatch>),
}

impl<'v> Admits<'v> {
    fn of(target: &TrafficTarget, view: &View<'v>, room: &mut Room) -> Result<Self, Full> {
        let (mut tcp, mut udp, mut requests) = (None, None, None);
        for rule in &target.rules {
            room.take_rule(rule)?;
            let id = id(target, rule);
            match rule.kind {
                RuleKind::Tcp => add_ports(&mut tcp, view.tcp_route(&id), room)?,
                RuleKind::Udp => add_ports(&mut udp, view.udp_route(&id), room)?,
                RuleKind::Http => add_matches(&mut requests, rule, view.route_group(&id).map(|it| &*it.matches)),
            }
        }
        Ok(Self { tcp, udp, requests })
    }

    /// The matches of which a request to a port has to be one, where endpoints listen on these ports: none for everything. `None` where
    /// nothing is admitted.
    fn on(
        &self,
        port: &PortEndpoints,
        listen: &BTreeSet<u16>,
        target: &TrafficTarget,
    ) -> Option<Vec<&'v HttpRouteMatch>> {
        let is_port = |number: u16| number == port.number || listen.contains(&number);
        if target.port.as_ref().is_some_and(|only| !only.port().is_some_and(is_port)) {
            return None;
        }
        if target.admits_everything() {
            return Some(Vec::new());
        }
        let lists = |ports: &RoutePorts| match ports {
            RoutePorts::All => true,
            RoutePorts::These(ports) => ports.contains(&port.number) || !ports.is_disjoint(listen),
        };
        match port.protocol {
            Protocol::Tcp => self.tcp.as_ref().is_some_and(lists).then(Vec::new),
            Protocol::Udp => self.udp.as_ref().is_some_and(lists).then(Vec::new),
            Protocol::Http => match (&self.tcp, &self.requests) {
                // Where it names both, requests on the ports.
                (Some(ports), _) if !lists(ports) => None,
                (None, None) => None,
                (_, Some(Requests::These(matches))) if matches.is_empty() => None,
                (_, Some(Requests::These(matches))) => Some(matches.clone()),
                (_, Some(Requests::Any)) | (Some(_), None) => Some(Vec::new()),
            },
        }
    }
}

fn add_ports(ports: &mut Option<RoutePorts>, route: Option<&Arc<PortRoute>>, room: &mut Room) -> Result<(), Full> {
    // One that is not there is about no port.
    let ports = ports.get_or_insert_with(|| RoutePorts::These(BTreeSet::new()));
    match (route.map(|route| route.ports.as_deref()), &mut *ports) {
        (Some(None), _) => *ports = RoutePorts::All,
        (Some(Some(more)), RoutePorts::These(ports)) => {
            room.take_ports(more.len())?;
            ports.extend(more);
        }
        _ => {}
    }
    Ok(())
}

/// Adds the matches of a group that a rule names.
fn add_matches<'v>(requests: &mut Option<Requests<'v>>, rule: &TargetRule, group: Option<&'v [HttpRouteMatch]>) {
    let requests = requests.get_or_insert_with(|| Requests::These(Vec::new()));
    for one in group.unwrap_or_default().iter().filter(|one| rule.names(one)) {
        match requests {
            // A match that asks for nothing.
            _ if one.rule.is_none() => *requests = Requests::Any,
            Requests::These(matches) => matches.push(one),
            Requests::Any => {}
        }
    }
}

fn id(target: &TrafficTarget, rule: &TargetRule) -> Id {
    Id::new(target.meta.namespace.clone(), rule.name.clone())
}

/// What is said of the first target for which there is no room, and of so many `younger` ones.
fn left_out(target: &TrafficTarget, younger: usize, full: &Full, endpoints: &Endpoints) -> Diagnostic {
    let others = match younger {
        0 => String::new(),
        1 => ", and neither does 1 younger target".to_owned(),
        many => format!(", and neither do {many} younger targets"),
    };
    let text = format!(
        "with it, the TrafficTargets for Service {} {full}; it admits nobody there{others}. Name several sources in one target, and \
         use fewer or shorter rules.",
        endpoints.service
    );
    Diagnostic::of(Reason::NothingGranted, "TrafficTarget", &target.meta, "spec", text).using("the older targets")
}

/// What is wrong with a TrafficTarget: names that lead nowhere, and that nobody is admitted.
pub(crate) fn check(target: &TrafficTarget, step: &Step<'_>) -> Vec<Diagnostic> {
    let say =
        |field: &str, text: String| Diagnostic::of(Reason::NothingGranted, "TrafficTarget", &target.meta, field, text);
    if !step.config.access_control.is_asked() {
        let text = "access control is off, so the target has no effect: everybody may call. Turn it on with --acl, or the value \
                    acl.enabled of the chart.";
        return vec![say("spec", text.to_owned()).using("no access control")];
    }
    let mut found = Vec::new();
    if step.view.is_beyond(target) {
        let text = format!(
            "ServiceAccount {} has {MOST_TARGETS} older targets, and no more count, so nobody is admitted by this one. Name several \
             sources in one target, or delete others.",
            target.destination
        );
        found.push(say("spec.destination", text).using("the older targets"));
    }
    if target.sources.is_empty() && !target.has_bad_sources {
        found.push(say(
            "spec.sources",
            "no source is named, so nobody is admitted by it. Name a ServiceAccount.".to_owned(),
        ));
    }
    if target.rules.is_empty() && !target.has_bad_rules && !target.admits_everything() {
        let text = "no rule is named, so nothing is admitted by it. Name an HTTPRouteGroup, TCPRoute or UDPRoute.";
        found.push(say("spec.rules", text.to_owned()));
    }
    if target.admits_everything() {
        let text = "no rule is named, which in this version of TrafficTarget admits every request and connection of its sources. \
                    Name an HTTPRouteGroup, TCPRoute or UDPRoute where less is meant; the versions from v1alpha3 on admit nothing \
                    without one.";
        let everything = Diagnostic::of(Reason::EverythingGranted, "TrafficTarget", &target.meta, "spec.rules", text);
        found.push(everything.using("everything"));
    }
    for rule in &target.rules {
        let (id, field) = (id(target, rule), format!("spec.rules[{}]", rule.index));
        let (kind, is_there) = match rule.kind {
            RuleKind::Http => ("HTTPRouteGroup", step.view.route_group(&id).is_some()),
            RuleKind::Tcp => ("TCPRoute", step.view.tcp_route(&id).is_some()),
            RuleKind::Udp => ("UDPRoute", step.view.udp_route(&id).is_some()),
        };
        if !is_there {
            let text = format!(
                "{kind} {id} does not exist; the rule admits nothing until it does. Create it, or correct the name."
            );
            found.push(say(&format!("{field}.name"), text).value(&*rule.name));
            continue;
        }
        let Some(group) = step.view.route_group(&id).filter(|_| rule.kind == RuleKind::Http) else { continue };
        if group.matches.is_empty() {
            let text =
                format!("HTTPRouteGroup {id} has no match that can be used; the rule admits nothing. Write a match.");
            found.push(say(&format!("{field}.name"), text).value(&*rule.name));
        }
        if let Some(bare) = group.matches.iter().find(|one| rule.names(one) && one.is_bare) {
            let text = format!(
                "match {:?} of HTTPRouteGroup {id} has a name and no condition, so every request is admitted. If that is meant, say so \
                 with methods: [\"*\"].",
                &*bare.name
            );
            let everything = Diagnostic::of(
                Reason::EverythingGranted,
                "TrafficTarget",
                &target.meta,
                &format!("{field}.name"),
                text,
            );
            found.push(everything.value(&*rule.name).using("everything"));
        }
        for name in rule.matches.iter().flatten().filter(|name| !group.matches.iter().any(|one| one.name == **name)) {
            let text =
                format!("HTTPRouteGroup {id} has no match {name}; nothing is admitted by that name. Correct it.");
            found.push(say(&format!("{field}.matches"), text).value(&**name));
        }
    }
    found
}
