//! HTTP: from the bytes of a caller's connection to an endpoint and back.
//!
//! [`server`] turns a connection into exchanges, [`pipeline`] is the way of one, step by step: `check`, `route`, the policies,
//! `send`. `balance` picks an endpoint, `pool` lends a connection to it, `retry` decides whether a failure may be tried
//! elsewhere. `headers` is what a proxy must change on the way, `answer` what the mesh says by itself, `exchange` the
//! record of it all.
//!
//! A policy that may refuse a request is one module with one function, called from [`pipeline`].

mod answer;
pub(crate) mod balance;
mod body;
mod buffers;
mod caller;
mod check;
mod exchange;
mod headers;
mod hops;
mod pipeline;
mod pool;
mod retry;
mod route;
mod send;
mod server;
mod share;
mod silence;
mod socket;
mod upgrade;
mod upstream;

pub(crate) use answer::last_words;
pub(crate) use buffers::Buffers;
pub(crate) use caller::{Caller, Stage};
pub(crate) use pool::{Pools, Warm, sweep};
pub(crate) use route::{Host, find as find_called, named, port_on};
pub(crate) use send::{dial, meant_for, speaks_http2};
pub(crate) use server::serve;
pub(crate) use share::Shares;
pub(crate) use socket::run_outbox;
