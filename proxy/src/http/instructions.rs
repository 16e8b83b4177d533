//! Finding what a request is for, changing its fields, and the policies that need them, for [`crate::instructions`].

use std::{hint::black_box, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use maesh_config::{
    model::Protocol,
    policy::{RateLimit, RateLimitBy},
};

use super::{headers, hops, policy::rate_limit, route};
use crate::{
    fields::{AddedFields, Present},
    instructions::{MeasuredMesh, Part, Step, draw},
    policy::Limiter,
    routes::RouteFacts,
    state::{PortLookup, Target, ready_port},
};

/// The parts.
pub(crate) const PARTS: &[Part] = &[
    Part { name: "route: mesh name", prepare: || routing(|service| format!("{service}.shop.maesh")) },
    Part { name: "route: Service of the caller's namespace", prepare: || routing(|service| service) },
    Part { name: "route: claimed host", prepare: || routing(|service| format!("eu.{service}.example.com")) },
    Part { name: "fields: request", prepare: || fields(false) },
    Part { name: "fields: request of a trusted hop", prepare: || fields(true) },
    Part { name: "fields: response", prepare: response_fields },
    Part { name: "rate limit: known caller", prepare: || limiting(1_000, 1_000_000) },
    Part { name: "rate limit: new caller", prepare: || limiting(u64::MAX, 1_000_000) },
    Part { name: "rate limit: refusal", prepare: || limiting(1, 1) },
];

/// From `Host` to the backend: three weighted ones, of 1,024 Services of which 64 are in use.
fn routing(host: fn(String) -> String) -> Step {
    let mesh = MeasuredMesh::new();
    let mut step = 0;
    Box::new(move |counted| {
        step += 1;
        let (host, draw) = (host(MeasuredMesh::used(step)), draw(step));
        counted(&mut || {
            let facts = mesh.listening.facts.load();
            let named = route::named(&mesh.shared, &facts, Some(host.as_bytes()), mesh.caller);
            let Ok((called, number)) = named else { panic!("{host} names nothing") };
            let ready = ready_port(&mesh.shared, &called, number, Protocol::Http);
            let Some(PortLookup::Port(port)) = ready else { panic!("{host} is not in force") };
            let route = port.route(|| RouteFacts::of_connection("", mesh.caller));
            let Target::Backend(backend) = port.pick(route, draw) else { panic!("{host} has no backend") };
            black_box(backend);
        });
    })
}

/// What a request's fields go through on their way, without an upgrade.
fn fields(trusted: bool) -> Step {
    let mut before = request();
    if trusted {
        before.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.7, 192.0.2.8"));
        before.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    }
    Box::new(move |counted| {
        let (mut fields, mut added) = (before.clone(), AddedFields::new());
        let host = fields[header::HOST].clone();
        let forwarded = headers::Forwarded {
            caller: &HeaderValue::from_static("10.1.0.1"),
            trusted,
            websocket: false,
            host: Some(&host),
            port: &HeaderValue::from_static("80"),
        };
        counted(&mut || {
            let present = Present::of(&fields);
            hops::count(&mut fields, present, &mut added).expect("the first proxy");
            headers::strip_hop_by_hop(&mut fields, false);
            headers::forward(&mut fields, present, &forwarded, &mut added);
            black_box((&mut fields, &mut added));
        });
    })
}

fn response_fields() -> Step {
    let before = map(&[
        ("date", "Fri, 01 Jan 2027 00:00:00 GMT"),
        ("server", "nginx"),
        ("content-type", "application/json"),
        ("content-length", "128"),
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=75"),
        ("cache-control", "no-store"),
        ("etag", "\"65920080-80\""),
    ]);
    Box::new(move |counted| {
        let mut fields = before.clone();
        counted(&mut || headers::strip_hop_by_hop(black_box(&mut fields), false));
    })
}

/// A limit by caller: `callers` take turns, and each may send `burst` requests at once.
fn limiting(callers: u64, burst: u32) -> Step {
    let limiter = Limiter::default();
    let limit = RateLimit { average: 1, burst, by: RateLimitBy::Source };
    let (fields, now) = (request(), 1_000_000_000);
    let caller = move |step: u64| IpAddr::from(((0x0a01 << 16) + (step % callers) as u32).to_be_bytes());
    // Those that are known have a bucket before anything is counted.
    for known in 0..callers.min(1_000) {
        let _ = rate_limit::check(&limiter, &limit, caller(known), &fields, now);
    }
    let mut step = 1_000;
    Box::new(move |counted| {
        step += 1;
        let caller = caller(step);
        counted(&mut || assert_eq!(rate_limit::check(&limiter, &limit, caller, &fields, now).is_ok(), burst > 1));
    })
}

/// The fields of a request as a browser's script sends it through a few libraries.
fn request() -> HeaderMap {
    map(&[
        ("host", "web-16.shop.maesh"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "application/json, text/plain, */*"),
        ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("authorization", "Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl"),
        ("cookie", "session=0123456789abcdef; theme=dark"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-request-id", "5f2b7c1e-8d3a-4c7e-9a54-0d1f6b2c3e4a"),
        ("connection", "keep-alive"),
    ])
}

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let field = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    fields.iter().copied().map(field).collect()
}
