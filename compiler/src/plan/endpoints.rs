//! The endpoints of a Service: from its EndpointSlices, or, where no control plane writes any, from the pods that it
//! selects.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use maesh_config::{
    NodeName,
    model::{Endpoint, EndpointHints, Endpoints, PortEndpoints, Protocol},
};

use super::{
    forbidden::Forbidden,
    service::{Plan, Port},
};
use crate::{
    diagnostic::{Diagnostic, Reason, did_you_mean},
    facts::View,
    kinds::{EndpointSlice, Number, Pod, Service, ServicePort, SliceEndpoint, SlicePort, Transport},
};

/// The endpoints of `plan`.
pub(crate) fn of(plan: &Plan, forbidden: &Forbidden, view: &View<'_>) -> Endpoints {
    let mut slices = view.slices_of(plan.name()).peekable();
    if slices.peek().is_some() {
        return from_slices(plan, slices, forbidden, view);
    }
    from_pods(plan, &view.selected_pods(plan.name()), forbidden, view)
}

/// The endpoints of `plan` from the slices of its Service.
fn from_slices<'a>(
    plan: &Plan,
    slices: impl Iterator<Item = &'a Arc<EndpointSlice>> + Clone,
    forbidden: &Forbidden,
    view: &View<'_>,
) -> Endpoints {
    from_each(plan, |port, all| {
        for slice in slices.clone() {
            let same = |of_slice: &&SlicePort| {
                *of_slice.name == *port.name.as_deref().unwrap_or("") && carries(&of_slice.transport, port.protocol)
            };
            let Some(at) = slice.ports.iter().find(same).filter(|at| at.number > 0) else { continue };
            all.reserve(slice.endpoints.len());
            let allowed =
                |it: &&SliceEndpoint| forbidden.why(it.address, at.number, &plan.name().namespace, view).is_none();
            for endpoint in slice.endpoints.iter().filter(allowed) {
                let hints = endpoint.hints.as_deref();
                all.push(Endpoint {
                    address: SocketAddr::new(endpoint.address, at.number),
                    ready: plan.publish_not_ready || (endpoint.ready && !endpoint.terminating),
                    serving: endpoint.serving,
                    terminating: endpoint.terminating,
                    node: endpoint.node.clone().map(NodeName),
                    account: None,
                    hints: hints.and_then(|hints| {
                        let nodes = hints.nodes.iter().cloned().map(NodeName).collect();
                        EndpointHints::new(hints.zones.clone(), nodes)
                    }),
                });
            }
        }
    })
}

/// The endpoints of `plan` when they are `pods`, with the conditions that Kubernetes would give them.
fn from_pods(plan: &Plan, pods: &[Arc<Pod>], forbidden: &Forbidden, view: &View<'_>) -> Endpoints {
    from_each(plan, |port, all| {
        for pod in pods.iter().filter(|pod| !pod.ended) {
            let Some(number) = target(port, pod) else { continue };
            let namespace = &plan.name().namespace;
            let allowed = |address: &&IpAddr| forbidden.why(**address, number, namespace, view).is_none();
            for address in pod.addresses.iter().filter(allowed) {
                all.push(Endpoint {
                    address: SocketAddr::new(*address, number),
                    ready: plan.publish_not_ready || (pod.ready && !pod.deleting),
                    serving: pod.ready,
                    terminating: pod.deleting,
                    node: pod.node.clone().map(NodeName),
                    account: None,
                    hints: None,
                });
            }
        }
    })
}

/// What is wrong with a slice, beyond its values: it belongs to no Service, its `service` has no such port, or, where that
/// is meshed, its endpoints are `forbidden`.
pub(crate) fn check(
    slice: &EndpointSlice,
    service: Option<&Service>,
    forbidden: Option<&Forbidden>,
    view: &View<'_>,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if slice.service.is_none() && slice.meta.origin.is_some() {
        let text =
            "has no label kubernetes.io/service-name, so it belongs to no Service; it is not used. Add the label.";
        found.push(Diagnostic::of(Reason::InvalidAddress, "EndpointSlice", &slice.meta, "metadata.labels", text));
    }
    if let Some(service) = service.filter(|_| !slice.managed) {
        found.extend(slice.ports.iter().filter_map(|port| foreign_port(slice, port, service)));
    }
    if let Some((count, endpoint, why)) = forbidden.and_then(|forbidden| forbidden.in_slice(slice, view)) {
        let text = match count {
            1 => format!("endpoint {endpoint} is left out: {why}"),
            count => format!("{count} endpoints are left out, the first of them {endpoint}: {why}"),
        };
        let bad = Diagnostic::of(Reason::ForbiddenEndpoint, "EndpointSlice", &slice.meta, "endpoints", text);
        found.push(bad.value(endpoint).using("the other endpoints"));
    }
    found
}

