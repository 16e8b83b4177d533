//! The roles as processes of their own on a real Kubernetes API: the same answers as `maesh dev`, and none lost while
//! each process is killed or restarted in turn, and while the API server is away.
//!
//! Everything is in a network namespace: the controller, two dns, a proxy for each of two nodes, backends and callers,
//! each at an address of its own.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::support::{
    Dev, await_condition,
    backend::Backend,
    http::get,
    manifest::{save, slices},
    resolver::{Answer, ask, resolve},
    roles::{Mesh, Role, outage},
};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use maesh_testkube::ApiServer;

/// Pause of a caller between two requests.
const PACE: Duration = Duration::from_millis(10);
/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(120);
/// How long a killed process stays away.
const DOWN: Duration = Duration::from_secs(2);

fn objects(web: &[SocketAddr], api: SocketAddr, db: SocketAddr) -> String {
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n".to_owned();
    for number in [1, 2] {
        text += &format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: n{number}}}\n\
             spec: {{podCIDR: 10.244.{number}.0/24, podCIDRs: [10.244.{number}.0/24]}}\n"
        );
    }
    let tcp = "maesh.containo.us/traffic-type: tcp";
    for (name, number, annotations) in [("web", 101, ""), ("api", 102, ""), ("db", 103, tcp)] {
        text += &format!(
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: shop\n  \
             annotations: {{{annotations}}}\nspec:\n  clusterIP: 10.96.0.{number}\n  ports:\n  - {{name: main, port: 8080}}\n"
        );
    }
    text + &slices("shop", "web", web) + &slices("shop", "api", &[api]) + &slices("shop", "db", &[db])
}

#[test]
#[ignore = "takes five minutes: cargo xtask test --all"]
fn the_roles_answer_as_dev_does_and_lose_nothing_whatever_is_killed() {
    let Some(mut server) = ApiServer::start_or_skip() else { return };
    let namespace = server.namespace().clone();
    namespace.run(|| everything(&mut server)).unwrap();
}

fn everything(server: &mut ApiServer) {
    let web = [Backend::http_at("web-1", "10.244.1.7"), Backend::http_at("web-2", "10.244.2.7")];
    let api = Backend::http_at("api", "10.244.1.8");
    let db = Backend::echo_at("10.244.2.8");
    let manifests = objects(&[web[0].address, web[1].address], api.address, db.address);
    server.apply(&manifests).unwrap();

    let mut mesh = Mesh::start(server);
    mesh.await_ready();
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "all.yaml", &manifests);
    same_answers_as_dev(&mesh, folder.path());

    let load = Load::start(&mesh);
    for role in Role::ALL {
        load.away(role, Away::Killed, || {
            mesh.kill(role);
            outage(DOWN);
            mesh.start_role(role);
            mesh.await_role(role);
            await_local_answers(&mesh);
        });
    }
    for role in Role::ALL {
        load.away(role, Away::Restarted, || {
            mesh.terminate(role);
            mesh.start_role(role);
            mesh.await_role(role);
            await_local_answers(&mesh);
        });
    }
    server.kill_apiserver();
    outage(AWAY);
    server.start_apiserver().unwrap();
    // Resumed: what is written now takes effect.
    let new = Backend::http_at("web-3", "10.244.2.9");
    server.apply(&slices("shop", "web", &[new.address, web[1].address])).unwrap();
    await_condition("the new endpoint answers", || (new.answered() > 0).then_some(()));
    load.finish();
}

