//! Bad input: each case is a clear error with its place and the next step, and everything else is still served.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::path::Path;

use crate::support::{
    Dev,
    backend::Backend,
    manifest::{self, folder_with_web, save, service},
    resolver::ask,
};
use hickory_proto::rr::RecordType;
use serde_json::Value;

/// The first diagnostic that names this file or object, among those before `ready`.
fn early(dev: &Dev, holds: impl Fn(&Value) -> bool) -> &Value {
    dev.early.iter().find(|event| holds(event)).unwrap_or_else(|| panic!("not among {:#?}", dev.early))
}

fn names(event: &Value, file: &str) -> bool {
    event["file"].as_str().is_some_and(|path| Path::new(path).file_name().is_some_and(|name| name == file))
}

#[test]
fn malformed_yaml_is_reported_with_file_and_line() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    save(folder.path(), "bad.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: x, namespace: [\n");
    let dev = Dev::start(folder.path());
    let event = early(&dev, |event| names(event, "bad.yaml"));
    assert_eq!(event["event"], "error", "{event}");
    assert!(event["line"].as_u64().is_some_and(|line| (1..=4).contains(&line)), "{event}");
    assert!(event["message"].as_str().is_some_and(|message| message.len() > 20), "{event}");
    dev.assert_web_serves();
}

#[test]
fn an_emptied_file_keeps_its_last_good_objects() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    let mut dev = Dev::start(folder.path());
    std::fs::write(folder.path().join("a-web.yaml"), "").unwrap();
    let event = dev.await_event("about the emptied file", |event| names(event, "a-web.yaml"));
    assert_eq!(event["event"], "error", "{event}");
    assert!(event["using"].as_str().is_some_and(|using| !using.is_empty()), "{event}");
    dev.assert_web_serves();
}

#[test]
fn impossible_ports_are_reported_and_the_others_serve() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    save(
        folder.path(),
        "ports.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: odd, namespace: shop}\nspec:\n  ports:\n  - {name: a, port: 0}\n  \
         - {name: b, port: 70000}\n  - {name: c, port: 8081}\n",
    );
    let dev = Dev::start(folder.path());
    for value in ["0", "70000"] {
        let event = early(&dev, |event| event["object"]["name"] == "odd" && event["value"] == value);
        assert!(event["field"].as_str().is_some_and(|field| field.starts_with("spec.ports")), "{event}");
    }
    let ports = dev.entry("odd.shop.maesh")["ports"].as_array().unwrap();
    assert_eq!(ports.iter().map(|port| port["port"].as_u64()).collect::<Vec<_>>(), [Some(8081)]);
    dev.assert_web_serves();
}

#[test]
fn an_unknown_annotation_value_is_a_warning_and_the_default_is_used() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    save(folder.path(), "odd.yaml", &service("shop", "odd", 8082, "maesh.containo.us/traffic-type: pigeon"));
    let dev = Dev::start(folder.path());
    let event = early(&dev, |event| event["object"]["name"] == "odd");
    assert_eq!(event["event"], "warning", "{event}");
    assert_eq!(event["object"]["kind"], "Service", "{event}");
    assert_eq!(event["object"]["namespace"], "shop", "{event}");
    assert_eq!(event["field"], "metadata.annotations[maesh.containo.us/traffic-type]", "{event}");
    assert_eq!(event["value"], "pigeon", "{event}");
    assert_eq!(event["using"], "http", "{event}");
    assert!(event["reason"].is_string() && names(event, "odd.yaml") && event["line"].is_u64(), "{event}");
    assert_eq!(dev.entry("odd.shop.maesh")["ports"][0]["protocol"], "http");
    dev.assert_web_serves();
}

#[test]
fn a_name_in_two_files_is_an_error_that_names_both() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    save(folder.path(), "b-web.yaml", &service("shop", "web", 9999, ""));
    let dev = Dev::start(folder.path());
    let event = early(&dev, |event| names(event, "b-web.yaml"));
    assert_eq!(event["event"], "error", "{event}");
    assert!(event["message"].as_str().is_some_and(|message| message.contains("a-web.yaml")), "{event}");
    assert_eq!(dev.entry("web.shop.maesh")["ports"][0]["port"], 8080, "the first file stays");
    dev.assert_web_serves();
}

