//! The admin endpoint from outside, and how a process ends.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    io::{Read as _, Write as _},
    net::IpAddr,
    os::unix::process::CommandExt as _,
    process::Stdio,
};

use crate::support::{
    Dev,
    backend::Backend,
    command,
    http::{Client, get},
    local::{Part, Roles},
    manifest::{save, service, slices},
};
use maesh_test_support::{Namespace, need_root};
use maesh_testkube::Process;
use serde_json::Value;

#[test]
fn a_body_that_does_not_come_is_another_error_than_one_that_is_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path());
    for (case, length, body, want) in
        [("too long", 5000, "x".repeat(5000), " 413 "), ("slow", 5, "inf".to_owned(), " 408 ")]
    {
        let request =
            format!("PUT /api/log-level HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        let mut stream = std::net::TcpStream::connect(dev.admin()).unwrap();
        stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = [0; 64];
        let read = stream.read(&mut head).unwrap();
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        assert!(head.contains(want), "{case}: {head}");
    }
}

fn dev_with_web(web: &Backend) -> (tempfile::TempDir, Dev) {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &slices("shop", "web", &[web.address])));
    let dev = Dev::start(folder.path());
    (folder, dev)
}

#[test]
fn health_metrics_and_status() {
    let web = Backend::http("web");
    let (_folder, dev) = dev_with_web(&web);
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(dev.admin(), "localhost", path).unwrap().status, 200, "{path}");
    }
    for _ in 0..3 {
        assert_eq!(get(dev.served_at("web.shop.maesh"), "web.shop.maesh", "/").unwrap().status, 200);
    }
    assert_eq!(get(dev.served_at("web.shop.maesh"), "x.y.maesh", "/").unwrap().status, 404);
    let metrics = get(dev.admin(), "localhost", "/metrics").unwrap();
    let requests = |label: &str| {
        let counts =
            metrics.body.lines().filter(|line| line.starts_with("maesh_http_requests_total{") && line.contains(label));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    assert_eq!(requests("service=\"web\""), 3.0, "{}", metrics.body);
    assert!(metrics.body.contains("unknown_host"), "{}", metrics.body);
    let index: Value = serde_json::from_str(&get(dev.admin(), "localhost", "/api").unwrap().body).unwrap();
    for path in index["paths"].as_array().unwrap() {
        let answer = get(dev.admin(), "localhost", path.as_str().unwrap()).unwrap();
        assert_eq!(answer.status, 200, "{path}");
        serde_json::from_str::<Value>(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.body));
    }
    let services = get(dev.admin(), "localhost", "/api/services").unwrap();
    assert!(services.body.contains("web.shop.maesh"), "{}", services.body);
    let page = get(dev.admin(), "localhost", "/").unwrap();
    assert_eq!(page.status, 200);
    for part in ["<td>web.shop.maesh</td>", "href=\"/metrics\"", "href=\"/api/services\""] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    assert_eq!(get(dev.admin(), "localhost", "/nothing").unwrap().status, 404);
}

