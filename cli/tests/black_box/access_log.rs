//! The access log: what is written of requests and connections, and what costs nothing while it is off.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{fs, path::Path};

use serde_json::Value;

use crate::support::{
    Dev, await_condition,
    backend::Backend,
    echo, http,
    manifest::{save, service, slices},
    served_at,
};

/// A folder with an HTTP Service, one without endpoints, and a TCP Service.
fn services(web: &Backend, db: &Backend) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &slices("shop", "web", &[web.address])));
    let empty = service("shop", "empty", 8080, "").replace("10.96.0.77", "None");
    save(folder.path(), "empty.yaml", &empty);
    let tcp = service("shop", "db", 5432, "maesh.containo.us/traffic-type: tcp").replace("10.96.0.77", "None");
    save(folder.path(), "db.yaml", &(tcp + &slices("shop", "db", &[db.address])));
    folder
}

fn lines(log: &Path, count: usize) -> Vec<String> {
    await_condition("the lines are written", || {
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn a_line_says_who_asked_what_of_whom_and_how_it_went() {
    let (web, db) = (Backend::http("web"), Backend::echo());
    let folder = services(&web, &db);
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("access.log");
    let dev = Dev::start_with(folder.path(), &["--access-log", "json", "--access-log-file", log.to_str().unwrap()]);
    let at = served_at(dev.entry("web.shop.maesh"));
    let mut client = http::Client::connect(at).unwrap();
    let request = "POST /a?b=\u{e9} HTTP/1.1\r\nHost: web.shop.maesh\r\nUser-Agent: \u{1b}[31m\"x\\\r\nContent-Length: 5\r\n\r\nhello";
    let request = request.replace('\u{1b}', "").replace('\u{e9}', "%C3%A9");
    let answer = client.send(request.as_bytes()).unwrap();
    assert_eq!(answer.status, 200);
    let of = |count: usize| serde_json::from_str::<Value>(&lines(&log, count)[count - 1]).unwrap();
    let line = of(1);
    for (field, want) in [
        ("event", Value::from("access")),
        ("protocol", "HTTP/1.1".into()),
        ("caller", "127.0.0.1".into()),
        ("method", "POST".into()),
        ("host", "web.shop.maesh".into()),
        ("path", "/a?b=%C3%A9".into()),
        ("userAgent", "[31m\"x\\".into()),
        ("service", "shop/web".into()),
        ("port", 8080.into()),
        ("backend", "shop/web".into()),
        ("endpoint", web.address.to_string().into()),
        ("status", 200.into()),
        ("attempts", 1.into()),
        ("received", 5.into()),
        ("sent", answer.body.len().into()),
        ("reason", Value::Null),
    ] {
        assert_eq!(line[field], want, "{field}: {line}");
    }
    assert!(line["durationMs"].as_f64().is_some_and(|took| took > 0.0), "{line}");
    assert_eq!(http::get(at, "empty.shop.maesh", "/").unwrap().status, 503);
    let line = of(2);
    assert_eq!((&line["service"], &line["reason"]), (&"shop/empty".into(), &"no_endpoints".into()), "{line}");
    assert_eq!(http::get(at, "nobody.shop.maesh", "/").unwrap().status, 404);
    let line = of(3);
    assert_eq!((&line["service"], &line["reason"]), (&Value::Null, &"unknown_host".into()), "{line}");
    assert_eq!(echo(served_at(dev.entry("db.shop.maesh")), b"hello"), b"hello");
    let line = of(4);
    let db_at = Value::from(db.address.to_string());
    assert_eq!((&line["protocol"], &line["service"]), (&"TCP".into(), &"shop/db".into()), "{line}");
    assert_eq!(line["backend"], "shop/db", "{line}");
    assert_eq!((&line["received"], &line["sent"], &line["endpoint"]), (&5.into(), &5.into(), &db_at), "{line}");
    let metrics = http::get(dev.admin(), "localhost", "/metrics").unwrap().body;
    assert!(metrics.contains("maesh_proxy_access_log_lines_total{outcome=\"written\"} 4"), "{metrics}");
}

#[test]
fn the_common_form_is_sampled() {
    let (web, db) = (Backend::http("web"), Backend::echo());
    let folder = services(&web, &db);
    let place = tempfile::tempdir().unwrap();
    for (sample, few, many) in [("50%", 20, 180), ("0%", 0, 0)] {
        let log = place.path().join(sample);
        let file = log.to_str().unwrap();
        let flags = ["--access-log", "common", "--access-log-file", file, "--access-log-sample", sample];
        let mut dev = Dev::start_with(folder.path(), &flags);
        let mut client = http::Client::connect(served_at(dev.entry("web.shop.maesh"))).unwrap();
        for _ in 0..200 {
            assert_eq!(client.get("web.shop.maesh", "/").unwrap().status, 200);
        }
        // A process that ends writes what it has.
        drop(client);
        assert!(dev.terminate().success());
        let lines = lines(&log, 0);
        assert!((few..=many).contains(&lines.len()), "{sample}: {}", lines.len());
        for line in lines {
            let (begin, end) = ("127.0.0.1 - - [", &format!("\"shop/web:8080\" \"{}\" ", web.address));
            assert!(line.starts_with(begin) && line.contains("] \"GET / HTTP/1.1\" 200 "), "{line}");
            assert!(line.contains(&**end) && line.ends_with("ms -"), "{line}");
        }
    }
}

#[test]
fn without_the_flag_nothing_is_written() {
    let (web, db) = (Backend::http("web"), Backend::echo());
    let folder = services(&web, &db);
    let mut dev = Dev::start(folder.path());
    assert_eq!(http::get(served_at(dev.entry("web.shop.maesh")), "web.shop.maesh", "/").unwrap().status, 200);
    let metrics = http::get(dev.admin(), "localhost", "/metrics").unwrap().body;
    assert!(metrics.contains("maesh_proxy_access_log_lines_total{outcome=\"written\"} 0"), "{metrics}");
    assert!(dev.terminate().success());
    assert!(!dev.remaining().iter().any(|event| event["event"] == "access"));
}

/// On standard output a line is one more event beside those of `--output json`.
#[test]
fn standard_output_has_the_lines_too() {
    let (web, db) = (Backend::http("web"), Backend::echo());
    let folder = services(&web, &db);
    let mut dev = Dev::start_with(folder.path(), &["--access-log", "json"]);
    assert_eq!(http::get(served_at(dev.entry("web.shop.maesh")), "web.shop.maesh", "/x").unwrap().status, 200);
    let line = dev.await_event("access", |event| event["event"] == "access");
    assert_eq!((&line["path"], &line["status"]), (&"/x".into(), &200.into()), "{line}");
}