#[test]
fn a_path_of_300_characters_is_read_like_any_other() {
    let web = Backend::http("web");
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(150)).join("e".repeat(150));
    std::fs::create_dir_all(&deep).unwrap();
    save(&deep, "web.yaml", &manifest::web(&web));
    save(&deep, "bad.yaml", "kind: [");
    let dev = Dev::start(folder.path());
    assert_eq!(early(&dev, |event| names(event, "bad.yaml"))["event"], "error");
    dev.assert_web_serves();
}

#[test]
fn a_path_that_does_not_exist_ends_it_with_1_and_says_so() {
    let long = format!("/nowhere/{}", "x".repeat(290));
    for path in ["/nowhere/at-all", long.as_str()] {
        let output =
            crate::support::command(&["dev", path, "--dns", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(path), "{said}");
    }
}

#[test]
fn another_kind_is_named_once_and_skipped() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: shop}\n";
    save(folder.path(), "deployments.yaml", &format!("{deployment}---\n{deployment}"));
    let dev = Dev::start(folder.path());
    let about: Vec<_> = dev.early.iter().filter(|event| event.to_string().contains("Deployment")).collect();
    assert_eq!(about.len(), 1, "{about:#?}");
    assert_eq!(about[0]["event"], "warning");
    dev.assert_web_serves();
}

#[test]
fn a_bad_address_range_is_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    for range in ["127.0.0.0/25", "nonsense"] {
        let output = crate::support::command(&["dev", "--address-range", range]).arg(folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{said}");
        assert!(said.contains(range), "{said}");
    }
}

