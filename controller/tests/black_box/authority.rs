//! The authority of the discovery stream on a real kube-apiserver: made, published, renewed under streams, and gone on
//! with by another leader.

use std::{collections::BTreeSet, future::ready, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Secret, Service},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use maesh_config::Kind;
use maesh_controller::{
    authority::{self, Bundle, CaLifetimes, DnsCertificate, Options},
    leader,
};
use maesh_discovery::{
    Connect, Server, ServerOptions, Store, Subscribed, SubscriberConfig, Timing, Token,
    auth::SharedSecret,
    tls::{Certificate, ClientTls, ServerTls},
    update::{Identity, Role},
};
use maesh_testkube::ApiServer;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::support::{self, PATIENCE, eventually, with_client};

const SERVER: &str = "maesh-controller.default.svc";
const DNS_SECRET: &str = "maesh-dns-tls";
const SECRET: &str = "a secret of some length";
/// An authority is replaced every four seconds.
const TERMS: CaLifetimes = CaLifetimes {
    authority: Duration::from_secs(16),
    renew_before: Duration::from_secs(12),
    serving: Duration::from_secs(4),
    dns: Duration::from_secs(8),
    spread: Duration::from_secs(2),
    look: Duration::from_millis(200),
};
/// How far the files of subscribers are behind the ConfigMap.
const BEHIND: Duration = Duration::from_millis(1200);

/// A controller, as far as it concerns certificates.
struct Replica {
    candidate: leader::Candidate,
    keeping: JoinHandle<()>,
    server: Server,
    tls: ServerTls,
    address: String,
}

