//! Every rule of dns in its sentence, every problem with its severity and next step.

use maesh_compiler::compile::explain::{Explanation, PortSeen, ProxySeen};
use maesh_dns::{Located, ProxySeen as DnsProxy, Rule};
use maesh_proxy::explain::{ListenerSeen, PortSeen as ProxyPort, Refusal, ServiceState};

use super::*;
use crate::explain::{collect::Part, failures::Failures};

fn proxy_of_dns(id: &str, node: &str, ready: bool, serves: bool, local: bool) -> DnsProxy {
    DnsProxy {
        id: id.into(),
        node: node.into(),
        addresses: vec![],
        ready,
        unreachable: false,
        serves: Some(serves),
        answered: false,
        local,
    }
}

fn dns(rule: Option<Rule>, located: Option<Located>) -> DnsExplanation {
    DnsExplanation {
        name: "web.shop.maesh".into(),
        code: "NOERROR".into(),
        addresses: vec!["10.1.0.2".parse().unwrap()],
        ttl: Some(5),
        service: true,
        rule,
        located,
        bypass: false,
        collapsed: false,
        ready_proxies: 3,
        known_proxies: 3,
        proxies: vec![],
        synced: true,
        zones: vec!["maesh".into()],
    }
}

fn meshed() -> Meshed {
    Meshed {
        bypass: false,
        bypass_all: false,
        own: false,
        own_address: None,
        headless: false,
        plain: vec!["10.96.0.1".parse().unwrap()],
        ports: vec![PortSeen { port: 80, name: None, protocol: "http".into(), listen: Some(80) }],
        acknowledged: true,
    }
}

fn endpoint(ready: bool, serving: bool) -> EndpointSeen {
    EndpointSeen {
        port: 80,
        address: "10.1.0.9:8080".parse().unwrap(),
        pod: None,
        node: None,
        ready,
        serving,
        terminating: false,
        for_zones: vec![],
        for_nodes: vec![],
    }
}

/// A Service that works, for a caller on node n1.
fn good() -> Collected {
    let caller = CallerSeen {
        address: "10.1.0.7".parse().unwrap(),
        kind: "pod".into(),
        name: Some("shop/client".into()),
        service_account: None,
        node: Some("n1".into()),
    };
    let known = Explanation {
        zones: vec!["maesh".into()],
        service: Some("shop/web".into()),
        name: Some("web.shop.maesh".into()),
        not_meshed: None,
        unknown: None,
        meshed: Some(meshed()),
        endpoints: vec![endpoint(true, true)],
        endpoints_in_all: 1,
        caller: Some(caller),
        caller_unknown: None,
        proxies: vec![],
        findings: vec![],
    };
    let port = ProxyPort {
        port: 80,
        protocol: "http".into(),
        listen: 80,
        listener: Some(ListenerSeen { id: "shared/80/tcp".into(), addresses: vec![], shared: true }),
        held: ServiceState::InForce,
        policies: vec![],
        routes: vec![],
        taken: None,
        undecided: None,
        refusal: None,
    };
    let said = proxy::Explanation {
        host: "web.shop.maesh".into(),
        ready: true,
        synced: true,
        service: Some("shop/web".into()),
        access_control: None,
        account: None,
        refusal: None,
        ports: vec![port],
    };
    Collected {
        asked: "a test".into(),
        dev: false,
        name: "web.shop.maesh".into(),
        port: None,
        sent: None,
        caller: Some("10.1.0.7".parse().unwrap()),
        controller: Part { by: "controller-1".into(), said: Ok(known) },
        reached: None,
        dns: vec![Part {
            by: "dns-1".into(),
            said: Ok(dns(Some(Rule::Local), Some(Located::Address { node: Some("n1".into()) }))),
        }],
        proxy: Some(Part { by: "proxy-1".into(), said: Ok(said) }),
        failures: None,
    }
}

fn known(collected: &mut Collected) -> &mut Explanation {
    collected.controller.said.as_mut().unwrap()
}

fn meshed_of(collected: &mut Collected) -> &mut Meshed {
    known(collected).meshed.as_mut().unwrap()
}

fn answered(collected: &mut Collected) -> &mut DnsExplanation {
    collected.dns[0].said.as_mut().unwrap()
}

fn carried(collected: &mut Collected) -> &mut proxy::Explanation {
    collected.proxy.as_mut().unwrap().said.as_mut().unwrap()
}

#[test]
fn nothing_is_wrong_with_what_works() {
    let report = Report::of(good());
    assert!(report.served);
    assert_eq!(report.problems, []);
}

