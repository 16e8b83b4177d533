//! Proxies of two zones on a real Kubernetes API: each learns from the controller where it is, and keeps to the endpoints
//! that are meant for its zone.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use crate::support::{
    await_condition,
    backend::Backend,
    http::get,
    manifest::{service, slices},
    roles::{Mesh, Role},
};
use maesh_testkube::ApiServer;

#[test]
fn proxies_keep_to_the_endpoints_of_the_zone_of_their_node() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    server.namespace().run(|| each_in_its_zone(&server)).unwrap();
}

fn each_in_its_zone(server: &ApiServer) {
    let backends = [Backend::http_at("a", "10.244.1.8"), Backend::http_at("b", "10.244.2.8")];
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n".to_owned();
    for (number, zone) in [(1, "a"), (2, "b")] {
        text += &format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: n{number}, labels: {{topology.kubernetes.io/zone: {zone}}}}}\n\
             status: {{addresses: [{{type: InternalIP, address: 10.89.4.{number}}}]}}\n---\n"
        );
    }
    let hinted = slices("shop", "web", &[backends[0].address, backends[1].address])
        .replace(&hint(&backends[0], ""), &hint(&backends[0], "  hints: {forZones: [{name: a}]}\n"))
        .replace(&hint(&backends[1], ""), &hint(&backends[1], "  hints: {forZones: [{name: b}]}\n"));
    server.apply(&(text + &service("shop", "web", 8080, "") + &hinted)).unwrap();
    let mut mesh = Mesh::start(server);
    mesh.await_ready();
    for (role, zone) in [(Role::Proxy1, "a"), (Role::Proxy2, "b")] {
        await_condition(&format!("{role:?} keeps to zone {zone}"), || {
            let answer = || get((role.address(), 8080).into(), "web.shop.maesh", "/").ok();
            (0..20).all(|_| answer().is_some_and(|answer| answer.by() == zone)).then_some(())
        });
    }
}

/// The lines of a slice that name this endpoint, and what is said of it after them.
fn hint(backend: &Backend, more: &str) -> String {
    format!("endpoints:\n- addresses: [{}]\n  conditions: {{ready: true}}\n{more}", backend.address.ip())
}
