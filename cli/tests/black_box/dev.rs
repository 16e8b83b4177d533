//! `maesh dev` from outside: names, requests, live changes, bad input, its end.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    io::Read as _,
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::support::{
    Dev,
    backend::Backend,
    command,
    http::{Client, get},
    manifest::{save, service, slices},
    wait,
};

#[test]
fn a_request_goes_through() {
    let folder = tempfile::tempdir().unwrap();
    let web = Backend::http("v1");
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &slices("shop", "web", &[web.address])));
    let dev = Dev::start(folder.path());
    let at = dev.served_at("web.shop.maesh");
    assert_eq!(at.port(), 8080);
    for host in ["web.shop.maesh", "WEB.shop.Maesh.:8080", "web.shop", "web.shop.svc.cluster.local", "10.96.0.77"] {
        let answer = get(at, host, "/a?b=c").unwrap();
        assert_eq!((answer.status, answer.by()), (200, "v1"), "{host}: {answer:?}");
        assert!(answer.body.starts_with("v1 GET /a?b=c\n"), "{host}: {answer:?}");
    }
    for (host, reason) in [("nobody.shop.maesh", "unknown_host"), ("example.com", "unknown_host")] {
        let answer = get(at, host, "/").unwrap();
        assert_eq!((answer.status, answer.field("x-maesh-reason").as_deref()), (404, Some(reason)), "{host}");
    }
}

#[test]
fn a_tcp_service_answers_on_its_own_address() {
    let folder = tempfile::tempdir().unwrap();
    let echo = Backend::echo();
    let tcp = "maesh.containo.us/traffic-type: tcp";
    save(folder.path(), "db.yaml", &(service("shop", "db", 5432, tcp) + &slices("shop", "db", &[echo.address])));
    let dev = Dev::start(folder.path());
    let at = dev.served_at("db.shop.maesh");
    assert_eq!(crate::support::echo(at, b"hello"), b"hello");
}

/// A pooled connection that the backend ended in order is no failure, and no request waits on it.
#[test]
fn a_connection_that_the_backend_closed_while_idle_costs_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let web = Backend::http("v1");
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &slices("shop", "web", &[web.address])));
    let dev = Dev::start(folder.path());
    let mut client = Client::connect(dev.served_at("web.shop.maesh")).unwrap();
    for round in 0..20 {
        let answer = client.get("web.shop.maesh", "/").unwrap();
        assert_eq!((answer.status, answer.by()), (200, "v1"), "round {round}: {answer:?}");
        web.close_connections();
    }
}

/// 50 releases under 20,000 requests; each time the old backend dies as soon as the change is said to be in force.
#[test]
fn endpoints_swapped_under_load_lose_no_request() {
    const SWAPS: usize = 50;
    const REQUESTS: usize = 20_000;
    const CALLERS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let mut current = Backend::http("b0");
    save(folder.path(), "web.yaml", &service("shop", "web", 8080, ""));
    save(folder.path(), "slice.yaml", &slices("shop", "web", &[current.address]));
    let mut dev = Dev::start(folder.path());
    let at = dev.served_at("web.shop.maesh");
    let (sent, swapped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (sent, swapped) = (sent.clone(), swapped.clone());
            std::thread::spawn(move || load(at, &sent, &swapped, REQUESTS))
        })
        .collect();
    for swap in 1..=SWAPS {
        let next = Backend::http(&format!("b{swap}"));
        save(folder.path(), "slice.yaml", &slices("shop", "web", &[next.address]));
        dev.await_changed("web.shop.maesh");
        current.stop_hard();
        current = next;
    }
    swapped.store(true, Ordering::Release);
    let failed: Vec<String> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent >= REQUESTS, "{sent} requests");
    assert_eq!(failed, Vec::<String>::new(), "{} of {sent} failed", failed.len());
    assert!(current.answered() > 0, "the last backend answered nothing");
}

/// Requests over a keep-alive connection until both the swaps are over and enough were sent; what failed, and how.
fn load(at: SocketAddr, sent: &AtomicUsize, swapped: &AtomicBool, enough: usize) -> Vec<String> {
    let mut failed = Vec::new();
    let mut client = None;
    while !swapped.load(Ordering::Acquire) || sent.load(Ordering::Relaxed) < enough {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        let answer = client.take().map_or_else(|| Client::connect(at), Ok).and_then(|mut open: Client| {
            let answer = open.get("web.shop.maesh", "/")?;
            client = Some(open);
            Ok(answer)
        });
        match answer {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => failed.push(format!("{number}: {} {:?}", answer.status, answer.field("x-maesh-reason"))),
            Err(error) => failed.push(format!("{number}: {error}")),
        }
    }
    failed
}

#[test]
fn it_ends_at_sigterm_with_0() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "web.yaml", &service("shop", "web", 8080, ""));
    let mut dev = Dev::start(folder.path());
    assert_eq!(dev.terminate().code(), Some(0), "{}", dev.logs());
}

#[test]
fn a_taken_port_ends_it_with_1_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--admin", "--dns"] {
        let other = if flag == "--dns" { "--admin" } else { "--dns" };
        let mut child = command(&["dev", flag, &address, other, "127.0.0.1:0", "--address-range", "127.99.0.0/16"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let code = wait(&mut child).code();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(code, Some(1), "{flag}: {said}");
        assert!(
            said.contains(&taken.local_addr().unwrap().port().to_string()) && said.contains(flag),
            "{flag}: {said}"
        );
    }
}
