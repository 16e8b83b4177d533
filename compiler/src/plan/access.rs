//! Access control: who may reach the endpoints of a Service, by the TrafficTargets of SMI.
//!
//! An endpoint belongs to the ServiceAccount of the pod that has its address, ready or not; what no pod has belongs to nobody,
//! and is not used. A caller is admitted by one grant alone: sources of one TrafficTarget never
//! count with the rules of another one. What cannot be read grants nothing.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use maesh_config::model::{Account, AccountAccess, Endpoints, Grant, PortEndpoints, Protocol};

use super::workload;
use crate::{
    diagnostic::{Diagnostic, Reason},
    facts::View,
    index::Id,
    kinds::{PortRoute, RuleKind, TargetRule, TrafficTarget},
    step::Step,
};

/// Says of each endpoint whose it is, and who may reach it.
pub(crate) fn apply(endpoints: &mut Endpoints, view: &View<'_>) {
    for port in &mut endpoints.ports {
        let owners: Vec<Option<Account>> = port.endpoints.iter().map(|it| owner(view, it.address.ip())).collect();
        let accounts: Vec<Account> = owners.iter().flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        for (endpoint, owner) in port.endpoints.iter_mut().zip(&owners) {
            let place = owner.as_ref().and_then(|owner| accounts.binary_search(owner).ok());
            endpoint.account = place.and_then(|place| u16::try_from(place).ok());
        }
        let access = accounts.into_iter().enumerate().map(|(place, account)| {
            let target_ports = target_ports(port, place);
            let targets = view.targets_of(&account);
            let grants = targets.filter_map(|target| grant(target, port, &target_ports, view)).collect();
            AccountAccess { account: Arc::new(account), grants }
        });
        port.access = access.collect();
    }
}

/// The ServiceAccount of the pod that has an address.
fn owner(view: &View<'_>, address: IpAddr) -> Option<Account> {
    let workload = workload::of_address(view, address.to_canonical())?;
    Some(Account { namespace: workload.namespace?, name: workload.service_account? })
}

/// The ports on which the endpoints of the account at this place listen.
fn target_ports(port: &PortEndpoints, place: usize) -> BTreeSet<u16> {
    let of_account = port.endpoints.iter().filter(|it| it.account.is_some_and(|account| usize::from(account) == place));
    of_account.map(|it| it.address.port()).collect()
}

/// What a TrafficTarget admits to a port whose endpoints listen on these; `None` for nothing.
fn grant(target: &TrafficTarget, port: &PortEndpoints, target_ports: &BTreeSet<u16>, view: &View<'_>) -> Option<Grant> {
    let is_port = |number: u16| number == port.number || target_ports.contains(&number);
    let of_port = match &target.port {
        None => true,
        Some(number) => number.port().is_some_and(is_port),
    };
    if !of_port || target.sources.is_empty() {
        return None;
    }
    let admits = |rules| Some(Grant { target: target.meta.name.clone(), sources: target.sources.to_vec(), rules });
    if target.admits_everything() {
        return admits(Vec::new());
    }
    let of_kind = |kind: RuleKind| target.rules.iter().filter(move |rule| rule.kind == kind);
    let lists = |routes: Vec<&Arc<PortRoute>>| routes.iter().any(|route| route.has(is_port));
    match port.protocol {
        Protocol::Tcp => lists(of_kind(RuleKind::Tcp).filter_map(|rule| tcp_route(target, rule, view)).collect()),
        Protocol::Udp => lists(of_kind(RuleKind::Udp).filter_map(|rule| udp_route(target, rule, view)).collect()),
        Protocol::Http => {
            let ports: Vec<_> = of_kind(RuleKind::Tcp).collect();
            let listed =
                ports.is_empty() || lists(ports.iter().filter_map(|rule| tcp_route(target, rule, view)).collect());
            let mut requests = of_kind(RuleKind::Http).peekable();
            if requests.peek().is_none() {
                return if !ports.is_empty() && listed { admits(Vec::new()) } else { None };
            }
            if !listed {
                return None;
            }
            let mut rules = Vec::new();
            for matched in requests.filter_map(|rule| matches(target, rule, view)).flatten() {
                match matched {
                    None => return admits(Vec::new()),
                    Some(rule) => rules.push(rule),
                }
            }
            return if rules.is_empty() { None } else { admits(rules) };
        }
    }
    .then(|| admits(Vec::new()))
    .flatten()
}

fn id(target: &TrafficTarget, rule: &TargetRule) -> Id {
    Id::new(target.meta.namespace.clone(), rule.name.clone())
}

fn tcp_route<'v>(target: &TrafficTarget, rule: &TargetRule, view: &View<'v>) -> Option<&'v Arc<PortRoute>> {
    view.tcp_route(&id(target, rule))
}

fn udp_route<'v>(target: &TrafficTarget, rule: &TargetRule, view: &View<'v>) -> Option<&'v Arc<PortRoute>> {
    view.udp_route(&id(target, rule))
}

/// The matches of a group that a rule names; in each `None` is every request.
fn matches(
    target: &TrafficTarget,
    rule: &TargetRule,
    view: &View<'_>,
) -> Option<Vec<Option<maesh_config::rule::Rule>>> {
    let group = view.route_group(&id(target, rule))?;
    let named = |name: &Arc<str>| rule.matches.as_ref().is_none_or(|names| names.contains(name));
    Some(group.matches.iter().filter(|one| named(&one.name)).map(|one| one.rule.clone()).collect())
}

/// What is wrong with a TrafficTarget: names that lead nowhere, and that nobody is admitted.
pub(crate) fn check(target: &TrafficTarget, step: &Step<'_>) -> Vec<Diagnostic> {
    let say =
        |field: &str, text: String| Diagnostic::of(Reason::NothingGranted, "TrafficTarget", &target.meta, field, text);
    if !step.config.access_control.is_asked() {
        let text = "access control is off, so the target has no effect: everybody may call. Turn it on with --acl, or the value \
                    acl of the chart.";
        return vec![say("spec", text.to_owned()).using("no access control")];
    }
    let mut found = Vec::new();
    if target.sources.is_empty() {
        found.push(say(
            "spec.sources",
            "no source is named, so nobody is admitted by it. Name a ServiceAccount.".to_owned(),
        ));
    }
    if target.rules.is_empty() && !target.admits_everything() {
        let text = "no rule is named, so nothing is admitted by it. Name an HTTPRouteGroup, TCPRoute or UDPRoute.";
        found.push(say("spec.rules", text.to_owned()));
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
        for name in rule.matches.iter().flatten().filter(|name| !group.matches.iter().any(|one| one.name == **name)) {
            let text =
                format!("HTTPRouteGroup {id} has no match {name}; nothing is admitted by that name. Correct it.");
            found.push(say(&format!("{field}.matches"), text).value(&**name));
        }
    }
    found
}
