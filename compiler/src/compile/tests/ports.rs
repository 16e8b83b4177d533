//! What a port carries, and what is said of ports and annotations.

use std::fmt::Write as _;

use super::*;

/// The ports of the only Service, as `80/http/h2c`, with what was said.
fn ports(output: &Output) -> String {
    let mut text = String::new();
    for resource in &output.change.upserts {
        if let Resource::Service(service) = resource {
            for port in &service.ports {
                let scheme = format!("{:?}", port.backend.scheme).to_lowercase();
                write!(text, "{}/{}/{scheme} ", port.number, port.protocol).unwrap();
            }
        }
    }
    for found in &output.found {
        write!(text, "{} ", found.reason).unwrap();
    }
    text.trim_end().to_owned()
}

#[test]
fn what_a_port_carries() {
    for (case, metadata, spec, want) in [
        ("nothing said", "", "ports: [{port: 80}]", "80/http/http"),
        ("UDP", "", "ports: [{port: 53, protocol: UDP}]", "53/udp/http"),
        ("appProtocol http", "", "ports: [{port: 80, appProtocol: http}]", "80/http/http"),
        ("appProtocol h2c", "", "ports: [{port: 80, appProtocol: kubernetes.io/h2c}]", "80/http/h2c"),
        ("appProtocol grpc", "", "ports: [{port: 80, appProtocol: grpc}]", "80/http/h2c"),
        ("appProtocol of a database", "", "ports: [{port: 1, appProtocol: postgresql}]", "1/tcp/http"),
        ("appProtocol nobody knows", "", "ports: [{port: 1, appProtocol: acme.io/x}]", "1/http/http"),
        (
            "annotation wins over appProtocol",
            "annotations: {maesh.containo.us/traffic-type: tcp}",
            "ports: [{port: 80, appProtocol: http}]",
            "80/tcp/http",
        ),
        ("old prefix", "annotations: {mesh.traefik.io/traffic-type: tcp}", "ports: [{port: 80}]", "80/tcp/http"),
        (
            "narrowed by number and by name",
            "annotations: {maesh.containo.us/1.traffic-type: tcp, maesh.containo.us/b.scheme: h2c}",
            "ports: [{port: 1, name: a}, {port: 2, name: b}, {port: 3, name: c}]",
            "1/tcp/http 2/http/h2c 3/http/http",
        ),
        (
            "bad value, unknown name, unknown port, bad line",
            "annotations: {maesh.containo.us/scheme: ftp, maesh.containo.us/shceme: h2c, \
             maesh.containo.us/81.scheme: h2c, maesh.containo.us/routes: x}",
            "ports: [{port: 80}]",
            "80/http/http UnknownAnnotation UnknownAnnotation InvalidAnnotation InvalidAnnotation",
        ),
        ("TLS to endpoints", "annotations: {maesh.containo.us/scheme: https}", "ports: [{port: 80}]", "80/http/https"),
        (
            "TLS is passed through although the annotation asks for TLS to endpoints",
            "annotations: {maesh.containo.us/scheme: https}",
            "ports: [{port: 443, appProtocol: https}]",
            "443/tcp/http UnsupportedAnnotation",
        ),
        (
            "TLS to endpoints of a port whose appProtocol says https",
            "annotations: {maesh.containo.us/scheme: https, maesh.containo.us/443.traffic-type: http}",
            "ports: [{port: 443, appProtocol: https}]",
            "443/http/https",
        ),
        (
            "a misspelt scheme beside what only TLS needs",
            "annotations: {maesh.containo.us/scheme: htps, maesh.containo.us/tls-server-name: pay.example}",
            "ports: [{port: 80}]",
            "80/http/https InvalidAnnotation",
        ),
        (
            "a misspelt scheme",
            "annotations: {maesh.containo.us/scheme: htps}",
            "ports: [{port: 80}]",
            "80/http/http InvalidAnnotation",
        ),
        (
            "a type for the whole Service passes over ports that cannot have it",
            "annotations: {maesh.containo.us/traffic-type: tcp}",
            "ports: [{port: 53, name: a}, {port: 53, name: b, protocol: UDP}]",
            "53/tcp/http 53/udp/http",
        ),
        (
            "udp on a TCP port",
            "annotations: {maesh.containo.us/traffic-type: udp}",
            "ports: [{port: 80}]",
            "80/http/http InvalidAnnotation",
        ),
        (
            "ports that cannot be",
            "",
            "ports: [{port: 0}, {port: 65536}, {port: -1}, {port: x}, {port: 80}, {port: 80}, {port: 9, protocol: SCTP}]",
            "80/http/http InvalidPort InvalidPort InvalidPort InvalidPort InvalidPort UnsupportedProtocol",
        ),
    ] {
        let output = compiled(dev(), &service("web", metadata, spec));
        let mut got: Vec<_> = ports(&output).split(' ').map(str::to_owned).collect();
        let mut want: Vec<_> = want.split(' ').map(str::to_owned).collect();
        got.sort();
        want.sort();
        assert_eq!(got, want, "{case}: {:#?}", output.found);
    }
}

