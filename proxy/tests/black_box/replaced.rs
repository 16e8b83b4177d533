//! Configuration that is replaced all the time, under load: no request fails, no stream breaks, and nothing piles up.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use maesh_config::{
    Kind, Resource,
    model::{Protocol, Scheme},
    policy::BackendPolicy,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
};

use crate::support::{
    Fed, Raw,
    caller::{Caller, Upload, Version},
    config, endpoint, endpoints, free_port, get, listener, policy, to, within,
};

/// Pause between two replacements.
const PACE: Duration = Duration::from_millis(10);

/// The port of the Service whose streams are opaque.
const DB: u16 = 5432;

/// A mesh of three Services, each with two endpoints, and one more that comes and goes.
struct Mesh {
    fed: Fed,
    web: SocketAddr,
    api: SocketAddr,
    db: SocketAddr,
    /// Endpoints of each.
    behind: [[SocketAddr; 2]; 3],
    _servers: Vec<endpoints::Server>,
    /// The port of the Service that comes and goes.
    other: u16,
}

/// Sends back what comes, to the end.
async fn echo() -> SocketAddr {
    endpoints::raw(|mut stream| async move {
        let (mut reading, mut writing) = stream.split();
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
        let _ = writing.shutdown().await;
    })
    .await
}

impl Mesh {
    async fn new() -> Self {
        let fed = Fed::new(config()).await;
        fed.begin().await;
        let mut servers = Vec::new();
        for (h2, name) in [(false, "a"), (false, "b"), (true, "a"), (true, "b")] {
            servers.push(endpoints::echo(h2, name).await);
        }
        let at = |number: usize| servers[number].address;
        let behind = [[at(0), at(1)], [at(2), at(3)], [echo().await, echo().await]];
        let web = fed.http("web.shop", Scheme::Http, &behind[0]).await;
        let api = fed.http("api.shop", Scheme::H2c, &behind[1]).await;
        let db = fed.listen_on(free_port(), Some(("db.shop", DB)), false, &[]).await;
        fed.define("db.shop", DB, Protocol::Tcp, policy(Scheme::Http), Vec::new());
        fed.define_endpoints("db.shop", DB, Protocol::Tcp, behind[2].map(endpoint).into());
        fed.name("db.shop", DB, db.port(), Protocol::Tcp, &[IpAddr::from([10, 96, 0, 9])]).await;
        Self { fed, web, api, db, behind, _servers: servers, other: free_port() }
    }

    /// The Services with their ports and protocols.
    fn services(&self) -> [(&'static str, u16, Protocol, Scheme); 3] {
        [
            ("web.shop", self.web.port(), Protocol::Http, Scheme::Http),
            ("api.shop", self.api.port(), Protocol::Http, Scheme::H2c),
            ("db.shop", DB, Protocol::Tcp, Scheme::Http),
        ]
    }

    /// Replaces one thing after the other.
    async fn replace(&self, round: usize) {
        let (index, turn) = (round % 3, round / 3);
        let (name, number, protocol, scheme) = self.services()[index];
        match turn % 6 {
            // One endpoint leaves, then both are there, then the other one leaves.
            0 | 2 | 4 => {
                let [a, b] = self.behind[index];
                let sets = [vec![a], vec![b, a], vec![b], vec![a, b]];
                let set = sets[turn / 2 % 4].iter().copied().map(endpoint).collect();
                self.fed.push_endpoints(name, number, protocol, set).await;
            }
            // Other policies, and routes that lead to where none would lead.
            1 | 3 => {
                let patience = Duration::from_secs(60 + turn as u64 % 7);
                let backend = BackendPolicy { idle_timeout: Some(patience), ..policy(scheme) };
                let weight = u32::try_from(turn % 5).expect("small") + 1;
                let backends = vec![to(name, number, weight)];
                let route = maesh_config::model::Route { rule: None, backends, not_understood: None };
                let routes = if turn.is_multiple_of(4) { vec![route] } else { Vec::new() };
                self.fed.define(name, number, protocol, backend, routes);
                self.fed.push_service(name).await;
            }
            _ => self.replace_listeners(turn).await,
        }
    }

    /// Hosts that are claimed, the mesh itself, and a port that comes and goes.
    async fn replace_listeners(&self, turn: usize) {
        let host = format!("alias-{turn}.example.com");
        let claims = [(host.as_str(), "web.shop")];
        self.fed.listen_on(self.web.port(), None, true, &claims).await;
        self.fed.mesh(false).await;
        let plain = [IpAddr::from([10, 96, 0, u8::try_from(turn % 200).expect("small")])];
        self.fed.name("web.shop", self.web.port(), self.web.port(), Protocol::Http, &plain).await;
        let other = listener(self.other, None, true, &[]);
        let id = other.id.to_string();
        if turn.is_multiple_of(2) {
            self.fed.push(Kind::Listener, vec![Resource::Listener(other)], Vec::new()).await;
        } else {
            self.fed.push(Kind::Listener, Vec::new(), vec![&id]).await;
        }
    }
}

/// Callers of all three Services, on connections that they keep and on new ones.
struct Load {
    callers: JoinSet<Vec<String>>,
    over: watch::Sender<bool>,
    asked: Arc<AtomicUsize>,
}

impl Load {
    fn start(mesh: &Mesh) -> Self {
        let mut load = Self { callers: JoinSet::new(), over: watch::Sender::new(false), asked: Arc::default() };
        for (name, to, version) in [
            ("web.shop", mesh.web, Version::Http1),
            ("web.shop", mesh.web, Version::Http2),
            ("api.shop", mesh.api, Version::Http1),
            ("api.shop", mesh.api, Version::Http2),
        ] {
            let caller = Caller::new(version, to, name);
            load.add(caller, move |mut caller, number| async move {
                let path = format!("/{number}");
                let upload = if number.is_multiple_of(10) { Upload::Small } else { Upload::None };
                let answer = caller.ask(&path, upload).await;
                let right = answer.status == 200 && answer.is_whole && answer.body.contains(&format!(" {path} "));
                (caller, if right { Ok(()) } else { Err(format!("{name}, {version:?}: {answer:?}")) })
            });
        }
        let web = mesh.web;
        load.add(None::<Raw>, move |kept, number| async move {
            let mut raw = match kept {
                Some(raw) => raw,
                None => Raw::to(web).await,
            };
            raw.say(&get("web.shop", &format!("/{number}"))).await;
            let (head, body) = raw.hear().await;
            let right = head.starts_with("http/1.1 200") && body.contains(&format!(" /{number} "));
            // Nothing leaves here, so nobody is sent away.
            let right = right && !head.contains("connection: close");
            (Some(raw), if right { Ok(()) } else { Err(format!("web.shop on a kept connection: {head}{body}")) })
        });
        let db = mesh.db;
        load.add(None::<TcpStream>, move |kept, _| async move {
            let mut stream = match kept {
                Some(stream) => stream,
                None => TcpStream::connect(db).await.expect("connected"),
            };
            let said = echoed(&mut stream).await;
            (Some(stream), said.map_err(|error| format!("db.shop on a stream that stays: {error}")))
        });
        load.add((), move |(), _| async move {
            let mut stream = TcpStream::connect(db).await.expect("connected");
            ((), echoed(&mut stream).await.map_err(|error| format!("db.shop on a new stream: {error}")))
        });
        load
    }

