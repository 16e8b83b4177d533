//! A process that may open few files, and callers that take what they get.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
};

use crate::support::{
    Dev, PATIENCE, await_condition,
    backend::Backend,
    command,
    http::get,
    local::{Part, Roles},
    manifest::{save, service, slices},
    resolver::resolve,
};
use hickory_proto::rr::RecordType;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// A connection from an address of loopback.
fn from(source: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// The answer to one request from `source`; empty where the connection is closed before.
fn ask_from(source: Ipv4Addr, to: SocketAddr, host: &str) -> String {
    let Ok(mut stream) = from(source, to) else { return String::new() };
    let _ = stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn two_greedy_callers_leave_room_for_a_third_and_for_probes() {
    const OPEN_FILES: u32 = 512;
    let (web, echo) = (Backend::http("web"), Backend::echo());
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &slices("shop", "web", &[web.address])));
    let tcp = "maesh.containo.us/traffic-type: tcp";
    save(folder.path(), "db.yaml", &(service("shop", "db", 5432, tcp) + &slices("shop", "db", &[echo.address])));
    let mut dev = Dev::start_limited(folder.path(), OPEN_FILES);
    let (web_at, db_at) = (dev.served_at("web.shop.maesh"), dev.served_at("db.shop.maesh"));
    let greedy = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];
    let other = Ipv4Addr::new(127, 0, 0, 4);
    let mut held = Vec::new();
    for caller in greedy {
        for number in 0..OPEN_FILES {
            // Opaque streams of which each takes two files, and connections of HTTP that say nothing.
            let Ok(mut stream) = from(caller, if number % 2 == 0 { db_at } else { web_at }) else { continue };
            let _ = stream.write_all(b"x");
            held.push(stream);
        }
        assert!(ask_from(caller, web_at, "web.shop").contains("overloaded"), "{caller} has all that it may have");
    }
    for _ in 0..5 {
        let answer = ask_from(other, web_at, "web.shop");
        assert!(answer.contains("200 OK"), "a third caller: {answer}; logs:\n{}", dev.logs());
        let mut stream = from(other, db_at).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello");
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(get(dev.admin(), "localhost", path).unwrap().status, 200, "{path}");
        }
    }
    // What is configured still arrives.
    save(folder.path(), "new.yaml", &(service("shop", "new", 8081, "") + &slices("shop", "new", &[web.address])));
    dev.await_changed("new.shop.maesh");
    drop(held);
    await_condition("what was held is given back", || {
        ask_from(greedy[0], web_at, "web.shop").contains("200 OK").then_some(())
    });
}

/// Connections to one port that say nothing, from many addresses; opened again when they are closed.
struct Silent {
    at: SocketAddr,
    open: Vec<Option<TcpStream>>,
}

impl Silent {
    const COUNT: usize = 220;

    fn new(at: SocketAddr) -> Self {
        Self { at, open: (0..Self::COUNT).map(|_| None).collect() }
    }

    fn top_up(&mut self) {
        for (number, stream) in self.open.iter_mut().enumerate() {
            let is_open = stream.as_mut().is_some_and(|stream| {
                stream.read(&mut [0; 512]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
            });
            if !is_open {
                let source = Ipv4Addr::new(127, 0, 3, u8::try_from(number / 10 + 1).unwrap());
                *stream = from(source, self.at).ok().filter(|stream| stream.set_nonblocking(true).is_ok());
            }
        }
    }
}

#[test]
fn few_files_leave_room_for_probes_of_every_role_whatever_is_connected() {
    const OPEN_FILES: u32 = 300;
    let web = Backend::http("web");
    let (folder, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &slices("shop", "web", &[web.address])));
    let roles = Roles::start_limited(folder.path(), OPEN_FILES, logs.path());
    let web_at = SocketAddr::new(roles.address(Part::Proxy1), 8080);
    for (part, port) in [(Part::Controller, roles.discovery()), (Part::Dns, roles.dns()), (Part::Proxy1, web_at)] {
        let mut silent = [roles.admin(part), port].map(Silent::new);
        let mut most = 0;
        for round in 0..8 {
            silent.iter_mut().for_each(Silent::top_up);
            for path in ["/livez", "/readyz", "/metrics"] {
                let answer = get(roles.admin(part), "localhost", path);
                let answer = answer.unwrap_or_else(|error| panic!("{part:?} {path}, round {round}: {error}"));
                assert_eq!(answer.status, 200, "{part:?} {path}, round {round}");
            }
            most = most.max(std::fs::read_dir(format!("/proc/{}/fd", roles.id(part))).unwrap().count());
        }
        assert!(most < OPEN_FILES as usize - 10, "{part:?} had {most} files open");
        assert!(!roles.log(part).contains("cannot accept"), "{part:?}: {}", roles.log(part));
    }
}