#[test]
fn what_a_namespace_says_holds_for_its_services() {
    let namespace =
        |annotations: &str| format!("kind: Namespace\nmetadata: {{name: shop, annotations: {{{annotations}}}}}\n---\n");
    for (case, annotations, metadata, want) in [
        ("a default", "maesh.containo.us/traffic-type: tcp", "", "80/tcp/http"),
        (
            "the Service wins",
            "maesh.containo.us/traffic-type: tcp",
            "annotations: {mesh.traefik.io/traffic-type: http}",
            "80/http/http",
        ),
        ("not for a Namespace", "maesh.containo.us/scheme: h2c", "", "80/http/http UnknownAnnotation"),
        ("a bad value", "maesh.containo.us/traffic-type: many", "", "80/http/http InvalidAnnotation"),
    ] {
        let yaml = namespace(annotations) + &service("web", metadata, "ports: [{port: 80}]");
        let output = compiled(dev(), &yaml);
        assert_eq!(ports(&output), want, "{case}: {:#?}", output.found);
    }
}

#[test]
fn which_services_are_of_the_mesh() {
    let other = |namespace: &str, name: &str, spec: &str| {
        format!(
            "kind: Service\nmetadata: {{namespace: {namespace}, name: {name}}}\nspec: {{{spec}, ports: [{{port: 80}}]}}\n---\n"
        )
    };
    let yaml = other("default", "kubernetes", "clusterIP: 10.0.0.1")
        + &other("kube-system", "kube-dns", "clusterIP: 10.0.0.2")
        + &other("a", "alias", "type: ExternalName, externalName: example.com")
        + &other("a", "plain", "clusterIP: 10.0.0.3")
        + &other("b", "plain", "clusterIP: 10.0.0.4")
        + &service("marked", "annotations: {maesh.containo.us/traffic-type: http}", "ports: [{port: 80}]");
    let names = |config: Config| {
        let output = compiled(config, &yaml);
        let names: Vec<_> = output.services.iter().map(|entry| entry.service.to_string()).collect();
        names.join(" ")
    };
    assert_eq!(names(dev()), "a/plain b/plain shop/marked");
    assert_eq!(names(Config { require_annotation: true, ..dev() }), "shop/marked");
    assert_eq!(names(Config { watched_namespaces: vec!["b".into()], ..dev() }), "b/plain");
    let ignored = vec!["b".into(), "shop".into()];
    assert_eq!(names(Config { ignored_namespaces: ignored, ..dev() }), "a/plain kube-system/kube-dns");
}

#[test]
fn the_services_own_fields_keep_their_meaning() {
    let policy = |spec: &str| {
        let output = compiled(dev(), &service("web", "", &format!("ports: [{{port: 80}}], {spec}")));
        let service = output.change.upserts.into_iter().find_map(|resource| match resource {
            Resource::Service(service) => Some(service),
            _ => None,
        });
        service.unwrap().ports.remove(0).backend
    };
    let seconds = |seconds| model::Balance::SourceHash { timeout: std::time::Duration::from_secs(seconds) };
    assert_eq!(policy("sessionAffinity: None").balance, model::Balance::P2c);
    assert_eq!(policy("sessionAffinity: ClientIP").balance, seconds(10_800));
    let config = "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}";
    assert_eq!(policy(config).balance, seconds(60));
    assert!(policy("internalTrafficPolicy: Local").local_only);
    assert!(!policy("internalTrafficPolicy: Cluster").local_only);
}

#[test]
fn messages_name_object_value_default_and_next_step() {
    let metadata = "annotations: {maesh.containo.us/shceme: h2c, maesh.containo.us/80.scheme: ftp}";
    let output = compiled(dev(), &service("web", metadata, "ports: [{port: 80}, {port: 0}]"));
    let said: Vec<_> = output.found.iter().map(|found| &*found.message).collect();
    assert_eq!(
        said,
        [
            "Service shop/web: annotation maesh.containo.us/80.scheme is \"ftp\", not http, https or h2c; using http. Set it \
             to http, https or h2c.",
            "Service shop/web: annotation maesh.containo.us/shceme does not exist; it is ignored. Did you mean \
             maesh.containo.us/scheme?",
            "Service shop/web: port 0 is not a number from 1 to 65535; the port is left out. Correct the number.",
        ]
    );
    let json = serde_json::to_value(&output.found[0]).unwrap();
    let want = serde_json::json!({
        "object": {"kind": "Service", "namespace": "shop", "name": "web"},
        "field": "metadata.annotations[maesh.containo.us/80.scheme]",
        "value": "ftp",
        "message": &*output.found[0].message,
        "using": "http",
        "reason": "InvalidAnnotation",
    });
    assert_eq!(json, want);
}