/// What names and requests say, compared between the cluster's roles and `maesh dev` on the same objects.
fn same_answers_as_dev(mesh: &Mesh, folder: &Path) {
    let dev = Dev::start(folder);
    let caller: IpAddr = "10.244.1.20".parse().unwrap();
    let loopback: IpAddr = "127.0.0.1".parse().unwrap();
    for (name, kind) in [
        ("web.shop.maesh", RecordType::A),
        ("web.shop.traefik.mesh", RecordType::A),
        ("api.shop.maesh", RecordType::A),
        ("db.shop.maesh", RecordType::A),
        ("web.shop.maesh", RecordType::AAAA),
        ("web.shop.maesh", RecordType::TXT),
        ("_main._tcp.web.shop.maesh", RecordType::SRV),
        ("_main._tcp.db.shop.maesh", RecordType::SRV),
        ("_other._tcp.web.shop.maesh", RecordType::SRV),
        ("shop.maesh", RecordType::A),
        ("missing.shop.maesh", RecordType::A),
        ("maesh", RecordType::SOA),
        ("web.shop.svc.cluster.local", RecordType::A),
    ] {
        let want = ask(loopback, dev.dns(), name, kind, crate::support::PATIENCE).unwrap();
        for server in mesh.resolvers() {
            let got = ask(caller, server, name, kind, crate::support::PATIENCE).unwrap();
            assert_eq!(
                (got.code, got.records, &got.services),
                (want.code, want.records, &want.services),
                "{name} {kind}"
            );
        }
    }
    await_local_answers(mesh);
    for host in ["web.shop.maesh", "api.shop.maesh", "api.shop", "missing.shop.maesh", "example.com", "10.96.0.102"] {
        let want = get(dev.served_at("api.shop.maesh"), host, "/x").unwrap();
        for proxy in [Role::Proxy1, Role::Proxy2] {
            let got = get((proxy.address(), 8080).into(), host, "/x").unwrap();
            let reason = |answer: &crate::support::http::Answer| answer.field("x-maesh-reason");
            assert_eq!((got.status, reason(&got)), (want.status, reason(&want)), "{host} at {proxy:?}");
        }
    }
    // Own addresses of a cluster are Services that the mesh makes there, which it does not yet: dev alone has one.
    assert_eq!(crate::support::echo(dev.served_at("db.shop.maesh"), b"through"), b"through");
}

/// Waits until both dns send the callers of each node to its proxy.
fn await_local_answers(mesh: &Mesh) {
    for (node, proxy) in [(1, Role::Proxy1), (2, Role::Proxy2)] {
        let caller: IpAddr = format!("10.244.{node}.20").parse().unwrap();
        for server in mesh.resolvers() {
            await_condition(&format!("{server} sends a caller on n{node} to the proxy of its node"), || {
                let got = ask(caller, server, "web.shop.maesh", RecordType::A, crate::support::PATIENCE).ok()?;
                (got.addresses == [proxy.address()]).then_some(())
            });
        }
    }
}

/// Callers of both nodes, each asking for a name and sending a request to what it was answered, again and again.
struct Load {
    log: Arc<Mutex<Log>>,
    over: Arc<AtomicBool>,
    callers: Vec<JoinHandle<usize>>,
}

/// What went wrong, and when which process was away.
#[derive(Default)]
struct Log {
    failures: Vec<Failure>,
    away: Vec<(IpAddr, Away, Instant, Option<Instant>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    Killed,
    Restarted,
}

struct Failure {
    from: Instant,
    to: Instant,
    /// The proxy that was asked, if it came to that.
    proxy: Option<IpAddr>,
    what: String,
}

impl Log {
    /// Whether the process at `address` was away in this manner at some moment of this time.
    fn was(&self, address: IpAddr, manners: &[Away], from: Instant, to: Instant) -> bool {
        self.away.iter().any(|(away, manner, start, end)| {
            *away == address && manners.contains(manner) && *start <= to && end.is_none_or(|end| end >= from)
        })
    }

    /// What failed when, and which process was away last.
    fn tell(&self, failure: &Failure) -> String {
        let before = self.away.iter().rev().find(|(_, _, start, _)| *start <= failure.to);
        let since = before.map_or_else(String::new, |(address, manner, start, end)| {
            let over = end.filter(|end| *end <= failure.to).map(|end| failure.to - end);
            format!("; {address} {manner:?} {:?} before, over since {over:?}", failure.to - *start)
        });
        format!("{} within {:?}{since}", failure.what, failure.to - failure.from)
    }

