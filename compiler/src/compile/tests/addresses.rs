//! Which address and listening port a Service has, and when its name answers it.

use super::*;

#[test]
fn an_own_address_is_answered_once_it_is_listened_on() {
    let mut compiler = Compiler::new(dev());
    compiler.complete_proxies();
    let yaml = service("db", "", "ports: [{port: 5432, appProtocol: postgres}]")
        + &service("web", "", "ports: [{port: 8080}, {port: 443, appProtocol: https}]");
    objects(&yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    let first = compiler.compile(Instant::now());
    let own = first.services.iter().find(|entry| &*entry.service.name == "db").unwrap().address.unwrap();
    let listener = format!("{own}/5432/tcp");
    assert_eq!(
        listeners(&first),
        [format!("{listener} shop/db:5432"), "shared/443/tcp tls".into(), "shared/8080/tcp http".into()]
    );
    assert_eq!(name(&first, "shop/db").answer, Answer::Unserved);
    assert_eq!(name(&first, "shop/web").answer, Answer::Node);

    compiler.proxies(vec![proxy(&[&listener])]);
    let second = compiler.compile(Instant::now());
    assert_eq!(name(&second, "shop/db").answer, Answer::Fixed(vec![own]));
    assert!(second.services.iter().all(|entry| entry.settled));

    let mut broken = proxy(&[]);
    Arc::make_mut(&mut broken.failed).insert(ListenerId(listener.into()), "in use".into());
    compiler.proxies(vec![broken]);
    let third = compiler.compile(Instant::now());
    assert_eq!(name(&third, "shop/db").answer, Answer::Unserved);
    assert_eq!(third.found.len(), 1, "{:?}", third.found);
}

#[test]
fn an_own_address_is_not_given_up_before_those_who_listen_had_the_time_to_come_back() {
    let mut compiler = Compiler::new(dev());
    let yaml = service("db", "", "ports: [{port: 5432, appProtocol: postgres}]")
        + &service(
            "spare",
            "annotations: {maesh.containo.us/bypass: 'true'}",
            "ports: [{port: 1, appProtocol: postgres}]",
        );
    objects(&yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    let named = |output: &Output| {
        let named = output.change.upserts.iter().filter(|resource| matches!(resource, Resource::Name(_)));
        named.map(|resource| resource.key().name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(named(&compiler.compile(Instant::now())), ["shop/spare"]);
    compiler.complete_proxies();
    let output = compiler.compile(Instant::now());
    assert_eq!(named(&output), ["shop/db"]);
    assert_eq!(name(&output, "shop/db").answer, Answer::Unserved);
}

/// Ready or not, by what is published of each proxy.
fn told(output: &Output) -> Vec<bool> {
    let ready = |resource: &Resource| match resource {
        Resource::Proxy(proxy) => Some(proxy.ready),
        _ => None,
    };
    output.change.upserts.iter().filter_map(ready).collect()
}

#[test]
fn before_all_had_the_time_to_come_back_only_what_is_sure_is_told_of_proxies() {
    let mut compiler = Compiler::new(dev());
    objects(&service("web", "", "ports: [{port: 8080}]")).into_iter().for_each(|it| compiler.take(Event::Apply(it)));
    compiler.compile(Instant::now());
    compiler.proxies(vec![proxy(&[])]);
    assert_eq!(told(&compiler.compile(Instant::now())), Vec::<bool>::new(), "its listeners are being opened");
    compiler.proxies(vec![proxy(&["shared/8080/tcp"])]);
    assert_eq!(told(&compiler.compile(Instant::now())), [true]);
    let mut leaving = proxy(&["shared/8080/tcp"]);
    leaving.ready = false;
    compiler.proxies(vec![leaving]);
    assert_eq!(told(&compiler.compile(Instant::now())), [false], "nobody may be sent to one that leaves");
    compiler.proxies(Vec::new());
    assert_eq!(compiler.compile(Instant::now()).change.removed.len(), 1, "it had come back, and went");
}

/// Listening ports of every Service, `web:80>8080`.
fn listening(yaml: &str) -> String {
    let output = compiled(Config { first_bindable_port: 1024, ..dev() }, yaml);
    let ports = |entry: &TableEntry| {
        let ports = entry.ports.iter().map(|port| format!("{}:{}>{}", entry.service.name, port.port, port.listen));
        ports.collect::<Vec<_>>().join(" ")
    };
    output.services.iter().map(ports).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_port_that_the_system_refuses_listens_elsewhere() {
    let old = "creationTimestamp: 2020-01-01T00:00:00Z";
    let new = "creationTimestamp: 2021-01-01T00:00:00Z";
    let tcp = "annotations: {maesh.containo.us/traffic-type: tcp}";
    for (case, yaml, want) in [
        ("8000 further on", service("web", "", "ports: [{port: 80}]"), "web:80>8080"),
        ("one that can be bound", service("web", "", "ports: [{port: 1024}]"), "web:1024>1024"),
        (
            "the same for all",
            service("a", new, "ports: [{port: 80}]") + &service("b", old, "ports: [{port: 80}]"),
            "a:80>8080 b:80>8080",
        ),
        (
            "an older Service has 8080 already",
            service("a", new, "ports: [{port: 80}]") + &service("b", old, "ports: [{port: 8080}]"),
            "a:80>18080 b:8080>8080",
        ),
        (
            "a newer one does not move it; a request says whom it means",
            service("a", old, "ports: [{port: 80}]") + &service("b", new, "ports: [{port: 8080}]"),
            "a:80>8080 b:8080>8080",
        ),
        (
            "a Service's own other port",
            service("a", "", "ports: [{port: 80, name: a}, {port: 8080, name: b}, {port: 18080, name: c}]"),
            "a:80>28080 a:8080>8080 a:18080>18080",
        ),
        (
            "own addresses do not meet",
            service("a", tcp, "ports: [{port: 80}]") + &service("b", "", "ports: [{port: 8080}]"),
            "a:80>8080 b:8080>8080",
        ),
        (
            "both transports of a number",
            service("a", tcp, "ports: [{port: 53, name: a}, {port: 53, name: b, protocol: UDP}]"),
            "a:53>8053 a:53>8053",
        ),
    ] {
        assert_eq!(listening(&yaml), want, "{case}");
    }
}

#[test]
fn own_addresses_stay_where_they_are() {
    let tcp = |name: &str, created: &str| {
        let metadata = format!("creationTimestamp: {created}, annotations: {{maesh.containo.us/traffic-type: tcp}}");
        service(name, &metadata, "ports: [{port: 5432}]")
    };
    let range = Range::new("127.77.0.0/24".parse().unwrap()).unwrap();
    let config = Config { addressing: Addressing::Range(range), ..dev() };
    let mut compiler = Compiler::new(config.clone());
    let mut given: std::collections::BTreeMap<ServiceName, IpAddr> = std::collections::BTreeMap::new();
    let mut all = String::new();
    // One more than there are addresses.
    for number in 0..254 {
        let one = tcp(&format!("s{number}"), &format!("2026-01-01T{:02}:{:02}:00Z", number / 60, number % 60));
        objects(&one).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
        all += &one;
        let output = compiler.compile(Instant::now());
        for entry in output.services {
            let Some(address) = entry.address else { continue };
            assert!(entry.service.name.ends_with(&number.to_string()), "{} moved", entry.service);
            if entry.address.is_none_or(|a| a.to_string() != "10.0.0.1") {
                assert_eq!(given.insert(entry.service, address), None);
            }
        }
        assert_eq!(output.found.len(), usize::from(number == 253), "{:?}", output.found);
    }
    assert_eq!(given.len(), 253);
    let distinct: BTreeSet<_> = given.values().collect();
    assert_eq!(distinct.len(), 253);
    assert!(!distinct.contains(&range.shared()));
    // A restart moves nothing.
    for entry in compiled(config, &all).services {
        if let Some(address) = given.get(&entry.service) {
            assert_eq!(entry.address, Some(*address));
        }
    }
}

#[test]
fn ranges() {
    for (text, shared) in [
        ("127.77.0.0/16", Some("127.77.0.1")),
        ("127.77.5.0/24", Some("127.77.5.1")),
        ("127.77.5.9/24", None),
        ("::1/64", None),
        ("127.77.0.0/25", None),
        ("fd00:77::/64", Some("fd00:77::1")),
        ("fd00:77::/121", None),
    ] {
        let range = Range::new(text.parse().unwrap());
        assert_eq!(range.ok().map(|range| range.shared().to_string()), shared.map(str::to_owned), "{text}");
    }
}

#[test]
fn who_needs_an_own_address() {
    let annotated = |text: &str| format!("annotations: {{maesh.containo.us/{text}}}");
    for (case, metadata, spec, want) in [
        ("HTTP", String::new(), "ports: [{port: 80}]", "shared"),
        ("UDP", String::new(), "ports: [{port: 53, protocol: UDP}]", "own"),
        ("TLS says its name", String::new(), "ports: [{port: 443, appProtocol: https}]", "shared"),
        ("TLS, but opaque on purpose", annotated("traffic-type: tcp"), "ports: [{port: 443, appProtocol: tls}]", "own"),
        ("asked for", annotated("address: own"), "ports: [{port: 80}]", "own"),
        ("a port of the proxy's own", String::new(), "ports: [{port: 9090}]", "own"),
        ("asked for what cannot be", annotated("address: shared"), "ports: [{port: 53, protocol: UDP}]", "own, said"),
        ("bypassed", annotated("bypass: 'true'"), "ports: [{port: 80}]", "plain"),
        ("no ports", String::new(), "ports: []", "plain, said"),
    ] {
        let config = Config { reserved_ports: vec![9090], ..dev() };
        let output = compiled(config, &service("web", &metadata, spec));
        let address = output.services[0].address.map(|address| address.to_string()).unwrap_or_default();
        let place = match address.as_str() {
            "127.77.0.1" => "shared",
            "10.0.0.1" => "plain",
            own if own.starts_with("127.77.") => "own",
            other => other,
        };
        let said = if output.found.is_empty() { "" } else { ", said" };
        assert_eq!(format!("{place}{said}"), want, "{case}: {:?}", output.found);
    }
}
