//! TrafficSplits of SMI: shares of a Service's traffic.
//!
//! A split whose groups a request has to match stands before one that takes all requests; among equals the oldest counts,
//! then the name. A backend gets its share at its own endpoints: its own routes and splits do not apply again.

use std::{collections::BTreeSet, sync::Arc};

use maesh_config::{
    ServiceName,
    model::{Backend, Protocol, Route},
    rule::Rule,
};

use super::{
    annotations::routes::RoutesReader,
    reference::{self, has_port},
    service::{Port, RouteOrigin, left_out},
};
use crate::{
    diagnostic::{Diagnostic, Reason},
    index::Id,
    kinds::{Service, SplitBackend, TrafficSplit},
    step::Step,
};

/// Matches of all splits of a Service that count: each may have an expression, and a request that is none of them is held against
/// all.
const MOST_MATCHES: usize = 64;

/// Weights of a split are in thousandths.
const UNIT: u32 = 1000;

/// A split that counts, with what a request has to be: one of the rules, where `None` is any.
struct AppliedSplit<'a> {
    split: &'a TrafficSplit,
    rules: Vec<Option<Rule>>,
}

/// Gives the ports of `service` their share of the traffic, as its splits say, and says what is wrong with those. A port with
/// routes of its own keeps them.
pub(super) fn apply(
    service: &Service,
    ports: &mut [Port],
    reader: &RoutesReader,
    step: &Step<'_>,
    found: &mut Vec<Diagnostic>,
) {
    let root = ServiceName::new(service.meta.namespace.clone(), service.meta.name.clone());
    let mut all: Vec<_> = step.view.splits_of(&root).collect();
    if all.is_empty() {
        return;
    }
    all.sort_by(|a, b| order(a).cmp(&order(b)));
    let applied = counting(all, step, found);
    let routed: Vec<u16> = ports.iter().filter(|port| !port.routes.is_empty()).map(|port| port.number).collect();
    for it in &applied {
        if !routed.is_empty() {
            found.push(shadowed_by_routes(it.split, &routed));
        }
        let for_requests = !it.split.groups.is_empty();
        if for_requests && !ports.iter().any(|port| port.protocol == Protocol::Http) {
            found.push(without_http(it.split));
        }
        found.extend(check_backends(it.split, &root, ports, step));
    }
    for port in ports.iter_mut().filter(|port| port.routes.is_empty()) {
        let fits = |it: &&AppliedSplit<'_>| it.split.groups.is_empty() || port.protocol == Protocol::Http;
        let of_split = |it| routes(it, port, step).into_iter().map(|route| (route, origin(it)));
        let (routes, origins): (Vec<_>, Vec<_>) = applied.iter().filter(fits).flat_map(of_split).unzip();
        if reader.has_room(&routes) {
            (port.routes, port.origins) = (routes, origins);
        } else if let Some(it) = applied.first() {
            let text = format!(
                "the matches for all ports of Service {} together have more than 1 MiB, so port {} is not split. Use fewer matches.",
                it.split.service, port.number
            );
            found.push(say(Reason::SplitNotUsed, it.split, "spec.matches", text).using("no split on this port"));
        }
    }
}

fn origin(it: &AppliedSplit<'_>) -> RouteOrigin {
    RouteOrigin::TrafficSplit(it.split.meta.name.clone())
}

/// With groups before without, then the oldest, then by name.
fn order(split: &TrafficSplit) -> (bool, Option<jiff::Timestamp>, &str) {
    (split.groups.is_empty(), split.meta.created, &split.meta.name)
}

/// Those of `all` that count.
fn counting<'a>(
    all: Vec<&'a Arc<TrafficSplit>>,
    step: &Step<'_>,
    found: &mut Vec<Diagnostic>,
) -> Vec<AppliedSplit<'a>> {
    let mut applied: Vec<AppliedSplit<'a>> = Vec::new();
    for split in all {
        let for_all = applied.iter().find(|it| it.split.groups.is_empty());
        if let Some(first) = for_all {
            let text = format!(
                "TrafficSplit {} is older and splits all traffic of Service {} already; this one is not used. Delete one of them.",
                first.split.meta.name, split.service
            );
            found
                .push(say(Reason::Shadowed, split, "spec.service", text).value(&*split.service).using("the older one"));
            continue;
        }
        match rules(split, step) {
            Ok(rules) if rules.len() + applied.iter().map(|it| it.rules.len()).sum::<usize>() > MOST_MATCHES => {
                let text = format!(
                    "with its matches, the splits of Service {} have more than {MOST_MATCHES}; this one is not used. Use fewer matches.",
                    split.service
                );
                found.push(say(Reason::SplitNotUsed, split, "spec.matches", text).using("no split"));
            }
            Ok(rules) => applied.push(AppliedSplit { split, rules }),
            Err(bad) => found.push(*bad),
        }
    }
    applied
}

