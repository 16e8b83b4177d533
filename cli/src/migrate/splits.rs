//! The routes that TrafficSplits come to, as lines of the annotation `routes`.
//!
//! What a split means is not worked out here: the routes are those that the compiler made of it. In the annotation the longest
//! rule comes first, in a split the first one, so lines whose order would change exclude what comes before them.

use std::collections::{BTreeMap, BTreeSet};

use maesh_compiler::kinds::PREFIX;
use maesh_config::{
    model::{Backend, Protocol, Route, ServicePort},
    rule::{Matcher, Regexp, Rule},
};

/// The annotation.
const ROUTES: &str = "routes";
/// Largest weight that it takes.
const HEAVIEST: u32 = 1_000_000;

/// Why routes cannot be lines of the annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inexpressible {
    /// It would have no target.
    #[error("on a port of the Service no backend gets anything, which the annotation routes cannot say")]
    NoBackend,
    /// Weights are numbers up to a million there.
    #[error("the weights are finer than those of the annotation routes")]
    Weight,
    /// One line for each rule.
    #[error("an expression has a line break, which a line of the annotation routes cannot have")]
    LineBreak,
    /// Two ports of one number, and no names to tell them apart.
    #[error("two ports of the same number have no names to write routes for each")]
    Ports,
}

/// The annotations that say the routes of these ports, by key.
pub fn annotations(ports: &[ServicePort]) -> Result<BTreeMap<String, String>, Inexpressible> {
    let lines = ports.iter().map(of_port).collect::<Result<Vec<_>, _>>()?;
    let of_protocol: BTreeSet<Protocol> = ports.iter().map(|port| port.protocol).collect();
    let (first, rest) = lines.split_first().ok_or(Inexpressible::NoBackend)?;
    if lines.iter().all(String::is_empty) {
        return Err(Inexpressible::NoBackend);
    }
    if of_protocol.len() == 1 && rest.iter().all(|other| other == first) {
        return Ok(BTreeMap::from([(format!("{PREFIX}{ROUTES}"), first.clone())]));
    }
    let mut all = BTreeMap::new();
    for (port, lines) in ports.iter().zip(lines).filter(|(_, lines)| !lines.is_empty()) {
        let is_only = ports.iter().filter(|other| other.number == port.number).count() == 1;
        let named = match (is_only, &port.name) {
            (true, _) => port.number.to_string(),
            (false, Some(name)) => name.to_string(),
            (false, None) => return Err(Inexpressible::Ports),
        };
        all.insert(format!("{PREFIX}{named}.{ROUTES}"), lines);
    }
    Ok(all)
}

/// The lines of one port; empty where it has no routes.
fn of_port(port: &ServicePort) -> Result<String, Inexpressible> {
    // What comes behind one that takes everything gets nothing.
    let reached = port.routes.iter().position(|route| route.rule.is_none()).map_or(port.routes.len(), |at| at + 1);
    let routes = &port.routes[..reached];
    let mut rules: Vec<Rule> = routes.iter().map(|route| rule(route, port.protocol)).collect();
    if !keeps_order(routes, &rules) {
        rules = (0..routes.len()).map(|at| excluding(routes, &rules, at)).collect();
    }
    let mut lines = Vec::new();
    for (rule, route) in rules.iter().zip(routes) {
        let line = format!("{rule} => {}", targets(&route.backends)?);
        if line.contains(['\n', '\r']) {
            return Err(Inexpressible::LineBreak);
        }
        lines.push(line);
    }
    Ok(lines.join("\n"))
}

fn rule(route: &Route, protocol: Protocol) -> Rule {
    route.rule.clone().unwrap_or_else(|| everything(protocol))
}

/// A rule for everything that a port of this protocol carries. A request may have the path `*`, so no prefix is asked for.
fn everything(protocol: Protocol) -> Rule {
    let network = |text: &str| text.parse().ok().map(|net| Rule::Is(Matcher::ClientIp(net)));
    match protocol {
        Protocol::Http => Regexp::new("^").map_or(Rule::All(Vec::new()), |any| Rule::Is(Matcher::PathRegexp(any))),
        Protocol::Tcp => Rule::Is(Matcher::HostSni("*".into())),
        Protocol::Udp => Rule::Any(["0.0.0.0/0", "::/0"].into_iter().filter_map(network).collect()),
    }
}

/// Whether the longest rule first is the same order, as far as it matters.
fn keeps_order(routes: &[Route], rules: &[Rule]) -> bool {
    let length = |at: usize| rules[at].to_string().len();
    let before = |at: usize| (0..at).filter(move |first| routes[*first].backends != routes[at].backends);
    (0..routes.len()).all(|at| before(at).all(|first| length(first) >= length(at)))
}

/// The rule of this number, without what the ones before it take for other backends.
fn excluding(routes: &[Route], rules: &[Rule], at: usize) -> Rule {
    let others = (0..at).filter(|first| routes[*first].backends != routes[at].backends);
    let nots = others.map(|first| Rule::Not(Box::new(rules[first].clone())));
    let own = (routes[at].rule.is_some() || at == 0).then(|| rules[at].clone());
    let mut parts: Vec<Rule> = own.into_iter().chain(nots).collect();
    match parts.len() {
        0 => rules[at].clone(),
        1 => parts.remove(0),
        _ => Rule::All(parts),
    }
}

