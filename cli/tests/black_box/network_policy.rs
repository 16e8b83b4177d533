//! `maesh print network-policy` where it must print nothing: policies that admit only proxies lock out everybody where no
//! proxies are. What it prints for a mesh, the tests of `maesh check` apply.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use serde_json::{Value, json};

use crate::support::{api::Api, command};

fn pod(namespace: &str, name: &str, component: &str) -> Value {
    let labels = json!({"app.kubernetes.io/name": "maesh", "app.kubernetes.io/component": component});
    json!({"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": {"containers": []}})
}

#[test]
fn nothing_is_printed_where_no_proxy_is() {
    let web = json!({"metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.0.0.1", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let other = json!({"metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}}});
    let namespace = |name: &str| json!({"metadata": {"name": name}});
    let api = Api::with(vec![
        ("/api/v1/services", vec![web]),
        ("/api/v1/namespaces", vec![namespace("shop"), namespace("maesh"), namespace("half")]),
        ("/api/v1/namespaces/shop/pods", vec![other]),
        ("/api/v1/namespaces/maesh/pods", vec![pod("maesh", "c", "controller"), pod("maesh", "p", "proxy")]),
        ("/api/v1/namespaces/half/pods", vec![pod("half", "c", "controller")]),
        ("/api/v1/namespaces/nosuch/pods", vec![]),
    ]);
    let print = |arguments: &[&str]| {
        let mut command = command(&["print", "network-policy", "--kubeconfig"]);
        let output = command.arg(api.kubeconfig()).args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    for namespace in ["shop", "nosuch", "half"] {
        let (code, out, err) = print(&["-n", namespace]);
        assert_eq!((code, &*out), (Some(1), ""), "{namespace}: {err}");
        for says in [
            &format!("namespace {namespace}: no pod there has the label app.kubernetes.io/component=proxy"),
            "name its namespace with --namespace",
            &format!("maesh print network-policy {namespace}"),
        ] {
            assert!(err.contains(says), "{namespace}: nothing says {says:?} in {err}");
        }
    }
    let (code, out, err) = print(&[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("kind: NetworkPolicy") && out.contains("namespace: shop"), "{out}");
}

#[test]
fn the_hint_names_the_flag_of_the_command() {
    let api = Api::with(vec![("/api/v1/namespaces/maesh/pods", vec![])]);
    for (arguments, flag) in [
        (&["get", "services"][..], "--mesh-namespace"),
        (&["status"], "--namespace"),
        (&["explain", "web.shop.maesh"], "--namespace"),
        (&["access", "matrix"], "--namespace"),
        (&["print", "network-policy"], "--namespace"),
    ] {
        let output = command(arguments).arg("--kubeconfig").arg(api.kubeconfig()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(&format!("name its namespace with {flag}")), "{arguments:?}: {said}");
    }
}