/// What requests have to be.
fn rules(split: &TrafficSplit, step: &Step<'_>) -> Result<Vec<Option<Rule>>, Box<Diagnostic>> {
    if split.groups.is_empty() {
        return Ok(vec![None]);
    }
    let mut rules = Vec::new();
    for name in &split.groups {
        let id = Id::new(split.meta.namespace.clone(), name.clone());
        let Some(group) = step.view.route_group(&id) else {
            let text = format!(
                "HTTPRouteGroup {id} does not exist; the split is not used, and requests go to Service {}. Create it, or \
                 take it out of matches.",
                split.service
            );
            return Err(Box::new(
                say(Reason::SplitNotUsed, split, "spec.matches", text).value(&**name).using("no split"),
            ));
        };
        for one in &group.matches {
            match &one.rule {
                None => return Ok(vec![None]),
                rule => rules.push(rule.clone()),
            }
        }
    }
    if rules.is_empty() {
        let text = format!(
            "its HTTPRouteGroups have no match that can be used, so no request is one of them: all go to Service {}. Write a \
             match.",
            split.service
        );
        return Err(Box::new(say(Reason::SplitNotUsed, split, "spec.matches", text).using("no split")));
    }
    Ok(rules)
}

/// Where the traffic of one port goes.
fn routes(it: &AppliedSplit<'_>, port: &Port, step: &Step<'_>) -> Vec<Route> {
    let mut backends = Vec::new();
    // Whole numbers where they are, as people write them.
    let unit = if it.split.backends.iter().all(|backend| backend.weight % UNIT == 0) { UNIT } else { 1 };
    for backend in &it.split.backends {
        let service = name_of(it.split, backend);
        if reference::unusable(&service, port.number, port.protocol, step).is_none() {
            backends.push(Backend { service, port: port.number, weight: backend.weight / unit });
        }
    }
    let route = |rule: &Option<Rule>| Route { rule: rule.clone(), backends: backends.clone(), not_understood: None };
    it.rules.iter().map(route).collect()
}

fn name_of(split: &TrafficSplit, backend: &SplitBackend) -> ServiceName {
    ServiceName::new(split.meta.namespace.clone(), backend.service.clone())
}

/// What is wrong with the backends of a split.
fn check_backends(split: &TrafficSplit, root: &ServiceName, ports: &[Port], step: &Step<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for backend in &split.backends {
        let field = format!("spec.backends[{}].service", backend.index);
        let service = name_of(split, backend);
        let there = step.view.service(&service);
        let why = there.and_then(|there| left_out(there, step.config));
        let (text, using) = match (there, why) {
            (None, _) => {
                let text = format!(
                    "backend {} does not exist; the others get its share. Create the Service, or take it out.",
                    backend.service
                );
                (text, "the other backends")
            }
            (Some(_), _) if service == *root => {
                let text = format!(
                    "backend {} is the Service itself; its share goes to its own endpoints. If that is meant, nothing \
                     is to be done.",
                    backend.service
                );
                (text, "its own endpoints")
            }
            (Some(_), Some(why)) => {
                let text = format!(
                    "backend {} is not in the mesh: {}; the others get its share. Change that, or take it out.",
                    backend.service,
                    why.why()
                );
                (text, "the other backends")
            }
            (Some(there), None) => {
                let missing: BTreeSet<_> = ports
                    .iter()
                    .filter(|port| !has_port(there, port.number, port.protocol))
                    .map(|port| port.number.to_string())
                    .collect();
                if missing.is_empty() {
                    continue;
                }
                let missing = Vec::from_iter(missing).join(", ");
                let text = format!(
                    "backend {} has no port {missing} as Service {} has; on that port the others get its share. Add the port, \
                     or take the backend out.",
                    backend.service, split.service
                );
                (text, "the other backends")
            }
        };
        found.push(say(Reason::SplitBackend, split, &field, text).value(&*backend.service).using(using));
    }
    if split.backends.iter().all(|backend| backend.weight == 0) {
        let text = "no backend has a weight above 0, so what it takes is answered 503 `no_endpoints`. Give a backend a \
                    weight, or delete the split.";
        found.push(say(Reason::SplitBackend, split, "spec.backends", text.into()).using("no backend"));
    }
    found
}

fn shadowed_by_routes(split: &TrafficSplit, ports: &[u16]) -> Diagnostic {
    let (port, numbers) =
        (if ports.len() == 1 { "port" } else { "ports" }, Vec::from_iter(ports.iter().map(u16::to_string)).join(", "));
    let text = format!(
        "Service {} has the annotation routes for {port} {numbers}, which comes first; the split is not used there. Remove \
         one of them.",
        split.service
    );
    say(Reason::Shadowed, split, "spec.service", text).value(&*split.service).using("the annotation routes")
}

fn without_http(split: &TrafficSplit) -> Diagnostic {
    let text = format!(
        "matches ask for requests of HTTP, but no port of Service {} carries it; the split is not used. Remove matches, or \
         set the annotation traffic-type of the Service to http.",
        split.service
    );
    say(Reason::SplitNotUsed, split, "spec.matches", text).using("no split")
}

fn say(reason: Reason, split: &TrafficSplit, field: &str, text: String) -> Diagnostic {
    Diagnostic::of(reason, "TrafficSplit", &split.meta, field, text)
}

/// What is wrong with a split whose Service is not there.
pub(crate) fn check_root(split: &TrafficSplit, step: &Step<'_>) -> Option<Diagnostic> {
    let root = ServiceName::new(split.meta.namespace.clone(), split.service.clone());
    if step.view.service(&root).is_some() {
        return None;
    }
    let text = format!("Service {root} does not exist; there is nothing to split. Create it, or correct the name.");
    Some(say(Reason::SplitNotUsed, split, "spec.service", text).value(&*split.service).using("no split"))
}
