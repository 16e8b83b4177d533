//! The objects of the cluster, and how they get into the API server.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::ScopedJoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{PARALLEL, http::Client};

/// Where `kubectl proxy` gives plain access to the API server, inside the namespace.
pub(in crate::bench) const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8001);
/// Endpoints of each Service.
pub(super) const ENDPOINTS: usize = 10;
/// Every address in here is an endpoint's.
pub(super) const PODS: &str = "10.128.0.0/9";
/// Port of every endpoint.
pub(super) const TARGET_PORT: u16 = 8080;
/// Services in one namespace.
const PER_NAMESPACE: usize = 100;
/// Nodes of the cluster.
const NODES: usize = 100;
/// Endpoint numbers that one generation of addresses has room for.
const GENERATION: usize = 1 << 17;
/// Generations that [`PODS`] has room for.
const GENERATIONS: usize = 64;
/// Longest time that writing all objects may take.
const WRITING: Duration = Duration::from_secs(1_200);

/// Which object is where.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Services in all.
    pub(super) services: usize,
}

impl Layout {
    pub(super) fn new(services: usize) -> Result<Self> {
        let most = GENERATION / ENDPOINTS;
        if services == 0 || services > most {
            bail!("--services {services}: must be 1 to {most}, as many as there are addresses for");
        }
        Ok(Self { services })
    }

    fn namespace(service: usize) -> String {
        format!("team-{}", service / PER_NAMESPACE)
    }

    /// The Service's name in the mesh.
    pub(super) fn host(self, service: usize) -> String {
        format!("service-{service}.{}.maesh", Self::namespace(service))
    }

    /// The endpoints' addresses; no two generations share any, until there were 64.
    pub(super) fn addresses(self, service: usize, generation: usize) -> Vec<Ipv4Addr> {
        let base = u32::from(Ipv4Addr::new(10, 128, 0, 0));
        let first = generation % GENERATIONS * GENERATION + service * ENDPOINTS;
        // Never past 2^23, which the range holds.
        let at = |number: usize| Ipv4Addr::from(base + u32::try_from(number).unwrap_or_default());
        (first..first + ENDPOINTS).map(at).collect()
    }

    /// Where the Service's EndpointSlice is written.
    pub(super) fn slice_path(self, service: usize) -> String {
        format!("{}/service-{service}-x7k2p", slices(service))
    }
}

fn slices(service: usize) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", Layout::namespace(service))
}

fn service(number: usize) -> String {
    let name = format!("service-{number}");
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "labels": {"app": name, "team": Layout::namespace(number)}},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": TARGET_PORT}]},
    })
    .to_string()
}

/// The Service's EndpointSlice as the controller manager writes it, with this generation of addresses.
pub(super) fn slice(layout: Layout, number: usize, generation: usize) -> String {
    let name = format!("service-{number}");
    let endpoint = |(at, address): (usize, Ipv4Addr)| {
        json!({
            "addresses": [address.to_string()],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": node(number, at), "zone": format!("zone-{}", at % 3),
            "targetRef": {"kind": "Pod", "name": format!("{name}-{at}"), "namespace": Layout::namespace(number)},
        })
    };
    let endpoints: Vec<_> = layout.addresses(number, generation).into_iter().enumerate().map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-x7k2p"), "namespace": Layout::namespace(number),
            "labels": {"kubernetes.io/service-name": name, "app": name},
        },
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "protocol": "TCP", "port": TARGET_PORT}],
    })
    .to_string()
}

fn node(service: usize, endpoint: usize) -> String {
    format!("node-{}", (service + endpoint * 7) % NODES)
}

/// Writes everything there is; says how long that took.
pub(super) fn write_everything(layout: Layout, pods: bool) -> Result<Duration> {
    let since = Instant::now();
    let namespaces = layout.services.div_ceil(PER_NAMESPACE);
    in_parallel("Namespaces", namespaces, |client, number| {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("team-{number}")}});
        client.write("POST", "/api/v1/namespaces", &body.to_string())
    })?;
    in_parallel("Nodes", NODES, |client, number| {
        let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{number}")}});
        client.write("POST", "/api/v1/nodes", &body.to_string())
    })?;
    in_parallel("Services", layout.services, |client, number| {
        client.write("POST", &format!("/api/v1/namespaces/{}/services", Layout::namespace(number)), &service(number))
    })?;
    in_parallel("EndpointSlices", layout.services, |client, number| {
        client.write("POST", &slices(number), &slice(layout, number, 0))
    })?;
    if pods {
        write_pods(layout)?;
    }
    Ok(since.elapsed())
}

