//! Bad values in objects: each is named with its object, path and value, and with what happens instead. One of them never
//! takes the rest of its object down, and never another object.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::path::Path;

use crate::support::{
    Dev,
    backend::Backend,
    http::get,
    manifest::{folder_with_web, save, service, slices, web},
    resolver::ask,
};
use hickory_proto::rr::RecordType;
use serde_json::Value;

/// Diagnostics before `ready` of the objects in this file.
fn about<'a>(dev: &'a Dev, file: &str) -> Vec<&'a Value> {
    let is_of = |event: &&Value| event["file"].as_str().is_some_and(|path| Path::new(path).ends_with(file));
    dev.early.iter().filter(is_of).collect()
}

fn an(kind: &str, version: &str, rest: &str) -> String {
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: odd, namespace: shop}}\n{rest}\n")
}

#[test]
fn every_bad_value_is_named_with_its_path() {
    let backend = Backend::http("web");
    let folder = folder_with_web(&backend);
    let slice = |rest: &str| {
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: SLICE, namespace: shop, labels: \
         {kubernetes.io/service-name: web}}\n"
            .to_owned()
            + rest
    };
    let odd_service = |spec: &str| an("Service", "v1", &format!("spec: {{{spec}, ports: [{{port: 81}}]}}"));
    let port = |port: &str| an("Service", "v1", &format!("spec: {{ports: [{{port: 80}}, {{name: odd, {port}}}]}}"));
    let endpoint = |endpoint: &str| slice(&format!("addressType: IPv4\nendpoints: [{endpoint}]\nports: []\n"));
    let slice_port = |port: &str| slice(&format!("addressType: IPv4\nendpoints: []\nports: [{port}]\n"));
    let rows = [
        ("slice port 0", slice_port("{name: main, port: 0}"), "ports[0].port", "0", "1 to 65535"),
        ("slice port too high", slice_port("{name: main, port: 99999}"), "ports[0].port", "99999", "1 to 65535"),
        ("slice port in quotes", slice_port("{name: main, port: '80'}"), "ports[0].port", "80", "Remove the quotes"),
        ("foreign port name", slice_port("{name: mian, port: 80}"), "ports[0].name", "mian", "Did you mean main?"),
        ("no port name", slice_port("{port: 80}"), "ports[0].name", "", "has no name, but Service shop/web has"),
        ("slice protocol", slice_port("{name: main, port: 80, protocol: tcp}"), "ports[0].protocol", "tcp", "TCP"),
        ("addressType", slice("addressType: ipv4\nports: []\n"), "addressType", "ipv4", "Did you mean IPv4?"),
        ("family", endpoint("{addresses: ['fd00::1']}"), "endpoints[0].addresses[0]", "fd00::1", "addressType is IPv4"),
        ("no address", endpoint("{addresses: [10.0.0.256]}"), "endpoints[0].addresses[0]", "10.0.0.256", "IP address"),
        (
            "ready",
            endpoint("{addresses: [10.0.0.1], conditions: {ready: 'true'}}"),
            "endpoints[0].conditions.ready",
            "true",
            "Remove the quotes",
        ),
        ("clusterIP", odd_service("clusterIP: 10.0.0.999"), "spec.clusterIP", "10.0.0.999", "IP address"),
        ("clusterIPs", odd_service("clusterIPs: [10.0.0.1, nine]"), "spec.clusterIPs[1]", "nine", "IP address"),
        ("type", odd_service("type: ClusterIp"), "spec.type", "ClusterIp", "Did you mean ClusterIP?"),
        ("affinity", odd_service("sessionAffinity: clientIP"), "spec.sessionAffinity", "clientIP", "ClientIP"),
        ("policy", odd_service("internalTrafficPolicy: local"), "spec.internalTrafficPolicy", "local", "Local"),
        ("port in quotes", port("port: '81'"), "spec.ports[1].port", "81", "Remove the quotes"),
        ("target", port("port: 81, targetPort: 70000"), "spec.ports[1].targetPort", "70000", "1 to 65535"),
        ("protocol", port("port: 81, protocol: udp"), "spec.ports[1].protocol", "udp", "Did you mean UDP?"),
        ("appProtocol", port("port: 81, appProtocol: htpp"), "spec.ports[1].appProtocol", "htpp", "Did you mean http?"),
        (
            "port name",
            an("Service", "v1", "spec: {ports: [{name: a, port: 80}, {name: Ä Ö, port: 81}]}"),
            "spec.ports[1].name",
            "Ä Ö",
            "lower-case",
        ),
        (
            "port name twice",
            an("Service", "v1", "spec: {ports: [{name: a, port: 80}, {name: a, port: 81}]}"),
            "spec.ports[1].name",
            "a",
            "Give each port a name of its own",
        ),
        ("podIP", an("Pod", "v1", "status: {podIP: 10.0.0}"), "status.podIP", "10.0.0", "IP address"),
        ("podIPs", an("Pod", "v1", "status: {podIPs: [{ip: ten}]}"), "status.podIPs[0].ip", "ten", "IP address"),
        ("podCIDR", an("Node", "v1", "spec: {podCIDRs: [10.0.0.0]}"), "spec.podCIDRs[0]", "10.0.0.0", "10.244.1.0/24"),
        (
            "node",
            an("Node", "v1", "status: {addresses: [{type: InternalIP, address: n1}]}"),
            "status.addresses[0].address",
            "n1",
            "IP address",
        ),
        ("version", an("Service", "v2", ""), "apiVersion", "v2", "v1"),
        ("group", an("EndpointSlice", "v1", ""), "apiVersion", "v1", "discovery.k8s.io/v1"),
        (
            "number as label",
            an("Pod", "v1", "").replace("shop}", "shop, labels: {a: 1}}"),
            "metadata.labels[a]",
            "1",
            "Put it in quotes",
        ),
        ("number in selector", odd_service("selector: {a: 1}"), "spec.selector[a]", "1", "Put it in quotes"),
        ("capitals", an("Service", "v1", "").replace("odd", "Odd"), "metadata.name", "Odd", "lower-case"),
        ("spaces", an("Service", "v1", "").replace("odd", "o d d"), "metadata.name", "o d d", "lower-case"),
        ("namespace", an("Service", "v1", "").replace("shop", "Shop"), "metadata.namespace", "Shop", "lower-case"),
        (
            "terminal",
            an("Service", "v1", "").replace("odd", "\"\\e[31modd\""),
            "metadata.name",
            "\u{1b}[31modd",
            "lower-case",
        ),
        ("long", an("Service", "v1", "").replace("odd", &"o".repeat(64)), "metadata.name", &"o".repeat(64), "63"),
        ("long pod", an("Pod", "v1", "").replace("odd", &"o".repeat(254)), "metadata.name", "", "253"),
    ];
    for (number, (_, text, ..)) in rows.iter().enumerate() {
        let text = text.replace("SLICE", &format!("odd-{number}"));
        save(folder.path(), &format!("{number}.yaml"), &text.replace("name: odd,", &format!("name: odd-{number},")));
    }
    let dev = Dev::start(folder.path());
    for (number, (case, _, field, value, message)) in rows.iter().enumerate() {
        let found = about(&dev, &format!("{number}.yaml"));
        assert_eq!(found.len(), 1, "{case}: {found:#?}");
        assert_eq!(found[0]["field"], *field, "{case}: {}", found[0]);
        if !value.is_empty() {
            assert_eq!(found[0]["value"], *value, "{case}: {}", found[0]);
        }
        let text = found[0]["message"].as_str().unwrap();
        assert!(text.contains(message), "{case}: {text}");
        assert!(!text.contains(char::is_control), "{case}: {text:?}");
        assert!(found[0]["using"].is_string() && found[0]["line"].is_u64(), "{case}: {}", found[0]);
    }
    let odd = |entry: &&Value| entry["name"].as_str().unwrap().contains(char::is_uppercase);
    assert_eq!(dev.ready["services"].as_array().unwrap().iter().find(odd), None);
    dev.assert_web_serves();
}

