//! The report for people: aligned, the answer first, what is wrong last, where a terminal leaves the eye.

use std::fmt::Write as _;

use maesh_compiler::{
    compile::explain::{CallerSeen, EndpointSeen},
    diagnostic::escaped,
};
use maesh_proxy::explain::{BackendSeen, Explanation, PolicySeen, PortSeen, ServiceState};

use super::{
    curl,
    report::{Dns, Problem, Proxy, Report, Severity},
    taken,
};

/// Endpoints that are printed.
const MOST_ENDPOINTS: usize = 12;
/// Width of the first column.
const LABEL: usize = 11;

/// The report as text, with a line break at its end.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let what = match &report.service {
        Some(service) => format!("Service {service}"),
        None => "no Service".to_owned(),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}\n", escaped(&format!("{}: {what}, in {}", report.name, report.asked)));
    if let Some(caller) = &report.caller {
        line(&mut out, "caller", &who(caller));
    }
    if let Some(dns) = &report.dns {
        of_dns(&mut out, dns, report.dev);
    }
    if let Some(proxy) = &report.proxy {
        of_proxy(&mut out, proxy, report);
    }
    of_endpoints(&mut out, report);
    out.push('\n');
    of_problems(&mut out, &report.problems);
    if report.served {
        let _ = writeln!(out, "{}", escaped(&next(report)));
    }
    out
}

fn line(out: &mut String, label: &str, text: &str) {
    let _ = writeln!(out, "{label:LABEL$}{}", escaped(text));
}

fn who(caller: &CallerSeen) -> String {
    let node = caller.node.as_ref().map_or_else(String::new, |node| format!(", node {node}"));
    match (&*caller.kind, &caller.name) {
        ("pod", Some(name)) => format!("pod {name} ({}){node}", caller.address),
        ("resolver", Some(name)) => format!("resolver {name} ({}){node}", caller.address),
        ("node", Some(name)) => format!("node {name} ({})", caller.address),
        ("podrange", Some(range)) => format!("{} (no pod known; in the range {range}){node}", caller.address),
        _ => format!("{} (no pod or node is known there)", caller.address),
    }
}

fn of_dns(out: &mut String, dns: &Dns, dev: bool) {
    let said = &dns.said;
    let named = |address: &std::net::IpAddr| {
        // A `maesh dev` has one, which is itself.
        let proxy = said.proxies.iter().find(|proxy| !dev && proxy.addresses.contains(address));
        proxy.map_or_else(
            || address.to_string(),
            |proxy| match proxy.node.as_str() {
                "" => format!("{address} (proxy {})", proxy.id),
                node => format!("{address} (proxy {} on {node})", proxy.id),
            },
        )
    };
    let answer = if said.addresses.is_empty() {
        said.code.clone()
    } else {
        said.addresses.iter().map(named).collect::<Vec<_>>().join(", ")
    };
    line(out, "dns", &answer);
    line(out, "", &format!("because: {}", dns.because));
}

fn of_proxy(out: &mut String, proxy: &Proxy, report: &Report) {
    let ready = if proxy.said.ready { "ready" } else { "not ready" };
    line(out, "proxy", &format!("{}, {ready}", proxy.by));
    if let Some(other) = proxy.said.service.as_ref().filter(|other| report.service.as_ref() != Some(other)) {
        line(out, "", &format!("{} leads to Service {other} there", proxy.said.host));
    }
    for port in &proxy.said.ports {
        of_port(out, port, &proxy.said, report);
        if let Some(sent) = &report.sent {
            line(out, "", &taken::sentence(port, sent));
        }
    }
}

fn of_port(out: &mut String, port: &PortSeen, said: &Explanation, report: &Report) {
    let number =
        if port.listen == port.port { port.port.to_string() } else { format!("{} on {}", port.port, port.listen) };
    let by = match (&port.listener, port.protocol.as_str()) {
        (None, _) => "no listener is open".to_owned(),
        (Some(listener), protocol) => {
            let at = listener.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let by = match (listener.shared, protocol) {
                (false, _) => "the address is its alone",
                (true, "http") => "shared, by Host",
                (true, _) => "shared, by SNI",
            };
            format!("listener {} at {at} ({by})", listener.id)
        }
    };
    line(out, "  port", &format!("{number}/{}: {by}", port.protocol));
    match port.held {
        ServiceState::InForce => {}
        ServiceState::Unused => {
            line(out, "", "nobody called it through this proxy yet; the first call fetches its endpoints");
        }
        ServiceState::Awaited => line(out, "", "asked for, and not here yet"),
    }
    of_policies(out, &port.policies);
    for route in &port.routes {
        let all: u64 = route.backends.iter().map(|backend| u64::from(backend.weight)).sum();
        for backend in &route.backends {
            let rule = route.rule.as_ref().map_or_else(String::new, |rule| format!("{} => ", escaped(rule)));
            let rest = if route.own && port.routes.len() > 1 { "all others => " } else { "" };
            let to = of_backend(backend, &port.protocol, route.own, all);
            line(out, "  route", &format!("{rule}{rest}{to}"));
            of_access(out, backend, said, report);
            of_policies(out, &backend.policies);
        }
    }
}

