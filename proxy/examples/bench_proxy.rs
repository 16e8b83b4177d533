//! The proxy as the benches run it: one worker, told of its Services through the same channel as by a controller.
//!
//! `bench_proxy http SCHEME COUNT LISTEN ENDPOINT...` serves COUNT Services of HTTP on one shared port;
//! `bench_proxy tcp LISTEN-BULK LISTEN-SHORT BULK-ENDPOINT ENDPOINT...` carries two opaque ports.
//! It runs until it is ended by a signal.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use maesh_config::{
    Key, Kind, Resource, ServiceName,
    model::{
        Answer, BackendPolicy, Balance, Bind, Endpoint, Endpoints, Listener, ListenerId, Mesh, Name, NamePort,
        PortEndpoints, Protocol, Scheme, Service, ServicePort, Transport,
    },
};
use maesh_discovery::update::{Ack, Demand, Interest, Update};
use maesh_proxy::Config;
use tokio::sync::{mpsc, watch};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let resources = match &words[..] {
        ["http", scheme, count, listen, endpoints @ ..] => http(scheme, count.parse()?, listen.parse()?, endpoints)?,
        ["tcp", bulk, short, to, endpoints @ ..] => {
            let mut all = tcp("bulk", bulk.parse()?, &[to])?;
            all.extend(tcp("short", short.parse()?, endpoints)?);
            all
        }
        _ => bail!("usage: bench_proxy http SCHEME COUNT LISTEN ENDPOINT... | tcp BULK SHORT ENDPOINT ENDPOINT..."),
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(resources))
}

/// Starts the proxy and feeds it: all names and listeners at once, Services and endpoints when they are asked for.
async fn serve(resources: Vec<Resource>) -> Result<()> {
    let (updates, received) = mpsc::channel(16);
    let (interest, mut demands) = Interest::new();
    let (_up, connected) = watch::channel(true);
    let shared = vec!["127.0.0.1".parse()?];
    let config = Config { shared, loopback_endpoints: true, workers: 1, ..Config::default() };
    let _proxy = maesh_proxy::start(config, received, interest, watch::channel(false).0, connected).await?;

    let held: HashMap<Key, Arc<Resource>> = resources.into_iter().map(|one| (one.key(), Arc::new(one))).collect();
    for kind in [Kind::Mesh, Kind::Proxy, Kind::Workload, Kind::Listener, Kind::Name] {
        let upserts = held.values().filter(|one| one.kind() == kind).cloned().collect();
        let update = Update { kind, upserts, removed: Vec::new(), complete: true, ack: Ack::unheard() };
        updates.send(update).await.context("the proxy ended")?;
    }
    while let Some(demand) = demands.recv().await {
        let Demand::Subscribe(kind, name) = demand else { continue };
        let found = held.get(&Key { kind, name: name.clone() }).cloned();
        let removed = if found.is_some() { Vec::new() } else { vec![name] };
        let upserts = found.into_iter().collect();
        let update = Update { kind, upserts, removed, complete: false, ack: Ack::unheard() };
        updates.send(update).await.context("the proxy ended")?;
    }
    Ok(())
}

/// Services `service-0`, `service-1`, ... of namespace `bench`, all with the same endpoints, on one shared port.
fn http(scheme: &str, count: usize, listen: SocketAddr, endpoints: &[&str]) -> Result<Vec<Resource>> {
    let scheme = match scheme {
        "http" => Scheme::Http,
        "h2c" => Scheme::H2c,
        other => bail!("no scheme is called {other}"),
    };
    let mut all = vec![
        mesh()?,
        Resource::Listener(Listener {
            id: ListenerId::new(Bind::Shared, listen.port(), Transport::Tcp),
            bind: Bind::Shared,
            port: listen.port(),
            transport: Transport::Tcp,
            owner: None,
            http: true,
            tls: false,
            hosts: Vec::new(),
            sni: Vec::new(),
        }),
    ];
    for index in 0..count {
        let name = ServiceName::new("bench", format!("service-{index}"));
        all.extend(service(&name, listen.port(), Protocol::Http, scheme, endpoints)?);
    }
    Ok(all)
}

/// One Service of opaque streams that has `listen` to itself.
fn tcp(name: &str, listen: SocketAddr, endpoints: &[&str]) -> Result<Vec<Resource>> {
    let name = ServiceName::new("bench", name);
    let bind = Bind::Address(listen.ip());
    let listener = Listener {
        id: ListenerId::new(bind, listen.port(), Transport::Tcp),
        bind,
        port: listen.port(),
        transport: Transport::Tcp,
        owner: Some((name.clone(), listen.port())),
        http: false,
        tls: false,
        hosts: Vec::new(),
        sni: Vec::new(),
    };
    let mut all = vec![mesh()?, Resource::Listener(listener)];
    all.extend(service(&name, listen.port(), Protocol::Tcp, Scheme::Http, endpoints)?);
    Ok(all)
}

fn mesh() -> Result<Resource> {
    Ok(Resource::Mesh(Mesh {
        controllers: Vec::new(),
        zones: vec!["maesh".parse()?],
        cluster_domain: "cluster.local".into(),
        fail_to_plain: true,
        bypass: false,
        access_control: false,
    }))
}

/// Name, Service and endpoints of a Service with one port.
fn service(
    name: &ServiceName,
    port: u16,
    protocol: Protocol,
    scheme: Scheme,
    addresses: &[&str],
) -> Result<[Resource; 3]> {
    let mut endpoints = Vec::with_capacity(addresses.len());
    for address in addresses {
        endpoints.push(Endpoint {
            address: address.parse()?,
            ready: true,
            serving: true,
            terminating: false,
            node: None,
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
        });
    }
    endpoints.sort_unstable();
    let backend = BackendPolicy {
        scheme,
        balance: Balance::P2c,
        local_only: false,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Some(Duration::from_secs(3600)),
        concurrency: 1024,
    };
    Ok([
        Resource::Name(Name {
            service: name.clone(),
            answer: Answer::Node,
            plain: Vec::new(),
            headless: false,
            ports: vec![NamePort { number: port, protocol, name: None, listen: port }],
        }),
        Resource::Service(Service {
            name: name.clone(),
            ports: vec![ServicePort {
                number: port,
                name: None,
                protocol,
                leaving: false,
                routes: Vec::new(),
                backend,
            }],
        }),
        Resource::Endpoints(Endpoints {
            service: name.clone(),
            ports: vec![PortEndpoints { number: port, protocol, endpoints }],
        }),
    ])
}