impl Replica {
    async fn start(client: &Client, me: &str) -> Self {
        let candidate = leader::Candidate::start(client.clone(), "default", "maesh", me, support::TERMS);
        let (tls, mut served) = watch::channel(None);
        let dns = DnsCertificate {
            secret: DNS_SECRET.into(),
            service: "maesh-dns".into(),
            cluster_domain: "cluster.local".into(),
        };
        let options = Options {
            namespace: "default".into(),
            name: "maesh-ca".into(),
            server: SERVER.into(),
            dns: Some(dns),
            terms: TERMS,
        };
        let keeping = tokio::spawn(authority::keep(client.clone(), options, candidate.leadership(), tls));
        let found = timeout(PATIENCE, served.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
        // Kept alive by its task for as long as the receiver is.
        tokio::spawn(async move { while served.changed().await.is_ok() {} });
        let tls = found.unwrap();
        let store = Arc::new(Store::new());
        store.mark_complete();
        let server = Server::new(store, ServerOptions::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (listening, config) = (server.clone(), tls.config());
        let secret = Arc::new(SharedSecret::new(SECRET).unwrap());
        tokio::spawn(async move { listening.listen(listener, Some(config), secret).await });
        Self { candidate, keeping, server, tls, address }
    }

    fn subscribe(&self, ca: &std::path::Path) -> Subscribed {
        maesh_discovery::start(SubscriberConfig {
            identity: Identity {
                role: Role::Dns,
                id: "dns-1".into(),
                node: None,
                addresses: Vec::new(),
                version: "1".into(),
            },
            wildcard: vec![Kind::Name],
            on_demand: Vec::new(),
            connect: Connect::Tcp {
                controllers: vec![self.address.clone()],
                tls: Some(ClientTls { ca: ca.to_owned(), server_name: Some(SERVER.into()) }),
            },
            token: Token::Value(SECRET.into()),
            state: None,
            timing: Timing::default(),
        })
    }

    /// Opens one more stream, and waits until it was up.
    async fn opens(&self, ca: &std::path::Path) {
        let mut subscribed = self.subscribe(ca);
        let up = timeout(PATIENCE, subscribed.connected.wait_for(|up| *up)).await;
        assert!(
            up.is_ok_and(|up| up.is_ok()) && subscribed.status.failures() == 0,
            "{:?}",
            subscribed.status.last_error()
        );
    }
}

/// A kubelet: writes what the ConfigMap said a while ago.
async fn refresh(client: Client, file: PathBuf, seen: Arc<parking_lot::Mutex<BTreeSet<String>>>) {
    let maps = Api::<ConfigMap>::namespaced(client, "default");
    loop {
        let text = maps.get("maesh-ca").await.ok().and_then(|map| map.data?.remove("ca.crt"));
        if let Some(text) = text {
            seen.lock().extend(Bundle::parse(&text).0);
            let file = file.clone();
            tokio::spawn(async move {
                sleep(BEHIND).await;
                let new = file.with_extension(format!("{:x}", rand::random::<u64>()));
                std::fs::write(&new, text).unwrap();
                std::fs::rename(new, file).unwrap();
            });
        }
        sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn authorities_change_under_streams_and_leaders() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let ca = server.namespace().folder().join("mounted-ca.crt");
    with_client(&server, |client| async move {
        let first = Replica::start(&client, "first").await;
        let second = Replica::start(&client, "second").await;
        assert!(first.candidate.leadership().may_write() && !second.candidate.leadership().may_write());

        let seen = Arc::<parking_lot::Mutex<BTreeSet<String>>>::default();
        let kubelet = tokio::spawn(refresh(client.clone(), ca.clone(), seen.clone()));
        eventually("the first file", || ready(ca.exists()), |there| *there).await;
        let running = second.subscribe(&ca);
        timeout(PATIENCE, running.connected.clone().wait_for(|up| *up)).await.unwrap().unwrap();

        // The leader dies once the next authority is published, before it signs anything.
        eventually("the next authority", || ready(seen.lock().len()), |seen| *seen >= 2).await;
        first.keeping.abort();
        drop(first.candidate);
        let mut streams = 0;
        let until = Instant::now() + PATIENCE;
        while seen.lock().len() < 3 {
            assert!(Instant::now() < until, "authorities so far: {}", seen.lock().len());
            second.opens(&ca).await;
            streams += 1;
            sleep(Duration::from_millis(50)).await;
        }
        assert!(second.candidate.leadership().may_write());
        assert!(streams > 20, "{streams}");
        assert!(*running.connected.borrow());
        assert_eq!((running.status.connects(), running.status.failures()), (1, 0), "the stream that ran went on");

        // The Secret is lost: another one is made, and nobody is cut off.
        let secrets = Api::<Secret>::namespaced(client.clone(), "default");
        secrets.delete("maesh-ca", &DeleteParams::default()).await.unwrap();
        let before = seen.lock().len();
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            second.opens(&ca).await;
            sleep(Duration::from_millis(50)).await;
        }
        assert!(seen.lock().len() > before && secrets.get_opt("maesh-ca").await.unwrap().is_some());

        // Who believes somebody else goes without. (An authority seen before may well still be believed.)
        let stranger = ca.with_extension("stranger");
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let foreign = authority.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        std::fs::write(&stranger, foreign.pem()).unwrap();
        let refused = second.subscribe(&stranger);
        eventually("a refusal", || ready(refused.status.failures()), |failures| *failures > 0).await;
        let said = refused.status.last_error();
        assert!(!*refused.connected.borrow() && said.as_ref().is_some_and(|it| it.contains("certificate")), "{said:?}");
        kubelet.abort();
        second.server.shutdown();
        drop(second.tls);
    });
}

#[test]
fn what_somebody_else_made_is_left_alone() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    server
        .apply(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: maesh-ca, namespace: default}\ndata: {ca.crt: mine}\n",
        )
        .unwrap();
    with_client(&server, |client| async move {
        let starting = tokio::spawn({
            let client = client.clone();
            async move { Replica::start(&client, "first").await }
        });
        let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
        let secrets = Api::<Secret>::namespaced(client.clone(), "default");
        let leases = Api::<Lease>::namespaced(client, "default");
        let lease = || async { leases.get_opt("maesh").await.unwrap().is_some() };
        eventually("it leads", lease, |there| *there).await;
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            assert_eq!(maps.get("maesh-ca").await.unwrap().data.unwrap()["ca.crt"], "mine");
            assert!(secrets.get_opt("maesh-ca").await.unwrap().is_none(), "of no use: nobody could be told");
            sleep(Duration::from_millis(100)).await;
        }
        maps.delete("maesh-ca", &DeleteParams::default()).await.unwrap();
        let replica = timeout(PATIENCE, starting).await.unwrap().unwrap();
        assert!(maps.get("maesh-ca").await.unwrap().data.unwrap()["ca.crt"].contains("BEGIN CERTIFICATE"));
        replica.keeping.abort();
    });
}