/// A slice of which one endpoint and one port is good.
#[test]
fn what_is_good_in_an_object_is_served() {
    let backend = Backend::http("web");
    let folder = tempfile::tempdir().unwrap();
    let at = backend.address;
    let good = format!("{{addresses: [{}]}}", at.ip());
    let slice = format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web, namespace: shop, labels: \
         {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nendpoints:\n- {{addresses: [nowhere]}}\n\
         - {{addresses: [127.0.0.9], conditions: {{ready: 'no way'}}}}\n- 7\n- {good}\nports:\n\
         - {{name: other, port: 99999}}\n- {{name: main, port: {}}}\n",
        at.port()
    );
    let ports = "  - {name: other, port: '99'}\n  - 7\n";
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + ports + &slice));
    let dev = Dev::start(folder.path());
    dev.assert_web_serves();
    let fields: Vec<_> =
        about(&dev, "web.yaml").iter().map(|event| event["field"].as_str().unwrap().to_owned()).collect();
    let want = [
        "spec.ports[1].port",
        "spec.ports[2]",
        "ports[0].port",
        "endpoints[0].addresses[0]",
        "endpoints[1].conditions.ready",
        "endpoints[2]",
    ];
    for field in want {
        assert!(fields.iter().any(|found| found == field), "{field}: {fields:?}");
    }
}

