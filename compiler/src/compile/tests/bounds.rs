//! What users' objects may not do to the mesh: lead it to itself, or take all of its ports.

use maesh_config::model::AccessControl;

use super::*;

/// A Service of shop with a slice of these addresses.
fn with_addresses(addresses: &[&str]) -> String {
    let endpoints: Vec<_> = addresses.iter().map(|address| format!("{{addresses: ['{address}']}}")).collect();
    service("web", "", "ports: [{port: 80}]")
        + "kind: EndpointSlice\nmetadata: {namespace: shop, name: web-1, labels: {kubernetes.io/service-name: web}}\n\
           ports: [{port: 8080}]\nendpoints: ["
        + &endpoints.join(", ")
        + "]\n---\n"
}

/// The endpoints that were compiled, and the reasons of what was found.
fn told(output: &Output) -> String {
    let mut text = Vec::new();
    for resource in &output.change.upserts {
        if let Resource::Endpoints(endpoints) = resource {
            text.extend(endpoints.ports[0].endpoints.iter().map(|endpoint| endpoint.address.ip().to_string()));
        }
    }
    text.extend(output.found.iter().map(|found| format!("{} {}", found.reason, found.value.as_deref().unwrap_or(""))));
    text.extend(output.cleared.iter().map(|found| format!("cleared {}", found.reason)));
    text.join(" ")
}

#[test]
fn addresses_that_are_no_endpoint_are_left_out() {
    let cluster = Config::default;
    let denies = || Config { denied_endpoints: vec!["192.168.0.0/16".parse().unwrap()], ..Config::default() };
    for (case, config, addresses, want) in [
        ("pods", cluster(), &["10.1.0.1", "fd00::1"][..], "10.1.0.1 fd00::1"),
        ("loopback", cluster(), &["127.0.0.1", "10.1.0.1"], "10.1.0.1 ForbiddenEndpoint 127.0.0.1"),
        ("loopback in dev", dev(), &["127.0.0.1"], "127.0.0.1"),
        ("own addresses in dev", dev(), &["127.77.3.4", "127.0.0.1"], "127.0.0.1 ForbiddenEndpoint 127.77.3.4"),
        ("unspecified", dev(), &["0.0.0.0"], "ForbiddenEndpoint 0.0.0.0"),
        ("unspecified, IPv6", dev(), &["::"], "ForbiddenEndpoint ::"),
        ("mapped", cluster(), &["::ffff:127.0.0.1"], "ForbiddenEndpoint 127.0.0.1"),
        ("metadata of a cloud", dev(), &["169.254.169.254"], "ForbiddenEndpoint 169.254.169.254"),
        ("multicast", dev(), &["224.0.0.1"], "ForbiddenEndpoint 224.0.0.1"),
        ("a denied range", denies(), &["192.168.3.4", "10.1.0.1"], "10.1.0.1 ForbiddenEndpoint 192.168.3.4"),
        ("no range denied", cluster(), &["192.168.3.4"], "192.168.3.4"),
    ] {
        assert_eq!(told(&compiled(config, &with_addresses(addresses))), want, "{case}");
    }
    let output = compiled(dev(), &with_addresses(&["0.0.0.0", "::", "127.0.0.1"]));
    let message = "EndpointSlice shop/web-1: 2 endpoints are left out, the first of them 0.0.0.0: it is an \
                   unspecified address, to which proxies do not connect.";
    assert!(output.found[0].message.starts_with(message), "{}", output.found[0].message);
    let output = compiled(dev(), &with_addresses(&["169.254.1.1"]));
    let message = "EndpointSlice shop/web-1: endpoint 169.254.1.1 is left out: it is a link-local address, to which \
                   proxies do not connect.";
    assert!(output.found[0].message.starts_with(message), "{}", output.found[0].message);
    let output = compiled(Config::default(), &with_addresses(&["127.0.0.1"]));
    let message = "EndpointSlice shop/web-1: endpoint 127.0.0.1 is left out: it is a loopback address, to which proxies in a cluster \
                   do not connect. Give the addresses of pods. `maesh dev` connects to such endpoints";
    assert!(output.found[0].message.starts_with(message), "{}", output.found[0].message);
    let unmeshed = with_addresses(&["127.0.0.1"]).replace("shop", "kube-system");
    assert_eq!(told(&compiled(Config::default(), &unmeshed)), "", "what the mesh does not dial is not its concern");
}

