//! A UDP Service under `maesh dev`: its address, what dns answers, and datagrams that come back from where they were sent.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::support::{
    Dev, PATIENCE, await_condition,
    backend::Backend,
    echo, http,
    manifest::{folder_with_web, save},
    named::Datagrams,
    resolver::ask,
    served_at,
};
use hickory_proto::rr::RecordType;
use serde_json::Value;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A Service with these ports, and the EndpointSlice of one address.
fn resolver(ports: &str, annotations: &str, endpoint_ports: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: resolver, namespace: ops, annotations: {{{annotations}}}}}\n\
         spec: {{clusterIP: 10.96.7.53, ports: [{ports}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: resolver-1, namespace: ops, \
         labels: {{kubernetes.io/service-name: resolver}}}}\naddressType: IPv4\n\
         endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]\nports: [{endpoint_ports}]\n"
    )
}

/// What comes back for `bytes`, and from where.
fn exchange(at: SocketAddr, bytes: &[u8]) -> (Vec<u8>, SocketAddr) {
    let socket = UdpSocket::bind((LOCAL, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(bytes, at).unwrap();
    let mut back = vec![0; 1 << 16];
    let (length, from) = socket.recv_from(&mut back).unwrap();
    back.truncate(length);
    (back, from)
}

fn answered(dev: &Dev) -> Vec<String> {
    let answer = ask(LOCAL, dev.dns(), "resolver.ops.maesh", RecordType::A, PATIENCE).unwrap();
    answer.addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn a_service_with_udp_and_tcp_is_served_on_an_address_of_its_own() {
    let (web, tcp, udp) = (Backend::http("web"), Backend::echo(), Datagrams::start("udp "));
    let folder = folder_with_web(&web);
    let ports = "{name: dns, port: 5353, protocol: UDP}, {name: dns-tcp, port: 5353, appProtocol: tcp}";
    let behind = format!(
        "{{name: dns, port: {}, protocol: UDP}}, {{name: dns-tcp, port: {}}}",
        udp.at.port(),
        tcp.address.port()
    );
    save(folder.path(), "resolver.yaml", &resolver(ports, "", &behind));
    let mut dev = Dev::start(folder.path());
    dev.assert_web_serves();
    assert_eq!(dev.early.iter().filter(|event| event["event"] == "warning").collect::<Vec<_>>(), Vec::<&Value>::new());

    let entry = dev.entry("resolver.ops.maesh").clone();
    let at = served_at(&entry);
    let protocols: Vec<_> = entry["ports"].as_array().unwrap().iter().map(|port| port["protocol"].clone()).collect();
    assert_eq!(protocols, ["tcp", "udp"]);
    assert_eq!(answered(&dev), [at.ip().to_string()]);
    let srv = ask(LOCAL, dev.dns(), "_dns._udp.resolver.ops.maesh", RecordType::SRV, PATIENCE).unwrap();
    assert_eq!(srv.services, [("resolver.ops.maesh.".to_owned(), at.port())]);
    for bytes in [&b"hello"[..], &[7; 9_000], &[9; 65_000]] {
        let (back, from) = exchange(at, bytes);
        assert_eq!(from, at, "the reply comes from where the caller sent to");
        assert_eq!(back, [b"udp ", bytes].concat());
    }
    assert_eq!(echo(at, b"over tcp"), b"over tcp");
    await_condition("datagrams are counted", || {
        let text = http::get(dev.admin(), "localhost", "/metrics").ok()?.body;
        let labels = "{service=\"resolver\",namespace=\"ops\",port=\"5353\"}";
        text.contains(&format!("maesh_udp_sent_datagrams_total{labels} 3")).then_some(())
    });

    // Bypassed, the name resolves to the ClusterIP. Who remembers the address is still served.
    save(folder.path(), "resolver.yaml", &resolver(ports, "maesh.containo.us/bypass: 'true'", &behind));
    dev.await_changed("resolver.ops.maesh");
    assert_eq!(answered(&dev), ["10.96.7.53"]);
    assert_eq!(exchange(at, b"remembered"), (b"udp remembered".to_vec(), at));
    save(folder.path(), "resolver.yaml", &resolver(ports, "", &behind));
    dev.await_changed("resolver.ops.maesh");
    await_condition("it is served again", || (answered(&dev) == [at.ip().to_string()]).then_some(()));
    assert_eq!(exchange(at, b"again"), (b"udp again".to_vec(), at));

    let other = Datagrams::start("other ");
    let behind = format!("{{name: dns, port: {}, protocol: UDP}}", other.at.port());
    save(folder.path(), "resolver.yaml", &resolver("{name: dns, port: 5353, protocol: UDP}", "", &behind));
    dev.await_changed("resolver.ops.maesh");
    assert_eq!(exchange(at, b"moved").0, b"other moved");
    assert!(dev.terminate().success());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    let mut dev = Dev::start(folder.path());
    save(
        folder.path(),
        "resolver.yaml",
        &resolver("{name: dns, port: 5399, protocol: UDP}", "", "{name: dns, port: 9, protocol: UDP}"),
    );
    let changed = dev.await_changed("resolver.ops.maesh");
    let entry = changed["services"].as_array().unwrap().iter().find(|it| it["name"] == "resolver.ops.maesh").unwrap();
    let at = served_at(entry);
    save(
        folder.path(),
        "resolver.yaml",
        &resolver("{name: dns, port: 5398, protocol: UDP}", "", "{name: dns, port: 9, protocol: UDP}"),
    );
    let taken = SocketAddr::new(at.ip(), 5399);
    let _taken = await_condition("the port is free", || UdpSocket::bind(taken).ok());
    save(
        folder.path(),
        "resolver.yaml",
        &resolver("{name: dns, port: 5399, protocol: UDP}", "", "{name: dns, port: 9, protocol: UDP}"),
    );
    let warning =
        dev.await_event("a warning", |event| event["event"] == "warning" && event["object"]["name"] == "resolver");
    assert_eq!(warning["reason"], "ListenFailed", "{warning}");
    assert!(warning["message"].as_str().unwrap().contains(&format!("cannot listen on {taken}")), "{warning}");
    await_condition("the name resolves to the ClusterIP", || (answered(&dev) == ["10.96.7.53"]).then_some(()));
}
