//! Which route a request takes, in a sentence.

use maesh_proxy::explain::{BackendSeen, PortSeen, RouteSeen, Sent};

use super::print::percent;

/// What becomes of `sent` at `port`.
pub fn sentence(port: &PortSeen, sent: &Sent) -> String {
    let what = match (port.protocol.as_str(), sent) {
        ("udp", _) => "flow",
        ("http", Sent::Request(_)) => "request",
        _ => "connection",
    };
    let taken = port.taken.and_then(|number| port.routes.get(number));
    if let Some(fallback) = taken.and_then(fallback) {
        return format!(
            "this {what} goes to the fallback {fallback}, because the Service itself has no endpoint that can be used"
        );
    }
    match (taken, &port.undecided, &port.refusal) {
        (Some(route), ..) if route.own && port.routes.len() == 1 => {
            format!("this {what} goes to the Service itself, which has no routes")
        }
        (Some(route), ..) if route.own => format!("this {what} takes: no rule matches; the Service itself"),
        (Some(route), ..) => format!("this {what} takes: {}", written(route)),
        (None, Some(why), _) => format!("this {what}: not known, because {why}"),
        (None, None, Some(refusal)) => format!("this {what} is refused: {} {}", refusal.status, refusal.reason),
        (None, None, None) => format!("this {what}: the proxy is of an older version, which does not say its route"),
    }
}

/// The Service that stands in for the called one, where that is taken and cannot serve.
fn fallback(route: &RouteSeen) -> Option<&str> {
    let own = route.backends.first().filter(|backend| route.own && backend.usable == 0)?;
    own.fallback.as_ref().filter(|fallback| fallback.usable > 0).map(|fallback| &*fallback.service)
}

/// A route as the annotation has it.
fn written(route: &RouteSeen) -> String {
    let all: u64 = route.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let target = |backend: &BackendSeen| {
        let service = backend.service.as_deref().unwrap_or("a backend that does not exist");
        match route.backends.len() {
            1 => service.to_owned(),
            _ if all > 0 => format!("{}: {service}", percent(u64::from(backend.weight), all)),
            _ => format!("weight 0: {service}"),
        }
    };
    let targets = match route.backends.len() {
        0 => "no backend, so it is refused".to_owned(),
        _ => route.backends.iter().map(target).collect::<Vec<_>>().join(", "),
    };
    match &route.rule {
        Some(rule) => format!("{rule} => {targets}"),
        None => targets,
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, uri::PathAndQuery};
    use maesh_proxy::explain::{FallbackSeen, Refusal, SentRequest, ServiceState};

    use super::*;

    fn backend(service: Option<&str>, weight: u32) -> BackendSeen {
        BackendSeen {
            service: service.map(str::to_owned),
            weight,
            scheme: None,
            tls: None,
            balance: None,
            policies: vec![],
            usable: 0,
            fallback: None,
            local_only: false,
            endpoints: vec![],
            access: None,
        }
    }

    fn port() -> PortSeen {
        let rule = |rule: &str, backends| RouteSeen { own: false, rule: Some(rule.into()), backends };
        let routes = vec![
            rule("PathPrefix(`/api`)", vec![backend(Some("shop/api"), 1)]),
            rule("Path(`/half`)", vec![backend(Some("shop/api"), 1), backend(Some("shop/next"), 3)]),
            rule("Path(`/gone`)", vec![backend(None, 1)]),
            rule("Path(`/off`)", vec![backend(Some("shop/api"), 0), backend(Some("shop/next"), 0)]),
            RouteSeen {
                own: false,
                rule: None,
                backends: vec![backend(Some("shop/v1"), 9), backend(Some("shop/v2"), 1)],
            },
            RouteSeen { own: true, rule: None, backends: vec![backend(Some("shop/web"), 1)] },
        ];
        PortSeen {
            port: 80,
            protocol: "http".into(),
            listen: 80,
            listener: None,
            held: ServiceState::InForce,
            policies: vec![],
            routes,
            taken: None,
            undecided: None,
            refusal: None,
        }
    }

    #[test]
    fn what_is_said_of_a_request() {
        let request = SentRequest::new(Method::GET, PathAndQuery::from_static("/"), []).expect("small");
        let (request, stream) = (Sent::Request(request), Sent::Stream(None));
        let taken = |number| PortSeen { taken: Some(number), ..port() };
        let tcp = |port: PortSeen| PortSeen { protocol: "tcp".into(), ..port };
        let refusal = Refusal { reason: "uri_too_long".into(), status: 414, explanation: "long".into() };
        let fallback_of = |mut port: PortSeen| {
            port.routes[5].backends[0].fallback =
                Some(FallbackSeen { service: "shop/spare".into(), usable: 2, access: None });
            port
        };
        let alone = PortSeen { routes: port().routes.split_off(5), ..taken(0) };
        for (port, sent, want) in [
            (taken(0), &request, "this request takes: PathPrefix(`/api`) => shop/api"),
            (taken(1), &request, "this request takes: Path(`/half`) => 25 %: shop/api, 75 %: shop/next"),
            (taken(2), &request, "this request takes: Path(`/gone`) => a backend that does not exist"),
            (taken(3), &request, "this request takes: Path(`/off`) => weight 0: shop/api, weight 0: shop/next"),
            (taken(4), &request, "this request takes: 90 %: shop/v1, 10 %: shop/v2"),
            (taken(5), &request, "this request takes: no rule matches; the Service itself"),
            (alone, &request, "this request goes to the Service itself, which has no routes"),
            (
                fallback_of(taken(5)),
                &request,
                "this request goes to the fallback shop/spare, because the Service itself has no endpoint that can be used",
            ),
            (tcp(taken(0)), &stream, "this connection takes: PathPrefix(`/api`) => shop/api"),
            (tcp(taken(5)), &request, "this connection takes: no rule matches; the Service itself"),
            (taken(0), &stream, "this connection takes: PathPrefix(`/api`) => shop/api"),
            (
                PortSeen { undecided: Some("nobody knows".into()), ..port() },
                &request,
                "this request: not known, because nobody knows",
            ),
            (PortSeen { refusal: Some(refusal), ..port() }, &request, "this request is refused: 414 uri_too_long"),
            (
                PortSeen { protocol: "udp".into(), ..port() },
                &stream,
                "this flow: the proxy is of an older version, which does not say its route",
            ),
        ] {
            assert_eq!(sentence(&port, sent), want);
        }
    }
}