    /// A request on a proxy that was killed at some moment of it had no healthy proxy. Nothing else is excused.
    fn excused(&self, failure: &Failure) -> bool {
        failure.proxy.is_some_and(|proxy| self.was(proxy, &[Away::Killed], failure.from, failure.to))
    }
}

impl Load {
    fn start(mesh: &Mesh) -> Self {
        let (log, over) = (Arc::<Mutex<Log>>::default(), Arc::<AtomicBool>::default());
        let mut callers = Vec::new();
        for (node, local) in [(1, Role::Proxy1), (2, Role::Proxy2)] {
            for (number, service) in [(31, "web"), (32, "api")] {
                let (log, over, resolvers) = (log.clone(), over.clone(), mesh.resolvers());
                let caller: IpAddr = format!("10.244.{node}.{number}").parse().unwrap();
                let name = format!("{service}.shop.maesh");
                callers.push(std::thread::spawn(move || {
                    let mut requests = 0;
                    while !over.load(Ordering::Acquire) {
                        one_request(caller, &resolvers, &name, local.address(), &log);
                        requests += 1;
                        outage(PACE);
                    }
                    requests
                }));
            }
        }
        Self { log, over, callers }
    }

    /// Notes that a process is away while `work` lasts, and until dns can know that it is back.
    fn away(&self, role: Role, manner: Away, work: impl FnOnce()) {
        self.log.lock().unwrap().away.push((role.address(), manner, Instant::now(), None));
        work();
        if let Some(last) = self.log.lock().unwrap().away.last_mut() {
            last.3 = Some(Instant::now());
        }
    }

    fn finish(self) {
        self.over.store(true, Ordering::Release);
        let requests: usize = self.callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        let log = self.log.lock().unwrap();
        let (excused, failed): (Vec<_>, Vec<_>) = log.failures.iter().partition(|failure| log.excused(failure));
        let failed: Vec<_> = failed.iter().map(|failure| log.tell(failure)).collect();
        println!(
            "{requests} names asked and requests sent; {} on a proxy as it was killed; {} failed",
            excused.len(),
            failed.len()
        );
        assert!(failed.is_empty(), "{} of {requests} failed: {failed:#?}", failed.len());
        assert!(requests > 10_000, "{requests} requests are no load");
    }
}

/// Asks for the name as a pod at `caller` does and sends a request to the first address of the answer.
fn one_request(caller: IpAddr, resolvers: &[SocketAddr], name: &str, local: IpAddr, log: &Mutex<Log>) {
    let from = Instant::now();
    let fail = |proxy, what: String| {
        let failure = Failure { from, to: Instant::now(), proxy, what };
        log.lock().unwrap().failures.push(failure);
    };
    let answer = match resolve(caller, resolvers, name, RecordType::A) {
        Ok(answer) => answer,
        Err(error) => return fail(None, format!("{name} asked by {caller}: {error}")),
    };
    if !right(&answer, local, from, &log.lock().unwrap()) {
        return fail(None, format!("{name} asked by {caller}: wrong answer {answer:?}"));
    }
    let proxy = answer.addresses[0];
    match get((proxy, 8080).into(), name, "/") {
        Ok(answer) if answer.status == 200 && answer.by().split('-').next() == name.split('.').next() => {}
        Ok(answer) => fail(Some(proxy), format!("{name} at {proxy}: {answer:?}")),
        Err(error) => fail(Some(proxy), format!("{name} at {proxy}: {error}")),
    }
}

/// An answer is right when it is the proxy of the caller's node; another proxy, only while that one is or was just away.
fn right(answer: &Answer, local: IpAddr, from: Instant, log: &Log) -> bool {
    let proxies = [Role::Proxy1.address(), Role::Proxy2.address()];
    let known = !answer.addresses.is_empty() && answer.addresses.iter().all(|address| proxies.contains(address));
    let back = from.checked_sub(Duration::from_secs(1)).unwrap_or(from);
    let elsewhere = log.was(local, &[Away::Killed, Away::Restarted], back, Instant::now());
    answer.code == ResponseCode::NoError && known && (answer.addresses == [local] || elsewhere)
}