fn targets(backends: &[Backend]) -> Result<String, Inexpressible> {
    let heaviest = backends.iter().map(|backend| backend.weight).max().ok_or(Inexpressible::NoBackend)?;
    let common =
        if heaviest > HEAVIEST { backends.iter().fold(0, |common, it| greatest(common, it.weight)) } else { 1 };
    if heaviest / common.max(1) > HEAVIEST {
        return Err(Inexpressible::Weight);
    }
    let target = |backend: &Backend| format!("{} {}", backend.service.name, backend.weight / common.max(1));
    Ok(backends.iter().map(target).collect::<Vec<_>>().join(", "))
}

/// The greatest common divisor.
fn greatest(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest(b, a % b) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends where something is missing")]
mod tests {
    use std::sync::Arc;

    use maesh_config::{ServiceName, rule::parse};

    use super::*;

    fn port(number: u16, name: Option<&str>, protocol: Protocol, routes: &[(&str, &[(&str, u32)])]) -> ServicePort {
        let route = |(rule, backends): &(&str, &[(&str, u32)])| {
            let backend = |(name, weight): &(&str, u32)| Backend {
                service: ServiceName::new("shop", *name),
                port: number,
                weight: *weight,
            };
            let rule = (!rule.is_empty()).then(|| parse(rule).unwrap().rule);
            Route { rule, backends: backends.iter().map(backend).collect(), not_understood: None }
        };
        ServicePort {
            number,
            name: name.map(Arc::from),
            protocol,
            leaving: false,
            routes: routes.iter().map(route).collect(),
            called: Arc::default(),
            backend: Arc::default(),
        }
    }

    #[test]
    fn routes_are_lines() {
        use Protocol::{Http, Tcp, Udp};
        let (a, b) = (&[("a", 1)][..], &[("b", 9), ("c", 1)][..]);
        let long = "PathRegexp(`^(?:/api)`)";
        for (case, ports, want) in [
            ("all requests", vec![port(80, None, Http, &[("", b)])], &[("routes", "PathRegexp(`^`) => b 9, c 1")][..]),
            (
                "matches before all",
                vec![port(80, None, Http, &[(long, a), ("", b)])],
                &[("routes", "PathRegexp(`^(?:/api)`) => a 1\nPathRegexp(`^`) => b 9, c 1")],
            ),
            (
                "a short rule before a long one",
                vec![port(80, None, Http, &[("Method(`GET`)", a), (long, b), ("", a)])],
                &[(
                    "routes",
                    "Method(`GET`) => a 1\nPathRegexp(`^(?:/api)`) && !Method(`GET`) => b 9, c 1\n!PathRegexp(`^(?:/api)`) => a 1",
                )],
            ),
            (
                "the order of lines with the same targets",
                vec![port(80, None, Http, &[("Method(`GET`)", a), (long, a)])],
                &[("routes", "Method(`GET`) => a 1\nPathRegexp(`^(?:/api)`) => a 1")],
            ),
            (
                "behind everything",
                vec![port(80, None, Http, &[("", a), (long, b)])],
                &[("routes", "PathRegexp(`^`) => a 1")],
            ),
            ("TCP", vec![port(80, None, Tcp, &[("", a)])], &[("routes", "HostSNI(`*`) => a 1")]),
            (
                "UDP",
                vec![port(53, None, Udp, &[("", a)])],
                &[("routes", "ClientIP(`0.0.0.0/0`) || ClientIP(`::/0`) => a 1")],
            ),
            (
                "ports that differ",
                vec![port(80, Some("x"), Http, &[("", a)]), port(81, Some("y"), Tcp, &[("", a)])],
                &[("80.routes", "PathRegexp(`^`) => a 1"), ("81.routes", "HostSNI(`*`) => a 1")],
            ),
            (
                "a port without routes",
                vec![port(80, Some("x"), Http, &[(long, a)]), port(81, Some("y"), Tcp, &[])],
                &[("80.routes", "PathRegexp(`^(?:/api)`) => a 1")],
            ),
            (
                "two ports of one number",
                vec![port(53, Some("tcp"), Tcp, &[("", a)]), port(53, Some("udp"), Udp, &[("", a)])],
                &[
                    ("tcp.routes", "HostSNI(`*`) => a 1"),
                    ("udp.routes", "ClientIP(`0.0.0.0/0`) || ClientIP(`::/0`) => a 1"),
                ],
            ),
            (
                "large weights",
                vec![port(80, None, Http, &[("", &[("a", 3_000_000), ("b", 1_500_000)])])],
                &[("routes", "PathRegexp(`^`) => a 2, b 1")],
            ),
        ] {
            let want: BTreeMap<_, _> =
                want.iter().map(|(key, text)| (format!("{PREFIX}{key}"), (*text).into())).collect();
            assert_eq!(annotations(&ports), Ok(want), "{case}");
        }
    }

    #[test]
    fn what_the_annotation_cannot_say_is_refused() {
        let a = &[("a", 1)][..];
        let twice = vec![port(53, None, Protocol::Tcp, &[("", a)]), port(53, None, Protocol::Udp, &[("", a)])];
        for (ports, want) in [
            (vec![port(80, None, Protocol::Http, &[("", &[])])], Inexpressible::NoBackend),
            (vec![port(80, None, Protocol::Http, &[("", &[("a", 3_000_001), ("b", 2)])])], Inexpressible::Weight),
            (vec![port(80, None, Protocol::Http, &[("PathRegexp(`a\nb`)", a)])], Inexpressible::LineBreak),
            (twice, Inexpressible::Ports),
        ] {
            assert_eq!(annotations(&ports), Err(want));
        }
    }
}
