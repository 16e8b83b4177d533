//! The responder as the bench runs it: one thread, told of its Services through the same channel as by a controller.
//!
//! `bench_dns LISTEN COUNT [PODS]` answers for COUNT Services `service-I.bench.maesh` of one ready proxy on the node of
//! every caller from 127.0.0.0/8; it knows PODS pods on 1000 other nodes. It runs until it is ended by a signal.

use std::{error::Error, net::SocketAddr, num::NonZeroUsize, sync::Arc};

use maesh_config::{
    Kind, Resource, ServiceName,
    model::{Answer, Mesh, Name, NamePort, Protocol, Proxy, Workload, WorkloadKind},
};
use maesh_discovery::update::{Ack, Update};
use maesh_dns::Config;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (listen, count, pods) = match &arguments[..] {
        [listen, count] => (listen, count, 0),
        [listen, count, pods] => (listen, count, pods.parse()?),
        _ => return Err("usage: bench_dns LISTEN COUNT [PODS]".into()),
    };
    let (listen, count) = (listen.parse()?, count.parse()?);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(listen, count, pods))
}

async fn serve(listen: SocketAddr, count: usize, pods: u32) -> Result<(), Box<dyn Error>> {
    let (updates, received) = mpsc::channel(16);
    let (_up, connected) = watch::channel(true);
    let config = Config { listen: vec![listen], threads: NonZeroUsize::MIN, ..Config::default() };
    let mut registry = Registry::default();
    let dns = maesh_dns::start(config, received, connected, &mut registry)?;
    let mesh = Mesh {
        zones: vec!["maesh".parse()?],
        cluster_domain: "cluster.local".into(),
        fail_to_plain: true,
        bypass: false,
        access_control: false,
        controllers: Vec::new(),
    };
    let proxy = Proxy {
        id: "proxy".into(),
        node: "node".into(),
        addresses: vec!["10.244.0.2".parse()?],
        ready: true,
        listening: vec![80],
        failed: vec![],
    };
    let callers = Workload {
        address: "127.0.0.0/8".parse()?,
        kind: WorkloadKind::PodRange,
        namespace: None,
        name: "node".into(),
        service_account: None,
        node: Some("node".into()),
        zone: None,
    };
    let plain = "10.96.0.1".parse()?;
    let name = |number| {
        Resource::Name(Name {
            service: ServiceName::new("bench", format!("service-{number}")),
            answer: Answer::Node,
            plain: vec![plain],
            headless: false,
            ports: vec![NamePort { number: 80, protocol: Protocol::Http, name: Some("http".into()), listen: 80 }],
        })
    };
    for (kind, resources) in [
        (Kind::Mesh, vec![Resource::Mesh(mesh)]),
        (Kind::Proxy, vec![Resource::Proxy(proxy)]),
        (Kind::Workload, vec![Resource::Workload(callers)]),
    ] {
        updates.send(update(kind, resources, true)).await?;
    }
    // In pieces, as they come from a controller.
    for start in (0..pods).step_by(1000) {
        let piece = (start..pods.min(start + 1000)).map(pod).collect();
        updates.send(update(Kind::Workload, piece, true)).await?;
    }
    for start in (0..count).step_by(1000) {
        let end = count.min(start + 1000);
        updates.send(update(Kind::Name, (start..end).map(name).collect(), end == count)).await?;
    }
    dns.ready().wait_for(|ready| *ready).await?;
    std::future::pending().await
}

fn update(kind: Kind, resources: Vec<Resource>, complete: bool) -> Update {
    let upserts = resources.into_iter().map(Arc::new).collect();
    Update { kind, upserts, removed: vec![], complete, ack: Ack::unheard() }
}

/// A pod with an address of its own.
fn pod(number: u32) -> Resource {
    let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
    Resource::Workload(Workload {
        address: std::net::IpAddr::from(address).into(),
        kind: WorkloadKind::Pod,
        namespace: Some("bench".into()),
        name: format!("pod-{number}").into(),
        service_account: Some("default".into()),
        node: Some(format!("node-{}", number % 1000).as_str().into()),
        zone: None,
    })
}