#[test]
fn problems_and_whether_the_caller_is_served() {
    type Change = fn(&mut Collected);
    let rows: &[(&str, Change, bool, &str)] = &[
        ("not in the mesh", |g| known(g).not_meshed = Some("no Service shop/web".into()), false, "no Service shop/web"),
        ("unknown caller", |g| known(g).caller_unknown = Some("no pod x".into()), false, "no pod x"),
        ("no endpoint", |g| known(g).endpoints.clear(), false, "kubectl get endpointslices"),
        ("no endpoint in dev", |g| (g.dev = true, known(g).endpoints.clear()).1, false, "add an EndpointSlice"),
        ("none ready", |g| known(g).endpoints = vec![endpoint(false, false)], false, "its only endpoint is not ready"),
        (
            "only terminating ones",
            |g| known(g).endpoints = vec![endpoint(false, true)],
            true,
            "its only endpoint is not ready",
        ),
        ("no such port", |g| g.port = Some(81), false, "no meshed port 81; it has 80"),
        ("controller away", |g| g.controller.said = Err("connection refused".into()), true, "connection refused"),
        ("dns away", |g| g.dns[0].said = Err("no answer".into()), false, "what callers are answered is not known"),
        (
            "no dns runs",
            |g| g.dns = vec![Part { by: "dns".into(), said: Err("no dns runs in a test".into()) }],
            false,
            "dns could not be asked: no dns runs in a test",
        ),
        (
            "no proxy runs",
            |g| g.proxy = Some(Part { by: "proxy".into(), said: Err("none".into()) }),
            true,
            "proxy could not be asked: none",
        ),
        (
            "no address",
            |g| {
                (answered(g).rule, answered(g).addresses) = (Some(Rule::Plain), vec![]);
                meshed_of(g).ports = vec![];
            },
            false,
            "the name has no address, so nobody can connect: the Service has no port that the mesh can carry",
        ),
        (
            "another Service gets the request, and its endpoint is not ready",
            |g| {
                let mut other = known(g).clone();
                (other.service, other.endpoints) = (Some("shop/api".into()), vec![endpoint(false, false)]);
                carried(g).service = other.service.clone();
                g.reached = Some(other);
            },
            false,
            "its only endpoint is not ready",
        ),
        ("dns too young", |g| (answered(g).synced, answered(g).rule) = (false, None), false, "not received everything"),
        (
            "dns behind",
            |g| (answered(g).code, answered(g).rule) = ("NXDOMAIN".into(), None),
            false,
            "although the controller has the Service",
        ),
        (
            "headless without endpoints",
            |g| {
                (answered(g).code, answered(g).rule) = ("NXDOMAIN".into(), None);
                (meshed_of(g).headless, meshed_of(g).plain) = (true, vec![]);
            },
            false,
            "headless and has no ready endpoint",
        ),
        (
            "replicas differ",
            |g| {
                let other = DnsExplanation { addresses: vec![], ..answered(g).clone() };
                g.dns.push(Part { by: "dns-2".into(), said: Ok(other) });
            },
            true,
            "replicas answer differently",
        ),
        (
            "around the mesh",
            |g| {
                answered(g).rule = Some(Rule::FailToPlain);
                known(g).proxies = vec![ProxySeen {
                    id: "proxy-1".into(),
                    node: None,
                    addresses: vec![],
                    ready: true,
                    lacks: vec!["shared/80/tcp".into()],
                    failed: vec![("shared/80/tcp".into(), "address in use".into())],
                }];
            },
            true,
            "proxy proxy-1: listener shared/80/tcp: address in use",
        ),
        (
            "own address pending",
            |g| {
                answered(g).rule = Some(Rule::Plain);
                (meshed_of(g).own, meshed_of(g).acknowledged) = (true, false);
            },
            true,
            "has no own address yet",
        ),
        (
            "withheld",
            |g| answered(g).rule = Some(Rule::Withheld),
            false,
            "the mesh allows no ClusterIP or endpoint addresses",
        ),
        ("bypassed", |g| (answered(g).rule, meshed_of(g).bypass) = (Some(Rule::Plain), true), true, "around the mesh"),
        (
            "not of this node's proxy",
            |g| {
                answered(g).rule = Some(Rule::Spread);
                answered(g).proxies = vec![proxy_of_dns("proxy-9", "n1", false, true, true)];
            },
            true,
            "proxy proxy-9 of the caller's node is not used",
        ),
        ("last known", |g| answered(g).rule = Some(Rule::LastKnown), false, "do not listen on every port"),
        (
            "no usable port",
            |g| {
                meshed_of(g).ports = vec![];
                known(g).endpoints = vec![];
            },
            true,
            "the Service has no port that the mesh can carry",
        ),
        (
            "every connect fails",
            |g| g.failures = Some(Failures { requests: 9, by_reason: [("connect_failed".into(), 9)].into() }),
            true,
            "answered 9 of the 9 requests to this Service by itself since it started (connect_failed 9)",
        ),
        ("proxy away", |g| g.proxy.as_mut().unwrap().said = Err("timed out".into()), true, "timed out"),
        ("proxy leaving", |g| carried(g).ready = false, true, "proxy-1 is not ready"),
        ("no listener", |g| carried(g).ports[0].listener = None, false, "no listener open for port 80"),
        ("awaited", |g| carried(g).ports[0].held = ServiceState::Awaited, true, "has not received it"),
        (
            "refused",
            |g| {
                carried(g).ports[0].refusal =
                    Some(Refusal { reason: "no_endpoints".into(), status: 503, explanation: "none".into() });
            },
            false,
            "503 on port 80 with reason no_endpoints",
        ),
    ];
    for (case, change, served, says) in rows {
        let mut collected = good();
        change(&mut collected);
        let report = Report::of(collected);
        let said: Vec<_> = report.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(report.served, *served, "{case}: {said:#?}");
        assert!(said.iter().any(|message| message.contains(says)), "{case}: {said:#?}");
        assert!(report.problems.is_sorted(), "{case}");
    }
}

