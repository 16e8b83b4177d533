//! Who a caller is, under access control: known late, unknown for good, and trusted for a time while no controller answers.

use std::{sync::Arc, time::Duration};

use maesh_config::{
    Kind, Resource,
    model::{Account, AccountAccess, Endpoints, Grant, PortEndpoints, Protocol, Scheme, Workload, WorkloadKind},
};
use maesh_discovery::update::Demand;
use maesh_proxy::Config;
use tokio::time::sleep;

use crate::support::{Fed, LOCAL, ask, config, endpoint, endpoints, get, policy, service, within};

/// A proxy with access control, the Service `web.shop` that `shop/caller` may call, and its address.
async fn controlled(config: Config) -> (Fed, std::net::SocketAddr, endpoints::Server) {
    let fed = Fed::new(config).await;
    fed.begin().await;
    let server = endpoints::echo(false, "web").await;
    let listen = fed.listen(&[]).await;
    let number = listen.port();
    fed.define("web.shop", number, Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("web.shop", number, Protocol::Http, Vec::new());
    fed.name("web.shop", number, number, Protocol::Http, &[]).await;
    let grant =
        Grant { target: "target".into(), sources: vec![Arc::new(Account::new("shop", "caller"))], rules: Vec::new() };
    let access = vec![AccountAccess { account: Arc::new(Account::new("shop", "web")), grants: vec![grant] }];
    let endpoints = vec![maesh_config::model::Endpoint { account: Some(0), ..endpoint(server.address) }];
    let ports = vec![PortEndpoints { number, protocol: Protocol::Http, endpoints, access }];
    // The Service is in use, so that what is pushed stays.
    ask(listen, &get("web.shop", "/")).await;
    fed.mesh(true).await;
    fed.push(Kind::Endpoints, vec![Resource::Endpoints(Endpoints { service: service("web.shop"), ports })], vec![])
        .await;
    (fed, listen, server)
}

fn caller() -> Resource {
    Resource::Workload(Workload {
        address: LOCAL.into(),
        kind: WorkloadKind::Pod,
        namespace: Some("shop".into()),
        name: "caller-1".into(),
        service_account: Some("caller".into()),
        node: None,
        zone: None,
    })
}

/// The API server hears of a pod's address some time after the pod has begun to run.
#[tokio::test]
async fn a_caller_that_nobody_has_heard_of_is_held_until_it_is_known() {
    let (fed, listen, _server) = controlled(Config { identity_hold: Duration::from_secs(600), ..config() }).await;
    // Nobody has the address, says the controller; that was asked when the Service was called first.
    assert!(fed.demands.lock().expect("lock").contains(&Demand::Subscribe(Kind::Workload, "127.0.0.1".into())));
    for pods in ["the first", "a later one with its address"] {
        let asked = tokio::spawn(async move { ask(listen, &get("web.shop", "/")).await });
        sleep(Duration::from_millis(300)).await;
        assert!(!asked.is_finished(), "{pods}: it was answered before its pod was known");
        fed.push(Kind::Workload, vec![caller()], vec![]).await;
        let (head, body) = within(asked).await.expect("no panic");
        assert!(head.starts_with("http/1.1 200") && body.starts_with("web "), "{pods}: {head}{body}");
        fed.push(Kind::Workload, vec![], vec!["127.0.0.1"]).await;
    }
}

#[tokio::test]
async fn nobody_is_denied_after_it_was_held() {
    let (fed, listen, _server) = controlled(Config { identity_hold: Duration::from_millis(100), ..config() }).await;
    for _ in 0..3 {
        let (head, _) = ask(listen, &get("web.shop", "/")).await;
        assert!(head.starts_with("http/1.1 403") && head.contains("x-maesh-reason: denied"), "{head}");
    }
    fed.push(Kind::Workload, vec![caller()], vec![]).await;
    assert!(ask(listen, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn what_is_known_of_callers_is_trusted_for_a_time_without_a_controller() {
    for (trust, status) in [(Duration::from_secs(900), "200"), (Duration::ZERO, "503")] {
        let (fed, listen, _server) = controlled(Config { identity_trust: trust, ..config() }).await;
        fed.push(Kind::Workload, vec![caller()], vec![]).await;
        assert!(ask(listen, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"));
        fed.connected.send_replace(false);
        let answers = |want: &'static str| async move {
            let mut head = ask(listen, &get("web.shop", "/")).await.0;
            while !head.starts_with(&format!("http/1.1 {want}")) {
                head = ask(listen, &get("web.shop", "/")).await.0;
            }
            head
        };
        let head = within(answers(status)).await;
        assert_eq!(head.contains("x-maesh-reason: not_synced"), status == "503", "{head}");
        fed.connected.send_replace(true);
        within(answers("200")).await;
    }
}
