//! `maesh get` from outside: what a `maesh dev` has, as tables and as data.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::collections::BTreeSet;

use crate::support::{
    Dev, await_condition,
    backend::Backend,
    command,
    http::get,
    manifest::{save, service, slices},
};
use serde_json::{Value, json};

/// Exit code, standard output, standard error.
fn run(dev: &Dev, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = command(&["get"]);
    let output = command.args(arguments).args(["--admin", &dev.admin().to_string()]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What it prints where it succeeds, and says nothing besides.
fn list(dev: &Dev, arguments: &[&str]) -> String {
    let (code, out, err) = run(dev, arguments);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}: {out}");
    out
}

/// The cells of each line.
fn cells(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect()
}

/// Services of two namespaces, with routes of both kinds and a mistake.
fn shop() -> (tempfile::TempDir, Backend, Dev) {
    let web = Backend::http("web");
    let folder = tempfile::tempdir().unwrap();
    let annotations =
        "maesh.containo.us/scheme: htp, maesh.containo.us/routes: 'PathPrefix(`/api`) => api 3, web.pay 1'";
    let unready = slices("pay", "web", &[web.address]).replace("ready: true", "ready: false");
    let objects = [
        service("shop", "web", 8080, annotations) + &slices("shop", "web", &[web.address]),
        service("shop", "api", 8080, "") + &slices("shop", "api", &[web.address]),
        service("pay", "web", 8080, "maesh.containo.us/bypass: 'true'") + &unready,
        service("pay", "db", 5432, "maesh.containo.us/traffic-type: tcp"),
        "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: canary, namespace: shop}\nspec: \
         {service: api, backends: [{service: web, weight: 1}]}\n"
            .to_owned(),
    ];
    for (number, text) in objects.iter().enumerate() {
        save(folder.path(), &format!("{number}.yaml"), text);
    }
    let dev = Dev::start(folder.path());
    (folder, web, dev)
}

#[test]
fn tables_are_like_those_of_kubectl() {
    let (_folder, _web, dev) = shop();
    let text = list(&dev, &["services"]);
    let rows = cells(&text);
    assert_eq!(rows[0], ["NAME", "ADDRESS", "PORTS", "ENDPOINTS", "BYPASS"]);
    let want = [
        ("db.pay.maesh", "5432/tcp", "0/0", "no"),
        ("web.pay.maesh", "8080/http", "0/1", "yes"),
        ("api.shop.maesh", "8080/http", "1/1", "no"),
        ("web.shop.maesh", "8080/http", "1/1", "no"),
    ];
    assert_eq!(rows.len(), want.len() + 1, "{text}");
    for (row, (name, ports, endpoints, bypass)) in rows[1..].iter().zip(want) {
        let address = dev.entry(name)["address"].as_str().unwrap_or("by node");
        assert_eq!(row, &[name, address, ports, endpoints, bypass], "{text}");
    }
    let ends: BTreeSet<_> = text.lines().map(|line| line.find("  ").unwrap()).collect();
    let starts: BTreeSet<_> = rows.iter().zip(text.lines()).map(|(row, line)| line.find(row[1]).unwrap()).collect();
    assert!(ends.len() > 1 && starts.len() == 1, "aligned: {text}");

    let text = list(&dev, &["routes"]);
    let want = [
        &["SERVICE", "PORT", "ORIGIN", "RULE", "BACKENDS"][..],
        &["shop/api", "8080/http", "TrafficSplit shop/canary", "any", "shop/web:8080"],
        &["shop/web", "8080/http", "annotation", "PathPrefix(`/api`)", "shop/api:8080 3, pay/web:8080 1"],
    ];
    assert_eq!(cells(&text), want, "{text}");

    let proxies = list(&dev, &["proxies", "--no-headers"]);
    let rows = cells(&proxies);
    assert_eq!((rows.len(), rows[0][1], rows[0][4]), (1, "local", "yes"), "{proxies}");
    assert_eq!(rows[0][6..], ["0", "0"], "{proxies}");

    let text = list(&dev, &["diagnostics"]);
    let rows = cells(&text);
    let field = "metadata.annotations[maesh.containo.us/scheme]";
    assert_eq!(rows[0], ["SEVERITY", "OBJECT", "FIELD", "VALUE", "USING", "MESSAGE"]);
    assert_eq!(rows[1][..5], ["warning", "Service shop/web", field, "htp", "http"], "{text}");
    assert_eq!(rows.len(), 2, "{text}");
    let wide = list(&dev, &["diag", "-o", "wide"]);
    assert!(wide.contains("InvalidAnnotation") && wide.contains("0.yaml:"), "{wide}");
}

#[test]
fn lists_are_narrowed_and_printed_in_other_forms() {
    let (_folder, _web, dev) = shop();
    let with_headers = list(&dev, &["services"]);
    let without = list(&dev, &["services", "-A", "--no-headers"]);
    assert_eq!(with_headers.lines().skip(1).count(), without.lines().count());
    assert!(!without.contains("ADDRESS"), "{without}");
    for (arguments, want) in [
        (&["services"][..], &["pay/db", "pay/web", "shop/api", "shop/web"][..]),
        (&["svc", "-n", "pay"], &["pay/db", "pay/web"]),
        (&["service", "web"], &["pay/web", "shop/web"]),
        (&["service", "web", "-n", "shop"], &["shop/web"]),
        (&["service", "shop/web"], &["shop/web"]),
        (&["service", "web.shop.maesh"], &["shop/web"]),
        (&["route"], &["shop/api", "shop/web"]),
        (&["routes", "api"], &["shop/api"]),
        (&["proxy"], &["maesh-dev"]),
        (&["proxy", "maesh-dev"], &["maesh-dev"]),
        (&["diag", "shop/web"], &["shop/web"]),
        (&["diagnostics", "-n", "shop"], &["shop/web"]),
    ] {
        let names = list(&dev, &[arguments, &["-o", "name"]].concat());
        assert_eq!(names.lines().collect::<Vec<_>>(), want, "{arguments:?}");
    }
}

#[test]
fn json_and_yaml_are_what_the_api_answers() {
    let (_folder, _web, dev) = shop();
    let api =
        |path: &str| -> Value { serde_json::from_str(&get(dev.admin(), "localhost", path).unwrap().body).unwrap() };
    let subscribers = api("/api/subscribers");
    let proxies: Vec<_> =
        subscribers["subscribers"].as_array().unwrap().iter().filter(|it| it["role"] == "proxy").collect();
    for (what, answer) in [
        ("services", api("/api/get/services")),
        ("routes", api("/api/get/routes")),
        ("proxies", json!({ "subscribers": proxies })),
        ("diagnostics", api("/api/diagnostics")),
    ] {
        assert!(answer.as_object().unwrap().values().all(|list| !list.as_array().unwrap().is_empty()), "{answer}");
        assert_eq!(serde_json::from_str::<Value>(&list(&dev, &[what, "-o", "json"])).unwrap(), answer, "{what}");
        assert_eq!(serde_saphyr::from_str::<Value>(&list(&dev, &[what, "-o", "yaml"])).unwrap(), answer, "{what}");
    }
    let of_one = serde_json::from_str::<Value>(&list(&dev, &["service", "shop/web", "-o", "json"])).unwrap();
    assert_eq!(of_one, api("/api/get/services?namespace=shop&name=web"));
    let (code, out, err) = run(&dev, &["services", "-n", "nowhere", "-o", "json"]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "{\"services\":[]}\n", ""));
}

