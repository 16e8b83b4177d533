//! Who may subscribe, by real tokens of a real kube-apiserver: with it there, away and back.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, Client, api::PostParams};
use maesh_config::{Change, Kind, Resource, Zone, model::Mesh};
use maesh_controller::{
    admission::{Accounts, Admission},
    authority, leader,
    source::kubernetes,
};
use maesh_discovery::{
    Connect, Server, ServerOptions, Store, SubscriberConfig, Timing, Token,
    auth::{Authenticate as _, Credentials},
    tls::ClientTls,
    update::{Identity, Role},
};
use maesh_testkube::ApiServer;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{sleep, timeout},
};

use crate::support::{PATIENCE, on, runtime};

const SERVER: &str = "maesh-controller.maesh.svc";

const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: maesh}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
";

/// A ServiceAccount and a pod of it on node n1.
fn account(namespace: &str, name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}-1, namespace: {namespace}}}\n\
         spec: {{serviceAccountName: {name}, nodeName: n1, containers: [{{name: a, image: a}}]}}\n"
    )
}

/// A token of `namespace`/`account`, for `audience`, bound to the pod `account`-1 if `bound`.
async fn token(client: &Client, namespace: &str, account: &str, audience: &str, bound: bool) -> String {
    let pod = Api::<Pod>::namespaced(client.clone(), namespace).get(&format!("{account}-1")).await.unwrap();
    let bound_object_ref = bound.then(|| BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name,
        uid: pod.metadata.uid,
    });
    let spec = TokenRequestSpec {
        audiences: Some(vec![audience.into()]),
        bound_object_ref,
        expiration_seconds: Some(600),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .unwrap()
        .status
        .unwrap()
        .token
        .unwrap()
}

/// A controller that has something to tell.
struct Controller {
    server: Server,
    address: String,
    ca: std::path::PathBuf,
    admission: Arc<Admission>,
}

