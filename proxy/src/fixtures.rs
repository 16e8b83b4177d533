//! What unit tests of several rooms are made of.

use std::{net::SocketAddr, time::Duration};

use maesh_config::model::{BackendPolicy, Balance, Endpoint, Scheme};

/// HTTP by the usual policy, with at most so many requests in flight.
pub(crate) fn policy(concurrency: u32) -> BackendPolicy {
    BackendPolicy {
        scheme: Scheme::Http,
        balance: Balance::P2c,
        local_only: false,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: None,
        concurrency,
        not_understood: None,
    }
}

/// A ready endpoint at 10.0.0.`last`, meant for everybody.
pub(crate) fn endpoint(last: u8, port: u16) -> Endpoint {
    Endpoint {
        address: SocketAddr::from(([10, 0, 0, last], port)),
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
    }
}
