use serde_json::json;

use super::*;

fn service(name: &str, selector: Value) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"selector": selector}})
}

/// What is printed; `around` are the Services that are not carried.
fn printed(services: &[Value], around: &[&str], names: &[&str]) -> Printed {
    let reason = |service: &Value| around.contains(&name(service)).then(|| format!("{} is bypassed", said(service)));
    let around: Vec<_> = services.iter().map(reason).collect();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    policies(services, &around, "maesh", &Asked { namespace: Some("shop"), names: &names })
}

fn documents(printed: &Printed) -> Vec<Value> {
    let documents = printed.text.split("---\n").filter(|document| !document.is_empty());
    documents.map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

#[test]
fn the_policies_that_are_printed_let_proxies_in_alone() {
    let services = [
        service("web", json!({"app": "web", "tier": "front"})),
        service("web-admin", json!({"tier": "front", "app": "web"})),
        service("db", json!({"app": "db"})),
        service("off", json!({"app": "off"})),
        service("none", json!({})),
    ];
    let all = printed(&services, &["off"], &[]);
    assert_eq!(all.missing, [""; 0]);
    let documents = documents(&all);
    assert_eq!(documents.iter().map(name).collect::<Vec<_>>(), ["maesh-only-db", "maesh-only-web"]);
    assert_eq!(documents[1]["spec"]["podSelector"]["matchLabels"], json!({"app": "web", "tier": "front"}));
    let proxies = json!([{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "maesh"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "maesh", "app.kubernetes.io/component": "proxy"}}}]}]);
    assert_eq!(documents[1]["spec"]["ingress"], proxies);
    for part in [
        "# Left out: Service shop/off is bypassed.\n",
        "# Left out: Service shop/none has no selector, so no policy can select its pods.\n",
        "the pods of Service web and web-admin.",
    ] {
        assert!(all.text.contains(part), "nothing says {part:?} in\n{}", all.text);
    }
    assert!(!all.text.contains("CAUTION"), "{}", all.text);
}

#[test]
fn who_is_cut_off_is_named_at_the_policy() {
    let web = json!({"app": "web"});
    let alias = json!({"metadata": {"namespace": "shop", "name": "off"},
        "spec": {"type": "ExternalName", "selector": {"app": "web"}}});
    for (case, off, want) in [
        ("equal", service("off", web.clone()), "Service shop/off selects the same pods as Service shop/web."),
        (
            "more labels",
            service("off", json!({"app": "web", "v": "2"})),
            "Service shop/off selects some of the pods of Service shop/web.",
        ),
        ("other labels", service("off", json!({"app": "off"})), ""),
        ("another label", service("off", json!({"v": "2"})), ""),
        ("none", service("off", json!({})), ""),
        ("an alias", alias, ""),
    ] {
        for names in [&[][..], &["web"]] {
            let text = printed(&[service("web", web.clone()), off.clone()], &["off"], names).text;
            assert_eq!(text.contains("CAUTION"), !want.is_empty(), "{case}\n{text}");
            assert!(text.contains(want), "{case}\n{text}");
        }
    }
    let fewer = [service("web", json!({"app": "web", "v": "1"})), service("off", web.clone())];
    let fewer = printed(&fewer, &["off"], &[]);
    let want = "# CAUTION: Service shop/off selects the pods of Service shop/web, and others. Callers of Service shop/off connect";
    assert!(fewer.text.contains(want), "{}", fewer.text);
    assert!(fewer.text.contains("# They connect directly because: Service shop/off is bypassed.\n"), "{}", fewer.text);
    assert_eq!(documents(&fewer).len(), 1);
    let mut elsewhere = service("off", web.clone());
    elsewhere["metadata"]["namespace"] = "pay".into();
    let elsewhere = printed(&[service("web", web), elsewhere], &["off"], &[]);
    assert!(!elsewhere.text.contains("CAUTION"), "{}", elsewhere.text);
}

#[test]
fn each_service_without_a_policy_is_named() {
    let services =
        [service("plain", json!({"app": "plain"})), service("off", json!({"app": "off"})), service("none", json!({}))];
    let absent = "no Service absent exists in namespace shop; see kubectl -n shop get services";
    for (names, policies, missing) in [
        (&["plain"][..], 1, &[][..]),
        (&["plain", "plain"], 1, &[]),
        (&["plain", "absent"], 1, &[absent]),
        (&["absent", "absent"], 0, &[absent]),
        (&["plane"], 0, &["no Service plane exists in namespace shop; did you mean plain?"]),
        (&["off"], 0, &["no policy: Service shop/off is bypassed"]),
        (&["none", "plain"], 1, &["no policy: Service shop/none has no selector, so no policy can select its pods"]),
        (&["off", "absent"], 0, &[absent, "no policy: Service shop/off is bypassed"]),
    ] {
        let printed = printed(&services, &["off"], names);
        assert_eq!(
            (printed.text.matches("kind:").count(), &*printed.missing.join("\n")),
            (policies, &*missing.join("\n")),
            "{names:?}"
        );
    }
    let none = printed(&services[1..], &["off"], &[]);
    assert_eq!(
        none.missing,
        [
            "no Service in namespace shop is carried by the mesh, so there is no policy to print; Service shop/off is bypassed; \
          Service shop/none has no selector, so no policy can select its pods"
        ]
    );
    assert_eq!(none.text, "");
    let mut in_pay = service("off", json!({"app": "off"}));
    in_pay["metadata"]["namespace"] = "pay".into();
    let around = [None, Some("x".to_owned())];
    let names = ["off".to_owned()];
    let both =
        policies(&[in_pay, service("off", json!({}))], &around, "maesh", &Asked { namespace: None, names: &names });
    assert_eq!(
        (both.missing.len(), both.text.matches("kind:").count()),
        (0, 1),
        "one of two of that name has a policy"
    );
}

#[test]
fn a_comment_stays_one_line() {
    assert_eq!(comment("a\nb: c\r\u{1}"), "# a b: c  \n");
}