#[test]
fn nothing_and_nobody_are_told_apart() {
    let (_folder, _web, dev) = shop();
    for (arguments, code, says) in [
        (&["services", "-n", "nowhere"][..], 0, "No Services found in namespace nowhere."),
        (&["routes", "-n", "pay"], 0, "No routes found in namespace pay."),
        (&["routes", "db"], 0, "No routes found of db."),
        (&["diagnostics", "-n", "pay"], 0, "No diagnostics found in namespace pay."),
        (&["diagnostics", "pay/db"], 0, "No diagnostics found of pay/db."),
        (&["services", "wbe"], 1, "no Service wbe is in the mesh"),
        (&["services", "web", "-n", "nowhere"], 1, "no Service web is in the mesh in namespace nowhere"),
        (&["routes", "wbe"], 1, "no Service wbe is in the mesh"),
        (&["proxies", "p"], 1, "no proxy p is connected"),
        (&["diagnostics", "wbe"], 1, "no object wbe has a diagnostic"),
        (&["proxies", "-n", "shop"], 2, "--mesh-namespace"),
        (&["pods"], 2, "services, routes, proxies, diagnostics"),
    ] {
        let (ended, out, err) = run(&dev, arguments);
        assert_eq!((ended, out.as_str()), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.contains(says), "{arguments:?}: {err}");
    }
    let output = command(&["get", "services", "--admin", "127.0.0.1:1"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("no `maesh dev` answers at 127.0.0.1:1"), "{text}");
}

/// More than one part of either list.
#[test]
fn a_long_list_comes_in_parts() {
    const SERVICES: usize = 620;
    const ROUTED: usize = 120;
    let folder = tempfile::tempdir().unwrap();
    let routes = "maesh.containo.us/routes: 'Path(`/x`) => s0'";
    let one = |number: usize| service("shop", &format!("s{number}"), 8080, if number < ROUTED { routes } else { "" });
    save(folder.path(), "all.yaml", &(0..SERVICES).map(one).collect::<Vec<_>>().join("---\n"));
    let dev = Dev::start(folder.path());
    let mut want: Vec<String> = (0..SERVICES).map(|number| format!("shop/s{number}")).collect();
    want.sort();
    let names = list(&dev, &["services", "-o", "name"]);
    assert_eq!(names.lines().collect::<Vec<_>>(), want);
    let mut want: Vec<String> = (0..ROUTED).map(|number| format!("shop/s{number}")).collect();
    want.sort();
    let names = list(&dev, &["routes", "-o", "name"]);
    assert_eq!(names.lines().collect::<Vec<_>>(), want);
    // The parts are such that none of them is the whole.
    for (path, most) in [("/api/get/services", 500), ("/api/get/routes", 100)] {
        let part = await_condition(path, || {
            let answer = get(dev.admin(), "localhost", path).unwrap();
            (answer.status == 200).then(|| serde_json::from_str::<Value>(&answer.body).unwrap())
        });
        let items = part.as_object().unwrap().values().find_map(Value::as_array).unwrap();
        assert_eq!((items.len(), part["next"].is_string()), (most, true), "{path}");
    }
}

#[test]
fn what_objects_say_commands_no_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = r#"maesh.containo.us/scheme: "\e[2J\e]0;title\a\u009b31m\u202e\r\nerror: forged""#;
    let routes = r#"maesh.containo.us/routes: "Path(`/\e[2J\u202eforged`) => web""#;
    save(folder.path(), "web.yaml", &service("shop", "web", 8080, &format!("{hostile}, {routes}")));
    let dev = Dev::start(folder.path());
    for what in ["diagnostics", "routes"] {
        for form in ["table", "wide", "json", "yaml", "name"] {
            let out = list(&dev, &[what, "-o", form]);
            let harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!out.contains(harmful), "{what} {form}: {out:?}");
            assert!(out.contains("forged") || form == "name", "{what} {form}: it is shown: {out}");
            assert!(!out.lines().any(|line| line.trim() == "error: forged"), "{what} {form}: {out}");
        }
    }
    let table = list(&dev, &["diagnostics"]);
    assert_eq!(table.lines().count(), 2, "{table}");
}