/// What a person reads, line by line.
#[test]
fn people_read_each_place_once_and_in_the_order_of_the_files() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "a.yaml", "kind: [");
    let nameless = "apiVersion: v1\nkind: Service\nmetadata: {namespace: shop}\n---\n";
    save(
        folder.path(),
        "b.yaml",
        &(nameless.to_owned() + &service("shop", "odd", 8082, "maesh.containo.us/scheme: htp")),
    );
    let mut command = crate::support::command(&["dev", "--dns", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.args(["--address-range", "127.66.0.0/16"]).arg(folder.path()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let said: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.starts_with("ready")).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let found: Vec<_> = said.iter().filter_map(|line| line.split_once("/").map(|(_, rest)| rest)).collect();
    let at =
        |name: &str| found.iter().position(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {said:#?}"));
    assert!(at("a.yaml:1: line 1 is not valid YAML") < at("b.yaml:3: Service without a name in shop: "), "{said:#?}");
    assert!(at("b.yaml:3: ") < at("is \"htp\""), "{said:#?}");
}

#[test]
fn a_taken_port_is_said_once_with_its_number_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "web.yaml", &service("shop", "web", 8083, ""));
    save(folder.path(), "db.yaml", &service("shop", "db", 8084, "maesh.containo.us/traffic-type: tcp"));
    let taken = std::net::TcpListener::bind("127.67.0.1:8083").unwrap();
    let run = |range: &str| {
        let mut command = crate::support::command(&["dev", "--dns", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let output =
            command.args(["--log-level", "error", "--address-range", range]).arg(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, said) = run("127.67.0.0/16");
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(said.matches("127.67.0.1:8083").count(), 1, "{said}");
    assert!(said.contains("Another process has this port") && said.contains("--address-range"), "{said}");
    assert!(!said.contains("proxy proxy"), "{said}");
    drop(taken);
    let (code, said) = run("192.0.2.0/24");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("192.0.2.1 is no address of this machine"), "{said}");
}

#[test]
fn wrong_flags_are_refused_with_an_example() {
    let long = "a.".repeat(150);
    for (arguments, says) in [
        (&["dev", ".", "--dns", "nonsense"][..], "127.0.0.1:5354"),
        (&["dev", ".", "--admin", "5380"], "ADDRESS:PORT"),
        (&["dev", ".", "--drain-timeout", "5"], "1m30s"),
        (&["dev", ".", "--zone", "cluster.local"], "belongs to the cluster"),
        (&["dev", ".", "--default-mode", "htp"], "http"),
        (&["dev", ".", "--adress-range", "127.77.0.0/16"], "--address-range"),
        (&["devv"], "'dev'"),
        (&["explain", "web.shop.maesh", "--admin", "x"], "ADDRESS:PORT"),
        (&["dev", ".", "--admin", "http://127.0.0.1:5380"], "write it without scheme and path: 127.0.0.1:5380"),
        (&["dev", ".", "--dns", "localhost:5354"], "write an address instead of a name: 127.0.0.1:5354"),
        (&["dev", ".", "--address-range", "127.77.0.0"], "write 127.77.0.0/16"),
        (&["dev", ".", "--deny-endpoint-cidr", "10.0.0.0"], "write 10.0.0.0/8"),
        (&["controller", "--address-range", "10.77.0.0"], "write 10.77.0.0/16"),
        (&["dev", ".", "--log-level", "loud=very"], "maesh_proxy=debug"),
        (&["dev", ".", "--watch-namespace", "A B"], "see kubectl get namespaces"),
        (&["explain", "//"], "web.shop.maesh"),
        (&["explain", ""], "web.shop.maesh"),
        (&["explain", "web.shop.maesh", "--from", ""], "shop/client-5c9d"),
        (&["explain", "ftp://web.shop.maesh"], "does not carry ftp"),
        (&["explain", &long], "300 characters"),
        (&["explain", "get", "http://web.shop.maesh"], "'get' for '[METHOD]': methods are written in capitals: GET"),
        (&["explain", "api.shop", "web.shop"], "'api.shop' for '[METHOD]': it is no method; write one such as POST"),
        (&["explain", "http://web.shop.maesh/a b"], "encode what is no letter or digit"),
        (&["explain", "http://web.shop.maesh", "-H", "beta"], "'beta' for '--header <FIELD>': \"beta\" has no colon"),
        (&["explain", "http://web.shop.maesh", "-H", "a b: c"], "\"a b\" cannot be the name of a field"),
        (&["explain", "tls://db.shop", "--server-name", "10.0.0.1"], "such as db.example"),
        (&["explain", "POST", "https://web.shop.maesh"], "METHOD is POST, and the URL is of https://"),
        (&["explain", "web.shop.maesh", "--server-name", "a.b"], "--server-name is a.b, which only TLS says"),
        (&["explain", "web\u{1b}[2J.shop"], "cannot be part of a name"),
        (&["\u{1b}[2J"], "unrecognized subcommand"),
    ] {
        let output = crate::support::command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
        assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{arguments:?}: {said:?}");
    }
}

#[test]
fn a_bad_value_of_the_environment_names_its_variable() {
    for (arguments, variable, value, says) in [
        (&["dev", "."][..], "MAESH_BYPASS", "maybe", "--bypass"),
        (&["dev", "."], "MAESH_ZONES", "cluster.local", "--zone"),
        (&["dev", "."], "MAESH_DENY_ENDPOINT_CIDRS", "10.0.0.0", "write 10.0.0.0/8"),
        (&["controller"], "MAESH_HORIZON", "45", "--horizon"),
        (&["explain", "web.shop.maesh", "--admin", "127.0.0.1:1"], "MAESH_KUBECONFIG", "/nowhere", "--kubeconfig"),
    ] {
        let output = crate::support::command(arguments).env(variable, value).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{variable}: {said}");
        assert!(
            said.contains(says) && said.contains(&format!("environment variable {variable}")),
            "{variable}: {said}"
        );
    }
    let written =
        crate::support::command(&["dev", ".", "--bypass=maybe"]).env("MAESH_BYPASS", "true").output().unwrap();
    let said = String::from_utf8_lossy(&written.stderr).into_owned();
    assert!(!said.contains("MAESH_BYPASS"), "it was written on the command line: {said}");
}

/// A namespace that is mistyped.
#[test]
fn a_namespace_to_watch_that_does_not_exist_is_said_once() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    let dev = Dev::start_with(folder.path(), &["--watch-namespace", "shop", "--watch-namespace", "shpo"]);
    dev.assert_web_serves();
    crate::support::await_condition("it is said", || dev.logs().contains("\"shpo\"").then_some(()));
    let logs = dev.logs();
    let said: Vec<_> = logs.lines().filter(|line| line.contains("--watch-namespace")).collect();
    assert!(said.len() == 1 && said[0].contains("nothing is meshed for it; correct the name"), "{said:#?}");
}

/// The addresses that a name answers.
fn answered(dev: &Dev, name: &str) -> Vec<String> {
    let from = "127.0.0.1".parse().unwrap();
    let answer = ask(from, dev.dns(), name, RecordType::A, crate::support::PATIENCE).unwrap();
    answer.addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn services_that_cannot_be_carried_leave_the_rest_served() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    let service = |name: &str, ip: &str, ports: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: ops}}\n\
             spec: {{clusterIP: {ip}, ports: [{ports}]}}\n"
        )
    };
    save(folder.path(), "sctp.yaml", &service("pgw", "10.96.7.1", "{name: s5, port: 3868, protocol: SCTP}"));
    save(folder.path(), "quoted.yaml", &service("quoted", "10.96.7.3", "{name: http, port: '80 80'}"));
    let mut dev = Dev::start(folder.path());
    dev.assert_web_serves();
    for (name, file, reason, plain) in [
        ("pgw.ops.maesh", "sctp.yaml", "UnsupportedProtocol", "10.96.7.1"),
        ("quoted.ops.maesh", "quoted.yaml", "InvalidPort", "10.96.7.3"),
    ] {
        let warning = early(&dev, |event| names(event, file));
        assert_eq!((&warning["event"], &warning["reason"]), (&"warning".into(), &reason.into()), "{warning}");
        assert_eq!(answered(&dev, name), [plain], "{name}");
        assert_eq!(dev.entry(name)["address"], plain, "{name}");
    }
    save(folder.path(), "late.yaml", &service("late", "10.96.7.4", "{name: s5, port: 3868, protocol: SCTP}"));
    dev.await_changed("late.ops.maesh");
}

