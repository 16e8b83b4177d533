//! What a proxy asks the controller for: at first use, after a restart, no longer used, and about its own node.

use std::time::Duration;

use crate::support::{
    Fed, LOCAL, ask, config, echoing_with, endpoint, endpoints, free_port, get, policy, service, to, within,
};
use maesh_config::{
    Kind, Resource,
    model::{Endpoint, EndpointHints, Protocol, Route, Scheme, Workload, WorkloadKind},
};
use maesh_discovery::update::Demand;
use maesh_proxy::Config;

#[tokio::test]
async fn first_use_while_the_controller_is_away() {
    let mut config = config();
    config.first_use = Duration::from_millis(100);
    let fed = Fed::new(config).await;
    fed.begin().await;
    fed.answering.send_replace(false);
    fed.connected.send_replace(false);
    let plain = endpoints::echo(false, "plain").await;
    let port = plain.address.port();
    // The proxy listens beside the plain address, so the Service's port and the listener's differ here.
    let listen = fed.listen(&[]).await;
    fed.name("web.shop", port, listen.port(), Protocol::Http, &[LOCAL]).await;
    let (head, body) = ask(listen, &get("web.shop", "/")).await;
    assert!(head.starts_with("http/1.1 200") && body.starts_with("plain "), "{head}{body}");
    assert!(fed.metrics().contains("maesh_proxy_plain_fallback_total 1"));
    fed.mesh(true).await;
    let (head, _) = ask(listen, &get("web.shop", "/")).await;
    assert!(head.starts_with("http/1.1 503") && head.contains("x-maesh-reason: not_synced"), "{head}");
    fed.mesh(false).await;
    // Once the configuration is here, it holds.
    let real = endpoints::echo(false, "real").await;
    fed.define("web.shop", port, Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("web.shop", port, Protocol::Http, vec![endpoint(real.address)]);
    fed.answering.send_replace(true);
    within(async { while !ask(listen, &get("web.shop", "/")).await.1.starts_with("real ") {} }).await;
}

/// Whom a certificate has to be verified of is sent nothing without it.
#[tokio::test]
async fn nothing_is_sent_in_plain_to_a_port_of_https() {
    let fed = Fed::new(Config { first_use: Duration::from_millis(100), ..config() }).await;
    fed.begin().await;
    fed.answering.send_replace(false);
    let plain = endpoints::echo(false, "plain").await;
    let port = plain.address.port();
    let listen = fed.listen(&[]).await;
    for (scheme, status) in [(Some(Scheme::Https), "503"), (Some(Scheme::Http), "200"), (None, "200")] {
        fed.name_with("web.shop", port, listen.port(), (Protocol::Http, scheme), &[LOCAL]).await;
        let (head, body) = ask(listen, &get("web.shop", "/")).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{scheme:?}: {head}{body}");
        assert_eq!(head.contains("x-maesh-reason: not_synced"), status == "503", "{scheme:?}: {head}{body}");
    }
    assert!(fed.metrics().contains("maesh_proxy_plain_fallback_total 2"));
}

/// The plain address of a port of h2c is spoken to in HTTP/2.
#[tokio::test]
async fn the_scheme_of_a_plain_address_is_that_of_its_port() {
    let fed = Fed::new(Config { first_use: Duration::from_millis(100), ..config() }).await;
    fed.begin().await;
    fed.answering.send_replace(false);
    let plain = endpoints::echo(true, "plain").await;
    let listen = fed.listen(&[]).await;
    let carries = (Protocol::Http, Some(Scheme::H2c));
    fed.name_with("web.shop", plain.address.port(), listen.port(), carries, &[LOCAL]).await;
    let (head, body) = ask(listen, &get("web.shop", "/")).await;
    assert!(head.starts_with("http/1.1 200") && body.starts_with("plain "), "{head}{body}");
}

/// What a subscriber kept on disk comes before it was asked for, and is not sent again when it is.
#[tokio::test]
async fn what_was_kept_over_a_restart_is_served_at_once_and_let_go_of_when_unused() {
    let mut config = config();
    config.idle_service = Duration::from_secs(1);
    let fed = Fed::new(config).await;
    fed.answering.send_replace(false);
    let server = endpoints::echo(false, "kept").await;
    let listen = free_port();
    let routes = vec![Route {
        rule: None,
        backends: vec![to("web.shop", listen, 1), to("gone.shop", listen, 0)],
        not_understood: None,
    }];
    fed.define("web.shop", listen, Protocol::Http, policy(Scheme::Http), routes);
    let gone = service("gone.shop").to_string();
    fed.push(Kind::Endpoints, Vec::new(), vec![&gone]).await;
    fed.push_endpoints("web.shop", listen, Protocol::Http, vec![endpoint(server.address)]).await;
    fed.push(Kind::Service, Vec::new(), vec![&gone]).await;
    fed.push_service("web.shop").await;
    let address = fed.listen_on(listen, None, true, &[]).await;
    fed.name("web.shop", listen, listen, Protocol::Http, &[]).await;
    let (head, body) = ask(address, &get("web.shop", "/")).await;
    assert!(head.starts_with("http/1.1 200") && body.starts_with("kept "), "{head}{body}");
    fed.answering.send_replace(true);
    for name in ["web.shop", "gone.shop"] {
        let key = service(name).to_string();
        for kind in [Kind::Service, Kind::Endpoints] {
            let released = Demand::Unsubscribe(kind, key.as_str().into());
            let said = || fed.demands.lock().expect("lock").contains(&released);
            within(async {
                while !said() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn unused_services_are_let_go_of() {
    let mut config = config();
    config.idle_service = Duration::from_millis(200);
    let (fed, address, _server) = echoing_with(config).await;
    assert_eq!(fed.demands.lock().expect("lock").len(), 0, "nothing is asked for before it is used");
    assert!(ask(address, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"));
    let key = service("web.shop").to_string();
    let gone = Demand::Unsubscribe(Kind::Endpoints, key.as_str().into());
    within(async {
        while !fed.demands.lock().expect("lock").contains(&gone) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(ask(address, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"), "and asked for again");
}

/// A proxy follows the hints for the zone that it was given, or else for the one that the controller says of its node.
#[tokio::test]
async fn the_zone_is_given_or_comes_from_the_controller() {
    for (case, given, wants) in [("given", Some("a"), ["a", "a"]), ("from the controller", None, ["a", "b"])] {
        let node_address = Some("192.0.2.1".parse().expect("an address"));
        let fed = Fed::new(Config { node_address, zone: given.map(Into::into), ..config() }).await;
        fed.begin().await;
        let servers = [endpoints::echo(false, "a").await, endpoints::echo(false, "b").await];
        let address = fed.http("web.shop", Scheme::Http, &[servers[0].address]).await;
        let hinted = |(server, zone): (&endpoints::Server, &str)| Endpoint {
            hints: EndpointHints::new(vec![zone.into()], Vec::new()),
            ..endpoint(server.address)
        };
        let hinted = servers.iter().zip(["a", "b"]).map(hinted).collect();
        fed.push_endpoints("web.shop", address.port(), Protocol::Http, hinted).await;
        assert!(ask(address, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"), "{case}: without any word");
        for (zone, want) in ["a", "b"].into_iter().zip(wants) {
            fed.push(Kind::Workload, vec![node("192.0.2.9", "c"), node("192.0.2.1", zone)], vec![]).await;
            for _ in 0..20 {
                let (_, body) = ask(address, &get("web.shop", "/")).await;
                assert!(body.starts_with(want), "{case}, told {zone}: {body}");
            }
        }
        let asked = Demand::Subscribe(Kind::Workload, "192.0.2.1".into());
        assert_eq!(fed.demands.lock().expect("lock").contains(&asked), given.is_none(), "{case}");
    }
}

/// The workload of a node in this zone.
fn node(address: &str, zone: &str) -> Resource {
    Resource::Workload(Workload {
        address: format!("{address}/32").parse().expect("an address"),
        kind: WorkloadKind::Node,
        namespace: None,
        name: "n1".into(),
        service_account: None,
        node: Some("n1".into()),
        zone: Some(zone.into()),
    })
}
