//! Policies by annotation: what a caller and an endpoint see of each, and of a port without it.

mod balance;
mod limits;
mod other_services;
mod retries;
mod timeouts;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{Request, Response};
use hyper::body::Incoming;

use crate::support::endpoints::{self, Server, full};

/// Counts the requests of an endpoint.
#[derive(Clone, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Counts one more; returns how many there were before.
    fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// An endpoint that answers its first `failures` requests with `status`, then 200 with its name.
pub(crate) async fn failing(name: &'static str, status: u16, failures: usize) -> (Server, Count) {
    let count = Count::default();
    let counted = count.clone();
    let server = endpoints::serve(false, move |_: Request<Incoming>| {
        let status = if counted.add() < failures { status } else { 200 };
        async move { Response::builder().status(status).body(full(name)).expect("a response") }
    })
    .await;
    (server, count)
}