#[test]
fn a_misspelt_kind_is_named() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    save(folder.path(), "slip.yaml", "apiVersion: v1\nkind: Servce\nmetadata: {name: x}\n");
    save(folder.path(), "other.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: x}\n");
    let dev = Dev::start(folder.path());
    let message = |file: &str| early(&dev, |event| names(event, file))["message"].as_str().unwrap().to_owned();
    assert!(message("slip.yaml").ends_with("Did you mean Service?"), "{}", message("slip.yaml"));
    assert!(!message("other.yaml").contains("Did you mean"), "{}", message("other.yaml"));
}

#[test]
fn links_that_lead_nowhere_or_back() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
    link("gone.yaml", "dangling.yaml");
    link(".", "a-loop");
    link("z-bad.yaml", "a-link.yaml");
    save(folder.path(), "z-bad.yaml", "kind: [\n");
    let dev = Dev::start(folder.path());
    dev.assert_web_serves();
    let dangling = early(&dev, |event| names(event, "dangling.yaml"));
    assert!(dangling["message"].as_str().unwrap().contains("a link to something that does not exist"), "{dangling}");
    let bad = early(&dev, |event| event["reason"] == "UnparsableFile");
    let path = folder.path().join("z-bad.yaml");
    assert_eq!(bad["file"], path.to_str().unwrap(), "called by its own name");
}