#[test]
fn endpoints_matter_to_requests_that_go_to_them() {
    let route = |own: bool, service: &str| proxy::RouteSeen {
        own,
        rule: None,
        backends: vec![proxy::BackendSeen {
            service: Some(service.into()),
            weight: 1,
            scheme: None,
            tls: None,
            balance: None,
            policies: vec![],
            usable: 1,
            local_only: false,
            endpoints: vec![],
            access: None,
            fallback: None,
        }],
    };
    for (case, taken, served) in [
        ("nothing was asked", None, false),
        ("a route to another Service", Some(0), true),
        ("a route to the Service", Some(1), false),
        ("the Service itself", Some(2), false),
    ] {
        let mut collected = good();
        known(&mut collected).endpoints.clear();
        let port = &mut carried(&mut collected).ports[0];
        port.routes = vec![route(false, "shop/api"), route(false, "shop/web"), route(true, "shop/web")];
        port.taken = taken;
        assert_eq!(Report::of(collected).served, served, "{case}");
    }
}

#[test]
fn why_in_a_sentence() {
    let at = |kind: &str| CallerSeen {
        address: "10.1.0.7".parse().unwrap(),
        kind: kind.into(),
        name: None,
        service_account: None,
        node: Some("n1".into()),
    };
    let address = || Some(Located::Address { node: None });
    let range = || Some(Located::Range { range: "10.1.0.0/24".into(), node: Some("n1".into()) });
    let with = |proxy| DnsExplanation { proxies: vec![proxy], ..dns(Some(Rule::Spread), address()) };
    let few = DnsExplanation { collapsed: true, ready_proxies: 0, ..dns(Some(Rule::FailToPlain), address()) };
    for (said, caller, says) in [
        (dns(Some(Rule::Local), address()), Some(at("pod")), "the caller's pod is on node n1; the proxy there"),
        (dns(Some(Rule::Local), address()), Some(at("node")), "that of node n1"),
        (dns(Some(Rule::Local), range()), Some(at("podrange")), "10.1.0.0/24, the pod range of node n1"),
        (dns(Some(Rule::Spread), None), None, "nothing is said of the caller"),
        (dns(Some(Rule::Spread), Some(Located::Unknown)), None, "nothing is known of the caller's address"),
        (dns(Some(Rule::Spread), Some(Located::Resolver)), Some(at("resolver")), "a resolver of the cluster"),
        (dns(Some(Rule::Spread), address()), Some(at("pod")), "node n1, where no proxy runs"),
        (with(proxy_of_dns("p", "n1", false, true, true)), Some(at("pod")), "whose proxy p is not ready"),
        (with(proxy_of_dns("p", "n1", true, false, true)), Some(at("pod")), "p does not listen on every port"),
        (dns(Some(Rule::Fixed), None), None, "this Service's alone"),
        (dns(Some(Rule::FailToPlain), None), None, "no ready proxy listens"),
        (few, None, "0 of 3 proxies are ready"),
        (dns(Some(Rule::LastKnown), None), None, "ClusterIP and endpoint addresses are not allowed"),
        (DnsExplanation { code: "REFUSED".into(), ..dns(None, None) }, None, "none of the mesh's zones (maesh)"),
        (DnsExplanation { code: "NXDOMAIN".into(), ..dns(None, None) }, None, "no Service of the mesh"),
    ] {
        let text = because(&said, caller.as_ref(), None);
        assert!(text.contains(says), "{text:?} says nothing of {says:?}");
    }
    for (change, says) in [
        ((|m| m.bypass = true) as fn(&mut Meshed), "annotation bypass"),
        (|m| m.ports.clear(), "no port that the mesh can carry"),
        (|m| m.ports[0].listen = None, "no port could be found"),
        (|m| m.own = true, "no own address yet"),
    ] {
        let mut meshed = meshed();
        change(&mut meshed);
        let text = because(&dns(Some(Rule::Plain), None), None, Some(&meshed));
        assert!(text.contains(says), "{text:?} says nothing of {says:?}");
    }
}
