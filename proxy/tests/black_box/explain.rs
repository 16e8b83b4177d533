//! What the proxy says it would do, beside what it does.

use std::{collections::BTreeMap, net::IpAddr};

use crate::support::{Fed, ask, config, endpoint, endpoints, free_port, get, listener, policy, to};
use maesh_config::{
    Kind, NodeName, Resource,
    model::{BackendPolicy, Endpoint, Protocol, Route, Scheme},
};
use maesh_proxy::{
    Config,
    explain::{Explanation, Question, ServiceState},
};

const SILENT: &str = "127.0.0.1:1";

fn explain(fed: &Fed, host: &str, port: Option<u16>) -> Explanation {
    let caller = Some(IpAddr::from([127, 0, 0, 1]));
    let explainer = fed.proxy.as_ref().expect("running").explainer();
    explainer.explain(&Question { host: host.into(), caller, port, sent: None })
}

fn reason(explanation: &Explanation) -> Option<&str> {
    let port = explanation.ports.first().and_then(|port| port.refusal.as_ref());
    explanation.refusal.as_ref().or(port).map(|refusal| refusal.reason.as_str())
}

/// The reason in the head of an answer.
fn said(head: &str) -> Option<&str> {
    head.lines().find_map(|line| line.strip_prefix("x-maesh-reason: "))
}

#[tokio::test]
async fn it_says_what_it_does() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let web = endpoints::echo(false, "web").await;
    let at = fed.http("web.shop", Scheme::Http, &[web.address]).await;
    let number = at.port();
    let name = |name: &'static str, route: Vec<Route>, endpoints: Vec<Endpoint>| {
        fed.define(name, number, Protocol::Http, policy(Scheme::Http), route);
        fed.define_endpoints(name, number, Protocol::Http, endpoints);
    };
    let weighted = |backends| vec![Route { rule: None, backends, not_understood: None }];
    let gone = Endpoint { ready: false, serving: false, ..endpoint(SILENT.parse().expect("address")) };
    name("empty.shop", Vec::new(), Vec::new());
    name("down.shop", Vec::new(), vec![gone]);
    name("split.shop", weighted(vec![to("web.shop", number, 3), to("empty.shop", number, 0)]), Vec::new());
    name("zero.shop", weighted(vec![to("web.shop", number, 0)]), vec![endpoint(web.address)]);
    name("missing.shop", weighted(vec![to("nobody.shop", number, 1)]), vec![endpoint(web.address)]);
    for service in ["empty.shop", "down.shop", "split.shop", "zero.shop", "missing.shop"] {
        fed.name(service, number, number, Protocol::Http, &[]).await;
    }
    fed.name("other.shop", 81, number + 1, Protocol::Http, &[]).await;
    for (host, before_first_use) in [
        ("web.shop.maesh", None),
        ("WEB.shop.:80", None),
        ("empty.shop.maesh", None),
        ("down.shop.maesh", None),
        ("split.shop.maesh", None),
        ("zero.shop.maesh", None),
        ("missing.shop.maesh", None),
        ("nobody.shop.maesh", Some("unknown_host")),
        ("a.b.c.maesh", Some("unknown_host")),
    ] {
        let first = explain(&fed, host, None);
        assert_eq!(reason(&first), before_first_use, "{host}: {first:?}");
        let (head, _) = ask(at, &get(host, "/")).await;
        let now = explain(&fed, host, None);
        assert_eq!(reason(&now), said(&head), "{host}: {now:?}\n{head}");
        if before_first_use.is_none() {
            assert_eq!(now.ports[0].held, ServiceState::InForce, "{host}");
            assert_eq!(now.ports[0].listener.as_ref().map(|it| it.shared), Some(true), "{host}");
        }
    }
    // A port on which nothing listens.
    let other = explain(&fed, "other.shop.maesh", None);
    assert_eq!(other.ports[0].listener, None, "{other:?}");
    assert_eq!(reason(&explain(&fed, "other.shop.maesh", Some(82))), Some("no_route"));
    let split = explain(&fed, "split.shop.maesh", None);
    let backends: BTreeMap<_, _> = split.ports[0].routes[0]
        .backends
        .iter()
        .map(|backend| (backend.service.clone().unwrap_or_default(), (backend.weight, backend.usable)))
        .collect();
    assert_eq!(backends, [("shop/web".to_owned(), (3, 1)), ("shop/empty".to_owned(), (0, 0))].into());
    assert!(!split.ports[0].routes[0].own);
}

#[tokio::test]
async fn asking_is_no_use() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let web = endpoints::echo(false, "web").await;
    fed.http("web.shop", Scheme::Http, &[web.address]).await;
    for _ in 0..3 {
        let unused = explain(&fed, "web.shop.maesh", None);
        assert_eq!((unused.ports[0].held, unused.ports[0].routes.len()), (ServiceState::Unused, 0), "{unused:?}");
    }
    assert!(fed.demands.lock().expect("lock").is_empty(), "asking about a Service asks the controller for nothing");
}

#[tokio::test]
async fn endpoints_that_a_caller_is_kept_to() {
    let fed = Fed::new(Config { node: Some(NodeName::from("n1")), ..config() }).await;
    fed.begin().await;
    let (here, there) = (endpoints::echo(false, "here").await, endpoints::echo(false, "there").await);
    let at = fed.listen(&[]).await;
    let number = at.port();
    let local = BackendPolicy { local_only: true, ..policy(Scheme::Http) };
    fed.define("web.shop", number, Protocol::Http, local, Vec::new());
    let on = |node: &str, address| Endpoint { node: Some(node.into()), ..endpoint(address) };
    fed.define_endpoints("web.shop", number, Protocol::Http, vec![on("n1", here.address), on("n2", there.address)]);
    fed.name("web.shop", number, number, Protocol::Http, &[]).await;
    ask(at, &get("web.shop.maesh", "/")).await;
    let explained = explain(&fed, "web.shop.maesh", Some(number));
    let backend = &explained.ports[0].routes[0].backends[0];
    assert!(backend.local_only);
    let chosen: BTreeMap<_, _> = backend.endpoints.iter().map(|it| (it.address, it.chosen)).collect();
    assert_eq!(chosen, [(here.address, true), (there.address, false)].into());
}

#[tokio::test]
async fn claims_and_own_addresses() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let web = endpoints::echo(false, "web").await;
    let at = fed.listen(&[("www.example.com", "web.shop")]).await;
    let number = at.port();
    fed.define("web.shop", number, Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("web.shop", number, Protocol::Http, vec![endpoint(web.address)]);
    fed.name("web.shop", number, number, Protocol::Http, &[]).await;
    let claimed = explain(&fed, "www.example.com", None);
    assert_eq!(claimed.service.as_deref(), Some("shop/web"), "{claimed:?}");
    assert_eq!(reason(&claimed), None, "{claimed:?}");

    let own = free_port();
    let listener = listener(own, Some(("db.shop", 5432)), false, &[]);
    assert_eq!(fed.push(Kind::Listener, vec![Resource::Listener(listener)], Vec::new()).await, Vec::new());
    fed.name("db.shop", 5432, own, Protocol::Tcp, &[]).await;
    let db = explain(&fed, "db.shop.maesh", None);
    let listener = db.ports[0].listener.as_ref().expect("open");
    assert_eq!((listener.shared, listener.addresses[0].port()), (false, own));
    assert_eq!(reason(&db), None, "{db:?}");
}