#[test]
fn too_few_files_are_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = std::process::Command::new("sh");
    let maesh = command(&[]);
    shell.args(["-c", "ulimit -n 120 && exec \"$@\"", "sh"]).arg(maesh.get_program());
    shell.args(["dev", "--dns", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).arg(folder.path());
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("may open 120 files") && said.contains("ulimit -n"), "{said}");
}

/// More ports than the process may open files for: what fits serves, and the rest is said once, and of each Service.
#[test]
fn ports_above_the_open_files_are_left_out_and_the_rest_serves() {
    const OPEN_FILES: u32 = 300;
    const HTTP: u16 = 90;
    const TCP: u16 = 40;
    let web = Backend::http("web");
    let folder = tempfile::tempdir().unwrap();
    for number in 0..HTTP {
        let name = format!("web-{number}");
        let text = service("shop", &name, 9000 + number, "") + &slices("shop", &name, &[web.address]);
        save(folder.path(), &format!("{name}.yaml"), &text);
    }
    for number in 0..TCP {
        let name = format!("db-{number}");
        let text = service("shop", &name, 7000 + number, "maesh.containo.us/traffic-type: tcp");
        save(folder.path(), &format!("{name}.yaml"), &text);
    }
    let mut dev = Dev::start_limited(folder.path(), OPEN_FILES);
    let warnings: Vec<_> = dev.early.iter().filter(|event| event["event"] == "warning").collect();
    let (of_services, others): (Vec<&Value>, Vec<&Value>) =
        warnings.into_iter().partition(|event| event["object"]["kind"] == "Service");
    assert_eq!(others.len(), 1, "{others:#?}");
    let summary = others[0]["message"].as_str().unwrap();
    let told = of_services.iter().map(|event| event["object"]["name"].as_str().unwrap().to_owned());
    let told: std::collections::BTreeSet<String> = told.collect();
    let (all, said) = (usize::from(HTTP + TCP), told.len());
    assert!(said > 0 && said < all, "{said} of {all} do not fit");
    assert_eq!(of_services.len(), said, "each is told once");
    assert!(summary.starts_with(&format!("{said} ports of {said} Services are not served")), "{summary}");
    assert!(summary.contains("limit of 300 open files") && summary.contains("ulimit -n"), "{summary}");
    for event in &of_services {
        let message = event["message"].as_str().unwrap();
        assert!(message.contains("is not served") && message.contains("ulimit -n"), "{message}");
    }
    assert!(!dev.logs().contains("WARN"), "{}", dev.logs());
    for entry in dev.ready["services"].as_array().unwrap() {
        let name = entry["name"].as_str().unwrap().split('.').next().unwrap();
        if told.contains(name) {
            assert_eq!(entry["address"], "10.96.0.77", "{name} answers its plain address");
        } else {
            assert!(TcpStream::connect(crate::support::served_at(entry)).is_ok(), "{name} is not served: {entry}");
        }
    }
    // What does not fit any more later is told in the same way; what is there goes on.
    let fits = (0..HTTP).map(|number| format!("web-{number}")).find(|name| !told.contains(name)).unwrap();
    save(folder.path(), "more.yaml", &service("shop", "more", 9900, ""));
    let more = dev.await_event("about the new one", |event| event["object"]["name"] == "more");
    assert_eq!((&more["event"], &more["reason"]), (&"warning".into(), &"ListenFailed".into()), "{more}");
    let name = format!("{fits}.shop.maesh");
    assert_eq!(get(dev.served_at(&name), &name, "/").unwrap().status, 200);
}

