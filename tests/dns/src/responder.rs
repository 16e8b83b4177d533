//! Our responder with a fixed set of names, and the same names as a zone file.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use maesh_config::{
    Kind, Resource, ServiceName,
    model::{Answer, Mesh, Name, NamePort, Protocol, Proxy, Workload, WorkloadKind},
};
use maesh_discovery::tls::CertificateFiles;
use maesh_discovery::update::{Ack, Update};
use maesh_dns::{Config, Dns, Snapshot, Tls};
use maesh_test_support::until;
use prometheus_client::registry::Registry;
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};
use tokio::sync::{mpsc, watch};

/// A Service: `name.namespace`, its addresses, its named TCP ports.
type Row = (&'static str, &'static [&'static str], &'static [(&'static str, u16)]);

/// Services that every server here knows.
const NAMES: &[Row] = &[
    ("web.shop", &["10.1.1.2", "fd00:1::2"], &[("http", 80), ("admin", 8080)]),
    ("v4.shop", &["10.1.1.4"], &[("http", 80)]),
    ("v6.shop", &["fd00:1::6"], &[]),
    ("three.data", &["10.1.3.1", "10.1.3.2", "10.1.3.3"], &[]),
];

/// Addresses of `ns.dns.maesh`.
const US: [&str; 2] = ["10.96.0.53", "fd00:96::53"];

/// A responder in this process, on a port of its own.
pub struct Responder {
    runtime: Runtime,
    updates: mpsc::Sender<Update>,
    _connected: watch::Sender<bool>,
    // Before the runtime in the order of ending: its listeners live there.
    dns: Option<Dns>,
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    _folder: TempDir,
}

impl Responder {
    /// Starts one on `listen` that knows the fixed names.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(listen: SocketAddr) -> Self {
        let mut names: Vec<Resource> =
            NAMES.iter().map(|(name, addresses, ports)| fixed(name, addresses, ports)).collect();
        names.push(fixed("many.data", &many().iter().map(String::as_str).collect::<Vec<_>>(), &[("http", 80)]));
        Self::with(listen, names, Vec::new(), vec![proxy("p1", "n1", "10.1.1.2")])
    }

    /// Starts one on `listen` that knows `names`, `workloads` and `proxies`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn with(listen: SocketAddr, names: Vec<Resource>, workloads: Vec<Resource>, proxies: Vec<Resource>) -> Self {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (updates, received) = mpsc::channel(16);
        let (up, connected) = watch::channel(true);
        let (folder, files, certificate) = certificate();
        let tls = Tls { listen: vec![SocketAddr::new(listen.ip(), 0)], files, look: Duration::from_secs(3600) };
        let config = Config {
            listen: vec![listen],
            tls: Some(tls),
            name_server: US.iter().map(|text| text.parse().expect("an address")).collect(),
            threads: NonZeroUsize::MIN,
            ..Config::default()
        };
        let dns = {
            let _entered = runtime.enter();
            maesh_dns::start(config, received, connected, &mut Registry::default()).expect("the responder starts")
        };
        let address = dns.addresses()[0];
        let responder =
            Self { runtime, updates, _connected: up, dns: Some(dns), address, certificate, _folder: folder };
        let mesh = Mesh {
            zones: vec!["maesh".parse().expect("a zone"), "traefik.mesh".parse().expect("a zone")],
            cluster_domain: "cluster.local".into(),
            fail_to_plain: true,
            bypass: false,
            access_control: maesh_config::model::AccessControl::Off,
            access_sources: Vec::new(),
            controllers: Vec::new(),
        };
        responder.apply(Kind::Mesh, vec![Resource::Mesh(mesh)]);
        responder.apply(Kind::Proxy, proxies);
        responder.apply(Kind::Workload, workloads);
        responder.apply(Kind::Name, names);
        responder
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it answers over TLS, and the certificate that it has there, for the name `localhost`.
    ///
    /// # Panics
    /// When it does not listen there in time.
    pub fn tls(&self) -> (SocketAddr, &CertificateDer<'static>) {
        let address = self.dns.as_ref().expect("it runs").tls_addresses()[0];
        assert!(until(Duration::from_secs(30), || TcpStream::connect(address).is_ok()), "it never listens");
        (address, &self.certificate)
    }

    /// What it knows now.
    ///
    /// # Panics
    /// Never.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.dns.as_ref().expect("it runs").snapshots().now()
    }

    /// Has it know `upserts`, too; returns once they are in force.
    ///
    /// # Panics
    /// When one is rejected.
    pub fn apply(&self, kind: Kind, upserts: Vec<Resource>) {
        let (ack, done) = Ack::new();
        let upserts = upserts.into_iter().map(Arc::new).collect();
        let update = Update { kind, upserts, removed: vec![], complete: true, ack };
        self.updates.blocking_send(update).expect("it listens");
        assert_eq!(done.blocking_recv().expect("an answer"), []);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _entered = self.runtime.enter();
        drop(self.dns.take());
    }
}

/// A certificate for `localhost`, signed by itself, and the files of it and of its key.
fn certificate() -> (TempDir, CertificateFiles, CertificateDer<'static>) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let files = CertificateFiles { chain: folder.path().join("tls.crt"), key: folder.path().join("tls.key") };
    std::fs::write(&files.chain, signed.cert.pem()).expect("written");
    std::fs::write(&files.key, signed.signing_key.serialize_pem()).expect("written");
    (folder, files, signed.cert.der().clone())
}

/// The name resource of `service.namespace`, answered with `addresses`.
pub fn fixed(name: &str, addresses: &[&str], ports: &[(&str, u16)]) -> Resource {
    let (service, namespace) = name.split_once('.').expect("service.namespace");
    let port = |(name, number): &(&str, u16)| NamePort {
        number: *number,
        protocol: Protocol::Tcp,
        name: Some((*name).into()),
        listen: *number,
        scheme: None,
    };
    Resource::Name(Name {
        service: ServiceName::new(namespace, service),
        answer: Answer::Fixed(addresses.iter().map(|text| text.parse().expect("an address")).collect()),
        plain: vec![],
        headless: false,
        ports: ports.iter().map(port).collect(),
    })
}

/// A name answered by the proxy of the caller's node.
pub fn by_node(service: &str, plain: &[&str]) -> Resource {
    Resource::Name(Name {
        service: service.parse().expect("namespace/name"),
        answer: Answer::Node,
        plain: plain.iter().map(|text| text.parse().expect("an address")).collect(),
        headless: false,
        ports: vec![NamePort {
            number: 80,
            protocol: Protocol::Http,
            name: Some("http".into()),
            listen: 80,
            scheme: None,
        }],
    })
}

/// A ready proxy that listens on port 80.
pub fn proxy(id: &str, node: &str, addresses: &str) -> Resource {
    Resource::Proxy(Proxy {
        id: id.into(),
        node: node.into(),
        addresses: addresses.split(' ').map(|text| text.parse::<IpAddr>().expect("an address")).collect(),
        ready: true,
        listening: vec![80],
        failed: vec![],
    })
}

/// A pod at `address` on `node`.
pub fn pod(address: &str, node: &str) -> Resource {
    let address: IpAddr = address.parse().expect("an address");
    Resource::Workload(Workload {
        address: address.into(),
        kind: WorkloadKind::Pod,
        namespace: Some("shop".into()),
        name: "pod".into(),
        service_account: None,
        node: Some(node.into()),
        zone: None,
    })
}

/// More addresses than fit into 1232 bytes.
fn many() -> Vec<String> {
    (0..100).map(|number| format!("10.7.0.{number}")).collect()
}

/// What [`Responder::start`] answers, as a master file (RFC 1035 section 5) of the zone `maesh`.
pub fn zone_file() -> String {
    let mut text = String::from(
        "$ORIGIN maesh.\n$TTL 5\n@ SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ NS ns.dns\ndns-version TXT \"1.1.0\"\n",
    );
    let mut addresses = |name: &str, addresses: &[&str]| {
        for address in addresses {
            let kind = if address.contains(':') { "AAAA" } else { "A" };
            let _ = writeln!(text, "{name} {kind} {address}");
        }
    };
    addresses("ns.dns", &US);
    for (name, list, _) in NAMES {
        addresses(name, list);
    }
    addresses("many.data", &many().iter().map(String::as_str).collect::<Vec<_>>());
    for (name, _, ports) in NAMES.iter().chain(&[("many.data", &[][..], &[("http", 80)][..])]) {
        for (port, number) in *ports {
            let _ = writeln!(text, "_{port}._tcp.{name} SRV 0 100 {number} {name}");
        }
    }
    text
}