/// A port of a slice that its Service does not have: a slip in its name. The slices of the control plane are a moment
/// behind a Service that changes, so they are not asked.
fn foreign_port(slice: &EndpointSlice, port: &SlicePort, service: &Service) -> Option<Diagnostic> {
    let is_it = |it: &&ServicePort| it.name.as_deref().unwrap_or_default() == &*port.name;
    if service.ports.is_empty() || service.ports.iter().filter(is_it).any(|it| it.transport == port.transport) {
        return None;
    }
    let of = format!("Service {}/{}", service.meta.namespace, service.meta.name);
    let names: Vec<&str> = service.ports.iter().filter_map(|it| it.name.as_deref()).take(10).collect();
    let (list, name) = (names.join(", "), &*port.name);
    let meant = did_you_mean(name, names.iter().copied());
    let fix = meant.map_or_else(|| "Correct the name.".to_owned(), |meant| format!("Did you mean {meant}?"));
    let field = format!("ports[{}].name", port.index);
    let text = if service.ports.iter().any(|it| is_it(&it)) {
        format!("port {name:?} has another protocol in {of}; nothing is sent there. Correct the protocol.")
    } else if names.is_empty() {
        format!("{field} is {name:?}, but the port of {of} has no name; nothing is sent there. Remove the name.")
    } else if name.is_empty() {
        format!("ports[{}] has no name, but {of} has named ports ({list}); nothing is sent there. Name it.", port.index)
    } else {
        format!("{field} is {name:?}, which {of} does not have ({list}); nothing is sent there. {fix}")
    };
    let bad = Diagnostic::of(Reason::InvalidPort, "EndpointSlice", &slice.meta, &field, text);
    Some(bad.value(name).using("nothing"))
}

/// The addresses of ready endpoints, sorted: what the name of a Service without ClusterIP answers plainly.
pub(crate) fn ready_addresses(endpoints: &Endpoints) -> Vec<IpAddr> {
    let all = endpoints.ports.iter().flat_map(|port| &port.endpoints);
    let mut ready: Vec<_> = all.filter(|endpoint| endpoint.ready).map(|endpoint| endpoint.address.ip()).collect();
    ready.sort_unstable();
    ready.dedup();
    ready
}

/// The same of a Service that has no port: as in the cluster's own zone, its name is that of its endpoints.
pub(crate) fn ready_of_all(plan: &Plan, view: &View<'_>) -> Vec<IpAddr> {
    let mut slices = view.slices_of(plan.name()).peekable();
    let mut ready: Vec<IpAddr> = if slices.peek().is_some() {
        let all = slices.flat_map(|slice| &slice.endpoints);
        let is_ready = |endpoint: &&SliceEndpoint| endpoint.ready && !endpoint.terminating;
        all.filter(|endpoint| plan.publish_not_ready || is_ready(endpoint)).map(|endpoint| endpoint.address).collect()
    } else {
        let pods = view.selected_pods(plan.name());
        let is_ready = |pod: &&Arc<Pod>| !pod.ended && (plan.publish_not_ready || (pod.ready && !pod.deleting));
        pods.iter().filter(is_ready).flat_map(|pod| pod.addresses.iter().copied()).collect()
    };
    ready.sort_unstable();
    ready.dedup();
    ready
}

fn from_each(plan: &Plan, collect: impl Fn(&Port, &mut Vec<Endpoint>)) -> Endpoints {
    let mut ports = Vec::with_capacity(plan.ports.len());
    for port in &plan.ports {
        let mut endpoints = Vec::new();
        collect(port, &mut endpoints);
        // The same address in two slices, as while a slice is split: the better word counts.
        let rank = |endpoint: &Endpoint| (!endpoint.ready, !endpoint.serving, endpoint.terminating);
        endpoints.sort_unstable_by(|a, b| (a.address, rank(a)).cmp(&(b.address, rank(b))).then_with(|| a.cmp(b)));
        endpoints.dedup_by(|b, a| a.address == b.address);
        endpoints.shrink_to_fit();
        let (number, protocol) = (port.number, port.protocol);
        ports.push(PortEndpoints { number, protocol, endpoints, access: Vec::new(), open: true });
    }
    Endpoints { service: plan.name().clone(), ports }
}

fn carries(transport: &Transport, protocol: Protocol) -> bool {
    match transport {
        Transport::Tcp => protocol != Protocol::Udp,
        Transport::Udp => protocol == Protocol::Udp,
        Transport::Other(_) => false,
    }
}

fn target(port: &Port, pod: &Pod) -> Option<u16> {
    match &port.target {
        // Kubernetes takes 0 for "the same as the port".
        Number::Int(0) => Some(port.number),
        number @ Number::Int(_) => number.port(),
        Number::Text(name) => {
            let named = |p: &&crate::kinds::ContainerPort| p.name == *name && carries(&p.transport, port.protocol);
            pod.ports.iter().find(named).map(|port| port.number)
        }
    }
}
