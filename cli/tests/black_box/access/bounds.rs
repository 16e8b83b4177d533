//! What cannot be read or is too much opens nothing.

use super::*;

/// What one rule restricts, another one must not open because it cannot be read.
#[test]
fn a_rule_that_cannot_be_read_opens_nothing() {
    let shop = Shop::new();
    let good = group("g", "{pathRegex: /only, methods: [GET]}") + &route("TCPRoute", "t", "8080");
    let dev = shop.start(&good);
    let at = dev.served_at("b.shop.maesh");
    for rules in [
        "{kind: HttpRouteGroup, name: g}, {kind: TCPRoute, name: t}",
        "{kind: HTTPRouteGroup, name: g, matches: all}, {kind: TCPRoute, name: t}",
        "{kind: HTTPRouteGroup}, {kind: TCPRoute, name: t}",
        "{name: g}, {kind: TCPRoute, name: t}",
        "5, {kind: TCPRoute, name: t}",
        "{kind: TcpRoute, name: t}, {kind: HTTPRouteGroup, name: g}",
    ] {
        shop.save(&(good.clone() + &ann_may("{kind: HTTPRouteGroup, name: g}, {kind: TCPRoute, name: t}")));
        await_condition("the good form", || (get_from(ANN, at, "/only") == "200").then_some(()));
        shop.save(&(good.clone() + &ann_may(rules)));
        await_condition(rules, || (get_from(ANN, at, "/only") == "403 denied").then_some(()));
        assert_eq!(outcome(&ask(ANN, at, "DELETE", "/admin", "")), "403 denied", "{rules}");
    }
}

/// More targets of one ServiceAccount than count, each with an expression of its own, and more of these than count.
#[test]
fn targets_beyond_the_limits_open_nothing_and_keep_nobody_waiting() {
    let shop = Shop::new();
    let other = Backend::http_at("other", "127.0.34.2");
    let text = service("shop", "other", 8080, "") + &slices("shop", "other", &[other.address]) + "---\n";
    save(shop.folder.path(), "other.yaml", &(text + &pod("shop", "other-1", "oth", "127.0.34.2", "")));
    let one = |i: usize| {
        let rules =
            format!("rules: [{{kind: HTTPRouteGroup, name: g{i:04}}}], sources: [{{kind: ServiceAccount, name: ann}}]");
        group(&format!("g{i:04}"), &format!("{{pathRegex: /p{i:04}$}}"))
            + &target("v1alpha3", &format!("t{i:04}"), &rules)
    };
    let to_other = route("TCPRoute", "t", "") + &ann_may(TCP).replace("name: bob", "name: oth");
    let dev = shop.start(&((0..1_002).map(one).collect::<String>() + &to_other));
    let at = dev.served_at("b.shop.maesh");
    for (path, want) in [("/p0000", "200"), ("/p0255", "200"), ("/p0256", "403 denied"), ("/p1001", "403 denied")] {
        assert_eq!(get_from(ANN, at, path), want, "{path}");
    }
    let says =
        |what: &str| dev.early.iter().filter(|it| it["message"].as_str().unwrap_or_default().contains(what)).count();
    assert_eq!(says("has 1000 older targets"), 2);
    assert_eq!(says("TrafficTarget shop/t0256: with it, the TrafficTargets for Service shop/b have more than 256"), 1);
    // The first use of another Service, while nothing of the one above is at rest.
    shop.save(&((1..1_002).map(one).collect::<String>() + &to_other));
    let mut client = Client::connect_from(ANN.parse().unwrap(), dev.served_at("other.shop.maesh")).unwrap();
    assert_eq!(outcome(&client.get("other.shop.maesh", "/").unwrap()), "200");
    await_condition("the oldest target is gone, and one more counts", || {
        (get_from(ANN, at, "/p0256") == "200").then_some(())
    });
    assert_eq!(get_from(ANN, at, "/p0000"), "403 denied");
}

/// Servers differ in which of several lines of a field they take.
#[test]
fn each_line_of_a_field_has_to_fit() {
    let shop = Shop::new();
    let matches =
        "{pathRegex: /neg, headers: {x-tenant: \"^[^b]*$\"}}, {pathRegex: /hdr, headers: {x-role: \"^admin$\"}}";
    let dev = shop.start(&(group("g", matches) + &ann_may(GROUP)));
    let at = dev.served_at("b.shop.maesh");
    for (path, fields, want) in [
        ("/neg", "x-tenant: a\r\n", "200"),
        ("/neg", "x-tenant: a\r\nx-tenant: c\r\n", "200"),
        ("/neg", "x-tenant: a\r\nx-tenant: b\r\n", "403 denied"),
        ("/neg", "x-tenant: b\r\nx-tenant: a\r\n", "403 denied"),
        ("/hdr", "x-role: admin\r\n", "200"),
        ("/hdr", "x-role: root\r\nx-role: admin\r\n", "403 denied"),
        ("/hdr", "x-role: admin\r\nx-role: admin\r\n", "403 denied"),
        ("/hdr", "x-role: admin, root\r\n", "403 denied"),
        ("/hdr", "", "403 denied"),
    ] {
        assert_eq!(outcome(&ask(ANN, at, "GET", path, fields)), want, "{path} {fields:?}");
    }
}

/// Octets of which servers make different things open no path.
#[test]
fn paths_that_servers_read_in_ways_of_their_own_are_not_admitted() {
    let shop = Shop::new();
    let dev = shop.start(&(group("g", "{pathRegex: /prices}") + &ann_may(GROUP)));
    let at = dev.served_at("b.shop.maesh");
    assert_eq!(get_from(ANN, at, "/prices/caf%c3%a9"), "200");
    for path in [
        "/prices/%c0%ae%c0%ae%c0%afadmin",
        "/prices/..%c0%afadmin",
        "/prices/%e0%80%ae%e0%80%ae/admin",
        "/prices/..%00/admin",
        "/prices/%u002e%u002e/admin",
        "/prices/%25252e%25252e%25252fadmin",
    ] {
        let got = get_from(ANN, at, path);
        assert!(got == "403 denied" || got == "400 bad_request", "{path}: {got}");
    }
}
