//! What `maesh dev` and `maesh controller` have in common: the compiler's settings, and the way from the compiler to the
//! discovery server and back.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::ListParams};
use maesh_compiler::compile::{Addressing, Config, ConnectedProxy, Range};
use maesh_config::{Change, Kind, ServiceName, model::AccessControl};
use maesh_controller::serve::{Sink, State};
use maesh_discovery::{Progress, Server, Store, Subscriber, update::Role};
use tokio::sync::watch;

use crate::args::MeshArgs;

/// Ports that a proxy may need for itself on its own addresses: the default of its admin endpoint.
const RESERVED_PORTS: [u16; 1] = [5383];

/// What to do where a Service's port is taken on this machine.
pub const CANNOT_LISTEN: &str =
    "`ss -ltnp` shows who has it; or give other addresses with --address-range (127.78.0.0/16)";

/// The addresses of a `maesh dev` must be this machine's.
///
/// # Errors
/// When some are not, with what to give instead.
pub fn is_local(range: &Range) -> anyhow::Result<()> {
    for sample in range.samples() {
        match TcpListener::bind((sample, 0)) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => bail!(
                "--address-range {range}: {sample} is no address of this machine, so nothing could listen there; use a \
                 range of 127.0.0.0/8, or one that `ip route add local RANGE dev lo` has made local"
            ),
            _ => {}
        }
    }
    Ok(())
}

/// The compiler's settings from the flags.
///
/// # Errors
/// When a flag asks for what this version does not have.
pub fn compiler_config(args: &MeshArgs, addressing: Addressing) -> anyhow::Result<Config> {
    let names = |list: &[String]| -> Vec<Arc<str>> {
        list.iter().filter(|name| !name.is_empty()).map(|name| Arc::from(name.as_str())).collect()
    };
    let mut ignored = names(&args.ignore_namespace);
    ignored.extend(["kube-system".into(), args.namespace.as_str().into()]);
    Ok(Config {
        zones: args.zones.clone(),
        cluster_domain: args.cluster_domain.clone(),
        default_protocol: args.default_mode.into(),
        require_annotation: args.require_annotation,
        watched_namespaces: names(&args.watch_namespace),
        ignored_namespaces: ignored,
        ignored_services: vec![ServiceName::new("default", "kubernetes")],
        addressing,
        one_address: false,
        mesh_namespace: args.namespace.as_str().into(),
        horizon: Duration::ZERO,
        own_settle: Duration::ZERO,
        first_bindable_port: 0,
        ports_per_namespace: args.ports_per_namespace,
        denied_endpoints: args.deny_endpoint_cidr.iter().map(IpNet::trunc).collect(),
        own_listeners: Vec::new(),
        reserved_ports: RESERVED_PORTS.to_vec(),
        selects_pods: false,
        config_maps_on_demand: false,
        fail_to_plain: args.fail_to_plain,
        bypass: args.bypass,
        access_control: match (args.acl, args.acl_dry_run) {
            (true, _) => AccessControl::On,
            (false, true) => AccessControl::DryRun,
            (false, false) => AccessControl::Off,
        },
        access_sources: args.acl_source.clone(),
        replicas: None,
    })
}

/// The first port that the system lets this process bind: 1 when it may bind all of them, 1024 or what the system says
/// when it may not.
pub fn first_bindable_port() -> u16 {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = first.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    // The right to bind below it is best found by trying, on an address that nobody else has reason to use.
    let trial = SocketAddr::from((Ipv4Addr::new(127, 77, 255, 254), 1));
    match TcpListener::bind(trial) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => first,
        _ => 1,
    }
}

/// Warns once of namespaces to watch that do not exist: a mistyped one would mesh nothing, and nobody would be told. Where
/// there is no cluster to ask, a namespace exists if a Service in it is meshed.
pub fn warn_of_missing_namespaces(mut watched: Vec<String>, state: &Arc<State>, client: Option<kube::Client>) {
    watched.retain(|namespace| !namespace.is_empty());
    if watched.is_empty() {
        return;
    }
    let state = state.clone();
    tokio::spawn(async move {
        let mut synced = state.synced();
        if synced.wait_for(|synced| *synced).await.is_err() {
            return;
        }
        let in_use: BTreeSet<Arc<str>> =
            state.table().into_iter().map(|entry| entry.service.namespace.clone()).collect();
        for namespace in watched.iter().filter(|namespace| !in_use.contains(namespace.as_str())) {
            let why = match &client {
                Some(client) if exists(client, namespace).await => continue,
                Some(_) => "there is no such namespace",
                None => "the manifests have no Service in this namespace that can be meshed",
            };
            tracing::warn!(
                "--watch-namespace {namespace:?}: {why}, so nothing is meshed for it; correct the name (in the \
                 chart: namespaces.watch), or create what is missing"
            );
        }
    });
}

/// Whether the cluster has a namespace. Where nobody can say, it may.
async fn exists(client: &kube::Client, namespace: &str) -> bool {
    let named = ListParams::default().fields(&format!("metadata.name={namespace}"));
    let found = Api::<Namespace>::all(client.clone()).list_metadata(&named).await;
    found.map_or(true, |found| !found.items.is_empty())
}

/// Hands what is compiled to the discovery server.
pub struct StoreSink {
    /// What the server serves.
    pub store: Arc<Store>,
    /// The name of this replica.
    pub replica: Arc<str>,
}

impl Sink for StoreSink {
    fn apply(&mut self, change: &Change) -> u64 {
        self.store.apply(change)
    }

    fn reached(&mut self, version: u64) {
        self.store.set_progress(Progress { replica: self.replica.clone(), reached: version });
    }

    fn configured(&mut self) {
        self.store.mark_complete_but(&[Kind::Proxy.type_url(), Kind::Name.type_url()]);
    }

    fn complete(&mut self) {
        self.store.mark_complete();
    }
}

/// The proxies among the subscribers of a server, as the compiler wants to know them.
pub fn connected_proxies(server: &Server) -> watch::Receiver<Vec<ConnectedProxy>> {
    let mut subscribers = server.subscribers();
    let (sender, receiver) = watch::channel(Vec::new());
    tokio::spawn(async move {
        loop {
            let proxies = subscribers.borrow_and_update().iter().filter_map(connected_proxy).collect::<Vec<_>>();
            sender.send_if_modified(|known| {
                let changed = *known != proxies;
                *known = proxies;
                changed
            });
            if sender.is_closed() || subscribers.changed().await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn connected_proxy(subscriber: &Subscriber) -> Option<ConnectedProxy> {
    (subscriber.identity.role == Role::Proxy).then(|| ConnectedProxy {
        id: subscriber.identity.id.clone(),
        node: subscriber.identity.node.clone(),
        addresses: subscriber.identity.addresses.clone(),
        ready: subscriber.ready,
        listening: subscriber.listening.clone(),
        failed: subscriber.failed.clone(),
    })
}

/// Whether every subscriber of the mesh's roles has put this revision in force.
pub fn in_force(subscribers: &[Subscriber], revision: u64) -> bool {
    subscribers.iter().all(|subscriber| subscriber.acknowledged() >= revision)
}