/// Whether the caller is admitted, where anybody asks.
fn of_access(out: &mut String, backend: &BackendSeen, said: &Explanation, report: &Report) {
    let Some(control) = &said.access_control else { return };
    let dry = if control == "dry-run" { "; a dry run denies nothing" } else { "" };
    let account = said.account.as_deref();
    let text = match (&backend.access, account) {
        (None, _) if backend.service.is_none() => return,
        (None, _) => match (report.has_caller, &report.sent) {
            (false, None) => "depends on who calls what: say --from and a method and path",
            (true, None) => "depends on what is called: write a method and a URL with its path",
            (false, Some(_)) => "depends on who calls: say --from",
            (true, Some(_)) => "not known for this request",
        }
        .to_owned(),
        (Some(_), None) => {
            format!("denied: the caller is nobody, because no pod with an address of its own calls from there{dry}")
        }
        (Some(access), Some(account)) if !access.admitted => {
            format!("denied: no TrafficTarget admits {account} with this{dry}")
        }
        (Some(access), Some(account)) => {
            let some = if access.endpoints < backend.usable {
                format!(", to {} of the endpoints", access.endpoints)
            } else {
                String::new()
            };
            format!("{account} is admitted by {}{some}", access.targets.join(", "))
        }
    };
    line(out, "  access", &text);
}

fn of_policies(out: &mut String, policies: &[PolicySeen]) {
    for PolicySeen { annotation, value, state } in policies {
        let state = state.as_ref().map_or_else(String::new, |state| format!(" ({state})"));
        line(out, "  policy", &format!("{annotation}: {value}{state}"));
    }
}

fn of_backend(backend: &BackendSeen, protocol: &str, own: bool, all: u64) -> String {
    let share = match (own, all) {
        (true, _) => String::new(),
        (false, 0) => "weight 0: ".to_owned(),
        (false, all) => format!("{}: ", percent(u64::from(backend.weight), all)),
    };
    let Some(service) = &backend.service else { return format!("{share}a backend that does not exist") };
    let how = backend.balance.as_deref().unwrap_or("p2c");
    let scheme = if protocol == "http" { backend.scheme.as_deref().unwrap_or("http") } else { protocol };
    let chosen = backend.endpoints.iter().filter(|endpoint| endpoint.chosen).count();
    let shown = backend.endpoints.len();
    let count = match backend.usable {
        1 => "1 endpoint".to_owned(),
        count => format!("{count} endpoints"),
    };
    let kept = if chosen < shown {
        let why = if backend.local_only { "internalTrafficPolicy: Local" } else { "topology hints" };
        format!(", this caller is kept to {chosen} of them ({why})")
    } else {
        String::new()
    };
    let tls = backend.tls.as_ref().map_or_else(String::new, |tls| {
        format!(" (certificate for {}, {})", escaped(&tls.server_name), escaped(&tls.roots))
    });
    let fallback = match &backend.fallback {
        Some(fallback) if backend.usable == 0 => {
            format!(", so requests go to the fallback {}, {} usable", fallback.service, fallback.usable)
        }
        _ => String::new(),
    };
    format!("{share}{service}, {count} usable{fallback}, {how} over {scheme}{tls}{kept}")
}

/// A share of `all`, to a tenth of a percent. What is not nothing is never said to be.
pub fn percent(part: u64, all: u64) -> String {
    match (part * 1000 + all / 2) / all.max(1) {
        0 if part > 0 => "below 0.1 %".to_owned(),
        tenths if tenths >= 1000 && part < all => "over 99.9 %".to_owned(),
        tenths if tenths % 10 == 0 => format!("{} %", tenths / 10),
        tenths => format!("{}.{} %", tenths / 10, tenths % 10),
    }
}