    /// Somebody who calls again and again; `state` is what is kept between the calls.
    fn add<S, A>(&mut self, state: S, call: impl Fn(S, usize) -> A + Send + 'static)
    where
        S: Send + 'static,
        A: Future<Output = (S, Result<(), String>)> + Send,
    {
        let (over, asked) = (self.over.subscribe(), self.asked.clone());
        self.callers.spawn(async move {
            let (mut state, mut failed, mut number) = (state, Vec::new(), 0);
            while !*over.borrow() {
                let (next, outcome) = call(state, number).await;
                state = next;
                number += 1;
                asked.fetch_add(1, Ordering::Relaxed);
                failed.extend(outcome.err());
            }
            failed
        });
    }

    /// Ends the load; how many calls there were, and what failed.
    async fn finish(mut self) -> (usize, Vec<String>) {
        self.over.send_replace(true);
        let mut failed = Vec::new();
        while let Some(caller) = within(self.callers.join_next()).await {
            failed.extend(caller.expect("no panic"));
        }
        (self.asked.load(Ordering::Relaxed), failed)
    }
}

/// Says something on a stream, and hears it again.
async fn echoed(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut back = [0; 5];
    stream.write_all(b"hello").await?;
    within(stream.read_exact(&mut back)).await?;
    if &back == b"hello" { Ok(()) } else { Err(std::io::Error::other("something else came back")) }
}

/// Memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim_end_matches("kB").trim().parse().ok()).expect("VmRSS")
}

/// Replaces so many times; returns what the process held after a fourth of them, and in the end.
async fn replaced(rounds: usize) -> [u64; 2] {
    let mesh = Mesh::new().await;
    let load = Load::start(&mesh);
    let mut pace = tokio::time::interval(PACE);
    let mut warm = 0;
    for round in 0..rounds {
        pace.tick().await;
        mesh.replace(round).await;
        if round == rounds / 4 {
            warm = resident();
        }
    }
    let (asked, failed) = load.finish().await;
    println!("{rounds} replacements, {asked} calls, {} failed", failed.len());
    assert!(failed.is_empty(), "{} of {asked} failed: {:#?}", failed.len(), &failed[..failed.len().min(10)]);
    assert!(asked > rounds, "{asked} calls are no load");
    assert!(mesh.fed.counted("maesh_proxy_config_updates", &[]) >= rounds as u64);
    [warm, resident()]
}

#[tokio::test]
async fn nobody_notices_that_the_configuration_is_replaced() {
    replaced(300).await;
}

/// Nothing is kept of what was replaced.
#[tokio::test]
#[ignore = "long: half a minute of replacements under load"]
async fn configuration_that_is_replaced_leaves_nothing_behind() {
    /// What the allocator may keep, in KiB.
    const SPARE: u64 = 8 * 1024;
    let [warm, last] = replaced(3_000).await;
    println!("{warm} to {last} KiB resident");
    assert!(last <= warm + SPARE, "{warm} to {last} KiB resident");
}