#[test]
fn a_link_to_a_folder_elsewhere_is_named_and_not_followed() {
    let web = Backend::http("web");
    let (folder, elsewhere) = (folder_with_web(&web), tempfile::tempdir().unwrap());
    save(elsewhere.path(), "other.yaml", &service("shop", "other", 8085, ""));
    let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
    link(Path::new("/"), "disk");
    link(elsewhere.path(), "shared");
    link(&elsewhere.path().join("other.yaml"), "one-file.yaml");
    let dev = Dev::start(folder.path());
    dev.assert_web_serves();
    for (name, to) in [("disk", Path::new("/")), ("shared", elsewhere.path())] {
        let warning = early(&dev, |event| names(event, name));
        let message = warning["message"].as_str().unwrap();
        assert_eq!((&warning["event"], &warning["using"]), (&"warning".into(), &"nothing".into()), "{warning}");
        assert!(message.contains(&format!("a link to the folder {}", to.display())), "{message}");
        assert!(message.contains("give that folder as a further path"), "{message}");
    }
    assert_eq!(dev.early.len(), 2, "nothing else was read: {:#?}", dev.early);
    dev.entry("other.shop.maesh");
    // As the message says.
    std::fs::remove_file(folder.path().join("one-file.yaml")).unwrap();
    let dev = Dev::start_with(folder.path(), &[elsewhere.path().to_str().unwrap()]);
    dev.entry("other.shop.maesh");
}

#[test]
fn folders_beyond_the_bound_are_left_out_and_that_is_said() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    for number in 0..10_010 {
        std::fs::create_dir(folder.path().join(format!("d{number}"))).unwrap();
    }
    save(&folder.path().join("d0"), "first.yaml", &service("shop", "first", 8085, ""));
    save(&folder.path().join("d9999"), "last.yaml", &service("shop", "last", 8086, ""));
    let dev = Dev::start(folder.path());
    dev.assert_web_serves();
    dev.entry("first.shop.maesh");
    let found: Vec<_> = dev.early.iter().filter(|event| event.to_string().contains("10000 folders")).collect();
    assert_eq!(found.len(), 1, "{:#?}", dev.early);
    let services = dev.ready["services"].as_array().unwrap();
    assert!(services.iter().all(|entry| entry["name"] != "last.shop.maesh"), "{services:?}");
}

#[test]
fn a_file_that_is_too_large_is_named_with_what_to_do() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    let large = std::fs::File::create(folder.path().join("large.yaml")).unwrap();
    large.set_len((64 << 20) + 1).unwrap();
    let dev = Dev::start(folder.path());
    let message = early(&dev, |event| names(event, "large.yaml"))["message"].as_str().unwrap();
    assert!(message.contains("is larger than 64 MiB") && message.contains("Split it"), "{message}");
    assert!(!message.contains("permissions"), "{message}");
    dev.assert_web_serves();
}

#[test]
fn manifests_come_from_standard_input() {
    let web = Backend::http("web");
    let text = manifest::web(&web);
    let dev = Dev::start_on_input(&text);
    dev.assert_web_serves();
    let bad = Dev::start_on_input("kind: [\n");
    let event = early(&bad, |event| event["event"] == "error");
    assert_eq!(event["file"], "standard input", "{event}");
}

/// An address that cannot be listened on: with `--fail-to-plain false` nobody is sent around the mesh instead.
#[test]
fn nothing_goes_around_the_mesh_where_that_is_off() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    let db = service("shop", "db", 5432, "maesh.containo.us/traffic-type: tcp");
    for (allowed, want) in [("true", &["10.96.0.77"][..]), ("false", &[])] {
        let mut dev = Dev::start_with(folder.path(), &["--fail-to-plain", allowed]);
        save(folder.path(), "db.yaml", &db);
        let own = crate::support::served_at(&dev.await_changed("db.shop.maesh")["services"][0]);
        std::fs::remove_file(folder.path().join("db.yaml")).unwrap();
        dev.await_event("the Service is gone", |event| event["removed"] == serde_json::json!(["db.shop.maesh"]));
        let taken = crate::support::await_condition("its port is free", || std::net::TcpListener::bind(own).ok());
        save(folder.path(), "db.yaml", &db);
        dev.await_event("its port is taken", |event| event["reason"] == "ListenFailed");
        // The event comes with the configuration, which is not yet in force.
        crate::support::await_condition(&format!("--fail-to-plain {allowed}: {want:?}"), || {
            (answered(&dev, "db.shop.maesh") == want).then_some(())
        });
        drop(taken);
        std::fs::remove_file(folder.path().join("db.yaml")).unwrap();
    }
}