fn of_endpoints(out: &mut String, report: &Report) {
    if report.endpoints.is_empty() {
        return;
    }
    if let Some((service, _)) = &report.reached {
        line(out, "endpoints", &format!("of Service {service}, which gets the request:"));
    }
    let rows: Vec<[String; 4]> = report.endpoints.iter().take(MOST_ENDPOINTS).map(row).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (port, address, place) = (width(0), width(1), width(2));
    for (at, row) in rows.iter().enumerate() {
        let label = if at == 0 && report.reached.is_none() { "endpoints" } else { "" };
        let text = format!("{:>port$}  {:address$}  {:place$}  {}", row[0], row[1], row[2], row[3]);
        line(out, label, text.trim_end());
    }
    if report.endpoints_in_all > rows.len() {
        line(out, "", &format!("and {} more; -o json shows 100", report.endpoints_in_all - rows.len()));
    }
}

fn row(endpoint: &EndpointSeen) -> [String; 4] {
    let place = match (&endpoint.pod, &endpoint.node) {
        (Some(pod), Some(node)) => format!("{pod} on {node}"),
        (Some(pod), None) => pod.clone(),
        (None, Some(node)) => format!("on {node}"),
        (None, None) => String::new(),
    };
    let mut state = match (endpoint.ready, endpoint.serving, endpoint.terminating) {
        (true, _, false) => "ready".to_owned(),
        (true, _, true) => "ready, terminating".to_owned(),
        (false, true, true) => "terminating, still serving".to_owned(),
        (false, true, false) => "not ready, serving".to_owned(),
        (false, false, true) => "terminating".to_owned(),
        (false, false, false) => "not ready".to_owned(),
    };
    if !endpoint.for_zones.is_empty() {
        let _ = write!(state, ", for zone {}", endpoint.for_zones.join(", "));
    }
    if !endpoint.for_nodes.is_empty() {
        let _ = write!(state, ", for node {}", endpoint.for_nodes.join(", "));
    }
    [endpoint.port.to_string(), endpoint.address.to_string(), place, state]
}

fn of_problems(out: &mut String, problems: &[Problem]) {
    for problem in problems {
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let _ = writeln!(out, "{severity}: {}", escaped(&problem.message));
    }
    if problems.is_empty() {
        let _ = writeln!(out, "nothing is wrong");
    }
}

/// What to type to see it.
fn next(report: &Report) -> String {
    let meshed = report.reached.as_ref().map_or(report.meshed.as_ref(), |(_, meshed)| meshed.as_ref());
    let ports = meshed.map(|meshed| &*meshed.ports).unwrap_or_default();
    let port = ports.iter().find(|port| Some(port.port) == report.port).or_else(|| ports.first());
    let address = report.dns.as_ref().and_then(|dns| dns.said.addresses.first());
    let (Some(port), Some(address)) = (port, address) else { return String::new() };
    let listen = if report.proxy.is_some() { port.listen.unwrap_or(port.port) } else { port.port };
    let at = std::net::SocketAddr::new(*address, listen);
    match (port.protocol.as_str(), report.dev) {
        ("http", true) => format!("try: {}", curl::command(&at.to_string(), &report.name, true, report.sent.as_ref())),
        ("http", false) => {
            let at = if port.port == 80 { report.name.clone() } else { format!("{}:{}", report.name, port.port) };
            format!("try, from a pod: {}", curl::command(&at, &report.name, false, report.sent.as_ref()))
        }
        ("udp", true) => format!("try: send a datagram to {at}"),
        ("udp", false) => format!("try, from a pod: send a datagram to {}:{}", report.name, port.port),
        (_, true) => format!("try: connect to {at}"),
        (protocol, false) => format!("try, from a pod: connect to {}:{} ({protocol})", report.name, port.port),
    }
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn a_share_is_neither_nothing_nor_all_unless_it_is() {
        for (part, all, want) in [
            (0, 1000, "0 %"),
            (0, 0, "0 %"),
            (1, 2000, "0.1 %"),
            (1, 2001, "below 0.1 %"),
            (1, 1_000_000, "below 0.1 %"),
            (1, 3, "33.3 %"),
            (1, 2, "50 %"),
            (999, 1000, "99.9 %"),
            (999_999, 1_000_000, "over 99.9 %"),
            (7, 7, "100 %"),
        ] {
            assert_eq!(percent(part, all), want, "{part} of {all}");
        }
    }
}