#[test]
fn the_log_level_changes_at_run_time() {
    let web = Backend::http("web");
    let (_folder, dev) = dev_with_web(&web);
    let put = |body: &str| {
        let request =
            format!("PUT /api/log-level HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Client::connect(dev.admin()).unwrap().send(request.as_bytes()).unwrap()
    };
    assert_eq!(put("debug").status, 200);
    assert_eq!(get(dev.admin(), "localhost", "/api/log-level").unwrap().body.trim(), r#"{"level":"debug"}"#);
    let of_a_page =
        "PUT /api/log-level HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a\r\nContent-Length: 4\r\n\r\ninfo";
    assert_eq!(Client::connect(dev.admin()).unwrap().send(of_a_page.as_bytes()).unwrap().status, 403);
    assert_eq!(get(dev.admin(), "localhost", "/api/log-level").unwrap().body.trim(), r#"{"level":"debug"}"#);
    let refused = put("loud=very");
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.body.contains("loud=very"), "{refused:?}");
}

/// A page in a browser that gives its own name the address of this machine (DNS rebinding).
#[test]
fn no_page_reads_the_admin_port_under_a_name_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path());
    let port = dev.admin().port();
    for path in ["/", "/api", "/api/services", "/api/log-level", "/api/explain/dns?name=web", "/metrics", "/nothing"] {
        for host in ["evil.example".to_owned(), format!("evil.example:{port}"), "127.0.0.1.evil.example".to_owned()] {
            let refused = get(dev.admin(), &host, path).unwrap();
            assert_eq!(refused.status, 403, "{path} for {host}");
            assert!(refused.body.contains(&host) && refused.body.contains("localhost"), "{path}: {}", refused.body);
        }
        for host in ["localhost".to_owned(), format!("localhost:{port}"), dev.admin().to_string(), "[::1]:1".to_owned()]
        {
            assert_ne!(get(dev.admin(), &host, path).unwrap().status, 403, "{path} for {host}");
        }
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(dev.admin(), "evil.example", path).unwrap().status, 200, "{path}: a probe");
    }
    let put = "PUT /api/log-level HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 5\r\n\r\ndebug";
    assert_eq!(Client::connect(dev.admin()).unwrap().send(put.as_bytes()).unwrap().status, 403);

    // A role: Prometheus asks by a Service's name, a developer through a port-forward, which comes from loopback.
    let roles = Roles::start(folder.path());
    for (path, host, want) in [
        ("/metrics", "maesh-controller.maesh.svc:5381", 200),
        ("/readyz", "maesh-controller.maesh.svc:5381", 200),
        ("/api/status", "localhost:5381", 200),
        ("/api/status", "evil.example", 403),
        ("/", "evil.example", 403),
    ] {
        assert_eq!(get(roles.admin(Part::Controller), host, path).unwrap().status, want, "{path} for {host}");
    }
}

/// A pod can connect to every admin port. What is served is the same in the three roles and in `maesh dev`.
#[test]
fn other_addresses_read_only_probes_and_metrics() {
    if !need_root() {
        return;
    }
    let namespace = Namespace::new().unwrap();
    let folder = namespace.folder().join("manifests");
    std::fs::create_dir(&folder).unwrap();
    let folder = folder.display().to_string();
    let stream = ["--controller", "10.89.3.1:5390", "--insecure"];
    let roles = [
        (5380, &["dev", &folder, "--dns", "127.0.0.1:0"][..]),
        (5381, &["controller", "--manifests", &folder, "--listen", "10.89.3.1:5390", "--insecure"]),
        (5382, &[&["dns", "--id", "dns", "--listen", "10.89.2.1:53"][..], &stream].concat()),
        (5383, &[&["proxy", "--id", "proxy", "--address", "10.89.1.1"][..], &stream].concat()),
    ];
    let started = roles.map(|(port, arguments)| {
        let mut command = namespace.command(env!("CARGO_BIN_EXE_maesh"));
        // IPv4 addresses of callers arrive as IPv6 ones.
        command.args(arguments).args(["--admin", &format!("[::]:{port}"), "--api-from", "10.89.7.0/24"]);
        Process::start(command, &namespace.folder().join(format!("{}.log", arguments[0]))).unwrap()
    });
    for ((port, arguments), process) in roles.iter().zip(&started) {
        let role = arguments[0];
        let ask = |from: &str, request: &str| {
            let from: IpAddr = from.parse().unwrap();
            let to: IpAddr = if from.is_loopback() { from } else { "10.89.3.1".parse().unwrap() };
            let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\ninfo");
            let answer = Client::connect_from(from, (to, *port).into()).and_then(|mut it| it.send(request.as_bytes()));
            answer.map(|answer| (answer.status, answer.body))
        };
        let check = || {
            crate::support::await_condition(&format!("{role} is ready: {}", process.last_words()), || {
                ask("10.89.8.1", "GET /readyz").is_ok_and(|(status, _)| status == 200).then_some(())
            });
            for (from, request, want, says) in [
                ("10.89.8.1", "GET /livez", 200, "ok"),
                ("10.89.8.1", "GET /metrics", 200, "maesh_build_info"),
                ("10.89.8.1", "GET /", 403, "10.89.8.1"),
                ("10.89.8.1", "GET /api", 403, "kubectl port-forward"),
                ("10.89.8.1", "GET /api/status", 403, "--api-from"),
                ("10.89.8.1", "GET /nothing", 403, "--api-from"),
                ("10.89.8.1", "PUT /api/log-level", 403, "--api-from"),
                ("10.89.7.1", "GET /", 200, "<h1>maesh"),
                ("10.89.7.1", "GET /api/status", 200, "\"version\""),
                ("10.89.7.1", "PUT /api/log-level", 403, "from a loopback address only"),
                ("127.0.0.1", "GET /api/status", 200, "\"version\""),
                ("127.0.0.1", "PUT /api/log-level", 200, "info"),
            ] {
                let (status, body) = ask(from, request).unwrap();
                assert!(status == want && body.contains(says), "{role}: {request} from {from}: {status} {body}");
            }
        };
        namespace.run(check).unwrap();
    }
}