/// The status and the reason of an answer, once it has ended; `None` while nothing has come.
fn answered(stream: &mut TcpStream) -> Option<(u16, String)> {
    let mut answer = Vec::new();
    stream.set_nonblocking(true).unwrap();
    let ended = stream.read_to_end(&mut answer);
    stream.set_nonblocking(false).unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(!answer.is_empty() || ended.is_err(), "closed without a word");
    let status = text.split(' ').nth(1)?.parse().unwrap();
    Some((status, crate::support::backend::field(&text, "x-maesh-reason").unwrap_or_default()))
}

/// Many callers, none of whom has more than its part, and together far more than there are files.
#[test]
fn callers_above_the_open_files_are_told_and_served_later() {
    const OPEN_FILES: u32 = 400;
    const CALLERS: u8 = 60;
    const EACH: usize = 6;
    let (web, echo) = (Backend::http_slow("web"), Backend::echo());
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &slices("shop", "web", &[web.address])));
    let tcp = "maesh.containo.us/traffic-type: tcp";
    save(folder.path(), "db.yaml", &(service("shop", "db", 5432, tcp) + &slices("shop", "db", &[echo.address])));
    let mut dev = Dev::start_limited(folder.path(), OPEN_FILES);
    let (web_at, db_at) = (dev.served_at("web.shop.maesh"), dev.served_at("db.shop.maesh"));
    // Requests under way: each takes a file here and one towards the endpoint.
    let mut open = Vec::new();
    for number in 0..usize::from(CALLERS) * EACH {
        let source = Ipv4Addr::new(127, 0, 5, u8::try_from(number / EACH + 1).unwrap());
        let mut stream = from(source, web_at).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n").unwrap();
        open.push(stream);
    }
    let mut refused = 0;
    await_condition("each is told that there are too many, or waits for its endpoint", || {
        open.retain_mut(|stream| {
            let Some(answer) = answered(stream) else { return true };
            assert_eq!(answer, (503, "overloaded".to_owned()));
            refused += 1;
            false
        });
        (open.len() == web.arrived()).then_some(())
    });
    assert!(open.len() > 50 && refused > 100, "{} wait, {refused} were refused", open.len());
    for round in 0..5 {
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(get(dev.admin(), "localhost", path).unwrap().status, 200, "{path}, round {round}");
        }
        let stream = from(Ipv4Addr::new(127, 0, 6, 1), db_at);
        let ended = stream.and_then(|mut stream| stream.read(&mut [0; 8]));
        assert!(matches!(ended, Ok(0) | Err(_)), "a stream beside: {ended:?}");
    }
    let metrics = get(dev.admin(), "localhost", "/metrics").unwrap().body;
    let counted = format!("maesh_http_refused_total{{reason=\"overloaded\"}} {refused}\n");
    assert!(metrics.contains(&counted), "{refused}: {metrics}");
    assert!(metrics.contains("maesh_tcp_refused_total{"), "{metrics}");
    assert!(dev.logs().contains("connection refused"), "{}", dev.logs());
    save(folder.path(), "new.yaml", &(service("shop", "new", 8081, "") + &slices("shop", "new", &[web.address])));
    dev.await_changed("new.shop.maesh");
    let name = "web.shop.maesh";
    let found = resolve(Ipv4Addr::LOCALHOST.into(), &[dev.dns()], name, RecordType::A).unwrap();
    assert_eq!(found.addresses, [web_at.ip()], "names are answered");

    web.release();
    for (number, mut stream) in open.into_iter().enumerate() {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 OK"), "{number}, which had its place: {answer}");
    }
    for caller in 1..=CALLERS {
        let source = Ipv4Addr::new(127, 0, 5, caller);
        await_condition("room is made", || ask_from(source, web_at, "web.shop").contains(" 200 OK").then_some(()));
    }
    await_condition("nothing is left", || {
        let metrics = get(dev.admin(), "localhost", "/metrics").unwrap().body;
        let open = metrics.lines().filter(|line| line.starts_with("maesh_proxy_connections_open{"));
        open.map(|line| line.ends_with(" 0")).reduce(|all, one| all && one).filter(|none| *none)
    });
}
