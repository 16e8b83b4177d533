//! Which endpoint a request goes to.

use std::collections::{BTreeMap, BTreeSet};

use maesh_config::policy::{BackendPolicy, CalledPolicy};

use super::failing;
use crate::support::{Fed, Raw, config, endpoint, get};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn balance(text: &str) -> BackendPolicy {
    BackendPolicy { balance: text.parse().expect("a balance"), ..BackendPolicy::default() }
}

#[tokio::test]
async fn round_robin_takes_turns() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let mut servers = Vec::new();
    for name in NAMES {
        servers.push(failing(name, 500, 0).await.0);
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let address = fed.http_with("web.shop", CalledPolicy::default(), balance("round-robin"), &addresses).await;
    let mut raw = Raw::to(address).await;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..40 {
        raw.say(&get("web.shop", "/")).await;
        *counts.entry(raw.hear().await.1).or_default() += 1;
    }
    assert_eq!(counts, NAMES.map(|name| (name.to_owned(), 10)).into());
}

/// A key keeps its endpoint, also when another endpoint leaves; keys of the one that leaves move.
#[tokio::test]
async fn a_key_keeps_its_endpoint() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let mut servers = Vec::new();
    for name in NAMES {
        servers.push(failing(name, 500, 0).await.0);
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    for (text, field) in [("hash:header:x-user", "x-user: KEY"), ("hash:cookie:lane", "cookie: a=1; lane=KEY")] {
        let address = fed.http_with("web.shop", CalledPolicy::default(), balance(text), &addresses).await;
        let mut raw = Raw::to(address).await;
        let mut places = Vec::new();
        for round in 0..3 {
            if round == 2 {
                let left = addresses[1..].iter().map(|address| endpoint(*address)).collect();
                fed.push_endpoints("web.shop", address.port(), maesh_config::model::Protocol::Http, left).await;
            }
            let mut place = Vec::new();
            for key in 0..40 {
                let field = field.replace("KEY", &format!("user-{key}"));
                raw.say(&format!("GET / HTTP/1.1\r\nHost: web.shop\r\n{field}\r\n\r\n")).await;
                place.push(raw.hear().await.1);
            }
            places.push(place);
        }
        let used: BTreeSet<_> = places[0].iter().collect();
        assert_eq!(used.len(), NAMES.len(), "{text}: keys are spread");
        assert_eq!(places[0], places[1], "{text}");
        for (key, (before, after)) in places[1].iter().zip(&places[2]).enumerate() {
            assert!(
                if before == "a" { after != "a" } else { after == before },
                "{text}: {key} from {before} to {after}"
            );
        }
    }
}

#[tokio::test]
async fn a_sticky_cookie_leads_back() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let mut servers = Vec::new();
    for name in NAMES {
        servers.push(failing(name, 500, 0).await.0);
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let address = fed.http_with("web.shop", CalledPolicy::default(), balance("sticky:lane"), &addresses).await;
    let mut raw = Raw::to(address).await;
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        raw.say(&get("web.shop", "/")).await;
        let (head, name) = raw.hear().await;
        let cookie = head.split("set-cookie: ").nth(1).and_then(|rest| rest.split(';').next()).expect("a cookie");
        assert!(cookie.starts_with("lane="), "{head}");
        let with = format!("GET / HTTP/1.1\r\nHost: web.shop\r\nCookie: {cookie}\r\n\r\n");
        for _ in 0..5 {
            raw.say(&with).await;
            let (head, again) = raw.hear().await;
            assert_eq!(again, name);
            assert!(!head.contains("set-cookie"), "{head}");
        }
        seen.insert(name);
    }
    assert!(seen.len() > 1, "{seen:?}");
    // Its endpoint is gone: another one, and another cookie.
    raw.say("GET / HTTP/1.1\r\nHost: web.shop\r\nCookie: lane=0123456789abcdef\r\n\r\n").await;
    assert!(raw.hear().await.0.contains("set-cookie: lane="));
}
