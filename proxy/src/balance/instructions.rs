//! Picking an endpoint, for [`crate::instructions`].

use std::{hint::black_box, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, header};
use maesh_config::{
    ServiceName,
    model::{BackendPolicy, Balance},
};

use super::{Affinity, BackendPort, Locality, hash::of_endpoint, pick};
use crate::access::{AccessFacts, Admitted};
use crate::fields::AddedFields;
use crate::instructions::{Part, Step, draw, endpoint};

/// The parts.
pub(crate) const PARTS: &[Part] = &[
    Part { name: "balance: p2c among 3", prepare: || picking("p2c", 3) },
    Part { name: "balance: p2c among 100", prepare: || picking("p2c", 100) },
    Part { name: "balance: least requests among 10", prepare: || picking("least-request", 10) },
    Part { name: "balance: round-robin among 10", prepare: || picking("round-robin", 10) },
    Part { name: "balance: hash of the source among 10", prepare: || picking("hash:source", 10) },
    Part { name: "balance: hash of a field among 10", prepare: || picking("hash:header:x-user", 10) },
    Part { name: "balance: sticky cookie among 10", prepare: || picking("sticky:at", 10) },
];

/// Milliseconds of the proxy's clock; the endpoints answered a second ago.
const NOW: u32 = 20_000;

/// From the request's head to the endpoint. All endpoints are usable and none has failed.
fn picking(balance: &str, endpoints: u16) -> Step {
    let balance: Balance = balance.parse().expect("a strategy");
    let backend = BackendPort::new(ServiceName::new("shop", "web"), Arc::default());
    let facts: Vec<_> = (0..endpoints).map(endpoint).collect();
    let policy = Arc::new(BackendPolicy { balance, ..BackendPolicy::default() });
    backend.replace(policy, (&facts, &AccessFacts::default()), &Locality::default(), 0);
    for (place, candidate) in backend.upstreams.load().usable.iter().enumerate() {
        candidate.endpoint.latency.record(NOW - 1_000, Duration::from_micros(500 + 100 * place as u64));
    }
    let (mut step, added) = (0, AddedFields::new());
    Box::new(move |counted| {
        step += 1;
        let draw = draw(step);
        let caller = IpAddr::from((0x0a01_0000 + (step % 250) as u32).to_be_bytes());
        let mut head = HeaderMap::new();
        head.insert("x-user", HeaderValue::from(draw));
        let number = of_endpoint(facts[draw as usize % facts.len()].address);
        let cookie = format!("session=0123456789abcdef; theme=dark; at={number:016x}");
        head.insert(header::COOKIE, HeaderValue::try_from(cookie).expect("a value"));
        counted(&mut || {
            let upstreams = backend.upstreams.load();
            let affinity = Affinity::of_request(&upstreams.policy.balance, caller, &head, &added);
            assert!(black_box(pick(&upstreams, caller, affinity, || None, (&[], &Admitted::All), NOW, draw)).is_some());
        });
    })
}