impl Controller {
    async fn start(client: &Client, folder: &std::path::Path) -> Self {
        let candidate =
            leader::Candidate::start(client.clone(), "maesh", "maesh", "first", leader::LeaseTimes::default());
        let (tls, mut served) = watch::channel(None);
        let options = authority::Options {
            namespace: "maesh".into(),
            name: "maesh-ca".into(),
            server: SERVER.into(),
            dns: None,
            terms: authority::CaLifetimes::default(),
        };
        tokio::spawn(authority::keep(client.clone(), options, candidate.leadership(), tls));
        let tls = timeout(PATIENCE, served.wait_for(Option::is_some)).await.unwrap().unwrap().clone().unwrap();
        let maps = Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(client.clone(), "maesh");
        let ca = folder.join("mounted-ca.crt");
        timeout(PATIENCE, async {
            loop {
                if let Some(map) = maps.get_opt("maesh-ca").await.unwrap() {
                    return std::fs::write(&ca, &map.data.unwrap()["ca.crt"]).unwrap();
                }
            }
        })
        .await
        .unwrap();
        drop(candidate);

        let accounts = Accounts { namespace: "maesh".into(), dns: "maesh-dns".into(), proxy: "maesh-proxy".into() };
        let admission = Admission::start(client.clone(), accounts);
        let store = Arc::new(Store::new());
        let zones: Vec<Zone> = vec!["maesh".parse().unwrap()];
        let told = Resource::Mesh(Mesh {
            controllers: Vec::new(),
            zones,
            cluster_domain: "cluster.local".into(),
            fail_to_plain: true,
            bypass: false,
            access_control: maesh_config::model::AccessControl::Off,
            access_sources: Vec::new(),
        });
        store.apply(&Change { upserts: vec![told], ..Change::default() });
        store.mark_complete();
        let server = Server::new(store, ServerOptions::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (listening, auth) = (server.clone(), admission.clone());
        tokio::spawn(async move { listening.listen(listener, Some(tls.config()), auth).await });
        Self { server, address, ca, admission }
    }

    /// Subscribes as this pod with that token; what it was told, or why nothing.
    async fn subscribe(&self, role: Role, pod: &str, node: &str, token: Option<&str>) -> Result<usize, String> {
        let identity =
            Identity { role, id: pod.into(), node: Some(node.into()), addresses: Vec::new(), version: "1".into() };
        let mut subscribed = maesh_discovery::start(SubscriberConfig {
            identity,
            wildcard: vec![Kind::Mesh],
            on_demand: Vec::new(),
            connect: Connect::Tcp {
                controllers: vec![self.address.clone()],
                tls: Some(ClientTls { ca: self.ca.clone(), server_name: Some(SERVER.into()) }),
            },
            token: token.map_or(Token::None, |token| Token::Value(token.into())),
            state: None,
            timing: Timing::default(),
        });
        let told = timeout(PATIENCE, async {
            loop {
                tokio::select! {
                    update = subscribed.updates.recv() => return Ok(update.unwrap().upserts.len()),
                    () = sleep(Duration::from_millis(20)) => {}
                }
                // Three times, so that it is no accident.
                if subscribed.status.failures() >= 3 {
                    return Err(subscribed.status.last_error().unwrap().to_string());
                }
            }
        });
        told.await.unwrap()
    }

    async fn admits(&self, token: &str) -> bool {
        self.admission.authenticate(Credentials { bearer: Some(token), peer: None }).await.is_ok()
    }
}

#[test]
fn pods_of_the_mesh_are_admitted_and_nobody_else() {
    let Some(mut server) = ApiServer::start_or_skip() else { return };
    let runtime = runtime(&server);
    let accounts = [("maesh", "maesh-dns"), ("maesh", "maesh-proxy"), ("maesh", "other"), ("shop", "maesh-proxy")];
    let all: String = accounts.iter().map(|(namespace, name)| account(namespace, name)).collect();
    server.apply(&format!("{OBJECTS}{all}")).unwrap();
    let (kubeconfig, folder) = (server.kubeconfig().to_owned(), server.namespace().folder().to_owned());

    let (controller, dns, proxy, unseen) = on(&runtime, async move {
        let client = kubernetes::client(Some(&kubeconfig), None).await.unwrap();
        let controller = Controller::start(&client, &folder).await;
        let dns = token(&client, "maesh", "maesh-dns", "maesh", true).await;
        let proxy = token(&client, "maesh", "maesh-proxy", "maesh", true).await;
        let other = token(&client, "maesh", "other", "maesh", true).await;
        let foreign = token(&client, "shop", "maesh-proxy", "maesh", true).await;
        let audience =
            token(&client, "maesh", "maesh-proxy", "https://kubernetes.default.svc.cluster.local", true).await;
        let unbound = token(&client, "maesh", "maesh-proxy", "maesh", false).await;
        let (words, signature) = (proxy.rsplit_once('.').unwrap().0, dns.rsplit_once('.').unwrap().1);
        let forged = format!("{words}.{signature}");
        let name = "maesh-proxy-1";
        for (case, role, pod, node, token, want) in [
            ("dns", Role::Dns, "maesh-dns-1", "n1", Some(&dns), Ok(1)),
            ("a proxy", Role::Proxy, name, "n1", Some(&proxy), Ok(1)),
            ("no token", Role::Proxy, name, "n1", None, Err("Bearer is missing")),
            ("no token at all", Role::Proxy, name, "n1", Some(&"let me in, please".to_owned()), Err("not the token")),
            ("for others", Role::Proxy, name, "n1", Some(&audience), Err("not meant for maesh")),
            ("another account of the namespace", Role::Proxy, "other-1", "n1", Some(&other), Err("no subscriber")),
            ("the same name in another namespace", Role::Proxy, name, "n1", Some(&foreign), Err("no subscriber")),
            ("of no pod", Role::Proxy, name, "n1", Some(&unbound), Err("belongs to no pod")),
            ("a forged one", Role::Proxy, name, "n1", Some(&forged), Err("signature")),
            (
                "under another pod's name",
                Role::Proxy,
                "maesh-proxy-2",
                "n1",
                Some(&proxy),
                Err("not belong to maesh-proxy-2"),
            ),
            ("in another role", Role::Dns, name, "n1", Some(&proxy), Err("not belong to the role")),
            ("on another node", Role::Proxy, name, "n2", Some(&proxy), Err("another node")),
        ] {
            let told = controller.subscribe(role, pod, node, token.map(String::as_str)).await;
            match (want, told) {
                (Ok(want), Ok(told)) => assert_eq!(told, want, "{case}"),
                (Err(want), Err(why)) => assert!(why.contains(want), "{case}: {why}"),
                (want, told) => panic!("{case}: {told:?}, not {want:?}"),
            }
        }
        // Words do not help: the API server decides, and it knows that this pod is gone.
        let leaving = token(&client, "maesh", "maesh-proxy", "maesh", true).await;
        let unseen = token(&client, "maesh", "maesh-proxy", "maesh", true).await;
        let pods = Api::<Pod>::namespaced(client.clone(), "maesh");
        pods.delete(name, &kube::api::DeleteParams::default().grace_period(0)).await.unwrap();
        assert!(controller.admits(&proxy).await, "known for a moment");
        assert!(!controller.admits(&leaving).await, "of a pod that was deleted");
        assert!(controller.server.counters().refused() >= 9);
        (controller, dns, proxy, unseen)
    });

    server.kill_apiserver();
    let (controller, dns) = on(&runtime, async move {
        let told = controller.subscribe(Role::Dns, "maesh-dns-1", "n1", Some(&dns)).await;
        assert_eq!(told, Ok(1), "known a moment ago");
        assert!(controller.admits(&unseen).await, "its signature is good, and nobody can say that its pod is gone");
        let (words, _) = proxy.rsplit_once('.').unwrap();
        let told = controller.subscribe(Role::Proxy, "maesh-proxy-1", "n1", Some(&format!("{words}.AAAA"))).await;
        assert!(told.is_err_and(|why| why.contains("signature")), "a bad signature is none without the API server too");
        (controller, dns)
    });
    server.start_apiserver().unwrap();
    on(&runtime, async move {
        let told = controller.subscribe(Role::Dns, "maesh-dns-1", "n1", Some(&dns)).await;
        assert_eq!(told, Ok(1));
        controller.server.shutdown();
    });
}