/// What clients of DNS over TLS see: the certificate in the Secret, and the published CA certificates.
struct Published {
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
}

impl Published {
    async fn certificate(&self) -> Option<(Certificate, Secret)> {
        let secret = self.secrets.get_opt(DNS_SECRET).await.unwrap()?;
        let data = secret.data.as_ref()?;
        Some((Certificate::parse(&data.get("tls.crt")?.0, &data.get("tls.key")?.0).ok()?, secret))
    }

    /// Those that sign the certificate.
    async fn signers(&self, certificate: &Certificate) -> BTreeSet<String> {
        let text = self.maps.get("maesh-ca").await.unwrap().data.unwrap().remove("ca.crt").unwrap();
        let now = jiff::Timestamp::now();
        Bundle::parse(&text).0.into_iter().filter(|ca| certificate.is_signed_by(ca, now)).collect()
    }

    /// Waits for a certificate that `suits`.
    async fn becomes(&self, case: &str, suits: impl Fn(&Certificate) -> bool) -> Secret {
        let suits = |found: &Option<(Certificate, Secret)>| found.as_ref().is_some_and(|(it, _)| suits(it));
        eventually(case, || self.certificate(), suits).await.unwrap().1
    }
}

#[test]
fn dns_has_a_certificate_that_the_published_authorities_sign() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    server
        .apply(&format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {DNS_SECRET}, namespace: default}}\n"))
        .unwrap();
    with_client(&server, |client| async move {
        let replica = Replica::start(&client, "first").await;
        let secrets = Api::<Secret>::namespaced(client.clone(), "default");
        let published = Published { secrets: secrets.clone(), maps: Api::namespaced(client.clone(), "default") };
        let services = Api::<Service>::namespaced(client.clone(), "default");

        // A Secret of that name that is somebody else's is left alone, for several looks.
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            let theirs = secrets.get(DNS_SECRET).await.unwrap();
            assert!(theirs.data.is_none() && theirs.metadata.labels.is_none(), "{theirs:?}");
            sleep(Duration::from_millis(100)).await;
        }
        secrets.delete(DNS_SECRET, &DeleteParams::default()).await.unwrap();

        let secret = published.becomes("there is one", |_| true).await;
        assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
        let (certificate, _) = published.certificate().await.unwrap();
        for name in ["maesh-dns", "maesh-dns.default", "maesh-dns.default.svc", "maesh-dns.default.svc.cluster.local"] {
            assert!(certificate.has_name(name), "{name}");
        }
        assert!(!certificate.has_name(SERVER), "it is no controller's");

        // The Service comes later: its address becomes one of the names.
        let service = serde_json::json!({"metadata": {"name": "maesh-dns"}, "spec": {"ports": [{"port": 53}]}});
        let service = services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
        let address = service.spec.unwrap().cluster_ip.unwrap();
        published.becomes("the ClusterIP", |certificate| certificate.has_name(&address)).await;

        // One that is damaged or deleted is made again.
        let damaged = serde_json::json!({"data": {"tls.crt": "bm9uZQ=="}});
        secrets.patch(DNS_SECRET, &PatchParams::default(), &Patch::Merge(damaged)).await.unwrap();
        published.becomes("repaired", |_| true).await;
        secrets.delete(DNS_SECRET, &DeleteParams::default()).await.unwrap();
        published.becomes("made again", |_| true).await;

        // Through two replacements of the authority, a published one signs it at any time. The ConfigMap is read after the
        // Secret: an authority is published before it signs, and is believed on.
        let (mut signers, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let until = Instant::now() + PATIENCE;
        while signers.len() < 3 {
            assert!(Instant::now() < until, "{} authorities so far", signers.len());
            let (certificate, secret) = published.certificate().await.unwrap();
            let signed_by = published.signers(&certificate).await;
            assert!(!signed_by.is_empty(), "none of the published ones: {:?}", certificate.validity());
            signers.extend(signed_by);
            seen.insert(secret.metadata.resource_version);
            sleep(Duration::from_millis(50)).await;
        }
        assert!(seen.len() < 40, "written {} times", seen.len());
        replica.keeping.abort();
    });
}
