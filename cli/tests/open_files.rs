//! A process that may open few files, and callers that take what they get.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
};

use socket2::{Domain, Socket, Type};
use support::{
    Dev, PATIENCE, await_condition,
    backend::Backend,
    command,
    http::get,
    manifest::{save, service, slices},
};

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
            assert_eq!(get(dev.admin(), "admin", path).unwrap().status, 200, "{path}");
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
