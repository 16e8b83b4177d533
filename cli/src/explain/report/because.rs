//! Why dns answers a caller as it does, in a sentence.

use maesh_compiler::compile::explain::{CallerSeen, Meshed};
use maesh_dns::{Explanation as DnsExplanation, Located, Rule};

/// What stands before a reason for ClusterIP or endpoint addresses.
pub(super) const PLAIN: &str = "ClusterIP or endpoint addresses: ";

/// Why dns answers so.
pub(super) fn because(said: &DnsExplanation, caller: Option<&CallerSeen>, meshed: Option<&Meshed>) -> String {
    match said.rule {
        Some(Rule::Local) => format!("{}; the proxy there listens on every port of the name", place(said, caller)),
        Some(Rule::Spread) => spread(said, caller),
        Some(Rule::Fixed) => "an address on which every port is this Service's alone, the same for every caller".into(),
        Some(Rule::Plain) => plain(said, meshed),
        Some(Rule::FailToPlain) if said.collapsed => format!(
            "ClusterIP or endpoint addresses: {} of {} proxies are ready, too few to send everybody there (fail-to-plain)",
            said.ready_proxies, said.known_proxies
        ),
        Some(Rule::FailToPlain) => {
            "ClusterIP or endpoint addresses: no ready proxy listens on every port of the name (fail-to-plain)".into()
        }
        Some(Rule::LastKnown) => {
            "the last known proxies, although none listens on every port of the name: ClusterIP and endpoint addresses are not allowed"
                .into()
        }
        Some(Rule::Withheld) => format!(
            "no address: {}, and the mesh allows no ClusterIP or endpoint addresses (--fail-to-plain false, or access control)",
            plain(said, meshed).trim_start_matches(PLAIN)
        ),
        None if !said.synced => "dns has not received everything from the controller yet".into(),
        None => match said.code.as_str() {
            "NXDOMAIN" => "no Service of the mesh has this name".into(),
            "REFUSED" => format!("the name is in none of the mesh's zones ({})", said.zones.join(", ")),
            _ => "the name exists, but is no Service's".into(),
        },
    }
}

/// Where the caller is, and how that is known.
fn place(said: &DnsExplanation, caller: Option<&CallerSeen>) -> String {
    let node = caller.and_then(|caller| caller.node.clone());
    let on = |seen: &Option<String>| node.clone().or_else(|| seen.clone()).unwrap_or_else(|| "(unknown)".into());
    match &said.located {
        Some(Located::Address { node: seen }) => match caller.map(|caller| caller.kind.as_str()) {
            Some("node") => format!("the caller's address is that of node {}", on(seen)),
            _ => format!("the caller's pod is on node {}", on(seen)),
        },
        Some(Located::Range { range, node: seen }) => {
            format!("the caller's address lies in {range}, the pod range of node {}", on(seen))
        }
        Some(Located::Resolver) => "the caller is a resolver of the cluster, whose own place says nothing".into(),
        Some(Located::Unknown) => "nothing is known of the caller's address".into(),
        None => "nothing is said of the caller".into(),
    }
}

fn spread(said: &DnsExplanation, caller: Option<&CallerSeen>) -> String {
    if said.known_proxies == 1 {
        return "there is one proxy, and it listens on every port of the name".into();
    }
    let local = said.proxies.iter().find(|proxy| proxy.local);
    let why = match (local, &said.located) {
        (Some(proxy), _) if !proxy.ready => format!("{}, whose proxy {} is not ready", place(said, caller), proxy.id),
        (Some(proxy), _) if proxy.unreachable => {
            format!("{}, whose proxy {} does not answer dns's probes", place(said, caller), proxy.id)
        }
        (Some(proxy), _) => {
            format!("{}, whose proxy {} does not listen on every port of the name", place(said, caller), proxy.id)
        }
        (None, Some(Located::Address { .. } | Located::Range { .. })) => {
            format!("{}, where no proxy runs", place(said, caller))
        }
        (None, _) => place(said, caller),
    };
    match said.ready_proxies {
        1 => format!("{why}; the only ready proxy is answered"),
        ready => format!("{why}; up to 3 of the {ready} ready proxies are answered, in turn"),
    }
}

/// Why the ClusterIP or the addresses of endpoints are answered, after [`PLAIN`].
pub(super) fn plain(said: &DnsExplanation, meshed: Option<&Meshed>) -> String {
    let why = match meshed {
        _ if said.bypass => {
            "the mesh is bypassed as a whole (bypass=true, or an uninstallation was begun: maesh check)"
        }
        Some(meshed) if meshed.bypass => "the Service is bypassed (annotation bypass)",
        Some(meshed) if meshed.ports.is_empty() => "the Service has no port that the mesh can carry",
        Some(meshed) if meshed.ports.iter().any(|port| port.listen.is_none()) => {
            "no port could be found on which to listen for the Service"
        }
        Some(meshed) if meshed.own && meshed.own_address.is_none() => "the Service has no own address yet",
        Some(meshed) if meshed.own && !meshed.acknowledged => {
            "not every proxy listens on the Service's own address yet"
        }
        _ => "nothing serves the name yet, or the Service is bypassed",
    };
    format!("{PLAIN}{why}")
}
