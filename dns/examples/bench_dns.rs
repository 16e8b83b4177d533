//! The responder as the bench runs it: one thread, told of its Services through the same channel as by a controller.
//!
//! `bench_dns LISTEN COUNT` answers for COUNT Services `service-I.bench.maesh` of one ready proxy on the node of every
//! caller from 127.0.0.0/8. It runs until it is ended by a signal.

use std::{error::Error, net::SocketAddr, num::NonZeroUsize, sync::Arc};

use maesh_config::{
    Kind, Resource, ServiceName,
    model::{Answer, Mesh, Name, NamePort, Protocol, Proxy, Workload, WorkloadKind},
    update::{Ack, Update},
};
use maesh_dns::Config;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, count] = &arguments[..] else { return Err("usage: bench_dns LISTEN COUNT".into()) };
    let (listen, count) = (listen.parse()?, count.parse()?);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(listen, count))
}

async fn serve(listen: SocketAddr, count: usize) -> Result<(), Box<dyn Error>> {
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
        (Kind::Name, (0..count).map(name).collect()),
    ] {
        let upserts = resources.into_iter().map(Arc::new).collect();
        updates.send(Update { kind, upserts, removed: vec![], complete: true, ack: Ack::unheard() }).await?;
    }
    dns.ready().wait_for(|ready| *ready).await?;
    std::future::pending().await
}
