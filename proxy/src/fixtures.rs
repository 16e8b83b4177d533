//! What unit tests of several rooms are made of.

use std::{net::SocketAddr, sync::Arc};

use maesh_config::model::{BackendPolicy, Endpoint};

/// HTTP by the usual policy, with at most so many requests in flight.
pub(crate) fn policy(concurrency: u32) -> Arc<BackendPolicy> {
    Arc::new(BackendPolicy { concurrency, idle_timeout: None, ..BackendPolicy::default() })
}

/// A ready endpoint at 10.0.0.`last`, meant for everybody.
pub(crate) fn endpoint(last: u8, port: u16) -> Endpoint {
    Endpoint {
        address: SocketAddr::from(([10, 0, 0, last], port)),
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        account: None,
        hints: None,
    }
}