/// What comes from an object reaches the terminal only escaped.
#[test]
fn nothing_in_an_object_moves_the_cursor() {
    let folder = tempfile::tempdir().unwrap();
    let text = an("Service", "v1", "").replace("odd", "\"\\e]0;title\\a\\nerror: forged\\u202e\"");
    save(folder.path(), "a.yaml", &text);
    save(folder.path(), "b\u{1b}[2J.yaml", "kind: [");
    save(folder.path(), "c.yaml", "apiVersion: \"v1\\e[1m\"\nkind: \"Thing\\e[2J\"\nmetadata: {name: \"x\\e[2J\"}\n");
    save(
        folder.path(),
        "d.yaml",
        &service("shop", "d", 80, "\"maesh.containo.us/sc\\e[2Jheme\": x, maesh.containo.us/scheme: \"\\e[2J\""),
    );
    let mut command = crate::support::command(&["dev", "--dns", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.args(["--address-range", "127.66.0.0/16"]).arg(folder.path()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let said: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.starts_with("ready")).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(said.iter().filter(|line| line.contains(".yaml:")).count() >= 5, "{said:#?}");
    for line in &said {
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        assert!(!line.starts_with("error: forged"), "{said:#?}");
    }
}

#[test]
fn of_an_object_that_is_twice_in_a_file_the_line_in_use_is_said() {
    let folder = tempfile::tempdir().unwrap();
    save(
        folder.path(),
        "twice.yaml",
        &format!("{}---\n{}", service("shop", "web", 81, ""), service("shop", "web", 82, "")),
    );
    let dev = Dev::start(folder.path());
    let found = about(&dev, "twice.yaml");
    assert!(found[0]["message"].as_str().unwrap().contains("using the one of line 1"), "{found:#?}");
    assert_eq!(dev.entry("web.shop.maesh")["ports"][0]["port"], 81);
}

#[test]
fn a_file_of_comments_removes_what_it_held_and_says_so() {
    let backend = Backend::http("web");
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "web.yaml", &web(&backend));
    let mut dev = Dev::start(folder.path());
    let text: String = web(&backend).lines().map(|line| format!("# {line}\n")).collect();
    save(folder.path(), "web.yaml", &text);
    let warning = dev.await_event("about the comments", |event| event["reason"] == "OnlyComments");
    let message = warning["message"].as_str().unwrap();
    assert!(message.contains("the 2 objects that it held are removed. Write them again"), "{message}");
    dev.await_event("it is gone", |event| event["removed"] == serde_json::json!(["web.shop.maesh"]));
    save(folder.path(), "web.yaml", &web(&backend));
    dev.await_changed("web.shop.maesh");

    save(folder.path(), "lone.yaml", &service("shop", "lone", 81, ""));
    dev.await_changed("lone.shop.maesh");
    save(folder.path(), "lone.yaml", "# nothing\n");
    let warning = dev.await_event("about the comments", |event| event["reason"] == "OnlyComments");
    let message = warning["message"].as_str().unwrap();
    assert!(message.contains("the object that it held is removed. Write it again"), "{message}");
}

#[test]
fn what_is_no_file_is_named_and_never_read() {
    let backend = Backend::http("web");
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "web.yaml", &web(&backend));
    let fifo = folder.path().join("pipe.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::fs::create_dir(folder.path().join("below")).unwrap();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
    link("/dev/zero", "zero.yaml");
    link("..", "below/up");
    let deep: std::path::PathBuf = std::iter::repeat_n("d", 40).collect();
    std::fs::create_dir_all(folder.path().join(&deep)).unwrap();
    let dev = Dev::start(folder.path());
    dev.assert_web_serves();
    for (file, says) in [
        ("pipe.yaml", "neither a file nor a folder"),
        ("zero.yaml", "neither a file nor a folder"),
        ("up", "a link to a folder that is read already"),
        ("d/d/d/d", "deeper than"),
    ] {
        let of_file = |event: &&Value| event["file"].as_str().is_some_and(|path| path.contains(file));
        let found = dev.early.iter().find(of_file).unwrap_or_else(|| panic!("{file}: {:#?}", dev.early));
        assert!(found["message"].as_str().unwrap().contains(says), "{file}: {found}");
    }
}

/// The process itself is no endpoint: a request would come back to it.
#[test]
fn its_own_listeners_are_never_dialled() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "web.yaml", &service("shop", "web", 8080, ""));
    let mut dev = Dev::start(folder.path());
    for (name, listener) in [("admin", dev.admin()), ("dns", dev.dns())] {
        save(folder.path(), "slices.yaml", &slices("shop", "web", &[listener]));
        let listener = listener.to_string();
        let bad = dev.await_event("about the slice", |event| event["value"] == listener.as_str());
        assert_eq!(
            (&bad["reason"], &bad["object"]["kind"]),
            (&"ForbiddenEndpoint".into(), &"EndpointSlice".into()),
            "{name}"
        );
        assert!(bad["message"].as_str().unwrap().contains("of this maesh dev"), "{name}: {bad}");
        let answer = get(dev.served_at("web.shop.maesh"), "web.shop.maesh", "/livez").unwrap();
        assert_eq!(answer.status, 503, "{name}: {answer:?}");
        let plain =
            ask("127.0.0.1".parse().unwrap(), dev.dns(), "web.shop.maesh", RecordType::A, crate::support::PATIENCE)
                .unwrap();
        assert_eq!(plain.addresses.len(), 1, "{name}");
    }
}

#[test]
fn ranges_that_cannot_be_served_are_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    for (range, says) in [
        ("127.77.0.1/16", "write 127.77.0.0/16"),
        ("::1/64", "write ::/64"),
        ("::/64", "no address of this machine"),
        ("126.0.0.0/7", "no address of this machine"),
        ("0.0.0.0/0", "no address of this machine"),
    ] {
        let mut command = crate::support::command(&["dev", "--dns", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--address-range", range]).arg(folder.path()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let status = crate::support::await_condition("it ends", || child.try_wait().unwrap());
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
        assert!(matches!(status.code(), Some(1 | 2)), "{range}: {said}");
        assert!(said.contains(range) && said.contains(says), "{range}: {said}");
    }
}