#[test]
fn requests_in_flight_finish_and_a_second_signal_ends_at_once() {
    // HUP: a terminal that was closed, or somebody who meant to have files read again.
    for signal in ["TERM", "HUP"] {
        let slow = Backend::http_slow("slow");
        let (_folder, mut dev) = dev_with_web(&slow);
        let mut client = Client::connect(dev.served_at("web.shop.maesh")).unwrap();
        let in_flight = std::thread::spawn(move || client.get("web.shop.maesh", "/"));
        crate::support::await_condition("the request is at the backend", || (slow.arrived() > 0).then_some(()));
        dev.signal(signal);
        crate::support::await_condition("it drains", || {
            get(dev.admin(), "localhost", "/readyz").ok().is_none_or(|answer| answer.status == 503).then_some(())
        });
        slow.release();
        let answer = in_flight.join().unwrap().unwrap();
        assert_eq!((answer.status, answer.by()), (200, "slow"), "{signal}: {answer:?}");
        assert_eq!(dev.wait().code(), Some(0), "{signal}");
    }

    let slow = Backend::http_slow("slow");
    let (_folder, mut dev) = dev_with_web(&slow);
    let mut client = Client::connect(dev.served_at("web.shop.maesh")).unwrap();
    let in_flight = std::thread::spawn(move || client.get("web.shop.maesh", "/"));
    crate::support::await_condition("the request is at the backend", || (slow.arrived() > 0).then_some(()));
    dev.signal("INT");
    crate::support::await_condition("it drains", || {
        get(dev.admin(), "localhost", "/readyz").ok().is_none_or(|answer| answer.status == 503).then_some(())
    });
    dev.signal("INT");
    assert_eq!(dev.wait().code(), Some(130));
    slow.release();
    assert!(in_flight.join().unwrap().is_err());
}

/// A user who is not root: port 80 is refused by the system, so 8080 is served instead.
#[test]
fn a_port_that_the_system_refuses_is_served_8000_higher() {
    if !rustix_is_root() || port_80_is_free_for_all() {
        return maesh_test_support::skip(
            "needs root to become another user, and ports below 1024 refused to that user",
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("maesh");
    std::fs::copy(env!("CARGO_BIN_EXE_maesh"), &binary).unwrap();
    let manifests = folder.path().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    save(&manifests, "web.yaml", &(service("shop", "web", 80, "") + "---\n" + &service("shop", "web2", 8080, "")));
    allow_others(folder.path());
    let mut child = std::process::Command::new(&binary)
        .args([
            "dev",
            "--output",
            "json",
            "--dns",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--address-range",
            "127.98.0.0/16",
        ])
        .arg(&manifests)
        .uid(65534)
        .gid(65534)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stdout = child.stdout.take().unwrap();
    while !said.contains("\"ready\"") || !said.ends_with('\n') {
        let mut buffer = [0; 4096];
        match stdout.read(&mut buffer) {
            Ok(length @ 1..) => said.push_str(&String::from_utf8_lossy(&buffer[..length])),
            _ => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    let ready: Value = said
        .lines()
        .find(|line| line.contains("\"ready\""))
        .map(|line| serde_json::from_str(line).unwrap())
        .expect("ready");
    let ports: Vec<_> =
        ready["services"].as_array().unwrap().iter().map(|entry| entry["ports"][0]["listen"].as_u64()).collect();
    assert_eq!(ports, [Some(8080), Some(8080)], "one shared listener serves both: {ready}");
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn port_80_is_free_for_all() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .is_ok_and(|first| first.trim().parse::<u16>().is_ok_and(|first| first <= 80))
}

fn allow_others(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn version_and_completion_and_help() {
    for (arguments, says) in [
        (&["version"][..], "maesh 0."),
        (&["version", "-o", "json"], "\"version\":"),
        (&["completion", "bash"], "_maesh"),
        (&["--help"], "maesh demo"),
        (&["dev", "--help"], "--address-range"),
    ] {
        let output = command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(says), "{arguments:?}");
    }
    assert_eq!(command(&["dev"]).output().unwrap().status.code(), Some(2), "usage");
}
