//! HTTP: from the bytes of a caller's connection to an endpoint and back.
//!
//! A request passes `route` (which port of which Service), then the policies, then `send`: `balance` picks an
//! endpoint, `pool` lends a connection to it, `retry` decides whether a failure may be tried elsewhere. `headers` is
//! what a proxy must change on the way, `answer` what the mesh says by itself.
//!
//! A policy that may refuse a request is one module with one function, called from [`server`]'s `pipeline` between
//! routing and sending.

mod answer;
pub(crate) mod balance;
mod body;
mod caller;
mod headers;
mod hops;
mod pool;
mod retry;
mod route;
mod send;
mod server;
mod socket;
mod upgrade;
mod upstream;
mod wire;

pub(crate) use answer::last_words;
pub(crate) use caller::{Caller, Stage};
pub(crate) use pool::{Pools, Warm, sweep};
pub(crate) use route::{Host, find as find_called, named, port_on};
pub(crate) use send::{dial, meant_for, speaks_http2};
pub(crate) use server::serve;
pub(crate) use socket::run_outbox;