/// A running Pod for each endpoint of the first generation.
fn write_pods(layout: Layout) -> Result<()> {
    in_parallel("Pods", layout.services * ENDPOINTS, |client, number| {
        let (service, at) = (number / ENDPOINTS, number % ENDPOINTS);
        let name = format!("service-{service}-{at}");
        let address = layout.addresses(service, 0).get(at).map(ToString::to_string).unwrap_or_default();
        let (path, app) =
            (format!("/api/v1/namespaces/{}/pods", Layout::namespace(service)), format!("service-{service}"));
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}},
            "spec": {
                "nodeName": node(service, at), "serviceAccountName": app,
                "containers": [{"name": "main", "image": "example/app:1", "ports": [{"containerPort": TARGET_PORT}]}],
            },
        });
        client.write("POST", &path, &pod.to_string())?;
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        client.merge(&format!("{path}/{name}/status"), &status.to_string())
    })
}

/// Does `work` for each number below `count`, over several connections, until one of them fails.
pub(in crate::bench) fn in_parallel(
    what: &str,
    count: usize,
    work: impl Fn(&mut Client, usize) -> Result<()> + Sync,
) -> Result<()> {
    let (next, progress) = (AtomicUsize::new(0), Mutex::new(Progress::new(what, count)));
    let since = Instant::now();
    let lane = || -> Result<()> {
        let mut client = Client::connect(API)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            if since.elapsed() > WRITING {
                bail!("{what}: {number} of {count} written in {WRITING:?}; that is too slow to go on");
            }
            if let Err(error) = work(&mut client, number) {
                next.store(count, Ordering::Relaxed);
                return Err(error.context(format!("{what}, number {number}")));
            }
            if let Ok(mut progress) = progress.lock() {
                progress.one_more();
            }
        }
    };
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().try_for_each(joined)
    })
}

/// What a thread came to.
pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a thread of the bench panicked")).and_then(|result| result)
}

/// A line every five seconds, and one at the end.
pub(in crate::bench) struct Progress {
    what: String,
    of: usize,
    done: usize,
    since: Instant,
    said: Instant,
}

impl Progress {
    pub(in crate::bench) fn new(what: &str, of: usize) -> Self {
        Self { what: what.to_owned(), of, done: 0, since: Instant::now(), said: Instant::now() }
    }

    pub(in crate::bench) fn one_more(&mut self) {
        self.done += 1;
        if self.done == self.of || self.said.elapsed() > Duration::from_secs(5) {
            self.said = Instant::now();
            eprintln!("{}: {} of {} in {:.1} s", self.what, self.done, self.of, self.since.elapsed().as_secs_f64());
        }
    }
}

impl Client {
    /// Creates or replaces an object; fails unless the API server agrees.
    pub(in crate::bench) fn write(&mut self, method: &str, path: &str, body: &str) -> Result<()> {
        self.agreed(method, path, "application/json", body)
    }

    /// Merges `body` into an object.
    pub(in crate::bench) fn merge(&mut self, path: &str, body: &str) -> Result<()> {
        self.agreed("PATCH", path, "application/merge-patch+json", body)
    }

    fn agreed(&mut self, method: &str, path: &str, kind: &str, body: &str) -> Result<()> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.send(&request).with_context(|| format!("{method} {path}"))?;
        if !(200..300).contains(&answer.status) {
            bail!("{method} {path}: {answer}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_generations_share_an_address() {
        let layout = Layout::new(10_000).unwrap();
        let mut all: Vec<Ipv4Addr> = [0, 1, 2, 63]
            .into_iter()
            .flat_map(|generation| [0, 1, 9_999].map(|service| layout.addresses(service, generation)))
            .flatten()
            .collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!((all.len(), count), (120, 120));
        assert!(all.iter().all(|address| address.octets()[0] == 10 && address.octets()[1] >= 128));
    }

    #[test]
    fn more_services_than_addresses_are_refused() {
        assert!(Layout::new(0).is_err() && Layout::new(13_107).is_ok() && Layout::new(13_108).is_err());
    }
}
