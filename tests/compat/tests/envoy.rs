//! Our server with a real Envoy, which gets clusters of its own kind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use maesh_discovery::{Opaque, Server, ServerOptions, Store, auth::NoAuthentication};
use maesh_test_support::{need_tool, until};
use prost::Message;
use tokio::{net::TcpListener, task::JoinHandle};

const PATIENCE: Duration = Duration::from_secs(60);
const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// As much of `envoy.config.cluster.v3.Cluster` as makes one.
#[derive(Clone, PartialEq, prost::Message)]
struct Cluster {
    #[prost(string, tag = "1")]
    name: String,
    /// 0 static, 3 by endpoint discovery.
    #[prost(int32, optional, tag = "2")]
    discovery: Option<i32>,
    #[prost(message, optional, tag = "4")]
    connect_timeout: Option<Seconds>,
}

/// `google.protobuf.Duration`
#[derive(Clone, PartialEq, prost::Message)]
struct Seconds {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

fn cluster(name: &str, seconds: i64) -> Opaque {
    let cluster = Cluster { name: name.to_owned(), discovery: Some(0), connect_timeout: Some(Seconds { seconds }) };
    Opaque { type_url: CLUSTER.into(), name: name.into(), bytes: cluster.encode_to_vec().into() }
}

/// One that Envoy reads and cannot make: endpoints by discovery, without saying from where.
fn impossible(name: &str) -> Opaque {
    let cluster = Cluster { name: name.to_owned(), discovery: Some(3), connect_timeout: None };
    Opaque { type_url: CLUSTER.into(), name: name.into(), bytes: cluster.encode_to_vec().into() }
}

struct Envoy {
    child: Child,
    admin: SocketAddr,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Envoy {
    fn start(program: &Path, folder: &Path, controller: SocketAddr) -> Self {
        let bootstrap = serde_json::json!({
            "node": { "id": "envoy-1", "cluster": "compat" },
            "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{ "envoy_grpc": { "cluster_name": "controller" } }],
                },
                "cds_config": { "ads": {}, "resource_api_version": "V3" },
            },
            "static_resources": { "clusters": [{
                "name": "controller",
                "type": "STATIC",
                "connect_timeout": "1s",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": { "http2_protocol_options": {} },
                    },
                },
                "load_assignment": { "cluster_name": "controller", "endpoints": [{ "lb_endpoints": [{ "endpoint": {
                    "address": { "socket_address": {
                        "address": controller.ip().to_string(), "port_value": controller.port(),
                    } },
                } }] }] },
            }] },
        });
        let (config, admin) = (folder.join("envoy.json"), folder.join("admin"));
        std::fs::write(&config, bootstrap.to_string()).unwrap();
        let child = Command::new(program)
            .arg("--config-path")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin)
            .args(["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = None;
        let started = until(PATIENCE, || {
            address = std::fs::read_to_string(&admin).ok().and_then(|text| text.trim().parse().ok());
            address.is_some()
        });
        assert!(started, "Envoy did not say where its admin interface is");
        Self { child, admin: address.unwrap() }
    }

    fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.admin)?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")?;
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().unwrap_or_default()
    }

    /// Names of the clusters that came over the stream, sorted.
    fn clusters(&self) -> Vec<String> {
        let all = self.get("/clusters");
        let mut names: Vec<_> =
            all.lines().filter_map(|line| line.split_once("::")).map(|it| it.0.to_owned()).collect();
        names.sort();
        names.dedup();
        names.retain(|name| name != "controller");
        names
    }

    fn stat(&self, name: &str) -> u64 {
        let all = self.get("/stats?filter=cluster_manager.cds");
        let line = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    }

    async fn has(&self, wanted: &[&str]) {
        let found = tokio::task::block_in_place(|| until(PATIENCE, || self.clusters() == wanted));
        assert!(found, "{:?} instead of {wanted:?}", self.clusters());
    }
}

/// Serves a store on `address`; where that is, and the end of it.
async fn serve(store: &Arc<Store>, address: &str) -> (Server, SocketAddr, JoinHandle<std::io::Result<()>>) {
    let server = Server::new(store.clone(), ServerOptions::default());
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = server.clone();
    let end = tokio::spawn(async move { serving.listen(listener, None, Arc::new(NoAuthentication::loopback())).await });
    (server, address, end)
}

#[tokio::test(flavor = "multi_thread")]
async fn our_server_supplies_an_envoy() {
    let Some(program) = need_tool("envoy") else { return };
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::new());
    store.apply_opaque(&[cluster("a", 1)], &[]);
    store.mark_complete();
    let (server, address, end) = serve(&store, "127.0.0.1:0").await;
    let envoy = Envoy::start(&program, folder.path(), address);

    // Everything, acknowledged.
    envoy.has(&["a"]).await;
    assert!(tokio::task::block_in_place(|| until(PATIENCE, || server.counters().acks() > 0)));
    let one = server.counters().bytes();

    // More, and a removal.
    store.apply_opaque(&[cluster("b", 1), cluster("c", 1)], &[]);
    envoy.has(&["a", "b", "c"]).await;
    store.apply_opaque(&[], &[(CLUSTER.into(), "b".into())]);
    envoy.has(&["a", "c"]).await;

    // One that Envoy refuses; the others stay and go on changing.
    assert_eq!(server.counters().nacks(), 0);
    store.apply_opaque(&[impossible("bad")], &[]);
    assert!(tokio::task::block_in_place(|| until(PATIENCE, || server.counters().nacks() == 1)));
    assert_eq!(envoy.stat("cluster_manager.cds.update_rejected"), 1);
    store.apply_opaque(&[cluster("d", 1)], &[]);
    envoy.has(&["a", "c", "d"]).await;

    // The server restarts and knows one more and one less: only these are told.
    server.shutdown();
    end.await.unwrap().unwrap();
    let store = Arc::new(Store::new());
    store.apply_opaque(&[cluster("a", 1), cluster("c", 1), cluster("e", 1)], &[]);
    store.mark_complete();
    let (server, _, _) = serve(&store, &address.to_string()).await;
    envoy.has(&["a", "c", "e"]).await;
    let told = server.counters().bytes();
    assert!(told < one * 2, "{told} bytes of resources, one has {one}");
    assert_eq!(server.counters().nacks(), 0);
}