/// Which addresses are the mesh's own becomes known, and changes, while the mesh runs.
#[test]
fn the_mesh_is_no_endpoint_of_its_own() {
    let mut compiler = Compiler::new(Config::default());
    let step = |compiler: &mut Compiler, yaml: &str| {
        objects(yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
        told(&compiler.compile(Instant::now()))
    };
    let mesh_pod = |address: &str, spec: &str| {
        format!(
            "kind: Pod\nmetadata: {{namespace: maesh, name: proxy-x}}\nspec: {{{spec}}}\nstatus: {{podIP: {address}}}\n---\n"
        )
    };
    let own = "kind: Service\nmetadata: {namespace: maesh, name: dns}\nspec: {clusterIP: 10.96.0.7, ports: [{port: 53}]}\n---\n";
    assert_eq!(
        step(&mut compiler, &with_addresses(&["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.96.0.7"])),
        "10.1.0.1 10.1.0.2 10.1.0.3 10.96.0.7"
    );
    assert_eq!(
        step(&mut compiler, &mesh_pod("10.1.0.1", "")),
        "10.1.0.2 10.1.0.3 10.96.0.7 ForbiddenEndpoint 10.1.0.1",
        "a pod of the mesh"
    );
    let mut proxy = proxy(&[]);
    proxy.addresses = vec!["10.1.0.3".parse().unwrap()];
    compiler.proxies(vec![proxy]);
    let now = step(&mut compiler, "");
    assert!(now.starts_with("10.1.0.2 10.96.0.7 ForbiddenEndpoint 10.1.0.1"), "a proxy: {now}");
    let now = step(&mut compiler, own);
    assert!(now.starts_with("10.1.0.2 ForbiddenEndpoint 10.1.0.1"), "a Service of the mesh: {now}");
    compiler.proxies(Vec::new());
    let now = step(&mut compiler, &mesh_pod("10.1.0.9", ""));
    assert!(now.starts_with("10.1.0.1 10.1.0.2 10.1.0.3 ForbiddenEndpoint 10.96.0.7"), "both are gone: {now}");
    let node = "kind: Node\nmetadata: {name: n1}\nstatus: {addresses: [{type: InternalIP, address: 10.1.0.2}]}\n---\n";
    let on_node = mesh_pod("10.1.0.2", "hostNetwork: true");
    assert_eq!(step(&mut compiler, &format!("{node}{on_node}")), "", "a node has other pods as well");
}

/// Who may write EndpointSlices in one namespace does not thereby send requests to pods of another one.
#[test]
fn pods_of_another_namespace_are_endpoints_where_that_allows_it() {
    let mut compiler = Compiler::new(Config::default());
    let step = |compiler: &mut Compiler, yaml: &str| {
        objects(yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
        compiler.compile(Instant::now())
    };
    let pod = |namespace: &str, spec: &str| {
        format!(
            "kind: Pod\nmetadata: {{namespace: {namespace}, name: p-{namespace}}}\nspec: {{{spec}}}\n\
             status: {{podIP: 10.1.0.2}}\n---\n"
        )
    };
    let namespace = |value: &str| {
        format!(
            "kind: Namespace\nmetadata: {{name: pay, annotations: {{maesh.containo.us/endpoints-for: '{value}'}}}}\n---\n"
        )
    };
    assert_eq!(
        told(&step(&mut compiler, &with_addresses(&["10.1.0.1", "10.1.0.2"]))),
        "10.1.0.1 10.1.0.2",
        "no pods known"
    );
    assert_eq!(told(&step(&mut compiler, &pod("pay", "hostNetwork: true"))), "", "the node's own address");
    let output = step(&mut compiler, &pod("pay", ""));
    assert_eq!(told(&output), "10.1.0.1 ForbiddenEndpoint 10.1.0.2");
    let says = "10.1.0.2 is left out: it is an address of a pod in namespace pay. Give the addresses of pods in namespace shop, or annotate \
                namespace pay with maesh.containo.us/endpoints-for: shop.";
    assert!(output.found[0].message.ends_with(says), "{}", output.found[0].message);
    for (value, allowed) in [("other", false), ("shop", true), ("other, shop", true), ("Shop", false), ("*", true)] {
        step(&mut compiler, &namespace("other"));
        let told = told(&step(&mut compiler, &namespace(value)));
        assert_eq!(told.contains("10.1.0.1 10.1.0.2"), allowed, "{value}: {told}");
    }
    step(&mut compiler, &namespace("other"));
    let now = told(&step(&mut compiler, &pod("shop", "")));
    assert!(now.starts_with("10.1.0.1 10.1.0.2 cleared"), "a pod of shop has the address, too: {now}");
    let misplaced = with_addresses(&[]).replacen(
        "metadata: {",
        "metadata: {annotations: {maesh.containo.us/endpoints-for: x}, ",
        1,
    );
    let output = step(&mut compiler, &misplaced);
    assert!(
        output.found.iter().any(|found| found.message.contains("has an effect on a Namespace alone")),
        "{:?}",
        output.found
    );
}

/// What is said must not depend on which of several pods was heard of first.
#[test]
fn pods_of_several_other_namespaces_with_one_address_are_judged_in_any_order_alike() {
    let pod = |namespace: &str| {
        format!("kind: Pod\nmetadata: {{namespace: {namespace}, name: p}}\nstatus: {{podIP: 10.1.0.2}}\n---\n")
    };
    let allowed = "kind: Namespace\nmetadata: {name: pay, annotations: {maesh.containo.us/endpoints-for: shop}}\n---\n";
    for (case, namespaces, want) in [("nobody allows it", "", "in namespace bank"), ("one of them does", allowed, "")] {
        for order in [["pay", "bank", "zoo"], ["zoo", "bank", "pay"], ["bank", "zoo", "pay"]] {
            let pods: String = order.iter().map(|namespace| pod(namespace)).collect();
            let output = compiled(Config::default(), &(with_addresses(&["10.1.0.2"]) + namespaces + &pods));
            let found: Vec<_> = output.found.iter().map(|found| found.message.to_string()).collect();
            assert_eq!(found.len(), usize::from(!want.is_empty()), "{case}, {order:?}: {found:#?}");
            assert!(found.iter().all(|text| text.contains(want)), "{case}, {order:?}: {found:#?}");
        }
    }
}

/// The Services that have no room, in order.
fn without_room(output: &Output) -> Vec<String> {
    let too_many = output.found.iter().filter(|found| found.reason == Reason::TooManyPorts);
    too_many.map(|found| found.object.to_string()).collect()
}

/// What is said of the name is what dns answers.
#[test]
fn a_service_without_room_answers_nothing_where_nothing_may_go_around_the_mesh() {
    let open = "its ClusterIP or endpoint addresses";
    for (fail_to_plain, access_control, want) in [
        (true, AccessControl::Off, open),
        (true, AccessControl::DryRun, open),
        (true, AccessControl::On, "nothing"),
        (false, AccessControl::Off, "nothing"),
    ] {
        let mut compiler =
            Compiler::new(Config { ports_per_namespace: 0, fail_to_plain, access_control, ..Config::default() });
        let yaml = service("web", "", "ports: [{port: 80}]");
        objects(&yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
        let found = compiler.compile(Instant::now()).found;
        let [found] = &found[..] else { panic!("{found:#?}") };
        assert_eq!(found.using.as_deref(), Some(want), "{fail_to_plain} {access_control:?}");
        assert!(found.message.contains(&format!("its name answers {want}. ")), "{found}");
    }
}

#[test]
fn one_namespace_takes_no_more_than_its_ports() {
    let of = |name: &str, created: u32, kind: &str, ports: std::ops::Range<u16>| {
        let ports: Vec<_> = ports.map(|port| format!("{{port: {port}, name: p{port}}}")).collect();
        let metadata = format!(
            "creationTimestamp: '2026-01-0{created}T00:00:00Z', annotations: {{maesh.containo.us/traffic-type: {kind}}}"
        );
        service(name, &metadata, &format!("ports: [{}]", ports.join(", ")))
    };
    let config = Config { ports_per_namespace: 10, ..Config::default() };
    let mut compiler = Compiler::new(config);
    let mut step = |yaml: &str| {
        objects(yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
        compiler.compile(Instant::now())
    };
    let first =
        step(&(of("old", 1, "tcp", 1000..1006) + &of("new", 3, "tcp", 1000..1005) + &of("web", 4, "http", 80..84)));
    assert_eq!(without_room(&first), ["Service shop/new"], "older ones come first, and what still fits has its place");
    let wants = first.wants.as_ref().unwrap();
    assert_eq!(wants.own.iter().map(|want| want.service.to_string()).collect::<Vec<_>>(), ["shop/old"]);
    assert_eq!(name(&first, "shop/new").answer, Answer::Unserved);
    assert_eq!(without_room(&step(&of("more", 5, "http", 80..84))), [""; 0], "ports on the shared address are shared");
    let elsewhere = of("new", 3, "tcp", 1000..1005).replace("namespace: shop", "namespace: other");
    assert_eq!(without_room(&step(&elsewhere)), [""; 0], "another namespace has ports of its own");
    let smaller = step(&of("old", 1, "tcp", 1000..1001));
    let back: Vec<_> = smaller.wants.unwrap().own.iter().map(|want| want.service.to_string()).collect();
    assert!(back.contains(&"shop/new".to_owned()), "there is room again: {back:?}");
    assert!(smaller.cleared.iter().any(|cleared| cleared.reason == Reason::TooManyPorts));
    let older = step(&of("older", 1, "tcp", 2000..2009).replace("2026-01-01", "2025-01-01"));
    let all = ["Service shop/more", "Service shop/new", "Service shop/web"];
    assert_eq!(without_room(&older), all, "which an older one takes again");
}

/// Without a slice, the pods that a Service selects are its endpoints: a proxy that takes the address of one changes them
/// although neither the Service nor the pod changed.
#[test]
fn a_selected_pod_is_left_out_once_a_proxy_has_its_address() {
    let mut compiler = Compiler::new(dev());
    let pod = "kind: Pod\nmetadata: {namespace: shop, name: web-0, labels: {app: web}}\n\
               status: {podIP: 10.1.0.1, conditions: [{type: Ready, status: 'True'}]}\n---\n";
    let objects = objects(&(service("web", "", "selector: {app: web}, ports: [{port: 80}]") + pod));
    objects.into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    assert_eq!(told(&compiler.compile(Instant::now())), "10.1.0.1");
    compiler.proxies(vec![ConnectedProxy { addresses: vec!["10.1.0.1".parse().unwrap()], ..proxy(&[]) }]);
    let output = compiler.compile(Instant::now());
    let has_endpoints = |resource: &Resource| matches!(resource, Resource::Endpoints(_));
    assert!(output.change.upserts.iter().any(has_endpoints), "the endpoints were compiled anew");
    assert_eq!(told(&output), "", "and there is none left");
}
